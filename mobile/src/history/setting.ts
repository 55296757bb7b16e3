/** Whether answers are kept: yes, until the user says otherwise. */

import { keepSetting, setting } from "../settings";

const KEY = "telltale-keep-history";

export function keepsHistory(): boolean {
  return setting(KEY) !== "no";
}

export function keepHistory(keep: boolean): void {
  keepSetting(KEY, keep ? "yes" : "no");
}
