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

/** A picture with a side below that of the windows of original pixels that a network looks at; `sides` are [height, width]. */
export class TooSmallForWindows extends BadPicture {
  constructor(
    readonly side: number,
    readonly sides: readonly [number, number],
  ) {
    super("too-small", `expected at least ${side} pixels a side, got ${sides[1]}x${sides[0]}`);
  }
}

/** `format` is the real one, whatever the file was called. `width` and `height` as stored, before any EXIF orientation; `jpegQuality` is 1..100, null for other formats. */
export interface PictureFacts {
  readonly width: number;
  readonly height: number;
  readonly format: string;
  readonly jpegQuality: number | null;
}

export const MAX_PIXELS = 100_000_000;
export const MIN_SIDE = 8;
/** Bytes within which an AVIF says its size. */
const MOST_AVIF_HEADER = 100_000;

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
  refuseSize(width, height);
  return facts;
}

/** @throws BadPicture too-large, too-small */
export function refuseSize(width: number, height: number): void {
  if (width * height > MAX_PIXELS) {
    throw new BadPicture("too-large", `${width}x${height} declared, more than ${MAX_PIXELS} pixels`);
  }
  if (Math.min(width, height) < MIN_SIDE) {
    throw new BadPicture("too-small", `${width}x${height}, a side under ${MIN_SIDE} pixels`);
  }
}

/** The format of a file that `inspectPicture` does not read, though this or that browser may. */
export function otherFormat(bytes: Uint8Array): string {
  return unsupportedFormat(textOf(bytes)) ?? "another format";
}

function textOf(bytes: Uint8Array): (start: number, length: number) => string {
  return (start, length) => String.fromCharCode(...bytes.subarray(start, start + length));
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
  const text = textOf(bytes);
  const sized = (format: string, width: number, height: number): PictureFacts => ({
    format,
    width,
    height,
    jpegQuality: null,
  });
  if (bytes[0] === 0xff && bytes[1] === 0xd8 && bytes[2] === 0xff) return jpegFacts(bytes, view);
  if (text(0, 8) === "\x89PNG\r\n\x1a\n") {
    endOfPng(view);
    return sized("PNG", view.getUint32(16), view.getUint32(20));
  }
  if (text(0, 6) === "GIF87a" || text(0, 6) === "GIF89a") {
    return sized("GIF", view.getUint16(6, true), view.getUint16(8, true));
  }
  if (text(0, 4) === "RIFF" && text(8, 4) === "WEBP") return sized("WEBP", ...webpSides(view, text(12, 4)));
  if (text(0, 2) === "BM") return sized("BMP", ...bmpSides(view));
  if (text(4, 4) === "ftyp" && /avi[fs]/.test(text(8, Math.min(view.getUint32(0), 200) - 8))) {
    return sized("AVIF", ...avifSides(bytes, view));
  }
  const unsupported = unsupportedFormat(text);
  if (unsupported) throw new BadPicture("unsupported", `${unsupported}, which not every browser shows`);
  throw new BadPicture("unreadable", `no JPEG, PNG, GIF, WebP, BMP or AVIF: starts with ${hexadecimal(bytes.subarray(0, 8))}`);
}

function jpegFacts(bytes: Uint8Array, view: DataView): PictureFacts {
  const { frame, tables } = walkJpeg(bytes, view);
  const luma = frame && tables.get(frame.lumaTable);
  if (!frame || !luma) throw new BadPicture("unreadable", "a JPEG without a frame or its quantisation table");
  return { width: frame.width, height: frame.height, format: "JPEG", jpegQuality: estimateJpegQuality(luma) };
}

/** What the segments of a JPEG say; `ends` where there is an end marker. */
export interface JpegSegments {
  readonly frame: { width: number; height: number; lumaTable: number } | null;
  readonly tables: ReadonlyMap<number, number[]>;
  readonly ends: boolean;
}

