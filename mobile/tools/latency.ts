/**
 * How fast a built app is in Chromium, in its own words: `npm run latency -- [APP] [RUNS] [NETWORK]` (default dist, 60, and
 * the network that it starts with).
 *
 * Everything is measured in the app as it is shipped: the graphs by its Evaluate screen, which runs all networks in turns
 * over 512-pixel PNG pictures (one WebAssembly thread), of networks of windows by window as well, a 12-megapixel JPEG by Detect, and loading by the page itself.
 * Prints Markdown: medians with 5th and 95th percentiles, and the median of the paired ratios to NETWORK.
 */

import { readFileSync } from "node:fs";
import { loadavg } from "node:os";
import { gzipSync } from "node:zlib";
import type { Page } from "playwright-core";
import { texts } from "../src/texts";
import { check, launch, openApp, type Chosen } from "../tests/browser/app";
import { Site } from "../tests/browser/site";

const SIDE = 512;
const PICTURES = 10;
const PHONE = { width: 4000, height: 3000 };
const VISITS = 7;

const app = process.argv[2] ?? "dist";
const runs = Number(process.argv[3] ?? 60);
const listed = JSON.parse(readFileSync(`${app}/models/index.json`, "utf8")) as { name: string; card: string }[];
const compared = process.argv[4] ?? listed[0]!.name;

interface Row {
  readonly model: string;
  readonly graphMs: number;
  readonly decodeMs: number;
}

async function main(): Promise<void> {
  const site = new Site(app);
  await site.start();
  const browser = await launch();
  const context = await browser.newContext({ acceptDownloads: true });
  console.log(`Chromium ${browser.version()}; ${processor()}; load ${loadavg()[0]!.toFixed(2)} before\n`);

  let page = await openApp(context, site.url);
  const sent = [...site.sent];
  const load = (sizes: number[]) => (sizes.reduce((sum, size) => sum + size, 0) / 1e6).toFixed(1);
  const zipped = sent.filter(([, bytes]) => bytes > 0).map(([path]) => gzipSync(readFileSync(`${app}/${path || "index.html"}`)).length);
  console.log(`first visit: ${sent.length} files, ${load(sent.map(([, bytes]) => bytes))} MB, ${load(zipped)} MB with gzip`);
  await page.close();

  const ready: number[] = [];
  for (let visit = 0; visit < VISITS; visit++) {
    page = await openApp(context, site.url, false);
    ready.push(await page.evaluate(() => Number(document.documentElement.dataset["readyMs"])));
    await page.close();
  }
  console.log(`usable with a warm cache after ${summary(ready)} ms, ${VISITS} visits`);

  page = await openApp(context, site.url);
  const small = await pictures(page, PICTURES, { width: SIDE, height: SIDE }, "image/png");
  const [large] = await pictures(page, 1, PHONE, "image/jpeg");
  const rows = await evaluated(page, small, Math.ceil(runs / PICTURES));
  console.log(`\n| network | ${SIDE} pixels, ms | one window, ms | ratio to ${compared} |\n|---|---|---|---|`);
  const timesOf = (model: string) => rows.filter((row) => row.model === model).map((row) => row.graphMs);
  for (const model of new Set(rows.map((row) => row.model))) {
    const times = timesOf(model);
    const ratios = timesOf(compared).map((time, index) => times[index]! / time);
    const windows = windowsOf(model);
    const ofOne = windows === null ? "–" : summary(times.map((time) => time / windows));
    console.log(`| ${model} | ${summary(times)} | ${ofOne} | ${quantile(ratios, 0.5).toFixed(2)} |`);
  }

  // Every network has been fetched by now.
  const before = site.requests;
  await page.click("a[data-tab=detect]");
  await page.evaluate(timeVerdicts);
  const totals: number[] = [];
  let words = "";
  for (let run = 0; run < VISITS; run++) {
    const found = await check(page, large!);
    totals.push(await page.evaluate(() => Number(document.documentElement.dataset["totalMs"])));
    if (typeof found === "string") throw new Error(found);
    words = /[\d.,]+\sms for the model, [^.]*?reduce/.exec(found.text)?.[0] ?? "";
  }
  console.log(
    `\nJPEG of ${PHONE.width} x ${PHONE.height} pixels, ${(large!.buffer.length / 1e6).toFixed(1)} MB, with ${await page.inputValue("#model")}: ` +
      `${summary(totals)} ms from the choice to the verdict; the last: ${words}`,
  );
  console.log(`requests meanwhile: ${site.requests - before}`);
  console.log(`load ${loadavg()[0]!.toFixed(2)} after`);
  await browser.close();
  await site.stop();
}

