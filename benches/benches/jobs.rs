//! Whole jobs: from a model to a step time.

use criterion::{Criterion, Throughput};
use steptime_benches as set_up;
use steptime_benches::SetUp;
use steptime_core::{NoObserver, simulate};

/// GPT-3 175B on 1,024 GPUs: lowering alone, then playing what came of it, folded and every rank.
pub(crate) fn gpt3(criterion: &mut Criterion) -> SetUp<()> {
    let mut group = criterion.benchmark_group("gpt3-175b");
    let mut jobs = Vec::new();
    for (name, explicit) in [("folded", false), ("explicit", true)] {
        let scenario = set_up::gpt3(explicit)?;
        jobs.push((name, set_up::lower_scenario(&scenario)?));
        group.bench_function(format!("lower, {name}"), |b| b.iter(|| set_up::lower_scenario(&scenario)));
    }
    for (name, lowered) in &jobs {
        let operations = simulate(&lowered.world, &mut NoObserver)?.operations;
        group.throughput(Throughput::Elements(operations));
        group.bench_function(format!("play, {name}"), |b| {
            b.iter(|| simulate(&lowered.world, &mut NoObserver));
        });
    }
    group.finish();
    Ok(())
}

/// From the text of a scenario to its report.
pub(crate) fn scenarios(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("read and run");
    for (file, text) in set_up::SCENARIOS {
        group.bench_function(file, |b| b.iter(|| set_up::read_and_run(file, text)));
    }
    group.finish();
}
