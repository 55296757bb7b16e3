import { expect, test } from "vitest";
import { mended } from "../../src/picture/ends";

const FRAME = [0xff, 0xc0, 0x00, 0x0b, 8, 0, 64, 0, 64, 1, 1, 0x11, 0];
const SCAN = [0xff, 0xda, 0x00, 0x08, 1, 1, 0x00, 0, 63, 0];
const JPEG = [0xff, 0xd8, ...FRAME, ...SCAN, 0x12, 0x34, 0xff, 0x00, 0x56];
const END = [0xff, 0xd9];

async function whole(bytes: number[]): Promise<number[]> {
  return [...new Uint8Array(await mended(Uint8Array.from(bytes), "JPEG")!.file.arrayBuffer())];
}

function run(length: number, fill: number): number[] {
  return new Array<number>(length).fill(fill);
}

test.each([0x00, 0xff, 0xf6])("space that was reserved and never written, filled with %i, is none of a JPEG", async (fill) => {
  expect(await whole([...JPEG, ...run(256, fill)])).toEqual([...JPEG, ...END]);
});

test("a zero that is stuffed behind a byte of a marker stays", async () => {
  expect(await whole([...JPEG, 0xff, ...run(300, 0x00)])).toEqual([...JPEG, 0xff, 0x00, ...END]);
});

test("a short run stays, but for half a marker: pixels may be coded so", async () => {
  const short = [...JPEG, ...run(255, 0x00)];
  expect(await whole(short)).toEqual([...short, ...END]);
  expect(await whole([...short, 0xff, 0xff])).toEqual([...short, ...END]);
});

test("a JPEG with its end marker is left as it is", () => {
  expect(mended(Uint8Array.from([...JPEG, ...END, ...run(300, 0x00)]), "JPEG")).toBeNull();
});
