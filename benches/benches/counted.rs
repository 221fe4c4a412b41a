//! Small works whose instructions are counted: the same every time, a second or two under an instrument.

use std::hint::black_box;

use steptime_benches as set_up;
use steptime_benches::{Delays, SetUp};
use steptime_core::allocator::{Allocator, Config};
use steptime_core::{NoObserver, simulate};

/// A name and its work.
type Counted = (&'static str, fn() -> SetUp<()>);

pub(crate) const COUNTED: [Counted; 11] = [
    ("queue", || {
        queue();
        Ok(())
    }),
    ("interpreter", interpreter),
    ("allocator", allocator),
    ("max-min", max_min),
    ("ring", ring),
    ("lowering", lowering),
    ("explicit", explicit),
    ("tensor-parallel", tensor_parallel),
    ("run", run_small),
    ("run-pipeline", run_pipeline),
    ("screen", screen),
];

/// Does the work of this name.
pub(crate) fn run(name: &str) -> SetUp<()> {
    let known = COUNTED.iter().find(|(known, _)| *known == name);
    known.ok_or_else(|| format!("no work {name}"))?.1()
}

fn queue() {
    let mut delays = Delays::default();
    let mut queue = set_up::event_queue(10_000, &mut delays);
    for _ in 0..100_000 {
        black_box(set_up::hold_in_event_queue(&mut queue, &mut delays));
    }
}

fn interpreter() -> SetUp<()> {
    let world = set_up::one_rank(&set_up::kernels(500_000), 1024)?;
    black_box(simulate(&world, &mut NoObserver)?);
    Ok(())
}

fn allocator() -> SetUp<()> {
    let turns = set_up::training_step();
    let mut allocator = Allocator::new(Config::default())?;
    let mut slots = set_up::slots();
    for _ in 0..50 {
        black_box(set_up::play_step(&mut allocator, &mut slots, &turns)?);
    }
    Ok(())
}

fn max_min() -> SetUp<()> {
    black_box(simulate(&set_up::all_to_all(64, 1 << 20)?, &mut NoObserver)?);
    Ok(())
}

fn ring() -> SetUp<()> {
    black_box(simulate(&set_up::ring(128, 1 << 20)?, &mut NoObserver)?);
    Ok(())
}

fn lowering() -> SetUp<()> {
    black_box(set_up::lower_scenario_times(&set_up::gpt3(false)?)?);
    Ok(())
}

fn explicit() -> SetUp<()> {
    let small = ["cluster.nodes=16", "parallelism.data=16", "workload.global_batch_size=128"];
    let lowered = set_up::lower_scenario(&set_up::gpt3_with(true, &small.map(str::to_owned))?)?;
    black_box(simulate(&lowered.world, &mut NoObserver)?);
    Ok(())
}

/// Pipelines of ranks that share their layers: most of their meetings are sums within a node.
fn tensor_parallel() -> SetUp<()> {
    let lowered = set_up::lower_scenario_times(&set_up::megatron(320)?)?;
    black_box(simulate(&lowered.world, &mut NoObserver)?);
    Ok(())
}

fn run_pipeline() -> SetUp<()> {
    black_box(set_up::read_and_run("gpt3.toml", set_up::GPT3)?);
    Ok(())
}

fn run_small() -> SetUp<()> {
    let (file, text) = set_up::SCENARIOS[1];
    black_box(set_up::read_and_run(file, text)?);
    Ok(())
}

fn screen() -> SetUp<()> {
    black_box(set_up::screen(&["search.nodes=[8]"])?);
    Ok(())
}
