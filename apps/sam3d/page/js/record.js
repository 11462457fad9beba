/* What is saved with a label, so that it can be opened again: its prompts and the strokes of the brush.

Strokes are runs of voxels along i in the order of the stored image: [voxels left out, voxels taken, left out, ...]. */

import { emptyCrop, holds, indexIn } from "./crop.js";
import { EMPTY, promptKey } from "./layer.js";

/** @typedef {import("./crop.js").Crop} Crop */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./grid.js").Grid} Grid */
/** @typedef {import("./layer.js").Choice} Choice */
/** @typedef {import("./layer.js").Layer} Layer */

/** Numbers of all runs of a label that are saved: the server keeps the records of all labels in one index. */
const MOST_NUMBERS = 12_000;

/**
 * The record of a label; without strokes when they are too many.
 * @param {Layer} layer
 * @param {Grid} grid
 * @param {(ijk: Voxel) => boolean} isVisible whether no other label hides this one there
 */
export function recordOf({ foreground, background, roi, choice, edits, base }, grid, isVisible) {
  const prompts = { foreground, background, roi, ...(choice ? { candidate: choice } : {}) };
  const brushed = (/** @type {boolean} */ inside) => [...edits].filter(([, each]) => each === inside).map(([voxel]) => voxel);
  const isSeen = (/** @type {number} */ voxel) => isVisible(grid.voxelAt(voxel));
  const strokes = {
    painted: runsOf(brushed(true).filter(isSeen)),
    erased: runsOf(brushed(false)),
    regions: runsOf([...voxelsOf(base, grid)].filter(isSeen)),
  };
  const numbers = Object.values(strokes).reduce((sum, runs) => sum + runs.length, 0);
  return numbers > MOST_NUMBERS ? prompts : { ...prompts, strokes };
}

/** What distinguishes a saved label from later ones; empty when there is none. @param {any} saved the server's record */
export const identityOf = (saved) => [saved?.ts, saved?.checksum].filter(Boolean).join(" ");

/**
 * The layer of a saved label: with its prompts if the page has saved it.
 * @param {Crop} mask
 * @param {any} record
 * @param {Grid} grid
 * @returns {Layer}
 */
export function restoredLayer(mask, record, grid) {
  const { foreground, background, roi } = promptsOf(record);
  if (!foreground.length && !roi) return { ...EMPTY, base: mask };
  const choice = choiceOf(record.candidate);
  const layer = { ...EMPTY, foreground, background, roi, choice, model: mask, modelOf: promptKey({ foreground, background, roi, choice }) };
  const [painted, erased, regions] = ["painted", "erased", "regions"].map((kind) => indexesOf(record.strokes?.[kind], grid.voxels));
  if (!painted || !erased || !regions) return { ...layer, restored: true };
  const edits = new Map([...painted.map((voxel) => /** @type {const} */ ([voxel, true])), ...erased.map((voxel) => /** @type {const} */ ([voxel, false]))]);
  return { ...layer, ...withoutBase(mask, regions, grid), edits };
}

/** Earlier pages saved no version: the server does not use such a choice. @param {any} given */
function choiceOf(given) {
  if (!Number.isInteger(given?.number)) return null;
  return { ...promptsOf(given), number: given.number, version: String(given.version ?? "") };
}

/** @param {any} given */
function promptsOf(given) {
  const isVoxel = (/** @type {unknown} */ voxel) => Array.isArray(voxel) && voxel.length === 3 && voxel.every(Number.isInteger);
  const clicks = (/** @type {unknown} */ list) => (Array.isArray(list) ? list.filter(isVoxel) : []);
  const roi = Array.isArray(given?.roi) && given.roi.length === 6 && given.roi.every(Number.isInteger) ? given.roi : null;
  return { foreground: clicks(given?.foreground), background: clicks(given?.background), roi };
}

/**
 * The saved mask in two parts: the model's, and the regions that came without prompts.
 * @param {Crop} mask
 * @param {number[]} regions indexes in the stored image
 * @param {Grid} grid
 */
function withoutBase(mask, regions, grid) {
  if (!regions.length) return { model: mask, base: null };
  const [model, base] = [{ box: mask.box, data: mask.data.slice() }, emptyCrop(mask.box)];
  for (const voxel of regions) {
    const at = indexIn(mask.box, grid.voxelAt(voxel));
    if (at >= 0 && mask.data[at]) [model.data[at], base.data[at]] = [0, 1];
  }
  return { model, base };
}

/** @param {Crop | null} crop @param {Grid} grid */
function* voxelsOf(crop, grid) {
  if (!crop) return;
  const [i0, i1, j0, j1, k0, k1] = crop.box;
  for (let k = k0; k < k1; k++)
    for (let j = j0; j < j1; j++)
      for (let i = i0; i < i1; i++) if (holds(crop, [i, j, k])) yield grid.storedIndex([i, j, k]);
}

/** @param {number[]} indexes of voxels, in any order */
export function runsOf(indexes) {
  /** @type {number[]} */
  const runs = [];
  let end = 0;
  for (const at of indexes.sort((one, other) => one - other)) {
    if (at === end && runs.length) runs[runs.length - 1] += 1;
    else runs.push(at - end, 1);
    end = at + 1;
  }
  return runs;
}

/**
 * The voxels of some runs; null when these are not runs of an image of this size.
 * @param {unknown} runs
 * @param {number} voxels
 */
export function indexesOf(runs, voxels) {
  if (!Array.isArray(runs) || runs.length % 2 || !runs.every((each) => Number.isInteger(each) && each >= 0)) return null;
  if (runs.reduce((sum, each) => sum + each, 0) > voxels) return null;
  /** @type {number[]} */
  const indexes = [];
  let at = 0;
  for (let run = 0; run < runs.length; run += 2) {
    at += runs[run];
    for (const end = at + runs[run + 1]; at < end; at++) indexes.push(at);
  }
  return indexes;
}
