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

test("of a network that may not answer it is told how often, and how it does with generators that it had never seen", () => {
  const figures = { falseAlarms: rate(0.04, 500), missed: rate(0.22, 300), missedUnknown: rate(0.41, 200) };
  const said = (photographs: number, generated: number, language = { errors: texts.errors }) =>
    language.errors({ ...figures, photographsUndecided: rate(photographs, 500), generatedUndecided: rate(generated, 300) });
  const known =
    "In our tests it called 4 of 100 photographs generated and missed 22 of 100 generated pictures of this kind; " +
    "of generators that it had never seen, 41.";
  expect(said(0.401, 0.396)).toBe(`${known} It gave no answer to 40 of 100.`);
  expect(said(0.4, 0.3)).toBe(`${known} It gave no answer to 40 of 100 photographs and 30 of 100 generated pictures.`);
  expect(said(0, 0.3)).toBe(`${known} It gave no answer to 30 of 100 generated pictures.`);
  expect(said(0, 0)).toBe(known);
  expect(texts.errors({ ...figures, missed: rate(null, 0) })).not.toContain("never seen");
  expect(said(0.4, 0.4, german)).toBe(
    "In unseren Tests hat es bei dieser Art 4 von 100 Fotos generiert genannt und 22 von 100 generierten Bildern übersehen; " +
      "von Generatoren, die es nie gesehen hatte, 41. Keine Antwort gab es bei 40 von 100.",
  );
  expect(said(0.4, 0.4, italian)).toBe(
    "Nelle nostre prove con questo tipo ha detto generate 4 su 100 fotografie e non ha riconosciuto 22 su 100 immagini generate; " +
      "di generatori mai visti, 41. Non ha dato risposta a 40 su 100.",
  );
});

test("three answers are never more than probable, in any language", () => {
  const verdicts = ["photograph", "cannot-tell", "generated"] as const;
  expect(verdicts.map((verdict) => texts.verdict(verdict, null, true))).toEqual(["Probably a photograph", "Cannot tell", "Probably generated"]);
  expect(verdicts.map((verdict) => german.verdict(verdict, null, true))).toEqual(["Wahrscheinlich ein Foto", "Nicht zu entscheiden", "Wahrscheinlich generiert"]);
  expect(verdicts.map((verdict) => italian.verdict(verdict, null, true))).toEqual(["Probabilmente una fotografia", "Impossibile dirlo", "Probabilmente generata"]);
  expect(texts.verdict("generated", "Midjourney", false)).toBe("Generated: Midjourney");
  expect(texts.verdict("generated", "Midjourney", true)).toBe("Probably generated: Midjourney");
});

test("an answer is told by its side of the line, and where it is close to it", () => {
  const where = (verdict: Answer["verdict"], pFake: number, threshold: number, photographThreshold: number | null = null, reason: Answer["reason"] = null) =>
    texts.scale.where({ verdict, reason, pFake, threshold, photographThreshold });
  expect(where("photograph", 0.574, 0.7)).toBe("Below the line.");
  expect(where("photograph", 0.69, 0.7)).toMatch(/^Just below the line/);
  expect(where("generated", 0.72, 0.7)).toMatch(/^Just over the line/);
  expect(where("generated", 0.4, 0.1)).toBe("Over the line.");
  expect(where("unknown-source", 0.4, 0.1)).toMatch(/means little/);
  expect(where("cannot-tell", 0.4, 0.7, 0.2, "between")).toBe("Between the two lines.");
  expect(where("cannot-tell", 0.4, 0.7, 0.2, "unfamiliar")).toMatch(/means little/);
  expect(where("photograph", 0.1, 0.7, 0.2)).toBe("Below the left line.");
  expect(where("photograph", 0.19, 0.2, 0.2)).toMatch(/^Just below the left line/);
  expect(where("generated", 0.71, 0.7, 0.2)).toMatch(/^Just over the right line/);
});

test("a picture that is too small for windows is told with what is expected and what it has", () => {
  expect(texts.tooSmallForWindows(256, [48, 1064])).toMatch(/^Cannot tell: the traces are gone.* at least 256 a side; this picture has 1,064 × 48\.$/);
  for (const other of [german, italian]) expect(other.tooSmallForWindows(256, [48, 64]).match(/\d+/g)).toEqual(["256", "64", "48"]);
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
