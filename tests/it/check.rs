//! `steptime check`: verdicts about somebody's plan, by exit code and by name.

use crate::support::{number, steptime};

/// Writes a plan, checks it, and returns the exit code and the report.
fn check(file: &str, plan: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, plan).unwrap();
    let output = steptime(&[&["check", path.to_str().unwrap(), "--json"], arguments].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 1)), "{error}");
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn refusal(file: &str, plan: &str, arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(file);
    std::fs::write(&path, plan).unwrap();
    let output = steptime(&[&["check", path.to_str().unwrap()], arguments].concat());
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", folder.path().display()), "")
}

fn messages(report: &serde_json::Value) -> Vec<&str> {
    report["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|violation| violation["message"].as_str().unwrap())
        .collect()
}

/// The planner's results for VisionEncoder xlarge on five vehicles, whose 2,944.5439 s (`flad/plot/bar.py`) are those of a plan
/// without ShallowFeatureExtraction.
const XLARGE: &str = r#"{ "best_pipeline": { "path": ["v1", "v2", "v3", "v4", "v5"], "execution_time": 2944.5439, "strategy": {
    "v1": ["RGB_DeepProcessing"], "v2": ["Lidar_DeepProcessing"],
    "v3": ["DecoderProcessing_Late", "DecoderProcessing_Early"],
    "v4": ["PredictionOutputs", "EncoderFusion_Early"], "v5": ["EncoderFusion_Middle", "EncoderFusion_Late"] } } }"#;

#[test]
fn plans_that_drop_partitions_are_rejected_by_name() {
    let (code, report) =
        check("swift_results.json", XLARGE, &["--model", "visionencoder-xlarge", "--cluster", "vehicles-5"]);
    assert_eq!(code, Some(1));
    assert_eq!(messages(&report), ["partition ShallowFeatureExtraction is on no vehicle"]);
    assert_eq!(
        (&report["legal"], &report["complete"], &report["fits"]),
        (&true.into(), &false.into(), &true.into())
    );
    assert_eq!(
        format!("{:.4}", number(&report["step_time_s"])),
        "2944.5439",
        "the claim is the formula's for what is left"
    );
    // Nothing can mend it: no vehicle has room for what was dropped.
    assert!(report["repair"].is_null() && report["bound_s"].is_null());
    assert_eq!(report["proven"], true);
    let optimum = &report["compared"][0];
    assert!(optimum["step_time_s"].is_null());
    assert!(
        optimum["plan"].as_str().unwrap().contains("ShallowFeatureExtraction needs 3300000000 bytes"),
        "{optimum}"
    );
}

/// A plan of the original model on five vehicles whose last partition was left out: the smallest repair puts it back and
/// moves nothing else.
#[test]
fn the_smallest_repair_moves_the_fewest_partitions() {
    let plan = "Pipeline,Path,Execution_Time,Partition_Strategy\n\
        1,['v1', 'v2', 'v3', 'v4', 'v5'],2800.5,v1:[ShallowFeatureExtraction];v2:[Lidar_DeepProcessing,DecoderProcessing_Late];\
        v3:[RGB_DeepProcessing,DecoderProcessing_Early,EncoderFusion_Early,EncoderFusion_Middle];v4:[EncoderFusion_Late];v5:[]\n";
    let place = ["--model", "visionencoder", "--cluster", "vehicles-5"];
    let (code, report) = check("pipelines_1.csv", plan, &place);
    assert_eq!(code, Some(1));
    assert_eq!(messages(&report)[0], "partition PredictionOutputs is on no vehicle");
    // v4 has the room, and v5 at the end of the path pays no transfers: 0.5 GB on either.
    let changes = report["repair"]["changes"].as_array().unwrap();
    assert_eq!(changes, &["put PredictionOutputs on v5"]);
    let repaired = plan
        .replace("v5:[]", "v5:[PredictionOutputs]")
        .replace("2800.5", &report["repair"]["step_time_s"].to_string());
    let (code, mended) = check("pipelines_2.csv", &repaired, &place);
    assert_eq!((code, messages(&mended).len()), (Some(0), 0));
    assert!(number(&mended["step_time_s"]) >= number(&mended["bound_s"]));
    // Optimum of the source's model on five vehicles, recomputed by enumeration: 1768.5568 s.
    assert_eq!(format!("{:.4}", number(&mended["bound_s"])), "1768.5568");
}

