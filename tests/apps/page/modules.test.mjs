/* The parts of the page that need no browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { boxOf, brushed } from "../../../apps/sam3d/page/js/brush.js";
import { indexIn, maskOf, unionOf, voxelCount, withoutRegion } from "../../../apps/sam3d/page/js/crop.js";
import { Grid } from "../../../apps/sam3d/page/js/grid.js";
import { History } from "../../../apps/sam3d/page/js/history.js";
import { LabelMap } from "../../../apps/sam3d/page/js/labelmap.js";
import * as layers from "../../../apps/sam3d/page/js/layer.js";
import { decodeNifti, encodeMap, gunzip, gzip, labelHeader } from "../../../apps/sam3d/page/js/nifti.js";
import { indexesOf, recordOf, restoredLayer, runsOf } from "../../../apps/sam3d/page/js/record.js";
import { presets } from "../../../apps/sam3d/page/js/windows.js";

const SHAPE = [4, 5, 6];
/** A volume whose axes are: right = -k, anterior = i, superior = -j. */
const TURNED = new Grid(SHAPE, [-20, 1, -4]);

const crop = (box, inside = () => 1) => {
  const [i0, i1, j0, j1, k0, k1] = box;
  const data = new Uint8Array((i1 - i0) * (j1 - j0) * (k1 - k0));
  for (let k = k0; k < k1; k++)
    for (let j = j0; j < j1; j++)
      for (let i = i0; i < i1; i++) data[indexIn(box, [i, j, k])] = inside(i, j, k) ? 1 : 0;
  return { box, data };
};

test("a turned grid finds every voxel at one place of the viewer, and back", () => {
  assert.deepEqual(TURNED.size, [6, 4, 5]);
  const seen = new Set();
  for (let k = 0; k < 6; k++)
    for (let j = 0; j < 5; j++)
      for (let i = 0; i < 4; i++) {
        const [x, y, z] = TURNED.toRas([i, j, k]);
        assert.deepEqual([x, y, z], [5 - k, i, 4 - j]);
        assert.equal(TURNED.index([i, j, k]), x + 6 * (y + 4 * z));
        assert.deepEqual(TURNED.toStored([x, y, z]), [i, j, k]);
        assert.deepEqual(TURNED.voxelAt(TURNED.storedIndex([i, j, k])), [i, j, k]);
        seen.add(TURNED.index([i, j, k]));
      }
  assert.equal(seen.size, 120);
  assert.deepEqual(TURNED.boxToRas([1, 3, 0, 2, 4, 6]), [0, 2, 1, 3, 3, 5]);
});

test("a label map holds the last mask of each value, in stored order", () => {
  const map = new LabelMap(TURNED);
  assert.deepEqual(map.set(1, crop([1, 3, 1, 4, 2, 5])), [1, 3, 1, 4, 2, 5]);
  assert.deepEqual(map.set(1, crop([0, 2, 2, 3, 2, 4])), [0, 3, 1, 4, 2, 5]);
  const stored = map.stored();
  const expected = new Uint8Array(120);
  for (const k of [2, 3]) for (const i of [0, 1]) expected[TURNED.storedIndex([i, 2, k])] = 1;
  assert.deepEqual(stored, expected);
  map.set(1, null);
  assert.equal(voxelCount({ box: [0, 4, 0, 5, 0, 6], data: map.stored() }), 0);
});

test("a label that leaves uncovers the one below, which may have left before", () => {
  const map = new LabelMap(TURNED);
  const both = [1, 3, 1, 3, 1, 3];
  map.set(1, crop(both));
  map.set(2, crop([2, 4, 1, 3, 1, 3]));
  assert.equal(map.voxels[TURNED.index([2, 1, 1])], 2);
  map.set(2, null);
  assert.equal(map.voxels[TURNED.index([2, 1, 1])], 1);
  map.set(2, crop(both));
  map.set(1, null);
  map.set(2, null);
  assert.ok(map.voxels.every((value) => value === 0));
});

test("painting and erasing change single voxels and extend the label's box", () => {
  const map = new LabelMap(TURNED);
  assert.deepEqual(map.paint(3, [[1, 1, 1], [2, 3, 1]], true), [1, 3, 1, 4, 1, 2]);
  assert.deepEqual(map.boxes.get(3), [1, 3, 1, 4, 1, 2]);
  map.paint(3, [[1, 1, 1]], false);
  assert.deepEqual([map.voxels[TURNED.index([1, 1, 1])], map.voxels[TURNED.index([2, 3, 1])]], [0, 3]);
});

