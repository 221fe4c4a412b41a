//! Offloading from the scenario file to the report: time, memory of hosts and drives, verdicts, refusals.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::{number, root, steptime};

/// A job of Llama 3 8B on two GPUs of one node that offloads its states with ZeRO 3.
const SCENARIO: &str = r#"name = "offloaded"

[model]
name = "llama3-8b"
sequence_length = 1024

[cluster]
name = "dgx-h100"
gpus_per_node = 2
host = { memory = "512 GB", nvme_capacity = "2 TB", nvme_read = "10 GB/s", nvme_write = "5 GB/s" }

[workload]
micro_batch_size = 1
precision = "bf16"
optimizer = "adamw"
activation_checkpointing = "full"

[parallelism]
data = 2
zero_stage = 3
offload = { optimizer = "cpu", parameters = "cpu" }
"#;

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn json(path: &Path, sets: &[&str], code: i32) -> serde_json::Value {
    let mut arguments = vec!["run", "--json", path.to_str().unwrap()];
    for set in sets {
        arguments.extend(["--set", set]);
    }
    let output = steptime(&arguments);
    assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_report_says_what_hosts_hold_and_what_waiting_for_them_takes() {
    let (_folder, path) = written(SCENARIO);
    let offloaded = json(&path, &[], 0);
    let plain = json(&path, &["parallelism.offload={}"], 0);
    let n = number(&offloaded["parameters"]["total"]);
    let host = &offloaded["peak_memory"]["host"];
    // 12 bytes of states, 4 of gradients and 2 of each copy in 16 bits a parameter, more where page-locked memory is
    // rounded up to powers of two; 8 of it are moments, which are not.
    let peak = number(&host["peak_bytes"]);
    assert!(peak >= 20.0 * n && peak < (8.0 + 2.0 * 12.0) * n, "{peak}");
    assert!((peak - number(&host["pinned_bytes"]) - 8.0 * n).abs() < 64.0, "moments are not page-locked");
    assert!((number(&host["capacity_bytes"]) - 512e9).abs() < 1.0);
    let parts: f64 = host["breakdown_bytes"].as_object().unwrap().values().map(number).sum();
    assert!((parts - peak).abs() < 0.5);
    assert!(plain["peak_memory"]["host"].is_null());
    // The device no longer holds 14 bytes a parameter over two ranks; gradients are gone after the update either way.
    let freed = number(&plain["peak_memory"]["after_step_bytes"])
        - number(&offloaded["peak_memory"]["after_step_bytes"]);
    // The allocator rounds every block up; sums of bytes are exact in the tests of plans.
    assert!((freed / (7.0 * n) - 1.0).abs() < 1e-3, "{freed}");
    let breakdown = &offloaded["time_breakdown_s"];
    let sum: f64 = breakdown.as_object().unwrap().values().map(number).sum();
    assert!((sum - number(&offloaded["step_time_s"])).abs() < 1e-9);
    // Adam, unscaling and conversion read and write 42 bytes a parameter in the memory of one processor.
    let least = 42.0 * n / (307.2e9 * 0.85);
    assert!(number(&breakdown["offload"]) > least, "{breakdown}");
    assert!(number(&plain["time_breakdown_s"]["offload"]).abs() < 1e-15);
    let provenance = offloaded["provenance"].as_array().unwrap();
    assert!(provenance.iter().any(|entry| entry["what"] == "offload" && entry["kind"] == "data_sheet"));
}

#[test]
fn a_host_that_is_too_small_is_out_of_memory_and_named() {
    let (_folder, path) = written(SCENARIO);
    let small = json(&path, &["cluster.host.memory=\"128 GB\""], 1);
    assert_eq!(small["verdict"], "out_of_memory");
    let failure = &small["out_of_memory"];
    assert_eq!(failure["tensor"], "gradients in 32 bits in host memory");
    let missing = number(&failure["short_by_bytes"]);
    assert!(missing > 0.0 && missing <= number(&failure["requested_bytes"]));
    let drives = ["parallelism.offload.optimizer=\"nvme\"", "cluster.host.nvme_capacity=\"100 GB\""];
    let small = json(&path, &drives, 1);
    assert_eq!(small["out_of_memory"]["tensor"], "model states on drives");
    let roomy = json(&path, &drives[..1], 0);
    let n = number(&roomy["parameters"]["total"]);
    assert!((number(&roomy["peak_memory"]["host"]["nvme_bytes"]) - 16.0 * n).abs() < 64.0);
    assert!(number(&roomy["step_time_s"]) > 16.0 * n / 10e9, "drives are read at their rate");
}

#[test]
fn activations_that_find_no_room_in_the_host_are_named_with_their_moment() {
    let (_folder, path) = written(SCENARIO);
    let only = ["parallelism.offload={activations=\"cpu\"}", "cluster.host.memory=\"400 MB\""];
    let small = json(&path, &only, 1);
    let failure = &small["out_of_memory"];
    // 32 inputs of blocks of 8 MiB on each of two ranks; 400 MB hold 23 of them.
    assert_eq!(failure["tensor"], "block.23 activations in host memory");
    assert!(number(&failure["at_s"]) > 0.0 && number(&failure["at_s"]) < number(&small["step_time_s"]));
    let roomy = json(&path, &only[..1], 0);
    let peak = number(&roomy["peak_memory"]["host"]["peak_bytes"]);
    assert!((peak - 2.0 * 32.0 * f64::from(8 << 20)).abs() < 0.5, "{peak}");
}

/// A step of few micro-batches is played with its memory, and one whose ranks are played one by one without: the same copies.
#[test]
fn copies_of_activations_take_as_long_with_and_without_memory() {
    let (_folder, path) = written(&SCENARIO.replace("activation_checkpointing = \"full\"\n", ""));
    let activations = "parallelism.offload={activations=\"cpu\"}";
    for stages in ["1", "2"] {
        let split = format!("parallelism.pipeline={stages}");
        let replicas = if stages == "1" { "parallelism.data=2" } else { "parallelism.data=1" };
        let few =
            [activations, "model.overrides={ layers = 2 }", "parallelism.zero_stage=0", &split, replicas];
        let explicit = [&few[..], &["simulation.explicit=true"]].concat();
        let step = |settings: &[&str]| json(&path, settings, 0)["step_time_s"].clone();
        assert!(number(&step(&few)) > 0.0);
        assert_eq!(step(&few), step(&explicit), "{stages} stages");
    }
}

#[test]
fn what_cannot_be_offloaded_is_refused_by_name() {
    let cases = [
        ("zero_stage = 3", "zero_stage = 2"),
        ("zero_stage = 3", "zero_stage = 0"),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "parameters = \"cpu\""),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "optimizer = \"disk\""),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "optimiser = \"cpu\""),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "activations = \"nvme\""),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "optimizer = \"cpu\", nvme_pipeline = true"),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "optimizer = \"cpu\", overlap_activations = true"),
        ("optimizer = \"cpu\", parameters = \"cpu\"", "pin_memory = true"),
        ("optimizer = \"adamw\"", "optimizer = \"sgd\""),
        (
            "precision = \"bf16\"\noptimizer = \"adamw\"\nactivation_checkpointing = \"full\"",
            "task = \"inference\"",
        ),
        ("memory = \"512 GB\"", "memory = \"512\""),
        ("memory = \"512 GB\"", "memmory = \"512 GB\""),
    ];
    let mut text = String::new();
    for (from, to) in cases {
        assert!(SCENARIO.contains(from), "{from}");
        let (folder, path) = written(&SCENARIO.replace(from, to));
        let output = steptime(&["run", "--json", path.to_str().unwrap()]);
        let message = String::from_utf8(output.stderr).unwrap();
        let message = message.replace(&format!("{}/", folder.path().display()), "");
        let _ = writeln!(text, "{}\n    {}", to.replace('\n', " / "), message.trim().replace('\n', "\n    "));
        assert_eq!(output.status.code(), Some(2), "{to}: {message}");
    }
    insta::assert_snapshot!(text);
}

