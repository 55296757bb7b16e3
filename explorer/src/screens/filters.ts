/** Filters, and which of them are on. */

import { h } from "../../../mobile/src/dom";
import { CLASSES, formatRange, RANGES, type Range, type State } from "../state";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context, Part } from "./context";
import { choice, type Choice } from "./fields";

const t = texts.filters;
/** Typing pauses, in milliseconds. */
const PAUSE = 100;
const LIMITS = { p: [0, 1, 0.01], quality: [1, 100, 1], size: [1, 100_000, 1] } as const;

/** A state without filters, the kind of mistake left as it is. */
const NO_FILTERS: Partial<State> = { truth: null, verdict: null, source: null, fold: null, q: "", p: null, quality: null, size: null };

export function filtersPart(context: Context): Part {
  const { run, go } = context;
  const any = { value: "", words: t.any };
  const classes: Choice[] = CLASSES.map((value) => ({ value, words: t.classes[value] }));
  const sources: Choice[] = run.sources.map((source) => ({ value: source.name, words: t.sourceOption(source) }));
  const truth = choice("truth", t.truth, [[null, [any, ...classes]]], (value) => go({ truth: (value || null) as State["truth"] }));
  const verdict = choice("verdict", t.verdict, [[null, [any, ...classes]]], (value) => go({ verdict: (value || null) as State["verdict"] }));
  const source = choice("source", t.source, [[null, [any, ...sources]]], (value) => go({ source: value || null }));
  const fold = choice("fold", t.fold, [[null, [any]]], (value) => go({ fold: value === "" ? null : Number(value) }));
  const ranges = RANGES.map((name) => rangeField(name, context));
  const search = searchField(context);
  const element = h(
    "details",
    { class: "card filters" },
    h("summary", {}, h("h2", {}, t.title)),
    h(
      "div",
      { class: "fields" },
      ...[search.element, truth.element, verdict.element, source.element, fold.element],
      ...ranges.map((range) => range.element),
      h("button", { class: "button", type: "button", id: "clear", click: () => go({ ...NO_FILTERS, error: null, pair: null }) }, t.clear),
    ),
  );
  return {
    element,
    show: (view) => {
      const { state } = view;
      offerFolds(fold.select, view);
      truth.select.value = state.truth ?? "";
      verdict.select.value = state.verdict ?? "";
      source.select.value = state.source ?? "";
      fold.select.value = state.fold === null ? "" : String(state.fold);
      search.show(state.q);
      RANGES.forEach((name, index) => ranges[index]!.show(state[name]));
    },
  };
}

function offerFolds(select: HTMLSelectElement, { folds }: View): void {
  while (select.options.length <= folds) {
    const fold = select.options.length - 1;
    select.append(h("option", { value: fold }, String(fold)));
  }
}

function searchField({ go, collection }: Context): { element: HTMLElement; show: (q: string) => void } {
  let pause: ReturnType<typeof setTimeout> | undefined;
  const input = h("input", {
    ...{ type: "search", id: "q", autocomplete: "off", spellcheck: "false" },
    // The texts are read while people think what to type; what is wrong with them is said once they are searched.
    focus: () => void collection.words().catch(() => {}),
    input: () => {
      clearTimeout(pause);
      pause = setTimeout(() => go({ q: input.value }, true), PAUSE);
    },
  });
  return {
    element: h("label", { class: "field wide" }, h("span", {}, t.q), input),
    // What is being typed is newer than the state.
    show: (q) => {
      if (document.activeElement !== input) input.value = q;
    },
  };
}

function rangeField(name: (typeof RANGES)[number], { go }: Context): { element: HTMLElement; show: (range: Range | null) => void } {
  const [min, max, step] = LIMITS[name];
  const changed = () => {
    const low = from.value === "" ? -Infinity : Number(from.value);
    const high = to.value === "" ? Infinity : Number(to.value);
    const open = low === -Infinity && high === Infinity;
    go({ [name]: open ? null : [Math.min(low, high), Math.max(low, high)] });
  };
  const end = (id: string, words: string) =>
    h("input", { type: "number", id: `${name}-${id}`, min, max, step, placeholder: words, "aria-label": `${t[name]}, ${words}`, change: changed });
  const [from, to] = [end("from", t.from), end("to", t.to)];
  return {
    element: h("div", { class: "field", role: "group", "aria-label": t[name] }, h("span", {}, t[name]), h("div", { class: "ends" }, from, to)),
    show: (range) => {
      const text = (value: number | undefined) => (value !== undefined && Number.isFinite(value) ? String(value) : "");
      from.value = text(range?.[0]);
      to.value = text(range?.[1]);
    },
  };
}

/** A button for each filter that is on: it takes the filter away. */
export function chips(state: State, go: Context["go"]): HTMLElement[] {
  const on: [string, Partial<State>][] = [];
  if (state.q.trim()) on.push([`“${state.q.trim()}”`, { q: "" }]);
  if (state.truth) on.push([`${t.truth}: ${t.classes[state.truth]}`, { truth: null }]);
  if (state.verdict) on.push([`${t.verdict}: ${t.classes[state.verdict]}`, { verdict: null }]);
  if (state.source) on.push([`${t.source}: ${state.source}`, { source: null }]);
  if (state.fold !== null) on.push([`${t.fold} ${state.fold}`, { fold: null }]);
  for (const name of RANGES) {
    const range = state[name];
    if (range) on.push([`${t[name]}: ${formatRange(range)}`, { [name]: null }]);
  }
  return on.map(([words, change]) =>
    h("button", { class: "chip", type: "button", "aria-label": t.removes(words), click: () => go(change) }, words, h("span", { "aria-hidden": "true" }, "×")),
  );
}
