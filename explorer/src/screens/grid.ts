/** Thumbnails of any number of pictures: only those in sight are elements. */

import { h } from "../../../mobile/src/dom";
import { NONE } from "../figures/verdicts";
import { format } from "../state";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context, Part, Pictures } from "./context";

const t = texts.tile;
const GAP = 10;
/** The narrowest tile, and what stands below its picture, in pixels. */
const [NARROWEST, CAPTION] = [148, 47];
/** Browsers lay out nothing taller, in pixels. */
const TALLEST = 12_000_000;
/** Rows of tiles above and below the window that are made all the same. */
const BEYOND = 2;

interface Layout {
  readonly columns: number;
  readonly width: number;
  readonly height: number;
}

export interface Grid extends Part {
  /** Put the focus on a picture's tile, if it is shown. */
  readonly focus: (row: number) => void;
  /** Thumbnails of these rows have come, or never will. */
  readonly arrived: (rows: readonly number[]) => void;
}

export function gridPart(context: Context, pictures: Pictures): Grid {
  const list = h("div", { class: "grid", role: "list", "aria-label": texts.grid, keydown: turn });
  const cut = h("p", { class: "hint", hidden: true });
  const element = h("div", {}, list, cut);
  const tiles = new Map<number, HTMLElement>();
  const frames = new Map<number, Element>();
  let view: View | null = null;
  let layout: Layout = layoutOf(1);
  let shown = 0;
  /** The place among the rows of the tile that Tab reaches. */
  let current = 0;
  let drawing = 0;
  let shownFor = "";

  const redraw = () => {
    drawing ||= requestAnimationFrame(() => {
      drawing = 0;
      draw();
    });
  };
  addEventListener("scroll", redraw, { passive: true });
  new ResizeObserver(() => {
    const next = layoutOf(list.clientWidth);
    if (next.columns !== layout.columns || next.width !== layout.width) restart();
  }).observe(element);

  function restart(): void {
    if (!view) return;
    layout = layoutOf(list.clientWidth);
    const most = Math.floor(TALLEST / layout.height) * layout.columns;
    shown = Math.min(view.rows.length, most);
    cut.hidden = shown === view.rows.length;
    cut.textContent = texts.tooTall(shown, view.rows.length);
    list.style.height = `${Math.ceil(shown / layout.columns) * layout.height}px`;
    const focused = list.contains(document.activeElement);
    for (const tile of tiles.values()) {
      // A picture that stays in sight is not loaded anew.
      frames.set(Number(tile.querySelector("button")!.dataset["row"]), tile.querySelector(".frame")!);
      tile.remove();
    }
    tiles.clear();
    draw();
    frames.clear();
    if (focused) focusPlace(current);
  }

  function draw(): void {
    if (!view) return;
    const { top } = list.getBoundingClientRect();
    const first = Math.max(0, Math.floor(-top / layout.height) - BEYOND) * layout.columns;
    const after = Math.min(shown, Math.ceil((innerHeight - top) / layout.height + BEYOND) * layout.columns);
    for (const [place, tile] of tiles) {
      // The tile with the focus stays: without it the next key would go nowhere.
      if ((place < first || place >= after) && !tile.contains(document.activeElement)) {
        tile.remove();
        tiles.delete(place);
      }
    }
    for (let place = first; place < after; place++) if (!tiles.has(place)) addTile(view, place);
    pictures.thumbnails?.want("grid", Array.from(view.rows.subarray(first, after)));
  }

  function addTile(of: View, place: number): void {
    const row = of.rows[place]!;
    const { width, height, columns } = layout;
    const tile = tileOf(of, row, context, place, shown);
    tile.style.width = `${width}px`;
    tile.style.height = `${height - GAP}px`;
    tile.style.transform = `translate(${(place % columns) * (width + GAP)}px, ${Math.floor(place / columns) * height}px)`;
    const button = tile.querySelector("button")!;
    const frame = frames.get(row);
    if (frame) button.firstElementChild!.replaceWith(frame);
    button.tabIndex = place === current ? 0 : -1;
    button.addEventListener("focus", () => become(place));
    tiles.set(place, tile);
    // In the order of the pictures, which is that of Tab and of readers.
    const next = [...list.children].find((each) => Number((each as HTMLElement).dataset["place"]) > place);
    list.insertBefore(tile, next ?? null);
    showPicture(tile, row);
  }

  function showPicture(tile: HTMLElement, row: number): void {
    const url = pictures.thumbnails?.get(row);
    const frame = tile.querySelector(".frame")!;
    if (frame.hasChildNodes()) return;
    if (url) frame.replaceChildren(h("img", { src: url, alt: "" }));
    else if (url === null) void nameInstead(frame, row);
  }

  async function nameInstead(frame: Element, row: number): Promise<void> {
    frame.classList.add("missing");
    const name = await context.collection.idOf(row).catch(() => String(row));
    frame.replaceChildren(h("span", {}, name));
  }

  function become(place: number): void {
    tiles.get(current)?.querySelector("button")?.setAttribute("tabindex", "-1");
    current = place;
    tiles.get(place)?.querySelector("button")?.setAttribute("tabindex", "0");
  }

  function focusPlace(place: number): void {
    if (!view || place < 0 || place >= shown) return;
    const top = list.getBoundingClientRect().top + Math.floor(place / layout.columns) * layout.height;
    if (top < 0 || top + layout.height > innerHeight) scrollBy({ top: top - innerHeight / 3 });
    become(place);
    if (!tiles.has(place)) addTile(view, place);
    tiles.get(place)?.querySelector("button")?.focus({ preventScroll: true });
  }

  function turn(event: KeyboardEvent): void {
    const steps: Record<string, number> = {
      ...{ ArrowRight: current + 1, ArrowLeft: current - 1, ArrowDown: current + layout.columns, ArrowUp: current - layout.columns },
      ...{ Home: 0, End: shown - 1 },
    };
    const place = steps[event.key];
    if (place === undefined) return;
    event.preventDefault();
    focusPlace(place);
  }

  return {
    element,
    show: (next) => {
      const asked = format({ ...next.state, picture: null, threshold: null });
      const isOther = view !== null && asked !== shownFor;
      view = next;
      shownFor = asked;
      current = isOther ? 0 : Math.min(current, Math.max(0, next.rows.length - 1));
      restart();
      // Other pictures are looked at from their first on.
      if (isOther && list.getBoundingClientRect().top < 0) element.parentElement?.scrollIntoView();
    },
    focus: (row) => focusPlace(view?.rows.indexOf(row) ?? -1),
    arrived: (rows) => {
      const known = new Set(rows);
      for (const [place, tile] of tiles) if (view && known.has(view.rows[place]!)) showPicture(tile, view.rows[place]!);
    },
  };
}

