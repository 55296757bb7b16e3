/** The windows of original pixels that some networks look at, as `tasks/networks/answer.py` draws them. */

/** How many windows of how many pixels a side. */
export interface WindowsWanted {
  readonly count: number;
  readonly side: number;
}

/** A window of a picture: its top left corner in the upright picture, and its RGB bytes, row by row. */
export interface Window {
  readonly side: number;
  readonly top: number;
  readonly left: number;
  readonly pixels: Uint8Array;
}

/** Top and left of a picture's window, uniform over its places by hash of name and index. */
export async function windowPlace(name: string, index: number, height: number, width: number, side: number): Promise<[number, number]> {
  const digest = new DataView((await sha256(new TextEncoder().encode(`window:${index}:${name}`))).buffer);
  const place = (offset: number, length: number) => Number((digest.getBigUint64(offset) * BigInt(length - side + 1)) >> 64n);
  return [place(0, height), place(8, width)];
}

/** A whole picture at its full size, to be filled with its pixels before its windows are cut. */
export class WholePicture {
  /** RGB, row by row. */
  readonly pixels: Uint8Array<ArrayBuffer>;
  /** The pixels with their shape before them, in one piece: pictures are too large to be copied for their hash. */
  private readonly named: Uint8Array<ArrayBuffer>;

  constructor(
    readonly height: number,
    readonly width: number,
  ) {
    const shape = new TextEncoder().encode(`(${height}, ${width}, 3)`);
    this.named = new Uint8Array(shape.length + height * width * 3);
    this.named.set(shape);
    this.pixels = this.named.subarray(shape.length);
  }

  /** What its windows are drawn by: its size and all its pixels, whatever its file says beside them. */
  async name(): Promise<string> {
    return Array.from(await sha256(this.named), (byte) => byte.toString(16).padStart(2, "0")).join("");
  }

  /** The windows that are wanted of it, in order; none of a side that is longer than one of its own. */
  async windows(wanted: readonly WindowsWanted[]): Promise<Window[]> {
    const [found, name]: [Window[], string] = [[], await this.name()];
    for (const { count, side } of wanted) {
      if (Math.min(this.height, this.width) < side) continue;
      for (let index = 0; index < count; index++) {
        const [top, left] = await windowPlace(name, index, this.height, this.width, side);
        found.push({ side, top, left, pixels: this.cut(top, left, side) });
      }
    }
    return found;
  }

  private cut(top: number, left: number, side: number): Uint8Array {
    const window = new Uint8Array(side * side * 3);
    for (let row = 0; row < side; row++) {
      const from = 3 * ((top + row) * this.width + left);
      window.set(this.pixels.subarray(from, from + 3 * side), 3 * row * side);
    }
    return window;
  }
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer>> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
