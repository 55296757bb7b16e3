/** What an image file declares about itself, read from its bytes: the counterpart of Python's `inspect_picture`. */

export type BadReason =
  | "empty"
  | "truncated"
  | "unreadable"
  | "too-large"
  | "too-small"
  | "too-narrow"
  | "unsupported"
  | "out-of-memory";

/** A file that is no usable picture; `detail` says what was found. */
export class BadPicture extends Error {
  constructor(
    readonly reason: BadReason,
    readonly detail: string,
  ) {
    super(`${reason}: ${detail}`);
    this.name = "BadPicture";
  }
}

export type Format = "JPEG" | "PNG" | "GIF" | "WEBP" | "BMP" | "TIFF";

/** `width` and `height` as stored, before any EXIF orientation; `jpegQuality` is 1..100, null for other formats. */
export interface PictureFacts {
  readonly width: number;
  readonly height: number;
  readonly format: Format;
  readonly jpegQuality: number | null;
}

export const MAX_PIXELS = 100_000_000;
export const MIN_SIDE = 8;

/** The luminance table of ITU-T T.81, annex K.1, row by row. */
const STANDARD_LUMA_TABLE = [
  [16, 11, 10, 16, 24, 40, 51, 61],
  [12, 12, 14, 19, 26, 58, 60, 55],
  [14, 13, 16, 24, 40, 57, 69, 56],
  [14, 17, 22, 29, 51, 87, 80, 62],
  [18, 22, 37, 56, 68, 109, 103, 77],
  [24, 35, 55, 64, 81, 104, 113, 92],
  [49, 64, 78, 87, 103, 121, 120, 101],
  [72, 92, 95, 98, 112, 100, 103, 99],
].flat();

/** Where the steps of a stored table, which run in zigzag, lie row by row. */
const ZIGZAG = zigzag();

/**
 * Facts of an image file, without decoding a pixel.
 *
 * @throws BadPicture empty, truncated, unreadable (no known format), too-large, too-small
 */
export function inspectPicture(bytes: Uint8Array): PictureFacts {
  if (bytes.length === 0) throw new BadPicture("empty", "no bytes");
  let facts: PictureFacts;
  try {
    facts = declared(bytes);
  } catch (error) {
    if (error instanceof RangeError) throw new BadPicture("truncated", "the headers break off");
    throw error;
  }
  const { width, height } = facts;
  if (width * height > MAX_PIXELS) {
    throw new BadPicture("too-large", `${width}x${height} declared, more than ${MAX_PIXELS} pixels`);
  }
  if (Math.min(width, height) < MIN_SIDE) {
    throw new BadPicture("too-small", `${width}x${height}, a side under ${MIN_SIDE} pixels`);
  }
  return facts;
}

/** The quality 1..100 whose standard table is nearest to this one of 64 steps, row by row; of equals the higher. */
export function estimateJpegQuality(lumaTable: ArrayLike<number>): number {
  let nearest = 100;
  let least = Infinity;
  for (let quality = 100; quality >= 1; quality--) {
    const scale = quality < 50 ? Math.floor(5000 / quality) : 200 - 2 * quality;
    let distance = 0;
    STANDARD_LUMA_TABLE.forEach((step, place) => {
      const scaled = Math.min(255, Math.max(1, Math.floor((step * scale + 50) / 100)));
      distance += Math.abs(scaled - lumaTable[place]!);
    });
    if (distance < least) [nearest, least] = [quality, distance];
  }
  return nearest;
}

function declared(bytes: Uint8Array): PictureFacts {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = (start: number, length: number) => String.fromCharCode(...bytes.subarray(start, start + length));
  const sized = (format: Format, width: number, height: number): PictureFacts => ({
    format,
    width,
    height,
    jpegQuality: null,
  });
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return jpegFacts(bytes, view);
  if (text(0, 8) === "\x89PNG\r\n\x1a\n") {
    checkPngIsWhole(view);
    return sized("PNG", view.getUint32(16), view.getUint32(20));
  }
  if (text(0, 6) === "GIF87a" || text(0, 6) === "GIF89a") {
    return sized("GIF", view.getUint16(6, true), view.getUint16(8, true));
  }
  if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") return sized("WEBP", ...webpSides(view, text(12, 4)));
  if (text(0, 4) === "II*\x00" || text(0, 4) === "MM\x00*") {
    throw new BadPicture("unsupported", "TIFF, which browsers do not show");
  }
  if (text(0, 2) === "BM") return sized("BMP", ...bmpSides(view));
  throw new BadPicture("unreadable", `no JPEG, PNG, GIF, WebP or BMP: starts with ${hexadecimal(bytes.subarray(0, 8))}`);
}

