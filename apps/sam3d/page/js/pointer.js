/* Mouse, pen and touch on the planes. */

/** @typedef {import("./viewer.js").Viewer} Viewer */
/** @typedef {import("./viewer.js").Spot} Spot */
/** @typedef {"inside" | "outside" | "box" | "brush" | "eraser" | "look"} Tool */
/**
 * @typedef {object} Actions
 * @property {() => Tool} tool
 * @property {(spot: Spot, inside: boolean) => void} click
 * @property {(from: Spot, to: Spot, done: boolean) => void} box
 * @property {(from: Spot, to: Spot, done: boolean, inside: boolean) => void} stroke
 * @property {() => void} cancel drops a box or stroke that is not done
 * @property {(at: {x: number, y: number, spot: Spot} | null) => void} hover
 * @property {(low: number, high: number) => void} window
 */
/** @typedef {"none" | "turn" | "pan" | "window" | "look" | "tool"} Gesture */

/** CSS pixels that a pointer may move during a click. */
const STILL = 4;
const LEFT = 0;
const RIGHT = 2;

/**
 * Listen to the pointer.
 * @param {HTMLElement} element over the viewer
 * @param {Viewer} viewer
 * @param {Actions} actions
 */
export function listen(element, viewer, actions) {
  /** @type {Map<number, {x: number, y: number}>} */
  const fingers = new Map();
  let gesture = /** @type {Gesture} */ ("none");
  let start = { x: 0, y: 0, at: /** @type {Spot | null} */ (null), inside: true, button: LEFT, tool: actions.tool(), grid: viewer.grid };
  let last = { x: 0, y: 0, at: /** @type {Spot | null} */ (null) };
  let hasMoved = false;
  let distance = 0;

  const placeOf = (/** @type {MouseEvent} */ event) => {
    const { left, top } = element.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };

  const isOpposite = (/** @type {PointerEvent} */ event) =>
    event.button === RIGHT || event.ctrlKey || event.metaKey || event.altKey;

  /** @param {PointerEvent} event @param {number} x @param {number} y @returns {Gesture} */
  const gestureOf = (event, x, y) => {
    if (viewer.isRender(x, y)) return "turn";
    if (event.button === 1 || event.shiftKey) return "pan";
    const tool = actions.tool();
    if (event.button === RIGHT || tool === "look") return event.button === RIGHT ? "window" : "look";
    return tool === "inside" || tool === "outside" ? "look" : "tool";
  };

  /** @param {Spot} from @param {Spot} to @param {boolean} done */
  const use = (from, to, done) => {
    if (start.tool === "box") actions.box(from, to, done);
    else actions.stroke(from, to, done, start.tool === "brush");
  };

  /** End a gesture that was begun on another image. */
  const keepToImage = () => {
    if (viewer.grid !== start.grid) gesture = "none";
  };

  element.addEventListener("pointerdown", (event) => {
    if (!viewer.grid) return;
    event.preventDefault();
    element.focus({ preventScroll: true });
    const { x, y } = placeOf(event);
    fingers.set(event.pointerId, { x, y });
    element.setPointerCapture(event.pointerId);
    if (fingers.size === 2) {
      if (gesture === "tool") actions.cancel();
      gesture = "none"; // two fingers enlarge and move
      const [one, two] = [...fingers.values()];
      distance = Math.hypot(one.x - two.x, one.y - two.y);
      return;
    }
    gesture = gestureOf(event, x, y);
    const at = viewer.pick(x, y);
    start = { x, y, at, inside: !isOpposite(event), button: event.button, tool: actions.tool(), grid: viewer.grid };
    last = { x, y, at };
    hasMoved = false;
    if (gesture === "tool" && at) {
      viewer.moveTo(at.ijk);
      use(at, at, false);
    }
  });

  element.addEventListener("pointermove", (event) => {
    const { x, y } = placeOf(event);
    if (!fingers.has(event.pointerId)) {
      const spot = viewer.pick(x, y);
      actions.hover(spot ? { x, y, spot } : null);
      return;
    }
    keepToImage();
    const before = /** @type {{x: number, y: number}} */ (fingers.get(event.pointerId));
    fingers.set(event.pointerId, { x, y });
    if (fingers.size === 2) {
      const [one, two] = [...fingers.values()];
      const now = Math.hypot(one.x - two.x, one.y - two.y);
      if (distance > 0 && now > 0) viewer.zoom(now / distance);
      distance = now;
      if (start.at) viewer.pan(start.at.tile, (x - before.x) / 2, (y - before.y) / 2);
      return;
    }
    hasMoved ||= Math.hypot(x - start.x, y - start.y) > STILL;
    if (!hasMoved) return;
    const at = viewer.pick(x, y, start.at?.tile);
    if (gesture === "turn") viewer.turn(x - last.x, y - last.y);
    else if (gesture === "pan" && start.at) viewer.pan(start.at.tile, x - last.x, y - last.y);
    else if (gesture === "window") changeWindow(x - last.x, y - last.y);
    else if (gesture === "look" && at) viewer.moveTo(at.ijk);
    else if (gesture === "tool" && at && start.at)
      use(start.tool === "box" ? start.at : (last.at ?? at), at, false);
    if (at) actions.hover({ x, y, spot: at });
    last = { x, y, at: at ?? last.at };
  });

  /** @param {number} dx @param {number} dy */
  const changeWindow = (dx, dy) => {
    const [low, high] = viewer.window;
    const width = Math.max(1e-6, (high - low) * Math.exp(dx * 0.006));
    const level = (low + high) / 2 + dy * 0.004 * (high - low);
    actions.window(level - width / 2, level + width / 2);
  };

  /** @param {PointerEvent} event @param {boolean} cancelled */
  const release = (event, cancelled) => {
    if (!fingers.delete(event.pointerId)) return;
    keepToImage();
    if (gesture === "tool" && start.at) use(start.tool === "box" ? start.at : (last.at ?? start.at), last.at ?? start.at, true);
    else if (!cancelled && !hasMoved && start.at && (gesture === "look" || gesture === "window")) {
      viewer.moveTo(start.at.ijk);
      if (start.tool !== "look") actions.click(start.at, start.inside === (start.tool !== "outside"));
    }
    gesture = "none";
  };
  element.addEventListener("pointerup", (event) => release(event, false));
  element.addEventListener("pointercancel", (event) => release(event, true));
  element.addEventListener("pointerleave", () => actions.hover(null));
  element.addEventListener("contextmenu", (event) => event.preventDefault());

  element.addEventListener(
    "wheel",
    (event) => {
      if (!viewer.grid) return;
      event.preventDefault();
      const { x, y } = placeOf(event);
      const steps = Math.sign(event.deltaY || event.deltaX);
      if (viewer.isRender(x, y)) viewer.zoomRender(steps > 0 ? 0.9 : 1.1);
      else if (event.ctrlKey || event.metaKey) viewer.zoom(steps > 0 ? 0.9 : 1.1);
      else {
        const spot = viewer.pick(x, y);
        if (spot) viewer.scroll(spot.plane, -steps);
      }
    },
    { passive: false },
  );
}
