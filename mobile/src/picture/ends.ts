/** Files whose end is missing or wrong though their pixels are all there: browsers refuse them, Python does not. */

import { endOfPng, endOfWebp, walkJpeg } from "./facts";

export interface Mended {
  readonly file: Blob;
  /** The same with other bytes where pixels could be missing: of equal pixels none is. Null where the file says so. */
  readonly filled: Blob | null;
}

const PNG_END = Uint8Array.of(0, 0, 0, 0, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82);
const JPEG_END = Uint8Array.of(0xff, 0xd9);
/** Without the byte of a marker, and unlike the zeros that decoders take for pixels that are missing. */
const FILLER = Uint8Array.from({ length: 64 }, (_, index) => (index * 73 + 41) % 251);

/** Bytes of one value, at the end of a file without an end marker, that were reserved for it and never written. */
const RESERVED_BYTES = 256;

/** A file of a known format with the end that belongs to it; null where it has one. */
export function mended(bytes: Uint8Array<ArrayBuffer>, format: string): Mended | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (format === "JPEG") {
    if (walkJpeg(bytes, view).ends) return null;
    const whole = written(bytes);
    return { file: new Blob([whole, JPEG_END]), filled: new Blob([whole, FILLER, JPEG_END]) };
  }
  if (format === "PNG") {
    const { end, ends } = endOfPng(view);
    return ends ? null : { file: new Blob([bytes.subarray(0, end), PNG_END]), filled: null };
  }
  if (format === "WEBP") {
    const end = endOfWebp(view);
    if (end === 8 + view.getUint32(4, true)) return null;
    const head = bytes.slice(0, 12);
    new DataView(head.buffer).setUint32(4, end - 8, true);
    return { file: new Blob([head, bytes.subarray(12, end)]), filled: null };
  }
  return null;
}

/** A JPEG that no end marker ends, without what was only reserved for it and without half a marker. */
function written(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const fill = bytes[bytes.length - 1];
  let end = bytes.length;
  while (end > 0 && bytes[end - 1] === fill) end--;
  if (bytes.length - end < RESERVED_BYTES) end = bytes.length;
  else if (fill === 0x00 && bytes[end - 1] === 0xff) return bytes.subarray(0, end + 1); // a zero stuffed behind it
  while (bytes[end - 1] === 0xff) end--;
  return bytes.subarray(0, end);
}
