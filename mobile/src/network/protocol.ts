/** What the page and the engine's worker say to each other. */

import type { BadReason, PictureFacts } from "../picture/facts";
import type { Window, WindowsWanted } from "../picture/windows";
import type { FileStatements } from "../picture/statements";
import type { Detection } from "./decision";

/** Where a network is computed: WebAssembly on one CPU thread, or the graphics processor. */
export type Provider = "wasm" | "webgpu";

/** RGB bytes, upright, row by row. */
export interface Picture {
  readonly pixels: Uint8Array;
  readonly height: number;
  readonly width: number;
}

export type Request =
  | { readonly kind: "open"; readonly key: string; readonly provider: Provider; readonly model: ArrayBuffer }
  | { readonly kind: "decode"; readonly file: Blob; readonly wanted: readonly WindowsWanted[] }
  | { readonly kind: "run"; readonly key: string; readonly picture: Picture };

export interface OpenReply {
  readonly openMs: number;
}

export interface DecodeReply extends Picture {
  readonly facts: PictureFacts;
  readonly says: FileStatements;
  readonly fullSides: readonly [number, number];
  readonly windows: readonly Window[];
  readonly decodeMs: number;
  readonly reduceMs: number;
}

/** `logits` are uncalibrated, as many as there are classes. */
export interface RunReply extends Detection {
  readonly logits: Float32Array;
  readonly graphMs: number;
}

export interface Failure {
  readonly name: "BadPicture" | "BadModel";
  readonly reason: BadReason | "";
  readonly detail: string;
}

export type Reply =
  | { readonly id: number; readonly value: OpenReply | DecodeReply | RunReply }
  | { readonly id: number; readonly failure: Failure };
