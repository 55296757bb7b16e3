/** Several pictures at once: a list of what was said of each, to be sorted, opened and saved. */

import { download, h, icon } from "../dom";
import { csv, type Measured, type Unread } from "../evaluate/statistics";
import { texts } from "../texts";
import { fileName } from "./brought";
import { headline, scale, type Said } from "./verdict";

const t = texts.many;

export type Order = "given" | "probability" | "name";

/** What came of one file: an answer with a picture to show, or why there is none. */
export interface Row {
  readonly file: Blob;
  readonly name: string;
  readonly said: Said | null;
  readonly thumbnail: HTMLElement | null;
  readonly measured: Measured | null;
  readonly unread: (Unread & { readonly words: string }) | null;
}

/** A file's name, or its place where it has none. */
export function nameInList(file: Blob, index: number): string {
  return fileName(file) ?? t.unnamed(index + 1);
}

/** Rows in an order; of equally probable ones, and of unreadable ones at the end, in that in which they came. */
export function sorted<T extends Pick<Row, "name" | "said">>(rows: readonly T[], order: Order): T[] {
  const probability = (row: T) => row.said?.pFake ?? -1;
  const compare: Record<Order, (a: T, b: T) => number> = {
    given: () => 0,
    probability: (a, b) => probability(b) - probability(a),
    name: (a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }),
  };
  return [...rows].sort(compare[order]);
}

export class ManyList {
  readonly element: HTMLElement;
  private readonly rows: { row: Row; item: HTMLElement }[] = [];
  private readonly list = h("ul", { class: "entries many" });
  private readonly order: HTMLSelectElement;
  private readonly save: HTMLButtonElement;
  private readonly stopping: HTMLButtonElement;

  private isRunning = true;

  /** A list of so many pictures. */
  constructor(
    private readonly total: number,
    private readonly open: (file: Blob) => void,
    stop: () => void,
  ) {
    this.order = h(
      "select",
      { id: "order", change: () => this.arrange() },
      ...(["given", "probability", "name"] as const).map((order) => h("option", { value: order }, t.orders[order])),
    );
    this.save = h("button", { class: "button", type: "button", id: "save-list", click: () => this.download() }, icon("save"), texts.evaluate.csv);
    this.stopping = h("button", { class: "button", type: "button", id: "stop-list", click: stop }, texts.evaluate.stop);
    this.element = h(
      "div",
      { class: "list" },
      h("div", { class: "toolbar" }, h("label", { class: "field inline" }, h("span", {}, t.order), this.order), this.stopping, this.save),
      this.list,
    );
  }

  add(row: Row): void {
    const item = this.item(row);
    this.rows.push({ row, item });
    this.list.append(item);
  }

  /** Every picture has been looked at, or no more will be. */
  end(): void {
    this.isRunning = false;
    this.stopping.hidden = true;
    this.arrange();
  }

  /** How far it is, and once it has ended how many there are of which verdict. */
  status(): string {
    if (this.isRunning) return texts.evaluate.progress(this.rows.length, this.total);
    const verdicts = this.rows.map(({ row }) => row.said?.verdict);
    const [generated, photographs] = (["generated", "photograph"] as const).map((verdict) => verdicts.filter((each) => each === verdict).length) as [number, number];
    // What is too small for the model could be read all the same.
    const unread = this.rows.filter(({ row }) => row.unread?.model === null).length;
    return t.summary(this.rows.length, generated, photographs, this.rows.length - generated - photographs - unread, unread);
  }

  private arrange(): void {
    const byName = this.rows.map(({ row, item }) => ({ name: row.name, said: row.said, item }));
    this.list.replaceChildren(...sorted(byName, this.order.value as Order).map(({ item }) => item));
  }

  private item({ file, name, said, thumbnail, unread }: Row): HTMLElement {
    return h(
      "li",
      { class: "card entry", "data-file": name, "data-said": said?.verdict ?? "unread" },
      thumbnail ?? h("span", { class: "no-picture", "aria-hidden": "true" }),
      h(
        "div",
        {},
        said
          ? h("button", { class: "file", type: "button", click: () => this.open(file) }, name)
          : h("p", { class: "file" }, name),
        said && h("p", { class: `said ${said.verdict}` }, ...headline(said)),
        said && scale(said),
        unread && h("p", { class: "unread" }, unread.words),
      ),
    );
  }

  private download(): void {
    const rows = this.rows.map(({ row }) => row);
    const measured = rows.flatMap((row) => (row.measured ? [row.measured] : []));
    const unread = rows.flatMap((row) => (row.unread ? [row.unread] : []));
    download("telltale.csv", new Blob([csv(measured, unread)], { type: "text/csv" }));
  }
}
