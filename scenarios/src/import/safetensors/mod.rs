//! Safetensors: names, number formats and shapes of a checkpoint, from the headers alone.
//!
//! A file is eight bytes with the length of the header (little-endian), the header (JSON), and the data, which is
//! never read (<https://github.com/huggingface/safetensors>, "Format").

mod infer;
mod shapes;
mod table;

use steptime_models::{Model, ModelError, Overrides};

pub use table::{FormatTotal, HEADER_LIMIT, SafetensorsFile, TensorTable};

use shapes::Widths;

use super::hf::hf;
use super::report::{Imported, Log};
use crate::error::InputError;

/// Describes the model of a checkpoint: one file, `model.toml`, from the `config.json` that belongs to it, checked
/// against the tensors; without one, from the shapes, where they determine it.
///
/// # Errors
/// What [`hf`] refuses in the configuration; a tensor of another shape than the configuration says; another number
/// of parameters; without a configuration, what the shapes do not determine.
pub fn safetensors(table: &TensorTable, config: Option<(&str, &str)>) -> Result<Imported, InputError> {
    let Some((file, text)) = config else {
        let mut log = Log::default();
        let model = infer::infer(table, &mut log)?;
        return Ok(log.finish("safetensors", vec![("model.toml", model)]));
    };
    let mut imported = hf(file, text)?;
    imported.kind = "safetensors";
    let toml = imported.file("model.toml").unwrap_or_default().to_owned();
    let widths = Widths::read(&toml);
    let checked = widths.as_ref().map_or(Ok(0), |widths| shapes::check(table, widths))?;
    let (parameters, left_out) = table.parameters(widths.is_some_and(|widths| widths.tied));
    if left_out > 0 {
        imported.notes.push(format!(
            "{left_out} tensors are no parameters (masks, tables of frequencies, scales, a shared projection) and are \
             not counted"
        ));
    }
    imported.notes.push(format!("{checked} of {} tensors have the shapes of the configuration", table.len()));
    match Model::from_toml(&toml, &Overrides::none()) {
        Ok(model) if model.parameters() == parameters => {
            imported.notes.push(format!("{parameters} parameters, as the configuration says"));
        }
        Ok(model) => {
            return Err(table.conflict(format!(
                "{parameters} parameters, but {file} describes a model of {}",
                model.parameters()
            )));
        }
        Err(ModelError::UnknownFamily { found, .. }) => imported.notes.push(format!(
            "{parameters} parameters; not compared with {file}, for this version does not play the family {found}"
        )),
        Err(error) => return Err(table.conflict(format!("{file} as a model file: {error}"))),
    }
    Ok(imported)
}
