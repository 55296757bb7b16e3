/** The histogram of scores, and the threshold that can be moved over it. */

import { h } from "../../../mobile/src/dom";
import { svg } from "../svg";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context, Part } from "./context";

const t = texts.figures;
const [WIDTH, HEIGHT] = [200, 80];
const MIDDLE = HEIGHT / 2;
const STEP = 0.001;

export function thresholdPart({ go }: Context): Part {
  let dragging = false;
  /** One step of the history for a whole drag. */
  const move = (threshold: number) => {
    go({ threshold }, dragging);
    dragging = true;
  };
  const drawing = h("div", { class: "histogram", pointerdown: startDrag, pointermove: drag });
  const slider = h("input", {
    ...{ type: "range", id: "threshold", min: 0, max: 1, step: STEP, "aria-label": t.threshold },
    input: () => move(Number(slider.value)),
    change: () => (dragging = false),
  });
  const exact = h("input", {
    ...{ type: "number", id: "threshold-exact", min: 0, max: 1, step: "any" },
    change: () => {
      if (exact.value !== "" && exact.checkValidity()) go({ threshold: Number(exact.value) });
    },
  });
  const says = h("p", { class: "hint" });
  const reset = h("button", { class: "button small", type: "button", id: "reset-threshold", click: () => go({ threshold: null }) }, t.reset);

  function startDrag(event: PointerEvent): void {
    if (event.button !== 0) return;
    dragging = false;
    drawing.setPointerCapture(event.pointerId);
    move(at(event));
  }
  function drag(event: PointerEvent): void {
    if (drawing.hasPointerCapture(event.pointerId)) move(at(event));
  }
  function at(event: PointerEvent): number {
    const { left, width } = drawing.getBoundingClientRect();
    return Math.round(Math.min(1, Math.max(0, (event.clientX - left) / width)) / STEP) * STEP;
  }

  return {
    element: h(
      "div",
      { class: "scores" },
      h("h3", {}, t.scores),
      drawing,
      slider,
      h("div", { class: "ends-of-axis", "aria-hidden": "true" }, h("span", {}, "0"), h("span", {}, "p(generated)"), h("span", {}, "1")),
      h("div", { class: "inline" }, h("label", { class: "field inline" }, h("span", {}, t.threshold), exact), reset),
      says,
    ),
    show: (view) => {
      const { state, ownThresholds } = view;
      const own = middle(ownThresholds);
      const shown = state.threshold ?? own;
      drawing.replaceChildren(draw(view, shown));
      slider.value = String(Number.isNaN(shown) ? 0.5 : shown);
      slider.setAttribute("aria-valuetext", t.thresholdIs(shown, state.threshold === null));
      if (document.activeElement !== exact || state.threshold === null) exact.value = Number.isNaN(shown) ? "" : String(Math.round(shown * 1e4) / 1e4);
      says.textContent = state.threshold === null ? t.own(ownThresholds) : t.moved(state.threshold);
      reset.hidden = state.threshold === null;
    },
  };
}

function draw({ curves, ownThresholds, state }: View, shown: number): SVGElement {
  const heights = curves.histograms.map((bins, index) => [...bins].map((value) => Math.sqrt(value / (curves.counts[index as 0 | 1] || 1))));
  const most = Math.max(...heights.flat(), 1e-9);
  const line = (threshold: number, name: string) => svg("path", { class: name, d: `M${round(threshold * WIDTH)} 0V${HEIGHT}` });
  return svg(
    "svg",
    { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": t.histogram },
    svg("title", {}, document.createTextNode(t.histogram)),
    svg("path", { class: "bars photograph", d: bars(heights[0]!, most, -1) }),
    svg("path", { class: "bars generated", d: bars(heights[1]!, most, 1) }),
    svg("path", { class: "axis", d: `M0 ${MIDDLE}H${WIDTH}` }),
    ...ownThresholds.map((each) => line(each, "own")),
    ...(state.threshold === null || Number.isNaN(shown) ? [] : [line(shown, "moved")]),
  );
}

function bars(heights: readonly number[], most: number, direction: 1 | -1): string {
  const width = WIDTH / heights.length;
  return heights
    .map((height, bin) => (height === 0 ? "" : `M${round(bin * width)} ${MIDDLE}v${round((direction * MIDDLE * height) / most)}h${round(width)}V${MIDDLE}z`))
    .join("");
}

function round(value: number): number {
  return Math.round(value * 100) / 100;
}

/** The median; NaN of none. */
function middle(values: readonly number[]): number {
  const ascending = [...values].sort((a, b) => a - b);
  const half = (ascending.length - 1) / 2;
  return ((ascending[Math.floor(half)] ?? NaN) + (ascending[Math.ceil(half)] ?? NaN)) / 2;
}
