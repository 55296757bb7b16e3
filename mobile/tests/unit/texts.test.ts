import { expect, test } from "vitest";
import { percent } from "../../src/numbers";
import { texts } from "../../src/texts";
import { spoken } from "../../src/numbers";
import { german } from "../../src/texts-de";
import { italian } from "../../src/texts-it";
import type { Answer } from "../../src/network/decision";

test("no probability is written as certainty", () => {
  expect(percent(0)).toBe("under 0.1\u00a0%");
  expect(percent(1)).toBe("over 99.9\u00a0%");
  expect(percent(0.1234)).toBe("12.3\u00a0%");
});

const kind = { testedSide: 256, testedQuality: 40 } as Answer["kind"];
const rate = (value: number | null, n: number, low: number | null = null, high: number | null = null) => ({ value, low, high, n });

test("errors are told in the card's own figures, of a hundred or of all that there were", () => {
  const said = (falseAlarms: number, missed: number, n = 500) => texts.errors({ falseAlarms: rate(falseAlarms, n), missed: rate(missed, n) });
  expect(said(0.041, 0.22)).toBe("In our tests it called 4 of 100 photographs generated and missed 22 of 100 generated pictures of this kind.");
  expect(said(0, 0.001)).toContain("called none of 500 photographs generated and missed fewer than 1 of 100 generated");
  expect(said(0.998, 1)).toContain("called more than 99 of 100 photographs generated and missed 100 of 100 generated");
  expect(said(0.125, 0.5, 8)).toContain("called 1 of 8 photographs generated and missed 4 of 8 generated");
});

test("what was not tested is not told", () => {
  const nothing = rate(null, 0);
  expect(texts.errors({ falseAlarms: nothing, missed: nothing })).toMatch(/^Nobody tested/);
  expect(texts.errors({ falseAlarms: nothing, missed: rate(0.3, 200) })).toBe("In our tests it missed 30 of 100 generated pictures of this kind.");
  expect(texts.errorsDetail({ falseAlarms: nothing, missed: nothing, kind })).toContain("were no photographs and no generated pictures");
});

test("the tested pictures are told with their number and interval, or that there are too few", () => {
  expect(texts.errorsDetail({ falseAlarms: rate(0.061, 500, 0.031, 0.12), missed: rate(0.125, 8), kind })).toContain(
    "(256 pixels, JPEG quality 40) were 500 photographs (95\u00a0% interval 3.1 to 12.0 of 100) and 8 generated pictures (too few for an interval)",
  );
});

test("an answer is told by its side of the line, and where it is close to it", () => {
  const where = (verdict: Answer["verdict"], pFake: number, threshold: number) => texts.scale.where({ verdict, pFake, threshold });
  expect(where("photograph", 0.574, 0.7)).toBe("Below the line.");
  expect(where("photograph", 0.69, 0.7)).toMatch(/^Just below the line/);
  expect(where("generated", 0.72, 0.7)).toMatch(/^Just over the line/);
  expect(where("generated", 0.4, 0.1)).toBe("Over the line.");
  expect(where("unknown-source", 0.4, 0.1)).toMatch(/means little/);
});

test("a network of random weights is called a demonstration by its name", () => {
  expect(texts.modelName("dense", true)).toBe("dense (demonstration)");
  expect(texts.modelName("dense", false)).toBe("dense");
});

test("a person is spoken to in the first of their languages that there is, else in English", () => {
  expect(spoken(["de-CH", "en"])).toBe("de");
  expect(spoken(["fr-FR", "it-IT", "de"])).toBe("it");
  expect(spoken(["IT"])).toBe("it");
  expect(spoken(["fr", "ja-JP"])).toBe("en");
  expect(spoken([])).toBe("en");
});

test("the figures of a card are the same in every language", () => {
  const figures = (said: string) => said.match(/\d+/g);
  for (const [falseAlarms, missed] of [[rate(0.041, 500), rate(0.22, 500)], [rate(0.125, 8), rate(0.5, 8)], [rate(0.001, 500), rate(0.999, 500)]] as const) {
    for (const other of [german, italian]) expect(figures(other.errors({ falseAlarms, missed }))).toEqual(figures(texts.errors({ falseAlarms, missed })));
  }
  expect(german.errors({ falseAlarms: rate(0.041, 500), missed: rate(0.22, 500) })).toBe(
    "In unseren Tests hat es bei dieser Art 4 von 100 Fotos generiert genannt und 22 von 100 generierten Bildern übersehen.",
  );
});

test("the limits are the same in every language", () => {
  for (const each of [texts, german, italian]) {
    expect(each.badPicture["too-small"]).toContain("16");
    expect(each.badPicture.unsupported).toContain("JPEG");
  }
});
