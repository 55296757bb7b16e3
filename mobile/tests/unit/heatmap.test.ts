import { expect, test } from "vitest";
import { colours, evidence } from "../../src/picture/heatmap";

const found = {
  probabilities: new Float32Array(2),
  familiarity: new Float32Array(3),
  activation: Float32Array.from([3, 1, 0, 1, /* the other class */ 1, 1, 4, 1]),
  activationSides: [2, 2] as const,
};

test("evidence for one class is relative to all, and its strongest place has magnitude one", () => {
  expect([...evidence(found, 0)]).toEqual([0.5, 0, -1, 0]);
  expect([...evidence(found, 1)]).toEqual([-0.5, 0, 1, 0]);
});

test("a map without evidence is transparent", () => {
  const flat = { ...found, activation: new Float32Array(8) };
  expect([...colours(evidence(flat, 0))].filter((_, index) => index % 4 === 3)).toEqual([0, 0, 0, 0]);
});

test("evidence for and against have different colours", () => {
  const rgba = colours(Float32Array.from([1, -1]));
  expect(rgba[0]).toBeGreaterThan(rgba[2]!);
  expect(rgba[4]).toBeLessThan(rgba[6]!);
  expect(rgba[3]).toBe(rgba[7]);
});
