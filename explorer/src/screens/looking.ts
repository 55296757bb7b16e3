/** What is looked at: cell, detector, mix, and what it is compared with. */

import { h } from "../../../mobile/src/dom";
import { texts } from "../texts";
import type { Context, Part } from "./context";
import { choice, type Choice } from "./fields";

const t = texts.looking;

export function lookingPart({ run, go }: Context): Part {
  const named = (items: readonly { readonly name: string; readonly title?: string }[]): Choice[] =>
    items.map(({ name, title }) => ({ value: name, words: title ?? name }));
  const detectors = [
    [t.detectors, named(run.detectors.filter(({ role }) => role !== "probe"))],
    [t.probes, named(run.detectors.filter(({ role }) => role === "probe"))],
  ] as const;
  const cells = named(run.cells);
  const cell = choice("cell", t.cell, [[null, cells]], (value) => go({ cell: value }));
  const detector = choice("detector", t.detector, detectors, (value) => go({ detector: value, threshold: null }));
  const mix = choice("mix", t.mix, [[null, named(run.mixes)]], (value) => go({ mix: value }));
  const than = choice("than", t.than, [[null, [{ value: "", words: t.nothing }]], ...detectors, [t.cells, cells]], (value) =>
    go(value ? { than: value, error: null, pair: null, sort: "-difference" } : { than: null }),
  );
  return {
    element: h("section", { class: "card looking", "aria-label": t.title }, cell.element, detector.element, mix.element, than.element),
    show: ({ state }) => {
      cell.select.value = state.cell;
      detector.select.value = state.detector;
      mix.select.value = state.mix;
      for (const option of than.select.options) option.disabled = option.value === state.cell || option.value === state.detector;
      than.select.value = state.than ?? "";
    },
  };
}
