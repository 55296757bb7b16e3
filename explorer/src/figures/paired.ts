/** Two answers to the same pictures: which one is right where the other is wrong. */

import { NONE } from "./verdicts";

/** What two answers are to a picture: `first` alone is right, `second` alone is, `both` are, `neither` is. */
export const PAIRS = ["first", "second", "both", "neither"] as const;
export type Pair = (typeof PAIRS)[number];

/** Not comparable: one of them has no verdict. */
const APART = PAIRS.length;

/** For each picture the index in PAIRS, or one more where a verdict is missing. */
export function pairs(truth: Uint8Array, first: Uint8Array, second: Uint8Array): Uint8Array {
  const found = new Uint8Array(truth.length);
  for (let row = 0; row < truth.length; row++) {
    const [one, other] = [first[row], second[row]];
    if (one === NONE || other === NONE) found[row] = APART;
    else found[row] = one === truth[row] ? (other === truth[row] ? 2 : 0) : other === truth[row] ? 1 : 3;
  }
  return found;
}

/** How often each of PAIRS occurs where `takesPart` is 1. */
export function countPairs(found: Uint8Array, takesPart: Uint8Array): Record<Pair, number> {
  const counts = new Array<number>(APART + 1).fill(0);
  for (let row = 0; row < found.length; row++) if (takesPart[row] === 1) counts[found[row]!]!++;
  return Object.fromEntries(PAIRS.map((pair, index) => [pair, counts[index]])) as Record<Pair, number>;
}

/**
 * McNemar's exact test, two-sided: the probability of a split of `first` + `second` discordant pictures that is at least
 * as uneven, were both equally likely (McNemar 1947; the binomial test of one half). 1 without discordant pictures.
 */
export function mcnemar(first: number, second: number): number {
  const all = first + second;
  const fewer = Math.min(first, second);
  // C(all, k) / 2^all for k = fewer, fewer - 1, ..., relative to the first: each from the one before.
  let [term, sum] = [1, 1];
  for (let k = fewer; k > 0 && term > sum * 1e-17; k--) {
    term *= k / (all - k + 1);
    sum += term;
  }
  return Math.min(1, 2 * sum * Math.exp(logChoose(all, fewer) - all * Math.LN2));
}

function logChoose(n: number, k: number): number {
  let sum = 0;
  for (let i = 1; i <= k; i++) sum += Math.log((n - k + i) / i);
  return sum;
}
