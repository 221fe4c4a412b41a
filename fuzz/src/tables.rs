//! Targets that read measurements: tables, outputs of benchmarks, traces.

use std::sync::LazyLock;

use steptime_clusters::calibrate::{self, Operations, Rows};
use steptime_clusters::calibrate_fabric::{
    self, fit_network, read_collectives, read_nccl_tests, read_spread,
};
use steptime_clusters::calibrate_host::{Trace, from_trace};
use steptime_clusters::{
    Cluster, ClusterEntry, ExecutionStyle, Gpu, cluster_from_catalogue, gpu_from_catalogue,
};
use steptime_scenarios::{NoFiles, Scenario, scenarios_of};
use steptime_traces::chakra::{Groups, ReplayOptions, read, replay};

use crate::play::{complains, play};

static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| match cluster_from_catalogue("dgx-h100") {
    Ok(ClusterEntry::Nodes(mut cluster)) => {
        cluster.nodes = 2;
        cluster
    }
    other => panic!("{other:?}"),
});

static GPU: LazyLock<Gpu> =
    LazyLock::new(|| gpu_from_catalogue("h100-80gb-sxm").expect("it is in the catalogue"));

/// Rows of measurements to which fits are made: more take longer and show no more.
const MOST_ROWS: usize = 24;
/// Rows of collectives that are fitted: a fit goes over them some thousand times.
const MOST_FITTED: usize = 5;

/// Traces of up to three ranks, each after two bytes with its length.
pub(crate) fn chakra(data: &[u8]) {
    let mut groups = Groups::new();
    groups.insert("0".to_owned(), vec![0, 1]);
    groups.insert("1".to_owned(), vec![1]);
    let mut traces = Vec::new();
    let mut rest = data;
    while let Some(([low, high], after)) = rest.split_first_chunk::<2>()
        && traces.len() < 3
    {
        let (trace, after) = after.split_at(usize::from(u16::from_le_bytes([*low, *high])).min(after.len()));
        rest = after;
        match read(trace, &groups, 2) {
            Ok(trace) => traces.push(trace),
            Err(error) => return complains(&error.to_string()),
        }
    }
    match replay("fuzz", &CLUSTER, traces, &ReplayOptions::default()) {
        Ok(replayed) => assert!(replayed.report.makespan_s.is_finite()),
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn rows(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match scenarios_of("rows.csv", text) {
        Ok(rows) => {
            for (_, scenario) in rows.iter().take(4) {
                match scenario {
                    Ok(text) => {
                        if let Ok(scenario) = Scenario::read("row.toml", text, &[], &NoFiles) {
                            play(&scenario);
                        }
                    }
                    Err(reason) => complains(reason),
                }
            }
        }
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn kernels(data: &[u8]) {
    let mut rows = Rows::default();
    if let Err(error) = rows.read(data) {
        complains(&error.to_string());
    }
    if rows.gemm.len() + rows.attention.len() + rows.memory.len() <= MOST_ROWS {
        let _ = calibrate::faster_than_peak(&GPU, &rows);
        let _ = calibrate::gpu(&GPU, &rows);
    }
    let mut rows = Rows::default();
    let _ = rows.read_system(data);
    let mut operations = Operations::default();
    match operations.read(data) {
        Ok(()) => drop(operations.score()),
        Err(error) => complains(&error.to_string()),
    }
}

pub(crate) fn fabric(data: &[u8]) {
    let collectives = match read_collectives(data) {
        Ok(rows) => rows,
        Err(error) => {
            complains(&error.to_string());
            Vec::new()
        }
    };
    let text = std::str::from_utf8(data).unwrap_or_default();
    let output = read_nccl_tests(text, None, "fuzz").unwrap_or_default();
    let jobs = read_spread(data, 1 << 20, "fuzz").unwrap_or_default();
    for rows in [collectives, output] {
        if rows.len() + jobs.len() <= MOST_FITTED
            && rows.iter().all(|row| row.placement.members_per_node() <= 8)
        {
            let (inside, across): (Vec<_>, Vec<_>) =
                rows.into_iter().partition(|row| row.placement.nodes == 1);
            let _ = calibrate_fabric::fit(&CLUSTER, &inside);
            if let Some(fit) = fit_network(&CLUSTER, &across, &jobs) {
                let _ = fit.to_calibration();
            }
        }
    }
}

pub(crate) fn kineto(data: &[u8]) {
    let Ok(trace) = Trace::read(data) else { return };
    for style in [ExecutionStyle::Eager, ExecutionStyle::Compiled] {
        match from_trace(&trace, style) {
            Ok((_, fit)) => drop(fit.to_calibration()),
            Err(error) => complains(&error.to_string()),
        }
    }
}
