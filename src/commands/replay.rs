//! `steptime replay`: execution traces on a cluster.

use std::path::{Path, PathBuf};

use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue, cluster_from_toml};
use steptime_traces::chakra::{Groups, RankTrace, ReplayOptions, ReplayReport, read, replay as play};

use crate::cli::{ReplayArguments, TraceFormat};
use crate::failure::{Answer, Failure};
use crate::output::{self, Output};
use crate::present::{right_align, seconds, table};

/// Reads the traces, plays them and reports.
pub(crate) fn replay(arguments: &ReplayArguments) -> Result<Answer, Failure> {
    if !(arguments.compute_scale > 0.0 && arguments.compute_scale.is_finite()) {
        let found = arguments.compute_scale;
        return Err(Failure::Message(format!("--compute-scale: found {found}, allowed: a positive number")));
    }
    let files = files(&arguments.traces)?;
    let groups = groups(arguments)?;
    let cluster = cluster(arguments, files.len())?;
    let traces = files.iter().map(|path| trace(path, &groups, files.len())).collect::<Result<Vec<_>, _>>()?;
    let name = arguments.traces[0].display().to_string();
    let options = ReplayOptions { compute_scale: arguments.compute_scale };
    let replayed =
        play(&name, &cluster, traces, &options).map_err(|error| Failure::Message(error.to_string()))?;
    if let Some(folder) = &arguments.out {
        let facts = [("steptime".to_owned(), env!("CARGO_PKG_VERSION").to_owned())];
        let mut outputs =
            super::trace::traces(folder, &replayed.recording, None, &facts, &[TraceFormat::Auto])?;
        outputs.push(Output::new(folder.join("replay.json"), output::json(&replayed.report)?));
        output::write_all(&outputs)?;
    }
    let text = if arguments.json { output::json(&replayed.report)? } else { text(&replayed.report) };
    output::print(&text)?;
    Ok(Answer::Yes)
}

fn failure(path: &Path, message: &impl ToString) -> Failure {
    Failure::File { path: path.to_owned(), message: message.to_string() }
}

/// The files of the ranks, in the order of the numbers in their names (`name.7.et`).
fn files(given: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        for entry in std::fs::read_dir(path).map_err(|error| failure(path, &error))? {
            let inside = entry.map_err(|error| failure(path, &error))?.path();
            if inside.extension().is_some_and(|extension| extension == "et") {
                files.push(inside);
            }
        }
    }
    let mut numbered = Vec::with_capacity(files.len());
    for file in files {
        let stem = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let digits: String = stem.chars().rev().take_while(char::is_ascii_digit).collect();
        let number: Option<u64> = digits.chars().rev().collect::<String>().parse().ok();
        let number =
            number.ok_or_else(|| failure(&file, &"the name of a trace ends with its rank: name.7.et"))?;
        numbered.push((number, file));
    }
    numbered.sort();
    for (rank, (number, file)) in (0..).zip(&numbered) {
        if rank != *number {
            return Err(failure(
                file,
                &format!("ranks are numbered from 0 without gaps; rank {rank} has no trace"),
            ));
        }
    }
    if numbered.is_empty() {
        return Err(failure(&given[0], &"has no traces (*.et)"));
    }
    Ok(numbered.into_iter().map(|(_, file)| file).collect())
}

/// Process groups of a file beside the traces.
fn groups(arguments: &ReplayArguments) -> Result<Groups, Failure> {
    let first = &arguments.traces[0];
    let folder = if first.is_dir() { first.as_path() } else { first.parent().unwrap_or(Path::new(".")) };
    let beside = folder.join("comm_groups.json");
    let path = match &arguments.groups {
        Some(path) => path.clone(),
        None if beside.exists() => beside,
        None => return Ok(Groups::new()),
    };
    let text = output::read(&path)?;
    serde_json::from_str(&text)
        .map_err(|error| failure(&path, &format!("expected names with lists of ranks: {error}")))
}

fn trace(path: &Path, groups: &Groups, ranks: usize) -> Result<RankTrace, Failure> {
    let bytes = std::fs::File::open(path).and_then(output::all_of).map_err(|error| failure(path, &error))?;
    read(&bytes, groups, ranks as u32).map_err(|error| failure(path, &error))
}

fn cluster(arguments: &ReplayArguments, ranks: usize) -> Result<Cluster, Failure> {
    let name = &arguments.cluster;
    let path = Path::new(name);
    let is_file = path.extension().is_some_and(|it| it == "toml") || path.is_file();
    let entry = if is_file { cluster_from_toml(&output::read(path)?) } else { cluster_from_catalogue(name) };
    let ClusterEntry::Nodes(mut cluster) = entry.map_err(|error| Failure::cluster(&error))? else {
        return Err(Failure::Message(format!("{name} is of vehicles; traces are played on nodes with GPUs")));
    };
    if let Some(gpus) = arguments.gpus_per_node {
        if gpus > cluster.gpus_per_node {
            let most = cluster.gpus_per_node;
            return Err(Failure::Message(format!("--gpus-per-node: found {gpus}, allowed: up to {most}")));
        }
        cluster.gpus_per_node = gpus;
    }
    let needed = (ranks as u64).div_ceil(u64::from(cluster.gpus_per_node.max(1)));
    cluster.nodes = arguments.nodes.unwrap_or(u32::try_from(needed).unwrap_or(u32::MAX));
    Ok(cluster)
}

/// Ranks that the text shows.
const SHOWN: usize = 16;

fn text(report: &ReplayReport) -> String {
    let mut text = format!("{} ranks on {}\n\n", report.ranks.len(), report.cluster);
    let mut grid = table(&["rank", "end", "compute", "communication", "waiting", "nodes"]);
    for rank in report.ranks.iter().take(SHOWN) {
        grid.add_row([
            rank.rank.to_string(),
            seconds(rank.end_s),
            seconds(rank.compute_s),
            seconds(rank.communication_s),
            seconds(rank.waiting_s),
            rank.nodes.to_string(),
        ]);
    }
    right_align(&mut grid, 0);
    text += &format!("{grid}\n");
    if report.ranks.len() > SHOWN {
        text += &format!("and {} ranks more\n", report.ranks.len() - SHOWN);
    }
    if report.priced_nodes > 0 {
        text +=
            &format!("{} computations without a duration, priced from the data sheet\n", report.priced_nodes);
    }
    text + &format!("\nmakespan {}\n", seconds(report.makespan_s))
}
