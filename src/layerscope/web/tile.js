// One channel, large: drawn like a tile of the sheet, on a canvas of its own.

import { h, sharpen } from "./dom.js";
import { num } from "./format.js";
import { paintTiles } from "./paint.js";

/**
 * @param {Tiles} tiles @param {number} tile @param {Colours} colours @param {string} caption
 * @param {(at: Place|null, picked: boolean) => void} point
 * @returns {Large}
 */
export function largeTile(tiles, tile, colours, caption, point) {
  const base = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "pixels" }));
  const top = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "marks", role: "img", "aria-label": caption }));
  const element = h("div", { class: "large" }, base, top);
  const { h: rows, w: columns } = tiles.block;
  const frame = () => {
    const [width, height] = [base.clientWidth, base.clientHeight];
    const factor = Math.min(width / columns, height / rows);
    const size = factor >= 3 ? Math.floor(factor) : factor;
    const [tileW, tileH] = [columns * size, rows * size];
    return { size, tileW, tileH, left: (width - tileW) / 2, top: (height - tileH) / 2 };
  };
  const at = (/** @type {PointerEvent} */ event) => {
    const { size, left, top: above } = frame();
    const [y, x] = [Math.floor((event.offsetY - above) / size), Math.floor((event.offsetX - left) / size)];
    return y >= 0 && x >= 0 && y < rows && x < columns ? { y, x } : null;
  };
  top.addEventListener("pointermove", (event) => point(at(event), false));
  top.addEventListener("pointerleave", () => point(null, false));
  top.addEventListener("click", (event) => {
    const hit = at(/** @type {PointerEvent} */ (event));
    if (hit) point(hit, true);
  });
  let painted = false;
  return {
    element,
    draw(spot) {
      const { size, tileW, tileH, left, top: above } = frame();
      if (!painted) paintOne(base, tiles, tile, colours, { tileW, tileH, left, top: above });
      painted = true;
      const { context, ratio, width, height } = sharpen(top);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.clearRect(0, 0, width, height);
      if (!spot) return;
      const side = Math.max(size, 4);
      const [x, y] = [left + (spot.x + 0.5) * size - side / 2, above + (spot.y + 0.5) * size - side / 2];
      for (const [colour, wide] of /** @type {[string, number][]} */ ([["#000", 3], ["#fff", 1.5]])) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.strokeRect(x, y, side, side);
      }
    },
  };
}

/**
 * @param {HTMLCanvasElement} canvas @param {Tiles} tiles @param {number} tile @param {Colours} colours
 * @param {{tileW: number, tileH: number, left: number, top: number}} place
 */
export function paintOne(canvas, tiles, tile, colours, { tileW, tileH, left, top }) {
  const { context, ratio } = sharpen(canvas);
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const target = { pixels, width: canvas.width, height: canvas.height, left: 0, right: canvas.width };
  const grid = { columns: 1, rows: 1, tileW, tileH, stepX: tileW, stepY: tileH, head: 0, left: 0, width: tileW, height: tileH };
  paintTiles(target, tiles, Int32Array.of(tile), grid, { zoom: 1, x: -left, y: -top }, ratio, colours);
  context.putImageData(image, 0, 0);
}

/**
 * A small picture of signed numbers around zero: a patch, a kernel, their products.
 * @param {number[][]} rows @param {number} most the value of full colour @param {Uint32Array} table @param {number} [cell] pixels
 * @returns {HTMLElement}
 */
export function numberGrid(rows, most, table, cell = 0) {
  const [height, width] = [rows.length, rows[0]?.length ?? 0];
  if (height * width === 1) return h("span", { class: "one-number" }, num(rows[0][0], 3));
  const canvas = /** @type {HTMLCanvasElement} */ (h("canvas", { class: "number-grid", width, height }));
  const size = cell || Math.max(3, Math.floor(46 / Math.max(width, height)));
  [canvas.style.width, canvas.style.height] = [`${width * size}px`, `${height * size}px`];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const image = context.createImageData(Math.max(width, 1), Math.max(height, 1));
  const pixels = new Uint32Array(image.data.buffer);
  rows.forEach((row, y) => row.forEach((value, x) => {
    const step = Math.round(((value / (most || 1)) * 0.5 + 0.5) * 255);
    pixels[y * width + x] = table[Math.min(Math.max(step, 0), 255)];
  }));
  context.putImageData(image, 0, 0);
  return canvas;
}

