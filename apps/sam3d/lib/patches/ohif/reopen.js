/* Show a saved label when its series is opened, and when its DICOM SEG is opened from the list of series.
   OHIF itself would show a DICOM SEG in a type of viewport that the mode MONAI Label does not prepare: it stays black
   (extension-cornerstone-dicom-seg, OHIFCornerstoneSEGViewport), and it is not the segmentation of the panel. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const TOPIC = "reopen";
  const opened = new Set(); // series whose saved label was painted, or that had none

  /* Names by value, from the keys that name the segments in an NRRD header. */
  function segmentNames(header) {
    const names = new Map();
    for (const [, number, name] of header.matchAll(/^Segment(\d+)_Name:=(.*)$/gm)) {
      const [, value] = header.match(new RegExp(`^Segment${number}_LabelValue:=(\\d+)$`, "m"));
      names.set(Number(value), JSON.parse(`"${name}"`));
    }
    return names;
  }

  /* The saved label of a series, or one of its DICOM SEGs; null when it has none. */
  async function read(image, series) {
    const url = new URL("datastore/segmentation", sam3d.server);
    url.search = new URLSearchParams(series ? { image, series } : { image });
    const answer = await sam3d.request(url);
    if (answer.status === 204) return null;
    const { header, voxels } = sam3d.readNrrd(await answer.arrayBuffer());
    return { voxels, names: segmentNames(header) };
  }

  /* Index of the segment by value, for names by value; a name that the panel does not know becomes a segment. */
  function segmentsOf(panel, names) {
    const { segmentationService } = services;
    const known = () => Object.values(segmentationService.getSegmentation(panel.series).segments).filter(Boolean);
    const active = known().find((segment) => segment.active);
    for (const name of names.values()) {
      if (known().some(({ label }) => label === name)) continue;
      segmentationService.addSegment(panel.series, { label: name, color: panel.segmentColor(name) });
      if (active) segmentationService.setActiveSegment(panel.series, active.segmentIndex);
    }
    const indices = new Map(known().map(({ label, segmentIndex }) => [label, segmentIndex]));
    return new Map([...names].map(([value, name]) => [value, indices.get(name)]));
  }

  /* Replace the segmentation by a label, and clear the points, which belong to the previous segmentation. */
  function paint(panel, { voxels, names }) {
    if (voxels.length !== panel.voxels().length) throw new Error("It was drawn on another grid than the one shown");
    const segmentOf = segmentsOf(panel, names);
    panel.setVoxels(voxels.map((value) => segmentOf.get(value) ?? 0));
    panel.points()?.clearAll();
    const listed = [...names.values()].join(", ") || "nothing";
    const message = `The saved label is open: ${listed}. Brush and eraser change it, a click replaces its segment.`;
    sam3d.notices.show(TOPIC, "success", message);
  }

  /* Paint the saved label of the series that a panel shows, unless the user has painted meanwhile; once for each series. */
  sam3d.openSavedLabel = async (panel) => {
    const { series } = panel;
    if (opened.has(series)) return;
    sam3d.notices.working(TOPIC, "Opening the saved label…");
    try {
      const saved = await read(series);
      if (panel.isGone || panel.series !== series) return;
      if (saved && !panel.voxels().some(Boolean)) paint(panel, saved);
      else sam3d.notices.remove(TOPIC);
      opened.add(series);
    } catch (error) {
      if (panel.series === series) sam3d.notices.show(TOPIC, "error", `The saved label is not shown. ${error.message}`);
    }
  };

  async function openSeg({ SeriesInstanceUID, referencedSeriesInstanceUID: series }) {
    const { panel } = sam3d;
    sam3d.notices.working(TOPIC, "Opening the segmentation…");
    try {
      if (sam3d.shownSeries() !== series) throw new Error("It belongs to another series: open that series first");
      const saved = await read(series, SeriesInstanceUID);
      panel.checkShown(series);
      const question = "Replace what is painted by the segmentation that you are opening?";
      if (panel.voxels().some(Boolean) && !window.confirm(question)) sam3d.notices.remove(TOPIC);
      else paint(panel, saved);
    } catch (error) {
      sam3d.notices.show(TOPIC, "error", `The segmentation is not shown. ${error.message}`);
    }
  }

  /* Paint a DICOM SEG that was chosen for a viewport, in the mode MONAI Label. */
  sam3d.installReopening = ({ viewportGridService, displaySetService }, inMode) => {
    const show = viewportGridService.setDisplaySetsForViewports;
    viewportGridService.setDisplaySetsForViewports = async function (viewports) {
      const chosen = viewports.flatMap((each) => each.displaySetInstanceUIDs ?? []);
      const seg = chosen.map((uid) => displaySetService.getDisplaySetByUID(uid)).find((each) => each?.Modality === "SEG");
      return inMode() && seg ? openSeg(seg) : show.call(this, viewports);
    };
  };
})();
