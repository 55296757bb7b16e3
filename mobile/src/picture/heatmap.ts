/** The class-activation map as colours over the places that were looked at. */

import type { ActivationMap } from "../network/opinion";

const FOR = [245, 130, 32] as const;
const AGAINST = [40, 110, 235] as const;
const STRONGEST = 0.68;

/** Evidence per place of each map for one class, less the mean of all classes, over the largest magnitude of all: -1..1. */
export function evidence(maps: readonly ActivationMap[], index: number): Float32Array[] {
  const found = maps.map((map) => relative(map, index));
  const largest = Math.max(...found.map((values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0)));
  return largest === 0 ? found : found.map((values) => values.map((value) => value / largest));
}

function relative({ values, sides }: ActivationMap, index: number): Float32Array {
  const places = sides[0] * sides[1];
  const classes = values.length / places;
  return Float32Array.from({ length: places }, (_, place) => {
    let mean = 0;
    for (let each = 0; each < classes; each++) mean += values[each * places + place]! / classes;
    return values[index * places + place]! - mean;
  });
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
