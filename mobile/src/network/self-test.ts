/** Whether this device computes what a network's card says, as `tasks/networks/exported.py` compares it. */

import type { Reference } from "./card";

/** What a network answers to the card's picture. */
export interface Found {
  readonly logits: ArrayLike<number>;
  readonly probabilities: ArrayLike<number>;
}

/** The largest difference to the card's answers, what it may be at most, and whether all are within that. */
export interface SelfTest {
  readonly passed: boolean;
  readonly difference: number;
  readonly tolerance: number;
}

/**
 * Compare probabilities, and logits as well: a network that is sure of the picture has the same probabilities for many
 * of them. Both may differ by the tolerance, times the largest of the card's where that is above 1. `difference` is that
 * of probabilities or logits, whichever is worse for what it may be, `tolerance` what it may be.
 */
export function compareWithCard(reference: Reference, found: Found): SelfTest {
  const compared = [
    compare(reference.probabilities, found.probabilities, reference.tolerance),
    compare(reference.logits, found.logits, reference.tolerance),
  ] as const;
  const worse = compared[0].difference / compared[0].tolerance >= compared[1].difference / compared[1].tolerance ? 0 : 1;
  return { ...compared[worse], passed: compared.every((each) => each.passed) };
}

function compare(expected: readonly number[], got: ArrayLike<number>, tolerance: number): SelfTest {
  const allowed = tolerance * Math.max(1, ...expected.map(Math.abs));
  const complete = expected.length > 0 && expected.length === got.length;
  const differences = complete ? expected.map((value, index) => Math.abs(value - got[index]!)) : [Infinity];
  // What is no number is as far away as can be; Math.max would say NaN, which no comparison finds too large.
  const difference = Math.max(...differences.map((value) => (Number.isNaN(value) ? Infinity : value)));
  return { passed: difference <= allowed, difference, tolerance: allowed };
}
