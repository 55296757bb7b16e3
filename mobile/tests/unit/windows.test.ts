import { expect, test } from "vitest";
import { WholePicture, windowPlace } from "../../src/picture/windows";
import { fixture } from "../fixtures";

interface Named {
  readonly height: number;
  readonly width: number;
  readonly pixels: string;
  readonly name: string;
}

const { named, places } = fixture("windows.json") as {
  named: Named;
  places: { name: string; index: number; height: number; width: number; place: [number, number] }[];
};

function whole({ height, width, pixels }: Named): WholePicture {
  const picture = new WholePicture(height, width);
  picture.pixels.set(Buffer.from(pixels, "base64"));
  return picture;
}

test("windows lie where Python draws them", async () => {
  for (const { name, index, height, width, place } of places) expect(await windowPlace(name, index, height, width, 256)).toEqual(place);
  expect(places.length).toBeGreaterThan(10);
});

test("a picture is named as in Python, and otherwise once a single level or its shape differs", async () => {
  expect(await whole(named).name()).toBe(named.name);
  expect(await whole({ ...named, height: named.width, width: named.height }).name()).not.toBe(named.name);
  const other = whole(named);
  other.pixels[other.pixels.length - 1]! ^= 1;
  expect(await other.name()).not.toBe(named.name);
});

test("a window holds the pixels of its place, row by row", async () => {
  const picture = whole(named);
  const [window] = await picture.windows([{ count: 1, side: 4 }]);
  const { top, left, side, pixels } = window!;
  const expected: number[] = [];
  for (let row = top; row < top + 4; row++) expected.push(...picture.pixels.subarray(3 * (row * named.width + left), 3 * (row * named.width + left + 4)));
  expect([side, [...pixels]]).toEqual([4, expected]);
});

test("of a side that the picture has not there are none, and of others as many as are wanted", async () => {
  const found = await whole(named).windows([{ count: 2, side: 8 }, { count: 3, side: 7 }]);
  expect(found.map(({ side }) => side)).toEqual([7, 7, 7]);
  for (const { left } of found) expect(left).toBe(0);
});
