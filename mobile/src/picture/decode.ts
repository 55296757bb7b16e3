/** From a file to the pixels that a network gets, in a worker: decoded by the browser, read in tiles, reduced. */

import { mended } from "./ends";
import { BadPicture, inspectPicture, type PictureFacts } from "./facts";
import { LONGEST_SIDE, Reducer, reducedSides, SHORTEST_SIDE } from "./reduce";

export const MAX_BYTES = 2 ** 30;

/** Pixels of one band of rows, and the widest piece of it that is drawn at once. */
const BAND_PIXELS = 2 ** 21;
const TILE_WIDTH = 4096;

/** Times in milliseconds: `decodeMs` from bytes to a bitmap, `reduceMs` from the bitmap to the reduced pixels. */
export interface Decoded {
  readonly facts: PictureFacts;
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
  readonly decodeMs: number;
  readonly reduceMs: number;
}

/**
 * The picture upright, RGB, sides of 16..1,024 pixels. Transparency lies on white. Colours are sRGB: the browser
 * applies what the file says of them (a profile, or code points), as Python does.
 *
 * @throws BadPicture
 */
export async function decodePicture(file: Blob): Promise<Decoded> {
  if (file.size > MAX_BYTES) throw new BadPicture("too-large", `${file.size} bytes, more than ${MAX_BYTES}`);
  const start = performance.now();
  const bytes = new Uint8Array(await file.arrayBuffer());
  const facts = inspectPicture(bytes);
  if (Math.min(...reducedSides(facts.height, facts.width)) < SHORTEST_SIDE) {
    throw new BadPicture(
      "too-narrow",
      `${facts.width}x${facts.height}, under ${SHORTEST_SIDE} pixels with ${LONGEST_SIDE} in the longer side`,
    );
  }
  const whole = mended(bytes, facts.format);
  const bitmap = await bitmapOf(whole?.file ?? file);
  try {
    const decoded = performance.now();
    const [height, width] = reducedSides(bitmap.height, bitmap.width);
    const pixels = reducedPixels(bitmap);
    if (whole?.filled) await refuseOtherPixels(whole.filled, pixels);
    return {
      facts,
      pixels,
      height,
      width,
      decodeMs: decoded - start,
      reduceMs: performance.now() - decoded,
    };
  } finally {
    bitmap.close();
  }
}

/** A JPEG without its end is whole if what comes behind its data changes nothing. */
async function refuseOtherPixels(filled: Blob, pixels: Uint8Array): Promise<void> {
  const bitmap = await bitmapOf(filled);
  try {
    const others = reducedPixels(bitmap);
    if (pixels.some((level, place) => level !== others[place])) {
      throw new BadPicture("truncated", "the pixels of the JPEG break off");
    }
  } finally {
    bitmap.close();
  }
}

async function bitmapOf(file: Blob): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "default",
      premultiplyAlpha: "default",
    });
  } catch (error) {
    throw new BadPicture("unreadable", `the browser cannot decode it: ${String(error)}`);
  }
}

function reducedPixels(bitmap: ImageBitmap): Uint8Array {
  const { height, width } = bitmap;
  const bandHeight = Math.min(height, Math.max(1, Math.floor(BAND_PIXELS / width)));
  const tileWidth = Math.min(width, TILE_WIDTH);
  const context = new OffscreenCanvas(tileWidth, bandHeight).getContext("2d", {
    willReadFrequently: true,
    colorSpace: "srgb",
  });
  if (!context) throw new BadPicture("out-of-memory", "the browser gives no canvas to read pixels from");
  const reducer = new Reducer(height, width);
  const band = new Uint8Array(bandHeight * width * 3);
  for (let top = 0; top < height; top += bandHeight) {
    const rows = Math.min(bandHeight, height - top);
    for (let left = 0; left < width; left += tileWidth) {
      const columns = Math.min(tileWidth, width - left);
      context.fillStyle = "white";
      context.fillRect(0, 0, columns, rows);
      context.drawImage(bitmap, left, top, columns, rows, 0, 0, columns, rows);
      copyRgb(context.getImageData(0, 0, columns, rows).data, columns, band, left, width);
    }
    reducer.add(band.subarray(0, rows * width * 3));
  }
  return reducer.finish();
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
