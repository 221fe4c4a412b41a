//! Importing what other tools write.

mod checkpoints;
mod launchers;
mod mutations;
mod planner;
mod refusals;

use std::path::PathBuf;

use steptime_models::{Model, Overrides};
use steptime_scenarios::import::{Imported, hf};

use crate::support::{report, root, steptime};

/// Families of model files that are played; the others of [`PARAMETERS`] wait for theirs.
const PLAYED: [&str; 4] = ["gpt", "llama", "vit", "transformer"];

/// Configurations and the parameters of the models: what `model.num_parameters()` of the transformers library or the
/// model's page shows, and for Grok-1 (shown as 314B) and Minitron the sum over the shapes of its tensors. Those of
/// DeepSeek-V3 are without the module that predicts a further token, which the library leaves out.
const PARAMETERS: [(&str, u64); 33] = [
    ("all-minilm-l6-v2", 22_713_216),
    ("bert-base-uncased", 109_514_298),
    ("deepseek-v2-lite", 15_706_484_224),
    ("deepseek-v3", 671_026_419_200),
    ("distilbert-sst-2", 66_955_010),
    ("gemma-2-2b", 2_614_341_888),
    ("gpt2", 124_439_808),
    ("grok-1", 315_684_820_992),
    ("llama-2-7b", 6_738_415_616),
    ("llama-3-8b", 8_030_261_248),
    ("llama-3.1-8b-instruct", 8_030_261_248),
    ("llama-3.2-1b", 1_235_814_400),
    ("minitron-8b", 8_271_699_968),
    ("mistral-7b-v0.1", 7_241_732_096),
    ("mistral-7b-v0.3", 7_248_023_552),
    ("mistral-nemo-12b", 12_247_782_400),
    ("mixtral-8x7b", 46_702_792_704),
    ("mpt-7b", 6_649_286_656),
    ("mt5-small", 300_176_768),
    ("opt-125m", 125_239_296),
    ("opt-350m", 331_196_416),
    ("qwen1.5-moe-a2.7b", 14_315_784_192),
    ("qwen2.5-0.5b", 494_032_768),
    ("qwen2.5-7b", 7_615_616_512),
    ("qwen3-30b-a3b", 30_532_122_624),
    ("qwen3-8b", 8_190_735_360),
    ("roberta-base", 124_697_433),
    ("switch-base-8", 619_339_008),
    ("t5-base", 222_903_552),
    ("t5-v1_1-base", 247_577_856),
    ("tinyllama-1.1b", 1_100_048_384),
    ("vit-base-patch16-224", 86_567_656),
    ("xlm-roberta-base", 278_295_186),
];

/// A fixture's text.
fn fixture(name: &str) -> String {
    std::fs::read_to_string(fixtures().join(name)).unwrap()
}

fn fixtures() -> PathBuf {
    root().join("tests/it/import")
}

fn configuration(name: &str) -> Imported {
    hf("config.json", &fixture(&format!("hf/{name}.json"))).unwrap()
}

/// What a person sees of an import.
fn shown(imported: &Imported) -> String {
    let mut text = String::new();
    for file in &imported.files {
        text += &format!("--- {} ---\n{}", file.name, file.toml);
    }
    for ignored in &imported.ignored {
        text +=
            &format!("ignored {}: {} = {} ({})\n", ignored.line, ignored.key, ignored.found, ignored.reason);
    }
    for note in &imported.notes {
        text += &format!("note: {note}\n");
    }
    text
}

