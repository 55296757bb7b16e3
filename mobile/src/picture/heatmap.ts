/** The class-activation map as colours over the central square of a picture. */

import type { Detection } from "../network/decision";

const FOR = [245, 130, 32] as const;
const AGAINST = [40, 110, 235] as const;
const STRONGEST = 0.68;

/** Evidence per place for one class, less the mean of all classes, over the largest magnitude: -1..1, row by row. */
export function evidence(found: Detection, index: number): Float32Array {
  const places = found.activationSides[0] * found.activationSides[1];
  const classes = found.activation.length / places;
  const relative = new Float32Array(places);
  let largest = 0;
  for (let place = 0; place < places; place++) {
    let mean = 0;
    for (let each = 0; each < classes; each++) mean += found.activation[each * places + place]! / classes;
    relative[place] = found.activation[index * places + place]! - mean;
    largest = Math.max(largest, Math.abs(relative[place]!));
  }
  return largest === 0 ? relative : relative.map((value) => value / largest);
}

/** RGBA bytes of an evidence map. */
export function colours(map: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const rgba = new Uint8ClampedArray(map.length * 4);
  map.forEach((value, place) => {
    rgba.set(value >= 0 ? FOR : AGAINST, place * 4);
    rgba[place * 4 + 3] = 255 * STRONGEST * Math.abs(value);
  });
  return rgba;
}
