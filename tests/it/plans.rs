//! Keys that say how a plan is laid over ranks, from the command line.

use crate::support::{Case, number};

/// Llama on two nodes of eight, states partitioned.
const CASE: &str = r#"name = "case"

[model]
name = "llama3-8b"
sequence_length = 512
overrides = { layers = 8 }

[cluster]
name = "dgx-a100-80gb"
nodes = 2

[workload]
micro_batch_size = 1
gradient_accumulation_steps = 2
precision = "bf16"
activation_checkpointing = "full"

[parallelism]
zero_stage = 3
"#;

fn states(report: &serde_json::Value) -> u64 {
    let parts = &report["peak_memory"]["breakdown_bytes"];
    ["parameters", "optimizer_states"].iter().map(|part| parts[part].as_u64().unwrap()).sum()
}

#[test]
fn states_are_partitioned_within_groups() {
    let case = Case::new(CASE);
    let [whole, hybrid] = [&[][..], &["parallelism.shard_group=8"]].map(|keys| case.report(keys));
    // 14 bytes a parameter over 16 ranks, or over 8; parts are rounded up tensor by tensor.
    let ratio = states(&hybrid) as f64 / states(&whole) as f64;
    assert!((ratio - 2.0).abs() < 0.005, "{ratio}");
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    assert!(step(&hybrid) < step(&whole));
    // The same in torchtitan's words, and in half.
    let titan = ["parallelism.data_parallel_replicate_degree=2", "parallelism.data_parallel_shard_degree=8"];
    assert_eq!(case.report(&titan)["step_time_s"], hybrid["step_time_s"]);
    assert_eq!(case.report(&["parallelism.replicate=2"])["step_time_s"], hybrid["step_time_s"]);
    let once = case.report(&["parallelism.mics_shard_size=8", "parallelism.sum_replicas=step"]);
    assert!(step(&once) < step(&hybrid));
    let second = case.report(&["parallelism.secondary_group=8"]);
    assert!(step(&second) < step(&whole));
    assert!(states(&second) > states(&whole));
}

#[test]
fn ranks_are_counted_and_seated_as_the_file_says() {
    let case = Case::new(CASE);
    let base = ["parallelism.zero_stage=0", "parallelism.tensor=4", "parallelism.pipeline=2"];
    let with = |key: &str| case.report(&[base[0], base[1], base[2], key]);
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    let usual = with("parallelism.order=\"tp-cp-ep-dp-pp\"");
    let stages_inside = with("parallelism.order=\"tp-cp-ep-pp-dp\"");
    assert!(step(&usual) < step(&stages_inside));
    let seats = "parallelism.rank_to_gpu=[0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 12, 13, 14, 15]";
    assert_eq!(with(seats)["step_time_s"], stages_inside["step_time_s"]);
}

#[test]
fn groups_and_orders_that_cannot_be_are_named() {
    let case = Case::new(CASE);
    let ends = |keys: &[&str], end: &str| {
        let error = case.error(keys);
        assert!(error.ends_with(end), "{error}");
    };
    ends(
        &["parallelism.shard_group=3"],
        "parallelism.shard_group: found 3, allowed: a divisor of data x context = 16",
    );
    ends(
        &["parallelism.zero_stage=0", "parallelism.replicate=2"],
        "parallelism.replicate: is about partitioned states: needs zero_stage 1, 2 or 3",
    );
    ends(
        &["parallelism.sum_replicas=step"],
        "needs several groups that partition the states (shard_group); leave this key out",
    );
    ends(
        &["parallelism.secondary_group=3"],
        "found 3, allowed: a divisor of the 16 ranks that partition the states",
    );
    ends(
        &["parallelism.order=\"tp-dp\""],
        "found \"tp-dp\", allowed: tp, cp, dp and pp once each, the innermost first, such as \"tp-cp-ep-dp-pp\"",
    );
    ends(&["parallelism.rank_to_gpu=[0, 1]"], "lists 2 GPUs, allowed: one for each of the 16 ranks");
    ends(
        &["parallelism.rank_to_gpu=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 14]"],
        "GPU 14 has two ranks, allowed: every GPU from 0 to 15 once",
    );
}

