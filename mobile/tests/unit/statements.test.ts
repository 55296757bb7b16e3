import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { fileStatements } from "../../src/picture/statements";
import { texts } from "../../src/texts";
import { pictureAnswers, pictureFile } from "../fixtures";

const read = pictureAnswers().filter(([, { says }]) => says);

test("every picture says what Python reads in it", () => {
  const found = read.map(([name]) => [name, fileStatements(readFileSync(pictureFile(name)))]);
  const expected = read.map(([name, { says }]) => [
    name,
    { c2pa: says!.c2pa, digitalSourceType: says!.digital_source_type, generatorTexts: says!.generator_texts, camera: says!.camera },
  ]);
  expect(found).toEqual(expected);
});

test("something is said among them, of every kind", () => {
  const said = Object.fromEntries(read);
  expect(said["jpg-told.jpg"]!.says).toEqual({
    ...{ c2pa: true, digital_source_type: "trainedAlgorithmicMedia", generator_texts: [], camera: "Canon EOS R5" },
  });
  expect(said["png-told.png"]!.says!.generator_texts).toEqual(["parameters"]);
  expect(said["png-told.webp"]!.says!.generator_texts).toEqual(["workflow"]);
});

test("no prefix of a file is an error", () => {
  for (const name of ["jpg-told.jpg", "png-told.png", "png-told.webp", "jpg-image.avif"]) {
    const whole = readFileSync(pictureFile(name));
    for (let length = 0; length < Math.min(whole.length, 1500); length++) fileStatements(whole.subarray(0, length));
  }
});

test("a manifest in a box of an AVIF or HEIC is found by its id", () => {
  const head = Buffer.from("\0\0\0\x18ftypheic\0\0\0\0mif1heic", "latin1");
  const box = (id: string) => Buffer.concat([Buffer.from("\0\0\0\x1cuuid", "latin1"), Buffer.from(id, "hex"), Buffer.alloc(4)]);
  expect(fileStatements(Buffer.concat([head, box("d8fec3d61b0e483c92975828877ec481")])).c2pa).toBe(true);
  expect(fileStatements(Buffer.concat([head, box("00fec3d61b0e483c92975828877ec481")])).c2pa).toBe(false);
});

test("each statement comes with what it is worth, and silence too", () => {
  const silent = { c2pa: false, digitalSourceType: null, generatorTexts: [], camera: null };
  expect(texts.file.says(silent)).toEqual([expect.stringContaining("That is usual")]);
  const all = texts.file.says({ c2pa: true, digitalSourceType: "digitalCapture", generatorTexts: ["parameters"], camera: "LG G4" });
  expect(all).toEqual([
    expect.stringContaining("was not checked here"),
    expect.stringContaining("digitalCapture"),
    expect.stringContaining("(parameters)"),
    expect.stringContaining("LG G4"),
  ]);
});
