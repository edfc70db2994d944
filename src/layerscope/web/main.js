// Puts the page together: data in, state to scene, scene to screen, state to the address.

import { ChannelPane } from "./channel.js";
import { Controls, applyTheme, firstTheme, topBar } from "./controls.js";
import { setUpHelp, setUpSearch } from "./dialogs.js";
import { parseBlock } from "./block.js";
import { byId, clamp, clicked, framed, sameSpot, saidOf, shortName } from "./dom.js";
import { Examples } from "./examples.js";
import { HOME, formatHash, linkOf, parseHash } from "./hash.js";
import { LayerHistogram } from "./histogram.js";
import { setUpKeys } from "./keys.js";
import { LayerList } from "./layers.js";
import { setUpLive } from "./live.js";
import { Loader } from "./loader.js";
import { setUpPlain } from "./pairs.js";
import { InputPane } from "./picture.js";
import { imagesIn, isKnown, rowNow, rowsOf, tokensOf } from "./rows.js";
import { profileOf } from "./profile.js";
import { sceneOf } from "./scene.js";
import { chooseSource } from "./source.js";
import { Stage } from "./stage.js";
import { setUpSteps } from "./steps.js";
import { Store } from "./store.js";

/** Ask the network about every value that the arrow keys pass would be too much: wait until they rest. */
const UNIT_REST_MS = 120;
/** What comes sooner needs no word. */
const WAIT_SEEN_MS = 200;

