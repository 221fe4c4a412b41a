// The page that predicts while its controls are moved.

const liveControls = [
  { key: "cluster.name", name: "Cluster", list: "clusters" },
  { key: "cluster.nodes", name: "Nodes", steps: [1, 2, 4, 8, 16, 32, 64, 128, 256], setting: "nodes", spread: true },
  { key: "cluster.gpus_per_node", name: "GPUs a node", steps: [1, 2, 4, 8], setting: "gpus_per_node", spread: true },
  { key: "model.name", name: "Model", list: "models" },
  { key: "workload.micro_batch_size", name: "Micro-batch", steps: [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128], setting: "micro_batch_size" },
  { key: "workload.gradient_accumulation_steps", name: "Micro-batches a step", steps: [1, 2, 4, 8, 16, 32, 64, 128], setting: "gradient_accumulation_steps" },
  { key: "parallelism.zero_stage", name: "ZeRO stage", options: ["0", "1", "2", "3"], standard: "0" },
  { key: "parallelism.tensor", name: "Tensor parallel", steps: [1, 2, 4, 8], setting: "tensor", spread: true },
  { key: "parallelism.pipeline", name: "Pipeline stages", steps: [1, 2, 4, 8, 16], setting: "pipeline", spread: true },
  { key: "parallelism.schedule", name: "Schedule", options: ["1f1b", "gpipe", "zb-h1", "zb-h2", "zb-1p", "zb-2p", "zb-v", "v-half", "v-min", "dualpipe", "dualpipe-v"], standard: "1f1b" },
  { key: "workload.precision", name: "Precision", options: ["fp32", "tf32", "fp16", "bf16", "fp8"] },
  { key: "workload.activation_checkpointing", name: "Activation checkpointing", options: ["none", "selective", "full"], standard: "none" },
  { key: "workload.attention", name: "Attention", options: ["flash", "eager"] },
  { key: "workload.execution", name: "Execution", options: ["eager", "compiled", "cuda-graphs"], standard: "eager" },
];

/** Milliseconds without a change after which the timeline is asked for. */
const settleMs = 350;

function toLink(text) {
  const raw = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(raw).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

function fromLink(text) {
  const raw = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(raw, (letter) => letter.charCodeAt(0)));
}

class Live {
  constructor(main, choices) {
    this.choices = choices;
    this.changes = new Map();
    this.scenario = choices.first;
    this.kept = null;
    this.last = null;
    this.busy = false;
    this.wanted = null;
    this.controls = liveControls.map((facts) => this.control(facts));
    this.problem = el("p", { class: "bad error", role: "alert", id: "problem" });
    // On a phone the result lies below the controls: its first line stays in sight.
    this.now = el("div", { class: "now", id: "now", "aria-hidden": "true" });
    this.quick = el("div", { id: "quick" });
    this.compared = el("div", { id: "compared" });
    this.whole = el("div", { id: "whole" });
    this.text = el("textarea", { rows: "18", spellcheck: "false", id: "toml", "aria-label": "The scenario as TOML", change: () => this.read(this.text.value) });
    const files = el("select", { id: "scenario", change: () => this.open(files.value) }, el("option", { value: "" }, "llama3-8b on a DGX H100"), choices.scenarios.map((name) => el("option", { value: name }, name)));
    const button = (id, text, act) => el("button", { type: "button", id, click: act }, text);
    this.node = el("div", { class: "live" },
      el("form", { class: "controls", "aria-label": "The scenario", submit: (event) => event.preventDefault() },
        this.now, el("label", {}, "Scenario", files), this.controls.map((control) => control.node),
        el("div", { class: "tools" }, button("keep", "Keep to compare", () => this.keep()), button("share", "Copy link", () => this.share()), button("download", "Save TOML", () => this.save())),
        el("details", {}, el("summary", {}, "Edit the TOML"), this.text)),
      el("div", {}, this.problem, this.quick, this.compared, this.whole));
    main.replaceChildren(this.node);
  }

  control(facts) {
    const control = { facts };
    if (facts.steps) {
      control.shown = el("output", {});
      control.input = el("input", { type: "range", min: 0, max: facts.steps.length - 1, step: 1, "data-key": facts.key, input: () => this.change(control, facts.steps[Number(control.input.value)]) });
      control.node = el("label", {}, el("span", { class: "pair" }, facts.name, control.shown), control.input);
    } else {
      const options = facts.list ? this.choices[facts.list] : facts.options;
      control.input = el("select", { "data-key": facts.key, change: () => this.change(control, control.input.value) }, options.map((name) => el("option", { value: name }, name)));
      control.node = el("label", {}, facts.name, control.input);
    }
    return control;
  }

