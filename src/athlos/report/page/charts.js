// Learning curves: series from selected runs, axes, a read-out, a legend.

const DASHES = ["", "8 3", "2 2.5", "10 3 2 3", "16 4"];
const MARKERS = ["circle", "square", "triangle", "diamond", "cross", "plus"];
const NUM_COLOURS = 7;
const MAX_SERIES = 35;
const MARKERS_A_LINE = 6;
const HEIGHT = 360;

const CHART = { metric: null, isLog: false, smoothing: 0, isGrouped: false, hidden: new Set(), series: [], at: null, width: null };

const styleAt = (index) => ({ colour: index % NUM_COLOURS, dash: DASHES[index % DASHES.length], marker: MARKERS[index % MARKERS.length] });

function selectedRuns() {
  return [...STATE.selected].sort((one, other) => one - other);
}

/** Run -> the look of its line, for as many runs as can be told apart. */
function selectedStyles() {
  const found = new Map();
  if (CHART.isGrouped) seedGroups(selectedRuns()).slice(0, MAX_SERIES).forEach((group, index) => group.forEach((run) => found.set(run, styleAt(index))));
  else selectedRuns().slice(0, MAX_SERIES).forEach((run, index) => found.set(run, styleAt(index)));
  return found;
}

function markerShape(kind, x, y, size, className) {
  const at = (dx, dy) => `${(x + dx * size).toFixed(1)} ${(y + dy * size).toFixed(1)}`;
  if (kind === "circle") return s("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: size, class: className });
  const paths = {
    square: `M${at(-0.9, -0.9)}L${at(0.9, -0.9)}L${at(0.9, 0.9)}L${at(-0.9, 0.9)}Z`,
    triangle: `M${at(0, -1.15)}L${at(1.1, 0.85)}L${at(-1.1, 0.85)}Z`,
    diamond: `M${at(0, -1.3)}L${at(1.3, 0)}L${at(0, 1.3)}L${at(-1.3, 0)}Z`,
    cross: `M${at(-0.9, -0.9)}L${at(0.9, 0.9)}M${at(0.9, -0.9)}L${at(-0.9, 0.9)}`,
    plus: `M${at(-1.2, 0)}L${at(1.2, 0)}M${at(0, -1.2)}L${at(0, 1.2)}`,
  };
  return s("path", { d: paths[kind], class: className });
}

function swatch(style) {
  return s("svg", { class: `swatch c${style.colour}`, viewBox: "0 0 30 12", "aria-hidden": "true" },
    s("line", { x1: 0, y1: 6, x2: 30, y2: 6, class: "stroke", "stroke-width": 2.4, "stroke-dasharray": style.dash || null }),
    markerShape(style.marker, 15, 6, 4, "marker"));
}

/** Exponential mean that starts unbiased; undefined points stay so. */
function smoothed(values, share) {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = share * mean + (1 - share) * value;
    weight = share * weight + (1 - share);
    return mean / weight;
  });
}

function valueAt(curve, step) {
  let low = 0;
  let high = curve.steps.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (curve.steps[middle] <= step) low = middle;
    else high = middle;
  }
  const [x0, x1, y0, y1] = [curve.steps[low], curve.steps[high], curve.values[low], curve.values[high]];
  if (y0 === null || y1 === null) return step === x0 ? y0 : step === x1 ? y1 : null;
  return x1 === x0 ? y0 : y0 + ((y1 - y0) * (step - x0)) / (x1 - x0);
}

