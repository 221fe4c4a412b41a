//! What holds under anything: limits, hostile surroundings, interruptions, any number of threads.

mod atomic;
mod hostile;
mod limits;
mod threads;

use std::process::{Command, Output, Stdio};

use crate::support::root;

/// A small scenario, to be spoiled by options.
pub(crate) const SMALL: &str = "[model]\nname = \"llama3-8b\"\nsequence_length = 2048\noverrides = { layers = 2 }\n\
    [cluster]\nname = \"dgx-h100\"\n[workload]\nmicro_batch_size = 1\nprecision = \"bf16\"\n[parallelism]\n";

/// Runs the program with as much address space as is given, in KiB, and at most a minute.
pub(crate) fn bounded(kib: u64, arguments: &[&str]) -> Output {
    let script = format!("ulimit -v {kib}; ulimit -t 60; exec \"$0\" \"$@\"");
    Command::new("bash")
        .args(["-c", &script, env!("CARGO_BIN_EXE_steptime")])
        .args(arguments)
        .current_dir(root())
        // Each thread of a pool takes address space of its own.
        .env("RAYON_NUM_THREADS", "2")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The input was refused in words.
pub(crate) fn refused(output: &Output, what: &str) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{what}: {error}");
    assert!(error.starts_with("error: ") && !error.contains("panicked"), "{what}: {error}");
    assert!(output.stdout.is_empty(), "{what}");
    error
}
