/** What the Evaluate screen says of many answers. */

import type { Answer } from "../network/decision";

/** `label` is `real`, a source's name, `fake` for a generator that has no name, or null where the truth is not known. */
export interface Sample {
  readonly file: string;
  readonly label: string | null;
}

export interface Measured {
  readonly sample: Sample;
  readonly model: string;
  readonly answer: Answer;
  readonly graphMs: number;
  readonly decodeMs: number;
}

/** A file that could not be read, or that is too small for one of the models, and why. */
export interface Unread {
  readonly sample: Sample;
  /** The one that it is too small for; null where none could read it. */
  readonly model: string | null;
  readonly reason: string;
}

export interface Times {
  readonly mean: number;
  readonly median: number;
  readonly p95: number;
  readonly total: number;
}

export const PHOTOGRAPH = "real";
export const SOME_GENERATOR = "fake";
export const NO_ANSWER = "no-answer";

/** Statistics of times; quantiles interpolate linearly between order statistics. All NaN but the total for no times. */
export function times(values: readonly number[]): Times {
  const sorted = [...values].sort((a, b) => a - b);
  const total = sorted.reduce((sum, value) => sum + value, 0);
  return { mean: total / sorted.length, median: quantile(sorted, 0.5), p95: quantile(sorted, 0.95), total };
}

function quantile(sorted: readonly number[], share: number): number {
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? NaN;
  const above = sorted[Math.ceil(place)] ?? NaN;
  return below + (above - below) * (place - Math.floor(place));
}

/**
 * How many pictures are labelled, of how many of these the answer is right, and how many of all were answered. What is too
 * small for a model got no answer from it.
 */
export function accuracy(rows: readonly Measured[], tooSmall: readonly Unread[] = []) {
  const labelled = rows.filter((row) => row.sample.label !== null);
  const right = labelled.filter(({ sample, answer }) => answer.verdict === (sample.label === PHOTOGRAPH ? "photograph" : "generated"));
  return {
    right: right.length,
    labelled: labelled.length + tooSmall.filter((each) => each.sample.label !== null).length,
    answered: rows.filter(({ answer }) => isAnswer(answer)).length,
    all: rows.length + tooSmall.length,
  };
}

export interface Confusion {
  readonly columns: readonly string[];
  readonly rows: readonly { readonly label: string; readonly counts: readonly number[] }[];
}

/** Labels against what was said: `real`, each generator of the model, no answer. */
export function confusion(rows: readonly Measured[], classes: readonly string[]): Confusion {
  const columns = [...classes, NO_ANSWER];
  const labels = [...new Set(rows.flatMap(({ sample }) => (sample.label === null ? [] : [sample.label])))];
  const place = (label: string) => (classes.includes(label) ? classes.indexOf(label) : classes.length);
  labels.sort((a, b) => place(a) - place(b) || a.localeCompare(b));
  return {
    columns,
    rows: labels.map((label) => {
      const said = rows.filter((row) => row.sample.label === label).map((row) => saidOf(row.answer, classes));
      return { label, counts: columns.map((column) => said.filter((each) => each === column).length) };
    }),
  };
}

/** The folder names that label a picture, nearest first. */
export function labelOf(path: string, classes: readonly string[]): string | null {
  const folders = path.split("/").slice(0, -1).reverse();
  const known = [PHOTOGRAPH, SOME_GENERATOR, ...classes];
  return folders.find((folder) => known.includes(folder)) ?? null;
}

function saidOf(answer: Answer, classes: readonly string[]): string {
  if (!isAnswer(answer)) return NO_ANSWER;
  // A model that does not tell generators apart names none.
  return answer.verdict === "photograph" ? PHOTOGRAPH : (answer.source ?? classes[1]!);
}

function isAnswer({ verdict }: Answer): boolean {
  return verdict === "photograph" || verdict === "generated";
}

/** One line per picture and model, and one per file that could not be read, or not by a model. */
export function csv(rows: readonly Measured[], unread: readonly Unread[]): string {
  const classes = [...new Set(rows.flatMap((row) => Object.keys(row.answer.probabilities)))];
  const header = [
    ...["file", "label", "model", "verdict", "source", "p_fake", "threshold", "photograph_threshold", "kind"],
    ...classes.map((name) => `p(${name})`),
    ...["graph_ms", "decode_ms", "error"],
  ];
  const lines = rows.map(({ sample, model, answer, graphMs, decodeMs }) => [
    ...[sample.file, sample.label, model, answer.verdict, answer.source, answer.pFake, answer.threshold, answer.photographThreshold, answer.kind.cell],
    ...classes.map((name) => answer.probabilities[name]),
    ...[graphMs, decodeMs, null],
  ]);
  const failed = unread.map(({ sample, model, reason }) => [
    ...[sample.file, sample.label, model, ...new Array<null>(6 + classes.length + 2).fill(null), reason],
  ]);
  return [header, ...lines, ...failed].map((line) => line.map(field).join(",") + "\r\n").join("");
}

function field(value: string | number | null | undefined): string {
  const text = value === null || value === undefined ? "" : String(value);
  // A spreadsheet would take a name that starts like a formula for one.
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
