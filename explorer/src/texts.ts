/** Every text that a person reads. */

import { Damaged, Missing, NewerRun, OtherRows, TooMany, Unreachable } from "./data/problems";
import type { Source } from "./data/run";
import { RUN_FILE } from "./data/run";
import type { Pair } from "./figures/paired";
import type { Class, ErrorKind, Sort } from "./state";

const language = "en";
const whole = new Intl.NumberFormat(language);

export function count(value: number): string {
  return whole.format(value);
}

const fixed = (digits: number) => new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const [three, two, one] = [fixed(3), fixed(2), fixed(1)];
const signed = new Intl.NumberFormat(language, { minimumFractionDigits: 3, maximumFractionDigits: 3, signDisplay: "exceptZero" });

/** A probability, except where its rounding would claim certainty. */
export function probability(p: number): string {
  if (Number.isNaN(p)) return "–";
  if (p > 0 && p < 0.0005) return "<\u00a00.001";
  return p < 1 && p >= 0.9995 ? ">\u00a00.999" : three.format(p);
}

/** A share 0..1 of counted pictures in per cent. */
export function share(value: number): string {
  return Number.isNaN(value) ? "–" : `${one.format(100 * value)}\u00a0%`;
}

export function figure(value: number): string {
  return Number.isNaN(value) ? "–" : three.format(value);
}

function bytes(value: number): string {
  return value < 0 ? "–" : value < 1e6 ? `${one.format(value / 1e3)}\u00a0kB` : `${one.format(value / 1e6)}\u00a0MB`;
}

const counted = (value: number, single: string, many: string) => `${count(value)} ${value === 1 ? single : many}`;

const classes: Record<Class, string> = { photograph: "photograph", generated: "generated" };