#[test]
fn paths_that_break_rules_are_rejected() {
    let (code, report) = check(
        "plan.json",
        r#"{ "path": ["v2", "v1", "v3", "v4", "v5"], "execution_time": 1.0, "strategy": { "v1": ["ShallowFeatureExtraction", "Lidar_DeepProcessing"],
            "v3": ["ShallowFeatureExtraction", "Radar"], "v6": [] } }"#,
        &["--model", "visionencoder", "--cluster", "vehicles-5"],
    );
    assert_eq!(code, Some(1));
    let found = messages(&report).join("\n");
    for part in [
        "vehicle v2 comes before v1 on the path, but depends on it",
        "partition ShallowFeatureExtraction is placed 2 times, on v1, v3; it must be placed once",
        "partition RGB_DeepProcessing is on no vehicle",
        "vehicle v1 is 1500000000 bytes short",
        "claims 1.0000 s, the formula gives",
        "the plan names vehicle v6, which vehicles-5 does not have",
        "the plan places partition Radar, which visionencoder does not have",
    ] {
        assert!(found.contains(part), "{part} in\n{found}");
    }
    let changes = report["repair"]["changes"].as_array().unwrap();
    assert!(
        changes.iter().any(|change| change.as_str().unwrap().starts_with("take the path v1 > ")),
        "{changes:?}"
    );
}

const SCENARIO: &str = r#"name = "proposal"
[model]
name = "llama3-8b"
sequence_length = 4096
[cluster]
name = "dgx-h100"
[workload]
micro_batch_size = 1
gradient_accumulation_steps = 4
precision = "bf16"
[parallelism]
zero_stage = 1
pipeline = 2
"#;

#[test]
fn claims_of_gpu_plans_are_held_against_the_prediction() {
    let with = |claim: &str| check("plan.toml", &format!("{SCENARIO}[claim]\n{claim}"), &[]);
    let (code, fair) = with("");
    assert_eq!((code, messages(&fair).len()), (Some(0), 0));
    let step = number(&fair["step_time_s"]);
    let low = number(&fair["step_time_interval_s"][0]);
    let memory = number(&fair["peak_memory_bytes"]);
    assert_eq!(with(&format!("step_time_s = {}", low * 1.001)).0, Some(0), "within the interval");
    assert_eq!(with(&format!("step_time_s = {}", step * 2.0)).0, Some(0), "slower than need be is no lie");
    let (code, report) =
        with(&format!("step_time_s = {}\npeak_memory = \"{} B\"", low * 0.9, (memory * 0.7).round()));
    assert_eq!((code, messages(&report).len()), (Some(1), 2));
    assert!(report["violations"].as_array().unwrap().iter().all(|violation| violation["rule"] == "claim"));
    let (code, report) =
        check("plan.toml", &SCENARIO.replace("pipeline = 2", "pipeline = 2\nstages = [16, 15]"), &[]);
    assert_eq!((code, &report["complete"]), (Some(1), &false.into()));
    assert_eq!(messages(&report), ["parallelism.stages: 16 + 15 = 31 layers, the model has 32 blocks"]);
    let (code, report) = check("plan.toml", &SCENARIO.replace("pipeline = 2", "pipeline = 3"), &[]);
    assert_eq!((code, &report["legal"]), (Some(1), &false.into()));
    // What does not fit is told what would.
    let (code, report) =
        check("plan.toml", &SCENARIO.replace("zero_stage = 1\npipeline = 2", "zero_stage = 0"), &[]);
    assert_eq!((code, &report["fits"]), (Some(1), &false.into()));
    assert!(!report["repair"]["changes"].as_array().unwrap().is_empty());
    let error = refusal("plan.toml", &SCENARIO.replace("pipeline = 2", "pipelines = 2"), &[]);
    assert!(error.contains("parallelism.pipelines: unknown key"), "{error}");
}

