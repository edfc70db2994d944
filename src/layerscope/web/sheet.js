// All tiles on one canvas: drawn, zoomed, dragged, pointed at. A second canvas on top holds labels and frames.

import { clamp, cleared, h, on, sharpen } from "./dom.js";
import { drawMarks } from "./marks.js";
import { paintTiles } from "./paint.js";
import { fitGrid, hitGrid, placeOf } from "./tiles.js";

const MOST_ZOOM = 80;

export class Sheet {
  /** @param {HTMLElement} host @param {Camera} camera shared by the sheets of a comparison @param {SheetHooks} hooks */
  constructor(host, camera, hooks) {
    this.camera = camera;
    this.hooks = hooks;
    this.base = /** @type {HTMLCanvasElement} */ (h("canvas.pixels"));
    this.top = /** @type {HTMLCanvasElement} */ (h("canvas.marks", { tabindex: 0, role: "img" }));
    host.append(this.base, this.top);
    this.host = host;
    /** @type {Pane[]} */
    this.panes = [];
    /** @type {Grid|null} */
    this.grid = null;
    /** Where B begins, as a share of the width; 1 shows the first pane alone. */
    this.split = 1;
    /** @type {ImageData|null} */
    this.image = null;
    this.fitted = "";
    this.listen();
  }

  /** @param {Pane[]} panes one, or two of one size that share the sheet @param {number} split */
  show(panes, split = 1) {
    this.panes = panes;
    this.split = split;
  }

  /** The grid follows the size of the window and of the layer, and nothing else. */
  fit() {
    const { clientWidth: width, clientHeight: height } = this.base,
      { tiles } = this.panes[0],
      wanted = [width, height, tiles.count, tiles.block.h, tiles.block.w, tiles.columns, tiles.strip].join();
    if (wanted === this.fitted && this.grid) return this.grid;
    this.fitted = wanted;
    this.grid = fitGrid(tiles, width, height);
    return this.grid;
  }

  /** @returns {View} */
  view() {
    const grid = /** @type {Grid} */ (this.grid),
      { clientWidth, clientHeight } = this.base,
      { camera } = this,
      [halfX, halfY] = [clientWidth / 2 / camera.zoom, clientHeight / 2 / camera.zoom];
    const middle = (/** @type {number} */ share, /** @type {number} */ size, /** @type {number} */ half) =>
      half * 2 >= size ? size / 2 : clamp(share * size, half - 12 / camera.zoom, size - half + 12 / camera.zoom);
    const x = middle(camera.cx, grid.width, halfX) - halfX,
      y = middle(camera.cy, grid.height, halfY) - halfY;
    return { zoom: camera.zoom, x, y };
  }

  draw() {
    if (!this.panes.length) return;
    const { ctx, ratio } = sharpen(this.base),
      { width, height } = this.base;
    if (!this.image || this.image.width !== width || this.image.height !== height) {
      this.image = ctx.createImageData(width, height);
    }
    const pixels = new Uint32Array(this.image.data.buffer);
    pixels.fill(0);
    const grid = this.fit(),
      at = Math.round(this.split * width);
    this.panes.forEach((pane, n) => {
      const [left, right] = n ? [at, width] : [0, this.panes.length > 1 ? at : width];
      if (left < right) paintTiles({ pixels, width, height, left, right }, pane.tiles, pane.order, grid, this.view(), ratio, pane.colours);
    });
    ctx.putImageData(this.image, 0, 0);
  }

  /** @param {Marks} marks */
  mark(marks) {
    if (!this.panes.length) return;
    const { ctx, width, height } = cleared(this.top);
    drawMarks(ctx, this.panes[0], this.fit(), this.view(), { width, height }, marks);
    if (this.panes.length > 1 && this.split > 0 && this.split < 1) drawSplit(ctx, this.split * width, height);
  }

