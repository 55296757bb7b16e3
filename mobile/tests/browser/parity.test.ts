import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { APP, pictureAnswers, pictureFile, type Expected } from "../fixtures";
import { check, launch, openApp, type Outcome } from "./app";
import { Site } from "./site";

const site = new Site(APP);
let browser: Browser;
let page: Page;

beforeAll(async () => {
  await site.start();
  browser = await launch();
  page = await openApp(await browser.newContext(), site.url);
});

afterAll(async () => {
  await browser.close();
  await site.stop();
});

const readable = pictureAnswers().filter(([name, { answers }]) => answers && !name.startsWith("huge-"));

describe.each(["dense", "small"])("the network %s", (network) => {
  beforeAll(async () => {
    await page.selectOption("#model", network);
  });

  // Files named `png-` hold their pixels without loss; JPEG decoders may differ.
  test.each(readable.map(([name, { answers }]) => [name, answers![network]!] as const))("answers %s as Python does", async (name, expected) => {
    const found = await check(page, pictureFile(name));
    expectSame(found, expected, name.startsWith("png-") ? 1e-4 : 1e-2);
  });
});

function expectSame(found: Outcome | string, expected: Expected, tolerance: number): void {
  if (typeof found === "string") throw new Error(found);
  expect({ verdict: found.verdict, source: found.source }).toEqual({ verdict: expected.verdict, source: expected.source });
  expect(Object.keys(found.probabilities)).toEqual(Object.keys(expected.probabilities));
  for (const [name, probability] of Object.entries(expected.probabilities)) {
    expect(Math.abs(found.probabilities[name]! - probability)).toBeLessThanOrEqual(tolerance);
  }
}
