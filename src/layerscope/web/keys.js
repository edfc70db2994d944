// Everything by keyboard. Keys that belong to a field or a dialog are left to it.

import { peakOf } from "./block.js";
import { stepChannel } from "./channel.js";
import { toggleTheme } from "./controls.js";
import { openSearch, toggleHelp } from "./dialogs.js";
import { byId, clamp, on } from "./dom.js";
import { homeOf, imagesIn, kernelsIn, rowNow } from "./rows.js";
import { walkOf } from "./scene.js";
import { planesOf } from "./tiles.js";

/** @type {Record<string, [number, number]>} down, right */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** @param {Store} store @param {LayerList} list @param {Stage} stage @param {Steps} steps */
export function setUpKeys(store, list, stage, steps) {
  const cycle = (/** @type {"sort"|"range"|"map"} */ field) => () => nextChoice(store, field);
  const mode = (/** @type {string} */ name) => () => {
    if (store.state.index?.compares) store.set({ mode: name });
  };
  const zoom = (/** @type {number} */ by) => () => stage.sheets[0].zoomBy(by);
  /** @type {Record<string, () => void>} */
  const actions = {
    ",": () => steps.move(-1), ".": () => steps.move(1), p: () => steps.play(), f: () => steps.follow(),
    j: () => list.step(1), k: () => list.step(-1),
    "/": () => byId("filter").focus(), "?": toggleHelp,
    "[": () => stepImage(store, -1), "]": () => stepImage(store, 1),
    s: cycle("sort"), r: cycle("range"), m: cycle("map"), t: () => toggleTheme(store), w: () => kernels(store),
    1: mode("side"), 2: mode("swipe"), 3: mode("blink"), 4: mode("diff"),
    "+": zoom(1.5), "=": zoom(1.5), "-": zoom(1 / 1.5), 0: () => stage.home(),
    " ": () => stage.flip(), Enter: () => deeper(store), Escape: () => higher(store),
  };
  on(document, "keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") return event.preventDefault(), openSearch();
    if (event.ctrlKey || event.metaKey || event.altKey || busy(event)) return;
    const arrow = ARROWS[event.key],
      action = arrow ? () => walk(store, stage, arrow, event.shiftKey) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** @param {KeyboardEvent} event */
function busy(event) {
  if (document.querySelector("dialog[open]")) return true;
  const at = /** @type {HTMLElement} */ (event.target);
  if (at.matches("input, select, textarea")) return at.id !== "step" || !",.pf".includes(event.key);
  // Enter and Space press the button that has the focus, except in the list, where they open what is chosen already.
  const presses = event.key === "Enter" || event.key === " ";
  return presses && at.matches("button, summary, a") && !at.matches(".layer[aria-current]");
}

/** @param {Store} store @param {Stage} stage @param {Span} arrow @param {boolean} shift */
function walk(store, stage, [down, right], shift) {
  const { scene, channel, y, x } = store.state;
  if (!scene) return;
  if (shift) return stage.sheets[0].pan(-right * 80, -down * 80);
  const { tiles } = scene.panes[0];
  if (y >= 0 && channel >= 0 && !tiles.strip) {
    const { h, w } = tiles.block;
    return store.set({ y: clamp(y + down, 0, h - 1), x: clamp(x + right, 0, w - 1) });
  }
  stepChannel(store, right + down * (scene.chosen ? 1 : stage.sheets[0].grid?.columns ?? 1));
}

/** From a layer to its kernels, and back. @param {Store} store */
function kernels(store) {
  const [row, { index }] = [rowNow(store.state), store.state],
    layer = homeOf(store.state)?.key ?? (row && index ? kernelsIn(index, row)[0] : "");
  if (layer) store.open(layer);
}

/** @param {Store} store */
function deeper(store) {
  const { scene, channel, y } = store.state;
  if (!scene) return;
  const { tiles } = scene.panes[0];
  if (channel < 0 || channel >= tiles.count) store.set({ channel: walkOf(scene)[0] ?? -1, y: -1, x: -1 });
  else if (y < 0) {
    const [top, left] = peakOf(tiles.block, planesOf(tiles, channel)[0]);
    store.set({ y: top, x: left });
  }
}

/** @param {Store} store */
function higher(store) {
  const { channel, y, brush, filter, query } = store.state,
    home = homeOf(store.state);
  if (y >= 0) store.set({ y: -1, x: -1 });
  else if (channel >= 0) store.set({ channel: -1 });
  else if (brush) store.set({ brush: null });
  else if (query) store.set({ query: "" });
  else if (home) store.open(home.key);
  else if (filter) {
    /** @type {HTMLInputElement} */ (byId("filter")).value = "";
    store.set({ filter: "" });
  }
}

/** @param {Store} store @param {number} by */
function stepImage(store, by) {
  const { index, image } = store.state,
    last = !index || (index.compares && !index.at) ? 0 : imagesIn(index) - 1;
  store.set({ image: clamp(image + by, 0, Math.max(last, 0)) });
}

/** @param {Store} store @param {"sort"|"range"|"map"} field */
function nextChoice(store, field) {
  const buttons = [...document.querySelectorAll(`#choose-${field} button:not([hidden])`)],
    now = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
  store.set({ [field]: buttons[(now + 1) % buttons.length].getAttribute("data-value") });
}
