//! The works of the table of gates.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use steptime_benches as set_up;
use steptime_benches::{Delays, SetUp};
use steptime_core::allocator::{Allocator, Config};
use steptime_core::{NoObserver, simulate};

use crate::row::{Row, best};

pub(crate) fn hold(pending: u64) -> Row {
    const HOLDS: u64 = 200_000;
    let (mut left, mut right) = (Delays::default(), Delays::default());
    let mut queue = set_up::event_queue(pending, &mut left);
    let mut heap = set_up::binary_heap(pending, &mut right);
    let mut fifo: VecDeque<u64> = (0..pending).collect();
    let (mut ours, mut theirs, mut least) = (f64::INFINITY, f64::INFINITY, f64::INFINITY);
    // In turns, so that whatever else the machine does hits all.
    for _ in 0..9 {
        ours = ours.min(best(1, || {
            for _ in 0..HOLDS {
                black_box(set_up::hold_in_event_queue(&mut queue, &mut left));
            }
        }));
        theirs = theirs.min(best(1, || {
            for _ in 0..HOLDS {
                black_box(set_up::hold_in_binary_heap(&mut heap, &mut right));
            }
        }));
        least = least.min(best(1, || {
            for _ in 0..HOLDS {
                if let Some(first) = fifo.pop_front() {
                    fifo.push_back(black_box(first) + right.draw());
                }
            }
        }));
    }
    let nanos = |seconds: f64| seconds / HOLDS as f64 * 1e9;
    let note = format!("{:.2} of std's heap; first in, first out {:.1} ns", ours / theirs, nanos(least));
    Row {
        measured: nanos(ours),
        limit: Some(nanos(theirs)),
        unit: "ns",
        floor: Some((nanos(theirs), "std heap")),
        note,
    }
}

pub(crate) fn interpreter(depth: u32) -> SetUp<Row> {
    const KERNELS: u64 = 1_000_000;
    let kernels = set_up::kernels(KERNELS);
    let world = set_up::one_rank(&kernels, depth)?;
    let nanos = |seconds: f64| seconds / KERNELS as f64 * 1e9;
    let bare = nanos(best(9, || set_up::bare_loop(black_box(&kernels))));
    let ours = nanos(best(9, || simulate(&world, &mut NoObserver).is_ok()));
    let floor = Some((bare, "max-plus loop"));
    Ok(Row { measured: ours, limit: None, unit: "ns", floor, note: String::new() })
}

pub(crate) fn allocator() -> SetUp<Row> {
    let turns = set_up::training_step();
    let mut allocator = Allocator::new(Config::default())?;
    let mut slots = set_up::slots();
    let seconds = best(200, || set_up::play_step(&mut allocator, &mut slots, &turns).is_ok());
    let mut sizes: Vec<Option<u64>> = slots.iter().map(|_| None).collect();
    let bare = best(200, || set_up::bare_step(&mut sizes, &turns));
    let pairs = turns.len() as f64 / 2.0;
    let note = format!("{:.1} million pairs/s", pairs / seconds / 1e6);
    let floor = Some((bare / pairs * 1e9, "sizes noted"));
    Ok(Row { measured: seconds / pairs * 1e9, limit: Some(200.0), unit: "ns", floor, note })
}

pub(crate) fn exchange() -> SetUp<Row> {
    let world = set_up::all_to_all(256, 1 << 20)?;
    let ours = best(3, || simulate(&world, &mut NoObserver).is_ok());
    let bare = best(3, || set_up::bare_flows(65_280, 1 << 20));
    let floor = Some((bare * 1e3, "starts and ends"));
    Ok(Row { measured: ours * 1e3, limit: Some(50.0), unit: "ms", floor, note: String::new() })
}

pub(crate) fn lowering() -> SetUp<Row> {
    let scenario = set_up::gpt3(false)?;
    let lowered = set_up::lower_scenario_times(&scenario)?;
    let records = simulate(&lowered.world, &mut NoObserver)?.operations;
    let ours = best(9, || set_up::lower_scenario_times(&scenario).is_ok());
    let bare = best(9, || (0..records).map(|at| [at, at + 1, at + 2]).collect::<Vec<_>>());
    let floor = Some((bare * 1e3, "records written"));
    let note = format!("{:.0} ns a record", ours / records as f64 * 1e9);
    Ok(Row { measured: ours * 1e3, limit: None, unit: "ms", floor, note })
}

/// What a max-plus loop over as many kernels takes, milliseconds. A million are looped over, so that the memory of the process
/// is that of the work itself.
fn loop_over(kernels: u64) -> f64 {
    const LOOPED: u64 = 1_000_000;
    let looped = set_up::kernels(LOOPED);
    best(5, || set_up::bare_loop(black_box(&looped))) * 1e3 * kernels as f64 / LOOPED as f64
}

/// From the text of a scenario to its report, once from the start of the process and then again.
fn job(text: &str, options: &[String], limit_ms: f64) -> SetUp<Row> {
    let start = Instant::now();
    let report = set_up::read_and_run_with("scenario.toml", text, options)?;
    let first = start.elapsed().as_secs_f64();
    let again = best(4, || set_up::read_and_run_with("scenario.toml", text, options).is_ok());
    let step = report.step_time_s.unwrap_or_default();
    let note = format!("then {:.1} ms; a step of {step:.3} s", again * 1e3);
    Ok(Row { measured: first.min(again) * 1e3, limit: Some(limit_ms), unit: "ms", floor: None, note })
}

pub(crate) fn gpt3() -> SetUp<Row> {
    job(set_up::GPT3, &[], 15.0)
}

