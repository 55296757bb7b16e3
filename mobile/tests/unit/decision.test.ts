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
  };
}

test("every answer is Python's, field by field", () => {
  for (const { card, facts, probabilities, familiarity, answer: expected } of cases) {
    expect(answer(readCard(card), facts, detection(probabilities, familiarity))).toEqual(expected);
  }
});

test("all verdicts occur among them", () => {
  expect(new Set(cases.map((each) => each.answer["verdict"])).size).toBe(4);
  expect(new Set(cases.map((each) => each.answer["reason"])).size).toBe(3);
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

test("a network that looks at windows of original pixels says how many, of which side, and is calibrated by its card", () => {
  const card = { ...cases[0]!.card, windows: 5, side: 256, temperature: 1.25, format: 2 };
  expect(readCard(card).windows).toEqual({ count: 5, side: 256, temperature: 1.25 });
  expect(readCard(cases[0]!.card).windows).toBe(null);
  for (const windows of [0, 26, 2.5, "5"]) expect(() => readCard({ ...card, windows })).toThrow(/windows/);
  for (const temperature of [0, -1, null]) expect(() => readCard({ ...card, temperature })).toThrow(/temperature/);
  expect(() => readCard({ ...card, side: 0 })).toThrow(/side/);
});

describe("a card with two lines", () => {
  const { card, facts } = cases[0]!;
  const { decision, sources: _, ...rest } = card as { decision: { rejection: object }; sources?: object };
  const rejection = { ...decision.rejection, score: "max-probability", threshold: 0.1 };
  const lines = (photograph: object, fake: object = { 64: 0.75, 128: 0.75, 256: 0.75, native: 0.75 }) =>
    readCard({ ...rest, decision: { ...decision, rejection, fake_thresholds: fake, photograph_thresholds: photograph } });
  const of = (pFake: number, familiar = 0.9) =>
    answer(lines({ 64: 0.25, 128: 0.25, 256: 0.25, native: 0.25 }), facts, detection([1 - pFake, pFake / 2, pFake / 2], [familiar, 0, 0]));

  test("gives no answer between them, and none to an unfamiliar picture", () => {
    // In single precision, as networks answer: 0.25 and 0.75 are exact.
    expect([0, 0.2, 0.25, 0.5, 0.7, 0.75, 1].map((pFake) => of(pFake).verdict)).toEqual(
      ["photograph", "photograph", "cannot-tell", "cannot-tell", "cannot-tell", "generated", "generated"],
    );
    expect([of(0.5), of(0, 0.05), of(1, 0.05), of(1)].map(({ verdict, reason }) => [verdict, reason])).toEqual([
      ["cannot-tell", "between"],
      ["cannot-tell", "unfamiliar"],
      ["cannot-tell", "unfamiliar"],
      ["generated", null],
    ]);
  });

  test("gives no answer to files of a format that was not tested", () => {
    const { format: _format, ...others } = facts;
    const tested = (formats: readonly string[], format: string) => {
      const read = readCard({ ...rest, formats, decision: { ...decision, rejection, photograph_thresholds: {} } });
      return answer(read, { ...others, format }, detection([0.1, 0.5, 0.4], [0.9, 0, 0]));
    };
    expect(tested(["JPEG", "PNG"], "WEBP")).toMatchObject({ verdict: "cannot-tell", reason: "format" });
    expect(tested(["JPEG", "PNG"], "PNG")).toMatchObject({ verdict: "generated", reason: null });
    expect(tested([], "WEBP").verdict).toBe("generated");
  });

  test("is refused by their place where they do not fit each other", () => {
    expect(() => lines({ 64: 0.8 })).toThrow(/photograph_thresholds\.64: "0.8 above 0.75/);
    expect(() => lines({ 65: 0.1 })).toThrow(/photograph_thresholds\.65: "no resolution of fake_thresholds/);
    expect(() => lines({ native: 0.1 }, { 64: 0.75 })).toThrow(/photograph_thresholds\.native/);
    expect(() => lines({ 64: -0.1 })).toThrow(/photograph_thresholds\.64/);
    expect(lines({ 64: 0.75 }).photographThresholds).toEqual({ 64: 0.75 });
  });

  test("names no generator where it tells none apart", () => {
    const selfTest = { ...(card["self_test"] as object), logits: [0, 0], probabilities: [0, 0] };
    const two = readCard({ ...card, classes: ["real", "generated"], self_test: selfTest, decision: { ...decision, rejection, fake_thresholds: {} } });
    const said = answer(two, facts, detection([0.1, 0.9], [0.9, 0, 0]));
    expect([said.verdict, said.source]).toEqual(["generated", null]);
    expect(called(two, "generated")).toBe("Generated");
  });
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
  expect(() => readCard({ ...cases[0]!.card, format: 3, decision: "another" })).toThrow(/newer version of this app/);
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
