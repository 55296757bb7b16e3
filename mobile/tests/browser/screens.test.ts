import { readFileSync } from "node:fs";
import axe from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { Verdict } from "../../src/network/decision";
import { texts } from "../../src/texts";
import { german } from "../../src/texts-de";
import { italian } from "../../src/texts-it";
import { APP, fixture, FIXTURES, pictureAnswers, pictureFile } from "../fixtures";
import { check, launch, openApp, outcome, type Outcome } from "./app";
import { Site } from "./site";

const PHONE = { viewport: { width: 360, height: 740 } };

function models(): { name: string; card: string; sha256: string }[] {
  return JSON.parse(readFileSync(`${APP}/models/index.json`, "utf8")) as { name: string; card: string; sha256: string }[];
}

const site = new Site(APP);
let browser: Browser;
let context: BrowserContext;
let page: Page;

beforeAll(async () => {
  await site.start();
  browser = await launch();
  context = await browser.newContext({ ...PHONE, acceptDownloads: true });
  await (await openApp(context, site.url)).close();
});

afterAll(async () => {
  await browser.close();
  await site.stop();
});

beforeEach(async () => {
  page = await openApp(context, site.url, false);
});

afterEach(async () => {
  await page.evaluate(() => {
    localStorage.clear();
    indexedDB.deleteDatabase("telltale");
  });
  await page.close();
});

/** The app as it is where the first network computes other numbers than its card says. */
async function withFailingSelfTest(): Promise<void> {
  const { card } = models()[0]!;
  const content = JSON.parse(readFileSync(`${APP}/models/${card}`, "utf8")) as { self_test: { probabilities: number[] } };
  content.self_test.probabilities.reverse();
  site.replaced.set(`models/${card}`, Buffer.from(JSON.stringify(content)));
  await page.reload();
  await page.waitForSelector("html[data-ready=yes]");
  site.replaced.clear();
}

