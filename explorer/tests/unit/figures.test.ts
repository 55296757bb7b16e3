import { expect, test } from "vitest";
import { confusion } from "../../src/figures/confusion";
import { histogram } from "../../src/figures/histogram";
import { countPairs, mcnemar, pairs } from "../../src/figures/paired";
import { roc, scoresByClass } from "../../src/figures/roc";
import { foldThresholds, GENERATED, margins, NONE, PHOTOGRAPH, verdicts } from "../../src/figures/verdicts";

const DETECTOR = { name: "svm", title: "SVM", role: "detector", thresholds: { "64": { "0": 0.5, "1": null } } };

const truth = Uint8Array.of(0, 0, 0, 1, 1, 1);
const all = new Uint8Array(6).fill(1);

test("a picture is called generated from its fold's threshold on, and has no verdict without one", () => {
  const thresholds = foldThresholds(DETECTOR, "64", 3);
  expect([...thresholds]).toEqual([0.5, NaN, NaN]);
  const scores = Float64Array.of(0.5, 0.49, NaN, 0.9, 0.9);
  const folds = Int32Array.of(0, 0, 0, 1, -1);
  expect([...verdicts(scores, folds, thresholds)]).toEqual([GENERATED, PHOTOGRAPH, NONE, NONE, NONE]);
  expect([...foldThresholds(DETECTOR, "128", 1)]).toEqual([NaN]);
});

test("margins are distances from the fold's threshold", () => {
  const found = margins(Float64Array.of(0.25, 0.75, 0.5), Int32Array.of(0, 1, 2), Float64Array.of(0.5, 0.5, NaN));
  expect([...found]).toEqual([0.25, 0.25, NaN]);
});

test("counts, shares and balanced accuracy are those counted by hand", () => {
  // Photographs: two right, one false alarm. Generated: one found, one missed, one without a verdict.
  const said = Uint8Array.of(0, 0, 1, 1, 0, NONE);
  const found = confusion(truth, said, all);
  expect(found.counts).toEqual([[2, 1], [1, 1]]);
  expect([found.without, found.mistakes]).toEqual([1, 2]);
  expect(found.falseAlarms).toBeCloseTo(1 / 3, 15);
  expect(found.balancedAccuracy).toBeCloseTo((2 / 3 + 1 / 2) / 2, 15);
});

test("pictures of other mixes are not counted, and an empty class has no shares", () => {
  const found = confusion(truth, Uint8Array.of(0, 0, 1, 1, 1, 1), Uint8Array.of(1, 1, 1, 0, 0, 0));
  expect(found.counts).toEqual([[2, 1], [0, 0]]);
  expect(found.balancedAccuracy).toBeNaN();
});

test("the ROC curve has a point where it turns, and ties count half", () => {
  // Pairs: 0.2 below both, 0.6 ties with one and is below 0.9: (2 + 1.5) / 4.
  const { falseAlarms, found, auroc } = roc(Float64Array.of(0.2, 0.6), Float64Array.of(0.6, 0.9));
  expect(auroc).toBe(0.875);
  expect([...falseAlarms]).toEqual([0, 0, 0.5, 1]);
  expect([...found]).toEqual([0, 0.5, 1, 1]);
});

test("separated scores give an area of one, reversed ones of zero, and an empty class none", () => {
  const [low, high] = [Float64Array.of(0, 0.1, 0.2), Float64Array.of(0.8, 1)];
  expect(roc(low, high).auroc).toBe(1);
  expect(roc(high, low).auroc).toBe(0);
  expect([...roc(low, high).found]).toEqual([0, 1, 1]);
  expect(roc(low, new Float64Array(0)).auroc).toBeNaN();
});

test("scores are split by class, without those that take no part", () => {
  const scores = Float64Array.of(0.3, NaN, 0.1, 0.9, 0.8, 0.7);
  const [photographs, generated] = scoresByClass(scores, truth, Uint8Array.of(1, 1, 1, 1, 0, 1));
  expect([...photographs]).toEqual([0.1, 0.3]);
  expect([...generated]).toEqual([0.7, 0.9]);
});

test("a score of one is in the last bin", () => {
  expect([...histogram(Float64Array.of(0, 0.24, 0.25, 1), 4)]).toEqual([2, 1, 0, 1]);
});

test("pairs are counted where both have a verdict", () => {
  const first = Uint8Array.of(0, 1, 0, 1, 0, NONE);
  const second = Uint8Array.of(0, 0, 1, 0, 0, 1);
  const found = pairs(truth, first, second);
  expect(countPairs(found, all)).toEqual({ first: 2, second: 1, both: 1, neither: 1 });
});

// scipy.stats.binomtest(first, first + second).pvalue
test.each([
  [0, 0, 1],
  [5, 5, 1],
  [1, 8, 0.0390625],
  [10, 2, 0.03857421875],
  [22, 57, 0.00010259635179423318],
  [300, 400, 0.0001784763144856244],
  [40_000, 41_000, 0.0004478218231375636],
  [1, 1100, 0],
])("McNemar's exact test of %i against %i is %f", (first, second, p) => {
  expect(mcnemar(first, second)).toBeCloseTo(p, 12);
  expect(mcnemar(second, first)).toBe(mcnemar(first, second));
});
