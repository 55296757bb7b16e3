import { readdirSync, readFileSync } from "node:fs";
import type { Browser, Page } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { texts } from "../../src/texts";
import type { BadReason } from "../../src/picture/facts";
import { APP, fixture, pictureAnswers, pictureFile, type PictureAnswer } from "../fixtures";
import { check, launch, openApp, outcome, type Outcome } from "./app";
import { Site } from "./site";

const GOOD = "png-64x48.png";
// The app without a picture, the decoded 100 megapixels (400 MB, which only the browser can hold), and as much again.
const MOST_MEMORY = 1.2e9;

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

const refused = pictureAnswers().filter(([, { error }]) => error);

test.each(refused)("%s is refused in words, and the next picture is answered", async (name, { error }) => {
  expect(await check(page, pictureFile(name))).toBe(texts.badPicture[error as BadReason]);
  expect(await check(page, pictureFile(GOOD))).toMatchObject({ verdict: expect.any(String) as unknown });
});

test("a TIFF, which browsers do not show, is refused in words", async () => {
  await page.setInputFiles("#choose-picture", { name: "a.tif", mimeType: "image/tiff", buffer: Buffer.from("II*\0\0\0\0\0") });
  expect(await outcome(page)).toBe(texts.badPicture.unsupported);
});

test("a picture of a kind that only the browser reads is answered by the same pixels", async () => {
  const expected = (await check(page, pictureFile(GOOD))) as Outcome;
  const png = readFileSync(pictureFile(GOOD));
  // An icon of 64 x 48 pixels that holds the same PNG.
  const head = Buffer.alloc(22);
  head.set([0, 0, 1, 0, 1, 0, 64, 48, 0, 0, 1, 0, 32, 0]);
  head.writeUInt32LE(png.length, 14);
  head.writeUInt32LE(22, 18);
  const found = (await check(page, { name: "a.ico", mimeType: "image/x-icon", buffer: Buffer.concat([head, png]) })) as Outcome;
  expect(found.probabilities).toEqual(expected.probabilities);
  expect(found.text).toContain("Windows icon");
});

test.each([
  ["HEIC", Buffer.from("\0\0\0\x18ftypheic\0\0\0\0mif1heic")],
  ["HEIF", Buffer.from("\0\0\0\x18ftypmif1\0\0\0\0mif1heic")],
  ["JPEG XL", Buffer.from("\0\0\0\x0cJXL \r\n")],
])("%s, where this browser does not show it, gets the advice to save it as JPEG", async (_, buffer) => {
  const said = await check(page, { name: "a", mimeType: "", buffer });
  expect(said).toBe(texts.badPicture.unsupported);
  expect(said).toContain("Save it as JPEG");
});

test.each([
  ["png-told.png", "png-64x48.png"],
  ["jpg-told.jpg", "jpg-444.jpg"],
  ["png-told.webp", "png-image.webp"],
])("what %s says beside its pixels is shown beside the verdict, and changes nothing of it", async (told, plain) => {
  const expected = (await check(page, pictureFile(plain))) as Outcome;
  expect(await page.locator(".file-says li").allTextContents()).toEqual([expect.stringContaining("Nothing of its origin")]);
  const { verdict, source, probabilities } = (await check(page, pictureFile(told))) as Outcome;
  expect({ verdict, source, probabilities }).toEqual({
    ...{ verdict: expected.verdict, source: expected.source, probabilities: expected.probabilities },
  });
  expect((await page.locator(".file-says li").allTextContents()).join(" ")).toContain("trainedAlgorithmicMedia");
});

test("limits in words are those that there are", () => {
  // png-16x16.png is answered.
  expect(texts.badPicture["too-small"]).toContain("at least 16 pixels");
  expect(Object.fromEntries(refused)["bad-line.png"]).toEqual({ error: "too-small" });
  expect(Object.fromEntries(refused)["bad-15x15.png"]).toEqual({ error: "too-narrow" });
  expect(texts.badPicture["too-narrow"]).toContain("at least 16 pixels");
});

test("100 megapixels are answered within bounded memory", async () => {
  const name = "huge-100-megapixels.jpg";
  const expected = (fixture("pictures/answers.json") as Record<string, PictureAnswer>)[name]!.answers!["dense"]!;
  const watch = watchMemory();
  const found = (await check(page, pictureFile(name))) as Outcome;
  const peak = watch.stop();
  expect(found.verdict).toBe(expected.verdict);
  expect(Math.abs(found.probabilities["real"]! - expected.probabilities["real"]!)).toBeLessThanOrEqual(1e-2);
  expect(peak).toBeLessThan(MOST_MEMORY);
});

