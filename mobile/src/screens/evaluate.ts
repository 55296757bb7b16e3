/** Evaluate: models over many pictures, their times and, where the truth is known, how often they are right. */

import { download, h, icon } from "../dom";
import { BadModel, called } from "../network/card";
import { nameOf, type Model } from "../network/catalogue";
import type { DecodeReply } from "../network/protocol";
import {
  accuracy,
  confusion,
  csv,
  labelOf,
  NO_ANSWER,
  SOME_GENERATOR,
  times,
  type Measured,
  type Sample,
  type Unread,
} from "../evaluate/statistics";
import { count, megabytes, milliseconds } from "../numbers";
import { texts } from "../texts";
import { ACCEPTED } from "./brought";
import type { Context, Screen } from "./context";
import { inWords } from "./failure";
import { BadPicture } from "../picture/facts";

const t = texts.evaluate;

interface Source extends Sample {
  readonly read: () => Promise<Blob>;
}

/** A network that answers nothing here, and why. */
interface Marked {
  readonly model: Model;
  readonly why: string;
}

export function evaluateScreen(context: Context): Screen {
  const { catalogue } = context;
  const classes = [...new Set(catalogue.models.flatMap((model) => model.card.classes))];
  let bundled: Source[] = [];
  let own: Source[] = [];
  let running = false;

  const bundledWords = h("span", {}, t.bundled(0));
  const useBundled = h("input", { type: "checkbox", id: "use-bundled", disabled: true });
  const chosen = h("p", { class: "hint", role: "status" });
  const models = catalogue.models.map((model, index) => {
    const box = h("input", { type: "checkbox", name: "model", value: model.listed.name, checked: index === 0 });
    return { model, box, here: h("small", { class: "here" }) };
  });
  const choose = (files: File[]) => {
    own = files.filter(mayBePicture).map((file) => {
      const path = file.webkitRelativePath || file.name;
      return { file: path, label: labelOf(path, classes), read: () => Promise.resolve(file) };
    });
    chosen.textContent = t.chosen(own.length, own.filter((each) => each.label !== null).length);
  };

  const progress = h("progress", { max: 1, value: 0, "aria-label": t.title });
  const progressWords = h("p", { class: "status", role: "status", "aria-live": "polite" });
  const progressBox = h("div", { class: "running", hidden: true }, progress);
  const results = h("div", { class: "results" });
  const start = h("button", { class: "button primary", type: "button", id: "start", click: () => void startOrStop() }, t.start);

  async function startOrStop(): Promise<void> {
    if (running) {
      running = false;
      return;
    }
    const selected = models.filter(({ box }) => box.checked).map(({ model }) => model);
    const sources = [...(useBundled.checked ? bundled : []), ...own];
    progressWords.classList.remove("error");
    if (selected.length === 0 || sources.length === 0) {
      progressWords.textContent = t.nothing;
      return;
    }
    running = true;
    start.textContent = t.stop;
    results.replaceChildren();
    progressBox.hidden = false;
    try {
      const { usable, marked } = await opened(selected);
      const { measured, unread, complete } = await evaluate(usable, sources);
      results.replaceChildren(...resultsOf(usable, marked, measured, unread));
      progressWords.textContent = complete ? t.progress(sources.length, sources.length) : t.stopped;
    } catch (error) {
      progressWords.classList.add("error");
      progressWords.textContent = inWords(error);
    }
    running = false;
    start.textContent = t.start;
    progressBox.hidden = true;
    await markKept();
  }

  /** Models that may be counted, and those that may not, each with why. The first error where there is none of the former. */
  async function opened(selected: Model[]): Promise<{ usable: Model[]; marked: Marked[] }> {
    const [usable, marked]: [Model[], Marked[]] = [[], []];
    let problem: BadModel | null = null;
    for (const model of selected) {
      try {
        // Loading and the first run, which is slower, are not what is measured: opening ends with a self-test.
        const { selfTest } = await catalogue.open(model);
        if (selfTest.passed) usable.push(model);
        else marked.push({ model, why: t.failsSelfTest });
      } catch (error) {
        if (!(error instanceof BadModel)) throw error;
        problem ??= error;
        marked.push({ model, why: t.cannotBeUsed });
      }
    }
    if (usable.length === 0) throw problem ?? new BadModel(marked.map(({ model, why }) => `${nameOf(model)} ${why}`).join("; "));
    return { usable, marked };
  }

  async function markKept(): Promise<void> {
    for (const { model, here } of models) here.textContent = (await catalogue.isKept(model)) ? "" : t.notHere;
  }

  async function evaluate(selected: Model[], sources: Source[]) {
    const measured: Measured[] = [];
    const unread: Unread[] = [];
    for (const [index, source] of sources.entries()) {
      if (!running) return { measured, unread, complete: false };
      progress.value = index / sources.length;
      progressWords.textContent = t.progress(index, sources.length);
      const { read, ...sample } = source;
      let picture: DecodeReply;
      try {
        picture = await catalogue.decode(await read());
      } catch (error) {
        if (!(error instanceof BadPicture)) throw error;
        unread.push({ sample, model: null, reason: error.reason });
        continue;
      }
      for (const model of selected) {
        const row = await measure(model, picture, sample);
        if ("answer" in row) measured.push(row);
        else unread.push(row);
      }
    }
    return { measured, unread, complete: true };
  }

  async function measure(model: Model, picture: DecodeReply, sample: Sample): Promise<Measured | Unread> {
    try {
      const { answer, opinion } = await catalogue.answer(model, picture);
      const [graphMs, decodeMs] = [opinion.graphMs, picture.decodeMs + picture.reduceMs];
      return { sample, model: nameOf(model), answer, graphMs, decodeMs };
    } catch (error) {
      if (!(error instanceof BadPicture)) throw error;
      return { sample, model: nameOf(model), reason: error.reason };
    }
  }

  const element = h(
    "section",
    { class: "screen", "aria-labelledby": "evaluate-title" },
    h("div", { class: "lead" }, h("h1", { id: "evaluate-title", tabindex: "-1" }, t.title), h("p", {}, t.lead)),
    h(
      "div",
      { class: "columns" },
      h(
        "fieldset",
        { class: "card" },
        h("legend", {}, t.models),
        ...models.map(({ model, box, here }) =>
          h(
            "label",
            { class: "check" },
            box,
            h("span", {}, nameOf(model), " ", h("small", {}, megabytes(model.listed.bytes)), " ", here),
          ),
        ),
      ),
      h(
        "fieldset",
        { class: "card" },
        h("legend", {}, t.pictures),
        h("label", { class: "check" }, useBundled, bundledWords),
        h("div", { class: "buttons" }, filesInput("folder", t.folder, true, choose), filesInput("picture", t.files, false, choose)),
        chosen,
        h("p", { class: "hint" }, t.ownHint),
      ),
    ),
    h("div", { class: "toolbar" }, start, progressBox),
    progressWords,
    results,
  );

  async function readBundled(): Promise<void> {
    const response = await fetch("pictures/index.json", { cache: "no-cache" }).catch(() => null);
    if (!response?.ok) return;
    const list = (await response.json()) as { file: string; label: string }[];
    bundled = list.map(({ file, label }) => ({ file, label, read: async () => (await fetch(`pictures/${file}`)).blob() }));
    bundledWords.textContent = t.bundled(bundled.length);
    useBundled.disabled = bundled.length === 0;
    useBundled.checked = bundled.length > 0;
  }
  void readBundled();
  return { element, shown: () => void markKept() };
}

