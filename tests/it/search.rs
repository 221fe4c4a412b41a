//! `steptime search` against play of every plan.

use crate::support::{number, report, steptime};

const BASE: &str = r#"name = "small"
[model]
name = "llama3.2-3b"
sequence_length = 4096
[cluster]
name = "dgx-h100"
[workload]
global_batch_size = 32
micro_batch_size = 1
precision = "bf16"
"#;

fn search(more: &str, arguments: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, format!("{BASE}{more}")).unwrap();
    let output = steptime(&[&["search", path.to_str().unwrap(), "--json"], arguments].concat());
    let document = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let error = String::from_utf8_lossy(&output.stderr).replace(&format!("{}/", folder.path().display()), "");
    (output.status.code(), document, error)
}

const SPACE: &str = "[search]\ntensor = [1, 2, 4, 8]\npipeline = [1, 2, 4]\nvirtual_pipeline = [1, 2]\nzero_stage = [0, 1]\n\
                     micro_batch_size = [1, 2, 4]\nactivation_checkpointing = [\"none\", \"full\"]\nuneven_stages = false\n";

/// Every plan of a small space is played by a sweep: none that fits is faster than the one found, no play undercuts its bound, and the
/// keys that are printed give the time that is printed.
#[test]
fn the_best_plan_is_the_best_of_all() {
    let (code, found, error) = search(SPACE, &[]);
    assert_eq!(code, Some(0), "{error}");
    let sweep = format!(
        "{BASE}[parallelism]\ndata = 1\nsequence_parallel = false\n[sweep]\n\"parallelism.tensor\" = [1, 2, 4, 8]\n\
         \"parallelism.pipeline\" = [1, 2, 4]\n\"parallelism.data\" = [1, 2, 4, 8]\n\
         \"parallelism.virtual_pipeline\" = [1, 2]\n\"parallelism.zero_stage\" = [0, 1]\n\
         \"parallelism.sequence_parallel\" = [false, true]\n\
         \"workload.micro_batch_size\" = [1, 2, 4]\n\"workload.activation_checkpointing\" = [\"none\", \"full\"]\n\
         skip = [\"parallelism.tensor * parallelism.pipeline * parallelism.data != 8\", \
         \"parallelism.sequence_parallel != (parallelism.tensor > 1)\"]\n"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sweep.toml");
    std::fs::write(&path, sweep).unwrap();
    let output = steptime(&["sweep", path.to_str().unwrap(), "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let fit = all["rows"].as_array().unwrap().iter().filter(|row| row["verdict"] == "fits");
    let least = fit.map(|row| number(&row["step_time_s"])).fold(f64::INFINITY, f64::min);
    let best = number(&found["best"]["step_time_s"]);
    assert!((best - least).abs() <= 1e-12 * least, "{best} against {least}");
    assert_eq!((&found["gap"], &found["best"]["why"]), (&0.0.into(), &"".into()));
    let counts = &found["counts"];
    let count = |key: &str| counts[key].as_u64().unwrap();
    assert_eq!(
        count("plans"),
        count("states_do_not_fit")
            + count("activations_do_not_fit")
            + count("bound_is_worse")
            + count("played")
            + count("refused")
            + count("left")
    );
    for key in ["pareto", "runners_up"] {
        for plan in found[key].as_array().unwrap() {
            assert!(number(&plan["bound_s"]) <= number(&plan["step_time_s"]), "{plan}");
        }
    }
    let plain = folder.path().join("plain.toml");
    std::fs::write(&plain, BASE).unwrap();
    let set: Vec<&str> =
        found["best"]["set"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let mut arguments = vec![plain.to_str().unwrap()];
    arguments.extend(set.iter().flat_map(|key| ["--set", key]));
    let run = report(&arguments);
    assert_eq!((&run["step_time_s"], &run["verdict"]), (&found["best"]["step_time_s"], &"fits".into()));
    // Threads do not matter.
    let (_, again, _) = search(SPACE, &["--jobs", "1"]);
    assert_eq!(again, found);
}

/// Bounds hold for plans of every kind, and what is ruled out by its states does run out of memory.
#[test]
fn nothing_undercuts_its_bound() {
    let (code, found, error) = search("[search]\nmicro_batch_size = [1, 2]\n", &["--plays", "60"]);
    assert_eq!(code, Some(0), "{error}");
    for plan in found["pareto"].as_array().unwrap().iter().chain(found["runners_up"].as_array().unwrap()) {
        assert!(number(&plan["bound_s"]) <= number(&plan["step_time_s"]), "{plan}");
    }
    assert!(number(&found["bound"]) <= number(&found["best"]["score"]));
}

#[test]
fn money_energy_and_the_smallest_cluster() {
    let cost = "[cost]\ngpu_hour = 2\ngpu_watts = 700\ngpu_idle_watts = 200\n";
    let narrow = "tensor = [1, 2]\npipeline = [1]\nmicro_batch_size = [1, 2]\nzero_stage = [1]\n";
    let find = |objective: &str| {
        let (code, found, error) =
            search(&format!("{cost}[search]\nobjective = \"{objective}\"\n{narrow}"), &[]);
        assert_eq!(code, Some(0), "{error}");
        found
    };
    let money = find("money");
    assert_eq!(money["best"]["score"], money["best"]["cost"]["per_step"]);
    assert_eq!(
        find("step_time")["best"]["set"],
        money["best"]["set"],
        "with one cluster the fastest is the cheapest"
    );
    let energy = find("energy");
    assert_eq!(energy["best"]["score"], energy["best"]["cost"]["energy_per_step_j"]);
    let smallest = |deadline: f64| {
        let section = format!(
            "[search]\nobjective = \"smallest_cluster\"\nnodes = [1, 2, 4]\ndeadline_seconds = {deadline}\n{narrow}"
        );
        search(&section, &[])
    };
    let alone = number(&find("step_time")["best"]["step_time_s"]);
    assert_eq!(smallest(alone * 1.01).1["best"]["gpus"], 8);
    assert_eq!(smallest(alone * 0.99).1["best"]["gpus"], 16);
    let (code, none, _) = smallest(alone * 0.01);
    assert_eq!((code, none["best"].is_null()), (Some(1), true));
}

#[test]
fn what_cannot_be_searched_is_refused() {
    let error = search("[search]\nobjective = \"money\"\n", &[]).2;
    assert!(error.contains("objective \"money\" needs [cost]"), "{error}");
    let error = search("[search]\ntensors = [1]\n", &[]).2;
    assert!(error.contains("case.toml:12:1: search.tensors: unknown key"), "{error}");
    let error = search("[search]\nobjective = \"smallest_cluster\"\n", &[]).2;
    assert!(error.contains("needs deadline_seconds"), "{error}");
    let error = search("[parallelism]\npipeline = 2\nstages = [14, 14]\n", &[]).2;
    assert!(error.contains("parallelism.stages: is for the search to choose"), "{error}");
    let error = search("[search]\nactivation_checkpointing = [\"some\"]\n", &[]).2;
    assert!(
        error.contains("search.activation_checkpointing: found \"some\", allowed: none, selective, full"),
        "{error}"
    );
    let output = steptime(&["search", "scenarios/visionencoder-small-vehicles.toml"]);
    assert_eq!(output.status.code(), Some(2));
}