/**
 * The segments of a JPEG. Without its end marker it may still be whole, where its scans name all coefficients.
 *
 * @throws BadPicture truncated
 */
export function walkJpeg(bytes: Uint8Array, view: DataView): JpegSegments {
  const tables = new Map<number, number[]>();
  const missing = new Coefficients();
  let frame: JpegSegments["frame"] = null;
  let scans = 0;
  let place = 2;
  for (;;) {
    const found = nextMarker(bytes, place);
    if (found?.marker === 0xd9) return { frame, tables, ends: true };
    const end = found ? found.after + (found.after + 2 <= bytes.length ? view.getUint16(found.after) : bytes.length) : Infinity;
    if (found && (found.marker === 0x01 || (found.marker >= 0xd0 && found.marker <= 0xd8))) {
      place = found.after;
      continue;
    }
    if (!found || end > bytes.length) {
      if (scans === 0 || !missing.none()) throw new BadPicture("truncated", "the JPEG breaks off");
      return { frame, tables, ends: false };
    }
    const { marker, after } = found;
    place = end;
    if (marker === 0xdb) readTables(view, after + 2, end, tables);
    else if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker)) {
      frame = {
        height: view.getUint16(after + 3),
        width: view.getUint16(after + 5),
        lumaTable: view.getUint8(after + 10),
      };
      missing.declared(bytes.subarray(after + 2, end), [0xc2, 0xc6, 0xca, 0xce].includes(marker));
    } else if (marker === 0xda) {
      scans++;
      missing.sent(bytes.subarray(after + 2, end));
      place = endOfScan(bytes, end);
    }
  }
}

/** Which coefficients of which component no scan has named to its last bit (T.81, B.2.3). */
class Coefficients {
  private readonly missing = new Map<number, Set<number>>();
  private progressive = false;

  declared(frame: Uint8Array, progressive: boolean): void {
    this.progressive = progressive;
    for (let place = 6; place + 3 <= frame.length; place += 3) {
      this.missing.set(frame[place]!, new Set(Array.from({ length: 64 }, (_, index) => index)));
    }
  }

  sent(scan: Uint8Array): void {
    const count = scan[0] ?? 0;
    if (scan.length < 4 + 2 * count) return;
    const [first, last, bits] = [scan[1 + 2 * count]!, scan[2 + 2 * count]!, scan[3 + 2 * count]!];
    for (let index = 0; index < count; index++) {
      const missing = this.missing.get(scan[1 + 2 * index]!);
      if (!this.progressive) missing?.clear();
      else if ((bits & 15) === 0) for (let each = first; each <= last; each++) missing?.delete(each);
    }
  }

  none(): boolean {
    return [...this.missing.values()].every((each) => each.size === 0);
  }
}

/** The next marker from `place` on, and the place after it. */
function nextMarker(bytes: Uint8Array, place: number): { marker: number; after: number } | null {
  let at = bytes.indexOf(0xff, place);
  while (at >= 0 && (bytes[at + 1] === 0xff || bytes[at + 1] === 0x00)) at = bytes.indexOf(0xff, at + 1);
  return at < 0 || at + 1 >= bytes.length ? null : { marker: bytes[at + 1]!, after: at + 2 };
}