/** Mean of several curves where all of them have points, with the least and the greatest. */
function meanCurve(curves) {
  if (curves.length === 1) return { ...curves[0], low: null, high: null };
  const first = Math.max(...curves.map((curve) => curve.steps[0]));
  const last = Math.min(...curves.map((curve) => curve.steps[curve.steps.length - 1]));
  const steps = [...new Set(curves.flatMap((curve) => curve.steps))].filter((step) => step >= first && step <= last).sort((a, b) => a - b);
  const found = { steps, values: [], low: [], high: [] };
  for (const step of steps) {
    const values = curves.map((curve) => valueAt(curve, step));
    const isKnown = values.every((value) => value !== null);
    found.values.push(isKnown ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
    found.low.push(isKnown ? Math.min(...values) : null);
    found.high.push(isKnown ? Math.max(...values) : null);
  }
  return found;
}

function chartSeries(index) {
  const styles = selectedStyles();
  const having = selectedRuns().filter((run) => RUNS[run].curves?.[index] && styles.has(run));
  const groups = CHART.isGrouped ? seedGroups(having) : having.map((run) => [run]);
  const labels = CHART.isGrouped ? labelsOf(groups.map((group) => group[0]), { withoutSeed: true }) : labelsOf(having);
  return groups.map((group, position) => {
    const raw = meanCurve(group.map((run) => RUNS[run].curves[index]));
    const values = CHART.smoothing ? smoothed(raw.values, CHART.smoothing) : raw.values;
    const label = group.length > 1 ? `${labels[position]} (mean of ${group.length} seeds)` : labels[position];
    return { key: `${CHART.isGrouped ? "g" : "r"}${group[0]}`, label, style: styles.get(group[0]), raw, curve: { ...raw, values },
      undefinedPoints: group.reduce((sum, run) => sum + RUNS[run].curves[index].undefinedPoints, 0) };
  }).filter((one) => one.raw.steps.length > 0);
}

function niceTicks(low, high, count) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const ticks = [];
  for (let number = Math.ceil(low / step - 1e-9); number * step <= high + step * 1e-9; number += 1) ticks.push(Number((number * step).toPrecision(12)));
  return ticks;
}

function logTicks(low, high) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const parts = last - first > 3 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = first; power <= last; power += Math.max(1, Math.ceil((last - first) / 8))) {
    for (const part of parts) ticks.push(part * 10 ** power);
  }
  const inside = ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  return inside.length >= 3 ? inside : niceTicks(low, high, 5).filter((tick) => tick > 0);
}

function tickTexts(ticks, isLog) {
  if (isLog) return ticks.map(plainNumber);
  const step = ticks.length > 1 ? Math.abs(ticks[1] - ticks[0]) : 1;
  const most = Math.max(...ticks.map(Math.abs));
  if (most >= 1e5 || (most > 0 && most < 1e-3)) return ticks.map(plainNumber);
  const decimals = Math.min(8, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (/^2\.?5/.test((step / 10 ** Math.floor(Math.log10(step))).toFixed(2)) ? 1 : 0)));
  return ticks.map((tick) => grouped(tick, decimals));
}

function extent(series, isLog) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { curve, raw } of series) {
    for (const values of [curve.values, raw.low, raw.high, CHART.smoothing ? raw.values : null]) {
      if (!values) continue;
      values.forEach((value, index) => {
        [x0, x1] = [Math.min(x0, curve.steps[index]), Math.max(x1, curve.steps[index])];
        if (value !== null && (!isLog || value > 0)) [y0, y1] = [Math.min(y0, value), Math.max(y1, value)];
      });
    }
  }
  return { x0, x1, y0, y1 };
}

function drawChart() {
  const place = byId("chart");
  const index = DATA.curves.indexOf(CHART.metric);
  const all = index < 0 ? [] : chartSeries(index);
  CHART.series = all.filter((one) => !CHART.hidden.has(one.key));
  drawLegend(all);
  CHART.at = null;
  const box = extent(CHART.series, CHART.isLog);
  if (!Number.isFinite(box.y0)) {
    place.replaceChildren(h("p", { class: "empty" }, STATE.selected.size ? `No selected run has a drawable curve of ${CHART.metric}.` : "Select runs in the table to see their curves."));
    byId("chart-note").textContent = "";
    return;
  }
  const width = CHART.width || Math.max(480, place.clientWidth - 14);
  CHART.frame = frameOf(box, width);
  const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": `${CHART.metric} by step, ${counted(CHART.series.length, "line")}` });
  svg.append(axes(CHART.frame), ...CHART.series.map((one) => lineGroup(one, CHART.frame)), s("g", { id: "cursor" }));
  place.replaceChildren(svg, h("div", { class: "readout hidden", id: "readout" }));
  byId("chart-note").textContent = chartNote(all);
}