describe("a picture also comes", () => {
  const data = readFileSync(pictureFile(GOOD)).toString("base64");

  async function send(kind: "paste" | "drop"): Promise<void> {
    await page.evaluate(
      ({ kind, data }) => {
        const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], "picture.png", { type: "image/png" }));
        const event =
          kind === "paste"
            ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
            : new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true });
        document.body.dispatchEvent(event);
      },
      { kind, data },
    );
  }

  test.each(["paste", "drop"] as const)("by %s", async (kind) => {
    const expected = (await check(page, pictureFile(GOOD))) as Outcome;
    await check(page, pictureFile("bad-empty.jpg"));
    await send(kind);
    expect(await outcome(page)).toEqual({ ...expected, text: expect.any(String) as unknown });
  });

  /** What a browser does when another app shares to this one: files by name, of a type that may be none. */
  async function share(names: string[], type: string, field?: string): Promise<void> {
    const files = names.map((name) => ({ name, data: readFileSync(pictureFile(name)).toString("base64") }));
    await page.evaluate(
      async ({ files, type, field }) => {
        const transfer = new DataTransfer();
        for (const { name, data } of files) {
          const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
          transfer.items.add(new File([bytes], name, { type }));
        }
        const { action, method, enctype, params } = (
          (await (await fetch("manifest.webmanifest")).json()) as {
            share_target: { action: string; method: string; enctype: string; params: { files: { name: string }[] } };
          }
        ).share_target;
        const form = document.createElement("form");
        Object.assign(form, { action, method, enctype });
        const input = document.createElement("input");
        Object.assign(input, { type: "file", multiple: true, name: field ?? params.files[0]!.name });
        input.files = transfer.files;
        form.append(input);
        document.body.append(form);
        form.submit();
      },
      { files, type, field },
    );
    await page.waitForURL((url) => url.hash === "#detect" && url.search === "");
    await page.waitForSelector("html[data-ready=yes]");
  }

  test.each([
    ["image/png", undefined],
    ["", undefined],
    ["application/octet-stream", "attachment"],
  ])("from another app, which shares it as %j", async (type, field) => {
    const expected = (await check(page, pictureFile(GOOD))) as Outcome;
    await share([GOOD], type, field);
    await page.locator("[data-verdict]").waitFor();
    const found = (await outcome(page)) as Outcome;
    expect(found.verdict).toBe(expected.verdict);
    expect(found.probabilities).toEqual(expected.probabilities);
    await page.reload();
    await page.waitForSelector("html[data-offline=yes]");
    expect(await page.locator("[data-verdict]").count()).toBe(0);
  });

  test("with others from another app, and all are listed", async () => {
    await share([GOOD, "png-256x256.png"], "image/png");
    await page.locator(".many .entry").nth(1).waitFor();
    expect(await page.$$eval(".many .entry", (rows) => rows.map((row) => row.getAttribute("data-file")))).toEqual([GOOD, "png-256x256.png"]);
  });

  test("not at all, and then it is said", async () => {
    await share([], "image/png");
    await expect.poll(() => page.locator(".notices").textContent()).toContain(texts.detect.nothingShared);
  });
});

/** The largest memory of any one process that this test started, from /proc, in bytes. */
function watchMemory(): { stop: () => number } {
  let peak = 0;
  const sample = () => {
    for (const process of descendants()) {
      const status = readQuietly(`/proc/${process}/status`);
      peak = Math.max(peak, 1024 * Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0));
    }
  };
  const timer = setInterval(sample, 50);
  return {
    stop: () => {
      clearInterval(timer);
      sample();
      if (peak === 0) throw new Error("no process was seen");
      return peak;
    },
  };
}

function descendants(): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const status = /^\d+$/.test(name) ? readQuietly(`/proc/${name}/status`) : "";
    const parent = /PPid:\s+(\d+)/.exec(status)?.[1];
    if (parent) parents.set(Number(name), Number(parent));
  }
  const isMine = (id: number): boolean => {
    const parent = parents.get(id);
    return parent !== undefined && (parent === process.pid || isMine(parent));
  };
  return [...parents.keys()].filter(isMine);
}

/** Processes come and go between listing and reading. */
function readQuietly(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
