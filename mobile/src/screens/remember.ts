/** Keeping what was said of a picture, where the person wants that and there is room. */

import { smallCopy } from "./canvas";
import { addEntry, type Entry } from "../history/records";
import { keepsHistory } from "../history/setting";

/** Large enough to look at again. */
const KEPT_SIDE = 480;

/** Keep an answer with a small copy of its picture; whether there was room for it, or nothing to be kept. */
export async function remember(canvas: HTMLCanvasElement, said: Omit<Entry, "time" | "thumbnail">): Promise<boolean> {
  if (!keepsHistory()) return true;
  const thumbnail = await smallCopy(canvas, KEPT_SIDE);
  if (!thumbnail) return false;
  try {
    await addEntry({ ...said, time: Date.now(), thumbnail });
    return true;
  } catch {
    // No room, or a browser that keeps nothing: the answer stands without.
    return false;
  }
}
