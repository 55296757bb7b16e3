import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { texts } from "../../src/texts";
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

describe("the network of windows", () => {
  const large = readable.filter(([, { answers }]) => answers!["traces"]);

  beforeAll(async () => {
    await page.selectOption("#model", "traces");
  });

  // Where colours are converted levels differ by one or two: a picture beside a line may lie on its other side.
  const converted = /^jpg-profile-|-p3/;
  test.each(large.map(([name, { answers }]) => [name, answers!["traces"]!] as const))("answers %s as Python does", async (name, expected) => {
    const found = await check(page, pictureFile(name));
    if (converted.test(name)) expectNear(found, expected, 1e-2);
    else expectSame(found, expected, 1e-4);
    expect(await page.locator(".verdict .scale .mark").count()).toBe(2);
  });

  test("gives all three answers among them", () => {
    expect(new Set(large.map(([, { answers }]) => answers!["traces"]!.verdict))).toEqual(new Set(["photograph", "cannot-tell", "generated"]));
  });

  const small = readable.filter(([, { answers }]) => !answers!["traces"]);

  test.each(small.map(([name, { facts }]) => [name, facts!] as const))("refuses %s, which is too small, in words", async (name, { width, height }) => {
    const said = await check(page, pictureFile(name));
    expect([texts.tooSmallForWindows(64, [height, width]), texts.tooSmallForWindows(64, [width, height])]).toContain(said);
  });
});

function expectSame(found: Outcome | string, expected: Expected, tolerance: number): void {
  expect(found).toMatchObject({ verdict: expected.verdict, source: expected.source });
  expectNear(found, expected, tolerance);
}

function expectNear(found: Outcome | string, expected: Expected, tolerance: number): void {
  if (typeof found === "string") throw new Error(found);
  expect(Object.keys(found.probabilities)).toEqual(Object.keys(expected.probabilities));
  for (const [name, probability] of Object.entries(expected.probabilities)) {
    expect(Math.abs(found.probabilities[name]! - probability)).toBeLessThanOrEqual(tolerance);
  }
}
