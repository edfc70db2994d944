// The input image with what the unit sees of it, and the classes that the network named.

import { byId, fill, framed, h, ink, sharpen } from "./dom.js";
import { percent, shortName } from "./format.js";

export class InputPane {
  /** @param {Store} store @param {Source} source */
  constructor(store, source) {
    this.store = store;
    this.source = source;
    this.image = /** @type {HTMLImageElement} */ (byId("input-image"));
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("input-marks"));
    const draw = framed(() => this.draw());
    store.on("index image", () => this.build());
    store.on("hover look channel y x scene", draw);
    this.image.addEventListener("load", draw);
    new ResizeObserver(draw).observe(byId("input"));
  }

  build() {
    const { index, image } = this.store.state;
    const pane = byId("input");
    // A comparison has one picture for both networks.
    const n = index && index.pictures.length === 1 ? 0 : image;
    const picture = index?.pictures[n];
    pane.hidden = !picture;
    if (!index || !picture) return;
    this.image.src = this.source.picture(picture, n);
    this.image.alt = `input image ${picture.name}`;
    byId("input-name").textContent = picture.name;
    const lists = index.kind === "compare" ? index.predictions : index.predictions.slice(image, image + 1);
    const titles = index.kind === "compare" ? [index.subject, index.subject_b] : [""];
    fill(byId("predictions"), ...lists.map((list, at) => predictionList(list, titles[at] ?? "", index.kind === "compare" ? "ab"[at] : "")));
  }

  draw() {
    const { context, width, height, ratio } = sharpen(this.canvas);
    const { index, image } = this.store.state;
    const picture = index?.pictures[index.pictures.length === 1 ? 0 : image];
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!picture || !width) return;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [left, top] = [(width - picture.width * scale) / 2, (height - picture.height * scale) / 2];
    const box = this.fieldBox();
    if (box) drawField(context, box.map((value, n) => (n % 2 ? top : left) + value * scale), [left, top, picture.width * scale, picture.height * scale]);
    const at = this.place();
    // The frame says where the unit looks; a cross on top would hide a small one.
    if (at && (!box || this.store.state.hover)) drawCross(context, left + at[0] * picture.width * scale, top + at[1] * picture.height * scale);
  }

  /** @returns {number[]|null} x0, y0, x1, y1 in pixels of the input */
  fieldBox() {
    const box = this.store.state.look?.receptive_field?.box;
    if (!box || box.length !== 2) return null;
    return [box[1][0], box[0][0], box[1][1], box[0][1]];
  }

  /** Where on the image a value lies, as shares: a map covers all of the image. @returns {Span|null} */
  place() {
    const { hover, scene, channel, y, x } = this.store.state;
    if (!scene || scene.shown.row.a?.layout.includes("O")) return null;
    const spot = hover ?? (channel >= 0 && y >= 0 ? { y, x, side: "" } : null);
    const tiles = hover?.side === "b" ? scene.b : scene.panes[0].tiles;
    if (!spot || !tiles || tiles.block.h < 2) return null;
    return [(spot.x + 0.5) / tiles.block.w, (spot.y + 0.5) / tiles.block.h];
  }
}

/** The rest of the picture in shade, a frame around what the unit sees. @param {CanvasRenderingContext2D} context @param {number[]} box @param {number[]} whole */
function drawField(context, [x0, y0, x1, y1], [left, top, width, height]) {
  context.fillStyle = "rgba(10,12,16,0.45)";
  context.beginPath();
  context.rect(left, top, width, height);
  context.rect(x0, y0, x1 - x0, y1 - y0);
  context.fill("evenodd");
  context.strokeStyle = "#000";
  context.lineWidth = 4;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  context.strokeStyle = ink("field");
  context.lineWidth = 2;
  context.strokeRect(x0, y0, x1 - x0, y1 - y0);
}

/** @param {CanvasRenderingContext2D} context @param {number} x @param {number} y */
function drawCross(context, x, y) {
  for (const [colour, wide] of /** @type {[string, number][]} */ ([["#000", 4], ["#fff", 1.5]])) {
    context.strokeStyle = colour;
    context.lineWidth = wide;
    context.beginPath();
    context.arc(x, y, 6, 0, 7);
    context.moveTo(x - 11, y);
    context.lineTo(x - 4, y);
    context.moveTo(x + 4, y);
    context.lineTo(x + 11, y);
    context.stroke();
  }
}

/** @param {Prediction[]} list @param {string} title @param {string} side */
function predictionList(list, title, side) {
  const rows = list.slice(0, side ? 3 : 5).map(({ label, probability }) => {
    const bar = h("div", { class: "bar" }, h("span", {}));
    /** @type {HTMLElement} */ (bar.firstChild).style.width = `${probability * 100}%`;
    return h("li", {}, h("span", { class: "class" }, label), h("span", { class: "share" }, percent(probability)), bar);
  });
  return h("div", {}, title ? h("p", { "data-side": side }, `${side.toUpperCase()}  ${shortName(title)}`) : "", h("ol", { class: "classes" }, ...rows));
}
