/** Past answers, in this browser's IndexedDB and nowhere else. */

import type { Answer, Verdict } from "../network/decision";

/** What there has been of an answer from the first versions on, and what came later. */
type KeptAnswer = Pick<Answer, "threshold" | "kind" | "falseAlarms" | "missed"> & Partial<Answer>;

/** What is missing was not kept by the versions of then. */
export interface Entry {
  readonly time: number;
  readonly thumbnail: Blob;
  readonly verdict: Verdict;
  readonly source: string | null;
  readonly sourceName?: string | null;
  readonly pFake: number;
  readonly isDemonstration?: boolean;
  readonly answer?: KeptAnswer;
  /** The picture's file, by name. */
  readonly file?: string | null;
  readonly model: string;
  readonly sha256: string;
}

export type Kept = Entry & { readonly id: number };

const DATABASE = "telltale";
const STORE = "history";

export async function addEntry(entry: Entry): Promise<void> {
  await on("readwrite", (store) => store.add(entry));
}

/** All entries, newest first. */
export async function entries(): Promise<Kept[]> {
  return ((await on("readonly", (store) => store.getAll())) as Kept[]).reverse();
}

export async function removeEntry(id: number): Promise<void> {
  await on("readwrite", (store) => store.delete(id));
}

export async function removeAll(): Promise<void> {
  await on("readwrite", (store) => store.clear());
}

async function on<T>(mode: IDBTransactionMode, action: (store: IDBObjectStore) => IDBRequest<T>): Promise<T> {
  const database = await open();
  try {
    const transaction = database.transaction(STORE, mode);
    const request = action(transaction.objectStore(STORE));
    await new Promise<void>((resolve, reject) => {
      transaction.addEventListener("complete", () => resolve());
      transaction.addEventListener("abort", () => reject(transaction.error ?? new Error("the history cannot be used")));
    });
    return request.result;
  } finally {
    database.close();
  }
}

function open(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const request = indexedDB.open(DATABASE, 1);
    request.addEventListener("upgradeneeded", () =>
      request.result.createObjectStore(STORE, { keyPath: "id", autoIncrement: true }),
    );
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error ?? new Error("the history cannot be opened")));
  });
}
