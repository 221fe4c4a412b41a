//! Wrong input gets one message that says where, which key, what was found, what is allowed; exit code 2.

use crate::support::steptime;

/// A scenario that is right; each case spoils one thing.
const RIGHT: &str = r#"name = "case"

[model]
name = "llama3-8b"
sequence_length = 4096

[cluster]
name = "dgx-h100"
nodes = 1
gpus_per_node = 8

[workload]
micro_batch_size = 1
global_batch_size = 32
precision = "bf16"
optimizer = "adamw"

[parallelism]
data = 4
pipeline = 2
zero_stage = 1
"#;

/// Runs the spoiled scenario and returns the message, with the folder's path left out.
fn message(from: &str, to: &str) -> String {
    assert!(RIGHT.contains(from), "{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, RIGHT.replace(from, to)).unwrap();
    let output = steptime(&["run", "--json", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{to}: {}", String::from_utf8_lossy(&output.stdout));
    assert!(output.stdout.is_empty(), "{to}");
    let error = String::from_utf8(output.stderr).unwrap();
    error.replace(&format!("{}/", folder.path().display()), "")
}

#[test]
fn the_unspoiled_scenario_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, RIGHT).unwrap();
    let output = steptime(&["run", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_mistake_has_its_message() {
    let cases = [
        ("precision = \"bf16\"", "precision = \"bf61\""),
        ("precision = \"bf16\"", "precison = \"bf16\""),
        ("[workload]", "[worklaod]"),
        ("name = \"llama3-8b\"", "name = \"lama3-8b\""),
        ("name = \"dgx-h100\"", "name = \"dgx-h200\""),
        ("micro_batch_size = 1", "micro_batch_size = 0"),
        ("micro_batch_size = 1", "micro_batch_size = \"one\""),
        ("micro_batch_size = 1\nglobal_batch_size = 32\n", ""),
        ("global_batch_size = 32", "global_batch_size = 30"),
        ("global_batch_size = 32", "global_batch_size = 32\ngradient_accumulation_steps = 4"),
        ("data = 4", "data = 8"),
        ("data = 4\npipeline = 2", "pipeline = 3"),
        ("pipeline = 2", "pipeline = 2\nstages = [20, 11]"),
        ("zero_stage = 1", "zero_stage = 4"),
        ("zero_stage = 1", "zero_stage = 1\ntensor = 2"),
        ("zero_stage = 1", "zero_stage = 1\noffload = { optimizer = \"cpu\" }"),
        ("zero_stage = 1", "zero_stage = 1\nschedule = \"1f2b\""),
        ("pipeline = 2", "pipeline = 2\npipeline_model_parallel_size = 2"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\noverrides = { layers = 0 }"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\noverrides = { layer = 4 }"),
        ("name = \"llama3-8b\"", "name = \"llama3-8b\"\nimage_size = 32"),
        ("gpus_per_node = 8", "gpus_per_node = 16"),
        ("[parallelism]", "[parallelism"),
        ("zero_stage = 1", "zero_stage = 1\n\n[sweep]\n\"workload.micro_batch_size\" = [1, 2]"),
        (
            "name = \"dgx-h100\"\nnodes = 1\ngpus_per_node = 8",
            "name = \"dgx-a100-80gb\"\n\n[simulation]\nexplicit = 1",
        ),
        ("name = \"dgx-h100\"\nnodes = 1\ngpus_per_node = 8", "name = \"vehicles-5\""),
        ("precision = \"bf16\"", "precision = \"fp32\"\nattention = \"flash\""),
    ];
    let mut all = String::new();
    for (from, to) in cases {
        all += &format!(
            "{}\n    {}\n",
            to.replace('\n', " / "),
            message(from, to).trim_end().replace('\n', "\n    ")
        );
    }
    insta::assert_snapshot!(all);
}

#[test]
fn the_gpu_must_have_the_format() {
    let file = "scenarios/vit-rtx8000.toml";
    let output = steptime(&["run", file, "--set", "workload.precision=bf16"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap());
}

#[test]
fn options_and_files_are_checked_too() {
    let file = "scenarios/vit-rtx8000.toml";
    let mut all = String::new();
    for arguments in [
        &["run", "scenarios/none.toml"][..],
        &["run", file, "--set", "workload.micro_batch_size"],
        &["run", file, "--set", "workload.micro_batch_size=many"],
        &["run", file, "--set", "name.first=1"],
        &["run", file, "--set", "=1"],
        &["models", "gtp2"],
        &["clusters", "rtx-a500"],
        &["plot", "scenarios"],
    ] {
        let output = steptime(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        all += &format!("{}\n    {}", arguments.join(" "), String::from_utf8(output.stderr).unwrap());
    }
    insta::assert_snapshot!(all);
}

#[test]
fn nothing_is_written_when_the_input_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let files = ["scenarios/vit-rtx8000.toml", "scenarios/none.toml"];
    let output = steptime(&["run", files[0], files[1], "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!out.exists());
}