function frameOf({ x0, x1, y0, y1 }, width) {
  const isLog = CHART.isLog;
  if (y0 === y1) [y0, y1] = isLog ? [y0 / 2, y1 * 2] : [y0 - (Math.abs(y0) * 0.05 || 1), y1 + (Math.abs(y1) * 0.05 || 1)];
  const pad = isLog ? 0 : (y1 - y0) * 0.04;
  if (!isLog) [y0, y1] = [y0 >= 0 && y0 - pad < 0 ? 0 : y0 - pad, y1 + pad];
  const yTicks = isLog ? logTicks(y0, y1) : niceTicks(y0, y1, 6);
  const yTexts = tickTexts(yTicks, isLog);
  const left = 18 + Math.max(...yTexts.map((text) => text.length)) * 7.2;
  const [right, top, bottom] = [width - 22, 30, HEIGHT - 42];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  const xTicks = niceTicks(x0, x1, Math.max(2, Math.floor((right - left) / 110))).filter(Number.isInteger);
  const scaled = isLog ? Math.log : (value) => value;
  return {
    left, right, top, bottom, xTicks, yTicks, yTexts, xTexts: tickTexts(xTicks, false),
    x: (step) => left + ((step - x0) / (x1 - x0)) * (right - left),
    y: (value) => bottom - ((scaled(value) - scaled(y0)) / (scaled(y1) - scaled(y0))) * (bottom - top),
  };
}

function axes(frame) {
  const group = s("g", {});
  frame.yTicks.forEach((tick, index) => {
    const y = frame.y(tick).toFixed(1);
    group.append(s("line", { x1: frame.left, x2: frame.right, y1: y, y2: y, class: "grid" }),
      s("text", { x: frame.left - 8, y: Number(y) + 4, "text-anchor": "end" }, frame.yTexts[index]));
  });
  frame.xTicks.forEach((tick, index) => {
    const x = frame.x(tick).toFixed(1);
    group.append(s("line", { x1: x, x2: x, y1: frame.bottom, y2: frame.bottom + 5, class: "axis" }),
      s("text", { x, y: frame.bottom + 19, "text-anchor": "middle" }, frame.xTexts[index]));
  });
  group.append(s("line", { x1: frame.left, x2: frame.right, y1: frame.bottom, y2: frame.bottom, class: "axis" }),
    s("text", { x: (frame.left + frame.right) / 2, y: HEIGHT - 6, "text-anchor": "middle", class: "axis-name" }, "step"),
    s("text", { x: 10, y: 16, class: "axis-name" }, CHART.metric + (CHART.isLog ? ", log scale" : "")));
  return group;
}

const isDrawable = (value) => value !== null && (!CHART.isLog || value > 0);

function pathOf(steps, values, frame) {
  let path = "";
  let isOpen = false;
  values.forEach((value, index) => {
    if (isDrawable(value)) path += `${isOpen ? "L" : "M"}${frame.x(steps[index]).toFixed(1)} ${frame.y(value).toFixed(1)}`;
    isOpen = isDrawable(value);
  });
  return path;
}

function bandOf(curve, frame) {
  const at = curve.steps.map((_, index) => index).filter((index) => isDrawable(curve.low[index]) && isDrawable(curve.high[index]));
  const point = (values) => (index) => `${frame.x(curve.steps[index]).toFixed(1)} ${frame.y(values[index]).toFixed(1)}`;
  return at.length ? `M${at.map(point(curve.high)).join("L")}L${at.reverse().map(point(curve.low)).join("L")}Z` : "";
}

function lineGroup({ key, curve, raw, style }, frame) {
  const group = s("g", { class: `series c${style.colour}`, "data-series": key });
  if (raw.low) group.append(s("path", { d: bandOf(raw, frame), class: "band fill" }));
  if (CHART.smoothing) group.append(s("path", { d: pathOf(raw.steps, raw.values, frame), class: "raw stroke" }));
  group.append(s("path", { d: pathOf(curve.steps, curve.values, frame), class: "line stroke", "stroke-dasharray": style.dash || null }));
  const points = curve.steps.map((_, index) => index).filter((index) => isDrawable(curve.values[index]));
  const stride = Math.max(1, Math.ceil(points.length / MARKERS_A_LINE));
  const offset = points.length > MARKERS_A_LINE ? Math.floor((style.colour / NUM_COLOURS) * stride) : 0;
  for (let position = offset; position < points.length; position += stride) {
    const index = points[position];
    group.append(markerShape(style.marker, frame.x(curve.steps[index]), frame.y(curve.values[index]), 3.6, "marker"));
  }
  curve.values.forEach((value, index) => {
    if (value === null) group.append(markerShape("cross", frame.x(curve.steps[index]), frame.bottom - 5, 3.5, "stroke"));
  });
  return group;
}

