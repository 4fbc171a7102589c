// What stands below the table, for the selected runs: config differences, seed means, cost, languages, figures, provenance.

const MAX_DIFFERENCE_RUNS = 8;
const MAX_BARS = 60;
const MAX_HEAT_ROWS = 60;
const MAX_DETAILS = 60;
const HEAT = ["#f7fbff", "#e3eef8", "#cfe1f2", "#b5d4e9", "#93c3df", "#6dafd7", "#4b97c9", "#2a74b0", "#1864aa", "#0a4a90", "#08306b"];
const HEAT_DARK_FROM = 7; // white text from here on: at least 4.5 to 1 on either side

const LANGUAGE = { metric: null };

function section(id, title, about, ...children) {
  return h("section", { id, "aria-labelledby": `${id}-title` },
    h("div", { class: "heading" }, h("h2", { id: `${id}-title` }, title), about ? h("p", { class: "quiet small" }, about) : null), ...children);
}

const empty = (text) => h("p", { class: "empty" }, text);
const cut = (runs, most, place) => (runs.length > most ? h("p", { class: "caption" }, `The first ${most} of ${grouped(runs.length, 0)} selected runs are shown ${place}.`) : null);
const rowHead = (label, run) => h("th", { scope: "row", class: "first" }, h("span", { class: "value", title: RUNS[run].name }, h("bdi", {}, label)));

function drawDifferences(runs) {
  const place = byId("differences-body");
  if (runs.length < 2) return place.replaceChildren(empty("Select two or more runs to see where their configs differ."));
  const keys = differingKeys(runs);
  const unread = runs.filter((run) => RUNS[run].unread).length;
  if (!keys.length) return place.replaceChildren(empty("The selected runs have equal configs, apart from where and how they are recorded."));
  const table = runs.length <= MAX_DIFFERENCE_RUNS ? differencesByRun(runs, keys) : differencesByValue(runs, keys);
  return place.replaceChildren(h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Config differences" }, table),
    unread ? h("p", { class: "caption" }, `${counted(unread, "run")} without a readable config, not compared.`) : "");
}

function differencesByRun(runs, keys) {
  const labels = labelsOf(runs);
  const rows = keys.map((key) => {
    const values = runs.map((run) => configValue(run, key));
    return h("tr", {}, h("th", { scope: "row", class: "first mono" }, key), values.map((value) => h("td", { class: value === undefined ? "absent" : "" },
      h("span", { class: "value", title: clipped(configText(value), 1000) }, h("bdi", {}, clipped(configText(value), 160))))));
  });
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "first" }, "key"), runs.map((run, index) => h("th", { scope: "col" },
    h("span", { class: "value", title: RUNS[run].name }, h("bdi", {}, labels[index])))))), h("tbody", {}, rows));
}

function differencesByValue(runs, keys) {
  const rows = keys.map((key) => {
    const number = new Map();
    for (const run of runs) {
      const text = configText(configValue(run, key));
      number.set(text, (number.get(text) || 0) + 1);
    }
    const parts = [...number].sort(([one], [other]) => one.localeCompare(other, "en", { numeric: true })).slice(0, 12);
    const rest = number.size - parts.length;
    return h("tr", {}, h("th", { scope: "row", class: "first mono" }, key), h("td", {}, counted(number.size, "value")),
      h("td", {}, parts.map(([text, times], index) => [index ? ", " : "", h("bdi", {}, clipped(text, 60)), h("span", { class: "quiet" }, ` \u00d7${times}`)]), rest > 0 ? ` and ${rest} more` : ""));
  });
  return h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "first" }, "key"), h("th", { scope: "col" }, "distinct"), h("th", { scope: "col" }, "values and number of runs"))), h("tbody", {}, rows));
}

