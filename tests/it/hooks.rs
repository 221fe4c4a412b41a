//! Hooks of sharding libraries from the scenario to the report: what they take, and where their keys say nothing.

use crate::support::{Case, number};

const SCENARIO: &str = r#"
[model]
name = "gpt2"
sequence_length = 128

[cluster]
name = "dgx-h100"

[workload]
micro_batch_size = 1
precision = "bf16"

[parallelism]
zero_stage = 3
"#;

fn step(sets: &[&str]) -> f64 {
    number(&Case::new(SCENARIO).report(sets)["step_time_s"])
}

/// 12 blocks, embedding and head are 14 units: a step that the host bounds is longer by what each takes longer.
#[test]
fn what_hooks_take_is_the_scenarios_to_say() {
    let of = |time: &str| step(&[&format!("cluster.host={{hooks={{fsdp1_unit_forward=\"{time}\"}}}}")]);
    let (none, one, two) = (of("0 us"), of("1 ms"), of("2 ms"));
    assert!(none < one && (two - one - 14e-3).abs() < 1e-4, "{none} {one} {two}");
    let other = step(&["cluster.host={hooks={fsdp2_unit_forward=\"2 ms\"}}"]);
    assert!((other - step(&[])).abs() < 1e-9);
    assert!(
        step(&["parallelism.fsdp_version=2", "cluster.host={hooks={fsdp2_unit_forward=\"2 ms\"}}"]) > one
    );
    // A faster thread is faster at hooks.
    assert!(step(&["cluster.host={one_thread=2.0}"]) < step(&[]));
}

#[test]
fn keys_of_hooks_that_could_not_act_are_refused() {
    let case = Case::new(SCENARIO);
    let refused = |sets: &[&str], words: &str| {
        let error = case.error(sets);
        assert!(error.contains(words), "{error}");
    };
    refused(&["parallelism.fsdp_version=2", "parallelism.prefetch_values=0"], "fsdp_version");
    refused(&["parallelism.fsdp_version=2", "parallelism.gather_lists=true"], "fsdp_version");
    refused(&["parallelism.fsdp_version=2", "parallelism.zero_stage=2"], "needs zero_stage = 3");
    refused(&["parallelism.fsdp_version=2", "workload.framework=\"megatron\""], "framework = \"pytorch\"");
    refused(&["parallelism.fsdp_version=3"], "fsdp_version");
    refused(&["cluster.host={hooks={fsdp1_unit_forward=\"11 s\"}}"], "from \"0 us\" to \"10 s\"");
    refused(&["cluster.host={hooks={unit_forward=\"1 us\"}}"], "unit_forward");
}
