/** The person's language, and how numbers, sizes and times are written in it; no line breaks before a unit. */

export const LANGUAGES = ["en", "de", "it"] as const;
export type Language = (typeof LANGUAGES)[number];

/** The first of a person's languages that the app speaks; English where it speaks none of them. */
export function spoken(preferred: readonly string[]): Language {
  const wanted = preferred.map((tag) => tag.toLowerCase().split("-")[0]);
  return wanted.map((tag) => LANGUAGES.find((language) => language === tag)).find((language) => language !== undefined) ?? "en";
}

/** English outside of a page, where tools and tests read the texts. */
export const language: Language = "document" in globalThis ? spoken(navigator.languages) : "en";

const UNDER: Readonly<Record<Language, string>> = { en: "under", de: "unter", it: "meno di" };
const OVER: Readonly<Record<Language, string>> = { en: "over", de: "über", it: "più di" };

const whole = new Intl.NumberFormat(language);

export function decimals(digits: number): Intl.NumberFormat {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

/** A share in per cent, except where its rounding would claim certainty. */
export function percent(share: number): string {
  if (share < 0.001) return `${UNDER[language]} ${percentExact(0.001)}`;
  return share > 0.999 ? `${OVER[language]} ${percentExact(0.999)}` : percentExact(share);
}

export function percentExact(share: number): string {
  return `${decimals(1).format(100 * share)}\u00a0%`;
}

export function milliseconds(value: number): string {
  if (value >= 10_000) return `${decimals(1).format(value / 1000)}\u00a0s`;
  return `${decimals(value < 10 ? 1 : 0).format(value)}\u00a0ms`;
}

export function megabytes(bytes: number): string {
  return bytes < 100_000 ? `${decimals(0).format(bytes / 1000)}\u00a0kB` : `${decimals(1).format(bytes / 1e6)}\u00a0MB`;
}

export function count(value: number): string {
  return whole.format(value);
}

export function counted(value: number, one: string, many: string): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function moment(time: number): string {
  return new Date(time).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

/** Whether an answer is so near to the line that this is to be told. */
export function isClose(pFake: number, threshold: number): boolean {
  return Math.abs(pFake - threshold) < 0.05;
}