  /** A control was moved: the rest of the plan follows the number of GPUs. */
  change(control, value) {
    const { facts } = control;
    this.changes.set(facts.key, typeof value === "number" || facts.key === "parallelism.zero_stage" ? String(value) : JSON.stringify(value));
    if (control.shown) { control.shown.textContent = value; control.input.setAttribute("aria-valuetext", String(value)); }
    if (facts.key === "cluster.name") {
      const [nodes, each] = this.choices.sizes[value] ?? [1, 1];
      this.changes.set("cluster.nodes", String(nodes)).set("cluster.gpus_per_node", String(each));
    }
    if ((facts.spread || facts.key === "cluster.name") && this.last?.settings) {
      const set = (key, name) => Number(this.changes.get(key) ?? this.last.settings[name]);
      const gpus = set("cluster.nodes", "nodes") * set("cluster.gpus_per_node", "gpus_per_node");
      const data = gpus / (set("parallelism.tensor", "tensor") * set("parallelism.pipeline", "pipeline") * this.last.settings.context);
      this.changes.set("parallelism.data", String(Math.max(1, Math.floor(data))));
    }
    this.ask(performance.now());
  }

  /** One question at a time; of those asked meanwhile only the last is sent. */
  async ask(since) {
    clearTimeout(this.settle);
    if (this.busy) { this.wanted = since; return; }
    this.busy = true;
    const done = await this.fetch(false);
    if (done) {
      this.show(done);
      this.node.dataset.latency = (performance.now() - since).toFixed(1);
      this.node.dataset.answers = Number(this.node.dataset.answers ?? 0) + 1;
    }
    this.busy = false;
    if (this.wanted !== null) {
      const again = this.wanted;
      this.wanted = null;
      this.ask(again);
    } else if (done) {
      this.settle = setTimeout(() => this.detail(), settleMs);
    }
  }

  async detail() {
    const stamp = this.stamp();
    const done = await this.fetch(true);
    // What was changed meanwhile is shown by its own answer.
    if (!done || this.busy || this.stamp() !== stamp) return;
    this.last = done;
    const open = new Set([...this.whole.querySelectorAll("details[open]")].map((node) => node.id));
    const parts = await runParts(done);
    parts.nodes = parts.nodes.filter((node) => node.id !== "summary");
    present(this.whole, parts);
    this.whole.querySelectorAll("details").forEach((node) => { if (node.id && open.has(node.id)) node.open = true; });
    this.node.dataset.detailed = [...this.changes].join() || "first";
  }

  /** What is asked for now. */
  stamp() {
    return `${[...this.changes].join()}\n${this.scenario}`;
  }

