/** The pixels of a bitmap, RGB, read through a canvas; what is transparent lies on white. */

import { BadPicture } from "./facts";

/** Pixels of one band of rows, and the widest piece of it that is drawn at once. */
const BAND_PIXELS = 2 ** 21;
const TILE_WIDTH = 4096;

/** `take` gets the RGB bytes of all rows, from the top, some rows at a time; they are its own only until it returns. */
export function readBands(bitmap: ImageBitmap, take: (band: Uint8Array) => void): void {
  const { height, width } = bitmap;
  const most = Math.min(height, Math.max(1, Math.floor(BAND_PIXELS / width)));
  const tileWidth = Math.min(width, TILE_WIDTH);
  const context = canvas(tileWidth, most);
  const band = new Uint8Array(most * width * 3);
  for (let top = 0; top < height; top += most) {
    const rows = Math.min(most, height - top);
    for (let left = 0; left < width; left += tileWidth) {
      const columns = Math.min(tileWidth, width - left);
      copyRgb(read(context, bitmap, top, left, columns, rows), columns, band, left, width);
    }
    take(band.subarray(0, rows * width * 3));
  }
}

/** The RGB bytes of squares of one side, row by row, by their top left corners. */
export function readSquares(bitmap: ImageBitmap, places: readonly (readonly [number, number])[], side: number): Uint8Array[] {
  const context = canvas(side, side);
  return places.map(([top, left]) => {
    const square = new Uint8Array(side * side * 3);
    copyRgb(read(context, bitmap, top, left, side, side), side, square, 0, side);
    return square;
  });
}

function canvas(width: number, height: number): OffscreenCanvasRenderingContext2D {
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true, colorSpace: "srgb" });
  if (!context) throw new BadPicture("out-of-memory", "the browser gives no canvas to read pixels from");
  return context;
}

function read(
  context: OffscreenCanvasRenderingContext2D,
  bitmap: ImageBitmap,
  top: number,
  left: number,
  columns: number,
  rows: number,
): Uint8ClampedArray {
  context.fillStyle = "white";
  context.fillRect(0, 0, columns, rows);
  context.drawImage(bitmap, left, top, columns, rows, 0, 0, columns, rows);
  return context.getImageData(0, 0, columns, rows).data;
}

function copyRgb(rgba: Uint8ClampedArray, columns: number, band: Uint8Array, left: number, width: number): void {
  const rows = rgba.length / (4 * columns);
  for (let row = 0; row < rows; row++) {
    let from = row * columns * 4;
    let to = (row * width + left) * 3;
    for (let column = 0; column < columns; column++, from += 4, to += 3) {
      band[to] = rgba[from]!;
      band[to + 1] = rgba[from + 1]!;
      band[to + 2] = rgba[from + 2]!;
    }
  }
}
