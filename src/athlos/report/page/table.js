// The table of runs: columns, filter, order, choice of runs.

const ROWS_AT_ONCE = 100;
const DEFAULT_CONFIG_COLUMNS = 6;
const DEFAULT_METRIC_COLUMNS = 6;
const DEFAULT_SELECTED = 8;
const MAX_ALL_SELECTED = 12;
const WORDS = /"([^"]*)"|((?:[^\s"]|"[^"]*"?)+)/g;
const COMPARISON = /^([^<>=!~]+?)(!=|<=|>=|==|=|<|>|~)(.*)$/s;

const STATE = {
  filter: "", order: { column: null, down: false }, columns: new Set(), selected: new Set(), rows: ROWS_AT_ONCE, found: [],
};

const COLUMNS = [];

function buildColumns() {
  const text = (id, label, of) => COLUMNS.push({ id, label, kind: "Run", of, isNumber: false, show: (run) => of(run) ?? "" });
  text("name", "run", (run) => RUNS[run].name);
  text("study", "study", (run) => RUNS[run].study);
  text("state", "state", (run) => RUNS[run].state);
  text("start", "start", (run) => moment(RUNS[run].start));
  const all = RUNS.map((_, run) => run);
  for (const key of differingKeys(all).filter((one) => one !== "study")) {
    const of = (run) => configValue(run, key);
    const numbers = RUNS.every((_, run) => ["number", "undefined"].includes(typeof of(run)) || of(run) === null) && RUNS.some((_, run) => typeof of(run) === "number");
    COLUMNS.push({ id: key, label: shortKey(key), kind: "Config", of, isNumber: numbers, show: (run) => configText(of(run)) });
  }
  const splits = ["test", "val", "train"];
  const place = (name) => (name.startsWith("cost/") ? 9 : (splits.indexOf(name.split("/")[0]) + 9) % 9);
  DATA.metrics.map((name, index) => [name, index]).sort(([one], [other]) => place(one) - place(other)).forEach(([name, index]) => {
    const of = (run) => metricRow(run, index)?.[1] ?? undefined;
    const isLanguage = isByLanguage(index);
    COLUMNS.push({ id: name, label: name, kind: isLanguage ? "Metrics by language" : "Metrics", of, isNumber: true, metric: index });
  });
}

function defaultColumns() {
  const keys = differingKeys(RUNS.map((_, run) => run));
  const shownKeys = keys.filter((key) => key !== "study" && !isFollowing(key, keys)).slice(0, DEFAULT_CONFIG_COLUMNS);
  if (keys.includes("seed") && !shownKeys.includes("seed")) shownKeys[shownKeys.length - 1] = "seed";
  const number = (index) => RUNS.reduce((sum, run) => sum + run.metricAt.has(index), 0);
  const metrics = DATA.metrics.map((name, index) => ({ name, index, number: number(index) }))
    .filter(({ name, index }) => !isByLanguage(index) && !name.endsWith("_base") && /^(test|val)\//.test(name))
    .sort((one, other) => other.name.startsWith("test/") - one.name.startsWith("test/") || DATA.directions[other.index] ** 2 - DATA.directions[one.index] ** 2 || other.number - one.number)
    .slice(0, DEFAULT_METRIC_COLUMNS);
  const kept = new Set(["name", "state", ...shownKeys, ...metrics.map(({ name }) => name), "cost/wall_s"]);
  if (RUNS.some((run) => !run.name.includes(run.study))) kept.add("study"); // else the name tells it
  STATE.columns = new Set(COLUMNS.map((column) => column.id).filter((id) => kept.has(id)));
}

// Filter: words are looked for in the row's text; key=value, key<number and the like look at one column.

function columnNamed(key) {
  const wanted = key.toLowerCase();
  const exact = COLUMNS.find((column) => column.id.toLowerCase() === wanted || column.label.toLowerCase() === wanted);
  if (exact) return exact;
  const ending = COLUMNS.filter((column) => column.id.toLowerCase().endsWith(`/${wanted}`) || column.id.toLowerCase().endsWith(`.${wanted}`));
  return ending.find((column) => column.id.startsWith("test/")) || ending[0] || null;
}

function parsedFilter(text) {
  const tests = [];
  const wrong = [];
  for (const [, quoted, plain] of text.matchAll(WORDS)) {
    const match = quoted === undefined ? COMPARISON.exec(plain) : null;
    if (!match) {
      const word = (quoted ?? plain).toLowerCase();
      tests.push((run) => haystack(run).includes(word));
      continue;
    }
    const [, key, sign, typed] = match;
    const value = typed.replace(/^"([^"]*)"?$/s, "$1");
    const column = columnNamed(key);
    if (!column && !SHARED.has(key)) wrong.push(`no column \u201c${key}\u201d`);
    else if (value === "") continue; // still being typed
    else if (sign.match(/[<>]/) && Number.isNaN(Number(value))) wrong.push(`\u201c${value}\u201d is no number`);
    else tests.push((run) => compares(column ? column.of(run) : configValue(run, key), column ? column.show?.(run) : configText(configValue(run, key)), sign, value));
  }
  return { tests, wrong };
}

