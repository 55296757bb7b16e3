/** Pictures of the app for the documentation: set TELLTALE_SCREENSHOTS to a folder, TELLTALE_PICTURE to what to check. */

import { test } from "vitest";
import { APP, pictureFile } from "../fixtures";
import { texts } from "../../src/texts";
import { check, launch, openApp } from "./app";
import { Site } from "./site";

const FOLDER = process.env["TELLTALE_SCREENSHOTS"];
const PICTURE = process.env["TELLTALE_PICTURE"] ?? pictureFile("jpg-512x333-q60.jpg");
const SIZES = {
  phone: { viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
  desktop: { viewport: { width: 1200, height: 800 }, deviceScaleFactor: 1 },
};

test.skipIf(!FOLDER)("every screen, phone and desktop, light and dark", async () => {
  const site = new Site(APP);
  await site.start();
  const browser = await launch();
  for (const [size, options] of Object.entries(SIZES)) {
    const context = await browser.newContext(options);
    const page = await openApp(context, site.url);
    const shoot = async (name: string) => {
      for (const colorScheme of ["light", "dark"] as const) {
        await page.emulateMedia({ colorScheme });
        await page.screenshot({ path: `${FOLDER}/${name}-${size}-${colorScheme}.png` });
      }
    };
    await shoot("start");
    await check(page, PICTURE);
    await shoot("detect");
    await page.getByLabel(texts.detect.evidence).check();
    await page.locator(".frame").scrollIntoViewIfNeeded();
    await shoot("evidence");
    await page.click("a[data-tab=evaluate]");
    await page.click("#start");
    await page.locator("table.summary").waitFor();
    await shoot("evaluate");
    await page.click("a[data-tab=history]");
    await page.locator(".entry").waitFor();
    await shoot("history");
    await page.click("a[data-tab=about]");
    await shoot("about");
    await context.close();
  }
  await browser.close();
  await site.stop();
});
