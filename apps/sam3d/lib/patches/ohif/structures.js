/* The tabs that need no click: Auto-Segmentation and Class Prompts (components/actions/AutoSegmentation.tsx, ClassPrompts.tsx). */
(() => {
  const sam3d = (window.sam3d ??= {});
  const TOPIC = "structures";
  const PROGRESS = "sam3d-progress";
  const SEGMENTING = "Segmenting…";
  const UPSTREAM_TEXT = "Experience fully automated segmentation";
  const SECOND = 1000;
  const GROUPS = ["onOrgansClickBtn", "onLungsClickBtn", "onVascularClickBtn", "onBonesClickBtn", "onMusclesClickBtn"];

  const modelOf = (tab) => tab.state.currentModel ?? tab.getModels()[0];

  /* Ask for labels by their numbers, and paint each in its segment. Without any, the server says what to do. */
  async function runLabels(tab, params, labels) {
    const model = modelOf(tab);
    const { panel, info } = tab.props;
    const segments = panel.segments();
    const pairs = labels.map((label) => [info.modelLabelToIdxMap[model][label], segments[label].segmentIndex]);
    const message = sam3d.makeElement(tab.template, "span", { className: PROGRESS }, SEGMENTING);
    const asksToReplace = `Replace what is painted as ${labels.join(", ")} by the mask that was found?`;
    const timer = setInterval(() => showProgress(model, panel.series), SECOND);
    tab.isRunning = true;
    await sam3d.segment(tab, TOPIC, { model, params, segmentOf: new Map(pairs), message, asksToReplace });
    tab.isRunning = false;
    clearInterval(timer);
  }

  /* Write how far the server is into the notice that the segmentation goes on. */
  async function showProgress(model, series) {
    const url = new URL("sam3d/progress", sam3d.server);
    url.search = new URLSearchParams({ model, image: series });
    try {
      const { running, done, total } = await (await sam3d.request(url)).json();
      const notice = document.querySelector(`.${PROGRESS}`);
      if (notice && running && total) notice.textContent = `${SEGMENTING} ${done} of ${total} parts of the series`;
    } catch {
      // The notice stays as it is; the request for the mask reports what is wrong.
    }
  }

  /* Upstream paints the mask's values by position, so that a model that finds the second label is painted as the first. */
  sam3d.makeAutoSegmentation = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      sam3d.silence(this);
      sam3d.replace(this, { onSegmentation: () => this.run() });
    }

    /* The label that the chosen model finds; null when its weights need clicks. */
    found() {
      return this.props.info.data.models[modelOf(this)]?.unprompted_label ?? null;
    }

    render() {
      this.template = super.render();
      const label = this.found();
      const text = label ? `Finds ${label} without a click.` : "The active weights need clicks: use Point Prompts.";
      let isReplaced = false;
      const tree = sam3d.mapElements(this.template, (element) => {
        if (element.type !== "p" || !String(element.props.children[0]).startsWith(UPSTREAM_TEXT)) return element;
        isReplaced = true;
        return { ...element, props: { ...element.props, children: text } };
      });
      if (!isReplaced) sam3d.unfit("the text of AutoSegmentation");
      return tree;
    }

    run() {
      const label = this.found();
      const params = label ? { label_prompt: [this.props.info.modelLabelToIdxMap[modelOf(this)][label]] } : {};
      return runLabels(this, params, label ? [label] : []);
    }
  };

  sam3d.makeClassPrompts = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      sam3d.silence(this);
      sam3d.replace(this, {
        onRunInference: () => this.run(),
        segmentInfo: () => this.props.panel.segments(),
      });
    }

    ticked() {
      return Object.keys(this.props.info.modelLabelToIdxMap[modelOf(this)] ?? {}).filter((label) => this.state.selectedOrgans[label]);
    }

    /* What a notice says of the ticks is over with the next one. */
    componentDidUpdate() {
      const ticks = String(this.ticked());
      if (ticks !== this.ticks && this.ticks !== undefined && !this.isRunning) sam3d.notices.remove(TOPIC);
      this.ticks = ticks;
    }

    run() {
      const indices = this.props.info.modelLabelToIdxMap[modelOf(this)];
      const ticked = this.ticked();
      this.ticks = String(ticked);
      return runLabels(this, { label_prompt: ticked.map((label) => indices[label]) }, ticked);
    }

    /* The handlers of the buttons whose group has a label of the model. Each handler names its group to updateOrganSelection. */
    usableGroups() {
      const known = this.props.info.modelLabelNames[modelOf(this)] ?? [];
      const { updateOrganSelection } = this;
      const usable = new Set();
      try {
        for (const name of GROUPS) {
          const group = [];
          sam3d.replace(this, { updateOrganSelection: (labels) => group.push(...labels) });
          if (typeof this[name] !== "function") sam3d.unfit(`ClassPrompts.${name}`);
          this[name]();
          if (group.some((label) => known.includes(label))) usable.add(this[name]);
        }
      } finally {
        this.updateOrganSelection = updateOrganSelection;
      }
      return usable;
    }

    render() {
      const usable = this.usableGroups();
      this.template = super.render();
      return sam3d.mapElements(this.template, (element) =>
        element.props.className === "tmpActionButton" && !usable.has(element.props.onClick) ? null : element,
      );
    }
  };
})();
