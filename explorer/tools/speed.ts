/**
 * How fast the page is: `npm run speed -- SITE [VISITS]`, best on a quiet machine.
 *
 * SITE is what `python -m benchmarks.explorer_data SITE` writes: 100,000 pictures x 12 cells x 4 detectors. Prints JSON:
 * medians of VISITS (5) visits of a browser that has seen nothing before, from a host on this machine; times in
 * milliseconds, until the page has been drawn.
 */

import { readFileSync } from "node:fs";
import type { Page } from "playwright-core";
import { Site } from "../../mobile/tests/browser/site";
import { launch, openPage, picturesShown } from "../tests/browser/page";

const VIEW = { viewport: { width: 1280, height: 900 } };
const [root, visits = "5"] = process.argv.slice(2);
if (!root) throw new Error("usage: npm run speed -- SITE [VISITS]");

const site = new Site(root, true);
await site.start();
const browser = await launch();
const found = new Map<string, number[]>();

function note(name: string, value: number): void {
  found.set(name, [...(found.get(name) ?? []), value]);
}

/** Milliseconds from a change in the page until what it asks for has been laid out and painted. */
function timed(page: Page, selector: string, value: string | null): Promise<number> {
  return page.evaluate(
    ([of, to]) =>
      new Promise<number>((resolve) => {
        const root = document.documentElement;
        const before = root.dataset["shown"];
        const began = performance.now();
        const element = document.querySelector<HTMLElement>(of!)!;
        if (to === null) element.click();
        else {
          (element as HTMLInputElement).value = to!;
          element.dispatchEvent(new Event(element instanceof HTMLSelectElement ? "change" : "input", { bubbles: true }));
        }
        const look = () => {
          if (root.dataset["shown"] === before) requestAnimationFrame(look);
          // After the frame that shows it.
          else requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
        };
        requestAnimationFrame(look);
      }),
    [selector, value],
  );
}

/** What the system counts as resident of the largest renderer, garbage that it has not collected yet too, in megabytes. */
async function memoryOfTab(): Promise<number> {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send("SystemInfo.getProcessInfo");
  await session.detach();
  const resident = processInfo
    .filter(({ type }) => type === "renderer")
    .map(({ id }) => Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${id}/status`, "utf8"))?.[1] ?? 0));
  return Math.max(...resident) / 1000;
}

for (let visit = 0; visit < Number(visits); visit++) {
  const context = await browser.newContext(VIEW);
  const page = await context.newPage();
  site.sent.clear();
  await openPage(page, site.url);
  const usable = Number(await page.evaluate(() => document.documentElement.dataset["readyMs"]));
  await picturesShown(page);
  note("usable", usable);
  note("first pictures after it", (await page.evaluate(() => performance.now())) - usable);
  note("bytes before the first pictures", [...site.sent.values()].reduce((sum, bytes) => sum + bytes, 0));
  note("another kind of mistake", await timed(page, '[data-error="missed"]', null));
  note("sorted by margin", await timed(page, "#sort", "-margin"));
  note("all pictures", await timed(page, '[data-error="all"]', null));
  note("sorted by score", await timed(page, "#sort", "-p"));
  note("sorted by size, first time", await timed(page, "#sort", "-size"));
  note("sorted by size again", await (await timed(page, "#sort", "p"), timed(page, "#sort", "-size")));
  note("filtered by source", await timed(page, "#source", "gan"));
  note("threshold moved", await timed(page, "#threshold", "0.7"));
  note("another detector", await timed(page, "#detector", "network"));
  note("compared", await timed(page, "#than", "native/q20"));
  note("first search in texts", await timed(page, "#q", "thing 97"));
  note("second search in texts", await timed(page, "#q", "thing 976"));
  note("memory of the tab after a search, megabytes", await memoryOfTab());
  const opened = performance.now();
  await page.goto(`${site.url}?cell=native/q20&detector=svm&mix=combined&picture=70000`);
  await page.locator("dialog[open]:not([aria-busy]) .heat").first().waitFor();
  note("a picture by its address", performance.now() - opened);
  const turned = performance.now();
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction(() => document.querySelector("dialog h2")?.textContent.endsWith("70001"));
  await page.locator("dialog[open]:not([aria-busy]) .heat").first().waitFor();
  note("the next picture", performance.now() - turned);
  await page.keyboard.press("Escape");
  for (const cell of ["native/q60", "native/q40", "256/none", "256/q60"]) await timed(page, "#cell", cell);
  for (let scrolled = 0; scrolled < 20; scrolled++) {
    await page.mouse.move(900, 500);
    await page.mouse.wheel(0, 3_000);
    await page.waitForTimeout(60);
  }
  note("memory of the tab, megabytes", await memoryOfTab());
  await context.close();
}
await browser.close();
await site.stop();

function median(values: readonly number[]): number {
  const ascending = [...values].sort((a, b) => a - b);
  return ascending[Math.floor(ascending.length / 2)]!;
}

console.log(JSON.stringify(Object.fromEntries([...found].map(([name, values]) => [name, Math.round(median(values))])), null, 2));
