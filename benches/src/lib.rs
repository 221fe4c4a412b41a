//! Set-ups of the workspace's benchmarks: what is played, and the plain loops it is measured beside.
//!
//! The benchmarks themselves are in `benches/`; whatever they need built before the clock starts is here,
//! where tests reach it.

mod allocator;
mod flows;
mod kernels;
mod queue;
mod scenarios;
mod vehicles;

use std::error::Error;

pub use allocator::{Turn, bare_step, play_step, slots, training_step};
pub use flows::{RATE, all_to_all, bare_flows, ring};
pub use kernels::{Kernel, bare_loop, kernels, one_rank};
pub use queue::{
    BinaryHeapOfKeys, Delays, binary_heap, event_queue, hold_in_binary_heap, hold_in_event_queue,
};
pub use scenarios::{
    GPT3, MEGATRON_530B, NoFiles, SCENARIOS, gpt3, gpt3_with, large_sweep, lower_scenario,
    lower_scenario_times, megatron, read, read_and_run, read_and_run_with, screen, search_64, sweep, years,
};
pub use vehicles::slowest_of_ten_vehicles;

/// A set-up, or why it is not legal.
pub type SetUp<T> = Result<T, Box<dyn Error>>;
