/**
 * Serves the app without a network, takes pictures that other apps share, and keeps the lists of models at hand.
 *
 * The page and its icons are kept per version, and a new version waits until the page says so. Files in assets/ have
 * their digest in their name and are shared by versions. The runtime's wasm file is large: on a first visit it is kept
 * while the page fetches it, so that it is fetched once. Lists and cards come from the network where there is one, else
 * from the cache. Models themselves are kept by the page, by digest (`network/catalogue.ts`).
 */

declare const self: ServiceWorkerGlobalScope;

/** Every file of the app that is wanted offline, and the digest of them all; written in by the build. */
declare const __FILES__: readonly string[];
declare const __VERSION__: string;

const PAGE = `telltale-page-${__VERSION__}`;
const ASSETS = "telltale-assets";
const LISTS = "telltale-lists";
const SHARED = "telltale-shared";

/** Files that are on their way into the cache, by path. */
const arriving = new Map<string, Promise<void>>();

self.addEventListener("install", (event) => event.waitUntil(install()));
self.addEventListener("activate", (event) => event.waitUntil(activate()));
self.addEventListener("message", (event) => {
  if (event.data === "use-now") event.waitUntil(self.skipWaiting());
  if (event.data === "complete") {
    const answer = (outcome: string) => event.ports[0]?.postMessage(outcome);
    event.waitUntil(keepAssets(() => true).then(() => answer("complete"), (error: unknown) => answer(String(error))));
  }
});
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (!url.href.startsWith(self.registration.scope)) return;
  const path = url.href.slice(self.registration.scope.length).split(/[?#]/)[0] ?? "";
  if (event.request.method === "POST" && path === "share") event.respondWith(takeShared(event.request));
  else if (event.request.method !== "GET") return;
  else if (/^(models|pictures)\/[^/]+\.json$/.test(path)) event.respondWith(newest(event, path));
  else if (path.startsWith("assets/")) event.respondWith(asset(event, path));
  else if (!path.startsWith("models/")) event.respondWith(fromCache(event.request, path));
});

async function install(): Promise<void> {
  const cache = await caches.open(PAGE);
  const pages = __FILES__.filter((path) => !path.startsWith("assets/"));
  await cache.addAll(pages.map((path) => new Request(path, { cache: "no-cache" })));
  const firstVisit = self.registration.active === null;
  await keepAssets((path) => !(firstVisit && path.endsWith(".wasm")));
  await keepLists();
}

async function activate(): Promise<void> {
  for (const name of await caches.keys()) {
    if (name.startsWith("telltale-page-") && name !== PAGE) await caches.delete(name);
  }
  await self.clients.claim();
}

/** Fetch what is missing of assets/, and drop what no version needs any more. */
async function keepAssets(wanted: (path: string) => boolean): Promise<void> {
  await Promise.all(arriving.values());
  const cache = await caches.open(ASSETS);
  const paths = __FILES__.filter((path) => path.startsWith("assets/"));
  for (const path of paths) {
    if (wanted(path) && !(await cache.match(path))) await cache.add(path);
  }
  // While an older version is still in use, its files are.
  if (self.registration.active !== null && self.registration.waiting === null && self.registration.installing === null) {
    const needed = new Set(paths.map((path) => new URL(path, self.registration.scope).href));
    for (const request of await cache.keys()) {
      if (!needed.has(request.url) && !isOptional(request.url)) await cache.delete(request);
    }
  }
}

/** The runtime for WebGPU: fetched when it is switched on, kept from then on. */
function isOptional(url: string): boolean {
  return /webgpu|asyncify/.test(url);
}

async function asset(event: FetchEvent, path: string): Promise<Response> {
  const cache = await caches.open(ASSETS);
  await arriving.get(path);
  const kept = await cache.match(event.request);
  if (kept) return kept;
  const response = await fetch(event.request);
  if (response.ok) {
    const putting = cache
      .put(event.request, response.clone())
      .catch(() => undefined) // no room, or broken off: it is fetched again when it is next needed
      .finally(() => arriving.delete(path));
    arriving.set(path, putting);
    event.waitUntil(putting);
  }
  return response;
}

/** The lists of models and pictures, by path, with the field that names a file of theirs. */
const LISTED: Readonly<Record<string, string>> = { "models/index.json": "card", "pictures/index.json": "file" };

/** Both lists, every card and every bundled picture: small, and wanted offline. */
async function keepLists(): Promise<void> {
  const cache = await caches.open(LISTS);
  for (const path of Object.keys(LISTED)) {
    const response = await fetch(path, { cache: "no-cache" });
    if (!response.ok) continue; // a folder without it: the page says so
    await cache.put(path, response);
    await keepListed(path);
  }
}

/** Fetch what a list names and is not here yet, and drop what it names no more. */
async function keepListed(path: string): Promise<void> {
  const cache = await caches.open(LISTS);
  const list = (await (await cache.match(path))?.json()) as Record<string, string>[] | undefined;
  if (!list) return;
  const folder = path.slice(0, path.indexOf("/") + 1);
  // An entry that names no file is for the page to refuse.
  const files = list.map((entry) => entry[LISTED[path]!]).filter((file) => file !== undefined);
  const named = files.map((file) => folder + file);
  for (const file of named) if (!(await cache.match(file))) await cache.add(file);
  const wanted = new Set([path, ...named].map((file) => new URL(file, self.registration.scope).href));
  for (const { url } of await cache.keys()) {
    if (url.startsWith(self.registration.scope + folder) && !wanted.has(url)) await cache.delete(url);
  }
}

async function newest(event: FetchEvent, path: string): Promise<Response> {
  const cache = await caches.open(LISTS);
  try {
    const response = await fetch(event.request);
    if (response.ok) {
      await cache.put(event.request, response.clone());
      // No room, or broken off: it is fetched when it is needed.
      if (path in LISTED) event.waitUntil(keepListed(path).catch(() => undefined));
    }
    return response;
  } catch (error) {
    const kept = await cache.match(event.request);
    if (kept) return kept;
    throw error;
  }
}

async function fromCache(request: Request, path: string): Promise<Response> {
  const page = path === "" || path === "index.html";
  const kept = await caches.match(page ? "index.html" : request, { ignoreSearch: page });
  return kept ?? fetch(request);
}

/** Pictures shared from another app wait in a cache until the page that is opened for them takes them. */
async function takeShared(request: Request): Promise<Response> {
  await caches.delete(SHARED);
  const cache = await caches.open(SHARED);
  // Apps name fields as they like and may give no type; one that gives nothing gets the page, which says so.
  const form = await request.formData().catch(() => new FormData());
  const files: File[] = [];
  form.forEach((value) => {
    if (value instanceof File && (value.name !== "" || value.size > 0)) files.push(value);
  });
  for (const [index, file] of files.entries()) {
    const response = new Response(file, { headers: { "x-name": encodeURIComponent(file.name) } });
    await cache.put(`shared-picture/${index}`, response).catch(() => undefined); // no room: the page says what is missing
  }
  return Response.redirect(`${self.registration.scope}?shared#detect`, 303);
}

export {};
