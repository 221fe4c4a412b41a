//! What is written of real steps: nesting, accounts of time, sends, and the way through Chakra and back.

use std::collections::BTreeMap;

use serde_json::Value;
use steptime_clusters::{Cluster, ClusterEntry, cluster_from_catalogue};
use steptime_scenarios::{NoFiles, RunResult, Scenario, run};

use crate::chakra::{Groups, RankTrace, ReplayOptions, chakra_files, read, replay};
use crate::{Tracks, chrome_json, perfetto};

fn played(model: &str, nodes: u32, workload: &str, plan: &str) -> RunResult {
    let text = format!(
        "name = \"test\"\n[model]\nname = \"{model}\"\n[cluster]\nname = \"dgx-h100\"\nnodes = {nodes}\n[workload]\n\
         micro_batch_size = 1\nprecision = \"bf16\"\nattention = \"flash\"\n{workload}\n[parallelism]\n{plan}\n"
    );
    let scenario = Scenario::read("test.toml", &text, &[], &NoFiles).expect("a scenario");
    run(&scenario, true).expect("a result")
}

fn tracks(result: &RunResult) -> Tracks {
    let recording = result.recording.as_ref().expect("a recording");
    Tracks::of(recording, result.timeline.as_ref(), vec![("version".to_owned(), "1".to_owned())])
}

/// A time of the trace in picoseconds.
fn picos(value: &Value) -> u64 {
    (value.as_f64().expect("a number") * 1e6).round() as u64
}

/// Slices nest on every track: each ends before what it lies in. Returns what the innermost ones last.
fn nested(mut slices: Vec<(u64, u64)>) -> u64 {
    // As viewers sort them: by start, the longer one first.
    slices.sort_by_key(|&(start, end)| (start, std::cmp::Reverse(end)));
    let mut open: Vec<(u64, bool)> = Vec::new();
    let mut busy = 0;
    for (at, &(start, end)) in slices.iter().enumerate() {
        while open.last().is_some_and(|&(before, _)| before <= start) {
            open.pop();
        }
        if let Some(around) = open.last_mut() {
            assert!(
                end <= around.0,
                "{start} to {end} leaves what lies around it, which ends at {}",
                around.0
            );
        }
        let inside = slices.get(at + 1).is_some_and(|next| next.0 < end);
        busy += if inside { 0 } else { end - start };
        open.push((end, inside));
    }
    busy
}

/// Of Chrome's JSON: for every track its slices nest, and busy and idle time add up to the step.
fn check_chrome(result: &RunResult) -> usize {
    let tracks = tracks(result);
    let document: Value = serde_json::from_str(&chrome_json(&tracks)).expect("JSON");
    let step = result.recording.as_ref().expect("a recording").outcome.end.picos();
    let mut slices: BTreeMap<(u64, u64), Vec<(u64, u64)>> = BTreeMap::new();
    let mut said: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    let mut arrows: BTreeMap<u64, [Vec<(u64, u64)>; 2]> = BTreeMap::new();
    for event in document["traceEvents"].as_array().expect("events") {
        let place = (event["pid"].as_u64().expect("pid"), event["tid"].as_u64().unwrap_or(0));
        match event["ph"].as_str().expect("a phase") {
            "X" => {
                let start = picos(&event["ts"]);
                slices.entry(place).or_default().push((start, start + picos(&event["dur"])));
            }
            "M" if event["name"] == "thread_name" => {
                let args = &event["args"];
                said.insert(place, (picos(&args["busy_us"]), picos(&args["idle_us"])));
            }
            "s" => arrows.entry(event["id"].as_u64().expect("id")).or_default()[0].push(place),
            "f" => arrows.entry(event["id"].as_u64().expect("id")).or_default()[1].push(place),
            "M" | "C" => {}
            other => panic!("phase {other}"),
        }
    }
    assert_eq!(slices.keys().collect::<Vec<_>>(), said.keys().collect::<Vec<_>>());
    for (place, slices) in slices {
        let (busy, idle) = said[&place];
        assert_eq!(nested(slices), busy, "{place:?}");
        assert_eq!(busy + idle, step, "{place:?}");
    }
    for (id, [from, to]) in &arrows {
        assert!(from.len() == 1 && to.len() == 1 && from != to, "send {id}: {from:?} {to:?}");
    }
    arrows.len()
}

/// The primary stream's slices last as long as the engine says that it was busy.
fn check_engine(result: &RunResult) {
    let recording = result.recording.as_ref().expect("a recording");
    for (group, outcome) in tracks(result).groups.iter().zip(&recording.outcome.ranks) {
        let compute = group.tracks.iter().find(|track| track.name == "compute").expect("a compute stream");
        assert_eq!(compute.busy, outcome.streams[0].total_busy().picos());
        assert_eq!(compute.busy + outcome.total_idle().picos(), recording.outcome.end.picos());
    }
}

#[test]
fn a_step_of_64_stages_nests_and_adds_up_on_every_track() {
    let result = played("gpt3-175b", 8, "gradient_accumulation_steps = 128", "pipeline = 64");
    // 128 micro-batches over 63 borders, there and back.
    assert_eq!(check_chrome(&result), 128 * 63 * 2);
    check_engine(&result);
}

#[test]
fn collectives_links_and_memory_are_there() {
    let result =
        played("llama3-8b", 1, "gradient_accumulation_steps = 2", "data = 2\ntensor = 2\npipeline = 2");
    check_chrome(&result);
    check_engine(&result);
    let tracks = tracks(&result);
    let links = tracks.groups.last().expect("links");
    assert!(links.name == "links" && !links.tracks.is_empty() && !links.counters.is_empty());
    let memory = &tracks.groups[0].counters[0];
    assert!(memory.name == "memory" && memory.points.len() > 10, "{}", memory.points.len());
}

