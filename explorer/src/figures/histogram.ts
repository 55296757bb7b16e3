/** How many scores lie where. */

/** Counts of scores 0..1 in `bins` equal bins; a score of 1 is in the last. */
export function histogram(scores: Float64Array, bins: number): Uint32Array {
  const counts = new Uint32Array(bins);
  for (const score of scores) counts[Math.min(bins - 1, Math.max(0, Math.floor(score * bins)))]!++;
  return counts;
}
