/** What is looked at, and its form in the address: a link shows another person the same. */

import type { Run } from "./data/run";
import { PAIRS, type Pair } from "./figures/paired";

export const ERRORS = ["false-alarm", "missed", "mistake", "right"] as const;
export type ErrorKind = (typeof ERRORS)[number];
export const CLASSES = ["photograph", "generated"] as const;
export type Class = (typeof CLASSES)[number];
/** A leading minus puts the largest first; without any the pictures stay in the files' order. */
export const SORTS = ["-p", "p", "-margin", "margin", "-difference", "-size", "size", "-quality", "quality"] as const;
export type Sort = (typeof SORTS)[number];
export type Range = readonly [number, number];
export const RANGES = ["p", "quality", "size"] as const;

export interface State {
  readonly cell: string;
  readonly detector: string;
  readonly mix: string;
  readonly error: ErrorKind | null;
  readonly truth: Class | null;
  readonly verdict: Class | null;
  readonly source: string | null;
  readonly fold: number | null;
  readonly q: string;
  readonly p: Range | null;
  readonly quality: Range | null;
  /** Of the shorter side, in pixels. */
  readonly size: Range | null;
  /** In place of the folds' own. */
  readonly threshold: number | null;
  readonly sort: Sort | null;
  /** A detector, or a cell, to compare with. */
  readonly than: string | null;
  /** When compared: which pictures; null are those of which one alone is right. */
  readonly pair: Pair | "all" | null;
  /** The row of the picture that is open. */
  readonly picture: number | null;
}

/** What is shown when nothing is asked for: the false alarms of the first detector in the first cell, surest first. */
export function firstView(run: Run): State {
  return { ...nothingAsked(run), error: "false-alarm", sort: "-p" };
}

function nothingAsked(run: Run): State {
  const detector = run.detectors.find(({ role }) => role === "detector") ?? run.detectors[0]!;
  return {
    ...{ cell: run.cells[0]!.name, detector: detector.name, mix: run.mixes[0]!.name },
    ...{ error: null, truth: null, verdict: null, source: null, fold: null, q: "" },
    ...{ p: null, quality: null, size: null, threshold: null, sort: null, than: null, pair: null, picture: null },
  };
}

/** The state that an address asks for, and those of its parts that this run cannot show (as `name=value`). */
export function parse(query: string, run: Run): { state: State; unknown: string[] } {
  const asked = new URLSearchParams(query);
  if ([...asked].length === 0) return { state: firstView(run), unknown: [] };
  const unknown: string[] = [];
  const one = <T>(name: string, read: (value: string) => T | null): T | null => {
    const value = asked.get(name);
    if (value === null || value === "") return null;
    const read_ = read(value);
    if (read_ === null) unknown.push(`${name}=${value}`);
    return read_;
  };
  const among = <T extends string>(names: readonly T[]) => (value: string): T | null => names.find((name) => name === value) ?? null;
  const names = (items: readonly { readonly name: string }[]) => items.map(({ name }) => name);
  const [cells, detectors] = [names(run.cells), names(run.detectors)];
  const usual = nothingAsked(run);
  const state: State = {
    cell: one("cell", among(cells)) ?? usual.cell,
    detector: one("detector", among(detectors)) ?? usual.detector,
    mix: one("mix", among(names(run.mixes))) ?? usual.mix,
    error: one("error", among(ERRORS)),
    truth: one("truth", among(CLASSES)),
    verdict: one("verdict", among(CLASSES)),
    source: one("source", among(names(run.sources))),
    fold: one("fold", whole),
    q: asked.get("q") ?? "",
    p: one("p", range),
    quality: one("quality", range),
    size: one("size", range),
    threshold: one("threshold", share),
    sort: one("sort", among(SORTS)),
    than: one("than", among([...detectors, ...cells])),
    pair: one("pair", among([...PAIRS, "all"] as const)),
    picture: one("picture", (value) => (Number(value) < run.pictures ? whole(value) : null)),
  };
  return { state: settled(state), unknown };
}

/** A state without what contradicts itself: nothing is compared with itself. */
export function settled(state: State): State {
  const than = state.than === state.cell || state.than === state.detector ? null : state.than;
  const sort = than === null && state.sort === "-difference" ? null : state.sort;
  return { ...state, than, sort, pair: than === null ? null : state.pair };
}

/** The query of an address, with its question mark. */
export function format(state: State): string {
  const parts: string[] = [];
  for (const [name, value] of Object.entries(state) as [keyof State, State[keyof State]][]) {
    if (value === null || value === "") continue;
    const text = Array.isArray(value) ? formatRange(value as unknown as Range) : String(value);
    parts.push(`${name}=${encodeURIComponent(text).replaceAll("%2F", "/")}`);
  }
  return `?${parts.join("&")}`;
}

/** `0.5..1`, an open end left out. */
export function formatRange([low, high]: Range): string {
  const end = (value: number) => (Number.isFinite(value) ? String(value) : "");
  return `${end(low)}..${end(high)}`;
}

function range(value: string): Range | null {
  const found = /^(-?[\d.e-]*)\.\.(-?[\d.e-]*)$/i.exec(value);
  if (!found) return null;
  const [low, high] = [found[1] ? Number(found[1]) : -Infinity, found[2] ? Number(found[2]) : Infinity];
  return low <= high && (found[1] || found[2]) ? [low, high] : null;
}

function whole(value: string): number | null {
  return /^\d+$/.test(value) ? Number(value) : null;
}

function share(value: string): number | null {
  const number = Number(value);
  return number >= 0 && number <= 1 ? number : null;
}
