/** The ROC curve as a drawing. */

import type { Roc } from "../figures/roc";
import { svg } from "../svg";
import { texts } from "../texts";
import type { View } from "../view";

const SIDE = 100;
/** Points nearer to the last than this are not drawn. */
const STEP = 0.004;

export function rocDrawing({ curves, confusion }: View): SVGElement {
  const { falseAlarms, found } = confusion;
  const point = Number.isNaN(falseAlarms) || Number.isNaN(found) ? [] : [svg("circle", { cx: x(falseAlarms), cy: y(found), r: 2.6, class: "chosen" })];
  return svg(
    "svg",
    { viewBox: `-3 -3 ${SIDE + 6} ${SIDE + 6}`, role: "img", "aria-label": texts.figures.rocIs(falseAlarms, found) },
    svg("path", { d: `M0 0V${SIDE}H${SIDE}`, class: "axis" }),
    svg("path", { d: `M0 ${SIDE}L${SIDE} 0`, class: "chance" }),
    ...(Number.isNaN(curves.roc.auroc) ? [] : [svg("path", { d: pathOf(curves.roc), class: "curve" })]),
    ...point,
  );
}

function pathOf({ falseAlarms, found }: Roc): string {
  const last = falseAlarms.length - 1;
  let [atX, atY] = [0, 0];
  let path = `M${x(0)} ${y(0)}`;
  for (let index = 1; index <= last; index++) {
    const [nextX, nextY] = [falseAlarms[index]!, found[index]!];
    if (index < last && Math.abs(nextX - atX) + Math.abs(nextY - atY) < STEP) continue;
    path += `L${x(nextX)} ${y(nextY)}`;
    [atX, atY] = [nextX, nextY];
  }
  return path;
}

function x(share: number): number {
  return Math.round(share * SIDE * 100) / 100;
}

function y(share: number): number {
  return Math.round((1 - share) * SIDE * 100) / 100;
}
