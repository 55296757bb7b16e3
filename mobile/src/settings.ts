/** What the app remembers from visit to visit, in the browser's local storage, where there is room for it. */

export function setting(key: string): string | null {
  return localStorage.getItem(key);
}

export function keepSetting(key: string, value: string): void {
  try {
    localStorage.setItem(key, value);
  } catch {
    // No room: the choice holds for this visit.
  }
}
