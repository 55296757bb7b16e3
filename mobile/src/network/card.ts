/** The card of a published network: what an answer needs of it (`tasks/evaluation/cards.py`). */

import { texts } from "../texts";

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
  /** For example `64/q20` or `native/webp-50`; to be shown, not to be read. */
  readonly name: string;
  readonly resolution: string;
  readonly jpegQuality: number | null;
  /** Whether a file tells that its picture is of this kind, by its size and its own JPEG quality. */
  readonly isComparable: boolean;
  /** Photographs called generated, of all photographs. */
  readonly falseAlarms: Rate;
  /** Generated pictures called photographs, of all generated ones. */
  readonly missed: Rate;
  /** The same of generators that were left out of the training. */
  readonly missedUnknown: Rate | null;
  /** What got no answer, of each class. */
  readonly photographsUndecided: Rate | null;
  readonly generatedUndecided: Rate | null;
}

/** The windows of original pixels that a network forms its opinion of, and how the mean of their logits is calibrated. */
export interface Windows {
  readonly count: number;
  /** In pixels. */
  readonly side: number;
  readonly temperature: number;
}

/** A small picture (its pixels row by row, RGB, in base64) and what the network answers to it. */
export interface Reference {
  readonly height: number;
  readonly width: number;
  readonly pixels: string;
  readonly logits: readonly number[];
  readonly probabilities: readonly number[];
  readonly tolerance: number;
}

/** A card that lets pass more than this has no self-test. */
export const LARGEST_TOLERANCE = 1e-2;

export const SCORES = ["max-probability", "energy", "distance"] as const;
export type ScoreName = (typeof SCORES)[number];

/** What this version of the app knows how to read (`CARD_FORMAT` in `tasks/networks/answer.py`). */
const FORMAT = 2;

const MOST_WINDOWS = 25;

/** The one other class of a network that does not tell generators apart. */
export const GENERATED = "generated";

export interface Card {
  readonly name: string;
  /** Whether the network began with random weights: it shows that the app works, not what networks can do. */
  readonly isDemonstration: boolean;
  readonly sha256: string;
  /** `real` first, then the generators. */
  readonly classes: readonly string[];
  /** Side in pixels of `native` pictures. */
  readonly canonicalSide: number;
  readonly fakeThresholds: Readonly<Record<string, number>>;
  /** Where there are any: below these a picture is probably a photograph, and between both nothing is said of it. */
  readonly photographThresholds: Readonly<Record<string, number>>;
  /** Files of other formats were not tested as they are, and have no answer; of a card that names none, all have. */
  readonly formats: readonly string[];
  /** Null where the network is shown whole pictures. */
  readonly windows: Windows | null;
  readonly rejection: { readonly score: ScoreName; readonly threshold: number; readonly kept: number | null };
  readonly errorRates: readonly CellErrors[];
  readonly selfTest: Reference;
  /** What people call each source. */
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
  const format = card.has("format") ? card.whole("format", 1) : 1;
  if (format > FORMAT) throw new BadModel(texts.modelFault.newer);
  const decision = card.fields("decision");
  const rejection = decision.fields("rejection");
  const classes = card.list("classes").map((name) => String(name));
  const rates = card.list("error_rates").map((cell, index) => cellErrors(new Fields(cell, `error_rates.${index}`)));
  if (classes.length < 2) throw wrong("classes", "fewer than two");
  if (!rates.some((cell) => cell.isComparable)) {
    const names = rates.map((cell) => cell.name).join(", ") || "none";
    throw wrong("error_rates", `expected a cell that files can be compared with, uncompressed or JPEG, got only ${names}`);
  }
  const score = rejection.text("score");
  if (!isScore(score)) throw wrong("decision.rejection.score", score);
  const fakeThresholds = decision.fields("fake_thresholds").shares();
  const untested = Object.keys(fakeThresholds).find((name) => !rates.some((cell) => cell.resolution === name));
  if (untested !== undefined) throw wrong(`decision.fake_thresholds.${untested}`, "no tested resolution");
  return {
    name: card.text("name"),
    isDemonstration: beganRandom(card),
    sha256: card.text("sha256"),
    classes,
    canonicalSide: card.whole("canonical_side", 1),
    fakeThresholds,
    photographThresholds: photographThresholds(decision, fakeThresholds),
    formats: card.has("formats") ? card.list("formats").map(String) : [],
    windows: windows(card),
    rejection: {
      score,
      threshold: score === "max-probability" ? rejection.share("threshold") : rejection.number("threshold"),
      kept: rejection.shareOrNull("kept"),
    },
    errorRates: rates,
    selfTest: reference(card.fields("self_test"), classes.length),
    sources: card.has("sources") ? card.fields("sources").texts() : {},
    raw: card.all(),
  };
}

