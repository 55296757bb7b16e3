/** A closer look that the run has of some pictures: their views in cells, and the maps of networks. */

import type { Places } from "./thumbnails";

export interface ViewFiles {
  /** Of data/views.parquet. */
  readonly rows: number;
  /** How many pictures have views. */
  readonly pictures: number;
}

/** One small picture, `at` a row of data/views.parquet: of a cell, or of a network that is a detector; -1 of none. */
export interface SmallPicture {
  readonly at: number;
  readonly cell: number;
  readonly detector: number;
}

export class ShownViews {
  constructor(
    private readonly pictures: Int32Array,
    private readonly cells: Int32Array,
    private readonly detectors: Int32Array,
    readonly places: Places,
  ) {}

  /** Those of one picture, in the run's order; empty where it has none. */
  of(picture: number): SmallPicture[] {
    const found: SmallPicture[] = [];
    this.pictures.forEach((each, at) => {
      if (each === picture) found.push({ at, cell: this.cells[at]!, detector: this.detectors[at]! });
    });
    return found;
  }
}
