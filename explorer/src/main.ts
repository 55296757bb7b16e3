/**
 * The explorer of mistakes: a static page that lies beside a run's files and shows which pictures were told rightly and
 * wrongly. It computes nothing but figures.
 *
 * Folders: `mobile/` is the app, which runs networks on a phone; `explorer/` is this page, part of every published
 * evaluation. What both share (`dom.ts`, the colours) lies in `mobile/src` and is imported from
 * there. Built files are committed in `tasks/explorer/page/`: after a change here, `make explorer`.
 */

import "./style.css";
import { h } from "../../mobile/src/dom";
import { Address } from "./address";
import { Collection } from "./data/collection";
import { Host } from "./data/host";
import { Thumbnails } from "./data/thumbnails";
import { comparedPart } from "./screens/compared";
import type { Context, Pictures } from "./screens/context";
import { figuresPart } from "./screens/figures";
import { filtersPart } from "./screens/filters";
import { gridPart } from "./screens/grid";
import { lookingPart } from "./screens/looking";
import { picturePart } from "./screens/picture";
import { shownPart } from "./screens/shown";
import { parse, settled } from "./state";
import { texts } from "./texts";
import { Viewer } from "./view";

/** From this width on, figures and filters stand open beside the pictures; as in style.css. */
const WIDE = "(width >= 60rem)";

const app = document.getElementById("app")!;
const notices = h("div", { class: "notices", role: "status", "aria-live": "polite" });
const status = h("p", { class: "status", role: "status", "aria-live": "polite" }, texts.start);
const root = document.documentElement;

async function start(): Promise<void> {
  app.replaceChildren(h("main", {}, h("h1", {}, texts.title), notices, status));
  const host = new Host(new URL("./", location.href).href, () => notify(texts.wholeFiles));
  const collection = await Collection.open(host);
  const { run } = collection;
  const viewer = new Viewer(collection);
  const asked = parse(location.search, run);
  let state = asked.state;
  const address = new Address();
  // Only the newest question may be answered: an older one that ends later is dropped.
  let question = 0;

  const context: Context = {
    run,
    collection,
    host,
    report: (error) => fail(error),
    go: (change, replace = false) => {
      state = settled({ ...state, ...change });
      if (replace) address.replace(state);
      else address.push(state);
      void refresh();
    },
  };
  const pictures: Pictures = { thumbnails: null };
  const grid = gridPart(context, pictures);
  const opened = picturePart(context, pictures, (row) => grid.focus(row));
  const parts = [lookingPart(context), comparedPart(context), figuresPart(context), filtersPart(context), shownPart(context), grid, opened];
  lay(run.name, texts.run(run.name, run.experiment, run.path, run.pictures), parts.map(({ element }) => element));
  if (asked.unknown.length > 0) notify(texts.unknown(asked.unknown));
  if (run.thumbnails === 0) notify(texts.noThumbnails);

  async function refresh(): Promise<void> {
    const mine = ++question;
    // Not at once: what is in memory takes less time than it takes to see that something is read.
    const slow = setTimeout(() => say(texts.working), 150);
    try {
      const view = await viewer.look(state);
      if (mine !== question) return;
      say("");
      for (const part of parts) part.show(view);
      document.title = `${view.detector.title}, ${view.cell.name} · ${texts.title}`;
      root.dataset["shown"] = String(mine);
    } catch (error) {
      if (mine === question) fail(error);
    } finally {
      clearTimeout(slow);
    }
  }

  addEventListener("popstate", () => {
    address.forget();
    state = parse(location.search, run).state;
    void refresh();
  });
  address.replace(state);
  await refresh();
  root.dataset["ready"] = "yes";
  root.dataset["readyMs"] = performance.now().toFixed();
  await showThumbnails();

  async function showThumbnails(): Promise<void> {
    const arrived = (rows: readonly number[]) => {
      grid.arrived(rows);
      opened.arrived(rows);
    };
    pictures.thumbnails = new Thumbnails(host, await collection.places(), arrived, "thumbnails");
    await refresh();
    // What people sort by first is there when they ask for it.
    void collection.shorterSides().catch(() => {});
    void collection.integers("jpeg_quality").catch(() => {});
  }
}

/** The page's parts in their places: what is looked at and its figures beside the pictures, or above them on a phone. */
function lay(run: string, about: string, [looking, compared, figures, filters, shown, grid, opened]: HTMLElement[]): void {
  const wide = matchMedia(WIDE).matches;
  for (const part of [figures!, filters!]) (part as HTMLDetailsElement).open = wide;
  app.replaceChildren(
    h("a", { class: "skip", href: "#pictures" }, texts.skip),
    h("header", {}, h("p", { class: "brand" }, `${texts.name} · ${texts.title}`), h("p", { class: "hint", title: run }, about)),
    h(
      "div",
      { class: "page" },
      h("aside", { "aria-label": texts.looking.title }, looking, compared, figures, filters),
      h("main", { id: "pictures", tabindex: "-1" }, notices, shown, status, grid),
    ),
    h("footer", {}, h("a", { class: "hint", href: "assets/licences.txt" }, texts.licences)),
    opened!,
  );
}

function say(words: string): void {
  status.classList.remove("error");
  status.textContent = words;
}

function fail(error: unknown): void {
  status.classList.add("error");
  status.textContent = texts.problem(error);
}

function notify(message: string): void {
  const notice = h(
    "div",
    { class: "notice" },
    h("p", {}, message),
    h("button", { class: "button small", type: "button", click: () => notice.remove() }, texts.dismiss),
  );
  notices.append(notice);
}

start().catch((error: unknown) => {
  fail(error);
  root.dataset["ready"] = "failed";
});
