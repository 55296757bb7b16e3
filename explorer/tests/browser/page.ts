/** The page in Chromium, as a person would use it. */

import { existsSync } from "node:fs";
import { chromium, type Browser, type Page } from "playwright-core";

const CHROMIUM = process.env["TELLTALE_CHROMIUM"] ?? "/usr/bin/chromium";

/** What `serve` sends with every file of a run. */
export const POLICY = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; connect-src 'self'; frame-ancestors 'none'",
};

export function launch(): Promise<Browser> {
  if (!existsSync(CHROMIUM)) throw new Error(`missing ${CHROMIUM}: install Debian's chromium, or set TELLTALE_CHROMIUM`);
  // Containers run as root, where Chromium's own sandbox cannot. No other host has a name here.
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--enable-precise-memory-info"];
  return chromium.launch({ executablePath: CHROMIUM, args: [...args, "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"] });
}

/** Open an address and wait until the page shows something, or says why it cannot. */
export async function openPage(page: Page, url: string): Promise<void> {
  page.setDefaultTimeout(30_000);
  await page.goto(url);
  await page.waitForSelector("html[data-ready]");
}

/** Go to another query as Back and Forward do, without another start of the page. */
export async function visit(page: Page, query: string): Promise<void> {
  await page.evaluate((search) => {
    history.pushState(null, "", search);
    dispatchEvent(new PopStateEvent("popstate"));
  }, query);
}

/** Do something that changes what is shown, and wait until it has. */
export async function changing(page: Page, act: () => Promise<unknown>): Promise<void> {
  const before = await page.evaluate(() => document.documentElement.dataset["shown"]);
  await act();
  await page.waitForFunction((shown) => document.documentElement.dataset["shown"] !== shown, before);
}

export async function heading(page: Page): Promise<string> {
  return (await page.locator("h1").textContent()) ?? "";
}

/** Rows of the first tiles, in their order. */
export function rows(page: Page): Promise<number[]> {
  return page.$$eval(".tile button", (tiles) => tiles.map((tile) => Number((tile as HTMLElement).dataset["row"])));
}

/** A figure by its name, as it is written. */
export async function number(page: Page, name: string): Promise<string> {
  return (await page.locator("#numbers dt", { hasText: name }).locator("+ dd").textContent()) ?? "";
}

/** Wait until all tiles in sight have their picture. */
export async function picturesShown(page: Page): Promise<void> {
  await page.waitForFunction(() => {
    const frames = [...document.querySelectorAll(".tile .frame")];
    return frames.length > 0 && frames.every((frame) => frame.classList.contains("missing") || frame.querySelector("img")?.complete);
  });
}
