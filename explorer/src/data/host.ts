/** Files of the run beside the page: by pieces where the host can, whole where it cannot. */

import type { AsyncBuffer } from "hyparquet";
import { Missing, Unreachable } from "./problems";

/** The end of a Parquet file with its footer and the places of its pages, in bytes. */
const TAIL = 32_768;
/** Whole files of thumbnails that are kept where there are no pieces, in bytes. */
const MOST_KEPT = 64_000_000;

export class Host {
  /** Whether the host sends pieces; null until it has been asked for one. */
  pieces: boolean | null = null;
  private readonly kept = new Map<string, Promise<ArrayBuffer>>();

  /** `root` is the folder's address with its last slash; `withoutPieces` is called once, if the host sends none. */
  constructor(
    private readonly root: string,
    private readonly withoutPieces: () => void = () => {},
  ) {}

  /** A JSON file. Throws Missing, Unreachable, or SyntaxError. */
  async json(path: string): Promise<unknown> {
    return JSON.parse(await (await this.get(path, null)).text());
  }

  /** A file to read slices of: its end comes at once, or all of it. */
  async open(path: string): Promise<AsyncBuffer> {
    if (this.pieces === false) return inMemory(await this.whole(path, false));
    const response = await this.get(path, `bytes=-${TAIL}`);
    const body = await response.arrayBuffer();
    const size = response.status === 206 ? sizeOf(response) : null;
    if (size === null) {
      this.lacksPieces();
      return inMemory(response.status === 206 ? await this.whole(path, false) : body);
    }
    this.pieces = true;
    const tail = size - body.byteLength;
    return {
      byteLength: size,
      slice: (start, end = size) =>
        start >= tail ? body.slice(start - tail, end - tail) : this.piece(path, start, Math.min(end, size)),
    };
  }

  /** Bytes `start` to before `end` of a file. */
  async piece(path: string, start: number, end: number): Promise<ArrayBuffer> {
    if (this.pieces !== false) {
      const response = await this.get(path, `bytes=${start}-${end - 1}`);
      const body = await response.arrayBuffer();
      if (response.status === 206 && body.byteLength <= end - start) return body;
      this.lacksPieces();
      if (response.status === 200) return body.slice(start, end);
    }
    return (await this.whole(path, true)).slice(start, end);
  }

  /** All of a file; with `keep`, it is not asked for again while there is room. */
  async whole(path: string, keep: boolean): Promise<ArrayBuffer> {
    const before = this.kept.get(path);
    if (before) return before;
    const body = this.get(path, null).then((response) => response.arrayBuffer());
    if (keep) {
      this.kept.set(path, body);
      body.then(() => this.makeRoom(), () => this.kept.delete(path));
    }
    return body;
  }

  private async makeRoom(): Promise<void> {
    let bytes = 0;
    // The newest are last.
    for (const [path, body] of [...this.kept].reverse()) {
      bytes += (await body.catch(() => new ArrayBuffer(0))).byteLength;
      if (bytes > MOST_KEPT) this.kept.delete(path);
    }
  }

  private lacksPieces(): void {
    if (this.pieces === false) return;
    this.pieces = false;
    this.withoutPieces();
  }

  private async get(path: string, range: string | null): Promise<Response> {
    let response: Response;
    try {
      response = await fetch(this.root + path, range ? { headers: { range } } : {});
    } catch {
      throw new Unreachable(path);
    }
    // Some hosts refuse pieces that are longer than the file.
    if (response.status === 416) return this.get(path, null);
    if (!response.ok) throw new Missing(path, response.status);
    return response;
  }
}

function sizeOf(response: Response): number | null {
  const size = /\/(\d+)$/.exec(response.headers.get("content-range") ?? "")?.[1];
  return size === undefined ? null : Number(size);
}

function inMemory(body: ArrayBuffer): AsyncBuffer {
  return { byteLength: body.byteLength, slice: (start, end) => body.slice(start, end) };
}
