/** What a state shows: its pictures and its figures. */

import type { Collection } from "./data/collection";
import type { Cell, Detector, Mix } from "./data/run";
import { filtered, sorted, type Columns } from "./figures/choose";
import { confusion, type Confusion } from "./figures/confusion";
import { histogram } from "./figures/histogram";
import { countPairs, pairs, type Pair } from "./figures/paired";
import { roc, scoresByClass, type Roc } from "./figures/roc";
import { foldThresholds, margins, verdicts } from "./figures/verdicts";
import type { State } from "./state";

export const BINS = 50;

/** Figures that no threshold changes. */
interface Curves {
  readonly roc: Roc;
  /** Of photographs and of generated pictures. */
  readonly histograms: readonly [Uint32Array, Uint32Array];
  readonly counts: readonly [number, number];
}

/** The other side of a comparison. */
export interface Other {
  readonly cell: Cell;
  readonly detector: Detector;
  readonly counts: Readonly<Record<Pair, number>>;
}

/** What the other side is compared with. */
interface Side {
  readonly cell: Cell;
  readonly detector: Detector;
  readonly folds: Int32Array;
  readonly foldCount: number;
  readonly truth: Uint8Array;
  readonly said: Uint8Array;
}

export interface View {
  readonly state: State;
  readonly cell: Cell;
  readonly detector: Detector;
  readonly mix: Mix;
  /** Row numbers in the order in which they are shown. */
  readonly rows: Uint32Array;
  readonly columns: Columns;
  readonly confusion: Confusion;
  readonly curves: Curves;
  /** The folds' own, without those that have none. */
  readonly ownThresholds: readonly number[];
  readonly folds: number;
  readonly other: Other | null;
}

/** Looks at one collection; keeps what the next state may need again. */
export class Viewer {
  private readonly curvesOf = new Map<string, Curves>();
  private truth: Uint8Array | null = null;

  constructor(private readonly collection: Collection) {}

  /** Throws a Problem. */
  async look(state: State): Promise<View> {
    const { run } = this.collection;
    const cell = run.cells.find(({ name }) => name === state.cell)!;
    const detector = run.detectors.find(({ name }) => name === state.detector)!;
    const mix = run.mixes.find(({ name }) => name === state.mix)!;
    const [sources, folds, scores, asked] = await Promise.all([
      this.collection.integers("source"),
      this.collection.integers("fold"),
      this.collection.scores(cell, detector),
      this.asked(state),
    ]);
    this.truth ??= truthOf(sources, run.sources);
    const truth = this.truth;
    const foldCount = folds.reduce((most, fold) => Math.max(most, fold + 1), 0);
    const thresholds = this.thresholds(detector, cell, foldCount, state.threshold);
    const said = verdicts(scores, folds, thresholds);
    const takesPart = partOf(mix, sources, run.sources);
    const otherSide = await this.otherSide(state.than, { cell, detector, folds, foldCount, truth, said });
    const columns: Columns = {
      ...{ takesPart, truth, said, scores, sources, folds, ...asked },
      ...(state.sort?.endsWith("margin") ? { margins: margins(scores, folds, thresholds) } : {}),
      ...(otherSide ? { pairs: otherSide.pairs, otherScores: otherSide.scores } : {}),
    };
    const rows = filtered(state, columns, run.sources.map(({ name }) => name));
    return {
      ...{ state, cell, detector, mix, columns, folds: foldCount },
      rows: sorted(rows, state.sort, columns),
      confusion: confusion(truth, said, takesPart),
      curves: this.curves([cell.name, detector.name, mix.name].join("\n"), scores, truth, takesPart),
      ownThresholds: [...this.thresholds(detector, cell, foldCount, null)].filter((threshold) => !Number.isNaN(threshold)),
      other: otherSide && { cell: otherSide.cell, detector: otherSide.detector, counts: countPairs(otherSide.pairs, takesPart) },
    };
  }

  /** Columns that only some states need. */
  private async asked(state: State): Promise<Partial<Columns>> {
    const asked = async <T>(wanted: boolean, read: () => Promise<T>) => (wanted ? read() : undefined);
    const sought = state.q.trim().toLowerCase();
    const [shorterSides, qualities, words] = await Promise.all([
      asked(state.size !== null || !!state.sort?.endsWith("size"), () => this.collection.shorterSides()),
      asked(state.quality !== null || !!state.sort?.endsWith("quality"), () => this.collection.integers("jpeg_quality")),
      asked(sought !== "", () => this.collection.words()),
    ]);
    return { ...(shorterSides && { shorterSides }), ...(qualities && { qualities }), ...(words && { found: words.search(sought) }) };
  }

  private thresholds(detector: Detector, cell: Cell, folds: number, chosen: number | null): Float64Array {
    return chosen === null ? foldThresholds(detector, cell.name, folds) : new Float64Array(folds).fill(chosen);
  }

  private async otherSide(than: string | null, first: Side) {
    if (than === null) return null;
    const { run } = this.collection;
    const cell = run.cells.find(({ name }) => name === than) ?? first.cell;
    const detector = run.detectors.find(({ name }) => name === than) ?? first.detector;
    const scores = await this.collection.scores(cell, detector);
    // A threshold that was moved is moved on one side only.
    const said = verdicts(scores, first.folds, this.thresholds(detector, cell, first.foldCount, null));
    return { cell, detector, scores, pairs: pairs(first.truth, first.said, said) };
  }

  private curves(key: string, scores: Float64Array, truth: Uint8Array, takesPart: Uint8Array): Curves {
    const before = this.curvesOf.get(key);
    if (before) return before;
    const [photographs, generated] = scoresByClass(scores, truth, takesPart);
    const curves: Curves = {
      roc: roc(photographs, generated),
      histograms: [histogram(photographs, BINS), histogram(generated, BINS)],
      counts: [photographs.length, generated.length],
    };
    this.curvesOf.set(key, curves);
    return curves;
  }
}

function truthOf(sources: Int32Array, known: readonly { readonly generated: boolean }[]): Uint8Array {
  return Uint8Array.from(sources, (source) => (known[source]?.generated ? 1 : 0));
}

function partOf(mix: Mix, sources: Int32Array, known: readonly { readonly name: string }[]): Uint8Array {
  const inMix = known.map(({ name }) => mix.real.includes(name) || mix.fakes.includes(name));
  return Uint8Array.from(sources, (source) => (inMix[source] ? 1 : 0));
}
