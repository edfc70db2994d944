// The middle of the page: one sheet, or the two of a comparison with one camera, and the tip at the pointer.

import { valueAt } from "./block.js";
import { byId, clicked, fill, framed, h, num, on, shortName } from "./dom.js";
import { alike } from "./rows.js";
import { Sheet } from "./sheet.js";
import { nameOf, planesOf } from "./tiles.js";

const BLINK_MS = 700;
const HOME_VIEW = { zoom: 1, cx: 0.5, cy: 0.5 };

export class Stage {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
    this.state = store.state;
    this.camera = { ...HOME_VIEW };
    this.split = 0.5;
    this.second = false; // which of the two is seen while blinking
    this.hosts = [byId("sheet-a"), byId("sheet-b")];
    this.sheets = this.hosts.map((host, n) => new Sheet(host, this.camera, this.hooks(n)));
    this.draw = framed(() => this.drawNow());
    const marks = framed(() => this.mark());
    store.on("scene theme", () => this.drawNow());
    store.on("hover channel y x", marks);
    store.on("channel", () => this.reveal());
    store.on("layer", () => Object.assign(this.camera, HOME_VIEW)); // drawn when its maps are here
    // A range of colours stays over a resize: only the grid is laid anew, in the same frame, so nothing is seen to jump.
    new ResizeObserver(() => this.drawNow()).observe(byId("stage"));
    this.listen();
    setInterval(() => this.tick(), BLINK_MS);
  }

  /** @param {number} n @returns {SheetHooks} */
  hooks(n) {
    return {
      hover: (hit, event) => this.hover(hit, n, event),
      pick: (hit) => this.store.set({ channel: hit.tile, y: hit.y, x: hit.x }),
      moved: () => this.draw(),
    };
  }

  listen() {
    const handle = /** @type {HTMLInputElement} */ (byId("swipe"));
    on(handle, "input", () => {
      this.split = Number(handle.value) / 1000;
      this.draw();
    });
    clicked("zoom-in", () => this.sheets[0].zoomBy(1.5));
    clicked("zoom-out", () => this.sheets[0].zoomBy(1 / 1.5));
    clicked("zoom-fit", () => this.home());
  }

  /** All of the sheet in the window. */
  home() {
    Object.assign(this.camera, HOME_VIEW);
    this.draw();
  }

  tick() {
    // Who asked for less motion changes sides with the space bar.
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (this.state.scene?.mode === "blink" && !still) this.flip();
  }

  /** The other one of the two. */
  flip() {
    this.second = !this.second;
    this.drawNow();
  }

  reveal() {
    const { channel } = this.state;
    if (channel >= 0) for (const sheet of this.sheets) sheet.reveal(channel);
  }

  drawNow() {
    const { scene } = this.state,
      two = scene?.mode === "side" && scene.panes.length === 2;
    this.hosts[0].hidden = !scene;
    this.hosts[1].hidden = !two;
    byId("swipe").hidden = scene?.mode !== "swipe";
    if (!scene) delete byId("stage").dataset.drawn;
    if (!scene) return;
    byId("stage").classList.toggle("compared", Boolean(this.state.index?.compares));
    byId("stage").classList.toggle("swiped", scene.mode === "swipe");
    const first = this.sheets[0];
    if (two) {
      first.show([scene.panes[0]]);
      this.sheets[1].show([scene.panes[1]]);
      this.sheets[1].draw();
    } else if (scene.mode === "swipe") first.show(scene.panes, this.split);
    else first.show([scene.panes[scene.mode === "blink" && this.second ? 1 : 0] ?? scene.panes[0]]);
    first.draw();
    this.mark();
    this.titles(scene, two);
    byId("stage").dataset.drawn = scene.shown.id;
  }

  /** @param {Scene} scene @param {boolean} two */
  titles(scene, two) {
    const { index } = this.state,
      label = byId("side-a"),
      other = byId("side-b");
    label.hidden = !index?.compares;
    if (!index || label.hidden) return;
    const names = { a: `A  ${shortName(index.subject)}`, b: `B  ${shortName(index.subject_b)}`, diff: "A − B" },
      side = scene.mode === "blink" && this.second ? "b" : scene.panes[0].side;
    label.textContent = names[/** @type {"a"|"b"|"diff"} */ (side)];
    label.dataset.side = side;
    other.textContent = names.b;
    other.hidden = !(two || scene.mode === "swipe");
    other.classList.toggle("right", scene.mode === "swipe");
    (two ? this.hosts[1] : this.hosts[0]).append(other);
  }

  mark() {
    const { scene, hover, channel, y, x } = this.state;
    if (!scene) return;
    const two = scene.mode === "side" && scene.panes.length === 2,
      linked = !two || alike(scene.shown.row, scene.shown.image);
    (two ? this.sheets : [this.sheets[0]]).forEach((sheet, n) => {
      const mine = hover && (linked || hover.side === scene.panes[n].side),
        unit = y >= 0 && x >= 0 ? { y, x } : null;
      sheet.mark({ channel: n && !linked ? -1 : channel, hover: mine ? hover : null, unit, chosen: scene.chosen });
      sheet.top.setAttribute("aria-label", `${scene.panes[n].tiles.count} ${scene.panes[n].tiles.what} of ${scene.shown.row.key}; arrow keys choose one`);
    });
  }

  /** @param {Hit|null} hit @param {number} n @param {PointerEvent} event */
  hover(hit, n, event) {
    const { scene } = this.state,
      side = scene?.panes[scene.mode === "side" ? n : 0]?.side ?? "a";
    this.store.set({ hover: hit && { ...hit, side } });
    const tip = byId("tip");
    tip.hidden = !hit || !scene;
    if (!hit || !scene) return;
    fill(tip, ...tipOf(scene, { ...hit, side }));
    const box = byId("stage").getBoundingClientRect(),
      [width, height] = [tip.offsetWidth, tip.offsetHeight],
      left = event.clientX - box.left + 16,
      top = event.clientY - box.top + 18;
    tip.style.left = `${left + width > box.width ? left - width - 32 : left}px`;
    tip.style.top = `${top + height > box.height ? top - height - 30 : top}px`;
  }
}