function chartNote(series) {
  const undefinedPoints = series.reduce((sum, one) => sum + one.undefinedPoints, 0);
  const below = CHART.isLog ? series.reduce((sum, { curve }) => sum + curve.values.filter((value) => value !== null && value <= 0).length, 0) : 0;
  const having = selectedRuns().filter((run) => RUNS[run].curves?.[DATA.curves.indexOf(CHART.metric)]);
  const drawn = selectedStyles();
  const left = having.filter((run) => !drawn.has(run)).length;
  return [
    CHART.isGrouped ? "Lines are means over runs that differ only in the seed, where all of them have points; bands reach from the lowest to the highest run." : "",
    CHART.smoothing ? `Smoothed (exponential mean, ${CHART.smoothing}); the thin line is as recorded.` : "",
    undefinedPoints ? `${counted(undefinedPoints, "point")} without a value (not a number), marked by a cross at the foot.` : "",
    below ? `${counted(below, "point")} at or below zero cannot stand on a log scale.` : "",
    left ? `Only the first ${MAX_SERIES} lines can be told apart and are drawn; ${left} more selected.` : "",
  ].filter(Boolean).join(" ");
}

function drawLegend(all) {
  byId("legend").replaceChildren(...all.map((one) => h("li", {}, h("button", {
    type: "button", "aria-pressed": String(!CHART.hidden.has(one.key)), title: "show or hide this line",
    onclick: () => {
      if (CHART.hidden.has(one.key)) CHART.hidden.delete(one.key);
      else CHART.hidden.add(one.key);
      const position = all.indexOf(one);
      drawChart();
      byId("legend").querySelectorAll("button")[position]?.focus();
    },
    onmouseenter: () => highlight(one.key), onmouseleave: () => highlight(null), onfocus: () => highlight(one.key), onblur: () => highlight(null),
  }, swatch(one.style), h("bdi", {}, one.label)))));
}

function highlight(key) {
  for (const group of byId("chart").querySelectorAll(".series")) group.classList.toggle("faded", key !== null && group.dataset.series !== key);
}

function readOut(position, index) {
  const one = CHART.series[position];
  CHART.at = { position, index };
  const x = CHART.frame.x(one.curve.steps[index]);
  const y = CHART.frame.y(one.curve.values[index]);
  byId("cursor").replaceChildren(s("g", { class: `c${one.style.colour}` }, s("circle", { cx: x, cy: y, r: 5.5, class: "cursor" })));
  const box = byId("readout");
  const value = one.curve.values[index];
  const text = `step ${grouped(one.curve.steps[index], 0)}: ${Math.abs(value) >= 1e-4 && Math.abs(value) < 1e5 ? trimmed(value.toPrecision(5)) : plainNumber(value)}`;
  const range = one.raw.low && one.raw.low[index] !== null ? ` (${plainNumber(one.raw.low[index])} \u2013 ${plainNumber(one.raw.high[index])})` : "";
  box.replaceChildren(h("strong", {}, text), range, h("br"), h("bdi", {}, clipped(one.label, 120)));
  box.classList.remove("hidden");
  const place = byId("chart");
  const share = place.querySelector("svg").clientWidth / Number(place.querySelector("svg").getAttribute("width"));
  const isRight = x * share > place.clientWidth * 0.6;
  box.style.left = isRight ? "auto" : `${x * share + 22}px`;
  box.style.right = isRight ? `${place.clientWidth - x * share + 6}px` : "auto";
  box.style.top = `${Math.max(4, y * share - 12)}px`;
}

function hideReadOut() {
  byId("readout")?.classList.add("hidden");
  byId("cursor")?.replaceChildren();
}

