/** The report beside the explorer, under the policy of the reports' server: read, opened, sorted, on a phone. */

import axe from "axe-core";
import { readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Site } from "../../../mobile/tests/browser/site";
import { SITE } from "../fixtures";
import { launch } from "./page";

let browser: Browser;
let page: Page;
let site: Site;
const problems: string[] = [];

beforeAll(async () => {
  const { policy } = JSON.parse(readFileSync(`${SITE}/report.json`, "utf8")) as { policy: string };
  site = new Site(SITE, false, { "content-security-policy": policy });
  await site.start();
  browser = await launch();
});

afterAll(async () => {
  await browser.close();
  await site.stop();
});

beforeEach(async () => {
  page = await (await browser.newContext({ viewport: { width: 1280, height: 900 } })).newPage();
  problems.length = 0;
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${site.url}report.html`);
});

const open = () => page.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));

test("the answer is what one sees, and the rest is folded", async () => {
  expect(await page.locator("section").first().isVisible()).toBe(true);
  expect(await page.evaluate(() => [...document.querySelectorAll("details")].some((part) => part.open))).toBe(false);
  expect(await page.evaluate(() => document.body.scrollHeight)).toBeLessThan(3_000);
  expect(problems).toEqual([]);
});

test("a link to a section opens it", async () => {
  await page.goto(`${site.url}report.html#controls`);
  await expect.poll(() => page.evaluate(() => !!document.querySelector<HTMLElement>("#controls table")?.offsetParent)).toBe(true);
});

test("a click on a head sorts its table, and a second one turns it round", async () => {
  await open();
  const values = () =>
    page.$$eval("#ranking table.data tbody tr", (rows) => rows.map((row) => parseFloat(row.children[3]!.textContent)));
  const head = page.locator("#ranking table.data thead tr").last().locator("th").nth(3);
  await head.locator("button").click();
  const ascending = await values();
  expect(ascending.length).toBeGreaterThan(2);
  expect(ascending).toEqual([...ascending].sort((one, other) => one - other));
  expect(await head.getAttribute("aria-sort")).toBe("ascending");
  await head.locator("button").click();
  expect(await values()).toEqual([...ascending].reverse());
});

test("values lead to the pictures behind them", async () => {
  await open();
  const links = await page.$$eval('a[href^="explorer/index.html"]', (found) => found.map((link) => link.getAttribute("href")!));
  expect(links.length).toBeGreaterThan(10);
  expect(links.every((link) => new URL(link, "http://localhost/").searchParams.size > 0 || link === "explorer/index.html")).toBe(true);
});

describe("for everyone", () => {
  const schemes: ("light" | "dark")[] = ["light", "dark"];

  test.each(schemes)("axe finds nothing serious in %s colours, everything open", async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await open();
    await page.evaluate(axe.source);
    const found = await page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run();
      return violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.slice(0, 3).map((node) => node.html) }));
    });
    expect(found.filter(({ impact }) => impact === "serious" || impact === "critical")).toEqual([]);
  });

  test("nothing is wider than a phone of 360 pixels", async () => {
    await page.setViewportSize({ width: 360, height: 800 });
    await open();
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
  });

  test("print shows everything", async () => {
    await page.emulateMedia({ media: "print" });
    expect(await page.evaluate(() => !!document.querySelector<HTMLElement>("#grid table")?.offsetParent)).toBe(true);
  });
});
