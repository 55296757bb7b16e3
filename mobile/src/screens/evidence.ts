/** Where the evidence is: a layer over the picture for each class, and what chooses among them. */

import { h } from "../dom";
import { called } from "../network/card";
import type { Answered, Model } from "../network/catalogue";
import type { ActivationMap } from "../network/opinion";
import { colours, evidence } from "../picture/heatmap";
import { texts } from "../texts";

const t = texts.detect;

export interface Layer {
  readonly canvas: HTMLCanvasElement;
  readonly overlay: HTMLCanvasElement;
  readonly fullSides: readonly [number, number];
  readonly model: Model;
  readonly answered: Answered;
}

export function evidenceControls(layer: Layer): HTMLElement {
  const { card } = layer.model;
  const said = verdictsOwn(layer.answered, card.classes);
  const legend = h("p", { class: "hint", hidden: true });
  const draw = () => {
    const index = Number(choice.value);
    drawEvidence(layer, index);
    legend.textContent = t.evidenceLegend(called(card, card.classes[index]!), card.windows !== null);
  };
  const choice = h(
    "select",
    { change: draw },
    ...card.classes.map((name, index) => h("option", { value: index, selected: index === said }, called(card, name))),
  );
  const field = h("label", { class: "field inline", hidden: true }, h("span", {}, t.evidenceFor), choice);
  const toggle = h("input", {
    type: "checkbox",
    id: "show-evidence",
    change: () => {
      draw();
      for (const each of [layer.overlay, legend, field]) each.hidden = !toggle.checked;
    },
  });
  return h("figcaption", {}, h("label", { class: "check" }, toggle, h("span", {}, t.evidence)), field, legend);
}

/** The class that the verdict names; the most probable one where it names none. */
function verdictsOwn({ answer, opinion }: Answered, classes: readonly string[]): number {
  if (answer.verdict === "photograph") return 0;
  if (answer.verdict === "generated") return answer.source === null ? 1 : classes.indexOf(answer.source);
  return opinion.probabilities.reduce((best, value, index) => (value > opinion.probabilities[best]! ? index : best), 0);
}

function drawEvidence({ canvas, overlay, fullSides, answered }: Layer, index: number): void {
  const { maps } = answered.opinion;
  overlay.width = canvas.width;
  overlay.height = canvas.height;
  const context = overlay.getContext("2d")!;
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.strokeStyle = "rgb(255 255 255 / 0.75)";
  context.lineWidth = Math.max(1, Math.min(canvas.width, canvas.height) / 256);
  const isAll = maps.every(({ place }) => place === null) && canvas.width === canvas.height;
  for (const [number, values] of evidence(maps, index).entries()) {
    const { sides, place } = maps[number]!;
    const small = h("canvas", { width: sides[1], height: sides[0] });
    small.getContext("2d")!.putImageData(new ImageData(colours(values), sides[1], sides[0]), 0, 0);
    const [left, top, width, height] = shownAt(place, canvas, fullSides);
    // Windows may lie over each other: twice the colour would say twice the evidence.
    context.clearRect(left, top, width, height);
    context.drawImage(small, left, top, width, height);
  }
  if (isAll) return;
  for (const { place } of maps) {
    const [left, top, width, height] = shownAt(place, canvas, fullSides);
    context.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
  }
}

/** Left, top, width and height on the canvas of what the network looked at. */
function shownAt(place: ActivationMap["place"], { width, height }: HTMLCanvasElement, [fullHeight, fullWidth]: readonly [number, number]) {
  if (place === null) {
    const side = Math.min(width, height);
    return [Math.floor((width - side) / 2), Math.floor((height - side) / 2), side, side] as const;
  }
  const [across, down] = [width / fullWidth, height / fullHeight];
  return [place.left * across, place.top * down, place.side * across, place.side * down] as const;
}
