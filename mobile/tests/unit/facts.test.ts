import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { BadPicture, inspectPicture } from "../../src/picture/facts";
import { fixture, pictureAnswers, pictureFile } from "../fixtures";

const read = pictureAnswers().filter(([, answer]) => answer.facts);
// What only decoding finds.
const DECODED = ["bad-narrow.png", "bad-15x15.png", "bad-damaged.png", "bad-truncated.jpg"];
const refused = pictureAnswers().filter(([name, answer]) => answer.error && !DECODED.includes(name));

test.each(read)("%s has the size, format and quality that Python reads", (name, { facts }) => {
  expect(inspectPicture(readFileSync(pictureFile(name)))).toEqual(facts);
});

test.each(refused)("%s is refused for Python's reason", (name, { error }) => {
  let reason = "";
  try {
    inspectPicture(readFileSync(pictureFile(name)));
  } catch (thrown) {
    if (!(thrown instanceof BadPicture)) throw thrown;
    reason = thrown.reason;
  }
  expect(reason).toBe(error);
});

test("every JPEG quality is estimated as Python does", () => {
  for (const { file, quality } of fixture("quality.json") as { file: string; quality: number }[]) {
    expect(inspectPicture(Buffer.from(file, "base64")).jpegQuality).toBe(quality);
  }
});

test("no prefix of a picture makes the parser fail in another way", () => {
  for (const name of ["jpg-64x64-q20.jpg", "png-16x16.png", "png-image.webp", "png-image.bmp", "png-image.gif"]) {
    const whole = readFileSync(pictureFile(name));
    for (let length = 0; length < Math.min(whole.length, 1200); length++) {
      try {
        inspectPicture(whole.subarray(0, length));
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(BadPicture);
      }
    }
  }
});

test("a TIFF is refused by its name", () => {
  expect(() => inspectPicture(Buffer.from("II*\x00........"))).toThrow(/unsupported/);
});
