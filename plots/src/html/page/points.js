// Points of a sweep and plans of a search: as dots between two axes, and as a table that can be sorted and filtered.

const pageOfRows = 200;
const scatterHeight = 360;
const dotColours = ["forward", "communication", "optimizer", "transfer", "offload", "backward", "data", "host"];

const writers = {
  seconds, bytes, percent: (value) => percent(value), number: (value) => significant(value), whole, text: (value) => String(value),
};

/** A value for people; what is not known is a dash. */
function written(column, value) {
  if (value === null || value === undefined || value === "") return "–";
  return typeof value === "number" ? writers[column.kind](value) : String(value);
}

function column(name, kind, get, more = {}) {
  return { name, kind, get, ...more };
}

/** Columns and rows of a sweep. */
function sweepTable({ header, rows }) {
  const short = (axis) => (header.axes.filter((other) => other.split(".").at(-1) === axis.split(".").at(-1)).length > 1 ? axis : axis.split(".").at(-1));
  const value = (row, axis) => {
    const found = row.values[axis];
    return typeof found === "object" && found !== null ? JSON.stringify(found) : typeof found === "boolean" ? String(found) : found;
  };
  const axes = header.axes.map((axis) => {
    const numeric = rows.every((row) => typeof row.values[axis] === "number");
    return column(words(short(axis)), numeric ? "plain" : "text", (row) => value(row, axis), { axis: true });
  });
  writers.plain = (number) => String(number);
  const cost = rows.some((row) => row.cost && row.cost.per_step > 0);
  const columns = [
    column("point", "plain", (row) => row.point), ...axes, column("verdict", "text", (row) => words(row.verdict), { axis: true }),
    column("step time", "seconds", (row) => row.step_time_s), column("samples/s", "number", (row) => row.samples_per_s),
    column("tokens/s per GPU", "number", (row) => row.tokens_per_s_per_gpu), column("MFU", "percent", (row) => row.model_flops_utilization),
    column("GPUs", "whole", (row) => row.gpus), column("device memory", "bytes", (row) => row.peak_device_bytes),
    ...(cost ? [column("money a step", "number", (row) => row.cost?.per_step ?? null)] : []), column("reason", "text", (row) => row.reason, { long: true }),
  ];
  const fits = rows.filter((row) => row.verdict === "fits");
  const best = fits.reduce((most, row) => ((row.samples_per_s ?? 0) > (most?.samples_per_s ?? -1) ? row : most), null);
  const lead = best === null ? "No point fits." : `Most samples a second: point ${best.point} with ${axes.map((axis) => `${axis.name} ${written(axis, axis.get(best))}`).join(", ")}: ${significant(best.samples_per_s ?? 0)} samples/s, ${seconds(best.step_time_s)} a step.`;
  const facts = `${whole(rows.length)} points: ${whole(fits.length)} fit, ${whole(rows.filter((row) => row.verdict === "out_of_memory").length)} run out of memory, ${whole(rows.filter((row) => row.verdict === "refused").length)} cannot be.`;
  return { name: header.name, good: best !== null, lead, facts, columns, rows, sort: ["samples/s", -1], x: "device memory", y: "samples/s", tint: "verdict", foot: `Scenario hash ${header.fingerprint}, steptime ${header.version}` };
}