/** Where entropy-coded data end: at the first marker that is neither a stuffed byte nor a restart, or with the file. */
function endOfScan(bytes: Uint8Array, start: number): number {
  let at = bytes.indexOf(0xff, start);
  while (at >= 0) {
    const next = bytes[at + 1];
    if (next !== undefined && next !== 0x00 && next !== 0xff && !(next >= 0xd0 && next <= 0xd7)) return at;
    at = bytes.indexOf(0xff, at + 1);
  }
  return bytes.length;
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

/**
 * Where the last whole chunk of a PNG's pixels, or its end chunk, ends.
 *
 * @throws BadPicture truncated
 */
export function endOfPng(view: DataView): { end: number; ends: boolean } {
  let [place, pixels] = [8, 0];
  while (place + 8 <= view.byteLength) {
    const end = place + 12 + view.getUint32(place);
    const name = view.getUint32(place + 4);
    if (end > view.byteLength) break;
    if (name === 0x49454e44) return { end, ends: true }; // IEND
    if (name === 0x49444154) pixels = end; // IDAT
    place = end;
  }
  const breaksOffInPixels = place + 8 <= view.byteLength && view.getUint32(place + 4) === 0x49444154;
  if (pixels === 0 || breaksOffInPixels) throw new BadPicture("truncated", "a chunk of the PNG breaks off");
  return { end: pixels, ends: false };
}

/**
 * Where the chunk with a WebP's pixels, or the last whole one behind it, ends.
 *
 * @throws BadPicture truncated
 */
export function endOfWebp(view: DataView): number {
  let [place, pixels] = [12, 0];
  while (place + 8 <= view.byteLength) {
    const length = view.getUint32(place + 4, true);
    const name = view.getUint32(place);
    if (place + 8 + length > view.byteLength) break;
    place += 8 + length + (length & 1);
    if (name === 0x56503820 || name === 0x5650384c || name === 0x414e4d46) pixels = place; // VP8, VP8L, ANMF
  }
  if (pixels === 0) throw new BadPicture("truncated", "the WebP breaks off");
  return Math.min(Math.max(pixels, Math.min(place, 8 + view.getUint32(4, true))), view.byteLength);
}

function webpSides(view: DataView, chunk: string): [number, number] {
  endOfWebp(view);
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

/** Width and height of an AVIF: the largest of its image spatial extents (ISO/IEC 23008-12, 6.5.3). */
function avifSides(bytes: Uint8Array, view: DataView): [number, number] {
  let sides: [number, number] = [0, 0];
  for (let at = bytes.indexOf(0x69); at >= 0 && at < MOST_AVIF_HEADER; at = bytes.indexOf(0x69, at + 1)) {
    if (bytes[at + 1] !== 0x73 || bytes[at + 2] !== 0x70 || bytes[at + 3] !== 0x65) continue; // ispe
    const found: [number, number] = [view.getUint32(at + 8), view.getUint32(at + 12)];
    if (found[0] * found[1] > sides[0] * sides[1]) sides = found;
  }
  if (sides[0] === 0) throw new BadPicture("truncated", "the headers of the AVIF break off");
  return sides;
}

/** The name of a picture's format that only some browsers show; null of what is none. */
function unsupportedFormat(text: (start: number, length: number) => string): string | null {
  const starts: [string, string][] = [
    ["II*\x00", "TIFF"],
    ["MM\x00*", "TIFF"],
    ["II+\x00", "TIFF"],
    ["MM\x00+", "TIFF"],
    ["\x00\x00\x00\x0cjP  ", "JPEG 2000"],
    ["\xff\x4f\xff\x51", "JPEG 2000"],
    ["\x00\x00\x00\x0cJXL ", "JPEG XL"],
    ["\xff\x0a", "JPEG XL"],
    ["8BPS", "Photoshop"],
    ["\x00\x00\x01\x00", "Windows icon"],
    ["FUJIFILMCCD-RAW", "camera raw"],
  ];
  const known = starts.find(([start]) => text(0, start.length) === start)?.[1];
  if (known) return known;
  if (text(4, 4) !== "ftyp") return null;
  if (/^(he[iv]|mif1|msf1)/.test(text(8, 4))) return "HEIC";
  return text(8, 4) === "crx " ? "camera raw" : null;
}

function bmpSides(view: DataView): [number, number] {
  if (view.getUint32(14, true) === 12) return [view.getUint16(18, true), view.getUint16(20, true)];
  return [Math.abs(view.getInt32(18, true)), Math.abs(view.getInt32(22, true))];
}

function hexadecimal(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
}
