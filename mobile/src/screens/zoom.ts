/** Looking closer: two fingers, the wheel on a chosen picture, a double click, or the keys + - 0 and the arrows. */

import { h } from "../dom";
import { texts } from "../texts";

const LARGEST = 8;
const DOUBLE_CLICK = 3;
const STEP = 1.25;
/** Of the frame, how far an arrow moves. */
const MOVE = 0.15;

/** Where the layers lie in the frame: enlarged by `scale` from its upper left corner, which lies at (x, y), both at most 0. */
interface Place {
  readonly scale: number;
  readonly x: number;
  readonly y: number;
}

/** A frame in which layers of one size are enlarged together. */
export function zoomable(...layers: HTMLElement[]): HTMLElement {
  const inner = h("div", { class: "layers" }, ...layers);
  const frame = h("div", { class: "frame", tabindex: 0, role: "group", "aria-label": texts.detect.zoom }, inner);
  const fingers = new Map<number, { x: number; y: number }>();
  let place: Place = { scale: 1, x: 0, y: 0 };

  const show = (wanted: Place) => {
    const { width, height } = frame.getBoundingClientRect();
    place = within(wanted, width, height);
    inner.style.transform = place.scale === 1 ? "" : `translate(${place.x}px, ${place.y}px) scale(${place.scale})`;
    // One finger scrolls the page until there is something to move in the frame.
    frame.classList.toggle("enlarged", place.scale > 1);
    frame.dataset["zoom"] = place.scale.toFixed(2);
  };
  const at = ({ clientX, clientY }: MouseEvent) => {
    const { left, top } = frame.getBoundingClientRect();
    return { x: clientX - left, y: clientY - top };
  };
  const middle = () => ({ x: frame.clientWidth / 2, y: frame.clientHeight / 2 });

  frame.addEventListener(
    "wheel",
    (event) => {
      // A page that is scrolled past a picture stays a page that is scrolled.
      if (!event.ctrlKey && document.activeElement !== frame) return;
      event.preventDefault();
      show(enlarged(place, Math.exp(-event.deltaY / 300), at(event)));
    },
    { passive: false },
  );
  frame.addEventListener("dblclick", (event) => {
    show(place.scale > 1 ? { scale: 1, x: 0, y: 0 } : enlarged(place, DOUBLE_CLICK, at(event)));
  });
  frame.addEventListener("keydown", (event) => {
    const wanted = byKey(event.key, place, middle(), frame.clientWidth, frame.clientHeight);
    if (wanted === null || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    show(wanted);
  });
  frame.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, at(event));
    if (fingers.size === 2 || place.scale > 1) frame.setPointerCapture(event.pointerId);
  });
  frame.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = at(event);
    const other = [...fingers].find(([id]) => id !== event.pointerId)?.[1];
    fingers.set(event.pointerId, now);
    if (other) show(pinched(place, [before, other], [now, other]));
    else if (place.scale > 1) show({ ...place, x: place.x + now.x - before.x, y: place.y + now.y - before.y });
  });
  for (const end of ["pointerup", "pointercancel", "pointerleave"] as const) {
    frame.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  return frame;
}

interface Point {
  readonly x: number;
  readonly y: number;
}

/** Enlarged by a factor, so that what lies at a point stays there. */
export function enlarged({ scale, x, y }: Place, factor: number, point: Point): Place {
  const next = Math.min(LARGEST, Math.max(1, scale * factor));
  const grows = next / scale;
  return { scale: next, x: point.x - (point.x - x) * grows, y: point.y - (point.y - y) * grows };
}

/** As two fingers that were at `before` and are at `after` would have it. */
export function pinched(place: Place, before: readonly [Point, Point], after: readonly [Point, Point]): Place {
  const [from, to] = [centre(before), centre(after)];
  const moved = { ...place, x: place.x + to.x - from.x, y: place.y + to.y - from.y };
  return enlarged(moved, distance(after) / Math.max(1, distance(before)), to);
}

/** So that the layers cover the frame. */
export function within({ scale, x, y }: Place, width: number, height: number): Place {
  const held = (value: number, side: number) => Math.min(0, Math.max(side * (1 - scale), value));
  return { scale, x: held(x, width), y: held(y, height) };
}

function byKey(key: string, place: Place, middle: Point, width: number, height: number): Place | null {
  if (key === "+" || key === "=") return enlarged(place, STEP, middle);
  if (key === "-") return enlarged(place, 1 / STEP, middle);
  if (key === "0") return { scale: 1, x: 0, y: 0 };
  if (place.scale === 1) return null;
  const moves: Record<string, Point> = {
    ArrowLeft: { x: width * MOVE, y: 0 },
    ArrowRight: { x: -width * MOVE, y: 0 },
    ArrowUp: { x: 0, y: height * MOVE },
    ArrowDown: { x: 0, y: -height * MOVE },
  };
  const move = moves[key];
  return move ? { ...place, x: place.x + move.x, y: place.y + move.y } : null;
}

function centre([one, other]: readonly [Point, Point]): Point {
  return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2 };
}

function distance([one, other]: readonly [Point, Point]): number {
  return Math.hypot(one.x - other.x, one.y - other.y);
}
