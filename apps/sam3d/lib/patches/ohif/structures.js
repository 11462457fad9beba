/* The tabs that need no click: Auto-Segmentation and Class Prompts (components/actions/AutoSegmentation.tsx, ClassPrompts.tsx). */
(() => {
  const sam3d = (window.sam3d ??= {});
  const PROGRESS = "sam3d-progress";
  const SEGMENTING = "Segmenting…";
  const SECOND = 1000;
  const GROUPS = ["onOrgansClickBtn", "onLungsClickBtn", "onVascularClickBtn", "onBonesClickBtn", "onMusclesClickBtn"];

  const modelOf = (tab) => tab.state.currentModel ?? tab.getModels()[0];

  /* Ask for labels by their numbers, and paint each in its segment. Without any, the server says what to do. */
  function runLabels(tab, params, labels) {
    const model = modelOf(tab);
    const { panel, info } = tab.props;
    const segments = panel.segments();
    const pairs = labels.map((label) => [info.modelLabelToIdxMap[model][label], segments[label].segmentIndex]);
    const message = sam3d.makeElement(tab.template, "span", { className: PROGRESS }, SEGMENTING);
    const timer = setInterval(() => showProgress(tab, model), SECOND);
    return sam3d.segment(tab, "structures", { model, params, segmentOf: new Map(pairs), message }).finally(() => clearInterval(timer));
  }

  /* Write how far the server is into the notice that the segmentation goes on. */
  async function showProgress(tab, model) {
    const url = new URL("sam3d/progress", sam3d.server);
    url.searchParams.set("model", model);
    url.searchParams.set("image", tab.props.getActiveViewportInfo().displaySet.SeriesInstanceUID);
    const answer = await fetch(url);
    const { running, done, total } = answer.ok ? await answer.json() : {};
    const notice = document.querySelector(`.${PROGRESS}`);
    if (notice && running && total) notice.textContent = `${SEGMENTING} ${done} of ${total} parts of the series`;
  }

  /* Upstream paints the mask's values by position, so that a model that finds the second label is painted as the first. */
  sam3d.makeAutoSegmentation = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      sam3d.silence(this);
      sam3d.replace(this, { onSegmentation: () => this.run() });
    }

    render() {
      this.template = super.render();
      return this.template;
    }

    run() {
      const { info } = this.props;
      const model = modelOf(this);
      const label = info.data.models[model].unprompted_label;
      const params = label ? { label_prompt: [info.modelLabelToIdxMap[model][label]] } : {};
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

    run() {
      const indices = this.props.info.modelLabelToIdxMap[modelOf(this)];
      const ticked = Object.keys(indices).filter((label) => this.state.selectedOrgans[label]);
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
