/** Hosts and runs that are not as they should be: a sentence on the page, never a blank one. */

import { readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Site } from "../../../mobile/tests/browser/site";
import { texts } from "../../src/texts";
import { expected, SITE } from "../fixtures";
import { changing, heading, launch, openPage, picturesShown, POLICY, rows } from "./page";

const FIRST = expected().figures["64/none svm combined"]!;
const ALL = "?cell=64/none&detector=svm&mix=combined";

let browser: Browser;
let page: Page;
let site: Site;

beforeAll(async () => {
  browser = await launch();
});

afterAll(() => browser.close());

beforeEach(async () => {
  page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
});

afterEach(async () => {
  await page.context().close();
  await site.stop();
});

async function serve(pieces = true): Promise<Site> {
  site = new Site(SITE, pieces, POLICY);
  await site.start();
  return site;
}

function error(): Promise<string | null> {
  return page.locator(".status.error").textContent();
}

function runWith(change: object): Buffer {
  return Buffer.from(JSON.stringify({ ...(JSON.parse(readFileSync(`${SITE}/data/run.json`, "utf8")) as object), ...change }));
}

describe("a host without range requests", () => {
  test("does, with a note, and every file is read once", async () => {
    await serve(false);
    await openPage(page, site.url + ALL);
    await picturesShown(page);
    expect(await page.locator(".notices").textContent()).toContain(texts.wholeFiles);
    await page.mouse.wheel(0, 2_000);
    await picturesShown(page);
    await page.locator(".tile button").first().click();
    await page.locator("dialog[open]:not([aria-busy])").waitFor();
    for (const [path, bytes] of site.sent) {
      if (path.startsWith("data/")) expect(bytes, path).toBe(readFileSync(`${SITE}/${path}`).length);
    }
    await page.getByRole("button", { name: texts.picture.close }).click();
    await page.getByRole("button", { name: texts.dismiss }).click();
    expect(await page.locator(".notice").count()).toBe(0);
  });
});

describe("a run", () => {
  test.each([
    ["that is not there", null, "There is no run here: data/run.json cannot be fetched (HTTP 404)."],
    ["of a newer version", runWith({ version: 2 }), "written by a newer telltale"],
    ["of 10,000,001 pictures", runWith({ pictures: 10_000_001 }), "10,000,001 pictures, and a browser can look through 10,000,000 at most"],
    ["without cells", runWith({ cells: [] }), "data/run.json is damaged, or no file of a run: no cells."],
    ["without the sources of its pictures", runWith({ sources: [{ name: "coco", label: 0, of: "coco" }] }), "source 1, and data/run.json has 1"],
    ["that is no JSON", Buffer.from("<html>"), "data/run.json is damaged"],
    ["whose files have other rows", runWith({ pictures: 299 }), "it has 300 rows, and data/run.json says 299"],
  ])("%s is told of", async (_, body, words) => {
    await serve();
    site.replaced.set("data/run.json", body);
    await openPage(page, site.url);
    expect(await error()).toContain(words);
    expect(await page.locator("h1").isVisible()).toBe(true);
  });

  test("without pictures shows an empty page in words", async () => {
    await serve();
    site.replaced.set("data/run.json", runWith({ pictures: 0 }));
    await openPage(page, site.url);
    expect(await error()).toContain("says 0");
  });

  test("without thumbnails stands as names", async () => {
    await serve();
    site.replaced.set("data/run.json", runWith({ thumbnails: 0 }));
    for (const file of ["0", "1"]) site.replaced.set(`data/thumbnails-${file}.bin`, null);
    await openPage(page, site.url + ALL);
    expect(await page.locator(".notices").textContent()).toContain(texts.noThumbnails);
    await expect.poll(() => page.locator('[data-row="0"] .missing').textContent()).toBe("coco-0000");
  });
});

