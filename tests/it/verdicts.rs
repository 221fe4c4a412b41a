//! Verdicts and exit codes.

use std::process::Command;

use crate::support::{number, report, steptime};

#[test]
fn out_of_memory_names_the_tensor_and_exits_with_1() {
    let file = "scenarios/llama3-8b-h100-zero0.toml";
    let document = report(&[file]);
    assert_eq!(document["verdict"], "out_of_memory");
    let oom = &document["out_of_memory"];
    // Weights, their 32-bit copies, gradients and buckets leave no room for the logits of 4,096 tokens in 32 bits; the
    // optimizer's moments would come at the end of the step.
    assert_eq!((&oom["tensor"], &oom["step"]), (&"head loss.upcast.output".into(), &0.into()));
    assert_eq!(oom["requested_bytes"], 4 * 4096 * 128_256_u64);
    assert!(number(&oom["short_by_bytes"]) > 0.0);
    assert_eq!(steptime(&["run", file]).status.code(), Some(1));
    assert_eq!(steptime(&["run", "scenarios/llama3-8b-h100-zero3.toml"]).status.code(), Some(0));
}

#[test]
fn an_activation_that_does_not_fit_is_named_with_its_layer() {
    let file = "scenarios/llama3-8b-h100-zero3.toml";
    let document = report(&[
        file,
        "--set",
        "workload.micro_batch_size=8",
        "--set",
        "workload.activation_checkpointing=none",
    ]);
    assert_eq!(document["verdict"], "out_of_memory");
    let oom = &document["out_of_memory"];
    let tensor = oom["tensor"].as_str().unwrap();
    assert!(tensor.starts_with("block.") || tensor.starts_with("head"), "{tensor}");
    assert!(number(&oom["at_s"]) > 0.0);
    let peak = number(&document["peak_memory"]["device_bytes"]);
    assert!(peak > number(&document["peak_memory"]["capacity_bytes"]));
}

#[test]
fn the_attention_map_of_rat_is_the_tensor_that_does_not_fit() {
    // One map of 4 images x 16 heads x 7,396 groups x 65,536 pixels in 32 bits: 115.56 GiB, as CUDA's message said.
    let document = report(&["scenarios/rat-256-h100.toml"]);
    assert_eq!(document["verdict"], "out_of_memory");
    let oom = &document["out_of_memory"];
    assert_eq!(oom["tensor"], "block.0 attention.map");
    assert_eq!(oom["requested_bytes"], 4 * 16 * 7396 * 65_536 * 4_u64);
    assert_eq!(format!("{:.2}", number(&oom["requested_bytes"]) / f64::from(1 << 30)), "115.56");
}

#[test]
fn a_frozen_model_has_states_of_its_adapters_only() {
    let file = "scenarios/llama2-7b-lora-a40.toml";
    // With two micro-batches there are gradients while memory is fullest.
    let document = report(&[file, "--set", "workload.gradient_accumulation_steps=2"]);
    assert_eq!(document["verdict"], "fits");
    assert_eq!(document["parameters"]["trainable"], 4_194_304);
    let breakdown = &document["peak_memory"]["breakdown_bytes"];
    assert_eq!(breakdown["parameters"], 2 * 6_742_609_920_u64);
    assert_eq!(breakdown["gradients"], 2 * 4_194_304);
    assert_eq!(breakdown["optimizer_states"], 12 * 4_194_304);
}

#[test]
fn model_states_under_zero_are_the_closed_form() {
    let parameters = 8_030_261_248.0;
    for (stage, bytes) in [(0, 16.0), (1, 4.0 + 12.0 / 8.0), (2, 2.0 + 14.0 / 8.0), (3, 16.0 / 8.0)] {
        let set = format!("parallelism.zero_stage={stage}");
        let document = report(&["scenarios/llama3-8b-h100-zero0.toml", "--set", &set]);
        let breakdown = &document["peak_memory"]["breakdown_bytes"];
        let states: f64 = ["parameters", "gradients", "optimizer_states"]
            .iter()
            .map(|name| number(&breakdown[*name]))
            .sum();
        // The allocator's blocks are never smaller than what is asked for, and up to 1 MiB larger.
        let excess = states / parameters - bytes;
        assert!((-1e-9..1e-3).contains(&excess), "ZeRO {stage}: {} a parameter", states / parameters);
    }
}

#[test]
fn help_and_version_exit_with_0() {
    for arguments in [&["--help"][..], &["--version"], &["run", "--help"], &["completions", "bash"]] {
        let output = steptime(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    assert_eq!(steptime(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn the_catalogue_lists_what_errors_point_to() {
    for (command, names) in [
        ("models", &["switch-vit-64", "llama3-8b", "visionencoder-xlarge"][..]),
        ("clusters", &["rtx8000-pcie-4", "h100-efa", "vehicles-9", "rtx-a5000"]),
    ] {
        let list = String::from_utf8(steptime(&[command]).stdout).unwrap();
        for name in names {
            assert!(list.contains(name), "{command}: {name}");
            let entry = steptime(&[command, name, "--json"]);
            assert_eq!(entry.status.code(), Some(0), "{command} {name}");
            let document: serde_json::Value = serde_json::from_slice(&entry.stdout).unwrap();
            assert_eq!(document["name"], *name);
        }
        assert!(list.lines().all(|line| line.chars().count() <= 80), "{list}");
    }
}

#[test]
fn every_model_has_a_line_of_its_own() {
    let list = String::from_utf8(steptime(&["models"]).stdout).unwrap();
    let listed: Vec<_> = list.lines().skip(1).filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(listed, steptime_models::catalogue_names());
}

#[test]
fn names_of_operations_are_whole() {
    for (model, layer, name) in [
        ("t5-base", "decoder.1", "cross_attention.output_dropout.grad"),
        ("mixtral-8x7b", "block.0", "attention.projection.grad_weight"),
    ] {
        let shown = String::from_utf8(steptime(&["models", model, "--layer", layer]).stdout).unwrap();
        assert!(shown.contains(&format!(" {name} ")), "{shown}");
        assert!(shown.lines().all(|line| line.chars().count() <= 80), "{shown}");
    }
}

/// `steptime ... | head` closes the pipe early: what was asked for was shown, and nothing is wrong.
#[test]
fn a_reader_that_leaves_early_is_no_failure() {
    for arguments in [&["models"][..], &["clusters"], &["models", "llama3-8b", "--json"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output =
            Command::new(env!("CARGO_BIN_EXE_steptime")).args(arguments).stdout(writer).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), &*error), (Some(0), ""), "{arguments:?}");
    }
}
