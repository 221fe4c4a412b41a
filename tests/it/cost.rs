//! `[cost]`, `[failures]` and `steptime goodput`.

use crate::support::{number, report, steptime};

const BASE: &str = r#"name = "priced"
[model]
name = "gpt2"
sequence_length = 1024
[cluster]
name = "dgx-h100"
nodes = 2
[workload]
micro_batch_size = 4
gradient_accumulation_steps = 2
precision = "bf16"
[parallelism]
zero_stage = 1
"#;

/// A scenario with more sections.
fn scenario(more: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    std::fs::write(&path, format!("{BASE}{more}")).unwrap();
    let name = path.to_str().unwrap().to_owned();
    (folder, name)
}

fn close(found: &serde_json::Value, expected: f64) {
    let found = number(found);
    assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} for {expected}");
}

/// 16 GPUs at 2 and two nodes at 3 an hour are 38; 16 GPUs of 100 W that wait and 600 W more while they compute, and 2 x 1000 W,
/// times 1.5.
#[test]
fn prices_and_powers_are_arithmetic() {
    let section = "[cost]\ncurrency = \"EUR\"\ngpu_hour = 2\nnode_hour = 3\ngpu_watts = 700\ngpu_idle_watts = 100\n\
                   node_watts = 1000\npower_usage_effectiveness = 1.5\nkwh = 0.2\ntokens = 1e9\n";
    let (_folder, path) = scenario(section);
    let document = report(&[&path]);
    let cost = &document["cost"];
    let step = number(&document["step_time_s"]);
    let parts = &document["time_breakdown_s"];
    let busy = (number(&parts["compute"]) + number(&parts["optimizer"])) / step;
    let watts = (16.0 * (100.0 + 600.0 * busy) + 2000.0) * 1.5;
    close(&cost["power_w"], watts);
    let per_hour = 38.0 + watts / 1000.0 * 0.2;
    close(&cost["per_hour"], per_hour);
    close(&cost["per_step"], per_hour * step / 3600.0);
    // 16 ranks x 4 x 2 sequences of 1,024 tokens: 131,072 tokens a step, 7,630 steps for 1e9.
    close(&cost["per_million_tokens"], per_hour * step / 3600.0 / 131_072.0 * 1e6);
    close(&cost["tokens_per_joule"], 131_072.0 / (watts * step));
    close(&cost["to_finish"]["steps"], 7630.0);
    close(&cost["to_finish"]["time_s"], 7630.0 * step);
    close(&cost["to_finish"]["money"], 7630.0 * step * per_hour / 3600.0);
    assert!(cost["goodput"].is_null());
    assert!(
        report(&["scenarios/vit-rtx8000.toml"]).get("cost").is_none(),
        "nothing is said where nothing is known"
    );
}

/// Two nodes that fail every 100 h, a job that fails every 50 h: a failure every 25 h. Young: sqrt(2 x 30 x 90,000).
#[test]
#[expect(clippy::disallowed_methods, reason = "what is expected is computed another way")]
fn long_runs_agree_with_the_closed_form() {
    let section = "[cost]\ngpu_hour = 2\nsteps = 3e7\n[failures]\ncomponents = [{ name = \"node\", per = \"node\", mean_hours = 100 }, \
                   { name = \"job\", per = \"job\", mean_hours = 50 }]\nrestart_seconds = 600\nrepetitions = 50\n\
                   checkpoint = { interval = \"young\", write_seconds = 30 }\n";
    let (_folder, path) = scenario(section);
    let output = steptime(&["goodput", &path, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    close(&found["mean_time_between_failures_s"], 90_000.0);
    close(&found["interval_s"], (2.0_f64 * 30.0 * 90_000.0).sqrt());
    let tau = number(&found["interval_s"]);
    let daly = tau / (90_000.0 * (630.0_f64 / 90_000.0).exp() * ((tau + 30.0) / 90_000.0).exp_m1());
    assert!((number(&found["closed_form_goodput"]) - daly).abs() < 1e-12);
    let goodput = &found["goodput"];
    let half = number(&goodput["confidence"][1]) - number(&goodput["mean"]);
    assert!((number(&goodput["mean"]) - daly).abs() < 2.5 * half, "{goodput} for {daly}");
    let days = number(&found["to_finish"]["days"]["mean"]);
    let expected = 3e7 * number(&found["step_time_s"]) / daly / 86_400.0;
    assert!((days / expected - 1.0).abs() < 0.01, "{days} for {expected}");
    assert_eq!(
        steptime(&["goodput", &path, "--json"]).stdout,
        output.stdout,
        "the same seed, the same bytes"
    );
    let text = steptime(&["goodput", &path]);
    assert!(String::from_utf8(text.stdout).unwrap().contains("closed form"));
}

#[test]
fn what_cannot_be_priced_is_refused() {
    let failures = "[failures]\ncomponents = [{ name = \"gpu\", per = \"gpu\", mean_hours = 1000 }]\n";
    let mut all = String::new();
    for section in [
        "[cost]\n".to_owned(),
        "[cost]\ngpu_hours = 2".to_owned(),
        "[cost]\ngpu_hour = -1".to_owned(),
        "[cost]\ngpu_hour = 1\nkwh = 0.2".to_owned(),
        "[cost]\ngpu_hour = 1\ntokens = 1e9\nsteps = 10".to_owned(),
        "[cost]\ngpu_hour = 1\nepochs = 2".to_owned(),
        "[failures]\n".to_owned(),
        failures.to_owned(),
        format!("{failures}checkpoint = {{ interval = \"dally\", write_seconds = 1 }}"),
        format!("{failures}checkpoint = {{ interval = \"daly\" }}"),
        format!("{failures}checkpoint = {{ write_seconds = 1, blocks_seconds = 1 }}"),
        format!("{failures}checkpoint = {{ bandwidth = \"fast\" }}"),
        "[failures]\ncomponents = [{ name = \"gpu\", per = \"rack\", mean_hours = 1000 }]".to_owned(),
        "[failures]\ncomponents = [{ name = \"link\", per = \"job\", mean_hours = 9, repair_hours = 1 }]"
            .to_owned(),
    ] {
        let (folder, path) = scenario(&section);
        let output = steptime(&["run", &path]);
        assert_eq!(output.status.code(), Some(2), "{section}");
        let error =
            String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", folder.path().display()), "");
        all += &format!("{}\n    {error}", section.trim_end().replace('\n', " / "));
    }
    let output = steptime(&["goodput", "scenarios/vit-rtx8000.toml"]);
    assert_eq!(output.status.code(), Some(2));
    all += &String::from_utf8(output.stderr).unwrap();
    insta::assert_snapshot!(all);
}
