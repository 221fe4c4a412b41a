//! Fits the costs of collectives to measurements.
//!
//! [`read_collectives`] and [`read_nccl_tests`] read measurements, [`fit`] fits the curves of a cluster's fabric
//! that have enough of them and returns a [`FabricFit`]: the fabric, its errors on sizes and groups that were held
//! out ([`FabricFit::errors`]), and the catalogue's tables ([`FabricFit::to_toml`]). [`fit_network`] does the same for
//! the links between nodes, [`fit_jobs`] for how far jobs on them lie apart.
//!
//! For given protocols every time is a sum of terms with one coefficient each, so that each curve is a convex
//! problem with one solution. Which protocol the library took is not recorded in measurements: its assumed bandwidth
//! and the size from which the switches reduce are searched on a grid.

mod between;
mod network;
mod report;
mod rows;
mod solve;
#[cfg(test)]
mod tests;
mod text;

pub use self::between::{NetworkFit, fit_network};
pub use self::network::{
    JobsFit, MULTINODE_BYTES, MULTINODE_SOURCE, SpreadRow, fit_jobs, is_spread, read_spread,
};
pub use self::report::{BandErrors, CollectiveErrors};
pub use self::rows::{CollectiveRow, CollectiveRowsError, Operation, read_collectives, read_nccl_tests};
use self::solve::{Equation, loss, non_negative};
pub use self::text::MARKER;
use crate::cluster::Cluster;
use crate::collective::{
    CollectiveKind, LARGE_SEND, Protocol, Way, largest_small_exchange, nvls_in_node, way_in_node,
};
use crate::fabric::{Costs, Curve, FILL_BYTES, Fabric};

/// Assumed bandwidths that are tried, of the port's.
const ASSUMED: [f64; 10] = [0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5, 1.7];
/// Sizes from which the switches are taken to reduce, MiB.
const NVLS_FROM: [u64; 6] = [1, 2, 4, 8, 16, 32];
/// Fewer rows of a kind than this say nothing about it.
const FEWEST_ROWS: usize = 4;
/// The same of the two coefficients of a reduction in the switches.
const FEWEST_NVLS_ROWS: usize = 3;
/// Messages up to so many times the size at which the protocol changes tell what it costs there.
const NEAR: f64 = 8.0;
/// Share of a measured time that is left where the port alone should have taken all of it.
const LEAST_BEYOND: f64 = 0.05;
/// Kinds whose rings share the latencies of the Simple protocol.
const RINGS: [CollectiveKind; 3] =
    [CollectiveKind::AllReduce, CollectiveKind::AllGather, CollectiveKind::ReduceScatter];

/// A fitted fabric.
#[derive(Clone, Debug, PartialEq)]
pub struct FabricFit {
    /// The fabric with the curves that were fitted, rounded as the catalogue writes them.
    pub fabric: Fabric,
    /// Errors by operation and size, held-out rows only; without an operation: over all.
    pub errors: Vec<BandErrors>,
    /// Names of the fitted curves between all GPUs.
    pub fitted: Vec<&'static str>,
    /// Names of the fitted curves between bridged pairs.
    pub fitted_pair: Vec<&'static str>,
    /// Whose measurements.
    pub source: String,
}

/// Fits the fabric of a cluster to the rows of single nodes. Rows of two ranks speak of the bridged pairs where there
/// are any. Curves with too few rows stay as they are.
pub fn fit(cluster: &Cluster, rows: &[CollectiveRow]) -> FabricFit {
    let rows: Vec<&CollectiveRow> = rows.iter().filter(|row| row.placement.nodes == 1).collect();
    let bridged = cluster.fabric.pair.is_some();
    let (pairs, groups): (Vec<_>, Vec<_>) =
        rows.iter().copied().partition(|row| bridged && row.placement.ranks == 2);
    let mut fitted = cluster.clone();
    let fitted_groups = fit_side(&mut fitted, Side::All, &groups);
    let fitted_pair = if bridged { fit_side(&mut fitted, Side::Pair, &pairs) } else { Vec::new() };
    FabricFit {
        errors: report::errors(&rows, cluster, &fitted),
        source: text::sources(rows.iter().map(|row| row.source.as_str())),
        fabric: fitted.fabric,
        fitted: fitted_groups,
        fitted_pair,
    }
}