describe("a file of the run", () => {
  test("of thumbnails that is missing leaves grey tiles with names, and the others", async () => {
    await serve();
    site.replaced.set("data/thumbnails-0.bin", null);
    await openPage(page, site.url + ALL);
    await picturesShown(page);
    await expect.poll(() => page.locator('[data-row="0"] .missing').textContent()).toBe("coco-0000");
    expect(await page.locator('[data-row="9"] img').count()).toBe(1);
  });

  test("of scores that is missing or damaged is told of, and other cells still work", async () => {
    await serve();
    site.replaced.set("data/scores-1.parquet", null);
    site.replaced.set("data/scores-2.parquet", Buffer.from("no Parquet at all"));
    await openPage(page, site.url);
    await page.selectOption("#cell", "64/q20");
    await expect.poll(error).toBe("A file of the run is missing: data/scores-1.parquet (HTTP 404).");
    await page.selectOption("#cell", "64/blur-2");
    await expect.poll(error).toContain("data/scores-2.parquet is damaged");
    await changing(page, () => page.selectOption("#cell", "64/none"));
    expect(await page.locator(".status.error").count()).toBe(0);
    expect(await rows(page)).toEqual(FIRST.false_alarms);
  });

  test("of scores that lacks a detector is told of, not taken for faultless", async () => {
    await serve();
    const run = JSON.parse(readFileSync(`${SITE}/data/run.json`, "utf8")) as { detectors: { name: string }[] };
    const [svm] = run.detectors;
    site.replaced.set("data/run.json", runWith({ detectors: [...run.detectors, { ...svm, name: "absent", title: "Absent" }] }));
    await openPage(page, `${site.url}?cell=64/none&detector=absent&mix=combined&error=false-alarm`);
    expect(await page.locator(".nothing").textContent()).toContain(texts.noScores("Absent", "64/none"));
  });

  test("of one cell's scores that is missing leaves the others in an open picture", async () => {
    await serve();
    site.replaced.set("data/scores-4.parquet", null);
    await openPage(page, `${site.url}${ALL}&picture=3`);
    await expect.poll(() => page.locator("dialog .status.error").textContent()).toContain("data/scores-4.parquet (HTTP 404)");
    expect(await page.locator("dialog .heat").first().locator("td").allTextContents()).toContain("–·");
  });

  test("of texts that is missing is told of in the open picture", async () => {
    await serve();
    site.replaced.set("data/texts.parquet", null);
    await openPage(page, `${site.url}${ALL}&picture=3`);
    await expect.poll(() => page.locator("dialog .status.error").textContent()).toContain("data/texts.parquet (HTTP 404)");
  });

  test("of the report's tests that is missing leaves the page's own", async () => {
    await serve();
    site.replaced.set("data/pairs.json", null);
    await openPage(page, `${site.url}${ALL}&than=network`);
    await expect.poll(() => page.locator(".report").textContent()).toContain(texts.compared.noReport);
  });
});

test("offline, what is there can be looked at, and the rest is told of", async () => {
  await serve();
  await openPage(page, site.url);
  await picturesShown(page);
  await site.stop();
  await changing(page, () => page.click('[data-error="missed"]'));
  expect(await heading(page)).toContain(`${FIRST.missed} generated pictures`);
  await page.selectOption("#cell", "64/q20");
  await expect.poll(error).toContain("The host does not answer (data/scores-1.parquet)");
});

test("an address that asks for what the run does not have is told of, and the rest of it shown", async () => {
  await serve();
  await openPage(page, `${site.url}?cell=64/none&detector=nobody&mix=combined&error=false-alarm&sort=-p`);
  expect(await page.locator(".notices").textContent()).toContain("detector=nobody");
  expect(await rows(page)).toEqual(FIRST.false_alarms);
});

test("without a server of files the page says what it needs", async () => {
  await serve();
  await page.goto(`file://${SITE}/index.html`);
  expect(await page.locator("main").textContent()).toContain("python -m http.server");
});
