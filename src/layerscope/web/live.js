// A network that is still loading, and a new image for one that has loaded.

import { byId, clicked, fill, h, on, saidOf } from "./dom.js";
import { pictureChanged } from "./source.js";

/** @param {Store} store @param {Source} source @param {() => Promise<void>} reload reads the index anew */
export function setUpLive(store, source, reload) {
  store.on("progress trouble index", ({ progress, trouble, index }) => {
    const busy = byId("busy");
    busy.hidden = !progress && !trouble;
    busy.classList.toggle("over", Boolean(index?.layers.length));
    if (busy.hidden) return;
    fill(busy, trouble ? h("p.trouble", { role: "alert" }, trouble) : "", progress && !trouble ? progressPart(progress) : "");
  });
  setUpDrop(store, source);
  source.events((event) => hear(store, event, reload));
}

/** @param {Store} store @param {any} event @param {() => Promise<void>} reload */
function hear(store, event, reload) {
  if (event.state === "ready") {
    // Said again whenever a stream begins: nothing is new then.
    const { run, index } = store.state;
    if (index && (run ?? index).version === event.version) return store.set({ progress: null });
    if (!run) pictureChanged(); // a run has the same ones at every step
    reload();
  } else if (event.state === "failed") {
    store.set({ progress: null, trouble: event.what || "the network could not be run" });
  } else store.set({ progress: event, trouble: "" });
}

/** @param {Progress} progress */
function progressPart({ state, done, of, what }) {
  const bar = /** @type {HTMLProgressElement} */ (h("progress", { "aria-label": state }));
  if (of > 1) [bar.max, bar.value] = [of, done];
  const said = state === "sending" ? what : `${state} ${what}`;
  return h("div.progress", { role: "status" }, h("p", said), bar, h("p.muted", of > 1 ? `${done} of ${of}` : "\u00a0"));
}

/** @param {Store} store @param {Source} source */
function setUpDrop(store, source) {
  const hint = byId("drop"),
    input = /** @type {HTMLInputElement} */ (byId("file")),
    allowed = () => Boolean(store.state.index?.live?.image);
  const send = async (/** @type {File|undefined} */ file) => {
    if (!file || !allowed()) return;
    store.set({ progress: { state: "sending", done: 0, of: 0, what: `sending ${file.name}` }, trouble: "" });
    try {
      await source.send(file);
    } catch (error) {
      store.set({ progress: null, trouble: saidOf(error) });
    }
  };
  store.on("index", () => (byId("file-open").hidden = !allowed()));
  clicked("file-open", () => input.click());
  on(input, "change", () => {
    send(input.files?.[0]);
    input.value = "";
  });
  on(document, "dragover", (event) => {
    event.preventDefault();
    hint.hidden = !allowed();
  });
  on(document, "dragleave", (event) => {
    if (!event.relatedTarget) hint.hidden = true;
  });
  on(document, "drop", (event) => {
    event.preventDefault(); // or the browser leaves the page for the picture
    hint.hidden = true;
    send(event.dataTransfer?.files[0]);
  });
}
