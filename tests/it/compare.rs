//! `steptime sensitivity` and `steptime diff`.

use crate::support::{number, report, steptime};

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = steptime(arguments);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn steps_follow_what_limits_them() {
    let scenario = "scenarios/llama3-8b-h100-zero3.toml";
    let found = json(&["sensitivity", scenario, "--json"]);
    assert_eq!(found["step_time_s"], report(&[scenario])["step_time_s"]);
    let base = number(&found["step_time_s"]);
    let effects = found["effects"].as_array().unwrap();
    for effect in effects {
        let (better, worse) = (number(&effect["better_s"]), number(&effect["worse_s"]));
        // Hidden transfers that are faster take more memory bandwidth from the kernels beside them while they last.
        assert!(better <= base * 1.005 && worse >= base * 0.995, "{effect}");
        // Ten percent of anything cannot give more than ten percent.
        assert!(better >= base / 1.1 * 0.999 && worse <= base * 1.1 * 1.001, "{effect}");
    }
    assert_eq!(
        effects[0]["what"], "GPU arithmetic",
        "sequences of 4,096 tokens through 8 billion parameters compute"
    );
    // One node has no network.
    let network = effects.iter().find(|effect| effect["what"] == "network bandwidth").unwrap();
    assert_eq!(network["change"], 0.0);
    // The serial formula of vehicles is compute plus transfers, each in inverse proportion to its capability.
    let scenario = "scenarios/visionencoder-large-vehicles.toml";
    let found = json(&["sensitivity", scenario, "--json"]);
    let path = &report(&[scenario])["vehicle_path"];
    for (what, part) in
        [("computing capability", "serial_compute_s"), ("communication capability", "serial_communication_s")]
    {
        let effect =
            found["effects"].as_array().unwrap().iter().find(|effect| effect["what"] == what).unwrap();
        let expected = -number(&path[part]) * (1.0 - 1.0 / 1.1);
        let change = number(&effect["better_s"]) - number(&found["step_time_s"]);
        assert!((change / expected - 1.0).abs() < 1e-6, "{what}: {change} for {expected}");
    }
}

#[test]
fn differences_add_up() {
    let scenario = "scenarios/llama3-8b-h100-zero3.toml";
    let key = "parallelism.zero_stage=2";
    let found = json(&["diff", scenario, scenario, "--set-second", key, "--json"]);
    let step = &found["step_time_s"];
    let reports = [report(&[scenario]), report(&[scenario, "--set", key])];
    assert_eq!((&step["first"], &step["second"]), (&reports[0]["step_time_s"], &reports[1]["step_time_s"]));
    let sum: f64 =
        found["time_s"].as_object().unwrap().values().map(|pair| number(&pair["difference"])).sum();
    assert!((sum - number(&step["difference"])).abs() < 1e-9, "parts add up to the step");
    let same = json(&["diff", scenario, scenario, "--json"]);
    assert_eq!(same["step_time_s"]["difference"], 0.0);
    assert_eq!(same["peak_device_bytes"]["difference"], 0.0);
    let text =
        String::from_utf8(steptime(&["diff", scenario, scenario, "--set-second", key]).stdout).unwrap();
    assert!(text.contains("optimizer states"), "{text}");
}
