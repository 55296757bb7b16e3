/** Fields with their labels. */

import { h } from "../../../mobile/src/dom";

export interface Choice {
  readonly value: string;
  readonly words: string;
}

/** A labelled select; `groups` are options under a heading, without one where it is null. */
export function choice(
  id: string,
  label: string,
  groups: readonly (readonly [string | null, readonly Choice[]])[],
  chosen: (value: string) => void,
): { element: HTMLElement; select: HTMLSelectElement } {
  const option = ({ value, words }: Choice) => h("option", { value }, words);
  const select = h(
    "select",
    { id, change: () => chosen(select.value) },
    ...groups
      .filter(([, options]) => options.length > 0)
      .flatMap(([heading, options]) => (heading === null ? options.map(option) : [h("optgroup", { label: heading }, ...options.map(option))])),
  );
  return { element: h("label", { class: "field" }, h("span", {}, label), select), select };
}