/// Which links of a fabric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    All,
    Pair,
}

impl Side {
    fn costs(self, fabric: &Fabric) -> &Costs {
        match (&fabric.pair, self) {
            (Some(pair), Self::Pair) => pair,
            _ => &fabric.costs,
        }
    }

    fn costs_mut(self, fabric: &mut Fabric) -> &mut Costs {
        match (&mut fabric.pair, self) {
            (Some(pair), Self::Pair) => pair,
            (_, _) => &mut fabric.costs,
        }
    }
}

/// Fits one side in place; names of the curves that had enough rows.
fn fit_side(cluster: &mut Cluster, side: Side, rows: &[&CollectiveRow]) -> Vec<&'static str> {
    let seen: Vec<&CollectiveRow> = rows.iter().copied().filter(|row| !row.held_out()).collect();
    let direct = fit_direct(cluster, side, &seen);
    let switches: &[u64] = if side.costs(&cluster.fabric).nvls.is_some() { &NVLS_FROM } else { &[0] };
    let mut best: Option<(f64, Cluster, Vec<&'static str>)> = None;
    for share in ASSUMED {
        for from in switches {
            let mut trial = cluster.clone();
            let bandwidth = text::rounded_rate(share * trial.fabric.bandwidth);
            side.costs_mut(&mut trial.fabric).assumed_bandwidth = bandwidth;
            let names = fit_rings(&mut trial, side, &seen, from << 20);
            let error = |row: &&CollectiveRow| loss(row.predicted_s(&trial) / row.seconds - 1.0);
            let total: f64 = seen.iter().map(error).sum();
            let reduced = |row: &&CollectiveRow| in_switches(&trial, side, row, 0).is_some();
            if names.is_empty() || (seen.iter().any(reduced) && !names.contains(&"nvls")) {
                continue;
            }
            if best.as_ref().is_none_or(|(least, ..)| total < *least) {
                best = Some((total, trial, names));
            }
        }
    }
    let mut names = direct;
    if let Some((_, trial, rings)) = best {
        *cluster = trial;
        names.extend(rings);
    }
    names
}

/// Sends and all-to-alls.
fn fit_direct(cluster: &mut Cluster, side: Side, rows: &[&CollectiveRow]) -> Vec<&'static str> {
    let mut names = Vec::new();
    let (mut small, mut large) = (Vec::new(), Vec::new());
    let (mut sends, mut large_sends) = (Vec::new(), Vec::new());
    let mut exchanges = Vec::new();
    for row in rows {
        let bytes = row.bytes as f64;
        match row.operation {
            Operation::Send => {
                let list = if bytes < LARGE_SEND { &mut sends } else { &mut large_sends };
                let features = [1.0, 0.0, (bytes / FILL_BYTES).sqrt(), bytes, bytes];
                list.push(beyond_port(equation(row, &features), port_of(cluster, row)));
            }
            Operation::Collective(CollectiveKind::AllToAll) => {
                let way = way_in_node(cluster, CollectiveKind::AllToAll, row.placement.ranks, row.bytes);
                let list = if way.protocol == Protocol::Simple { &mut large } else { &mut small };
                list.push(equation(row, &features(&way)));
                exchanges.push((row.placement.ranks, way));
            }
            Operation::Collective(_) => {}
        }
    }
    let port = rows.first().map_or(f64::INFINITY, |row| port_of(cluster, row));
    let costs = side.costs_mut(&mut cluster.fabric);
    if small.len() >= FEWEST_ROWS && large.len() >= FEWEST_ROWS {
        costs.small_all_to_all = text::rounded(&curve_of(&non_negative(&small)));
        large.extend(continued(&costs.small_all_to_all, &exchanges));
        costs.all_to_all = text::rounded(&curve_of(&non_negative(&large)));
        names.extend(["small_all_to_all", "all_to_all"]);
    }
    if sends.len() >= FEWEST_ROWS {
        costs.point_to_point = text::rounded(&curve_beyond(port, &non_negative(&sends)));
        names.push("point_to_point");
    }
    if large_sends.len() >= FEWEST_ROWS {
        costs.large_point_to_point = Some(text::rounded(&curve_beyond(port, &non_negative(&large_sends))));
        names.push("large_point_to_point");
    }
    names
}