/** Folders hold other files too; what is named like none of them is left to the decoder. */
function mayBePicture(file: File): boolean {
  return !file.name.startsWith(".") && (file.type.startsWith("image/") || file.type === "");
}

function filesInput(name: string, words: string, folder: boolean, chosen: (files: File[]) => void): HTMLElement {
  const field = h("input", {
    type: "file",
    class: "visually-hidden",
    id: `evaluate-${name}`,
    multiple: true,
    ...(folder ? { webkitdirectory: true } : { accept: ACCEPTED }),
    change: () => {
      chosen([...(field.files ?? [])]);
      field.value = "";
    },
  });
  return h("label", { class: "button" }, field, icon(name), words);
}

function resultsOf(models: Model[], marked: Marked[], measured: Measured[], unread: Unread[]): (HTMLElement | string)[] {
  const { columns } = t;
  const measures = [columns.pictures, columns.right, columns.answered, columns.median, columns.mean, columns.p95, columns.total];
  const values = models.map((model) => {
    const mine = measured.filter((row) => row.model === nameOf(model));
    const { mean, median, p95, total } = times(mine.map((row) => row.graphMs));
    const { right, labelled, answered, all } = accuracy(mine, unread.filter((each) => each.model === nameOf(model)));
    const timed = mine.length === 0 ? ["–", "–", "–", "–"] : [median, mean, p95, total].map(milliseconds);
    return [count(all), t.share(right, labelled), t.share(answered, all), ...timed];
  });
  // Models side by side: phones are narrow, and few models are compared by many measures.
  const header = [columns.measure, ...[...models, ...marked.map(({ model }) => model)].map(nameOf)];
  const notCounted = (index: number) => marked.map(({ why }) => (index === 0 ? why : "–"));
  const rows = measures.map((measure, index) => [measure, ...values.map((column) => column[index]!), ...notCounted(index)]);
  const onePerPicture = measured.filter((row) => row.model === (models[0] && nameOf(models[0])));
  const decoding = times(onePerPicture.map((row) => row.decodeMs));
  return [
    h(
      "div",
      { class: "card" },
      h("h2", {}, t.results),
      h("p", { class: "hint" }, t.perPicture),
      table("summary", t.results, header, rows),
      onePerPicture.length > 0 &&
        h("p", { class: "hint" }, t.decoding(decoding.mean, decoding.median, decoding.p95, decoding.total)),
      unread.length > 0 &&
        h(
          "details",
          {},
          h("summary", {}, t.failures(unread.length)),
          h("ul", {}, ...unread.map(({ sample, model, reason }) => h("li", {}, `${sample.file}: ${reason}${model === null ? "" : ` (${model})`}`))),
        ),
      h(
        "button",
        {
          class: "button",
          type: "button",
          id: "save-csv",
          click: () => download("telltale.csv", new Blob([csv(measured, unread)], { type: "text/csv" })),
        },
        icon("save"),
        t.csv,
      ),
    ),
    ...models.flatMap((model) => confusionOf(model, measured)),
    ...unlabelledOf(models, measured),
  ];
}

