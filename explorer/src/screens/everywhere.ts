/** What every detector says of one picture in every cell: small heat maps of p(generated). */

import { h } from "../../../mobile/src/dom";
import type { Cell, Detector, Run } from "../data/run";
import { figure, probability, texts } from "../texts";
import type { View } from "../view";

const t = texts.picture;

/** p(generated) by cell name, in the order of the run's detectors; NaN where there is none. */
export type Answers = Map<string, readonly number[]>;

export function everywhere(run: Run, { columns, cell, detector }: Pick<View, "columns" | "cell" | "detector">, row: number, answers: Answers): HTMLElement[] {
  const [truth, fold] = [columns.truth[row]!, columns.folds[row]!];
  const maps = run.detectors.map((each, index) => {
    const verdictIn = (of: Cell) => verdict(answers.get(of.name)![index]!, each, of, fold);
    return heatMap(run, each, answers, index, cell, truth, verdictIn);
  });
  const index = run.detectors.indexOf(detector);
  const said = run.cells.map((each) => [each, verdict(answers.get(each.name)![index]!, detector, each, fold)] as const).filter(([, is]) => is !== null);
  const chosen = said.find(([each]) => each === cell)?.[1] ?? said[0]?.[1];
  const others = said.filter(([, is]) => is !== chosen).map(([each]) => each.name);
  return [h("p", { id: "flips" }, t.flips(detector.title, others, said.length)), h("div", { class: "maps" }, ...maps), h("p", { class: "hint" }, t.legend)];
}

/** Whether the run's own threshold calls it generated; null without a verdict. */
function verdict(p: number, detector: Detector, cell: Cell, fold: number): boolean | null {
  const threshold = detector.thresholds[cell.resolution]?.[fold] ?? NaN;
  return Number.isNaN(p) || Number.isNaN(threshold) ? null : p >= threshold;
}

function heatMap(
  run: Run,
  detector: Detector,
  answers: Answers,
  index: number,
  chosen: Cell,
  truth: number,
  verdictIn: (cell: Cell) => boolean | null,
): HTMLElement {
  const rows = [...new Set(run.cells.map(({ resolution }) => resolution))];
  const columns = [...new Set(run.cells.map(({ perturbation }) => perturbation))];
  const field = (resolution: string, perturbation: string) => {
    const cell = run.cells.find((each) => each.resolution === resolution && each.perturbation === perturbation);
    if (!cell) return h("td", {});
    const [p, said] = [answers.get(cell.name)![index]!, verdictIn(cell)];
    const mark = said === null ? "·" : said === (truth === 1) ? "✓" : "✗";
    const flipped = said !== null && verdictIn(chosen) !== null && said !== verdictIn(chosen);
    const shade = Number.isNaN(p) ? "none" : String(Math.min(9, Math.floor(p * 10)));
    return h(
      "td",
      { class: flipped ? `heat-${shade} flipped` : `heat-${shade}`, "aria-current": cell === chosen && "true", title: `${cell.name}: ${figure(p)}` },
      Number.isNaN(p) ? "–" : h("span", {}, probability(p).replace(/^0/, "")),
      h("span", { class: "mark" }, mark),
    );
  };
  return h(
    "div",
    { class: "scrolls", tabindex: "0", role: "group", "aria-label": detector.title },
    h(
      "table",
      { class: "heat" },
      h("caption", {}, detector.title),
      h("thead", {}, h("tr", {}, h("th", { scope: "col" }, t.resolution), ...columns.map((column) => h("th", { scope: "col" }, column)))),
      h("tbody", {}, ...rows.map((resolution) => h("tr", {}, h("th", { scope: "row" }, resolution), ...columns.map((column) => field(resolution, column))))),
    ),
  );
}
