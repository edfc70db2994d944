// Everything by keyboard. Keys that belong to a field or a dialog are left to it.

import { peakOf } from "./block.js";
import { stepChannel } from "./channel.js";
import { toggleTheme } from "./controls.js";
import { openSearch, toggleHelp } from "./dialogs.js";
import { byId } from "./dom.js";
import { CHOICES } from "./hash.js";
import { walkOf } from "./scene.js";
import { planesOf } from "./tiles.js";

/** @type {Record<string, [number, number]>} down, right */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** @param {Store} store @param {LayerList} list @param {Stage} stage */
export function setUpKeys(store, list, stage) {
  const cycle = (/** @type {"sort"|"range"|"map"} */ field) => () => nextChoice(store, field);
  const mode = (/** @type {string} */ name) => () => {
    if (store.state.index?.kind === "compare") store.set({ mode: name });
  };
  /** @type {Record<string, () => void>} */
  const actions = {
    j: () => list.step(1), k: () => list.step(-1),
    "/": () => byId("filter").focus(), "?": toggleHelp,
    "[": () => stepImage(store, -1), "]": () => stepImage(store, 1),
    s: cycle("sort"), r: cycle("range"), m: cycle("map"), t: () => toggleTheme(store),
    1: mode("side"), 2: mode("swipe"), 3: mode("blink"), 4: mode("diff"),
    "+": () => stage.sheets[0].zoomBy(1.5), "=": () => stage.sheets[0].zoomBy(1.5), "-": () => stage.sheets[0].zoomBy(1 / 1.5), 0: () => stage.home(),
    " ": () => stage.flip(), Enter: () => deeper(store), Escape: () => higher(store),
  };
  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") return event.preventDefault(), openSearch();
    if (event.ctrlKey || event.metaKey || event.altKey || busy(event)) return;
    const arrow = ARROWS[event.key];
    const action = arrow ? () => walk(store, stage, arrow, event.shiftKey) : actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

/** @param {KeyboardEvent} event */
function busy(event) {
  if (document.querySelector("dialog[open]")) return true;
  const at = /** @type {HTMLElement} */ (event.target);
  if (at.matches("input, select, textarea")) return true;
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
    return store.set({ y: Math.min(Math.max(y + down, 0), h - 1), x: Math.min(Math.max(x + right, 0), w - 1) });
  }
  stepChannel(store, right + down * (scene.chosen ? 1 : stage.sheets[0].grid?.columns ?? 1));
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
  const { channel, y, brush, filter } = store.state;
  if (y >= 0) store.set({ y: -1, x: -1 });
  else if (channel >= 0) store.set({ channel: -1 });
  else if (brush) store.set({ brush: null });
  else if (filter) {
    /** @type {HTMLInputElement} */ (byId("filter")).value = "";
    store.set({ filter: "" });
  }
}

/** @param {Store} store @param {number} by */
function stepImage(store, by) {
  const { index, image } = store.state;
  const last = index?.kind === "compare" ? 0 : (index?.pictures.length ?? 1) - 1;
  store.set({ image: Math.min(Math.max(image + by, 0), Math.max(last, 0)) });
}

/** @param {Store} store @param {"sort"|"range"|"map"} field */
function nextChoice(store, field) {
  const choices = CHOICES[field].filter((value) => value !== "change" || store.state.index?.kind === "compare");
  const now = document.querySelector(`#choose-${field} [aria-pressed="true"]`)?.getAttribute("data-value") ?? "";
  store.set({ [field]: choices[(choices.indexOf(now) + 1) % choices.length] });
}
