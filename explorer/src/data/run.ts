/** What there is in a run: run.json. */

import { Damaged, NewerRun, TooMany } from "./problems";
import type { ViewFiles } from "./views";
import type { WordFiles } from "./words";

export const VERSION = 1;
export const MOST_PICTURES = 10_000_000;
export const RUN_FILE = "data/run.json";

export interface Cell {
  readonly name: string;
  readonly resolution: string;
  readonly perturbation: string;
  /** Below data/. */
  readonly file: string;
}

export interface Detector {
  readonly name: string;
  readonly title: string;
  readonly role: string;
  /** By resolution and fold, on p(fake). */
  readonly thresholds: Readonly<Record<string, Readonly<Record<string, number | null>>>>;
}

export interface Source {
  readonly name: string;
  readonly generated: boolean;
  /** The source whose pictures these are: another name for photographs that took another's encoding. */
  readonly of: string;
}

export interface Mix {
  readonly name: string;
  readonly real: readonly string[];
  readonly fakes: readonly string[];
}

export interface Run {
  readonly name: string;
  readonly experiment: string;
  readonly path: string;
  readonly pictures: number;
  readonly cells: readonly Cell[];
  readonly detectors: readonly Detector[];
  readonly sources: readonly Source[];
  readonly mixes: readonly Mix[];
  readonly formats: readonly string[];
  readonly thumbnails: number;
  readonly words: WordFiles;
  /** Null where no picture has any. */
  readonly views: ViewFiles | null;
}

/** Read run.json's content. Throws NewerRun, TooMany or Damaged. */
export function readRun(raw: unknown): Run {
  const run = record(raw, "it");
  const version = count(run["version"], "version");
  if (version > VERSION) throw new NewerRun(version);
  const pictures = count(run["pictures"], "pictures");
  if (pictures > MOST_PICTURES) throw new TooMany(pictures, MOST_PICTURES);
  const read: Run = {
    name: text(run["run"], "run"),
    experiment: text(run["experiment"], "experiment"),
    path: typeof run["path"] === "string" ? run["path"] : "",
    pictures,
    cells: list(run["cells"], "cells").map(readCell),
    detectors: list(run["detectors"], "detectors").map(readDetector),
    sources: list(run["sources"], "sources").map(readSource),
    mixes: list(run["mixes"], "mixes").map(readMix),
    formats: list(run["formats"], "formats").map((format) => text(format, "formats")),
    thumbnails: count(run["thumbnails"], "thumbnails"),
    words: readWords(run["words"]),
    views: readViews(run["views"]),
  };
  for (const part of ["cells", "detectors", "sources", "mixes"] as const) {
    if (read[part].length === 0) throw new Damaged(RUN_FILE, `no ${part}`);
  }
  return read;
}

function readCell(raw: unknown): Cell {
  const cell = record(raw, "cells");
  return {
    name: text(cell["name"], "cells.name"),
    resolution: text(cell["resolution"], "cells.resolution"),
    perturbation: text(cell["perturbation"], "cells.perturbation"),
    file: text(cell["file"], "cells.file"),
  };
}

function readDetector(raw: unknown): Detector {
  const detector = record(raw, "detectors");
  const name = text(detector["name"], "detectors.name");
  return {
    name,
    title: typeof detector["title"] === "string" && detector["title"] ? detector["title"] : name,
    role: text(detector["role"], "detectors.role"),
    thresholds: record(detector["thresholds"], "detectors.thresholds") as Detector["thresholds"],
  };
}

function readSource(raw: unknown): Source {
  const source = record(raw, "sources");
  const name = text(source["name"], "sources.name");
  if (source["label"] !== 0 && source["label"] !== 1) throw new Damaged(RUN_FILE, "sources.label is neither 0 nor 1");
  return { name, generated: source["label"] === 1, of: typeof source["of"] === "string" ? source["of"] : name };
}

function readMix(raw: unknown): Mix {
  const mix = record(raw, "mixes");
  const names = (part: string) => list(mix[part], `mixes.${part}`).map((name) => text(name, `mixes.${part}`));
  return { name: text(mix["name"], "mixes.name"), real: names("real"), fakes: names("fakes") };
}

function readWords(raw: unknown): WordFiles {
  const words = record(raw, "words");
  return { files: count(words["files"], "words.files"), pictures: count(words["pictures"], "words.pictures") };
}

function readViews(raw: unknown): ViewFiles | null {
  const views = record(raw, "views");
  const read = { rows: count(views["rows"], "views.rows"), pictures: count(views["pictures"], "views.pictures") };
  return read.rows === 0 ? null : read;
}

function record(raw: unknown, what: string): Record<string, unknown> {
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) throw new Damaged(RUN_FILE, `${what} is no object`);
  return raw as Record<string, unknown>;
}

function list(raw: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(raw)) throw new Damaged(RUN_FILE, `${what} is no list`);
  return raw;
}

function text(raw: unknown, what: string): string {
  if (typeof raw !== "string") throw new Damaged(RUN_FILE, `${what} is no text`);
  return raw;
}

function count(raw: unknown, what: string): number {
  if (!Number.isSafeInteger(raw) || (raw as number) < 0) throw new Damaged(RUN_FILE, `${what} is no count`);
  return raw as number;
}
