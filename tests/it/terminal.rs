//! What people see: tables within 80 columns, one line of summary last, colours on terminals only.

use std::process::Command;

use crate::support::{root, scenario_files, steptime};

/// Lines of tables: all but free text, which has no columns of its own (names with their verdicts, sources).
fn wide(text: &str) -> Vec<&str> {
    let sentence = |line: &&str| line.contains(": ") || line.trim_start().starts_with("--set");
    text.lines().filter(|line| line.chars().count() > 80).filter(|line| !sentence(line)).collect()
}

#[test]
fn tables_fit_80_columns() {
    let mut commands: Vec<Vec<String>> = Vec::new();
    for file in scenario_files().iter().filter(|file| !file.to_string_lossy().contains("gpt3")) {
        commands.push(vec!["run".to_owned(), file.display().to_string()]);
    }
    let zero = "scenarios/llama3-8b-h100-zero3.toml";
    for line in [
        "models",
        "clusters",
        "validate",
        "plot schedule zb-h1",
        &format!("sensitivity {zero}"),
        &format!("diff {zero} scenarios/llama3-8b-h100-zero2.toml"),
        &format!("run {zero} scenarios/llama3-8b-h100-zero2.toml"),
    ] {
        commands.push(line.split(' ').map(str::to_owned).collect());
    }
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = steptime(&arguments);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{arguments:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(wide(&text).is_empty(), "{arguments:?}: {:?}", wide(&text));
        assert!(!text.contains('\u{1b}'), "{arguments:?}: colours off a terminal");
    }
}

#[test]
fn a_run_ends_with_one_line_of_summary_and_has_bars() {
    let output = steptime(&["run", "scenarios/gpt-18b-dgx-a100.toml"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("gpt-18b, 2 DGX A100: ") && last.contains(" a step, fits with "), "{last}");
    assert!(text.ends_with(&format!("\n\n{last}\n")));
    // A quarter of 24 characters: the pipeline bubble of this plan is larger than that.
    let bubble = text.lines().find(|line| line.contains("pipeline bubble")).unwrap();
    assert!(bubble.ends_with("######"), "{bubble}");
}

/// Runs the program on a terminal of its own, which util-linux's `script` makes.
fn on_terminal(no_color: &str) -> Option<String> {
    let program = env!("CARGO_BIN_EXE_steptime");
    let command = format!("{program} run scenarios/vit-rtx8000.toml");
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .current_dir(root())
        .env("TERM", "xterm")
        .env("NO_COLOR", no_color)
        .output();
    match output {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "script (util-linux) is missing: {error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let (Some(with), Some(without)) = (on_terminal(""), on_terminal("1")) else { return };
    assert!(with.contains("\u{1b}[32m") && with.contains("\u{1b}[36m#"), "{with}");
    assert!(!without.contains('\u{1b}'), "{without}");
}
