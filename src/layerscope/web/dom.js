// Elements in one line each.

/**
 * @param {string} tag
 * @param {Record<string, any>} [attributes] `class`, `on*` handlers, aria and data attributes; false and null are left out
 * @param {...(Node|string|null|false)} children
 * @returns {HTMLElement}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  fill(element, ...children);
  return element;
}

/**
 * Put these in the place of what an element holds.
 * @param {Element} element
 * @param {...(Node|string|null|false)} children
 */
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
 * @returns {{context: CanvasRenderingContext2D, width: number, height: number, ratio: number}} size in CSS pixels
 */
export function sharpen(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  const [w, h2] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h2) [canvas.width, canvas.height] = [w, h2];
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  return { context, width, height, ratio };
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

/**
 * Run once in the next frame, however often it is asked for until then.
 * @param {() => void} work
 * @returns {() => void}
 */
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