#[test]
fn every_fixture_has_its_row() {
    let mut files: Vec<String> = std::fs::read_dir(fixtures().join("hf"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    files.sort();
    let rows: Vec<&str> = PARAMETERS.iter().map(|(name, _)| *name).collect();
    assert_eq!(files, rows);
}

#[test]
fn configurations_become_model_files() {
    let mut all = String::new();
    for (name, _) in PARAMETERS {
        all += &format!("=== {name} ===\n{}\n", configuration(name).file("model.toml").unwrap());
    }
    insta::assert_snapshot!(all);
}

#[test]
fn what_configurations_say_besides_is_named() {
    let mut all = String::new();
    for name in ["gpt2", "llama-3.1-8b-instruct", "deepseek-v3", "mpt-7b", "mt5-small", "all-minilm-l6-v2"] {
        let imported = configuration(name);
        let besides = Imported { files: Vec::new(), ..imported };
        all += &format!("=== {name} ===\n{}", shown(&besides));
    }
    insta::assert_snapshot!(all);
}

#[test]
fn models_have_the_parameters_of_their_checkpoints() {
    let mut compared = 0;
    for (name, expected) in PARAMETERS {
        let imported = configuration(name);
        let toml = imported.file("model.toml").unwrap();
        let family = toml.lines().find_map(|line| line.strip_prefix("family = ")).unwrap().trim_matches('"');
        if !PLAYED.contains(&family) {
            continue;
        }
        let model = Model::from_toml(toml, &Overrides::none()).unwrap();
        assert_eq!(model.parameters(), expected, "{name}");
        compared += 1;
    }
    assert!(compared >= 9, "{compared}");
}

/// `[model] hf = "config.json"`, relative to the scenario, is the model of the catalogue; overrides apply.
#[test]
fn a_scenario_takes_a_configuration_as_its_model() {
    for (name, entry) in [("gpt2", "gpt2"), ("llama-3-8b", "llama3-8b"), ("mistral-7b-v0.3", "mistral-7b")] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), fixture(&format!("hf/{name}.json"))).unwrap();
        let overrides = if entry == "mistral-7b" { "overrides = { vocabulary = 32000 }\n" } else { "" };
        let length = if entry == "gpt2" { 1024 } else { 4096 };
        let rest = format!(
            "sequence_length = {length}\n[cluster]\nname = \"dgx-h100\"\n[workload]\nmicro_batch_size = 1\n\
             gradient_accumulation_steps = 2\nprecision = \"bf16\"\nactivation_checkpointing = \"full\"\n[parallelism]\n\
             zero_stage = 3\n"
        );
        let path = folder.path().join("case.toml");
        let run = |model: &str| {
            std::fs::write(&path, format!("name = \"case\"\n[model]\n{model}\n{rest}")).unwrap();
            report(&[path.to_str().unwrap()])
        };
        let imported = run(&format!("hf = \"config.json\"\n{overrides}"));
        let catalogue = run(&format!("name = \"{entry}\""));
        for key in ["step_time_s", "parameters", "peak_memory"] {
            assert_eq!(imported[key], catalogue[key], "{name}: {key}");
        }
    }
}

#[test]
fn a_scenario_says_where_its_configuration_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("case.toml");
    let wrong = fixture("hf/gpt2.json").replace("\"n_head\": 12", "\"n_head\": 0");
    std::fs::write(folder.path().join("config.json"), wrong).unwrap();
    let mut all = String::new();
    std::fs::write(folder.path().join("right.json"), fixture("hf/gpt2.json")).unwrap();
    for model in [
        "hf = \"config.json\"",
        "hf = \"none.json\"",
        "hf = 1",
        "hf = \"config.json\"\nname = \"gpt2\"",
        "hf = \"right.json\"\noverrides = { layer = 4 }",
    ] {
        std::fs::write(&path, format!("[model]\n{model}\n[cluster]\nname = \"dgx-h100\"\n")).unwrap();
        let output = steptime(&["run", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(2));
        let error = String::from_utf8(output.stderr).unwrap();
        all += &error.replace(&format!("{}/", folder.path().display()), "");
    }
    insta::assert_snapshot!(all);
}

#[test]
fn results_are_printed_or_written_whole() {
    let file = "tests/it/import/hf/gpt2.json";
    let printed = steptime(&["import", "hf", file]);
    assert_eq!(printed.status.code(), Some(0));
    let model = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(model, hf(file, &fixture("hf/gpt2.json")).unwrap().file("model.toml").unwrap());
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("new/gpt2.toml");
    let written = steptime(&["import", "hf", file, "--out", out.to_str().unwrap()]);
    assert_eq!(written.status.code(), Some(0));
    assert!(written.stdout.is_empty());
    assert_eq!(std::fs::read_to_string(&out).unwrap(), model);
    let document = steptime(&["import", "hf", file, "--json"]);
    assert!(document.stderr.is_empty());
    let document: serde_json::Value = serde_json::from_slice(&document.stdout).unwrap();
    assert_eq!(document["schema"], "steptime.import/1");
    assert_eq!(document["files"][0]["toml"], model);
    assert_eq!(document["ignored"][0]["key"], "bos_token_id");
    for wrong in [
        &["import", "hf", file, "--config", file][..],
        &["import", "hf", file, file],
        &["import", "deepspeed", file, "--config", file],
        &["import", "chakra", file],
        &["import", "hf"],
    ] {
        assert_eq!(steptime(wrong).status.code(), Some(2), "{wrong:?}");
    }
}