test("a click outside on a region without prompts removes that region only", () => {
  const base = crop([0, 4, 0, 1, 0, 1], (i) => i !== 2);
  const layer = { ...layers.EMPTY, base };
  const after = layers.withClick(layer, [0, 0, 0], false);
  assert.deepEqual([...after.base.data], [0, 0, 0, 1]);
  assert.deepEqual(after.background, []);
  assert.deepEqual([...layer.base.data], [1, 1, 0, 1], "layers are never changed");
});

test("a click inside a region without prompts takes it over", () => {
  const layer = { ...layers.EMPTY, base: crop([0, 4, 0, 1, 0, 1], (i) => i !== 2) };
  const after = layers.withClick(layer, [3, 0, 0], true);
  assert.deepEqual([...after.base.data], [1, 1, 0, 0]);
  assert.deepEqual(after.foreground, [[3, 0, 0]]);
});

test("the same voxel is clicked once, with the sign of the last click", () => {
  let layer = layers.withClick(layers.EMPTY, [1, 2, 3], true);
  layer = layers.withClick(layer, [1, 2, 3], false);
  assert.deepEqual([layer.foreground, layer.background], [[], [[1, 2, 3]]]);
});

test("brush strokes survive a new mask of the model", () => {
  let layer = layers.withModel({ ...layers.EMPTY, foreground: [[1, 1, 1]] }, crop([1, 2, 1, 2, 1, 3]));
  layer = layers.withEdits(layer, [TURNED.storedIndex([3, 4, 5])], true);
  layer = layers.withEdits(layer, [TURNED.storedIndex([1, 1, 1])], false);
  const mask = layers.maskOfLayer(layers.withModel(layer, crop([1, 2, 1, 2, 1, 2])), TURNED);
  assert.equal(voxelCount(mask), 1);
  assert.equal(mask.data[indexIn(mask.box, [3, 4, 5])], 1);
});

test("what a saved label has and the model's mask has not becomes brush strokes", () => {
  const saved = crop([0, 2, 0, 1, 0, 1]);
  const prompts = { ...layers.EMPTY, foreground: [[1, 0, 0]] };
  const restored = { ...prompts, model: saved, modelOf: layers.promptKey(prompts), restored: true };
  const separated = layers.separateEdits(restored, crop([1, 3, 0, 1, 0, 1]), TURNED);
  assert.deepEqual([...separated.edits], [[0, true], [2, false]]);
  assert.deepEqual([...layers.maskOfLayer(separated, TURNED).data], [1, 1, 0]);
  const erased = layers.separateEdits(layers.withEdits(restored, [0], false), crop([1, 3, 0, 1, 0, 1]), TURNED);
  assert.deepEqual([...erased.edits], [[0, false], [2, false]], "strokes since it was opened stay");
});

const PROMPTS = { ...layers.EMPTY, foreground: [[1, 0, 0]], roi: [0, 2, 0, 2, 0, 2] };
const everywhere = () => true;

test("a saved label comes back with its strokes and regions, and a new mask of the model replaces the rest", () => {
  const choice = { foreground: [[1, 0, 0]], background: [], roi: null, number: 2, version: "0001" };
  const base = crop([3, 4, 4, 5, 5, 6]);
  const painted = TURNED.storedIndex([0, 3, 0]);
  const edits = new Map([[painted, true], [TURNED.storedIndex([1, 0, 0]), false]]);
  const layer = { ...layers.withModel({ ...PROMPTS, choice, base }, crop([0, 2, 0, 1, 0, 1])), edits };
  const saved = layers.maskOfLayer(layer, TURNED);
  const record = JSON.parse(JSON.stringify(recordOf(layer, TURNED, everywhere)));
  const restored = restoredLayer(saved, record, TURNED);
  assert.deepEqual([restored.choice, restored.restored, layers.isCurrent(restored)], [choice, false, true]);
  assert.deepEqual(layers.maskOfLayer(restored, TURNED), saved);
  assert.deepEqual(new Map([...restored.edits].sort()), new Map([...edits].sort()));
  const newer = layers.maskOfLayer(layers.withModel(restored, crop([2, 3, 0, 1, 0, 1])), TURNED);
  const inside = [[2, 0, 0], [0, 3, 0], [3, 4, 5]];
  assert.deepEqual([voxelCount(newer), inside.map((ijk) => newer.data[indexIn(newer.box, ijk)])], [3, [1, 1, 1]]);
});

