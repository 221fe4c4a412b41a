// Elements, and the numbers in them.

/** An element; attributes that are null or false are left out, functions become listeners. */
function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Four significant digits, never in scientific form. */
function significant(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  const decimals = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return value.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: decimals });
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1 || size === 0) return `${significant(value)} s`;
  if (size >= 1e-3) return `${significant(value * 1e3)} ms`;
  return `${significant(value * 1e6)} µs`;
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let power = 0;
  while (value >= 1024 && power < units.length - 1) { value /= 1024; power += 1; }
  return power === 0 ? `${value} B` : `${significant(value)} ${units[power]}`;
}

function percent(share, digits = 1) {
  return `${(100 * share).toFixed(digits)} %`;
}

/** A change as people write it: with its sign. */
function signed(share) {
  return `${share > 0 ? "+" : share < 0 ? "−" : "±"}${(100 * Math.abs(share)).toFixed(1)} %`;
}

function whole(value) {
  return value.toLocaleString("en-US");
}

function words(name) {
  return name.replaceAll("_", " ");
}

/** A colour of the sheet, by its name. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** A table; cells are text or nodes, columns from `numbers` on are flush right. */
function plainTable(caption, heads, rows, numbers = 1) {
  const side = (index, cell) => (index >= numbers && cell?.tagName !== "DIV" && !cell?.classList?.contains("bar") ? "n" : null);
  const wide = heads.length > 4 || numbers > heads.length;
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", { class: wide && heads.length > 2 ? "wide" : null }, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, heads.map((head, index) => el("th", { scope: "col", class: side(index) }, head)))),
      el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell, index) => el(index === 0 ? "th" : "td",
        { class: side(index, cell), scope: index === 0 ? "row" : null }, cell)))))));
}

/** A part of the page with its heading. */
function part(id, title, ...children) {
  return el("section", { id, "aria-labelledby": `${id}-title` }, el("h2", { id: `${id}-title` }, title), children);
}

/** Says something to those who listen instead of looking. */
function say(text) {
  document.getElementById("said").textContent = text;
}

function showTip(x, y, text) {
  const tip = document.getElementById("tip");
  tip.textContent = text;
  tip.hidden = false;
  const left = Math.min(x + 14, window.innerWidth - tip.offsetWidth - 8);
  const below = y + 18 + tip.offsetHeight < window.innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${below ? y + 18 : Math.max(4, y - tip.offsetHeight - 12)}px`;
}

function hideTip() {
  document.getElementById("tip").hidden = true;
}
