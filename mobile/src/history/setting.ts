/** Whether answers are kept: yes, until the user says otherwise. */

const KEY = "telltale-keep-history";

export function keepsHistory(): boolean {
  return localStorage.getItem(KEY) !== "no";
}

export function keepHistory(keep: boolean): void {
  localStorage.setItem(KEY, keep ? "yes" : "no");
}
