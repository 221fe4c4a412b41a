//! Fits the links between nodes to measured collectives over several of them.
//!
//! Every parameter is one of [`Network`]: the share of the cards' line rate, the hop in the low-latency and in the other
//! protocols, what a message costs in each, the share that a send reaches. The prediction is the one of
//! [`crate::collective()`] itself, whose protocols follow from what the network's driver tells the library of a hop. That is not in
//! the measurements; it is searched on a grid.

use super::FEWEST_ROWS;
use super::network::{JobsFit, SpreadRow, fit_jobs};
use super::report::{self, BandErrors};
use super::rows::{CollectiveRow, Operation};
use super::solve::loss;
use super::text::{rounded_seconds, sources};
use crate::calibrate::levenberg_marquardt::{Parameter, minimize};
use crate::cluster::Cluster;
use crate::coefficients::{Coefficient, CoefficientUnit};
use crate::collective::Protocol;
use crate::network::Network;

/// Latencies that drivers tell of a hop, seconds: InfiniBand and RoCE none, EFA 75 us (aws-ofi-nccl), and between.
const REPORTED: [f64; 5] = [0.0, 10e-6, 30e-6, 75e-6, 150e-6];
/// Costs of a message that a search starts from, seconds.
const MESSAGES: [f64; 2] = [1e-6, 20e-6];
/// Least and greatest time that is searched, seconds.
const TIMES: [f64; 2] = [1e-9, 1e-2];
/// Least share that is searched.
const LEAST_SHARE: f64 = 0.02;
/// Shares and logarithms of times that are fitted, by place.
const PARAMETERS: [&str; 6] = ["share", "point_to_point", "latency", "bulk_latency", "message", "ll_message"];

/// A fitted network.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkFit {
    /// The network with what was fitted, rounded as a calibration file writes it.
    pub network: Network,
    /// Names of the keys that were fitted.
    pub fitted: Vec<&'static str>,
    /// Errors by operation and size, held-out rows only; without an operation: over all. Empty where only medians of jobs were
    /// given.
    pub errors: Vec<BandErrors>,
    /// How jobs lie apart, where their spread was given.
    pub jobs: Option<JobsFit>,
    /// Whose measurements.
    pub source: String,
}

/// Fits the network of a cluster to the rows of several nodes and to the spread of jobs. What too few rows speak of stays as it
/// is. `None` without a network, and where nothing could be fitted.
///
/// With rows, a message costs what they say; without, what the jobs that agree say.
pub fn fit_network(cluster: &Cluster, rows: &[CollectiveRow], jobs: &[SpreadRow]) -> Option<NetworkFit> {
    cluster.network.as_ref()?;
    let rows: Vec<&CollectiveRow> = rows.iter().filter(|row| row.placement.nodes > 1).collect();
    let seen: Vec<&CollectiveRow> = rows.iter().copied().filter(|row| !row.held_out()).collect();
    let searched = search(cluster, &seen);
    let (mut after, mut fitted) = searched.clone().unwrap_or_else(|| (cluster.clone(), Vec::new()));
    let jobs = fit_jobs(&after, jobs);
    if let (Some(jobs), Some(network)) = (&jobs, &mut after.network) {
        if searched.is_none() {
            network.message_s = jobs.message_s;
            fitted.push("message");
        }
        network.spread.clone_from(&jobs.spread);
        fitted.push("spread");
    }
    if fitted.is_empty() {
        return None;
    }
    let names = rows.iter().map(|row| row.source.as_str());
    Some(NetworkFit {
        errors: if searched.is_some() { report::errors(&rows, cluster, &after) } else { Vec::new() },
        source: sources(names.chain(jobs.iter().map(|jobs| jobs.source.as_str()))),
        network: after.network?,
        fitted,
        jobs,
    })
}

