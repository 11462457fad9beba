/* The open case while answers of the server arrive late, out of order, or not at all. */

import assert from "node:assert/strict";
import { test } from "node:test";

Object.assign(globalThis, {
  document: { baseURI: "http://127.0.0.1/sam3d/" },
  localStorage: { getItem: () => "page-test", setItem: () => {} },
});
const { Grid } = await import("../../../apps/sam3d/page/js/grid.js");
const { withChoice } = await import("../../../apps/sam3d/page/js/layer.js");
const { encodeMap } = await import("../../../apps/sam3d/page/js/nifti.js");
const { Session } = await import("../../../apps/sam3d/page/js/session.js");

const SHAPE = [4, 5, 6];
const IDENTITY = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]];
const VIEW = { shape: SHAPE, affine: IDENTITY, spacing: [1, 1, 1], window: [0, 1], range: [0, 1], modality: "MR" };
const volume = () => new Response(encodeMap(SHAPE, IDENTITY, new Float32Array(120)));
const json = (body, status = 200) => new Response(JSON.stringify(body), { status });

/** A form with a mask of one voxel. */
function mask([i, j, k], affine = IDENTITY, more = {}) {
  const content = encodeMap([2, 2, 2], IDENTITY, Float32Array.of(1, 0, 0, 0, 0, 0, 0, 0));
  const form = new FormData();
  form.append("params", JSON.stringify({ label_names: { tumor: 1 }, crop_box: [i, i + 2, j, j + 2, k, k + 2], shape: SHAPE, affine, ...more }));
  form.append("image", new Blob([content]));
  return new Response(form);
}

/** A server whose answers to clicks wait until the test gives them. */
function server(answers = {}) {
  const clicks = [];
  globalThis.fetch = (address, { signal } = {}) => {
    const { pathname, searchParams } = new URL(address, "http://127.0.0.1");
    const image = searchParams.get("image");
    if (pathname === "/sam3d/cases/view") return Promise.resolve(json(VIEW));
    if (pathname === "/sam3d/cases/volume") return Promise.resolve(volume());
    if (pathname === "/datastore/segmentation") return answers[image] ?? Promise.resolve(new Response(null, { status: 204 }));
    if (pathname === "/datastore/label/info") return Promise.resolve(json(answers.record ?? {}));
    if (pathname === "/datastore/label") return Promise.resolve(json({}));
    return new Promise((resolve, reject) => {
      clicks.push(resolve);
      signal?.addEventListener("abort", () => reject(signal.reason));
    });
  };
  return clicks;
}

function newSession() {
  const viewer = {
    grid: null, heat: null,
    open: async () => (viewer.grid = new Grid(SHAPE, [1, 4, 20])),
    close: () => (viewer.grid = null),
    showLabels: () => {}, setColours: () => {}, moveTo: () => {}, hideHeat: () => {},
    frame: async () => {},
  };
  const messages = [];
  return Object.assign(new Session(viewer, { changed: () => {}, failed: (text) => messages.push(text), working: () => {} }), { messages });
}

const open = (session, image, names = ["tumor"]) => session.open(image, names, () => {});
const later = () => new Promise((resolve) => setTimeout(resolve, 20));
const shown = (session) => session.map.stored().reduce((sum, value) => sum + (value ? 1 : 0), 0);

test("a saved label that arrives late is not drawn on the next case", async () => {
  let answer;
  server({ first: new Promise((resolve) => (answer = resolve)) });
  const session = newSession();
  const first = assert.rejects(open(session, "first"), { name: "AbortError" });
  await later();
  await open(session, "second");
  answer(mask([0, 0, 0]));
  await first;
  assert.deepEqual([session.image, shown(session), session.isSaved], ["second", 0, false]);
});

test("a case whose saved label cannot be read is not open, so that it cannot be overwritten", async () => {
  server({ broken: Promise.resolve(json({ detail: "the label is damaged" }, 400)) });
  const session = newSession();
  await assert.rejects(open(session, "broken"), /damaged/);
  assert.deepEqual([session.image, session.map, session.viewer.grid], [null, null, null]);
});

