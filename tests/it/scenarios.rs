//! Every scenario in `scenarios/` gives the report of the contract.

use std::time::Instant;

use serde_json::Value;

use crate::support::{number, report, root, scenario_files, steptime};

const KEYS: [&str; 23] = [
    "schema",
    "name",
    "verdict",
    "step_time_s",
    "step_time_interval_s",
    "samples_per_s",
    "tokens_per_s",
    "tokens_per_s_per_gpu",
    "model_flops_utilization",
    "hardware_flops_utilization",
    "time_breakdown_s",
    "peak_memory",
    "out_of_memory",
    "remedies",
    "infeasible",
    "stages",
    "vehicle_path",
    "gpus",
    "parameters",
    "flops_per_step",
    "provenance",
    "version",
    "scenario_hash",
];

#[test]
fn every_scenario_gives_a_report_whose_parts_add_up() {
    let files = scenario_files();
    assert!(files.len() >= 18);
    for file in files {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let start = Instant::now();
        let document = report(&[&name]);
        assert!(start.elapsed().as_secs_f64() < 1.0, "{name} takes {:?}", start.elapsed());
        let keys = document.as_object().unwrap().keys().map(String::as_str);
        // There only where samples are loaded, or steps differ.
        let keys: Vec<&str> =
            keys.filter(|key| !["end_to_end_s", "input", "variability"].contains(key)).collect();
        assert_eq!(keys, KEYS, "{name}");
        assert_eq!(document["schema"], "steptime.report/1");
        check_sums(&name, &document);
    }
}

fn check_sums(name: &str, document: &Value) {
    let sum = |object: &Value| object.as_object().unwrap().values().map(number).sum::<f64>();
    let step = document["step_time_s"].as_f64().unwrap_or(0.0);
    let parts = sum(&document["time_breakdown_s"]);
    assert!((parts - step).abs() <= 1e-9 * step, "{name}: {parts} against {step}");
    let memory = &document["peak_memory"];
    let held = sum(&memory["breakdown_bytes"]);
    if document["infeasible"].is_null() {
        assert!((held - number(&memory["device_bytes"])).abs() < 0.5, "{name}: {held}");
    }
    assert!(number(&memory["allocated_bytes"]) <= number(&memory["reserved_bytes"]));
    assert!(number(&memory["reserved_bytes"]) <= number(&memory["device_bytes"]));
    for stage in document["stages"].as_array().unwrap() {
        let shares = ["busy_fraction", "bubble_fraction", "communication_fraction"];
        let total: f64 = shares.iter().map(|share| number(&stage[*share])).sum();
        assert!((0.0..=1.0 + 1e-9).contains(&total), "{name}: {stage}");
    }
}

#[test]
fn several_scenarios_are_compared() {
    let files = ["scenarios/vit-rtx8000.toml", "scenarios/switch-vit-32-rtx8000.toml"];
    let document = report(&files);
    assert_eq!(document["schema"], "steptime.reports/1");
    assert_eq!(document["reports"].as_array().unwrap().len(), 2);
    assert_eq!(document["reports"][0], report(&files[..1]));
}

/// Tokens a second are for models with tokens: text, and images cut into patches.
#[test]
fn only_models_with_tokens_have_a_rate_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    for (model, has_tokens) in [("resnet50", false), ("vit_b_16", true)] {
        let workload = "[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n";
        let text = format!("[model]\nname = \"{model}\"\n[cluster]\nname = \"dgx-h100\"\n{workload}");
        std::fs::write(&path, text).unwrap();
        let report = report(&[path.to_str().unwrap()]);
        assert_eq!(report["tokens_per_s"].is_f64(), has_tokens, "{model}");
    }
}

#[test]
fn a_scenario_is_read_from_standard_input() {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let file = root().join("scenarios/vit-rtx8000.toml");
    let mut child = Command::new(env!("CARGO_BIN_EXE_steptime"))
        .args(["run", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&std::fs::read(&file).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    let given = steptime(&["run", "--json", "scenarios/vit-rtx8000.toml"]);
    assert_eq!(output.stdout, given.stdout);
}

#[test]
fn set_changes_the_scenario() {
    let file = "scenarios/llama3-8b-h100-zero3.toml";
    let zero2 = report(&[file, "--set", "parallelism.zero_stage=2"]);
    let written = report(&["scenarios/llama3-8b-h100-zero2.toml"]);
    assert_eq!(zero2["step_time_s"], written["step_time_s"]);
    assert_eq!(zero2["peak_memory"], written["peak_memory"]);
    let layers = report(&[file, "--set", "model.overrides.layers=4"]);
    assert!(number(&layers["step_time_s"]) < 0.3 * number(&written["step_time_s"]));
}

#[test]
fn names_of_other_tools_mean_the_same() {
    let file = "scenarios/gpt-18b-dgx-a100.toml";
    let own = report(&[file]);
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    let text = text
        .replace("micro_batch_size", "train_micro_batch_size_per_gpu")
        .replace("global_batch_size", "train_batch_size")
        .replace("pipeline =", "pipeline_model_parallel_size =")
        .replace("nodes =", "nnodes =");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.toml");
    std::fs::write(&path, text).unwrap();
    // But for the hash of what is written.
    let without_hash = |mut report: Value| {
        let hash = report.as_object_mut().and_then(|report| report.remove("scenario_hash"));
        assert!(hash.is_some());
        report
    };
    assert_eq!(without_hash(report(&[path.to_str().unwrap()])), without_hash(own));
}

#[test]
fn out_writes_whole_results_that_can_be_drawn_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("results");
    let out = out.to_str().unwrap();
    let run = steptime(&["run", "scenarios/gpt-18b-dgx-a100.toml", "--out", out, "--figures", "svg,png,pdf"]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    let saved: Value = serde_json::from_slice(&std::fs::read(format!("{out}/report.json")).unwrap()).unwrap();
    assert_eq!(saved, report(&["scenarios/gpt-18b-dgx-a100.toml"]));
    let csv = std::fs::read_to_string(format!("{out}/report.csv")).unwrap();
    assert_eq!(csv.lines().count(), 2);
    assert_eq!(csv.lines().next().unwrap().split(',').count(), 28);
    let again = format!("{out}/again");
    let plot = steptime(&["plot", out, "--out", &again, "--figures", "svg"]);
    assert_eq!(plot.status.code(), Some(0), "{}", String::from_utf8_lossy(&plot.stderr));
    let mut drawn = 0;
    for entry in std::fs::read_dir(&again).unwrap() {
        let path = entry.unwrap().path();
        let first = format!("{out}/figures/{}", path.file_name().unwrap().to_str().unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(first).unwrap());
        drawn += 1;
    }
    assert!(drawn >= 3, "{drawn} figures");
    let magic = |name: &str, bytes: &[u8]| {
        let found = std::fs::read(format!("{out}/figures/{name}")).unwrap();
        assert!(found.starts_with(bytes), "{name}");
    };
    magic("pipeline_gantt.png", b"\x89PNG");
    magic("pipeline_gantt.pdf", b"%PDF");
}
