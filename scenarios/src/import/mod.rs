//! Importing: descriptions of models, clusters and runs that other tools write, as TOML of ours.
//!
//! Every function takes the text of a file and the name that errors give it, and returns an [`Imported`]: files in
//! the form that a scenario refers to, and what of the input did not enter them, key by key, each with its reason.
//! Nothing is silent: a key is mapped, ignored by name, or an [`InputError`].
//!
//! **Invariant**: an importer reads text. It opens no file, runs no command and evaluates no program.

mod architecture;
mod arithmetic;
mod deepspeed;
mod fields;
mod hf;
mod json;
mod megatron;
mod node;
mod report;
mod run;
mod safetensors;
mod source;
mod swift;
mod torchtitan;
mod write;
mod yaml;

pub use deepspeed::deepspeed;
pub use hf::hf;
pub use megatron::megatron;
pub use report::{Frame, Ignored, Imported, ImportedFile};
pub use safetensors::{FormatTotal, HEADER_LIMIT, SafetensorsFile, TensorTable, safetensors};
pub use swift::{swift, swift_scenario};
pub use torchtitan::torchtitan;

use steptime_models::{Model, ModelError, Overrides};

use crate::error::InputError;
use crate::origin::Origin;
use source::Source;

/// Longest text that an importer reads, bytes: far above any real configuration, and read in a moment.
const LONGEST_TEXT: usize = 4 << 20;

/// Refuses a text that is no configuration by its size alone.
fn check_length(file: &str, text: &str) -> Result<(), InputError> {
    if text.len() <= LONGEST_TEXT {
        return Ok(());
    }
    Err(InputError::Syntax {
        origin: Origin::File { file: file.to_owned(), line: 1, column: 1 },
        message: format!("found {} bytes, allowed: at most {LONGEST_TEXT} (4 MiB)", text.len()),
    })
}

/// Checks a model file by reading it, as a scenario will. Families that this version does not play are let through:
/// the file says what it says.
fn check_model(source: &Source<'_>, toml: &str) -> Result<(), InputError> {
    match Model::from_toml(toml, &Overrides::none()) {
        Ok(_) | Err(ModelError::UnknownFamily { .. }) => Ok(()),
        Err(error) => Err(source.syntax(0, format!("as a model file: {error}"))),
    }
}
