//! Playing execution traces on a cluster.

use serde::Serialize;
use steptime_clusters::Cluster;
use steptime_core::{Recorder, SimTime, simulate};
use steptime_models::Dtype;
use steptime_plans::{TraceWork, classes, lower_trace};
use steptime_scenarios::{Place, Recording};

use super::ChakraError;
use super::read::RankTrace;

/// How traces are played.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayOptions {
    /// What computations take is multiplied by this: a guess of how another GPU compares with the traced one.
    pub compute_scale: f64,
}

impl Default for ReplayOptions {
    fn default() -> Self {
        Self { compute_scale: 1.0 }
    }
}

/// Schema of a [`ReplayReport`].
const SCHEMA: &str = "steptime.replay/1";

/// What became of the traces.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayReport {
    /// `steptime.replay/1`.
    pub schema: &'static str,
    /// Name of the cluster.
    pub cluster: String,
    /// From the first operation to the end of the last, seconds.
    pub makespan_s: f64,
    /// Computations that the traces give no duration for, priced from data sheets by their operations and bytes.
    pub priced_nodes: usize,
    /// The ranks.
    pub ranks: Vec<ReplayRank>,
}

/// One rank of a replay.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayRank {
    /// Its number.
    pub rank: u64,
    /// When it was done, seconds.
    pub end_s: f64,
    /// Operations in its trace.
    pub nodes: usize,
    /// Seconds that its streams spent in computations and copies, host apart.
    pub compute_s: f64,
    /// Seconds in collectives and transfers whose members were all there.
    pub communication_s: f64,
    /// Seconds in which they waited for others.
    pub waiting_s: f64,
}

/// A report, and what it was made from.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// The numbers.
    pub report: ReplayReport,
    /// What happened when.
    pub recording: Recording,
}

/// Plays the traces of ranks 0, 1, ... on the GPUs of a cluster.
///
/// # Errors
/// Collectives and transfers that do not match, ranks that wait for each other for ever, or more ranks than GPUs.
pub fn replay(
    name: &str,
    cluster: &Cluster,
    mut ranks: Vec<RankTrace>,
    options: &ReplayOptions,
) -> Result<Replayed, ChakraError> {
    let message = |text: String| ChakraError::Replay { message: text };
    let mut priced_nodes = 0;
    for trace in &mut ranks {
        for (at, operations, bytes) in std::mem::take(&mut trace.unpriced) {
            let seconds = roofline(cluster, operations, bytes);
            let time = SimTime::from_seconds(seconds).map_err(|error| message(error.to_string()))?;
            trace.nodes[at].work = TraceWork::Busy(time);
            priced_nodes += 1;
        }
        for node in trace.nodes.iter_mut().filter(|node| node.stream != "host") {
            if let TraceWork::Busy(time) = &mut node.work {
                *time = scaled(*time, options.compute_scale);
            }
        }
    }
    let nodes: Vec<Vec<_>> = ranks.into_iter().map(|trace| trace.nodes).collect();
    let world = lower_trace(cluster, &nodes).map_err(|error| message(error.to_string()))?;
    let mut recorder = Recorder::new();
    let outcome = simulate(&world, &mut recorder).map_err(|error| message(error.to_string()))?;
    let places = (0..nodes.len() as u64).map(|rank| Place {
        rank,
        stage: 0,
        multiplicity: 1,
        device: cluster.kind(cluster.kind_of(rank)).gpu.name.clone(),
        capacity_bytes: cluster.kind(cluster.kind_of(rank)).gpu.memory.0,
    });
    let rank = |(number, result): (usize, &steptime_core::RankOutcome)| {
        let program = &world.programs()[world.ranks()[number].program as usize];
        let device = result.streams.iter().zip(program.streams()).filter(|(_, name)| *name != "host");
        let spent = |wanted: &[steptime_core::Class]| -> f64 {
            let of = |stream: &steptime_core::StreamOutcome| -> u64 {
                wanted.iter().map(|class| stream.busy[usize::from(class.0)].picos()).sum()
            };
            device.clone().map(|(stream, _)| of(stream)).sum::<u64>() as f64 / 1e12
        };
        ReplayRank {
            rank: number as u64,
            end_s: result.end.seconds(),
            nodes: nodes[number].len(),
            compute_s: spent(&[classes::FORWARD]),
            communication_s: spent(&[classes::COLLECTIVE, classes::TRANSFER]),
            waiting_s: spent(&[classes::COLLECTIVE_WAIT, classes::TRANSFER_WAIT]),
        }
    };
    let report = ReplayReport {
        schema: SCHEMA,
        cluster: cluster.name.clone(),
        makespan_s: outcome.end.seconds(),
        priced_nodes,
        ranks: outcome.ranks.iter().enumerate().map(rank).collect(),
    };
    let places = places.collect();
    let recording = Recording { name: name.to_owned(), world, recorder, outcome, places };
    Ok(Replayed { report, recording })
}

/// `factor` times as long; exactly as long for 1.
fn scaled(time: SimTime, factor: f64) -> SimTime {
    if factor.to_bits() == 1.0_f64.to_bits() {
        return time;
    }
    SimTime::from_picos((time.picos() as f64 * factor).round() as u64)
}

/// The roofline of the data sheet, seconds: operations at the peak of 16-bit matrix products, bytes at the memory's rate.
fn roofline(cluster: &Cluster, operations: u64, bytes: u64) -> f64 {
    let gpu = &cluster.gpu;
    let peak = [Dtype::Bf16, Dtype::Fp16, Dtype::Fp32].into_iter().find_map(|dtype| gpu.peak(dtype));
    let arithmetic = peak.map_or(0.0, |peak| operations as f64 / peak);
    arithmetic.max(bytes as f64 / gpu.memory_bandwidth)
}
