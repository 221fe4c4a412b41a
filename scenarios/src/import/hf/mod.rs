//! `config.json` of the transformers library.
//!
//! Keys and the values of absent ones are those of the library's configuration classes
//! (`src/transformers/models/*/configuration_*.py`).

mod common;
mod decoder;
mod encoder;
mod experts;
mod older;
mod sequence;

use std::cell::RefCell;

use super::fields::Fields;
use super::json;
use super::report::{Imported, Log};
use super::source::Source;
use super::{check_length, check_model};
use crate::error::{InputError, nearest};
use crate::section::list;

use common::Config;

/// How the types of a group are read: the text of the model file comes back.
type Reader = fn(&Config<'_, '_>) -> Result<String, InputError>;

/// Every type that can be read.
const TYPES: [(&str, Reader); 23] = [
    ("bert", encoder::bert),
    ("deepseek_v2", experts::deepseek),
    ("deepseek_v3", experts::deepseek),
    ("distilbert", encoder::distilbert),
    ("gemma2", decoder::gemma2),
    ("gpt2", older::gpt2),
    ("grok-1", experts::grok),
    ("llama", decoder::llama),
    ("mistral", decoder::mistral),
    ("mixtral", experts::mixtral),
    ("mpt", older::mpt),
    ("mt5", sequence::t5),
    ("nemotron", decoder::nemotron),
    ("opt", older::opt),
    ("qwen2", decoder::qwen2),
    ("qwen2_moe", experts::qwen_moe),
    ("qwen3", decoder::qwen3),
    ("qwen3_moe", experts::qwen_moe),
    ("roberta", encoder::roberta),
    ("switch_transformers", sequence::switch),
    ("t5", sequence::t5),
    ("vit", encoder::vit),
    ("xlm-roberta", encoder::roberta),
];

/// Reads a `config.json`: one file, `model.toml`.
///
/// # Errors
/// Not JSON, a type that is not supported (the message names those that are), a key that the type does not have,
/// and values that are missing, of the wrong kind, out of range or at odds with each other.
pub fn hf(file: &str, text: &str) -> Result<Imported, InputError> {
    check_length(file, text)?;
    let source = Source::new(file, text);
    let root = json::parse(&source)?;
    let log = RefCell::new(Log::default());
    let fields = Fields::root(&source, &root, &log)?;
    let Some(kind) = fields.text("model_type")? else {
        return Err(fields.missing("model_type", &format!("must be one of {}", names())));
    };
    let Some(&(kind, reader)) = TYPES.iter().find(|(name, _)| *name == kind) else {
        return Err(InputError::Value {
            origin: fields.place("model_type"),
            key: "model_type".to_owned(),
            found: format!("\"{}\"", super::node::shorten(kind)),
            allowed: names(),
            nearest: nearest(&kind.to_lowercase(), TYPES.iter().map(|(name, _)| *name)),
        });
    };
    let config = Config::new(fields, kind)?;
    let model = reader(&config)?;
    config.finish()?;
    check_model(&source, &model)?;
    Ok(log.into_inner().finish("hf", vec![("model.toml", model)]))
}

fn names() -> String {
    list(TYPES.iter().map(|(name, _)| *name))
}
