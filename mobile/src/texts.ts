/** Every text that a person reads, in English; `texts-de.ts` and `texts-it.ts` have the same in German and Italian. */

import type { BadReason } from "./picture/facts";
import type { FileStatements } from "./picture/statements";
import type { Answer, Kind, Verdict } from "./network/decision";
import type { Rate } from "./network/card";
import type { Provider } from "./network/protocol";
import { count, counted, decimals, isClose, language, milliseconds, percentExact } from "./numbers";
import { german } from "./texts-de";
import { italian } from "./texts-it";

/** Where an answer lies between photograph and generated. */
export type Placed = Pick<Answer, "verdict" | "reason" | "pFake" | "threshold" | "photographThreshold">;

/** How often a network is wrong, and how often it gives no answer; answers of before say less. */
export type Errors = Pick<Answer, "falseAlarms" | "missed"> & Partial<Pick<Answer, "missedUnknown" | "photographsUndecided" | "generatedUndecided">>;

const english = {
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
    lead: "Check pictures. They stay on this device: nothing is sent anywhere.",
    camera: "Take a photo",
    choose: "Choose pictures",
    hint: "One or many. You can also paste pictures, drop them or a folder here, or share them to this app.",
    drop: "Drop pictures to check them",
    notAPicture: "There is no picture in what you pasted or dropped.",
    nothingShared: "No picture came with what was shared. Choose it here, or save it and share it once more.",
    working: "Looking at the picture…",
    loadingModel: (name: string) => `Loading the model ${name}…`,
    verdictTitle: "Verdict",
    picture: (kind: Kind) => `The picture, ${kind.format}, shorter side ${count(kind.shorterSide)} pixels`,
    model: "Model",
    modelOption: (name: string, size: string, isKept: boolean) => `${name} (${size})${isKept ? "" : ", not on this device yet"}`,
    scores: "Scores",
    scoreOf: (name: string, probability: number) => `${name} ${decimals(3).format(probability)}`,
    line: "The line",
    lineIs: ({ pFake, threshold, photographThreshold }: Pick<Answer, "pFake" | "threshold" | "photographThreshold">) =>
      photographThreshold === null
        ? `${decimals(3).format(pFake)} for all generators together; from ${decimals(3).format(threshold)} on a picture of this size counts as generated`
        : `${decimals(3).format(pFake)} for generated; from ${decimals(3).format(threshold)} on a picture of this size is called probably generated, ` +
          `below ${decimals(3).format(photographThreshold)} probably a photograph`,
    sources: "If it was generated, by which",
    zoom: "Picture: the keys plus, minus and 0 enlarge and reduce it",
    share: "Save or share this result",
    cardLimits: "An automatic estimate, no proof: it may be wrong about this picture.",
    evidence: "Where the evidence is",
    showEvidence: "Show it on the picture",
    evidenceFor: "Evidence for",
    evidenceLegend: (name: string, ofWindows: boolean) =>
      `Orange places speak for ${name}, blue ones against it, compared with the other sources and relative to the ` +
      `strongest place of this picture. Only ${ofWindows ? "the framed windows are" : "the central square is"} looked at. It says what moved the model, not what is fake.`,
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
    windows: (number: number, side: number) =>
      `the model looks at ${counted(number, "window", "windows")} of ${count(side)} × ${count(side)} original pixels`,
    file: "Picture",
  },

  many: {
    order: "Order",
    orders: { given: "As chosen", probability: "Most like generated first", name: "By name" },
    unnamed: (place: number) => `Picture ${count(place)}`,
    back: "Back to the list",
    summary: (all: number, generated: number, photographs: number, unanswered: number, unread: number) =>
      `${counted(all, "picture", "pictures")}: ${count(generated)} generated, ${counted(photographs, "photograph", "photographs")}, ` +
      `${count(unanswered)} without an answer${unread === 0 ? "" : `, ${count(unread)} could not be read`}.`,
  },

  /** `source` is the generator as people know it, of a generated picture. */
  verdict: (verdict: Verdict, source: string | null, isProbable: boolean) => {
    if (verdict === "cannot-tell" || verdict === "unknown-source") return "Cannot tell";
    if (verdict === "photograph") return isProbable ? "Probably a photograph" : "Photograph";
    return `${isProbable ? "Probably generated" : "Generated"}${source === null ? "" : `: ${source}`}`;
  },
  unknownMeans:
    "The picture is unlike those that this model was trained on, so it gives no answer. That does not mean that an unknown generator made it: " +
    "most pictures of such generators do get an answer.",
  formatMeans: "This model was not tested with files of this format, so it gives no answer.",
  betweenMeans: "The picture lies between the two lines, where this model would be wrong too often, so it gives no answer.",
  modelName: (name: string, isDemonstration: boolean) => (isDemonstration ? `${name} (demonstration)` : name),
  demonstration: "Demonstration",
  demonstrationMeans:
    "This model began with random weights. It shows how the app works; what it says of a picture is worth nothing.",
  scale: {
    photograph: "Photograph",
    between: "Cannot tell",
    generated: "Generated",
    line: "The mark is the line: from there on a picture of this size counts as generated.",
    lines:
      "The marks are the two lines: from the right one on a picture of this size is called probably generated, left of the left one " +
      "probably a photograph. Between them there is no answer.",
    where: ({ verdict, reason, pFake, threshold, photographThreshold }: Placed): string => {
      if (verdict === "unknown-source" || reason === "unfamiliar" || reason === "format") return "Where it lies means little: the scale was made for sources that the model knows.";
      if (verdict === "cannot-tell") return "Between the two lines.";
      const isGenerated = verdict === "generated";
      const close = isClose(pFake, isGenerated ? threshold : (photographThreshold ?? threshold));
      const line = photographThreshold === null ? "the line" : isGenerated ? "the right line" : "the left line";
      return close ? `Just ${isGenerated ? "over" : "below"} ${line}: a close call.` : `${isGenerated ? "Over" : "Below"} ${line}.`;
    },
  },
  errors: (errors: Errors) => {
    const { falseAlarms, missed, missedUnknown } = errors;
    if (falseAlarms.value === null && missed.value === null) return "Nobody tested how often it is wrong with pictures of this kind.";
    const called = falseAlarms.value === null ? null : `called ${shareOf(falseAlarms)} photographs generated`;
    const overlooked = missed.value === null ? null : `missed ${shareOf(missed)} generated pictures`;
    const neverSeen =
      overlooked && missedUnknown?.value != null ? `; of generators that it had never seen, ${shareOf(missedUnknown).replace(/ of 100$/, "")}` : "";
    return `In our tests it ${[called, overlooked].filter((each) => each !== null).join(" and ")} of this kind${neverSeen}.${unanswered(errors)}`;
  },
  errorsDetail: ({ falseAlarms, missed, missedUnknown, kind }: Errors & Pick<Answer, "kind">) => {
    const others = missedUnknown?.value != null ? `, and ${sample(missedUnknown, "pictures by generators that it had never seen")}` : "";
    return (
      `Of this kind (${tested(kind)}) were ${sample(falseAlarms, "photographs")} and ${sample(missed, "generated pictures")}${others}. ` +
      "Other cameras, generators and edits were not tested."
    );
  },
  kind: (kind: Kind) =>
    `${kind.format}${kind.jpegQuality === null ? "" : ` of quality ${kind.jpegQuality}`}, shorter side ${count(kind.shorterSide)} pixels`,

  providers: { wasm: "WebAssembly, one CPU thread", webgpu: "WebGPU, with the resize on the CPU" } satisfies Record<
    Provider,
    string
  >,

  file: {
    title: "What the file itself says",
    apart: "Beside the verdict, which rests on the pixels alone.",
    says: ({ c2pa, digitalSourceType, generatorTexts, camera }: FileStatements): string[] => {
      const said = [
        c2pa &&
          "Content Credentials (a C2PA manifest) are attached. They are signed, but their signature was not checked here: a verifier can.",
        digitalSourceType !== null &&
          `The IPTC digital source type is ${digitalSourceType}. Whoever saved the file wrote it; anyone can change or remove it.`,
        generatorTexts.length > 0 &&
          `A generator's settings are in it (${generatorTexts.join(", ")}). Programs that generate pictures write them; they are as easily removed, or written into a photograph.`,
        camera !== null && `A camera is named: ${camera}. Any program can write that.`,
      ].filter((each) => each !== false);
      return said.length > 0 ? said : ["Nothing of its origin. That is usual: most apps and sites remove it."];
    },
  },

  badPicture: {
    empty: "The file is empty.",
    truncated: "The picture is incomplete: its file breaks off.",
    unreadable:
      "This is not a picture that this browser can read, whatever its name says. If another program shows it, save it there as JPEG and choose that.",
    "too-large": "The picture has more than 100 megapixels, or its file more than 1 GB.",
    "too-small": "The picture is too small: its shorter side must have at least 16 pixels.",
    "too-narrow":
      "The picture is too small or too narrow: its shorter side must have at least 16 pixels, also where its longer side is reduced to 1,024.",
    unsupported:
      "This browser does not show pictures of this kind (such as HEIC, TIFF, JPEG XL, JPEG 2000 or camera raw). Save it as JPEG, without making it smaller, and choose that.",
    "out-of-memory": "There is not enough memory on this device for a picture of this size.",
  } satisfies Record<BadReason, string>,
  tooSmallForWindows: (side: number, [height, width]: readonly [number, number]) =>
    "Cannot tell: the traces are gone in so small a picture. This model looks at original pixels and expects at least " +
    `${count(side)} a side; this picture has ${count(width)} × ${count(height)}.`,
  badModel: (detail: string) => `The model cannot be used: ${detail}.`,
  badModels: (details: readonly string[]) => `${details.length === 1 ? "A model" : "Some models"} cannot be used. ${details.join(" ")}`,
  modelFault: {
    newer: "it was made for a newer version of this app: reload the page, online",
    card: (card: string, file: string) => `the card ${card} and the network ${file} do not belong together; whoever publishes the app must put in the pair`,
    other: (file: string, other: string) =>
      `the network ${file} and its card do not belong together: it is the file of ${other}; whoever publishes the app must put in the pair`,
    notItsCards: (file: string, expected: string, got: string) =>
      `the network ${file} and its card do not belong together: the card is of sha256 ${expected}, the file has ${got}; whoever publishes the app must put in the pair`,
    damaged: (file: string, expected: string, got: string) => `${file} is damaged: expected sha256 ${expected}, got ${got}`,
  },
  storageFull: "The model answers now, but could not be kept for offline use: there is no room for it on this device.",

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
      right: "Right, of all labelled",
      answered: "Answered, of all",
      median: "Median time",
      mean: "Mean time",
      p95: "95th percentile",
      total: "Total time",
    },
    share: (part: number, all: number) => (all === 0 ? "–" : `${percentExact(part / all)} (${part}\u00a0of\u00a0${all})`),
    failsSelfTest: "fails its self-test here: not counted",
    cannotBeUsed: "cannot be used here: not counted",
    notHere: "not on this device yet",
    unlabelled: "What was said of pictures without a label",
    picture: "Picture",
    decoding: (mean: number, median: number, p95: number, total: number) =>
      `Decoding and reading: mean ${milliseconds(mean)}, median ${milliseconds(median)}, p95 ${milliseconds(p95)}, total ${milliseconds(total)}.`,
    confusion: (model: string) => `${model}: what the pictures are (rows) and what it said (columns)`,
    truth: "Truth",
    photograph: "Photograph",
    someGenerator: "Some generator",
    unknown: "No answer",
    failures: (n: number) => `${counted(n, "file", "files")} without an answer: unreadable, or too small for the model`,
    csv: "Save as CSV",
    nothing: "Choose at least one model and one picture.",
  },

  history: {
    title: "History",
    lead: "Kept on this device only.",
    empty: "Nothing here yet. Pictures that you check appear here.",
    keep: "Keep a history",
    full: "The answer stands, but it could not be kept in the history: there is no room for it on this device. Delete old entries, or switch the history off.",
    open: "Open",
    close: "Close",
    ofBefore: "An older version of the app kept no more of this answer.",
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
      "The verdict rests on the central square of the picture alone, or on some windows of it, as the model does: what the file says of itself is shown beside it, and watermarks are not looked for.",
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
    photographs: "photographs",
    kept: "On this device",
    yes: "yes",
    notYet: "not yet: it is fetched when chosen",
    keep: "Keep for offline use",
    training: "Training",
    errorTable: "Error rates by kind of picture",
    neverNearest:
      "A picture of yours is only ever compared with the kinds without compression (none) or with JPEG (q), because a file " +
      "does not tell what else happened to a picture before it was saved.",
    errorColumns: {
      kind: "Kind",
      falseAlarms: "Photographs called generated",
      missed: "Generated pictures missed",
      missedUnknown: "Missed, of generators never seen",
      photographsUndecided: "Photographs without an answer",
      generatedUndecided: "Generated pictures without an answer",
    },
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

export type Texts = typeof english;

export const texts: Texts = { en: english, de: german, it: italian }[language];

function tested(kind: Kind): string {
  const saved = kind.testedQuality === null ? "without further compression" : `JPEG quality ${kind.testedQuality}`;
  return `${count(kind.testedSide)} pixels, ${saved}`;
}

/** How many of a hundred, or of all where they were fewer, in the card's own figures. */
function shareOf({ value, n }: Rate): string {
  const share = value ?? 0;
  if (n < 100) return `${count(Math.round(share * n))} of ${count(n)}`;
  if (share === 0) return `none of ${count(n)}`;
  const ofHundred = Math.round(100 * share);
  if (ofHundred === 0) return "fewer than 1 of 100";
  return ofHundred === 100 && share < 1 ? "more than 99 of 100" : `${ofHundred} of 100`;
}

/** What got no answer, where anything did: one share for both classes if they are alike. */
function unanswered({ photographsUndecided, generatedUndecided }: Errors): string {
  const [photographs, generated] = [photographsUndecided, generatedUndecided].map((rate) => (rate?.value ? shareOf(rate) : null));
  const parts = [photographs && `${photographs} photographs`, generated && `${generated} generated pictures`].filter((part) => part);
  if (parts.length === 0) return "";
  return ` It gave no answer to ${photographs === generated ? photographs : parts.join(" and ")}.`;
}

function sample(value: Rate, of: string): string {
  if (value.value === null) return `no ${of}`;
  const interval =
    value.low === null || value.high === null
      ? "too few for an interval"
      : `95\u00a0% interval ${decimals(1).format(100 * value.low)} to ${decimals(1).format(100 * value.high)} of 100`;
  return `${count(value.n)} ${of} (${interval})`;
}
