/** What is known of one picture. */

import { h } from "../../../mobile/src/dom";
import type { TextColumn } from "../data/collection";
import { texts } from "../texts";
import type { View } from "../view";
import type { Context } from "./context";

const t = texts.picture;

/** Its name, empty if it has none, and its facts as the content of a `dl`. Throws a Problem. */
export async function factsOf({ run, collection }: Context, { columns }: View, row: number): Promise<{ name: string; facts: HTMLElement[] }> {
  const names = ["width", "height", "bytes", "format", "jpeg_quality"] as const;
  const [words, ...numbers] = await Promise.all([
    collection.textsOf(row),
    ...names.map(async (name) => (await collection.integers(name))[row]!),
  ]);
  const [width, height, bytes, format, quality] = numbers as [number, number, number, number, number];
  const source = run.sources[columns.sources[row]!]!;
  const inWords = (columns_: readonly TextColumn[]) => columns_.map((name) => [t.fact[name], words[name]] as const);
  const known: (readonly [string, string])[] = [
    [t.fact.source, source.name],
    [t.fact.of, source.of === source.name ? "" : source.of],
    [t.fact.size, t.pixels(width, height, bytes)],
    [t.fact.format, run.formats[format] ?? ""],
    [t.fact.jpeg_quality, quality < 0 ? "" : String(quality)],
    ...inWords(["prompt", "caption", "categories", "licence"]),
    [t.fact.fold, String(columns.folds[row])],
    ...inWords(["file", "group_id", "sha256"]),
  ];
  const facts = known.filter(([, value]) => value !== "").flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
  return { name: words.image_id, facts };
}
