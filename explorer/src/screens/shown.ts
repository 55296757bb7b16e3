/** What is shown, in words, and the choice of its kind and order. */

import { h } from "../../../mobile/src/dom";
import { ERRORS, SORTS, type ErrorKind, type Sort } from "../state";
import { texts } from "../texts";
import type { View } from "../view";
import { sides } from "./compared";
import type { Context, Part } from "./context";
import { choice } from "./fields";
import { chips } from "./filters";

const t = texts.show;
/** The order that suits a kind: the surest mistakes first. */
const USUAL_SORT: Record<ErrorKind, Sort> = { "false-alarm": "-p", missed: "p", mistake: "-margin", right: "-margin" };

export function shownPart({ go }: Context): Part {
  const heading = h("h1", { id: "shown", "aria-live": "polite" }, texts.title);
  const kinds = ["all", ...ERRORS] as const;
  const buttons = kinds.map((kind) =>
    h(
      "button",
      {
        ...{ type: "button", "data-error": kind },
        click: () => go(kind === "all" ? { error: null } : { error: kind, sort: USUAL_SORT[kind] }),
      },
      t.kinds[kind],
    ),
  );
  const sort = choice("sort", t.sort, [[null, ["", ...SORTS].map((value) => ({ value, words: t.sorts[value as Sort | ""] }))]], (value) =>
    go({ sort: (value || null) as Sort | null }),
  );
  const on = h("div", { class: "chips" });
  const nothing = h("div", { class: "nothing" });
  return {
    element: h(
      "div",
      { class: "shown" },
      heading,
      h("div", { class: "toolbar" }, h("div", { class: "kinds", role: "group", "aria-label": t.title }, ...buttons), sort.element),
      on,
      nothing,
    ),
    show: (view) => {
      const { state, rows, other } = view;
      heading.textContent = headingOf(view);
      kinds.forEach((kind, index) => buttons[index]!.setAttribute("aria-pressed", String((state.error ?? "all") === kind)));
      for (const option of sort.select.options) option.hidden = option.value === "-difference" && other === null;
      sort.select.value = state.sort ?? "";
      const filters = chips(state, go);
      on.replaceChildren(...filters);
      nothing.hidden = rows.length > 0;
      if (rows.length > 0) return;
      nothing.replaceChildren(
        h("p", {}, whyNone(view, filters.length > 0)),
        h("button", { class: "button", type: "button", click: () => go({ error: null, sort: null, ...(other ? { pair: "all" as const } : {}) }) }, texts.showAll),
      );
    },
  };
}

function whyNone({ state, other, curves, confusion: { counts }, detector, cell }: View, isFiltered: boolean): string {
  if (curves.counts[0] + curves.counts[1] === 0) return texts.noScores(detector.title, cell.name);
  if (state.error && counts.flat().every((value) => value === 0)) return texts.noVerdicts(detector.title, cell.name);
  return isFiltered || other ? texts.noneFiltered : texts.noneOfKind[state.error ?? "all"];
}

function headingOf(view: View): string {
  const { state, rows, other, detector, cell } = view;
  if (!other) return texts.heading(rows.length, state.error, detector.title, cell.name);
  const [first, second] = sides(view, other);
  return texts.comparedHeading(rows.length, state.pair, first, second);
}
