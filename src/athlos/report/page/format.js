// Numbers, dates and texts as people read them; elements. Text goes through `shown` and textContent, never as markup.

const SVG = "http://www.w3.org/2000/svg";
// Controls, bidirectional marks and zero-width characters would hide or turn round what stands beside them. Joiners
// (U+200C, U+200D) stay: Persian, Indic scripts and emoji are made with them.
const UNSEEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]|[\u{e0000}-\u{e007f}]/gu;

function shown(text) {
  return String(text).replace(UNSEEN, (c) => `\u27e8U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`);
}

function clipped(text, length) {
  return text.length > length ? `${text.slice(0, length - 1)}\u2026` : text;
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "checked" || name === "value" || name === "selected" || name === "disabled") element[name] = value;
    else element.setAttribute(name, name === "title" || name.startsWith("aria-") ? shown(value) : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) element.append(child instanceof Node ? child : shown(child));
  }
  return element;
}

const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);

const SUFFIXES = [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

function grouped(value, decimals) {
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

/** A number by itself: four digits that matter, SI letters from a hundred thousand on. */
function plainNumber(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size >= 1e18 || size < 1e-4) return value.toExponential(2).replace("e+", "e").replace(/\.?0+e/, "e");
  if (size >= 1e5) {
    const [unit, letter] = SUFFIXES.find(([one]) => size >= one);
    return `${trimmed((value / unit).toPrecision(3))} ${letter}`;
  }
  if (size >= 1000) return grouped(value, 0);
  return trimmed(value.toPrecision(4));
}

function trimmed(text) {
  return text.includes(".") && !text.includes("e") ? text.replace(/\.?0+$/, "") : text;
}

/** A formatter for a column: one number of decimals for all where their sizes allow it. */
function columnFormat(values) {
  const sizes = values.map(Math.abs).filter((size) => size > 0);
  if (!sizes.length) return plainNumber;
  const most = Math.max(...sizes);
  if (most >= 1e5 || most < 1e-3 || (most >= 100 && Math.min(...sizes) < most / 1e4)) return plainNumber;
  if (values.every(Number.isInteger)) return (value) => grouped(value, 0);
  const decimals = most <= 1 ? (most >= 0.1 ? 3 : 4) : Math.min(3, Math.max(0, 3 - Math.floor(Math.log10(most)))); // shares: 0.523
  return (value) => (Math.abs(value) >= 1e5 ? plainNumber(value) : grouped(value, decimals));
}

function duration(seconds) {
  if (seconds < 60) return `${trimmed(seconds.toPrecision(3))} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${grouped(Math.floor(minutes / 60), 0)} h ${minutes % 60} min`;
}

function moment(text) {
  const date = new Date(text);
  if (typeof text !== "string" || Number.isNaN(date.getTime())) return text === null || text === undefined ? "" : String(text);
  return `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

const counted = (number, word) => `${grouped(number, 0)} ${word}${number === 1 ? "" : "s"}`;

let languageNames = null;
function languageName(code) {
  try {
    languageNames = languageNames || new Intl.DisplayNames(["en"], { type: "language" });
    return languageNames.of(code.replace("_", "-")) || code;
  } catch {
    return code;
  }
}
