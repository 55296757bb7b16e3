/** Starts the app: models, screens, offline use. */

import "./style.css";
import { h, icon } from "./dom";
import { Catalogue } from "./network/catalogue";
import { completeOffline, installOffline, takeSharedPictures } from "./offline/install";
import { aboutScreen } from "./screens/about";
import { filesIn } from "./screens/brought";
import type { Context, Screen } from "./screens/context";
import { detectScreen } from "./screens/detect";
import { evaluateScreen } from "./screens/evaluate";
import { inWords } from "./screens/failure";
import { historyScreen } from "./screens/history";
import { language } from "./numbers";
import { texts } from "./texts";

const TABS = ["detect", "evaluate", "history", "about"] as const;
type Tab = (typeof TABS)[number];

const notices = h("div", { class: "notices", role: "status", "aria-live": "polite" });
const main = h("main", { id: "content" }, h("p", { class: "status" }, texts.start));

async function start(): Promise<void> {
  document.documentElement.lang = language;
  const links = TABS.map((tab) => h("a", { href: `#${tab}`, "data-tab": tab }, icon(tab), h("span", {}, texts.tabs[tab])));
  document.getElementById("app")!.append(
    h("a", { class: "skip", href: "#content", click: skipToContent }, texts.skip),
    h(
      "header",
      {},
      h("a", { class: "brand", href: "#detect" }, h("img", { src: "icons/icon.svg", alt: "", width: 28, height: 28 }), texts.name),
      h("nav", { "aria-label": texts.mainNavigation }, ...links),
    ),
    notices,
    main,
  );
  if (!isSecureContext) throw new Error(texts.insecure);
  const catalogue = await Catalogue.read();
  const context: Context = { catalogue, report: (message) => notify(message) };
  catalogue.onFull = () => notify(texts.storageFull);
  const detect = detectScreen(context);
  const screens: Record<Tab, Screen> = {
    detect,
    evaluate: evaluateScreen(context),
    history: historyScreen(context),
    about: aboutScreen(context),
  };
  main.replaceChildren(...TABS.map((tab) => screens[tab].element));

  const show = (moveFocus: boolean) => {
    const wanted = TABS.find((tab) => `#${tab}` === location.hash) ?? "detect";
    for (const tab of TABS) screens[tab].element.hidden = tab !== wanted;
    for (const link of links) {
      if (link.dataset["tab"] === wanted) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    document.title = `${texts.tabs[wanted]} · ${texts.name}`;
    screens[wanted].shown?.();
    if (moveFocus) screens[wanted].element.querySelector<HTMLElement>("h1")?.focus({ preventScroll: true });
    scrollTo(0, 0);
  };
  addEventListener("hashchange", () => show(true));
  show(false);

  const check = (files: readonly Blob[]) => {
    location.hash = "#detect";
    void detect.check(files);
  };
  acceptPastedAndDropped(check);
  document.documentElement.dataset["ready"] = "yes";
  document.documentElement.dataset["readyMs"] = performance.now().toFixed();
  const shared = await takeSharedPictures();
  if (shared?.length === 0) notify(texts.detect.nothingShared);
  else if (shared) check(shared);
  if (catalogue.problems.length > 0) notify(texts.badModels(catalogue.problems.map(inWords)));
  // What fails here is for later visits: this one goes on.
  await prepare(catalogue).catch((error: unknown) => notify(inWords(error)));
  // Which models are on the device may have changed.
  for (const { shown } of [detect, screens.evaluate]) shown?.();
}

/** What makes the next visit possible without a network, after the screen is usable. */
async function prepare(catalogue: Catalogue): Promise<void> {
  const changed = await catalogue.noticeChanges();
  if (changed.length > 0) notify(texts.update.models(changed));
  // First of all: the runtime's file passes through the service worker, which keeps it.
  await installOffline((use) => notify(texts.update.app, { words: texts.update.reload, act: use }));
  try {
    await catalogue.open(catalogue.models[0]!);
  } catch (error) {
    notify(inWords(error));
  }
  document.documentElement.dataset["offline"] = (await completeOffline()) ? "yes" : "no";
}

function acceptPastedAndDropped(check: (files: readonly Blob[]) => void): void {
  const take = async (data: DataTransfer | null) => {
    const files = data ? await filesIn(data) : [];
    if (files.length > 0) check(files);
    else notify(texts.detect.notAPicture);
  };
  document.addEventListener("paste", (event) => void take(event.clipboardData));
  const over = (event: DragEvent) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", event.type === "dragover");
  };
  document.addEventListener("dragover", over);
  document.addEventListener("dragleave", over);
  document.addEventListener("drop", (event) => {
    over(event);
    void take(event.dataTransfer);
  });
  document.body.dataset["drop"] = texts.detect.drop;
}

function notify(message: string, action?: { words: string; act: () => void }): void {
  const notice = h(
    "div",
    { class: "notice" },
    h("p", {}, message),
    action && h("button", { class: "button primary", type: "button", click: action.act }, action.words),
    h("button", { class: "button quiet", type: "button", click: () => notice.remove() }, texts.update.dismiss),
  );
  // Said once is enough.
  for (const other of notices.children) if (other.querySelector("p")?.textContent === message) other.remove();
  notices.append(notice);
}

function skipToContent(event: Event): void {
  // Not a screen of its own: the hash names screens.
  event.preventDefault();
  main.querySelector<HTMLElement>("section:not([hidden]) h1")?.focus();
}

start().catch((error: unknown) => {
  const detail = inWords(error);
  main.replaceChildren(h("p", { class: "status error", role: "alert" }, detail));
  document.documentElement.dataset["ready"] = "failed";
});