function compares(raw, text, sign, wanted) {
  if (raw === undefined) return sign === "!=";
  if (sign === "<") return typeof raw === "number" && raw < Number(wanted);
  if (sign === "<=") return typeof raw === "number" && raw <= Number(wanted);
  if (sign === ">") return typeof raw === "number" && raw > Number(wanted);
  if (sign === ">=") return typeof raw === "number" && raw >= Number(wanted);
  const texts = [typeof raw === "string" ? raw : JSON.stringify(raw), String(text ?? "")].map((one) => one.toLowerCase());
  const word = wanted.toLowerCase();
  const isEqual = texts.includes(word) || (typeof raw === "number" && wanted.trim() !== "" && raw === Number(wanted));
  if (sign === "~") return texts.some((one) => one.includes(word));
  return sign === "!=" ? !isEqual : isEqual;
}

function haystack(run) {
  const one = RUNS[run];
  if (one.haystack === undefined) {
    const values = DATA.config.map(({ key }) => configText(configValue(run, key)));
    one.haystack = [one.name, one.study, one.state, one.error, one.imported ? "imported" : "", ...values].join("\n").toLowerCase();
  }
  return one.haystack;
}

function ordered(runs) {
  const { column: id, down } = STATE.order;
  const column = COLUMNS.find((one) => one.id === id);
  if (!column) return runs;
  const isMissing = (value) => value === undefined || value === null || value === "";
  return runs.map((run) => [run, column.of(run)]).sort(([one, a], [other, b]) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b) || one - other; // what is missing stands last
    const order = typeof a === "number" && typeof b === "number" ? a - b
      : String(typeof a === "object" ? JSON.stringify(a) : a).localeCompare(String(typeof b === "object" ? JSON.stringify(b) : b), "en", { numeric: true });
    return (down ? -order : order) || one - other;
  }).map(([run]) => run);
}

/** Runs with the best value of a metric, within each data set; none where nothing is compared. */
function bestRuns(index, runs) {
  const best = new Set();
  const direction = DATA.directions[index];
  if (!direction || DATA.metrics[index].startsWith("cost/")) return best;
  const sets = new Map();
  for (const run of runs) {
    const value = metricRow(run, index)?.[1];
    if (typeof value !== "number" || RUNS[run].state !== "finished") continue;
    const data = JSON.stringify([configValue(run, "data.name"), configValue(run, "data.test_split")]);
    if (!sets.has(data)) sets.set(data, []);
    sets.get(data).push([run, value]);
  }
  for (const pairs of sets.values()) {
    const values = pairs.map(([, value]) => value);
    const top = direction > 0 ? Math.max(...values) : Math.min(...values);
    if (values.some((value) => value !== top)) for (const [run, value] of pairs) if (value === top) best.add(run);
  }
  return best;
}

function metricCell(run, index, format, isBest) {
  const row = metricRow(run, index);
  if (!row) return h("td", { class: "number absent" }, "\u2013");
  const [, value, low, high, n, undefinedItems] = row;
  const about = [n ? `${counted(n, "item")}` : "", undefinedItems ? `${undefinedItems} undefined` : "", isBest ? "best of the runs shown on this data set" : ""].filter(Boolean).join(", ");
  if (value === null) return h("td", { class: "number absent", title: about || null }, "undefined");
  const hasRange = typeof low === "number" && typeof high === "number";
  return h("td", { class: "number", title: about || null },
    h("span", isBest ? { class: "best" } : {}, format(value)),
    hasRange ? h("span", { class: "range" }, `${format(low)} \u2013 ${format(high)}`) : null);
}

