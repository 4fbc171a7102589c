// The data of the page, and what follows from it: values by run, differing keys, labels of runs, seed groups.

const DATA = JSON.parse(byId("data").textContent);
const RUNS = DATA.runs;
const METRIC_AT = new Map(DATA.metrics.map((name, index) => [name, index]));
const SHARED = new Map(Object.entries(DATA.shared));
const CONFIG_AT = new Map(DATA.config.map((column) => [column.key, column]));
const PARTS_FIRST = ["method", "surgery", "objective", "selection", "decoding", "model.name", "data.name"];
const GROUPS_FIRST = ["method", "surgery", "construct", "objective", "selection", "train", "data", "model", "decoding", "eval", "scale", "hardware", "seed"];
const MAX_LABEL_KEYS = 4;

for (const run of RUNS) {
  run.metricAt = new Map(run.metrics.map((row) => [row[0], row]));
  for (const [index, curve] of Object.entries(run.curves || {})) {
    let step = 0;
    run.curves[index] = { steps: run.steps[curve[0]].map((difference) => (step += difference)), values: curve[1], undefinedPoints: curve[2] || 0 };
  }
}

const metricRow = (run, index) => RUNS[run].metricAt.get(index);
const textOf = (value) => (value !== null && typeof value === "object" && "t" in value ? DATA.texts[value.t] : value);

/** The value of a config key in a run; undefined where the run does not have it. */
function configValue(run, key) {
  const column = CONFIG_AT.get(key);
  if (!column) return RUNS[run].unread ? undefined : SHARED.get(key);
  return column.of[run] < 0 ? undefined : column.values[column.of[run]];
}

function configText(value) {
  if (value === undefined) return "\u2013";
  if (typeof value === "string") return value === "" ? '""' : value;
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(6)));
  return JSON.stringify(value);
}

/** `train.lr` as `lr` where no other differing key ends so. */
const SHORT_KEYS = new Map();
function shortKey(key) {
  if (!SHORT_KEYS.size) {
    const keys = DATA.config.map((column) => column.key);
    const plain = (name) => (name.endsWith(".name") ? name.slice(0, -5) : name); // `model.name` stands for `model`
    for (const name of keys) {
      const words = plain(name).split(".");
      let length = 1;
      const tail = () => words.slice(-length).join(".");
      const clashes = () => keys.some((other) => other !== name && (plain(other) === tail() || plain(other).endsWith(`.${tail()}`)));
      while (length < words.length && (clashes())) length += 1;
      SHORT_KEYS.set(name, tail());
    }
  }
  return SHORT_KEYS.get(key) || key;
}

/** Where a config key stands in lists: parts, then their settings and the learning rate, the seed last. */
function rank(key) {
  if (PARTS_FIRST.includes(key)) return PARTS_FIRST.indexOf(key);
  const group = GROUPS_FIRST.indexOf(key.split(".")[0]);
  return 10 + (group < 0 ? GROUPS_FIRST.length - 1.5 : group) - (key === "train.lr" ? 0.5 : 0);
}

/** Differing config keys among the runs whose config could be read, the telling ones first, the seed last. */
function differingKeys(runs) {
  const readable = runs.filter((run) => !RUNS[run].unread);
  return DATA.config
    .filter((column) => readable.some((run) => column.of[run] !== column.of[readable[0]]))
    .map((column) => column.key)
    .sort((one, other) => rank(one) - rank(other));
}

/** Whether a key only follows from another that differs too: the architecture of a model of another name. */
function isFollowing(key, keys) {
  const [group, ...rest] = key.split(".");
  if (!rest.length || rest.join(".") === "name") return false;
  if (keys.includes(`${group}.name`)) return true;
  // Settings that not all choices of a part have.
  return keys.includes(group) && RUNS.some((run, index) => !run.unread && configValue(index, key) === undefined);
}

/** Short labels that tell runs apart: the fewest differing keys, then the folder's name. */
function labelsOf(runs, { withoutSeed = false } = {}) {
  const keys = differingKeys(runs).filter((key) => key !== "study" && !(withoutSeed && key === "seed"));
  const pool = keys.filter((key) => !isFollowing(key, keys));
  const chosen = [];
  const tuple = (run, names) => names.map((key) => CONFIG_AT.get(key).of[run]).join();
  const distinct = (names) => new Set(runs.map((run) => tuple(run, names))).size;
  let reached = 1;
  while (chosen.length < MAX_LABEL_KEYS && reached < runs.length) {
    let best = null;
    let most = reached;
    for (const key of pool) {
      const number = chosen.includes(key) ? 0 : distinct([...chosen, key]);
      if (number > most) [best, most] = [key, number];
    }
    if (!best) break;
    chosen.push(best);
    reached = most;
  }
  chosen.sort((one, other) => pool.indexOf(one) - pool.indexOf(other));
  const labels = runs.map((run) => chosen.map((key) => `${shortKey(key)} ${clipped(configText(configValue(run, key)), 28)}`).join(", "));
  const names = runs.map((run) => RUNS[run].name);
  const seen = new Map();
  for (const label of labels) seen.set(label, (seen.get(label) || 0) + 1);
  return labels.map((label, index) => {
    if (label && seen.get(label) === 1) return label;
    const name = clipped(names[index].split("/").pop(), 48);
    return label ? `${label} (${name})` : name;
  });
}

/** Selected runs by group of equal config less the seed, in order. */
function seedGroups(runs) {
  const groups = new Map();
  for (const run of runs) {
    const key = RUNS[run].group;
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(run);
  }
  return [...groups.values()];
}

/** Mean and 95 % interval by Student's t with n - 1 degrees of freedom. */
function seedMean(values) {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  if (n < 2) return { n, mean, half: null };
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (n - 1);
  return { n, mean, half: DATA.t[Math.min(n - 1, DATA.t.length) - 1] * Math.sqrt(variance / n) };
}

const isByLanguage = (() => {
  const found = new Set();
  for (const languages of Object.values(DATA.languages)) for (const index of Object.values(languages)) found.add(index);
  return (index) => found.has(index);
})();
