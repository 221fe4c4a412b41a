//! Surroundings that are not as they should be.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use super::SMALL;
use crate::support::{Case, root, steptime};

fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steptime"));
    command.current_dir(root()).env("NO_COLOR", "1").stdin(Stdio::null());
    command
}

/// A reader that has seen enough closes the pipe: that is no failure and no panic, whatever is printed.
#[test]
fn a_closed_pipe_ends_nothing() {
    let case = Case::new(SMALL);
    let path = case.path();
    for arguments in [
        &["run", path.as_str(), "--json"][..],
        &["run", &path],
        &["models"],
        &["clusters"],
        &["completions", "bash"],
        &["models", "llama3-8b"],
        &["--help"],
    ] {
        let mut child =
            program().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let mut error = String::new();
        child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        let status = child.wait().unwrap();
        assert!(!error.contains("panicked"), "{arguments:?}: {error}");
        assert!(status.code().is_some_and(|code| code < 2), "{arguments:?}: {status} {error}");
    }
}

/// The same of messages, and of the list of files that were written.
#[test]
fn a_closed_pipe_of_messages_changes_no_exit_code() {
    let case = Case::new(SMALL);
    let path = case.path();
    let results = case.file("results").display().to_string();
    assert_eq!(program().args(["run", &path, "--out", &results]).output().unwrap().status.code(), Some(0));
    for (arguments, code) in [
        (&["run", "no-such-file.toml"][..], 2),
        (&["run", &path, "--set", "cluster.nodes=0"], 2),
        (&["plot", &results], 0),
    ] {
        let mut child =
            program().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(code), "{arguments:?}");
    }
}

/// A full disk behind standard output is said, not swallowed.
#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let case = Case::new(SMALL);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = program().args(["run", &case.path()]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output"));
}

/// Names that are no UTF-8 name files like others.
#[test]
fn names_need_not_be_utf_8() {
    let case = Case::new(SMALL);
    let odd = OsStr::from_bytes(b"case-\xff\xfe.toml");
    let file = case.file("x").with_file_name(odd);
    std::fs::copy(case.path(), &file).unwrap();
    let out = case.file("x").with_file_name(OsStr::from_bytes(b"out-\xff"));
    let output = program().arg("run").arg(&file).arg("--out").arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(out.join("report.json").is_file());
    std::fs::remove_file(&file).unwrap();
    let output = program().arg("run").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    // Options are text.
    let output = program().arg("run").arg(case.path()).arg("--set").arg(odd).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

/// Folders where files should be, files where folders should be, and what is neither.
#[test]
fn what_is_no_file_is_refused() {
    let case = Case::new(SMALL);
    let path = case.path();
    let folder = case.file("").display().to_string();
    for arguments in [
        &["run", folder.as_str()][..],
        &["run", "/dev/null"],
        &["run", &path, "--out", "/dev/null"],
        &["run", &path, "--out", &path],
        &["run", &path, "--out", "/proc/steptime"],
        &["run", &path, "--set", &format!("model.file={folder}")],
        &["sweep", &folder, "--out", &path],
        &["merge", "/dev/null", "--out", &folder],
        &["search", &folder],
        &["check", &folder],
        &["import", "hf", &folder],
        &["import", "safetensors", &folder],
        &["import", "safetensors", "/dev/null"],
        &["replay", "/dev/null", "--cluster", "dgx-h100"],
        &["replay", &folder, "--cluster", "dgx-h100"],
        &["plot", "/dev/null"],
        &["plot", "manifest", &folder],
        &["plot", "schedule", &folder],
        &["validate", "--data", &folder],
        &["validate", "--data", "/dev/null"],
        &["calibrate", "gpu", "--gpu", "a100-80gb-sxm", "--data", &folder],
        &["calibrate", "host", "--trace", &folder],
        &["calibrate", "host", "--trace", "/dev/null"],
        &["calibrate", "fabric", "--cluster", "dgx-h100", "--data", &folder],
        &["models", &folder],
        &["clusters", &folder],
    ] {
        let output = steptime(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
        assert!(error.starts_with("error: ") && !error.contains("panicked"), "{arguments:?}: {error}");
    }
}
