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
