/** What detectors were shown of one picture in every cell, side by side, and where networks look. */

import { h } from "../../../mobile/src/dom";
import { Thumbnails } from "../data/thumbnails";
import type { ShownViews, SmallPicture } from "../data/views";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context } from "./context";

const t = texts.picture;

export interface ViewsPart {
  readonly element: HTMLElement;
  /** Show a picture's views; `isOpen` says whether it is still the one that is looked at. Throws a Problem. */
  readonly fill: (of: View, row: number, isOpen: () => boolean) => Promise<void>;
}

export function viewsPart({ run, collection, host }: Context): ViewsPart {
  const element = h("div", { class: "views" });
  let files: Thumbnails | null = null;

  function filesOf(views: ShownViews): Thumbnails {
    files ??= new Thumbnails(host, views.places, () => showPictures(), "views");
    return files;
  }

  function showPictures(): void {
    for (const frame of element.querySelectorAll<HTMLElement>(".frame")) {
      const url = files?.get(Number(frame.dataset["view"]));
      if (url === undefined || frame.hasChildNodes()) continue;
      frame.classList.toggle("missing", url === null);
      frame.replaceChildren(url === null ? h("span", {}, t.noView) : h("img", { src: url, alt: "" }));
    }
  }

  async function fill(of: View, row: number, isOpen: () => boolean): Promise<void> {
    const views = run.views && (await collection.shownViews(run.views));
    if (!isOpen()) return;
    const found = views?.of(row) ?? [];
    if (!views || found.length === 0) {
      element.replaceChildren(h("p", { class: "hint" }, t.noViews(run.views?.pictures ?? 0)));
      return;
    }
    const maps = found.filter(({ detector }) => detector >= 0);
    element.replaceChildren(
      h("h3", {}, t.views),
      ...rowsOf(found.filter(({ cell }) => cell >= 0)).map((cells) => strip(cells, ({ cell }) => run.cells[cell]!.name, of.cell.name)),
      ...(maps.length > 0 ? [h("h3", {}, t.maps), strip(maps, ({ detector }) => run.detectors[detector]!.title, of.detector.title)] : []),
      h("p", { class: "hint" }, maps.length > 0 ? `${t.reduced} ${t.mapLegend}` : t.reduced),
    );
    filesOf(views).want("picture", found.map(({ at }) => at));
    showPictures();
  }

  /** A line for each resolution. */
  function rowsOf(found: readonly SmallPicture[]): SmallPicture[][] {
    const resolutions = [...new Set(run.cells.map(({ resolution }) => resolution))];
    return resolutions.map((each) => found.filter(({ cell }) => run.cells[cell]!.resolution === each)).filter((line) => line.length > 0);
  }

  return { element, fill };
}

function strip(pictures: readonly SmallPicture[], nameOf: (picture: SmallPicture) => string, chosen: string): HTMLElement {
  const figures = pictures.map((picture) => {
    const name = nameOf(picture);
    return h(
      "figure",
      { "aria-current": name === chosen && "true" },
      h("span", { class: "frame", "data-view": picture.at }),
      h("figcaption", {}, name),
    );
  });
  return h("div", { class: "strip" }, ...figures);
}
