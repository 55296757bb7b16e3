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

/** The picture that another app shared, once. */
export async function takeSharedPicture(): Promise<Blob | null> {
  if (!new URLSearchParams(location.search).has("shared")) return null;
  history.replaceState(null, "", `./${location.hash}`);
  const cache = await caches.open(SHARED);
  const response = await cache.match("shared-picture");
  await cache.delete("shared-picture");
  return response ? response.blob() : null;
}
