/** Thumbnails as addresses of blobs: fetched when wanted, neighbours together, the oldest given back. */

import type { Host } from "./host";
import { merge, type Request } from "./ranges";

/** Bytes of pictures that are kept, those in sight aside. */
const MOST_KEPT = 24_000_000;
/** What lies between two pieces may be fetched with them, and how much comes at once, in bytes. */
const GAP = 8_192;
const MOST_AT_ONCE = 262_144;
const REQUESTS = 6;

export interface Places {
  /** Which file; -1 without a thumbnail. */
  readonly files: Int32Array;
  readonly offsets: Int32Array;
  readonly lengths: Int32Array;
}

interface Kept {
  readonly url: string;
  readonly bytes: number;
}

interface Task extends Request {
  readonly file: number;
}

export class Thumbnails {
  private readonly kept = new Map<number, Kept>();
  private readonly failed = new Set<number>();
  private readonly running = new Set<number>();
  private readonly wanted = new Map<string, readonly number[]>();
  private queue: Task[] = [];
  private busy = 0;
  private bytes = 0;

  /**
   * `arrived` is called with rows that are known since: `get` then has their address, or null. The files are called
   * `name`.
   */
  constructor(
    private readonly host: Host,
    private readonly places: Places,
    private readonly arrived: (rows: readonly number[]) => void,
    private readonly name: string,
    private readonly mostKept = MOST_KEPT,
  ) {}

  /** The address of a picture's thumbnail; null where there is none, undefined where it has not come. */
  get(row: number): string | null | undefined {
    if (this.places.files[row]! < 0 || this.failed.has(row)) return null;
    return this.kept.get(row)?.url;
  }

  /** Fetch these rows' thumbnails, in place of what the same part of the page wanted before and has not been asked for. */
  want(part: string, rows: readonly number[]): void {
    this.wanted.set(part, rows);
    const byFile = new Map<number, { row: number; start: number; end: number }[]>();
    for (const row of this.wantedRows()) {
      if (this.get(row) !== undefined || this.running.has(row)) {
        this.freshen(row);
        continue;
      }
      const [file, start] = [this.places.files[row]!, this.places.offsets[row]!];
      const pieces = byFile.get(file) ?? [];
      byFile.set(file, pieces);
      pieces.push({ row, start, end: start + this.places.lengths[row]! });
    }
    this.queue = [...byFile].flatMap(([file, pieces]) => merge(pieces, GAP, MOST_AT_ONCE).map((request) => ({ ...request, file })));
    this.work();
  }

  private wantedRows(): Set<number> {
    return new Set([...this.wanted.values()].flat());
  }

  private freshen(row: number): void {
    const kept = this.kept.get(row);
    if (!kept) return;
    this.kept.delete(row);
    this.kept.set(row, kept);
  }

  private work(): void {
    while (this.busy < REQUESTS) {
      const task = this.queue.shift();
      if (!task) return;
      this.busy++;
      for (const { row } of task.pieces) this.running.add(row);
      void this.fetch(task).then(() => {
        this.busy--;
        for (const { row } of task.pieces) this.running.delete(row);
        this.makeRoom();
        this.arrived(task.pieces.map(({ row }) => row));
        this.work();
      });
    }
  }

  private async fetch({ file, start, end, pieces }: Task): Promise<void> {
    let body: ArrayBuffer;
    try {
      body = await this.host.piece(`data/${this.name}-${file}.bin`, start, end);
    } catch {
      for (const { row } of pieces) this.failed.add(row);
      return;
    }
    for (const piece of pieces) {
      const bytes = body.slice(piece.start - start, piece.end - start);
      if (bytes.byteLength < piece.end - piece.start || bytes.byteLength === 0) {
        this.failed.add(piece.row);
        continue;
      }
      const url = URL.createObjectURL(new Blob([bytes], { type: "image/webp" }));
      this.kept.set(piece.row, { url, bytes: bytes.byteLength });
      this.bytes += bytes.byteLength;
    }
  }

  private makeRoom(): void {
    const wanted = this.wantedRows();
    for (const [row, { url, bytes }] of this.kept) {
      if (this.bytes <= this.mostKept) return;
      if (wanted.has(row)) continue;
      URL.revokeObjectURL(url);
      this.kept.delete(row);
      this.bytes -= bytes;
    }
  }
}
