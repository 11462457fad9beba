/* The volume on the screen: three planes and 3D, drawn by NiiVue. Voxels are given and returned in stored order. */

import { Niivue, NVImage } from "../vendor/niivue-0.69.0.min.js";
import { Grid } from "./grid.js";
import { encodeMap } from "./nifti.js";

/** @typedef {import("./crop.js").Box} Box */
/** @typedef {import("./crop.js").Voxel} Voxel */
/** @typedef {{tile: number, plane: number, ijk: Voxel}} Spot A voxel under the pointer; `plane` is the viewer's axis across it. */

/** NiiVue's numbers of what it shows. */
const [AXIAL, CORONAL, SAGITTAL, RENDER] = [0, 1, 2, 4];
/**
 * What is where: left, top, width and height as parts of the canvas.
 * @type {Record<string, {sliceType: number, position: [number, number, number, number]}[]>}
 */
const LAYOUTS = {
  all: [
    { sliceType: AXIAL, position: [0, 0, 0.498, 0.498] },
    { sliceType: SAGITTAL, position: [0.502, 0, 0.498, 0.498] },
    { sliceType: CORONAL, position: [0, 0.502, 0.498, 0.498] },
    { sliceType: RENDER, position: [0.502, 0.502, 0.498, 0.498] },
  ],
  planes: [
    { sliceType: AXIAL, position: [0, 0, 0.598, 1] },
    { sliceType: SAGITTAL, position: [0.602, 0, 0.398, 0.498] },
    { sliceType: CORONAL, position: [0.602, 0.502, 0.398, 0.498] },
  ],
  axial: [{ sliceType: AXIAL, position: [0, 0, 1, 1] }],
  coronal: [{ sliceType: CORONAL, position: [0, 0, 1, 1] }],
  sagittal: [{ sliceType: SAGITTAL, position: [0, 0, 1, 1] }],
  render: [{ sliceType: RENDER, position: [0, 0, 1, 1] }],
};
/** The viewer's axis across axial, coronal and sagittal slices. */
const ACROSS = [2, 1, 0];
const FILL_OPACITY = 0.38;
const RIM_OPACITY = 0.95;
/** A colour map that is transparent below its first value. */
const TRANSPARENT_BELOW_MIN = 1;
/** Voxels from which on 3D takes seconds without a graphics card. */
const MANY_VOXELS = 20_000_000;
const [SMALLEST_ZOOM, LARGEST_ZOOM] = [0.5, 20];

/**
 * Read a NIfTI file; NiiVue's types do not say that the other arguments are optional.
 * @type {(content: ArrayBuffer, name: string, colormap?: string, opacity?: number) => Promise<NVImage>}
 */
const readImage = (...given) => /** @type {any} */ (NVImage).new(...given);

