"use strict";

const EVERY_MS = 4000;
let shown = null; // the state as last read
const $ = (id) => document.getElementById(id);

/* Elements are made from text, never from HTML, because the names of images are untrusted. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const number = (value, digits = 3) => (value === undefined || value === null || value === "" ? "–" : Number(value).toFixed(digits));
const when = (text) => (text ? new Date(text).toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) : "–");

/* Lines over x; each line is {colour, name, points: [{x, y, low?, high?, hollow?}]}. */
function chart(target, lines, { height, yMax, xLabel }) {
  const width = target.clientWidth || 600;
  const all = lines.flatMap((line) => line.points);
  if (!all.length) {
    target.replaceChildren(make("p", { class: "empty" }, "Nothing yet."));
    return;
  }
  const pad = { left: 34, right: 12, top: 10, bottom: 30 };
  const xs = all.map((point) => point.x);
  const [xLow, xHigh] = [Math.min(...xs), Math.max(...xs)];
  const top = yMax ?? Math.max(...all.map((point) => point.y)) * 1.08;
  const x = (value) => pad.left + ((width - pad.left - pad.right) * (xHigh === xLow ? 0.5 : (value - xLow) / (xHigh - xLow)));
  const y = (value) => height - pad.bottom - ((height - pad.top - pad.bottom) * value) / top;
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (let step = 0; step <= 4; step++) {
    const value = (top * step) / 4;
    svg.append(draw("line", { class: "axis", x1: pad.left, x2: width - pad.right, y1: y(value), y2: y(value) }));
    svg.append(draw("text", { x: pad.left - 6, y: y(value) + 4, "text-anchor": "end" }, value.toFixed(2)));
  }
  for (const value of new Set(xs.length > 12 ? [xLow, xHigh] : xs))
    svg.append(draw("text", { x: x(value), y: height - pad.bottom + 15, "text-anchor": "middle" }, String(value)));
  svg.append(draw("text", { x: width - pad.right, y: height - 2, "text-anchor": "end" }, xLabel));
  lines.forEach((line, index) => {
    const colour = `var(${line.colour})`;
    const banded = line.points.filter((point) => point.low !== undefined);
    if (banded.length > 1) {
      const upper = banded.map((point) => `${x(point.x)},${y(point.high)}`);
      const lower = banded.map((point) => `${x(point.x)},${y(point.low)}`).reverse();
      svg.append(draw("polygon", { points: [...upper, ...lower].join(" "), fill: colour, opacity: 0.15 }));
    }
    svg.append(draw("polyline", { points: line.points.map((point) => `${x(point.x)},${y(point.y)}`).join(" "), fill: "none", stroke: colour, "stroke-width": 2 }));
    if (line.marks)
      for (const point of line.points)
        svg.append(draw("circle", { cx: x(point.x), cy: y(point.y), r: 4, stroke: colour, "stroke-width": 2, fill: point.hollow ? "var(--card)" : colour }, draw("title", {}, point.title)));
    if (line.name) {
      const at = { x: width - pad.right - 8, y: y(0) - 10 - 16 * (lines.length - 1 - index), "text-anchor": "end" };
      const name = draw("text", { ...at, class: "name" }, line.name);
      name.style.fill = colour; // as a style attribute, the page's security policy would ignore it
      svg.append(name);
    }
  });
  target.replaceChildren(svg);
}

function showCurve(rows) {
  const line = (metric, colour, name) => ({
    colour, name, marks: true,
    points: rows.filter((row) => row[metric] !== "").map((row) => ({
      x: Number(row.annotated), y: Number(row[metric]), low: Number(row[`${metric}_low`]), high: Number(row[`${metric}_high`]),
      hollow: row.published !== "1",
      title: `version ${row.version}, ${row.annotated} cases: Dice ${number(row[metric])}, before ${number(row[`serving_${metric}`])}`,
    })),
  });
  chart($("curve"), [line("dice_5", "--five", "5 clicks"), line("dice_1", "--one", "1 click")], { height: 280, yMax: 1, xLabel: "annotated cases" });
}

/* A number with its noun, such as "1 label" and "2 labels". */
const count = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

function showTraining({ status, stats, new_labels: fresh, every, at }) {
  const running = status === "RUNNING" || status === "SUBMITTED";
  const what = stats.error ? `The last training failed: ${stats.error}`
    : running ? `${status === "SUBMITTED" ? "Waiting for its turn" : stats.stage ?? "starting"} · epoch ${stats.epoch ?? 0} of ${stats.total_epochs ?? "…"}`
    : stats.version ? `The last one made version ${stats.version}: ${stats.gate.reason}.` : "None yet.";
  $("training").textContent = what;
  $("progress").hidden = !running || !stats.total_epochs;
  $("progress").value = running && stats.total_epochs ? stats.epoch / stats.total_epochs : 0;
  const points = (stats.losses ?? []).map((loss, index) => ({ x: index + 1, y: loss }));
  chart($("losses"), [{ colour: "--one", points }], { height: 150, xLabel: "epoch · training loss" });
  const rules = [every ? `after ${count(every, "saved label")}` : "", at ? `at ${at}` : ""].filter(Boolean).join(" and ");
  $("auto").textContent = `${count(fresh, "label")} saved since the last training. ` + (rules ? `It starts automatically ${rules}.` : "It does not start automatically.");
}

