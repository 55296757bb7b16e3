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

/** Top and left of a window, uniform over a picture's places by hash of the picture's size and the window's number. */
export async function windowPlace(index: number, height: number, width: number, side: number): Promise<[number, number]> {
  const name = new TextEncoder().encode(`window:${index}:${width}x${height}`);
  const digest = new DataView(await crypto.subtle.digest("SHA-256", name));
  const place = (offset: number, length: number) => Number((digest.getBigUint64(offset) * BigInt(length - side + 1)) >> 64n);
  return [place(0, height), place(8, width)];
}

/** The windows that are wanted of a picture, in order; none of a side that is longer than one of its own. */
export async function cutWindows(bitmap: ImageBitmap, wanted: readonly WindowsWanted[]): Promise<Window[]> {
  const { height, width } = bitmap;
  const found: Window[] = [];
  for (const { count, side } of wanted) {
    if (Math.min(height, width) < side) continue;
    const places = await Promise.all(Array.from({ length: count }, (_, index) => windowPlace(index, height, width, side)));
    const squares = readSquares(bitmap, places, side);
    found.push(...places.map(([top, left], index) => ({ side, top, left, pixels: squares[index]! })));
  }
  return found;
}
