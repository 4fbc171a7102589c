// Learning curves: lines from selected runs, drawn by uPlot; a read-out, a legend.

const DASHES = [[], [8, 3], [2, 2.5], [10, 3, 2, 3], [16, 4]];
const NUM_COLOURS = 7;
const MAX_SERIES = 35;
const HEIGHT = 360;
const STEPS_APART = [1, 2, 5].flatMap((one) => [...Array(15).keys()].map((power) => one * 10 ** power)).sort((a, b) => a - b);

const CHART = {
  metric: null, isLog: false, smoothing: 0, isGrouped: false, hidden: new Set(), width: null,
  lines: [], plot: null, nearest: null, wanted: null, at: null,
};

const styleAt = (index) => ({ colour: index % NUM_COLOURS, dash: DASHES[index % DASHES.length] });
const colourOf = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function selectedRuns() {
  return [...STATE.selected].sort((one, other) => one - other);
}

/** Selected runs with a curve of the chosen metric. */
function drawnRuns() {
  const index = DATA.curves.indexOf(CHART.metric);
  return selectedRuns().filter((run) => RUNS[run].curves?.[index]);
}

/** Run -> the look of its line, for as many runs as can be told apart. */
function selectedStyles() {
  const groups = CHART.isGrouped ? seedGroups(drawnRuns()) : drawnRuns().map((run) => [run]);
  return new Map(groups.slice(0, MAX_SERIES).flatMap((group, index) => group.map((run) => [run, styleAt(index)])));
}

