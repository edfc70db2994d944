// Puts the page together: data in, state to scene, scene to screen, state to the address.

import { ChannelPane } from "./channel.js";
import { Controls, applyTheme, firstTheme, topBar } from "./controls.js";
import { setUpHelp, setUpSearch } from "./dialogs.js";
import { byId, framed } from "./dom.js";
import { shortName } from "./format.js";
import { formatHash, linkOf, parseHash } from "./hash.js";
import { LayerHistogram } from "./histogram.js";
import { setUpKeys } from "./keys.js";
import { LayerList } from "./layers.js";
import { setUpLive } from "./live.js";
import { Loader } from "./loader.js";
import { setUpPlain } from "./pairs.js";
import { InputPane } from "./picture.js";
import { rowsOf } from "./rows.js";
import { sceneOf } from "./scene.js";
import { chooseSource } from "./source.js";
import { Stage } from "./stage.js";
import { Store } from "./store.js";

/** Ask the network about every value that the arrow keys pass would be too much: wait until they rest. */
const UNIT_REST_MS = 120;

function start() {
  const source = chooseSource();
  const loader = new Loader(source);
  const theme = firstTheme();
  applyTheme(theme);
  /** @type {State} */
  const state = {
    ...parseHash(location.hash), index: null, rows: [], shown: null, scene: null, bins: null, hover: null, brush: null,
    filter: "", theme, progress: null, trouble: "", look: null,
  };
  const store = new Store(state);
  followState(store, loader); // first of all: data is on its way while the page is busy with the rest
  const list = new LayerList(store);
  const stage = new Stage(store);
  new Controls(store);
  new ChannelPane(store);
  new LayerHistogram(store);
  new InputPane(store, source);
  topBar(store);
  setUpSearch(store);
  setUpHelp();
  setUpPlain(store);
  setUpKeys(store, list, stage);
  followUnit(store, source);
  followAddress(store);
  const reload = oneAtATime(() => readIndex(store, source, loader));
  setUpLive(store, source, reload);
  reload();
}

/** Asked for again while it runs, it runs once more. @param {() => Promise<void>} work @returns {() => Promise<void>} */
function oneAtATime(work) {
  let [running, again] = [false, false];
  return async () => {
    again = true;
    if (running) return;
    running = true;
    for (; again; ) {
      again = false;
      await work();
    }
    running = false;
  };
}

/** @param {Store} store @param {Source} source @param {Loader} loader */
async function readIndex(store, source, loader) {
  try {
    const index = await source.index();
    if (!index) {
      if (!store.state.progress) store.set({ progress: { state: "loading", done: 0, of: 0, what: "the network" } });
      return;
    }
    if (store.state.index && index.version !== undefined && store.state.index.version === index.version) return;
    loader.forget();
    const rows = rowsOf(index);
    const layer = rows.some((row) => row.key === store.state.layer) ? store.state.layer : rows[0]?.key ?? "";
    const image = Math.min(store.state.image, Math.max(index.pictures.length - 1, 0));
    store.set({ index, rows, layer, image, progress: null, trouble: "", shown: null, look: null });
    await showLayer(store, loader);
  } catch (error) {
    store.set({ trouble: String(/** @type {Error} */ (error).message), progress: null });
  }
}

/** @param {Store} store @param {Loader} loader */
async function showLayer(store, loader) {
  const { rows, layer, image, shown } = store.state;
  const row = rows.find((one) => one.key === layer);
  if (!row || (shown?.row === row && shown.image === image)) return;
  try {
    const [a, b] = await loader.both(row, image);
    // Another layer may have been chosen while this one was on its way.
    if (store.state.layer !== layer || store.state.image !== image) return;
    store.set({ shown: { row, image, a, b }, hover: null, trouble: "" });
    const at = rows.indexOf(row);
    setTimeout(() => [rows[at + 1], rows[at - 1]].forEach((next) => next && loader.both(next, image).catch(() => {})), 200);
  } catch (error) {
    store.set({ trouble: String(/** @type {Error} */ (error).message), shown: null });
  }
}

/** @param {Store} store @param {Loader} loader */
function followState(store, loader) {
  store.on("layer", () => store.set({ brush: null, trouble: "" }));
  store.on("layer image", () => void showLayer(store, loader));
  store.on("shown range map sort mode brush", () => store.set({ scene: sceneOf(store.state) }));
}

/** @param {Store} store @param {Source} source */
function followUnit(store, source) {
  let timer = 0;
  store.on("layer channel y x image", () => {
    clearTimeout(timer);
    store.set({ look: null });
    if (store.state.y >= 0 && store.state.index?.live?.units) timer = setTimeout(() => askUnit(store, source), UNIT_REST_MS);
  });
  store.on("index", () => {
    if (store.state.y >= 0 && store.state.index?.live?.units) askUnit(store, source);
  });
}

/** @param {Store} store @param {Source} source */
async function askUnit(store, source) {
  const { rows, layer, channel, y, x, image } = store.state;
  const asked = rows.find((row) => row.key === layer)?.a;
  if (!asked || channel < 0) return;
  const still = () => store.state.layer === layer && store.state.channel === channel && store.state.y === y && store.state.x === x && store.state.image === image;
  try {
    const vector = asked.maps[image]?.h === 1 && asked.maps[image]?.w === 1;
    const look = await source.unit(asked, channel, image, vector ? [] : [y, x]);
    if (still()) store.set({ look });
  } catch (error) {
    if (still()) store.set({ look: { error: String(/** @type {Error} */ (error).message) } });
  }
}

/** @param {Store} store */
function followAddress(store) {
  const fields = "layer channel y x image range map sort mode";
  let written = location.hash;
  const write = () => {
    const { layer, index } = store.state;
    document.title = `${layer} · ${index ? shortName(index.subject) : ""} · layerscope`;
    const text = formatHash(linkOf(store.state));
    // A link that was followed a moment ago must not be written over: its event is still to come.
    if (text === written || location.hash !== written) return;
    written = text;
    try {
      history.replaceState(null, "", text || location.pathname + location.search);
    } catch {
      // a notebook's frame may not change its address
    }
  };
  // Both go through the browser's other processes and take milliseconds: after the frame.
  const later = framed(() => setTimeout(write, 0));
  store.on(`${fields} index`, later);
  addEventListener("hashchange", () => {
    if (location.hash === written) return;
    written = location.hash;
    const link = parseHash(location.hash);
    const known = store.state.rows.some((row) => row.key === link.layer);
    store.set(known ? link : { ...link, layer: store.state.layer });
  });
  byId("copy-link").addEventListener("click", () => navigator.clipboard?.writeText(location.href));
}

start();
