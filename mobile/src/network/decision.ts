/** The rule of every card, as `tasks/networks/answer.py` applies it. */

import type { PictureFacts } from "../picture/facts";
import { BadModel, GENERATED, SCORES, sideOf, type Card, type CellErrors, type Rate, type ScoreName } from "./card";

/** A network of three answers says `cannot-tell` where others say `unknown-source`, and between its two lines. */
export type Verdict = "photograph" | "generated" | "unknown-source" | "cannot-tell";

/** Pictures of an uncompressed cell have one JPEG encoding all the same, at the photographs' own quality. */
const UNCOMPRESSED_QUALITY = 90;

/** The threshold where a resolution's val pictures were of one class. */
const NO_THRESHOLD = 0.5;

/** What a network says of the pixels that it is shown; `activation` holds `side[0] * side[1]` places per class, class by class. */
export interface Detection {
  readonly probabilities: Float32Array;
  readonly familiarity: Float32Array;
  readonly activation: Float32Array;
  readonly activationSides: readonly [number, number];
}

/** The picture's own facts, and the nearest kind of picture that the network was tested in. */
export interface Kind {
  readonly shorterSide: number;
  readonly format: string;
  readonly jpegQuality: number | null;
  readonly testedSide: number;
  readonly testedQuality: number | null;
  readonly cell: string;
}

/**
 * `source` is the generator, null unless the verdict is `generated` by one of several. From `threshold` on `pFake` is
 * generated, below `photographThreshold` a photograph; the latter is null where every other picture is one.
 */
export interface Answer {
  readonly verdict: Verdict;
  /** Why there is no answer: the file's format was not tested, the picture is unlike what the network knows, or its p(fake) lies between the lines. */
  readonly reason: "format" | "unfamiliar" | "between" | null;
  readonly source: string | null;
  readonly pFake: number;
  readonly threshold: number;
  readonly photographThreshold: number | null;
  readonly probabilities: Readonly<Record<string, number>>;
  readonly familiarity: Readonly<Record<ScoreName, number>>;
  readonly kind: Kind;
  readonly falseAlarms: Rate;
  readonly missed: Rate;
  readonly missedUnknown: Rate | null;
  readonly photographsUndecided: Rate | null;
  readonly generatedUndecided: Rate | null;
}

/**
 * What a network's outputs mean for a picture of these facts.
 *
 * @throws BadModel outputs that are not finite, or not as many as there are classes
 */
export function answer(card: Card, facts: PictureFacts, found: Pick<Detection, "probabilities" | "familiarity">): Answer {
  const { classes, rejection } = card;
  const values = [...found.probabilities, ...found.familiarity];
  if (found.probabilities.length !== classes.length || found.familiarity.length !== SCORES.length) {
    throw new BadModel(`${card.name}: expected ${classes.length} probabilities, got ${found.probabilities.length}`);
  }
  if (!values.every(Number.isFinite)) throw new BadModel(`${card.name}: expected finite outputs, got ${values.join(", ")}`);
  const [max, energy, distance] = found.familiarity as unknown as [number, number, number];
  const familiarity = { "max-probability": max, energy, distance };
  const shorterSide = Math.min(facts.width, facts.height);
  const cell = nearestCell(card, shorterSide, facts.jpegQuality);
  const threshold = card.fakeThresholds[cell.resolution] ?? NO_THRESHOLD;
  const pFake = 1 - found.probabilities[0]!;
  const photographThreshold = card.photographThresholds[cell.resolution] ?? null;
  const isFamiliar = familiarity[rejection.score] >= rejection.threshold;
  const isTested = card.formats.length === 0 || card.formats.includes(facts.format);
  const verdict = isTested ? decide(pFake, threshold, photographThreshold, isFamiliar) : "cannot-tell";
  const tellsGenerators = !(classes.length === 2 && classes[1] === GENERATED);
  return {
    verdict,
    reason: verdict !== "cannot-tell" ? null : !isTested ? "format" : isFamiliar ? "between" : "unfamiliar",
    source: verdict === "generated" && tellsGenerators ? classes[1 + indexOfLargest(found.probabilities.subarray(1))]! : null,
    pFake,
    threshold,
    photographThreshold,
    probabilities: Object.fromEntries(classes.map((name, index) => [name, found.probabilities[index]!])),
    familiarity,
    kind: {
      shorterSide,
      format: facts.format,
      jpegQuality: facts.jpegQuality,
      testedSide: sideOf(card, cell.resolution),
      testedQuality: cell.jpegQuality,
      cell: cell.name,
    },
    falseAlarms: cell.falseAlarms,
    missed: cell.missed,
    missedUnknown: cell.missedUnknown,
    photographsUndecided: cell.photographsUndecided,
    generatedUndecided: cell.generatedUndecided,
  };
}

/** Unfamiliar pictures first, then p(fake) against its thresholds: the upper one itself is fake, the lower no photograph. */
export function decide(pFake: number, threshold: number, photographThreshold: number | null, isFamiliar: boolean): Verdict {
  if (!isFamiliar) return photographThreshold === null ? "unknown-source" : "cannot-tell";
  if (pFake >= threshold) return "generated";
  return pFake < (photographThreshold ?? threshold) ? "photograph" : "cannot-tell";
}

/**
 * The cell that a picture resembles: first by size, compared by ratio, then, of those of that size, by quality, where
 * an uncompressed cell and a picture that is no JPEG count as quality 90. Of equally near cells the larger or finer.
 * Only comparable cells are considered, because a file does not tell what else happened to a picture before it was saved.
 */
export function nearestCell(card: Card, shorterSide: number, jpegQuality: number | null): CellErrors {
  const comparable = card.errorRates.filter((cell) => cell.isComparable);
  const { resolution } = nearest(
    comparable,
    (cell) => Math.log(sideOf(card, cell.resolution)),
    Math.log(shorterSide),
  );
  return nearest(
    comparable.filter((cell) => cell.resolution === resolution),
    (cell) => cell.jpegQuality ?? UNCOMPRESSED_QUALITY,
    jpegQuality ?? UNCOMPRESSED_QUALITY,
  );
}

function nearest<T>(candidates: readonly T[], placeOf: (candidate: T) => number, place: number): T {
  return candidates.reduce((best, candidate) => {
    const [near, far] = [Math.abs(placeOf(candidate) - place), Math.abs(placeOf(best) - place)];
    return near < far || (near === far && placeOf(candidate) > placeOf(best)) ? candidate : best;
  });
}

function indexOfLargest(values: Float32Array): number {
  return values.reduce((best, value, index) => (value > values[best]! ? index : best), 0);
}