describe("Detect", () => {
  test("switching the model answers the same picture again, and the choice lasts", async () => {
    const first = (await check(page, pictureFile("jpg-512x512-q95.jpg"))) as Outcome;
    await page.selectOption("#model", "small");
    await expect.poll(async () => ((await outcome(page)) as Outcome).probabilities).not.toEqual(first.probabilities);
    await page.reload();
    await page.waitForSelector("html[data-ready=yes]");
    expect(await page.inputValue("#model")).toBe("small");
  });

  test("the verdict stands with its error rates, its time and where it was computed", async () => {
    const { text } = (await check(page, pictureFile("jpg-257x255-q40.jpg"))) as Outcome;
    // The seventh of the card's twelve cells: 256/q40.
    expect(text).toContain("In our tests it called 6 of 100 photographs generated and missed 1 of 8 generated pictures of this kind.");
    expect(text).toContain("(256 pixels, JPEG quality 40) were 500 photographs (95\u00a0% interval 0.0 to 12.0 of 100)");
    expect(text).toMatch(/\d\sms for the model/);
    expect(text).toContain(texts.providers.wasm);
  });

  test("a picture and its evidence are enlarged together by keys, the wheel and two fingers, and reduced again", async () => {
    await check(page, pictureFile("jpg-512x512-q95.jpg"));
    const frame = page.locator(".frame");
    const zoom = async () => Number((await frame.getAttribute("data-zoom")) ?? "1");
    await frame.focus();
    await page.keyboard.press("+");
    await page.keyboard.press("+");
    expect(await zoom()).toBeCloseTo(1.56, 2);
    await page.keyboard.press("-");
    await page.keyboard.press("0");
    expect(await zoom()).toBe(1);
    const box = (await frame.boundingBox())!;
    await page.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
    await page.mouse.wheel(0, -300);
    await expect.poll(zoom).toBeCloseTo(2.72, 2);
    const layers = await page.locator(".frame canvas").evaluateAll((all) => all.map((one) => one.getBoundingClientRect().width));
    await page.check("#show-evidence");
    const [picture, overlay] = await page
      .locator(".frame canvas")
      .evaluateAll((all) => all.map((one) => Math.round(one.getBoundingClientRect().width)));
    expect(picture).toBe(Math.round(layers[0]!));
    expect(overlay).toBe(picture);
    await frame.dblclick();
    expect(await zoom()).toBe(1);
    const pointers = ["pointerdown", "pointerdown", "pointermove"].map((type, index) => ({
      type,
      options: { pointerId: index === 0 ? 11 : 12, bubbles: true, clientX: box.x + 60 + [0, 20, 60][index]!, clientY: box.y + 60 },
    }));
    await frame.evaluate((element, all) => {
      element.setPointerCapture = () => undefined;
      for (const { type, options } of all) element.dispatchEvent(new PointerEvent(type, options));
    }, pointers);
    expect(await zoom()).toBeCloseTo(3, 1);
  });

  test("a page that is scrolled over a picture is not enlarged", async () => {
    await check(page, pictureFile("jpg-512x512-q95.jpg"));
    await page.locator(".frame").hover();
    await page.mouse.wheel(0, 200);
    expect(await page.locator(".frame").getAttribute("data-zoom")).toBeNull();
  });

  test("a result is saved as a picture with verdict, model and limits where there is nothing to share with", async () => {
    await check(page, pictureFile("jpg-512x512-q95.jpg"));
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#share-result")]);
    expect(download.suggestedFilename()).toBe("telltale.png");
    const png = readFileSync(await download.path());
    expect(png.subarray(1, 4).toString()).toBe("PNG");
    const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
    // The picture's 512 rows, both margins, and at least a line each of verdict, errors, limits and model.
    expect(width).toBe(1080);
    expect(height).toBeGreaterThan(512 + 2 * 56 + 72 + 44 + 44 + 52);
  });

  test("one bar has its mark at the line, and generators are called as people know them", async () => {
    const { text, verdict } = (await check(page, pictureFile("jpg-257x255-q40.jpg"))) as Outcome;
    const bars = page.locator(".verdict .scale");
    expect(await bars.count()).toBe(1);
    const card = JSON.parse(readFileSync(`${APP}/models/${models()[0]!.card}`, "utf8")) as { decision: { fake_thresholds: Record<string, number> } };
    const [bar, mark] = [await bars.boundingBox(), await bars.locator(".mark").boundingBox()];
    const place = (mark!.x + mark!.width / 2 - bar!.x) / bar!.width;
    expect(place).toBeCloseTo(card.decision.fake_thresholds["256"]!, 2);
    expect(text).not.toContain("probability that it was generated");
    expect(text).toContain("a small GAN");
    expect(await bars.getAttribute("class")).toBe(`scale ${verdict}`);
  });

  test("a network of random weights is called a demonstration wherever it answers", async () => {
    await page.selectOption("#model", "small");
    const { text } = (await check(page, pictureFile("png-64x48.png"))) as Outcome;
    expect(text).toContain(texts.demonstrationMeans);
    expect(await page.locator("#model option:checked").textContent()).toContain("demonstration");
    await page.click("a[data-tab=history]");
    await expect.poll(() => page.locator(".entry").first().textContent()).toContain(texts.demonstration);
  });

  test("three answers have two marks, a middle that is seen, and the errors of a model that may not answer", async () => {
    await page.selectOption("#model", "traces");
    const { decision } = JSON.parse(readFileSync(`${FIXTURES}/models/traces.json`, "utf8")) as { decision: Record<string, Record<string, number>> };
    const lines = [decision["photograph_thresholds"]!["256"]!, decision["fake_thresholds"]!["256"]!];
    const seen = new Set<string>();
    for (const [name, { answers }] of pictureAnswers()) {
      const expected = answers?.["traces"];
      if (!expected || name.includes("profile") || name.startsWith("huge") || seen.has(`${expected.verdict} ${expected.reason}`)) continue;
      seen.add(`${expected.verdict} ${expected.reason}`);
      const { text, verdict, source } = (await check(page, pictureFile(name))) as Outcome;
      expect([verdict, source]).toEqual([expected.verdict, null]);
      expect(text).toContain(texts.verdict(expected.verdict as Verdict, null, true));
      expect(text.includes(texts.betweenMeans)).toBe(expected.reason === "between");
      expect(text.includes(texts.unknownMeans)).toBe(expected.reason === "unfamiliar");
      expect(text.includes(texts.formatMeans)).toBe(expected.reason === "format");
      // Of files that were not tested there are no rates.
      expect(text.includes("of generators that it had never seen, 41. It gave no answer to 40 of 100.")).toBe(expected.reason !== "format");
      const bar = (await page.locator(".verdict .scale").boundingBox())!;
      const marks = await page.locator(".verdict .scale .mark").all();
      const boxes = await Promise.all(marks.map(async (mark) => (await mark.boundingBox())!));
      for (const [index, box] of boxes.entries()) expect((box.x + box.width / 2 - bar.x) / bar.width).toBeCloseTo(lines[index]!, 2);
      const middle = (await page.locator(".verdict .scale .between").boundingBox())!;
      expect(middle.width / bar.width).toBeCloseTo(lines[1]! - lines[0]!, 2);
    }
    expect([...seen].sort()).toEqual(["cannot-tell between", "cannot-tell format", "cannot-tell unfamiliar", "generated null", "photograph null"]);
    await page.click("a[data-tab=history]");
    await expect.poll(() => page.locator(".entry .scale.three").count()).toBe(seen.size);
    await page.locator(".entry", { has: page.locator(".said.cannot-tell") }).first().locator("a.file").click();
    expect(await page.getByRole("dialog").locator(".mark").count()).toBe(2);
    expect(await page.getByRole("dialog").locator("h2").textContent()).toBe("Cannot tell");
  });

  test("the evidence of windows lies where each of them is on the picture", async () => {
    await page.selectOption("#model", "traces");
    await check(page, pictureFile("png-1025x700.png"));
    await page.getByLabel(texts.detect.evidence).check();
    expect(await page.locator("figcaption").textContent()).toContain("Only the framed windows are looked at");
    // Of three windows of 64 pixels in 1,024 x 699, and of nothing beside them.
    const drawn = await page.locator(".overlay").evaluate((canvas: HTMLCanvasElement) => {
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      const places: [number, number][] = [];
      for (let place = 0; 4 * place < data.length; place++) if (data[4 * place + 3]! > 0) places.push([place % canvas.width, Math.floor(place / canvas.width)]);
      return places;
    });
    expect(drawn.length).toBeGreaterThan(500);
    const { places } = (fixture("windows.json") as { large: { places: [number, number][] } }).large;
    const isInside = ([x, y]: [number, number]) => places.some(([top, left]) => x >= left - 2 && x <= left + 66 && y >= top - 2 && y <= top + 66);
    expect(drawn.filter((place) => !isInside(place))).toEqual([]);
    for (const [top, left] of places) expect(drawn.some(([x, y]) => Math.abs(x - left) < 3 && Math.abs(y - top) < 66), `${top}, ${left}`).toBe(true);
  });

  test("the evidence map covers the picture when it is asked for", async () => {
    await check(page, pictureFile("jpg-512x333-q60.jpg"));
    const overlay = page.locator(".overlay");
    expect(await overlay.isVisible()).toBe(false);
    await page.getByLabel(texts.detect.evidence).check();
    const [map, picture] = [await overlay.boundingBox(), await page.locator(".frame canvas").first().boundingBox()];
    expect(map).toEqual(picture);
    const drawn = await overlay.evaluate((canvas: HTMLCanvasElement) => {
      const { data } = canvas.getContext("2d")!.getImageData(0, 0, canvas.width, canvas.height);
      return data.some((value, index) => index % 4 === 3 && value > 40);
    });
    expect(drawn).toBe(true);
  });
});