function swatch(style) {
  return s("svg", { class: "swatch", viewBox: "0 0 30 12", "aria-hidden": "true" },
    s("line", { x1: 0, y1: 6, x2: 30, y2: 6, class: `c${style.colour}`, "stroke-dasharray": style.dash.join(" ") || null }));
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

function chartLines(index) {
  const styles = selectedStyles();
  const having = drawnRuns().filter((run) => styles.has(run));
  const groups = CHART.isGrouped ? seedGroups(having) : having.map((run) => [run]);
  const labels = CHART.isGrouped ? labelsOf(groups.map((group) => group[0]), { withoutSeed: true }) : labelsOf(having);
  return groups.map((group, position) => {
    const raw = meanCurve(group.map((run) => RUNS[run].curves[index]));
    const values = CHART.smoothing ? smoothed(raw.values, CHART.smoothing) : raw.values;
    const label = group.length > 1 ? `${labels[position]} (mean of ${group.length} seeds)` : labels[position];
    return { key: `${CHART.isGrouped ? "g" : "r"}${group[0]}`, label, style: styles.get(group[0]), raw, curve: { ...raw, values },
      undefinedPoints: group.reduce((sum, run) => sum + RUNS[run].curves[index].undefinedPoints, 0) };
  }).filter((line) => line.raw.steps.length > 0);
}

const isDrawable = (value) => value !== null && (!CHART.isLog || value > 0);

function drawChart() {
  const place = byId("chart");
  CHART.plot?.destroy();
  CHART.plot = CHART.at = null;
  const index = DATA.curves.indexOf(CHART.metric);
  const all = index < 0 ? [] : chartLines(index);
  CHART.lines = all.filter((line) => !CHART.hidden.has(line.key) && line.curve.values.some(isDrawable));
  drawLegend(all);
  byId("chart-note").textContent = CHART.lines.length ? chartNote(all) : "";
  if (!CHART.lines.length) {
    place.replaceChildren(h("p", { class: "empty" }, STATE.selected.size ? `No selected run has a drawable curve of ${CHART.metric}.` : "Select runs in the table to see their curves."));
    return;
  }
  const { columns, series, bands } = plotted();
  place.replaceChildren(h("p", { class: "axis-name" }, CHART.metric + (CHART.isLog ? ", log scale" : "")));
  const plot = new uPlot(chartOptions(CHART.width || place.clientWidth - 12, series, bands), columns, place);
  plot.root.setAttribute("role", "img");
  plot.root.setAttribute("aria-label", shown(`${CHART.metric} by step, ${counted(CHART.lines.length, "line")}`));
  plot.over.append(h("div", { class: "readout hidden", id: "readout" }));
  CHART.plot = plot;
}

/** What uPlot takes: values over all steps, the looks of its series, bands between two of them. A line knows its series. */
function plotted() {
  const [tables, series, bands] = [[], [{}], []];
  for (const line of CHART.lines) {
    const stroke = colourOf(`s${line.style.colour}`);
    const edge = { stroke: "transparent", width: 0, points: { show: false } };
    line.at = series.length;
    const values = [line.curve.values];
    series.push({ stroke, width: 2, dash: line.style.dash, points: { fill: colourOf("ground") } });
    if (line.raw.low) {
      bands.push({ series: [line.at + 1, line.at + 2], fill: `${stroke}2e` });
      values.push(line.raw.high, line.raw.low);
      series.push(edge, edge);
    }
    if (CHART.smoothing) {
      values.push(line.raw.values);
      series.push({ stroke: `${stroke}59`, width: 1, points: { show: false } });
    }
    tables.push([line.curve.steps, ...values.map((column) => column.map((value) => (isDrawable(value) ? value : null)))]);
  }
  return { columns: uPlot.join(tables), series, bands };
}

function chartOptions(width, series, bands) {
  const font = `12px ${getComputedStyle(document.body).fontFamily}`;
  const lines = { stroke: colourOf("line"), width: 1 };
  const texts = (plot, splits) => splits.map((value) => (value === null ? "" : plainNumber(Number(value.toPrecision(12)))));
  const isPower = (value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;
  const ruled = (plot, splits) => (CHART.isLog && splits.length > 12 ? splits.map((value) => (isPower(value) ? value : null)) : splits);
  const axis = { stroke: colourOf("quiet"), font, labelFont: font, grid: { ...lines, filter: ruled }, ticks: { ...lines, size: 5, filter: ruled }, values: texts };
  const isLine = new Set(CHART.lines.map((line) => line.at));
  const wide = (low, high) => (low === high ? [low - 1, high + 1] : [low, high]);
  return {
    width, height: HEIGHT, series, bands, legend: { show: false }, focus: { alpha: 0.25 }, padding: [10, 26, 0, 0],
    scales: {
      x: { time: false, range: (plot, low, high) => wide(low, high) },
      y: CHART.isLog ? { distr: 3, range: (plot, low, high) => uPlot.rangeLog(low, high, 10, false) } : {},
    },
    axes: [
      { ...axis, grid: { show: false }, ticks: { ...lines, size: 5 }, space: 80, incrs: STEPS_APART, size: 30, label: "step", labelSize: 20 },
      { ...axis, size: (plot, found) => 18 + 7.2 * Math.max(1, ...(found || []).map((text) => text.length)) },
    ],
    cursor: {
      y: false, drag: { x: false, y: false }, hover: { skip: [undefined, null] },
      points: { one: true, size: 11, width: 2, fill: (plot, at) => plot.series[at].stroke(), stroke: colourOf("ground") },
      // The nearest line at the pointer's step; by keyboard, the one that was asked for.
      focus: { prox: 1e6, dist: (plot, at, index, y, pointer) => (CHART.wanted === null ? (isLine.has(at) ? y - pointer : Infinity) : at === CHART.wanted ? 0 : Infinity) },
    },
    hooks: { setSeries: [(plot, at) => { CHART.nearest = at; }], setCursor: [readOut] },
  };
}

function chartNote(lines) {
  const undefinedPoints = lines.reduce((sum, line) => sum + line.undefinedPoints, 0);
  const below = CHART.isLog ? lines.reduce((sum, { curve }) => sum + curve.values.filter((value) => value !== null && value <= 0).length, 0) : 0;
  const left = drawnRuns().length - selectedStyles().size;
  return [
    CHART.isGrouped ? "Lines are means over runs that differ only in the seed, where all of them have points; bands reach from the lowest to the highest run." : "",
    CHART.smoothing ? `Smoothed (exponential mean, ${CHART.smoothing}); the thin line is as recorded.` : "",
    undefinedPoints ? `${counted(undefinedPoints, "point")} without a value (not a number): the line has a gap there.` : "",
    below ? `${counted(below, "point")} at or below zero cannot stand on a log scale.` : "",
    left ? `Only the first ${MAX_SERIES} lines can be told apart and are drawn; ${left} more selected.` : "",
  ].filter(Boolean).join(" ");
}

function drawLegend(all) {
  byId("legend").replaceChildren(...all.map((line) => h("li", {}, h("button", {
    type: "button", "aria-pressed": String(!CHART.hidden.has(line.key)), title: "show or hide this line",
    onclick: () => {
      if (CHART.hidden.has(line.key)) CHART.hidden.delete(line.key);
      else CHART.hidden.add(line.key);
      const position = all.indexOf(line);
      drawChart();
      byId("legend").querySelectorAll("button")[position]?.focus();
    },
    onmouseenter: () => highlight(line), onmouseleave: () => highlight(null), onfocus: () => highlight(line), onblur: () => highlight(null),
  }, swatch(line.style), h("bdi", {}, line.label)))));
}

function highlight(line) {
  CHART.plot?.setSeries(CHART.lines.includes(line) ? line.at : null, { focus: true });
}

/** Show the value under the cursor beside its point; nothing when the cursor is away. */
function readOut(plot) {
  const box = byId("readout");
  const position = CHART.lines.findIndex((line) => line.at === CHART.nearest);
  const index = plot.cursor.idxs[CHART.nearest];
  CHART.at = plot.cursor.left < 0 || position < 0 || typeof index !== "number" ? null : { position, index };
  box.classList.toggle("hidden", CHART.at === null);
  if (CHART.at === null) return;
  const line = CHART.lines[position];
  const [step, value] = [plot.data[0][index], plot.data[line.at][index]];
  const text = `step ${grouped(step, 0)}: ${Math.abs(value) >= 1e-4 && Math.abs(value) < 1e5 ? trimmed(value.toPrecision(5)) : plainNumber(value)}`;
  const [high, low] = line.raw.low ? [plot.data[line.at + 1][index], plot.data[line.at + 2][index]] : [];
  box.replaceChildren(h("strong", {}, text), typeof low === "number" ? ` (${plainNumber(low)} \u2013 ${plainNumber(high)})` : "", h("br"), h("bdi", {}, clipped(line.label, 120)));
  const [x, y, width] = [plot.valToPos(step, "x"), plot.valToPos(value, "y"), plot.over.clientWidth];
  const isRight = x > width * 0.6;
  box.style.left = isRight ? "auto" : `${x + 16}px`;
  box.style.right = isRight ? `${width - x + 16}px` : "auto";
  box.style.top = `${Math.max(4, y - 12)}px`;
}

const hideReadOut = () => CHART.plot?.setCursor({ left: -10, top: -10 });

/** Arrow keys: along a line, or to the next line at the same step. */
function steer(event) {
  const moves = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  if (event.key === "Escape") hideReadOut();
  if (!moves[event.key] || !CHART.plot) return;
  event.preventDefault();
  const [byLine, byPoint] = moves[event.key];
  const from = CHART.at;
  const line = CHART.lines[from ? (from.position + byLine + CHART.lines.length) % CHART.lines.length : 0];
  const [steps, values] = [CHART.plot.data[0], CHART.plot.data[line.at]];
  const known = steps.map((_, index) => index).filter((index) => typeof values[index] === "number");
  const start = from ? nearestIndex(known.map((index) => steps[index]), steps[from.index]) + byPoint : byPoint < 0 ? known.length : 0;
  const index = known[Math.min(Math.max(start, 0), known.length - 1)];
  CHART.wanted = line.at;
  CHART.plot.setCursor({ left: CHART.plot.valToPos(steps[index], "x"), top: CHART.plot.valToPos(values[index], "y") });
  CHART.wanted = null;
}

function nearestIndex(steps, step) {
  let best = 0;
  steps.forEach((one, index) => { if (Math.abs(one - step) < Math.abs(steps[best] - step)) best = index; });
  return best;
}

function curvesSection() {
  if (!DATA.curves.length) return null;
  const points = (name) => Math.max(0, ...selectedRuns().map((run) => RUNS[run].curves?.[DATA.curves.indexOf(name)]?.values.length || 0));
  CHART.metric = ["val/loss", "train/loss", "val/ppl", ...DATA.curves].find((name) => points(name) > 2) || DATA.curves[0];
  const option = (value, text) => h("option", { value, selected: value === CHART.metric }, text);
  const toggle = (id, text, set) => h("label", {}, h("input", { type: "checkbox", id, onchange: (event) => { set(event.target.checked); } }), " ", text);
  const place = h("div", { class: "chart", id: "chart", tabindex: "0", role: "group", "aria-describedby": "chart-help",
    "aria-label": "Chart of learning curves", onkeydown: steer, onblur: hideReadOut });
  const hasSeeds = seedGroups(RUNS.map((_, run) => run)).some((group) => group.length > 1);
  return h("section", { id: "curves", "aria-labelledby": "curves-title" },
    h("div", { class: "heading" }, h("h2", { id: "curves-title" }, "Learning curves"), h("p", { class: "quiet small" }, "selected runs, by optimizer step")),
    h("div", { class: "tools" },
      h("span", { class: "pair" }, h("label", { for: "curve-metric" }, "Metric"), h("select", { id: "curve-metric", onchange: (event) => { CHART.metric = event.target.value; markRows(); drawChart(); } }, DATA.curves.map((name) => option(name, name)))),
      toggle("log", "log scale", (isOn) => { CHART.isLog = isOn; drawChart(); }),
      hasSeeds ? toggle("group", "mean over seeds", (isOn) => { CHART.isGrouped = isOn; CHART.hidden.clear(); selectionChanged(); }) : null,
      h("span", { class: "pair" }, h("label", { for: "smoothing" }, "Smoothing"), h("select", { id: "smoothing", onchange: (event) => { CHART.smoothing = Number(event.target.value); drawChart(); } },
        [[0, "none"], [0.6, "0.6"], [0.9, "0.9"], [0.98, "0.98"]].map(([value, text]) => h("option", { value }, text))))),
    place, h("ul", { class: "legend", id: "legend" }), h("p", { class: "caption", id: "chart-note" }),
    h("p", { class: "caption no-print", id: "chart-help" }, "Point at the chart, or focus it and use the arrow keys, to read values; a click in the legend hides a line."),
  );
}