function layoutOf(width: number): Layout {
  const columns = Math.max(2, Math.floor((width + GAP) / (NARROWEST + GAP)));
  const tile = Math.floor((width - (columns - 1) * GAP) / columns);
  return { columns, width: tile, height: tile + CAPTION + GAP };
}

/** A picture's tile: its frame is empty until the thumbnail has come. */
function tileOf({ columns }: View, row: number, { run, go }: Context, place: number, all: number): HTMLElement {
  const [truth, said, p] = [columns.truth[row]!, columns.said[row]!, columns.scores[row]!];
  const source = run.sources[columns.sources[row]!]!;
  const kind = said === NONE ? "none" : said === truth ? "right" : "wrong";
  return h(
    "div",
    { class: "tile", role: "listitem", "aria-posinset": place + 1, "aria-setsize": all, "data-place": place },
    h(
      "button",
      { type: "button", class: kind, "data-row": row, click: () => go({ picture: row }) },
      h("span", { class: "frame" }),
      h("span", { class: "kind" }, h("b", {}, t.kind(truth, said)), h("span", { class: "p" }, t.p(p, columns.otherScores?.[row] ?? null))),
      h("span", { class: "truth" }, h("i", { class: truth ? "generated" : "photograph" }), `${t.truth[truth]} · ${source.name}`),
    ),
  );
}
