/** A result as a picture to share or keep: the checked picture reduced, the verdict, who said so, and its limits. */

import { download, h } from "../dom";
import { texts } from "../texts";

const WIDTH = 1080;
const MARGIN = 56;
const TALLEST_PICTURE = 900;
const DIGEST_SHOWN = 12;

export interface Result {
  readonly canvas: HTMLCanvasElement;
  readonly verdict: string;
  /** How often the model was wrong in such pictures. */
  readonly errors: string;
  readonly model: string;
  readonly sha256: string;
}

interface Line {
  readonly words: string;
  readonly font: string;
  readonly colour: string;
  readonly height: number;
}

/** Hand the card to the system's sheet where it takes pictures, else save it. */
export async function shareResult(result: Result): Promise<void> {
  const content = await resultCard(result);
  const file = new File([content], "telltale.png", { type: content.type });
  // Not every browser has both, or takes pictures.
  const system = navigator as Partial<Pick<Navigator, "canShare" | "share">>;
  if (!system.share || !system.canShare?.({ files: [file] })) {
    download(file.name, file);
    return;
  }
  try {
    await system.share({ files: [file] });
  } catch (error) {
    // Closed without sharing is an answer, too.
    if (!(error instanceof DOMException && error.name === "AbortError")) download(file.name, file);
  }
}

/** The card as a PNG; its colours are the same in light and dark, as it leaves the page. */
export async function resultCard({ canvas, verdict, errors, model, sha256 }: Result): Promise<Blob> {
  const scale = Math.min(1, (WIDTH - 2 * MARGIN) / canvas.width, TALLEST_PICTURE / canvas.height);
  const [width, height] = [Math.round(canvas.width * scale), Math.round(canvas.height * scale)];
  const card = h("canvas", { width: WIDTH, height: 1 });
  const context = card.getContext("2d")!;
  const lines = [
    ...wrapped(context, verdict, { font: "bold 56px sans-serif", colour: "#14201d", height: 72 }),
    ...wrapped(context, errors, { font: "32px sans-serif", colour: "#33423e", height: 44 }),
    ...wrapped(context, texts.detect.cardLimits, { font: "32px sans-serif", colour: "#33423e", height: 44 }),
    ...wrapped(context, `telltale · ${model} · ${sha256.slice(0, DIGEST_SHOWN)}`, { font: "26px sans-serif", colour: "#55645f", height: 52 }),
  ];
  card.height = 2 * MARGIN + height + 32 + lines.reduce((sum, line) => sum + line.height, 0);
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, card.width, card.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, (WIDTH - width) / 2, MARGIN, width, height);
  let bottom = MARGIN + height + 32;
  for (const line of lines) {
    bottom += line.height;
    context.font = line.font;
    context.fillStyle = line.colour;
    context.fillText(line.words, MARGIN, bottom - line.height / 4);
  }
  return new Promise((resolve, reject) =>
    card.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("this browser makes no picture of a canvas"))), "image/png"),
  );
}

/** Words in lines that fit the card. */
function wrapped(context: CanvasRenderingContext2D, words: string, style: Omit<Line, "words">): Line[] {
  context.font = style.font;
  const lines = [""];
  for (const word of words.split(" ")) {
    const longer = `${lines.at(-1)!} ${word}`.trimStart();
    if (context.measureText(longer).width <= WIDTH - 2 * MARGIN || lines.at(-1) === "") lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines.map((line) => ({ ...style, words: line }));
}
