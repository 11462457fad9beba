/* Learning: training, versions, ledger and the images that are next. */

import { api } from "./api.js";
import { chart } from "./chart.js";
import { $, confirmed, count, duration, make, number, refill, when } from "./dom.js";
import { term } from "./terms.js";

/** @typedef {any} State The answer of GET /sam3d/state. */

const WHILE_TRAINING_MS = 2000;
const EVERY_MS = 5000;

/** @type {State} the state as last read */
let shown = null;
/** Called with each new state. @type {((state: State) => void)[]} */
const listeners = [];
/** Called with messages for people, empty when all is well: about reading the state, and about what was to be done. */
let complain = { reading: (/** @type {string} */ _message) => {}, doing: (/** @type {string} */ _message) => {} };

/** @param {any[]} rows of the learning curve */
function showCurve(rows) {
  const line = (/** @type {string} */ metric, /** @type {string} */ colour, /** @type {string} */ name) => ({
    colour, name, marks: true,
    points: rows.filter((row) => row[metric] !== "").map((row) => ({
      x: Number(row.annotated), y: Number(row[metric]), low: Number(row[`${metric}_low`]), high: Number(row[`${metric}_high`]),
      hollow: row.published !== "1",
      title: `version ${row.version}, ${row.annotated} cases: Dice ${number(row[metric])}, before ${number(row[`serving_${metric}`])}`,
    })),
  });
  const measured = rows.filter((row) => row.reference_dice_5 !== "");
  const points = measured.map((row) => ({ x: Number(row.annotated), y: Number(row.reference_dice_5) }));
  /** @type {any[]} */
  const reference = points.length ? [{ colour: "--kept", name: "5 clicks, reference set", points }] : [];
  const lines = [line("dice_5", "--five", "5 clicks"), line("dice_1", "--one", "1 click"), ...reference];
  chart($("curve"), lines, { height: 280, yMax: 1, xLabel: "annotated cases", empty: "Each training adds a point." });
  $("curve-files").hidden = !rows.length;
}

/** @param {string | null} status */
const isRunning = (status) => status === "RUNNING" || status === "SUBMITTED";

/**
 * What the training does, in a sentence.
 * @param {any} training
 */
function described({ status, stats }) {
  if (status === "SUBMITTED") return "Waiting for its turn.";
  if (isRunning(status)) return `${stats.stage ?? "starting"} · epoch ${stats.epoch ?? 0} of ${stats.total_epochs ?? "…"}`;
  if (status === "STOPPED") return "The last training was stopped; nothing was changed.";
  if (stats.error) return `The last training failed: ${stats.error}`;
  return stats.version ? `The last one made version ${stats.version}: ${stats.gate.reason}.` : "No training yet. Five saved labels are a good start.";
}

/**
 * How fast a training is and how long it still takes; the comparison at the end comes on top.
 * @param {any} stats
 */
export function speed({ steps, total_steps: all, crops_per_second: crops, current_time: elapsed, remaining_time: left }) {
  if (!steps || left === undefined) return "";
  return `Step ${steps} of ${all}, ${crops} crops per second, ${duration(elapsed)} so far. `
    + `About ${duration(left)} of training left, then the comparison with the active weights.`;
}

/** @param {any} training @param {boolean} mayTrain */
function showTraining(training, mayTrain) {
  const { status, stats, new_labels: fresh, every, at } = training;
  const running = isRunning(status);
  $("training").textContent = described(training);
  $("progress").hidden = !running || !stats.total_epochs;
  const [done, all] = stats.total_steps ? [stats.steps, stats.total_steps] : [stats.epoch ?? 0, stats.total_epochs];
  $("progress").value = running && all ? done / all : 0;
  $("remaining").textContent = running ? speed(stats) : "";
  $("train").disabled = running || !mayTrain;
  $("train").title = mayTrain ? "Train on all saved labels" : "Only an admin can start a training";
  $("epochs").disabled = running || !mayTrain;
  $("stop").hidden = !running;
  $("stop").disabled = !mayTrain;
  const points = (stats.losses ?? []).map((/** @type {number} */ loss, /** @type {number} */ index) => ({ x: index + 1, y: loss }));
  chart($("losses"), [{ colour: "--one", points }], { height: 150, xLabel: "epoch · training loss", empty: "The loss of each epoch appears here." });
  const rules = [every ? `after ${count(every, "saved label")}` : "", at ? `at ${at}` : ""].filter(Boolean).join(" and ");
  $("auto-rule").textContent = `${count(fresh, "label")} saved since the last training. ` + (rules ? `It starts automatically ${rules}.` : "It does not start automatically.");
  $("training-chip").hidden = !running;
  $("training-chip").textContent = running ? `Training: ${stats.epoch ?? 0} of ${stats.total_epochs ?? "…"} epochs` : "";
}

