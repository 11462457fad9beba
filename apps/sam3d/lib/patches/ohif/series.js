/* The series that is shown. Each has its own segmentation, whose segmentationId is the SeriesInstanceUID; upstream has one
   segmentation for all series, that of the series opened first. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const own = new Set();

  const displaySetOf = (uid) => (uid ? services.displaySetService.getDisplaySetByUID(uid) : undefined);

  /* The display set in a viewport; without its id, in the active one. */
  function shownDisplaySet(viewportId) {
    const { viewports, activeViewportId } = services.viewportGridService.getState();
    return displaySetOf(viewports.get(viewportId ?? activeViewportId)?.displaySetInstanceUIDs?.[0]);
  }

  const shownSeries = (viewportId) => shownDisplaySet(viewportId)?.SeriesInstanceUID ?? null;

  /* The series on whose grid a segmentation was made. */
  function referencedSeries(segmentationId) {
    const { referencedVolumeId } = services.segmentationService.getSegmentation(segmentationId).representationData.Labelmap;
    return displaySetOf(referencedVolumeId.split(":").at(-1))?.SeriesInstanceUID ?? null;
  }

  /* Whether the active viewport holds the volume of the shown series, and not that of the previous one. */
  function hasVolume() {
    const { activeViewportId } = services.viewportGridService.getState();
    const viewport = services.cornerstoneViewportService.getCornerstoneViewport(activeViewportId);
    const uid = shownDisplaySet()?.displaySetInstanceUID;
    return Boolean(uid && viewport?.getActors?.().length && viewport.getVolumeId?.()?.endsWith(uid));
  }

  /* Whether a series has a segmentation whose voxels can be painted; OHIF makes them some time after the segmentation. */
  function hasLabelmap(series) {
    const { segmentationService } = services;
    return Boolean(segmentationService.getSegmentation(series) && segmentationService.getLabelmapVolume(series));
  }

  /* Show the segmentation of the series in the active viewport, and make it there if there is none. */
  async function showSegmentation(series, segments) {
    const { segmentationService } = services;
    const { activeViewportId: viewportId } = services.viewportGridService.getState();
    const type = cornerstoneTools.Enums.SegmentationRepresentations.Labelmap;
    own.add(series);
    if (segmentationService.getSegmentation(series)) {
      await segmentationService.addSegmentationRepresentation(viewportId, { segmentationId: series, type });
    } else {
      const segmentation = { segmentationId: series, representation: { type }, config: { label: "Segmentations", segments } };
      await commandsManager.runCommand("loadSegmentationsForViewport", { segmentations: [segmentation] });
    }
    if (shownSeries(viewportId) !== series) return;
    for (const { segmentIndex, color } of Object.values(segments)) {
      cornerstoneTools.segmentation.config.color.setSegmentIndexColor(viewportId, series, segmentIndex, color);
    }
    segmentationService.setActiveSegmentation(viewportId, series);
  }

  /* OHIF shows a segmentation in all viewports that it synchronizes, also in those of another series: the brush would paint it. */
  function keepApart() {
    const { segmentationService } = services;
    const add = segmentationService.addSegmentationRepresentation;
    if (add.isSam3d) return;
    segmentationService.addSegmentationRepresentation = async function (viewportId, options) {
      const isForeign = own.has(options.segmentationId) && ![options.segmentationId, null].includes(shownSeries(viewportId));
      return isForeign ? undefined : add.call(this, viewportId, options);
    };
    segmentationService.addSegmentationRepresentation.isSam3d = true;
  }

  /* Call back when another series may be shown; the return value ends that. */
  function watchSeries(onChange) {
    keepApart();
    const { viewportGridService: grid } = services;
    const events = [grid.EVENTS.ACTIVE_VIEWPORT_ID_CHANGED, grid.EVENTS.GRID_STATE_CHANGED, grid.EVENTS.VIEWPORTS_READY];
    const subscriptions = events.map((event) => grid.subscribe(event, onChange));
    return () => subscriptions.forEach(({ unsubscribe }) => unsubscribe());
  }

  Object.assign(sam3d, { shownSeries, referencedSeries, hasVolume, hasLabelmap, showSegmentation, watchSeries });
})();