#[test]
fn fetching_follows_fsdp_or_deepspeed() {
    let case = Case::new(CASE);
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    let reserved = |report: &serde_json::Value| report["peak_memory"]["reserved_bytes"].as_u64().unwrap();
    let usual = case.report(&[]);
    // Everything stays whole between forward and backward: less time, more memory.
    let kept = case.report(&[
        "parallelism.stage3_prefetch_bucket_size=1000000000000",
        "parallelism.stage3_max_live_parameters=1000000000000",
        "parallelism.stage3_max_reuse_distance=1000000000000",
    ]);
    assert!(step(&kept) < step(&usual) && reserved(&kept) > reserved(&usual));
    let late = case.report(&["parallelism.backward_prefetch=none"]);
    assert!(step(&late) > step(&usual));
    let inline = case.report(&["parallelism.overlap_comm=false"]);
    assert!(step(&inline) > step(&usual));
    let wide = case.report(&["parallelism.wrap_blocks=4"]);
    assert!(reserved(&wide) > reserved(&usual));
    let small = case.report(&["parallelism.stage3_param_persistence_threshold=100000"]);
    assert!(states(&small) > states(&usual));
    // One collective a parameter, and copies a rank.
    let lists = case.report(&["parallelism.gather_lists=true"]);
    assert!(step(&lists) > step(&late));
    let ends = |keys: &[&str], end: &str| {
        let error = case.error(keys);
        assert!(error.ends_with(end), "{error}");
    };
    ends(
        &["parallelism.zero_stage=1", "parallelism.wrap_blocks=2"],
        "parallelism.wrap_blocks: is about parameters that are gathered layer by layer: needs zero_stage = 3",
    );
    ends(&["parallelism.zero_stage=2", "parallelism.gather_lists=true"], "needs zero_stage = 3");
    ends(&["parallelism.prefetch_values=5", "parallelism.forward_prefetch=true"], "keep one kind");
    ends(&["parallelism.gather_bucket_bytes=1 GB"], "needs zero_stage 1 or 2");
}

#[test]
fn products_in_pieces_hide_collectives_of_tensor_parallelism() {
    let case = Case::new(CASE);
    let base = ["parallelism.zero_stage=0", "parallelism.tensor=8", "parallelism.sequence_parallel=true"];
    let run = |key: &str| case.report(&[base[0], base[1], base[2], "workload.micro_batch_size=8", key]);
    let exposed = |report: &serde_json::Value| number(&report["time_breakdown_s"]["exposed_communication"]);
    let (whole, pieces) = (run("parallelism.tensor_pieces=false"), run("parallelism.tp_comm_overlap=true"));
    assert!(exposed(&pieces) < exposed(&whole));
    let flops = |report: &serde_json::Value| number(&report["flops_per_step"]);
    assert!((flops(&pieces) / flops(&whole) - 1.0).abs() < 1e-12);
    let error = case.error(&[base[0], base[1], "parallelism.tensor_pieces=true"]);
    assert!(error.ends_with("needs tensor above 1 and sequence_parallel = true"), "{error}");
}

#[test]
fn pipelines_from_both_ends_hold_every_layer_twice() {
    let case = Case::new(CASE);
    let base =
        ["parallelism.zero_stage=1", "parallelism.pipeline=4", "workload.gradient_accumulation_steps=16"];
    let run = |name: &str| case.report(&[base[0], base[1], base[2], &format!("parallelism.schedule={name}")]);
    let (one, dual) = (run("1f1b"), run("dualpipe"));
    let layers = |report: &serde_json::Value, stage: usize| {
        report["stages"][stage]["layers"].as_array().unwrap().len()
    };
    // Two of the eight blocks, with the embedding, and the two opposite ones, with the head.
    assert_eq!((layers(&one, 0), layers(&dual, 0), layers(&dual, 1)), (3, 6, 4));
    let bubble = |report: &serde_json::Value| number(&report["time_breakdown_s"]["pipeline_bubble"]);
    assert!(bubble(&dual) < bubble(&one));
    let odd =
        ["parallelism.pipeline=4", "workload.gradient_accumulation_steps=9", "parallelism.schedule=dualpipe"];
    assert!(case.error(&odd).contains("half of the micro-batches"));
    let error = case.error(&["parallelism.pipeline=1", "parallelism.schedule=dualpipe"]);
    assert!(error.contains("an even number of stages"), "{error}");
}

