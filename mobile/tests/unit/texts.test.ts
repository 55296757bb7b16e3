import { expect, test } from "vitest";
import { percent, texts } from "../../src/texts";
import type { Answer } from "../../src/network/decision";

test("no probability is written as certainty", () => {
  expect(percent(0)).toBe("under 0.1\u00a0%");
  expect(percent(1)).toBe("over 99.9\u00a0%");
  expect(percent(0.1234)).toBe("12.3\u00a0%");
});

test("an answer tells its error rates with interval and number, or that there are too few", () => {
  const answer = {
    kind: { testedSide: 256, testedQuality: 40 },
    falseAlarms: { value: 0.061, low: 0.031, high: 0.12, n: 500 },
    missed: { value: 0.125, low: null, high: null, n: 8 },
  } as Answer;
  expect(texts.errors(answer)).toContain(
    "(256 pixels, JPEG quality 40), this model called 6.1\u00a0% (95\u00a0% interval 3.1 to 12.0) of 500 photographs generated, " +
      "and took 12.5\u00a0% (too few for an interval) of 8 generated pictures for photographs.",
  );
});

test("where nothing was tested, no rate is claimed", () => {
  const nothing = { value: null, low: null, high: null, n: 0 };
  const answer = { kind: { testedSide: 64, testedQuality: null }, falseAlarms: nothing, missed: nothing } as Answer;
  expect(texts.errors(answer)).toContain("(none tested) of photographs");
});