describe("Evaluate", () => {
  /** Per model: its name and its column of the table of results. */
  async function results(): Promise<string[][]> {
    await page.click("#start");
    await page.locator("table.summary").waitFor();
    const [header, ...rows] = await page.$$eval("table.summary tr", (found) =>
      found.map((row) => [...row.children].map((cell) => cell.textContent)),
    );
    return header!.slice(1).map((model, index) => [model, ...rows.map((row) => row[index + 1]!)]);
  }

  test("the reference pictures give counts that agree with the single verdicts", async () => {
    await page.click("a[data-tab=evaluate]");
    await page.locator("input[name=model][value=small]").check();
    const rows = await results();
    expect(rows.map(([model, pictures]) => [model, pictures])).toEqual([
      ["dense", "9"],
      ["small (demonstration)", "9"],
    ]);
    const lines = await savedCsv();
    expect(lines).toHaveLength(1 + 18);
    for (const [index, model] of ["dense", "small (demonstration)"].entries()) {
      const mine = lines.slice(1).map((line) => line.split(",")).filter((line) => line[2] === model);
      const right = mine.filter((line) => line[3] === (line[1] === "real" ? "photograph" : "generated"));
      expect(rows[index]![2]).toContain(`(${right.length}\u00a0of\u00a09)`);
      expect(rows[index]![3]).toContain(`(${mine.filter((line) => line[3] !== "unknown-source").length}\u00a0of\u00a09)`);
      const confusion = page.locator("table.confusion").nth(index).locator("td");
      const counts = (await confusion.allTextContents()).map(Number);
      expect(counts.reduce((sum, count) => sum + count, 0)).toBe(9);
    }
    const total = lines.slice(1).map((line) => line.split(",")).filter((line) => line[2] === "dense");
    const sum = total.reduce((all, line) => all + Number(line[12]), 0);
    expect(Math.abs(sum - Number(rows[0]![7]!.replace(/[^0-9.]/g, "")))).toBeLessThanOrEqual(1);
  });

  test("a folder of one's own is labelled by its folders, and unreadable files are counted", async () => {
    await page.click("a[data-tab=evaluate]");
    await page.locator("#use-bundled").uncheck();
    await page.setInputFiles("#evaluate-folder", `${FIXTURES}/labelled`);
    expect(await page.locator("fieldset .hint[role=status]").textContent()).toBe(texts.evaluate.chosen(9, 9));
    const [row] = await results();
    expect(row!.slice(0, 2)).toEqual(["dense", "9"]);
    await page.setInputFiles("#evaluate-picture", [pictureFile("bad-text.jpg"), pictureFile("png-64x48.png")]);
    const [second] = await results();
    expect(second!.slice(0, 2)).toEqual(["dense", "1"]);
    expect(await page.locator("details summary").first().textContent()).toBe(texts.evaluate.failures(1));
    expect((await savedCsv()).at(-1)).toContain("unreadable");
  });

  test("what is too small for one model is no answer of it, and an answer of the other", async () => {
    await page.click("a[data-tab=evaluate]");
    await page.locator("#use-bundled").uncheck();
    await page.locator("input[name=model][value=traces]").check();
    await page.setInputFiles("#evaluate-picture", [pictureFile("png-64x48.png"), pictureFile("png-256x256.png")]);
    const rows = await results();
    expect(rows.map(([model, pictures]) => [model, pictures])).toEqual([
      ["dense", "2"],
      ["traces", "2"],
    ]);
    const lines = (await savedCsv()).slice(1).map((line) => line.split(","));
    expect(lines.filter((line) => line.at(-1) === "too-small").map(([file, , model]) => [file, model])).toEqual([["png-64x48.png", "traces"]]);
    expect(lines).toHaveLength(4);
    expect(Number(rows[1]![3]!.match(/\((\d)/)![1])).toBeLessThanOrEqual(1);
  });

  test("pictures without a label are listed with what was said of them", async () => {
    await page.click("a[data-tab=evaluate]");
    await page.locator("#use-bundled").uncheck();
    await page.setInputFiles("#evaluate-picture", [pictureFile("png-64x48.png"), pictureFile("png-256x256.png")]);
    const [row] = await results();
    expect(row!.slice(0, 3)).toEqual(["dense", "2", "–"]);
    const listed = await page.$$eval("table.unlabelled tbody tr", (found) => found.map((each) => [...each.children].map((cell) => cell.textContent)));
    expect(listed.map(([file]) => file)).toEqual(["png-64x48.png", "png-256x256.png"]);
    expect(listed.every(([, said]) => /^(Photograph|Generated: .+|Cannot tell)$/.test(said!))).toBe(true);
  });

  test("a network whose self-test fails here is marked, and the others are counted", async () => {
    await withFailingSelfTest();
    await page.click("a[data-tab=evaluate]");
    await page.locator("input[name=model][value=small]").check();
    const rows = await results();
    expect(rows.map(([model, pictures, right]) => [model, pictures, right === "–"])).toEqual([
      ["small (demonstration)", "9", false],
      ["dense", texts.evaluate.failsSelfTest, true],
    ]);
    await page.locator("input[name=model][value=small]").uncheck();
    await page.click("#start");
    await expect.poll(() => page.locator("section:not([hidden]) > .status.error").textContent()).toContain(texts.evaluate.failsSelfTest);
  });

  test("the models that are not on the device are named in both lists", async () => {
    await page.evaluate(() => caches.delete("telltale-models"));
    await page.click("a[data-tab=evaluate]");
    const here = (model: string) => page.locator("label", { has: page.locator(`input[name=model][value=${model}]`) }).locator(".here").textContent();
    await expect.poll(() => here("dense")).toBe(texts.evaluate.notHere);
    // A visit begins with fetching the first one.
    await page.reload();
    await page.waitForSelector("html[data-offline=yes]");
    await expect.poll(() => here("dense")).toBe("");
    await results();
    await expect.poll(() => here("dense")).toBe("");
    expect(await here("small")).toBe(texts.evaluate.notHere);
    await page.click("a[data-tab=detect]");
    await expect.poll(() => page.locator("#model option").allTextContents()).toEqual([
      expect.not.stringContaining(texts.evaluate.notHere),
      expect.stringContaining(texts.evaluate.notHere),
      expect.stringContaining(texts.evaluate.notHere),
    ]);
  });

  test("without a picture it says what is missing", async () => {
    await page.click("a[data-tab=evaluate]");
    await page.locator("#use-bundled").uncheck();
    await page.click("#start");
    expect(await page.locator("section:not([hidden]) > .status").textContent()).toBe(texts.evaluate.nothing);
  });

  async function savedCsv(): Promise<string[]> {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-csv")]);
    return readFileSync(await download.path(), "utf8").trimEnd().split("\r\n");
  }
});

describe("History", () => {
  test("keeps verdicts across visits, deletes one, then all", async () => {
    for (const name of ["png-64x48.png", "png-256x256.png", "png-16x16.png"]) await check(page, pictureFile(name));
    await page.reload();
    await page.click("a[data-tab=history]");
    const items = page.locator(".entry");
    await expect.poll(() => items.count()).toBe(3);
    await items.first().getByRole("button").click();
    await expect.poll(() => items.count()).toBe(2);
    await page.getByRole("button", { name: texts.history.removeAll }).click();
    await page.getByRole("dialog").getByRole("button", { name: texts.history.cancel }).click();
    expect(await items.count()).toBe(2);
    await page.getByRole("button", { name: texts.history.removeAll }).click();
    await page.getByRole("dialog").getByRole("button", { name: texts.history.removeAll }).click();
    await expect.poll(() => page.getByText(texts.history.empty).isVisible()).toBe(true);
  });

  test.each([
    ["1970", new Date("1970-01-01T00:00:10Z")],
    ["2099", new Date("2099-12-31T23:59:50Z")],
  ])("and everything else works where the clock says %s, the newest first", async (_, time) => {
    const first = (await check(page, pictureFile("png-64x48.png"))) as Outcome;
    const there = await context.newPage();
    await there.clock.setFixedTime(time);
    await there.goto(site.url);
    await there.waitForSelector("html[data-offline=yes]");
    expect(await check(there, pictureFile("png-64x48.png"))).toMatchObject({ verdict: first.verdict, probabilities: first.probabilities });
    await check(there, pictureFile("png-256x256.png"));
    await there.click("a[data-tab=history]");
    await expect.poll(() => there.locator(".entry a.file").allTextContents()).toEqual(["png-256x256.png", "png-64x48.png", "png-64x48.png"]);
    await there.close();
  });

  test("keeps nothing when it is switched off", async () => {
    await page.click("a[data-tab=history]");
    await page.getByLabel(texts.history.keep).uncheck();
    await page.click("a[data-tab=detect]");
    await check(page, pictureFile("png-64x48.png"));
    await page.click("a[data-tab=history]");
    await expect.poll(() => page.getByText(texts.history.empty).isVisible()).toBe(true);
  });
});

describe("About", () => {
  test("every model passes its self-test, and names its digest", async () => {
    await page.click("a[data-tab=about]");
    const models = JSON.parse(readFileSync(`${APP}/models/index.json`, "utf8")) as { name: string; sha256: string }[];
    for (const { name, sha256 } of models) {
      const card = page.locator(".model", { has: page.locator(`[data-self-test=${name}]`) });
      await card.locator("[data-self-test]").click();
      await expect.poll(() => card.locator(".outcome").textContent()).toContain("Passed");
      expect(await card.textContent()).toContain(sha256);
    }
  });

  test("kinds that no picture is compared with are listed by name, and said to be that", async () => {
    await page.click("a[data-tab=about]");
    const card = page.locator(".model", { has: page.locator("[data-self-test=dense]") });
    await card.getByText(texts.about.errorTable, { exact: true }).click();
    expect(await card.locator(".errors tbody tr").last().textContent()).toContain("64/melted13.0\u00a0%");
    expect(await card.getByText(texts.about.neverNearest).isVisible()).toBe(true);
  });

  test("a model that computes other numbers than published fails its self-test, and gives no verdict", async () => {
    await withFailingSelfTest();
    expect(await check(page, pictureFile("png-64x48.png"))).toContain("computes other numbers than it was published with");
    await page.click("a[data-tab=about]");
    await page.locator("[data-self-test=dense]").click();
    await expect.poll(() => page.locator(".outcome.failed").textContent()).toContain("Failed");
  });

  test("WebGPU is used when it is there, and otherwise its absence is told", async () => {
    await page.click("a[data-tab=about]");
    expect(await page.locator("#provider").textContent()).toContain(texts.providers.wasm);
    await page.locator("#use-webgpu").click();
    await expect.poll(() => page.locator("#use-webgpu").isEnabled(), { timeout: 40_000 }).toBe(true);
    const words = await page.locator("#provider").textContent();
    const on = await page.locator("#use-webgpu").isChecked();
    expect(words).toContain(on ? texts.providers.webgpu : "WebGPU cannot be used here, so WebAssembly stays on");
    await page.click("a[data-tab=detect]");
    const { text } = (await check(page, pictureFile("png-64x48.png"))) as Outcome;
    expect(text).toContain(texts.providers[on ? "webgpu" : "wasm"]);
  });
});

describe.each([
  ["de-DE", "de", german],
  ["it-IT", "it", italian],
] as const)("In a browser that asks for %s", (locale, language, words) => {
  test("the app speaks the person's language, on every screen within the phone's width", async () => {
    const abroad = await browser.newContext({ ...PHONE, locale });
    const there = await openApp(abroad, site.url, false);
    expect(await there.getAttribute("html", "lang")).toBe(language);
    expect(await there.locator("#detect-title").textContent()).toBe(words.detect.title);
    const { text, verdict } = (await check(there, pictureFile("jpg-257x255-q40.jpg"))) as Outcome;
    expect(text).toContain(verdict === "generated" ? words.scale.generated : words.verdict(verdict as Verdict, null, false));
    expect(text).not.toContain("In our tests");
    await there.setInputFiles("#choose-picture", ["png-64x48.png", "bad-text.jpg"].map(pictureFile));
    await there.locator("section:not([aria-busy]) .many .unread").waitFor();
    for (const tab of ["detect", "evaluate", "history", "about"] as const) {
      await there.click(`a[data-tab=${tab}]`);
      expect(await there.locator(`a[data-tab=${tab}]`).textContent()).toBe(words.tabs[tab]);
      expect(await there.evaluate(() => document.documentElement.scrollWidth), tab).toBe(360);
    }
    await abroad.close();
  });
});

describe("Everyone can use it:", () => {
  const schemes = ["light", "dark"] as const;

  test.each(schemes)("axe finds nothing serious beside three answers in %s colours", async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe.source);
    await page.selectOption("#model", "traces");
    for (const name of ["png-64x48.png", "png-256x256.png", "png-901x1601.png", "jpg-512x333-q60.jpg", "jpg-rotated-5.jpg"]) {
      await check(page, pictureFile(name));
      expect(await axeFindings(), name).toEqual([]);
      expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
    }
  });

  async function axeFindings() {
    const found = await page.evaluate(async () => {
      const { violations } = await (window as unknown as { axe: typeof axe }).axe.run();
      return violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html) }));
    });
    return found.filter(({ impact }) => impact === "serious" || impact === "critical");
  }

  test.each(schemes)("axe finds nothing serious in %s colours", async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    await page.evaluate(axe.source);
    await check(page, pictureFile("jpg-512x333-q60.jpg"));
    await page.getByLabel(texts.detect.evidence).check();
    for (const tab of ["detect", "list", "evaluate", "history", "about"]) {
      await page.click(`a[data-tab=${tab === "list" ? "detect" : tab}]`);
      if (tab === "list") {
        await page.selectOption("#model", "small");
        await page.setInputFiles("#choose-picture", ["png-64x48.png", "bad-text.jpg"].map(pictureFile));
        await page.locator("section:not([aria-busy]) .many .unread").waitFor();
      }
      if (tab === "evaluate") {
        await page.click("#start");
        await page.locator("table.summary").waitFor();
      }
      if (tab === "history") {
        await page.locator(".entries:not(.many) a.file").first().click();
        await page.getByRole("dialog").waitFor();
      }
      expect(await axeFindings(), tab).toEqual([]);
      if (tab === "history") await page.getByRole("button", { name: texts.history.close }).click();
    }
  });

  test("nothing is wider than a phone of 360 pixels", async () => {
    await page.evaluate(() => caches.delete("telltale-models"));
    await page.click("a[data-tab=evaluate]");
    await page.click("a[data-tab=detect]");
    await expect.poll(() => page.locator("#model").textContent()).toContain(texts.evaluate.notHere);
    await check(page, pictureFile("png-3000x90.png"));
    expect(await page.evaluate(() => document.documentElement.scrollWidth)).toBe(360);
    await page.setInputFiles("#choose-picture", ["png-3000x90.png", "bad-text.jpg"].map(pictureFile));
    await page.locator("section:not([aria-busy]) .many .unread").waitFor();
    for (const tab of ["detect", "evaluate", "history", "about"]) {
      await page.click(`a[data-tab=${tab}]`);
      expect(await page.evaluate(() => document.documentElement.scrollWidth), tab).toBe(360);
    }
  });

  test("the keyboard reaches the tabs, the picture and the model, with a visible focus", async () => {
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe(texts.skip);
    await page.keyboard.press("Enter");
    expect(await page.evaluate(() => document.activeElement?.tagName)).toBe("H1");
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.id)).toBe("choose-picture");
    const outline = await page.locator(".button.picture").first().evaluate((label) => getComputedStyle(label).outlineStyle);
    expect(outline).toBe("solid");
  });
});
