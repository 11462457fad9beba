/* The tab Active Learning (components/actions/ActiveLearning.tsx): the next image to label, and the result of a training. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const forms = new Map();
  const OVER = ["DONE", "ERROR", "STOPPED"];
  const SECOND = 1000;
  const WATCH_RUNNING = 3 * SECOND;
  const WATCH_IDLE = 10 * SECOND;

  function result({ status, version, passes, reason, error }) {
    if (status === "STOPPED") return ["info", "The training was stopped."];
    if (status === "ERROR" || error) return ["error", `The training failed: ${error ?? "see the server's log"}.`];
    if (passes) return ["success", `The training is done. Version ${version} is in use from now on: ${reason}.`];
    return ["warning", `The training is done. Version ${version} is not in use: ${reason}.`];
  }

  /* The form for the next sample, whose OK opens its series; upstream's opens any series of its study. */
  function withSeries(Upstream) {
    forms.set(Upstream, forms.get(Upstream) ?? class extends Upstream {
      constructor(props) {
        super(props);
        sam3d.replace(this, { onSubmit: () => this.open() });
      }

      open() {
        const { StudyInstanceUID, SeriesInstanceUID } = this.props.info;
        const isUnsaved = sam3d.panel?.series && sam3d.panel.voxels().some(Boolean);
        const question = "Open the next series? What is painted and not saved is lost.";
        if (isUnsaved && !window.confirm(question)) return;
        const url = new URL(location.href);
        url.search = new URLSearchParams({ StudyInstanceUIDs: StudyInstanceUID, initialSeriesInstanceUID: SeriesInstanceUID });
        location.href = url.href;
      }
    });
    return forms.get(Upstream);
  }

  sam3d.makeActiveLearning = (Upstream) => class extends Upstream {
    constructor(props) {
      super(props);
      sam3d.silence(this);
      const { onClickNextSample } = this;
      sam3d.replace(this, {
        onClickNextSample: () => this.nextSample(onClickNextSample),
        onClickUpdateModel: () => this.startOrStop(),
      });
    }

    componentDidMount() {
      this.watch();
    }

    componentWillUnmount() {
      clearTimeout(this.timer);
      this.isGone = true;
    }

    /* Upstream opens a form without a series when there is none left. */
    async nextSample(showForm) {
      const { strategy } = this.state;
      const params = this.props.onOptionsConfig()?.activelearning?.[strategy] ?? {};
      const answer = await this.props.client().next_sample(strategy, params);
      if (answer.status !== 200) {
        sam3d.notices.show("sample", "error", `There is no next series. ${sam3d.reason(answer)}`);
      } else if (!answer.data?.StudyInstanceUID) {
        sam3d.notices.show("sample", "info", "Every series has a label: nothing is left to label.");
      } else {
        sam3d.notices.remove("sample");
        // Only upstream's handler knows the form, so it gets the answer that has arrived.
        const { props, uiModelService } = this;
        this.props = { ...props, client: () => ({ next_sample: async () => answer }) };
        const show = (modal) => uiModelService.show({ ...modal, content: withSeries(modal.content) });
        this.uiModelService = { ...uiModelService, show };
        const shown = showForm();
        this.props = props;
        await shown;
        this.uiModelService = uiModelService;
      }
    }

    async startOrStop() {
      const client = this.props.client();
      const { training } = this.state;
      const answer = training ? await client.stop_train() : await client.run_train(this.props.onOptionsConfig()?.train ?? {});
      if (answer.status !== 200) {
        const what = training ? "stopped" : "started";
        sam3d.notices.show("training", "error", `The training was not ${what}. ${sam3d.reason(answer)}`);
      } else if (!training) {
        sam3d.notices.show("training", "info", "The training has started. Go on working: its end is announced here.");
      }
      this.watch();
    }

    /* Poll the latest training, and announce its end if it was seen running. */
    async watch() {
      clearTimeout(this.timer);
      let latest = this.latest;
      try {
        const answer = await fetch(new URL("sam3d/training", sam3d.server));
        if (answer.ok) latest = await answer.json();
      } catch {
        // The server is restarting; the next request will succeed.
      }
      if (this.isGone || !latest) return this.watchLater(WATCH_IDLE);
      const isRunning = Boolean(latest.status) && !OVER.includes(latest.status);
      const before = this.latest;
      this.latest = latest;
      const isNews = before && (before.id !== latest.id || before.status !== latest.status);
      if (isNews && OVER.includes(latest.status)) this.announce(latest);
      this.setState({ training: isRunning });
      return this.watchLater(isRunning ? WATCH_RUNNING : WATCH_IDLE);
    }

    watchLater(milliseconds) {
      clearTimeout(this.timer);
      if (!this.isGone) this.timer = setTimeout(() => this.watch(), milliseconds);
    }

    announce(latest) {
      const [type, text] = result(latest);
      const link = sam3d.makeElement(this.template, "a", {
        ...{ key: "link", href: new URL("sam3d/#/learn", sam3d.server).href, target: "_blank", rel: "noopener" },
        ...{ style: { textDecoration: "underline" }, onClick: () => sam3d.notices.remove("training") },
      }, "Show the versions");
      const message = sam3d.makeElement(this.template, "span", {}, `${text} `, link);
      sam3d.notices.show("training", type, message, Infinity);
    }

    /* The progress that upstream shows. Upstream takes epoch 0 for the first, and only reads GET /info/ when it connects. */
    trainStats() {
      const { epoch, total_epochs: total, best_metric: best } = this.latest ?? {};
      return { sam3d: this.state.training && total ? { epoch: String(epoch), total_epochs: total, best_metric: best } : { total_time: 1, best_metric: best } };
    }

    render() {
      const { props } = this;
      const { info } = props;
      this.props = { ...props, info: { ...info, data: { ...info.data, train_stats: this.trainStats() } } };
      this.template = super.render();
      this.props = props;
      return this.template;
    }
  };
})();
