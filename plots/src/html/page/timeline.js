// The timeline: every stream a lane, drawn on a canvas. What is narrower than a pixel is summed up, not drawn one by one.

const laneHeight = 18;
const rankHeight = 22;
const rulerHeight = 22;

/** What part of the step is looked at; the timeline and the memory curve share it. */
class TimeWindow {
  constructor(end) {
    this.end = end;
    this.from = 0;
    this.to = end;
    this.listeners = new Set();
  }

  show(from, to) {
    const least = this.end * 1e-7;
    const width = Math.min(this.end, Math.max(to - from, least));
    this.from = Math.min(Math.max(0, from), this.end - width);
    this.to = this.from + width;
    this.listeners.forEach((listener) => listener());
  }

  /** Zooms by a factor around a moment. */
  zoom(factor, at) {
    this.show(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }

  pan(share) {
    const by = (this.to - this.from) * share;
    this.show(this.from + by, this.to + by);
  }

  whole() {
    return this.to - this.from > this.end * 0.999999;
  }
}

/** Round steps of a ruler, at most `most` of them. */
function rulerStep(width, most) {
  const rough = width / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
}

/** A canvas sized for the screen's pixels; gives its context in CSS pixels. */
function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(width * ratio));
  canvas.height = Math.max(1, Math.round(height * ratio));
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  return context;
}

function drawRuler(context, span, left, width, height) {
  context.fillStyle = colour("muted");
  context.strokeStyle = colour("line");
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.font = "12px system-ui, sans-serif";
  const scale = width / (span.to - span.from);
  const step = rulerStep(span.to - span.from, width / 95);
  context.beginPath();
  for (let index = Math.ceil(span.from / step); index * step <= span.to; index += 1) {
    const x = left + (index * step - span.from) * scale;
    context.moveTo(Math.round(x) + 0.5, rulerHeight - 5);
    context.lineTo(Math.round(x) + 0.5, height);
    if (x > left + 22 && x < left + width - 26) context.fillText(tick(index * step, step), x, rulerHeight / 2);
  }
  context.stroke();
}

/** A moment with as many digits as its neighbours need to differ. */
function tick(value, step) {
  const [factor, unit] = step >= 0.5 ? [1, "s"] : step >= 5e-4 ? [1e3, "ms"] : [1e6, "µs"];
  const digits = Math.max(0, -Math.floor(Math.log10(step * factor) + 1e-9));
  return `${(value * factor).toFixed(Math.min(digits, 6))} ${unit}`;
}

class TimelineView {
  constructor(timeline, span) {
    this.timeline = timeline;
    this.span = span;
    this.rows = [];
    let y = 0;
    for (const rank of timeline.ranks) {
      this.rows.push({ rank, y, height: rankHeight });
      y += rankHeight;
      for (const lane of rank.lanes) {
        this.rows.push({ lane, y, height: laneHeight });
        y += laneHeight;
      }
    }
    this.total = y;
    this.lanes = this.rows.filter((row) => row.lane);
    this.row = 0;
    this.chosen = null;
    this.pending = false;
    this.canvas = el("canvas", {
      tabindex: "0", role: "application", "aria-label": "Timeline of the step. Arrow keys move, plus and minus zoom, 0 shows all, N and P go from span to span, the table below has the same in numbers",
    });
    this.box = el("div", { class: "lanes" }, this.canvas, el("div", { "aria-hidden": "true" }));
    this.node = el("div", { class: "drawing", id: "timeline-drawing" }, this.box);
    this.listen();
    span.listeners.add(() => this.redraw());
    themeListeners.add(() => this.redraw());
  }