/**
 * The decision of the gate on a version, and whether a person activated it nevertheless.
 * @param {any} version
 */
function verdict({ passes, serves, against_gate: byHand }) {
  if (passes === undefined || passes === null) return "";
  if (passes) return make("span", { class: "pill good" }, "passed");
  const text = !byHand ? "rejected candidate, kept with its report" : serves ? "active against the gate" : "was active against the gate";
  return make("span", byHand ? { class: "pill bad", title: `${when(byHand.at)}, by ${byHand.by}` } : { class: "pill bad" }, text);
}

/** Columns of the table of versions: name, explanation, and whether a phone leaves it out. @type {[string, string, boolean][]} */
const COLUMNS = [
  ["Version", "", false], ["", "", false], ["Made", "", true],
  ["Cases", "Annotated cases at that time", true],
  ["Dice@1", "Overlap with the saved labels after one click, on validation cases: 0 to 1", false],
  ["Dice@3", "The same after three clicks", true],
  ["NSD@3", "Part of the mask's surface that is at the saved surface, after three clicks: 0 to 1", true],
  ["New", "Share of the new weights; the rest are the weights before the update", true],
  ["Reference", "Dice on each kind of reference cases, before the first update and after this one", true],
  ["Gate", "Whether it was at least as good as the active version, and why", false],
];

/** Dice on each kind of reference cases, before and after. @param {any} reference */
function kept(reference) {
  if (!reference) return "–";
  return Object.entries(reference.kinds).map(([kind, dice]) => `${kind} ${number(dice.before)} → ${number(dice.after)}`).join(", ");
}

/** @param {any[]} versions @param {any} serving @param {boolean} mayActivate */
function showVersions(versions, serving, mayActivate) {
  /** @type {(at: number) => Record<string, string>} */
  const minor = (at) => /** @type {Record<string, string>} */ (COLUMNS[at][2] ? { class: "minor" } : {});
  const head = make("tr", {}, ...COLUMNS.map(([name, title], at) =>
    make("th", minor(at), title ? term(name, title) : name)));
  const rows = versions.map((version) => {
    const means = version.means?.candidate ?? {};
    const back = version.serves ? "active version"
      : make("button", { type: "button", "data-version": version.version, ...(mayActivate ? {} : { disabled: "" }) }, "Activate");
    const cells = [version.version, back, when(version.at), String(version.annotated ?? "–"), number(means.dice_1), number(means.dice_3), number(means.nsd_3),
      version.share ? `${Math.round(100 * version.share)} %` : "–", kept(version.reference)];
    const row = make("tr", version.serves ? { class: "serves" } : {}, ...cells.map((cell, at) => make("td", minor(at), cell)));
    const losses = version.lost.length && !version.serves ? `. Compared with the active weights, it cannot ${version.lost.join(" or ")}` : "";
    row.append(make("td", { class: "reason" }, verdict(version), ` ${version.reason ?? ""}${losses}`));
    return row;
  });
  if (!rows.length) rows.push(make("tr", {}, make("td", { class: "empty", colspan: String(COLUMNS.length) }, "No training has made a version yet.")));
  refill($("versions"), make("thead", {}, head), make("tbody", {}, ...rows));
  $("rollback").disabled = serving.before === null || !mayActivate;
  $("rollback").textContent = serving.before === null ? "Roll back" : `Roll back to ${named(serving.before)}`;
}

