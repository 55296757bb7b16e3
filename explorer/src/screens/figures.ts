/** Figures of what is looked at: scores with the threshold, verdicts, ROC. */

import { h } from "../../../mobile/src/dom";
import type { Source } from "../data/run";
import type { State } from "../state";
import { count, figure, share, texts } from "../texts";
import type { View } from "../view";
import type { Context, Part } from "./context";
import { rocDrawing } from "./roc";
import { thresholdPart } from "./threshold";

const t = texts.figures;

export function figuresPart(context: Context): Part {
  const threshold = thresholdPart(context);
  const matrix = h("div", {});
  const numbers = h("dl", { class: "numbers", id: "numbers" });
  const curve = h("figure", { class: "roc" });
  const notes = h("div", { class: "notes" });
  const element = h(
    "details",
    { class: "card figures" },
    h("summary", {}, h("h2", {}, t.title)),
    ...[threshold.element, matrix, numbers, curve, notes],
  );
  return {
    element,
    show: (view) => {
      threshold.show(view);
      matrix.replaceChildren(confusionTable(view, context));
      numbers.replaceChildren(...numbersOf(view).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
      curve.replaceChildren(h("h3", {}, t.roc), rocDrawing(view), h("figcaption", { class: "hint" }, t.rocAxes));
      const [photographs, generated] = view.curves.counts;
      const versions = t.versions(sourcesOf(view, context));
      notes.replaceChildren(h("p", { class: "hint" }, t.over(photographs + generated, view.mix.name)), versions ? h("p", { class: "hint" }, versions) : "");
    },
  };
}

function sourcesOf({ mix }: View, { run }: Context): Source[] {
  return run.sources.filter(({ name }) => mix.real.includes(name) || mix.fakes.includes(name));
}

function numbersOf({ confusion, curves }: View): [string, string][] {
  const { counts, mistakes, without } = confusion;
  const verdicts = counts.flat().reduce((sum, value) => sum + value, 0);
  return [
    [t.balancedAccuracy, figure(confusion.balancedAccuracy)],
    [t.falseAlarms, t.of(counts[0][1], confusion.falseAlarms)],
    [t.found, t.of(counts[1][1], confusion.found)],
    [t.mistakes, t.of(mistakes, mistakes / verdicts)],
    [t.auroc, figure(curves.roc.auroc)],
    ...(without > 0 ? ([[t.without, t.of(without, without / (without + verdicts))]] as [string, string][]) : []),
  ];
}

/** What each field of the table filters by: off the diagonal a kind of mistake. */
const FIELDS: readonly (readonly Partial<State>[])[] = [
  [
    { truth: "photograph", verdict: "photograph", error: null },
    { truth: null, verdict: null, error: "false-alarm" },
  ],
  [
    { truth: null, verdict: null, error: "missed" },
    { truth: "generated", verdict: "generated", error: null },
  ],
];

function confusionTable({ state, confusion: { counts } }: View, { go }: Context): HTMLElement {
  const columns = [t.calledPhotograph, t.calledGenerated];
  const field = (truth: 0 | 1, verdict: 0 | 1) => {
    const filter = FIELDS[truth]![verdict]!;
    const value = counts[truth][verdict];
    const on = Object.entries(filter).every(([name, wanted]) => state[name as keyof State] === wanted);
    const off = { truth: null, verdict: null, error: null };
    return h(
      "td",
      {},
      h(
        "button",
        {
          ...{ type: "button", class: truth === verdict ? "field-button right" : "field-button wrong" },
          ...{ "aria-pressed": String(on), "data-field": `${truth}${verdict}` },
          click: () => go(on ? off : filter),
        },
        h("span", { class: "visually-hidden" }, t.field(t.rows[truth], columns[verdict]!)),
        h("b", {}, count(value)),
        h("small", {}, share(value / (counts[truth][0] + counts[truth][1]))),
      ),
    );
  };
  return h(
    "table",
    { class: "confusion", "aria-label": t.confusion },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t.truth), ...columns.map((column) => h("th", { scope: "col" }, column)))),
    h(
      "tbody",
      {},
      ...([0, 1] as const).map((truth) => h("tr", {}, h("th", { scope: "row" }, t.rows[truth]), field(truth, 0), field(truth, 1))),
    ),
  );
}
