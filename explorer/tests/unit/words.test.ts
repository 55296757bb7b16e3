import { gzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { Damaged } from "../../src/data/problems";
import { Words } from "../../src/data/words";

const LINES = ["a cat\tone.png", "a dog\tcat.png cat", "two cats", "", "ein größeres pferd", "cat"];

/** Three lines in each file. */
async function open(lines: readonly string[] = LINES, pictures = LINES.length): Promise<Words> {
  const parts = [lines.slice(0, 3), lines.slice(3)].map((part) => gzipSync(part.map((line) => `${line}\n`).join("")));
  return Words.open({ files: 2, pictures: 3 }, pictures, async (path) => {
    const part = parts[Number(/(\d)\.bin/.exec(path)![1])]!;
    return part.buffer.slice(part.byteOffset, part.byteOffset + part.byteLength) as ArrayBuffer;
  });
}

test.each([
  ["cat", [0, 1, 2, 5]],
  ["a cat", [0]],
  ["größer", [4]],
  // Not across two pictures.
  ["cats\n", [2]],
  ["nowhere", []],
])("%j is found in pictures %o, however often it stands there", async (sought, rows) => {
  const found = (await open()).search(sought);
  expect(found.length).toBe(LINES.length);
  expect([...found.keys()].filter((row) => found[row] === 1)).toEqual(rows);
});

test("files with other lines than there are pictures, and what is no gzip file, are refused", async () => {
  await expect(open(LINES.slice(0, 5))).rejects.toThrow(Damaged);
  await expect(open([...LINES, "another"])).rejects.toThrow(Damaged);
  const none = Words.open({ files: 1, pictures: 3 }, 3, () => Promise.resolve(new TextEncoder().encode("a\nb\nc\n").buffer));
  await expect(none).rejects.toThrow(Damaged);
});