function hover(event) {
  const svg = byId("chart").querySelector("svg");
  if (!svg || !CHART.series.length) return;
  const place = svg.getBoundingClientRect();
  const share = Number(svg.getAttribute("width")) / place.width;
  const [x, y] = [(event.clientX - place.left) * share, (event.clientY - place.top) * share];
  let best = null;
  let nearest = Infinity;
  CHART.series.forEach(({ curve }, position) => curve.values.forEach((value, index) => {
    if (!isDrawable(value)) return;
    const distance = ((CHART.frame.x(curve.steps[index]) - x) * 1.5) ** 2 + (CHART.frame.y(value) - y) ** 2;
    if (distance < nearest) [nearest, best] = [distance, [position, index]];
  }));
  if (best) readOut(...best);
}

function steer(event) {
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  if (event.key === "Escape") hideReadOut();
  if (!moves[event.key] || !CHART.series.length) return;
  event.preventDefault();
  const [dp, di] = moves[event.key];
  const from = CHART.at || { position: 0, index: di < 0 ? Infinity : -1 };
  const position = (from.position + dp + CHART.series.length) % CHART.series.length;
  const { steps, values } = CHART.series[position].curve;
  const start = dp && CHART.at ? nearestIndex(steps, CHART.series[from.position].curve.steps[from.index]) : from.index === Infinity ? steps.length : from.index;
  let index = Math.min(Math.max(start + di, 0), steps.length - 1);
  while (di && !isDrawable(values[index]) && index + di >= 0 && index + di < steps.length) index += di;
  if (isDrawable(values[index])) readOut(position, index);
}

function nearestIndex(steps, step) {
  let best = 0;
  steps.forEach((one, index) => { if (Math.abs(one - step) < Math.abs(steps[best] - step)) best = index; });
  return best;
}

function curvesSection() {
  if (!DATA.curves.length) return null;
  const first = ["val/loss", "train/loss", "val/ppl"].find((name) => DATA.curves.includes(name));
  CHART.metric = first || DATA.curves[0];
  if (CHART.metric === "val/loss" && !RUNS.some((run) => run.curves?.[DATA.curves.indexOf("val/loss")]?.values.length > 2) && DATA.curves.includes("train/loss")) CHART.metric = "train/loss";
  const option = (value, text) => h("option", { value, selected: value === CHART.metric }, text);
  const toggle = (id, text, set) => h("label", {}, h("input", { type: "checkbox", id, onchange: (event) => { set(event.target.checked); } }), " ", text);
  const place = h("div", { class: "chart", id: "chart", tabindex: "0", role: "group", "aria-describedby": "chart-help",
    "aria-label": "Chart of learning curves", onmousemove: hover, onmouseleave: hideReadOut, onkeydown: steer, onblur: hideReadOut });
  const hasSeeds = seedGroups(RUNS.map((_, run) => run)).some((group) => group.length > 1);
  return h("section", { id: "curves", "aria-labelledby": "curves-title" },
    h("div", { class: "heading" }, h("h2", { id: "curves-title" }, "Learning curves"), h("p", { class: "quiet small" }, "selected runs, by optimizer step")),
    h("div", { class: "tools" },
      h("label", { for: "curve-metric" }, "Metric"),
      h("select", { id: "curve-metric", onchange: (event) => { CHART.metric = event.target.value; drawChart(); } }, DATA.curves.map((name) => option(name, name))),
      toggle("log", "log scale", (isOn) => { CHART.isLog = isOn; drawChart(); }),
      hasSeeds ? toggle("group", "mean over seeds", (isOn) => { CHART.isGrouped = isOn; CHART.hidden.clear(); selectionChanged(); }) : null,
      h("label", { for: "smoothing" }, "Smoothing"),
      h("select", { id: "smoothing", onchange: (event) => { CHART.smoothing = Number(event.target.value); drawChart(); } },
        [[0, "none"], [0.6, "0.6"], [0.9, "0.9"], [0.98, "0.98"]].map(([value, text]) => h("option", { value }, text)))),
    place, h("ul", { class: "legend", id: "legend" }), h("p", { class: "caption", id: "chart-note" }),
    h("p", { class: "caption no-print", id: "chart-help" }, "Point at the chart, or focus it and use the arrow keys, to read values; a click in the legend hides a line."),
  );
}
