//! Same input, same bytes: twice in a row, and in debug and release builds.

use crate::support::{root, scenario_files, steptime};

#[test]
fn two_runs_print_the_same_bytes() {
    for file in scenario_files() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let first = steptime(&["run", "--json", &name]);
        let second = steptime(&["run", "--json", &name]);
        assert_eq!(first.stdout, second.stdout, "{name}");
        assert!(first.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&first.stderr));
    }
}

/// The snapshot is the same for every build profile; the suite runs in debug and in release. A change here is a
/// changed prediction, and the commit says by how much.
#[test]
fn predictions_are_the_recorded_ones() {
    let mut text = String::new();
    for file in scenario_files() {
        let name = file.strip_prefix(root()).unwrap().display().to_string();
        let document = crate::support::report(&[&name]);
        let memory = &document["peak_memory"];
        text += &format!(
            "{:<45} {:>22} s {:>13} B {}\n",
            file.file_stem().unwrap().to_string_lossy(),
            document["step_time_s"].to_string(),
            memory["allocated_bytes"].to_string(),
            document["verdict"].as_str().unwrap(),
        );
    }
    insta::assert_snapshot!(text);
}

#[test]
fn results_with_figures_are_the_same_bytes() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = |folder: &std::path::Path| {
        let out = folder.to_str().unwrap();
        let figures = "svg,png,pdf";
        let run =
            steptime(&["run", "scenarios/llama3-8b-h100-zero3.toml", "--out", out, "--figures", figures]);
        assert_eq!(run.status.code(), Some(0));
        let mut all = Vec::new();
        for name in ["report.json", "report.csv", "timeline.json"] {
            all.push((name.to_owned(), std::fs::read(folder.join(name)).unwrap()));
        }
        for entry in std::fs::read_dir(folder.join("figures")).unwrap() {
            let path = entry.unwrap().path();
            all.push((path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()));
        }
        all.sort();
        all
    };
    let [first, second] = folders.each_ref().map(|folder| files(folder.path()));
    assert_eq!(first.len(), second.len());
    for ((name, a), (_, b)) in first.iter().zip(&second) {
        assert!(a == b, "{name} differs");
    }
}
