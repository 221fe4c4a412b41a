//! `steptime import`.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use steptime_clusters::cluster_from_catalogue;
use steptime_models::{Model, Overrides};
use steptime_scenarios::import::{
    self, Frame, HEADER_LIMIT, Imported, ImportedFile, SafetensorsFile, TensorTable,
};

use crate::cli::{ImportArguments, ImportKind};
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::{right_align, table, thousands, trimmed};

/// Identifies the JSON document.
const SCHEMA: &str = "steptime.import/1";

/// Imports one description, or a model and a cluster that belong together.
pub(crate) fn import(arguments: &ImportArguments) -> Result<Answer, Failure> {
    let only = |kinds: &[ImportKind], given: bool, option: &str| {
        if given && !kinds.contains(&arguments.kind) {
            return Err(Failure::Message(format!("{option} does not act with this kind of input")));
        }
        Ok(())
    };
    let launchers = [ImportKind::Deepspeed, ImportKind::Megatron, ImportKind::Torchtitan];
    only(&[ImportKind::Safetensors], arguments.config.is_some(), "--config")?;
    only(&launchers, arguments.model.is_some(), "--model")?;
    only(&launchers, arguments.cluster.is_some(), "--cluster")?;
    only(&[ImportKind::Swift], arguments.files.len() > 1, "a second file")?;
    // What the options name must exist, or the scenario could not run.
    if let Some(name) = &arguments.model {
        Model::from_catalogue(name, &Overrides::none()).map_err(|error| Failure::model(&error))?;
    }
    if let Some(name) = &arguments.cluster {
        cluster_from_catalogue(name).map_err(|error| Failure::cluster(&error))?;
    }
    let frame = Frame { model: arguments.model.clone(), cluster: arguments.cluster.clone() };
    let mut tensors = None;
    let imported = match (arguments.kind, &arguments.files[..]) {
        (ImportKind::Swift, [first, second]) => pair(first, second)?,
        (kind, [path, ..]) => one(kind, path, arguments.config.as_deref(), &frame, &mut tensors)?,
        (_, []) => return Err(Failure::Message("a file is missing".to_owned())),
    };
    if let Some(out) = &arguments.out {
        output::write_all(&outputs(out, &imported.files))?;
    }
    if arguments.json {
        output::print(&output::json(&document(&imported, tensors.as_ref()))?)?;
        return Ok(Answer::Yes);
    }
    if let Some(tensors) = &tensors {
        output::remark(&format!("{}\n\n", trimmed(&totals(tensors)).trim_end()))?;
    }
    if arguments.out.is_none() {
        output::print(&text(&imported.files))?;
    }
    output::remark(&remarks(&imported))?;
    Ok(Answer::Yes)
}

fn one(
    kind: ImportKind,
    path: &Path,
    config: Option<&Path>,
    frame: &Frame,
    tensors: &mut Option<TensorTable>,
) -> Result<Imported, Failure> {
    if kind == ImportKind::Safetensors {
        let found = read_tensors(path)?;
        let imported = describe(path, config, &found)?;
        *tensors = Some(found);
        return Ok(imported);
    }
    let (name, text) = read(path)?;
    Ok(match kind {
        ImportKind::Deepspeed => import::deepspeed(&name, &text, frame)?,
        ImportKind::Megatron => import::megatron(&name, &text, frame)?,
        ImportKind::Torchtitan => import::torchtitan(&name, &text, frame)?,
        ImportKind::Swift => import::swift(&name, &text)?,
        ImportKind::Hf | ImportKind::Safetensors => import::hf(&name, &text)?,
    })
}

/// A model and a cluster of the SWIFT planner, in either order, and the scenario of both.
fn pair(first: &Path, second: &Path) -> Result<Imported, Failure> {
    let mut both = Vec::new();
    for path in [first, second] {
        let (name, text) = read(path)?;
        both.push(import::swift(&name, &text)?);
    }
    // `model.toml` comes after `cluster.toml` in the alphabet.
    both.sort_by(|a, b| b.files[0].name.cmp(&a.files[0].name));
    if both[0].files[0].name == both[1].files[0].name {
        let what = both[0].files[0].name.trim_end_matches(".toml");
        return Err(Failure::Message(format!(
            "{} and {} are both a {what}; a model and a cluster make a scenario",
            first.display(),
            second.display()
        )));
    }
    let scenario = ImportedFile { name: "scenario.toml".to_owned(), toml: import::swift_scenario() };
    Ok(both.into_iter().fold(
        Imported { kind: "swift", files: vec![scenario], ignored: Vec::new(), notes: Vec::new() },
        |mut all, part| {
            let before_scenario = all.files.len() - 1;
            all.files.splice(before_scenario..before_scenario, part.files);
            all.ignored.extend(part.ignored);
            all.notes.extend(part.notes);
            all
        },
    ))
}