function runRow(run, columns, colour) {
  const cells = columns.map((column) => {
    if (column.id === "name") {
      const box = h("input", { type: "checkbox", checked: STATE.selected.has(run), onchange: (event) => choose(run, event.target.checked) });
      const swatch = h("span", { class: "swatch-place" }, colour);
      return h("th", { scope: "row", class: "first" }, h("label", { class: "name", title: RUNS[run].name }, box, swatch,
        h("span", { class: "text" }, h("bdi", {}, RUNS[run].name), RUNS[run].imported ? h("span", { class: "quiet" }, " imported") : null)));
    }
    if (column.metric !== undefined) return metricCell(run, column.metric, column.format, column.best.has(run));
    const text = column.show(run);
    if (column.id === "state") return h("td", { class: `state-${/^[a-z]+$/.test(text) ? text : "unknown"}`, title: [RUNS[run].error, clipped(RUNS[run].message || "", 400)].filter(Boolean).join(": ") || null }, text);
    const isAbsent = column.of(run) === undefined;
    return h("td", { class: `${column.isNumber ? "number" : ""} ${isAbsent ? "absent" : ""}` },
      h("span", { class: "value", title: text.length > 24 ? clipped(text, 1000) : null }, h("bdi", {}, clipped(text, 120))));
  });
  return h("tr", { class: STATE.selected.has(run) ? "chosen" : "", "data-run": run }, cells);
}

function headCell(column) {
  const isSorted = STATE.order.column === column.id;
  const arrow = isSorted ? h("span", { class: "arrow", "aria-hidden": "true" }, STATE.order.down ? "\u25bc" : "\u25b2") : null;
  const direction = column.metric === undefined ? 0 : DATA.directions[column.metric];
  const unit = direction ? h("span", { class: "unit" }, direction > 0 ? "higher is better" : "lower is better") : null;
  const button = h("button", { type: "button", title: `${column.id}: sort`, onclick: () => sortBy(column) }, column.isNumber ? [arrow, clipped(column.label, 48)] : [clipped(column.label, 48), arrow]);
  return h("th", {
    scope: "col", class: `${column.isNumber ? "number" : ""} ${column.id === "name" ? "first" : ""}`, "data-column": column.id,
    "aria-sort": isSorted ? (STATE.order.down ? "descending" : "ascending") : "none",
  }, button, h("span", { class: "on-paper", "aria-hidden": "true" }, clipped(column.label, 48)), unit);
}

function sortBy(column) {
  const first = column.metric !== undefined && DATA.directions[column.metric] > 0; // the best value on top
  if (STATE.order.column !== column.id) STATE.order = { column: column.id, down: first };
  else if (STATE.order.down === first) STATE.order = { column: column.id, down: !first };
  else STATE.order = { column: null, down: false };
  drawTable();
  const again = [...byId("table").querySelectorAll("thead th")].find((head) => head.dataset.column === column.id);
  again?.querySelector("button").focus();
}

function applyFilter() {
  const { tests, wrong } = parsedFilter(STATE.filter);
  STATE.found = RUNS.map((_, run) => run).filter((run) => tests.every((test) => test(run)));
  byId("filter-error").textContent = wrong.map(shown).join("; ");
  byId("filter").setAttribute("aria-invalid", String(wrong.length > 0));
  STATE.rows = ROWS_AT_ONCE;
  drawTable();
}

function drawTable() {
  const runs = ordered(STATE.found);
  const visible = runs.slice(0, STATE.rows);
  const columns = COLUMNS.filter((column) => STATE.columns.has(column.id));
  for (const column of columns) {
    if (column.metric === undefined) continue;
    column.format = columnFormat(runs.map((run) => column.of(run)).filter((value) => typeof value === "number"));
    column.best = bestRuns(column.metric, runs);
  }
  const styles = selectedStyles();
  byId("table").replaceChildren(
    h("thead", {}, h("tr", {}, columns.map(headCell))),
    h("tbody", {}, visible.map((run) => runRow(run, columns, styles.has(run) ? swatch(styles.get(run)) : null))),
  );
  byId("found").textContent = `${grouped(runs.length, 0)} of ${counted(RUNS.length, "run")}`;
  const rest = runs.length - visible.length;
  byId("more").classList.toggle("hidden", rest <= 0);
  byId("more-text").textContent = `${grouped(visible.length, 0)} rows shown, ${grouped(rest, 0)} more`;
  drawCount();
}

