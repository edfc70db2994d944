// The input image with what the unit sees of it, and the classes that the network named.

import { bar, byId, cleared, fill, framed, h, ink, on, outline, percent, shortName } from "./dom.js";
import { cropOf, examplesOf } from "./profile.js";
import { profileNow } from "./rows.js";

export class InputPane {
  /** @param {Store} store @param {Source} source */
  constructor(store, source) {
    this.store = store;
    this.state = store.state;
    this.source = source;
    this.image = /** @type {HTMLImageElement} */ (byId("input-image"));
    this.canvas = /** @type {HTMLCanvasElement} */ (byId("input-marks"));
    const draw = framed(() => this.draw());
    /** @type {{name: string, width: number, height: number}|null|undefined} */
    this.picture = null;
    this.drawn = "";
    store.on("index image", () => this.build());
    store.on("channel profile", ({ index }) => index?.dataset && this.build());
    store.on("hover look channel y x scene", draw);
    on(this.image, "load", draw);
    new ResizeObserver(draw).observe(byId("input"));
  }

  build() {
    const { index, image } = this.state,
      pane = byId("input");
    if (index?.dataset) {
      void this.buildExample();
      return;
    }
    // A comparison has one picture for both networks.
    const n = index && index.pictures.length === 1 ? 0 : image,
      picture = (this.picture = index?.pictures[n]);
    pane.hidden = !picture;
    if (!index || !picture) return;
    const address = this.source.picture(picture, n);
    if (this.image.getAttribute("src") !== address) this.image.src = address; // the steps of a run share it
    this.image.alt = `input image ${picture.name}`;
    byId("input-name").textContent = picture.name;
    const lists = index.compares ? index.predictions : index.predictions.slice(image, image + 1),
      titles = index.compares ? [index.subject, index.subject_b] : [""];
    fill(byId("predictions"), ...lists.map((list, at) => predictionList(list, titles[at] ?? "", index.compares ? "ab"[at] : "")));
  }

  draw() {
    const { ctx, width, height } = cleared(this.canvas),
      { picture } = this;
    if (!picture || !width) return;
    const scale = Math.min(width / picture.width, height / picture.height),
      [left, top] = [(width - picture.width * scale) / 2, (height - picture.height * scale) / 2],
      box = this.fieldBox();
    if (box) drawField(ctx, box.map((value, n) => (n % 2 ? top : left) + value * scale), [left, top, picture.width * scale, picture.height * scale]);
    const at = this.place();
    // The frame says where the unit looks; a cross on top would hide a small one.
    if (at && (!box || this.state.hover)) drawCross(ctx, left + at[0] * picture.width * scale, top + at[1] * picture.height * scale);
  }

  /** Of a survey: what is chosen of those that excite the channel most. */
  example() {
    const { image, channel } = this.state,
      profile = profileNow(this.state);
    return profile && channel >= 0 ? examplesOf(profile, channel)[image] : undefined;
  }

  /** Of a survey: the image of the example that is chosen. */
  async buildExample() {
    const { index } = this.state,
      example = this.example(),
      shown = example && index?.images?.find((one) => one.number === example.number);
    byId("input").hidden = !shown?.pixels;
    this.picture = shown?.pixels ? shown : null;
    if (!shown?.pixels || !example) return;
    byId("input-name").textContent = shown.name;
    this.image.alt = `example ${shown.name}`;
    fill(byId("predictions"), h("p.muted", shown.label));
    const blob = await this.source.shown(shown).catch(() => null);
    if (!blob || this.picture !== shown) return;
    URL.revokeObjectURL(this.drawn);
    this.image.src = this.drawn = URL.createObjectURL(blob);
  }

  /** @returns {number[]|null} x0, y0, x1, y1 in pixels of the input */
  fieldBox() {
    const { index, scene } = this.state;
    if (index?.dataset) {
      const profile = profileNow(this.state),
        example = this.example(),
        block = scene?.panes[0].tiles.block;
      return profile && example && block && this.picture ? cropOf(profile, example, block.h, block.w, this.picture.height, this.picture.width).field : null;
    }
    const box = this.state.look?.[0].receptive_field?.box;
    if (!box || box.length !== 2) return null;
    return [box[1][0], box[0][0], box[1][1], box[0][1]];
  }

  /** Where on the image a value lies, as shares: a map covers all of the image. @returns {Span|null} */
  place() {
    const { hover, scene, channel, y, x } = this.state;
    if (!scene || scene.shown.row.a?.layout.includes("O") || profileNow(this.state)) return null;
    const spot = hover ?? (channel >= 0 && y >= 0 ? { y, x, side: "" } : null),
      tiles = hover?.side === "b" ? scene.b : scene.panes[0].tiles;
    if (!spot || !tiles || tiles.block.h < 2) return null;
    return [(spot.x + 0.5) / tiles.block.w, (spot.y + 0.5) / tiles.block.h];
  }
}

/** The rest of the picture in shade, a frame around what the unit sees. @param {CanvasRenderingContext2D} ctx @param {number[]} box @param {number[]} whole */
function drawField(ctx, [x0, y0, x1, y1], [left, top, width, height]) {
  ctx.fillStyle = "rgba(10,12,16,0.45)";
  ctx.beginPath();
  ctx.rect(left, top, width, height);
  ctx.rect(x0, y0, x1 - x0, y1 - y0);
  ctx.fill("evenodd");
  outline(ctx, [x0, y0, x1 - x0, y1 - y0], ["#000", 4], [ink("field"), 2]);
}

/** @param {CanvasRenderingContext2D} ctx @param {number} x @param {number} y */
function drawCross(ctx, x, y) {
  for (const [colour, wide] of /** @type {[string, number][]} */ ([["#000", 4], ["#fff", 1.5]])) {
    ctx.strokeStyle = colour;
    ctx.lineWidth = wide;
    ctx.beginPath();
    ctx.arc(x, y, 6, 0, 7);
    ctx.moveTo(x - 11, y);
    ctx.lineTo(x - 4, y);
    ctx.moveTo(x + 4, y);
    ctx.lineTo(x + 11, y);
    ctx.stroke();
  }
}

/** @param {Prediction[]} list @param {string} title @param {string} side */
function predictionList(list, title, side) {
  const rows = list.slice(0, side ? 3 : 5).map(({ label, probability }) => h("li", h("span.class", label), h("span.share", percent(probability)), bar("div.bar", probability)));
  return h("div", title ? h("p", { "data-side": side }, `${side.toUpperCase()}  ${shortName(title)}`) : "", h("ol.classes", ...rows));
}
