//! Tracks of links: what is under way on each, and how much of it a second.

use std::collections::BTreeMap;

use steptime_core::{FlowRecord, World};
use steptime_scenarios::Recording;

use super::{Counter, Slice, Track, TrackGroup};

/// Links with what crossed them. Flows that share a link are on tracks beside each other.
pub(super) fn group(recording: &Recording) -> TrackGroup {
    let world = &recording.world;
    let names = names(world);
    let makespan = recording.outcome.end.picos();
    let mut crossing: BTreeMap<u32, Vec<(&FlowRecord, u64)>> = BTreeMap::new();
    let flows = recording.recorder.flows().iter();
    for flow in flows.filter(|flow| flow.start < flow.end && flow.end.picos() <= makespan) {
        let group = &world.groups()[flow.group.0 as usize];
        for hop in group.path() {
            let whole = u128::from(flow.bytes) * u128::from(hop.weight);
            let bytes = (whole / u128::from(group.parts().max(1))) as u64;
            crossing.entry(hop.link.0).or_default().push((flow, bytes));
        }
    }
    let mut all = TrackGroup { name: "links".to_owned(), tracks: Vec::new(), counters: Vec::new() };
    for (link, flows) in crossing {
        let name = &world.links()[link as usize].name;
        all.tracks.extend(lanes(name, &flows, &names));
        all.counters.push(load(name, &flows));
    }
    all
}

/// What each group is called by its first member.
fn names(world: &World) -> Vec<String> {
    let name = |(number, group): (usize, &steptime_core::Group)| {
        let member = group.members().first().map(|&rank| &world.ranks()[rank as usize])?;
        let place = member.groups.iter().position(|id| id.0 as usize == number)?;
        world.programs()[member.program as usize].channels().get(place).cloned()
    };
    world.groups().iter().enumerate().map(|it| name(it).unwrap_or_default()).collect()
}

/// The flows of a link, each on the first track that is free.
fn lanes(name: &str, flows: &[(&FlowRecord, u64)], names: &[String]) -> Vec<Track> {
    let mut tracks: Vec<Track> = Vec::new();
    for (flow, bytes) in flows {
        let (start, end) = (flow.start.picos(), flow.end.picos());
        let free = |track: &Track| track.slices.last().is_none_or(|last| last.end <= start);
        let at = tracks.iter().position(free).unwrap_or_else(|| {
            let number = tracks.len() + 1;
            let name = if number == 1 { name.to_owned() } else { format!("{name} ({number})") };
            tracks.push(Track { name, slices: Vec::new(), busy: 0 });
            number - 1
        });
        tracks[at].busy += end - start;
        tracks[at].slices.push(Slice {
            name: names[flow.group.0 as usize].clone(),
            category: "flow".to_owned(),
            start,
            end,
            depth: 0,
            micro_batch: None,
            bytes: Some(*bytes),
            arrow: None,
        });
    }
    tracks
}

/// Bytes a second over a link: each flow by its mean rate.
fn load(name: &str, flows: &[(&FlowRecord, u64)]) -> Counter {
    let mut changes: BTreeMap<u64, i128> = BTreeMap::new();
    for (flow, bytes) in flows {
        let time = u128::from(flow.end.picos() - flow.start.picos());
        let rate = i128::try_from(u128::from(*bytes) * 1_000_000_000_000 / time).unwrap_or(i128::MAX);
        *changes.entry(flow.start.picos()).or_default() += rate;
        *changes.entry(flow.end.picos()).or_default() -= rate;
    }
    let mut level = 0_i128;
    let points = changes.into_iter().map(|(at, change)| {
        level += change;
        (at, vec![u64::try_from(level).unwrap_or(0)])
    });
    Counter {
        name: format!("{name} load"),
        unit: "bytes/s",
        series: vec!["bytes/s".to_owned()],
        points: points.collect(),
    }
}