pub(crate) fn megatron() -> SetUp<Row> {
    job(set_up::MEGATRON_530B, &[], 100.0)
}

pub(crate) fn first_number() -> SetUp<Row> {
    job(set_up::SCENARIOS[1].1, &[], 10.0)
}

pub(crate) fn large() -> SetUp<Row> {
    let options = ["cluster.nodes=12544", "parallelism.data=12544", "workload.global_batch_size=100352"];
    job(set_up::GPT3, &options.map(str::to_owned), 50.0)
}

/// Seconds of lowering and playing every rank of GPT-3 175B, with memory accounting, and records that they play.
fn play_explicit(options: &[String]) -> SetUp<(f64, u64)> {
    let scenario = set_up::gpt3_with(true, options)?;
    let start = Instant::now();
    let lowered = set_up::lower_scenario(&scenario)?;
    let operations = simulate(&lowered.world, &mut NoObserver)?.operations;
    Ok((start.elapsed().as_secs_f64(), operations))
}

pub(crate) fn explicit() -> SetUp<Row> {
    let (first, operations) = play_explicit(&[])?;
    let seconds = first.min(play_explicit(&[])?.0).min(play_explicit(&[])?.0);
    let note = format!("{:.1} M records", operations as f64 / 1e6);
    Ok(Row { measured: seconds * 1e3, limit: Some(250.0), unit: "ms", floor: None, note })
}

/// A step is played at the grain of operations, finer than the layers for which the limit is given.
pub(crate) fn explicit_16k() -> SetUp<Row> {
    let options = ["cluster.nodes=2048", "parallelism.data=2048", "workload.global_batch_size=16384"];
    let (measured, operations) = play_explicit(&options.map(str::to_owned))?;
    let note = format!("{:.1} M records", operations as f64 / 1e6);
    Ok(Row { measured, limit: Some(10.0), unit: "s", floor: None, note })
}

pub(crate) fn megatron_times() -> SetUp<Row> {
    let scenario = set_up::read("megatron.toml", set_up::MEGATRON_530B)?;
    let mut operations = 0;
    let mut once = || -> SetUp<f64> {
        let start = Instant::now();
        let lowered = set_up::lower_scenario_times(&scenario)?;
        operations = simulate(&lowered.world, &mut NoObserver)?.operations;
        Ok(start.elapsed().as_secs_f64())
    };
    let seconds = once()?.min(once()?).min(once()?);
    let note = format!("{:.2} M records", operations as f64 / 1e6);
    let floor = Some((loop_over(operations), "max-plus loop"));
    Ok(Row { measured: seconds * 1e3, limit: Some(100.0), unit: "ms", floor, note })
}

pub(crate) fn ring() -> SetUp<Row> {
    let start = Instant::now();
    let world = set_up::ring(2048, 1 << 20)?;
    let outcome = simulate(&world, &mut NoObserver)?;
    let seconds = start.elapsed().as_secs_f64();
    let bare = best(3, || set_up::bare_flows(2 * 2047 * 2048, 1 << 20));
    let note = format!("ends at {:.3} ms", outcome.end.seconds() * 1e3);
    Ok(Row { measured: seconds, limit: Some(0.8), unit: "s", floor: Some((bare, "starts and ends")), note })
}

pub(crate) fn screen() -> SetUp<Row> {
    let plans = set_up::screen(&[])?;
    let seconds = best(3, || set_up::screen(&[]).is_ok());
    let each = seconds / plans as f64;
    let note = format!("{plans} plans, {:.1} us each", each * 1e6);
    // Two cores are promised; this is one.
    Ok(Row { measured: each * 1e4, limit: Some(0.25), unit: "s", floor: None, note })
}

pub(crate) fn sweep() -> SetUp<Row> {
    let mut points = 0;
    let mut failed = None;
    let seconds = best(2, || match set_up::sweep() {
        Ok(played) => points = played,
        Err(error) => failed = Some(error),
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let each = seconds / points as f64;
    let note = format!("{points} points, {:.2} ms each", each * 1e3);
    Ok(Row { measured: each * 1e4, limit: Some(10.0), unit: "s", floor: None, note })
}

/// The large sweep as users run it: on all cores, once.
pub(crate) fn large_sweep() -> SetUp<Row> {
    let start = Instant::now();
    let (points, refused) = set_up::large_sweep()?;
    let measured = start.elapsed().as_secs_f64();
    let note = format!("{points} points, {refused} of them refused");
    Ok(Row { measured, limit: Some(10.0), unit: "s", floor: None, note })
}

pub(crate) fn search_64() -> SetUp<Row> {
    let start = Instant::now();
    let (played, proven) = set_up::search_64()?;
    let measured = start.elapsed().as_secs_f64();
    let note = format!("{played} plans played, the best one {}proven", if proven { "" } else { "not " });
    Ok(Row { measured, limit: Some(20.0), unit: "s", floor: None, note })
}

pub(crate) fn years() -> SetUp<Row> {
    let mut goodput = 0.0;
    let mut failed = None;
    let measured = best(2, || match set_up::years() {
        Ok(mean) => goodput = mean,
        Err(error) => failed = Some(error),
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let note = format!("100 years with failures, goodput {:.2} %", 100.0 * goodput);
    Ok(Row { measured, limit: Some(2.0), unit: "s", floor: None, note })
}

pub(crate) fn vehicles() -> SetUp<Row> {
    let measured = set_up::slowest_of_ten_vehicles(30)?;
    let note = "the slowest of 30 random clusters with three models".to_owned();
    Ok(Row { measured, limit: Some(1.0), unit: "s", floor: None, note })
}
