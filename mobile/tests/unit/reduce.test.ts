import { describe, expect, test } from "vitest";
import { Reducer, reducedSides } from "../../src/picture/reduce";
import { fixture } from "../fixtures";

interface Case {
  readonly height: number;
  readonly width: number;
  readonly longest: number;
  readonly pixels: string;
  readonly reducedSides: [number, number];
  readonly reduced: string;
}

const cases = fixture("kernel.json") as Case[];

describe.each(cases)("$width x $height to $longest", ({ height, width, longest, pixels, reducedSides: sides, reduced }) => {
  const source = new Uint8Array(Buffer.from(pixels, "base64"));

  test("the sides are Python's", () => {
    expect(reducedSides(height, width, longest)).toEqual(sides);
  });

  test.each([1, 7, height])("the bytes are Pillow's, taken in bands of %i rows", (band) => {
    const reducer = new Reducer(height, width, longest);
    for (let row = 0; row < height; row += band) {
      reducer.add(source.subarray(row * width * 3, Math.min(height, row + band) * width * 3));
    }
    expect(Buffer.from(reducer.finish()).equals(Buffer.from(reduced, "base64"))).toBe(true);
  });
});

test("half a row is refused", () => {
  expect(() => new Reducer(4, 4).add(new Uint8Array(6))).toThrow(RangeError);
});

test("a picture without all its rows has no end", () => {
  expect(() => new Reducer(4, 4).finish()).toThrow(RangeError);
});
