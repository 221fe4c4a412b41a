//! The models that come with the program, one file each.

use crate::error::ModelError;
use crate::quantity::nearest;

macro_rules! entries {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../catalog/", $name, ".toml")))),*]
    };
}

/// Names and texts, sorted by name.
const ENTRIES: [(&str, &str); 36] = entries![
    "gpt-18b",
    "gpt2",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "gpt3-125m",
    "gpt3-175b",
    "gpt3-2.7b",
    "gpt3-350m",
    "gpt3-6.7b",
    "gpt3-760m",
    "llama2-13b",
    "llama2-70b",
    "llama2-7b",
    "llama3-70b",
    "llama3-8b",
    "llama3.1-405b",
    "llama3.1-70b",
    "llama3.1-8b",
    "llama3.2-1b",
    "llama3.2-3b",
    "megatron-1t",
    "megatron-22b",
    "megatron-530b",
    "mistral-7b",
    "switch-vit-32",
    "switch-vit-64",
    "tinyllama-1.1b",
    "visionencoder",
    "visionencoder-large",
    "visionencoder-medium",
    "visionencoder-small",
    "visionencoder-xlarge",
    "vit-cifar",
    "vit_b_16",
    "vit_l_16",
];

/// Other names of entries.
const ALIASES: [(&str, &str); 1] = [("visionencoder-original", "visionencoder")];

/// Names of all entries, sorted; aliases are not among them.
pub fn catalogue_names() -> Vec<&'static str> {
    ENTRIES.iter().map(|&(name, _)| name).collect()
}

/// The file of an entry.
pub(crate) fn text_of(name: &str) -> Result<&'static str, ModelError> {
    let canonical =
        ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |&(_, canonical)| canonical);
    let entry = ENTRIES.iter().find(|(entry, _)| *entry == canonical);
    entry.map(|&(_, text)| text).ok_or_else(|| ModelError::UnknownModel {
        name: name.to_owned(),
        nearest: nearest(name, ENTRIES.iter().map(|&(entry, _)| entry)),
        known: ENTRIES.iter().map(|&(entry, _)| entry.to_owned()).collect(),
    })
}
