// Puts the page together and keeps it in step with the choice of runs.

const MAX_PROBLEMS = 200;
const DRAWN = [];

function drawHeader() {
  byId("title").textContent = shown(DATA.title);
  const studies = new Set(RUNS.map((run) => run.study).filter(Boolean)).size;
  byId("about").textContent = [`${counted(RUNS.length, "run")}${studies > 1 ? ` in ${studies} studies` : ""}`, `read from ${shown(DATA.root)}`, `made ${moment(DATA.made)}`, `Athlos ${shown(DATA.version)}`].join(" \u00b7 ");
  const states = new Map();
  for (const run of RUNS) states.set(run.state, (states.get(run.state) || 0) + 1);
  byId("states").replaceChildren(...[...states].sort((one, other) => other[1] - one[1]).slice(0, 8).map(([state, number]) => h("button", {
    type: "button", class: "chip", title: "show only these", onclick: () => {
      const wanted = `state="${state}"`;
      STATE.filter = byId("filter").value = STATE.filter === wanted ? "" : wanted;
      applyFilter();
    },
  }, `${grouped(number, 0)} ${clipped(state, 30)}`)));
  const problems = RUNS.filter((run) => run.problems);
  const notes = DATA.notes.map((note) => h("p", { class: "notice" }, note));
  if (problems.length) {
    notes.unshift(h("details", { class: "notice" }, h("summary", {}, `${counted(problems.length, "run")} with problems`), h("ul", {}, problems.slice(0, MAX_PROBLEMS).map((run) => h("li", {}, h("bdi", {}, run.name), ": ", run.problems.join("; ")))),
      problems.length > MAX_PROBLEMS ? h("p", {}, `and ${problems.length - MAX_PROBLEMS} more`) : null));
  }
  byId("notes").replaceChildren(...notes);
}

function drawSelection() {
  const runs = selectedRuns();
  for (const draw of DRAWN) draw(runs);
}

function build() {
  buildColumns();
  defaultColumns();
  const finished = RUNS.map((_, run) => run).filter((run) => RUNS[run].state === "finished");
  STATE.selected = new Set((finished.length ? finished : RUNS.map((_, run) => run)));
  if (STATE.selected.size > MAX_ALL_SELECTED) STATE.selected = new Set([...STATE.selected].slice(0, DEFAULT_SELECTED));
  const hasSeeds = seedGroups(RUNS.map((_, run) => run)).some((group) => group.length > 1);
  const parts = [
    [runsSection(), null, "Runs"],
    [RUNS.length > 1 ? section("differences", "Config differences", "selected runs", h("div", { id: "differences-body" })) : null, drawDifferences, "Config"],
    [hasSeeds ? section("seeds", "Means over seeds", "selected runs", h("div", { id: "seeds-body" })) : null, drawSeeds, "Seeds"],
    [curvesSection(), () => drawChart(), "Curves"],
    [COSTS.some(([name]) => METRIC_AT.has(name)) ? section("cost", "Cost", "selected runs", h("div", { id: "cost-body" })) : null, drawCost, "Cost"],
    [languagesSection(), drawLanguages, "Languages"],
    [RUNS.some((run) => run.predictions) ? section("predictions", "Predictions", "selected runs", h("div", { id: "predictions-body" })) : null, () => drawPredictions(), "Predictions"],
    [DATA.figures.length ? section("figures", "Figures", "logged by the selected runs", h("div", { id: "figures-body" })) : null, drawFigures, "Figures"],
    [DATA.claims.length ? section("claims", "Claims", "what the papers say, beside what these runs show", claimsTable("Claims", DATA.claims, "From the runs of this page alone; `athlos claims --runs FOLDER` joins the committed ones and says where each number comes from.")) : null, null, "Claims"],
    [DATA.committed.length ? section("committed", "Claims, from committed records", "runs of other days, not of this page", claimsTable("Claims, from committed records", DATA.committed, "From experiments/*/records.jsonl.gz, which no run of this page has changed; `athlos claims` prints the same with the command of each run.")) : null, null, "Records"],
    [section("provenance", "Provenance", "where the numbers of the selected runs come from, and how to get them again", h("div", { id: "provenance-body" })), drawProvenance, "Provenance"],
  ];
  for (const [element, draw, name] of parts) {
    if (!element) continue;
    byId("main").append(element);
    byId("nav").append(h("a", { href: `#${element.id}` }, name));
    if (draw) DRAWN.push(draw);
  }
  byId("nav").append(h("span", { class: "count", id: "selected-count", role: "status" }));
  drawHeader();
  applyFilter();
  drawSelection();
}

build();

let width = 0;
new ResizeObserver(() => {
  const place = byId("chart");
  if (place && place.clientWidth !== width) {
    width = place.clientWidth;
    drawChart();
  }
}).observe(document.body);

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (byId("chart")) drawChart(); });

// On paper the details stand open, and the table shows what a reader may want of it.
const MAX_PRINTED_ROWS = 300;
const PRINTED_WIDTH = 1000; // pixels of A4 landscape within its margins
let closed = [];
addEventListener("beforeprint", () => {
  document.documentElement.classList.add("paper");
  closed = [...document.querySelectorAll("details.run, details.notice")].filter((one) => !one.open);
  for (const one of closed) {
    if (one.unfold) one.unfold();
    else one.open = true;
  }
  STATE.rows = Math.max(STATE.rows, MAX_PRINTED_ROWS);
  CHART.width = PRINTED_WIDTH;
  drawTable();
  if (byId("chart")) drawChart();
});
addEventListener("afterprint", () => {
  document.documentElement.classList.remove("paper");
  for (const one of closed) one.open = false;
  STATE.rows = ROWS_AT_ONCE;
  CHART.width = null;
  drawTable();
  if (byId("chart")) drawChart();
});
