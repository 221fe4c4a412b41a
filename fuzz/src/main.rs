//! Fuzz targets of everything that reads what somebody else wrote, and of what plays it.
//!
//! One binary holds all; the variable `STEPTIME_FUZZ` names the target. `.ci/fuzz` builds and runs them.

#![no_main]

mod allocator;
mod plans;
mod play;
mod results;
mod tables;
mod texts;
mod tokens;

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

/// What a target does with an input; it panics where a promise is broken.
type Target = fn(&[u8]);

const TARGETS: [(&str, Target, Form); 19] = [
    ("scenario", texts::scenario, Form::Text),
    ("schedule", texts::schedule, Form::Text),
    ("part", texts::part, Form::Text),
    ("results", results::results, Form::Text),
    ("catalogue", texts::catalogue, Form::Text),
    ("hf", texts::hf, Form::Text),
    ("deepspeed", texts::deepspeed, Form::Text),
    ("megatron", texts::megatron, Form::Text),
    ("torchtitan", texts::torchtitan, Form::Text),
    ("swift", texts::swift, Form::Text),
    ("stages", texts::stages, Form::Text),
    ("safetensors", texts::safetensors, Form::Bytes),
    ("chakra", tables::chakra, Form::Bytes),
    ("rows", tables::rows, Form::Text),
    ("kernels", tables::kernels, Form::Text),
    ("fabric", tables::fabric, Form::Text),
    ("kineto", tables::kineto, Form::Text),
    ("allocator", allocator::allocator, Form::Bytes),
    ("plans", plans::plans, Form::Bytes),
];

/// How inputs of a target are changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// By bytes, and by numbers, words and lines.
    Text,
    /// By bytes alone.
    Bytes,
}

static TARGET: LazyLock<(Target, Form)> = LazyLock::new(|| {
    let name = std::env::var("STEPTIME_FUZZ").unwrap_or_default();
    let found = TARGETS.iter().find(|(known, ..)| *known == name);
    let names: Vec<&str> = TARGETS.iter().map(|(known, ..)| *known).collect();
    let (_, target, form) = found.unwrap_or_else(|| panic!("STEPTIME_FUZZ is one of {}", names.join(", ")));
    (*target, *form)
});

fuzz_target!(|data: &[u8]| (TARGET.0)(data));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if TARGET.1 == Form::Text
        && seed % 2 == 0
        && let Some(changed) = tokens::changed(&data[..size], seed / 2)
        && changed.len() <= max_size
    {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    fuzzer_mutate(data, size, max_size)
});
