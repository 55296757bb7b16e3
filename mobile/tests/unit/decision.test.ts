import { describe, expect, test } from "vitest";
import { BadModel, called, readCard } from "../../src/network/card";
import { answer, nearestCell } from "../../src/network/decision";
import type { PictureFacts } from "../../src/picture/facts";
import { fixture } from "../fixtures";

interface Case {
  readonly card: Record<string, unknown>;
  readonly facts: PictureFacts;
  readonly probabilities: number[];
  readonly familiarity: number[];
  readonly answer: Record<string, unknown>;
}

const { cases, resolutions, qualities } = fixture("rule.json") as {
  cases: Case[];
  resolutions: [number, string][];
  qualities: [number, number | null][];
};

function detection(probabilities: number[], familiarity: number[]) {
  return {
    probabilities: Float32Array.from(probabilities),
    familiarity: Float32Array.from(familiarity),
    activation: new Float32Array(3),
    activationSides: [1, 1] as const,
  };
}

test("every answer is Python's, field by field", () => {
  for (const { card, facts, probabilities, familiarity, answer: expected } of cases) {
    expect(answer(readCard(card), facts, detection(probabilities, familiarity))).toEqual(expected);
  }
});

test("all verdicts occur among them", () => {
  expect(new Set(cases.map((each) => each.answer["verdict"])).size).toBe(3);
});

test("a picture of any size is compared with Python's kind", () => {
  const card = readCard(cases[0]!.card);
  expect(resolutions.map(([side]) => [side, nearestCell(card, side, null).resolution])).toEqual(resolutions);
  expect(qualities.map(([quality]) => [quality, nearestCell(card, 64, quality).jpegQuality])).toEqual(qualities);
});

test("kinds that a file does not tell are read by name, and cards of before by size and quality", () => {
  const [now, before] = [readCard(cases[0]!.card), readCard(cases[1]!.card)];
  const others = now.errorRates.filter((cell) => !cell.isComparable);
  expect(others.map((cell) => [cell.name, cell.falseAlarms.value])).toEqual([
    ["128/webp-50", 0.12],
    ["64/melted", 0.13],
  ]);
  expect([...before.errorRates, ...others]).toEqual(now.errorRates);
});

test("a network that looks at windows of original pixels is refused", () => {
  const card = { ...cases[0]!.card, windows: 5 };
  expect(() => readCard(card)).toThrow(/windows of original pixels/);
});

test("generators are called as the card says, and networks of random weights demonstrations", () => {
  const read = (changes: object) => readCard({ ...cases[0]!.card, ...changes });
  expect(called(read({ sources: { gan: "GAN" } }), "gan")).toBe("GAN");
  expect(called(read({ sources: {} }), "gan")).toBe("gan");
  expect(read({}).isDemonstration).toBe(false);
  expect(read({ about: { weights: "random:0", spec: { kind: "fine-tuned" } } }).isDemonstration).toBe(true);
  expect(read({ about: { weights: "random:0", spec: { kind: "residual" } } }).isDemonstration).toBe(false);
  expect(read({ about: { weights: "sha256:00" } }).isDemonstration).toBe(false);
});

test("a card of a later format asks for a newer version of the app", () => {
  expect(() => readCard({ ...cases[0]!.card, format: 2, decision: "another" })).toThrow(/newer version of this app/);
});

test("outputs that are no numbers give no verdict", () => {
  const { card, facts } = cases[0]!;
  expect(() => answer(readCard(card), facts, detection([NaN, 0.5, 0.5], [0.5, 0, 0]))).toThrow(BadModel);
  expect(() => answer(readCard(card), facts, detection([0.5, 0.5], [0.5, 0, 0]))).toThrow(BadModel);
});

describe("a card", () => {
  test.each(["decision", "error_rates", "canonical_side", "classes", "sha256", "self_test"])("without %s is refused by its name", (field) => {
    const { [field]: _, ...rest } = cases[0]!.card;
    expect(() => readCard(rest)).toThrow(`not the card of an evaluated network: ${field}`);
  });

  test("that is no object is refused", () => {
    for (const other of [null, [], "card", 3]) expect(() => readCard(other)).toThrow(BadModel);
  });
});
