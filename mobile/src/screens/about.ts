/** About: what the app does and cannot do, its models with their self-tests, and where it computes. */

import { h } from "../dom";
import { called } from "../network/card";
import { nameOf, type Model } from "../network/catalogue";
import { megabytes } from "../numbers";
import { texts } from "../texts";
import type { Context, Screen } from "./context";
import { table } from "./evaluate";
import { inWords } from "./failure";

const t = texts.about;

export function aboutScreen(context: Context): Screen {
  const { catalogue } = context;
  const models = catalogue.models.map((model) => modelCard(context, model));
  const element = h(
    "section",
    { class: "screen", "aria-labelledby": "about-title" },
    h("div", { class: "lead" }, h("h1", { id: "about-title", tabindex: "-1" }, t.title), h("p", {}, t.lead)),
    h("div", { class: "card" }, h("h2", {}, t.limitsTitle), h("ul", {}, ...t.limits.map((limit) => h("li", {}, limit)))),
    h("div", { class: "card" }, h("h2", {}, t.privacyTitle), h("p", {}, t.privacy)),
    h("h2", {}, t.modelsTitle),
    ...models.map(({ element: card }) => card),
    computing(context),
    h("div", { class: "card" }, h("h2", {}, t.picturesTitle), h("p", {}, t.pictures)),
    h(
      "div",
      { class: "card" },
      h("h2", {}, t.licencesTitle),
      h("p", {}, t.licences, " ", h("a", { href: "licences.txt" }, "licences.txt")),
      h("p", { class: "hint" }, t.version(__APP_VERSION__)),
    ),
  );
  return { element, shown: () => models.forEach(({ shown }) => void shown()) };

  function computing({ report }: Context): HTMLElement {
    const now = h("p", { id: "provider", role: "status" }, t.now(texts.providers[catalogue.provider]));
    const toggle = h("input", { type: "checkbox", id: "use-webgpu", change: () => void change() });
    const change = async () => {
      toggle.disabled = true;
      catalogue.provider = toggle.checked ? "webgpu" : "wasm";
      try {
        await catalogue.open(catalogue.models[0]!);
        now.textContent = t.now(texts.providers[catalogue.provider]);
      } catch (error) {
        catalogue.provider = "wasm";
        toggle.checked = false;
        const message = t.webgpuFailed(error instanceof Error ? error.message : String(error));
        now.textContent = message;
        report(message);
      }
      toggle.disabled = false;
    };
    return h(
      "div",
      { class: "card" },
      h("h2", {}, t.computing),
      now,
      h("label", { class: "check" }, toggle, h("span", {}, t.webgpu)),
      h("p", { class: "hint" }, t.webgpuHint),
    );
  }
}

function modelCard({ catalogue, report }: Context, model: Model): { element: HTMLElement; shown: () => Promise<void> } {
  const { card, listed } = model;
  const kept = h("dd", {});
  const keep = h("button", { class: "button", type: "button", hidden: true, click: () => void keepIt() }, t.keep);
  const outcome = h("p", { class: "outcome", role: "status" });
  const test = h("button", { class: "button", type: "button", "data-self-test": listed.name, click: () => void testIt() }, t.selfTest);

  async function keepIt(): Promise<void> {
    try {
      await catalogue.keep(model); // which tells where there is no room
    } catch (error) {
      report(inWords(error));
    }
    await shown();
  }

  async function testIt(): Promise<void> {
    outcome.className = "outcome";
    outcome.textContent = t.selfTestRunning;
    try {
      const { selfTest, provider } = await catalogue.open(model);
      const where = texts.providers[provider];
      outcome.classList.add(selfTest.passed ? "passed" : "failed");
      outcome.textContent = selfTest.passed
        ? t.selfTestPassed(selfTest.difference, where)
        : t.selfTestFailed(selfTest.difference, selfTest.tolerance, where);
    } catch (error) {
      outcome.classList.add("failed");
      outcome.textContent = inWords(error);
    }
    await shown();
  }

  async function shown(): Promise<void> {
    const here = await catalogue.isKept(model);
    kept.textContent = here ? t.yes : t.notYet;
    keep.hidden = here;
  }

  const macs = card.raw["macs"];
  const rows: [string, HTMLElement | string][] = [
    [t.size, megabytes(listed.bytes)],
    ...(typeof macs === "number" ? ([[t.operations, t.macs(macs)]] as [string, string][]) : []),
    [t.knows, [texts.about.photographs, ...card.classes.slice(1).map((name) => called(card, name))].join("; ")],
    [t.digest, h("code", {}, listed.sha256)],
  ];
  const element = h(
    "div",
    { class: "card model" },
    h("h3", {}, nameOf(model)),
    card.isDemonstration && h("p", { class: "warning" }, texts.demonstrationMeans),
    h(
      "dl",
      { class: "facts" },
      ...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]),
      h("dt", {}, t.kept),
      kept,
    ),
    h("div", { class: "buttons" }, test, keep),
    outcome,
    h(
      "details",
      {},
      h("summary", {}, t.errorTable),
      errorTable(model),
      card.errorRates.some((cell) => !cell.isComparable) && h("p", { class: "hint" }, t.neverNearest),
    ),
    card.raw["about"] !== undefined &&
      h("details", {}, h("summary", {}, t.training), h("pre", { tabindex: "0" }, JSON.stringify(card.raw["about"], null, 2))),
  );
  return { element, shown };
}

function errorTable({ card, listed }: Model): HTMLElement {
  const columns = t.errorColumns;
  const optional = (["missedUnknown", "photographsUndecided", "generatedUndecided"] as const).filter((name) => card.errorRates.some((cell) => cell[name]));
  return table(
    "errors",
    `${t.errorTable}: ${listed.name}`,
    [columns.kind, columns.falseAlarms, columns.missed, ...optional.map((name) => columns[name])],
    card.errorRates.map((cell) => {
      const rates = [cell.falseAlarms, cell.missed, ...optional.map((name) => cell[name])];
      return [cell.name, ...rates.map((rate) => (rate ? t.rateIn(rate) : "–"))];
    }),
  );
}
