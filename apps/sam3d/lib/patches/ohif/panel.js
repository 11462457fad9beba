/* The panel (components/MonaiLabelPanel.tsx): it connects automatically, keeps the order of the server's labels, and follows the
   series that is shown. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const PANEL = "@ohif/extension-monai-label.panelModule.monailabel";
  const READY = 100;
  const SERIES_TOPICS = ["points", "structures", "reopen", "save", "unpainted"];

  /* The parts of GET /info/ that the tabs read. Upstream sorts the labels by name; the server lists them in the order of --conf labels. */
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
      sam3d.panel = this;
      this.series = null; // SeriesInstanceUID of the series that the tabs work on
      this.unwatch = sam3d.watchSeries(() => this.follow());
      this.connect(this.settings.current.state.url);
    }

    componentWillUnmount() {
      this.isGone = true;
      this.unwatch();
      if (sam3d.panel === this) sam3d.panel = null;
    }

    /* Replaces onInfo. */
    async connect(url) {
      this.serverURI = url;
      const answer = await this.client().info();
      if (answer.status !== 200) {
        sam3d.notices.show("connection", "error", `No connection to ${url}. ${sam3d.reason(answer)}`);
        return;
      }
      sam3d.notices.remove("connection");
      this.info = describe(answer.data, (label) => this.segmentColor(label));
      this.awaited = null;
      await this.follow();
    }

    /* Let the tabs work on the series in the active viewport: on its segmentation, its points and its saved label. */
    async follow() {
      const series = sam3d.shownSeries();
      if (this.isGone || !this.info || !series || series === this.awaited) return;
      this.awaited = series;
      this.series = null;
      for (const topic of SERIES_TOPICS) sam3d.notices.remove(topic);
      const isOver = () => this.isGone || this.awaited !== series;
      const becomes = async (isReady) => {
        while (!isOver() && !isReady()) await new Promise((resolve) => setTimeout(resolve, READY));
        return !isOver();
      };
      if (!(await becomes(() => sam3d.hasVolume()))) return;
      await sam3d.showSegmentation(series, this.info.initialSegs);
      if (!(await becomes(() => sam3d.hasLabelmap(series)))) return;
      this.series = series;
      const { info } = this;
      if (this.state.info !== info) await new Promise((resolve) => this.setState({ info, options: {}, isDataReady: true }, resolve));
      this.points()?.showSeries();
      await sam3d.openSavedLabel(this);
    }

    /* The tab Point Prompts; null until the panel has connected. */
    points() {
      return this.actions.pointprompts.current;
    }

    /* Throw unless a series is the one that is shown and that the tabs work on. */
    checkShown(series) {
      if (!this.series || sam3d.shownSeries() !== this.series) throw new Error("The series is not open yet. Try again in a moment.");
      if (series !== this.series) throw new Error("Another series is shown by now. Open the series again and repeat the step.");
    }

    /* The segments of the segmentation by label; upstream's currentSegmentsInfo fails on one that came from a DICOM SEG. */
    segments() {
      const current = services.segmentationService.getSegmentation(this.series)?.segments ?? {};
      const all = [...Object.values(this.state.info.initialSegs), ...Object.values(current).filter(Boolean)];
      return Object.fromEntries(all.map(({ label, segmentIndex }) => {
        return [label, { segmentIndex, color: this.state.info.initialSegs[segmentIndex]?.color ?? this.segmentColor(label) }];
      }));
    }

    /* Replace the masks of some segments by a new mask. Other segments do not change, also where the masks overlap.
       Replaces updateView, which clears others from Auto-Segmentation.
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

    /* The labelmap of the series in cornerstone. */
    labelmap() {
      this.checkShown(this.series);
      const { segmentationService } = services;
      if (!sam3d.hasLabelmap(this.series)) throw new Error("The segmentation of this series was removed. Reload the page.");
      if (sam3d.referencedSeries(this.series) !== this.series) throw new Error("The segmentation belongs to another series.");
      return segmentationService.getLabelmapVolume(this.series);
    }

    /* A copy of the voxels of the labelmap. */
    voxels() {
      return Uint8Array.from(this.labelmap().voxelManager.getCompleteScalarDataArray());
    }

    setVoxels(voxels) {
      this.labelmap().voxelManager.setCompleteScalarDataArray(voxels);
      const { SEGMENTATION_DATA_MODIFIED } = cornerstoneTools.Enums.Events;
      cornerstone.triggerEvent(cornerstone.eventTarget, SEGMENTATION_DATA_MODIFIED, { segmentationId: this.series });
    }

    selectSegment(label) {
      const index = this.segments()[label]?.segmentIndex;
      const { segmentationService } = services;
      if (index && segmentationService.getSegmentation(this.series)) segmentationService.setActiveSegment(this.series, index);
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

  /* Replace the component of the panel, which OHIF reads when it adds the panels of a mode. */
  sam3d.installPanel = (extensions) => {
    const entry = extensions.getModuleEntry(PANEL);
    if (!entry) sam3d.unfit(PANEL);
    if (entry.isSam3d) return;
    const Upstream = entry.component;
    entry.component = () => sam3d.withSubclass(Upstream(), makePanel);
    entry.isSam3d = true;
  };
})();