#[test]
fn perfetto_packets_nest_by_begin_and_end() {
    let result = played("llama3-8b", 1, "gradient_accumulation_steps = 8", "pipeline = 8");
    let tracks = tracks(&result);
    let packets = perfetto::packets(&perfetto::perfetto_trace(&tracks));
    let names: Vec<String> = packets
        .iter()
        .filter_map(|packet| packet.interned_data.as_ref())
        .flat_map(|data| data.event_names.iter().filter_map(|it| it.name.clone()))
        .collect();
    let (mut known, mut open) = (Vec::new(), BTreeMap::<u64, Vec<u64>>::new());
    let (mut begun, mut flows, mut counts) = (0, [0, 0], 0);
    for packet in &packets {
        assert_eq!(packet.trusted_packet_sequence_id, Some(1));
        if let Some(track) = &packet.track_descriptor {
            assert!(track.parent_uuid.is_none_or(|parent| known.contains(&parent)));
            known.extend(track.uuid);
        }
        let Some(event) = &packet.track_event else { continue };
        let (track, at) = (event.track_uuid.expect("a track"), packet.timestamp.expect("a time"));
        assert!(known.contains(&track));
        let stack = open.entry(track).or_default();
        match event.kind {
            Some(1) => {
                assert!(stack.last().is_none_or(|&before| before <= at));
                let name = event.name_iid.expect("a name") as usize;
                assert!((1..=names.len()).contains(&name));
                stack.push(at);
                begun += 1;
            }
            Some(2) => assert!(stack.pop().expect("something is open") <= at),
            Some(4) => counts += 1,
            other => panic!("{other:?}"),
        }
        flows[0] += event.flow_ids.len();
        flows[1] += event.terminating_flow_ids.len();
    }
    assert!(open.values().all(Vec::is_empty));
    assert_eq!((begun, flows), (tracks.slices(), [8 * 7 * 2; 2]));
    assert!(counts > 100, "{counts}");
}

fn dgx_h100() -> Cluster {
    match cluster_from_catalogue("dgx-h100").expect("an entry") {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(_) => panic!("nodes"),
    }
}

/// Writes a step, reads it again and plays it; returns both lengths in seconds.
fn there_and_back(model: &str, workload: &str, plan: &str, exact: bool) -> (f64, f64) {
    let plan = format!("{plan}\n[simulation]\nexplicit = true");
    let result = played(model, 1, workload, &plan);
    let recording = result.recording.as_ref().expect("a recording");
    let (files, _) = chakra_files(recording, &[]).expect("traces");
    let count = files.len() as u32;
    let traces: Vec<RankTrace> =
        files.iter().map(|file| read(&file.bytes, &Groups::new(), count).expect("a trace")).collect();
    let cluster = dgx_h100().with_gpus(steptime_clusters::Gpu::sustained);
    let traces = if exact { traces } else { traces.into_iter().map(whole_microseconds).collect() };
    let again = replay("again", &cluster, traces, &ReplayOptions::default()).expect("a replay");
    (recording.outcome.end.seconds(), again.report.makespan_s)
}

/// What a reader that knows the schema alone has: whole microseconds.
fn whole_microseconds(trace: RankTrace) -> RankTrace {
    let mut trace = trace;
    for node in &mut trace.nodes {
        if let steptime_plans::TraceWork::Busy(time) = &mut node.work {
            *time = steptime_core::SimTime::from_picos((time.picos() + 500_000) / 1_000_000 * 1_000_000);
        }
    }
    trace
}

#[test]
fn a_step_written_for_chakra_and_read_again_takes_as_long() {
    let accumulated = "gradient_accumulation_steps = 4";
    let cases = [
        ("pipeline", "llama3-8b", accumulated, "pipeline = 8"),
        ("data", "gpt2", "", "data = 8"),
        ("zero 3", "llama3-8b", "", "data = 8\nzero_stage = 3"),
        ("tensor", "llama3-8b", accumulated, "tensor = 4\ndata = 2"),
        ("all", "llama3-8b", accumulated, "tensor = 2\ndata = 2\npipeline = 2\nzero_stage = 1"),
    ];
    for (name, model, workload, plan) in cases {
        let (before, after) = there_and_back(model, workload, plan, true);
        // Collectives are priced anew, and stretched by the kernels beside them no more.
        assert!((after / before - 1.0).abs() < 1e-3, "{name}: {before} {after}");
        // Half a microsecond a node, of nodes that take some tens.
        let (before, after) = there_and_back(model, workload, plan, false);
        assert!((after / before - 1.0).abs() < 0.03, "{name}, microseconds: {before} {after}");
    }
}

#[test]
fn folded_steps_and_damaged_files_are_refused() {
    let result = played("llama3-8b", 1, "", "data = 8");
    let recording = result.recording.as_ref().expect("a recording");
    let folded = chakra_files(recording, &[]).expect_err("folded");
    assert!(folded.to_string().contains("simulation.explicit"), "{folded}");
    for bytes in [&b"{\"no\": \"trace\"}"[..], &[200, 1, 0], &[0xff; 12]] {
        assert!(read(bytes, &Groups::new(), 1).is_err());
    }
    assert!(read(&[], &Groups::new(), 1).expect("an empty trace").nodes.is_empty());
}
