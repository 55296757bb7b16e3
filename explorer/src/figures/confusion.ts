/** Counts of verdicts against the truth, and what follows from them. */

import { NONE } from "./verdicts";

export interface Confusion {
  /** [truth][verdict], 0 photograph and 1 generated. */
  readonly counts: readonly [readonly [number, number], readonly [number, number]];
  /** Pictures without a verdict. */
  readonly without: number;
  readonly mistakes: number;
  /** Of photographs, the share that was called generated; NaN without photographs. */
  readonly falseAlarms: number;
  /** Of generated pictures, the share that was found; NaN without any. */
  readonly found: number;
  /** Mean of both classes' shares of right answers, 0..1; NaN where a class is empty. */
  readonly balancedAccuracy: number;
}

/** Count `said` against `truth` (0 photograph, 1 generated) where `takesPart` is 1. */
export function confusion(truth: Uint8Array, said: Uint8Array, takesPart: Uint8Array): Confusion {
  const counts: [[number, number], [number, number]] = [[0, 0], [0, 0]];
  let without = 0;
  for (let row = 0; row < said.length; row++) {
    if (takesPart[row] === 0) continue;
    const verdict = said[row]!;
    if (verdict === NONE) without++;
    else counts[truth[row] as 0 | 1][verdict as 0 | 1]++;
  }
  const falseAlarms = counts[0][1] / (counts[0][0] + counts[0][1]);
  const found = counts[1][1] / (counts[1][0] + counts[1][1]);
  return {
    counts,
    without,
    mistakes: counts[0][1] + counts[1][0],
    falseAlarms,
    found,
    balancedAccuracy: (1 - falseAlarms + found) / 2,
  };
}
