/** The card of a published network: what an answer needs of it (`tasks/evaluation/cards.py`). */

/** Something that telltale itself published is not what it should be. */
export class BadModel extends Error {
  override readonly name = "BadModel";
}

/** A share of `n` test pictures with its 95 % interval, all in 0..1; null where there were too few. */
export interface Rate {
  readonly value: number | null;
  readonly low: number | null;
  readonly high: number | null;
  readonly n: number;
}

/** How often a network was wrong in one kind of picture. */
export interface CellErrors {
  readonly resolution: string;
  readonly jpegQuality: number | null;
  readonly falseAlarms: Rate;
  readonly missed: Rate;
}

/** A small picture (its pixels row by row, RGB, in base64) and what the network answers to it. */
export interface Reference {
  readonly height: number;
  readonly width: number;
  readonly pixels: string;
  readonly probabilities: readonly number[];
  readonly tolerance: number;
}

export const SCORES = ["max-probability", "energy", "distance"] as const;
export type ScoreName = (typeof SCORES)[number];

export interface Card {
  readonly name: string;
  readonly sha256: string;
  /** `real` first, then the generators. */
  readonly classes: readonly string[];
  /** Side in pixels of `native` pictures. */
  readonly canonicalSide: number;
  readonly fakeThresholds: Readonly<Record<string, number>>;
  readonly rejection: { readonly score: ScoreName; readonly threshold: number; readonly kept: number | null };
  readonly errorRates: readonly CellErrors[];
  readonly selfTest: Reference;
  /** What each class is, in words. */
  readonly sources: Readonly<Record<string, string>>;
  /** The whole card, for what is only shown. */
  readonly raw: Readonly<Record<string, unknown>>;
}

/**
 * Read a card.
 *
 * @throws BadModel naming the first field that is not as expected
 */
export function readCard(json: unknown): Card {
  const card = new Fields(json, "");
  const decision = card.fields("decision");
  const rejection = decision.fields("rejection");
  const classes = card.list("classes").map((name) => String(name));
  const rates = card.list("error_rates").map((cell, index) => cellErrors(new Fields(cell, `error_rates.${index}`)));
  if (classes.length < 2) throw wrong("classes", "fewer than two");
  if (rates.length === 0) throw wrong("error_rates", "none");
  const score = rejection.text("score");
  if (!isScore(score)) throw wrong("decision.rejection.score", score);
  const thresholds = decision.fields("fake_thresholds");
  return {
    name: card.text("name"),
    sha256: card.text("sha256"),
    classes,
    canonicalSide: card.number("canonical_side"),
    fakeThresholds: Object.fromEntries(thresholds.names().map((name) => [name, thresholds.number(name)])),
    rejection: { score, threshold: rejection.number("threshold"), kept: rejection.numberOrNull("kept") },
    errorRates: rates,
    selfTest: reference(card.fields("self_test")),
    sources: card.has("sources") ? card.fields("sources").texts() : {},
    raw: card.all(),
  };
}

/** A resolution's side in pixels. */
export function sideOf(card: Card, resolution: string): number {
  return resolution === "native" ? card.canonicalSide : Number(resolution);
}

function isScore(name: string): name is ScoreName {
  return (SCORES as readonly string[]).includes(name);
}

function cellErrors(cell: Fields): CellErrors {
  return {
    resolution: cell.name("resolution"),
    jpegQuality: cell.numberOrNull("jpeg_quality"),
    falseAlarms: rate(cell.fields("false_alarms")),
    missed: rate(cell.fields("missed")),
  };
}

function reference(fields: Fields): Reference {
  return {
    height: fields.number("height"),
    width: fields.number("width"),
    pixels: fields.text("pixels"),
    probabilities: fields.list("probabilities").map(Number),
    tolerance: fields.number("tolerance"),
  };
}

function rate(fields: Fields): Rate {
  return {
    value: fields.numberOrNull("value"),
    low: fields.numberOrNull("low"),
    high: fields.numberOrNull("high"),
    n: fields.number("n"),
  };
}

function wrong(place: string, got: unknown): BadModel {
  return new BadModel(`not the card of an evaluated network: ${place}: ${JSON.stringify(got) ?? "missing"}`);
}

/** An object of unknown JSON whose fields are checked when they are read. */
class Fields {
  private readonly values: Record<string, unknown>;

  constructor(
    value: unknown,
    private readonly place: string,
  ) {
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw wrong(place || "the file", value);
    this.values = value as Record<string, unknown>;
  }

  all = () => this.values;
  has = (name: string) => this.values[name] !== undefined;
  names = () => Object.keys(this.values);
  fields = (name: string) => new Fields(this.values[name], this.at(name));

  text(name: string): string {
    const value = this.values[name];
    if (typeof value !== "string") throw wrong(this.at(name), value);
    return value;
  }

  texts(): Record<string, string> {
    return Object.fromEntries(this.names().map((name) => [name, this.text(name)]));
  }

  /** A text, or a number that stands for itself: resolutions are `"native"` or a side. */
  name(name: string): string {
    const value = this.values[name];
    if (typeof value !== "string" && typeof value !== "number") throw wrong(this.at(name), value);
    return String(value);
  }

  number(name: string): number {
    const value = this.values[name];
    if (typeof value !== "number") throw wrong(this.at(name), value);
    return value;
  }

  numberOrNull(name: string): number | null {
    return this.values[name] === null || this.values[name] === undefined ? null : this.number(name);
  }

  list(name: string): unknown[] {
    const value = this.values[name];
    if (!Array.isArray(value)) throw wrong(this.at(name), value);
    return value;
  }

  private at = (name: string) => (this.place ? `${this.place}.${name}` : name);
}
