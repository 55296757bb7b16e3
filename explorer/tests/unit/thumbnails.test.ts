import { afterEach, expect, test, vi } from "vitest";
import type { Host } from "../../src/data/host";
import { Missing } from "../../src/data/problems";
import { Thumbnails } from "../../src/data/thumbnails";

const COUNT = 10;
const SIZE = 100;

afterEach(() => vi.restoreAllMocks());

/** Ten pictures of 100 bytes in two files, the last one without; `asked` are the pieces that were fetched. */
function made(mostKept: number, broken = -1) {
  const asked: string[] = [];
  const host = {
    piece: async (path: string, start: number, end: number) => {
      asked.push(`${path} ${start}-${end}`);
      if (path.endsWith(`-${broken}.bin`)) throw new Missing(path, 404);
      return new ArrayBuffer(end - start);
    },
  } as unknown as Host;
  const files = Int32Array.from({ length: COUNT }, (_, row) => (row === COUNT - 1 ? -1 : row < 5 ? 0 : 1));
  const offsets = Int32Array.from({ length: COUNT }, (_, row) => (row % 5) * SIZE);
  const arrived = vi.fn();
  const thumbnails = new Thumbnails(host, { files, offsets, lengths: new Int32Array(COUNT).fill(SIZE) }, arrived, "thumbnails", mostKept);
  return { thumbnails, asked, arrived };
}

test("neighbours come with one request, and are not asked for again", async () => {
  const { thumbnails, asked, arrived } = made(1e6);
  thumbnails.want("grid", [3, 0, 1, 7, 9]);
  await vi.waitFor(() => expect(arrived).toHaveBeenCalledTimes(2));
  thumbnails.want("grid", [0, 1]);
  expect(asked).toEqual(["data/thumbnails-0.bin 0-400", "data/thumbnails-1.bin 200-300"]);
  expect([0, 1, 3, 7].every((row) => thumbnails.get(row)?.startsWith("blob:"))).toBe(true);
  expect([thumbnails.get(2), thumbnails.get(9)]).toEqual([undefined, null]);
});

test("the oldest are given back, those in sight never", async () => {
  const revoked = vi.spyOn(URL, "revokeObjectURL");
  const { thumbnails, arrived } = made(3 * SIZE);
  thumbnails.want("grid", [0, 1, 2, 3]);
  await vi.waitFor(() => expect(arrived).toHaveBeenCalledTimes(1));
  expect(revoked).not.toHaveBeenCalled();
  thumbnails.want("grid", [3, 5]);
  await vi.waitFor(() => expect(arrived).toHaveBeenCalledTimes(2));
  expect(revoked).toHaveBeenCalledTimes(2);
  expect([0, 1, 2, 3, 5].map((row) => thumbnails.get(row) !== undefined)).toEqual([false, false, true, true, true]);
});

test("two parts of the page want what they want, and a missing file is known as missing", async () => {
  const { thumbnails, arrived } = made(1e6, 1);
  thumbnails.want("grid", [0]);
  thumbnails.want("picture", [6]);
  await vi.waitFor(() => expect(arrived).toHaveBeenCalledTimes(2));
  expect(thumbnails.get(0)).toContain("blob:");
  expect(thumbnails.get(6)).toBeNull();
});
