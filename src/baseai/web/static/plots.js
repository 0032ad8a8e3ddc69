// Live charts over time, drawn by uPlot (MIT; see uplot.LICENSE.txt). What the server tells is drawn as it is:
// where it told no number the line is broken, and the legend says why.
"use strict";
(() => {
  const box = document.getElementById("plots");
  if (!box || !window.uPlot) return;
  const main = document.querySelector("main");
  const words = JSON.parse(box.dataset.words);
  const happened = document.getElementById("happened");
  const HEIGHT = 190;
  const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3]];
  const drawn = new Map(); // name → { chart, shape, told }
  let frame = null; // what the server told last, and from when to when
  let zoomed = false;
  let paint = null;

  const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const readTheme = () => {
    paint = {
      soft: token("soft"), rule: token("rule"), ink: token("ink"), bad: token("bad"), warn: token("warn"), plain: token("soft"),
      badBg: token("bad-bg"), area: token("good-bg"), warnBg: token("warn-bg"), lines: [1, 2, 3, 4, 5, 6, 7, 8].map((each) => token(`s${each}`)),
    };
  };
  const number = (value) => {
    const size = Math.abs(value);
    const digits = size >= 1 || size === 0 ? { maximumFractionDigits: size >= 100 ? 0 : 1 } : { maximumSignificantDigits: 2 };
    return new Intl.NumberFormat(words.lang, digits).format(value);
  };
  const clock = (options) => new Intl.DateTimeFormat(words.lang, { timeZone: words.zone, hour12: false, ...options });
  const hours = clock({ hour: "2-digit", minute: "2-digit" });
  const shortly = clock({ hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const seconds = clock({ day: "2-digit", month: "2-digit", hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const days = clock({ day: "2-digit", month: "2-digit", hour: "2-digit", minute: "2-digit" });
  const at = (format, ts) => format.format(new Date(ts * 1000));

  const why = (line, index) => {
    const gap = line.gaps.find(([from, until]) => index >= from && index < until);
    return gap ? words.states[gap[2]] : "–";
  };
  const newest = (line) => { for (let at = line.values.length - 1; at >= 0; at -= 1) if (typeof line.values[at] === "number") return line.values[at]; return null; };

  // Bands of throttling and the instants at which something happened, behind the lines.
  const behind = (chart) => {
    const { told } = drawn.get(chart.root.dataset.name);
    const { left, top, width, height } = chart.bbox, pen = chart.ctx;
    pen.save();
    pen.beginPath();
    pen.rect(left, top, width, height);
    pen.clip();
    for (const [from, until, harmful, text] of told.bands) {
      const x = chart.valToPos(from, "x", true), wide = Math.max(2, chart.valToPos(until, "x", true) - x);
      pen.fillStyle = harmful ? paint.badBg : paint.warnBg;
      pen.fillRect(x, top, wide, height);
      pen.fillStyle = harmful ? paint.bad : paint.warn;
      pen.fillRect(x, top, wide, 3 * devicePixelRatio);
      if (wide > 90 * devicePixelRatio) {
        pen.font = `${11 * devicePixelRatio}px system-ui, sans-serif`;
        pen.textAlign = "left";
        pen.fillText(text, Math.max(x, left) + 4 * devicePixelRatio, top + 15 * devicePixelRatio, wide - 8 * devicePixelRatio);
      }
    }
    for (const [ts, tone] of frame.markers) {
      const x = Math.round(chart.valToPos(ts, "x", true));
      pen.strokeStyle = pen.fillStyle = paint[tone] || paint.plain;
      pen.lineWidth = devicePixelRatio;
      pen.setLineDash([3 * devicePixelRatio, 3 * devicePixelRatio]);
      pen.beginPath(); pen.moveTo(x, top); pen.lineTo(x, top + height); pen.stroke();
      pen.setLineDash([]);
      const tip = 5 * devicePixelRatio;
      pen.beginPath(); pen.moveTo(x - tip, top); pen.lineTo(x + tip, top); pen.lineTo(x, top + 1.6 * tip); pen.fill();
    }
    pen.restore();
  };

  const range = (told) => (chart, low, high) => {
    if (told.log) return low === null ? [1, 1000] : [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))];
    if (told.high !== null) return [0, told.high];
    if (low === null) return [0, 1];
    if (told.unit === "°C") return [Math.min(20, Math.floor(low - 2)), Math.max(60, Math.ceil(high + 5))];
    return [0, (high || 1) * 1.12];
  };

  const decades = (chart, axis, low, high) => {
    const found = [];
    for (let each = low; each <= high * 1.001; each *= 10) found.push(each);
    return found;
  };

  const make = (name, told, host) => {
    const series = told.lines.map((line, order) => ({
      label: line.label,
      stroke: line.edge ? paint.soft : paint.lines[order % paint.lines.length],
      width: line.edge ? 1 : 1.8,
      dash: line.edge ? [3, 3] : DASHES[Math.floor(order / paint.lines.length) % 4] || [],
      points: { show: Boolean(told.dots && !line.edge), size: 3 }, // where a lone point is all there is
      spanGaps: false,
      value: (chart, value, number_, index) => {
        const own = drawn.get(name)?.told.lines[order] || line;
        if (index === null || index === undefined) { const last = newest(own); return last === null ? "–" : `${number(last)} ${told.unit}`; }
        return typeof value === "number" ? `${number(value)} ${told.unit}` : why(own, index);
      },
    }));
    const axis = { stroke: paint.soft, grid: { stroke: paint.rule, width: 1 }, ticks: { stroke: paint.rule, width: 1, size: 5 }, font: "11px system-ui, sans-serif" };
    const labels = () => (frame.until - frame.from > 86400 * 1.5 ? days : frame.until - frame.from < 600 ? shortly : hours);
    const chart = new uPlot({
      width: Math.max(200, host.clientWidth), height: HEIGHT, cursor: { sync: { key: "time" }, drag: { x: true, y: false, setScale: true }, points: { size: 6 } },
      scales: { x: { time: true, range: (own, low, high) => (zoomed ? [low, high] : [frame.from, frame.until]) }, y: { range: range(told), distr: told.log ? 3 : 1 } },
      axes: [
        { ...axis, space: 70, size: 30, values: (own, splits) => splits.map((ts) => at(labels(), ts).replace(",", "")) },
        { ...axis, size: 52, ...(told.log ? { splits: decades } : {}), values: (own, splits) => splits.map((split) => (split === null ? "" : number(split))) },
      ],
      series: [{ label: words.time, value: (own, ts) => (ts === null ? at(seconds, frame.until) : at(seconds, ts)) }, ...series],
      bands: told.area ? [{ series: told.area, fill: paint.area }] : undefined,
      hooks: {
        init: [(own) => { own.root.dataset.name = name; }],
        drawClear: [behind],
        setSelect: [(own) => {
          if (own.select.width <= 0) return;
          zoomed = true; // and all the charts of the page with it
          const min = own.posToVal(own.select.left, "x"), max = own.posToVal(own.select.left + own.select.width, "x");
          for (const each of drawn.values()) if (each.chart !== own) each.chart.setScale("x", { min, max });
        }],
      },
      legend: { live: true, markers: { width: 3 } },
    }, columns(told), host);
    chart.over.addEventListener("dblclick", () => { zoomed = false; for (const each of drawn.values()) each.chart.setScale("x", { min: frame.from, max: frame.until }); });
    return chart;
  };
  // uPlot breaks a line at null and goes on over undefined.
  const columns = (told) => [told.ts, ...told.lines.map((line) => line.values.map((value) => (value === false ? undefined : value)))];

  // What the bands of a chart mean, under it.
  const slowed = (figure, told) => {
    let note = figure.querySelector(".bands");
    if (!told.bands.length) { note?.remove(); return; }
    if (!note) {
      note = document.createElement("p");
      note.className = "note bands";
      figure.append(note);
    }
    const kinds = new Map(told.bands.map(([, , harmful, text]) => [text, harmful]));
    note.replaceChildren(`${words.slowed} `, ...[...kinds].map(([text, harmful]) => {
      const badge = document.createElement("span");
      badge.className = `badge ${harmful ? "bad" : "warn"}`;
      badge.textContent = text;
      return badge;
    }));
  };

  const draw = (told) => {
    frame = told;
    if (!paint) readTheme();
    // All that is drawn is there before the first is: how wide one is depends on its neighbours.
    const hosts = [...box.querySelectorAll("[data-plot]")].filter((host) => told.plots[host.dataset.plot]);
    if (hosts.length) box.hidden = false;
    for (const host of hosts) host.closest("figure").hidden = false;
    for (const host of hosts) {
      const name = host.dataset.plot, own = told.plots[name], figure = host.closest("figure");
      const shape = own.lines.map((line) => line.label).join("\n") + own.unit, known = drawn.get(name);
      if (known && known.shape === shape) {
        known.told = own;
        known.chart.setData(columns(own), !zoomed);
        if (zoomed) known.chart.redraw(true, false);
      } else {
        known?.chart?.destroy();
        drawn.set(name, { told: own, shape });
        drawn.get(name).chart = make(name, own, host);
      }
      slowed(figure, own);
      // A run's charts learn only now how their figures arose.
      const marks = figure.querySelector(".marks");
      marks?.replaceChildren(...(own.origins || []).map(([kind, text]) => {
        const mark = document.createElement("span");
        mark.className = `mark ${kind}`;
        mark.textContent = text;
        return mark;
      }));
    }
    if (happened) {
      happened.hidden = !told.markers.length;
      happened.replaceChildren(...told.markers.slice(-12).reverse().map(([ts, tone, text]) => {
        const line = document.createElement("li"), badge = document.createElement("span");
        badge.className = `badge ${tone === "plain" ? "plain" : tone}`;
        badge.textContent = text;
        line.append(badge, ` ${at(seconds, ts)}`);
        return line;
      }));
    }
    box.dataset.drawn = String(1 + Number(box.dataset.drawn || 0));
    box.dataset.newest = String(Math.max(0, ...Object.values(told.plots).map((each) => each.ts[each.ts.length - 1] || 0)));
  };

  main.addEventListener("live:series", (event) => draw(JSON.parse(event.detail)));
  const again = () => { for (const each of drawn.values()) each.chart.destroy(); drawn.clear(); paint = null; if (frame) draw(frame); };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    for (const [name, { chart }] of drawn) {
      const host = box.querySelector(`[data-plot="${CSS.escape(name)}"]`);
      if (host?.clientWidth) chart.setSize({ width: host.clientWidth, height: HEIGHT });
    }
  }).observe(box);
  fetch(box.dataset.series).then((answer) => (answer.ok ? answer.json() : null)).then((told) => { if (told) draw(told); });
})();
