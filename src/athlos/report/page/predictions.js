// The prediction browser: a list to search, one item to read, and what other selected runs said to it.

const KNOWN_SCORES = ["acc", "em", "cover_em", "str_em", "f1", "lc_acc", "lc"];
const NO_SCORES = /^(id|language|finished|log_prob|num_.*|confidence|seed|step)$/;
const MAX_ITEMS = 200;
const RIGHT_FROM = 0.5;

const BROWSER = { run: null, suite: null, text: "", wanted: "all", score: null, rows: [], at: 0 };

function runsWithPredictions() {
  return selectedRuns().filter((run) => RUNS[run].predictions);
}

function drawPredictions() {
  const place = byId("predictions-body");
  const runs = runsWithPredictions();
  if (!runs.length) return place.replaceChildren(empty("No selected run has predictions. Runs with a math, question or translation suite have them."));
  if (!runs.includes(BROWSER.run)) BROWSER.run = runs[0];
  const suites = Object.keys(RUNS[BROWSER.run].predictions);
  if (!suites.includes(BROWSER.suite)) BROWSER.suite = suites[0];
  const file = RUNS[BROWSER.run].predictions[BROWSER.suite];
  const scores = scoreFields(file.rows);
  if (!scores.includes(BROWSER.score)) BROWSER.score = scores[0] || null;
  if (!BROWSER.score) BROWSER.wanted = "all";
  const labels = labelsOf(runs);
  const pick = (id, label, values, texts, value, set) => [h("label", { for: id }, label), h("select", { id, onchange: (event) => { set(event.target.value); BROWSER.at = 0; drawPredictions(); byId(id).focus(); } },
    values.map((one, index) => h("option", { value: one, selected: one === value }, clipped(texts[index], 70))))];
  place.replaceChildren(
    h("div", { class: "tools" },
      pick("prediction-run", "Run", runs, labels, BROWSER.run, (value) => { BROWSER.run = Number(value); }),
      pick("prediction-suite", "Suite", suites, suites, BROWSER.suite, (value) => { BROWSER.suite = value; }),
      scores.length ? [pick("prediction-score", "Score", scores, scores, BROWSER.score, (value) => { BROWSER.score = value; }),
        pick("prediction-wanted", "Show", ["all", "right", "wrong"], ["all", "right", "wrong"], BROWSER.wanted, (value) => { BROWSER.wanted = value; })] : null,
      h("input", { type: "search", id: "prediction-search", "aria-label": "Search predictions", placeholder: "search prompts, answers, gold", value: BROWSER.text, oninput: (event) => { BROWSER.text = event.target.value; BROWSER.at = 0; drawItems(); } }),
      h("span", { class: "quiet small", id: "prediction-count", role: "status" })),
    h("div", { class: "browser" }, h("ul", { class: "items", id: "items", role: "listbox", tabindex: "0", "aria-label": "Predictions", onkeydown: moveItem }), h("div", { id: "item", "aria-live": "polite" })),
    h("p", { class: "caption" }, file.total > file.rows.length ? `The first ${grouped(file.rows.length, 0)} of ${grouped(file.total, 0)} rows of predictions/${BROWSER.suite}.jsonl are in this page. ` : "",
      BROWSER.score ? `A row counts as right from ${BROWSER.score} ${RIGHT_FROM} on.` : ""));
  return drawItems();
}

/** Fields that grade a row: numbers in [0, 1], the known ones first. */
function scoreFields(rows) {
  const names = new Set(rows.flatMap((row) => Object.keys(row)));
  const isScore = (name) => {
    const values = rows.map((row) => row[name]).filter((value) => value !== null && value !== undefined);
    return values.length > 0 && values.every((value) => typeof value === "boolean" || (typeof value === "number" && value >= 0 && value <= 1));
  };
  const place = (name) => (KNOWN_SCORES.includes(name) ? KNOWN_SCORES.indexOf(name) : KNOWN_SCORES.length);
  return [...names].filter((name) => !NO_SCORES.test(name) && isScore(name)).sort((one, other) => place(one) - place(other));
}

function verdict(row, score) {
  const value = score === null ? undefined : row[score];
  return value === null || value === undefined ? null : Number(value) >= RIGHT_FROM;
}

const fieldText = (value) => {
  const text = textOf(value);
  if (text === null || text === undefined) return "";
  if (Array.isArray(text)) return text.map(fieldText).join("\n");
  return typeof text === "object" ? JSON.stringify(text, null, 1) : String(text);
};

