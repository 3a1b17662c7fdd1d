// Search without a server: browsers start no worker from a file, so its script runs in a frame that does what the
// theme asks of a worker: postMessage, "message" events, importScripts.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      this.waiting = [];
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.toPage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      this.inside.started = () => {
        this.started = true;
        this.waiting.splice(0).forEach((data) => this.postMessage(data));
      };
      const page = this.inside.document;
      page.open();
      page.write("<!doctype html><html><head></head><body></body></html>");
      page.close();
      const first = page.createElement("script");
      first.textContent =
        "postMessage = (data) => toPage(data);" +
        "importScripts = (...urls) => urls.reduce((done, url) => done.then(() => new Promise((resolve, reject) => {" +
        "  const script = document.createElement('script');" +
        "  script.src = url; script.onload = resolve; script.onerror = reject; document.head.append(script);" +
        "})), Promise.resolve());";
      const script = page.createElement("script");
      script.src = url;
      script.onload = () => this.inside.started();
      page.head.append(first, script);
    }

    postMessage(data) {
      if (this.started) {
        this.inside.dispatchEvent(new this.inside.MessageEvent("message", { data }));
      } else {
        this.waiting.push(data);
      }
    }

    terminate() {}
  };
}
