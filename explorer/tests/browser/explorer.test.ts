import axe from "axe-core";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { Site } from "../../../mobile/tests/browser/site";
import { texts } from "../../src/texts";
import { expected, SITE } from "../fixtures";
import { changing, heading, launch, number, openPage, picturesShown, POLICY, rows, visit } from "./page";

const PHONE = { width: 360, height: 740 };
const { figures, paired, opened } = expected();
const FIRST = figures["64/none svm combined"]!;
const HARD = figures["64/q20 svm combined"]!;
const LINK = "?cell=64/q20&detector=svm&mix=combined&error=false-alarm&sort=-p";

const site = new Site(SITE, true, POLICY);
let browser: Browser;
let context: BrowserContext;
let page: Page;
/** What the page complained about, such as what its policy refused. */
let complaints: string[];

beforeAll(async () => {
  await site.start();
  browser = await launch();
});

afterAll(async () => {
  await browser.close();
  await site.stop();
});

beforeEach(async () => {
  context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  page = await context.newPage();
  complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (error) => complaints.push(error.message));
});

afterEach(async () => {
  await context.close();
  expect(complaints).toEqual([]);
});

describe("figures and pictures", () => {
  test("the first view are the first detector's false alarms in the first cell, surest first, as Python finds them", async () => {
    await openPage(page, site.url);
    await expect.poll(() => new URL(page.url()).search).toBe("?cell=64/none&detector=svm&mix=combined&error=false-alarm&sort=-p");
    expect(await rows(page)).toEqual(FIRST.false_alarms);
    expect(await heading(page)).toContain(`${FIRST.false_alarms.length} photographs called generated`);
    await picturesShown(page);
    expect(await page.locator(".tile img").first().evaluate((image: HTMLImageElement) => image.naturalWidth)).toBe(128);
  });

  test("of every cell, detector and mix agree with Python's", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=svm`);
    const field = (name: string) => page.locator(`[data-field="${name}"] b`).textContent().then(Number);
    for (const [key, of] of Object.entries(figures)) {
      const [cell, detector, mix] = key.split(" ");
      await changing(page, () => visit(page, `?cell=${cell}&detector=${detector}&mix=${mix}&error=false-alarm&sort=-p`));
      expect(await number(page, texts.figures.balancedAccuracy), key).toBe(of.balanced_accuracy.toFixed(3));
      expect(await number(page, texts.figures.auroc), key).toBe(of.auroc.toFixed(3));
      expect(await field("01"), key).toBe(of.false_alarms.length);
      expect(await field("10"), key).toBe(of.missed);
      expect((await field("00")) + (await field("11")), key).toBe(of.right);
      const shown = await rows(page);
      expect(shown, key).toEqual(of.false_alarms.slice(0, shown.length));
    }
  });

  test("where there are no mistakes the page says so, and shows all when asked", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=network&mix=combined&error=false-alarm`);
    expect(await page.locator(".nothing").textContent()).toContain(texts.noneOfKind["false-alarm"]);
    await changing(page, () => page.getByRole("button", { name: texts.showAll }).click());
    expect(await heading(page)).toContain("247 pictures");
  });

  test("a picture without a thumbnail stands as its name", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=svm&mix=combined`);
    await expect.poll(() => page.locator('[data-row="5"] .missing').textContent()).toBe("coco-0005");
  });

  test("the versions that photographs take part as are named", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=svm&mix=matched`);
    expect(await page.locator(".notes").textContent()).toContain("coco-as-sd14 (of coco)");
  });
});

