/** A Vite plugin: the app's icons and licence texts, and the list of files that the service worker keeps. */

import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { Plugin } from "vite";
import { iconPng, iconSvg } from "./icons";

const SERVICE_WORKER = "service-worker.js";

/** Fetched only when WebGPU is switched on. */
const OPTIONAL = /webgpu|asyncify/;

export function offline(): Plugin {
  return {
    name: "telltale-offline",
    apply: "build",
    enforce: "post",
    generateBundle(_options, bundle) {
      const drawn: Record<string, string | Uint8Array> = {
        "icons/icon.svg": iconSvg(),
        "icons/icon-180.png": iconPng(180, true),
        "icons/icon-192.png": iconPng(192, false),
        "icons/icon-512.png": iconPng(512, false),
        "icons/maskable-512.png": iconPng(512, true),
        "licences.txt": readFileSync("tools/licences.txt", "utf8"),
      };
      for (const [fileName, source] of Object.entries(drawn)) this.emitFile({ type: "asset", fileName, source });
      const files = new Map<string, string | Uint8Array>(
        Object.values(bundle).map((file) => [file.fileName, file.type === "chunk" ? file.code : file.source]),
      );
      for (const [name, content] of Object.entries(drawn)) files.set(name, content);
      // Reference pictures, in a folder of their own, have a list like models: the service worker keeps what it names.
      for (const entry of readdirSync("public", { withFileTypes: true })) {
        if (entry.isFile()) files.set(entry.name, readFileSync(`public/${entry.name}`));
      }
      const worker = bundle[SERVICE_WORKER];
      if (worker?.type !== "chunk") this.error(`expected the chunk ${SERVICE_WORKER}`);
      const version = createHash("sha256");
      for (const name of [...files.keys()].sort()) version.update(name).update(files.get(name)!);
      files.delete(SERVICE_WORKER);
      const kept = [...files.keys()].filter((name) => !OPTIONAL.test(name)).sort();
      worker.code = worker.code
        .replaceAll("__FILES__", JSON.stringify(kept))
        .replaceAll("__VERSION__", JSON.stringify(version.digest("hex").slice(0, 16)));
    },
  };
}