/** A class as people know it. */
export function called(card: Pick<Card, "sources">, name: string): string {
  if (name === "real") return texts.evaluate.photograph;
  return name === GENERATED ? texts.scale.generated : (card.sources[name] ?? name);
}

/** A line for photographs above the one for generated pictures would leave some with both answers. */
function photographThresholds(decision: Fields, fakeThresholds: Readonly<Record<string, number>>): Record<string, number> {
  if (!decision.has("photograph_thresholds")) return {};
  const found = decision.fields("photograph_thresholds").shares();
  for (const [name, threshold] of Object.entries(found)) {
    const fake = fakeThresholds[name];
    const place = `decision.photograph_thresholds.${name}`;
    if (fake === undefined) throw wrong(place, "no resolution of fake_thresholds");
    if (threshold > fake) throw wrong(place, `${threshold} above ${fake} of fake_thresholds`);
  }
  return found;
}

function windows(card: Fields): Windows | null {
  if (!card.has("windows")) return null;
  const [count, temperature] = [card.whole("windows", 1), card.number("temperature")];
  if (count > MOST_WINDOWS) throw wrong("windows", count);
  if (temperature <= 0) throw wrong("temperature", temperature);
  return { count, side: card.whole("side", 1), temperature };
}

/** A `residual` network has no other beginning than random weights, and learns all that it knows from pictures. */
function beganRandom(card: Fields): boolean {
  const { weights, spec } = (card.has("about") ? card.fields("about").all() : {}) as { weights?: unknown; spec?: { kind?: unknown } };
  return typeof weights === "string" && weights.startsWith("random:") && spec?.kind !== "residual";
}

/** A resolution's side in pixels. */
export function sideOf(card: Card, resolution: string): number {
  return resolution === "native" ? card.canonicalSide : Number(resolution);
}

function isScore(name: string): name is ScoreName {
  return (SCORES as readonly string[]).includes(name);
}

/**
 * It has either a `jpeg_quality` (null: nothing happened to the pictures) or a `perturbation`, of which no more is read
 * than its kind. In cards from before there were other perturbations than JPEG, cells have no names.
 */
function cellErrors(cell: Fields): CellErrors {
  const [resolution, jpegQuality] = [cell.name("resolution"), cell.numberOrNull("jpeg_quality")];
  const isComparable = !cell.has("perturbation");
  const hasQuality = cell.all()["jpeg_quality"] !== undefined;
  if (isComparable !== hasQuality) throw wrong(cell.at("perturbation"), "expected either jpeg_quality or perturbation");
  if (!isComparable) cell.fields("perturbation").text("kind");
  const name = cell.has("cell") ? cell.text("cell") : "";
  if (!isComparable && !name) throw wrong(cell.at("cell"), "expected the cell's name beside a perturbation");
  return {
    name: name || `${resolution}/${jpegQuality === null ? "none" : `q${jpegQuality}`}`,
    resolution,
    jpegQuality,
    isComparable,
    falseAlarms: rate(cell.fields("false_alarms")),
    missed: rate(cell.fields("missed")),
    missedUnknown: rateOrNull(cell, "missed_unknown"),
    photographsUndecided: rateOrNull(cell, "photographs_undecided"),
    generatedUndecided: rateOrNull(cell, "generated_undecided"),
  };
}

