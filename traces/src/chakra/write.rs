//! Writing execution traces: every rank's program as a graph.

use std::collections::BTreeMap;

use steptime_clusters::CollectiveKind;
use steptime_core::{GroupId, SimTime, Span, SpanKind, Step, Stream};
use steptime_plans::classes::{self, Message as Told};
use steptime_scenarios::Recording;

use super::ChakraError;
use super::schema::{Attribute, GlobalMetadata, Node, NodeType, VERSION, Value, append};

/// The trace of one rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChakraFile {
    /// The rank.
    pub rank: u64,
    /// What its file holds.
    pub bytes: Vec<u8>,
}

/// A trace of every rank, and the groups that their collectives name, as ASTRA-sim's `--comm-group-configuration` takes
/// them (JSON: name, ranks).
///
/// # Errors
/// One rank stands for several.
pub fn chakra_files(
    recording: &Recording,
    facts: &[(String, String)],
) -> Result<(Vec<ChakraFile>, String), ChakraError> {
    let world = &recording.world;
    let own = recording.places.len();
    if world.ranks()[..own].iter().any(|rank| rank.multiplicity > 1) {
        return Err(ChakraError::Folded);
    }
    let groups = names(recording);
    let mut metadata = GlobalMetadata { version: VERSION.to_owned(), attr: Vec::new() };
    for (name, text) in facts {
        metadata.attr.push(Attribute::new(name, Value::Text(text.clone())));
    }
    let listed = serde_json::to_string(&groups.values().cloned().collect::<BTreeMap<String, Vec<u64>>>());
    let listed = listed.map_err(|error| ChakraError::Replay { message: error.to_string() })?;
    metadata.attr.push(Attribute::new("process_groups", Value::Text(listed.clone())));
    let mut files = Vec::with_capacity(own);
    for (index, place) in recording.places.iter().enumerate() {
        let mut bytes = Vec::new();
        append(&mut bytes, &metadata);
        let mut writer = Writer::new(recording, index, &groups);
        writer.write();
        for node in &writer.nodes {
            append(&mut bytes, node);
        }
        files.push(ChakraFile { rank: place.rank, bytes });
    }
    Ok((files, listed + "\n"))
}

/// Names and ranks of the groups of more than one rank. Groups of the same ranks are told apart, for their members need not
/// come to them in one order.
fn names(recording: &Recording) -> BTreeMap<GroupId, (String, Vec<u64>)> {
    let groups = recording.world.groups().iter().enumerate();
    let ranks = |members: &[u32]| {
        members.iter().filter_map(|&it| recording.places.get(it as usize)).map(|it| it.rank).collect()
    };
    groups
        .filter(|(_, group)| group.members().len() > 1)
        .map(|(number, group)| (GroupId(number as u32), (number.to_string(), ranks(group.members()))))
        .collect()
}

struct Writer<'a> {
    recording: &'a Recording,
    rank: usize,
    groups: &'a BTreeMap<GroupId, (String, Vec<u64>)>,
    nodes: Vec<Node>,
    /// The last node of the host.
    host: Option<u64>,
    /// What the host waits for before it goes on.
    host_waits: Vec<u64>,
    /// By stream: its last node, what it waits for before it goes on, and all that was launched onto it.
    streams: Vec<(Option<u64>, Vec<u64>, Vec<u64>)>,
    /// By event: what lies before it.
    events: BTreeMap<u32, Vec<u64>>,
    /// By stream: what it was seen to do, waiting apart.
    seen: Vec<Vec<Span>>,
    /// By stream: how much of that has been written.
    written: Vec<usize>,
}

