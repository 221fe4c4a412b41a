//! Launch scripts and YAML files of Megatron-LM.
//!
//! Arguments and what they are when absent follow `megatron/training/arguments.py`.

mod arguments;
mod framework;
mod ignored;
mod model;
mod plan;
mod shell;

use std::cell::RefCell;

use super::fields::Fields;
use super::report::{Frame, Imported, Log};
use super::run::Run;
use super::source::Source;
use super::{check_length, check_model};
use crate::error::InputError;

use arguments::Form;

/// Reads a launch of Megatron-LM: `model.toml` and `scenario.toml`.
///
/// # Errors
/// A script whose quotes, lists or expansions are not closed, or without a command that has `--num-layers`; not
/// YAML; an argument that Megatron-LM does not have or whose value is of the wrong kind, out of range, missing or
/// at odds with another.
pub fn megatron(file: &str, text: &str, frame: &Frame) -> Result<Imported, InputError> {
    check_length(file, text)?;
    let source = Source::new(file, text);
    let mut log = Log::default();
    let form = arguments::form(text);
    let root = match form {
        Form::Script => arguments::script(&source, &mut log)?,
        Form::Yaml => arguments::yaml(&source)?,
    };
    let log = RefCell::new(log);
    let fields = Fields::root(&source, &root, &log)?.arguments(form == Form::Script);
    let mut run = Run::default();
    let tensor = fields.count("tensor-model-parallel-size", 1, plan::MOST)?.unwrap_or(1);
    let model = model::model(&fields, tensor)?;
    run.model.push(("file", "model.toml".into()));
    plan::plan(&fields, &model, &mut run)?;
    fields.ignore_where(ignored::why);
    fields.finish()?;
    let mut log = log.into_inner();
    let scenario = run.scenario(frame, &mut log);
    let name = std::path::Path::new(file).file_stem().and_then(|stem| stem.to_str()).unwrap_or("megatron");
    let model = model.file(name, &format!("arguments of Megatron-LM in {file}"));
    check_model(&source, &model)?;
    let mut files = vec![("scenario.toml", scenario)];
    if frame.model.is_none() {
        files.insert(0, ("model.toml", model));
    }
    Ok(log.finish("megatron", files))
}
