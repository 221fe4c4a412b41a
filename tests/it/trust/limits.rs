//! Absurd sizes: an answer or a refusal that names what is allowed, in bounded memory and time.

use super::{SMALL, bounded, refused};
use crate::support::Case;

/// Two gibibytes of address space: what the system, two threads and the tables of the catalogue take is little of it.
const KIB: u64 = 2 << 20;

fn run(case: &Case, options: &[&str]) -> std::process::Output {
    let path = case.path();
    let mut arguments = vec!["run", "--json", &path];
    arguments.extend(options.iter().flat_map(|option| ["--set", option]));
    bounded(KIB, &arguments)
}

/// Jobs at the edge of what is played are played.
#[test]
fn the_largest_jobs_are_played() {
    let case = Case::new(SMALL);
    for options in [
        &["cluster.nodes=12500"][..],
        &["cluster.nodes=12500", "parallelism.zero_stage=3"],
        &["cluster.nodes=131072"],
        &["workload.gradient_accumulation_steps=65536"],
        &["workload.micro_batch_size=100000000"],
        &[
            "cluster.nodes=2",
            "cluster.topology={ kind = \"fat-tree\", nodes_per_leaf = 1, spines = 30, places = 65536 }",
        ],
        &[
            "cluster.nodes=2",
            "cluster.topology={ kind = \"dragonfly\", routers_per_group = 2, nodes_per_router = 65536, places = 65536, \
             local = \"1 GB/s\", global = \"1 GB/s\" }",
        ],
        &[
            "cluster.nodes=2",
            "cluster.topology={ places = 65536, inside = { pcie = { gpus_per_switch = 4, switches_per_socket = 2, \
             slot = \"32 GB/s\", uplink = \"32 GB/s\", between_sockets = \"32 GB/s\" } } }",
        ],
        &["model.overrides.layers=1000", "parallelism.pipeline=8", "workload.gradient_accumulation_steps=8"],
    ] {
        let output = run(&case, options);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "{options:?}: {error}");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(
            report["step_time_s"].as_f64().is_some_and(|step| step > 0.0 && step.is_finite()),
            "{options:?}"
        );
    }
}

/// Beyond it they are refused: the message says what is allowed, or that there is too much to play.
#[test]
fn what_is_larger_is_refused() {
    let case = Case::new(SMALL);
    for options in [
        &["cluster.nodes=4294967295"][..],
        &["cluster.nodes=18446744073709551615"],
        &["workload.gradient_accumulation_steps=1000000"],
        &[
            "workload.gradient_accumulation_steps=65536",
            "cluster.nodes=1024",
            "parallelism.pipeline=2",
            "parallelism.zero_stage=0",
            "simulation.explicit=true",
        ],
        &["workload.micro_batch_size=4294967295"],
        &["model.overrides.layers=1000000000000000000"],
        &["model.overrides.hidden=18446744073709551615"],
        &["model.overrides.hidden=9223372036854775807"],
        &["model.sequence_length=9223372036854775807"],
        &["parallelism.tensor=9223372036854775807"],
        &["parallelism.pipeline=4294967296", "parallelism.virtual_pipeline=4294967296"],
        &["parallelism.data=9223372036854775807", "parallelism.context=2"],
        &["parallelism.expert=9223372036854775807"],
        &[
            "cluster.nodes=2",
            "cluster.topology={ kind = \"fat-tree\", nodes_per_leaf = 1, spines = 65536, places = 65536 }",
        ],
        &[
            "cluster.nodes=2",
            "cluster.topology={ kind = \"dragonfly\", routers_per_group = 65536, nodes_per_router = 65536, places = 2, \
             local = \"1 GB/s\", global = \"1 GB/s\" }",
        ],
        &[
            "cluster.nodes=2",
            "cluster.topology={ kind = \"dragonfly\", routers_per_group = 1, nodes_per_router = 1, places = 65536, \
             local = \"1 GB/s\", global = \"1 GB/s\" }",
        ],
    ] {
        let error = refused(&run(&case, options), &format!("{options:?}"));
        let says = ["allowed", "must be", "too many", "too large", "at most", "more than"];
        assert!(says.iter().any(|word| error.contains(word)), "{options:?}: {error}");
    }
}