export const texts = {
  name: "telltale",
  title: "Explorer of mistakes",
  run: (run: string, experiment: string, path: string, pictures: number) =>
    `${run} · experiment ${experiment}${path && ` · path ${path}`} · ${counted(pictures, "picture", "pictures")}`,
  start: "Reading the run…",
  working: "Reading…",
  skip: "Skip to the pictures",
  dismiss: "Dismiss",
  licences: "Licences of others’ parts",

  wholeFiles: "This host does not do range requests: files are read whole, which takes longer.",
  noThumbnails: "This run has no thumbnails: pictures stand as their names.",
  unknown: (parts: readonly string[]) => `The address asks for what this run does not have: ${parts.join(", ")}.`,
  fault: (detail: string) => `Something went wrong: ${detail}`,
  problem: (error: unknown): string => {
    if (error instanceof Missing) {
      if (error.path === RUN_FILE) return `There is no run here: ${RUN_FILE} cannot be fetched (HTTP ${error.status}).`;
      return `A file of the run is missing: ${error.path} (HTTP ${error.status}).`;
    }
    if (error instanceof Unreachable) return `The host does not answer (${error.path}): offline, or no longer served?`;
    if (error instanceof NewerRun) return `The run was written by a newer telltale (version ${error.version} of ${RUN_FILE}): publish this page with that one.`;
    if (error instanceof TooMany) return `The run has ${count(error.pictures)} pictures, and a browser can look through ${count(error.most)} at most.`;
    if (error instanceof OtherRows) {
      return `${error.path} does not belong to this run: it has ${counted(error.rows, "row", "rows")}, and ${RUN_FILE} says ${count(error.expected)}.`;
    }
    if (error instanceof Damaged) return `${error.path} is damaged, or no file of a run: ${error.detail}.`;
    return texts.fault(error instanceof Error ? error.message : String(error));
  },

  looking: {
    title: "Look at",
    cell: "Cell",
    detector: "Detector",
    mix: "Mix of sources",
    than: "Compare with",
    nothing: "nothing",
    detectors: "Detectors",
    probes: "Probes (blind to the content)",
    cells: "Cells",
  },

  show: {
    title: "Show",
    kinds: { all: "All", "false-alarm": "False alarms", missed: "Missed", mistake: "Mistakes", right: "Right" },
    sort: "Order",
    sorts: {
      "": "as in the files",
      "-p": "surest “generated” first",
      p: "surest “photograph” first",
      "-margin": "surest verdict first",
      margin: "closest to the threshold first",
      "-difference": "largest difference first",
      "-size": "largest first",
      size: "smallest first",
      "-quality": "best JPEG quality first",
      quality: "worst JPEG quality first",
    } satisfies Record<Sort | "", string>,
  },

  heading: (shown: number, error: ErrorKind | null, detector: string, cell: string) => {
    const what: Record<ErrorKind | "all", string> = {
      "false-alarm": counted(shown, "photograph called generated", "photographs called generated"),
      missed: counted(shown, "generated picture called a photograph", "generated pictures called photographs"),
      mistake: counted(shown, "mistake", "mistakes"),
      right: counted(shown, "right answer", "right answers"),
      all: counted(shown, "picture", "pictures"),
    };
    return `${what[error ?? "all"]} · ${detector} in ${cell}`;
  },
  comparedHeading: (shown: number, pair: Pair | "all" | null, first: string, second: string) => {
    const pictures = counted(shown, "picture", "pictures");
    const whose: Record<Pair | "all" | "differ", string> = {
      first: "that only the first gets right",
      second: "that only the second gets right",
      both: "that both get right",
      neither: "that neither gets right",
      differ: "that only one gets right",
      all: "of both",
    };
    return `${pictures} ${whose[pair ?? "differ"]} · ${first} against ${second}`;
  },
  noneOfKind: {
    "false-alarm": "No photograph was called generated here: no false alarms.",
    missed: "No generated picture was missed here.",
    mistake: "There are no mistakes here.",
    right: "Nothing was answered rightly here.",
    all: "No picture is left.",
  },
  noScores: (detector: string, cell: string) => `${detector} gave no scores for these pictures in ${cell}.`,
  noVerdicts: (detector: string, cell: string) => `${detector} has no threshold in ${cell}, so that it gives no verdicts.`,
  noneFiltered: "No picture is left: the filters leave none.",
  showAll: "Show all pictures",
  tooTall: (shown: number, all: number) => `The first ${count(shown)} of ${count(all)} can be scrolled to; filters bring the others.`,
  grid: "Pictures",

  tile: {
    said: { 0: "called photograph", 1: "called generated", 2: "no verdict" } as Record<number, string>,
    truth: { 0: "photograph", 1: "generated" } as Record<number, string>,
    kind: (truth: number, said: number) => (said === 2 ? "no verdict" : truth === said ? "right" : said === 1 ? "false alarm" : "missed"),
    label: (truth: number, said: number, source: string, p: number) =>
      `${texts.tile.truth[truth]} of ${source}, ${texts.tile.said[said]}, p ${probability(p)}: ${texts.tile.kind(truth, said)}`,
    p: (p: number, other: number | null) => (other === null ? `p\u00a0${probability(p)}` : `${two.format(p)} | ${two.format(other)}`),
  },

  figures: {
    title: "Figures",
    scores: "Scores",
    histogram: "Histogram of p(generated): photographs upwards, generated pictures downwards; heights are square roots of shares.",
    threshold: "Threshold",
    thresholdIs: (value: number, own: boolean) => (own ? `the folds’ own, about ${figure(value)}` : figure(value)),
    own: (thresholds: readonly number[]) => {
      if (thresholds.length === 0) return "This detector has no threshold here, so that it gives no verdicts; move it to try one.";
      const distinct = [...new Set(thresholds.map((each) => figure(each)))].sort();
      return distinct.length === 1 ? `The folds’ own: ${distinct[0]}.` : `The folds’ own: ${distinct[0]} to ${distinct.at(-1)}.`;
    },
    moved: (value: number) => `Moved to ${figure(value)} for all folds: not the run’s verdicts.`,
    reset: "Back to the folds’ own",
    confusion: "Verdicts",
    truth: "Truth",
    calledPhotograph: "called photograph",
    calledGenerated: "called generated",
    rows: ["photographs", "generated"] as const,
    field: (of: string, said: string) => `${of} ${said}: `,
    balancedAccuracy: "Balanced accuracy",
    falseAlarms: "False alarms",
    found: "Generated found",
    mistakes: "Mistakes",
    auroc: "AUROC, all folds together",
    without: "Without a verdict",
    of: (part: number, share_: number) => `${count(part)} (${share(share_)})`,
    roc: "ROC curve",
    rocIs: (falseAlarms: number, found: number) => `ROC curve; at the threshold ${share(falseAlarms)} false alarms and ${share(found)} found.`,
    rocAxes: "Across: false alarms. Upwards: generated pictures found.",
    over: (pictures: number, mix: string) =>
      `Figures are over all ${counted(pictures, "tested picture", "tested pictures")} of the mix ${mix} that have a score, filters aside; the report draws equally many of both classes.`,
    versions: (sources: readonly Source[]) => {
      const versions = sources.filter(({ name, of }) => name !== of);
      if (versions.length === 0) return null;
      return `Its photographs take part as these versions: ${versions.map(({ name, of }) => `${name} (of ${of})`).join(", ")}.`;
    },
  },

  filters: {
    title: "Filters",
    any: "any",
    truth: "Truth",
    verdict: "Verdict",
    source: "Source",
    sourceOption: (source: Source) => (source.name === source.of ? source.name : `${source.name} (of ${source.of})`),
    fold: "Fold",
    p: "p(generated)",
    quality: "JPEG quality",
    size: "Shorter side, pixels",
    from: "from",
    to: "to",
    q: "In prompt, caption, name",
    clear: "Remove all filters",
    classes,
    removes: (filter: string) => `Remove the filter ${filter}`,
  },

  compared: {
    title: "Compared",
    right: "right",
    wrong: "wrong",
    test: (first: number, second: number, p: number) =>
      `${count(first + second)} pictures differ, ${count(first)} for the first and ${count(second)} for the second: McNemar’s exact test p\u00a0=\u00a0${p < 0.001 ? p.toPrecision(2) : three.format(p)}, pictures taken as independent.`,
    none: "No picture is right in one and wrong in the other.",
    report: (metric: string, difference: number | null, low: number | null, high: number | null, p: number | null) => {
      const number = (value: number | null) => (value === null ? "–" : signed.format(value));
      const interval = low === null || high === null ? "" : `, interval ${number(low)} to ${number(high)}`;
      return `${metric === "auroc" ? "AUROC" : metric}: ${number(difference)}${interval}${p === null ? "" : `, p\u00a0=\u00a0${three.format(p)}`}`;
    },
    reportTitle: "In the report, first minus second",
    noReport: "The report has no test of these two.",
    movedOnly: "The moved threshold holds for the first only.",
    all: "All pictures of both",
  },

  picture: {
    place: (place: number, all: number) => `${count(place)} of ${count(all)}`,
    outside: "Not among the pictures shown",
    previous: "Previous",
    next: "Next",
    close: "Close",
    keys: "Arrow keys turn over, Escape closes.",
    said: (said: number, p: number, threshold: number) =>
      `${texts.tile.said[said]}, p ${probability(p)}${Number.isNaN(threshold) ? "" : ` at a threshold of ${figure(threshold)}`}`,
    facts: "Facts",
    fact: {
      image_id: "Name",
      source: "Source",
      of: "Version of",
      size: "Size",
      format: "Format",
      jpeg_quality: "JPEG quality",
      file: "File",
      prompt: "Prompt",
      caption: "Caption",
      categories: "Categories",
      licence: "Licence",
      group_id: "Group",
      fold: "Fold",
      sha256: "SHA-256",
    },
    pixels: (width: number, height: number, size: number) => `${width} × ${height} pixels, ${bytes(size)}`,
    everywhere: "In every cell, by every detector",
    legend: "✓ right, ✗ wrong, · no verdict. Outlined: not the verdict of the chosen cell.",
    flips: (detector: string, cells: readonly string[], all: number) =>
      cells.length === 0
        ? `${detector} says the same in all ${count(all)} cells with a verdict.`
        : `${detector} says otherwise in ${count(cells.length)} of ${count(all)} cells with a verdict: ${cells.join(", ")}.`,
    views: "As detectors were shown it",
    maps: "Where networks look",
    reduced: "Small copies, of at most 128 pixels a side; of several windows of a picture the first.",
    mapLegend: "Orange places speak for a generated picture, blue ones against it; each map has its own scale.",
    noViews: (pictures: number) =>
      pictures === 0
        ? "This run has no views to look at."
        : `Views are kept of ${counted(pictures, "picture", "pictures")}, the surest mistakes of every detector and cell; not of this one.`,
    noView: "cannot be read",
    resolution: "resolution",
    group: (others: number) => (others === 0 ? "No other picture is of its group." : `Its group’s other pictures (${count(others)})`),
    more: (left: number) => `and ${count(left)} more`,
    noThumbnail: "No thumbnail",
  },
};