function drawSeeds(runs) {
  const place = byId("seeds-body");
  const groups = seedGroups(runs.filter((run) => RUNS[run].state === "finished"));
  if (!groups.some((group) => group.length > 1)) return place.replaceChildren(empty("No two of the selected finished runs differ only in the seed."));
  const metrics = COLUMNS.filter((column) => column.metric !== undefined && STATE.columns.has(column.id));
  const labels = labelsOf(groups.map((group) => group[0]), { withoutSeed: true });
  const rows = groups.slice(0, MAX_HEAT_ROWS).map((group, index) => h("tr", {}, rowHead(labels[index], group[0]), h("td", { class: "number" }, group.length),
    h("td", {}, clipped(group.map((run) => RUNS[run].seed ?? "?").sort((a, b) => a - b).join(", "), 40)),
    metrics.map((column) => {
      const values = group.map((run) => column.of(run)).filter((value) => typeof value === "number");
      if (!values.length) return h("td", { class: "number absent" }, "\u2013");
      const { n, mean, half } = seedMean(values);
      const format = columnFormat([mean]);
      return h("td", { class: "number", title: `${counted(n, "run")}` }, format(mean), h("span", { class: "range" }, half === null ? "one run" : `\u00b1 ${columnFormat([mean, half])(half)}`));
    })));
  return place.replaceChildren(
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Means over seeds" }, h("table", {}, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "first" }, "config"), h("th", { scope: "col", class: "number" }, "n"), h("th", { scope: "col" }, "seeds"),
      metrics.map((column) => h("th", { scope: "col", class: "number" }, column.label)))), h("tbody", {}, rows))),
    h("p", { class: "caption" }, "Mean over finished runs whose configs differ only in the seed, \u00b1 half the 95 % interval of Student\u2019s t with n \u2212 1 degrees of freedom. It shows the variance of the seed, not of the choice of test items. Metrics are the columns of the table above."),
    cut(groups, MAX_HEAT_ROWS, "here") || "");
}

function claimsTable(label, claims, from) {
  const head = ["claim", "paper", "compared", "ours, 95 % interval", "verdict"].map((name, index) => h("th", { scope: "col", class: index ? "" : "first" }, name));
  const rows = claims.flatMap((claim) => claim.rows.map(([label, ours, method, verdict], index) => h("tr", {},
    h("th", { scope: "row", class: "first" }, index ? "" : h("span", { class: "value", title: claim.text }, claim.id)), h("td", {}, index ? "" : `${claim.paper} (${claim.tag})`),
    h("td", {}, h("span", { class: "value", title: clipped(label, 1000) }, h("bdi", {}, clipped(label, 120)))), h("td", { title: method }, ours), h("td", {}, h("bdi", {}, clipped(verdict, 160))))));
  return [h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, head)), h("tbody", {}, rows))),
    h("p", { class: "caption" }, `${from} Point at a claim for its text, at a number for its method.`)];
}

const COSTS = [
  ["cost/wall_s", "wall time", duration], ["cost/peak_mb", "peak memory", (value) => (value >= 1024 ? `${trimmed((value / 1024).toPrecision(3))} GiB` : `${Math.round(value)} MiB`)],
  ["cost/tokens_per_s", "training tokens/s", plainNumber], ["cost/flops", "training FLOPs", plainNumber], ["cost/trainable_params", "trainable parameters", plainNumber],
];

