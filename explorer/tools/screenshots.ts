/**
 * Pictures of the page: `npm run screenshots -- FOLDER [SITE]`.
 *
 * SITE holds the built page and a run's data; FOLDER gets explorer-SCREEN-WIDTH-SCHEME.png.
 */

import { Site } from "../../mobile/tests/browser/site";
import { launch, openPage, picturesShown } from "../tests/browser/page";

const VIEWS = {
  grid: "",
  picture: "?cell=64/q20&detector=svm&mix=combined&error=false-alarm&sort=-p",
  compare: "?cell=64/q20&detector=svm&mix=combined&than=network&sort=-difference",
};
const SIZES = { 1280: { width: 1280, height: 900 }, 390: { width: 390, height: 844 } };

const [folder, root = ".made/site"] = process.argv.slice(2);
if (!folder) throw new Error("usage: npm run screenshots -- FOLDER [SITE]");

const site = new Site(root, true);
await site.start();
const browser = await launch();
for (const [width, viewport] of Object.entries(SIZES)) {
  for (const colorScheme of ["light", "dark"] as const) {
    const context = await browser.newContext({ viewport, colorScheme, deviceScaleFactor: width === "390" ? 1.5 : 1 });
    for (const [view, query] of Object.entries(VIEWS)) {
      const page = await context.newPage();
      await openPage(page, site.url + query);
      await picturesShown(page);
      if (view === "picture") {
        await page.locator(".tile button").first().click();
        await page.locator("dialog:not([aria-busy]) .heat").first().waitFor();
        await page.locator("dialog .frame.large img").waitFor();
      }
      await page.screenshot({ path: `${folder}/explorer-${view}-${width}-${colorScheme}.png` });
      await page.close();
    }
    await context.close();
  }
}
await browser.close();
await site.stop();
