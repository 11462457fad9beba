/* What an annotator has done for one label: prompts, the model's mask of them, a mask from elsewhere, and brush strokes.

Layers are never changed: every action makes a new one, and the history keeps the earlier ones. */

import { boxAround, emptyCrop, holds, indexIn, paste, unionOf, withoutRegion } from "./crop.js";

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Crop} Crop */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./grid.js").Grid} Grid */
/** @typedef {{foreground: Voxel[], background: Voxel[], roi: Box | null, number: number, version: string}} Choice A candidate of prompts, from 0, and its weights. */
/**
 * @typedef {object} Layer
 * @property {Voxel[]} foreground clicks inside
 * @property {Voxel[]} background clicks outside
 * @property {Box | null} roi box prompt
 * @property {Choice | null} choice the candidate that further clicks correct
 * @property {Crop | null} model the model's mask of the prompts
 * @property {string} modelOf the prompts that `model` belongs to
 * @property {boolean} restored whether `model` is a saved label that may have brush strokes which were not saved as such
 * @property {Crop | null} base regions that came without prompts: found automatically, or saved by another program
 * @property {ReadonlyMap<number, boolean>} edits brushed (true) and erased (false) voxels, by index in the stored image
 */

/** @type {Layer} */
export const EMPTY = {
  foreground: [], background: [], roi: null, choice: null, model: null, modelOf: "", restored: false, base: null, edits: new Map(),
};

/** @param {Layer} layer */
export const hasPrompts = ({ foreground, background, roi }) => Boolean(foreground.length || background.length || roi);

/** @typedef {Pick<Layer, "foreground" | "background" | "roi" | "choice">} Prompts */

/** The prompts as a text, to compare them. @param {Prompts} prompts */
export const promptKey = ({ foreground, background, roi, choice }) =>
  foreground.length || background.length || roi ? JSON.stringify({ foreground, background, roi, choice }) : "";

/** The prompts of a key. @param {string} key @returns {Prompts} */
export const promptsOfKey = (key) => JSON.parse(key);

/**
 * The prompts as the server takes them: the last voxels of a box belong to it.
 * @param {Prompts} prompts
 */
export const sentPrompts = ({ foreground, background, roi, choice }) => ({
  foreground, background, ...sentBox(roi),
  ...(choice ? { chosen_candidate: { ...choice, ...sentBox(choice.roi) } } : {}),
});

/** @param {Box | null} roi */
const sentBox = (roi) => (roi ? { roi: roi.map((edge, at) => edge - (at % 2)) } : {});

/** Whether the model's mask is that of the present prompts. @param {Layer} layer */
export const isCurrent = (layer) => promptKey(layer) === layer.modelOf;

/** @param {Layer} layer */
export const isEmpty = (layer) => !hasPrompts(layer) && !layer.base && !layer.model && !layer.edits.size;

/**
 * Add a click.
 *
 * A click inside a region without prompts takes it over: the model's mask of the click replaces it. A click outside on
 * such a region removes it, without the model.
 * @param {Layer} layer
 * @param {Voxel} ijk
 * @param {boolean} inside
 * @returns {Layer}
 */
export function withClick(layer, ijk, inside) {
  const same = (/** @type {Voxel} */ other) => other.every((at, axis) => at === ijk[axis]);
  const foreground = layer.foreground.filter((other) => !same(other));
  const background = layer.background.filter((other) => !same(other));
  const isInBase = holds(layer.base, ijk) && !holds(layer.model, ijk);
  const base = isInBase && layer.base ? withoutRegion(layer.base, ijk) : layer.base;
  if (isInBase && !inside) return { ...layer, base };
  return {
    ...layer,
    base,
    foreground: inside ? [...foreground, ijk] : foreground,
    background: inside ? background : [...background, ijk],
  };
}

/**
 * Take over the model's mask of the layer's prompts.
 * @param {Layer} layer
 * @param {Crop | null} model
 * @returns {Layer}
 */
export const withModel = (layer, model) => ({ ...layer, model, modelOf: promptKey(layer), restored: false });

/**
 * Take over a mask that the annotator has chosen: the next clicks correct it.
 * @param {Layer} layer
 * @param {Crop | null} model
 * @param {Choice | null} choice null for the mask of all clicks
 * @returns {Layer}
 */
export const withChoice = (layer, model, choice) => withModel({ ...layer, choice }, model);

/**
 * Brush or erase voxels.
 * @param {Layer} layer
 * @param {Iterable<number>} voxels indexes in the stored image
 * @param {boolean} inside
 * @returns {Layer}
 */
export function withEdits(layer, voxels, inside) {
  const edits = new Map(layer.edits);
  for (const voxel of voxels) edits.set(voxel, inside);
  return { ...layer, edits };
}

/**
 * Keep a saved label's differences from the model's mask of its prompts as brush strokes.
 * @param {Layer} layer a restored one
 * @param {Crop | null} model the model's mask of its prompts
 * @param {Grid} grid
 * @returns {Layer}
 */
export function separateEdits(layer, model, grid) {
  const box = unionOf([layer.model?.box, model?.box]);
  const edits = new Map(layer.edits);
  if (box)
    for (let k = box[4]; k < box[5]; k++)
      for (let j = box[2]; j < box[3]; j++)
        for (let i = box[0]; i < box[1]; i++) {
          const [voxel, saved] = [grid.storedIndex([i, j, k]), holds(layer.model, [i, j, k])];
          if (saved !== holds(model, [i, j, k]) && !layer.edits.has(voxel)) edits.set(voxel, saved);
        }
  return { ...layer, edits, model, modelOf: promptKey(layer), restored: false };
}

/**
 * The label's voxels; null for none.
 * @param {Layer} layer
 * @param {Grid} grid
 * @returns {Crop | null}
 */
export function maskOfLayer({ model, base, edits }, grid) {
  if (!edits.size && !(model && base)) return model ?? base;
  const box = unionOf([model?.box, base?.box, boxAround(brushedVoxels(edits, grid))]);
  if (!box) return null;
  const mask = emptyCrop(box);
  for (const part of [base, model]) if (part) paste(mask, part);
  for (const [voxel, inside] of edits) {
    const at = indexIn(box, grid.voxelAt(voxel));
    if (at >= 0) mask.data[at] = inside ? 1 : 0;
  }
  return mask;
}

/**
 * The brushed voxels: erased ones are outside of every mask already.
 * @param {ReadonlyMap<number, boolean>} edits
 * @param {Grid} grid
 */
function* brushedVoxels(edits, grid) {
  for (const [voxel, inside] of edits) if (inside) yield grid.voxelAt(voxel);
}
