//! The published baselines of the SWIFT planner, through the whole program.

use crate::support::{number, report, shared};

/// Baseline times of `plot/bar.py` of Convex-analysis/pippyoldversion, branch CYH, and their recomputation from
/// the formulas of `vehicle.py` and `optimizer.py` there, seconds; 32 samples, utilization 0.5, overhead 1.2.
/// Zero stands for infeasible.
const BASELINES: [(&str, &str, f64); 12] = [
    ("vehicles-3", "visionencoder-small", 566.5280),
    ("vehicles-3", "visionencoder-medium", 824.7729),
    ("vehicles-3", "visionencoder", 1081.6197),
    ("vehicles-3", "visionencoder-large", 0.0),
    ("vehicles-3", "visionencoder-xlarge", 0.0),
    ("vehicles-5", "visionencoder-small", 1390.7427),
    ("vehicles-5", "visionencoder-medium", 1535.5624),
    ("vehicles-5", "visionencoder", 2494.7078),
    ("vehicles-5", "visionencoder-large", 2998.2761),
    ("vehicles-5", "visionencoder-xlarge", 0.0),
    ("vehicles-7", "visionencoder", 910.5060),
    ("vehicles-9", "visionencoder", 0.0),
];

fn on(cluster: &str, model: &str) -> serde_json::Value {
    let cluster = format!("cluster.name={cluster}");
    let model = format!("model.name={model}");
    report(&["scenarios/visionencoder-original-vehicles.toml", "--set", &cluster, "--set", &model])
}

#[test]
fn baselines_to_four_decimals() {
    for (cluster, model, expected) in BASELINES {
        let document = on(cluster, model);
        if expected == 0.0 {
            assert_eq!(document["verdict"], "out_of_memory", "{cluster}, {model}");
            let why = &document["infeasible"];
            let bytes = |name: &str| why[name].as_u64().unwrap();
            assert!(bytes("short_by_bytes") > 0, "{cluster}, {model}");
            assert_eq!(bytes("short_by_bytes"), bytes("required_bytes") - bytes("available_bytes"));
            assert!(document["step_time_s"].is_null());
        } else {
            let serial = number(&document["vehicle_path"]["serial_time_s"]);
            assert!((serial - expected).abs() < 5e-5, "{cluster}, {model}: {serial} against {expected}");
        }
    }
}

/// Where the last vehicle of the path holds something, replaying one batch takes the serial time; elsewhere the
/// formula charges a transfer that nobody receives.
#[test]
fn one_micro_batch_replays_the_serial_time() {
    let mut equal = 0;
    for (cluster, model, expected) in BASELINES {
        let document = on(cluster, model);
        let Some(step) = document["step_time_s"].as_f64() else { continue };
        let path = &document["vehicle_path"];
        let last = path["path"].as_array().unwrap().last().unwrap().as_str().unwrap();
        if path["assignment"][last].as_array().unwrap().is_empty() {
            assert!(step < expected);
        } else {
            assert!((step - expected).abs() < 5e-5, "{cluster}, {model}: {step} against {expected}");
            equal += 1;
        }
    }
    assert!(equal >= 4, "{equal} of the paths end at a vehicle that holds something");
}

#[test]
fn micro_batches_overlap() {
    let file = "scenarios/visionencoder-original-vehicles.toml";
    let set = ["--set", "workload.micro_batch_size=4", "--set", "workload.gradient_accumulation_steps=8"];
    let whole = report(&[file]);
    let cut = report(&[&[file], &set[..]].concat());
    assert_eq!(cut["vehicle_path"]["serial_time_s"], whole["vehicle_path"]["serial_time_s"]);
    assert!(number(&cut["step_time_s"]) < number(&whole["step_time_s"]));
}

#[test]
fn a_given_placement_is_judged() {
    let placement = r#"parallelism.placement={ path = ["v1", "v3", "v4", "v2", "v5"], assignment = {
        v3 = ["ShallowFeatureExtraction", "PredictionOutputs"], v2 = ["Lidar_DeepProcessing", "EncoderFusion_Early"],
        v5 = ["RGB_DeepProcessing", "DecoderProcessing_Late"], v4 = ["EncoderFusion_Middle", "EncoderFusion_Late"],
        v1 = ["DecoderProcessing_Early"] } }"#;
    let placement = placement.replace('\n', " ");
    let document = report(&["scenarios/visionencoder-original-vehicles.toml", "--set", &placement]);
    assert_eq!(document["verdict"], "fits");
    assert_eq!(document["vehicle_path"]["placement"], "given");
    let heavy = placement
        .replace("v1 = [\"DecoderProcessing_Early\"]", "v1 = []")
        .replace("\"EncoderFusion_Middle\", ", "\"EncoderFusion_Middle\", \"DecoderProcessing_Early\", ");
    let heavy =
        heavy.replace("\"PredictionOutputs\"], v2", "\"PredictionOutputs\", \"EncoderFusion_Early\"], v2");
    let heavy =
        heavy.replace("\"Lidar_DeepProcessing\", \"EncoderFusion_Early\"", "\"Lidar_DeepProcessing\"");
    let document = report(&["scenarios/visionencoder-original-vehicles.toml", "--set", &heavy]);
    assert_eq!(document["verdict"], "fits", "3.2 GB hold 2.2 + 0.5 + 0.5 GB");
    let heavier = heavy
        .replace("\"EncoderFusion_Middle\", ", "")
        .replace("\"PredictionOutputs\", ", "\"PredictionOutputs\", \"EncoderFusion_Middle\", ");
    let document = report(&["scenarios/visionencoder-original-vehicles.toml", "--set", &heavier]);
    assert_eq!(document["verdict"], "out_of_memory");
    assert_eq!(document["out_of_memory"]["short_by_bytes"], 500_000_000);
    assert_eq!(document["infeasible"]["device"], "v3");
}

/// The same numbers from the file that the source's formulas were recomputed into.
#[test]
fn baselines_of_the_golden_file() {
    let Some(folder) = shared() else { return };
    let text = std::fs::read_to_string(folder.join("seeds/data/swift/golden.json")).unwrap();
    let golden: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for row in &golden {
        let cluster = row["cluster"].as_str().unwrap();
        let document = on(cluster, &row["model"].as_str().unwrap().replace('_', "-"));
        match row["baseline_greedy"]["time_s"].as_f64() {
            Some(time) if time.is_finite() => {
                let serial = number(&document["vehicle_path"]["serial_time_s"]);
                assert!((serial - time).abs() < 5e-5, "{row}");
            }
            _ => assert!(!document["infeasible"].is_null(), "{row}"),
        }
    }
    assert_eq!(golden.len(), 10);
}