impl<'a> Writer<'a> {
    fn new(recording: &'a Recording, rank: usize, groups: &'a BTreeMap<GroupId, (String, Vec<u64>)>) -> Self {
        let program = &recording.world.programs()[recording.world.ranks()[rank].program as usize];
        let count = program.streams().len();
        let mut seen = vec![Vec::new(); count];
        for span in recording.recorder.spans().iter().filter(|span| span.rank as usize == rank) {
            if let (Some(stream), SpanKind::Kernel | SpanKind::Transfer) = (span.stream, span.kind) {
                seen[usize::from(stream.0)].push(*span);
            }
        }
        Self {
            recording,
            rank,
            groups,
            nodes: Vec::new(),
            host: None,
            host_waits: Vec::new(),
            streams: vec![(None, Vec::new(), Vec::new()); count],
            events: BTreeMap::new(),
            seen,
            written: vec![0; count],
        }
    }

    fn write(&mut self) {
        let world = &self.recording.world;
        let spec = &world.ranks()[self.rank];
        let program = &world.programs()[spec.program as usize];
        for step in program.steps() {
            match step {
                Step::Host { duration, label } => self.on_host(program.label(label), duration),
                Step::Record { stream, event } => {
                    let (last, waits, _) = &self.streams[usize::from(stream.0)];
                    self.events.insert(event.0, last.iter().chain(waits).copied().collect());
                }
                Step::Wait { stream, event } => {
                    let before = self.events.get(&event.0).cloned().unwrap_or_default();
                    self.streams[usize::from(stream.0)].1.extend(before);
                }
                Step::HostWait { event } => {
                    let before = self.events.get(&event.0).cloned().unwrap_or_default();
                    self.host_waits.extend(before);
                }
                Step::HostSync { stream } => {
                    let (last, waits, _) = &self.streams[usize::from(stream.0)];
                    let before: Vec<u64> = last.iter().chain(waits).copied().collect();
                    self.host_waits.extend(before);
                }
                Step::Kernel { stream, label, duration, issue, .. } => {
                    self.queue(stream, spec.queue_depth);
                    let name = program.label(label);
                    if issue > SimTime::ZERO {
                        self.on_host(&format!("launch {name}"), issue);
                    }
                    let span = self.next(stream);
                    let mut node = self.node(name, NodeType::Comp, stream, program.streams());
                    timed(&mut node, span.map_or(SimTime::ZERO, |span| span.start), duration);
                    self.put(stream, node);
                }
                Step::Rendezvous { stream, channel, class, label, note, bytes, .. } => {
                    self.queue(stream, spec.queue_depth);
                    let group = spec.groups[usize::from(channel.0)];
                    let told = note.and_then(|note| Told::of(note.kind).map(|told| (told, note.bytes)));
                    let name = program.label(label);
                    let mut node = self.node(name, NodeType::Comp, stream, program.streams());
                    self.meeting(&mut node, group, told, (class == classes::OFFLOAD).then_some(bytes));
                    if let Some(span) = self.next(stream) {
                        let length = SimTime::from_picos(span.end.picos() - span.start.picos());
                        timed(&mut node, span.start, length);
                    }
                    self.put(stream, node);
                }
            }
        }
    }

    /// The next thing that a stream was seen to do.
    fn next(&mut self, stream: Stream) -> Option<Span> {
        let number = usize::from(stream.0);
        let at = self.written[number];
        self.written[number] += 1;
        self.seen[number].get(at).copied()
    }

    /// The host waits until the launch that lies the queue's length before the next has completed.
    fn queue(&mut self, stream: Stream, depth: u32) {
        let launched = &self.streams[usize::from(stream.0)].2;
        if depth > 0
            && let Some(&before) = launched.len().checked_sub(depth as usize).and_then(|at| launched.get(at))
        {
            self.host_waits.push(before);
        }
    }

    fn blank(&self, label: &str, kind: NodeType, cpu: bool, stream: &str) -> Node {
        let attr = vec![
            Attribute::new("is_cpu_op", Value::Bool(cpu)),
            Attribute::new("stream", Value::Text(stream.to_owned())),
        ];
        let id = self.nodes.len() as u64 + 1;
        Node { id, name: label.to_owned(), kind: kind as i32, attr, ..Node::default() }
    }

