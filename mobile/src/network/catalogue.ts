/** The published networks: which there are, their files kept by digest, and which is open on which provider. */

import { BadPicture, TooSmallForWindows } from "../picture/facts";
import type { WindowsWanted } from "../picture/windows";
import { keepSetting, setting } from "../settings";
import { texts } from "../texts";
import { BadModel, readCard, type Card } from "./card";
import { answer, type Answer } from "./decision";
import { Engine } from "./engine";
import { opinionOf, type Opinion } from "./opinion";
import type { DecodeReply, Picture, Provider, RunReply } from "./protocol";
import { compareWithCard, type SelfTest } from "./self-test";

/** One line of `models/index.json`. */
export interface Listed {
  readonly name: string;
  readonly file: string;
  readonly card: string;
  readonly sha256: string;
  readonly bytes: number;
}

export interface Model {
  readonly listed: Listed;
  readonly card: Card;
}

export interface Opened {
  readonly provider: Provider;
  readonly openMs: number;
  readonly selfTest: SelfTest;
}

export interface Answered {
  readonly answer: Answer;
  readonly opinion: Opinion;
}

const FOLDER = "models/";
const FILES = "telltale-models";
const DIGEST_SHOWN = 12;
const KNOWN = "telltale-known-models";

export class Catalogue {
  provider: Provider = "wasm";
  private readonly engine = new Engine(() => this.opened.clear());
  private readonly opened = new Map<string, Promise<Opened>>();

  /** Called when a network's file could not be kept on the device. */
  onFull: () => void = () => undefined;

  /** `problems` says of networks that are listed why they are not among the models. */
  private constructor(
    readonly models: readonly Model[],
    readonly problems: readonly BadModel[],
  ) {}

  /**
   * Read the list of networks and their cards.
   *
   * @throws BadModel there is none that can be used
   */
  static async read(): Promise<Catalogue> {
    const list: unknown = await json(`${FOLDER}index.json`);
    if (!Array.isArray(list) || list.length === 0) throw new BadModel("models/index.json lists no network");
    const read = await Promise.all(list.map((entry: Listed) => modelOf(entry).catch(problemOf)));
    const models = read.filter((each): each is Model => !(each instanceof BadModel));
    const problems = read.filter((each) => each instanceof BadModel);
    if (models.length === 0) throw problems[0]!;
    return new Catalogue(models, problems);
  }

  named(name: string | null): Model {
    return this.models.find((model) => model.listed.name === name) ?? this.models[0]!;
  }

  /** Open a network on the provider of the moment, once, and compare it with its card. */
  open(model: Model): Promise<Opened> {
    const key = this.key(model);
    const known = this.opened.get(key);
    if (known) return known;
    const opening = this.openNow(model, this.provider);
    this.opened.set(key, opening);
    opening.catch(() => this.opened.delete(key));
    return opening;
  }

  decode(file: Blob): Promise<DecodeReply> {
    return this.engine.decode(file, this.wanted());
  }

  /** What the networks need of a picture's original pixels: any of them may be asked. */
  private wanted(): WindowsWanted[] {
    const counts = new Map<number, number>();
    for (const { card } of this.models) {
      if (card.windows) counts.set(card.windows.side, Math.max(card.windows.count, counts.get(card.windows.side) ?? 0));
    }
    return [...counts].map(([side, count]) => ({ side, count }));
  }

  /**
   * What a network says of a decoded picture.
   *
   * @throws BadPicture it is smaller than the windows that the network looks at
   * @throws BadModel it cannot be fetched, opened or run, or fails its self-test here
   */
  async answer(model: Model, picture: DecodeReply): Promise<Answered> {
    const { selfTest } = await this.open(model);
    if (!selfTest.passed) {
      throw new BadModel(
        "on this device it computes other numbers than it was published with " +
          `(${selfTest.difference.toExponential(1)} apart, at most ${selfTest.tolerance.toExponential(0)} expected), ` +
          "so it would be wrong about pictures too. Choose another model, or another way of computing under About",
      );
    }
    const opinion = await this.opinion(model, picture);
    return { answer: answer(model.card, picture.facts, opinion), opinion };
  }

  private async opinion(model: Model, picture: DecodeReply): Promise<Opinion> {
    const { windows } = model.card;
    if (!windows) return opinionOf([await this.run(model, picture)], [null], 1);
    const shown = picture.windows.filter(({ side }) => side === windows.side).slice(0, windows.count);
    if (shown.length === 0) throw new TooSmallForWindows(windows.side, picture.fullSides);
    const found: RunReply[] = [];
    for (const { pixels, side } of shown) found.push(await this.run(model, { pixels, height: side, width: side }));
    return opinionOf(found, shown, windows.temperature);
  }

  /** Whether a network's file is on the device. */
  async isKept(model: Model): Promise<boolean> {
    return (await (await caches.open(FILES)).match(keyOfFile(model.listed))) !== undefined;
  }

  /** Fetch a network's file unless it is here; it can be used offline from then on. */
  async keep(model: Model): Promise<void> {
    if (!(await this.isKept(model))) await this.fileOf(model.listed);
  }

