/* Line charts in SVG. */

import { draw, make } from "./dom.js";

/** @typedef {{x: number, y: number, low?: number, high?: number, hollow?: boolean, title?: string}} Point */
/** @typedef {{colour: string, points: Point[], name?: string, marks?: boolean}} Line `colour` is a variable of the style sheet */
/** @typedef {{height: number, xLabel: string, yMax?: number, empty: string}} Options `empty` is the text without points */

const PAD = { left: 34, right: 12, top: 10, bottom: 30 };

/**
 * Draw lines over x.
 * @param {HTMLElement} target
 * @param {Line[]} lines
 * @param {Options} options
 */
export function chart(target, lines, { height, yMax, xLabel, empty }) {
  const width = target.clientWidth || 600;
  const all = lines.flatMap((line) => line.points);
  if (!all.length) {
    target.replaceChildren(make("p", { class: "empty" }, empty));
    return;
  }
  const xs = all.map((point) => point.x);
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  const top = yMax ?? Math.max(...all.map((point) => point.y)) * 1.08;
  const x = (/** @type {number} */ value) =>
    PAD.left + (width - PAD.left - PAD.right) * (xHigh === xLow ? 0.5 : (value - xLow) / (xHigh - xLow));
  const y = (/** @type {number} */ value) => height - PAD.bottom - ((height - PAD.top - PAD.bottom) * value) / top;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": described(lines, xLabel) });
  for (let step = 0; step <= 4; step++) {
    const value = (top * step) / 4;
    svg.append(draw("line", { class: "axis", x1: PAD.left, x2: width - PAD.right, y1: y(value), y2: y(value) }));
    svg.append(draw("text", { x: PAD.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  for (const value of new Set(xs.length > 12 ? [xLow, xHigh] : xs))
    svg.append(draw("text", { x: x(value), y: height - PAD.bottom + 15, "text-anchor": "middle" }, String(value)));
  svg.append(draw("text", { x: width - PAD.right, y: height - 2, "text-anchor": "end" }, xLabel));
  lines.forEach((line, index) => {
    drawLine(svg, line, x, y);
    if (!line.name) return;
    const at = { x: width - PAD.right - 8, y: y(0) - 10 - 16 * (lines.length - 1 - index), "text-anchor": "end" };
    const name = draw("text", { ...at, class: "name" }, line.name);
    name.style.fill = `var(${line.colour})`; // as a style attribute, the page's security policy would ignore it
    svg.append(name);
  });
  target.replaceChildren(svg);
}

/**
 * The chart in words.
 * @param {Line[]} lines
 * @param {string} xLabel
 */
function described(lines, xLabel) {
  const parts = lines.filter((line) => line.points.length).map(({ name, points }) => {
    const last = /** @type {Point} */ (points.at(-1));
    return `${name ?? "values"}: ${points.length} points, the last ${last.y.toFixed(3)} at ${last.x}`;
  });
  return `${xLabel}. ${parts.join("; ")}`;
}

/**
 * @param {Element} svg
 * @param {Line} line
 * @param {(value: number) => number} x
 * @param {(value: number) => number} y
 */
function drawLine(svg, line, x, y) {
  const colour = `var(${line.colour})`;
  const banded = line.points.filter((point) => point.low !== undefined);
  if (banded.length > 1) {
    const upper = banded.map((point) => `${x(point.x)},${y(point.high ?? point.y)}`);
    const lower = banded.map((point) => `${x(point.x)},${y(point.low ?? point.y)}`).reverse();
    svg.append(draw("polygon", { points: [...upper, ...lower].join(" "), fill: colour, opacity: 0.15 }));
  }
  const points = line.points.map((point) => `${x(point.x)},${y(point.y)}`).join(" ");
  svg.append(draw("polyline", { points, fill: "none", stroke: colour, "stroke-width": 2 }));
  if (!line.marks) return;
  for (const point of line.points) {
    const fill = point.hollow ? "var(--card)" : colour;
    const circle = { cx: x(point.x), cy: y(point.y), r: 4, stroke: colour, "stroke-width": 2, fill };
    svg.append(draw("circle", circle, draw("title", {}, point.title ?? "")));
  }
}
