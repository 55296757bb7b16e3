/**
 * What an image file says of its own origin, beside its pixels: true or not, and never part of a verdict. The same as
 * `tasks/data/file_statements.py` reads.
 */

export interface FileStatements {
  /** Whether a C2PA manifest is there, unverified. */
  readonly c2pa: boolean;
  /** IPTC's code, such as `digitalCapture`. */
  readonly digitalSourceType: string | null;
  /** Under which keys a generator's settings stand. */
  readonly generatorTexts: readonly string[];
  /** Make and model, as the file has them. */
  readonly camera: string | null;
}

type Kind = "xmp" | "exif" | "c2pa" | "jumbf" | "key";
type Piece = readonly [Kind, Uint8Array];

/** Keys of PNG texts under which programs write how they generated a picture. */
const GENERATORS_KEYS = [
  ...["parameters", "prompt", "workflow", "dream", "sd-metadata", "invokeai_metadata"],
  ...["invokeai_graph", "generation_data", "generation_parameters"],
];
const XMP_OF_JPEG = "http://ns.adobe.com/xap/1.0/\0";
const XMP_OF_PNG = "XML:com.adobe.xmp";
const EXIF = "Exif\0\0";
const C2PA_BOX = "\xd8\xfe\xc3\xd6\x1b\x0e\x48\x3c\x92\x97\x58\x28\x87\x7e\xc4\x81";
const MAKE = 0x010f;
const MODEL = 0x0110;
const ASCII = 2;
const LONGEST_NAME = 100;

/** What a JPEG, PNG or WebP says, and whether an AVIF or HEIC has a manifest; what is damaged says nothing. */
export function fileStatements(bytes: Uint8Array): FileStatements {
  const pieces = piecesOf(bytes);
  const contents = (kind: Kind) => pieces.filter(([each]) => each === kind).map(([, content]) => content);
  // In a JPEG a manifest is cut into pieces, of which only the first names it.
  const isNamed = contents("jumbf").some((piece) => latin(piece).includes("c2pa"));
  const manifest = [...contents("c2pa"), ...(isNamed ? contents("jumbf") : [])];
  const described = [...contents("xmp"), ...manifest].map(latin).join("");
  const texts = contents("key").map(latin);
  let [make, model] = ["", ""];
  for (const exif of contents("exif")) {
    const names = cameraNames(exif);
    [make, model] = [names.get(MAKE) ?? "", names.get(MODEL) ?? ""];
    // In UTF-16 or not: what Stable Diffusion's programs write into a comment.
    const plain = latin(exif).replaceAll("\0", "");
    if (plain.includes("Steps: ") && plain.includes("Sampler")) texts.push("UserComment");
  }
  for (const name of [make, model]) if (graphIn(name)) texts.push(graphIn(name)!);
  [make, model] = [graphIn(make) ? "" : make, graphIn(model) ? "" : model];
  const camera = model.startsWith(make) ? model : `${make} ${model}`.trim();
  return {
    c2pa: manifest.length > 0,
    digitalSourceType: /digitalsourcetype\/([A-Za-z]{1,60})/.exec(described)?.[1] ?? null,
    generatorTexts: [...new Set(texts)],
    camera: camera.slice(0, LONGEST_NAME) || null,
  };
}

/** ComfyUI keeps its graphs where cameras write their names. */
function graphIn(name: string): string | null {
  return /^(workflow|prompt):/.exec(name)?.[1] ?? null;
}

/** What stands before a place at which the file breaks off counts. */
function piecesOf(bytes: Uint8Array): Piece[] {
  const found: Piece[] = [];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    for (const piece of walk(bytes, view)) found.push(piece);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return found;
}

function walk(bytes: Uint8Array, view: DataView): Iterable<Piece> {
  const start = latin(bytes.subarray(0, 12));
  if (start.startsWith("\xff\xd8\xff")) return ofJpeg(bytes, view);
  if (start.startsWith("\x89PNG\r\n\x1a\n")) return ofPng(bytes, view);
  if (start.startsWith("RIFF") && start.endsWith("WEBP")) return ofWebp(bytes, view);
  return start.slice(4, 8) === "ftyp" ? ofBoxes(bytes, view) : [];
}