/// Where the library changes from small to larger exchanges both take about the same. This tells the latency of the
/// larger ones for numbers of ranks of which only long messages were measured.
fn continued(small: &Curve, exchanges: &[(u32, Way)]) -> Vec<Equation> {
    let mut ranks: Vec<u32> = exchanges.iter().map(|(ranks, _)| *ranks).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let ends = ranks.into_iter().filter_map(|ranks| {
        let end = largest_small_exchange(ranks);
        let known = exchanges.iter().any(|(of, way)| {
            *of == ranks && way.protocol == Protocol::Simple && way.handled <= NEAR * end.handled
        });
        let measured = small.fixed_s(end.hops, end.handled) + small.flow_s(end.wire, end.handled);
        (!known).then(|| Equation { features: features(&end).to_vec(), measured })
    });
    ends.collect()
}

/// Rings in all protocols, and the reduction in the switches of larger groups from a size on.
fn fit_rings(
    cluster: &mut Cluster,
    side: Side,
    rows: &[&CollectiveRow],
    nvls_from: u64,
) -> Vec<&'static str> {
    let (mut ll, mut ll128, mut nvls) = (Vec::new(), Vec::new(), Vec::new());
    let mut simple: Vec<(CollectiveKind, Equation)> = Vec::new();
    for row in rows {
        let Operation::Collective(kind) = row.operation else { continue };
        if !RINGS.contains(&kind) {
            continue;
        }
        if let Some(way) = in_switches(cluster, side, row, nvls_from) {
            nvls.push(equation(row, &[0.0, way.hops, filling(&way), way.wire, 0.0]));
            continue;
        }
        let way = way_in_node(cluster, kind, row.placement.ranks, row.bytes);
        let equation = equation(row, &features(&way));
        match way.protocol {
            Protocol::LowLatency => ll.push(beyond_port(equation, port_of(cluster, row))),
            Protocol::LowLatency128 => ll128.push(beyond_port(equation, port_of(cluster, row))),
            Protocol::Simple => simple.push((kind, equation)),
        }
    }
    let port = rows.first().map_or(f64::INFINITY, |row| port_of(cluster, row));
    let costs = side.costs_mut(&mut cluster.fabric);
    let mut names = Vec::new();
    if ll.len() >= FEWEST_ROWS {
        costs.ll = text::rounded(&curve_beyond(port, &non_negative(&ll)));
        names.push("ll");
    }
    if let Some(place) = costs.ll128.as_mut().filter(|_| ll128.len() >= FEWEST_ROWS) {
        *place = text::rounded(&curve_beyond(port, &non_negative(&ll128)));
        names.push("ll128");
    }
    if let Some(place) = costs.nvls.as_mut().filter(|_| nvls.len() >= FEWEST_NVLS_ROWS) {
        *place = text::rounded(&curve_of(&non_negative(&nvls)));
        names.push("nvls");
    }
    names.extend(fit_simple(costs, &simple));
    names
}

/// How the switches reduce a row, if they are taken to do it: all-reduces of whole nodes from a size on. Smaller groups
/// reach more with rings.
fn in_switches(cluster: &Cluster, side: Side, row: &CollectiveRow, from: u64) -> Option<Way> {
    side.costs(&cluster.fabric).nvls?;
    let wanted = row.operation == Operation::Collective(CollectiveKind::AllReduce)
        && row.placement.ranks >= cluster.gpus_per_node
        && row.bytes >= from;
    nvls_in_node(row.placement.ranks, row.bytes).filter(|_| wanted)
}

