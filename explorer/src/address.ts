/** The address, which follows what is looked at. */

import { format, type State } from "./state";

/** Browsers refuse an address that changes many times a second, as it would while a threshold is dragged; milliseconds. */
const PAUSE = 250;

export class Address {
  private late: ReturnType<typeof setTimeout> | undefined;
  private awaited: State | null = null;

  /** A new step of the history; the one that is left keeps what it came to. */
  push(state: State): void {
    this.settle();
    history.pushState(null, "", format(state));
  }

  /** The same step of the history, soon. */
  replace(state: State): void {
    this.awaited = state;
    this.late ??= setTimeout(() => this.settle(), PAUSE);
  }

  /** What was awaited belongs to a step that has been left. */
  forget(): void {
    clearTimeout(this.late);
    this.late = undefined;
    this.awaited = null;
  }

  private settle(): void {
    if (this.awaited) history.replaceState(null, "", format(this.awaited));
    this.forget();
  }
}