function* ofJpeg(bytes: Uint8Array, view: DataView): Iterable<Piece> {
  let place = 2;
  while (bytes[place] === 0xff && bytes[place + 1] !== 0xd9 && bytes[place + 1] !== 0xda) {
    if (bytes[place + 1] === 0xff) {
      place++; // a fill byte
      continue;
    }
    const marker = view.getUint8(place + 1);
    const length = view.getUint16(place + 2);
    const content = bytes.subarray(place + 4, place + 2 + length);
    if (marker === 0xe1 && begins(content, EXIF)) yield ["exif", content.subarray(EXIF.length)];
    else if (marker === 0xe1 && begins(content, XMP_OF_JPEG)) yield ["xmp", content];
    else if (marker === 0xeb && begins(content, "JP")) yield ["jumbf", content];
    place += 2 + length;
  }
}

function* ofPng(bytes: Uint8Array, view: DataView): Iterable<Piece> {
  for (let place = 8; place + 8 <= bytes.length; place += 12 + view.getUint32(place)) {
    const name = latin(bytes.subarray(place + 4, place + 8));
    const content = bytes.subarray(place + 8, place + 8 + view.getUint32(place));
    if (name === "eXIf") yield ["exif", content];
    else if (name === "caBX") yield ["c2pa", content];
    else if (/^(tEXt|zTXt|iTXt)$/.test(name)) {
      const key = latin(content.subarray(0, 80)).split("\0")[0]!;
      if (key === XMP_OF_PNG) yield ["xmp", content];
      else if (GENERATORS_KEYS.includes(key.toLowerCase())) yield ["key", content.subarray(0, key.length)];
    }
  }
}

function* ofWebp(bytes: Uint8Array, view: DataView): Iterable<Piece> {
  const kinds: Record<string, Kind> = { EXIF: "exif", "XMP ": "xmp", C2PA: "c2pa" };
  let place = 12;
  while (place + 8 <= bytes.length) {
    const length = view.getUint32(place + 4, true);
    const kind = kinds[latin(bytes.subarray(place, place + 4))];
    const content = bytes.subarray(place + 8, place + 8 + length);
    if (kind) yield [kind, kind === "exif" && begins(content, EXIF) ? content.subarray(EXIF.length) : content];
    place += 8 + length + (length & 1);
  }
}

function* ofBoxes(bytes: Uint8Array, view: DataView): Iterable<Piece> {
  let place = 0;
  while (place + 8 <= bytes.length) {
    const length = view.getUint32(place);
    const content = bytes.subarray(place + 8, place + length);
    if (latin(bytes.subarray(place + 4, place + 8)) === "uuid" && begins(content, C2PA_BOX)) yield ["c2pa", content];
    if (length < 8) return; // to the file's end, or longer than 4 GB
    place += length;
  }
}

/** Make and model by tag, of the first directory of EXIF data. */
function cameraNames(exif: Uint8Array): Map<number, string> {
  const found = new Map<number, string>();
  const order = latin(exif.subarray(0, 2));
  if (order !== "II" && order !== "MM") return found;
  const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
  const little = order === "II";
  try {
    const start = view.getUint32(4, little);
    const end = start + 2 + 12 * view.getUint16(start, little);
    for (let entry = start + 2; entry < end; entry += 12) {
      const [tag, kind] = [view.getUint16(entry, little), view.getUint16(entry + 2, little)];
      const [length, place] = [view.getUint32(entry + 4, little), view.getUint32(entry + 8, little)];
      if ((tag !== MAKE && tag !== MODEL) || kind !== ASCII) continue;
      // Four bytes or fewer stand in the place of where they stand.
      const first = length <= 4 ? entry + 8 : place;
      const text = new TextDecoder().decode(exif.subarray(first, first + length)).split("\0")[0]!;
      found.set(tag, text.trim().split(/\s+/).join(" "));
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
  }
  return found;
}

function begins(bytes: Uint8Array, text: string): boolean {
  return latin(bytes.subarray(0, text.length)) === text;
}

/** Bytes as characters, one for one. */
function latin(bytes: Uint8Array): string {
  let text = "";
  // No call takes an argument for each byte of a long one.
  for (let start = 0; start < bytes.length; start += 8192) text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  return text;
}
