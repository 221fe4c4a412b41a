//! How work grows: the slope of the logarithms of time and size.

use steptime_benches as set_up;
use steptime_benches::SetUp;
use steptime_core::{NoObserver, simulate};
use steptime_plans::Lowered;

use crate::row::{Row, best};

/// Exponent between two sizes of what takes so many seconds.
#[expect(clippy::disallowed_methods, reason = "what was measured differs from run to run in any case")]
fn exponent(sizes: [f64; 2], seconds: [f64; 2], limit: f64) -> Row {
    let exponent = (seconds[1] / seconds[0]).ln() / (sizes[1] / sizes[0]).ln();
    let note =
        format!("{:.2} ms at {}, {:.2} ms at {}", seconds[0] * 1e3, sizes[0], seconds[1] * 1e3, sizes[1]);
    Row { measured: exponent, limit: Some(limit), unit: "", floor: None, note }
}

fn options(pairs: &[(&str, u64)]) -> Vec<String> {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect()
}

fn nodes(nodes: u64) -> [(&'static str, u64); 3] {
    [("cluster.nodes", nodes), ("parallelism.data", nodes), ("workload.global_batch_size", 8 * nodes)]
}

/// Seconds of playing at two sizes, in turns, so that whatever else the machine does hits both.
fn of_play(
    explicit: bool,
    sizes: [u64; 2],
    keys: impl Fn(u64) -> Vec<(&'static str, u64)>,
    limit: f64,
) -> SetUp<Row> {
    let lowered = |size| set_up::lower_scenario(&set_up::gpt3_with(explicit, &options(&keys(size)))?);
    Ok(in_turns(sizes, &[lowered(sizes[0])?, lowered(sizes[1])?], limit))
}

fn in_turns(sizes: [u64; 2], lowered: &[Lowered; 2], limit: f64) -> Row {
    let mut seconds = [f64::INFINITY; 2];
    for _ in 0..25 {
        for (least, lowered) in seconds.iter_mut().zip(lowered) {
            *least = least.min(best(1, || simulate(&lowered.world, &mut NoObserver).is_ok()));
        }
    }
    exponent(sizes.map(|size| size as f64), seconds, limit)
}

pub(crate) fn explicit() -> SetUp<Row> {
    of_play(true, [16, 128], |size| nodes(size).to_vec(), 1.05)
}

pub(crate) fn replicas() -> SetUp<Row> {
    of_play(false, [128, 8192], |size| nodes(size).to_vec(), 0.05)
}

fn batches(size: u64) -> Vec<(&'static str, u64)> {
    vec![("workload.global_batch_size", 128 * size)]
}

pub(crate) fn micro_batches() -> SetUp<Row> {
    of_play(false, [32, 256], batches, 1.05)
}

/// Of a step's times, most of which is what was before, only later.
pub(crate) fn rounds() -> SetUp<Row> {
    let lowered = |size| set_up::lower_scenario_times(&set_up::gpt3_with(false, &options(&batches(size)))?);
    Ok(in_turns([256, 2048], &[lowered(256)?, lowered(2048)?], 0.5))
}

pub(crate) fn layers() -> SetUp<Row> {
    of_play(false, [96, 768], |size| vec![("model.overrides.layers", size)], 1.05)
}

pub(crate) fn lowering() -> SetUp<Row> {
    let seconds = |size: u64| -> SetUp<f64> {
        let scenario = set_up::gpt3_with(false, &options(&batches(size)))?;
        Ok(best(5, || set_up::lower_scenario(&scenario).is_ok()))
    };
    let [few, many] = [seconds(32)?, seconds(256)?];
    Ok(exponent([32.0, 256.0], [few, many], 1.05))
}

/// Messages grow with the square of the ranks.
pub(crate) fn ring() -> SetUp<Row> {
    let seconds = |ranks: u32| -> SetUp<f64> {
        let world = set_up::ring(ranks, 1 << 20)?;
        Ok(best(3, || simulate(&world, &mut NoObserver).is_ok()))
    };
    let [few, many] = [seconds(128)?, seconds(512)?];
    Ok(exponent([128.0, 512.0], [few, many], 2.1))
}
