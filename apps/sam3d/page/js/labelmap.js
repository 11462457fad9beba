/* The label map that is shown and saved: one value per voxel, in the viewer's order.

A label that is drawn over another one hides it there: when the upper one leaves the voxel, the lower one is back. */

import { boxAround, unionOf } from "./crop.js";

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Crop} Crop */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./grid.js").Grid} Grid */

export class LabelMap {
  /** @param {Grid} grid */
  constructor(grid) {
    this.grid = grid;
    this.voxels = new Uint8Array(grid.voxels);
    /** Value below the visible one, by index. @type {Map<number, number>} */
    this.covered = new Map();
    /** Box of each value. @type {Map<number, Box>} */
    this.boxes = new Map();
  }

  /**
   * Set which voxels have a value.
   * @param {number} value 1 to 255
   * @param {Crop | null} mask null for none
   * @returns {Box | null} the stored voxels that may have changed
   */
  set(value, mask) {
    const before = this.boxes.get(value) ?? null;
    const changed = unionOf([before, mask?.box]);
    if (!changed) return null;
    const [i0, i1, j0, j1, k0, k1] = changed;
    const [step] = this.grid.steps;
    for (let k = k0; k < k1; k++)
      for (let j = j0; j < j1; j++) {
        let at = this.grid.index([i0, j, k]);
        const row = mask ? rowOf(mask, j, k) : -1;
        for (let i = i0; i < i1; i++, at += step) {
          const isInside = mask && row >= 0 && i >= mask.box[0] && i < mask.box[1] && mask.data[row + i - mask.box[0]];
          if (isInside) this.#cover(at, value);
          else this.#uncover(at, value);
        }
      }
    if (mask) this.boxes.set(value, mask.box);
    else this.boxes.delete(value);
    return changed;
  }

  /**
   * Set some voxels of a value, as a brush does.
   * @param {number} value
   * @param {Voxel[]} voxels
   * @param {boolean} inside
   * @returns {Box | null} the stored voxels that may have changed
   */
  paint(value, voxels, inside) {
    for (const voxel of voxels) {
      const at = this.grid.index(voxel);
      if (inside) this.#cover(at, value);
      else this.#uncover(at, value);
    }
    const box = boxAround(voxels);
    const known = unionOf([this.boxes.get(value), inside ? box : null]);
    if (known) this.boxes.set(value, known);
    return box;
  }

  /** @param {number} at @param {number} value */
  #cover(at, value) {
    const seen = this.voxels[at];
    if (seen === value) return;
    if (seen) this.covered.set(at, seen);
    this.voxels[at] = value;
  }

  /** @param {number} at @param {number} value */
  #uncover(at, value) {
    if (this.voxels[at] === value) {
      this.voxels[at] = this.covered.get(at) ?? 0;
      this.covered.delete(at);
    } else if (this.covered.size && this.covered.get(at) === value) this.covered.delete(at);
  }

  /** All voxels in the order of the stored image. @returns {Uint8Array<ArrayBuffer>} */
  stored() {
    const { shape, steps } = this.grid;
    const data = new Uint8Array(this.voxels.length);
    let to = 0;
    for (let k = 0; k < shape[2]; k++)
      for (let j = 0; j < shape[1]; j++) {
        let at = this.grid.index([0, j, k]);
        for (let i = 0; i < shape[0]; i++, at += steps[0]) data[to++] = this.voxels[at];
      }
    return data;
  }
}

/**
 * Index of the first voxel of a row of a crop; -1 outside.
 * @param {Crop} crop
 * @param {number} j
 * @param {number} k
 */
function rowOf({ box: [i0, i1, j0, j1, k0, k1] }, j, k) {
  return j < j0 || j >= j1 || k < k0 || k >= k1 ? -1 : (i1 - i0) * (j - j0 + (j1 - j0) * (k - k0));
}
