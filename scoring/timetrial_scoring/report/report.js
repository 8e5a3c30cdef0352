"use strict";
// Draws the charts of a report from the JSON in the page. A chart is drawn when it first comes near the screen, and again
// when its width changes. Every mark of a submission sits in a group .series[data-s]; the legend hides those groups.
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const DASHES = ["", "7 3", "2 3", "8 3 2 3"];
  const COLOURS = 7;
  const MARKS = [
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0", // circle
    "M-3.6,-3.6h7.2v7.2h-7.2z", // square
    "M0,-4.6L4.4,3.4H-4.4z", // triangle
    "M0,-5L4.4,0L0,5L-4.4,0z", // diamond
    "M0,4.6L4.4,-3.4H-4.4z", // triangle, on its tip
    "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z", // plus
    "M0,-5L1.5,-1.6L5,-1.4L2.3,1L3.2,4.6L0,2.6L-3.2,4.6L-2.3,1L-5,-1.4L-1.5,-1.6z", // star
    "M-5,-2.2L-2.2,-5L0,-2.8L2.2,-5L5,-2.2L2.8,0L5,2.2L2.2,5L0,2.8L-2.2,5L-5,2.2L-2.8,0z", // cross
  ];
  const MARKED = 16; // a curve of more steps has a mark at every second, third, ... of them
  const REACH = 40; // pixels from which the pointer finds a curve

  const colour = (s) => `var(--c${s % COLOURS})`;
  const dash = (s) => DASHES[s % DASHES.length];
  const hidden = DATA.boards.map(() => new Set());
  const boardOf = (element) => element.closest(".board");

  function add(parent, name, attributes = {}, text = null) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text !== null) element.textContent = text;
    parent.appendChild(element);
    return element;
  }

  function format(value, digits = 4) {
    if (value === null) return "never";
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(Math.max(0, digits - 2)).replace("e+", "e");
    return Number(value.toPrecision(digits)).toLocaleString("en-US", { maximumFractionDigits: 8 });
  }

  function tickText(exact) {
    const value = Number(exact.toPrecision(6));
    const size = Math.abs(value);
    if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
    if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
    return size !== 0 && size < 1e-3 ? value.toExponential().replace("e+", "e") : `${value}`;
  }

  // Scales: functions from a value to pixels, with the ticks that fit.
  function linear([low, high], [from, to], room) {
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
    const scale = (value) => from + ((value - low) / (high - low)) * (to - from);
    scale.invert = (pixel) => low + ((pixel - from) / (to - from)) * (high - low);
    const wanted = Math.max(2, Math.abs(to - from) / room);
    const raw = (high - low) / wanted;
    const power = 10 ** Math.floor(Math.log10(raw));
    const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= raw * 0.999);
    scale.ticks = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) scale.ticks.push(i * step);
    return scale;
  }

  function logarithmic([low, high], [from, to], room) {
    if (low === high) [low, high] = [low / 1.5, high * 1.5];
    const inner = linear([Math.log10(low), Math.log10(high)], [from, to], room);
    const scale = (value) => inner(Math.log10(value));
    scale.invert = (pixel) => 10 ** inner.invert(pixel);
    const within = (factors) => {
      const found = [];
      for (let p = Math.floor(Math.log10(low)); p <= Math.ceil(Math.log10(high)); p++)
        for (const f of factors) if (f * 10 ** p >= low * 0.999 && f * 10 ** p <= high * 1.001) found.push(f * 10 ** p);
      return found;
    };
    const fits = (ticks) => ticks.every((t, i) => i === 0 || Math.abs(scale(t) - scale(ticks[i - 1])) >= room * 0.7);
    const choices = [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 5], [1, 3], [1]].map(within);
    scale.ticks = choices.find((ticks) => ticks.length >= 2 && fits(ticks)) ?? choices.find(fits) ?? [];
    if (scale.ticks.length < 2) scale.ticks = [low, high].map((v) => Number(v.toPrecision(2))).filter((v) => v >= low && v <= high);
    return scale;
  }

  function categories(names, [from, to]) {
    const scale = (value) => from + ((names.indexOf(value) + 0.5) / names.length) * (to - from);
    scale.ticks = names;
    return scale;
  }

  // An empty chart: axes, rules, labels. `x` and `y` make a scale when told their range in pixels.
  function frame(host, { height, x, y, xLabel, yLabel, right = 14, top = 26, widest = "" }) {
    const width = host.clientWidth;
    host.replaceChildren();
    const svg = add(host, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": host.dataset.label });
    const bottom = height - 38;
    const py = y([bottom, top]);
    const texts = py.ticks.map((tick) => (typeof tick === "number" ? tickText(tick) : String(tick)));
    const left = 12 + 6.8 * Math.max(2, widest.length, ...texts.map((text) => text.length));
    const px = x([left, width - right]);
    py.ticks.forEach((tick, i) => {
      add(svg, "line", { class: "rule", x1: left, x2: width - right, y1: py(tick), y2: py(tick) });
      add(svg, "text", { x: left - 6, y: py(tick) + 4, "text-anchor": "end" }, texts[i]);
    });
    add(svg, "line", { class: "axis", x1: left, x2: width - right, y1: bottom, y2: bottom });
    px.ticks.forEach((tick) => {
      add(svg, "line", { class: "axis", x1: px(tick), x2: px(tick), y1: bottom, y2: bottom + 4 });
      const text = typeof tick === "number" ? tickText(tick) : String(tick);
      const half = text.length * 3.4;
      const middle = Math.min(Math.max(px(tick), half), width - half);
      add(svg, "text", { x: middle, y: bottom + 17, "text-anchor": "middle" }, text);
    });
    add(svg, "text", { class: "label", x: width - right, y: height - 4, "text-anchor": "end" }, xLabel);
    add(svg, "text", { class: "label", x: 0, y: 11 }, yLabel);
    const clip = `clip-${(frame.count = (frame.count ?? 0) + 1)}`;
    const box = { x: left, y: top - 5, width: Math.max(0, width - right - left), height: bottom - top + 6 };
    add(add(add(svg, "defs"), "clipPath", { id: clip }), "rect", box);
    return { svg, px, py, left, right: width - right, top, bottom, width, height, clip: `url(#${clip})` };
  }

  function series(chart, host, s) {
    const off = hidden[host.dataset.board].has(s) ? " off" : "";
    return add(chart.svg, "g", { class: `series${off}`, "data-s": s, stroke: colour(s) });
  }

  function mark(parent, s, x, y, kind = "mark") {
    const style = `${kind.includes("hollow") ? "stroke" : "fill"}:${colour(s)}`;
    return add(parent, "path", { class: kind, d: MARKS[s % MARKS.length], transform: `translate(${x},${y})`, style });
  }

  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)},${y.toFixed(1)}`).join("");

  // What the pointer is at: `pick(x, y)` gives {x, y, s, text} or null.
  function watch(chart, host, pick) {
    const focus = add(chart.svg, "circle", { class: "focus", r: 6, visibility: "hidden" });
    add(chart.svg, "rect", { x: 0, y: 0, width: chart.width, height: chart.height, fill: "none", "pointer-events": "all" });
    const leave = () => {
      focus.setAttribute("visibility", "hidden");
      heat(boardOf(host), null);
      hideTip();
    };
    chart.svg.addEventListener("pointermove", (event) => {
      const box = chart.svg.getBoundingClientRect();
      const found = pick(event.clientX - box.left, event.clientY - box.top);
      if (!found) return leave();
      focus.setAttribute("cx", found.x);
      focus.setAttribute("cy", found.y);
      focus.setAttribute("visibility", "visible");
      heat(boardOf(host), found.s);
      showTip(found.text, event.clientX, event.clientY);
    });
    chart.svg.addEventListener("pointerleave", leave);
  }

  function nearest(candidates, x, y, reach = REACH) {
    let best = null;
    for (const point of candidates) {
      const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
      if (distance <= reach ** 2) [best, reach] = [point, Math.sqrt(distance)];
    }
    return best;
  }

  // Labels at the right end of curves, pushed apart: those that would touch form a cluster around their common centre.
  function spread(labels, gap, low, high) {
    labels.sort((a, b) => a.y - b.y);
    const clusters = [];
    for (const label of labels) {
      let cluster = { members: [label], centre: label.y };
      for (let above = clusters.at(-1); above && reach(above) + gap > top(cluster); above = clusters.at(-1)) {
        const members = [...clusters.pop().members, ...cluster.members];
        cluster = { members, centre: members.reduce((sum, { y }) => sum + y, 0) / members.length };
      }
      clusters.push(cluster);
    }
    function top({ members, centre }) {
      const half = ((members.length - 1) / 2) * gap;
      return Math.max(low, Math.min(centre - half, high - 2 * half));
    }
    function reach(cluster) {
      return top(cluster) + (cluster.members.length - 1) * gap;
    }
    for (const cluster of clusters) cluster.members.forEach((label, i) => (label.at = top(cluster) + i * gap));
    return labels;
  }

  function drawProfiles(host) {
    drawSteps(host, DATA.boards[host.dataset.board].profiles, "tau", {
      x: (range) => linear([1, DATA.tau_max], range, 70),
      xLabel: `τ: ${DATA.clock} to target, over the best`,
      yLabel: "share of base workloads",
      where: (tau) => `τ ${tau.toFixed(2)}`,
    });
  }

  function drawEcdf(host) {
    const lines = DATA.boards[host.dataset.board].ecdf;
    const log = isLog(host);
    const earliest = 0.8 * Math.min(1, ...lines.flatMap((line) => line.budget.filter((share) => share > 0)));
    drawSteps(host, lines, "budget", {
      x: (range) => (log ? logarithmic([earliest, 1], range, 52) : linear([0, 1], range, 70)),
      xLabel: `charged ${DATA.clock}, share of the budget${log ? ", log scale" : ""}`,
      yLabel: "share of milestones and targets met",
      where: (share) => `${format(100 * share, 3)} % of the budget`,
    });
  }

  const isLog = (host) => host.closest("figure").querySelector(".scale").value === "log";

  // Step functions of the share, one for each submission; the steps are at `line[key]`, `where` puts one into words.
  function drawSteps(host, functions, key, { x, xLabel, yLabel, where }) {
    const board = DATA.boards[host.dataset.board];
    const lines = functions.map((line) => ({ ...line, steps: line[key], s: board.submissions.indexOf(line.submission) }));
    const labelled = host.clientWidth >= 640;
    const longest = Math.max(0, ...lines.map((line) => line.submission.length));
    const chart = frame(host, {
      height: Math.max(Math.min(560, Math.max(280, host.clientWidth * 0.45)), labelled ? 16 * lines.length + 64 : 0),
      right: labelled ? Math.min(260, 30 + 7.4 * longest) : 14,
      top: 44,
      y: (range) => linear([0, 1], range, 45),
      x,
      xLabel,
      yLabel,
    });
    const px = (step) => Math.max(chart.left, chart.px(step)); // log(0) lies beyond the left edge
    // Equal shares would hide one another: each curve lies a hair beside its height.
    const aside = Math.min(3, 18 / lines.length);
    const py = (share, s) => chart.py(share) + (s - (lines.length - 1)) * aside;
    const ends = spread(lines.map((line) => ({ line, y: py(line.share.at(-1), line.s) })), 16, chart.top, chart.bottom);
    for (const { line, y, at } of ends.reverse()) {
      const group = series(chart, host, line.s);
      const corners = [];
      line.steps.forEach((step, i) => {
        if (i) corners.push([px(step), py(line.share[i - 1], line.s)]);
        corners.push([px(step), py(line.share[i], line.s)]);
      });
      corners.push([chart.right, y]);
      add(group, "path", { class: "bold curve", d: path(corners), "stroke-dasharray": dash(line.s) });
      const every = Math.ceil(line.steps.length / MARKED);
      line.steps.forEach((step, i) => i % every || mark(group, line.s, px(step), py(line.share[i], line.s)));
      if (!labelled) continue;
      add(group, "path", { class: "lead", d: path([[chart.right + 2, y], [chart.right + 14, at]]) });
      const shown = line.submission.length > 32 ? `${line.submission.slice(0, 31)}…` : line.submission;
      add(group, "text", { class: "end", x: chart.right + 18, y: at + 4, style: `fill:${colour(line.s)}` }, shown);
    }
    watch(chart, host, (x, y) => {
      const here = chart.px.invert(Math.min(Math.max(x, chart.left), chart.right));
      const at = (line) => line.share[line.steps.findLastIndex((step) => step <= here + 1e-9)];
      const points = lines.filter((line) => !hidden[host.dataset.board].has(line.s))
        .map((line) => ({ x: px(here), y: py(at(line), line.s), s: line.s, line }));
      const found = nearest(points, x, y);
      return found && { ...found, text: `${found.line.submission}\n${where(here)}\nshare ${format(at(found.line), 3)}` };
    });
  }

  function drawCurves(host) {
    const board = DATA.boards[host.dataset.board];
    const data = board.curves[host.dataset.w];
    const charges = data.trials.flatMap((trial) => trial.x.filter((x) => x > 0));
    const [earliest, furthest] = charges.reduce(([low, high], x) => [Math.min(low, x), Math.max(high, x)], [Infinity, 0]);
    const log = charges.length > 0 && isLog(host);
    const chart = frame(host, {
      height: Math.min(320, Math.max(240, host.clientWidth * 0.55)),
      x: (range) => (log ? logarithmic([earliest, furthest], range, 52) : linear([0, furthest || data.budget], range, 64)),
      y: (range) => linear(data.range ?? [0, 1], range, 40),
      xLabel: `charged ${DATA.clock}${log ? ", log scale" : ""}`,
      yLabel: data.metric ?? "",
    });
    const { px, py } = chart;
    const opacity = Math.min(0.6, Math.max(0.16, 12 / data.trials.length));
    const vertices = [];
    for (let s = board.submissions.length - 1; s >= 0; s--) {
      const mine = data.trials.filter((trial) => trial.s === s);
      if (!mine.length) continue;
      const group = series(chart, host, s);
      const inside = add(group, "g", { "clip-path": chart.clip });
      let thin = "";
      let marker = null;
      for (const trial of mine) {
        let d = "";
        let pen = "M";
        trial.x.forEach((x, i) => {
          if (x === null || trial.y[i] === null || (log && x <= 0)) return (pen = "M");
          const point = { x: px(x), y: py(trial.y[i]), s, trial, i };
          vertices.push(point);
          d += `${pen}${point.x.toFixed(1)},${point.y.toFixed(1)}`;
          pen = "L";
        });
        if (!trial.best) thin += d;
        else add(inside, "path", { class: "bold curve", d, "stroke-dasharray": dash(s) });
        if (trial.best && trial.crossing) marker = trial.crossing;
      }
      if (thin) add(inside, "path", { class: "thin", d: thin, "stroke-opacity": opacity });
      if (marker) mark(inside, s, px(marker[0]), py(marker[1]));
    }
    if (data.target !== null) {
      const y = py(data.target);
      add(chart.svg, "line", { class: "target", x1: chart.left, x2: chart.right, y1: y, y2: y });
      const at = { x: chart.left + 6, y: y < chart.top + 12 ? y + 14 : y - 5 };
      add(chart.svg, "text", { class: "target", ...at }, `target ${format(data.target)}`);
    }
    if (!data.trials.length) add(chart.svg, "text", { x: (chart.left + chart.right) / 2, y: 120, "text-anchor": "middle" }, "no trials");
    watch(chart, host, (x, y) => {
      const visible = vertices.filter((point) => !hidden[host.dataset.board].has(point.s) && point.y >= chart.top - 5 && point.y <= chart.bottom);
      const found = nearest(visible, x, y, 24);
      if (!found) return null;
      const { trial, i } = found;
      const reached = trial.crossing ? `reached at ${format(trial.crossing[0])} ${DATA.unit}` : "never reached";
      return { ...found, text: `${board.submissions[found.s]}\nstudy ${trial.study}, trial ${trial.trial}: ${reached}\n${format(trial.x[i])} ${DATA.unit}: ${data.metric} ${format(trial.y[i])}` };
    });
  }

  function extent(values, log) {
    const low = Math.min(...values);
    const high = Math.max(...values);
    const pad = log ? (high / low) ** 0.05 : (high - low) * 0.05;
    return log ? [low / pad, high * pad] : [low - pad, high + pad];
  }

  function drawTuning(host) {
    const board = DATA.boards[host.dataset.board];
    const figure = host.closest("figure");
    const w = Number(figure.querySelector(".workload").value);
    const height = figure.querySelector(".height").value;
    const h = Number(host.dataset.h);
    const name = board.tuning_points.names[h];
    const points = board.tuning_points.points.filter((point) => point.w === w && point.values[h] !== null);
    const values = points.map((point) => point.values[h]);
    host.closest(".card").hidden = new Set(values).size < 2;
    if (!host.clientWidth) return;
    const numeric = values.every((value) => typeof value === "number");
    const log = numeric && board.tuning_points.log[h];
    const heights = points.map((point) => point[height]).filter((value) => value !== null);
    const tall = heights.length > 0 && Math.min(...heights) > 0 && Math.max(...heights) / Math.min(...heights) > 8;
    const band = height === "charge" && heights.length < points.length ? 22 : 0;
    const metric = board.curves[w].metric ?? "metric";
    const chart = frame(host, {
      height: 220,
      top: 26 + band,
      widest: band ? "never" : "",
      x: (range) => {
        const inner = [range[0] + 8, range[1] - 4];
        if (!values.length) return linear([0, 1], inner, 60);
        if (!numeric) return categories([...new Set(values.map(String))].sort(), inner);
        return (log ? logarithmic : linear)(extent(values, log), inner, 52);
      },
      y: (range) => {
        if (!heights.length) return Object.assign(() => (range[0] + range[1]) / 2, { ticks: [] });
        return (tall ? logarithmic : linear)(extent(heights, tall), range, 34);
      },
      xLabel: log ? `${name}, log scale` : name,
      yLabel: height === "charge" ? `${DATA.clock} to target${tall ? ", log scale" : ""}` : `best ${metric}`,
    });
    const { px, py } = chart;
    if (band) {
      add(chart.svg, "rect", { class: "band", x: chart.left, y: 18, width: chart.right - chart.left, height: 20 });
      add(chart.svg, "text", { x: chart.left - 6, y: 32, "text-anchor": "end" }, "never");
    }
    const marks = [];
    for (let s = board.submissions.length - 1; s >= 0; s--) {
      const group = series(chart, host, s);
      for (const point of points.filter((candidate) => candidate.s === s)) {
        const value = point.values[h];
        const missed = point[height] === null;
        if (missed && !band) continue;
        const at = { x: px(numeric ? value : String(value)), y: missed ? 28 : py(point[height]), s, point };
        mark(group, s, at.x, at.y, missed ? "mark hollow" : "mark");
        marks.push(at);
      }
    }
    if (!marks.length) add(chart.svg, "text", { x: (chart.left + chart.right) / 2, y: 110, "text-anchor": "middle" }, "no trials with a value");
    watch(chart, host, (x, y) => {
      const found = nearest(marks.filter((at) => !hidden[host.dataset.board].has(at.s)), x, y, 20);
      if (!found) return null;
      const { point } = found;
      const value = point.values[h];
      const shown = typeof value === "number" ? format(value) : value;
      return { ...found, text: `${board.submissions[point.s]}\nstudy ${point.study}, trial ${point.trial}\n${name} ${shown}\n${DATA.clock} to target: ${format(point.charge)}\nbest ${metric}: ${point.metric === null ? "none" : format(point.metric)}` };
    });
  }

  const DRAW = { profiles: drawProfiles, ecdf: drawEcdf, curves: drawCurves, tuning: drawTuning };
  const plots = [...document.querySelectorAll("[data-chart]")];
  const drawn = new Map(); // chart -> the width it was drawn for

  function draw(host) {
    drawn.set(host, host.clientWidth);
    DRAW[host.dataset.chart](host);
  }

  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting && !drawn.has(target)) draw(target);
  }, { rootMargin: "600px" });
  const sized = new ResizeObserver((entries) => {
    for (const { target } of entries) if (drawn.has(target) && drawn.get(target) !== target.clientWidth) draw(target);
  });
  for (const host of plots) {
    near.observe(host);
    sized.observe(host);
  }
  window.addEventListener("beforeprint", () => plots.forEach(draw));

  // The legend
  function show(board, s, on) {
    const set = hidden[board.dataset.b];
    if (on) set.delete(s);
    else set.add(s);
    for (const element of board.querySelectorAll(`.series[data-s="${s}"], tr[data-s="${s}"]`)) element.classList.toggle("off", !on);
    board.querySelector(`.key[data-s="${s}"]`).setAttribute("aria-pressed", String(on));
  }

  function heat(board, s) {
    board.classList.toggle("hot", s !== null && s !== undefined);
    for (const element of board.querySelectorAll(".series.hot")) if (element.dataset.s !== String(s)) element.classList.remove("hot");
    if (s !== null) for (const element of board.querySelectorAll(`.series[data-s="${s}"]`)) element.classList.add("hot");
  }

  for (const board of document.querySelectorAll(".board")) {
    const keys = [...board.querySelectorAll(".key")];
    for (const key of keys) {
      const s = Number(key.dataset.s);
      const swatch = key.querySelector(".swatch");
      add(swatch, "line", { x1: 0, x2: 30, y1: 6, y2: 6, stroke: colour(s), "stroke-width": 2.25, "stroke-dasharray": dash(s) });
      mark(swatch, s, 15, 6);
      key.addEventListener("click", () => show(board, s, key.getAttribute("aria-pressed") === "false"));
      key.addEventListener("pointerenter", () => heat(board, s));
      key.addEventListener("pointerleave", () => heat(board, null));
    }
    board.querySelector(".every").addEventListener("click", () => {
      const on = hidden[board.dataset.b].size > 0;
      for (const key of keys) show(board, Number(key.dataset.s), on);
    });
    for (const choice of board.querySelectorAll("select")) {
      const charts = [...choice.closest("figure").querySelectorAll(".plot")];
      choice.addEventListener("change", () => charts.filter((host) => drawn.has(host)).forEach(draw));
    }
  }

  // What a cell of a table says when it is pointed at
  const tip = document.getElementById("tip");

  function showTip(text, x, y) {
    tip.textContent = text;
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
    tip.style.top = `${y + 18 + height > window.innerHeight ? y - height - 10 : y + 18}px`;
  }

  function hideTip() {
    tip.hidden = true;
  }

  document.addEventListener("pointerover", (event) => {
    const cell = event.target.closest?.("[data-tip]");
    if (cell) showTip(cell.dataset.tip, event.clientX, event.clientY);
    else if (!event.target.closest?.(".plot svg")) hideTip();
  });

  // Light or dark: as the system says, until the button is pressed
  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.style.colorScheme ? root.style.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.style.colorScheme = dark ? "light" : "dark";
  });
})();
