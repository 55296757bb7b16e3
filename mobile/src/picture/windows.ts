/** The windows of original pixels that some networks look at, as `tasks/networks/answer.py` draws them. */

import { readSquares } from "./read";

/** How many windows of how many pixels a side. */
export interface WindowsWanted {
  readonly count: number;
  readonly side: number;
}

/** A window of a picture: its top left corner in the upright picture, and its RGB bytes, row by row. */
export interface Window {
  readonly side: number;
  readonly top: number;
  readonly left: number;
  readonly pixels: Uint8Array;
}

/** As in Python: 2^64 over the plastic number, and over its square. */
const [DOWN, ACROSS] = [0xC13FA9A902A6328Fn, 0x91E10DA5C79E7B1Cn];

/** Top and left of so many windows of a picture: the first drawn by hash of its size, the others spread from there. */
export async function windowPlaces(height: number, width: number, side: number, count: number): Promise<[number, number][]> {
  const digest = new DataView(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(`windows:${width}x${height}`)));
  const [down, across] = [digest.getBigUint64(0), digest.getBigUint64(8)];
  const place = (drawn: bigint, length: number) => Number((BigInt.asUintN(64, drawn) * BigInt(length - side + 1)) >> 64n);
  return Array.from({ length: count }, (_, index) => {
    const steps = BigInt(index);
    return [place(down + steps * DOWN, height), place(across + steps * ACROSS, width)];
  });
}

/** The windows that are wanted of a picture, in order; none of a side that is longer than one of its own. */
export async function cutWindows(bitmap: ImageBitmap, wanted: readonly WindowsWanted[]): Promise<Window[]> {
  const { height, width } = bitmap;
  const found: Window[] = [];
  for (const { count, side } of wanted) {
    if (Math.min(height, width) < side) continue;
    const places = await windowPlaces(height, width, side, count);
    const squares = readSquares(bitmap, places, side);
    found.push(...places.map(([top, left], index) => ({ side, top, left, pixels: squares[index]! })));
  }
  return found;
}