export class Viewer {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.nv = new Niivue({
      interactive: false,
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      crosshairWidth: 0, // overlay.js draws it
      fontColor: [0.62, 0.68, 0.75, 1],
      fontSizeScaling: 0.3,
      backColor: [0.02, 0.03, 0.04, 1],
      logLevel: "error",
    });
    /** @type {Grid | null} */
    this.grid = null;
    /** Called after each frame. @type {(() => void)[]} */
    this.onDraw = [];
    this.drawn = 0;
    this.queued = false;
    this.windowChanged = false;
    /** @type {NVImage | null} */
    this.heat = null;
    this.opacity = FILL_OPACITY;
  }

  /** Begin to draw; an error means that the browser has no WebGL 2. */
  async start() {
    await this.nv.attachToCanvas(this.canvas);
    this.setLayout("all");
    this.nv.drawOpacity = FILL_OPACITY;
    this.nv.drawRimOpacity = RIM_OPACITY;
    new ResizeObserver(() => this.redraw()).observe(this.canvas);
  }

  /**
   * Show an image.
   * @param {ArrayBuffer} content a NIfTI file
   * @param {{low: number, high: number}} window
   */
  async open(content, { low, high }) {
    const image = await readImage(content, "image.nii");
    this.close();
    [image.cal_min, image.cal_max] = [low, high];
    this.nv.addVolume(image);
    const shape = /** @type {Voxel} */ (image.hdr?.dims.slice(1, 4));
    this.grid = new Grid(shape, /** @type {number[]} */ (image.img2RASstep));
    const size = this.grid.size;
    this.nv.drawTexture = this.nv.r8Tex(this.nv.drawTexture, this.nv.gl.TEXTURE7, [3, ...size], true);
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.moveTo(/** @type {Voxel} */ (shape.map((edge) => Math.floor(edge / 2))));
  }

  /** Whether the processor would draw 3D so slowly that the planes alone are better to begin with. */
  get isSlowIn3D() {
    const { gl } = this.nv;
    const named = gl.getExtension("WEBGL_debug_renderer_info");
    const renderer = String(named ? gl.getParameter(named.UNMASKED_RENDERER_WEBGL) : gl.getParameter(gl.RENDERER));
    return /swiftshader|llvmpipe|software|basic render/i.test(renderer) && (this.grid?.voxels ?? 0) > MANY_VOXELS;
  }

  close() {
    this.hideHeat();
    for (const volume of [...this.nv.volumes]) this.nv.removeVolume(volume);
    this.nv.drawBitmap = null;
    this.grid = null;
  }

  get image() {
    return this.nv.volumes[0];
  }

  /** Affine of the image, voxel to mm. @returns {number[][]} */
  get affine() {
    return /** @type {number[][]} */ (this.image.hdr?.affine);
  }

  /** Edges of a voxel, mm. @returns {Voxel} */
  get spacing() {
    return /** @type {Voxel} */ ([0, 1, 2].map((axis) => Math.hypot(...[0, 1, 2].map((row) => this.affine[row][axis]))));
  }

  /** Draw once before the next frame, however often it is called. */
  redraw() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => {
      this.queued = false;
      if (this.windowChanged) this.nv.updateGLVolume();
      else this.nv.drawScene();
      this.windowChanged = false;
      this.drawn += 1;
      for (const call of this.onDraw) call();
    });
  }

  /** Wait until what was changed is on the screen. @returns {Promise<void>} */
  frame() {
    return new Promise((resolve) => {
      const done = () => {
        this.onDraw.splice(this.onDraw.indexOf(done), 1);
        resolve();
      };
      this.onDraw.push(done);
      this.redraw();
    });
  }

  /** @param {string} name of `LAYOUTS` */
  setLayout(name) {
    this.nv.customLayout = LAYOUTS[name];
    this.redraw();
  }

  /** @param {number} low @param {number} high */
  setWindow(low, high) {
    if (!this.image) return;
    [this.image.cal_min, this.image.cal_max] = [low, high];
    this.windowChanged = true;
    this.redraw();
  }

  /** @returns {[number, number]} */
  get window() {
    return [this.image.cal_min ?? 0, this.image.cal_max ?? 1];
  }

  /**
   * Show the voxels of a label map.
   * @param {Uint8Array} voxels in the viewer's order
   * @param {Box | null} box stored voxels that have changed; null for all
   */
  showLabels(voxels, box = null) {
    const { grid, nv } = this;
    if (!grid) return;
    nv.drawBitmap = voxels;
    const [x0, x1, y0, y1, z0, z1] = grid.boxToRas(box ?? [0, grid.shape[0], 0, grid.shape[1], 0, grid.shape[2]]);
    const { gl } = nv;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, nv.drawTexture);
    /** @type {[number, number][]} */
    const places = [
      [gl.UNPACK_ALIGNMENT, 1],
      [gl.UNPACK_ROW_LENGTH, grid.size[0]],
      [gl.UNPACK_IMAGE_HEIGHT, grid.size[1]],
      [gl.UNPACK_SKIP_PIXELS, x0],
      [gl.UNPACK_SKIP_ROWS, y0],
      [gl.UNPACK_SKIP_IMAGES, z0],
    ];
    for (const [name, value] of places) gl.pixelStorei(name, value);
    const size = /** @type {const} */ ([x1 - x0, y1 - y0, z1 - z0]);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, x0, y0, z0, ...size, gl.RED, gl.UNSIGNED_BYTE, voxels);
    for (const [name] of places.slice(1)) gl.pixelStorei(name, 0);
    gl.activeTexture(gl.TEXTURE0);
    this.redraw();
  }

  /**
   * Set the colour of each value, red, green and blue from 0 to 255; null hides it.
   * @param {([number, number, number] | null)[]} colours from value 1 on
   */
  setColours(colours) {
    const lut = new Uint8ClampedArray(256 * 4);
    colours.forEach((colour, at) => lut.set(colour ? [...colour, 255] : [0, 0, 0, 0], 4 * (at + 1)));
    this.nv.drawLut = { lut, labels: Array.from({ length: 256 }, (_, value) => String(value)) };
    if (this.image) this.nv.refreshColormaps();
    this.redraw();
  }

  /** @param {boolean} shown */
  showFill(shown) {
    this.nv.drawOpacity = shown ? FILL_OPACITY : 0;
    this.nv.drawRimOpacity = shown ? RIM_OPACITY : 0;
    this.redraw();
  }

  /**
   * Show a map of a part of the image over it.
   * @param {Box} box stored voxels
   * @param {Float32Array} values i fastest, from 0 to 1
   */
  async showHeat(box, values) {
    const { grid } = this;
    const affine = this.affine.map((row) => [...row]);
    for (let row = 0; row < 3; row++)
      for (let axis = 0; axis < 3; axis++) affine[row][3] += this.affine[row][axis] * box[2 * axis];
    const shape = /** @type {Voxel} */ ([0, 2, 4].map((edge) => box[edge + 1] - box[edge]));
    const heat = await readImage(encodeMap(shape, affine, values), "uncertainty.nii", "inferno", 0.55);
    if (this.grid !== grid) return; // another case is open
    this.hideHeat();
    [heat.cal_min, heat.cal_max] = [0.08, 1];
    heat.colormapType = TRANSPARENT_BELOW_MIN;
    this.heat = heat;
    this.nv.addVolume(heat);
    this.redraw();
  }

  hideHeat() {
    if (!this.heat) return;
    this.nv.removeVolume(this.heat);
    this.heat = null;
    // NiiVue's 3D view goes on to show the last overlay where there is a drawing.
    this.nv.overlayTexture = this.nv.rgbaTex(this.nv.overlayTexture, this.nv.gl.TEXTURE2, [2, 2, 2, 2], true);
    this.redraw();
  }

  /** Voxel of the crosshair. @returns {Voxel} */
  get place() {
    const { grid } = this;
    if (!grid) return [0, 0, 0];
    return grid.toStored(this.#voxelOf(this.nv.scene.crosshairPos));
  }

  /** @param {ArrayLike<number>} fractions of the volume along x, y and z @returns {Voxel} */
  #voxelOf(fractions) {
    const size = /** @type {Grid} */ (this.grid).size;
    return /** @type {Voxel} */ (
      size.map((edge, axis) => Math.min(edge - 1, Math.max(0, Math.floor(fractions[axis] * edge))))
    );
  }

  /** @param {Voxel} ijk */
  moveTo(ijk) {
    const { grid } = this;
    if (!grid) return;
    const xyz = grid.toRas(ijk);
    this.nv.scene.crosshairPos = /** @type {any} */ (xyz.map((at, axis) => (at + 0.5) / grid.size[axis]));
    this.redraw();
  }

  /**
   * Go through slices.
   * @param {number} axis the viewer's: 0 right, 1 anterior, 2 superior
   * @param {number} steps
   */
  scroll(axis, steps) {
    const { grid } = this;
    if (!grid) return;
    const xyz = grid.toRas(this.place);
    xyz[axis] = Math.min(grid.size[axis] - 1, Math.max(0, xyz[axis] + steps));
    this.moveTo(grid.toStored(xyz));
  }

  /** Enlarge around the crosshair. @param {number} factor */
  zoom(factor) {
    const [x, y, z, before] = this.nv.scene.pan2Dxyzmm;
    const after = Math.min(LARGEST_ZOOM, Math.max(SMALLEST_ZOOM, before * factor));
    const mm = this.nv.frac2mm(this.nv.scene.crosshairPos);
    const change = before - after;
    this.nv.scene.pan2Dxyzmm = [x + change * mm[0], y + change * mm[1], z + change * mm[2], after];
    this.redraw();
  }

  resetZoom() {
    this.nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
    this.redraw();
  }

  /**
   * Move the planes by a distance on the screen, CSS pixels.
   * @param {number} tile @param {number} dx @param {number} dy
   */
  pan(tile, dx, dy) {
    const slice = this.slices[tile];
    if (!slice || slice.axCorSag >= RENDER) return;
    const scale = this.#dpr * (slice.fovMM[0] / slice.leftTopWidthHeight[2]);
    const scaleY = this.#dpr * (slice.fovMM[1] / slice.leftTopWidthHeight[3]);
    const [u, v] = [[0, 1], [0, 2], [1, 2]][slice.axCorSag];
    const pan = /** @type {[number, number, number, number]} */ ([...this.nv.scene.pan2Dxyzmm]);
    pan[u] += dx * scale * pan[3];
    pan[v] -= dy * scaleY * pan[3];
    this.nv.scene.pan2Dxyzmm = pan;
    this.redraw();
  }

  /** Turn the 3D view. @param {number} dx @param {number} dy */
  turn(dx, dy) {
    this.nv.scene.renderAzimuth -= dx * 0.5;
    this.nv.scene.renderElevation = Math.min(90, Math.max(-90, this.nv.scene.renderElevation + dy * 0.5));
    this.redraw();
  }

  /** @param {number} factor */
  zoomRender(factor) {
    this.nv.scene.volScaleMultiplier = Math.min(3, Math.max(0.4, this.nv.scene.volScaleMultiplier * factor));
    this.redraw();
  }

  get #dpr() {
    return this.nv.uiData.dpr || 1;
  }

  /** @returns {any[]} NiiVue's planes on the screen */
  get slices() {
    return /** @type {any} */ (this.nv).screenSlices;
  }

  /** Whether the 3D view is at a place. @param {number} x @param {number} y CSS pixels of the canvas */
  isRender(x, y) {
    return this.slices[this.nv.tileIndex(x * this.#dpr, y * this.#dpr)]?.axCorSag === RENDER;
  }

  /**
   * The voxel at a place on the screen; null outside the planes.
   * @param {number} x @param {number} y CSS pixels of the canvas
   * @param {number} [tile] take only this plane
   * @returns {Spot | null}
   */
  pick(x, y, tile) {
    const { grid, nv } = this;
    const [px, py] = [x * this.#dpr, y * this.#dpr];
    const found = nv.tileIndex(px, py);
    if (!grid || found < 0 || (tile !== undefined && tile !== found)) return null;
    const plane = this.slices[found].axCorSag;
    if (plane >= RENDER) return null;
    const fractions = nv.screenXY2TextureFrac(px, py, found);
    if (fractions[0] < 0) return null;
    return { tile: found, plane: ACROSS[plane], ijk: grid.toStored(this.#voxelOf(fractions)) };
  }

  /**
   * Where a voxel is on a plane, CSS pixels; `away` is its distance from the slice in voxels.
   * @param {Voxel} ijk may have fractions
   * @param {number} tile
   * @returns {{x: number, y: number, away: number} | null}
   */
  project(ijk, tile) {
    const { grid, nv } = this;
    const slice = this.slices[tile];
    if (!grid || !slice || slice.axCorSag >= RENDER) return null;
    const xyz = grid.toRas(ijk);
    const fractions = /** @type {any} */ (xyz.map((at, axis) => (at + 0.5) / grid.size[axis]));
    const mm = nv.frac2mm(fractions);
    const [u, v] = [[0, 1], [0, 2], [1, 2]][slice.axCorSag];
    const [left, top, width, height] = slice.leftTopWidthHeight;
    const fractionX = (mm[u] - slice.leftTopMM[0]) / slice.fovMM[0];
    const fractionY = (mm[v] - slice.leftTopMM[1]) / slice.fovMM[1];
    const across = ACROSS[slice.axCorSag];
    return {
      x: (left + fractionX * width) / this.#dpr,
      y: (top + (1 - fractionY) * height) / this.#dpr,
      away: xyz[across] - grid.toRas(this.place)[across],
    };
  }

  /** The stored intensity at a voxel. @param {Voxel} ijk */
  intensity(ijk) {
    const { image, grid } = this;
    if (!image?.img || !grid) return NaN;
    const raw = image.img[grid.storedIndex(ijk)];
    return raw * (image.hdr?.scl_slope || 1) + (image.hdr?.scl_inter || 0);
  }
}