    fn on_host(&mut self, label: &str, duration: SimTime) {
        let mut node = self.blank(label, NodeType::Comp, true, "host");
        node.ctrl_deps = self.host.into_iter().chain(self.host_waits.drain(..)).collect();
        once(&mut node.ctrl_deps);
        timed(&mut node, SimTime::ZERO, duration);
        self.host = Some(node.id);
        self.nodes.push(node);
    }

    /// A node of a stream, after what the stream and the host did before.
    fn node(&self, label: &str, kind: NodeType, stream: Stream, names: &[String]) -> Node {
        let (last, waits, _) = &self.streams[usize::from(stream.0)];
        let mut node = self.blank(label, kind, false, &names[usize::from(stream.0)]);
        let host = self.host.iter().chain(&self.host_waits);
        node.ctrl_deps = last.iter().chain(waits).chain(host).copied().collect();
        once(&mut node.ctrl_deps);
        node
    }

    fn put(&mut self, stream: Stream, node: Node) {
        let state = &mut self.streams[usize::from(stream.0)];
        state.0 = Some(node.id);
        state.1.clear();
        state.2.push(node.id);
        self.nodes.push(node);
    }

    /// What ranks do together. Parts that go round a ring have no node of their own in the schema: they stay the
    /// computation of the time that they took.
    fn meeting(&self, node: &mut Node, group: GroupId, told: Option<(Told, u64)>, offload: Option<u64>) {
        let size =
            |bytes: u64| Attribute::new("comm_size", Value::Int64(i64::try_from(bytes).unwrap_or(i64::MAX)));
        match (told, self.groups.get(&group)) {
            (Some((Told::Collective(kind), bytes)), Some((name, _))) => {
                node.kind = NodeType::CommColl as i32;
                node.attr.push(Attribute::new("comm_type", Value::Int64(comm_type(kind))));
                node.attr.push(size(bytes));
                node.attr.push(Attribute::new("pg_name", Value::Text(name.clone())));
            }
            (Some((told @ (Told::Send | Told::Receive), bytes)), Some((_, ranks))) if ranks.len() == 2 => {
                let own = self.recording.places[self.rank].rank;
                let other = if ranks[0] == own { ranks[1] } else { ranks[0] };
                let sends = told == Told::Send;
                let (kind, from, to) =
                    if sends { (NodeType::CommSend, own, other) } else { (NodeType::CommRecv, other, own) };
                node.kind = kind as i32;
                for (name, value) in [("comm_src", from), ("comm_dst", to), ("comm_tag", u64::from(group.0))]
                {
                    node.attr
                        .push(Attribute::new(name, Value::Int32(i32::try_from(value).unwrap_or(i32::MAX))));
                }
                node.attr.push(size(bytes));
            }
            _ => {
                let Some(bytes) = offload else { return };
                let to_host = node.name.contains("|to_host") || node.name.contains("|drive_write");
                node.kind = if to_host { NodeType::MemStore } else { NodeType::MemLoad } as i32;
                node.attr.push(Attribute::new("tensor_size", Value::Uint64(bytes)));
            }
        }
    }
}

/// Each number once.
fn once(numbers: &mut Vec<u64>) {
    numbers.sort_unstable();
    numbers.dedup();
}

fn timed(node: &mut Node, start: SimTime, duration: SimTime) {
    let micros = |time: SimTime| (time.picos() + 500_000) / 1_000_000;
    node.start_time_micros = start.picos() / 1_000_000;
    node.duration_micros = micros(duration);
    node.attr.push(Attribute::new("duration_picos", Value::Uint64(duration.picos())));
}

/// `CollectiveCommType`.
fn comm_type(kind: CollectiveKind) -> i64 {
    match kind {
        CollectiveKind::AllReduce => 0,
        CollectiveKind::AllGather => 2,
        CollectiveKind::Broadcast => 5,
        CollectiveKind::AllToAll => 6,
        CollectiveKind::ReduceScatter => 7,
    }
}