/// A text file or standard input, with the name that errors give it. What is longer than any input may be is cut, and
/// refused by its length.
pub(crate) fn read(path: &Path) -> Result<(String, String), Failure> {
    let standard_input = path == Path::new("-");
    let name = if standard_input { "<standard input>".to_owned() } else { path.display().to_string() };
    let failure = |error: std::io::Error| Failure::Message(format!("{name}: {error}"));
    let mut text = String::new();
    if standard_input {
        std::io::stdin().take(HEADER_LIMIT + 1).read_to_string(&mut text).map_err(failure)?;
    } else {
        let file = File::open(path).map_err(failure)?;
        file.take(HEADER_LIMIT + 1).read_to_string(&mut text).map_err(failure)?;
    }
    Ok((name, text))
}

/// The tensors of one file, or of all that an index lists.
fn read_tensors(path: &Path) -> Result<TensorTable, Failure> {
    if path.extension().is_none_or(|extension| extension != "json") {
        return read_header(path);
    }
    let (name, text) = read(path)?;
    let mut all = TensorTable::empty(&name);
    for file in TensorTable::read_index(&name, &text)? {
        all.merge(read_header(&path.with_file_name(file))?)?;
    }
    Ok(all)
}

/// The header of a file; its data is not read.
fn read_header(path: &Path) -> Result<TensorTable, Failure> {
    let failure = |error: std::io::Error| Failure::File { path: path.to_owned(), message: error.to_string() };
    let mut file = File::open(path).map_err(failure)?;
    let length = file.metadata().map_err(failure)?.len();
    let mut prefix = Vec::new();
    file.by_ref().take(8).read_to_end(&mut prefix).map_err(failure)?;
    let name = path.display().to_string();
    let header_length = SafetensorsFile { name: &name, prefix: &prefix, length }.header_length()?;
    let mut header = Vec::new();
    file.take(header_length.min(HEADER_LIMIT)).read_to_end(&mut header).map_err(failure)?;
    Ok(TensorTable::read(&name, &header, length - 8 - header_length)?)
}

/// The model of a checkpoint, with the configuration that is given or lies beside it.
fn describe(path: &Path, config: Option<&Path>, tensors: &TensorTable) -> Result<Imported, Failure> {
    let beside = path.with_file_name("config.json");
    let config: Option<PathBuf> = match config {
        Some(given) => Some(given.to_owned()),
        None => beside.is_file().then_some(beside),
    };
    let Some(config) = config else { return Ok(import::safetensors(tensors, None)?) };
    let (name, text) = read(&config)?;
    Ok(import::safetensors(tensors, Some((&name, &text)))?)
}

/// Where the files go: one under the path itself, several into it as a folder.
fn outputs(out: &Path, files: &[ImportedFile]) -> Vec<Output> {
    match files {
        [file] if !out.is_dir() => vec![Output::new(out.to_owned(), file.toml.as_str())],
        several => several.iter().map(|file| Output::new(out.join(&file.name), file.toml.as_str())).collect(),
    }
}

/// The files as one text. Several have their names before them.
fn text(files: &[ImportedFile]) -> String {
    if let [file] = files {
        return file.toml.clone();
    }
    let each = |file: &ImportedFile| format!("# --- {} ---\n{}", file.name, file.toml);
    files.iter().map(each).collect::<Vec<_>>().join("\n")
}

fn document(imported: &Imported, tensors: Option<&TensorTable>) -> serde_json::Value {
    let mut document = serde_json::json!({
        "schema": SCHEMA,
        "kind": imported.kind,
        "files": imported.files,
        "ignored": imported.ignored,
        "notes": imported.notes,
    });
    if let Some(tensors) = tensors {
        document["tensors"] = serde_json::json!({ "count": tensors.len(), "formats": tensors.totals() });
    }
    document
}

/// Tensors by number format.
fn totals(tensors: &TensorTable) -> String {
    let mut list = table(&["format", "tensors", "values", "bytes"]);
    let totals = tensors.totals();
    for total in &totals {
        list.add_row([
            total.format.clone(),
            thousands(total.tensors),
            thousands(total.values),
            thousands(total.bytes),
        ]);
    }
    let sum = |part: fn(&import::FormatTotal) -> u64| thousands(totals.iter().map(part).sum());
    list.add_row([
        "all".to_owned(),
        sum(|total| total.tensors),
        sum(|total| total.values),
        sum(|total| total.bytes),
    ]);
    right_align(&mut list, 1);
    list.to_string()
}

/// What did not enter the files, for a person.
fn remarks(imported: &Imported) -> String {
    let mut text = String::new();
    for ignored in &imported.ignored {
        text += &format!(
            "ignored: line {}: {} = {}: {}\n",
            ignored.line, ignored.key, ignored.found, ignored.reason
        );
    }
    for note in &imported.notes {
        text += &format!("note: {note}\n");
    }
    text
}
