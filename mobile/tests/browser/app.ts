/** The app in Chromium, as a person would use it. */

import { existsSync } from "node:fs";
import { chromium, type Browser, type BrowserContext, type Page } from "playwright-core";

export const CHROMIUM = process.env["TELLTALE_CHROMIUM"] ?? "/usr/bin/chromium";

/** Other work may keep the machine busy. */
const PATIENCE_MS = 90_000;

export function launch(extra: string[] = []): Promise<Browser> {
  if (!existsSync(CHROMIUM)) throw new Error(`missing ${CHROMIUM}: install Debian's chromium, or set TELLTALE_CHROMIUM`);
  // Containers run as root, where Chromium's own sandbox cannot. No other host has a name here.
  const args = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost"];
  return chromium.launch({ executablePath: CHROMIUM, args: [...args, ...extra] });
}

/** A page of the app that is ready to use, with everything kept for offline use unless `offline` is false. */
export async function openApp(context: BrowserContext, url: string, offline = true): Promise<Page> {
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(url);
  await page.waitForSelector("html[data-ready=yes]");
  if (offline) await page.waitForSelector("html[data-offline=yes]");
  return page;
}

export interface Outcome {
  readonly verdict: string;
  readonly source: string | null;
  readonly probabilities: Record<string, number>;
  readonly text: string;
}

/** A file by its path, or one that is not on the disk. */
export type Chosen = string | { readonly name: string; readonly mimeType: string; readonly buffer: Buffer };

/** Choose a file in the Detect screen and read what the app says: an outcome, or the message of an error. */
export async function check(page: Page, file: Chosen): Promise<Outcome | string> {
  await page.setInputFiles("#choose-picture", file);
  return outcome(page);
}

export async function outcome(page: Page): Promise<Outcome | string> {
  const screen = page.locator("section[aria-labelledby=detect-title]");
  await screen.and(page.locator(":not([aria-busy])")).waitFor();
  const error = screen.locator(".status.error");
  if (await error.count()) return (await error.textContent()) ?? "";
  const verdict = screen.locator("[data-verdict]");
  await verdict.waitFor();
  return {
    verdict: (await verdict.getAttribute("data-verdict")) ?? "",
    source: (await verdict.getAttribute("data-source")) || null,
    probabilities: await probabilities(page),
    text: (await screen.locator(".result").textContent()) ?? "",
  };
}

async function probabilities(page: Page): Promise<Record<string, number>> {
  const rows = await page.$$eval("[data-class]", (elements) =>
    elements.map((element) => [element.getAttribute("data-class"), Number(element.getAttribute("data-probability"))]),
  );
  return Object.fromEntries(rows) as Record<string, number>;
}
