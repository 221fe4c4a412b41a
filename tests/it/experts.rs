//! Every part of expert parallelism acts: on time, on memory or on both, in the direction that its definition says.

use serde_json::Value;

use crate::support::{Case, number};

/// Four blocks of a model of 64 experts, 6 a token and 2 shared, over a node; tokens enough for the experts to matter.
const CASE: &str = r#"
[model]
name = "deepseek-v2-lite"
sequence_length = 4096
overrides = { layers = 4 }

[cluster]
name = "dgx-h100"

[workload]
micro_batch_size = 1
precision = "bf16"

[parallelism]
expert = 8
zero_stage = 1
"#;

const SHARDED: [&str; 3] =
    ["parallelism.tensor=2", "parallelism.sequence_parallel=true", "parallelism.expert=4"];

fn step(report: &Value) -> f64 {
    number(&report["step_time_s"])
}

fn held(report: &Value, what: &str) -> u64 {
    report["peak_memory"]["breakdown_bytes"][what].as_u64().unwrap()
}

fn peak(report: &Value) -> u64 {
    report["peak_memory"]["allocated_bytes"].as_u64().unwrap()
}

/// Under Zipf the busiest rank's experts are the first eight: 8 H(8, s) / H(64, s) of an equal share of the tokens, and what
/// they compute and keep grows by as much.
#[test]
fn hot_experts_lengthen_the_step_and_fill_the_memory() {
    let case = Case::new(CASE);
    let of = |router: &str| case.report(&[&format!("workload.router={router}")]);
    let even = of("\"uniform\"");
    let mut before = (step(&even), peak(&even));
    for exponent in ["0.25", "0.5", "1.0"] {
        let hot = of(&format!("{{ zipf = {exponent} }}"));
        assert!(step(&hot) > before.0 && peak(&hot) > before.1, "{exponent}");
        before = (step(&hot), peak(&hot));
    }
    // The same shares, written down: H(8, 1/2) / H(64, 1/2) for the first rank.
    let weights: Vec<String> = (1..=64_u32).map(|rank| format!("{}", 1.0 / f64::from(rank).sqrt())).collect();
    let listed = of(&format!("{{ histogram = [{}] }}", weights.join(", ")));
    assert!((step(&listed) / step(&of("{ zipf = 0.5 }")) - 1.0).abs() < 1e-6);
    assert_eq!(peak(&listed), peak(&of("{ zipf = 0.5 }")));
    // And in a file, whose line ends and comments do not matter.
    std::fs::write(case.file("counts.txt"), format!("# tokens\n{}\n", weights.join(",\n"))).unwrap();
    assert_eq!(of("{ histogram = \"counts.txt\" }")["step_time_s"], listed["step_time_s"]);
    // The more even the draws, the less the busiest rank has.
    let [even_draws, uneven] = ["20", "0.2"].map(|it| of(&format!("{{ dirichlet = {it} }}")));
    assert!(step(&even) < step(&even_draws) && step(&even_draws) < step(&uneven));
    assert!(peak(&even) < peak(&even_draws) && peak(&even_draws) < peak(&uneven));
}

#[test]
fn files_of_tokens_are_checked() {
    let case = Case::new(CASE);
    let error = |text: Option<&str>| {
        let file = case.file("counts.txt");
        match text {
            Some(text) => std::fs::write(file, text).unwrap(),
            None => drop(std::fs::remove_file(file)),
        }
        case.error(&["workload.router={ histogram = \"counts.txt\" }"])
    };
    let bad = error(Some("3 1\n4 x\n"));
    assert!(
        bad.ends_with(
            "workload.router.histogram: counts.txt: line 2: found `x`, allowed: numbers from 0 to 1e12, one for each expert"
        ),
        "{bad}"
    );
    assert!(error(Some("0 0 0\n")).contains("no number in it is above 0"));
    assert!(error(Some("1 -1\n")).contains("found `-1`"));
    assert!(error(None).contains("counts.txt"));
}

/// Padded to twice the tokens each expert computes twice as many rows; padded to an equal share it drops what is more, and a
/// hot expert costs nothing.
#[test]
fn a_capacity_bounds_what_an_expert_takes() {
    let case = Case::new(CASE);
    let with = |capacity: &str, router: &str| {
        let overrides = format!("model.overrides={{ layers = 4{capacity} }}");
        case.report(&[&overrides, &format!("workload.router={router}")])
    };
    let (dropless, padded) =
        (with("", "\"uniform\""), with(", experts = { capacity_factor = 2 }", "\"uniform\""));
    assert!(peak(&padded) > peak(&dropless) && step(&padded) > step(&dropless));
    let capacity = ", experts = { capacity_factor = 1 }";
    let (even, hot) = (with(capacity, "\"uniform\""), with(capacity, "{ zipf = 1.0 }"));
    assert!((step(&hot) / step(&even) - 1.0).abs() < 0.02, "{} {}", step(&hot), step(&even));
    assert!(step(&with("", "{ zipf = 1.0 }")) > 1.2 * step(&dropless));
}

#[test]
fn shared_experts_are_on_every_rank() {
    let case = Case::new(CASE);
    let with = |shared: u64| {
        case.report(&[&format!("model.overrides={{ layers = 4, experts = {{ shared = {shared} }} }}")])
    };
    let (two, none) = (with(2), with(0));
    assert!(step(&two) > step(&none) && number(&two["flops_per_step"]) > number(&none["flops_per_step"]));
    // Three matrices of 2048 x 2816 for the two, in three blocks with experts, whole on each rank; 2 bytes a value.
    let more = held(&two, "parameters") - held(&none, "parameters");
    // Blocks of the allocator are some percent larger than what is asked for.
    let expected = 3 * 3 * 2048 * 2816 * 2;
    assert!((expected..expected + expected / 50).contains(&more), "{more} of {expected}");
}

/// Ranks that share an expert hold a half of each of twice as many.
#[test]
fn experts_may_be_shared_by_ranks() {
    let case = Case::new(CASE);
    let with = |key: &str| case.report(&[SHARDED[0], SHARDED[1], SHARDED[2], key]);
    let (whole, halves) = (with("parallelism.expert_tensor=1"), with("parallelism.expert_tensor=2"));
    // 16 whole experts and 16 halves a rank, in three blocks of three matrices of 2048 x 1408.
    let difference = held(&whole, "parameters") - held(&halves, "parameters");
    let expected = 3 * 3 * 8 * 2048 * 1408 * 2;
    assert!(difference.abs_diff(expected) < expected / 50, "{difference} of {expected}");
    assert_ne!(whole["step_time_s"], halves["step_time_s"]);
    assert!(
        case.error(&[SHARDED[0], SHARDED[1], SHARDED[2], "parallelism.expert_tensor=3"])
            .contains("allowed: a divisor of tensor (2)")
    );
    // Without expert parallelism every rank holds all experts.
    let alone = case.report(&["parallelism.expert=1"]);
    assert!(held(&alone, "parameters") > held(&case.report(&[]), "parameters"));
}
