//! Tests of the whole program, from the command line inwards.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

mod calibrate;
mod calibrate_framework;
mod check;
mod compare;
mod cost;
mod data_loading;
mod deepspeed_keys;
mod determinism;
mod documents;
mod errors;
mod experts;
mod fidelity;
mod figures;
mod fine_tuning;
mod goldens;
mod hooks;
mod import;
mod invariants;
mod max_batch;
mod memory_snapshot;
mod model_search;
mod networks;
mod offload;
#[cfg(feature = "parquet")]
mod parquet;
mod plans;
mod scenarios;
mod schedules;
mod search;
mod serve;
mod support;
mod sweep;
mod switch_vit;
mod terminal;
mod trust;
mod validate;
mod variability;
mod verdicts;
mod zero_bubble_paper;
