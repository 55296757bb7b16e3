/** What every screen works with. */

import type { Catalogue } from "../network/catalogue";

export interface Context {
  readonly catalogue: Catalogue;
  /** Tell of something that went wrong, in words, until the next one. */
  readonly report: (message: string) => void;
}

export interface Screen {
  readonly element: HTMLElement;
  /** Called each time it comes into view. */
  readonly shown?: () => void;
}
