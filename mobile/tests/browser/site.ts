/**
 * A static host on localhost, as plain as they come: files in a folder of the site, their times, and nothing else, unless
 * it is asked for pieces of files. `explorer/` is tested on it, too.
 */

import { createServer, type Server } from "node:http";
import { open, readFile, stat } from "node:fs/promises";
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

interface Answer {
  readonly status: number;
  readonly body: Buffer | null;
  readonly modified: string | null;
  readonly range?: string;
}

export class Site {
  /** Bytes that were sent as bodies, by path. */
  readonly sent = new Map<string, number>();
  /** How often anything was asked for. */
  requests = 0;
  /** What is served instead of a file. */
  readonly replaced = new Map<string, Buffer | null>();
  private server: Server | null = null;
  private port = 0;

  /** `pieces`: whether range requests are answered with what they ask for; `headers` go with every answer. */
  constructor(
    private readonly folder: string,
    private readonly pieces = false,
    private readonly headers: Readonly<Record<string, string>> = {},
  ) {}

  get url(): string {
    return `http://localhost:${this.port}${PLACE}`;
  }

  /** Start, on the port that it had before if there was one. */
  async start(): Promise<void> {
    const server = createServer((request, response) => {
      this.requests++;
      const asked = decodeURIComponent(new URL(request.url ?? "/", this.url).pathname);
      const path = asked.startsWith(PLACE) ? asked.slice(PLACE.length) || "index.html" : "..";
      const answer = this.piece(path, request.headers.range) ?? this.body(path, request.headers["if-modified-since"]);
      void answer.then(({ status, body, modified, range }) => {
        const headers: Record<string, string> = { ...this.headers, "content-type": TYPES[extname(path)] ?? "application/octet-stream" };
        if (modified) headers["last-modified"] = modified;
        if (range) headers["content-range"] = range;
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

  private piece(path: string, asked: string | undefined): Promise<Answer> | null {
    const found = /^bytes=(\d*)-(\d*)$/.exec(asked ?? "");
    if (!this.pieces || !found || path === ".." || this.replaced.has(path)) return null;
    return readPiece(`${this.folder}/${path}`, found[1]!, found[2]!).catch(() => this.body(path, undefined));
  }

  private async body(path: string, since: string | undefined): Promise<Answer> {
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

/** `first` and `last` as a range request has them: without a first byte, the last ones. */
async function readPiece(path: string, first: string, last: string): Promise<Answer> {
  const { size } = await stat(path);
  const start = first ? Number(first) : Math.max(0, size - Number(last));
  const end = first && last ? Math.min(Number(last) + 1, size) : size;
  const file = await open(path);
  try {
    const body = Buffer.alloc(end - start);
    await file.read(body, 0, body.length, start);
    return { status: 206, body, modified: null, range: `bytes ${start}-${end - 1}/${size}` };
  } finally {
    await file.close();
  }
}
