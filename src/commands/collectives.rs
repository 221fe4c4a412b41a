//! `steptime clusters NAME --collectives`: what each collective takes by size, and the way that is taken for it.

use steptime_clusters::{
    Algorithm, Cluster, ClusterEntry, CollectiveKind, Placement, Protocol, Transfer, collective,
    point_to_point,
};

use crate::cli::ClustersArguments;
use crate::failure::Failure;
use crate::output;
use crate::present::{right_align, seconds, significant, table, whole_names};

/// Sizes of the array: from 1 KiB to 4 GiB, each four times the one before, as `nccl-tests -b 1K -e 4G -f 4` takes them.
const SIZES: std::ops::RangeInclusive<u32> = 5..=16;

/// One collective of one size.
struct Line {
    transfer: Transfer,
    seconds: f64,
    /// Bytes of the array a second.
    algorithm_bandwidth: f64,
    /// The same by what a link carries; see [`CollectiveKind::bus_factor`].
    bus_bandwidth: f64,
}

/// The table or, with `--json`, the document.
pub(crate) fn collectives(arguments: &ClustersArguments, entry: &ClusterEntry) -> Result<String, Failure> {
    let cluster = match entry {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(vehicles) => {
            return Err(Failure::Message(format!(
                "--collectives: the vehicles of `{}` have none",
                vehicles.name
            )));
        }
    };
    let nodes = arguments.nodes.unwrap_or(cluster.nodes);
    let gpus = arguments.gpus_per_node.unwrap_or(cluster.gpus_per_node);
    let cluster = cluster.with_size(nodes, gpus).map_err(|error| Failure::Message(error.to_string()))?;
    let ranks = u32::try_from(cluster.gpus()).map_err(|_| {
        Failure::Message(format!(
            "--nodes {nodes} --gpus-per-node {gpus}: a group has at most {} GPUs",
            u32::MAX
        ))
    })?;
    if ranks < 2 {
        return Err(Failure::Message(format!(
            "--nodes {nodes} --gpus-per-node {gpus}: one GPU has nobody to send to; a group has at least 2"
        )));
    }
    let placement = Placement { ranks, nodes: cluster.nodes };
    let kinds: Vec<(&str, Vec<Line>)> = CollectiveKind::ALL
        .into_iter()
        .map(|kind| (name(Some(kind)), lines(&cluster, placement, Some(kind))))
        .chain([(name(None), lines(&cluster, placement, None))])
        .collect();
    if arguments.json {
        document(&cluster, nodes, gpus, &kinds)
    } else {
        Ok(text(nodes, gpus, &cluster, &kinds))
    }
}

fn lines(cluster: &Cluster, placement: Placement, kind: Option<CollectiveKind>) -> Vec<Line> {
    let sends = Placement { ranks: 2, nodes: placement.nodes.min(2) };
    SIZES
        .map(|power| {
            let size = 1_u64 << (2 * power);
            let (transfer, group) = match kind {
                Some(kind) => (collective(cluster, kind, placement, size), placement),
                None => (point_to_point(cluster, sends.nodes > 1, size), sends),
            };
            let seconds = transfer.alone_s(cluster, group);
            let algorithm_bandwidth = if seconds > 0.0 { size as f64 / seconds } else { 0.0 };
            let factor = kind.map_or(1.0, |kind| kind.bus_factor(f64::from(placement.ranks)));
            let bus_bandwidth = algorithm_bandwidth * factor;
            Line {
                transfer: Transfer { bytes: size, ..transfer },
                seconds,
                algorithm_bandwidth,
                bus_bandwidth,
            }
        })
        .collect()
}

fn name(kind: Option<CollectiveKind>) -> &'static str {
    match kind {
        Some(CollectiveKind::AllReduce) => "all_reduce",
        Some(CollectiveKind::AllGather) => "all_gather",
        Some(CollectiveKind::ReduceScatter) => "reduce_scatter",
        Some(CollectiveKind::Broadcast) => "broadcast",
        Some(CollectiveKind::AllToAll) => "all_to_all",
        None => "send_recv",
    }
}

/// NCCL's own words (`NCCL_ALGO`), where it has one.
fn algorithm(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::Ring => "Ring",
        Algorithm::Tree => "Tree",
        Algorithm::Nvls => "NVLS",
        Algorithm::NvlsTree => "NVLSTree",
        Algorithm::Direct => "direct",
    }
}

/// NCCL's own words (`NCCL_PROTO`).
fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::LowLatency => "LL",
        Protocol::LowLatency128 => "LL128",
        Protocol::Simple => "Simple",
    }
}

/// A power of two of bytes in whole units.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30.. => format!("{} GiB", bytes >> 30),
        20.. => format!("{} MiB", bytes >> 20),
        _ => format!("{} KiB", bytes >> 10),
    }
}

fn text(nodes: u32, gpus: u32, cluster: &Cluster, kinds: &[(&str, Vec<Line>)]) -> String {
    let mut list =
        table(&["collective", "bytes", "time", "algbw GB/s", "busbw GB/s", "algorithm", "protocol"]);
    for (name, lines) in kinds {
        for (index, line) in lines.iter().enumerate() {
            list.add_row([
                (if index == 0 { *name } else { "" }).to_owned(),
                size(line.transfer.bytes),
                seconds(line.seconds),
                significant(line.algorithm_bandwidth / 1e9),
                significant(line.bus_bandwidth / 1e9),
                algorithm(line.transfer.algorithm).to_owned(),
                protocol(line.transfer.protocol).to_owned(),
            ]);
        }
    }
    whole_names(&mut list);
    right_align(&mut list, 1);
    let machines = if nodes == 1 { "node" } else { "nodes" };
    format!(
        "{}: {nodes} {machines} of {gpus} {}, all GPUs in one group, nothing else on the links\n\n{list}\n\n\
         Bytes are of the whole array; algbw and busbw are those of nccl-tests. A send is from one\n\
         GPU to another{}.\n",
        cluster.name,
        cluster.gpu.name,
        if cluster.nodes > 1 { " on the next node" } else { "" }
    )
}

fn document(
    cluster: &Cluster,
    nodes: u32,
    gpus: u32,
    kinds: &[(&str, Vec<Line>)],
) -> Result<String, Failure> {
    let row = |kind: &str, line: &Line| {
        serde_json::json!({
            "collective": kind,
            "bytes": line.transfer.bytes,
            "time_s": line.seconds,
            "algorithm_bytes_per_second": line.algorithm_bandwidth,
            "bus_bytes_per_second": line.bus_bandwidth,
            "algorithm": algorithm(line.transfer.algorithm),
            "protocol": protocol(line.transfer.protocol),
        })
    };
    let rows: Vec<_> =
        kinds.iter().flat_map(|(kind, lines)| lines.iter().map(move |line| row(kind, line))).collect();
    output::json(&serde_json::json!({
        "name": cluster.name,
        "nodes": nodes,
        "gpus_per_node": gpus,
        "collectives": rows,
    }))
}
