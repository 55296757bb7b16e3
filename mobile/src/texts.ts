/** Every text that a person reads, in one place for translation. Numbers are written as `language` says; no line breaks before a unit. */

import type { BadReason } from "./picture/facts";
import type { Answer, Kind } from "./network/decision";
import type { Rate } from "./network/card";
import type { Provider } from "./network/protocol";

export const language = "en";

const decimals = (digits: number) =>
  new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const whole = new Intl.NumberFormat(language);

/** A share in per cent, except where its rounding would claim certainty. */
export function percent(share: number): string {
  if (share < 0.001) return "under 0.1\u00a0%";
  return share > 0.999 ? "over 99.9\u00a0%" : `${decimals(1).format(100 * share)}\u00a0%`;
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

export function moment(time: number): string {
  return new Date(time).toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
}

const counted = (value: number, one: string, many: string) => `${count(value)} ${value === 1 ? one : many}`;

export const texts = {
  name: "telltale",
  tabs: { detect: "Detect", evaluate: "Evaluate", history: "History", about: "About" },
  mainNavigation: "Screens",
  skip: "Skip to the content",

  insecure: "This app needs a secure address (https, or localhost): browsers allow no offline storage elsewhere.",
  start: "Getting ready…",
  startFailed: (detail: string) => `The app could not start: ${detail}.`,
  fault: (detail: string) => `Something went wrong: ${detail}`,

  update: {
    app: "A new version of the app is ready.",
    reload: "Use it now",
    models: (names: readonly string[]) => `New ${names.length === 1 ? "model" : "models"}: ${names.join(", ")}.`,
    dismiss: "Dismiss",
  },

  detect: {
    title: "Photograph or generated?",
    lead: "Check a picture. It stays on this device: nothing is sent anywhere.",
    camera: "Take a photo",
    choose: "Choose a picture",
    another: "Choose another",
    hint: "You can also paste a picture, drop it here, or share it to this app.",
    drop: "Drop the picture to check it",
    notAPicture: "There is no picture in what you pasted or dropped.",
    working: "Looking at the picture…",
    loadingModel: (name: string) => `Loading the model ${name}…`,
    verdictTitle: "Verdict",
    picture: (kind: Kind) => `The picture, ${kind.format}, shorter side ${count(kind.shorterSide)} pixels`,
    model: "Model",
    modelOption: (name: string, size: string) => `${name} (${size})`,
    classes: "How probable each source is",
    evidence: "Where the evidence is",
    showEvidence: "Show it on the picture",
    evidenceFor: "Evidence for",
    evidenceLegend: (name: string) =>
      `Orange places speak for ${name}, blue ones against it, compared with the other sources and relative to the ` +
      "strongest place of this picture. Only the central square is looked at. It says what moved the model, not what is fake.",
    errorsTitle: "How far to trust it",
    details: "Details",
    time: "Time",
    times: (graph: number, decode: number, reduce: number) =>
      `${milliseconds(graph)} for the model, ${milliseconds(decode)} to decode, ${milliseconds(reduce)} to read and reduce`,
    computedBy: "Computed by",
    digest: "Model file",
    digestIs: (digest: string) => `sha256 ${digest.slice(0, 12)}…`,
    familiarity: "Familiarity",
    familiarityIs: (name: string, value: number, threshold: number) =>
      `${name} ${decimals(3).format(value)}; unknown below ${decimals(3).format(threshold)}`,
    reduced: (width: number, height: number) => `reduced to ${count(width)} × ${count(height)} pixels for the model`,
    file: "Picture",
  },

  verdict: (answer: Pick<Answer, "verdict" | "source">) =>
    answer.verdict === "generated"
      ? `Generated: ${answer.source}`
      : answer.verdict === "photograph"
        ? "Photograph"
        : "Unknown source",
  unknownMeans: "The picture is unlike the photographs and the generators that this model knows, so it gives no answer.",
  probability: (pFake: number) => `${percent(pFake)} probability that it was generated`,
  probabilityMeans: (answer: Answer) => {
    const compared = `From ${percent(answer.threshold)} on a picture of this size counts as generated.`;
    return answer.verdict === "unknown-source"
      ? `${compared} The number means little here: it was calibrated on sources that the model knows.`
      : `${compared} If half of all pictures were generated, about ${ofHundred(answer.pFake)} of 100 with this answer would be.`;
  },
  errors: (answer: Answer) =>
    `In telltale's tests with pictures like this (${tested(answer.kind)}), this model called ` +
    `${rate(answer.falseAlarms, "photographs")} generated, and took ${rate(answer.missed, "generated pictures")} for photographs. ` +
    "Other cameras, generators and edits were not tested.",
  kind: (kind: Kind) =>
    `${kind.format}${kind.jpegQuality === null ? "" : ` of quality ${kind.jpegQuality}`}, shorter side ${count(kind.shorterSide)} pixels`,

  providers: { wasm: "WebAssembly, one CPU thread", webgpu: "WebGPU, with the resize on the CPU" } satisfies Record<
    Provider,
    string
  >,

  badPicture: {
    empty: "The file is empty.",
    truncated: "The picture is incomplete: its file breaks off.",
    unreadable: "This is not a picture that can be read, whatever its name says. JPEG, PNG, GIF, WebP, BMP and AVIF can.",
    "too-large": "The picture has more than 100 megapixels, or its file more than 1 GB.",
    "too-small": "The picture is too small: a side has less than 8 pixels.",
    "too-narrow": "The picture is too narrow to be judged.",
    unsupported:
      "Browsers do not show files of this kind (such as TIFF, HEIC, JPEG 2000 or camera raw). Convert it to PNG or JPEG first, without reducing it.",
    "out-of-memory": "There is not enough memory on this device for a picture of this size.",
  } satisfies Record<BadReason, string>,
  badModel: (detail: string) => `The model cannot be used: ${detail}.`,

  evaluate: {
    title: "Evaluate",
    lead: "Run models over many pictures on this device: how fast they are, and, where the truth is known, how often right.",
    models: "Models",
    pictures: "Pictures",
    bundled: (n: number) => (n === 0 ? "Reference pictures (none bundled)" : `${counted(n, "reference picture", "reference pictures")} of the app`),
    own: "My own",
    folder: "Choose a folder",
    files: "Choose pictures",
    ownHint:
      "Folders whose names are “real”, a source of the model, or “fake” label the pictures in them; others count as unlabelled.",
    chosen: (n: number, labelled: number) => `${counted(n, "picture", "pictures")} chosen, ${count(labelled)} labelled`,
    start: "Start",
    stop: "Stop",
    progress: (done: number, of: number) => `${count(done)} of ${count(of)} pictures`,
    stopped: "Stopped early.",
    results: "Results",
    perPicture: "Times per picture, of the model alone. Decoding and reading are apart, below.",
    columns: {
      measure: "Measure",
      pictures: "Pictures",
      right: "Right",
      unknown: "Unknown source",
      median: "Median time",
      mean: "Mean time",
      p95: "95th percentile",
      total: "Total time",
    },
    right: (right: number, answered: number) => (answered === 0 ? "–" : `${percentExact(right / answered)} (${right}\u00a0of\u00a0${answered})`),
    decoding: (mean: number, median: number, p95: number, total: number) =>
      `Decoding and reading: mean ${milliseconds(mean)}, median ${milliseconds(median)}, p95 ${milliseconds(p95)}, total ${milliseconds(total)}.`,
    confusion: (model: string) => `${model}: what the pictures are (rows) and what it said (columns)`,
    truth: "Truth",
    photograph: "Photograph",
    generated: (source: string) => source,
    unknown: "Unknown",
    failures: (n: number) => `${counted(n, "file", "files")} could not be read`,
    csv: "Save as CSV",
    nothing: "Choose at least one model and one picture.",
  },

  history: {
    title: "History",
    lead: "Kept on this device only.",
    empty: "Nothing here yet. Pictures that you check appear here.",
    keep: "Keep a history",
    remove: (what: string) => `Delete ${what}`,
    removeShort: "Delete",
    removeAll: "Delete all",
    removeAllSure: "Delete the whole history? This cannot be undone.",
    cancel: "Cancel",
    entry: (model: string, when: string) => `${when} · ${model}`,
    thumbnail: "Small copy of the picture",
  },

  about: {
    title: "About",
    lead: "telltale measures how well generated pictures can still be told from photographs. This app runs its detectors on your device.",
    limitsTitle: "What it cannot do",
    limits: [
      "It knows the sources that it was trained on. Pictures by other generators may be called photographs or unknown.",
      "Small or strongly compressed pictures keep few traces: the error rates beside each verdict say how few.",
      "It looks at the central square only, and at nothing outside the picture: no metadata, no watermarks.",
      "A verdict is evidence, not proof. Do not accuse anyone because of it.",
    ],
    privacyTitle: "Privacy",
    privacy:
      "Pictures, verdicts and history never leave this device. The app asks its own site for new versions when it starts, and nothing else.",
    modelsTitle: "Models",
    size: "Size",
    operations: "Operations per picture",
    macs: (value: number) => `${count(Math.round(value / 1e6))} million multiply-accumulates`,
    digest: "sha256",
    knows: "Knows",
    kept: "On this device",
    yes: "yes",
    notYet: "not yet: it is fetched when chosen",
    keep: "Keep for offline use",
    training: "Training",
    errorTable: "Error rates by kind of picture",
    neverNearest:
      "A picture of yours is only ever compared with the kinds without compression (none) or with JPEG (q), because a file " +
      "does not tell what else happened to a picture before it was saved.",
    errorColumns: { kind: "Kind", falseAlarms: "Photographs called generated", missed: "Generated pictures missed" },
    rateIn: (value: Rate) =>
      value.value === null
        ? "–"
        : `${percentExact(value.value)}${value.low === null || value.high === null ? "" : ` (${decimals(1).format(100 * value.low)}–${decimals(1).format(100 * value.high)})`}`,
    selfTest: "Run the self-test",
    selfTestRunning: "Testing…",
    selfTestPassed: (difference: number, provider: string) =>
      `Passed: answers within ${difference.toExponential(1)} of the published ones (${provider}).`,
    selfTestFailed: (difference: number, tolerance: number, provider: string) =>
      `Failed: answers differ by ${difference.toExponential(1)}, more than ${tolerance.toExponential(0)} (${provider}).`,
    computing: "Computing",
    webgpu: "Use WebGPU",
    webgpuHint:
      "Computes on the graphics processor. A download of 28\u00a0MB, made once when you switch it on. Results may differ in the last digits.",
    webgpuFailed: (detail: string) => `WebGPU cannot be used here, so WebAssembly stays on: ${detail}`,
    now: (provider: string) => `In use: ${provider}.`,
    picturesTitle: "Reference pictures",
    pictures:
      "They show that the app works and how fast it is; they are too few and too easy to say how good a model is. The app's own are seven " +
      "photographs in the public domain or under CC0, from the scikit-image package, and seven pictures by telltale's tiny diffusion model, " +
      "which was trained on such photographs. Whoever publishes the app may bundle others instead.",
    licencesTitle: "Licences",
    licences: "The networks run on ONNX Runtime Web (MIT licence, Microsoft). Its licence notices come with the app's files.",
    version: (version: string) => `Version ${version}`,
  },
};

function percentExact(share: number): string {
  return `${decimals(1).format(100 * share)}\u00a0%`;
}

function ofHundred(share: number): string {
  const rounded = Math.round(100 * share);
  return rounded === 0 ? "fewer than 1" : rounded === 100 ? "more than 99" : String(rounded);
}

function tested(kind: Kind): string {
  const saved = kind.testedQuality === null ? "without further compression" : `JPEG quality ${kind.testedQuality}`;
  return `${count(kind.testedSide)} pixels, ${saved}`;
}

function rate(value: Rate, of: string): string {
  if (value.value === null) return `(none tested) of ${of}`;
  const interval =
    value.low === null || value.high === null
      ? "too few for an interval"
      : `95\u00a0% interval ${decimals(1).format(100 * value.low)} to ${decimals(1).format(100 * value.high)}`;
  return `${percentExact(value.value)} (${interval}) of ${count(value.n)} ${of}`;
}
