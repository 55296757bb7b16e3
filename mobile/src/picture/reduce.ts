/**
 * Reducing large pictures exactly as Python does (`tasks/networks/exported.py`, `reduce_picture`): Pillow's BILINEAR, an
 * antialiased triangle in 8-bit fixed point, rows first, then columns.
 */

export const LONGEST_SIDE = 1024;
export const SHORTEST_SIDE = 16;

const PRECISION = 22;
const HALF = 1 << (PRECISION - 1);

/** [height, width] within `longest`: the longer side becomes `longest`, the other is rounded, halves up, 1 at least. */
export function reducedSides(height: number, width: number, longest = LONGEST_SIDE): [number, number] {
  const larger = Math.max(height, width);
  if (larger <= longest) return [height, width];
  const reduced = (side: number) => Math.max(1, Math.floor((2 * side * longest + larger) / (2 * larger)));
  return [reduced(height), reduced(width)];
}

/** Of each output pixel: its first input, the number of its inputs, and their weights from `size * i` on. */
export interface Taps {
  readonly size: number;
  readonly first: Int32Array;
  readonly count: Int32Array;
  readonly weights: Int32Array;
}

/** The integer weights with which `n` pixels become `m`. */
export function triangleTaps(n: number, m: number): Taps {
  const scale = n / m;
  const support = Math.max(scale, 1);
  const slope = 1 / support;
  const size = Math.ceil(support) * 2 + 1;
  const taps = {
    size,
    first: new Int32Array(m),
    count: new Int32Array(m),
    weights: new Int32Array(m * size),
  };
  const heights = new Float64Array(size);
  for (let i = 0; i < m; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const count = Math.min(n, Math.trunc(centre + support + 0.5)) - first;
    let sum = 0;
    for (let j = 0; j < count; j++) {
      heights[j] = Math.max(0, 1 - Math.abs((j + first - centre + 0.5) * slope));
      sum += heights[j]!;
    }
    taps.first[i] = first;
    taps.count[i] = count;
    for (let j = 0; j < count; j++) {
      taps.weights[i * size + j] = Math.trunc(0.5 + (heights[j]! / sum) * (1 << PRECISION));
    }
  }
  return taps;
}

/**
 * Takes a picture in bands of rows and keeps it only at its reduced width, so that memory stays bounded: at most
 * height x reduced width x 3 bytes, 31 MB for 100 megapixels.
 */
export class Reducer {
  readonly sides: readonly [number, number];
  private readonly across: Taps | null;
  private readonly narrow: Uint8Array;
  private taken = 0;

  constructor(
    private readonly height: number,
    private readonly width: number,
    longest = LONGEST_SIDE,
  ) {
    this.sides = reducedSides(height, width, longest);
    this.across = this.sides[1] === width ? null : triangleTaps(width, this.sides[1]);
    this.narrow = new Uint8Array(height * this.sides[1] * 3);
  }

  /** The next rows: RGB bytes, width x 3 per row. */
  add(rows: Uint8Array): void {
    const count = rows.length / (3 * this.width);
    if (!Number.isInteger(count) || this.taken + count > this.height) {
      throw new RangeError(`expected whole rows of ${this.width} pixels, ${this.height} in all, got ${rows.length} bytes`);
    }
    for (let row = 0; row < count; row++) {
      this.addRow(rows.subarray(row * this.width * 3, (row + 1) * this.width * 3));
    }
  }

  /** The reduced picture: RGB bytes, `sides[0]` rows of `sides[1]` pixels. */
  finish(): Uint8Array {
    if (this.taken !== this.height) throw new RangeError(`expected ${this.height} rows, got ${this.taken}`);
    const [height, width] = this.sides;
    if (height === this.height) return this.narrow;
    const down = triangleTaps(this.height, height);
    const stride = width * 3;
    const reduced = new Uint8Array(height * stride);
    const sums = new Int32Array(stride);
    for (let i = 0; i < height; i++) {
      sums.fill(HALF);
      for (let j = 0; j < down.count[i]!; j++) {
        const weight = down.weights[i * down.size + j]!;
        const start = (down.first[i]! + j) * stride;
        for (let x = 0; x < stride; x++) sums[x]! += weight * this.narrow[start + x]!;
      }
      for (let x = 0; x < stride; x++) reduced[i * stride + x] = clipped(sums[x]!);
    }
    return reduced;
  }

  private addRow(row: Uint8Array): void {
    const width = this.sides[1];
    const out = this.taken++ * width * 3;
    if (!this.across) {
      this.narrow.set(row, out);
      return;
    }
    const { size, first, count, weights } = this.across;
    for (let i = 0; i < width; i++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let at = first[i]! * 3;
      const end = i * size + count[i]!;
      for (let tap = i * size; tap < end; tap++, at += 3) {
        const weight = weights[tap]!;
        red = (red + weight * row[at]!) | 0;
        green = (green + weight * row[at + 1]!) | 0;
        blue = (blue + weight * row[at + 2]!) | 0;
      }
      this.narrow[out + 3 * i] = clipped(red);
      this.narrow[out + 3 * i + 1] = clipped(green);
      this.narrow[out + 3 * i + 2] = clipped(blue);
    }
  }
}

function clipped(sum: number): number {
  const value = sum >> PRECISION;
  return value < 0 ? 0 : value > 255 ? 255 : value;
}
