//! Jitter, stragglers and slow links, from the scenario to the report.

use std::process::Command;

use serde_json::Value;

use crate::support::{Case, number, report, root, steptime};

const SCENARIO: &str = "scenarios/llama3-8b-h100-variability.toml";

fn on_threads(count: &str) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_steptime"))
        .args(["run", "--json", SCENARIO])
        .current_dir(root())
        .env("RAYON_NUM_THREADS", count)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn a_seed_gives_the_same_bytes_on_any_number_of_threads() {
    assert_eq!(on_threads("1"), on_threads("3"));
    let other = report(&[SCENARIO, "--set", "variability.seed=2"]);
    assert_ne!(other["step_time_s"], report(&[SCENARIO])["step_time_s"]);
}

#[test]
fn the_report_is_that_of_the_median_step() {
    let document = report(&[SCENARIO]);
    let varied = &document["variability"];
    assert_eq!(varied["repetitions"], 10);
    for what in ["step_time_s", "peak_device_bytes"] {
        let [p10, median, p90] = ["p10", "median", "p90"].map(|key| number(&varied[what][key]));
        assert!(p10 <= median && median <= p90, "{what}: {p10} {median} {p90}");
    }
    assert_eq!(varied["step_time_s"]["median"], document["step_time_s"]);
    let spread = number(&varied["step_time_s"]["p90"]) - number(&varied["step_time_s"]["p10"]);
    assert!(spread > 0.0);
}

fn text(extra: &str) -> String {
    format!(
        "[model]\nname = \"llama3-8b\"\nsequence_length = 2048\noverrides = {{ layers = 4 }}\n\
         [cluster]\nname = \"dgx-h100\"\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n{extra}"
    )
}

fn of(extra: &str) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text(extra)).unwrap();
    report(&[file.path().to_str().unwrap()])
}

/// One slow GPU of eight holds up the step; the others spend in collectives what it takes longer.
#[test]
fn one_slow_gpu_holds_up_the_step() {
    let even = of("");
    assert!(even.get("variability").is_none());
    let slow = of("[[variability.stragglers]]\nranks = [3]\nfactor = 1.5\n");
    assert!(number(&slow["step_time_s"]) > 1.2 * number(&even["step_time_s"]));
    let exposed = |document: &Value| number(&document["time_breakdown_s"]["exposed_communication"]);
    assert!(exposed(&slow) > exposed(&even));
    // Twice as slow arithmetic alone, and twice as slow kernels: the clock leaves memory as it is.
    let step = |extra: &str| number(&of(extra)["step_time_s"]);
    let clock = step("[[variability.stragglers]]\nranks = [3]\nclock = 0.5\n");
    let factor = step("[[variability.stragglers]]\nranks = [3]\nfactor = 2\n");
    assert!(clock < factor, "{clock} {factor}");
}

#[test]
fn what_cannot_act_is_refused() {
    let cases = [
        ("[variability]\n", "asks for nothing"),
        ("[variability]\nrepetitions = 5\n", "nothing differs from step to step"),
        ("[variability]\nrouting = true\n", "has nothing to draw"),
        ("[variability]\nkernel_jitter = -0.1\n", "variability.kernel_jitter: found the number -0.1"),
        ("[variability]\njitter = 0.1\n", "variability.jitter"),
        ("[[variability.stragglers]]\nranks = [8]\nfactor = 2\n", "there is no rank 8, allowed: 0 to 7"),
        ("[[variability.stragglers]]\nranks = [1]\n", "variability.stragglers.factor"),
        ("[[variability.stragglers]]\nfactor = 2\n", "variability.stragglers.ranks"),
        ("[[variability.stragglers]]\nranks = [1]\ncount = 1\nfactor = 2\n", "contradicts `ranks`"),
        ("[[variability.slow_links]]\nnode = 0\nrate = 0.5\n", "a single node has no links to others"),
        ("[[variability.slow_links]]\ngpu = 0\n", "variability.slow_links.rate"),
        ("[[variability.slow_links]]\nname = \"moon\"\nrate = 0.5\n", "no link is named `moon`"),
        (
            "[variability]\nfold = true\n[[variability.stragglers]]\nranks = [1]\nclock = 0.5\n",
            "variability.fold",
        ),
        ("[input]\nseconds_per_sample = 0.1\n[variability]\nkernel_jitter = 0.1\n", "together with [input]"),
        ("[benchmark]\nsteps = 2\n[variability]\nkernel_jitter = 0.1\n", "together with [benchmark]"),
    ];
    for (extra, expected) in cases {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text(extra)).unwrap();
        let output = steptime(&["run", file.path().to_str().unwrap()]);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{extra}: {error}");
        assert!(error.contains(expected) && error.lines().count() == 1, "{extra}: {error}");
    }
}

const ROUTED: &str = r#"name = "routed"

[model]
name = "mixtral-8x7b"
sequence_length = 2048
overrides = { layers = 2 }

[cluster]
name = "dgx-h100"

[workload]
micro_batch_size = 1
precision = "bf16"
router = { dirichlet = 0.5 }

[parallelism]
expert = 4
zero_stage = 1

[variability]
routing = true
repetitions = 20
"#;