/* The decision of the gate on a version, and whether a person activated it nevertheless. */
function verdict({ passes, serves, against_gate: byHand }) {
  if (passes === undefined || passes === null) return "";
  if (passes) return make("span", { class: "pill good" }, "passed");
  const text = !byHand ? "rejected candidate, kept with its report" : serves ? "active against the gate" : "was active against the gate";
  return make("span", byHand ? { class: "pill bad", title: `${when(byHand.at)}, by ${byHand.by}` } : { class: "pill bad" }, text);
}

function showVersions(versions, serving) {
  const minor = (text) => (["Made", "Cases", "Dice@3", "NSD@3"].includes(text) ? { class: "minor" } : {});
  const names = ["Version", "", "Made", "Cases", "Dice@1", "Dice@3", "NSD@3", "Gate"];
  const head = make("tr", {}, ...names.map((text) => make("th", minor(text), text)));
  const rows = versions.map((version) => {
    const means = version.means?.candidate ?? {};
    const back = version.serves ? "active version" : make("button", { type: "button", "data-version": version.version }, "Activate");
    const cells = [version.version, back, when(version.at), String(version.annotated ?? "–"), number(means.dice_1), number(means.dice_3), number(means.nsd_3)];
    const row = make("tr", version.serves ? { class: "serves" } : {}, ...cells.map((cell, index) => make("td", minor(names[index]), cell)));
    const losses = version.lost.length && !version.serves ? `. Compared with the active weights, it cannot ${version.lost.join(" or ")}` : "";
    row.append(make("td", { class: "reason" }, verdict(version), ` ${version.reason ?? ""}${losses}`));
    return row;
  });
  if (!rows.length) rows.push(make("tr", {}, make("td", { class: "empty", colspan: 8 }, "No training has made a version yet.")));
  $("versions").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
  $("rollback").disabled = serving.before === null;
  $("rollback").textContent = serving.before === null ? "Roll back" : `Roll back to ${named(serving.before)}`;
}

function showLedger({ images, labelled, counts, cases }) {
  $("sides").textContent = `${labelled} of ${count(images, "image")} labelled. ${count(counts.train, "training case")}, ${count(counts.validation, "validation case")}; a case never changes its split.`;
  const head = make("tr", {}, ...["Case", "Split", "Since"].map((text) => make("th", {}, text)));
  const rows = cases.map((entry) => make("tr", {}, ...[entry.case, entry.side, when(entry.since)].map((cell) => make("td", {}, cell))));
  $("cases").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

function showNext(images) {
  const items = images.map((entry) => make("li", {}, `${entry.image} · doubt ${number(entry.doubt)}`));
  if (!items.length) $("next").replaceChildren(make("p", { class: "empty" }, "No unlabelled image is scored yet."));
  else $("next").replaceChildren(...items);
}

function showWeights(serving) {
  const data = serving.data.map((source) => `${source.name} (${source.licence})`).join("; ") || "–";
  const facts = { version: serving.weights, preset: serving.preset, made: serving.date, supports: serving.capabilities.join(", ").replaceAll("_", " "), licence: serving.licence, "trained on": data };
  $("weights").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function complain(message) {
  $("problem").textContent = message;
  $("problem").hidden = !message;
}

async function ask(path, options) {
  const response = await fetch(path, options);
  if (response.status === 401) location.assign(`login?next=${encodeURIComponent(location.pathname)}`);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail ?? response.statusText);
  return answer;
}

async function refresh() {
  try {
    const state = await ask("state");
    shown = state;
    const { version, weights } = state.serving;
    $("summary").textContent = `${state.labels.join(", ")} · ${version === "shipped" ? `active weights: ${weights}` : `active version: ${version}`}`;
    showCurve(state.curve);
    showTraining(state.training);
    showVersions(state.versions, state.serving);
    showLedger(state.ledger);
    showNext(state.next);
    showWeights(state.serving);
    complain("");
  } catch (error) {
    complain(`The server does not answer: ${error.message}`);
  }
}

const named = (version) => (version === "shipped" ? "the weights before any version" : `version ${version}`);

/* Warnings to show before a version is activated. */
function warnings({ passes, reason, lost }) {
  const found = passes === false ? [`The gate rejected it: ${reason}.`] : [];
  if (lost.length) found.push(`It cannot ${lost.join(" or ")}, as the active weights can.`);
  return found;
}

async function activate(version, action) {
  const known = shown.versions.find((each) => each.version === version);
  $("question").textContent = `${action} ${named(version)}? The next click uses it.`;
  $("warnings").replaceChildren(...(known ? warnings(known) : []).map((text) => make("li", {}, text)));
  $("confirmed").textContent = `${action} ${named(version)}`;
  $("confirm").returnValue = "";
  $("confirm").showModal();
  await new Promise((resolve) => $("confirm").addEventListener("close", resolve, { once: true }));
  if ($("confirm").returnValue !== "yes") return;
  try {
    await ask("rollback", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ version }) });
    await refresh();
  } catch (error) {
    complain(error.message);
  }
}

$("rollback").addEventListener("click", () => activate(shown.serving.before, "Roll back to"));
$("versions").addEventListener("click", (event) => {
  const version = event.target.dataset.version;
  if (version) activate(version, "Activate");
});
window.addEventListener("resize", refresh);
refresh();
setInterval(refresh, EVERY_MS);