/** Columns and rows of a search. */
function searchTable({ report }) {
  const seen = new Set();
  const marked = [[report.best, "best"], ...report.pareto.map((plan) => [plan, "Pareto"]), ...report.runners_up.map((plan) => [plan, "next best"])];
  const rows = marked.filter(([plan]) => plan !== null && !seen.has(plan.set.join()) && seen.add(plan.set.join()))
    .map(([plan, mark]) => ({ ...plan, mark, keys: Object.fromEntries(plan.set.map((option) => [option.slice(0, option.indexOf("=")), option.slice(option.indexOf("=") + 1)])) }));
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row.keys)))].filter((key) => new Set(rows.map((row) => row.keys[key])).size > 1);
  writers.plain = (number) => String(number);
  const plain = (text) => (text !== undefined && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text);
  const cost = rows.some((row) => row.cost && row.cost.per_step > 0);
  const columns = [
    column("plan", "text", (row) => row.mark, { axis: true }), ...keys.map((key) => column(words(key.split(".").at(-1)), "plain", (row) => plain(row.keys[key]), { axis: true })),
    column("GPUs", "whole", (row) => row.gpus), column("step time", "seconds", (row) => row.step_time_s), column("at least", "seconds", (row) => row.bound_s),
    column("device memory", "bytes", (row) => row.peak_device_bytes), ...(cost ? [column("money a step", "number", (row) => row.cost?.per_step ?? null)] : []),
    column("why not", "text", (row) => row.why, { long: true }), column("options", "text", (row) => row.set.map((option) => `--set ${option}`).join(" "), { long: true }),
  ];
  const { counts, best } = report;
  const lead = best === null ? "No plan fits." : `Best: ${seconds(best.step_time_s)} a step with ${best.set.filter((option) => !/=(1|false|none|"none")$/.test(option)).map((option) => option.split(".").at(-1).replace("=", " ")).join(", ")}.`;
  const gap = report.gap === null ? "" : ` No plan of this space can be more than ${percent(report.gap, 2)} better.`;
  const facts = `${whole(counts.plans)} plans: ${whole(counts.states_do_not_fit)} whose states do not fit, ${whole(counts.bound_is_worse)} whose bound is worse, ${whole(counts.played)} played, of which ${whole(counts.out_of_memory)} ran out of memory.${gap}`;
  return { name: report.name, good: best !== null, lead, facts, columns, rows, sort: ["step time", 1], x: "device memory", y: "step time", tint: "plan", foot: `steptime ${report.version}` };
}

class PointsView {
  constructor(table) {
    this.table = table;
    this.filters = new Map();
    this.text = "";
    this.limit = pageOfRows;
    const [name, way] = table.sort;
    this.by = table.columns.find((each) => each.name === name) ?? table.columns[0];
    this.way = way;
    this.chosen = -1;
    this.count = el("output", { class: "muted small", id: "points-count" });
    this.body = el("tbody");
    this.heads = table.columns.map((each) => {
      const head = el("th", { scope: "col", class: each.kind === "text" ? null : "n" }, el("button", { type: "button", click: () => this.sort(each) }, each.name));
      return head;
    });
    this.more = el("button", { type: "button", click: () => { this.limit *= 4; this.fill(); } }, "Show more");
  }

  sort(by) {
    this.way = this.by === by ? -this.way : 1;
    this.by = by;
    this.update();
    say(`sorted by ${by.name}, ${this.way > 0 ? "smallest" : "largest"} first`);
  }

  update() {
    const wanted = this.text.toLowerCase();
    const { columns, rows } = this.table;
    const keeps = (row) => [...this.filters].every(([each, value]) => String(each.get(row)) === value)
      && (wanted === "" || columns.some((each) => written(each, each.get(row)).toLowerCase().includes(wanted)));
    const missing = (value) => value === null || value === undefined;
    this.shown = rows.filter(keeps).sort((a, b) => {
      const [left, right] = [this.by.get(a), this.by.get(b)];
      if (missing(left) || missing(right)) return missing(left) - missing(right);
      const order = typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right), "en", { numeric: true });
      return order * this.way;
    });
    this.chosen = -1;
    this.limit = pageOfRows;
    this.fill();
    this.scatter?.redraw();
  }

  fill() {
    const { columns } = this.table;
    this.heads.forEach((head, index) => {
      if (columns[index] === this.by) head.setAttribute("aria-sort", this.way > 0 ? "ascending" : "descending"); else head.removeAttribute("aria-sort");
    });
    this.body.replaceChildren(...this.shown.slice(0, this.limit).map((row) => el("tr", {},
      columns.map((each) => {
        const text = written(each, each.get(row));
        return el("td", { class: each.long ? "long" : each.kind === "text" ? "short" : "n", title: each.long ? text : null }, text);
      }))));
    this.count.textContent = `${whole(this.shown.length)} of ${whole(this.table.rows.length)} shown`;
    this.more.hidden = this.shown.length <= this.limit;
  }

  controls() {
    const choices = this.table.columns.filter((each) => each.axis).map((each) => {
      const values = [...new Set(this.table.rows.map((row) => String(each.get(row))))];
      if (values.length < 2 || values.length > 40) return null;
      const select = el("select", { change: () => { if (select.value === "") this.filters.delete(each); else this.filters.set(each, select.value.slice(1)); this.update(); } },
        el("option", { value: "" }, "all"), values.map((value) => el("option", { value: `=${value}` }, value)));
      return el("label", {}, each.name, select);
    });
    const search = el("input", { type: "search", input: () => { this.text = search.value; this.update(); } });
    return el("div", { class: "tools", id: "filters", role: "group", "aria-label": "Filters" }, choices, el("label", {}, "with the text", search), this.count);
  }
}

