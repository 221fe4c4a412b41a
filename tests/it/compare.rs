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

/// Links that are faster, in a node or between nodes, shorten the collectives that nothing hides, which measured curves price.
#[test]
fn faster_links_shorten_what_waits_for_them() {
    for (scenario, what, keys) in [
        ("scenarios/vit-l-16-a5000.toml", "link bandwidth in nodes", &["workload.micro_batch_size=1"][..]),
        (
            "scenarios/llama3-8b-h100-zero3.toml",
            "network bandwidth",
            &["cluster.name=dgx-a100-40gb", "cluster.nodes=4", "parallelism.data=32"],
        ),
    ] {
        let mut arguments = vec!["sensitivity", scenario, "--json"];
        arguments.extend(keys.iter().flat_map(|key| ["--set", key]));
        let effects = &json(&arguments)["effects"];
        let effect = effects.as_array().unwrap().iter().find(|effect| effect["what"] == what).unwrap();
        let (better, worse) = (number(&effect["better_s"]), number(&effect["worse_s"]));
        assert!(better < 0.997 * worse, "{effect}");
    }
}

/// A host whose threads are faster by a tenth is what `sensitivity` makes of it: a small model's step follows it, launched
/// one by one or compiled.
#[test]
fn faster_processors_shorten_what_the_host_bounds() {
    let scenario = "scenarios/switch-vit-64-rtx8000.toml";
    let effects = &json(&["sensitivity", scenario, "--json"])["effects"];
    let host = effects.as_array().unwrap().iter().find(|effect| effect["what"] == "host speed").unwrap();
    let step = |keys: &[&str]| {
        let mut arguments = vec![scenario];
        arguments.extend(keys.iter().flat_map(|key| ["--set", key]));
        number(&report(&arguments)["step_time_s"])
    };
    assert_eq!(step(&["cluster.host={one_thread=1.1}"]).to_bits(), number(&host["better_s"]).to_bits());
    assert!(step(&["cluster.host={one_thread=2}"]) < 0.9 * step(&[]));
    let compiled = |speed: f64| {
        let speed = format!("cluster.host={{one_thread={speed}}}");
        step(&["model.name=vit-cifar", "workload.micro_batch_size=1", "workload.execution=compiled", &speed])
    };
    assert!(compiled(0.5) > 1.3 * compiled(1.0), "{} {}", compiled(0.5), compiled(1.0));
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