/** How many windows a network looks at, by its name as people see it; null where it is shown whole pictures. */
function windowsOf(model: string): number | null {
  const { card } = listed.find(({ name }) => model === name || model === texts.modelName(name, true))!;
  return (JSON.parse(readFileSync(`${app}/models/${card}`, "utf8")) as { windows?: number }).windows ?? null;
}

/** In the page: notes the time from the choice of a picture to its verdict on the screen. */
function timeVerdicts(): void {
  const noted = (start: number) => (_: unknown, observer: MutationObserver) => {
    if (!document.querySelector("[data-verdict]")) return;
    observer.disconnect();
    document.documentElement.dataset["totalMs"] = String(performance.now() - start);
  };
  const choose = document.querySelector("#choose-picture")!;
  choose.addEventListener(
    "change",
    () => new MutationObserver(noted(performance.now())).observe(document.querySelector(".result")!, { childList: true }),
    { capture: true },
  );
}

/** All networks in turns over the pictures, several rounds; the first round warms up and is dropped. */
async function evaluated(page: Page, files: Exclude<Chosen, string>[], rounds: number): Promise<Row[]> {
  await page.click("a[data-tab=evaluate]");
  if (await page.locator("#use-bundled").isEnabled()) await page.locator("#use-bundled").uncheck();
  for (const box of await page.locator("input[name=model]").all()) await box.check();
  await page.setInputFiles("#evaluate-picture", files);
  const rows: Row[] = [];
  for (let round = 0; round <= rounds; round++) {
    await page.evaluate(() => document.querySelector("table.summary")?.remove());
    await page.click("#start");
    await page.locator("table.summary").waitFor({ timeout: 600_000 });
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-csv")]);
    const [header, ...lines] = readFileSync(await download.path(), "utf8").trimEnd().split("\r\n");
    const at = (name: string) => header!.split(",").indexOf(name);
    if (round === 0) continue;
    for (const line of lines.map((each) => each.split(","))) {
      rows.push({ model: line[at("model")]!, graphMs: Number(line[at("graph_ms")]), decodeMs: Number(line[at("decode_ms")]) });
    }
  }
  return rows;
}

/** Pictures with smooth colours, edges and grain, as photographs have them, drawn by the browser. */
async function pictures(page: Page, count: number, size: { width: number; height: number }, mimeType: string): Promise<Exclude<Chosen, string>[]> {
  const drawn = await page.evaluate(
    async ({ count: number, size: { width, height }, mimeType: type }) => {
      const found: string[] = [];
      for (let each = 0; each < number; each++) {
        const canvas = new OffscreenCanvas(width, height);
        const context = canvas.getContext("2d")!;
        const tile = (side: number, alpha: number) => {
          const noise = new OffscreenCanvas(side, side);
          const data = new ImageData(side, side);
          for (let place = 0; place < data.data.length; place++) data.data[place] = place % 4 === 3 ? 255 : 256 * Math.random();
          noise.getContext("2d")!.putImageData(data, 0, 0);
          context.globalAlpha = alpha;
          return noise;
        };
        context.imageSmoothingQuality = "high";
        context.drawImage(tile(9, 1), 0, 0, width, height);
        context.drawImage(tile(80, 0.35), 0, 0, width, height);
        context.fillStyle = context.createPattern(tile(512, 0.06), "repeat")!;
        context.fillRect(0, 0, width, height);
        const bytes = new Uint8Array(await (await canvas.convertToBlob({ type, quality: 0.9 })).arrayBuffer());
        let text = "";
        for (const byte of bytes) text += String.fromCharCode(byte);
        found.push(btoa(text));
      }
      return found;
    },
    { count, size, mimeType },
  );
  return drawn.map((base64, index) => ({ name: `${index}.${mimeType.slice(6)}`, mimeType, buffer: Buffer.from(base64, "base64") }));
}

function summary(values: number[]): string {
  const digits = quantile(values, 0.5) < 100 ? 1 : 0;
  const [low, middle, high] = [0.05, 0.5, 0.95].map((share) => quantile(values, share).toFixed(digits));
  return `${middle} (${low} to ${high})`;
}

function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  const place = share * (sorted.length - 1);
  const below = sorted[Math.floor(place)]!;
  return below + (sorted[Math.ceil(place)]! - below) * (place - Math.floor(place));
}

function processor(): string {
  return /model name\s*:\s*(.*)/.exec(readFileSync("/proc/cpuinfo", "utf8"))?.[1] ?? "unknown processor";
}

await main();
