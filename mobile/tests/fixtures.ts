/** Where Python's answers lie (`tests/integration/mobile_fixtures.py`), and the built app. */

import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

export const FIXTURES = resolve(process.env["TELLTALE_FIXTURES"] ?? ".made/fixtures");
export const APP = resolve(process.env["TELLTALE_APP"] ?? ".made/app");

export function fixture(path: string): unknown {
  const file = `${FIXTURES}/${path}`;
  if (!existsSync(file)) throw new Error(`missing ${file}: run \`make mobile-test\`, which writes it`);
  return JSON.parse(readFileSync(file, "utf8"));
}

export function pictureFile(name: string): string {
  return `${FIXTURES}/pictures/${name}`;
}

export interface Expected {
  readonly verdict: string;
  readonly reason: "format" | "unfamiliar" | "between" | null;
  readonly source: string | null;
  readonly pFake: number;
  readonly threshold: number;
  readonly probabilities: Record<string, number>;
  readonly kind: { readonly cell: string };
}

export interface PictureAnswer {
  readonly error?: string;
  readonly facts?: { width: number; height: number; format: string; jpegQuality: number | null };
  readonly answers?: Record<string, Expected>;
  readonly says?: { c2pa: boolean; digital_source_type: string | null; generator_texts: string[]; camera: string | null };
}

export function pictureAnswers(): [string, PictureAnswer][] {
  return Object.entries(fixture("pictures/answers.json") as Record<string, PictureAnswer>);
}
