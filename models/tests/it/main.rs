//! The catalogue and the work of its models, as users of the crate see them.

// Functions shared by tests may panic and print; clippy's own switch for tests sees test functions only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod autocast;
mod blocks;
mod components;
mod errors;
mod fusion;
mod groups;
mod korthikanti;
mod lora;
mod operations;
mod parameters;
mod rat;
mod saved;
mod switch;
mod transformers;
mod vision;
mod vision_saved;

use steptime_models::{AttentionKind, Dtype, Fusion, Model, Overrides, TensorParallel, WorkShape};

/// An entry as it is.
fn model(name: &str) -> Model {
    Model::from_catalogue(name, &Overrides::none()).unwrap()
}

/// A micro-batch in training.
fn shape(micro_batch: u64, sequence_length: u64, dtype: Dtype, attention: AttentionKind) -> WorkShape {
    WorkShape {
        micro_batch,
        sequence_length,
        compute: dtype,
        activation: dtype,
        attention,
        training: true,
        tensor: TensorParallel::NONE,
        fusion: Fusion::None,
        ..WorkShape::default()
    }
}
