/* Voxels under a round brush. */

/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {import("./grid.js").Grid} Grid */

/** Distance between the discs or balls of a stroke, in radii: its edge is then straight to a hundredth of the radius. */
const OVERLAP = 0.25;

/**
 * Return the voxels within a radius of the way between two voxels.
 * @param {Grid} grid
 * @param {Voxel} spacing mm
 * @param {Voxel} from
 * @param {Voxel} to
 * @param {number} radius mm; the voxels under the brush's centre always belong to it
 * @param {number | null} across stored axis across the slice; null for a ball
 * @returns {Voxel[]}
 */
export function brushed(grid, spacing, from, to, radius, across) {
  const reach = spacing.map((edge, axis) => (axis === across ? 0 : Math.floor(radius / edge)));
  /** @type {Map<number, Voxel>} */
  const found = new Map();
  const way = from.map((at, axis) => Math.abs(to[axis] - at));
  const most = Math.hypot(...way.map((voxels, axis) => voxels * spacing[axis])) / (radius * OVERLAP);
  const parts = Math.max(1, Math.ceil(Math.min(Math.max(...way), most)));
  for (let part = 0; part <= parts; part++) {
    const centre = from.map((at, axis) => Math.round(at + ((to[axis] - at) * part) / parts));
    for (let k = -reach[2]; k <= reach[2]; k++)
      for (let j = -reach[1]; j <= reach[1]; j++)
        for (let i = -reach[0]; i <= reach[0]; i++) {
          if (Math.hypot(i * spacing[0], j * spacing[1], k * spacing[2]) > radius && (i || j || k)) continue;
          const voxel = /** @type {Voxel} */ ([centre[0] + i, centre[1] + j, centre[2] + k]);
          if (grid.has(voxel)) found.set(grid.storedIndex(voxel), voxel);
        }
  }
  return [...found.values()];
}

/**
 * Return the box of a rectangle that was dragged on a slice.
 *
 * The first rectangle of a box gives it a depth: the mean of its edges, around the slice. A rectangle in another plane
 * then corrects the two axes of that plane.
 * @param {Grid} grid
 * @param {Voxel} spacing mm
 * @param {Voxel} from
 * @param {Voxel} to
 * @param {number} across stored axis across the slice
 * @param {import("./crop.js").Box | null} before the box to correct
 * @returns {import("./crop.js").Box}
 */
export function boxOf(grid, spacing, from, to, across, before) {
  const box = /** @type {import("./crop.js").Box} */ ([0, 0, 0, 0, 0, 0]);
  const edges = [0, 1, 2].filter((axis) => axis !== across);
  for (const axis of edges) {
    box[2 * axis] = Math.min(from[axis], to[axis]);
    box[2 * axis + 1] = Math.max(from[axis], to[axis]) + 1;
  }
  if (before) {
    box[2 * across] = before[2 * across];
    box[2 * across + 1] = before[2 * across + 1];
    return box;
  }
  const mm = edges.reduce((sum, axis) => sum + (box[2 * axis + 1] - box[2 * axis]) * spacing[axis], 0) / 2;
  const half = Math.max(0, Math.round((mm / spacing[across] - 1) / 2));
  box[2 * across] = Math.max(0, from[across] - half);
  box[2 * across + 1] = Math.min(grid.shape[across], from[across] + half + 1);
  return box;
}
