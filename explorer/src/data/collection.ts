/** The run's pictures: every column is read once it is asked for. */

import type { Host } from "./host";
import { Damaged, Missing } from "./problems";
import { readRun, RUN_FILE, type Cell, type Detector, type Run } from "./run";
import { Table } from "./table";
import type { Places } from "./thumbnails";
import { ShownViews, type ViewFiles } from "./views";
import { Words } from "./words";

const PICTURES = "data/pictures.parquet";
const TEXTS = "data/texts.parquet";
const VIEWS = "data/views.parquet";
/** Columns of scores that are kept, in bytes; always the newest two. */
const MOST_SCORES = 64_000_000;
export const TEXT_COLUMNS = ["image_id", "group_id", "file", "prompt", "caption", "categories", "licence", "sha256"] as const;
export type TextColumn = (typeof TEXT_COLUMNS)[number];

export type IntegerColumn = "source" | "fold" | "group" | "width" | "height" | "bytes" | "format" | "jpeg_quality" | "thumbnail" | "offset" | "length";

/** A paired test of the report: `detector` at `perturbation` minus the other; null where it had none. */
export interface PairedTest {
  readonly resolution: string;
  readonly perturbation: string;
  readonly mix: string;
  readonly detector: string;
  readonly than_detector: string;
  readonly than_perturbation: string;
  readonly metric: string;
  readonly difference: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly p: number | null;
}

export class Collection {
  private readonly once = new Map<string, Promise<unknown>>();
  private readonly scoreColumns = new Map<string, Promise<Float64Array>>();

  private constructor(
    private readonly host: Host,
    readonly run: Run,
  ) {}

  /** Throws a Problem. */
  static async open(host: Host): Promise<Collection> {
    let raw: unknown;
    try {
      raw = await host.json(RUN_FILE);
    } catch (error) {
      if (error instanceof SyntaxError) throw new Damaged(RUN_FILE, error.message);
      throw error;
    }
    return new Collection(host, readRun(raw));
  }

  integers(name: IntegerColumn): Promise<Int32Array> {
    return this.keep(`pictures ${name}`, async () => {
      const column = await (await this.table(PICTURES)).integers(name);
      if (name === "source") this.checkSources(column);
      return column;
    });
  }

  async places(): Promise<Places> {
    const [files, offsets, lengths] = await Promise.all([this.integers("thumbnail"), this.integers("offset"), this.integers("length")]);
    return { files, offsets, lengths };
  }

  /** The shorter side of each picture, in pixels. */
  shorterSides(): Promise<Int32Array> {
    return this.keep("shorter sides", async () => {
      const [widths, heights] = await Promise.all([this.integers("width"), this.integers("height")]);
      return widths.map((width, row) => Math.min(width, heights[row]!));
    });
  }

  /** p(fake) of every picture; NaN where there is none. */
  async scores(cell: Cell, detector: Detector): Promise<Float64Array> {
    const key = `${cell.file} ${detector.name}`;
    let column = this.scoreColumns.get(key);
    this.scoreColumns.delete(key);
    column ??= this.scoreTable(cell).then((table) =>
      table.columns.includes(detector.name) ? table.numbers(detector.name) : new Float64Array(this.run.pictures).fill(NaN),
    );
    // The newest are last; what failed is tried anew.
    this.scoreColumns.set(key, column);
    column.catch(() => this.scoreColumns.delete(key));
    const most = Math.max(2, Math.floor(MOST_SCORES / (8 * this.run.pictures)));
    for (const old of [...this.scoreColumns.keys()].slice(0, -most)) this.scoreColumns.delete(old);
    return column;
  }

  /** p(fake) of one picture, by detector, in this cell; NaN where there is none. */
  async scoresOf(row: number, cell: Cell): Promise<number[]> {
    const table = await this.scoreTable(cell);
    return Promise.all(
      this.run.detectors.map(async (detector) => {
        const { name } = detector;
        if (!table.columns.includes(name)) return NaN;
        const known = this.scoreColumns.get(`${cell.file} ${name}`);
        if (known) return (await known)[row]!;
        // Without an index all of the column is read in any case: the next picture will need it, too.
        return table.isIndexed ? (await table.numbers(name, row, row + 1))[0]! : (await this.scores(cell, detector))[row]!;
      }),
    );
  }

  /** One picture's texts, empty where there are none. */
  async textsOf(row: number, columns: readonly TextColumn[] = TEXT_COLUMNS): Promise<Record<TextColumn, string>> {
    const table = await this.table(TEXTS);
    const values = await Promise.all(columns.map(async (name) => [name, (await table.texts(name, row, row + 1))[0]] as const));
    return Object.fromEntries(values) as Record<TextColumn, string>;
  }

  /** Names of pictures, for those that cannot be shown. */
  async idOf(row: number): Promise<string> {
    const table = await this.table(TEXTS);
    const [start, end] = table.groups.find(([first, after]) => first <= row && row < after)!;
    return (await this.keep(`ids ${start}`, () => table.texts("image_id", start, end)))[row - start]!;
  }

  /** What may be searched. */
  words(): Promise<Words> {
    return this.keep("words", () => Words.open(this.run.words, this.run.pictures, (path) => this.host.whole(path, false)));
  }

  /** The closer look that the run has of some pictures. */
  shownViews({ rows }: ViewFiles): Promise<ShownViews> {
    return this.keep("views", async () => {
      const table = await Table.open(this.host, VIEWS, rows);
      const [pictures, cells, detectors] = await Promise.all([table.integers("picture"), table.integers("cell"), table.integers("detector")]);
      const [files, offsets, lengths] = await Promise.all([table.integers("file"), table.integers("offset"), table.integers("length")]);
      this.checkPlaces("cell", cells, this.run.cells.length);
      this.checkPlaces("detector", detectors, this.run.detectors.length);
      return new ShownViews(pictures, cells, detectors, { files, offsets, lengths });
    });
  }

  /** The report's paired tests; none where the run has none. */
  pairedTests(): Promise<readonly PairedTest[]> {
    return this.keep("paired tests", async () => {
      try {
        const raw = await this.host.json("data/pairs.json");
        return Array.isArray(raw) ? (raw as PairedTest[]) : [];
      } catch (error) {
        if (error instanceof Missing || error instanceof SyntaxError) return [];
        throw error;
      }
    });
  }

  /** Of views: -1 is none. */
  private checkPlaces(name: string, column: Int32Array, known: number): void {
    const other = column.find((place) => place < -1 || place >= known);
    if (other !== undefined) throw new Damaged(VIEWS, `${name} ${other}, and ${RUN_FILE} has ${known}`);
  }

  private checkSources(column: Int32Array): void {
    const known = this.run.sources.length;
    const other = column.find((source) => source < 0 || source >= known);
    if (other !== undefined) throw new Damaged(PICTURES, `source ${other}, and ${RUN_FILE} has ${known}`);
  }

  private scoreTable(cell: Cell): Promise<Table> {
    return this.table(`data/${cell.file}`);
  }

  private table(path: string): Promise<Table> {
    return this.keep(`table ${path}`, () => Table.open(this.host, path, this.run.pictures));
  }

  private keep<T>(key: string, read: () => Promise<T>): Promise<T> {
    const before = this.once.get(key) as Promise<T> | undefined;
    if (before) return before;
    const reading = read();
    this.once.set(key, reading);
    // What failed is tried anew when it is asked for again.
    reading.catch(() => this.once.delete(key));
    return reading;
  }
}
