/** The ROC curve: false alarms against pictures found, at every threshold. */

export interface Roc {
  /** Share of photographs called generated, rising from 0 to 1. */
  readonly falseAlarms: Float64Array;
  /** Share of generated pictures found, beside `falseAlarms`. */
  readonly found: Float64Array;
  /** Area under the curve, ties count half; NaN where a class is empty. */
  readonly auroc: number;
}

/** Scores by class, ascending, of the pictures that take part and have one. */
export function scoresByClass(scores: Float64Array, truth: Uint8Array, takesPart: Uint8Array): [Float64Array, Float64Array] {
  const counts = [0, 0];
  const both = [new Float64Array(scores.length), new Float64Array(scores.length)] as const;
  for (let row = 0; row < scores.length; row++) {
    const score = scores[row]!;
    if (takesPart[row] === 0 || Number.isNaN(score)) continue;
    const label = truth[row] as 0 | 1;
    both[label][counts[label]!++] = score;
  }
  return [both[0].subarray(0, counts[0]).sort(), both[1].subarray(0, counts[1]).sort()];
}

/** The curve of two classes' ascending scores: a point for every score at which it turns. */
export function roc(photographs: Float64Array, generated: Float64Array): Roc {
  const falseAlarms = [0];
  const found = [0];
  let [left, right] = [photographs.length, generated.length];
  let area = 0;
  while (left > 0 || right > 0) {
    const score = Math.max(photographs[left - 1] ?? -Infinity, generated[right - 1] ?? -Infinity);
    const [leftBefore, rightBefore] = [left, right];
    while (left > 0 && photographs[left - 1] === score) left--;
    while (right > 0 && generated[right - 1] === score) right--;
    area += (leftBefore - left) * (generated.length - (rightBefore + right) / 2);
    push((photographs.length - left) / photographs.length, (generated.length - right) / generated.length);
  }
  return {
    falseAlarms: Float64Array.from(falseAlarms),
    found: Float64Array.from(found),
    auroc: area / (photographs.length * generated.length),
  };

  function push(x: number, y: number): void {
    const last = falseAlarms.length - 1;
    const straight =
      last > 0 &&
      ((falseAlarms[last] === x && falseAlarms[last - 1] === x) || (found[last] === y && found[last - 1] === y));
    if (straight) {
      falseAlarms[last] = x;
      found[last] = y;
    } else {
      falseAlarms.push(x);
      found.push(y);
    }
  }
}
