/** Detect: one picture with a verdict and its reasons, or a list of several with one of each. */

import { h, icon } from "../dom";
import type { Entry } from "../history/records";
import { BadPicture, TooSmallForWindows } from "../picture/facts";
import { keepSetting, setting } from "../settings";
import { megabytes, percent } from "../numbers";
import { texts } from "../texts";
import { called } from "../network/card";
import { nameOf, type Answered, type Catalogue, type Model, type Opened } from "../network/catalogue";
import type { DecodeReply } from "../network/protocol";
import { ACCEPTED, fileName } from "./brought";
import { pictureCanvas } from "./canvas";
import type { Context, Screen } from "./context";
import { evidenceControls } from "./evidence";
import { inWords } from "./failure";
import { ManyList, nameInList, type Row } from "./many";
import { remember } from "./remember";
import { shareResult } from "./result-card";
import { explainedScale, headline, noAnswerMeans, verdictOf, type Said } from "./verdict";
import { zoomable } from "./zoom";

const t = texts.detect;
const CHOSEN_MODEL = "telltale-model";
const LISTED_SIDE = 112;

export interface DetectScreen extends Screen {
  /** Check pictures that came from elsewhere, all of them: pasted, dropped, shared. */
  readonly check: (files: readonly Blob[]) => Promise<void>;
}

export function detectScreen(context: Context): DetectScreen {
  const { catalogue } = context;
  const status = h("p", { class: "status", role: "status", "aria-live": "polite" });
  const result = h("div", { class: "result" });
  const inputs = pictureInputs((files) => void check(files));
  const select = modelSelect(context, () => void again());
  const element = h(
    "section",
    { class: "screen", "aria-labelledby": "detect-title" },
    h("div", { class: "lead" }, h("h1", { id: "detect-title", tabindex: "-1" }, t.title), h("p", {}, t.lead)),
    h("div", { class: "card chooser" }, inputs, h("p", { class: "hint" }, t.hint)),
    h("label", { class: "field model-choice" }, h("span", {}, t.model), select),
    status,
    result,
  );
  let picture: { readonly decoded: DecodeReply; readonly name: string | null } | null = null;
  let files: readonly Blob[] = [];
  let list: ManyList | null = null;
  // Only the newest question may be answered: an older one that ends later is dropped.
  let question = 0;
  // The same of lists, which go on while one of their pictures is looked at.
  let listing = 0;

  function check(given: readonly Blob[]): Promise<void> {
    files = given;
    list = null;
    listing++;
    return given.length === 1 ? checkOne(given[0]!) : checkMany();
  }

  async function checkOne(file: Blob): Promise<void> {
    const asked = begin(t.working);
    picture = null;
    result.replaceChildren();
    try {
      const decoded = await catalogue.decode(file);
      if (asked !== question) return;
      picture = { decoded, name: fileName(file) };
      element.classList.add("has-picture");
      await judge(picture, asked);
    } catch (error) {
      fail(error, asked);
    }
  }

  async function checkMany(): Promise<void> {
    begin(t.working);
    picture = null;
    element.classList.add("has-picture");
    const mine = ++listing;
    const shown = new ManyList(
      files.length,
      (file) => void checkOne(file),
      () => endList(shown),
    );
    list = shown;
    result.replaceChildren(shown.element);
    try {
      const model = catalogue.named(select.value);
      await catalogue.open(model);
      void markKept(context, select);
      let hasRoom = true;
      for (const [index, file] of files.entries()) {
        if (mine !== listing) return;
        if (shown.element.isConnected) status.textContent = shown.status();
        const { row, kept } = await rowOf(catalogue, model, file, nameInList(file, index));
        if (mine !== listing) return;
        shown.add(row);
        if (!kept && hasRoom) context.report(texts.history.full);
        hasRoom = kept;
      }
      endList(shown);
    } catch (error) {
      if (mine !== listing) return;
      endList(shown);
      status.classList.add("error");
      status.textContent = inWords(error);
    }
  }

  function endList(shown: ManyList): void {
    listing++;
    shown.end();
    if (shown.element.isConnected) showStatus(shown);
  }

  function showStatus(shown: ManyList): void {
    finish();
    status.className = "status";
    status.textContent = shown.status();
  }

  async function again(): Promise<void> {
    if (list && !picture) return checkMany();
    if (!picture) return;
    // What was said of the others was said by the model of before.
    list = null;
    listing++;
    const asked = begin(t.working);
    try {
      await judge(picture, asked);
    } catch (error) {
      fail(error, asked);
    }
  }

  async function judge({ decoded, name }: { decoded: DecodeReply; name: string | null }, asked: number): Promise<void> {
    const model = catalogue.named(select.value);
    status.textContent = t.loadingModel(model.listed.name);
    const opened = await catalogue.open(model);
    void markKept(context, select);
    if (asked !== question) return;
    status.textContent = t.working;
    const answered = await catalogue.answer(model, decoded);
    if (asked !== question) return;
    finish();
    const said = saidOf(model, answered);
    const canvas = pictureCanvas(decoded);
    canvas.role = "img";
    canvas.ariaLabel = t.picture(answered.answer.kind);
    result.replaceChildren(...backToList(), ...resultOf({ canvas, decoded, model, opened, answered }));
    // To be seen it stands in the result, in larger letters.
    status.classList.add("visually-hidden");
    const tag = said.isDemonstration ? ` (${texts.demonstration})` : "";
    status.textContent = `${t.verdictTitle}${tag}: ${verdictOf(said)}`;
    // A picture of the list was kept when it was listed.
    if (!list && !(await remember(canvas, entryOf(model, answered, name)))) context.report(texts.history.full);
  }

  function backToList(): HTMLElement[] {
    const shown = list;
    if (!shown) return [];
    const back = () => {
      picture = null;
      question++;
      result.replaceChildren(shown.element);
      showStatus(shown);
    };
    return [h("button", { class: "button back", type: "button", click: back }, texts.many.back)];
  }

  function begin(message: string): number {
    element.setAttribute("aria-busy", "true");
    status.className = "status";
    status.textContent = message;
    return ++question;
  }

  function finish(): void {
    element.removeAttribute("aria-busy");
  }

  function fail(error: unknown, asked: number): void {
    if (asked !== question) return;
    finish();
    result.replaceChildren(...backToList());
    status.classList.add("error");
    status.textContent = inWords(error);
  }

  return { element, check, shown: () => void markKept(context, select) };
}

