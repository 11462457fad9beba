/* The two orders of voxels: i, j, k of the stored image, and x, y, z of the viewer (right, anterior, superior). */

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Voxel} Voxel */

/** @typedef {{shape: number[], affine: number[][]}} Place Voxels of an image, and where they are: voxel to mm */

/**
 * Whether two images have their voxels at the same places: no corner is more than half a voxel away.
 * @param {Place} one
 * @param {Place} other
 */
export function isSameGrid(one, other) {
  const axes = [0, 1, 2];
  if (axes.some((axis) => one.shape[axis] !== other.shape[axis])) return false;
  const edges = axes.map((axis) => Math.hypot(...axes.map((row) => one.affine[row][axis])));
  const shift = axes.map((row) => one.affine[row].map((value, column) => value - other.affine[row][column]));
  const isFar = (/** @type {number} */ corner) => {
    const ijk = axes.map((axis) => (corner >> axis) % 2 * (one.shape[axis] - 1));
    return Math.hypot(...shift.map((row) => row[3] + axes.reduce((sum, axis) => sum + row[axis] * ijk[axis], 0))) > Math.min(...edges) / 2;
  };
  return ![0, 1, 2, 3, 4, 5, 6, 7].some(isFar);
}

export class Grid {
  /**
   * @param {Voxel} shape voxels along i, j and k
   * @param {number[]} rasSteps for each axis of the viewer, the step in the stored data: ±1, ±I or ±I·J
   */
  constructor(shape, rasSteps) {
    const stored = [1, shape[0], shape[0] * shape[1]];
    /** Stored axis of each axis of the viewer. */
    this.axes = rasSteps.map((step) => stored.indexOf(Math.abs(step)));
    this.flips = rasSteps.map((step) => step < 0);
    this.shape = shape;
    /** Voxels along x, y and z. */
    this.size = /** @type {Voxel} */ (this.axes.map((axis) => shape[axis]));
    const strides = [1, this.size[0], this.size[0] * this.size[1]];
    /** Steps in the viewer's data along i, j and k. */
    this.steps = [0, 0, 0];
    this.base = 0;
    this.axes.forEach((axis, ras) => {
      this.steps[axis] = this.flips[ras] ? -strides[ras] : strides[ras];
      if (this.flips[ras]) this.base += strides[ras] * (shape[axis] - 1);
    });
  }

  get voxels() {
    return this.shape[0] * this.shape[1] * this.shape[2];
  }

  /** @param {Voxel} ijk index in the viewer's data */
  index([i, j, k]) {
    return this.base + i * this.steps[0] + j * this.steps[1] + k * this.steps[2];
  }

  /** @param {Voxel} ijk index in the stored data */
  storedIndex([i, j, k]) {
    return i + this.shape[0] * (j + this.shape[1] * k);
  }

  /** @param {number} index in the stored data @returns {Voxel} */
  voxelAt(index) {
    const [di, dj] = this.shape;
    return [index % di, Math.floor(index / di) % dj, Math.floor(index / (di * dj))];
  }

  /** @param {Voxel} ijk @returns {Voxel} */
  toRas(ijk) {
    return /** @type {Voxel} */ (
      this.axes.map((axis, ras) => (this.flips[ras] ? this.shape[axis] - 1 - ijk[axis] : ijk[axis]))
    );
  }

  /** @param {Voxel} xyz @returns {Voxel} */
  toStored(xyz) {
    const ijk = /** @type {Voxel} */ ([0, 0, 0]);
    this.axes.forEach((axis, ras) => {
      ijk[axis] = this.flips[ras] ? this.shape[axis] - 1 - xyz[ras] : xyz[ras];
    });
    return ijk;
  }

  /** @param {Box} box of stored voxels @returns {Box} of the viewer's */
  boxToRas(box) {
    return /** @type {Box} */ (
      this.axes.flatMap((axis, ras) => {
        const [low, high] = [box[2 * axis], box[2 * axis + 1]];
        return this.flips[ras] ? [this.shape[axis] - high, this.shape[axis] - low] : [low, high];
      })
    );
  }

  /** @param {Voxel} ijk */
  has(ijk) {
    return ijk.every((at, axis) => at >= 0 && at < this.shape[axis]);
  }
}
