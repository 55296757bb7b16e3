import { describe, expect, test } from "vitest";
import { BadModel, readCard, type Reference } from "../../src/network/card";
import { compareWithCard } from "../../src/network/self-test";
import { fixture } from "../fixtures";

const { cases } = fixture("rule.json") as { cases: { card: Record<string, unknown> }[] };
const dense = fixture("models/dense.json") as Record<string, unknown>;

function reference(changes: Partial<Reference> = {}): Reference {
  const said = { height: 1, width: 1, pixels: "AAAA", logits: [9, -4, 0.5], probabilities: [0.999, 0.0001, 0.0009] };
  return { ...said, tolerance: 1e-3, ...changes };
}

function found(logits: number[], probabilities: number[]) {
  return { logits: Float32Array.from(logits), probabilities: Float32Array.from(probabilities) };
}

test("what the card says passes, last digits of another processor too", () => {
  const { logits, probabilities } = reference();
  expect(compareWithCard(reference(), found([...logits], [...probabilities])).passed).toBe(true);
  expect(compareWithCard(reference(), found([9.008, -4, 0.5], [0.9985, 0.0001, 0.0009])).passed).toBe(true);
});

test("other probabilities do not pass", () => {
  const { logits } = reference();
  const compared = compareWithCard(reference(), found([...logits], [0.997, 0.0001, 0.0009]));
  expect(compared.passed).toBe(false);
  expect(compared.difference).toBeCloseTo(0.002, 6);
  expect(compared.tolerance).toBe(1e-3);
});

test("a network that is sure of the picture is compared by its logits", () => {
  const compared = compareWithCard(reference(), found([9.1, -4, 0.5], [...reference().probabilities]));
  expect(compared.passed).toBe(false);
  expect(compared.difference).toBeCloseTo(0.1, 5);
  expect(compared.tolerance).toBeCloseTo(0.009, 9);
});

test.each([
  ["no answers at all", [], []],
  ["fewer logits", [9, -4], [0.999, 0.0001, 0.0009]],
  ["more probabilities", [9, -4, 0.5], [0.999, 0.0001, 0.0009, 0]],
  ["a logit that is no number", [9, NaN, 0.5], [0.999, 0.0001, 0.0009]],
  ["a probability that is no number", [9, -4, 0.5], [NaN, 0.0001, 0.0009]],
  ["an infinite logit", [Infinity, -4, 0.5], [0.999, 0.0001, 0.0009]],
])("%s does not pass", (_, logits, probabilities) => {
  expect(compareWithCard(reference(), found(logits, probabilities)).passed).toBe(false);
});

test("a card without answers lets nothing pass", () => {
  const empty = reference({ logits: [], probabilities: [] });
  expect(compareWithCard(empty, found([9, -4, 0.5], [0.999, 0.0001, 0.0009])).passed).toBe(false);
  expect(compareWithCard(empty, found([], [])).passed).toBe(false);
});

test("the cards that telltale writes are read with their logits", () => {
  expect(readCard(dense).selfTest.logits).toHaveLength(3);
});

/** A card with something else at a place. */
function changed(place: (string | number)[], value: unknown): unknown {
  const card: unknown = structuredClone(cases.find((each) => JSON.stringify(each.card).includes("max-probability"))!.card);
  let inside = card as Record<string | number, unknown>;
  for (const name of place.slice(0, -1)) inside = inside[name] as Record<string | number, unknown>;
  inside[place.at(-1)!] = value;
  return card;
}

const { error_rates: rates } = dense as { error_rates: Record<string, unknown>[] };

describe("a card is refused by its place for", () => {
  test.each<[(string | number)[], unknown]>([
    [["self_test", "probabilities"], []],
    [["self_test", "probabilities"], [0.5, 0.5]],
    [["self_test", "probabilities", 1], null],
    [["self_test", "probabilities", 1], 1.01],
    [["self_test", "probabilities", 1], "0.5"],
    [["self_test", "logits"], []],
    [["self_test", "logits"], undefined],
    [["self_test", "logits", 2], Infinity],
    [["self_test", "tolerance"], 0],
    [["self_test", "tolerance"], 0.011],
    [["self_test", "tolerance"], 1e9],
    [["self_test", "tolerance"], Infinity],
    [["self_test", "height"], 0.5],
    [["self_test", "height"], 2],
    [["self_test", "pixels"], "!!!!"],
    [["decision", "fake_thresholds", "native"], 2],
    [["decision", "fake_thresholds", "native"], -0.1],
    [["decision", "fake_thresholds", "native"], NaN],
    [["decision", "fake_thresholds", "65"], 0.5],
    [["decision", "rejection", "threshold"], Infinity],
    [["decision", "rejection", "threshold"], 1.5],
    [["decision", "rejection", "kept"], 95],
    [["error_rates", 0, "false_alarms", "value"], 5],
    [["error_rates", 0, "missed", "high"], NaN],
    [["error_rates", 0, "missed", "n"], -1],
    [["error_rates", 0, "jpeg_quality"], undefined],
    [["error_rates", 0, "perturbation"], { kind: "webp" }],
    [["error_rates", 12, "cell"], undefined],
    [["error_rates", 12, "perturbation", "kind"], undefined],
    [["error_rates", 12, "jpeg_quality"], null],
    [["error_rates"], rates.filter((cell) => "perturbation" in cell)],
    [["error_rates"], []],
    [["canonical_side"], 0],
  ])("%j %j", (place, value) => {
    expect(() => readCard(changed(place, value))).toThrow(BadModel);
    expect(() => readCard(changed(place, value))).toThrow(`not the card of an evaluated network: ${place[0]!}`);
  });

  test("nothing where nothing is changed", () => {
    expect(readCard(changed(["name"], "rule")).name).toBe("rule");
  });
});