function rateOrNull(cell: Fields, name: string): Rate | null {
  return cell.has(name) ? rate(cell.fields(name)) : null;
}

function reference(fields: Fields, classes: number): Reference {
  const tolerance = fields.number("tolerance");
  if (!(tolerance > 0 && tolerance <= LARGEST_TOLERANCE)) throw wrong("self_test.tolerance", tolerance);
  const [height, width, pixels] = [fields.whole("height", 1), fields.whole("width", 1), fields.text("pixels")];
  const bytes = bytesOf(pixels);
  if (bytes !== height * width * 3) throw wrong("self_test.pixels", `${bytes} bytes for ${height} x ${width} pixels`);
  return {
    height,
    width,
    pixels,
    logits: answers(fields, "logits", classes, () => true),
    probabilities: answers(fields, "probabilities", classes, isShare),
    tolerance,
  };
}

/** As many finite numbers as there are classes. */
function answers(fields: Fields, name: string, classes: number, fits: (value: number) => boolean): number[] {
  const values = fields.list(name);
  if (values.length !== classes) throw wrong(`self_test.${name}`, `${values.length} for ${classes} classes`);
  return values.map((value, index) => {
    if (typeof value !== "number" || !Number.isFinite(value) || !fits(value)) throw wrong(`self_test.${name}.${index}`, value);
    return value;
  });
}

/** How many bytes a text in base64 holds; none where it is not base64. */
function bytesOf(base64: string): number {
  try {
    return atob(base64).length;
  } catch {
    return 0;
  }
}

function isShare(value: number): boolean {
  return value >= 0 && value <= 1;
}

function rate(fields: Fields): Rate {
  return {
    value: fields.shareOrNull("value"),
    low: fields.shareOrNull("low"),
    high: fields.shareOrNull("high"),
    n: fields.whole("n", 0),
  };
}

function wrong(place: string, got: unknown): BadModel {
  const missing = got === undefined; // which JSON.stringify has no text for
  const shown = missing ? "missing" : typeof got === "number" ? String(got) : JSON.stringify(got);
  return new BadModel(`not the card of an evaluated network: ${place}: ${shown}`);
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
  has = (name: string) => this.values[name] !== undefined && this.values[name] !== null;
  names = () => Object.keys(this.values);
  fields = (name: string) => new Fields(this.values[name], this.at(name));
  at = (name: string) => (this.place ? `${this.place}.${name}` : name);

  text(name: string): string {
    const value = this.values[name];
    if (typeof value !== "string") throw wrong(this.at(name), value);
    return value;
  }

  texts(): Record<string, string> {
    return Object.fromEntries(this.names().map((name) => [name, this.text(name)]));
  }

  shares(): Record<string, number> {
    return Object.fromEntries(this.names().map((name) => [name, this.share(name)]));
  }

  /** A text, or a number that stands for itself: resolutions are `"native"` or a side. */
  name(name: string): string {
    const value = this.values[name];
    if (typeof value !== "string" && typeof value !== "number") throw wrong(this.at(name), value);
    return String(value);
  }

  /** A finite one: JSON's 1e999 is read as infinity. */
  number(name: string): number {
    const value = this.values[name];
    if (typeof value !== "number" || !Number.isFinite(value)) throw wrong(this.at(name), value);
    return value;
  }

  whole(name: string, least: number): number {
    const value = this.number(name);
    if (!Number.isInteger(value) || value < least) throw wrong(this.at(name), value);
    return value;
  }

  /** A probability, a threshold on one or a rate: in 0..1. */
  share(name: string): number {
    const value = this.number(name);
    if (!isShare(value)) throw wrong(this.at(name), value);
    return value;
  }

  shareOrNull(name: string): number | null {
    return this.numberOrNull(name) === null ? null : this.share(name);
  }

  numberOrNull(name: string): number | null {
    return this.has(name) ? this.number(name) : null;
  }

  list(name: string): unknown[] {
    const value = this.values[name];
    if (!Array.isArray(value)) throw wrong(this.at(name), value);
    return value;
  }
}
