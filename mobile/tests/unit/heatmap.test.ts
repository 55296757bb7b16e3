import { expect, test } from "vitest";
import { colours, evidence } from "../../src/picture/heatmap";

const map = {
  values: Float32Array.from([3, 1, 0, 1, /* the other class */ 1, 1, 4, 1]),
  sides: [2, 2] as const,
  place: null,
};

test("evidence for one class is relative to all, and its strongest place has magnitude one", () => {
  expect(evidence([map], 0).map((each) => [...each])).toEqual([[0.5, 0, -1, 0]]);
  expect(evidence([map], 1).map((each) => [...each])).toEqual([[-0.5, 0, 1, 0]]);
});

test("windows are compared with each other by one measure", () => {
  const weaker = { ...map, values: map.values.map((value) => value / 2) };
  expect(evidence([map, weaker], 0).map((each) => [...each])).toEqual([
    [0.5, 0, -1, 0],
    [0.25, 0, -0.5, 0],
  ]);
});

test("a map without evidence is transparent", () => {
  const [flat] = evidence([{ ...map, values: new Float32Array(8) }], 0);
  expect([...colours(flat!)].filter((_, index) => index % 4 === 3)).toEqual([0, 0, 0, 0]);
});

test("evidence for and against have different colours", () => {
  const rgba = colours(Float32Array.from([1, -1]));
  expect(rgba[0]).toBeGreaterThan(rgba[2]!);
  expect(rgba[4]).toBeLessThan(rgba[6]!);
  expect(rgba[3]).toBe(rgba[7]);
});
