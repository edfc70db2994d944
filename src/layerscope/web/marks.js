// What is drawn over the pixels: labels, dead channels, the selection, the value under the pointer.

import { clamp, ink } from "./dom.js";
import { labelOf, placeOf } from "./tiles.js";

const LABEL_MIN_PX = 30;
const PILL_MIN_PX = 60;

/**
 * @param {CanvasRenderingContext2D} ctx in CSS pixels
 * @param {Pane} pane @param {Grid} grid @param {View} view @param {{width: number, height: number}} size
 * @param {Marks} marks
 */
export function drawMarks(ctx, pane, grid, view, size, marks) {
  const { tiles, order } = pane,
    [w, h] = [grid.tileW * view.zoom, grid.tileH * view.zoom],
    firstRow = Math.max(0, Math.floor(view.y / grid.stepY)),
    lastRow = Math.min(grid.rows - 1, Math.floor((view.y + size.height / view.zoom) / grid.stepY));
  ctx.font = `11px ${ink("font")}`;
  for (let slot = firstRow * grid.columns; slot < Math.min(order.length, (lastRow + 1) * grid.columns); slot++) {
    const [x, y] = onScreen(grid, view, slot);
    if (x > size.width || x + w < 0) continue;
    const tile = order[slot];
    if (marks.chosen && !marks.chosen.has(tile)) shade(ctx, x, y, w, h);
    const dead = tiles.dead.has(tile);
    if (dead) frame(ctx, x, y, w, h, ink("dead"), w > 24 ? 1.5 : 1);
    if (tiles.strip) rowNumber(ctx, grid, slot, view, y, h);
    else if (tiles.count > 1) label(ctx, labelOf(tiles, tile) + (dead && w > 56 ? " dead" : ""), x, y, w, h, grid.head * view.zoom, dead);
  }
  if (marks.hover) drawHover(ctx, pane, grid, view, marks.hover);
  if (marks.channel >= 0) drawChosen(ctx, pane, grid, view, marks);
}

/** @param {Grid} grid @param {View} view @param {number} slot @returns {Span} */
function onScreen(grid, view, slot) {
  const [x, y] = placeOf(grid, slot);
  return [(x - view.x) * view.zoom, (y - view.y) * view.zoom];
}

/** @param {CanvasRenderingContext2D} ctx @param {number} x @param {number} y @param {number} w @param {number} h */
function shade(ctx, x, y, w, h) {
  ctx.globalAlpha = 0.82;
  ctx.fillStyle = ink("paper");
  ctx.fillRect(x, y, w, h);
  ctx.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} ctx @param {number} x @param {number} y @param {number} w @param {number} h @param {string} colour @param {number} wide */
function frame(ctx, x, y, w, h, colour, wide) {
  ctx.strokeStyle = colour;
  ctx.lineWidth = wide;
  ctx.strokeRect(x - wide / 2, y - wide / 2, w + wide, h + wide);
}

/**
 * Above the tile where there is room; inside of it once it is large.
 * @param {CanvasRenderingContext2D} ctx @param {string} text @param {number} x @param {number} y @param {number} w
 * @param {number} h @param {number} head @param {boolean} dead
 */
function label(ctx, text, x, y, w, h, head, dead) {
  const colour = dead ? ink("dead") : ink("muted");
  if (head >= 12 && w >= LABEL_MIN_PX && y >= 12 && x >= 0) {
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y - 4);
  } else if (w >= PILL_MIN_PX) {
    const wide = ctx.measureText(text).width + 8;
    // It stays in the window as long as a part of its tile does.
    const [left, top] = [clamp(x, 0, x + w - wide), clamp(y, 0, y + h - 15)];
    ctx.fillStyle = "rgba(17,19,24,0.78)";
    ctx.fillRect(left, top, wide, 15);
    ctx.fillStyle = dead ? "#ffb03b" : "#e8ebf2";
    ctx.fillText(text, left + 4, top + 11);
  }
}

/** @param {CanvasRenderingContext2D} ctx @param {Grid} grid @param {number} slot @param {View} view @param {number} y @param {number} h */
function rowNumber(ctx, grid, slot, view, y, h) {
  const row = Math.floor(slot / grid.columns),
    every = Math.max(1, Math.ceil(13 / (grid.stepY * view.zoom)));
  if (slot % grid.columns || row % every) return;
  ctx.fillStyle = ink("muted");
  ctx.textAlign = "right";
  ctx.fillText(String(slot), Math.max(36, (grid.left - view.x) * view.zoom - 8), y + h / 2 + 4);
  ctx.textAlign = "left";
}

/** @param {CanvasRenderingContext2D} ctx @param {Pane} pane @param {Grid} grid @param {View} view @param {Hit} hover */
function drawHover(ctx, pane, grid, view, hover) {
  const slot = pane.order.indexOf(hover.tile);
  if (slot < 0) return;
  const [x, y] = onScreen(grid, view, slot);
  frame(ctx, x, y, grid.tileW * view.zoom, grid.tileH * view.zoom, ink("ink"), 1);
  if (!pane.tiles.strip) pixelFrame(ctx, pane, grid, view, x, y, hover);
}

/** A map's one value: white on black, to be seen on any colour. @param {CanvasRenderingContext2D} ctx @param {Pane} pane @param {Grid} grid @param {View} view @param {number} x @param {number} y @param {Place} at */
function pixelFrame(ctx, pane, grid, view, x, y, at) {
  const { h, w } = pane.tiles.block,
    [px, py] = [(grid.tileW * view.zoom) / w, (grid.tileH * view.zoom) / h],
    [wide, high] = [Math.max(px, 3), Math.max(py, 3)],
    [left, top] = [x + (at.x + 0.5) * px - wide / 2, y + (at.y + 0.5) * py - high / 2];
  frame(ctx, left, top, wide, high, "#000", 3);
  frame(ctx, left, top, wide, high, "#fff", 1);
}

/** @param {CanvasRenderingContext2D} ctx @param {Pane} pane @param {Grid} grid @param {View} view @param {Marks} marks */
function drawChosen(ctx, pane, grid, view, marks) {
  const slot = pane.order.indexOf(marks.channel);
  if (slot < 0) return;
  const [x, y] = onScreen(grid, view, slot),
    [w, h] = [grid.tileW * view.zoom, grid.tileH * view.zoom];
  frame(ctx, x - 1, y - 1, w + 2, h + 2, ink("paper"), 4);
  frame(ctx, x, y, w, h, ink("accent"), 2);
  if (marks.unit && !pane.tiles.strip) pixelFrame(ctx, pane, grid, view, x, y, marks.unit);
}
