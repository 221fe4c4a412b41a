// The verdict, the numbers, and why the step takes as long as it does.

const partClass = {
  compute: "forward", exposed_communication: "communication", pipeline_bubble: "waiting", host: "host",
  data_loading: "data", optimizer: "optimizer", offload: "offload", other: "other",
};
const partWords = {
  compute: "compute", exposed_communication: "waiting for communication", pipeline_bubble: "pipeline bubble",
  host: "waiting for the host", data_loading: "data loading", optimizer: "optimizer", offload: "offload", other: "other",
};

/** Parts of the step that are worth naming, the largest first. */
function shares(report) {
  const step = report.step_time_s;
  const all = Object.entries(report.time_breakdown_s).map(([name, time]) => ({ name, time, share: step > 0 ? time / step : 0 }));
  return all.filter((entry) => entry.share > 1e-9).sort((a, b) => b.share - a.share);
}

/** One sentence: where the step goes, and on which stage it is busiest. */
function because(report) {
  const parts = shares(report).filter((entry) => entry.share >= 0.01).slice(0, 4);
  if (parts.length === 0) return "";
  const list = parts.map((entry) => `${percent(entry.share, 0)} ${partWords[entry.name]}`);
  const text = list.length > 1 ? `${list.slice(0, -1).join(", ")} and ${list.at(-1)}` : list[0];
  const { stages } = report;
  const sentences = [parts.length === 1 ? `Nearly all of the step is ${partWords[parts[0].name]} (${percent(parts[0].share, 0)}).` : `Of the step, ${text}.`];
  if (stages.length > 1) {
    const busiest = stages.reduce((most, stage) => (stage.busy_fraction > most.busy_fraction ? stage : most));
    sentences.push(`Stage ${busiest.stage} is busiest: ${percent(busiest.busy_fraction, 0)} of the step.`);
  }
  return `${sentences.join(" ")} ${arithmetic(report)}`.trim();
}

/** How near to its peak the step's arithmetic comes, and how much of it is done twice. */
function arithmetic(report) {
  const [model, hardware] = [report.model_flops_utilization, report.hardware_flops_utilization];
  if (!model || !hardware) return "";
  const again = 1 - model / hardware;
  const twice = again > 0.005 ? `, ${percent(again, 0)} of it recomputation` : "";
  return `Over the step, the arithmetic is ${percent(hardware, 0)} of the GPUs' peak${twice}.`;
}

function verdictOf(report) {
  const memory = report.peak_memory;
  if (report.infeasible) return ["Cannot be placed", report.infeasible.reason];
  if (report.out_of_memory) {
    const oom = report.out_of_memory;
    return ["Out of memory", `Rank ${oom.rank}: ${oom.tensor} asks for ${bytes(oom.requested_bytes)}, ${bytes(oom.short_by_bytes)} short, ${seconds(oom.at_s)} into step ${oom.step}.`];
  }
  if (report.verdict !== "fits") return ["Out of memory", ""];
  const spare = Math.max(0, memory.capacity_bytes - memory.device_bytes);
  return ["Fits", `${bytes(spare)} of ${bytes(memory.capacity_bytes)} to spare on the fullest device.`];
}

function numbers(report) {
  const entry = (name, value, more) => (value === null ? null : el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : null)));
  const [low, high] = report.step_time_interval_s ?? [];
  const memory = report.peak_memory;
  const share = (value) => (value === null ? null : percent(value));
  return el("dl", { class: "numbers" },
    report.step_time_s === null ? null : entry("Step time", seconds(report.step_time_s), low === undefined ? "no measured runs to compare with" : `80 %: ${seconds(low)} to ${seconds(high)}`),
    report.samples_per_s === null ? null : entry("Throughput", `${significant(report.samples_per_s)} samples/s`, report.tokens_per_s_per_gpu === null ? null : `${significant(report.tokens_per_s_per_gpu)} tokens/s per GPU`),
    entry("Memory of the fullest device", bytes(memory.device_bytes), `of ${bytes(memory.capacity_bytes)}, rank ${memory.rank}`),
    entry("Model FLOPs utilization", share(report.model_flops_utilization), report.hardware_flops_utilization === null ? null : `${percent(report.hardware_flops_utilization)} with recomputation`),
    entry(report.vehicle_path || report.infeasible ? "Vehicles" : "GPUs", whole(report.gpus), report.parameters.total > 0 ? `${whole(report.parameters.total)} parameters` : null),
    report.cost && report.cost.per_hour > 0 ? entry("Cost", `${significant(report.cost.per_hour)} ${report.cost.currency}/h`, report.cost.per_million_tokens ? `${significant(report.cost.per_million_tokens)} a million tokens` : null) : null);
}

/** The step as one bar of its parts. */
function stackedBar(report) {
  const parts = shares(report);
  const label = parts.map((entry) => `${partWords[entry.name]} ${percent(entry.share)}`).join(", ");
  return el("div", { class: "stack", role: "img", "aria-label": `Where the step goes: ${label}` }, parts.map((entry) => {
    const node = el("span", { class: `c-${partClass[entry.name]}`, title: `${partWords[entry.name]}: ${seconds(entry.time)}, ${percent(entry.share)}` }, entry.share > 0.08 ? `${partWords[entry.name]} ${percent(entry.share, 0)}` : "");
    node.style.flexGrow = entry.share;
    node.style.flexBasis = "0";
    return node;
  }));
}

