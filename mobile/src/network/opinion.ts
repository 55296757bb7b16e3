/** What a network says of a picture: of all of it, or of its windows together (`mean_opinion` in `exported.py`). */

import type { RunReply } from "./protocol";

/** Where a network looked in the upright picture, in its original pixels; null for the central square of all of it. */
export type Place = { readonly top: number; readonly left: number; readonly side: number } | null;

/** How much each place speaks for each class: `sides[0] * sides[1]` values per class, class by class. */
export interface ActivationMap {
  readonly values: Float32Array;
  readonly sides: readonly [number, number];
  readonly place: Place;
}

export interface Opinion {
  readonly probabilities: Float32Array;
  readonly familiarity: Float32Array;
  readonly maps: readonly ActivationMap[];
  /** Of all that it was shown together. */
  readonly graphMs: number;
}

/** One opinion of all that a network was shown, the probabilities those of the mean logits; of one thing, its own. */
export function opinionOf(found: readonly RunReply[], places: readonly Place[], temperature: number): Opinion {
  const maps = found.map(({ activation, activationSides }, index) => {
    return { values: activation, sides: activationSides, place: places[index] ?? null };
  });
  const graphMs = found.reduce((sum, each) => sum + each.graphMs, 0);
  const [first] = found;
  if (first && found.length === 1) return { probabilities: first.probabilities, familiarity: first.familiarity, maps, graphMs };
  const logits = mean(found.map((each) => each.logits));
  const familiarity = Float32Array.from(mean(found.map((each) => each.familiarity)));
  return { probabilities: softmax(logits.map((logit) => logit / temperature)), familiarity, maps, graphMs };
}

/** Of rows of the same length, place by place, in double precision. */
function mean(rows: readonly Float32Array[]): number[] {
  return Array.from(rows[0] ?? [], (_, place) => rows.reduce((sum, row) => sum + row[place]!, 0) / rows.length);
}

function softmax(values: readonly number[]): Float32Array {
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((all, power) => all + power, 0);
  return Float32Array.from(powers, (power) => power / sum);
}
