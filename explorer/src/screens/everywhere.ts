/** What every detector says of one picture in every cell: small heat maps of p(generated). */

import { h } from "../../../mobile/src/dom";
import type { Cell, Detector, Run } from "../data/run";
import { figure, probability, texts } from "../texts";
import type { View } from "../view";

const t = texts.picture;

/** p(generated) by cell name, in the order of the run's detectors; NaN where there is none. */
export type Answers = Map<string, readonly number[]>;

/** A picture's truth and fold, and the cell that was chosen. */
interface Asked {
  readonly truth: number;
  readonly fold: number;
  readonly chosen: Cell;
}

export function everywhere(run: Run, { columns, cell, detector }: Pick<View, "columns" | "cell" | "detector">, row: number, answers: Answers): HTMLElement[] {
  const asked: Asked = { truth: columns.truth[row]!, fold: columns.folds[row]!, chosen: cell };
  const maps = run.detectors.map((each) => heatMap(run, each, answers, asked));
  const said = run.cells.map((each) => [each, verdict(run, each, detector, answers, asked.fold)] as const).filter(([, is]) => is !== null);
  const chosen = said.find(([each]) => each === cell)?.[1] ?? said[0]?.[1];
  const others = said.filter(([, is]) => is !== chosen).map(([each]) => each.name);
  return [
    h("p", { id: "flips" }, t.flips(detector.title, others, said.length)),
    h("div", { class: "maps" }, ...maps),
    h("p", { class: "hint" }, t.legend),
  ];
}

function answerOf(run: Run, cell: Cell, detector: Detector, answers: Answers): number {
  return answers.get(cell.name)![run.detectors.indexOf(detector)]!;
}

/** Whether the run's own threshold calls it generated; null without a verdict. */
function verdict(run: Run, cell: Cell, detector: Detector, answers: Answers, fold: number): boolean | null {
  const p = answerOf(run, cell, detector, answers);
  const threshold = detector.thresholds[cell.name]?.[fold] ?? NaN;
  return Number.isNaN(p) || Number.isNaN(threshold) ? null : p >= threshold;
}

function heatMap(run: Run, detector: Detector, answers: Answers, { truth, fold, chosen }: Asked): HTMLElement {
  const rows = [...new Set(run.cells.map(({ resolution }) => resolution))];
  const columns = [...new Set(run.cells.map(({ perturbation }) => perturbation))];
  const saidIn = (cell: Cell) => verdict(run, cell, detector, answers, fold);
  const field = (resolution: string, perturbation: string) => {
    const cell = run.cells.find((each) => each.resolution === resolution && each.perturbation === perturbation);
    if (!cell) return h("td", {});
    const [p, said] = [answerOf(run, cell, detector, answers), saidIn(cell)];
    const mark = said === null ? "·" : said === (truth === 1) ? "✓" : "✗";
    const flipped = said !== null && saidIn(chosen) !== null && said !== saidIn(chosen);
    const shade = Number.isNaN(p) ? "none" : String(Math.min(9, Math.floor(p * 10)));
    return h(
      "td",
      { class: flipped ? `heat-${shade} flipped` : `heat-${shade}`, "aria-current": cell === chosen && "true", title: `${cell.name}: ${figure(p)}` },
      Number.isNaN(p) ? "–" : h("span", {}, probability(p).replace(/^0/, "")),
      h("span", { class: "mark" }, mark),
    );
  };
  const header = h("tr", {}, h("th", { scope: "col" }, t.resolution), ...columns.map((column) => h("th", { scope: "col" }, column)));
  const lines = rows.map((resolution) => h("tr", {}, h("th", { scope: "row" }, resolution), ...columns.map((column) => field(resolution, column))));
  return h(
    "div",
    { class: "scrolls", tabindex: "0", role: "group", "aria-label": detector.title },
    h("table", { class: "heat" }, h("caption", {}, detector.title), h("thead", {}, header), h("tbody", {}, ...lines)),
  );
}
