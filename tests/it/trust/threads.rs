//! The same bytes for any number of threads.

use std::process::Command;

use crate::support::{Case, root};

fn bytes(threads: &str, arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO_BIN_EXE_steptime"))
        .args(arguments)
        .current_dir(root())
        .env("NO_COLOR", "1")
        .env("RAYON_NUM_THREADS", threads)
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}: {error}");
    assert!(!output.stdout.is_empty(), "{arguments:?}");
    output.stdout
}

const SWEEP: &str =
    "[sweep]\n\"workload.micro_batch_size\" = [1, 2, 3]\n\"parallelism.zero_stage\" = [0, 1, 3]\n";
const SEARCH: &str = "[search]\n";
const ROWS: &str = "\
run_id,suite,gpu,nodes,gpus_per_node,interconnect,task,model,layers,hidden,heads,ffn,gated_mlp,vocab,seq_len,\
micro_batch,global_batch,dp,tp,pp,zero_stage,precision,optimizer,step_time_s,peak_reserved_gib,outcome
a,mine,h100-sxm5-80gb,1,8,nvswitch,train,llama,4,1024,16,4096,True,32000,2048,1,8,8,1,1,0,bf16,adamw,0.05,12,ok
b,mine,h100-sxm5-80gb,1,8,nvswitch,train,llama,8,1024,16,4096,True,32000,2048,2,16,8,1,1,1,bf16,adamw,0.1,14,ok
c,other,h100-sxm5-80gb,1,8,nvswitch,train,llama,2,1024,16,4096,True,32000,2048,1,8,8,1,1,3,bf16,adamw,0.1,14,ok
";

#[test]
fn nothing_depends_on_the_number_of_threads() {
    let sweep = Case::new(&format!("{}{SWEEP}", super::SMALL));
    let search = Case::new(&format!("{}{SEARCH}", super::SMALL));
    std::fs::write(sweep.file("rows.csv"), ROWS).unwrap();
    let rows = sweep.file("rows.csv").display().to_string();
    let (sweep, search) = (sweep.path(), search.path());
    for arguments in [
        &["run", "--json", "scenarios/llama3-8b-h100-variability.toml"][..],
        &["run", "--json", "scenarios/llama3-8b-mixed-gpus.toml"],
        &["run", "--json", "scenarios/visionencoder-medium-vehicles.toml"],
        &["sweep", "--json", &sweep],
        &["search", "--json", "--plays", "24", &search],
        &["validate", "--json", "--data", &rows],
        &["sensitivity", "--json", "scenarios/vit-rtx8000.toml"],
        &["max-batch", "--json", "scenarios/vit-rtx8000.toml"],
        &["check", "--json", "--plays", "8", "scenarios/vit-rtx8000.toml"],
    ] {
        let one = bytes("1", arguments);
        for threads in ["2", "8"] {
            assert!(one == bytes(threads, arguments), "{arguments:?} differs with {threads} threads");
        }
    }
}