function drawCount() {
  byId("selected-count").textContent = `${counted(STATE.selected.size, "run")} selected`;
}

function choose(run, isChosen) {
  if (isChosen) STATE.selected.add(run);
  else STATE.selected.delete(run);
  selectionChanged();
}

/** Mark what is chosen and drawn, without losing the focus inside the table. */
function markRows() {
  const styles = selectedStyles();
  for (const row of byId("table").querySelectorAll("tbody tr")) {
    const run = Number(row.dataset.run);
    row.classList.toggle("chosen", STATE.selected.has(run));
    row.querySelector("input").checked = STATE.selected.has(run);
    row.querySelector(".swatch-place").replaceChildren(...(styles.has(run) ? [swatch(styles.get(run))] : []));
  }
}

/** Draw again what depends on the choice of runs. */
function selectionChanged() {
  markRows();
  drawCount();
  drawSelection();
}

function columnChooser() {
  const sheet = h("div", { class: "sheet" });
  const search = h("input", { type: "search", placeholder: "find a column", "aria-label": "find a column", oninput: () => list(search.value) });
  const place = h("div", {});
  const list = (text) => {
    const kinds = [...new Set(COLUMNS.map((column) => column.kind))];
    place.replaceChildren(...kinds.map((kind) => {
      const columns = COLUMNS.filter((column) => column.kind === kind && column.id !== "name" && column.id.toLowerCase().includes(text.toLowerCase()));
      return columns.length ? h("fieldset", {}, h("legend", {}, kind), columns.slice(0, 300).map((column) => h("label", { title: column.id },
        h("input", { type: "checkbox", checked: STATE.columns.has(column.id), onchange: (event) => {
          if (event.target.checked) STATE.columns.add(column.id);
          else STATE.columns.delete(column.id);
          drawTable();
          drawSelection();
        } }), " ", column.id))) : null;
    }).filter(Boolean));
  };
  list("");
  sheet.append(search, place);
  const popover = h("details", { class: "popover", id: "columns" }, h("summary", {}, "Columns"), sheet);
  popover.addEventListener("keydown", (event) => { if (event.key === "Escape") { popover.open = false; popover.querySelector("summary").focus(); } });
  document.addEventListener("click", (event) => { if (!popover.contains(event.target)) popover.open = false; });
  return popover;
}

function runsSection() {
  const filter = h("input", {
    type: "search", id: "filter", class: "wide", spellcheck: "false", autocomplete: "off", "aria-describedby": "filter-help",
    placeholder: "filter: words, state=finished, lr>=0.001, test/ppl<20", oninput: (event) => { STATE.filter = event.target.value; applyFilter(); },
  });
  const select = (runs) => { STATE.selected = new Set(runs); selectionChanged(); };
  return h("section", { id: "runs", "aria-labelledby": "runs-title" },
    h("div", { class: "heading" }, h("h2", { id: "runs-title" }, "Runs"), h("p", { class: "quiet small", id: "found", role: "status" })),
    h("div", { class: "tools" },
      h("label", { for: "filter" }, "Filter"), filter,
      h("button", { type: "button", id: "select-shown", onclick: () => select(STATE.found) }, "Select these"),
      h("button", { type: "button", id: "select-none", onclick: () => select([]) }, "Select none"),
      columnChooser()),
    h("p", { id: "filter-error", class: "warn small", role: "alert" }),
    h("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "Table of runs" }, h("table", { id: "table" })),
    h("div", { class: "more hidden", id: "more" }, h("span", { id: "more-text", class: "quiet small" }),
      h("button", { type: "button", onclick: () => { STATE.rows += ROWS_AT_ONCE; drawTable(); } }, `Show ${ROWS_AT_ONCE} more`),
      h("button", { type: "button", onclick: () => { STATE.rows = Infinity; drawTable(); } }, "Show all")),
    h("p", { class: "caption", id: "filter-help" }, "Ranges under a value are its 95 % bootstrap interval over test items, from the run itself. \u2605 marks the best finished run shown on each data set, for metrics whose better direction is known. Comparisons in the filter: = != < <= > >= and ~ for \u201ccontains\u201d; put words with spaces in quotes. What is selected here is shown below."),
  );
}
