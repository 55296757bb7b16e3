/** The page's side of the service worker. */

const SHARED = "telltale-shared";
const PATIENCE_MS = 10_000;

/**
 * Register the service worker, and wait until it serves this page (not for ever).
 *
 * `onUpdate` gets a function that switches to a newer version when one waits.
 */
export async function installOffline(onUpdate: (use: () => void) => void): Promise<void> {
  if (!("serviceWorker" in navigator)) return;
  const { serviceWorker } = navigator;
  const controlled = serviceWorker.controller !== null;
  const registration = await serviceWorker.register("service-worker.js", { updateViaCache: "none" });
  const offer = () => {
    const { waiting } = registration;
    if (!waiting) return;
    onUpdate(() => {
      serviceWorker.addEventListener("controllerchange", () => location.reload(), { once: true });
      waiting.postMessage("use-now");
    });
  };
  if (controlled) offer();
  registration.addEventListener("updatefound", () => {
    const { installing } = registration;
    installing?.addEventListener("statechange", () => {
      if (installing.state === "installed" && serviceWorker.controller) offer();
    });
  });
  if (controlled) return;
  await new Promise<void>((resolve) => {
    serviceWorker.addEventListener("controllerchange", () => resolve(), { once: true });
    setTimeout(resolve, PATIENCE_MS);
  });
}

/** Have the service worker fetch whatever is still missing; whether everything is on the device now. */
export async function completeOffline(): Promise<boolean> {
  if (!("serviceWorker" in navigator)) return false;
  const { active } = await navigator.serviceWorker.ready;
  if (!active) return false;
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = ({ data }: MessageEvent<string>) => resolve(data === "complete");
    active.postMessage("complete", [port2]);
  });
}

/** The pictures that another app shared, once; null where nothing was shared. */
export async function takeSharedPictures(): Promise<Blob[] | null> {
  if (!new URLSearchParams(location.search).has("shared")) return null;
  history.replaceState(null, "", `./${location.hash}`);
  const cache = await caches.open(SHARED);
  const responses = await Promise.all((await cache.keys()).map((request) => cache.match(request)));
  await caches.delete(SHARED);
  const named = responses.filter((response) => response !== undefined).map(async (response) => {
    const name = decodeURIComponent(response.headers.get("x-name") ?? "");
    const blob = await response.blob();
    return new File([blob], name, { type: blob.type });
  });
  return Promise.all(named);
}
