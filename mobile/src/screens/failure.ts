/** Errors in words. */

import { BadModel } from "../network/card";
import { BadPicture, TooSmallForWindows } from "../picture/facts";
import { texts } from "../texts";

export function inWords(error: unknown): string {
  if (error instanceof TooSmallForWindows) return texts.tooSmallForWindows(error.side, error.sides);
  if (error instanceof BadPicture) return texts.badPicture[error.reason];
  if (error instanceof BadModel) return texts.badModel(error.message);
  return texts.fault(error instanceof Error ? error.message : String(error));
}
