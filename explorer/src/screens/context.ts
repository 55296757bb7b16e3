/** What every part of the page works with. */

import type { Collection } from "../data/collection";
import type { Host } from "../data/host";
import type { Run } from "../data/run";
import type { Thumbnails } from "../data/thumbnails";
import type { State } from "../state";
import type { View } from "../view";

export interface Context {
  readonly run: Run;
  readonly collection: Collection;
  readonly host: Host;
  /** Show another state; `replace` leaves no step in the history. */
  readonly go: (change: Partial<State>, replace?: boolean) => void;
  readonly report: (error: unknown) => void;
}

export interface Part {
  readonly element: HTMLElement;
  readonly show: (view: View) => void;
}

/** Thumbnails are shared by the grid and the open picture. */
export interface Pictures {
  /** Null until the first pictures are shown. */
  thumbnails: Thumbnails | null;
}
