/* What is drawn over the planes: clicks, boxes, the suggested next click and the brush. */

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./viewer.js").Viewer} Viewer */
/**
 * @typedef {object} Marks
 * @property {Voxel[]} foreground
 * @property {Voxel[]} background
 * @property {Box | null} roi
 * @property {Voxel | null} suggestion
 * @property {{x: number, y: number, radius: number} | null} brush CSS pixels
 */

const INSIDE = "#34d399";
const OUTSIDE = "#fb7185";
const BOX = "#7dd3fc";
const SUGGESTION = "#fde047";
const CROSSHAIR = "rgb(125 190 255 / .7)";
/** CSS pixels around the crosshair's centre that stay free. */
const GAP = 12;
/** Slices away from which a click is still hinted at. */
const NEAR = 4;

/**
 * Draw the marks of the active label.
 * @param {HTMLCanvasElement} canvas over the viewer's
 * @param {Viewer} viewer
 * @param {Marks} marks
 */
export function drawMarks(canvas, viewer, marks) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const toCss = (/** @type {number} */ edge) => edge / (viewer.nv.uiData.dpr || 1);
  viewer.slices.forEach((slice, tile) => {
    if (slice.axCorSag > 2) return;
    pen.save();
    clip(pen, slice.leftTopWidthHeight.map(toCss));
    drawCrosshair(pen, viewer.project(viewer.place, tile), slice.leftTopWidthHeight.map(toCss));
    if (marks.roi) drawBox(pen, viewer, tile, marks.roi);
    for (const ijk of marks.background) drawClick(pen, viewer.project(ijk, tile), OUTSIDE, false);
    for (const ijk of marks.foreground) drawClick(pen, viewer.project(ijk, tile), INSIDE, true);
    if (marks.suggestion) drawSuggestion(pen, viewer.project(marks.suggestion, tile));
    pen.restore();
  });
  if (marks.brush) {
    pen.strokeStyle = "#fff";
    pen.lineWidth = 1;
    circle(pen, marks.brush.x, marks.brush.y, marks.brush.radius);
    pen.stroke();
  }
}

/** @param {CanvasRenderingContext2D} pen @param {number[]} rectangle */
function clip(pen, [left, top, width, height]) {
  pen.beginPath();
  pen.rect(left, top, width, height);
  pen.clip();
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} radius */
function circle(pen, x, y, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
}

/** @typedef {{x: number, y: number, away: number} | null} Place */

/** @param {CanvasRenderingContext2D} pen @param {Place} at @param {number[]} rectangle */
function drawCrosshair(pen, at, [left, top, width, height]) {
  if (!at) return;
  pen.strokeStyle = CROSSHAIR;
  pen.lineWidth = 1;
  pen.beginPath();
  for (const [x0, y0, x1, y1] of [
    [left, at.y, at.x - GAP, at.y], [at.x + GAP, at.y, left + width, at.y],
    [at.x, top, at.x, at.y - GAP], [at.x, at.y + GAP, at.x, top + height],
  ]) {
    pen.moveTo(x0, y0);
    pen.lineTo(x1, y1);
  }
  pen.stroke();
}

/** @param {CanvasRenderingContext2D} pen @param {Place} at @param {string} colour @param {boolean} isPlus */
function drawClick(pen, at, colour, isPlus) {
  if (!at || Math.abs(at.away) > NEAR) return;
  pen.globalAlpha = at.away === 0 ? 1 : 0.35;
  circle(pen, at.x, at.y, 6);
  pen.fillStyle = colour;
  pen.fill();
  pen.strokeStyle = "#04121c";
  pen.lineWidth = 1.6;
  pen.stroke();
  pen.beginPath();
  pen.moveTo(at.x - 3, at.y);
  pen.lineTo(at.x + 3, at.y);
  if (isPlus) {
    pen.moveTo(at.x, at.y - 3);
    pen.lineTo(at.x, at.y + 3);
  }
  pen.stroke();
  pen.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} pen @param {Place} at */
function drawSuggestion(pen, at) {
  if (!at || Math.abs(at.away) > NEAR) return;
  pen.globalAlpha = at.away === 0 ? 1 : 0.4;
  pen.strokeStyle = SUGGESTION;
  pen.lineWidth = 2;
  circle(pen, at.x, at.y, 10);
  pen.stroke();
  circle(pen, at.x, at.y, 1.5);
  pen.stroke();
  pen.globalAlpha = 1;
}

/** @param {CanvasRenderingContext2D} pen @param {Viewer} viewer @param {number} tile @param {Box} roi */
function drawBox(pen, viewer, tile, [i0, i1, j0, j1, k0, k1]) {
  const half = 0.5;
  const first = viewer.project([i0 - half, j0 - half, k0 - half], tile);
  const last = viewer.project([i1 - half, j1 - half, k1 - half], tile);
  if (!first || !last) return;
  pen.globalAlpha = first.away * last.away <= 0 ? 1 : 0.3;
  pen.strokeStyle = BOX;
  pen.lineWidth = 1.5;
  pen.setLineDash(first.away * last.away <= 0 ? [] : [5, 4]);
  pen.strokeRect(Math.min(first.x, last.x), Math.min(first.y, last.y), Math.abs(last.x - first.x), Math.abs(last.y - first.y));
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}
