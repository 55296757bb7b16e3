import { expect, test } from "vitest";
import { opinionOf } from "../../src/network/opinion";

function said(logits: number[], probabilities: number[], familiarity: number[]) {
  return {
    logits: Float32Array.from(logits),
    probabilities: Float32Array.from(probabilities),
    familiarity: Float32Array.from(familiarity),
    activation: Float32Array.from([logits[0]!, 0]),
    activationSides: [1, 1] as const,
    graphMs: 2,
  };
}

const windows = [{ top: 0, left: 3, side: 4 }, { top: 5, left: 1, side: 4 }];

test("one thing that it was shown has its own answer", () => {
  const { probabilities, maps } = opinionOf([said([9, 9], [0.25, 0.75], [1, 2, 3])], [null], 1);
  expect([...probabilities]).toEqual([0.25, 0.75]);
  expect(maps.map(({ place }) => place)).toEqual([null]);
});

test("windows have one opinion by their mean logits, calibrated, and not by their mean probabilities", () => {
  const found = opinionOf([said([4, 0], [1, 0], [0.5, 1, -1]), said([0, 2], [0, 1], [1, 3, -2])], windows, 2);
  // The means are 2 and 1, over the temperature 1 and 0.5.
  const expected = 1 / (1 + Math.exp(-0.5));
  expect(found.probabilities[0]).toBeCloseTo(expected, 6);
  expect(found.probabilities[1]).toBeCloseTo(1 - expected, 6);
  expect([...found.familiarity]).toEqual([0.75, 2, -1.5]);
  expect(found.graphMs).toBe(4);
});

test("logits that no power of e can hold are calibrated all the same", () => {
  const { probabilities } = opinionOf([said([2000, 0], [1, 0], [1, 1, 1]), said([2000, 0], [1, 0], [1, 1, 1])], windows, 1);
  expect([...probabilities]).toEqual([1, 0]);
});

test("the evidence of every window keeps its place", () => {
  const { maps } = opinionOf([said([4, 0], [1, 0], [1, 1, 1]), said([0, 2], [0, 1], [1, 1, 1])], windows, 1);
  expect(maps.map(({ values, place }) => [values[0], place])).toEqual([[4, windows[0]], [0, windows[1]]]);
});
