//! Steps and epochs that wait for their samples.

use serde_json::Value;

use crate::support::{number, report};

/// A report of a training job on two GPUs with keys of `[input]`.
fn loaded(keys: &[&str]) -> Value {
    let sets = keys.iter().flat_map(|key| ["--set".to_owned(), key.to_string()]);
    let arguments: Vec<String> =
        std::iter::once("scenarios/vit-l-16-a5000.toml".to_owned()).chain(sets).collect();
    report(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn step(document: &Value) -> f64 {
    number(&document["step_time_s"])
}

#[test]
fn samples_that_are_there_take_the_time_of_their_copy() {
    let (alone, loaded) = (loaded(&[]), loaded(&["input.seconds_per_sample=0"]));
    assert!((step(&loaded) / step(&alone) - 1.0).abs() < 1e-3, "{} against {}", step(&loaded), step(&alone));
    assert!(alone["input"].is_null() && alone["end_to_end_s"].is_null());
    assert!(loaded["input"]["loader_samples_per_s"].is_null());
}

#[test]
fn a_slow_loader_sets_the_pace() {
    // Micro-batches of 16, a second a sample, four workers: 4 s a step, and 8 samples a second over both ranks.
    let slow = loaded(&["input.seconds_per_sample=1", "input.workers=4"]);
    assert!((step(&slow) - 4.0).abs() < 1e-9, "{}", step(&slow));
    assert!((number(&slow["samples_per_s"]) - 8.0).abs() < 1e-9);
    assert!((number(&slow["input"]["loader_samples_per_s"]) - 8.0).abs() < 1e-9);
    // What the loader takes longer is data loading; the rest of the step is what it is without.
    let alone = loaded(&[]);
    for (part, seconds) in alone["time_breakdown_s"].as_object().unwrap() {
        let found = number(&slow["time_breakdown_s"][part]);
        let more = if part == "data_loading" { step(&slow) - step(&alone) } else { 0.0 };
        assert!((found - number(seconds) - more).abs() < 1e-9, "{part}: {found}");
    }
    // Both ranks' workers on four cores: half as fast.
    let crowded = loaded(&["input.seconds_per_sample=1", "input.workers=4", "input.cpu_cores=4"]);
    assert!((step(&crowded) - 8.0).abs() < 1e-9, "{}", step(&crowded));
}

#[test]
fn epochs_are_divided_among_ranks() {
    let epoch = |samples: &str, more: &[&str]| {
        let keys = [&["input.seconds_per_sample=1", "input.workers=1", samples], more].concat();
        number(&loaded(&keys)["end_to_end_s"])
    };
    // 33 samples: 17 a rank, one full batch and one of a single sample.
    let (two, rest) = (epoch("input.samples=33", &[]), epoch("input.samples=34", &[]));
    assert!((two - rest).abs() < 1e-12);
    assert!((17.0..18.0).contains(&two), "{two}");
    let dropped = epoch("input.samples=33", &["input.drop_last=true"]);
    assert!((16.0..17.0).contains(&dropped), "{dropped}");
    // A thousand full batches: a thousand steps, and what the first one and the end take.
    let long = epoch("input.samples=32000", &[]);
    assert!((16_000.0..16_001.0).contains(&long), "{long}");
}

#[test]
fn folded_jobs_load_as_explicit_ones() {
    let keys = ["input.seconds_per_sample=0.05", "input.workers=2", "input.samples=1000"];
    let (folded, mut explicit) =
        (loaded(&keys), loaded(&[&keys[..], &["simulation.explicit=true"]].concat()));
    for key in ["step_time_s", "end_to_end_s", "input"] {
        assert_eq!(folded[key], explicit[key].take(), "{key}");
    }
}
