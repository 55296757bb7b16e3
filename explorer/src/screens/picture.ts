/** One picture: its facts, what every detector says of it in every cell, and the others of its group. */

import { h } from "../../../mobile/src/dom";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context, Pictures } from "./context";
import { everywhere, type Answers } from "./everywhere";
import { factsOf } from "./facts";
import { viewsPart } from "./views";

const t = texts.picture;
const MOST_OF_GROUP = 24;

export interface PicturePart {
  readonly element: HTMLDialogElement;
  readonly show: (view: View) => void;
  readonly arrived: (rows: readonly number[]) => void;
}

/** `closed` is called with the row that was open, once it is not. */
export function picturePart(context: Context, pictures: Pictures, closed: (row: number) => void): PicturePart {
  const { run, collection, go } = context;
  const place = h("p", { class: "place", role: "status" });
  const previous = h("button", { class: "button small", type: "button", id: "previous", click: () => turn(-1) }, t.previous);
  const next = h("button", { class: "button small", type: "button", id: "next", click: () => turn(1) }, t.next);
  const close = h("button", { class: "button small", type: "button", id: "close", click: () => go({ picture: null }) }, t.close);
  const body = h("div", { class: "picture-body" });
  const views = viewsPart(context);
  const element = h(
    "dialog",
    {
      class: "picture",
      "aria-labelledby": "picture-title",
      keydown: keys,
      cancel: (event: Event) => {
        event.preventDefault();
        go({ picture: null });
      },
    },
    h("div", { class: "picture-head" }, h("h2", { id: "picture-title" }), place, h("div", { class: "buttons" }, previous, next, close)),
    body,
    h("p", { class: "hint" }, t.keys),
  );
  let view: View | null = null;
  let open: number | null = null;
  let shownFor = "";

  function keys(event: KeyboardEvent): void {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    turn(step as 1 | -1);
  }

  function turn(step: 1 | -1): void {
    if (!view || open === null) return;
    const row = view.rows[view.rows.indexOf(open) + step];
    if (row !== undefined) go({ picture: row }, true);
  }

  function show(of: View): void {
    view = of;
    const row = of.state.picture;
    if (row === null) {
      if (open !== null) {
        element.close();
        closed(open);
      }
      open = null;
      shownFor = "";
      pictures.thumbnails?.want("picture", []);
      return;
    }
    const at = of.rows.indexOf(row);
    place.textContent = at < 0 ? t.outside : t.place(at + 1, of.rows.length);
    previous.disabled = at <= 0;
    next.disabled = at < 0 || at === of.rows.length - 1;
    open = row;
    if (!element.open) element.showModal();
    const key = [row, of.cell.name, of.detector.name, of.state.threshold].join("\n");
    if (key === shownFor) wantPictures();
    else void fill(of, row);
    shownFor = key;
  }

  async function fill(of: View, row: number): Promise<void> {
    element.setAttribute("aria-busy", "true");
    element.querySelector("h2")!.textContent = titleOf(of, row);
    const facts = h("dl", { class: "facts" });
    const answers = h("div", { class: "everywhere" });
    const group = h("div", { class: "group" });
    body.replaceChildren(
      h("div", { class: "beside" }, h("div", { class: "frame large", "data-row": row }), said(of, row), group),
      h("div", { class: "details" }, h("h3", {}, t.facts), facts, h("h3", {}, t.everywhere), answers, views.element),
    );
    body.scrollTop = 0;
    views.element.replaceChildren();
    try {
      await Promise.all([views.fill(of, row, () => open === row), fillFacts(of, row, facts), fillAnswers(of, row, answers), fillGroup(of, row, group)]);
    } catch (error) {
      // In sight: what stands on the page lies behind the dialogue.
      if (open === row) body.prepend(h("p", { class: "status error", role: "alert" }, texts.problem(error)));
    }
    if (open === row) element.removeAttribute("aria-busy");
  }

  async function fillFacts(of: View, row: number, into: HTMLElement): Promise<void> {
    const { name, facts } = await factsOf(context, of, row);
    if (open === row && name) element.querySelector("h2")!.textContent = name;
    into.replaceChildren(...facts);
  }

  async function fillAnswers(of: View, row: number, into: HTMLElement): Promise<void> {
    const answers: Answers = new Map();
    const problems: Error[] = [];
    const without = (error: unknown) => {
      problems.push(error instanceof Error ? error : new Error(String(error)));
      return run.detectors.map(() => NaN);
    };
    await Promise.all(run.cells.map(async (cell) => answers.set(cell.name, await collection.scoresOf(row, cell).catch(without))));
    into.replaceChildren(...everywhere(run, of, row, answers));
    if (problems[0]) throw problems[0];
  }

  async function fillGroup(of: View, row: number, into: HTMLElement): Promise<void> {
    const groups = await collection.integers("group");
    const others: number[] = [];
    for (let each = 0; each < groups.length; each++) if (groups[each] === groups[row] && each !== row) others.push(each);
    const some = others.slice(0, MOST_OF_GROUP);
    into.replaceChildren(
      h("h3", {}, t.group(others.length)),
      h("div", { class: "others" }, ...some.map((each) => otherOf(of, each))),
      others.length > some.length ? h("p", { class: "hint" }, t.more(others.length - some.length)) : "",
    );
    wantPictures();
  }

  /** Ask for the thumbnails of all frames; there may have been none when these were made. */
  function wantPictures(): void {
    const rows = [...body.querySelectorAll<HTMLElement>(".frame[data-row]")].map((frame) => Number(frame.dataset["row"]));
    pictures.thumbnails?.want("picture", rows);
    arrived(rows);
  }

  function otherOf({ columns }: View, row: number): HTMLElement {
    const source = run.sources[columns.sources[row]!]!.name;
    const label = texts.tile.label(columns.truth[row]!, columns.said[row]!, source, columns.scores[row]!);
    return h(
      "button",
      { type: "button", class: "other", "aria-label": label, title: label, click: () => go({ picture: row }, true) },
      h("span", { class: "frame", "data-row": row }),
      h("small", {}, source),
    );
  }

  function titleOf({ columns }: Pick<View, "columns">, row: number): string {
    return `${texts.tile.truth[columns.truth[row]!]!} ${row}`;
  }

  function said({ columns, cell, detector, state }: View, row: number): HTMLElement {
    const verdict = columns.said[row]!;
    const kind = verdict === 2 ? "none" : verdict === columns.truth[row] ? "right" : "wrong";
    const threshold = state.threshold ?? detector.thresholds[cell.name]?.[columns.folds[row]!] ?? NaN;
    return h(
      "p",
      { class: `said ${kind}` },
      h("b", {}, `${texts.tile.truth[columns.truth[row]!]} · ${texts.tile.kind(columns.truth[row]!, verdict)}`),
      h("span", {}, `${detector.title}, ${cell.name}: ${t.said(verdict, columns.scores[row]!, threshold)}`),
    );
  }

  function arrived(rows: readonly number[]): void {
    for (const frame of body.querySelectorAll<HTMLElement>(".frame[data-row]")) {
      const row = Number(frame.dataset["row"]);
      const url = pictures.thumbnails?.get(row);
      if (!rows.includes(row) || url === undefined) continue;
      frame.classList.toggle("missing", url === null);
      frame.replaceChildren(url === null ? h("span", {}, t.noThumbnail) : h("img", { src: url, alt: "" }));
    }
  }

  return { element, show, arrived };
}
