/** A static host on localhost, as plain as they come: files in a folder of the site, their times, and nothing else. */

import { createServer, type Server } from "node:http";
import { readFile, stat } from "node:fs/promises";
import { extname } from "node:path";

/** Hosts of projects serve folders. */
const PLACE = "/some/folder/";

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".jpg": "image/jpeg",
  ".txt": "text/plain",
  ".wasm": "application/wasm",
};

export class Site {
  /** Bytes that were sent as bodies, by path. */
  readonly sent = new Map<string, number>();
  /** How often anything was asked for. */
  requests = 0;
  /** What is served instead of a file. */
  readonly replaced = new Map<string, Buffer | null>();
  private server: Server | null = null;
  private port = 0;

  constructor(private readonly folder: string) {}

  get url(): string {
    return `http://localhost:${this.port}${PLACE}`;
  }

  /** Start, on the port that it had before if there was one. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      this.requests++;
      const asked = decodeURIComponent(new URL(request.url ?? "/", this.url).pathname);
      const path = asked.startsWith(PLACE) ? asked.slice(PLACE.length) || "index.html" : "..";
      void this.body(path, request.headers["if-modified-since"]).then(({ status, body, modified }) => {
        const headers: Record<string, string> = { "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
        if (modified) headers["last-modified"] = modified;
        response.writeHead(status, headers).end(body);
        this.sent.set(path, (this.sent.get(path) ?? 0) + (body?.length ?? 0));
      });
    });
    await new Promise<void>((resolve) => server.listen(this.port, "127.0.0.1", resolve));
    const address = server.address();
    if (typeof address === "object" && address) this.port = address.port;
    this.server = server;
  }

  /** Stop: whoever asks gets no connection. */
  async stop(): Promise<void> {
    const server = this.server;
    this.server = null;
    server?.closeAllConnections();
    await new Promise<void>((resolve) => (server ? server.close(() => resolve()) : resolve()));
  }

  private async body(path: string, since: string | undefined) {
    const replaced = this.replaced.get(path);
    if (replaced) return { status: 200, body: replaced, modified: null };
    try {
      if (replaced === null || path === "..") throw new Error("taken away, or never there");
      const modified = (await stat(`${this.folder}/${path}`)).mtime.toUTCString();
      if (since === modified) return { status: 304, body: null, modified };
      return { status: 200, body: await readFile(`${this.folder}/${path}`), modified };
    } catch {
      return { status: 404, body: Buffer.from("not found"), modified: null };
    }
  }
}