/** @param {any} ledger */
function showLedger({ images, labelled, counts, cases }) {
  $("sides").textContent = `${labelled} of ${count(images, "image")} labelled. ${count(counts.train, "training case")}, ${count(counts.validation, "validation case")}; a case never changes its split.`;
  const head = make("tr", {}, ...["Case", "Split", "Since"].map((text) => make("th", {}, text)));
  const rows = cases.map((/** @type {any} */ entry) => make("tr", {}, ...[entry.case, entry.side, when(entry.since)].map((cell) => make("td", {}, cell))));
  $("cases").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

/** @param {any[]} images */
function showNext(images) {
  const items = images.map((entry) => make("li", {}, `${entry.image} · uncertainty ${number(entry.doubt)}`));
  if (items.length) $("next").replaceChildren(...items);
  else $("next").replaceChildren(make("p", { class: "empty" }, "No unlabelled image is scored yet."));
}

/** @param {any} serving */
function showWeights(serving) {
  const data = serving.data.map((/** @type {any} */ source) => `${source.name} (${source.licence})`).join("; ") || "–";
  const supports = serving.capabilities.join(", ").replaceAll("_", " ");
  const facts = { version: serving.weights, preset: serving.preset, made: serving.date, supports, licence: serving.licence, "trained on": data };
  $("weights").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

/** @param {string} version */
const named = (version) => (version === "shipped" ? "the weights before any version" : `version ${version}`);

/**
 * Warnings to show before a version is activated.
 * @param {any} version
 * @returns {string[]}
 */
function warnings({ passes, reason, lost }) {
  const found = passes === false ? [`The gate rejected it: ${reason}.`] : [];
  if (lost.length) found.push(`It cannot ${lost.join(" or ")}, as the active weights can.`);
  return found;
}

/** Read the state and show it. */
export async function refresh() {
  try {
    shown = await api.state();
    show();
    complain.reading("");
  } catch (error) {
    complain.reading(error instanceof Error ? error.message : String(error));
  }
}

function show() {
  const { version, weights } = shown.serving;
  $("summary").textContent = `${shown.labels.join(", ")} · ${version === "shipped" ? `active weights: ${weights}` : `active version: ${version}`}`;
  showCurve(shown.curve);
  showTraining(shown.training, shown.admin);
  showVersions(shown.versions, shown.serving, shown.admin);
  showLedger(shown.ledger);
  showNext(shown.next);
  showWeights(shown.serving);
  for (const call of listeners) call(shown);
}

let isChanging = false;

/** Do something that changes the state, and show it; a second click meanwhile does nothing. @param {() => Promise<unknown>} action */
async function change(action) {
  if (isChanging) return;
  isChanging = true;
  try {
    complain.doing("");
    await action();
    await refresh();
  } catch (error) {
    complain.doing(error instanceof Error ? error.message : String(error));
  } finally {
    isChanging = false;
  }
}

/** @param {string} version @param {string} action */
async function activate(version, action) {
  const known = shown.versions.find((/** @type {any} */ each) => each.version === version);
  const question = `${action} ${named(version)}? The next click uses it.`;
  if (await confirmed(question, `${action} ${named(version)}`, known ? warnings(known) : []))
    await change(() => api.activate(version));
}

/**
 * Begin to show the state, and to read it again and again.
 * @param {typeof complain} onProblem
 * @param {(state: State) => void} onState
 */
export async function startLearning(onProblem, onState) {
  complain = onProblem;
  listeners.push(onState);
  $("rollback").addEventListener("click", () => activate(shown.serving.before, "Roll back to"));
  $("versions").addEventListener("click", (/** @type {MouseEvent} */ event) => {
    const version = /** @type {HTMLElement} */ (event.target).dataset.version;
    if (version) activate(version, "Activate");
  });
  $("train").addEventListener("click", () => change(() => api.train(Number($("epochs").value) || null)));
  $("stop").addEventListener("click", async () => {
    if (await confirmed("Stop the training? Its epochs are lost; labels and versions stay as they are.", "Stop the training"))
      await change(() => api.stopTraining());
  });
  window.addEventListener("resize", () => shown && show());
  const again = async () => {
    await refresh();
    setTimeout(again, isRunning(shown?.training.status) ? WHILE_TRAINING_MS : EVERY_MS);
  };
  await again();
}