function drawCost(runs) {
  const place = byId("cost-body");
  const columns = COSTS.filter(([name]) => METRIC_AT.has(name) && runs.some((run) => metricRow(run, METRIC_AT.get(name))?.[1] > 0));
  const having = runs.filter((run) => columns.some(([name]) => metricRow(run, METRIC_AT.get(name)))).slice(0, MAX_BARS);
  if (!having.length) return place.replaceChildren(empty("No selected run has recorded its cost."));
  const labels = labelsOf(having);
  const most = columns.map(([name]) => Math.max(...having.map((run) => metricRow(run, METRIC_AT.get(name))?.[1] || 0)));
  const rows = having.map((run, index) => h("tr", {}, rowHead(labels[index], run), columns.map(([name, , format], column) => {
    const value = metricRow(run, METRIC_AT.get(name))?.[1];
    if (value === undefined || value === null) return h("td", { class: "absent" }, "\u2013");
    const length = h("div", { class: "length" });
    length.style.width = `${(100 * value) / most[column]}%`;
    return h("td", {}, h("div", { class: "bar" }, h("div", { class: "track" }, value > 0 ? length : null), h("span", { class: "amount" }, value === 0 ? "0" : format(value))));
  })));
  return place.replaceChildren(h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Cost" }, h("table", { class: "bars" }, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "first" }, "run"), columns.map(([name, text]) => h("th", { scope: "col", title: name }, text)))), h("tbody", {}, rows))), cut(runs, MAX_BARS, "here") || "");
}

function drawLanguages(runs) {
  const place = byId("languages-body");
  const languages = DATA.languages[LANGUAGE.metric];
  const codes = Object.keys(languages).filter((code) => runs.some((run) => metricRow(run, languages[code])));
  const having = runs.filter((run) => codes.some((code) => metricRow(run, languages[code]))).slice(0, MAX_HEAT_ROWS);
  if (!having.length) return place.replaceChildren(empty(`No selected run has ${LANGUAGE.metric} by language.`));
  const overall = METRIC_AT.get(LANGUAGE.metric);
  const values = having.flatMap((run) => codes.map((code) => metricRow(run, languages[code])?.[1])).filter((value) => typeof value === "number");
  const low = Math.min(0, ...values);
  const high = Math.max(0, ...values);
  const format = columnFormat(values);
  const labels = labelsOf(having);
  const cell = (run, code) => {
    const row = metricRow(run, languages[code]);
    if (!row) return h("td", { class: "cell absent" }, "\u2013");
    const [, value, from, to, n, undefinedItems] = row;
    if (value === null) return h("td", { class: "cell absent", title: "undefined" }, "undef.");
    const about = `${languageName(code)}: ${format(value)}${typeof from === "number" ? ` (${format(from)} \u2013 ${format(to)})` : ""}${n ? `, ${counted(n, "item")}` : ""}${undefinedItems ? `, ${undefinedItems} undefined` : ""}`;
    const step = high > low ? Math.round(((value - low) / (high - low)) * (HEAT.length - 1)) : 0;
    const found = h("td", { class: "cell", title: about }, format(value));
    found.style.backgroundColor = HEAT[step];
    found.style.color = step >= HEAT_DARK_FROM ? "#ffffff" : "#10151b";
    return found;
  };
  const rows = having.map((run, index) => h("tr", {}, rowHead(labels[index], run),
    overall === undefined ? null : h("td", { class: "overall" }, typeof metricRow(run, overall)?.[1] === "number" ? format(metricRow(run, overall)[1]) : "\u2013"), codes.map((code) => cell(run, code))));
  const steps = h("span", { class: "steps", "aria-hidden": "true" }, HEAT.map((colour) => { const one = h("span"); one.style.backgroundColor = colour; return one; }));
  const direction = overall === undefined ? 0 : DATA.directions[overall];
  return place.replaceChildren(
    h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Metrics by language" }, h("table", { class: "heat" }, h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "first" }, "run"), overall === undefined ? null : h("th", { scope: "col", class: "overall" }, "all"),
      codes.map((code) => h("th", { scope: "col", class: "cell", title: languageName(code) }, code)))), h("tbody", {}, rows))),
    h("p", { class: "scale" }, low === 0 ? "0" : format(low), steps, format(high), direction ? h("span", {}, direction > 0 ? "higher is better" : "lower is better") : null), cut(runs, MAX_HEAT_ROWS, "here") || "");
}

function languagesSection() {
  const metrics = Object.keys(DATA.languages);
  if (!metrics.length) return null;
  LANGUAGE.metric = metrics.find((name) => /\/(acc|em|bleu|f1|ppl)$/.test(name)) || metrics[0];
  return section("languages", "By language", "selected runs \u00d7 languages",
    h("div", { class: "tools" }, h("span", { class: "pair" }, h("label", { for: "language-metric" }, "Metric"), h("select", { id: "language-metric", onchange: (event) => { LANGUAGE.metric = event.target.value; drawLanguages(selectedRuns()); } },
      metrics.map((name) => h("option", { value: name, selected: name === LANGUAGE.metric }, name))))), h("div", { id: "languages-body" }));
}

function drawFigures(runs) {
  const place = byId("figures-body");
  const shownFigures = DATA.figures.filter((one) => runs.includes(one.run));
  if (!shownFigures.length) return place.replaceChildren(empty("No selected run has figures."));
  const labels = new Map(runs.map((run, index) => [run, labelsOf(runs)[index]]));
  return place.replaceChildren(h("div", { class: "figures" }, shownFigures.map((one) => h("figure", {},
    h("img", { src: `data:image/png;base64,${one.data}`, alt: shown(`figure ${one.name} of run ${RUNS[one.run].name}`) }),
    h("figcaption", {}, h("strong", {}, one.name), " \u00b7 ", h("bdi", {}, labels.get(one.run)))))));
}