  /** Sizes of the drawing; called when it is on the page and when the window changes. */
  layout() {
    const width = this.node.clientWidth;
    if (width === 0) return;
    this.left = width < 600 ? 84 : 150;
    this.height = Math.min(this.total + rulerHeight + 2, Math.max(220, Math.round(window.innerHeight * 0.6)));
    this.box.style.height = `${this.height}px`;
    this.box.lastElementChild.style.height = `${Math.max(0, this.total + rulerHeight + 2 - this.height)}px`;
    this.width = this.box.clientWidth;
    this.context = sized(this.canvas, this.width, this.height);
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => { this.pending = false; this.draw(); });
  }

  get plot() {
    return Math.max(10, this.width - this.left - 1);
  }

  timeAt(x) {
    return this.span.from + ((x - this.left) / this.plot) * (this.span.to - this.span.from);
  }

  draw() {
    if (!this.context) return;
    const begin = performance.now();
    const { context, span } = this;
    const colours = classNames.map(colour);
    const [text, muted, line, panel] = ["text", "muted", "line", "panel"].map(colour);
    context.clearRect(0, 0, this.width, this.height);
    drawRuler(context, span, this.left, this.plot, this.height);
    const top = this.box.scrollTop - rulerHeight;
    context.save();
    context.beginPath();
    context.rect(0, rulerHeight, this.width, this.height - rulerHeight);
    context.clip();
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (const row of this.rows) {
      const y = row.y - top;
      if (y + row.height < rulerHeight || y > this.height) continue;
      if (row.rank) {
        context.fillStyle = panel;
        context.fillRect(0, y, this.width, row.height);
        context.fillStyle = text;
        context.font = "600 12px system-ui, sans-serif";
        context.fillText(rankTitle(row.rank, this.width < 600), 6, y + row.height / 2);
      } else {
        this.drawLane(row.lane, y + 1, row.height - 3, colours);
        context.fillStyle = colour("ground");
        context.fillRect(0, y, this.left, row.height);
        context.fillStyle = row === this.lanes[this.row] && document.activeElement === this.canvas ? text : muted;
        context.font = "12px system-ui, sans-serif";
        context.fillText(row.lane.name, 14, y + row.height / 2, this.left - 18);
      }
    }
    context.restore();
    context.strokeStyle = line;
    context.strokeRect(this.left - 0.5, -1, 0, this.height + 2);
    this.drawn = performance.now() - begin;
    this.node.dataset.drawMs = this.drawn.toFixed(2);
    this.node.dataset.from = span.from;
    this.node.dataset.to = span.to;
  }

  drawLane(lane, y, height, colours) {
    const { context, span, left } = this;
    const scale = this.plot / (span.to - span.from);
    const right = left + this.plot;
    let index = firstAbove(lane.reach, span.from);
    while (index < lane.length && lane.start[index] < span.to) {
      const x = left + (lane.start[index] - span.from) * scale;
      const wide = (lane.stop[index] - lane.start[index]) * scale;
      if (wide >= 1.5) {
        this.drawSpan(lane, index, Math.max(left, x), Math.min(right, x + wide), y, height, colours);
        index += 1;
        continue;
      }
      // All that begins within this pixel: its commonest class, as high as the share of the pixel that is busy.
      const pixel = Math.max(left, Math.floor(x));
      let next = Math.max(index + 1, firstAbove(lane.start, span.from + (pixel + 1 - left) / scale, index));
      if (next - index > 1 && (lane.stop[next - 1] - lane.start[next - 1]) * scale >= 1.5) next -= 1;
      let busy = 0;
      let most = 0;
      let type = lane.type[index];
      for (const [kind, sums] of lane.sums) {
        const part = sums[next] - sums[index];
        // Waiting is what is left where nothing else is.
        if (classNames[kind] === "waiting") continue;
        busy += part;
        if (part > most) { most = part; type = kind; }
      }
      if (busy === 0) {
        context.fillStyle = colours[type];
        context.fillRect(pixel, y + height / 2 - 1, 1, 2);
        index = next;
        continue;
      }
      const high = Math.max(2, Math.round(height * Math.min(1, busy * scale)));
      context.fillStyle = colours[type];
      context.fillRect(pixel, y + height - high, 1, high);
      index = next;
    }
  }

  drawSpan(lane, index, from, to, y, height, colours) {
    const { context } = this;
    const type = lane.type[index];
    const waiting = classNames[type] === "waiting";
    context.fillStyle = colours[type];
    // Waiting is a thin line: nothing is done there.
    if (waiting) context.fillRect(from, y + height / 2 - 1, Math.max(1, to - from - 0.5), 2);
    else context.fillRect(from, y, Math.max(1, to - from - 0.5), height);
    if (this.chosen && this.chosen.lane === lane && this.chosen.index === index) {
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      context.strokeRect(from + 1, y + 1, Math.max(1, to - from - 2), height - 2);
      context.lineWidth = 1;
    }
    if (to - from > 34 && !waiting) {
      const micro = lane.micro[index] ? `${lane.micro[index] - 1} ` : "";
      context.save();
      context.beginPath();
      context.rect(from, y, to - from, height);
      context.clip();
      context.font = "11px system-ui, sans-serif";
      context.fillStyle = ["forward", "communication"].includes(classNames[type]) && document.documentElement.dataset.theme === "light" ? "#ffffff" : "#101418";
      context.fillText(micro + this.timeline.names[lane.label[index]], from + 4, y + height / 2 + 0.5);
      context.restore();
    }
  }

  describe(lane, index) {
    const kind = this.timeline.kinds[lane.kind[index]];
    const micro = lane.micro[index] ? `, micro-batch ${lane.micro[index] - 1}` : "";
    const name = this.timeline.names[lane.label[index]];
    const title = name && name !== kind ? `${words(kind)}: ${name}` : words(kind);
    return `${title}${micro}\n${seconds(lane.stop[index] - lane.start[index])}, from ${seconds(lane.start[index])} to ${seconds(lane.stop[index])}\n${rankTitle(lane.rank, true)}, ${lane.name}`;
  }

  /** The span under a point of the canvas, if any. */
  spanAt(x, y) {
    if (y < rulerHeight || x < this.left) return null;
    const at = y + this.box.scrollTop - rulerHeight;
    const row = this.lanes.find((row) => at >= row.y && at < row.y + row.height);
    if (!row) return null;
    const { lane } = row;
    const slack = (1.5 / this.plot) * (this.span.to - this.span.from);
    const time = this.timeAt(x);
    const index = firstAbove(lane.reach, time - slack);
    if (index >= lane.length || lane.start[index] > time + slack) return null;
    return { lane, index };
  }

  listen() {
    const { canvas, span } = this;
    const points = new Map();
    let dragged = null;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener("wheel", (event) => {
      const wanted = event.ctrlKey || event.metaKey || document.activeElement === canvas;
      // Zoomed out as far as it goes, and without being asked, the page scrolls on.
      if (!wanted || (event.deltaY > 0 && span.whole() && !event.ctrlKey)) return;
      event.preventDefault();
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) span.pan((event.deltaX || event.deltaY) / this.plot);
      else span.zoom(Math.exp(Math.max(-100, Math.min(100, event.deltaY)) * 0.0035), this.timeAt(place(event)[0]));
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      const [x, y] = place(event);
      canvas.setPointerCapture(event.pointerId);
      canvas.focus({ preventScroll: true });
      points.set(event.pointerId, x);
      dragged = { x, y, from: span.from, to: span.to, select: event.shiftKey || y < rulerHeight };
      hideTip();
    });
    canvas.addEventListener("pointermove", (event) => {
      const [x, y] = place(event);
      if (points.size === 2 && points.has(event.pointerId)) {
        const [a, b] = [...points.values()];
        points.set(event.pointerId, x);
        const [c, d] = [...points.values()];
        if (Math.abs(c - d) > 8 && Math.abs(a - b) > 8) span.zoom(Math.abs(a - b) / Math.abs(c - d), this.timeAt((c + d) / 2));
        return;
      }
      if (dragged && points.size === 1) {
        if (!dragged.select) {
          const by = ((x - dragged.x) / this.plot) * (dragged.to - dragged.from);
          span.show(dragged.from - by, dragged.to - by);
        } else {
          this.draw();
          this.context.fillStyle = "rgba(0, 114, 178, 0.25)";
          this.context.fillRect(Math.min(x, dragged.x), 0, Math.abs(x - dragged.x), this.height);
        }
        return;
      }
      const hit = this.spanAt(x, y);
      if (hit) showTip(event.clientX, event.clientY, this.describe(hit.lane, hit.index)); else hideTip();
    });
    const drop = (event) => {
      const [x] = place(event);
      if (dragged && dragged.select && Math.abs(x - dragged.x) > 4) {
        const ends = [this.timeAt(Math.min(x, dragged.x)), this.timeAt(Math.max(x, dragged.x))];
        span.show(...ends);
      }
      points.delete(event.pointerId);
      dragged = null;
    };
    canvas.addEventListener("pointerup", drop);
    canvas.addEventListener("pointercancel", drop);
    canvas.addEventListener("pointerleave", hideTip);
    canvas.addEventListener("dblclick", (event) => {
      const hit = this.spanAt(...place(event));
      if (hit) this.choose(hit.lane, hit.index, true); else span.show(0, span.end);
    });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("focus", () => this.redraw());
    canvas.addEventListener("blur", () => { hideTip(); this.redraw(); });
    this.box.addEventListener("scroll", () => { hideTip(); this.redraw(); });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const middle = (this.span.from + this.span.to) / 2;
    const actions = {
      ArrowLeft: () => this.span.pan(-0.2), ArrowRight: () => this.span.pan(0.2),
      ArrowUp: () => this.select(this.row - 1), ArrowDown: () => this.select(this.row + 1),
      "+": () => this.span.zoom(0.6, middle), "=": () => this.span.zoom(0.6, middle), "-": () => this.span.zoom(1 / 0.6, middle),
      0: () => this.span.show(0, this.span.end), Home: () => this.span.show(0, this.span.to - this.span.from),
      End: () => this.span.show(this.span.end - (this.span.to - this.span.from), this.span.end),
      n: () => this.step(1), p: () => this.step(-1), Escape: () => { this.chosen = null; hideTip(); this.redraw(); },
    };
    const action = actions[event.key];
    if (!action) return;
    event.preventDefault();
    action();
    if (["+", "=", "-", "0", "ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) {
      say(`${seconds(this.span.from)} to ${seconds(this.span.to)}`);
    }
  }

  select(row) {
    if (this.lanes.length === 0) return;
    this.row = Math.min(this.lanes.length - 1, Math.max(0, row));
    const { y, lane } = this.lanes[this.row];
    const visible = this.height - rulerHeight;
    if (y < this.box.scrollTop) this.box.scrollTop = Math.max(0, y - rankHeight);
    if (y + laneHeight > this.box.scrollTop + visible) this.box.scrollTop = y + laneHeight - visible;
    say(`${rankTitle(lane.rank, true)}, ${lane.name}, ${whole(lane.length)} spans`);
    this.redraw();
  }

  /** To the next or the last span of the chosen lane. */
  step(by) {
    const row = this.lanes[this.row];
    if (!row) return;
    const { lane } = row;
    const here = this.chosen && this.chosen.lane === lane ? this.chosen.index + by : firstAbove(lane.reach, this.span.from);
    this.choose(lane, Math.min(lane.length - 1, Math.max(0, here)), false);
  }

  choose(lane, index, zoom) {
    this.chosen = { lane, index };
    this.row = this.lanes.findIndex((row) => row.lane === lane);
    const length = lane.stop[index] - lane.start[index];
    const outside = lane.stop[index] > this.span.to || lane.start[index] < this.span.from;
    const pixels = (length / (this.span.to - this.span.from)) * this.plot;
    if (zoom || outside || pixels < 3) {
      const around = zoom ? length * 0.5 : Math.max(length * 8, 1e-6);
      this.span.show(lane.start[index] - around, lane.stop[index] + around);
    }
    const text = this.describe(lane, index);
    say(text);
    const box = this.canvas.getBoundingClientRect();
    const x = this.left + ((lane.start[index] - this.span.from) / (this.span.to - this.span.from)) * this.plot;
    showTip(box.left + Math.max(this.left, x), box.top + this.lanes[this.row].y - this.box.scrollTop + rulerHeight + 6, text);
    this.redraw();
  }
}