class Scatter {
  constructor(points) {
    this.points = points;
    const numeric = points.table.columns.filter((each) => each.kind !== "text");
    const byName = (name) => numeric.find((each) => each.name === name) ?? numeric[0];
    this.x = byName(points.table.x);
    this.y = byName(points.table.y);
    this.tint = points.table.columns.find((each) => each.name === points.table.tint);
    const choose = (axis, list) => {
      const select = el("select", { id: `axis-${axis}`, change: () => { this[axis] = list[Number(select.value)]; this.redraw(); } },
        list.map((each, index) => el("option", { value: index, selected: each === this[axis] }, each.name)));
      return select;
    };
    this.legend = el("ul", { class: "legend" });
    this.canvas = el("canvas", { tabindex: "0", role: "application", "aria-label": "Dots of the points that the filters leave. N and P go from one to the next; the table below has the same in numbers" });
    this.node = el("div", { class: "drawing", id: "scatter-drawing" }, this.canvas);
    this.tools = el("div", { class: "tools" }, el("label", {}, "across", choose("x", numeric)), el("label", {}, "up", choose("y", numeric)),
      el("label", {}, "colour", choose("tint", points.table.columns.filter((each) => each.axis))));
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", hideTip);
    this.canvas.addEventListener("keydown", (event) => {
      if (event.key !== "n" && event.key !== "p") return;
      const { length } = this.dots;
      if (length === 0) return;
      this.chosen = ((this.chosen ?? (event.key === "n" ? -1 : 0)) + (event.key === "n" ? 1 : -1) + length) % length;
      say(this.describe(this.dots[this.chosen].row));
      this.redraw();
    });
    themeListeners.add(() => this.redraw());
  }

  layout() {
    this.width = this.node.clientWidth;
    if (this.width === 0) return;
    this.context = sized(this.canvas, this.width, scatterHeight);
    this.redraw();
  }

