//! Fitting what a framework's Python costs hosts to rows of measured steps (`calibrate host --rows`).

use std::path::Path;

use crate::support::{number, root, shared, steptime};

const COLUMNS: &str = "run_id,suite,source,gpu,nodes,gpus_per_node,interconnect,framework,task,model,layers,hidden,heads,\
    kv_heads,ffn,gated_mlp,vocab,tied_embeddings,experts,top_k,moe_ffn,seq_len,micro_batch,global_batch,dp,tp,pp,vpp,cp,ep,\
    sequence_parallel,zero_stage,schedule,activation_checkpointing,attention,precision,optimizer,fp32_grad_accumulation,\
    overlap_grad_reduce,step_time_s,peak_allocated_gib,peak_reserved_gib,static_allocated_gib,outcome,notes";

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = steptime(&[arguments, &["--json"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Small dense models that their host bounds, with the time that `seconds` gives each.
fn table(file: &Path, seconds: impl Fn(usize) -> f64) {
    let mut text = format!("{COLUMNS}\n");
    let mut index = 0;
    for layers in [4, 6, 8, 12, 16, 20] {
        for (dp, tp) in [(8, 1), (4, 2), (2, 4)] {
            for accumulated in [1, 4] {
                let batch = 2 * dp * accumulated;
                text.push_str(&format!(
                    "made-{index},made,made up,a100-sxm4-80gb,1,8,nvswitch,megatron-core dev,train,gpt-{layers},{layers},512,8,8,\
                     2048,False,50304,False,,,,1024,2,{batch},{dp},{tp},1,1,1,1,False,1,1f1b,none,flash,bf16,adam,True,True,{},,,,ok,\n",
                    seconds(index)
                ));
                index += 1;
            }
        }
    }
    std::fs::write(file, text).unwrap();
}

/// Steps that the catalogue's host explains give its costs back, whatever the fit leans to: those of blocks, which most of
/// their time is, and the steps that it never saw. Steps that take ten times as long are left out. No row has experts: what they
/// cost stays.
#[test]
fn costs_come_back_from_the_steps_that_they_make() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    table(&file, |_| 1.0);
    let path = file.to_str().unwrap();
    let predicted = json(&["validate", "--data", path]);
    let rows = predicted["rows"].as_array().unwrap();
    let seconds = |index: usize| number(&rows[index]["predicted_step_time_s"]);
    table(&file, |index| seconds(index) * if index % 12 == 5 { 10.0 } else { 1.0 });
    let document = json(&["calibrate", "host", "--rows", path]);
    let host = &document["hosts"][0];
    assert_eq!((&host["host"], &document["hosts"][1]), (&"x86-pcie4".into(), &serde_json::Value::Null));
    assert!(number(&host["held_out"]["after"]["median"]) < 0.03, "{document}");
    // Three steps are slow, and a third of the jobs is held out.
    let left_out = document["left_out"].as_u64().unwrap();
    assert!((1..=3).contains(&left_out), "{document}");
    let fitted: Vec<&str> =
        document["fitted"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    assert!(fitted.contains(&"block_forward") && !fitted.contains(&"expert"), "{fitted:?}");
    let own = steptime_clusters::host_from_catalogue("x86-pcie4").unwrap().megatron;
    let cost = |key: &str| number(&host["costs_s"][key]);
    let pass =
        (cost("block_forward") + cost("block_backward")) / (own.block_forward_s + own.block_backward_s);
    assert!((pass - 1.0).abs() < 0.1, "{pass}");
    assert!((cost("expert") - own.expert_s).abs() < 1e-12);

    // A scenario takes the file.
    let out = folder.path().join("host.toml");
    let fit = ["calibrate", "host", "--rows", path, "--out", out.to_str().unwrap()];
    assert!(steptime(&fit).status.success());
    let text = std::fs::read_to_string(&out).unwrap();
    assert!(text.contains("[host.megatron]\n") && text.contains("made up on x86-pcie4"), "{text}");
}

#[test]
fn rows_without_such_steps_and_unknown_hosts_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rows.csv");
    let refused = |arguments: &[&str]| {
        let output =
            steptime(&[&["calibrate", "host", "--rows", file.to_str().unwrap()], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::write(&file, format!("{COLUMNS}\n")).unwrap();
    assert!(refused(&[]).contains("0 timed rows are of frameworks"), "{}", refused(&[]));
    table(&file, |_| 1.0);
    let error = refused(&["--host", "grace"]);
    assert!(error.contains("found `grace`, the rows are of x86-pcie4"), "{error}");
    assert!(refused(&["--check"]).contains("--catalogue"), "{}", refused(&["--check"]));
}

/// The catalogue's hosts are what one command makes of the published steps, but for what moved their prices since.
#[test]
fn the_shipped_hosts_are_what_the_published_steps_say() {
    // Two hundred steps are played some hundred times.
    if cfg!(debug_assertions) {
        return;
    }
    let Some(shared) = shared() else { return };
    let rows = shared.join("data/measured/megatron-ci.csv");
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::create_dir(&hosts).unwrap();
    for name in steptime_clusters::host_names() {
        let file = format!("{name}.toml");
        std::fs::copy(root().join("clusters/catalog/hosts").join(&file), hosts.join(&file)).unwrap();
    }
    let document = json(&[
        "calibrate",
        "host",
        "--rows",
        rows.to_str().unwrap(),
        "--catalogue",
        folder.path().to_str().unwrap(),
    ]);
    for host in document["hosts"].as_array().unwrap() {
        let name = host["host"].as_str().unwrap();
        let shipped = steptime_clusters::host_from_catalogue(name).unwrap().megatron.values();
        for ((key, _), shipped) in steptime_clusters::calibrate_host::FRAMEWORK_COSTS.iter().zip(shipped) {
            let fitted = number(&host["costs_s"][key]);
            assert!((fitted / shipped - 1.0).abs() < 0.1, "{name} {key}: {fitted}, shipped {shipped}");
        }
    }
}
