// The map of the fleet: one cell an accelerator, by site, rack and node. The table under it says the same without script.
"use strict";
(() => {
  const box = document.getElementById("map");
  if (!box) return;
  const main = document.querySelector("main");
  const words = JSON.parse(box.dataset.words);
  const canvas = box.querySelector("canvas");
  const legend = box.querySelector(".map-legend");
  const tip = box.querySelector(".tip");
  const spoken = box.querySelector("[role=status]");
  const number = (value, digits) => new Intl.NumberFormat(words.lang, { maximumFractionDigits: digits }).format(value);
  const STATE = 15, STALE = 8, UNKNOWN_PATTERN = "unknown";
  let aspect = box.dataset.aspect;
  let plan = null;      // as /fleet/plan tells it
  let numbers = null;   // Uint16, one a cell
  let codes = null;     // Uint8: why there is no number (low four bits), how it arose (above)
  let place = null;     // { x, y: Float32Array, size, blocks: [label, x, y, width], sites, height }
  let owner = null;     // cell → [block, node name]
  let paint = null;     // colours of the present theme
  let chosen = -1;      // the cell that is pointed at
  let top = 0;          // where the scale of a level ends

  // ---- colours, from the tokens of the style sheet

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const rgb = (hex) => {
    const full = hex.length === 4 ? hex.replace(/[^#]/g, "$&$&") : hex;
    return [1, 3, 5].map((at) => parseInt(full.slice(at, at + 2), 16));
  };
  const ramp = (name) => {
    const stops = [0, 1, 2, 3, 4].map((each) => rgb(token(`${name}-${each}`)));
    return Array.from({ length: 64 }, (_, step) => {
      const at = (step / 63) * 4, low = Math.min(3, Math.floor(at)), part = at - low;
      return `rgb(${stops[low].map((one, each) => Math.round(one + (stops[low + 1][each] - one) * part)).join(" ")})`;
    });
  };
  const hatch = (ink, ground) => {
    const tile = document.createElement("canvas");
    tile.width = tile.height = 4 * scale();
    const pen = tile.getContext("2d");
    pen.fillStyle = ground;
    pen.fillRect(0, 0, tile.width, tile.height);
    pen.strokeStyle = ink;
    pen.lineWidth = scale();
    pen.beginPath();
    for (const shift of [-1, 0, 1]) { pen.moveTo(shift * tile.width, tile.height); pen.lineTo((shift + 1) * tile.width, 0); }
    pen.stroke();
    return pen.createPattern(tile, "repeat");
  };
  const scale = () => Math.min(3, Math.max(1, window.devicePixelRatio || 1));
  const readTheme = () => {
    paint = {
      sheet: token("sheet"), ink: token("ink"), soft: token("soft"), rule: token("rule"), faint: token("faint"),
      good: token("good"), warn: token("warn"), bad: token("bad"), busy: token("busy"), focus: token("busy"),
      cool: ramp("ramp"), heat: ramp("heat"), lines: [1, 2, 3, 4, 5, 6, 7, 8].map((each) => token(`s${each}`)),
      [UNKNOWN_PATTERN]: hatch(token("soft"), token("faint")),
    };
  };

  // ---- where cells stand

  const heightMost = () => Math.max(240, Math.min(660, window.innerHeight - (canvas.getBoundingClientRect().top + window.scrollY) - 56));
  const lay = (size, width) => {
    const gap = size > 12 ? 2 : 1, pitch = size + gap, between = Math.max(3, Math.round(size * 0.6));
    const x = new Float32Array(plan.serials.length), y = new Float32Array(plan.serials.length);
    const blocks = [], sites = [];
    let left = 0, upper = 0, tallest = 0, cell = 0, site = null;
    const labelled = size >= 9;
    for (const [name, block, rack, nodes] of plan.blocks) {
      if (name !== site) {
        upper += site === null ? 0 : tallest + between + 6;
        sites.push([name, upper]);
        upper += 20;
        left = 0; tallest = 0; site = name;
      }
      const count = Math.max(...nodes.map((node) => node[1]));
      const columns = rack ? Math.min(8, count) : Math.min(count, Math.max(2, Math.ceil(Math.sqrt(2 * count))));
      const head = labelled ? 14 : 0;
      let rows = 0;
      const cells = [];
      for (const [, own] of nodes) { cells.push([rows, own]); rows += Math.ceil(own / columns); }
      const wide = Math.max(columns * pitch, labelled ? Math.min(130, 7 * block.length) : 0), high = head + rows * pitch;
      if (left > 0 && left + wide > width) { left = 0; upper += tallest + between; tallest = 0; }
      blocks.push([block, left, upper, wide]);
      for (const [row, own] of cells) {
        for (let each = 0; each < own; each += 1, cell += 1) {
          x[cell] = left + (each % columns) * pitch;
          y[cell] = upper + head + (row + Math.floor(each / columns)) * pitch;
        }
      }
      left += wide + between;
      tallest = Math.max(tallest, high);
    }
    return { x, y, size, blocks: labelled ? blocks : [], sites, height: Math.ceil(upper + tallest + 2) };
  };
  const arrange = () => {
    const width = box.clientWidth - 2;
    // The largest cells with which the whole fleet stands on one screen.
    const most = heightMost();
    let low = 3, high = plan.serials.length <= 32 ? 64 : 34;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (lay(middle, width).height <= most) low = middle; else high = middle - 1;
    }
    place = lay(low, width);
    canvas.width = Math.round(width * scale());
    canvas.height = Math.round(place.height * scale());
    canvas.style.height = `${place.height}px`;
  };

  // ---- what a cell says

  const facts = () => words.aspects[aspect];
  const state = (cell) => codes[cell] & STATE;
  const value = (cell) => numbers[cell] / facts().scale + facts().low;
  const run = (cell) => (numbers[cell] >= 2 ? plan.holders[numbers[cell] - 2] : null);
  const bits = (cell) => Object.keys(words.throttles).filter((bit) => numbers[cell] & bit).map((bit) => words.throttles[bit]);
  const said = (cell) => {
    if (state(cell)) return words.states[state(cell)];
    const { how, unit } = facts();
    if (how === "level") return `${number(value(cell), unit === "W" ? 0 : 1)} ${unit}`;
    if (how === "bits") return numbers[cell] ? bits(cell).join(", ") : words.unslowed;
    if (how === "health") return words.healths[numbers[cell]];
    const holder = run(cell);
    return holder ? `${holder[1]} · ${holder[2]}` : numbers[cell] ? words.held : words.free;
  };
  const origin = (cell) => (state(cell) ? "" : words.origins[codes[cell] >> 4] || "");
  // A colour, and a mark for those who do not tell colours apart.
  const look = (cell) => {
    if (state(cell)) return [paint[UNKNOWN_PATTERN], ""];
    const { how, low, warn, bad } = facts();
    if (how === "level") {
      const shade = Math.max(0, Math.min(63, Math.round((63 * (value(cell) - low)) / (top - low || 1))));
      const mark = bad !== null && value(cell) >= bad ? "cross" : warn !== null && value(cell) >= warn ? "dot" : "";
      return [(warn === null ? paint.cool : paint.heat)[shade], mark];
    }
    if (how === "bits") return numbers[cell] & words.harmful ? [paint.bad, "cross"] : numbers[cell] ? [paint.busy, "dot"] : [paint.cool[4], ""];
    if (how === "health") return [[paint.cool[24], ""], [paint.warn, "dot"], [paint.bad, "cross"]][numbers[cell]];
    if (numbers[cell] === 0) return [paint.sheet, "hollow"];
    return numbers[cell] === 1 ? [paint.busy, ""] : [paint.lines[(numbers[cell] - 2) % paint.lines.length], ""];
  };

  // ---- drawing

  const pen = canvas.getContext("2d");
  const drawCell = (cell) => {
    const size = place.size, left = place.x[cell] + 1, upper = place.y[cell];
    const [colour, mark] = look(cell);
    pen.fillStyle = colour;
    pen.fillRect(left, upper, size, size);
    if (mark === "hollow") {
      pen.strokeStyle = paint.soft;
      pen.lineWidth = 1;
      pen.strokeRect(left + 0.5, upper + 0.5, size - 1, size - 1);
    } else if (mark && size >= 5) {
      pen.strokeStyle = pen.fillStyle = paint.sheet;
      pen.lineWidth = Math.max(1, size / 9);
      const third = size * 0.3;
      if (mark === "cross") {
        pen.beginPath();
        pen.moveTo(left + third, upper + third); pen.lineTo(left + size - third, upper + size - third);
        pen.moveTo(left + size - third, upper + third); pen.lineTo(left + third, upper + size - third);
        pen.stroke();
      } else pen.fillRect(left + size / 2 - size / 8, upper + size / 2 - size / 8, size / 4, size / 4);
    }
    if (size >= 34 && !mark) {
      const text = state(cell) ? "?" : facts().how === "level" ? number(value(cell), 0) : "";
      const shade = facts().how === "level" && !state(cell) ? (value(cell) - facts().low) / (top - facts().low || 1) : 0;
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      pen.fillStyle = shade > 0.5 ? (dark ? paint.faint : paint.sheet) : paint.ink;
      pen.font = `600 ${Math.round(size * 0.3)}px system-ui, sans-serif`;
      pen.textAlign = "center";
      pen.textBaseline = "middle";
      pen.fillText(text, left + size / 2, upper + size / 2 + 1);
    }
  };
  const outline = (cell) => {
    if (cell < 0) return;
    pen.strokeStyle = paint.ink;
    pen.lineWidth = 2;
    pen.strokeRect(place.x[cell], place.y[cell] - 1, place.size + 2, place.size + 2);
  };
  const measure = () => {
    if (facts().high !== null) { top = facts().high; return; }
    let most = 0;
    for (let cell = 0; cell < numbers.length; cell += 1) if (!state(cell)) most = Math.max(most, value(cell));
    const step = 10 ** Math.floor(Math.log10(most || 1));
    top = Math.ceil((most || 1) / step) * step;
  };
  const draw = () => {
    if (!plan || !numbers || numbers.length !== plan.serials.length) return;
    if (!paint) readTheme();
    if (!place) arrange();
    measure();
    pen.setTransform(scale(), 0, 0, scale(), 0, 0);
    pen.fillStyle = paint.sheet;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.textAlign = "left";
    pen.textBaseline = "alphabetic";
    pen.font = "600 12px system-ui, sans-serif";
    pen.fillStyle = paint.ink;
    for (const [name, upper] of place.sites) pen.fillText(name, 1, upper + 12);
    pen.font = "11px system-ui, sans-serif";
    pen.fillStyle = paint.soft;
    for (const [name, left, upper, wide] of place.blocks) pen.fillText(name, left + 1, upper + 9, wide);
    for (let cell = 0; cell < numbers.length; cell += 1) drawCell(cell);
    outline(chosen);
    drawLegend();
    if (!box.dataset.painted) {
      box.dataset.painted = String(Math.round(performance.now()));
      performance.mark("map:painted");
    }
  };
  const item = (swatch, text) => {
    const one = document.createElement("span");
    one.className = "map-key";
    const square = document.createElement("canvas");
    square.width = square.height = Math.round(14 * scale());
    const ink = square.getContext("2d");
    ink.fillStyle = swatch;
    ink.fillRect(0, 0, square.width, square.height);
    one.append(square, text);
    return one;
  };
  const drawLegend = () => {
    const counts = new Map(), origins = new Set(), groups = new Map();
    for (let cell = 0; cell < numbers.length; cell += 1) {
      if (state(cell)) counts.set(state(cell), (counts.get(state(cell)) || 0) + 1);
      else {
        origins.add(codes[cell] >> 4);
        if (facts().how !== "level") {
          const key = facts().how === "bits" ? (numbers[cell] & words.harmful ? 2 : numbers[cell] ? 1 : 0) : Math.min(numbers[cell], facts().how === "holder" ? 9999 : 3);
          groups.set(key, [(groups.get(key) || [0])[0] + 1, cell]);
        }
      }
    }
    legend.replaceChildren();
    const { how, unit, low, warn } = facts();
    if (how === "level" && counts.size < 1 + words.states.length && origins.size) {
      const bar = document.createElement("canvas");
      bar.width = 160; bar.height = 12; bar.className = "map-scale";
      const ink = bar.getContext("2d");
      for (let step = 0; step < 64; step += 1) { ink.fillStyle = (warn === null ? paint.cool : paint.heat)[step]; ink.fillRect(step * 2.5, 0, 3, 12); }
      const one = document.createElement("span");
      one.className = "map-key";
      one.append(`${number(low, 0)} ${unit}`, bar, `${number(top, 0)} ${unit}`);
      legend.append(one);
      if (warn !== null) legend.append(item(paint.heat[60], `${words.marked} ≥ ${number(warn, 0)} ${unit}`));
    } else if (how === "bits") {
      [[0, paint.cool[4], words.unslowed], [1, paint.busy, words.benign], [2, paint.bad, words.harmed]].forEach(([key, colour, text]) => {
        if (groups.has(key)) legend.append(item(colour, `${text}: ${number(groups.get(key)[0], 0)}`));
      });
    } else {
      const most = [...groups].sort((one, two) => (one[0] < 2) !== (two[0] < 2) ? one[0] - two[0] : two[1][0] - one[1][0]);
      for (const [, [count, cell]] of most.slice(0, 9)) legend.append(item(look(cell)[0], `${said(cell)}: ${number(count, 0)}`));
      if (most.length > 9) legend.append(`+ ${number(most.length - 9, 0)}`);
    }
    for (const [each, count] of [...counts].sort()) legend.append(item(paint[UNKNOWN_PATTERN], `${words.states[each]}: ${number(count, 0)}`));
    for (const each of [...origins].sort()) {
      if (!words.origins[each] || how === "holder" || how === "health") continue;
      const mark = document.createElement("span");
      mark.className = `mark ${["measured", "estimated", "simulated"][each]}`;
      mark.textContent = words.origins[each];
      legend.append(mark);
    }
  };

  // ---- pointing

  const at = (x, y) => {
    if (!place) return -1;
    const reach = place.size + 1;
    for (let cell = 0; cell < place.x.length; cell += 1) {
      if (x >= place.x[cell] && x < place.x[cell] + reach && y >= place.y[cell] && y < place.y[cell] + reach) return cell;
    }
    return -1;
  };
  const lines = (cell) => [
    plan.serials[cell],
    [owner[cell][1], owner[cell][0] === owner[cell][1] ? null : owner[cell][0], owner[cell][2], plan.models[plan.model[cell]]].filter(Boolean).join(" · "),
    `${facts().label}: ${said(cell)}${origin(cell) && codes[cell] >> 4 ? ` (${origin(cell)})` : ""}`,
    aspect === "holder" || !plan.holder[cell] ? null : `${words.aspects.holder.label}: ${plan.holder[cell] >= 2 ? plan.holders[plan.holder[cell] - 2].slice(1).join(" · ") : words.held}`,
  ].filter(Boolean);
  const point = (cell, aloud) => {
    if (cell === chosen) return;
    const before = chosen;
    chosen = cell;
    if (before >= 0 || cell >= 0) draw();
    tip.hidden = cell < 0;
    canvas.style.cursor = cell < 0 ? "default" : "pointer";
    if (cell < 0) return;
    const told = lines(cell);
    tip.replaceChildren(...told.map((text, row) => {
      const line = document.createElement(row ? "span" : "b");
      line.textContent = text;
      return line;
    }));
    const over = canvas.offsetLeft + place.x[cell], under = canvas.offsetTop + place.y[cell] + place.size + 8;
    tip.style.left = `${Math.max(0, Math.min(over, box.clientWidth - tip.offsetWidth - 4))}px`;
    tip.style.top = `${under}px`;
    if (aloud) spoken.textContent = told.join(", ");
  };
  const open = (cell) => { if (cell >= 0) location.assign(`/accelerators/${encodeURIComponent(plan.serials[cell])}`); };
  const nearest = (from, down) => {
    let found = -1, best = Infinity;
    for (let cell = 0; cell < place.x.length; cell += 1) {
      const dy = (place.y[cell] - place.y[from]) * down;
      if (dy <= place.size / 2) continue;
      const far = dy * 4 + Math.abs(place.x[cell] - place.x[from]);
      if (far < best) { best = far; found = cell; }
    }
    return found < 0 ? from : found;
  };
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType !== "touch") point(at(event.offsetX, event.offsetY), false); });
  canvas.addEventListener("pointerleave", () => point(-1, false));
  canvas.addEventListener("click", (event) => {
    const cell = at(event.offsetX, event.offsetY);
    // A finger cannot hover: the first touch tells, the second opens.
    if (event.pointerType === "touch" && cell !== chosen) point(cell, true); else open(cell);
  });
  canvas.addEventListener("focus", () => { if (chosen < 0 && plan && plan.serials.length) point(0, true); });
  canvas.addEventListener("blur", () => point(-1, false));
  canvas.addEventListener("keydown", (event) => {
    if (!plan || !plan.serials.length) return;
    const last = plan.serials.length - 1, here = Math.max(0, chosen);
    const to = { ArrowRight: Math.min(last, here + 1), ArrowLeft: Math.max(0, here - 1), Home: 0, End: last }[event.key]
      ?? (event.key === "ArrowDown" ? nearest(here, 1) : event.key === "ArrowUp" ? nearest(here, -1) : null);
    if (to !== null) { event.preventDefault(); point(to, true); }
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(chosen); }
    if (event.key === "Escape") point(-1, false);
  });

  // ---- fetching, and staying up to date

  const take = (buffer) => {
    const head = new DataView(buffer), count = head.getUint32(0, true), partial = head.getUint32(4, true) === 1;
    if (!partial) {
      numbers = new Uint16Array(buffer, 8, count);
      codes = new Uint8Array(buffer, 8 + 2 * count, count);
    } else {
      const cells = new Uint32Array(buffer, 8, count);
      const fresh = new Uint16Array(buffer, 8 + 4 * count, count), why = new Uint8Array(buffer, 8 + 6 * count, count);
      cells.forEach((cell, each) => { numbers[cell] = fresh[each]; codes[cell] = why[each]; });
    }
  };
  const fetchPlan = async () => {
    const answer = await fetch(box.dataset.plan);
    if (!answer.ok) return;
    plan = await answer.json();
    owner = [];
    for (const [site, block, , nodes] of plan.blocks) for (const [node, count] of nodes) for (let each = 0; each < count; each += 1) owner.push([block, node, site]);
    place = null;
    chosen = -1;
  };
  const fetchCells = async () => {
    const answer = await fetch(`${box.dataset.cells}?aspect=${aspect}`);
    if (answer.ok) take(await answer.arrayBuffer());
  };
  const mark = () => { box.dataset.updates = String(1 + Number(box.dataset.updates || 0)); };
  main.addEventListener("live:cells", (event) => {
    take(Uint8Array.from(atob(event.detail), (letter) => letter.charCodeAt(0)).buffer);
    draw();
    mark();
  });
  main.addEventListener("live:plan", async () => { await fetchPlan(); draw(); });
  main.addEventListener("live:away", (event) => { box.classList.toggle("away", event.detail === "1"); });
  for (const link of box.querySelectorAll("[data-aspect-name]")) {
    link.addEventListener("click", async (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      aspect = link.dataset.aspectName;
      box.querySelector("[aria-current]")?.removeAttribute("aria-current");
      link.setAttribute("aria-current", "true");
      const here = new URL(location.href);
      here.searchParams.set("aspect", aspect);
      history.replaceState(null, "", here);
      const live = new URL(main.dataset.live, location.href);
      live.searchParams.set("aspect", aspect);
      main.dataset.live = live.pathname + live.search;
      numbers = null;
      await fetchCells();
      draw();
      main.dispatchEvent(new Event("live:again"));
    });
  }
  let wide = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === wide) return;
    wide = box.clientWidth;
    place = null;
    draw();
  }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paint = null; draw(); });
  box.hidden = false;
  Promise.all([fetchPlan(), fetchCells()]).then(draw);
})();
