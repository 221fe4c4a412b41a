//! Predictions against tables of measured runs.

use crate::support::{number, steptime};

/// Two runs that can be played and one that cannot; the times are made up.
const TABLE: &str = "\
run_id,suite,gpu,nodes,gpus_per_node,interconnect,task,model,layers,hidden,heads,ffn,gated_mlp,vocab,seq_len,\
micro_batch,global_batch,dp,tp,pp,zero_stage,precision,optimizer,step_time_s,peak_reserved_gib,outcome
first,mine,h100-sxm5-80gb,1,8,nvswitch,train,llama,4,1024,16,4096,True,32000,2048,1,8,8,1,1,0,bf16,adamw,0.05,12,ok
second,mine,h100-sxm5-80gb,1,8,nvswitch,train,llama,8,1024,16,4096,True,32000,2048,1,8,8,1,1,0,bf16,adamw,0.1,14,ok
third,mine,abacus,1,1,none,train,llama,8,1024,16,4096,True,32000,2048,1,1,1,1,1,0,bf16,adamw,9,,ok
";

fn table(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runs.csv");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn every_row_is_scored_or_named_as_skipped() {
    let (_folder, path) = table(TABLE);
    let output = steptime(&["validate", "--data", &path, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["schema"], "steptime.validation/1");
    let suite = &document["suites"][0];
    assert_eq!((&suite["suite"], &suite["rows"], &suite["skipped"]), (&"mine".into(), &3.into(), &1.into()));
    assert_eq!(suite["time"]["scored"], 2);
    let rows = document["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    let errors: Vec<f64> = rows[..2]
        .iter()
        .map(|row| (number(&row["predicted_step_time_s"]) / number(&row["measured_step_time_s"]) - 1.0).abs())
        .collect();
    assert!((number(&suite["time"]["mape"]) - f64::midpoint(errors[0], errors[1])).abs() < 1e-12);
    assert!(rows[2]["predicted_step_time_s"].is_null());
    assert!(rows[2]["skipped"].as_str().unwrap().contains("abacus"), "{}", rows[2]["skipped"]);
    // The same bytes again.
    assert_eq!(output.stdout, steptime(&["validate", "--data", &path, "--json"]).stdout);
    let shown = String::from_utf8(steptime(&["validate", "--data", &path]).stdout).unwrap();
    assert!(shown.contains("furthest off") && shown.contains("first"), "{shown}");
}

#[test]
fn a_row_is_an_ordinary_scenario() {
    let (folder, path) = table(TABLE);
    let scenario = steptime(&["validate", "--data", &path, "--scenario", "second"]);
    let text = String::from_utf8(scenario.stdout).unwrap();
    let (scenario, model) = text.split_once("# model.toml\n").unwrap();
    std::fs::write(folder.path().join("second.toml"), scenario).unwrap();
    std::fs::write(folder.path().join("model.toml"), model).unwrap();
    let run = steptime(&["run", "--json", folder.path().join("second.toml").to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_slice(&run.stdout).unwrap();
    let all = steptime(&["validate", "--data", &path, "--json"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(report["step_time_s"], all["rows"][1]["predicted_step_time_s"]);
}

#[test]
fn tables_that_are_none_are_refused_with_their_place() {
    let mut all = String::new();
    for text in [
        "a,b\n1,2\n".to_owned(),
        TABLE.replace(",0.05,", ",fast,"),
        TABLE.replace(",True,32000,2048,1,8,8,1,1,0,bf16,adamw,0.1", ",True,32000,2048,1,8"),
        TABLE.replace("16,4096,True", "sixteen,4096,True"),
    ] {
        let (folder, path) = table(&text);
        let output = steptime(&["validate", "--data", &path]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        all += &error.replace(&format!("{}/", folder.path().display()), "");
    }
    insta::assert_snapshot!(all);
    assert_eq!(steptime(&["validate", "--data", "no-such-file.csv"]).status.code(), Some(2));
}

#[test]
fn without_tables_published_facts_are_scored() {
    let output = steptime(&["validate", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let suite = &document["suites"][0];
    assert_eq!((&suite["suite"], &suite["skipped"]), (&"published".into(), &0.into()));
    assert!(suite["time"]["scored"].as_u64().unwrap() >= 10);
    // Model states follow from the formulas of the paper, which rounds to three digits.
    assert!(number(&suite["static_allocated"]["max_ape"]) < 0.025);
    let scenario = steptime(&["validate", "--scenario", "zero-2020-stage-3"]);
    assert!(String::from_utf8(scenario.stdout).unwrap().contains("zero_stage = 3"));
    assert_eq!(steptime(&["validate", "--scenario", "no-such-fact"]).status.code(), Some(2));
}

#[test]
fn results_are_written_and_intervals_and_scores_can_be_kept() {
    let (folder, path) = table(TABLE);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (out, scores, intervals) = (file("out"), file("scores.toml"), file("intervals.toml"));
    let run = steptime(&[
        "validate",
        "--data",
        &path,
        "--out",
        &out,
        "--write-baseline",
        &scores,
        "--write-intervals",
        &intervals,
    ]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    let csv = std::fs::read_to_string(format!("{out}/validation.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4);
    assert!(csv.lines().all(|line| line.contains("abacus") || line.split(',').count() == 25), "{csv}");
    assert!(std::fs::read_to_string(format!("{out}/figures/parity.svg")).unwrap().starts_with("<svg"));
    assert!(std::fs::read_to_string(&intervals).unwrap().contains("runs = 2"));
    // Nothing has changed; then a score that was better; then a file that is none.
    let compare = || steptime(&["validate", "--data", &path, "--baseline", &scores]);
    assert_eq!(compare().status.code(), Some(0));
    let kept = std::fs::read_to_string(&scores).unwrap();
    let (before, after) = kept.split_once("median = ").unwrap();
    let (_, rest) = after.split_once(',').unwrap();
    std::fs::write(&scores, format!("{before}median = 0.1,{rest}")).unwrap();
    let worse = compare();
    assert_eq!(worse.status.code(), Some(1));
    assert!(String::from_utf8(worse.stdout).unwrap().contains("worse"));
    std::fs::write(&scores, "[mine]\nrows = \"many\"\n").unwrap();
    let wrong = compare();
    assert_eq!(wrong.status.code(), Some(2));
    let error = String::from_utf8(wrong.stderr).unwrap();
    assert!(error.contains("scores.toml:") && error.contains("no table of scores"), "{error}");
}

/// A row and a run of its scenario have about the same interval: the row's is from a table without its part.
#[test]
fn reports_have_intervals_and_say_what_they_rest_on() {
    let report = crate::support::report(&["scenarios/llama3-8b-h100-zero2.toml"]);
    let ends = report["step_time_interval_s"].as_array().unwrap();
    assert!(number(&ends[0]) < number(&ends[1]));
    let provenance = report["provenance"].as_array().unwrap();
    let interval = provenance.iter().find(|entry| entry["what"] == "interval").unwrap();
    assert!(interval["source"].as_str().unwrap().contains("measured runs"), "{interval}");
}
