/* The tab Point Prompts (components/actions/PointPrompts.tsx): a click runs the model at once, and "background" means outside
   the segment that was chosen last. Upstream keeps one list of outside clicks for all segments, and waits for its button. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const PROBE = "ProbeMONAILabel";
  const BACKGROUND = "background";
  const OUTSIDE = [255, 255, 255];
  const KEY = "sam3d.runOnClick";
  const TOPIC = "points";

  const manager = () => cornerstoneTools.annotation.state.getAnnotationManager();

  sam3d.makePointPrompts = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      sam3d.silence(this);
      const { onEnterActionTab } = this;
      sam3d.replace(this, {
        onEnterActionTab: () => this.enter(onEnterActionTab),
        onLeaveActionTab: () => this.leave(),
        onSelectModel: (model) => this.setState({ currentModel: model }),
        onChangeLabel: (label) => this.choose(label),
        onRunInference: () => this.run(),
        initPoints: () => {},
        clearPoints: () => this.clear([this.segment]),
        clearAllPoints: () => this.clearAll(),
        segmentInfo: () => ({ ...this.props.panel.segments(), [BACKGROUND]: { color: OUTSIDE } }),
      });
      this.series = new Map(); // SeriesInstanceUID -> what `ofSeries` returns
      this.enter_ = onEnterActionTab;
      this.isEntered = false;
      [this.segment] = this.labels();
      this.state = { ...this.state, currentLabel: this.segment, runsOnClick: localStorage.getItem(KEY) !== "false" };
      this.onAdded = ({ detail }) => this.add(detail.annotation, sam3d.shownSeries(detail.viewportId));
      this.onCompleted = ({ detail }) => detail.annotation.metadata.toolName === PROBE && this.runIfWanted();
      this.onReleased = () => setTimeout(() => this.runIfWanted()); // a point was dragged: the tool has no event for it
    }

    labels() {
      return this.getModelLabels(this.getSelectedModel()).filter((label) => label !== BACKGROUND);
    }

    componentDidMount() {
      const { ANNOTATION_ADDED, ANNOTATION_COMPLETED } = cornerstoneTools.Enums.Events;
      cornerstone.eventTarget.addEventListener(ANNOTATION_ADDED, this.onAdded);
      cornerstone.eventTarget.addEventListener(ANNOTATION_COMPLETED, this.onCompleted);
      document.addEventListener("mouseup", this.onReleased);
      this.props.panel.selectSegment(this.segment);
    }

    componentWillUnmount() {
      const { ANNOTATION_ADDED, ANNOTATION_COMPLETED } = cornerstoneTools.Enums.Events;
      cornerstone.eventTarget.removeEventListener(ANNOTATION_ADDED, this.onAdded);
      cornerstone.eventTarget.removeEventListener(ANNOTATION_COMPLETED, this.onCompleted);
      document.removeEventListener("mouseup", this.onReleased);
    }

    enter(activateProbe) {
      activateProbe();
      this.isEntered = true;
      this.showPoints(this.segment);
    }

    /* Upstream runs a command that does not exist (setToolDisable), and clicks went on placing points. */
    leave() {
      this.isEntered = false;
      this.showPoints(null);
      this.props.commandsManager.runCommand("setToolActive", { toolName: "WindowLevel" });
    }

    choose(label) {
      if (label !== BACKGROUND && label !== this.segment) {
        this.segment = label;
        if (this.isEntered) this.showPoints(label);
        sam3d.notices.remove(TOPIC);
      }
      this.props.panel.selectSegment(this.segment);
      if (this.isEntered) this.enter_(); // a brush may be the active tool
      this.setState({ currentLabel: label });
    }

    /* The clicks of a series, by segment: its points in the order of the clicks, [{ annotation, isInside }]; the number of its
       latest request or clearing; and the signature of the points of its latest request. */
    ofSeries(series = this.props.panel.series) {
      if (!this.series.has(series)) this.series.set(series, { points: new Map(), turns: new Map(), sent: new Map() });
      return this.series.get(series);
    }

    pointsOf(segment, series) {
      const { points } = this.ofSeries(series);
      if (!points.has(segment)) points.set(segment, []);
      return points.get(segment);
    }

    /* Show the points of another series, and no others. */
    showSeries() {
      this.showPoints(this.isEntered ? this.segment : null);
      this.props.panel.selectSegment(this.segment);
    }

    add(annotation, series) {
      if (annotation.metadata.toolName !== PROBE) return;
      const isInside = this.state.currentLabel !== BACKGROUND;
      this.pointsOf(this.segment, series).push({ annotation, isInside });
      this.color(annotation, isInside ? this.segmentInfo()[this.segment].color : OUTSIDE);
    }

    color(annotation, [red, green, blue]) {
      const color = `rgb(${red}, ${green}, ${blue})`;
      const styles = { color, colorHighlighted: color, colorSelected: color };
      cornerstoneTools.annotation.config.style.setAnnotationStyles(annotation.annotationUID, styles);
    }

    /* Show the points of one segment on the series that is shown, inside and outside, and no others. */
    showPoints(segment) {
      const wanted = this.pointsOf(segment);
      for (const points of [...this.series.values()].flatMap((each) => [...each.points.values()])) {
        for (const { annotation } of points) {
          const isShown = Boolean(manager().getAnnotation(annotation.annotationUID));
          if (points === wanted && !isShown) manager().addAnnotation(annotation);
          if (points !== wanted && isShown) manager().removeAnnotation(annotation.annotationUID);
        }
      }
      this.draw();
    }

    clearAll() {
      this.clear([...this.ofSeries().points.keys()]);
    }

    clear(segments) {
      const { points, turns, sent } = this.ofSeries();
      for (const segment of segments) {
        for (const { annotation } of this.pointsOf(segment)) manager().removeAnnotation(annotation.annotationUID);
        points.delete(segment);
        sent.delete(segment);
        turns.set(segment, (turns.get(segment) ?? 0) + 1); // pending requests belong to the cleared points
      }
      sam3d.notices.remove(TOPIC);
      this.draw();
    }

    draw() {
      this.props.servicesManager.services.cornerstoneViewportService.getRenderingEngine()?.render();
    }

    /* The points of the chosen segment, without those that a tool has removed. */
    shownPoints() {
      return this.pointsOf(this.segment).filter(({ annotation }) => manager().getAnnotation(annotation.annotationUID));
    }

    /* The same in voxels [i, j, k] of the series. */
    clicks() {
      const { viewport } = this.props.getActiveViewportInfo();
      const { cornerstoneViewportService } = this.props.servicesManager.services;
      const { imageData } = cornerstoneViewportService.getViewportInfo(viewport.viewportId).viewportData.data[0].volume;
      const voxel = ({ annotation }) => Array.from(imageData.worldToIndex(annotation.data.handles.points[0]), Math.round);
      const points = this.shownPoints();
      return {
        foreground: points.filter(({ isInside }) => isInside).map(voxel),
        background: points.filter(({ isInside }) => !isInside).map(voxel),
      };
    }

    /* Identifies a state of the points. */
    signature() {
      return JSON.stringify(this.shownPoints().map(({ annotation, isInside }) => [annotation.data.handles.points[0], isInside]));
    }

    runIfWanted() {
      if (!this.isEntered || !this.state.runsOnClick || !this.shownPoints().length) return;
      if (this.signature() !== this.ofSeries().sent.get(this.segment)) this.run();
    }

    /* Replaces onRunInference. The mask of an outdated request is not painted. */
    run() {
      const { segment } = this;
      const { turns, sent } = this.ofSeries();
      const turn = (turns.get(segment) ?? 0) + 1;
      turns.set(segment, turn);
      sent.set(segment, this.signature());
      const clicks = this.clicks();
      return sam3d.segment(this, TOPIC, {
        ...{ model: this.getSelectedModel(), params: { ...clicks, label: segment }, message: `Segmenting ${segment}…` },
        segmentOf: new Map([[1, this.props.panel.segments()[segment].segmentIndex]]),
        isOvertaken: () => turns.get(segment) !== turn,
        failed: (answer) => (clicks.foreground.length ? sam3d.reason(answer) : "Place a point inside the lesion first."),
      });
    }

    switchRunsOnClick(isOn) {
      localStorage.setItem(KEY, String(isOn));
      this.setState({ runsOnClick: isOn });
    }

    render() {
      const place = this.state.currentLabel === BACKGROUND ? "outside" : "inside";
      const texts = new Map([
        ["Select an anatomy from the segments menu below.", () => `A click marks what is ${place} ${this.segment}.`],
        ["To guide the inference, add foreground clicks:", (element) => this.switch(element)],
        ["Available Organ(s):", () => "Segments:"],
      ]);
      const replaced = new Set();
      const change = (element) => {
        const text = element.type === "p" && texts.get(element.props.children);
        if (!text) return element;
        replaced.add(text);
        return { ...element, props: { ...element.props, children: text(element) } };
      };
      const tree = sam3d.mapElements(super.render(), change);
      if (replaced.size !== texts.size) sam3d.unfit("a text of Point Prompts");
      return tree;
    }

    switch(template) {
      const box = sam3d.makeElement(template, "input", {
        ...{ type: "checkbox", id: "sam3d-run-on-click", checked: this.state.runsOnClick },
        onChange: ({ target }) => this.switchRunsOnClick(target.checked),
      });
      return sam3d.makeElement(template, "label", { key: "switch" }, box, " Run at each click");
    }
  };
})();
