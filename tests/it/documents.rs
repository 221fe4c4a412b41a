//! Every command and number in the documents is what the program prints.

use std::fmt::Write;

use crate::support::{number, report, root, steptime};

/// Console blocks (` ```console `) of the documents are sessions: each is run in the checkout and must print
/// what it shows. `TRYCMD=overwrite` writes anew what has changed.
#[test]
fn documents_show_what_the_program_prints() {
    let cases = trycmd::TestCases::new();
    cases.env("NO_COLOR", "1");
    cases.case("README.md").case("docs/*.md");
}

/// The README's picture is one of the program's own figures, as it draws it now.
#[test]
fn the_picture_of_the_readme_is_drawn_by_the_program() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let set = ["workload.global_batch_size=16", "workload.activation_checkpointing=none"];
    let scenario = "scenarios/gpt-18b-dgx-a100.toml";
    steptime(&["run", scenario, "--set", set[0], "--set", set[1], "--out", out, "--quiet"]);
    let drawn = std::fs::read(folder.path().join("figures/pipeline_gantt.svg")).unwrap();
    let shown = root().join("docs/figures/pipeline_gantt.svg");
    if std::env::var("UPDATE_FIGURES").is_ok() {
        std::fs::write(&shown, &drawn).unwrap();
    }
    assert!(
        std::fs::read(&shown).unwrap() == drawn,
        "run with UPDATE_FIGURES=1 to draw {} anew",
        shown.display()
    );
}

/// The README shows the scenario file as it is.
#[test]
fn the_scenario_of_the_readme_is_the_file() {
    let file = std::fs::read_to_string(root().join("scenarios/switch-vit-64-rtx8000.toml")).unwrap();
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    assert!(readme.contains(&format!("```toml\n{file}```")));
}

/// Models, and medians of the training logs of anand-vishwakarma-1/switch-vit (690ffc8), seconds a step.
const MEASURED: [(&str, &str, f64); 3] = [
    ("ViT", "scenarios/vit-rtx8000.toml", 0.0600),
    ("Switch-ViT, 32 experts", "scenarios/switch-vit-32-rtx8000.toml", 0.3504),
    ("Switch-ViT, 64 experts", "scenarios/switch-vit-64-rtx8000.toml", 0.6514),
];

/// The README's tables of predicted against measured steps and of the growth with the experts hold today's
/// predictions. `UPDATE_TABLES=1` writes them anew.
#[test]
fn tables_of_the_readme_hold_todays_predictions() {
    let reports: Vec<_> = MEASURED.iter().map(|(_, file, _)| report(&[file])).collect();
    let mut first = String::new();
    for ((name, _, measured), document) in MEASURED.iter().zip(&reports) {
        let step = number(&document["step_time_s"]);
        let parameters = document["parameters"]["total"].as_u64().unwrap();
        let (millions, thousands, ones) =
            (parameters / 1_000_000, parameters / 1000 % 1000, parameters % 1000);
        writeln!(
            first,
            "| {name} | {millions},{thousands:03},{ones:03} | {step:.4} | {measured:.4} | {:+.0} % |",
            100.0 * (step / measured - 1.0)
        )
        .unwrap();
    }
    let mut second = String::new();
    let ms = |document: &serde_json::Value, part: &str| 1e3 * number(&document["time_breakdown_s"][part]);
    let [_, half, full] = &reports[..] else { panic!("three reports") };
    for part in ["host", "compute", "optimizer", "exposed_communication"] {
        let (before, after) = (ms(half, part), ms(full, part));
        writeln!(
            second,
            "| {} | {before:.0} | {after:.0} | {:+.0} |",
            part.replace('_', " "),
            after - before
        )
        .unwrap();
    }
    let (before, after) = (1e3 * number(&half["step_time_s"]), 1e3 * number(&full["step_time_s"]));
    writeln!(second, "| step | {before:.0} | {after:.0} | {:+.0} |", after - before).unwrap();
    check_table("| model | parameters | predicted s/step | measured s/step | error |", &first);
    check_table("| part | 32 experts, ms | 64 experts, ms | growth, ms |", &second);
}

/// Compares the rows of the README's table with this header.
fn check_table(header: &str, rows: &str) {
    let path = root().join("README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let begin = readme.find(header).unwrap() + header.len() + 1;
    let begin = begin + readme[begin..].find('\n').unwrap() + 1;
    let end = begin + readme[begin..].find("\n\n").unwrap() + 1;
    if std::env::var("UPDATE_TABLES").is_ok() {
        std::fs::write(&path, [&readme[..begin], rows, &readme[end..]].concat()).unwrap();
    } else {
        assert_eq!(&readme[begin..end], rows, "run with UPDATE_TABLES=1 to write the table anew");
    }
}

/// Documents name no file that is not there.
#[test]
fn links_lead_somewhere() {
    let mut documents: Vec<_> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
        .iter()
        .map(|name| root().join(name))
        .collect();
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "md") {
            documents.push(path);
        }
    }
    for document in documents {
        let text = std::fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            let path = document.parent().unwrap().join(file);
            assert!(path.exists(), "{}: {file}", document.display());
        }
    }
}