/// Rings in the Simple protocol: start and step are the same for all kinds; filling and rates are not, as some kinds add
/// what arrives and others only pass it on.
fn fit_simple(costs: &mut Costs, rows: &[(CollectiveKind, Equation)]) -> Vec<&'static str> {
    let enough = |kind: &CollectiveKind| rows.iter().filter(|(of, _)| of == kind).count() >= FEWEST_ROWS;
    let kinds: Vec<CollectiveKind> = RINGS.into_iter().filter(enough).collect();
    let equations: Vec<Equation> = rows
        .iter()
        .filter_map(|(kind, equation)| {
            let place = kinds.iter().position(|of| of == kind)?;
            let (latencies, rates) = equation.features.split_at(2);
            let mut features = latencies.to_vec();
            features.resize(2 + 3 * kinds.len(), 0.0);
            features.get_mut(2 + 3 * place..5 + 3 * place)?.copy_from_slice(rates);
            Some(Equation { features, measured: equation.measured })
        })
        .collect();
    let found = non_negative(&equations);
    let (latencies, rates) = found.split_at(found.len().min(2));
    let mut names = Vec::new();
    for (kind, rates) in kinds.iter().zip(rates.chunks(3)) {
        let (name, place) = match kind {
            CollectiveKind::AllReduce => ("all_reduce", &mut costs.all_reduce),
            CollectiveKind::AllGather => ("all_gather", &mut costs.all_gather),
            _ => ("reduce_scatter", &mut costs.reduce_scatter),
        };
        *place = text::rounded(&curve_of(&[latencies, rates].concat()));
        names.push(name);
    }
    names
}

/// What each part of a curve is multiplied with: start, step, filling, bytes through the port, bytes handled.
fn features(way: &Way) -> [f64; 5] {
    [1.0, way.hops, filling(way), way.wire, way.handled]
}

/// What [`Curve::fill_s`] is multiplied with.
fn filling(way: &Way) -> f64 {
    (way.handled / FILL_BYTES).sqrt()
}

fn equation(row: &CollectiveRow, features: &[f64]) -> Equation {
    Equation { features: features.to_vec(), measured: row.seconds }
}

/// What a row takes beyond the time of its bytes through a port at the port's full rate, which nothing undercuts. The
/// protocols with flags are bound by the GPU, which writes and polls flags for all that it handles, and a send has no
/// other bytes than those on the wire: one rate besides the port's is all that their rows tell.
fn beyond_port(mut equation: Equation, port: f64) -> Equation {
    if let Some(wire) = equation.features.get_mut(3) {
        equation.measured = (equation.measured - *wire / port).max(LEAST_BEYOND * equation.measured);
        *wire = 0.0;
    }
    equation
}

/// The curve of such rows.
fn curve_beyond(port: f64, found: &[f64]) -> Curve {
    Curve { wire: port, ..curve_of(found) }
}

/// The rate of a member's port in a row's group, bytes/s.
fn port_of(cluster: &Cluster, row: &CollectiveRow) -> f64 {
    cluster.fabric_bandwidth(row.placement.ranks)
}

fn curve_of(found: &[f64]) -> Curve {
    let part = |index: usize| found.get(index).copied().unwrap_or(0.0);
    // Coefficients this small are rounding errors of zero.
    let rate = |index: usize| if part(index) > 1e-15 { 1.0 / part(index) } else { f64::INFINITY };
    Curve { start_s: part(0), hop_s: part(1), fill_s: part(2), wire: rate(3), touch: rate(4) }
}

/// Rows that the presets of the catalogue are fitted to, of a table with those of aiconfigurator and Vidur; none for a
/// preset that is not fitted.
///
/// Vidur's all-reduces over switches are left out: an older library that did not reduce in the switches, and times of
/// small messages that hold the profiler's own. So are its all-reduces below 4 MiB over the bridges of the A100, and
/// its sends over bridges: those of A100 and H100 are equal to the digit and faster than the bridges of either.
pub fn rows_of_preset(preset: &str, rows: &[CollectiveRow]) -> Vec<CollectiveRow> {
    let wanted = |row: &&CollectiveRow| {
        let from = |source: &str| row.source.starts_with(source);
        let send = row.operation == Operation::Send;
        match preset {
            "nvswitch-3" => {
                row.gpu == "a100-80gb-sxm" && (from("aiconfigurator") || (send && from("vidur:a100_dgx")))
            }
            "nvswitch-4" => {
                row.gpu == "h100-80gb-sxm" && (from("aiconfigurator") || (send && from("vidur:h100_dgx")))
            }
            "pcie4" => row.gpu == "l40s",
            "nvlink-bridge-a100" => from("vidur:a100_pairwise") && !send && row.bytes >= 4 << 20,
            "nvlink-bridge-h100" => from("vidur:h100_pairwise") && !send,
            _ => false,
        }
    };
    rows.iter().filter(wanted).filter(|row| row.placement.nodes == 1).cloned().collect()
}
