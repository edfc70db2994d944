// Elements in one line each, and numbers and shapes as text.

/**
 * @param {string} name a tag, and classes behind dots
 * @param {...(Record<string, any>|string|null|false)} parts children, and in front of them attributes: `on*` handlers,
 * aria and data attributes; false and null are left out
 * @returns {HTMLElement}
 */
export function h(name, ...parts) {
  const [tag, ...classes] = name.split("."),
    element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  const [first] = parts;
  if (first && typeof first === "object" && !(first instanceof Node)) {
    parts.shift();
    for (const [key, value] of Object.entries(first)) {
      if (value === null || value === undefined || value === false) continue;
      if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
      else element.setAttribute(key, value === true ? "" : String(value));
    }
  }
  fill(element, .../** @type {(Node|string|null|false)[]} */ (parts));
  return element;
}

/** Put these in the place of what an element holds. @param {Element} element @param {...(Node|string|null|false)} children */
export function fill(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== false).map((child) => /** @type {Node|string} */ (child)));
}

/** @param {string} tag @param {Record<string, any>} attributes @param {...Node} children @returns {SVGElement} */
export function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {string} id @returns {HTMLElement} */
export function byId(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`the page has no #${id}`);
  return found;
}

/**
 * A canvas as sharp as the screen: its pixels follow its size on the page.
 * @param {HTMLCanvasElement} canvas
 * @returns {{ctx: CanvasRenderingContext2D, width: number, height: number, ratio: number}} size in CSS pixels
 */
export function sharpen(canvas) {
  const ratio = window.devicePixelRatio || 1,
    width = canvas.clientWidth,
    height = canvas.clientHeight,
    [w, h2] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h2) [canvas.width, canvas.height] = [w, h2];
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  return { ctx, width, height, ratio };
}

/** @type {Map<string, string>} */
const inkCache = new Map();

/** @param {string} name a custom property of the style sheet, without the dashes @returns {string} */
export function ink(name) {
  let value = inkCache.get(name);
  if (value === undefined) {
    value = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    inkCache.set(name, value);
  }
  return value;
}

/** The colours have changed: light or dark. */
export function forgetInk() {
  inkCache.clear();
}

/** Run once in the next frame, however often it is asked for until then. @param {() => void} work @returns {() => void} */
export function framed(work) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      work();
    });
  };
}

/** A canvas with nothing on it, to be drawn on in CSS pixels. @param {HTMLCanvasElement} canvas */
export function cleared(canvas) {
  const found = sharpen(canvas);
  found.ctx.setTransform(found.ratio, 0, 0, found.ratio, 0, 0);
  found.ctx.clearRect(0, 0, found.width, found.height);
  return found;
}

/** @param {...(Node|string|null|false)} children */
export function quiet(...children) {
  return h("span.muted", ...children);
}

/**
 * @template {keyof HTMLElementEventMap} Kind
 * @param {EventTarget} target @param {Kind} kind @param {(event: HTMLElementEventMap[Kind]) => void} hear
 * @param {AddEventListenerOptions} [options]
 */
export function on(target, kind, hear, options) {
  target.addEventListener(kind, /** @type {any} */ (hear), options);
}

/** @param {string} id @param {(event: MouseEvent) => void} hear */
export function clicked(id, hear) {
  on(byId(id), "click", hear);
}

/** What went wrong, in a sentence. @param {unknown} error */
export function saidOf(error) {
  return String(/** @type {Error} */ (error).message);
}

/**
 * Three or four significant digits, no trailing zeros; "–" where there is no number.
 * @param {number|null|undefined} value
 * @param {number} [digits]
 * @returns {string}
 */
export function num(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  if (value === 0) return "0";
  const size = Math.abs(value),
    text = size >= 1e6 || size < 1e-4 ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
  // A true minus sign is as wide as a digit, so columns of numbers stay in line.
  return text.replace("-", "−").replace("e+", "e");
}

/** @param {number} value @returns {string} with a comma every three digits */
export function count(value) {
  return value.toLocaleString("en-US");
}

/** @param {number} share @returns {string} */
export function percent(share) {
  return `${(share * 100).toFixed(share > 0 && share < 0.001 ? 3 : 1)}%`;
}

/** The shape of one image's output, or of the whole tensor of a checkpoint. @param {number[]} shape @param {string} layout */
export function dims(shape, layout) {
  const kept = layout.startsWith("N") && shape.length > 1 ? shape.slice(1) : shape;
  return kept.length ? kept.join(" × ") : "one number";
}

/** The name of a network without the folders in it: `torchvision:resnet18 = ra.pth`. @param {string} subject */
export function shortName(subject) {
  return subject
    .split("=")
    .map((part) => part.split(/[\\/]/).pop() || part)
    .join(" = ");
}

/** @param {number} value @param {number} low @param {number} high wins where it is less than `low` */
export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

/** A row or column among `from`, where it lies among `to`. @param {number} at @param {number} from @param {number} to */
export function sameSpot(at, from, to) {
  return Math.floor(((at + 0.5) * to) / from);
}

/** A bar of this share of its room. @param {string} kind @param {number} share */
export function bar(kind, share) {
  const part = h("span");
  part.style.width = `${share * 100}%`;
  return h(kind, part);
}

/** Frames of these colours and widths, one on the other. @param {CanvasRenderingContext2D} ctx @param {number[]} box x, y, width, height @param {[string, number][]} pens */
export function outline(ctx, [x, y, w, h], ...pens) {
  for (const [colour, wide] of pens) {
    [ctx.strokeStyle, ctx.lineWidth] = [colour, wide];
    ctx.strokeRect(x, y, w, h);
  }
}

/** Two numbers at the ends of an axis. @param {CanvasRenderingContext2D} ctx @param {Span} span @param {number} left @param {number} right @param {number} base */
export function axisEnds(ctx, [low, high], left, right, base) {
  ctx.fillStyle = ink("muted");
  ctx.font = `11px ${ink("font")}`;
  ctx.fillText(num(low, 3), left, base);
  ctx.textAlign = "right";
  ctx.fillText(num(high, 3), right, base);
  ctx.textAlign = "left";
}

/** A small canvas of colours, red first in memory. @param {HTMLCanvasElement} canvas @param {(data: Uint8ClampedArray) => void} work */
export function inPixels(canvas, work) {
  const ctx = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d")),
    image = ctx.createImageData(canvas.width || 1, canvas.height || 1);
  work(image.data);
  ctx.putImageData(image, 0, 0);
  return canvas;
}
