import { expect, test } from "vitest";
import { accuracy, confusion, csv, labelOf, times, type Measured } from "../../src/evaluate/statistics";
import type { Verdict } from "../../src/network/decision";

const RATE = { value: null, low: null, high: null, n: 0 };

function measured(label: string | null, verdict: Verdict, source: string | null = null, file = "a.jpg"): Measured {
  return {
    sample: { file, label },
    model: "dense",
    graphMs: 2,
    decodeMs: 3,
    answer: {
      verdict,
      reason: verdict === "cannot-tell" ? "between" : null,
      source,
      pFake: 0.25,
      threshold: 0.5,
      photographThreshold: verdict === "cannot-tell" ? 0.125 : null,
      probabilities: { real: 0.75, gan: 0.25 },
      familiarity: { "max-probability": 0.75, energy: 0, distance: 0 },
      kind: { shorterSide: 64, format: "JPEG", jpegQuality: 90, testedSide: 64, testedQuality: null, cell: "64/none" },
      falseAlarms: RATE,
      missed: RATE,
      missedUnknown: null,
      photographsUndecided: null,
      generatedUndecided: null,
    },
  };
}

test("quantiles interpolate linearly, as NumPy's do", () => {
  // numpy.quantile([1, 2, 4, 10], [0.5, 0.95])
  const { mean, median, p95, total } = times([10, 1, 4, 2]);
  expect([mean, median, total]).toEqual([4.25, 3, 17]);
  expect(p95).toBeCloseTo(9.1, 12);
});

test("accuracy counts over all labelled pictures, of which one without an answer is not right", () => {
  const rows = [
    measured("real", "photograph"),
    measured("real", "generated", "gan"),
    measured("gan", "generated", "stable"),
    measured("fake", "photograph"),
    measured("gan", "unknown-source"),
    measured("gan", "cannot-tell"),
    measured(null, "unknown-source"),
    measured(null, "photograph"),
  ];
  expect(accuracy(rows)).toEqual({ right: 2, labelled: 6, answered: 5, all: 8 });
});

test("a picture that is too small for a model counts as one that it did not answer", () => {
  const tooSmall = ["real", null].map((label) => ({ sample: { file: "a.jpg", label }, model: "dense", reason: "too-small" }));
  expect(accuracy([measured("real", "photograph")], tooSmall)).toEqual({ right: 1, labelled: 2, answered: 1, all: 3 });
});

test("the confusion of a model that tells no generators apart has one column for them", () => {
  const rows = [measured("fake", "generated"), measured("fake", "cannot-tell"), measured("real", "generated")];
  expect(confusion(rows, ["real", "generated"])).toEqual({
    columns: ["real", "generated", "no-answer"],
    rows: [
      { label: "real", counts: [0, 1, 0] },
      { label: "fake", counts: [0, 1, 1] },
    ],
  });
});

test("the confusion counts every labelled picture once", () => {
  const rows = [
    measured("stable", "generated", "gan"),
    measured("real", "photograph"),
    measured("real", "unknown-source"),
    measured("fake", "generated", "stable"),
    measured(null, "photograph"),
  ];
  expect(confusion(rows, ["real", "gan", "stable"])).toEqual({
    columns: ["real", "gan", "stable", "no-answer"],
    rows: [
      { label: "real", counts: [1, 0, 0, 1] },
      { label: "stable", counts: [0, 1, 0, 0] },
      { label: "fake", counts: [0, 0, 1, 0] },
    ],
  });
});

test("the nearest folder with a known name labels a picture", () => {
  expect(labelOf("set/real/gan/1.jpg", ["real", "gan"])).toBe("gan");
  expect(labelOf("set/fake/holidays/1.jpg", ["real", "gan"])).toBe("fake");
  expect(labelOf("real.jpg", ["real", "gan"])).toBeNull();
});

test("names with commas, quotes and formulas stay one harmless field", () => {
  const text = csv([measured("real", "photograph", null, 'a,"b".jpg'), measured("real", "photograph", null, "=1+1.jpg")], [
    { sample: { file: "c.jpg", label: null }, model: null, reason: "truncated" },
    { sample: { file: "d.jpg", label: null }, model: "traces", reason: "too-small" },
  ]);
  const lines = text.trimEnd().split("\r\n");
  expect(lines).toHaveLength(5);
  expect(lines[1]!.startsWith('"a,""b"".jpg",real,dense,photograph,,0.25,0.5,,64/none,0.75,0.25,2,3,')).toBe(true);
  expect(lines[2]!.startsWith("'=1+1.jpg,")).toBe(true);
  expect(lines[3]!).toBe("c.jpg,,,,,,,,,,,,,truncated");
  expect(lines[4]!).toBe("d.jpg,,traces,,,,,,,,,,,too-small");
  expect(new Set([lines[0]!, lines[3]!].map((line) => line.split(",").length))).toEqual(new Set([14]));
});
