/* NIfTI files: reading cropped masks, and writing labels on the grid of an image. */

/** @typedef {{shape: [number, number, number], data: Uint8Array | Float32Array, header: ArrayBuffer}} Nifti */

/** Size, datatype and position of fields in the headers of NIfTI-1 and NIfTI-2. */
const LAYOUTS = {
  348: { dim: 40, wide: false, datatype: 70, bitpix: 72, offset: 108, slope: 112, max: 124, min: 128, end: 352 },
  540: { dim: 16, wide: true, datatype: 12, bitpix: 14, offset: 168, slope: 176, max: 192, min: 200, end: 544 },
};
const UINT8 = 2;
const FLOAT32 = 16;

/**
 * @param {ArrayBuffer} content
 * @param {"gzip"} format
 */
const decompressed = (content, format) =>
  new Response(new Blob([content]).stream().pipeThrough(new DecompressionStream(format))).arrayBuffer();

/**
 * Decompress gzip; return other content as it is.
 * @param {ArrayBuffer} content
 */
export async function gunzip(content) {
  const [first, second] = new Uint8Array(content, 0, Math.min(2, content.byteLength));
  return first === 0x1f && second === 0x8b ? decompressed(content, "gzip") : content;
}

/** @param {ArrayBuffer[]} parts */
export const gzip = (parts) =>
  new Response(new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"))).blob();

/** @param {ArrayBuffer} content */
function layoutOf(content) {
  const view = new DataView(content);
  for (const little of [true, false]) {
    const size = view.getInt32(0, little);
    if (size === 348 || size === 540) return { view, little, ...LAYOUTS[size] };
  }
  throw new Error("This is no NIfTI file");
}

/**
 * Read a mask or a map of the server: uint8 or float32, three axes.
 * @param {ArrayBuffer} content
 * @returns {Nifti}
 */
export function decodeNifti(content) {
  const { view, little, dim, wide, datatype, offset } = layoutOf(content);
  const along = (/** @type {number} */ axis) =>
    wide ? Number(view.getBigInt64(dim + 8 * axis, little)) : view.getInt16(dim + 2 * axis, little);
  const start = wide ? Number(view.getBigInt64(offset, little)) : view.getFloat32(offset, little);
  const shape = /** @type {[number, number, number]} */ ([along(1), along(2), along(3)]);
  const voxels = shape[0] * shape[1] * shape[2];
  const kind = view.getInt16(datatype, little);
  if (kind !== UINT8 && kind !== FLOAT32) throw new Error(`Voxels of type ${kind} are not expected here`);
  const data = kind === UINT8 ? new Uint8Array(content, start, voxels) : new Float32Array(content.slice(start, start + 4 * voxels));
  return { shape, data, header: content.slice(0, start) };
}

/**
 * Return the header of an image, changed into that of a label: one byte per voxel, three axes, no scaling.
 * @param {ArrayBuffer} content a NIfTI file
 * @returns {ArrayBuffer} the header, up to the voxels
 */
export function labelHeader(content) {
  const { little, dim, wide, datatype, bitpix, offset, slope, max, min, end } = layoutOf(content);
  const header = new ArrayBuffer(end);
  const size = end - 4;
  new Uint8Array(header).set(new Uint8Array(content, 0, size)); // the last four bytes: no extension
  const view = new DataView(header);
  for (let axis = 0; axis < 8; axis++) {
    if (axis > 0 && axis < 4) continue;
    const value = axis === 0 ? 3 : 1;
    if (wide) view.setBigInt64(dim + 8 * axis, BigInt(value), little);
    else view.setInt16(dim + 2 * axis, value, little);
  }
  view.setInt16(datatype, UINT8, little);
  view.setInt16(bitpix, 8, little);
  const setReal = (/** @type {number} */ at, /** @type {number} */ value) =>
    wide ? view.setFloat64(at, value, little) : view.setFloat32(at, value, little);
  if (wide) view.setBigInt64(offset, BigInt(end), little);
  else view.setFloat32(offset, end, little);
  setReal(slope, 1);
  setReal(slope + (wide ? 8 : 4), 0);
  setReal(max, 0);
  setReal(min, 0);
  return header;
}

/**
 * Return a NIfTI-1 file of a map of a part of an image.
 * @param {[number, number, number]} shape
 * @param {number[][]} affine 4 x 4, voxel to mm (RAS)
 * @param {Float32Array} data
 * @returns {ArrayBuffer}
 */
export function encodeMap(shape, affine, data) {
  const content = new ArrayBuffer(352 + data.byteLength);
  const view = new DataView(content);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((value, axis) => view.setInt16(40 + 2 * axis, value, true));
  view.setInt16(70, FLOAT32, true);
  view.setInt16(72, 32, true);
  view.setFloat32(76, 1, true);
  for (let axis = 0; axis < 3; axis++)
    view.setFloat32(80 + 4 * axis, Math.hypot(affine[0][axis], affine[1][axis], affine[2][axis]), true);
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setInt16(254, 1, true);
  for (let row = 0; row < 3; row++)
    for (let column = 0; column < 4; column++) view.setFloat32(280 + 16 * row + 4 * column, affine[row][column], true);
  new Uint8Array(content).set([0x6e, 0x2b, 0x31, 0], 344); // "n+1"
  new Float32Array(content, 352).set(data);
  return content;
}
