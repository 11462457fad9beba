/* What the replaced parts of MONAI Label's extension (plugins/ohifv3/extensions/monai-label) have in common.
   They are subclasses of its React components: `super` is the code of MONAI Label 0.8.5. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const subclasses = new Map();
  const SILENT = { show: () => 1, hide() {} };

  /* End with an error that everyone sees when OHIF is not the one that these files were written for. */
  function unfit(what) {
    const message = `The server's additions do not fit this version of OHIF: ${what} is missing. Install MONAI Label 0.8.5.`;
    sam3d.notices.show("version", "error", message, Infinity);
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

  /* A tree of React elements in which `change` has replaced some; null leaves one out. */
  function mapElements(element, change) {
    if (Array.isArray(element)) return element.map((each) => mapElements(each, change));
    if (!element?.props) return element;
    const changed = change(element);
    if (changed !== element || element.props.children === undefined) return changed;
    return { ...element, props: { ...element.props, children: mapElements(element.props.children, change) } };
  }

  /* A new element; React itself is private to OHIF's bundle, so it is made from one that OHIF made. */
  function makeElement(template, type, props, ...children) {
    const content = children.length > 1 ? children : children[0];
    return { ...template, type, key: props.key ?? null, ref: null, props: { ...props, children: content } };
  }

  /* Why a request failed, as the server says it. `answer` is what MonaiLabelClient returns: a response or axios' error. */
  function reason(answer) {
    const response = answer.response;
    if (!response) return "The server does not answer.";
    const { data } = response;
    try {
      const content = data instanceof ArrayBuffer ? JSON.parse(new TextDecoder().decode(data)) : data;
      if (typeof content.detail === "string") return content.detail;
    } catch {
      // Not JSON: a proxy answered.
    }
    return `The server answered ${response.status} ${response.statusText}.`;
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

  /* Ask a model for a mask and paint it; what is wrong is shown under a topic. An overtaken answer is dropped.
     segmentOf: index of the segment by value of the mask. */
  async function segment(tab, topic, { model, params, segmentOf, message, isOvertaken = () => false, failed = reason }) {
    const { displaySet } = tab.props.getActiveViewportInfo();
    const configured = tab.props.onOptionsConfig()?.infer?.[model] ?? {};
    sam3d.notices.working(topic, message);
    const answer = await tab.props.client().infer(model, displaySet.SeriesInstanceUID, { ...configured, ...params });
    if (isOvertaken()) return;
    if (answer.status !== 200 || !answer.data) {
      sam3d.notices.show(topic, "error", failed(answer));
      return;
    }
    try {
      const { voxels: mask } = readNrrd(answer.data);
      tab.props.panel.paint(mask, segmentOf);
      if (mask.some(Boolean)) sam3d.notices.remove(topic);
      else sam3d.notices.show(topic, "warning", "The mask is empty: nothing was found");
    } catch (error) {
      sam3d.notices.show(topic, "error", error.message);
      throw error;
    }
  }

  Object.assign(sam3d, { unfit, replace, silence, withSubclass, mapElements, makeElement, reason, readNrrd, segment });
})();