/** One file of a list, and whether it could be kept in the history. */
async function rowOf(catalogue: Catalogue, model: Model, file: Blob, name: string): Promise<{ row: Row; kept: boolean }> {
  const sample = { file: name, label: null };
  try {
    const decoded = await catalogue.decode(file);
    const answered = await catalogue.answer(model, decoded);
    const said = saidOf(model, answered);
    const canvas = pictureCanvas(decoded);
    const kept = await remember(canvas, entryOf(model, answered, name));
    const [graphMs, decodeMs] = [answered.opinion.graphMs, decoded.decodeMs + decoded.reduceMs];
    const measured = { sample, model: nameOf(model), answer: answered.answer, graphMs, decodeMs };
    return { row: { file, name, said, thumbnail: thumbnailOf(canvas), measured, unread: null }, kept };
  } catch (error) {
    if (!(error instanceof BadPicture)) throw error;
    const refusing = error instanceof TooSmallForWindows ? nameOf(model) : null;
    const unread = { sample, model: refusing, reason: error.reason, words: inWords(error) };
    return { row: { file, name, said: null, thumbnail: null, measured: null, unread }, kept: true };
  }
}

function pictureInputs(chosen: (files: File[]) => void): HTMLElement {
  const input = (name: string, words: string, attributes: Record<string, string | boolean>) => {
    const field = h("input", {
      type: "file",
      accept: ACCEPTED,
      class: "visually-hidden",
      ...attributes,
      change: () => {
        const files = [...(field.files ?? [])];
        // The same file may be chosen again.
        field.value = "";
        if (files.length > 0) chosen(files);
      },
      // Not every browser opens the chooser on Enter.
      keydown: (event: KeyboardEvent) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        field.click();
      },
    });
    return h("label", { class: `button ${name}` }, field, icon(name), words);
  };
  return h(
    "div",
    { class: "buttons" },
    input("picture", t.choose, { id: "choose-picture", multiple: true }),
    input("camera", t.camera, { id: "take-photo", capture: "environment" }),
  );
}

function modelSelect({ catalogue }: Context, changed: () => void): HTMLSelectElement {
  const chosen = catalogue.named(setting(CHOSEN_MODEL)).listed.name;
  const select = h(
    "select",
    {
      id: "model",
      change: () => {
        keepSetting(CHOSEN_MODEL, select.value);
        changed();
      },
    },
    ...catalogue.models.map((model) => {
      const { listed } = model;
      return h("option", { value: listed.name, selected: listed.name === chosen }, optionOf(model, true));
    }),
  );
  return select;
}

function optionOf(model: Model, isKept: boolean): string {
  return t.modelOption(nameOf(model), megabytes(model.listed.bytes), isKept);
}

/** Say of each model whether it is on the device. */
async function markKept({ catalogue }: Context, select: HTMLSelectElement): Promise<void> {
  for (const [index, model] of catalogue.models.entries()) {
    select.options[index]!.textContent = optionOf(model, await catalogue.isKept(model));
  }
}

interface Shown {
  readonly canvas: HTMLCanvasElement;
  readonly decoded: DecodeReply;
  readonly model: Model;
  readonly opened: Opened;
  readonly answered: Answered;
}

