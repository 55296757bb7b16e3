/** What may be searched: a line in small letters for each picture, in a few files that are read once. */

import { Damaged } from "./problems";

export interface WordFiles {
  readonly files: number;
  /** In each file but the last. */
  readonly pictures: number;
}

/** One file's text, and before which character each line ends. */
interface Lines {
  readonly text: string;
  readonly ends: Uint32Array;
}

export class Words {
  private last: { readonly sought: string; readonly found: Uint8Array } | null = null;

  private constructor(private readonly parts: readonly Lines[]) {}

  /** Read all files; `read` gives one by its path. Throws a Problem. */
  static async open(files: WordFiles, pictures: number, read: (path: string) => Promise<ArrayBuffer>): Promise<Words> {
    const numbers = Array.from({ length: files.files }, (_, number) => number);
    const parts = await Promise.all(
      numbers.map(async (number) => {
        const path = `data/words-${number}.bin`;
        const expected = Math.min(files.pictures, pictures - number * files.pictures);
        return linesOf(await unpacked(path, await read(path)), expected, path);
      }),
    );
    return new Words(parts);
  }

  /** Of each picture whether its texts have these words, which are in small letters: 1 or 0. */
  search(sought: string): Uint8Array {
    if (this.last?.sought === sought) return this.last.found;
    const found = new Uint8Array(this.parts.reduce((sum, { ends }) => sum + ends.length, 0));
    let first = 0;
    for (const { text, ends } of this.parts) {
      let line = 0;
      for (let at = text.indexOf(sought); at >= 0; at = text.indexOf(sought, ends[line])) {
        while (ends[line]! <= at) line++;
        found[first + line] = 1;
      }
      first += ends.length;
    }
    this.last = { sought, found };
    return found;
  }
}

async function unpacked(path: string, file: ArrayBuffer): Promise<string> {
  try {
    return await new Response(new Blob([file]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  } catch (error) {
    throw new Damaged(path, error instanceof Error ? error.message : String(error));
  }
}

function linesOf(text: string, expected: number, path: string): Lines {
  const ends = new Uint32Array(expected);
  let line = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) ends[line++] = at + 1;
  if (line !== expected) throw new Damaged(path, `${line} lines of ${expected}`);
  return { text, ends };
}