/** Of a picture without a label nothing can be counted, but what was said of it is worth reading. */
function unlabelledOf(models: Model[], measured: Measured[]): HTMLElement[] {
  const said = new Map<string, string[]>();
  for (const { sample, model, answer } of measured) {
    if (sample.label !== null) continue;
    const { card } = models.find((each) => nameOf(each) === model)!;
    const words = texts.verdict(answer.verdict, answer.source === null ? null : called(card, answer.source), answer.photographThreshold !== null);
    said.set(sample.file, [...(said.get(sample.file) ?? []), words]);
  }
  if (said.size === 0) return [];
  const rows = [...said].map(([file, words]) => [file, ...words]);
  return [h("div", { class: "card" }, h("h3", {}, t.unlabelled), table("unlabelled", t.unlabelled, [t.picture, ...models.map(nameOf)], rows))];
}

function confusionOf(model: Model, measured: Measured[]): HTMLElement[] {
  const mine = measured.filter((row) => row.model === nameOf(model));
  const found = confusion(mine, model.card.classes);
  if (found.rows.length === 0) return [];
  const titleOf = (name: string) => (name === NO_ANSWER ? t.unknown : name === SOME_GENERATOR ? t.someGenerator : called(model.card, name));
  const caption = t.confusion(nameOf(model));
  return [
    h(
      "div",
      { class: "card" },
      h("h3", {}, caption),
      table(
        "confusion",
        caption,
        [t.truth, ...found.columns.map(titleOf)],
        found.rows.map(({ label, counts }) => [titleOf(label), ...counts.map(count)]),
      ),
    ),
  ];
}

/** A table that scrolls by itself where the screen is narrow; the first column names its row. */
export function table(kind: string, caption: string, header: string[], rows: string[][]): HTMLElement {
  return h(
    "div",
    { class: "scrolls", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: kind },
      h("caption", { class: "visually-hidden" }, caption),
      h("thead", {}, h("tr", {}, ...header.map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        ...rows.map(([name, ...values]) =>
          h("tr", {}, h("th", { scope: "row" }, name ?? ""), ...values.map((value) => h("td", {}, value))),
        ),
      ),
    ),
  );
}