  redraw() {
    if (this.pending || !this.context) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  draw() {
    const { context, x, y, tint } = this;
    const known = (value) => typeof value === "number" && Number.isFinite(value);
    const rows = this.points.shown.filter((row) => known(x.get(row)) && known(y.get(row)));
    const [left, right, top, bottom] = [78, 16, 14, 40];
    const [wide, high] = [this.width - left - right, scatterHeight - top - bottom];
    const ends = (each) => {
      const values = rows.map(each.get);
      const most = values.reduce((a, b) => Math.max(a, b), 0);
      const least = values.reduce((a, b) => Math.min(a, b), 0);
      return [least, most > least ? least + (most - least) * 1.05 : least + 1];
    };
    const [[x0, x1], [y0, y1]] = [ends(x), ends(y)];
    const place = (row) => [left + ((x.get(row) - x0) / (x1 - x0)) * wide, top + high - ((y.get(row) - y0) / (y1 - y0)) * high];
    context.clearRect(0, 0, this.width, scatterHeight);
    context.font = "12px system-ui, sans-serif";
    const grid = (each, from, to, most, write) => {
      // Bytes are counted in powers of 1,024.
      const unit = each.kind !== "bytes" ? 1 : to - from > 2 ** 30 ? 2 ** 30 : 2 ** 20;
      const step = rulerStep((to - from) / unit, most) * unit;
      for (let index = Math.ceil(from / step); index * step <= to; index += 1) write(index * step);
    };
    context.strokeStyle = colour("line");
    context.fillStyle = colour("muted");
    context.textBaseline = "middle";
    context.textAlign = "right";
    grid(y, y0, y1, 6, (value) => {
      const at = top + high - ((value - y0) / (y1 - y0)) * high;
      context.strokeRect(left, at, wide, 0);
      context.fillText(axisText(y, value), left - 6, at);
    });
    context.textAlign = "center";
    context.textBaseline = "top";
    grid(x, x0, x1, Math.max(2, wide / 120), (value) => {
      const at = left + ((value - x0) / (x1 - x0)) * wide;
      context.strokeRect(at, top, 0, high);
      context.fillText(axisText(x, value), at, top + high + 6);
    });
    context.fillStyle = colour("text");
    context.fillText(`${x.name} →`, left + wide / 2, top + high + 22);
    context.textAlign = "left";
    context.fillText(`↑ ${y.name}`, left + 6, top + 2);
    const good = (value) => (value === "fits" || value === "best" ? 0 : 1);
    const values = [...new Set(this.points.table.rows.map((row) => String(tint.get(row))))].sort((a, b) => good(a) - good(b)).slice(0, 24);
    this.dots = rows.map((row) => ({ row, at: place(row), group: Math.max(0, values.indexOf(String(tint.get(row)))) }));
    this.dots.forEach((dot, index) => {
      context.fillStyle = colour(dotColours[dot.group % dotColours.length]);
      mark(context, dot.at, index === this.chosen ? 8 : 4.5, dot.group);
    });
    this.legend.replaceChildren(...values.slice(0, 12).map((value, group) => el("li", {}, el("span", { class: `swatch c-${dotColours[group % dotColours.length]}` }), `${"●■▲◆"[group % 4]} ${value}`)));
    this.node.dataset.dots = rows.length;
  }

  describe(row) {
    const { columns } = this.points.table;
    return columns.filter((each) => !each.long).map((each) => `${each.name}: ${written(each, each.get(row))}`).filter((text) => !text.endsWith("–")).join("\n");
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    let near = null;
    let least = 144;
    for (const dot of this.dots ?? []) {
      const away = (dot.at[0] - x) ** 2 + (dot.at[1] - y) ** 2;
      if (away < least) { least = away; near = dot; }
    }
    if (near) showTip(event.clientX, event.clientY, this.describe(near.row)); else hideTip();
  }
}

/** Numbers at an axis, without digits that say nothing. */
function axisText(each, value) {
  return written(each, value).replace(/(\.\d*?)0+(?= |$)/, "$1").replace(/\.(?= |$)/, "");
}

/** A dot; its form is a second cue beside its colour. */
function mark(context, [x, y], size, group) {
  context.beginPath();
  if (group % 4 === 0) context.arc(x, y, size, 0, 7);
  else if (group % 4 === 1) context.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
  else if (group % 4 === 2) { context.moveTo(x, y - size); context.lineTo(x + size, y + size * 0.8); context.lineTo(x - size, y + size * 0.8); }
  else { context.moveTo(x, y - size * 1.2); context.lineTo(x + size * 1.2, y); context.lineTo(x, y + size * 1.2); context.lineTo(x - size * 1.2, y); }
  context.fill();
}

/** All parts of the page of a sweep or of a search. */
function pointsParts(data) {
  const table = data.kind === "sweep" ? sweepTable(data) : searchTable(data);
  const points = new PointsView(table);
  const scatter = new Scatter(points);
  points.scatter = scatter;
  const caption = "Press the head of a column to sort by it";
  const nodes = [
    el("section", { id: "summary", "aria-labelledby": "summary-title" }, el("div", { class: table.good ? "verdict" : "verdict no" },
      el("h1", { id: "summary-title" }, table.name), el("p", { class: "why" }, table.lead), el("p", {}, table.facts))),
    part("points", data.kind === "sweep" ? "Points" : "Plans", points.controls(), scatter.tools, scatter.legend, scatter.node),
    part("rows", "Table", el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" },
      el("table", { class: "wide", id: "points-table" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, points.heads)), points.body)), points.more),
    el("p", { class: "muted small" }, table.foot),
  ];
  points.update();
  return { nodes, layout: () => scatter.layout() };
}