/// Ren et al. 2021 (ZeRO-Offload): GPT of 10 billion parameters on one V100 of 32 GB in a DGX-2 fits, at 40 TFLOP/s, of
/// which the host takes little with a batch of 512. The V100's kernels are borrowed and come out too fast for the
/// software of that year: a third too many FLOPs a second.
#[test]
fn ten_billion_parameters_on_one_v100() {
    let text = r#"name = "ZeRO-Offload"

[model]
name = "gpt2"
sequence_length = 1024
overrides = { layers = 50, hidden = 4096, heads = 32, feed_forward = 16384 }

[cluster]
name = "dgx-v100-32gb"
gpus_per_node = 1
host = { memory = "1.5 TB", memory_bandwidth = "128 GB/s", vector_flops = "3 TFLOP/s" }

[workload]
micro_batch_size = 8
gradient_accumulation_steps = 64
precision = "fp16"
optimizer = "adam"
attention = "eager"
activation_checkpointing = "full"

[parallelism]
zero_stage = 2
offload = { optimizer = "cpu" }
"#;
    let (_folder, path) = written(text);
    let document = json(&path, &[], 0);
    let reached = number(&document["model_flops_utilization"]) * 125.0;
    assert!((40.0..40.0 * 1.4).contains(&reached), "{reached} TFLOP/s");
    let share = number(&document["time_breakdown_s"]["offload"]) / number(&document["step_time_s"]);
    assert!(share < 0.03, "{share}");
    // Without offloading 164 GB of states have no room.
    let plain = json(&path, &["parallelism.offload={}"], 1);
    assert_eq!(plain["verdict"], "out_of_memory");
}

#[test]
fn shipped_scenarios_compare_plain_zero_2_and_offload() {
    let file = |name: &str| root().join("scenarios").join(name);
    let [plain, two, offloaded] =
        ["rat-128-h100-ddp.toml", "rat-128-h100-zero2.toml", "rat-128-h100-zero3-offload.toml"]
            .map(|name| json(&file(name), &[], 0));
    // What the allocator cannot reuse differs between plans by how requests happen to cut its blocks; what is in tensors
    // does not.
    let tensors = |document: &serde_json::Value| number(&document["peak_memory"]["allocated_bytes"]);
    assert!(tensors(&plain) > tensors(&two) && tensors(&two) > tensors(&offloaded));
    // Nearly all of its memory are activations, which no stage of ZeRO divides: ZeRO 2 saves a percent, not 40.
    assert!(tensors(&two) > 0.98 * tensors(&plain));
    assert!(number(&offloaded["step_time_s"]) > number(&two["step_time_s"]));
}
