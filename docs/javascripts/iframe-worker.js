// Browsers start no worker for a page that was opened from a disk: there the site's search runs in a hidden frame.
// Material asks for `IFrameWorker` by name, and looks for its scripts in another place where there is one.
class FrameWorker extends EventTarget {
  constructor(address) {
    super();
    const frame = document.createElement("iframe");
    frame.hidden = true;
    document.body.append(frame);
    this.inside = frame.contentWindow;
    window.addEventListener("message", (event) => {
      if (event.source === this.inside) this.dispatchEvent(new MessageEvent("message", { data: event.data }));
    });
    const load = (source) => new Promise((resolve) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = resolve;
      document.body.append(script);
    });
    this.inside.document.open();
    // Opening took away all that listened to the frame before.
    this.loaded = new Promise((resolve) => this.inside.addEventListener("load", resolve));
    this.inside.document.write(
      `<body><script>
        postMessage = (data) => parent.postMessage(data, "*");
        const load = ${load};
        importScripts = (...sources) => sources.reduce((done, source) => done.then(() => load(source)), Promise.resolve());
      </script><script src="${address}"></script></body>`,
    );
    this.inside.document.close();
  }

  postMessage(data) {
    this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
  }
}

if (location.protocol === "file:") window.IFrameWorker = window.Worker = FrameWorker;
