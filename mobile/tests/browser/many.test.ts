import { readFileSync } from "node:fs";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { texts } from "../../src/texts";
import { APP, pictureFile } from "../fixtures";
import { check, launch, openApp, type Outcome } from "./app";
import { Site } from "./site";

const THREE = ["png-64x48.png", "jpg-512x333-q60.jpg", "png-256x256.png"];
const MANY = 1000;

const site = new Site(APP);
let browser: Browser;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  await site.start();
  browser = await launch();
  context = await browser.newContext({ acceptDownloads: true });
  await (await openApp(context, site.url)).close();
});

afterAll(async () => {
  await browser.close();
  await site.stop();
});

beforeEach(async () => {
  page = await openApp(context, site.url, false);
});

afterEach(() => page.close());

async function rows(): Promise<[string | null, string | null][]> {
  await page.locator("section[aria-labelledby=detect-title]:not([aria-busy]) .many").waitFor();
  return page.$$eval(".many .entry", (found) => found.map((row) => [row.getAttribute("data-file"), row.getAttribute("data-said")]));
}

/** Drop pictures of one content, `count` of them unless each is named. */
async function drop(names: string[], count = names.length): Promise<void> {
  const data = names.map((name) => readFileSync(pictureFile(name)).toString("base64"));
  await page.evaluate(
    ({ names, data, count }) => {
      const transfer = new DataTransfer();
      for (let index = 0; index < count; index++) {
        const bytes = Uint8Array.from(atob(data[index % data.length]!), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], index < names.length ? names[index]! : `${index}.png`, { type: "image/png" }));
      }
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
    },
    { names, data, count },
  );
}

test("three pictures that are dropped are all answered, each as if it came alone", async () => {
  const alone: (string | null)[][] = [];
  for (const name of THREE) alone.push([name, ((await check(page, pictureFile(name))) as Outcome).verdict]);
  await drop(THREE);
  expect(await rows()).toEqual(alone);
  expect(await page.locator("section:not([hidden]) > .status").textContent()).toContain("3 pictures");
});

test("what cannot be read has its reason in the list", async () => {
  await page.setInputFiles("#choose-picture", [pictureFile(THREE[0]!), pictureFile("bad-text.jpg")]);
  expect((await rows())[1]).toEqual(["bad-text.jpg", "unread"]);
  expect(await page.locator(".many .unread").textContent()).toBe(texts.badPicture.unreadable);
});

test("a list sorts by probability and by name, and saves what it says", async () => {
  const chosen = [...THREE, "png-16x16.png", "bad-empty.jpg"];
  await page.setInputFiles("#choose-picture", chosen.map(pictureFile));
  expect((await rows()).map(([name]) => name)).toEqual(chosen);
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-list")]);
  const lines = readFileSync(await download.path(), "utf8").trimEnd().split("\r\n").map((line) => line.split(","));
  expect(lines[0]!.slice(0, 6)).toEqual(["file", "label", "model", "verdict", "source", "p_fake"]);
  expect(lines.slice(1).map(([name]) => name)).toEqual(chosen);
  const probability = new Map(lines.slice(1, -1).map((line) => [line[0]!, Number(line[5])]));
  await page.selectOption("#order", "probability");
  const byProbability = (await rows()).map(([name]) => name!);
  expect(byProbability).toEqual([...[...probability.keys()].sort((a, b) => probability.get(b)! - probability.get(a)!), "bad-empty.jpg"]);
  await page.selectOption("#order", "name");
  expect((await rows()).map(([name]) => name)).toEqual([
    ...["bad-empty.jpg", "jpg-512x333-q60.jpg"],
    // As people count: 64 before 256.
    ...["png-16x16.png", "png-64x48.png", "png-256x256.png"],
  ]);
});

test("a picture of a list opens with its reasons, and leads back to the list", async () => {
  await page.setInputFiles("#choose-picture", THREE.map(pictureFile));
  const listed = await rows();
  await page.getByRole("button", { name: THREE[1]!, exact: true }).click();
  expect(await page.locator("[data-verdict]").getAttribute("data-verdict")).toBe(listed[1]![1]);
  await page.getByRole("button", { name: texts.many.back }).click();
  expect(await rows()).toEqual(listed);
});

test("another model answers the whole list again", async () => {
  await page.setInputFiles("#choose-picture", THREE.map(pictureFile));
  await rows();
  await page.selectOption("#model", "small");
  await expect.poll(() => page.locator(".many .tag").count()).toBe(THREE.length);
});

test("a thousand pictures that are dropped are all answered, and one of them can be looked at meanwhile", async () => {
  await drop(["png-16x16.png"], MANY);
  await page.locator(".many button.file").first().click();
  await page.locator("[data-verdict]").waitFor();
  await page.getByRole("button", { name: texts.many.back }).click();
  await expect.poll(() => page.locator("section:not([hidden]) > .status").textContent(), { timeout: 150_000 }).toContain("1,000 pictures:");
  const found = await page.$$eval(".many .entry", (entries) => entries.map((entry) => entry.getAttribute("data-said")));
  expect(found).toHaveLength(MANY);
  expect(new Set(found).size).toBe(1);
  expect(found[0]).not.toBe("unread");
});

test("a list that is stopped says how far it came", async () => {
  await drop(["png-16x16.png"], MANY);
  await page.locator(".many .entry").nth(2).waitFor();
  await page.click("#stop-list");
  const listed = (await rows()).length;
  expect(listed).toBeLessThan(MANY);
  expect(await page.locator("section:not([hidden]) > .status").textContent()).toContain(`${listed} pictures:`);
});

test("Enter opens the chooser, once", async () => {
  // A click on a field of files is what opens a chooser.
  await page.locator("#choose-picture").evaluate((field) => {
    field.addEventListener("click", (event) => {
      event.preventDefault();
      field.dataset["clicks"] = String(Number(field.dataset["clicks"] ?? 0) + 1);
    });
  });
  await page.locator("#choose-picture").focus();
  await page.keyboard.press("Enter");
  await expect.poll(() => page.locator("#choose-picture").getAttribute("data-clicks")).toBe("1");
  expect(await page.locator("#choose-picture").getAttribute("multiple")).toBe("");
});

describe("History", () => {
  test("opens an entry with what was said", async () => {
    const { text } = (await check(page, pictureFile("jpg-257x255-q40.jpg"))) as Outcome;
    await page.click("a[data-tab=history]");
    await page.locator(".entry a.file").first().click();
    const dialog = page.getByRole("dialog");
    const said = (await dialog.locator(".said").textContent())!;
    expect(text).toContain(said);
    expect(await dialog.textContent()).toContain("In our tests it called 6 of 100 photographs generated");
    expect(await dialog.locator(".scale .mark").count()).toBe(1);
    await dialog.getByRole("button", { name: texts.history.close }).click();
    expect(await dialog.isVisible()).toBe(false);
  });
});