describe("filters", () => {
  test("stand in the address, with Back and Forward", async () => {
    await openPage(page, site.url + LINK);
    expect(await heading(page)).toContain(String(HARD.false_alarms.length));
    await changing(page, () => page.click('[data-error="missed"]'));
    expect(new URL(page.url()).search).toContain("error=missed");
    expect(await heading(page)).toContain(`${HARD.missed} generated pictures called photographs`);
    await changing(page, () => page.selectOption("#source", "gan"));
    expect(await page.locator(".chip").textContent()).toContain("Source: gan");
    await changing(page, () => page.goBack());
    await changing(page, () => page.goBack());
    expect(await rows(page)).toEqual(HARD.false_alarms.slice(0, (await rows(page)).length));
    await changing(page, () => page.goForward());
    expect(await heading(page)).toContain(`${HARD.missed} generated pictures`);
  });

  test("of another person's address are restored", async () => {
    await openPage(page, `${site.url}${LINK}&p=0.5..0.9&quality=50..80&size=..900&fold=1&q=cat`);
    expect(await page.inputValue("#p-from")).toBe("0.5");
    expect(await page.inputValue("#quality-to")).toBe("80");
    expect(await page.inputValue("#size-from")).toBe("");
    expect(await page.inputValue("#fold")).toBe("1");
    expect(await page.inputValue("#q")).toBe("cat");
    expect(await page.locator(".chip").count()).toBe(5);
    await changing(page, () => page.click("#clear"));
    expect(await page.locator(".chip").count()).toBe(0);
  });

  test("by typed words search captions, prompts and names", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=svm&mix=combined`);
    await changing(page, () => page.fill("#q", "ROCKET at"));
    // Each fifth of 250 pictures.
    expect(await heading(page)).toContain("50 pictures");
    await changing(page, () => page.fill("#q", "nowhere"));
    expect(await page.locator(".nothing").textContent()).toContain(texts.noneFiltered);
  });

  test("by a field of the table of verdicts come and go with a click", async () => {
    await openPage(page, `${site.url}?cell=64/q20&detector=svm&mix=combined`);
    const found = page.locator('[data-field="11"]');
    const count = await found.locator("b").textContent();
    await changing(page, () => found.click());
    expect(await heading(page)).toContain(`${count} pictures`);
    expect(await found.getAttribute("aria-pressed")).toBe("true");
    await changing(page, () => found.click());
    expect(await heading(page)).toContain("250 pictures");
  });
});

describe("the threshold", () => {
  test("moves with the keyboard, everything follows, and goes back", async () => {
    await openPage(page, site.url + LINK);
    await page.fill("#threshold-exact", "0.5");
    await changing(page, () => page.press("#threshold-exact", "Enter"));
    expect(new URL(page.url()).search).toContain("threshold=0.5");
    expect(await number(page, texts.figures.balancedAccuracy)).toBe(HARD.at_half.balanced_accuracy.toFixed(3));
    expect(await heading(page)).toContain(`${HARD.at_half.false_alarms} photographs called generated`);
    await page.focus("#threshold");
    await changing(page, () => page.keyboard.press("End"));
    expect(await page.locator(".nothing").isVisible()).toBe(true);
    await changing(page, () => page.click("#reset-threshold"));
    expect(await number(page, texts.figures.balancedAccuracy)).toBe(HARD.balanced_accuracy.toFixed(3));
  });

  test("is dragged over the histogram, one step of the history for a drag", async () => {
    await openPage(page, site.url + LINK);
    const before = await page.evaluate(() => history.length);
    const box = (await page.locator(".histogram").boundingBox())!;
    await page.mouse.move(box.x + box.width * 0.3, box.y + 20);
    await page.mouse.down();
    for (const share of [0.4, 0.6, 0.8]) await page.mouse.move(box.x + box.width * share, box.y + 20);
    await page.mouse.up();
    await expect.poll(() => Number(new URLSearchParams(new URL(page.url()).search).get("threshold"))).toBeCloseTo(0.8, 1);
    expect(await page.evaluate(() => history.length)).toBe(before + 1);
    await changing(page, () => page.goBack());
    expect(await number(page, texts.figures.balancedAccuracy)).toBe(HARD.balanced_accuracy.toFixed(3));
  });
});

describe("one picture", () => {
  test("opens with its facts, the answers of all detectors everywhere and its group, and turns with the keys", async () => {
    await openPage(page, site.url + LINK);
    await page.locator(".tile button").first().press("Enter");
    const dialog = page.locator("dialog[open]:not([aria-busy])");
    await dialog.waitFor();
    const row = HARD.false_alarms[0]!;
    expect(await dialog.locator("h2").textContent()).toBe(`coco-${String(row).padStart(4, "0")}`);
    expect(await dialog.locator(".heat").count()).toBe(3);
    expect(await dialog.locator(".heat").first().locator("td").count()).toBe(6);
    expect(await dialog.locator(".facts").textContent()).toContain("CC BY 2.0");
    expect(await dialog.locator("#flips").textContent()).toContain("of 6 cells");
    await dialog.locator(".frame.large img").waitFor();
    // Rows with the same remainder, up to 300.
    expect(await dialog.locator(".other").count()).toBe(2);
    await page.keyboard.press("ArrowRight");
    await expect.poll(() => new URL(page.url()).searchParams.get("picture")).toBe(String(HARD.false_alarms[1]));
    await page.keyboard.press("Escape");
    await page.locator("dialog").waitFor({ state: "hidden" });
    expect(await page.evaluate(() => (document.activeElement as HTMLElement).dataset["row"])).toBe(String(HARD.false_alarms[1]));
  });

  test("has the answers of every detector in every cell that Python wrote", async () => {
    await openPage(page, `${site.url}${LINK}&picture=${opened.row}`);
    await page.locator("dialog[open]:not([aria-busy]) .heat").first().waitFor();
    const maps = await page.$$eval(".heat", (tables) => tables.map((table) => [...table.querySelectorAll("td")].map((field) => field.textContent)));
    const cells = Object.values(opened.p);
    const wanted = Object.keys(cells[0]!).map((detector) => cells.map((of) => of[detector]!.toFixed(3).slice(1)));
    expect(maps.map((map) => map.map((text) => text.slice(0, 4)))).toEqual(wanted);
  });

  test("shows its views in every cell that has one, line by line, and where the network looks", async () => {
    await openPage(page, `${site.url}${LINK}&picture=${opened.row}`);
    const views = page.locator("dialog[open]:not([aria-busy]) .views");
    const strips = views.locator(".strip");
    await expect.poll(() => strips.count()).toBe(3);
    const names = await strips.evaluateAll((all) => all.map((strip) => [...strip.querySelectorAll("figcaption")].map((name) => name.textContent)));
    expect(names).toEqual([["64/none", "64/q20", "64/blur-2"], ["128/none", "128/q20"], ["MobileNetV2"]]);
    expect(await views.locator('figure[aria-current="true"]').textContent()).toBe("64/q20");
    await expect.poll(() => views.locator("img").count()).toBe(6);
    const sides = () => views.locator("img").evaluateAll((all) => all.map((image) => (image as HTMLImageElement).naturalWidth));
    await expect.poll(sides).toEqual([128, 112, 96, 80, 64, 64]);
  });

  test("says quietly that it has no views, where the run kept none of it", async () => {
    await openPage(page, `${site.url}${LINK}&picture=4`);
    await page.locator("dialog[open]:not([aria-busy])").waitFor();
    await expect.poll(() => page.locator("dialog .views").textContent()).toBe(texts.picture.noViews(1));
  });

  test("closes with Back, and its address opens it", async () => {
    await openPage(page, `${site.url}${LINK}&picture=4`);
    const dialog = page.locator("dialog[open]:not([aria-busy])");
    await dialog.waitFor();
    await dialog.locator(".frame.large img").waitFor();
    await changing(page, () => page.click("#close"));
    await changing(page, () => page.goBack());
    await dialog.waitFor();
    await changing(page, () => page.goForward());
    await page.locator("dialog").waitFor({ state: "hidden" });
  });

  test("shows what looks like markup as text", async () => {
    await openPage(page, `${site.url}${LINK}&picture=4`);
    await page.locator("dialog[open]:not([aria-busy])").waitFor();
    expect(await page.locator("dialog .facts").textContent()).toContain('<img src=x onerror="document.title=1"> & "quotes"');
    expect(await page.title()).not.toBe("1");
  });
});

describe("compared", () => {
  test("in every cell, counts and the exact test agree with Python's", async () => {
    await openPage(page, site.url);
    const field = (pair: string) => page.locator(`[data-pair="${pair}"]`).textContent();
    for (const [cell, of] of Object.entries(paired)) {
      await changing(page, () => visit(page, `?cell=${cell}&detector=svm&mix=combined&than=network`));
      expect([await field("first"), await field("second")], cell).toEqual([String(of.first), String(of.second)]);
      const p = /p\u00a0=\u00a0([\d.e-]+),/.exec((await page.locator("#mcnemar").textContent()) ?? "")![1];
      expect(Number(p)).toBe(Number(of.p < 0.001 ? of.p.toPrecision(2) : of.p.toFixed(3)));
      expect(await heading(page)).toContain(`${of.first + of.second} pictures that only one gets right`);
    }
  });

  test("with another detector, pictures of which one is right come with the report's test", async () => {
    await openPage(page, site.url + LINK);
    await changing(page, () => page.selectOption("#than", "network"));
    expect(new URL(page.url()).search).toContain("sort=-difference&than=network");
    await expect.poll(() => page.locator(".report").textContent()).toContain("AUROC: -0.050, interval -0.090 to -0.010, p\u00a0=\u00a00.020");
    const { first } = paired["64/q20"]!;
    await changing(page, () => page.click('[data-pair="first"]'));
    expect(await heading(page)).toContain(`${first} pictures that only the first gets right`);
    await changing(page, () => page.selectOption("#than", ""));
    expect(await page.locator("#compared").isVisible()).toBe(false);
  });

  test("with another cell, the same detector's answers stand against each other", async () => {
    await openPage(page, `${site.url}?cell=64/none&detector=svm&mix=combined&than=64/q20&sort=-difference`);
    expect(await heading(page)).toContain("64/none against 64/q20");
    await expect.poll(() => page.locator(".report").textContent()).toContain(texts.compared.noReport);
    const differences = await page.$$eval(".tile .p", (found) =>
      found.map((each) => each.textContent.split(" | ").map(Number)).map(([one, other]) => Math.abs(one! - other!)),
    );
    expect(differences.length).toBeGreaterThan(5);
    for (let index = 1; index < differences.length; index++) expect(differences[index]).toBeLessThanOrEqual(differences[index - 1]! + 0.011);
  });
});

describe("for everyone", () => {
  const schemes: ("light" | "dark")[] = ["light", "dark"];

  test.each(schemes)("axe finds nothing serious in %s colours", async (colorScheme) => {
    await page.emulateMedia({ colorScheme });
    for (const query of ["", `${LINK}&threshold=0.6`, `${LINK}&picture=10`, "?cell=64/q20&detector=svm&mix=combined&than=network&pair=all"]) {
      await openPage(page, site.url + query);
      await picturesShown(page);
      if (query.includes("picture")) await page.locator("dialog[open]:not([aria-busy])").waitFor();
      // The policy lets no script in but the page's own, and the tools of the browser.
      await page.evaluate(axe.source);
      const found = await page.evaluate(async () => {
        const { violations } = await (window as unknown as { axe: typeof axe }).axe.run();
        return violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map((node) => node.html) }));
      });
      expect(found.filter(({ impact }) => impact === "serious" || impact === "critical"), query).toEqual([]);
    }
  });

  test("nothing is wider than a phone of 360 pixels", async () => {
    await page.setViewportSize(PHONE);
    for (const query of ["", `${LINK}&picture=10`, "?cell=64/q20&detector=svm&mix=combined&than=network"]) {
      await openPage(page, site.url + query);
      await page.evaluate(() => document.querySelectorAll("details").forEach((part) => (part.open = true)));
      if (query.includes("picture")) await page.locator("dialog[open]:not([aria-busy])").waitFor();
      expect(await page.evaluate(() => document.documentElement.scrollWidth), query).toBe(360);
      expect(await page.evaluate(() => document.querySelector("dialog")!.scrollWidth <= 360), query).toBe(true);
    }
  });

  test("the keyboard reaches the pictures and walks over them, with a visible focus", async () => {
    await openPage(page, `${site.url}?cell=64/q20&detector=svm&mix=combined`);
    await page.keyboard.press("Tab");
    expect(await page.evaluate(() => document.activeElement?.textContent)).toBe(texts.skip);
    await page.keyboard.press("Enter");
    const focused = () => page.evaluate(() => Number((document.activeElement as HTMLElement).dataset["row"]));
    while (Number.isNaN(await focused())) await page.keyboard.press("Tab");
    expect(await focused()).toBe(0);
    await page.keyboard.press("ArrowRight");
    expect(await focused()).toBe(1);
    await page.keyboard.press("End");
    expect(await focused()).toBe(299);
    expect(await page.evaluate(() => getComputedStyle(document.activeElement!).outlineStyle)).toBe("solid");
    await page.keyboard.press("Home");
    expect(await focused()).toBe(0);
    // One tile is reached by Tab, not all of them.
    expect(await page.locator('.tile button[tabindex="0"]').count()).toBe(1);
  });

  test("other pictures are looked at from their first on", async () => {
    await openPage(page, `${site.url}?cell=64/q20&detector=svm&mix=combined`);
    await page.mouse.move(900, 500);
    await page.mouse.wheel(0, 4_000);
    await expect.poll(() => page.locator('[data-row="0"]').count()).toBe(0);
    await changing(page, () => page.selectOption("#sort", "-p"));
    expect(await page.locator("h1").evaluate((title) => title.getBoundingClientRect().top)).toBeGreaterThan(-2);
  });

  test("only pictures in sight are elements of the page", async () => {
    await openPage(page, `${site.url}?cell=64/q20&detector=svm&mix=combined`);
    await page.mouse.wheel(0, 4_000);
    await expect.poll(() => page.locator('[data-row="0"]').count()).toBe(0);
    expect(await page.locator(".tile").count()).toBeLessThan(60);
    await picturesShown(page);
  });
});
