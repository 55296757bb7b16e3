/** A verdict as it stands everywhere: its words, one bar, and the lines on it. */

import { h, icon } from "../dom";
import { texts, type Placed } from "../texts";

export interface Said extends Placed {
  /** The generator as people know it. */
  readonly sourceName: string | null;
  readonly isDemonstration: boolean;
}

/**
 * A bar from photograph to generated with a mark at the line, and filled as far as the answer lies. Where there are two
 * lines its three parts have their own colours, and a point shows the answer.
 */
export function scale(said: Placed): HTMLElement {
  const { pFake, threshold, photographThreshold } = said;
  const attributes = { role: "img", "aria-label": texts.scale.where(said) };
  const answered = at(100 * pFake);
  if (photographThreshold === null) {
    const fill = h("span", { class: "fill" });
    fill.style.width = answered;
    return h("div", { class: `scale ${said.verdict}`, ...attributes }, fill, mark(threshold));
  }
  const parts = [
    { name: "photograph", from: 0, to: photographThreshold },
    { name: "between", from: photographThreshold, to: threshold },
    { name: "generated", from: threshold, to: 1 },
  ].map(({ name, from, to }) => {
    const part = h("span", { class: `part ${name}` });
    part.style.left = at(100 * from);
    part.style.width = at(100 * (to - from));
    return part;
  });
  // Under the marks: an answer beside a line hides none of it.
  const point = h("span", { class: "point" });
  point.style.left = answered;
  return h("div", { class: `scale three ${said.verdict}`, ...attributes }, ...parts, point, mark(photographThreshold), mark(threshold));
}

/** The bar with what its ends and its marks mean. */
export function explainedScale(said: Placed): HTMLElement {
  const { photograph, between, generated, line, lines } = texts.scale;
  const isThree = said.photographThreshold !== null;
  const ends = isThree ? [photograph, between, generated] : [photograph, generated];
  return h(
    "div",
    { class: "explained" },
    scale(said),
    h("p", { class: "ends hint", "aria-hidden": "true" }, ...ends.map((end) => h("span", {}, end))),
    h("p", { class: "where" }, texts.scale.where(said)),
    h("p", { class: "hint" }, isThree ? lines : line),
  );
}

/** The badge and the words, with the word `Demonstration` before those of a network that is one. */
export function headline(said: Said): HTMLElement[] {
  return [
    h("span", { class: "badge" }, icon(said.verdict === "cannot-tell" ? "unknown-source" : said.verdict)),
    h("span", {}, said.isDemonstration && h("small", { class: "tag" }, texts.demonstration), verdictOf(said)),
  ];
}

/** A network of three answers never says more than `probably`. */
export function verdictOf({ verdict, sourceName, photographThreshold }: Said): string {
  return texts.verdict(verdict, sourceName, photographThreshold !== null);
}

/** Why there is no answer, if there is none. */
export function noAnswerMeans({ verdict, reason }: Placed): HTMLElement[] {
  if (verdict !== "unknown-source" && verdict !== "cannot-tell") return [];
  const means = reason === "between" ? texts.betweenMeans : reason === "format" ? texts.formatMeans : texts.unknownMeans;
  return [h("p", {}, means)];
}

function mark(threshold: number): HTMLElement {
  const line = h("span", { class: "mark" });
  line.style.left = at(100 * threshold);
  return line;
}

/** Set by script: the page's policy forbids styles in attributes. */
function at(share: number): string {
  return `${share}%`;
}
