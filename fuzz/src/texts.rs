//! Targets that read texts: scenarios, schedules, files of the catalogue, and what other tools write.

use steptime_clusters::{cluster_from_toml, gpu_from_toml};
use steptime_models::{Model, Overrides};
use steptime_plans::Schedule;
use steptime_scenarios::import::{self, Frame, Imported, TensorTable};
use steptime_scenarios::{
    Draft, Files, InputError, ScheduleTimes, Sweep, merge_parts, read_part, stage_list, swift_results,
    written_schedule_study,
};

use crate::play::{complains, play};

/// Parts a scenario from the text that every file it names has.
const BORDER: &str = "\n%%%%\n";

/// All files that a scenario names are the same.
struct OneFile<'a>(&'a str);

impl Files for OneFile<'_> {
    fn read(&self, name: &str) -> Result<String, String> {
        if self.0.is_empty() { Err(format!("{name} is not there")) } else { Ok(self.0.to_owned()) }
    }
}

pub(crate) fn scenario(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (text, file) = text.split_once(BORDER).unwrap_or((text, ""));
    let files = OneFile(file);
    let draft = match Draft::read("scenario.toml", text, &[]) {
        Ok(draft) => draft,
        Err(error) => return complains(&error.to_string()),
    };
    let _ = draft.digest(&files);
    match draft.scenario(&files) {
        Ok(scenario) => play(&scenario),
        Err(error) => complains(&error.to_string()),
    }
    match Sweep::read(&draft, &files) {
        Ok(sweep) if sweep.points() > 0 => {
            let _ = sweep.axes();
        }
        Ok(_) => {}
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn schedule(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(schedule) = Schedule::parse(text) else { return };
    assert_eq!(Schedule::parse(&schedule.written()).as_ref(), Ok(&schedule));
    let passes: usize = schedule.stages.iter().map(Vec::len).sum();
    if schedule.check().is_ok() {
        assert!(passes > 0);
    }
    let times =
        ScheduleTimes { forward_s: 1e-3, input_s: 1e-3, weight_s: 1e-3, transfer_s: 1e-5, pair_s: None };
    match written_schedule_study("case", text, &times) {
        Ok((report, _)) => assert!(serde_json::to_string(&report).is_ok()),
        Err(message) => complains(&message),
    }
}

pub(crate) fn part(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = Vec::new();
    for (name, text) in ["one.jsonl", "two.jsonl"].into_iter().zip(text.split(BORDER)) {
        match read_part(name, text) {
            Ok(part) => parts.push((name.to_owned(), part)),
            Err(error) => complains(&error.to_string()),
        }
    }
    match merge_parts(parts) {
        Ok(whole) => assert_eq!(whole.rows.len() as u64, whole.header.points),
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn catalogue(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let none = Overrides::none();
    if let Ok(model) = Model::from_toml(text, &none) {
        let _ = (model.parameters(), model.active_parameters(), model.longest_sequence());
    }
    let _ = cluster_from_toml(text);
    let _ = gpu_from_toml(text);
}

/// What an importer writes is what the program reads, whether or not it is complete.
fn imported(result: Result<Imported, InputError>) {
    match result {
        Ok(imported) => {
            for file in &imported.files {
                let name = &file.name;
                match name.as_str() {
                    "model.toml" => drop(Model::from_toml(&file.toml, &Overrides::none())),
                    "cluster.toml" => drop(cluster_from_toml(&file.toml)),
                    _ => {}
                }
                let read = Draft::read(name, &file.toml, &[]);
                assert!(
                    read.is_ok(),
                    "{}\n{}",
                    read.err().map(|it| it.to_string()).unwrap_or_default(),
                    file.toml
                );
            }
            let model = imported.file("model.toml").unwrap_or_default();
            if let Some(text) = imported.file("scenario.toml")
                && let Ok(draft) = Draft::read("scenario.toml", text, &[])
                && let Ok(scenario) = draft.scenario(&OneFile(model))
            {
                play(&scenario);
            }
        }
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn hf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    imported(import::hf("config.json", text));
}

pub(crate) fn deepspeed(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let frame = Frame { model: Some("gpt2".to_owned()), cluster: Some("dgx-h100".to_owned()) };
    imported(import::deepspeed("ds_config.json", text, &frame));
}

pub(crate) fn megatron(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let frame = Frame { model: None, cluster: Some("dgx-h100".to_owned()) };
    imported(import::megatron("train.sh", text, &frame));
    imported(import::megatron("train.yaml", text, &frame));
}

pub(crate) fn torchtitan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let frame = Frame { model: None, cluster: Some("dgx-h100".to_owned()) };
    imported(import::torchtitan("train.toml", text, &frame));
}

pub(crate) fn swift(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    imported(import::swift("model.xml", text));
    for name in ["swift_results.json", "pipelines.csv"] {
        if let Err(error) = swift_results(name, text) {
            complains(&error.to_string());
        }
    }
}

pub(crate) fn stages(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for blocks in [1, 12, 10_000] {
        if let Err(error) = stage_list("stages.json", text, blocks) {
            complains(&error.to_string());
        }
    }
}

pub(crate) fn safetensors(data: &[u8]) {
    let (header, config) = match data.split_first() {
        Some((b'{', _)) | None => (data, None),
        Some((border, rest)) => {
            let (header, config) = rest.split_at((usize::from(*border) * 16).min(rest.len()));
            (header, std::str::from_utf8(config).ok())
        }
    };
    if let Ok(text) = std::str::from_utf8(header) {
        let _ = TensorTable::read_index("model.safetensors.index.json", text);
    }
    match TensorTable::read("model.safetensors", header, 1 << 30) {
        Ok(table) => {
            let _ = table.totals();
            imported(import::safetensors(&table, config.map(|text| ("config.json", text))));
        }
        Err(error) => complains(&error.to_string()),
    }
}
