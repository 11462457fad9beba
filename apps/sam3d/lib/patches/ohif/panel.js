/* The panel (components/MonaiLabelPanel.tsx): it connects by itself, and keeps the order of the server's labels. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const PANEL = "@ohif/extension-monai-label.panelModule.monailabel";
  const SEGMENTATION = "1";
  const READY = 100;

  /* What the tabs read of GET /info/. Upstream sorts the labels by name; the server lists them in the order of --conf labels. */
  function describe(data, colorOf) {
    const indices = {}, names = {}, toName = {}, numbers = {};
    const models = Object.keys(data.models);
    for (const model of models) {
      const { labels } = data.models[model];
      const pairs = Array.isArray(labels) ? labels.map((label, at) => [label, at + 1]) : Object.entries(labels);
      indices[model] = Object.fromEntries(pairs);
      toName[model] = Object.fromEntries(pairs.map(([label, index]) => [index, label]));
      names[model] = pairs.map(([label]) => label);
      numbers[model] = pairs.map(([, index]) => index);
    }
    const labels = [...new Set([...data.labels, ...Object.values(names).flat()])];
    const segments = labels.map((label, at) => ({
      ...{ segmentIndex: at + 1, label, active: at === 0, locked: false, color: colorOf(label) },
    }));
    return {
      ...{ models, labels, data, modelLabelToIdxMap: indices, modelIdxToLabelMap: toName, modelLabelNames: names },
      modelLabelIndices: numbers,
      initialSegs: Object.fromEntries(segments.map((segment) => [segment.segmentIndex, segment])),
    };
  }

  const makePanel = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      const kept = ["client", "getActiveViewportInfo", "onSelectActionTab", "onOptionsConfig", "segmentColor"];
      sam3d.replace(this, Object.fromEntries(kept.map((name) => [name, this[name]])));
      sam3d.silence(this);
      sam3d.replace(this, { onInfo: (url) => this.connect(url) });
    }

    /* Upstream waits for its button. */
    componentDidMount() {
      this.connect(this.settings.current.state.url);
    }

    componentWillUnmount() {
      this.isGone = true;
    }

    /* Replaces onInfo. */
    async connect(url) {
      this.serverURI = url;
      const answer = await this.client().info();
      if (answer.status !== 200) {
        sam3d.notices.show("connection", "error", `No connection to ${url}. ${sam3d.reason(answer)}`, Infinity);
        return;
      }
      sam3d.notices.remove("connection");
      const info = describe(answer.data, (label) => this.segmentColor(label));
      await this.addSegmentation(info.initialSegs);
      if (this.isGone) return;
      this.setState({ info, options: {}, isDataReady: true });
      await sam3d.openSavedLabel(this);
    }

    /* Add the segmentation that the tabs paint, once there is a volume to paint on. */
    async addSegmentation(segments) {
      const { segmentationService } = this.props.servicesManager.services;
      while (!this.hasVolume()) {
        if (this.isGone) return;
        await new Promise((resolve) => setTimeout(resolve, READY));
      }
      if (segmentationService.getSegmentation(SEGMENTATION)) return;
      const representation = { type: cornerstoneTools.Enums.SegmentationRepresentations.Labelmap };
      const segmentation = { segmentationId: SEGMENTATION, representation, config: { label: "Segmentations", segments } };
      await this.props.commandsManager.runCommand("loadSegmentationsForViewport", { segmentations: [segmentation] });
      const { viewport } = this.getActiveViewportInfo();
      for (const { segmentIndex, color } of Object.values(segments)) {
        cornerstoneTools.segmentation.config.color.setSegmentIndexColor(viewport.viewportId, SEGMENTATION, segmentIndex, color);
      }
    }

    hasVolume() {
      const { viewportGridService, cornerstoneViewportService } = this.props.servicesManager.services;
      const { viewports, activeViewportId } = viewportGridService.getState();
      const viewport = cornerstoneViewportService.getCornerstoneViewport(activeViewportId);
      return Boolean(viewports.get(activeViewportId)?.displaySetInstanceUIDs?.length && viewport?.getActors?.().length);
    }

    /* The segments of the segmentation by label; upstream's currentSegmentsInfo fails on one that came from a DICOM SEG. */
    segments() {
      const current = this.props.servicesManager.services.segmentationService.getSegmentation(SEGMENTATION)?.segments ?? {};
      const all = [...Object.values(this.state.info.initialSegs), ...Object.values(current).filter(Boolean)];
      return Object.fromEntries(all.map(({ label, segmentIndex }) => {
        return [label, { segmentIndex, color: this.state.info.initialSegs[segmentIndex]?.color ?? this.segmentColor(label) }];
      }));
    }

    /* Put a new mask in the place of the earlier masks of its segments. Other segments stay, also where the masks overlap.
       Replaces updateView, which keeps the earlier mask when the new one is empty, and clears others from Auto-Segmentation.
       segmentOf: index of the segment by value of the mask. */
    paint(mask, segmentOf) {
      const voxels = this.voxels();
      if (mask.length !== voxels.length) throw new Error(`The mask has ${mask.length} voxels, the series ${voxels.length}.`);
      const targets = new Set(segmentOf.values());
      for (let at = 0; at < voxels.length; at++) {
        if (voxels[at] === 0 || targets.has(voxels[at])) voxels[at] = segmentOf.get(mask[at]) ?? 0;
      }
      this.setVoxels(voxels);
    }

    /* A copy of what is painted. */
    voxels() {
      const { segmentationService } = this.props.servicesManager.services;
      return Uint8Array.from(segmentationService.getLabelmapVolume(SEGMENTATION).voxelManager.getCompleteScalarDataArray());
    }

    setVoxels(voxels) {
      const { segmentationService } = this.props.servicesManager.services;
      segmentationService.getLabelmapVolume(SEGMENTATION).voxelManager.setCompleteScalarDataArray(voxels);
      const { SEGMENTATION_DATA_MODIFIED } = cornerstoneTools.Enums.Events;
      cornerstone.triggerEvent(cornerstone.eventTarget, SEGMENTATION_DATA_MODIFIED, { segmentationId: SEGMENTATION });
    }

    selectSegment(label) {
      const index = this.segments()[label]?.segmentIndex;
      const { segmentationService } = this.props.servicesManager.services;
      if (index && segmentationService.getSegmentation(SEGMENTATION)) segmentationService.setActiveSegment(SEGMENTATION, index);
    }

    render() {
      const { activelearning, segmentation, pointprompts, classprompts } = this.actions;
      const makers = new Map([
        [activelearning, sam3d.makeActiveLearning],
        [segmentation, sam3d.makeAutoSegmentation],
        [pointprompts, sam3d.makePointPrompts],
        [classprompts, sam3d.makeClassPrompts],
      ]);
      const replaced = new Set();
      const tree = sam3d.mapElements(super.render(), (element) => {
        const make = makers.get(element.ref);
        if (!make) return element;
        replaced.add(make);
        return sam3d.withSubclass(element, make, { panel: this });
      });
      if (this.state.isDataReady && replaced.size !== makers.size) sam3d.unfit("a tab of the panel");
      return tree;
    }
  };

  /* Let the panel be ours. OHIF reads the component when it adds the panels of a mode. */
  sam3d.installPanel = (extensions) => {
    const entry = extensions.getModuleEntry(PANEL);
    if (!entry) sam3d.unfit(PANEL);
    if (entry.isSam3d) return;
    const Upstream = entry.component;
    entry.component = () => sam3d.withSubclass(Upstream(), makePanel);
    entry.isSam3d = true;
  };
})();