/** `stage 2 · rank 256 (1 of 128 alike)`. */
function rankTitle(rank, short) {
  const alike = rank.multiplicity > 1 ? `, one of ${whole(rank.multiplicity)} alike` : "";
  return short ? `stage ${rank.stage}, rank ${rank.rank}${alike}` : `Stage ${rank.stage}, rank ${rank.rank}${alike} · ${rank.device}`;
}

/** The section with the drawing, its buttons, its legend and the same in numbers. */
function timelinePart(timeline, span) {
  const view = new TimelineView(timeline, span);
  const middle = () => (span.from + span.to) / 2;
  const button = (text, label, act) => el("button", { type: "button", "aria-label": label, title: label, click: act }, text);
  const used = new Set(view.lanes.flatMap((row) => [...row.lane.sums.keys()]));
  const legend = classNames.filter((_, type) => used.has(type))
    .map((name) => el("li", {}, el("span", { class: `swatch c-${name}` }), classWords[name]));
  const shown = el("output", { class: "muted small", id: "timeline-window" });
  const tell = () => { shown.textContent = `${seconds(span.from)} to ${seconds(span.to)}`; };
  span.listeners.add(tell);
  tell();
  const count = view.lanes.reduce((sum, row) => sum + row.lane.length, 0);
  const section = part("timeline", "Timeline",
    el("div", { class: "tools" },
      button("+", "Zoom in", () => span.zoom(0.5, middle())), button("−", "Zoom out", () => span.zoom(2, middle())),
      button("◀", "Earlier", () => span.pan(-0.5)), button("▶", "Later", () => span.pan(0.5)),
      button("Whole step", "Show the whole step", () => span.show(0, span.end)), shown),
    el("ul", { class: "legend" }, legend), view.node,
    el("p", { class: "muted small" }, `${whole(count)} spans. Drag to move; drag the ruler (or with Shift) to zoom into a stretch; the wheel zooms once the timeline is clicked, or with Ctrl. Keys: arrows, + and −, 0, N and P.`),
    timeline.note ? el("p", { class: "small" }, timeline.note) : null,
    el("details", { id: "timeline-table" }, el("summary", {}, "The timeline as a table"), laneTable(view)));
  return [section, () => view.layout(), view];
}

/** Seconds of each class on each stream. */
function laneTable(view) {
  const present = classNames.map((name, type) => [name, type]).filter(([, type]) => view.lanes.some((row) => row.lane.sums.has(type)));
  const rows = view.lanes.map(({ lane }) => [
    rankTitle(lane.rank, true), lane.name, whole(lane.length),
    ...present.map(([, type]) => (lane.sums.has(type) ? seconds(lane.sums.get(type)[lane.length]) : "–")),
  ]);
  return plainTable("Time on each stream by what it does", ["rank", "stream", "spans", ...present.map(([name]) => classWords[name])], rows, 2);
}