const fact = (name, value) => (value === undefined || value === null || value === "" ? null : [h("dt", {}, name), h("dd", {}, h("bdi", {}, value))]);
const block = (run, key) => (RUNS[run].provenance?.[key] === undefined ? undefined : DATA.blocks[RUNS[run].provenance[key]]);

function flatText(value) {
  if (value === null || typeof value !== "object") return value === null || value === undefined ? "" : String(value);
  if (Array.isArray(value)) return value.map(flatText).join(", ") || "none";
  return Object.entries(value).map(([key, inner]) => `${key} ${flatText(inner)}`).join(" \u00b7 ");
}

const stagesText = (stages) => (Array.isArray(stages) ? stages.map((stage) => `${stage?.name} ${stage?.key}${stage?.reused ? " (reused)" : ""}`).join(", ") : null);

function provenanceOf(run) {
  const one = RUNS[run];
  const commit = block(run, "commit");
  const isDirty = block(run, "dirty") === true;
  const known = new Set(["commit", "dirty", "athlos", "seed", "hardware", "model", "data", "versions", "signatures", "stages", "bootstrap"]);
  const commands = one.command ? [commit ? `git checkout ${commit}` : null, one.command].filter(Boolean).join("\n") : "";
  const copy = h("button", { type: "button", class: "copy", onclick: (event) => {
    navigator.clipboard?.writeText(commands).then(() => { event.target.textContent = "Copied"; }, () => { event.target.textContent = "Select and copy by hand"; });
  } }, "Copy");
  return [
    one.message || one.error ? h("p", { class: "warn" }, `${one.error || "error"}: ${one.message || ""}`) : null,
    commands ? [h("pre", {}, h("code", {}, commands)), h("p", { class: "small" }, navigator.clipboard ? copy : null, " ", h("span", { class: "quiet" }, "As the record of the run says it."),
      isDirty ? h("span", { class: "warn" }, " The checkout had uncommitted changes: this commit alone does not give the same code.") : null)]
      : h("p", { class: "quiet small" }, one.imported ? "Imported from another tracker: there is no command of Athlos." : "No command: the record of the run does not say it."),
    h("dl", { class: "grid-facts" },
      fact("commit", commit ? `${commit}${isDirty ? " + uncommitted changes" : ""}` : one.provenance ? "unknown" : null), fact("athlos", block(run, "athlos")), fact("seed", one.seed),
      fact("time", [moment(one.start), moment(one.end)].filter(Boolean).join(" \u2013 ")), fact("hardware", flatText(block(run, "hardware"))), fact("model", flatText(block(run, "model"))), fact("data", flatText(block(run, "data"))),
      fact("metric signatures", flatText(block(run, "signatures"))), fact("stages", stagesText(block(run, "stages"))), fact("versions", flatText(block(run, "versions"))),
      Object.keys(one.provenance || {}).filter((key) => !known.has(key)).map((key) => fact(key, flatText(block(run, key)))),
      one.problems ? fact("problems", one.problems.join("; ")) : null),
  ];
}

function drawProvenance(runs) {
  const place = byId("provenance-body");
  if (!runs.length) return place.replaceChildren(empty("Select runs in the table."));
  const labels = labelsOf(runs);
  return place.replaceChildren(...runs.slice(0, MAX_DETAILS).map((run, index) => {
    const one = h("details", { class: "run" }, h("summary", {}, h("bdi", {}, RUNS[run].name), labels[index] !== RUNS[run].name.split("/").pop() ? h("span", { class: "quiet" }, " \u00b7 ", h("bdi", {}, labels[index])) : null, " \u00b7 ",
      h("span", { class: `state-${/^[a-z]+$/.test(RUNS[run].state) ? RUNS[run].state : "unknown"}` }, RUNS[run].state), block(run, "dirty") === true ? h("span", { class: "warn" }, " \u00b7 uncommitted changes") : null));
    one.unfold = () => {
      if (one.childElementCount === 1) one.append(...provenanceOf(run).flat(Infinity).filter(Boolean));
      one.open = true;
    };
    one.addEventListener("toggle", () => { if (one.open) one.unfold(); });
    if (runs.length === 1) one.unfold();
    return one;
  }), cut(runs, MAX_DETAILS, "here") || "");
}