#[test]
fn hot_experts_of_any_distribution_lengthen_steps() {
    let case = Case::new(CASE);
    let base = [
        "model.name=mixtral-8x7b",
        "model.overrides={ layers = 4 }",
        "parallelism.zero_stage=1",
        "parallelism.expert=8",
        "workload.micro_batch_size=4",
    ];
    let step = |router: &str| {
        let key = format!("workload.router={router}");
        let mut keys = base.to_vec();
        keys.push(&key);
        number(&case.report(&keys)["step_time_s"])
    };
    let even = step("\"uniform\"");
    let (mild, wild) = (step("{ dirichlet = 50 }"), step("{ dirichlet = 1 }"));
    assert!(even < mild && mild < wild, "{even} {mild} {wild}");
    assert!(
        case.error(&["workload.router={ dirichlet = 0 }"]).contains("allowed: a number from 0.001 to 100")
    );
}

/// The first stage on H100, the second on A100: three times the peak is three times the work.
#[test]
fn balanced_stages_follow_the_gpus() {
    let text = include_str!("../../scenarios/llama3-8b-mixed-gpus.toml");
    let case = Case::new(
        &text.replace("stages = [6, 2]\n", "").replace("micro_batches = [2, 2, 2, 2, 2, 2, 3, 1]\n", ""),
    );
    let blocks = |report: &serde_json::Value, stage: usize| {
        let layers = report["stages"][stage]["layers"].as_array().unwrap();
        layers.iter().filter(|it| it.as_str().unwrap().starts_with("block")).count()
    };
    let (even, balanced) = (case.report(&[]), case.report(&["parallelism.stages=balanced"]));
    assert_eq!([0, 1].map(|stage| blocks(&even, stage)), [4, 4]);
    assert!(blocks(&balanced, 0) > blocks(&balanced, 1));
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    assert!(step(&balanced) < step(&even));
}

/// The replica on a GPU at 0.6 of the clock does three micro-batches where the others do four or five.
#[test]
fn slower_replicas_may_do_fewer_micro_batches() {
    let text = include_str!("../../scenarios/llama3-8b-mixed-gpus.toml");
    let case = Case::new(
        &text
            .replace("micro_batches = [2, 2, 2, 2, 2, 2, 3, 1]\n", "")
            .replace("= 4\nprecision", "= 8\nprecision"),
    );
    let counts = "parallelism.micro_batch_counts=[9, 8, 8, 8, 8, 9, 9, 5]";
    let (even, uneven) = (case.report(&[]), case.report(&[counts]));
    let step = |report: &serde_json::Value| number(&report["step_time_s"]);
    assert!(step(&uneven) < step(&even), "{} {}", step(&uneven), step(&even));
    assert_eq!(uneven["flops_per_step"], even["flops_per_step"]);
    let refused = case.error(&["parallelism.micro_batch_counts=[9, 8, 8, 8, 8, 9, 9, 6]"]);
    assert!(refused.contains("the numbers add up to 65 micro-batches"), "{refused}");
    let refused = case.error(&[counts, "parallelism.zero_stage=2"]);
    assert!(refused.contains("ZeRO 2 and 3 exchange something with every micro-batch"), "{refused}");
}

#[test]
fn pairs_of_dualpipe_hide_exchanges() {
    let case = Case::new(
        "[model]\nname = \"mixtral-8x7b\"\nsequence_length = 4096\noverrides = { layers = 8 }\n[cluster]\n\
         name = \"dgx-h100\"\nnodes = 4\n[workload]\nmicro_batch_size = 1\ngradient_accumulation_steps = 16\n\
         precision = \"bf16\"\n[parallelism]\npipeline = 2\nexpert = 8\nzero_stage = 1\nschedule = \"dualpipe\"\n",
    );
    let (joined, apart) = (case.report(&[]), case.report(&["parallelism.pair_overlap=false"]));
    let exposed = |report: &serde_json::Value| number(&report["time_breakdown_s"]["exposed_communication"]);
    assert!(exposed(&joined) < exposed(&apart));
    assert!(number(&joined["step_time_s"]) < number(&apart["step_time_s"]));
    let error = case.error(&["parallelism.schedule=1f1b", "parallelism.pair_overlap=true"]);
    assert!(
        error.ends_with("is about the pairs of schedule dualpipe and dualpipe-v; leave this key out"),
        "{error}"
    );
}
