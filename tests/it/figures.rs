//! Figures of tables, by a manifest.

use std::path::Path;

use crate::support::{root, steptime};

fn failure(manifest: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("figures.toml");
    std::fs::write(&file, manifest).unwrap();
    std::fs::write(folder.path().join("t.csv"), "gpus,step_time_s\n8,1.5\n16,0.8\n").unwrap();
    let output = steptime(&["plot", "manifest", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{manifest}");
    assert!(!folder.path().join("figures").exists(), "nothing is half written");
    let error = String::from_utf8(output.stderr).unwrap();
    error.replace(&format!("{}/", folder.path().display()), "")
}

/// The pages' gallery is what the program draws now. `UPDATE_FIGURES=1` draws it anew.
#[test]
fn the_gallery_is_drawn_by_the_program() {
    let shown = root().join("docs/figures/gallery");
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output = steptime(&["plot", "manifest", "docs/figures/gallery.toml", "--out", out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(root().join("docs/figures.md")).unwrap();
    let listed = String::from_utf8(output.stdout).unwrap();
    assert!(listed.lines().count() > 10, "{listed}");
    for line in listed.lines() {
        let drawn = std::fs::read(line).unwrap();
        let name = Path::new(line).file_name().unwrap().to_str().unwrap();
        if std::env::var("UPDATE_FIGURES").is_ok() {
            std::fs::write(shown.join(name), &drawn).unwrap();
        }
        let expected = std::fs::read(shown.join(name)).unwrap_or_default();
        assert!(expected == drawn, "run with UPDATE_FIGURES=1 to draw {name} anew");
        assert!(page.contains(&format!("figures/gallery/{name}")), "{name} is not on the page");
    }
}

#[test]
fn a_wrong_manifest_gets_one_clear_error() {
    let figure = "[[figure]]\nname = \"f\"\nkind = \"scaling\"\ndata = \"t.csv\"\nx = \"gpus\"\n";
    let cases = [
        ("", "figures.toml: lists nothing; allowed: [[figure]], [[run_figure]], [[table]]"),
        (
            "[[figure]]\nname = \"f\"\nkind = \"pie\"\n",
            "figures.toml: line 3: unknown kind of figure `pie`; allowed: scaling, lines, pareto, heat_map",
        ),
        (
            "[[figure]]\nname = \"f\"\nkind = \"cdf\"\ncolour = 1\n",
            "figures.toml: line 4: unknown field `colour`, expected one of",
        ),
        (figure, "figures.toml: `f`: figures of kind `scaling` need `y`, the name of a column"),
        (
            &format!("{figure}y = \"time\"\n"),
            "figures.toml: `f`: unknown column `time`; allowed: gpus, step_time_s",
        ),
        (&format!("{figure}y = \"gpus\"\n{figure}y = \"gpus\"\n"), "two of the figures are named `f`"),
        (
            "[[figure]]\nname = \"../f\"\nkind = \"cdf\"\n",
            "figures.toml: name: found `../f`, allowed: letters, digits, hyphens and underscores",
        ),
        (
            "[[run_figure]]\nname = \"f\"\nkind = \"breakdown\"\nresults = []\n",
            "figures.toml: `f`: `results` is empty; expected folders that `run --out` wrote",
        ),
    ];
    for (manifest, expected) in cases {
        let error = failure(manifest);
        assert!(error.contains(expected), "{manifest}: {error}");
        assert_eq!(error.trim_end().lines().count(), 1, "{error}");
    }
}