  async fetch(timeline) {
    const set = [...this.changes].map(([key, value]) => `${key}=${value}`);
    const stamp = this.stamp();
    // An answer to what was asked before says nothing of what is wrong now.
    const tell = (text) => { if (this.stamp() === stamp) this.problem.textContent = text; };
    try {
      const response = await fetch("/api/predict", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ scenario: this.scenario, set, timeline }) });
      const data = await response.json();
      if (!response.ok) throw new Error(data.error);
      tell("");
      return data;
    } catch (error) {
      tell(error.message);
      return null;
    }
  }

  show(data) {
    this.last = data;
    this.quick.replaceChildren(summaryPart(data.report));
    this.now.replaceChildren(...this.quick.querySelector("h1").cloneNode(true).childNodes);
    this.now.className = data.report.verdict === "fits" ? "now verdict" : "now verdict no";
    document.getElementById("name").textContent = data.report.name;
    document.title = data.report.name;
    this.text.value = data.scenario;
    this.compare();
    this.follow(data);
  }

  /** Sets controls that nobody holds to what the scenario says. */
  follow(data) {
    for (const { facts, input, shown } of this.controls) {
      if (facts.steps) {
        const value = data.settings?.[facts.setting];
        if (value === undefined) continue;
        const nearest = facts.steps.reduce((best, step, index) => (Math.abs(step - value) < Math.abs(facts.steps[best] - value) ? index : best), 0);
        input.value = nearest;
        input.setAttribute("aria-valuetext", String(value));
        shown.textContent = value;
      } else {
        const quoted = facts.key.split(".").at(-1);
        const found = new RegExp(`^\\s*${quoted} = "?([^"\\n]*)"?\\s*$`, "m").exec(sectionOf(data.scenario, facts.key.split(".")[0]));
        const value = found ? found[1] : facts.standard;
        if (value === undefined) continue;
        if (![...input.options].some((option) => option.value === value)) input.append(el("option", { value }, value));
        input.value = value;
      }
    }
  }

  keep() {
    this.kept = this.last;
    this.compare();
    say("kept to compare");
  }

  /** The kept prediction and the one of now, side by side. */
  compare() {
    if (!this.kept || !this.last) { this.compared.replaceChildren(); return; }
    const [a, b] = [this.kept.report, this.last.report];
    const change = (from, to, lower) => {
      if (!from || !to || from === to) return "±0.0 %";
      const share = to / from - 1;
      return el("span", { class: share < 0 === lower ? "good" : "bad" }, signed(share));
    };
    const row = (name, write, get, lower) => [name, get(a) === null ? "–" : write(get(a)), get(b) === null ? "–" : write(get(b)), lower === null ? "" : change(get(a), get(b), lower)];
    const rate = (value) => `${significant(value)} samples/s`;
    const rows = [
      ["verdict", verdictOf(a)[0], verdictOf(b)[0], ""], row("GPUs", whole, (report) => report.gpus, null),
      row("step time", seconds, (report) => report.step_time_s, true), row("throughput", rate, (report) => report.samples_per_s, false),
      row("model FLOPs utilization", percent, (report) => report.model_flops_utilization, false), row("memory of the fullest device", bytes, (report) => report.peak_memory.device_bytes, true),
      ...Object.keys(partWords).filter((name) => a.time_breakdown_s[name] > 1e-9 || b.time_breakdown_s[name] > 1e-9).map((name) => row(partWords[name], seconds, (report) => report.time_breakdown_s[name], true)),
    ];
    this.compared.replaceChildren(part("compare", "Side by side", el("p", { class: "small muted" }, "kept"), stackedBar(a), el("p", { class: "small muted" }, "now"), stackedBar(b),
      plainTable("The kept prediction and the one of now", ["", "kept", "now", "change"], rows),
      el("div", { class: "tools" }, el("button", { type: "button", id: "forget", click: () => { this.kept = null; this.compare(); } }, "Forget the kept one"))));
  }

  async share() {
    if (!this.last) return;
    const link = new URL(`#s=${toLink(this.last.scenario)}`, location.href).href;
    history.replaceState(null, "", link);
    try { await navigator.clipboard.writeText(link); say("link copied"); } catch { say("the link is in the address bar"); }
    document.getElementById("share").textContent = "Link copied";
  }

  save() {
    if (!this.last) return;
    const name = `${this.last.report.name.replace(/[^\w.-]+/g, "-") || "scenario"}.toml`;
    el("a", { href: `data:application/toml;charset=utf-8,${encodeURIComponent(this.last.scenario)}`, download: name }).click();
  }

  async open(name) {
    if (name === "") { this.read(this.choices.first); return; }
    const response = await fetch(`/scenarios/${encodeURIComponent(name)}`);
    if (response.ok) this.read(await response.text()); else this.problem.textContent = `${name} cannot be read`;
  }

  read(text) {
    this.scenario = text;
    this.changes.clear();
    return this.ask(performance.now());
  }
}

/** The lines of a section of a TOML document. */
function sectionOf(text, name) {
  const begin = text.indexOf(`[${name}]`);
  if (begin < 0) return "";
  const end = text.indexOf("\n[", begin);
  return text.slice(begin, end < 0 ? undefined : end);
}

async function startLive(main, data) {
  const live = new Live(main, data.choices);
  const shared = () => {
    const link = new URLSearchParams(location.hash.slice(1)).get("s");
    if (!link) return null;
    try { return fromLink(link); } catch { live.problem.textContent = "The link holds no scenario."; return null; }
  };
  window.addEventListener("hashchange", () => { const text = shared(); if (text !== null && text !== live.last?.scenario) live.read(text); });
  await live.read(shared() ?? data.choices.first);
}