test("a choice that was saved without its version comes back as one of unknown weights", () => {
  const candidate = { foreground: [[1, 0, 0]], background: [], roi: null, number: 2 };
  const restored = restoredLayer(crop([0, 2, 0, 1, 0, 1]), { foreground: [[1, 0, 0]], candidate }, TURNED);
  assert.deepEqual(restored.choice, { ...candidate, version: "" });
});

test("strokes are saved where the label is seen, and only a reasonable number of them", () => {
  const layer = { ...PROMPTS, edits: new Map([[5, true], [6, true], [90, true]]) };
  assert.deepEqual(recordOf(layer, TURNED, (ijk) => TURNED.storedIndex(ijk) !== 90).strokes.painted, [5, 2]);
  const large = new Grid([40_000, 1, 1], [1, 40_000, 40_000]);
  const many = { ...PROMPTS, edits: new Map(Array.from({ length: 10_000 }, (_, at) => [4 * at, true])) };
  const record = recordOf(many, large, everywhere);
  assert.equal(record.strokes, undefined);
  assert.equal(restoredLayer(crop([0, 1, 0, 1, 0, 1]), record, large).restored, true);
});

test("runs of voxels come back, and what is no run is rejected", () => {
  assert.deepEqual(runsOf([7, 3, 4, 5, 0]), [0, 1, 2, 3, 1, 1]);
  assert.deepEqual(indexesOf([0, 1, 2, 3, 1, 1], 8), [0, 3, 4, 5, 7]);
  assert.deepEqual(indexesOf([], 8), []);
  for (const wrong of [undefined, [1], [-1, 2], [0.5, 1], ["0", 1], [0, 9], { 0: 1 }]) assert.equal(indexesOf(wrong, 8), null);
});

test("a label without a click inside is opened as a region, whatever its record is", () => {
  const mask = crop([0, 2, 0, 1, 0, 1]);
  for (const record of [undefined, null, {}, { foreground: "all", roi: [1] }]) assert.deepEqual(restoredLayer(mask, record, TURNED), { ...layers.EMPTY, base: mask });
});

test("further clicks name the chosen candidate by its prompts, and a box by its last voxels", () => {
  const choice = { foreground: [[1, 0, 0]], background: [], roi: [0, 2, 0, 2, 0, 2], number: 1, version: "0001" };
  const chosen = layers.withChoice(PROMPTS, crop([0, 1, 0, 1, 0, 1]), choice);
  assert.ok(layers.isCurrent(chosen));
  const clicked = layers.withClick(chosen, [3, 3, 3], false);
  assert.ok(!layers.isCurrent(clicked));
  assert.deepEqual(layers.sentPrompts(clicked), {
    foreground: [[1, 0, 0]], background: [[3, 3, 3]], roi: [0, 1, 0, 1, 0, 1],
    chosen_candidate: { number: 1, version: "0001", foreground: [[1, 0, 0]], background: [], roi: [0, 1, 0, 1, 0, 1] },
  });
});

test("undo and redo return the layers, also when a mask arrives late", () => {
  const history = new History();
  const clicked = layers.withClick(layers.EMPTY, [0, 0, 0], true);
  history.push({ label: "a", before: layers.EMPTY, after: clicked, what: "click" });
  const masked = layers.withModel(clicked, null);
  history.amend("a", clicked, masked);
  const again = layers.withClick(masked, [1, 0, 0], true);
  history.push({ label: "a", before: masked, after: again, what: "click" });
  assert.equal(history.undo().before, masked);
  assert.equal(history.undo().before, layers.EMPTY);
  assert.equal(history.undo(), null);
  assert.equal(history.redo().after, masked);
  history.push({ label: "a", before: masked, after: layers.EMPTY, what: "clear" });
  assert.equal(history.redo(), null, "a new action ends what was undone");
});

test("the history forgets old steps before it needs much memory", () => {
  const history = new History();
  for (let step = 0; step < 10; step++) {
    const model = { box: [0, 1, 0, 1, 0, 1], data: new Uint8Array(2 ** 26) };
    history.push({ label: "a", before: layers.EMPTY, after: { ...layers.EMPTY, model }, what: "click" });
  }
  assert.ok(history.done.length < 6);
});

