/** A Parquet file of the run, read by columns and only where asked for. */

import { parquetMetadataAsync, parquetScan, parquetSchema, type AsyncBuffer, type DecodedArray, type FileMetaData } from "hyparquet";
import type { Host } from "./host";
import { Damaged, OtherRows, Problem } from "./problems";

/** As much of a file's end as `Host.open` has fetched: asking for more would be another request. */
const FOOTER = 32_768;

export class Table {
  readonly columns: readonly string[];

  private constructor(
    private readonly path: string,
    private readonly file: AsyncBuffer,
    private readonly metadata: FileMetaData,
    readonly rows: number,
  ) {
    this.columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  }

  /** Throws Missing or Unreachable, Damaged, or OtherRows where it does not have `rows` rows. */
  static async open(host: Host, path: string, rows: number): Promise<Table> {
    const file = await host.open(path);
    const metadata = await understood(path, parquetMetadataAsync(file, { initialFetchSize: FOOTER, geoparquet: false }));
    const found = Number(metadata.num_rows);
    if (found !== rows) throw new OtherRows(path, found, rows);
    return new Table(path, file, metadata, rows);
  }

  /** A column of whole numbers; -1 where it has none. */
  async integers(name: string): Promise<Int32Array> {
    const column = new Int32Array(this.rows);
    await this.read(name, 0, this.rows, (values, start) => {
      if (values instanceof Int32Array) column.set(values, start);
      else for (let index = 0; index < values.length; index++) column[start + index] = (values[index] as number | null) ?? -1;
    });
    return column;
  }

  /** A column of numbers; NaN where it has none. */
  async numbers(name: string, start = 0, end = this.rows): Promise<Float64Array> {
    const column = new Float64Array(end - start);
    await this.read(name, start, end, (values, from) => {
      if (values instanceof Float64Array) column.set(values, from - start);
      else for (let index = 0; index < values.length; index++) column[from - start + index] = (values[index] as number | null) ?? NaN;
    });
    return column;
  }

  /** Texts of rows `start` to before `end`; empty where there are none. */
  async texts(name: string, start: number, end: number): Promise<string[]> {
    const column = new Array<string>(end - start).fill("");
    await this.read(name, start, end, (values, from) => {
      for (let index = 0; index < values.length; index++) {
        const value = values[index] as string | number | bigint | null | undefined;
        if (value !== null && value !== undefined) column[from - start + index] = String(value);
      }
    });
    return column;
  }

  /** Which rows lie together, as [first, after the last]. */
  get groups(): readonly (readonly [number, number])[] {
    let start = 0;
    return this.metadata.row_groups.map(({ num_rows }) => [start, (start += Number(num_rows))] as const);
  }

  /** Whether a few rows of a column can be read without all of it. */
  get isIndexed(): boolean {
    return this.metadata.row_groups.every(({ columns }) => columns.every(({ offset_index_offset }) => offset_index_offset));
  }

  private async read(name: string, start: number, end: number, take: (values: DecodedArray, start: number) => void): Promise<void> {
    if (!this.columns.includes(name)) throw new Damaged(this.path, `no column ${name}`);
    // A scan keeps what it has read, so that each has its own; page indexes, where the file has them, spare most of a column.
    const scan = await understood(this.path, parquetScan({ file: this.file, metadata: this.metadata, columns: [name] }));
    for (const { rowStart, rowEnd } of scan.ranges) {
      const [from, to] = [Math.max(rowStart, start), Math.min(rowEnd, end)];
      if (from >= to) continue;
      const values = await understood(this.path, scan.readColumn({ column: name, rowStart: from, rowEnd: to }));
      if (values.length !== to - from) throw new Damaged(this.path, `${values.length} values of ${to - from} in ${name}`);
      take(values, from);
    }
  }
}

async function understood<T>(path: string, reading: Promise<T>): Promise<T> {
  try {
    return await reading;
  } catch (error) {
    if (error instanceof Problem) throw error;
    throw new Damaged(path, error instanceof Error ? error.message : String(error));
  }
}
