/** History: past verdicts on this device, with delete. */

import { h, icon } from "../dom";
import { entries, removeAll, removeEntry, type Kept } from "../history/records";
import { keepHistory, keepsHistory } from "../history/setting";
import { moment } from "../numbers";
import { texts } from "../texts";
import type { Context, Screen } from "./context";
import { inWords } from "./failure";
import { explainedScale, headline, noAnswerMeans, scale, verdictOf, type Said } from "./verdict";

const t = texts.history;

export function historyScreen({ report }: Context): Screen {
  const list = h("ul", { class: "entries" });
  const empty = h("p", { class: "card empty", hidden: true }, t.empty);
  const title = h("h1", { id: "history-title", tabindex: "-1" }, t.title);
  const sure = h(
    "dialog",
    { "aria-labelledby": "sure" },
    h("p", { id: "sure" }, t.removeAllSure),
    h(
      "form",
      { method: "dialog", class: "buttons" },
      h("button", { class: "button", value: "cancel" }, t.cancel),
      h("button", { class: "button danger", value: "remove" }, t.removeAll),
    ),
  );
  sure.addEventListener("close", () => {
    if (sure.returnValue === "remove") void change(removeAll());
    sure.returnValue = "";
  });
  const all = h("button", { class: "button", type: "button", click: () => sure.showModal() }, icon("remove"), t.removeAll);
  const keep = h("input", { type: "checkbox", checked: keepsHistory(), change: () => keepHistory(keep.checked) });
  const opened = h("dialog", { class: "opened", "aria-label": t.title });
  let urls: string[] = [];

  async function change(done: Promise<void>): Promise<void> {
    try {
      await done;
    } catch (error) {
      report(inWords(error));
    }
    await show();
    title.focus();
  }

  async function show(): Promise<void> {
    for (const url of urls) URL.revokeObjectURL(url);
    const found = await entries().catch((error: unknown) => {
      report(inWords(error));
      return [];
    });
    urls = found.map((entry) => URL.createObjectURL(entry.thumbnail));
    list.replaceChildren(...found.map((entry, index) => item(entry, urls[index]!, () => openEntry(entry, urls[index]!), () => void change(removeEntry(entry.id)))));
    empty.hidden = found.length > 0;
    all.hidden = found.length === 0;
  }

  function openEntry(entry: Kept, url: string): void {
    opened.replaceChildren(...openedEntry(entry, url));
    opened.showModal();
  }

  const element = h(
    "section",
    { class: "screen", "aria-labelledby": "history-title" },
    h("div", { class: "lead" }, title, h("p", {}, t.lead)),
    h("div", { class: "toolbar" }, h("label", { class: "check" }, keep, h("span", {}, t.keep)), all),
    empty,
    list,
    sure,
    opened,
  );
  return { element, shown: () => void show() };
}

function item(entry: Kept, url: string, open: () => void, remove: () => void): HTMLElement {
  const said = saidIn(entry);
  const what = `${verdictOf(said)}, ${moment(entry.time)}`;
  const name = entry.file ?? t.open;
  const opening = (event: Event) => {
    event.preventDefault();
    open();
  };
  return h(
    "li",
    { class: "card entry" },
    h("img", { src: url, alt: t.thumbnail }),
    h(
      "div",
      {},
      h("a", { class: "file", href: "#history", "aria-label": `${name}: ${what}`, click: opening }, name),
      h("p", { class: `said ${entry.verdict}` }, ...headline(said)),
      entry.answer && scale(said),
      h("p", { class: "hint" }, t.entry(texts.modelName(entry.model, said.isDemonstration), moment(entry.time))),
    ),
    h("button", { class: "button quiet", type: "button", "aria-label": t.remove(what), click: remove }, icon("remove")),
  );
}

function saidIn(entry: Kept): Said {
  return {
    verdict: entry.verdict,
    // The versions of then knew of no two lines.
    reason: entry.answer?.reason ?? null,
    pFake: entry.pFake,
    threshold: entry.answer?.threshold ?? 1,
    photographThreshold: entry.answer?.photographThreshold ?? null,
    sourceName: entry.sourceName ?? entry.source,
    isDemonstration: entry.isDemonstration ?? false,
  };
}

/** What was said then, as far as it was kept. */
function openedEntry(entry: Kept, url: string): HTMLElement[] {
  const said = saidIn(entry);
  const { answer } = entry;
  const close = h("form", { method: "dialog", class: "buttons" }, h("button", { class: "button" }, t.close));
  const words = answer
    ? [
        ...noAnswerMeans(said),
        explainedScale(said),
        ...(answer.reason === "format" ? [] : [h("p", {}, texts.errors(answer)), h("p", { class: "hint" }, texts.errorsDetail(answer))]),
        h("p", { class: "hint" }, texts.kind(answer.kind)),
      ]
    : [h("p", { class: "hint" }, t.ofBefore)];
  return [
    // Focused, so that the dialogue opens at its beginning.
    h("h2", { class: `said ${said.verdict}`, tabindex: "-1", autofocus: true }, ...headline(said)),
    h("img", { src: url, alt: t.thumbnail }),
    ...(said.isDemonstration ? [h("p", { class: "warning" }, texts.demonstrationMeans)] : []),
    ...words,
    h("p", { class: "hint" }, t.entry(texts.modelName(entry.model, said.isDemonstration), moment(entry.time))),
    close,
  ];
}