/**
 * Where a value lies in the tensor, in words; a map that was reduced stands for several rows and columns.
 * @param {Tiles} tiles @param {number} image @param {number} y @param {number} x
 */
export function spotName(tiles, image, y, x) {
  if (tiles.block.h * tiles.block.w === 1) return "";
  const n = tiles.layer.maps[image]?.reduced ?? 1;
  if (tiles.what === "matrix") return `output ${y * n}, input ${x * n}`;
  const span = (/** @type {number} */ at) => (n > 1 ? `${at * n}…${at * n + n - 1}` : String(at));
  if (tiles.layer.layout === "NLC" && tiles.block.h === 1) return `token ${span(x)}`;
  return `(${span(y)}, ${span(x)})`;
}

/** @param {Tiles} tiles @param {Spot|Hit} spot @returns {string} one value, or three of an RGB tile */
export function readout(tiles, { tile, y, x }) {
  const values = planesOf(tiles, tile).map((plane) => valueAt(tiles.block, plane, y, x));
  return values.map((value) => (Number.isNaN(value) ? "not finite" : num(value))).join(", ");
}

/** @param {Scene} scene @param {Spot} spot @returns {Node[]} */
function tipOf(scene, spot) {
  const tiles = (spot.side === "b" ? scene.b : scene.a) ?? scene.panes[0].tiles,
    at = spotName(tiles, scene.shown.image, spot.y, spot.x),
    lines = [h("div.tip-name", nameOf(tiles, spot.tile), tiles.dead.has(spot.tile) ? h("span.dead", " dead") : null)];
  const line = (/** @type {string} */ name, /** @type {string} */ text, side = "") =>
    lines.push(h("div.tip-value", h("span.muted", { "data-side": side }, name), ` = ${text}`));
  const linked = alike(scene.shown.row, scene.shown.image);
  if (!scene.a || !scene.b || !linked) line(at || "value", readout(tiles, spot));
  else {
    line(`A ${at}`, readout(scene.a, spot), "a");
    line(`B ${at}`, readout(scene.b, spot), "b");
    const planes = planesOf(scene.a, spot.tile),
      gaps = planes.map((plane) => valueAt(/** @type {Tiles} */ (scene.a).block, plane, spot.y, spot.x) - valueAt(/** @type {Tiles} */ (scene.b).block, plane, spot.y, spot.x));
    line("A − B", gaps.map((gap) => num(gap, 3)).join(", "));
  }
  return lines;
}
