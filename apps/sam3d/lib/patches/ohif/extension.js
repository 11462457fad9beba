/* An extension of OHIF, loaded by its app-config.js, that adds missing functions to the mode MONAI Label through OHIF's own
   interfaces. A comment at each part names the defect that it fixes. lib/patches/ohif.py serves this file together with the others of
   this folder, which replace the panel. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const MODE = "monai-label";
  const SEGMENTATION_PANEL = "@ohif/extension-cornerstone.panelModule.panelSegmentationWithTools";
  const SERVER = new URL("..", document.currentScript.src).href;

  let services, commands, extensions;
  let isSaving = false;
  sam3d.server = SERVER;

  /* The panel proposes port 8000 whatever the port is (SettingsTable.tsx). The cookie ends with the session. */
  document.cookie = `MONAILABEL_SERVER_URL=${escape(SERVER)}`;

  const inMode = () => location.pathname.split("/").includes(MODE);

  /* The mode prepares brushes and names the panel that has them and Export DICOM SEG, but shows neither (modes/monai-label).
     The panel is added below the mode's own panel: in a separate tab, each change of tabs would lose the connection and the
     clicks. */
  function addPanel() {
    const { panelService } = services;
    const style = document.createElement("style");
    style.textContent = `.monaiLabelPanel { height: auto !important; flex-shrink: 0 }
      div:has(> .monaiLabelPanel) { overflow: hidden auto }`;
    document.head.append(style);
    const add = panelService.addPanels;
    panelService.addPanels = function (position, panels, options) {
      const extend = inMode() && position === panelService.PanelPosition.Right;
      if (extend) sam3d.installPanel(extensions);
      return add.call(this, position, extend ? [[...panels, SEGMENTATION_PANEL]] : panels, options);
    };
  }

  function brush(id, icon, label, name) {
    const tools = [`Circular${name}`, `Sphere${name}`];
    return {
      id,
      icon,
      label,
      evaluate: { name: "evaluate.cornerstone.segmentation", toolNames: tools },
      options: [
        {
          ...{ name: "Radius (mm)", id: `${id}-radius`, type: "range", min: 0.5, max: 49.5, step: 0.5, value: 10 },
          commands: { commandName: "setBrushSize", commandOptions: { toolNames: tools } },
        },
        {
          ...{ name: "Shape", type: "radio", id: `${id}-mode`, value: tools[0], commands: "setToolActiveToolbar" },
          values: [{ value: tools[0], label: "Circle" }, { value: tools[1], label: "Sphere" }],
        },
      ],
    };
  }

  function addButtons() {
    const { toolbarService } = services;
    toolbarService.addButtons([
      {
        id: "BrushTools",
        uiType: "ohif.buttonGroup",
        props: {
          groupId: "BrushTools",
          items: [brush("Brush", "icon-tool-brush", "Brush", "Brush"), brush("Eraser", "icon-tool-eraser", "Eraser", "Eraser")],
        },
      },
      {
        id: "Shapes",
        uiType: "ohif.radioGroup",
        props: {
          ...{ id: "Shapes", icon: "icon-tool-shape", label: "Circle", commands: "setToolActiveToolbar" },
          evaluate: { name: "evaluate.cornerstone.segmentation", toolNames: ["CircleScissor"] },
        },
      },
      {
        id: "SaveLabel",
        uiType: "ohif.radioGroup",
        props: { icon: "icon-upload", label: "Save label", tooltip: "Save label", commands: "saveLabel", evaluate: "evaluate.action" },
      },
    ]);
    queueMicrotask(() => toolbarService.createButtonSection("primary", ["SaveLabel"]));
  }

  async function nrrd(volume, voxels) {
    const [i, j, k] = [0, 3, 6].map((at, axis) => volume.direction.slice(at, at + 3).map((part) => part * volume.spacing[axis]));
    const vector = (parts) => `(${Array.from(parts).join(",")})`;
    const header = [
      "NRRD0004", "type: uint8", "dimension: 3", "space: left-posterior-superior", `sizes: ${volume.dimensions.join(" ")}`,
      `space directions: ${[i, j, k].map(vector).join(" ")}`, "kinds: domain domain domain", "encoding: gzip",
      `space origin: ${vector(volume.origin)}`, "", "",
    ].join("\n");
    const packed = new Blob([voxels]).stream().pipeThrough(new CompressionStream("gzip"));
    return new Blob([header, await new Response(packed).blob()]);
  }

  /* The segmentation of the series that is shown, and the names of its segments. */
  function painted() {
    const { panel } = sam3d;
    if (!panel?.series) throw new Error("The panel is not connected to the server.");
    const [volume, voxels, found] = [panel.labelmap(), panel.voxels(), new Set(panel.voxels())];
    const segments = Object.values(services.segmentationService.getSegmentation(panel.series).segments).filter(Boolean);
    const info = segments.filter(({ segmentIndex }) => found.has(segmentIndex)).map(({ label, segmentIndex }) => ({ name: label, idx: segmentIndex }));
    return { series: panel.series, volume, voxels, info };
  }

  async function putLabel({ series, volume, voxels, info }) {
    const form = new FormData();
    form.append("params", JSON.stringify({ label_info: info, client_id: "ohif" }));
    form.append("label", await nrrd(volume, voxels), "label.nrrd");
    const url = new URL("datastore/label", SERVER);
    url.searchParams.set("image", series);
    await sam3d.request(url, { method: "PUT", body: form });
  }

  /* Say that there is nothing to save, until something is painted. */
  function reportUnpainted() {
    const { SEGMENTATION_DATA_MODIFIED } = cornerstoneTools.Enums.Events;
    const forget = () => {
      cornerstone.eventTarget.removeEventListener(SEGMENTATION_DATA_MODIFIED, forget);
      sam3d.notices.remove("unpainted");
    };
    cornerstone.eventTarget.addEventListener(SEGMENTATION_DATA_MODIFIED, forget);
    sam3d.notices.show("unpainted", "error", "Not saved. Nothing is painted: there is no label to save");
  }

  /* The client of the panel can save a label, but there is no button for it (services/MonaiLabelClient.js, save_label; issue 1805). */
  async function saveLabel() {
    if (isSaving) return;
    isSaving = true;
    sam3d.notices.remove("unpainted");
    sam3d.notices.show("save", "loading", "Saving…");
    try {
      const label = painted();
      if (label.info.length) {
        await putLabel(label);
        sam3d.notices.show("save", "success", `Saved as a label: ${label.info.map((each) => each.name).join(", ")}`, 5);
      } else {
        sam3d.notices.remove("save");
        reportUnpainted();
      }
    } catch (error) {
      sam3d.notices.show("save", "error", `Not saved. ${error.message}`);
    } finally {
      isSaving = false;
    }
  }

  /* The protocol of the mode shows the first series that it finds, even if the address names another. */
  function letAddressChooseSeries() {
    const { hangingProtocolService } = services;
    const protocol = hangingProtocolService.getProtocolById("mpr");
    const rules = protocol?.displaySetSelectors?.activeDisplaySet?.seriesMatchingRules;
    if (!rules) sam3d.unfit("the hanging protocol mpr");
    if (rules.some(({ attribute }) => attribute === "isDisplaySetFromUrl")) return;
    rules.push({ attribute: "isDisplaySetFromUrl", weight: 10, constraint: { equals: true } });
    hangingProtocolService.addProtocol("mpr", protocol);
  }

  /* Export DICOM SEG is called without a data source, throws, and closes the whole view
     (extension-cornerstone-dicom-seg, storeSegmentation). */
  function letExportKnowItsServer() {
    const command = commands.getCommand("storeSegmentation", "SEGMENTATION");
    const store = command.original ?? command.commandFn;
    command.original = store;
    command.commandFn = async (options) => {
      try {
        const [active] = extensions.getActiveDataSource();
        const report = await store({ ...options, dataSource: options.dataSource ?? active });
        if (report) sam3d.notices.show("export", "success", `Exported: ${report.SeriesDescription}`, 5);
        return report;
      } catch (error) {
        sam3d.notices.show("export", "error", `Not exported. ${error.message}`);
      }
    };
  }

  window.config.extensions.push({
    id: "sam3d",
    preRegistration({ servicesManager, commandsManager, extensionManager }) {
      services = servicesManager.services;
      commands = commandsManager;
      extensions = extensionManager;
      addPanel();
      sam3d.installReopening(services, inMode);
    },
    onModeEnter() {
      if (!inMode()) return;
      addButtons();
      letAddressChooseSeries();
      letExportKnowItsServer();
    },
    getCommandsModule: () => ({ definitions: { saveLabel: { commandFn: saveLabel } }, defaultContext: "DEFAULT" }),
  });
})();
