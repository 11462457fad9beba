/* Notices at the lower right, one for each topic: a new one replaces the previous one, and it is removed with its cause. */
(() => {
  const sam3d = (window.sam3d ??= {});
  const TITLE = "SAM3D";
  const SECOND = 1000;
  const LASTING = ["error", "warning", "loading"];
  const shown = new Map();
  const delayed = new Map();

  /* Notices without a link let clicks through to the buttons that they cover. */
  const style = document.createElement("style");
  style.textContent = ["success", "loading"]
    .map((type) => `[data-sonner-toast][data-type=${type}]:not(:has(a)) { pointer-events: none !important }`)
    .join("\n");
  document.head.append(style);

  const service = () => window.services.uiNotificationService;

  /* Show a notice until `remove` is called or its time is over. Errors have no time limit: they stay until their cause is gone. */
  function show(topic, type, message, seconds = LASTING.includes(type) ? Infinity : 10) {
    remove(topic);
    const id = service().show({ title: TITLE, message, type, duration: seconds * SECOND });
    shown.set(topic, { id, message });
  }

  /* Show that an operation is running if it takes longer than `after` seconds; its end shows or removes the same topic. */
  function working(topic, message, after = 1) {
    remove(topic);
    delayed.set(topic, setTimeout(() => show(topic, "loading", message), after * SECOND));
  }

  function remove(topic) {
    clearTimeout(delayed.get(topic));
    delayed.delete(topic);
    const notice = shown.get(topic);
    shown.delete(topic);
    // Sonner adds a toast in a timer, so removing it has to wait for that timer.
    if (notice) setTimeout(() => service().hide(notice.id));
  }

  /* A notice without a time limit may cover other elements: a click hides it. */
  document.addEventListener("click", ({ target }) => {
    const text = target.closest?.("[data-sonner-toast]")?.querySelector("[data-description]")?.textContent;
    for (const [topic, { message }] of [...shown]) if (message === text) remove(topic);
  });

  sam3d.notices = { show, working, remove };
})();