/// The plan that a search of the same scenario finds, with as many plays, and the bound that it proves.
#[test]
fn plans_are_compared_with_the_best_that_a_search_finds() {
    let (code, report) = check("plan.toml", SCENARIO, &["--plays", "200"]);
    assert_eq!(code, Some(0));
    let compared = &report["compared"][0];
    assert_eq!(compared["planner"], "search");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.toml");
    std::fs::write(&path, SCENARIO).unwrap();
    let searched = |plays: &str| -> serde_json::Value {
        let output = steptime(&["search", path.to_str().unwrap(), "--json", "--plays", plays]);
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let found = searched("200");
    assert_eq!(compared["step_time_s"], found["best"]["step_time_s"]);
    assert_eq!(report["bound_s"], found["bound"]);
    let (own, best) = (number(&report["step_time_s"]), number(&compared["step_time_s"]));
    assert!(number(&report["bound_s"]) <= best && best < own, "{best} against {own}");
    assert_eq!(report["proven"], number(&found["gap"]) <= 1e-3);
    // With fewer plays no more is found, and less is proven.
    let (_, hasty) = check("plan.toml", SCENARIO, &["--plays", "1"]);
    assert_eq!(hasty["compared"][0]["step_time_s"], searched("1")["best"]["step_time_s"]);
    assert!(
        hasty["bound_s"].is_null() || number(&hasty["bound_s"]) <= number(&report["bound_s"]) * (1.0 + 1e-9)
    );
    // Without plays nothing is compared; the best plan itself is told that nothing is better.
    let (_, alone) = check("plan.toml", SCENARIO, &["--plays", "0"]);
    assert_eq!((alone["compared"].as_array().map(Vec::len), alone["bound_s"].is_null()), (Some(0), true));
    let keys =
        found["best"]["set"].as_array().unwrap().iter().flat_map(|key| ["--set", key.as_str().unwrap()]);
    let arguments: Vec<&str> = keys.chain(["--plays", "200"]).collect();
    let (code, top) = check("plan.toml", SCENARIO, &arguments);
    assert_eq!(
        (code, &top["step_time_s"], &top["proven"]),
        (Some(0), &found["best"]["step_time_s"], &report["proven"])
    );
    // As a newcomer reads it.
    let text = steptime(&["check", path.to_str().unwrap(), "--plays", "200"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("search") && text.contains("bound"), "{text}");
}

#[test]
fn plans_of_other_tools_are_read_by_their_keys() {
    let place = ["--model", "llama3-8b", "--cluster", "dgx-h100"];
    let deepspeed = r#"{ "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 4, "bf16": { "enabled": true },
        "zero_optimization": { "stage": 3 } }"#;
    let (_, report) = check("ds_config.json", deepspeed, &place);
    assert!(report["plan"].as_str().unwrap().contains("ZeRO 3"), "{}", report["plan"]);
    let stages = |ids: &str| {
        format!(
            r#"{{ "forward_stage_layer_ids": [{ids}], "submesh_physical_shapes": [[1, 4], [1, 4]],
                "submesh_logical_shapes": [[4, 1], [4, 1]], "num_micro_batches": 8, "batch_size": 64 }}"#
        )
    };
    let place = ["--model", "gpt2", "--cluster", "dgx-h100"];
    let (code, report) = check("stages.json", &stages("[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]"), &place);
    assert_eq!(code, Some(0), "{report}");
    assert!(report["plan"].as_str().unwrap().contains("8 micro-batches of 2"));
    let (code, report) = check("stages.json", &stages("[0, 1, 2, 3, 4, 5], [5, 6, 7, 8, 10, 12]"), &place);
    assert_eq!(code, Some(1));
    assert_eq!(
        messages(&report),
        [
            "layer 5 is placed 2 times, on stages 0, 1",
            "layer 9 is on no stage",
            "layer 11 is on no stage",
            "layer 12 does not exist: the model has 12 blocks, numbered from 0"
        ]
    );
}

#[test]
fn what_is_no_plan_is_refused_with_its_place() {
    let error = refusal("plan.json", "{}", &[]);
    assert!(error.contains("what kind of plan this is cannot be told; say it with --kind"), "{error}");
    let error = refusal(
        "plan.json",
        r#"{ "path": ["v1"] }"#,
        &["--model", "visionencoder", "--cluster", "vehicles-5"],
    );
    assert!(error.contains("plan: strategy: found none"), "{error}");
    let error = refusal("plan.json", XLARGE, &["--model", "visionencoder"]);
    assert!(error.contains("--cluster is missing"), "{error}");
    let error = refusal("plan.csv", "a,b\n1,2\n", &["--model", "visionencoder", "--cluster", "vehicles-5"]);
    assert!(error.contains("plan.csv:1:1: found neither JSON nor the header"), "{error}");
    let error = refusal("plan.toml", SCENARIO, &["--claim-memory", "70"]);
    assert!(error.contains("--claim-memory"), "{error}");
}
