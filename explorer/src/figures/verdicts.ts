/** What a detector says of pictures: p(fake) against the thresholds of their folds. */

import type { Detector } from "../data/run";

export const PHOTOGRAPH = 0;
export const GENERATED = 1;
/** No score, or no threshold for it. */
export const NONE = 2;

/** Thresholds in a cell by fold, NaN where a fold has none; `folds` is the number of folds. */
export function foldThresholds(detector: Detector, cell: string, folds: number): Float64Array {
  const given = detector.thresholds[cell] ?? {};
  return Float64Array.from({ length: folds }, (_, fold) => given[fold] ?? NaN);
}

/** One of PHOTOGRAPH, GENERATED and NONE for each picture. */
export function verdicts(scores: Float64Array, folds: Int32Array, thresholds: Float64Array): Uint8Array {
  const said = new Uint8Array(scores.length);
  for (let row = 0; row < scores.length; row++) {
    const score = scores[row]!;
    const threshold = thresholds[folds[row]!] ?? NaN;
    said[row] = score >= threshold ? GENERATED : score < threshold ? PHOTOGRAPH : NONE;
  }
  return said;
}

/** How far each score lies from its fold's threshold, 0..1; NaN where either is missing. */
export function margins(scores: Float64Array, folds: Int32Array, thresholds: Float64Array): Float64Array {
  return scores.map((score, row) => Math.abs(score - (thresholds[folds[row]!] ?? NaN)));
}