/// The cluster with the network that predicts the rows best, and the keys that were fitted.
fn search(cluster: &Cluster, rows: &[&CollectiveRow]) -> Option<(Cluster, Vec<&'static str>)> {
    let own = cluster.network.as_ref()?;
    let mut best: Option<(f64, Cluster, Vec<&'static str>)> = None;
    for reported_latency_s in REPORTED.into_iter().chain([own.reported_latency_s]) {
        let mut start = cluster.clone();
        start.network.as_mut()?.reported_latency_s = reported_latency_s;
        let free = told(&start, rows);
        if !free.contains(&true) {
            continue;
        }
        for message in MESSAGES {
            let parameters = parameters(start.network.as_ref()?, message, free);
            let values = minimize(&parameters, &[], |values, residuals| {
                let trial = with(&start, values, free);
                residuals.clear();
                residuals.extend(rows.iter().map(|row| libm::log(row.predicted_s(&trial) / row.seconds)));
            });
            let trial = with(&start, &values, free);
            let total: f64 = rows.iter().map(|row| loss(row.predicted_s(&trial) / row.seconds - 1.0)).sum();
            if best.as_ref().is_none_or(|(least, ..)| total < *least) {
                let names = PARAMETERS.into_iter().zip(free).filter(|(_, free)| *free).map(|(name, _)| name);
                best = Some((total, trial, names.collect()));
            }
        }
    }
    let (_, trial, mut names) = best?;
    let reported = trial.network.as_ref().map_or(0.0, |network| network.reported_latency_s);
    if names.contains(&"share") && reported.max(own.reported_latency_s) > 0.0 {
        names.push("reported_latency");
    }
    Some((trial, names))
}

/// Which parameters enough rows speak of.
fn told(cluster: &Cluster, rows: &[&CollectiveRow]) -> [bool; 6] {
    let enough =
        |of: &dyn Fn(&CollectiveRow) -> bool| rows.iter().filter(|row| of(row)).count() >= FEWEST_ROWS;
    let sends = enough(&|row| row.operation == Operation::Send);
    let among = |row: &CollectiveRow, protocol| {
        row.operation != Operation::Send && row.transfer(cluster).protocol == protocol
    };
    let low = enough(&|row| among(row, Protocol::LowLatency));
    let flags = enough(&|row| among(row, Protocol::LowLatency128));
    let simple = enough(&|row| among(row, Protocol::Simple));
    let bulk = flags || simple;
    [bulk, sends, low || flags, simple || sends, bulk, low]
}

/// What a search moves, from where it starts.
fn parameters(network: &Network, message: f64, free: [bool; 6]) -> [Parameter; 6] {
    let time = |seconds: f64| libm::log(seconds.clamp(TIMES[0], TIMES[1]));
    let starts = [
        network.share,
        network.point_to_point,
        time(network.latency_s),
        time(network.bulk_latency_s),
        time(message),
        time(if network.ll_message_s > 0.0 { network.ll_message_s } else { MESSAGES[0] }),
    ];
    let mut list = starts.map(Parameter::Fixed);
    for (index, (start, place)) in starts.into_iter().zip(&mut list).enumerate() {
        if !free[index] {
            continue;
        }
        let (spread, least, most) =
            if index < 2 { (0.1, LEAST_SHARE, 1.0) } else { (1.0, libm::log(TIMES[0]), libm::log(TIMES[1])) };
        *place = Parameter::Free(Coefficient {
            key: PARAMETERS[index],
            unit: CoefficientUnit::Number,
            meaning: "",
            prior: start,
            spread,
            least,
            most,
        });
    }
    list
}

/// The cluster with these values, as a calibration file would write them; what was not fitted stays.
fn with(cluster: &Cluster, values: &[f64; 6], free: [bool; 6]) -> Cluster {
    let mut trial = cluster.clone();
    let Some(network) = &mut trial.network else { return trial };
    let share = (values[0] * 1e3).round() / 1e3;
    if free[0] && share > 0.0 {
        let factor = share / network.share;
        network.share = share;
        network.bandwidth *= factor;
        network.gpu_bandwidth *= factor;
    }
    if free[1] {
        network.point_to_point = (values[1] * 1e3).round() / 1e3;
    }
    let times = [
        &mut network.latency_s,
        &mut network.bulk_latency_s,
        &mut network.message_s,
        &mut network.ll_message_s,
    ];
    for ((place, value), free) in times.into_iter().zip(&values[2..]).zip(&free[2..]) {
        if *free {
            *place = rounded_seconds(libm::exp(*value)).max(TIMES[0]);
        }
    }
    trial
}
