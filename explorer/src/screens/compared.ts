/** Two detectors, or two cells, beside each other. */

import { h } from "../../../mobile/src/dom";
import type { PairedTest } from "../data/collection";
import { mcnemar, type Pair } from "../figures/paired";
import { count, texts } from "../texts";
import type { Other, View } from "../view";
import type { Context, Part } from "./context";

const t = texts.compared;

export function comparedPart(context: Context): Part {
  const content = h("div", { class: "compared-content" });
  const report = h("div", { class: "report" });
  const element = h("section", { class: "card compared", id: "compared", hidden: true }, h("h2", {}, t.title), content, report);
  let tests: readonly PairedTest[] | null = null;

  async function showReport(view: View, other: Other): Promise<void> {
    try {
      tests ??= await context.collection.pairedTests();
    } catch (error) {
      context.report(error);
      return;
    }
    const found = matching(tests, view, other);
    report.replaceChildren(
      found.length === 0
        ? h("p", { class: "hint" }, t.noReport)
        : h("div", {}, h("h3", {}, t.reportTitle), h("ul", {}, ...found.map((test) => h("li", {}, t.report(test.metric, test.difference, test.low, test.high, test.p))))),
    );
  }

  return {
    element,
    show: (view) => {
      element.hidden = view.other === null;
      if (view.other === null) return;
      content.replaceChildren(...contentOf(view, view.other, context));
      void showReport(view, view.other);
    },
  };
}

/** How the two sides are called: by what differs. */
export function sides({ cell, detector }: View, other: Other): [string, string] {
  return other.detector === detector ? [cell.name, other.cell.name] : [detector.title, other.detector.title];
}

function contentOf(view: View, other: Other, context: Context): (HTMLElement | string)[] {
  const [first, second] = sides(view, other);
  const { counts } = other;
  const apart = counts.first + counts.second;
  return [
    pairTable(view, other, first, second, context),
    h("p", { id: "mcnemar" }, apart === 0 ? t.none : t.test(counts.first, counts.second, mcnemar(counts.first, counts.second))),
    view.state.threshold === null ? "" : h("p", { class: "hint" }, t.movedOnly),
    view.state.pair === "all" ? "" : h("button", { class: "button small", type: "button", id: "all-pairs", click: () => context.go({ pair: "all" }) }, t.all),
  ];
}

function pairTable({ state }: View, { counts }: Other, first: string, second: string, { go }: Context): HTMLElement {
  const field = (pair: Pair, label: string) => {
    const on = state.pair === pair;
    const differs = pair === "first" || pair === "second";
    return h(
      "td",
      {},
      h(
        "button",
        {
          ...{ type: "button", class: differs ? "field-button differs" : "field-button", "data-pair": pair, "aria-pressed": String(on) },
          ...{ "aria-label": `${label}: ${count(counts[pair])}`, click: () => go({ pair: on ? null : pair }) },
        },
        h("b", {}, count(counts[pair])),
      ),
    );
  };
  const row = (name: string, left: HTMLElement, right: HTMLElement) => h("tr", {}, h("th", { scope: "row" }, name), left, right);
  const [firstRight, firstWrong] = [`${first} ${t.right}`, `${first} ${t.wrong}`];
  const [secondRight, secondWrong] = [`${second} ${t.right}`, `${second} ${t.wrong}`];
  return h(
    "table",
    { class: "confusion", "aria-label": t.title },
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, secondRight), h("th", { scope: "col" }, secondWrong))),
    h(
      "tbody",
      {},
      row(firstRight, field("both", `${firstRight}, ${secondRight}`), field("first", `${firstRight}, ${secondWrong}`)),
      row(firstWrong, field("second", `${firstWrong}, ${secondRight}`), field("neither", `${firstWrong}, ${secondWrong}`)),
    ),
  );
}

/** The report's tests of the two, as first minus second whichever way they were written. */
export function matching(tests: readonly PairedTest[], view: Pick<View, "cell" | "detector" | "mix">, other: Pick<Other, "cell" | "detector">): PairedTest[] {
  const { cell, detector, mix } = view;
  if (cell.resolution !== other.cell.resolution) return [];
  const key = (one: string, at: string, than: string, thanAt: string) => [one, at, than, thanAt].join("\n");
  const [there, back] = [
    key(detector.name, cell.perturbation, other.detector.name, other.cell.perturbation),
    key(other.detector.name, other.cell.perturbation, detector.name, cell.perturbation),
  ];
  return tests.flatMap((test) => {
    if (test.resolution !== cell.resolution || test.mix !== mix.name) return [];
    const written = key(test.detector, test.perturbation, test.than_detector, test.than_perturbation);
    if (written === there) return [test];
    return written === back ? [turned(test)] : [];
  });
}

function turned(test: PairedTest): PairedTest {
  const minus = (value: number | null) => (value === null ? null : -value);
  return { ...test, difference: minus(test.difference), low: minus(test.high), high: minus(test.low) };
}
