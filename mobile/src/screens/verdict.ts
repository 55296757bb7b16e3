/** A verdict as it stands everywhere: its words, one bar, and the line on it. */

import { h, icon } from "../dom";
import { texts, type Placed } from "../texts";

export interface Said extends Placed {
  /** The generator as people know it. */
  readonly sourceName: string | null;
  readonly isDemonstration: boolean;
}

/** A bar from photograph to generated with a mark at the line. */
export function scale(said: Placed): HTMLElement {
  const fill = h("span", { class: "fill" });
  const mark = h("span", { class: "mark" });
  // By script: the page's policy forbids styles in attributes.
  fill.style.width = `${100 * said.pFake}%`;
  mark.style.left = `${100 * said.threshold}%`;
  return h("div", { class: `scale ${said.verdict}`, role: "img", "aria-label": texts.scale.where(said) }, fill, mark);
}

/** The bar with what its ends and its mark mean. */
export function explainedScale(said: Placed): HTMLElement {
  return h(
    "div",
    { class: "explained" },
    scale(said),
    h("p", { class: "ends hint", "aria-hidden": "true" }, h("span", {}, texts.scale.photograph), h("span", {}, texts.scale.generated)),
    h("p", { class: "where" }, texts.scale.where(said)),
    h("p", { class: "hint" }, texts.scale.line),
  );
}

/** The badge and the words, with the word `Demonstration` before those of a network that is one. */
export function headline(said: Said): HTMLElement[] {
  return [
    h("span", { class: "badge" }, icon(said.verdict)),
    h(
      "span",
      {},
      said.isDemonstration && h("small", { class: "tag" }, texts.demonstration),
      texts.verdict(said.verdict, said.sourceName),
    ),
  ];
}
