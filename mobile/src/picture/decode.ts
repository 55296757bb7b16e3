/** From a file to the pixels that a network gets, in a worker: decoded by the browser, read in tiles, reduced. */

import { mended } from "./ends";
import { BadPicture, inspectPicture, otherFormat, refuseSize, type PictureFacts } from "./facts";
import { fileStatements, type FileStatements } from "./statements";
import { WholePicture, type Window, type WindowsWanted } from "./windows";
import { LONGEST_SIDE, Reducer, reducedSides, SHORTEST_SIDE } from "./reduce";

export const MAX_BYTES = 2 ** 30;

/** Pixels of one band of rows, and the widest piece of it that is drawn at once. */
const BAND_PIXELS = 2 ** 21;
const TILE_WIDTH = 4096;

/** Times in milliseconds: `decodeMs` from bytes to a bitmap, `reduceMs` from the bitmap to the reduced pixels. */
export interface Decoded {
  readonly facts: PictureFacts;
  readonly says: FileStatements;
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
  /** Of the upright picture before it was reduced, [height, width]. */
  readonly fullSides: readonly [number, number];
  /** Of its original pixels, as far as it has any of the sides that are wanted. */
  readonly windows: readonly Window[];
  readonly decodeMs: number;
  readonly reduceMs: number;
}

/**
 * The picture upright, RGB, sides of 16..1,024 pixels. Transparency lies on white. Colours are sRGB: the browser
 * applies what the file says of them (a profile, or code points), as Python does. Windows are cut of its full size.
 *
 * @throws BadPicture
 */
export async function decodePicture(file: Blob, wanted: readonly WindowsWanted[]): Promise<Decoded> {
  if (file.size > MAX_BYTES) throw new BadPicture("too-large", `${file.size} bytes, more than ${MAX_BYTES}`);
  const start = performance.now();
  const bytes = new Uint8Array(await file.arrayBuffer());
  const declared = inspected(bytes);
  if (!(declared instanceof BadPicture)) refuseNarrow(declared.width, declared.height);
  const whole = declared instanceof BadPicture ? null : mended(bytes, declared.format);
  const bitmap = await bitmapOf(whole?.file ?? file, declared);
  try {
    const facts = declared instanceof BadPicture ? seen(bitmap, otherFormat(bytes)) : declared;
    const decoded = performance.now();
    const fullSides = [bitmap.height, bitmap.width] as const;
    const [height, width] = reducedSides(...fullSides);
    const full = wanted.length > 0 ? wholePicture(bitmap) : null;
    // There is no room for a large picture's bitmap beside its pixels and the copy of them that is hashed.
    if (full) bitmap.close();
    // Hashed on another thread while this one reduces.
    const windows = full?.windows(wanted);
    const pixels = full ? reduced(full) : reducedPixels(bitmap);
    if (whole?.filled) await refuseOtherPixels(whole.filled, pixels);
    return {
      facts,
      says: fileStatements(bytes),
      pixels,
      height,
      width,
      fullSides,
      windows: (await windows) ?? [],
      decodeMs: decoded - start,
      reduceMs: performance.now() - decoded,
    };
  } finally {
    bitmap.close();
  }
}

/** What a file says of itself; or why that is not read, where this browser may show it all the same (HEIC, for one). */
function inspected(bytes: Uint8Array): PictureFacts | BadPicture {
  try {
    return inspectPicture(bytes);
  } catch (error) {
    if (error instanceof BadPicture && (error.reason === "unsupported" || error.reason === "unreadable")) return error;
    throw error;
  }
}

/** The facts of a picture that only the browser can read. */
function seen({ width, height }: ImageBitmap, format: string): PictureFacts {
  refuseSize(width, height);
  refuseNarrow(width, height);
  return { width, height, format, jpegQuality: null };
}

function refuseNarrow(width: number, height: number): void {
  if (Math.min(...reducedSides(height, width)) >= SHORTEST_SIDE) return;
  throw new BadPicture("too-narrow", `${width}x${height}, under ${SHORTEST_SIDE} pixels with ${LONGEST_SIDE} in the longer side`);
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

/** `declared` is what to throw where the browser cannot decode a file that did not say what it is. */
async function bitmapOf(file: Blob, declared: PictureFacts | BadPicture | null = null): Promise<ImageBitmap> {
  try {
    return await createImageBitmap(file, {
      imageOrientation: "from-image",
      colorSpaceConversion: "default",
      premultiplyAlpha: "default",
    });
  } catch (error) {
    if (declared instanceof BadPicture) throw declared;
    throw new BadPicture("unreadable", `the browser cannot decode it: ${String(error)}`);
  }
}

function wholePicture(bitmap: ImageBitmap): WholePicture {
  const { height, width } = bitmap;
  const whole = new WholePicture(height, width);
  readBands(bitmap, (band, top) => whole.pixels.set(band, top * width * 3));
  return whole;
}

function reduced({ height, width, pixels }: WholePicture): Uint8Array {
  const reducer = new Reducer(height, width);
  reducer.add(pixels);
  return reducer.finish();
}

/** Without all of its pixels in memory at once. */
function reducedPixels(bitmap: ImageBitmap): Uint8Array {
  const reducer = new Reducer(bitmap.height, bitmap.width);
  readBands(bitmap, (band) => reducer.add(band));
  return reducer.finish();
}

/** `take` gets the RGB bytes of all rows, from the top, some rows at a time; they are its own only until it returns. */
function readBands(bitmap: ImageBitmap, take: (band: Uint8Array, top: number) => void): void {
  const { height, width } = bitmap;
  const most = Math.min(height, Math.max(1, Math.floor(BAND_PIXELS / width)));
  const tileWidth = Math.min(width, TILE_WIDTH);
  const context = new OffscreenCanvas(tileWidth, most).getContext("2d", {
    willReadFrequently: true,
    colorSpace: "srgb",
  });
  if (!context) throw new BadPicture("out-of-memory", "the browser gives no canvas to read pixels from");
  const band = new Uint8Array(most * width * 3);
  for (let top = 0; top < height; top += most) {
    const rows = Math.min(most, height - top);
    for (let left = 0; left < width; left += tileWidth) {
      const columns = Math.min(tileWidth, width - left);
      context.fillStyle = "white";
      context.fillRect(0, 0, columns, rows);
      context.drawImage(bitmap, left, top, columns, rows, 0, 0, columns, rows);
      copyRgb(context.getImageData(0, 0, columns, rows).data, columns, band, left, width);
    }
    take(band.subarray(0, rows * width * 3), top);
  }
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
