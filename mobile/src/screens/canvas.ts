/** Decoded pictures as people see them: whole, or as small copies. */

import { h } from "../dom";
import type { Picture } from "../network/protocol";

export function pictureCanvas({ pixels, width, height }: Picture): HTMLCanvasElement {
  const canvas = h("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let from = 0, to = 0; from < pixels.length; from += 3, to += 4) {
    image.data[to] = pixels[from]!;
    image.data[to + 1] = pixels[from + 1]!;
    image.data[to + 2] = pixels[from + 2]!;
    image.data[to + 3] = 255;
  }
  canvas.getContext("2d")!.putImageData(image, 0, 0);
  return canvas;
}

/** A copy whose longer side has at most so many pixels, as a JPEG; null where the browser makes none. */
export function smallCopy(canvas: HTMLCanvasElement, longest: number): Promise<Blob | null> {
  const scale = Math.min(1, longest / Math.max(canvas.width, canvas.height));
  const small = h("canvas", {
    width: Math.max(1, Math.round(canvas.width * scale)),
    height: Math.max(1, Math.round(canvas.height * scale)),
  });
  const context = small.getContext("2d")!;
  context.imageSmoothingQuality = "high";
  context.drawImage(canvas, 0, 0, small.width, small.height);
  return new Promise((resolve) => small.toBlob(resolve, "image/jpeg", 0.85));
}
