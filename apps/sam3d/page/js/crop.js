/* Masks of a box of the image. Boxes are [i0, i1, j0, j1, k0, k1] in stored voxels, the ends excluded; voxels have i
fastest, as in a NIfTI file. */

/** @typedef {[number, number, number, number, number, number]} Box */
/** @typedef {{box: Box, data: Uint8Array}} Crop */
/** @typedef {[number, number, number]} Voxel */

/** @param {Box} box @returns {Voxel} */
export const sizeOf = ([i0, i1, j0, j1, k0, k1]) => [i1 - i0, j1 - j0, k1 - k0];

/**
 * The smallest box around some boxes; null for none.
 * @param {(Box | null | undefined)[]} boxes
 * @returns {Box | null}
 */
export function unionOf(boxes) {
  const given = /** @type {Box[]} */ (boxes.filter(Boolean));
  if (!given.length) return null;
  const at = (/** @type {number} */ edge) => given.map((box) => box[edge]);
  return /** @type {Box} */ ([0, 1, 2, 3, 4, 5].map((edge) => (edge % 2 ? Math.max(...at(edge)) : Math.min(...at(edge)))));
}

/**
 * The smallest box around some voxels; null for none.
 * @param {Iterable<Voxel>} voxels
 * @returns {Box | null}
 */
export function boxAround(voxels) {
  /** @type {Box | null} */
  let box = null;
  for (const [i, j, k] of voxels) {
    if (!box) box = [i, i + 1, j, j + 1, k, k + 1];
    else {
      if (i < box[0]) box[0] = i;
      if (i >= box[1]) box[1] = i + 1;
      if (j < box[2]) box[2] = j;
      if (j >= box[3]) box[3] = j + 1;
      if (k < box[4]) box[4] = k;
      if (k >= box[5]) box[5] = k + 1;
    }
  }
  return box;
}

/** @param {Box} box @returns {Crop} */
export function emptyCrop(box) {
  const [di, dj, dk] = sizeOf(box);
  return { box, data: new Uint8Array(di * dj * dk) };
}

/**
 * Where a voxel is in the data of a crop; -1 outside its box.
 * @param {Box} box
 * @param {Voxel} ijk
 */
export function indexIn([i0, i1, j0, j1, k0, k1], [i, j, k]) {
  if (i < i0 || i >= i1 || j < j0 || j >= j1 || k < k0 || k >= k1) return -1;
  return i - i0 + (i1 - i0) * (j - j0 + (j1 - j0) * (k - k0));
}

/** @param {Crop | null} crop @param {Voxel} ijk */
export const holds = (crop, ijk) => {
  const index = crop ? indexIn(crop.box, ijk) : -1;
  return index >= 0 && Boolean(crop?.data[index]);
};

/** @param {Crop | null} crop */
export const voxelCount = (crop) => (crop ? crop.data.reduce((sum, value) => sum + (value ? 1 : 0), 0) : 0);

/**
 * Set the voxels of one crop in another whose box contains it.
 * @param {Crop} target
 * @param {Crop} source
 */
export function paste(target, source) {
  const [ti, tj] = sizeOf(target.box);
  const [si, sj, sk] = sizeOf(source.box);
  const [oi, oj, ok] = [0, 2, 4].map((edge) => source.box[edge] - target.box[edge]);
  for (let k = 0; k < sk; k++)
    for (let j = 0; j < sj; j++) {
      const from = si * (j + sj * k);
      const to = oi + ti * (j + oj + tj * (k + ok));
      for (let i = 0; i < si; i++) if (source.data[from + i]) target.data[to + i] = 1;
    }
}

/**
 * Return a mask of the voxels that have one value, or one bit.
 * @param {{box: Box, data: ArrayLike<number>}} values
 * @param {(value: number) => boolean} isInside
 * @returns {Crop}
 */
export function maskOf({ box, data }, isInside) {
  const mask = new Uint8Array(data.length);
  for (let at = 0; at < data.length; at++) if (isInside(data[at])) mask[at] = 1;
  return { box, data: mask };
}

/**
 * Return a mask without the connected region (6 neighbours) that holds a voxel; the mask itself when it does not.
 * @param {Crop} crop
 * @param {Voxel} ijk
 * @returns {Crop}
 */
export function withoutRegion(crop, ijk) {
  if (!holds(crop, ijk)) return crop;
  const [di, dj, dk] = sizeOf(crop.box);
  const data = crop.data.slice();
  const start = indexIn(crop.box, ijk);
  const stack = [start];
  data[start] = 0;
  while (stack.length) {
    const at = /** @type {number} */ (stack.pop());
    const i = at % di;
    const j = Math.floor(at / di) % dj;
    const k = Math.floor(at / (di * dj));
    const visit = (/** @type {boolean} */ isThere, /** @type {number} */ next) => {
      if (!isThere || !data[next]) return;
      data[next] = 0;
      stack.push(next);
    };
    visit(i > 0, at - 1);
    visit(i < di - 1, at + 1);
    visit(j > 0, at - di);
    visit(j < dj - 1, at + di);
    visit(k > 0, at - di * dj);
    visit(k < dk - 1, at + di * dj);
  }
  return { box: crop.box, data };
}
