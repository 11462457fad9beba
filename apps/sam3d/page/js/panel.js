/* The panels next to the viewer, which show the open case. */

import { $, count, make, refill } from "./dom.js";
import { hasPrompts, isEmpty } from "./layer.js";

/** @typedef {import("./session.js").Session} Session */

/**
 * @param {number} voxels
 * @param {ArrayLike<number>} spacing mm
 */
const millilitres = (voxels, spacing) => {
  const volume = (voxels * spacing[0] * spacing[1] * spacing[2]) / 1000;
  return volume >= 100 ? volume.toFixed(0) : volume >= 1 ? volume.toFixed(1) : volume.toFixed(2);
};

/** @param {readonly number[]} colour */
const rgb = (colour) => `rgb(${colour.join(" ")})`;

/**
 * Show the state of the open case.
 * @param {Session} session
 * @param {string | null} name of the case, for people
 * @param {{hasCandidates: boolean, automatic: string | null}} abilities of the active weights
 */
export function showCase(session, name, { hasCandidates, automatic }) {
  const { image, view, layer } = session;
  $("case-title").textContent = name ?? "No case";
  $("case-facts").textContent = view ? facts(view) : "";
  $("case-ohif").hidden = true;
  showLabels(session);
  const isOpen = Boolean(image);
  const isPrompted = isOpen && (layer.foreground.length > 0 || layer.roi !== null);
  $("undo").disabled = !session.history.done.length;
  $("redo").disabled = !session.history.undone.length;
  $("undo").title = session.history.done.length ? `Undo: ${session.history.done.at(-1)?.what} (Ctrl Z)` : "Undo (Ctrl Z)";
  $("clear").disabled = !isOpen || isEmpty(layer);
  $("auto").disabled = !isOpen || !automatic;
  $("auto").title = automatic
    ? `Segment every ${automatic} without a click, as a start. Right click removes a region, a click inside segments it anew`
    : "The active weights need a click";
  $("uncertainty").disabled = !isPrompted;
  $("uncertainty").setAttribute("aria-pressed", String(session.assist.isUncertaintyShown));
  $("candidates").disabled = !isPrompted || !hasCandidates;
  $("candidates").title = hasCandidates ? "Other masks that the clicks may mean (C)" : "The active weights give one mask only; tiny-geodesic gives several";
  $("save").disabled = $("save-next").disabled = !isOpen;
  $("saved").textContent = !isOpen ? "" : session.isDirty ? "Not saved yet" : session.isSaved ? "Saved as final label" : "";
  $("retry").hidden = !session.behind.length;
  showSuggestion(session);
  showChoices(session);
  const { timing } = session;
  $("timing").textContent = timing ? `mask in ${timing.total.toFixed(2)} s (server ${timing.server.toFixed(2)} s)` : "";
  document.title = name ? `${session.isDirty ? "● " : ""}${name} · SAM3D` : "SAM3D";
}

/** @param {import("./api.js").View} view */
function facts({ shape, spacing, modality, modality_from: source }) {
  const sizes = spacing.map((edge) => Number(edge.toPrecision(3))).join(" × ");
  const kind = modality ? `${modality}${source === "file" ? "" : " (recognised by its intensities)"} · ` : "";
  return `${kind}${shape.join(" × ")} voxels of ${sizes} mm`;
}

/** @param {Session} session */
function showLabels(session) {
  const rows = session.labels.map(({ name, colour, hidden }, at) => {
    const swatch = make("span", { class: "swatch" });
    swatch.style.background = rgb(colour);
    const voxels = session.view ? session.voxels(name) : 0;
    const size = voxels && session.view ? `${millilitres(voxels, session.view.spacing)} mL` : "";
    const key = at < 9 ? ` (Alt ${at + 1})` : "";
    const isActive = name === session.active;
    const label = make(
      "button",
      { type: "button", class: "label", "data-label": name, "aria-pressed": String(isActive), title: `${isActive ? "Clicks are for" : "Click for"} ${name}${key}` },
      swatch, make("span", { class: "name" }, name), make("span", { class: "size" }, size),
    );
    const eye = make("button", { type: "button", class: "quiet", "data-eye": name, "aria-pressed": String(!hidden), "aria-label": `Show ${name}`, title: hidden ? "Show" : "Hide" }, hidden ? "○" : "●");
    return make("li", {}, label, eye);
  });
  refill($("labels"), ...rows);
}

/** @param {Session} session */
function showSuggestion({ assist: { suggestion, isUncertaintyShown }, layer }) {
  const shown = isUncertaintyShown && hasPrompts(layer);
  $("suggestion").hidden = !shown;
  if (!shown) return;
  $("suggestion").textContent = suggestion
    ? "Bright: the model is unsure. The yellow ring is where a click helps most: click there, inside or outside."
    : "The model is sure of this mask everywhere.";
}

/** @param {Session} session */
function showChoices({ assist: { choices, chosen }, view }) {
  $("choices").hidden = choices.length < 2;
  if (choices.length < 2 || !view) return;
  refill(
    $("choices"),
    ...choices.map(({ name, predictedDice, voxels }, at) =>
      make(
        "button",
        { type: "button", role: "radio", "data-choice": String(at), "aria-checked": String(at === chosen) },
        make("span", {}, name),
        make("span", { class: "soft" }, `${millilitres(voxels, view.spacing)} mL${predictedDice === null ? "" : ` · expected Dice ${predictedDice.toFixed(2)}`}`),
      ),
    ),
    make("p", { class: "hint" }, `${count(choices.length, "mask")} to choose from; the next clicks correct the chosen one.`),
  );
}
