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

/// Facts of the planner's repository (pippyoldversion, branch CYH): seconds of the greedy baseline, which its own
/// `plot/bar.py` shows, by model on five vehicles; the optimum was found by two independent searches.
const VEHICLES: [(&str, f64, f64); 4] = [
    ("small", 1390.7427, 908.6375),
    ("medium", 1535.5624, 1328.0102),
    ("original", 2494.7078, 1768.5568),
    ("large", 2998.2761, 2441.6414),
];

#[test]
fn the_source_papers_figures_are_drawn_by_one_command() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output = steptime(&["plot", "manifest", "docs/papers/source-papers.toml", "--out", out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    for name in [
        "vehicles_by_model",
        "vehicles_by_cluster",
        "switch_vit_time",
        "switch_vit_memory",
        "rat_time",
        "rat_memory",
        "a5000_batches",
        "a5000_largest",
        "encoders",
    ] {
        let figure = read(&format!("{name}.svg"));
        assert!(figure.contains("<metadata>") && figure.contains("scenario_hashes: "), "{name}");
    }
    let table = read("vehicles.csv");
    let time = |model: &str, planner: &str| -> f64 {
        let line = table.lines().find(|line| {
            line.starts_with(&format!("{model},")) && line.contains(",5,") && line.contains(planner)
        });
        line.unwrap().rsplit(',').next().unwrap().parse().unwrap()
    };
    for (model, greedy, optimum) in VEHICLES {
        assert!((time(model, "greedy") - greedy).abs() < 1e-4, "{model}: {}", time(model, "greedy"));
        assert!((time(model, "optimum") - optimum).abs() < 1e-4, "{model}: {}", time(model, "optimum"));
    }
    // A model of 14 GB fits on no five of those vehicles, and 256 pixels on no H100.
    assert!(table.contains("xlarge,14.01,5,optimum,infeasible,\n"));
    assert!(read("rat_memory.svg").contains("ran out of memory"));
    // The same bytes the second time.
    let again = tempfile::tempdir().unwrap();
    steptime(&[
        "plot",
        "manifest",
        "docs/papers/source-papers.toml",
        "--out",
        again.path().to_str().unwrap(),
    ]);
    for name in ["vehicles.csv", "rat_memory.svg", "encoders_table.tex"] {
        assert!(
            std::fs::read(again.path().join(name)).unwrap()
                == std::fs::read(folder.path().join(name)).unwrap()
        );
    }
}

/// Fonts of PDFs as `pdffonts` of poppler lists them: embedded, and none of Type 3.
#[test]
fn pdfs_embed_their_fonts() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let output =
        steptime(&["plot", "manifest", "docs/figures/gallery.toml", "--out", out, "--figures", "pdf"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "pdf")).collect();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let Ok(listed) = std::process::Command::new("pdffonts").arg(&file).output() else {
            assert!(std::env::var_os("CI").is_none(), "pdffonts (poppler-utils) is missing");
            eprintln!("SKIPPED: pdffonts is not there");
            return;
        };
        let text = String::from_utf8(listed.stdout).unwrap();
        let fonts: Vec<&str> = text.lines().skip(2).collect();
        assert!(!fonts.is_empty(), "{}: no fonts", file.display());
        for font in fonts {
            assert!(
                font.contains("LiberationSans") && !font.contains("Type 3"),
                "{}: {font}",
                file.display()
            );
            // Columns from the right: object and generation, unicode, subset, embedded.
            let words: Vec<&str> = font.split_whitespace().collect();
            assert_eq!(words[words.len() - 5], "yes", "{}: {font}", file.display());
        }
    }
}