test("a label of another program is shown, unless its voxels are elsewhere", async () => {
  server({
    same: Promise.resolve(mask([1, 1, 1])),
    moved: Promise.resolve(mask([1, 1, 1], [[1, 0, 0, 0.6], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
    flipped: Promise.resolve(mask([1, 1, 1], [[-1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])),
  });
  const session = newSession();
  await open(session, "same");
  assert.deepEqual([shown(session), session.isSaved], [1, true]);
  await assert.rejects(open(session, "moved"), /another grid/);
  await assert.rejects(open(session, "flipped"), /another grid/);
});

test("a stroke during a click stays when the mask arrives", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct");
  const clicked = session.click([0, 0, 0], true);
  const brushed = session.brush([119], true);
  clicks.at(-1)(mask([0, 0, 0]));
  await Promise.all([clicked, brushed]);
  assert.deepEqual([...session.layer.edits], [[119, true]]);
  assert.equal(shown(session), 2);
  const undone = session.undo();
  clicks.at(-1)(mask([0, 0, 0]));
  await undone;
  assert.deepEqual([session.layer.edits.size, shown(session)], [0, 1]);
});

test("what was cleared during a click does not come back", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct");
  const clicked = session.click([0, 0, 0], true);
  await session.clear();
  clicks[0](mask([0, 0, 0]));
  await clicked;
  assert.deepEqual([session.layer.foreground, shown(session), session.messages], [[], 0, []]);
});

test("a candidate that the server ignores is dropped, and the annotator reads why", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct");
  const choice = { foreground: [[0, 0, 0]], background: [], roi: null, number: 1, version: "0001" };
  session.act(withChoice({ ...session.layer, foreground: [[0, 0, 0]] }, null, choice), "candidate");
  const clicked = session.click([1, 1, 1], true);
  clicks.at(-1)(mask([1, 1, 1], IDENTITY, { ignored_candidate: "It belongs to other weights." }));
  await clicked;
  assert.deepEqual([session.layer.choice, session.behind, shown(session)], [null, [], 1]);
  assert.deepEqual(session.messages, ["It belongs to other weights."]);
});

test("saving waits for the masks of all labels, whichever arrives last", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct", ["tumor", "cyst"]);
  const first = session.click([0, 0, 0], true);
  session.activate("cyst");
  const second = session.click([2, 2, 2], true);
  clicks[1](mask([2, 2, 2]));
  await second;
  const saved = session.save();
  setTimeout(() => clicks[0](mask([0, 0, 0])), 20);
  await Promise.all([first, saved]);
  assert.deepEqual([session.isSaved, session.isDirty, shown(session)], [true, false, 2]);
});

test("a click whose request another window has replaced stays, and can be asked again for each label", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct", ["tumor", "cyst"]);
  const clicked = session.click([0, 0, 0], true);
  clicks[0](json({ detail: "A newer request has replaced it" }, 409));
  await clicked;
  assert.match(session.messages[0], /replaced it.*does not show the latest click yet/);
  session.activate("cyst");
  assert.deepEqual(session.behind, ["tumor"]);
  const again = session.retry();
  clicks[1](mask([0, 0, 0]));
  await again;
  assert.deepEqual([session.behind, session.active, shown(session)], [[], "cyst", 1]);
});

test("the uncertainty and the candidates are those of the click that is still computed", async () => {
  const clicks = server();
  const session = newSession();
  await open(session, "ct");
  const clicked = session.click([0, 0, 0], true);
  const [twice, asked] = [assert.rejects(session.assist.findChoices(), { name: "AbortError" }), session.assist.findChoices()];
  clicks[0](mask([0, 0, 0]));
  await clicked;
  await later();
  assert.equal(clicks.length, 2, "the first of two questions is not asked");
  clicks[1](mask([1, 1, 1], IDENTITY, { candidates: [{ value: 1, predicted_dice: 0.5, voxels: 1 }], model_version: "0001" }));
  await Promise.all([twice, asked]);
  assert.deepEqual(session.assist.choices.map(({ voxels }) => voxels), [1, 1]);
});

test("a search without clicks ends when its case is left", async () => {
  server();
  const session = newSession();
  await open(session, "first");
  const found = assert.rejects(session.assist.findAll(() => {}), { name: "AbortError" });
  await open(session, "second");
  await found;
  assert.deepEqual([session.isDirty, session.assist.running], [false, 0]);
});

test("a label that was saved elsewhere meanwhile is noticed, one's own is not", async () => {
  const answers = { record: { ts: 1, checksum: "SHA256:a" }, ct: Promise.resolve(mask([0, 0, 0])) };
  server(answers);
  const session = newSession();
  await open(session, "ct");
  assert.equal(await session.isSavedElsewhere(), false);
  answers.record = { ts: 2, checksum: "SHA256:b" };
  assert.equal(await session.isSavedElsewhere(), true);
  await session.save();
  assert.equal(await session.isSavedElsewhere(), false);
});
