// Numbers and shapes as text.

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
  const size = Math.abs(value);
  const text = size >= 1e6 || size < 1e-4 ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
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

/**
 * The shape of one image's output, or of the whole tensor of a checkpoint.
 * @param {number[]} shape
 * @param {string} layout
 */
export function dims(shape, layout) {
  const kept = layout.startsWith("N") && shape.length > 1 ? shape.slice(1) : shape;
  return kept.length ? kept.join(" × ") : "one number";
}

/**
 * The name of a network without the folders in it: `torchvision:resnet18 = ra.pth`.
 * @param {string} subject
 */
export function shortName(subject) {
  return subject
    .split("=")
    .map((part) => part.split(/[\\/]/).pop() || part)
    .join(" = ");
}