/// Every number of a scenario, with what is no number that it can have.
#[test]
fn no_key_takes_what_is_no_number_of_its_kind() {
    let case = Case::new(SMALL);
    let keys = [
        "workload.micro_batch_size",
        "workload.gradient_accumulation_steps",
        "workload.global_batch_size",
        "cluster.nodes",
        "cluster.gpus_per_node",
        "parallelism.tensor",
        "parallelism.pipeline",
        "parallelism.zero_stage",
        "parallelism.bucket_bytes",
        "parallelism.wrap_blocks",
        "model.sequence_length",
        "model.overrides.layers",
        "input.workers",
        "variability.repetitions",
        "variability.kernel_jitter",
    ];
    for key in keys {
        for value in [
            "nan",
            "inf",
            "-inf",
            "-1",
            "1e400",
            "-0.5",
            "[]",
            "{}",
            "true",
            "1979-05-27",
            "\"\"",
            "[[[[1]]]]",
        ] {
            refused(&run(&case, &[&format!("{key}={value}")]), &format!("{key}={value}"));
        }
    }
}

fn tree(text: &str, ending: &str) -> Case {
    let case = Case::new(SMALL);
    std::fs::write(case.file(&format!("deep.{ending}")), text).unwrap();
    case
}

/// Readers that call themselves for what is nested would run out of stack.
#[test]
fn what_is_nested_deeply_is_refused() {
    let deep = 100_000;
    let json = "{\"a\":".repeat(deep) + "1" + &"}".repeat(deep);
    let yaml = format!("a: {}{}", "[".repeat(deep), "]".repeat(deep));
    let xml = "<a>".repeat(deep) + &"</a>".repeat(deep);
    let toml = format!("a = {}{}", "[".repeat(deep), "]".repeat(deep));
    let keys = vec!["a"; 100_000].join(".") + " = 1";
    let sums = format!("A=$(({}1{}))\npretrain_gpt.py --num-layers $A\n", "(".repeat(deep), ")".repeat(deep));
    for (text, ending) in
        [(&json, "json"), (&yaml, "yaml"), (&xml, "xml"), (&toml, "toml"), (&keys, "toml"), (&sums, "sh")]
    {
        let case = tree(text, ending);
        let path = case.file(&format!("deep.{ending}")).display().to_string();
        refused(&bounded(KIB, &["run", &path]), ending);
        for kind in ["hf", "deepspeed", "megatron", "torchtitan", "swift", "safetensors"] {
            refused(&bounded(KIB, &["import", kind, &path]), &format!("{kind} {ending}"));
        }
    }
}

/// Looking for lines and columns from the beginning of the text would take the square of its length.
#[test]
fn long_texts_are_read_in_time() {
    let list = format!("{SMALL}stages = [{}]\n", vec!["1"; 300_000].join(", "));
    let keys = (0..100_000).map(|key| format!("k{key} = 1\n")).collect::<Vec<_>>().concat();
    for text in [&list, &format!("{SMALL}{keys}")] {
        let case = Case::new(text);
        refused(&bounded(KIB, &["run", &case.path()]), &text[..100]);
    }
    let case = Case::new(SMALL);
    let yaml = format!("a: [{}]\n", vec!["1"; 200_000].join(", "));
    let json = format!("{{\"a\": [{}]}}", vec!["1"; 200_000].join(", "));
    for (name, text) in [("long.yaml", yaml), ("long.json", json)] {
        std::fs::write(case.file(name), text).unwrap();
        let path = case.file(name).display().to_string();
        for kind in ["hf", "deepspeed", "megatron"] {
            refused(&bounded(KIB, &["import", kind, &path]), &format!("{kind} {name}"));
        }
    }
}

/// A part of a sweep that says of itself that it is one of 2^64 points.
#[test]
fn parts_that_claim_many_points_are_told_apart_at_once() {
    let case = Case::new("[sweep]\n");
    let header = r#"{"schema":"steptime.sweep/1","name":"x","fingerprint":"0","points":18446744073709551615,"skipped":0,"axes":["a"],"shard":{"index":1,"count":2},"version":"0.1.0"}"#;
    std::fs::write(case.file("sweep-1-of-2.jsonl"), format!("{header}\n")).unwrap();
    let path = case.file("sweep-1-of-2.jsonl").display().to_string();
    let out = case.file("out").display().to_string();
    let error = refused(&bounded(KIB, &["merge", &path, "--out", &out]), "merge");
    assert!(error.contains("0 of 9223372036854775808 points of shard 1/2"), "{error}");
}

/// What never ends is not read to its end.
#[test]
fn inputs_without_end_are_refused() {
    for arguments in [&["run", "/dev/zero"][..], &["check", "/dev/zero"], &["models", "/dev/zero"]] {
        refused(&bounded(6 << 20, arguments), &format!("{arguments:?}"));
    }
}
