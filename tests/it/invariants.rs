//! What holds for every scenario that is accepted, over random ones; what is not accepted is refused in words.

use proptest::prelude::*;
use proptest::sample::select;
use steptime_scenarios::{NoFiles, Report, Scenario, Verdict, run};

fn model() -> impl Strategy<Value = String> {
    let names = select(vec![
        "gpt2",
        "llama3-8b",
        "switch-vit-32",
        "vit_b_16",
        "vit-cifar",
        "megatron-1t",
        "mistral-7b",
    ]);
    (names, select(vec![1, 4, 6, 33])).prop_map(|(name, layers)| {
        format!("[model]\nname = \"{name}\"\noverrides = {{ layers = {layers} }}\n")
    })
}

/// A cluster and the number of its GPUs.
fn cluster() -> impl Strategy<Value = (String, u64)> {
    let names = vec![("dgx-a100-80gb", 8), ("h100-efa", 8), ("a5000-pcie-2", 2), ("rtx8000-pcie-4", 4)];
    (select(names), select(vec![1_u64, 2, 3, 16]), 1_u64..=8).prop_map(|((name, gpus), nodes, wanted)| {
        let nodes = if gpus == 8 { nodes } else { 1 };
        let gpus = wanted.min(gpus);
        let text = format!("[cluster]\nname = \"{name}\"\nnodes = {nodes}\ngpus_per_node = {gpus}\n");
        (text, nodes * gpus)
    })
}

fn workload() -> impl Strategy<Value = String> {
    let words = |words: &[&'static str]| select(words.to_vec());
    (
        (select(vec![1, 3, 64, 5000]), select(vec![1, 2, 7])),
        words(&["fp32", "tf32", "fp16", "bf16", "fp8"]),
        words(&["adam", "adamw", "sgd", "sgd-momentum"]),
        words(&["", "optimizer_implementation = \"foreach\"\n", "optimizer_implementation = \"fused\"\n"]),
        words(&["", "attention = \"eager\"\n", "attention = \"flash\"\n"]),
        words(&["eager", "compiled", "cuda-graphs"]),
        words(&["none", "selective", "full"]),
    )
        .prop_map(
            |((micro, steps), precision, optimizer, implementation, attention, execution, checkpointing)| {
                format!(
                    "[workload]\nmicro_batch_size = {micro}\ngradient_accumulation_steps = {steps}\n\
                 precision = \"{precision}\"\noptimizer = \"{optimizer}\"\n{implementation}{attention}\
                 execution = \"{execution}\"\nactivation_checkpointing = \"{checkpointing}\"\n"
                )
            },
        )
}

fn check(report: &Report) {
    let step = report.step_time_s.unwrap();
    assert!(step > 0.0 && step.is_finite());
    let parts: f64 = report.time_breakdown_s.entries().iter().map(|(_, seconds)| seconds).sum();
    assert!((parts - step).abs() <= 1e-9 * step, "{parts} against {step}");
    let (model, hardware) =
        (report.model_flops_utilization.unwrap(), report.hardware_flops_utilization.unwrap());
    assert!(0.0 <= model && model <= hardware * (1.0 + 1e-12) && hardware <= 1.0, "{model}, {hardware}");
    let memory = &report.peak_memory;
    assert_eq!(memory.breakdown_bytes.values().sum::<u64>(), memory.device_bytes);
    let over = memory.device_bytes > memory.capacity_bytes;
    assert_eq!(over, report.verdict == Verdict::OutOfMemory, "{memory:?}");
    assert_eq!(over, report.out_of_memory.is_some());
    for stage in &report.stages {
        let shares = stage.busy_fraction + stage.bubble_fraction + stage.communication_fraction;
        assert!((0.0..=1.0 + 1e-9).contains(&shares), "{stage:?}");
        assert!(stage.peak_allocated_bytes <= memory.allocated_bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn accepted_scenarios_keep_the_invariants(
        model in model(),
        (cluster, gpus) in cluster(),
        workload in workload(),
        (pipeline, zero, gpipe, explicit) in (1_u64..=6, 0..=3, any::<bool>(), any::<bool>()),
    ) {
        // The largest number of stages up to the one drawn that divides the GPUs.
        let pipeline = (1..=pipeline).rev().find(|stages| gpus % stages == 0).unwrap_or(1);
        let schedule = if gpipe { "gpipe" } else { "1f1b" };
        let text = format!(
            "{model}{cluster}{workload}[parallelism]\npipeline = {pipeline}\nzero_stage = {zero}\n\
             schedule = \"{schedule}\"\n[simulation]\nexplicit = {}\n",
            explicit && gpus <= 16
        );
        match Scenario::read("random.toml", &text, &[], &NoFiles) {
            Ok(scenario) => check(&run(&scenario, false).unwrap().report),
            Err(error) => {
                let message = error.to_string();
                prop_assert!(message.starts_with("random.toml:"), "{message}");
                prop_assert!(!message.contains("internal"), "{message}");
            }
        }
    }
}

/// Sixteen steps of a fortnight each are more picoseconds than 64 bits hold.
#[test]
fn shares_of_many_ranks_with_long_steps_are_shares() {
    let text = "[model]\nname = \"megatron-1t\"\noverrides = { layers = 6 }\n\
                [cluster]\nname = \"dgx-a100-80gb\"\nnodes = 2\ngpus_per_node = 8\n\
                [workload]\nmicro_batch_size = 5000\ngradient_accumulation_steps = 7\nprecision = \"fp32\"\n\
                execution = \"eager\"\n[simulation]\nexplicit = true\n";
    let scenario = Scenario::read("long.toml", text, &[], &NoFiles).unwrap();
    check(&run(&scenario, false).unwrap().report);
}

/// Hundreds of experts' gradients are reduced in many small pieces: the launch queue is full, and the host waits. It holds as much
/// in every look at the job: of times alone, of every block of memory, of spans, of one rank for all and of every rank.
#[test]
fn a_full_launch_queue_is_as_long_in_every_look_at_a_job() {
    let played = |explicit: bool, with_timeline: bool| {
        let text = format!(
            "[model]\nname = \"deepseek-v3\"\noverrides = {{ layers = 4 }}\n[cluster]\nname = \"gb200-nvl72\"\nnodes = 1\n\
             gpus_per_node = 2\n[workload]\nprecision = \"fp32\"\nmicro_batch_size = 1\noptimizer = \"sgd\"\n\
             [simulation]\nexplicit = {explicit}\n"
        );
        let scenario = Scenario::read("experts.toml", &text, &[], &NoFiles).unwrap();
        let report = run(&scenario, with_timeline).unwrap().report;
        (report.step_time_s.unwrap(), report.time_breakdown_s.host)
    };
    let (step, host) = played(false, false);
    assert!(host > 1e-3, "{host}: the case is one in which the host is held up");
    for (explicit, with_timeline) in [(false, true), (true, false), (true, true)] {
        assert_eq!(played(explicit, with_timeline), (step, host), "{explicit} {with_timeline}");
    }
}
