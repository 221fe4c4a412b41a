//! `docs/fidelity.md`, its figure and the baseline are what the program makes of the measured runs.

use std::path::PathBuf;

use crate::support::{root, shared, steptime};

/// The tables of measured runs, sorted by name.
fn tables() -> Option<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(shared()?.join("data/measured"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "csv"))
        .collect();
    files.sort();
    Some(files)
}

/// A change that moves predictions shows in the page; a median that grows by more than half a point fails.
/// `UPDATE_TABLES=1` writes all of it anew.
#[test]
fn the_page_is_what_the_program_says_and_no_score_is_worse_than_the_baseline() {
    let Some(tables) = tables() else { return };
    let folder = tempfile::tempdir().unwrap();
    let written = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let baseline = root().join("docs/fidelity.toml");
    let mut arguments = vec!["validate".to_owned(), "--worst".to_owned(), "0".to_owned()];
    for table in &tables {
        arguments.extend(["--data".to_owned(), table.to_str().unwrap().to_owned()]);
    }
    let pages = [("--fidelity", "fidelity.md"), ("--write-baseline", "fidelity.toml")];
    arguments.extend(pages.iter().flat_map(|(option, name)| [(*option).to_owned(), written(name)]));
    if baseline.exists() {
        arguments.extend(["--baseline".to_owned(), baseline.to_str().unwrap().to_owned()]);
    }
    let output = steptime(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let (shown, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{error}");
    let update = std::env::var("UPDATE_TABLES").is_ok();
    assert!(update || output.status.code() == Some(0), "worse than docs/fidelity.toml:\n{shown}");
    for name in ["fidelity.md", "fidelity.toml", "figures/parity.svg"] {
        let (now, kept) = (std::fs::read(folder.path().join(name)).unwrap(), root().join("docs").join(name));
        if update {
            std::fs::write(&kept, now).unwrap();
        } else {
            let same = std::fs::read(&kept).is_ok_and(|kept| kept == now);
            assert!(same, "run with UPDATE_TABLES=1 to write {} anew:\n{shown}", kept.display());
        }
    }
}

/// The figure in the repository stays small.
#[test]
fn the_figure_is_small() {
    let size = std::fs::metadata(root().join("docs/figures/parity.svg")).unwrap().len();
    assert!(size < 300_000, "{size} bytes");
}
