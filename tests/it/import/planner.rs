//! Models and clusters of the SWIFT planner.

use crate::support::{number, report, shared, steptime};

/// Imports a pair and plays it.
fn play(model: &str, cluster: &str) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let output = steptime(&["import", "swift", model, cluster, "--out", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    report(&[folder.path().join("scenario.toml").to_str().unwrap()])
}

/// By hand: v2 has room for all of 5 GB, so the partitions' 18 GFLOP x 32 x 1.2 / (12e9 x 0.5) = 115.2 s; the formula
/// charges its 1.2 GB x 2 x 32 x 1.2 / 1.2e9 = 76.8 s as v2 is not the last of the path.
#[test]
fn a_pair_in_either_order_runs() {
    let files = ["tests/it/import/swift/model.xml", "tests/it/import/swift/cluster.xml"];
    let document = play(files[0], files[1]);
    assert!((number(&document["vehicle_path"]["serial_time_s"]) - 192.0).abs() < 1e-9);
    assert_eq!(document, play(files[1], files[0]));
    let twice = steptime(&["import", "swift", files[0], files[0]]);
    assert_eq!(twice.status.code(), Some(2));
}

/// The published baselines from the planner's own files.
#[test]
fn the_planners_files_give_its_baselines() {
    let Some(folder) = shared() else { return };
    let folder = folder.join("seeds/data/swift");
    let text = std::fs::read_to_string(folder.join("golden.json")).unwrap();
    let golden: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    for row in &golden {
        let path = |key: &str| folder.join(format!("{}.xml", row[key].as_str().unwrap()));
        let document = play(path("model").to_str().unwrap(), path("cluster").to_str().unwrap());
        match row["baseline_greedy"]["time_s"].as_f64() {
            Some(time) if time.is_finite() => {
                let serial = number(&document["vehicle_path"]["serial_time_s"]);
                assert!((serial - time).abs() < 1e-6 * time, "{row}: {serial}");
            }
            _ => assert!(!document["infeasible"].is_null(), "{row}"),
        }
    }
    assert_eq!(golden.len(), 10);
    // Files without a recorded time are read all the same.
    for (model, cluster) in [
        ("sample_model", "sample_cluster"),
        ("visionencoder", "random_cluster"),
        ("sample_model", "clusterwith9member"),
    ] {
        let path = |name: &str| folder.join(format!("{name}.xml"));
        let document = play(path(model).to_str().unwrap(), path(cluster).to_str().unwrap());
        assert!(document["vehicle_path"].is_object() || !document["infeasible"].is_null());
    }
}
