/** From a file to the pixels that a network gets, in a worker: decoded by the browser, read in tiles, reduced. */

import { mended } from "./ends";
import { BadPicture, inspectPicture, otherFormat, refuseSize, type PictureFacts } from "./facts";
import { readBands } from "./read";
import { LONGEST_SIDE, Reducer, reducedSides, SHORTEST_SIDE } from "./reduce";
import { fileStatements, type FileStatements } from "./statements";
import { cutWindows, type Window, type WindowsWanted } from "./windows";

export const MAX_BYTES = 2 ** 30;

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
    const windows = await cutWindows(bitmap, wanted);
    const pixels = reducedPixels(bitmap);
    if (whole?.filled) await refuseOtherPixels(whole.filled, pixels);
    return {
      facts,
      says: fileStatements(bytes),
      pixels,
      height,
      width,
      fullSides,
      windows,
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

/** Without all of its pixels in memory at once. */
function reducedPixels(bitmap: ImageBitmap): Uint8Array {
  const reducer = new Reducer(bitmap.height, bitmap.width);
  readBands(bitmap, (band) => reducer.add(band));
  return reducer.finish();
}
