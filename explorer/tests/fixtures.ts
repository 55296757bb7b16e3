/** The built page with a made-up run and Python's figures of it (`tests/integration/explorer_fixtures.py`). */

import { existsSync, readFileSync } from "node:fs";
import { resolve } from "node:path";

export const SITE = resolve(process.env["TELLTALE_EXPLORER"] ?? ".made/site");

export interface Expected {
  /** By `cell detector mix`. */
  readonly figures: Record<
    string,
    {
      /** Rows, surest first. */
      readonly false_alarms: readonly number[];
      readonly missed: number;
      readonly right: number;
      readonly balanced_accuracy: number;
      readonly auroc: number;
      readonly at_half: { readonly false_alarms: number; readonly balanced_accuracy: number };
    }
  >;
  /** Of one picture, p(generated) by cell and detector. */
  readonly opened: { readonly row: number; readonly p: Record<string, Record<string, number>> };
  /** The SVM against the network, by cell, in the mix `combined`. */
  readonly paired: Record<string, { readonly first: number; readonly second: number; readonly p: number }>;
}

export function expected(): Expected {
  const file = `${SITE}/expected.json`;
  if (!existsSync(file)) throw new Error(`missing ${file}: run \`make explorer-test\`, which writes it`);
  return JSON.parse(readFileSync(file, "utf8")) as Expected;
}