function summaryPart(report) {
  const [word, detail] = verdictOf(report);
  const fits = report.verdict === "fits";
  const headline = report.step_time_s === null ? "No step" : `${seconds(report.step_time_s)} a step`;
  return el("section", { id: "summary", "aria-labelledby": "summary-title" },
    el("div", { class: fits ? "verdict" : "verdict no" },
      el("h1", { id: "summary-title" }, el("span", { class: "word" }, `${fits ? "✓" : "✗"} ${word}`), ` · ${headline}`),
      el("p", { class: "why" }, because(report)), detail ? el("p", {}, detail) : null),
    report.step_time_s === null ? null : stackedBar(report), numbers(report));
}

function breakdownPart(report) {
  if (report.step_time_s === null) return null;
  const row = (name, style, amount, share) => {
    const bar = el("span", { class: `bar c-${style}`, "aria-hidden": "true" });
    bar.style.width = `${Math.min(100, 100 * share)}%`;
    const track = el("div", {}, bar);
    track.style.width = "min(16rem, 30vw)";
    return [name, amount, percent(share), track];
  };
  const parts = shares(report).map((entry) => row(partWords[entry.name], partClass[entry.name], seconds(entry.time), entry.share));
  const memory = report.peak_memory;
  const held = Object.entries(memory.breakdown_bytes).filter(([, level]) => level > 0).sort((a, b) => b[1] - a[1])
    .map(([name, level]) => row(words(name), "backward", bytes(level), level / Math.max(1, memory.capacity_bytes)));
  return part("breakdown", "Where time and memory go",
    plainTable("Parts of the step, mean over ranks", ["part", "time", "of the step", ""], parts),
    el("p", {}), plainTable(`Device memory at the peak: rank ${memory.rank}, ${seconds(memory.at_s)} into the step`, ["category", "memory", "of the device", ""], held));
}

/** What would help: changes that were played, and what the hardware does to the step. */
function helpPart(report, sensitivity, note) {
  const remedies = report.remedies.map((remedy) => [el("code", {}, remedy.set.join("  ")), seconds(remedy.step_time_s), bytes(remedy.spare_bytes)]);
  const effects = sensitivity ? sensitivity.effects.filter((effect) => Math.abs(effect.change) >= 5e-4) : [];
  const better = sensitivity ? `${(100 * sensitivity.share).toFixed(0)} %` : "";
  const widest = Math.max(...effects.map((effect) => Math.abs(effect.change)), 1e-9);
  const rows = effects.map((effect) => {
    const bar = el("span", { class: "bar c-optimizer", "aria-hidden": "true" });
    bar.style.width = `${Math.max(1, (8 * Math.abs(effect.change)) / widest)}rem`;
    return [effect.what, signed(effect.change), signed(effect.worse_s / sensitivity.step_time_s - 1), bar];
  });
  if (remedies.length + rows.length === 0 && !note) return null;
  return part("help", "What would help",
    remedies.length > 0 ? plainTable("Changes with which it fits, each of them played", ["change", "step", "to spare"], remedies) : null,
    rows.length > 0 ? plainTable(`The step, if one thing were ${better} faster or slower`, ["what", `${better} faster`, `${better} slower`, ""], rows) : null,
    note ? el("p", { class: "muted small" }, note) : null);
}

function stagesPart(report) {
  if (report.stages.length === 0) return null;
  const range = (layers) => (layers.length === 0 ? "none" : layers.length === 1 ? layers[0] : `${layers[0]} … ${layers.at(-1)}`);
  const rows = report.stages.map((stage) => [
    `${stage.stage}`, stage.device, stage.ranks.length > 1 ? `${stage.ranks[0]}–${stage.ranks.at(-1)}` : `${stage.ranks[0] ?? "–"}`, range(stage.layers),
    whole(stage.parameters), bytes(stage.peak_allocated_bytes), bytes(stage.peak_reserved_bytes), `${stage.in_flight_micro_batches}`,
    percent(stage.busy_fraction), percent(stage.bubble_fraction), percent(stage.communication_fraction),
  ]);
  const heads = ["stage", "device", "ranks", "layers", "parameters", "allocated", "reserved", "in flight", "busy", "bubble", "transfers"];
  return part("stages", "Stages", plainTable("Of each stage: what it holds and how it spends the step", heads, rows, 4));
}

function provenancePart(data) {
  const { report } = data;
  const rows = report.provenance.map((entry) => [words(entry.what), words(entry.kind), entry.source, entry.error || "–"]);
  const [low, high] = report.step_time_interval_s ?? [];
  const facts = [
    ["Scenario", report.name], ["Scenario hash", report.scenario_hash ?? "not known"], ["Version", `steptime ${report.version}`],
    ["Seed", report.variability ? `${report.variability.seed}, ${report.variability.repetitions} steps: ${seconds(report.variability.step_time_s.p10)} to ${seconds(report.variability.step_time_s.p90)} (P10 to P90)` : "none: nothing in this step is random"],
    ["80 % interval of the step", low === undefined ? "not known" : `${seconds(low)} to ${seconds(high)}`],
  ].map(([name, value]) => [name, el("code", {}, value)]);
  return part("provenance", "What this rests on",
    plainTable("The prediction", ["", ""], facts, 9), plainTable("Where each part comes from, and how far off it is known to be", ["part", "kind", "source", "error"], rows, 9),
    el("details", {}, el("summary", {}, "The scenario (TOML)"), el("pre", { tabindex: "0" }, el("code", {}, data.scenario))));
}
