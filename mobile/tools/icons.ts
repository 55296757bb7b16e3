/** The app's icon, drawn: a lens whose left half is a photograph's smooth disc and whose right half falls into pixels. */

import { deflateSync } from "node:zlib";

const GROUND = [15, 76, 74] as const;
const INK = [240, 250, 248] as const;
const RADIUS = 0.31;
const CELL = 0.0775;
const SQUARE = 0.056;
const CORNER = 0.22;

interface Square {
  readonly left: number;
  readonly top: number;
}

/** Cells of the right half whose centre lies in the disc. */
function squares(): Square[] {
  const found: Square[] = [];
  for (let column = 0; column < 5; column++) {
    for (let row = -5; row < 5; row++) {
      const x = (column + 0.5) * CELL;
      const y = (row + 0.5) * CELL;
      if (Math.hypot(x, y) > RADIUS) continue;
      found.push({ left: 0.5 + x + 0.012 - SQUARE / 2, top: 0.5 + y - SQUARE / 2 });
    }
  }
  return found;
}

/** The icon as SVG, with rounded corners. */
export function iconSvg(): string {
  const cells = squares()
    .map(({ left, top }) => `<rect x="${of512(left)}" y="${of512(top)}" width="${of512(SQUARE)}" height="${of512(SQUARE)}"/>`)
    .join("");
  const disc = `<path d="M${of512(0.488)} ${of512(0.5 - RADIUS)}a${of512(RADIUS)} ${of512(RADIUS)} 0 0 0 0 ${of512(2 * RADIUS)}z"/>`;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 512 512"><rect width="512" height="512" rx="${of512(CORNER)}" ` +
    `fill="rgb(${GROUND.join(" ")})"/><g fill="rgb(${INK.join(" ")})">${disc}${cells}</g></svg>\n`
  );
}

/** The icon as PNG of `side` pixels; a maskable one fills its square and keeps its drawing in the middle. */
export function iconPng(side: number, maskable: boolean): Buffer {
  const cells = squares();
  const scale = maskable ? 0.8 : 1;
  const samples = 4;
  const rows = Buffer.alloc(side * (1 + 4 * side));
  for (let row = 0; row < side; row++) {
    for (let column = 0; column < side; column++) {
      let ground = 0;
      let ink = 0;
      for (let sample = 0; sample < samples ** 2; sample++) {
        const x = (column + ((sample % samples) + 0.5) / samples) / side;
        const y = (row + (Math.floor(sample / samples) + 0.5) / samples) / side;
        if (!maskable && !inRounded(x, y)) continue;
        ground++;
        if (inDrawing(0.5 + (x - 0.5) / scale, 0.5 + (y - 0.5) / scale, cells)) ink++;
      }
      const share = ground === 0 ? 0 : ink / ground;
      const at = row * (1 + 4 * side) + 1 + 4 * column;
      GROUND.forEach((value, channel) => (rows[at + channel] = Math.round(value + share * (INK[channel]! - value))));
      rows[at + 3] = Math.round((255 * ground) / samples ** 2);
    }
  }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(side, 0);
  header.writeUInt32BE(side, 4);
  header.set([8, 6, 0, 0, 0], 8);
  const signature = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);
  return Buffer.concat([
    signature,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

function inRounded(x: number, y: number): boolean {
  const across = Math.max(CORNER - x, x - (1 - CORNER), 0);
  const down = Math.max(CORNER - y, y - (1 - CORNER), 0);
  return Math.hypot(across, down) <= CORNER;
}

function inDrawing(x: number, y: number, cells: readonly Square[]): boolean {
  if (x <= 0.488) return Math.hypot(x - 0.488, y - 0.5) <= RADIUS;
  return cells.some(({ left, top }) => x >= left && x <= left + SQUARE && y >= top && y <= top + SQUARE);
}

function of512(share: number): string {
  return (512 * share).toFixed(1);
}

function chunk(kind: string, data: Buffer): Buffer {
  const body = Buffer.concat([Buffer.from(kind, "latin1"), data]);
  const framed = Buffer.alloc(body.length + 8);
  framed.writeUInt32BE(data.length, 0);
  body.copy(framed, 4);
  framed.writeUInt32BE(crc32(body), 4 + body.length);
  return framed;
}

function crc32(data: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}