  /** Drop files that are listed no more, and name the networks that are new or changed since the last visit. */
  async noticeChanges(): Promise<string[]> {
    const files = await caches.open(FILES);
    const listed = new Set(this.models.map((model) => new URL(keyOfFile(model.listed), location.href).href));
    for (const request of await files.keys()) if (!listed.has(request.url)) await files.delete(request);
    const before = setting(KNOWN);
    const now = Object.fromEntries(this.models.map(({ listed: each }) => [each.name, each.sha256]));
    keepSetting(KNOWN, JSON.stringify(now));
    if (before === null) return [];
    const known = JSON.parse(before) as Record<string, string>;
    return Object.keys(now).filter((name) => known[name] !== now[name]);
  }

  private async openNow(model: Model, provider: Provider): Promise<Opened> {
    const bytes = await this.fileOf(model.listed);
    const { openMs } = await this.engine.open(this.key(model, provider), provider, bytes).catch(newerOf);
    return { provider, openMs, selfTest: await this.selfTest(model, provider) };
  }

  private async selfTest(model: Model, provider: Provider): Promise<SelfTest> {
    const reference = model.card.selfTest;
    const pixels = Uint8Array.from(atob(reference.pixels), (character) => character.charCodeAt(0));
    const found = await this.run(model, { pixels, height: reference.height, width: reference.width }, provider);
    return compareWithCard(reference, found);
  }

  /** A network's bytes, from the device or else from the site, verified either way; kept under their digest. */
  private async fileOf(listed: Listed): Promise<ArrayBuffer> {
    const files = await caches.open(FILES);
    const key = keyOfFile(listed);
    const kept = await files.match(key);
    if (kept) {
      const bytes = await kept.arrayBuffer();
      if ((await sha256(bytes)) === listed.sha256) return bytes;
      await files.delete(key);
    }
    const bytes = await (await reached(FOLDER + listed.file, { cache: "no-cache" })).arrayBuffer();
    const digest = await sha256(bytes);
    if (digest !== listed.sha256) throw new BadModel(this.faultOf(listed, bytes.byteLength, digest));
    try {
      await files.put(key, new Response(bytes.slice(0), { headers: { "content-type": "application/octet-stream" } }));
    } catch {
      this.onFull();
    }
    return bytes;
  }

  /** What is wrong with a file that is not the listed one: it is another network, or the same with other bytes. */
  private faultOf({ file, sha256: expected, bytes }: Listed, length: number, digest: string): string {
    const other = this.models.find(({ listed }) => listed.sha256 === digest);
    if (other) return texts.modelFault.other(file, other.listed.name);
    const say = length === bytes ? texts.modelFault.damaged : texts.modelFault.notItsCards;
    return say(file, expected.slice(0, DIGEST_SHOWN), digest.slice(0, DIGEST_SHOWN));
  }

  private run(model: Model, picture: Picture, provider = this.provider): Promise<RunReply> {
    const { pixels, height, width } = picture;
    return this.engine.run(this.key(model, provider), { pixels, height, width });
  }

  private key(model: Model, provider = this.provider): string {
    return `${provider}:${model.listed.sha256}`;
  }
}

/** A network's name as people see it: one of random weights is called a demonstration. */
export function nameOf({ listed, card }: Model): string {
  return texts.modelName(listed.name, card.isDemonstration);
}

/** Errors that are for the user to read; others are faults of the program. */
export function isExpected(error: unknown): error is BadPicture | BadModel {
  return error instanceof BadPicture || error instanceof BadModel;
}

/** The runtime's words for a network that is newer than itself, in a person's. */
function newerOf(error: unknown): never {
  const isNewer = error instanceof BadModel && /unsupported model ir version|opset|not a registered function\/op/i.test(error.message);
  throw isNewer ? new BadModel(texts.modelFault.newer) : error;
}

/** @throws BadModel its card cannot be read, or is of another network */
async function modelOf(entry: Listed): Promise<Model> {
  const card = readCard(await json(FOLDER + entry.card));
  if (card.sha256 !== entry.sha256) throw new BadModel(texts.modelFault.card(entry.card, entry.file));
  return { listed: entry, card };
}

/** What keeps one network from being used keeps no other from it. */
function problemOf(error: unknown): BadModel {
  if (error instanceof BadModel) return error;
  throw error;
}

async function json(place: string): Promise<unknown> {
  const response = await reached(place, { cache: "no-cache" });
  try {
    return await response.json();
  } catch {
    throw new BadModel(`${place} is not JSON`);
  }
}

async function reached(place: string, options?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(place, options);
  } catch {
    throw new BadModel(`${place} cannot be reached, and is not on this device`);
  }
  if (!response.ok) throw new BadModel(`${place} cannot be fetched (HTTP ${response.status})`);
  return response;
}

function keyOfFile(listed: Listed): string {
  return `models/by-digest/${listed.sha256}`;
}

async function sha256(bytes: ArrayBuffer): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