function start() {
  const source = chooseSource(),
    loader = new Loader(source),
    theme = firstTheme();
  applyTheme(theme);
  /** @type {State} */
  const state = {
    ...parseHash(location.hash), index: null, rows: [], shown: null, scene: null, bins: null, hover: null, brush: null,
    filter: "", theme, progress: null, trouble: "", look: null,
    kernels: null, tensors: [], apart: null, profile: null, run: null, follow: false, playing: false,
  };
  const store = new Store(state);
  followState(store, source, loader); // first of all: data is on its way while the page is busy with the rest
  const list = new LayerList(store),
    stage = new Stage(store);
  new Controls(store);
  new ChannelPane(store, new Examples(store, source, loader));
  new LayerHistogram(store);
  new InputPane(store, source);
  topBar(store);
  setUpSearch(store);
  setUpHelp();
  setUpPlain(store);
  const steps = setUpSteps(store, source, loader, () => showLayer(store, source, loader));
  setUpKeys(store, list, stage, steps);
  followUnit(store, source);
  followAddress(store);
  const reload = oneAtATime(() => readIndex(store, source, loader, steps));
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

/** @param {Store} store @param {Source} source @param {Loader} loader @param {Steps} steps */
async function readIndex(store, source, loader, steps) {
  try {
    if (store.state.run) return await steps.read();
    const index = await source.index();
    if (!index) {
      if (!store.state.progress) store.set({ progress: { state: "loading", done: 0, of: 0, what: "the network" } });
      return;
    }
    if (index.step !== undefined) return await steps.read();
    if (store.state.index && index.version !== undefined && store.state.index.version === index.version) return;
    loader.forget();
    const rows = rowsOf(index),
      layer = isKnown({ ...store.state, rows }, index, store.state.layer) ? store.state.layer : rows[0]?.key ?? "",
      image = Math.min(store.state.image, Math.max(imagesIn(index) - 1, 0));
    store.set({ index, rows, layer, image, progress: null, trouble: "", shown: null, look: null, apart: null });
    await showLayer(store, source, loader);
  } catch (error) {
    store.set({ trouble: saidOf(error), progress: null });
  }
}

/** @param {Store} store @param {Source} source @param {Loader} loader */
async function showLayer(store, source, loader) {
  const { rows, tensors, layer, query, shown, index } = store.state,
    row = rowNow(store.state),
    image = row && tensors.includes(row) ? 0 : store.state.image,
    id = `${layer}|${image}${query && `|${query}`}${index?.at ?? ""}`;
  if (row && shown?.id === id) return;
  // Another layer may have been chosen while this one was on its way.
  const still = () => store.state.query === query && (image === 0 || store.state.image === image) && rowNow(store.state) === row,
    waiting = setTimeout(() => byId("stage").classList.add("waiting"), WAIT_SEEN_MS);
  try {
    if (!row) {
      if (index?.kernels?.length) await readKernels(store, source);
      return;
    }
    const [a, b] = query ? await bothParts(source, row, image, query) : await loader.both(row, image);
    if (!still()) return;
    const made = query ? { ...row, a: row.a && a && partOf(row.a, a), b: row.b && b && partOf(row.b, b) } : row;
    const { y, x } = store.state,
      block = a ?? b,
      // A link may say a place that this map does not have.
      place = y >= 0 && block ? { y: clamp(y, 0, block.h - 1), x: clamp(x, 0, block.w - 1) } : {};
    store.set({ shown: { id, row: made, image, a, b }, hover: null, trouble: "", ...place });
    const at = rows.indexOf(row);
    setTimeout(() => [rows[at + 1], rows[at - 1]].forEach((next) => next && at >= 0 && loader.both(next, image).catch(() => {})), 200);
  } catch (error) {
    if (still()) store.set({ trouble: saidOf(error), shown: null });
  } finally {
    clearTimeout(waiting);
    byId("stage").classList.remove("waiting");
  }
}

/** The live network's tensors, and of them the one that the link means. @param {Store} store @param {Source} source */
async function readKernels(store, source) {
  const kernels = await source.kernels(),
    tensors = rowsOf(kernels),
    { layer, rows } = store.state,
    row = tensors.find(({ key, a, b }) => [key, a?.path, b?.path].includes(layer)) ?? rows[0];
  store.set({ kernels, tensors, layer: row?.key ?? "" });
}

/** @param {Source} source @param {Row} row @param {number} image @param {string} query @returns {Promise<(Block|null)[]>} */
function bothParts(source, row, image, query) {
  return Promise.all([row.a, row.b].map(async (layer) => layer && parseBlock(await source.part(layer, image, query), source.layout)));
}

/** A layer as if these were its maps. @param {Layer} layer @param {Block} block @returns {Layer} */
function partOf(layer, { C, h, w }) {
  return { ...layer, dead: [], total: null, maps: layer.maps.map(() => ({ c: C, h, w, reduced: 1 })) };
}

/** @param {Store} store @param {Source} source @param {Loader} loader */
function followState(store, source, loader) {
  store.on("layer", () => store.set({ brush: null, trouble: "", apart: null }));
  store.on("layer image query tensors", () => void showLayer(store, source, loader));
  store.on("shown range map sort mode brush profile", () => store.set({ scene: sceneOf(store.state) }));
  store.on("y x", ({ y, x, query }) => y >= 0 && query.includes(",") && store.set({ query: `${y},${x}` }));
  store.on("shown", async ({ shown, profile }) => {
    const layer = shown?.row.a;
    if (!layer?.profile || profile?.id === layer.id) return;
    const data = await source.profile(layer).then(profileOf).catch(() => null);
    if (data && store.state.shown?.row.a === layer) store.set({ profile: { id: layer.id, data } });
  });
  // What the class token has in a channel, beside its patches.
  store.on("channel shown", async ({ channel, shown, image, index, apart, query }) => {
    const layer = rowNow(store.state)?.a;
    if (channel < 0 || apart || query || !layer || !index?.live || layer.layout !== "NLC" || tokensOf(layer, image) < 1) return;
    const block = await source.part(layer, image, "tokens").then((data) => parseBlock(data, source.layout), () => null);
    if (store.state.shown === shown) store.set({ apart: block });
  });
}

/** @param {Store} store @param {Source} source */
function followUnit(store, source) {
  let timer = 0;
  const ask = (/** @type {number} */ wait) => {
    clearTimeout(timer);
    if (store.state.y >= 0 && store.state.index?.live?.units) timer = setTimeout(() => askUnit(store, source), wait);
  };
  store.on("layer channel y x image", () => {
    store.set({ look: null });
    ask(UNIT_REST_MS);
  });
  store.on("index", () => ask(0));
}

/** @param {Store} store @param {Source} source */
async function askUnit(store, source) {
  const { state } = store,
    { rows, layer, channel, y, x, image } = state,
    row = rows.find((one) => one.key === layer),
    asked = [row?.a, row?.b].filter((one) => one && one.type !== "attention" && channel < (one.maps[image]?.c ?? 0)),
    first = asked[0]?.maps[image];
  if (!first || channel < 0) return;
  const asking = () => [state.layer, state.channel, state.y, state.x, state.image].join(),
    before = asking(),
    still = () => asking() === before;
  const look = await Promise.all(/** @type {Layer[]} */ (asked).map(async (one) => {
    const { h, w } = one.maps[image],
      at = h === 1 && w === 1 ? [] : [sameSpot(y, first.h, h), sameSpot(x, first.w, w)];
    return { side: one.side, ...(await source.unit(one, channel, image, at).catch((error) => ({ error: saidOf(error) }))) };
  }));
  if (still()) store.set({ look });
}

/** @param {Store} store */
function followAddress(store) {
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
  store.on(`${Object.keys(HOME).join(" ")} index`, later);
  addEventListener("hashchange", () => {
    if (location.hash === written) return;
    written = location.hash;
    const link = parseHash(location.hash),
      { index, layer, step, run } = store.state;
    if (link.step < 0) link.step = step;
    store.set({ ...link, ...(run ? { follow: false, playing: false } : {}), ...(index && isKnown(store.state, index, link.layer) ? {} : { layer }) });
  });
  clicked("copy-link", () => navigator.clipboard?.writeText(location.href));
}

start();