function jpegFacts(bytes: Uint8Array, view: DataView): PictureFacts {
  const tables = new Map<number, number[]>();
  let frame: { width: number; height: number; lumaTable: number } | null = null;
  let place = 2;
  for (;;) {
    const { marker, after } = nextMarker(bytes, place);
    if (marker === 0xd9) break;
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
      place = after;
      continue;
    }
    const end = after + view.getUint16(after);
    if (end > bytes.length) throw new BadPicture("truncated", "a segment of the JPEG breaks off");
    if (marker === 0xdb) readTables(view, after + 2, end, tables);
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      frame = {
        height: view.getUint16(after + 3),
        width: view.getUint16(after + 5),
        lumaTable: view.getUint8(after + 10),
      };
    } else if (marker === 0xda) {
      place = endOfScan(bytes, end);
      continue;
    }
    place = end;
  }
  const luma = frame && tables.get(frame.lumaTable);
  if (!frame || !luma) throw new BadPicture("unreadable", "a JPEG without a frame or its quantisation table");
  return { width: frame.width, height: frame.height, format: "JPEG", jpegQuality: estimateJpegQuality(luma) };
}

/** The next marker from `place` on, and the place after it. */
function nextMarker(bytes: Uint8Array, place: number): { marker: number; after: number } {
  let at = bytes.indexOf(0xff, place);
  while (at >= 0 && (bytes[at + 1] === 0xff || bytes[at + 1] === 0x00)) at = bytes.indexOf(0xff, at + 1);
  if (at < 0 || at + 1 >= bytes.length) throw new BadPicture("truncated", "the JPEG has no end");
  return { marker: bytes[at + 1]!, after: at + 2 };
}

/** Where entropy-coded data end: at the first marker that is neither a stuffed byte nor a restart. */
function endOfScan(bytes: Uint8Array, start: number): number {
  let at = bytes.indexOf(0xff, start);
  while (at >= 0) {
    const next = bytes[at + 1];
    if (next !== undefined && next !== 0x00 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
    at = bytes.indexOf(0xff, at + 1);
  }
  throw new BadPicture("truncated", "the pixels of the JPEG break off");
}

function readTables(view: DataView, start: number, end: number, tables: Map<number, number[]>): void {
  let place = start;
  while (place < end) {
    const kind = view.getUint8(place++);
    const wide = kind >> 4 > 0;
    const table = new Array<number>(64);
    for (const index of ZIGZAG) {
      table[index] = wide ? view.getUint16(place) : view.getUint8(place);
      place += wide ? 2 : 1;
    }
    tables.set(kind & 15, table);
  }
}

function zigzag(): number[] {
  const places = Array.from({ length: 64 }, (_, index) => index);
  const diagonal = (index: number) => (index >> 3) + (index & 7);
  // Even diagonals run upwards, odd ones downwards.
  const along = (index: number) => (diagonal(index) % 2 === 0 ? -(index >> 3) : index >> 3);
  return places.sort((a, b) => diagonal(a) - diagonal(b) || along(a) - along(b));
}

function checkPngIsWhole(view: DataView): void {
  let place = 8;
  for (;;) {
    const length = view.getUint32(place);
    const end = place + 12 + length;
    if (end > view.byteLength) throw new BadPicture("truncated", "a chunk of the PNG breaks off");
    if (view.getUint32(place + 4) === 0x49454e44) return; // IEND
    place = end;
  }
}

function webpSides(view: DataView, chunk: string): [number, number] {
  if (view.getUint32(4, true) + 8 > view.byteLength) throw new BadPicture("truncated", "the WebP breaks off");
  if (chunk === "VP8X") {
    const three = (place: number) => view.getUint16(place, true) + (view.getUint8(place + 2) << 16) + 1;
    return [three(24), three(27)];
  }
  if (chunk === "VP8L") {
    const bits = view.getUint32(21, true);
    return [(bits & 0x3fff) + 1, ((bits >> 14) & 0x3fff) + 1];
  }
  if (chunk === "VP8 ") return [view.getUint16(26, true) & 0x3fff, view.getUint16(28, true) & 0x3fff];
  throw new BadPicture("unreadable", "a WebP without a picture");
}

function bmpSides(view: DataView): [number, number] {
  if (view.getUint32(14, true) === 12) return [view.getUint16(18, true), view.getUint16(20, true)];
  return [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
}

function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
