/**
 * Pictures of a built app: `npm run screenshots -- FOLDER [PICTURE] [APP] [UNDECIDED]`.
 *
 * UNDECIDED is a picture to which the network gives no answer. Every screen as a phone shows it, light and dark, as
 * FOLDER/app-SCREEN-SCHEME.png. Those in docs/images show `rocket.jpg` and `coffee.png` of the scikit-image package.
 */

import { readdirSync } from "node:fs";
import { check, launch, openApp } from "../tests/browser/app";
import { Site } from "../tests/browser/site";
import { texts } from "../src/texts";

const PHONE = { viewport: { width: 390, height: 800 }, deviceScaleFactor: 1.5, hasTouch: true, isMobile: true };

const [folder, picture = "public/pictures/ec4240d28ace.jpg", app = "dist", undecided = "public/pictures/aecdaa8a23fa.jpg"] = process.argv.slice(2);
if (!folder) throw new Error("usage: npm run screenshots -- FOLDER [PICTURE] [APP] [UNDECIDED]");

const site = new Site(app);
await site.start();
const browser = await launch();
const context = await browser.newContext(PHONE);
const page = await openApp(context, site.url);

async function shoot(name: string): Promise<void> {
  await page.evaluate(() => (document.activeElement as HTMLElement | null)?.blur());
  for (const colorScheme of ["light", "dark"] as const) {
    await page.emulateMedia({ colorScheme });
    await page.screenshot({ path: `${folder}/app-${name}-${colorScheme}.png` });
  }
}

await shoot("start");
await check(page, picture);
await shoot("detect");
await page.getByLabel(texts.detect.evidence).check();
await page.locator(".frame").scrollIntoViewIfNeeded();
await shoot("evidence");
await page.locator(".findings").evaluate((findings) => findings.scrollIntoView());
await shoot("findings");
await check(page, undecided);
await page.evaluate(() => scrollTo(0, 0));
await shoot("undecided");
const pictures = readdirSync("public/pictures").filter((name) => name.endsWith(".jpg"));
await page.setInputFiles("#choose-picture", [picture, undecided, ...pictures.map((name) => `public/pictures/${name}`), "package.json"]);
await page.locator("section:not([aria-busy]) .many").waitFor();
await page.evaluate(() => scrollTo(0, 0));
await shoot("list");
await page.click("a[data-tab=evaluate]");
if ((await page.locator("input[name=model]").count()) > 1) await page.locator("input[name=model]").nth(1).check();
await shoot("evaluate");
await page.click("#start");
await page.locator("table.summary").waitFor();
await page.locator(".results").evaluate((results) => results.scrollIntoView());
await shoot("results");
await page.click("a[data-tab=history]");
await page.locator(".entries:not(.many) .entry").first().waitFor();
await shoot("history");
await page.locator(".entry a.file").first().click();
await shoot("opened");
await page.getByRole("button", { name: texts.history.close }).click();
await page.click("a[data-tab=about]");
await shoot("about");
await browser.close();
await site.stop();
