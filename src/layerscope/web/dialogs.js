// Search for anything by name, and help.

import { byId, clicked, fill, h, on, quiet } from "./dom.js";
import { TOP, matching } from "./rows.js";

const MOST_FOUND = 12;

/** @type {[string, string][]} */
const KEYS = [
  ["j  k", "next, previous layer"],
  ["← → ↑ ↓", "channel; inside a channel, the value"],
  ["Enter", "deeper: layer, channel, value"],
  ["Esc", "back up"],
  ["w", "the layer's kernels, and back"],
  ["/", "filter the layers"],
  ["Ctrl+K", "search layers and channels"],
  ["[  ]", "previous, next image"],
  ["s  r  m", "next sort, range, colour map"],
  ["1 2 3 4", "side by side, swipe, blink, A − B"],
  ["Space", "the other network, while blinking"],
  ["+  −  0", "zoom in, out, all"],
  [",  .  p  f", "of a run: step before, after, play, follow"],
  ["t", "light or dark"],
  ["?", "this help"],
];

/** @param {Store} store */
export function setUpSearch(store) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("search")),
    input = /** @type {HTMLInputElement} */ (byId("search-input")),
    list = byId("search-found");
  let at = 0;
  /** @type {{text: string, detail: string, patch: any}[]} */
  let found = [];
  const show = () => {
    fill(list, ...found.map(({ text, detail }, n) => h("li", { role: "option", id: `found-${n}`, "aria-selected": n === at, onclick: () => go(n) }, h("span", text), quiet(detail))));
    [...list.children].forEach((item, n) => item.setAttribute("aria-selected", String(n === at)));
    input.setAttribute("aria-activedescendant", found.length ? `found-${at}` : "");
    list.children[at]?.scrollIntoView({ block: "nearest" });
  };
  const close = () => {
    input.blur(); // a field that is hidden keeps the focus until the next frame, and would take the next key
    dialog.close();
  };
  const go = (/** @type {number} */ n) => {
    close();
    if (found[n]) store.set(found[n].patch);
  };
  on(input, "input", () => {
    at = 0;
    found = searched(store, input.value);
    show();
  });
  on(input, "keydown", (event) => {
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (by && found.length) at = (at + by + found.length) % found.length;
    else if (event.key === "Enter") return event.preventDefault(), go(at);
    else if (event.key === "Escape") return close(); // not the field's own key, which would only empty it
    else return;
    event.preventDefault();
    show();
  });
  clicked("search-open", () => openSearch());
  on(dialog, "close", () => (input.value = ""));
}

export function openSearch() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("search"));
  if (!dialog.open) dialog.showModal();
  byId("search-input").dispatchEvent(new Event("input"));
}

/** Layers by name or type; a number at the end is a channel: `layer1 conv2 37`. @param {Store} store @param {string} text */
function searched(store, text) {
  const { rows, layer, index } = store.state,
    words = text.trim().split(/\s+/).filter(Boolean),
    last = words[words.length - 1] ?? "",
    channel = /^\d+$/.test(last) ? Number(last) : -1;
  const item = (/** @type {Row} */ row, /** @type {number} */ tile) => ({
    text: tile < 0 ? row.key : `${row.key} › ${tile}`,
    detail: row.a?.type ?? row.b?.type ?? row.pair?.status ?? "",
    patch: { ...TOP, layer: row.key, channel: tile },
  });
  const out = matching(rows, text.trim()).map((row) => item(row, -1));
  for (const name of index?.kernels ?? []) if (words.every((word) => name.toLowerCase().includes(word.toLowerCase()))) out.push({ text: name, detail: "kernels", patch: { ...TOP, layer: name } });
  if (channel >= 0) {
    const named = words.length > 1 ? matching(rows, words.slice(0, -1).join(" ")) : rows.filter((row) => row.key === layer);
    out.unshift(...named.filter((row) => channel < ((row.a ?? row.b)?.maps[0]?.c ?? 0)).map((row) => item(row, channel)));
  }
  return out.slice(0, MOST_FOUND);
}

export function setUpHelp() {
  fill(byId("help-keys"), ...KEYS.flatMap(([keys, what]) => [h("dt", ...keys.split("  ").flatMap((key) => key.split(" ")).map((key) => h("kbd", key))), h("dd", what)]));
  clicked("help-open", toggleHelp);
  for (const id of ["help", "search"]) {
    const dialog = /** @type {HTMLDialogElement} */ (byId(id));
    // A click beside a dialog lands on the dialog element itself.
    on(dialog, "click", (event) => event.target === dialog && dialog.close());
  }
  clicked("help-close", toggleHelp);
}

export function toggleHelp() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("help"));
  if (dialog.open) dialog.close();
  else dialog.showModal();
}