  /** @param {number} clientX @param {number} clientY @returns {Hit|null} */
  hit(clientX, clientY) {
    if (!this.panes.length || !this.grid) return null;
    const box = this.top.getBoundingClientRect(),
      view = this.view(),
      found = hitGrid(this.grid, this.panes[0].tiles, (clientX - box.left) / view.zoom + view.x, (clientY - box.top) / view.zoom + view.y);
    return found && { tile: this.panes[0].order[found.slot], y: found.y, x: found.x };
  }

  /** @param {number} factor @param {number} [clientX] the point that stays where it is @param {number} [clientY] */
  zoomBy(factor, clientX, clientY) {
    if (!this.grid) return;
    const box = this.top.getBoundingClientRect(),
      [px, py] = [(clientX ?? box.left + box.width / 2) - box.left, (clientY ?? box.top + box.height / 2) - box.top],
      view = this.view(),
      [x, y] = [view.x + px / view.zoom, view.y + py / view.zoom],
      zoom = clamp(view.zoom * factor, 1, MOST_ZOOM);
    this.aim(zoom, x - px / zoom + box.width / 2 / zoom, y - py / zoom + box.height / 2 / zoom);
  }

  /** @param {number} zoom @param {number} x the sheet's point in the middle of the window @param {number} y */
  aim(zoom, x, y) {
    const grid = /** @type {Grid} */ (this.grid);
    Object.assign(this.camera, { zoom, cx: x / grid.width, cy: y / grid.height });
    const view = this.view(); // cut off at the edges: keep what is seen, not what was asked for
    this.camera.cx = (view.x + this.base.clientWidth / 2 / zoom) / grid.width;
    this.camera.cy = (view.y + this.base.clientHeight / 2 / zoom) / grid.height;
    this.hooks.moved();
  }

  /** Bring a tile into the window without a jump where it is seen already. @param {number} tile */
  reveal(tile) {
    if (!this.grid || !this.panes.length || this.camera.zoom === 1) return;
    const slot = this.panes[0].order.indexOf(tile);
    if (slot < 0) return;
    const [left, top] = placeOf(this.grid, slot),
      view = this.view(),
      [right, low] = [view.x + this.base.clientWidth / view.zoom, view.y + this.base.clientHeight / view.zoom];
    if (left >= view.x && top >= view.y && left + this.grid.tileW <= right && top + this.grid.tileH <= low) return;
    this.aim(view.zoom, left + this.grid.tileW / 2, top + this.grid.tileH / 2);
  }

  listen() {
    const { top } = this;
    /** @type {{x: number, y: number, moved: boolean}|null} */
    let drag = null;
    on(top, "wheel", (event) => {
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX, event.clientY);
    }, { passive: false });
    on(top, "pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, y: event.clientY, moved: false };
      top.setPointerCapture(event.pointerId);
    });
    on(top, "pointermove", (event) => {
      if (drag && (drag.moved || Math.hypot(event.clientX - drag.x, event.clientY - drag.y) > 4)) {
        this.pan(event.clientX - drag.x, event.clientY - drag.y);
        drag = { x: event.clientX, y: event.clientY, moved: true };
      } else if (!drag) this.hooks.hover(this.hit(event.clientX, event.clientY), event);
    });
    on(top, "pointerup", (event) => {
      const found = drag && !drag.moved ? this.hit(event.clientX, event.clientY) : null;
      drag = null;
      if (found) this.hooks.pick(found);
    });
    on(top, "pointercancel", () => (drag = null));
    on(top, "pointerleave", (event) => this.hooks.hover(null, event));
  }

  /** @param {number} dx @param {number} dy CSS pixels of the screen */
  pan(dx, dy) {
    if (!this.grid) return;
    const view = this.view();
    this.aim(view.zoom, view.x + (this.base.clientWidth / 2 - dx) / view.zoom, view.y + (this.base.clientHeight / 2 - dy) / view.zoom);
  }
}

/** @param {CanvasRenderingContext2D} ctx @param {number} x @param {number} height */
function drawSplit(ctx, x, height) {
  ctx.fillStyle = "#000";
  ctx.fillRect(x - 2, 0, 4, height);
  ctx.fillStyle = "#fff";
  ctx.fillRect(x - 1, 0, 2, height);
}
