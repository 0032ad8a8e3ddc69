// Swaps the fragments of a live page as the server sends them. Without this script every page is whole and still.
// What is not a fragment (cells of the map, series of charts) is handed on as an event `live:NAME` of <main>.
"use strict";
(() => {
  const main = document.querySelector("main[data-live]");
  const bar = document.querySelector(".live");
  if (!main || !bar || !window.EventSource) return;
  const status = bar.querySelector("[role=status]");
  const button = bar.querySelector("button");
  let source = null;
  let paused = false;
  let over = false;

  const show = (state) => {
    bar.classList.toggle("off", state === "off" || state === "over");
    bar.classList.toggle("lost", state === "lost");
    // Said once per change, so that a screen reader is not kept busy.
    if (status.textContent !== status.dataset[state]) status.textContent = status.dataset[state];
    button.textContent = paused ? button.dataset.resume : button.dataset.pause;
    button.hidden = over;
  };

  const held = new Map();
  const swap = (id, html) => {
    const old = document.getElementById(id);
    held.delete(id);
    if (!old) return;
    const opened = [...old.querySelectorAll("details[open][id]")].map((each) => each.id);
    const focused = old.contains(document.activeElement) ? document.activeElement : null;
    // Whoever is marking text in here to copy it is not disturbed until done.
    const selection = window.getSelection();
    if (selection && !selection.isCollapsed && old.contains(selection.anchorNode)) {
      held.set(id, html);
      return;
    }
    const lefts = [...old.querySelectorAll(".scroll")].map((each) => each.scrollLeft);
    const href = focused && focused.getAttribute("href");
    old.innerHTML = html;
    for (const each of opened) document.getElementById(each)?.setAttribute("open", "");
    old.querySelectorAll(".scroll").forEach((each, number) => { each.scrollLeft = lefts[number] || 0; });
    if (href) [...old.querySelectorAll("a")].find((each) => each.getAttribute("href") === href)?.focus();
  };

  const stop = () => { source?.close(); source = null; };
  const start = () => {
    if (source || paused || over || document.hidden) return;
    source = new EventSource(main.dataset.live);
    source.onopen = () => show("on");
    source.onmessage = (event) => {
      for (const [id, html] of Object.entries(JSON.parse(event.data))) swap(id, html);
    };
    for (const name of ["cells", "plan", "away", "series"]) {
      source.addEventListener(name, (event) => main.dispatchEvent(new CustomEvent(`live:${name}`, { detail: event.data })));
    }
    source.addEventListener("over", () => { over = true; stop(); show("over"); });
    source.onerror = () => {
      show("lost");
      // A browser gives up after an answer that is no stream; the server may only be restarting.
      if (source && source.readyState === EventSource.CLOSED) { stop(); setTimeout(start, 3000); }
    };
  };

  document.addEventListener("selectionchange", () => {
    if (held.size && window.getSelection()?.isCollapsed) for (const [id, html] of [...held]) swap(id, html);
  });
  button.addEventListener("click", () => {
    paused = !paused;
    if (paused) { stop(); show("off"); } else start();
  });
  document.addEventListener("visibilitychange", () => { if (document.hidden) stop(); else start(); });
  main.addEventListener("live:again", () => { stop(); start(); }); // data-live names another stream now
  bar.hidden = false;
  show("on");
  start();
})();
