/** Which pictures are shown, and in which order: row numbers, no object per row. */

import type { Class, ErrorKind, Range, Sort, State } from "../state";
import { PAIRS } from "./paired";
import { GENERATED, NONE, PHOTOGRAPH } from "./verdicts";

/** Columns of the run, one value a picture. What the state does not ask for may be missing. */
export interface Columns {
  readonly takesPart: Uint8Array;
  readonly truth: Uint8Array;
  readonly said: Uint8Array;
  readonly scores: Float64Array;
  readonly sources: Int32Array;
  readonly folds: Int32Array;
  readonly shorterSides?: Int32Array;
  readonly qualities?: Int32Array;
  readonly margins?: Float64Array;
  /** Whether its texts have the words that are sought: 1 or 0. */
  readonly found?: Uint8Array;
  /** When compared: of each picture the index in PAIRS, and the other p(fake). */
  readonly pairs?: Uint8Array;
  readonly otherScores?: Float64Array;
}

type Keep = (row: number) => boolean;

/** Rows that the state asks for, in the files' order. `sourceNames` are those that `columns.sources` counts. */
export function filtered(state: State, columns: Columns, sourceNames: readonly string[]): Uint32Array {
  const keeps = conditions(state, columns, sourceNames);
  const rows = new Uint32Array(columns.takesPart.length);
  let count = 0;
  next: for (let row = 0; row < rows.length; row++) {
    for (const keep of keeps) if (!keep(row)) continue next;
    rows[count++] = row;
  }
  return rows.slice(0, count);
}

function conditions(state: State, columns: Columns, sourceNames: readonly string[]): Keep[] {
  const { takesPart, truth, said, scores, sources, folds } = columns;
  const keeps: Keep[] = [(row) => takesPart[row] === 1, (row) => !Number.isNaN(scores[row])];
  if (state.truth) keeps.push(equals(truth, code(state.truth)));
  if (state.verdict) keeps.push(equals(said, code(state.verdict)));
  if (state.error) keeps.push(ofKind(state.error, truth, said));
  if (state.source) keeps.push(equals(sources, sourceNames.indexOf(state.source)));
  if (state.fold !== null) keeps.push(equals(folds, state.fold));
  if (state.p) keeps.push(within(scores, state.p));
  if (state.size && columns.shorterSides) keeps.push(within(columns.shorterSides, state.size));
  if (state.quality && columns.qualities) {
    const { qualities } = columns;
    // Those that are no JPEG have none.
    keeps.push((row) => qualities[row]! >= 0, within(qualities, state.quality));
  }
  if (columns.pairs && state.pair !== "all") {
    const { pairs } = columns;
    keeps.push(state.pair ? equals(pairs, PAIRS.indexOf(state.pair)) : (row) => pairs[row]! <= 1);
  }
  if (columns.found) keeps.push(equals(columns.found, 1));
  return keeps;
}

function code(name: Class): number {
  return name === "photograph" ? PHOTOGRAPH : GENERATED;
}

function equals(column: Uint8Array | Int32Array, value: number): Keep {
  return (row) => column[row] === value;
}

function within(column: Float64Array | Int32Array, [low, high]: Range): Keep {
  return (row) => column[row]! >= low && column[row]! <= high;
}

function ofKind(error: ErrorKind, truth: Uint8Array, said: Uint8Array): Keep {
  switch (error) {
    case "false-alarm":
      return (row) => truth[row] === PHOTOGRAPH && said[row] === GENERATED;
    case "missed":
      return (row) => truth[row] === GENERATED && said[row] === PHOTOGRAPH;
    case "mistake":
      return (row) => said[row] !== NONE && said[row] !== truth[row];
    case "right":
      return (row) => said[row] === truth[row];
  }
}

/** Sort rows in place by the state's order; equal ones stay in the files' order, those without a value come last. */
export function sorted(rows: Uint32Array, sort: Sort | null, columns: Columns): Uint32Array {
  const values = sort && valuesOf(sort, columns);
  if (!values) return rows;
  const sign = sort.startsWith("-") ? -1 : 1;
  const keys = new Float64Array(columns.scores.length);
  for (const row of rows) {
    const value = values(row);
    keys[row] = Number.isNaN(value) ? Infinity : sign * value;
  }
  return rows.sort((one, other) => {
    const [a, b] = [keys[one]!, keys[other]!];
    return a < b ? -1 : a > b ? 1 : one - other;
  });
}

function valuesOf(sort: Sort, columns: Columns): ((row: number) => number) | null {
  const { scores, otherScores, margins, shorterSides, qualities } = columns;
  switch (sort.replace("-", "")) {
    case "p":
      return (row) => scores[row]!;
    case "difference":
      return otherScores ? (row) => Math.abs(scores[row]! - otherScores[row]!) : null;
    case "margin":
      return margins ? (row) => margins[row]! : null;
    case "size":
      return shorterSides ? (row) => shorterSides[row]! : null;
    default:
      return qualities ? (row) => (qualities[row]! < 0 ? NaN : qualities[row]!) : null;
  }
}
