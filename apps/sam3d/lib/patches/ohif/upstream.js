/* What the replaced parts of MONAI Label's extension (plugins/ohifv3/extensions/monai-label) have in common.
   They are subclasses of its React components: `super` is the code of MONAI Label 0.8.5. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const subclasses = new Map();
  const GATEWAY = [502, 503, 504];
  const SILENT = { show: () => 1, hide() {} };

  /* End with an error that everyone sees when OHIF is not the one that these files were written for. */
  function unfit(what) {
    const message = `The server's additions do not fit this version of OHIF: ${what} is missing. Install MONAI Label 0.8.5.`;
    sam3d.notices.show("version", "error", message);
    throw new Error(message);
  }

  /* Replace methods of a component, which must exist. */
  function replace(component, methods) {
    for (const [name, method] of Object.entries(methods)) {
      if (typeof component[name] !== "function") unfit(`${component.constructor.upstream}.${name}`);
      component[name] = method;
    }
  }

  /* Silence what a component says by itself: `sam3d.notices` says it once, and with its reason. */
  function silence(component) {
    if (!component.notification) unfit(`${component.constructor.upstream}.notification`);
    component.notification = SILENT;
  }

  /* The element of a component with the subclass that `make` returns for it; React needs the same class each time. */
  function withSubclass(element, make, props = {}) {
    const Upstream = element.type;
    if (!subclasses.has(Upstream)) {
      const Subclass = make(Upstream);
      Subclass.upstream = Upstream.name;
      subclasses.set(Upstream, Subclass);
    }
    return { ...element, type: subclasses.get(Upstream), props: { ...element.props, ...props } };
  }

  /* A tree of React elements in which `change` has replaced some; null leaves one out. `usage` is the text of a ModelSelector. */
  function mapElements(element, change) {
    if (Array.isArray(element)) return element.map((each) => mapElements(each, change));
    if (!element?.props) return element;
    const changed = change(element);
    const inside = ["children", "usage"].filter((name) => element.props[name] !== undefined);
    if (changed !== element || !inside.length) return changed;
    const mapped = Object.fromEntries(inside.map((name) => [name, mapElements(element.props[name], change)]));
    return { ...element, props: { ...element.props, ...mapped } };
  }

  /* A new element; React itself is private to OHIF's bundle, so it is made from one that OHIF made. */
  function makeElement(template, type, props, ...children) {
    const content = children.length > 1 ? children : children[0];
    return { ...template, type, key: props.key ?? null, ref: null, props: { ...props, children: content } };
  }

  /* What to say when an answer is not the server's own: a proxy's page, or none at all. */
  function noAnswer(status, statusText) {
    if (!status || GATEWAY.includes(status)) return `The server does not answer${status ? ` (${status})` : ""}. Try again.`;
    return `The server answered ${status} ${statusText}.`;
  }

  /* The server's own explanation in the text of an answer; undefined when the text is not the server's. */
  function detail(text) {
    try {
      const content = JSON.parse(text);
      return typeof content.detail === "string" ? content.detail : undefined;
    } catch {
      return undefined;
    }
  }

  /* Why a request failed, as the server says it. `answer` is what MonaiLabelClient returns: a response or axios' error. */
  function reason(answer) {
    const { status, statusText, data } = answer.response ?? {};
    const text = data instanceof ArrayBuffer ? new TextDecoder().decode(data) : data;
    return detail(typeof text === "object" ? JSON.stringify(text) : text) ?? noAnswer(status, statusText);
  }

  /* `fetch`, which ends with an error for people unless the answer is a success. */
  async function request(url, options) {
    let answer;
    try {
      answer = await fetch(url, options);
    } catch {
      throw new Error(noAnswer());
    }
    if (!answer.ok) throw new Error(detail(await answer.text()) ?? noAnswer(answer.status, answer.statusText));
    return answer;
  }

  /* Header and voxels (x fastest) of a mask as OHIF asks for it: NRRD, 8 bits, not compressed (SegmentationReader.js). */
  function readNrrd(data) {
    const bytes = new Uint8Array(data);
    const end = bytes.findIndex((byte, at) => byte === 10 && bytes[at + 1] === 10);
    const header = new TextDecoder().decode(bytes.subarray(0, Math.max(end, 0)));
    const isExpected = /^NRRD/.test(header) && /^encoding: raw$/m.test(header) && /^type: (uint8|uchar|unsigned char)/m.test(header);
    if (!isExpected) throw new Error("The server sent a mask in a form that OHIF does not read.");
    return { header, voxels: bytes.subarray(end + 2) };
  }

  /* Ask a model for a mask of the series that is shown, and paint it; what is wrong is shown under a topic. An overtaken answer
     is dropped. segmentOf: index of the segment by value of the mask. asksToReplace: what is to be confirmed before a mask
     takes the place of another. */
  async function segment(tab, topic, { model, params, segmentOf, message, asksToReplace, isOvertaken = () => false, failed = reason }) {
    const { panel } = tab.props;
    const { series } = panel;
    try {
      panel.checkShown(series);
      const configured = tab.props.onOptionsConfig()?.infer?.[model] ?? {};
      sam3d.notices.working(topic, message);
      const answer = await tab.props.client().infer(model, series, { ...configured, ...params });
      if (isOvertaken()) return;
      if (answer.status !== 200 || !answer.data) throw new Error(failed(answer));
      const { voxels: mask } = readNrrd(answer.data);
      panel.checkShown(series);
      if (!mask.some(Boolean)) {
        sam3d.notices.show(topic, "warning", "The mask is empty: nothing was found. The segment is unchanged.");
        return;
      }
      sam3d.notices.remove(topic);
      const targets = new Set(segmentOf.values());
      if (asksToReplace && panel.voxels().some((value) => targets.has(value)) && !window.confirm(asksToReplace)) return;
      panel.paint(mask, segmentOf);
    } catch (error) {
      sam3d.notices.show(topic, "error", error.message);
    }
  }

  Object.assign(sam3d, { unfit, replace, silence, withSubclass, mapElements, makeElement, reason, request, readNrrd, segment });
})();