function resultOf(shown: Shown): HTMLElement[] {
  const { canvas, answered, model } = shown;
  const { answer } = answered;
  const said = saidOf(model, answered);
  const overlay = h("canvas", { class: "overlay", "aria-hidden": "true", hidden: true });
  const { fullSides } = shown.decoded;
  return [
    h(
      "div",
      { class: "judged" },
      h(
        "div",
        { class: `card verdict ${answer.verdict}`, "data-verdict": answer.verdict, "data-source": answer.source ?? "" },
        h("h2", {}, ...headline(said)),
        said.isDemonstration && h("p", { class: "warning" }, texts.demonstrationMeans),
        ...noAnswerMeans(said),
        explainedScale(said),
      ),
    ),
    h("figure", { class: "shown" }, zoomable(canvas, overlay), evidenceControls({ canvas, overlay, fullSides, model, answered }), shareButton(shown)),
    h(
      "div",
      { class: "findings" },
      answer.reason !== "format" && h(
        "div",
        { class: "card" },
        h("h3", {}, t.errorsTitle),
        h("p", {}, texts.errors(answer)),
        h("p", { class: "hint" }, texts.errorsDetail(answer)),
      ),
      ...sourceList(model, answered),
      h(
        "div",
        { class: "card file-says" },
        h("h3", {}, texts.file.title),
        h("ul", {}, ...texts.file.says(shown.decoded.says).map((words) => h("li", {}, words))),
        h("p", { class: "hint" }, texts.file.apart),
      ),
      details(shown),
    ),
  ];
}

function shareButton({ canvas, model, answered }: Shown): HTMLElement {
  const result = {
    canvas,
    verdict: verdictOf(saidOf(model, answered)),
    // Of files that were not tested there are no rates.
    errors: answered.answer.reason === "format" ? texts.formatMeans : texts.errors(answered.answer),
    model: nameOf(model),
    sha256: model.listed.sha256,
  };
  return h("button", { class: "button", type: "button", id: "share-result", click: () => void shareResult(result) }, icon("save"), t.share);
}

/** Which generator it would be: of a photograph nobody asks, and one alone needs no list. */
function sourceList(model: Model, { answer }: Answered): HTMLElement[] {
  const generators = model.card.classes.slice(1);
  if (answer.verdict === "photograph" || generators.length < 2) return [];
  const shares = generators.map((name) => [called(model.card, name), (answer.probabilities[name] ?? 0) / (answer.pFake || 1)] as const);
  const rows = shares.map(([name, share]) =>
    h("li", {}, h("span", { class: "name" }, name), h("span", { class: "value" }, percent(share)), bar(share)),
  );
  return [h("div", { class: "card" }, h("h3", {}, t.sources), h("ul", { class: "classes" }, ...rows))];
}

function saidOf({ card }: Model, { answer }: Answered): Said {
  const { verdict, reason, pFake, threshold, photographThreshold, source } = answer;
  const sourceName = source === null ? null : called(card, source);
  return { verdict, reason, pFake, threshold, photographThreshold, sourceName, isDemonstration: card.isDemonstration };
}

function bar(share: number): HTMLElement {
  // A progress element and no styled width: the page's policy forbids inline styles.
  return h("progress", { class: "bar", max: 1, value: share, "aria-hidden": "true" });
}

function details({ decoded, model, opened, answered }: Shown): HTMLElement {
  const { answer, opinion } = answered;
  const { score, threshold } = model.card.rejection;
  const scores = Object.entries(answer.probabilities).map(([name, probability]) => {
    return h("li", { "data-class": name, "data-probability": probability }, t.scoreOf(called(model.card, name), probability));
  });
  const rows: [string, HTMLElement | string][] = [
    [t.scores, h("ul", { class: "scores" }, ...scores)],
    [t.line, t.lineIs(answer)],
    [t.file, texts.kind(answer.kind) + shownOf(decoded, model)],
    [t.time, t.times(opinion.graphMs, decoded.decodeMs, decoded.reduceMs)],
    [t.model, `${nameOf(model)}, ${megabytes(model.listed.bytes)}`],
    [t.digest, t.digestIs(model.listed.sha256)],
    [t.familiarity, t.familiarityIs(score, answer.familiarity[score], threshold)],
    [t.computedBy, texts.providers[opened.provider]],
  ];
  return h(
    "div",
    { class: "card" },
    h("h3", {}, t.details),
    h("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  );
}

/** What of a picture the model was shown, unless that was all of it as it is. */
function shownOf({ facts, width, height }: DecodeReply, { card: { windows } }: Model): string {
  if (windows) return `; ${t.windows(windows.count, windows.side)}`;
  return facts.width * facts.height === width * height ? "" : `; ${t.reduced(width, height)}`;
}

function thumbnailOf(canvas: HTMLCanvasElement): HTMLCanvasElement {
  const side = Math.min(canvas.width, canvas.height);
  const small = h("canvas", { class: "thumbnail", width: LISTED_SIDE, height: LISTED_SIDE, "aria-hidden": "true" });
  const context = small.getContext("2d")!;
  context.imageSmoothingQuality = "high";
  const [left, top] = [(canvas.width - side) / 2, (canvas.height - side) / 2];
  context.drawImage(canvas, left, top, side, side, 0, 0, LISTED_SIDE, LISTED_SIDE);
  return small;
}

function entryOf(model: Model, answered: Answered, file: string | null): Omit<Entry, "time" | "thumbnail"> {
  const { sourceName, isDemonstration } = saidOf(model, answered);
  const { answer } = answered;
  const { verdict, source, pFake } = answer;
  return { verdict, source, sourceName, pFake, isDemonstration, answer, file, model: model.listed.name, sha256: model.listed.sha256 };
}
