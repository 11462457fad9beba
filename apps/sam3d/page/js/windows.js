/* Windows: the intensities that are shown from black to white. */

/** @typedef {import("./api.js").View} View */
/** @typedef {{name: string, low: number, high: number}} Window */

/** Hounsfield units of customary windows: level ± width / 2. @type {Window[]} */
const CT = [
  { name: "Soft tissue", low: -160, high: 240 },
  { name: "Liver", low: -20, high: 180 },
  { name: "Lung", low: -1350, high: 150 },
  { name: "Bone", low: -450, high: 1050 },
  { name: "Brain", low: 0, high: 80 },
];

/**
 * The windows that are offered for an image, the first one to begin with.
 * @param {View} view
 * @returns {Window[]}
 */
export function presets({ modality, window: [low, high], range }) {
  const auto = { name: "Auto", low, high };
  const all = { name: "Full range", low: range[0], high: Math.max(range[1], range[0] + 1e-6) };
  if (modality === "CT") return [...CT, auto, all];
  if (modality === "PT")
    return [{ name: "Uptake", low: 0, high: Math.max(high, 1e-6) }, { name: "Strong uptake", low: 0, high: all.high }, auto, all];
  const bright = { name: "Bright", low, high: low + 0.6 * (high - low) };
  const dark = { name: "Soft contrast", low: low - 0.2 * (high - low), high: high + 0.4 * (high - low) };
  return [auto, bright, dark, all];
}