function drawItems() {
  const rows = RUNS[BROWSER.run].predictions[BROWSER.suite].rows;
  const word = BROWSER.text.toLowerCase();
  BROWSER.rows = rows.filter((row) => {
    const isRight = verdict(row, BROWSER.score);
    if (BROWSER.wanted !== "all" && isRight !== (BROWSER.wanted === "right")) return false;
    return !word || Object.values(row).some((value) => fieldText(value).toLowerCase().includes(word));
  });
  BROWSER.at = Math.min(BROWSER.at, Math.max(0, BROWSER.rows.length - 1));
  byId("prediction-count").textContent = `${grouped(BROWSER.rows.length, 0)} of ${counted(rows.length, "row")}${BROWSER.rows.length > MAX_ITEMS ? `, ${MAX_ITEMS} listed` : ""}`;
  byId("items").replaceChildren(...BROWSER.rows.slice(0, MAX_ITEMS).map((row, index) => {
    const isRight = verdict(row, BROWSER.score);
    return h("li", { role: "option", id: `item-${index}`, "aria-selected": "false", onclick: () => openItem(index) },
      h("span", { class: "top" }, h("span", {}, [fieldText(row.id), fieldText(row.language)].filter(Boolean).map((text) => clipped(text, 28)).join(" \u00b7 ")),
        isRight === null ? null : h("span", { class: isRight ? "right" : "wrong" }, isRight ? "\u2713 right" : "\u2717 wrong")),
      h("span", { class: "excerpt", dir: "auto" }, clipped(fieldText(row.prediction).trim(), 120) || "\u2013"));
  }));
  if (BROWSER.rows.length) openItem(BROWSER.at);
  else byId("item").replaceChildren(empty("No row fits."));
}

function moveItem(event) {
  const last = Math.min(BROWSER.rows.length, MAX_ITEMS) - 1;
  const to = { ArrowDown: BROWSER.at + 1, ArrowUp: BROWSER.at - 1, Home: 0, End: last, PageDown: BROWSER.at + 10, PageUp: BROWSER.at - 10 }[event.key];
  if (to === undefined || last < 0) return;
  event.preventDefault();
  openItem(Math.min(Math.max(to, 0), last));
}

function openItem(index) {
  const list = byId("items");
  list.children[BROWSER.at]?.setAttribute("aria-selected", "false");
  BROWSER.at = index;
  const item = list.children[index];
  item.setAttribute("aria-selected", "true");
  list.setAttribute("aria-activedescendant", item.id);
  if (item.offsetTop < list.scrollTop) list.scrollTop = item.offsetTop;
  if (item.offsetTop + item.offsetHeight > list.scrollTop + list.clientHeight) list.scrollTop = item.offsetTop + item.offsetHeight - list.clientHeight;
  byId("item").replaceChildren(...itemView(BROWSER.rows[index]));
}

function textBox(title, text) {
  return h("div", { class: "text-box" }, h("h3", {}, title), h("pre", { dir: "auto", tabindex: "0", "aria-label": title }, text));
}

function itemView(row) {
  const texts = [["prompt", "Prompt"], ["prediction", "Answer"], ["gold", "Gold"]].filter(([key]) => key in row);
  const rest = Object.entries(row).filter(([key]) => !["prompt", "prediction", "gold"].includes(key));
  return [
    h("dl", { class: "facts" }, rest.map(([key, value]) => h("div", {}, h("dt", {}, key), h("dd", {}, h("bdi", {}, typeof value === "number" ? trimmed(String(Number(value.toPrecision(5)))) : clipped(fieldText(value), 300)))))),
    h("div", { class: "texts" }, texts.map(([key, title]) => textBox(title, fieldText(row[key])))),
    ...otherAnswers(row),
  ];
}

/** What the other selected runs answered to the same item. */
function otherAnswers(row) {
  const runs = runsWithPredictions();
  const labels = labelsOf(runs);
  const same = runs.map((run, index) => [labels[index], run, RUNS[run].predictions[BROWSER.suite]?.rows.find((other) => other.id !== undefined
    && fieldText(other.id) === fieldText(row.id) && fieldText(other.language) === fieldText(row.language))]).filter(([, run, other]) => other && run !== BROWSER.run).slice(0, 20);
  if (!same.length) return [];
  return [h("div", { class: "others" }, h("h3", {}, "Other selected runs on this item"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Other answers" }, h("table", {}, h("tbody", {}, same.map(([label, run, other]) => {
    const isRight = verdict(other, BROWSER.score);
    return h("tr", {}, rowHead(label, run), h("td", { class: isRight === null ? "" : isRight ? "right" : "wrong" }, isRight === null ? "" : isRight ? "\u2713 right" : "\u2717 wrong"), h("td", { class: "long", dir: "auto" }, clipped(fieldText(other.prediction).trim(), 600)));
  })))))];
}
