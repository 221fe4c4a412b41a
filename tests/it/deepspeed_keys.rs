//! Every size of DeepSpeed's ZeRO, from its configuration to the prediction: which way it moves time and memory.

use serde_json::{Value, json};

use crate::support::{number, report, steptime};

/// What a configuration predicts.
struct Predicted {
    step: f64,
    exposed: f64,
    allocated: f64,
    parameters: f64,
    buffers: f64,
}

/// Two nodes of eight GPUs; `keys` are those of `zero_optimization`.
fn predicted(model: &str, stage: u64, keys: &Value) -> Predicted {
    let mut zero = json!({ "stage": stage, "overlap_comm": true });
    for (key, value) in keys.as_object().unwrap() {
        zero[key] = value.clone();
    }
    let config = json!({
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "bf16": { "enabled": true },
        "zero_optimization": zero,
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ds_config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let (file, out) = (file.to_str().unwrap(), folder.path().to_str().unwrap());
    let frame = ["--model", model, "--cluster", "dgx-a100-80gb", "--out", out];
    let output = steptime(&[&["import", "deepspeed", file][..], &frame].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{error}");
    // No key of these goes unused.
    assert!(!keys.as_object().unwrap().keys().any(|key| error.contains(key.as_str())), "{error}");
    let scenario = folder.path().join("scenario.toml");
    let (layers, length) = if model == "gpt2-xl" { (48, 1024) } else { (8, 512) };
    let overrides = format!("model.overrides={{layers={layers}}}");
    let length = format!("model.sequence_length={length}");
    let keys = ["--set", "cluster.nodes=2", "--set", &length, "--set", &overrides];
    let found = report(&[&[scenario.to_str().unwrap()][..], &keys].concat());
    let parts = &found["peak_memory"]["breakdown_bytes"];
    Predicted {
        step: number(&found["step_time_s"]),
        exposed: number(&found["time_breakdown_s"]["exposed_communication"]),
        allocated: number(&found["peak_memory"]["allocated_bytes"]),
        parameters: number(&parts["parameters"]),
        buffers: number(&parts["buffers"]),
    }
}

/// Buckets of stages 1 and 2: one of gradients is a buffer, and is reduced when it is full; parameters are gathered after
/// the update, by buckets each of which waits for its own messages.
#[test]
fn buckets_of_stage_2() {
    let of = |keys: Value| predicted("llama3-8b", 2, &keys);
    let usual = of(json!({}));
    let inline = of(json!({ "overlap_comm": false }));
    assert!(inline.step > usual.step && inline.exposed > usual.exposed);
    let [small, large] =
        [5_000_000, 2_000_000_000_u64].map(|values| of(json!({ "reduce_bucket_size": values })));
    assert!(small.buffers < usual.buffers && usual.buffers < large.buffers);
    assert!(small.exposed < large.exposed, "less is left to reduce when backward ends");
    let [small, large] =
        [5_000_000, 2_000_000_000_u64].map(|values| of(json!({ "allgather_bucket_size": values })));
    assert!(small.step > usual.step && usual.step >= large.step);
}

/// Sizes with which stage 3 fetches parameters: what is fetched earlier or kept longer is waited for less and held more.
#[test]
fn sizes_of_stage_3() {
    let of = |keys: Value| predicted("gpt2-xl", 3, &keys);
    let usual = of(json!({}));
    let inline = of(json!({ "overlap_comm": false }));
    assert!(inline.step > usual.step && inline.exposed > usual.exposed);
    let small = of(json!({ "reduce_bucket_size": 5_000_000 }));
    assert!(small.exposed < usual.exposed, "less is left to reduce when backward ends");
    let [none, much] = [0, 1_000_000_000].map(|values| of(json!({ "stage3_prefetch_bucket_size": values })));
    assert!(none.exposed > usual.exposed && usual.exposed >= much.exposed);
    assert!(none.allocated < usual.allocated && usual.allocated < much.allocated);
    let none = of(json!({ "stage3_max_live_parameters": 0 }));
    assert!(none.exposed > usual.exposed && none.buffers < usual.buffers);
    // What is asked for ahead takes the room that what is kept would: none is, to see the other.
    let [at_once, some, never] = [0, 1_000_000_000, 100_000_000_000_u64]
        .map(|values| of(json!({ "stage3_prefetch_bucket_size": 0, "stage3_max_reuse_distance": values })));
    assert!(at_once.step > some.step && some.step > never.step);
    assert!(at_once.buffers < some.buffers && some.buffers < never.buffers);
    let [none, some, most] = [0, 100_000, 20_000_000].map(|values| {
        of(json!({ "stage3_prefetch_bucket_size": 0, "stage3_param_persistence_threshold": values }))
    });
    assert!(none.parameters < some.parameters && some.parameters < most.parameters);
    assert!(most.exposed < some.exposed);
}

/// Groups of a node: MiCS partitions everything among its GPUs, hpZ keeps a second copy of the parameters there. Either way
/// parameters do not come from other nodes, which is waited for less and held more.
#[test]
fn groups_of_stage_3() {
    let of = |keys: Value| predicted("llama3-8b", 3, &keys);
    let usual = of(json!({}));
    for key in ["zero_hpz_partition_size", "mics_shard_size"] {
        let within = of(json!({ key: 8 }));
        assert!(within.step < usual.step && within.exposed < usual.exposed, "{key}");
        assert!(within.parameters > 1.5 * usual.parameters && within.allocated > usual.allocated, "{key}");
    }
}