test("boxes join, masks take values and bits, and regions are removed", () => {
  assert.deepEqual(unionOf([null, [1, 2, 1, 2, 1, 2], undefined, [0, 1, 3, 4, 1, 5]]), [0, 2, 1, 4, 1, 5]);
  assert.equal(unionOf([null]), null);
  const bits = { box: [0, 4, 0, 1, 0, 1], data: Uint8Array.of(0, 1, 2, 3) };
  assert.deepEqual([...maskOf(bits, (value) => Boolean(value & 2)).data], [0, 0, 1, 1]);
  const whole = crop([0, 3, 0, 3, 0, 3], (i, j, k) => !(i === 1 && j === 1 && k === 1));
  assert.equal(voxelCount(withoutRegion(whole, [0, 0, 0])), 0);
  assert.equal(withoutRegion(whole, [1, 1, 1]), whole);
});

test("a brush is round in mm, and leaves no gaps on its way", () => {
  const grid = new Grid([20, 20, 20], [1, 20, 400]);
  const disc = brushed(grid, [1, 1, 2], [10, 10, 10], [10, 10, 10], 2, 2);
  assert.equal(disc.length, 13);
  assert.ok(disc.every(([, , k]) => k === 10));
  const ball = brushed(grid, [1, 1, 2], [10, 10, 10], [10, 10, 10], 2, null);
  assert.equal(ball.length, 15);
  const line = brushed(grid, [1, 1, 2], [0, 0, 0], [9, 3, 0], 0.5, 2);
  assert.equal(line.length, 10);
  assert.equal(brushed(grid, [1, 1, 2], [0, 0, 0], [0, 0, 0], 3, 2).length, 11, "cut at the border");
});

test("a dragged box has the depth of its edges, and another plane corrects its own axes", () => {
  const grid = new Grid([40, 40, 40], [1, 40, 1600]);
  const first = boxOf(grid, [1, 1, 2], [10, 22, 9], [19, 11, 9], 2, null);
  assert.deepEqual(first, [10, 20, 11, 23, 7, 12]);
  assert.deepEqual(boxOf(grid, [1, 1, 2], [10, 8, 3], [10, 30, 20], 0, first), [10, 20, 8, 31, 3, 21]);
});

test("a map is written and read as NIfTI, also compressed", async () => {
  const affine = [[0, -2, 0, 5], [3, 0, 0, -7], [0, 0, 4, 1], [0, 0, 0, 1]];
  const content = encodeMap([2, 1, 3], affine, Float32Array.of(0, 0.25, 0.5, 0.75, 1, 0));
  const packed = await (await gzip([content])).arrayBuffer();
  const { shape, data } = decodeNifti(await gunzip(packed));
  assert.deepEqual([shape, [...data]], [[2, 1, 3], [0, 0.25, 0.5, 0.75, 1, 0]]);
  const view = new DataView(content);
  assert.deepEqual([0, 1, 2, 3].map((at) => view.getFloat32(280 + 4 * at, true)), affine[0]);
});

test("a label's header has the place of its image, one byte per voxel, and no scaling", () => {
  const affine = [[1, 0, 0, -9], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
  const image = encodeMap([2, 2, 2], affine, new Float32Array(8));
  new DataView(image).setFloat32(112, 0.5, true);
  const header = labelHeader(image);
  const { shape, data } = decodeNifti(new Uint8Array([...new Uint8Array(header), ...new Uint8Array(8).fill(3)]).buffer);
  assert.deepEqual([shape, [...data], new DataView(header).getFloat32(292, true)], [[2, 2, 2], Array(8).fill(3), -9]);
  assert.equal(new DataView(header).getFloat32(112, true), 1);
  assert.throws(() => labelHeader(new ArrayBuffer(400)), /no NIfTI/);
});

test("windows follow the modality", () => {
  const view = { modality: "CT", window: [-900, 1200], range: [-1024, 3071] };
  assert.equal(presets(view)[0].name, "Soft tissue");
  assert.deepEqual(presets({ ...view, modality: "MR", window: [3, 250] })[0], { name: "Auto", low: 3, high: 250 });
  assert.equal(presets({ ...view, modality: "PT" })[0].low, 0);
});
