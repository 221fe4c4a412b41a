// Memory of a rank over the step, by category, with what the device has.

const memoryColours = ["host", "forward", "backward", "optimizer", "communication", "transfer", "offload", "data", "other", "recompute"];
const memoryHeight = 260;

class MemoryView {
  constructor(ranks, span) {
    this.ranks = ranks;
    this.span = span;
    this.rank = ranks[0];
    this.canvas = el("canvas", { tabindex: "0", role: "img", "aria-label": "Memory over the step by category; the table below has the peaks" });
    this.node = el("div", { class: "drawing", id: "memory-drawing" }, this.canvas);
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", hideTip);
    span.listeners.add(() => this.redraw());
    themeListeners.add(() => this.redraw());
  }

  layout() {
    const width = this.node.clientWidth;
    if (width === 0) return;
    this.width = width;
    this.left = width < 600 ? 84 : 150;
    this.context = sized(this.canvas, width, memoryHeight);
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  get top() {
    const { memory, capacity_bytes: capacity, reserved, failed } = this.rank;
    let most = Math.max(capacity, failed ? failed.needed_bytes : 0);
    for (let index = 0; index < memory.at.length; index += 1) {
      most = Math.max(most, memory.levels.reduce((sum, level) => sum + level[index], 0));
    }
    return reserved.bytes.reduce((largest, level) => Math.max(largest, level), most) * 1.06;
  }

  draw() {
    if (!this.context) return;
    const { context, span, rank, left } = this;
    const { at, levels } = rank.memory;
    const plot = this.width - left - 1;
    const scale = plot / (span.to - span.from);
    const top = this.top || 1;
    const base = memoryHeight - 4;
    const y = (level) => base - (level / top) * (base - rulerHeight);
    const x = (time) => left + Math.min(plot + 2, Math.max(-2, (time - span.from) * scale));
    context.clearRect(0, 0, this.width, memoryHeight);
    const first = Math.max(0, firstAbove(at, span.from) - 1);
    const last = firstAbove(at, span.to);
    const floor = new Float64Array(Math.max(0, last - first));
    rank.categories.forEach((_, category) => {
      context.fillStyle = colour(memoryColours[category % memoryColours.length]);
      context.beginPath();
      const ceiling = Float64Array.from(floor, (level, index) => level + levels[category][first + index]);
      for (let index = 0; index < floor.length; index += 1) {
        const end = first + index + 1 < at.length ? at[first + index + 1] : span.end;
        context.lineTo(x(at[first + index]), y(ceiling[index]));
        context.lineTo(x(end), y(ceiling[index]));
      }
      for (let index = floor.length - 1; index >= 0; index -= 1) {
        const end = first + index + 1 < at.length ? at[first + index + 1] : span.end;
        context.lineTo(x(end), y(floor[index]));
        context.lineTo(x(at[first + index]), y(floor[index]));
      }
      context.fill();
      floor.set(ceiling);
    });
    drawRuler(context, span, left, plot, rulerHeight);
    this.drawLines(context, x, y, plot);
    this.drawAxis(context, y, top);
  }

  drawLines(context, x, y, plot) {
    const { rank, left, span } = this;
    context.strokeStyle = colour("text");
    context.lineWidth = 1.5;
    context.beginPath();
    rank.reserved.at.forEach((time, index) => {
      const end = rank.reserved.at[index + 1] ?? span.end;
      context.lineTo(x(time), y(rank.reserved.bytes[index]));
      context.lineTo(x(end), y(rank.reserved.bytes[index]));
    });
    context.stroke();
    if (rank.capacity_bytes > 0) {
      context.setLineDash([6, 4]);
      context.strokeStyle = colour("bad");
      context.strokeRect(left, y(rank.capacity_bytes), plot, 0);
      context.setLineDash([]);
      context.fillStyle = colour("bad");
      context.textAlign = "right";
      context.textBaseline = "bottom";
      context.font = "600 12px system-ui, sans-serif";
      const words = `device has ${bytes(rank.capacity_bytes)}`;
      const wide = context.measureText(words).width + 8;
      context.fillStyle = colour("ground");
      context.fillRect(left + plot - wide, y(rank.capacity_bytes) - 17, wide, 15);
      context.fillStyle = colour("bad");
      context.fillText(words, left + plot - 4, y(rank.capacity_bytes) - 2);
    }
    if (rank.failed) {
      const [fx, fy] = [x(rank.failed.at_s), y(rank.failed.needed_bytes)];
      context.strokeStyle = colour("bad");
      context.lineWidth = 3;
      context.beginPath();
      context.moveTo(fx - 6, fy - 6); context.lineTo(fx + 6, fy + 6);
      context.moveTo(fx - 6, fy + 6); context.lineTo(fx + 6, fy - 6);
      context.stroke();
    }
    context.lineWidth = 1;
  }

  drawAxis(context, y, top) {
    context.fillStyle = colour("ground");
    context.fillRect(0, rulerHeight, this.left - 1, memoryHeight);
    context.fillStyle = colour("muted");
    context.textAlign = "right";
    context.textBaseline = "middle";
    context.font = "12px system-ui, sans-serif";
    const unit = top > 2 ** 30 ? 2 ** 30 : 2 ** 20;
    const step = rulerStep(top / unit, 5) * unit;
    for (let level = 0; level <= top; level += step) context.fillText(bytes(level).replace(".000", "").replace(/(\.\d)0+ /, "$1 ").replace(".0 ", " "), this.left - 8, Math.min(memoryHeight - 8, y(level)));
    context.fillStyle = colour("line");
    context.fillRect(this.left - 1, 0, 1, memoryHeight);
  }

  hover(event) {
    const box = this.canvas.getBoundingClientRect();
    const x = event.clientX - box.left;
    const { at, levels } = this.rank.memory;
    if (x < this.left || at.length === 0) { hideTip(); return; }
    const time = this.span.from + ((x - this.left) / (this.width - this.left)) * (this.span.to - this.span.from);
    const index = Math.max(0, firstAbove(at, time) - 1);
    const total = levels.reduce((sum, level) => sum + level[index], 0);
    const held = this.rank.categories.map((name, category) => [name, levels[category][index]]).filter(([, level]) => level > 0).reverse();
    const lines = held.map(([name, level]) => `${words(name)}: ${bytes(level)}`);
    showTip(event.clientX, event.clientY, [`${seconds(at[index])}: ${bytes(total)}`, ...lines].join("\n"));
  }
}

/** The section with the curve, or none where nothing is known of memory. */
function memoryPart(timeline, report, span) {
  const ranks = timeline.ranks.filter((rank) => rank.memory.at.length > 0);
  if (ranks.length === 0) return [null, () => {}];
  const view = new MemoryView(ranks, span);
  const fullest = ranks.findIndex((rank) => rank.rank === report.peak_memory.rank);
  view.rank = ranks[Math.max(0, fullest)];
  const peaks = (rank) => rank.memory.levels.map((level) => level.reduce((most, value) => Math.max(most, value), 0));
  const legend = el("ul", { class: "legend" });
  const explain = () => {
    const highest = peaks(view.rank);
    legend.replaceChildren(...view.rank.categories.map((name, index) => (highest[index] > 0
      ? el("li", {}, el("span", { class: `swatch c-${memoryColours[index % memoryColours.length]}` }), words(name)) : "")),
    view.rank.reserved.at.length > 0 ? el("li", {}, "— held by the allocator") : "", view.rank.failed ? el("li", { class: "bad" }, "✕ the request that fails") : "");
  };
  explain();
  const choose = el("select", { id: "memory-rank", change: () => { view.rank = ranks[Number(choose.value)]; explain(); view.redraw(); } },
    ranks.map((rank, index) => el("option", { value: index, selected: rank === view.rank }, rankTitle(rank, true))));
  const rows = ranks.map((rank) => [rankTitle(rank, true), bytes(rank.capacity_bytes), ...peaks(rank).map(bytes)]);
  const section = part("memory", "Memory over the step",
    el("div", { class: "tools" }, el("label", {}, "Rank", choose)), legend, view.node,
    el("details", { id: "memory-table" }, el("summary", {}, "The curve as a table"),
      plainTable("Most bytes of each category in the step", ["rank", "device has", ...ranks[0].categories.map(words)], rows)));
  return [section, () => view.layout()];
}