/// Routers that prefer other experts in every step: time and memory follow the busiest rank's tokens, which every step
/// draws, and a step without the section has the expected ones.
#[test]
fn routing_is_drawn_in_every_step() {
    let case = Case::new(ROUTED);
    let drawn = case.report(&[]);
    assert_eq!(drawn, case.report(&[]));
    let spread = |document: &Value, what: &str| {
        ["p10", "median", "p90"].map(|key| number(&document["variability"][what][key]))
    };
    for what in ["step_time_s", "peak_device_bytes"] {
        let [p10, median, p90] = spread(&drawn, what);
        assert!(p10 < median && median < p90, "{what}: {p10} {median} {p90}");
    }
    assert_eq!(drawn["variability"]["step_time_s"]["median"], drawn["step_time_s"]);
    assert_ne!(drawn["step_time_s"], case.report(&["variability.seed=1"])["step_time_s"]);
    // The more even the shares, the less steps differ.
    let relative = |document: &Value| {
        let [p10, median, p90] = spread(document, "step_time_s");
        (p90 - p10) / median
    };
    assert!(relative(&case.report(&["workload.router={dirichlet=50}"])) < 0.5 * relative(&drawn));
    let expected = {
        let text = ROUTED.split("[variability]").next().unwrap();
        number(&Case::new(text).report(&[])["step_time_s"])
    };
    let [p10, _, p90] = spread(&drawn, "step_time_s");
    assert!(p10 < expected && expected < p90, "{p10} {expected} {p90}");
    // Two experts a rank: the order in which they lie matters for Zipf's shares.
    let [p10, _, p90] = spread(&case.report(&["workload.router={zipf=1}"]), "step_time_s");
    assert!(p10 < p90, "{p10} {p90}");
    // One a rank: each layer waits for the most popular one, wherever it is; memory is most where it is the same in all.
    let one = case.report(&["workload.router={zipf=1}", "parallelism.expert=8"]);
    let [p10, _, p90] = spread(&one, "step_time_s");
    assert!((p90 / p10 - 1.0).abs() < 1e-9, "{p10} {p90}");
    let [p10, _, p90] = spread(&one, "peak_device_bytes");
    assert!(p10 < p90, "{p10} {p90}");
}

/// Some draws of the routers need more memory than there is: the less there is, the more of the steps run out, by the
/// fullest rank's tokens in all layers, and one is enough for the verdict.
#[test]
fn some_draws_of_the_routers_run_out_of_memory() {
    let case = Case::new(ROUTED);
    let whole = case.report(&[]);
    let bytes = |value: &Value| number(value);
    let capacity = bytes(&whole["peak_memory"]["capacity_bytes"]);
    let parts = &whole["peak_memory"]["breakdown_bytes"];
    // What the allocator does not hand out.
    let beside = bytes(&parts["context"]) + bytes(&parts["communicators"]);
    let peaks = &whole["variability"]["peak_device_bytes"];
    let share = |device: f64| {
        let document = case.report(&[&format!("allocator.memory_fraction={}", (device - beside) / capacity)]);
        let share = number(&document["variability"]["out_of_memory_fraction"]);
        assert_eq!(share > 0.0, document["verdict"] == "out_of_memory", "{share}");
        assert_eq!(share > 0.0, document["out_of_memory"].is_object());
        share
    };
    let [p10, median, p90] = ["p10", "median", "p90"].map(|key| bytes(&peaks[key]));
    // A tenth of the steps need more than P90 at most.
    let shares = [1.1 * p90, p90, median, p10, 0.9 * p10].map(share);
    assert!(shares[0] == 0.0 && shares[1] <= 0.1 && shares[2] <= 0.5 && shares[3] <= 0.9, "{shares:?}");
    assert!(shares.is_sorted() && shares[2] > 0.0 && shares[3] > shares[2], "{shares:?}");
    assert!((shares[4] - 1.0).abs() < 1e-12, "{shares:?}");
    // Layers that draw by themselves: a rank that is busiest in all of them is rare, and steps of more layers differ less.
    let spread = |layers: u32| {
        let keys = format!("model.overrides={{layers={layers}}}");
        let document = case.report(&[&keys]);
        let time = &document["variability"]["step_time_s"];
        (number(&time["p90"]) - number(&time["p10"])) / number(&time["median"])
    };
    assert!(spread(8) < 0.7 * spread(1), "{} {}", spread(8), spread(1));
}

/// Where collectives vary, so does how long memory waits for them. A run ends with its first step that runs out of memory:
/// with less memory for the allocator it is ever more of the steps, and one of them is enough.
#[test]
fn some_steps_may_run_out_of_memory() {
    let at = |fraction: &str| {
        let fraction = format!("allocator.memory_fraction={fraction}");
        let mut arguments = vec![SCENARIO];
        for key in [
            fraction.as_str(),
            "parallelism.zero_stage=3",
            "variability.transfer_jitter=0.6",
            "variability.kernel_jitter=0.3",
            "variability.host_jitter=0.5",
            "variability.repetitions=20",
        ] {
            arguments.extend(["--set", key]);
        }
        let document = report(&arguments);
        let share = number(&document["variability"]["out_of_memory_fraction"]);
        assert_eq!(share > 0.0, document["verdict"] == "out_of_memory", "{fraction}: {share}");
        assert_eq!(share > 0.0, document["out_of_memory"].is_object());
        share
    };
    let shares = ["0.27", "0.25", "0.2"].map(at);
    assert!(shares[0] == 0.0 && 0.0 < shares[1] && shares[1] < 1.0, "{shares:?}");
    assert!((shares[2] - 1.0).abs() < 1e-12, "{shares:?}");
}
