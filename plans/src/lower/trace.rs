//! Lowering of what ranks were seen to do: operations with what each waits for become programs on a cluster.
//!
//! Operations take the time that they are given; collectives and sends cost what they do on the cluster. A rank's streams
//! take their operations in the order of the list, which must name what an operation waits for before it: a graph in which
//! a stream could have chosen between two ready operations is played in the list's order.

use std::collections::BTreeMap;

use steptime_clusters::{Cluster, CollectiveKind, collective, point_to_point};
use steptime_core::{
    Channel, Event, GroupId, ProgramBuilder, RankSpec, SimTime, Stream, World, WorldBuilder,
};
use steptime_models::ContextMethod;

use super::placement::{Layout, Ports};
use crate::classes;
use crate::error::PlanError;

/// What a rank of a trace does.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceNode {
    /// Its name, for timelines.
    pub name: String,
    /// The stream that does it; the first one that a rank names is the one whose idle time is accounted for.
    pub stream: String,
    /// What it is.
    pub work: TraceWork,
    /// Places in the rank's list, before its own, of what it waits for.
    pub after: Vec<usize>,
}

/// Work of a [`TraceNode`].
#[derive(Clone, Debug, PartialEq)]
pub enum TraceWork {
    /// The stream works.
    Busy(SimTime),
    /// All ranks of a group do a collective; the n-th of a group's members of this name meet.
    Collective {
        /// Which.
        kind: CollectiveKind,
        /// Name that tells groups of the same ranks apart.
        group: String,
        /// The ranks, this one among them.
        ranks: Vec<u32>,
        /// The whole array, as [`collective`] counts it.
        bytes: u64,
    },
    /// Sends to a rank, which receives with the same tag; the n-th of them meet.
    Send {
        /// The receiver.
        to: u32,
        /// Tells messages between the same ranks apart.
        tag: u32,
        /// Bytes.
        bytes: u64,
    },
    /// Receives from a rank.
    Receive {
        /// The sender.
        from: u32,
        /// Tells messages between the same ranks apart.
        tag: u32,
        /// Bytes.
        bytes: u64,
    },
}

/// What names a group among all ranks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Collective(String, Vec<u32>, bool),
    Pair(u32, u32, u32),
}

/// Puts the ranks of a trace on the GPUs of a cluster, one after the other, and makes programs of what they do.
///
/// # Errors
/// More ranks than the cluster has GPUs, a rank in a group that it is not a member of, members that do not all name a
/// group, or a time beyond the clock.
pub fn lower_trace(cluster: &Cluster, ranks: &[Vec<TraceNode>]) -> Result<World, PlanError> {
    let gpus = u64::from(cluster.nodes) * u64::from(cluster.gpus_per_node);
    if ranks.is_empty() || ranks.len() as u64 > gpus {
        let found = ranks.len();
        let message = format!("{found} ranks do not fit onto the {gpus} GPUs of {}", cluster.name);
        return Err(PlanError::Trace { message });
    }
    let layout = Layout::in_a_row(ranks.len() as u32, cluster.gpus_per_node);
    let mut world = WorldBuilder::new();
    world.host_class(classes::HOST);
    world.tail_class(classes::TAIL);
    let ports = Ports::new(&mut world, cluster, ContextMethod::Ring, layout, false);
    let mut groups: BTreeMap<Key, GroupId> = BTreeMap::new();
    for (number, nodes) in ranks.iter().enumerate() {
        let mut rank = Rank::new(cluster, layout, number as u32, nodes);
        rank.write(nodes)?;
        let mut listed = Vec::with_capacity(rank.channels.len());
        for key in &rank.channels {
            listed.push(*groups.entry(key.clone()).or_insert_with(|| match key {
                Key::Collective(name, members, exchange) => {
                    ports.group_of(&mut world, name, members, *exchange)
                }
                Key::Pair(from, to, _) => ports.pair(&mut world, *from, *to, 0),
            }));
        }
        let program = world.program(rank.program.build()?);
        world.rank(RankSpec { program, groups: listed, multiplicity: 1, ..RankSpec::default() });
    }
    if let Some(fault) = ports.fault() {
        return Err(PlanError::Topology(fault));
    }
    Ok(world.build()?)
}

/// A rank whose program is being written.
struct Rank<'a> {
    cluster: &'a Cluster,
    layout: Layout<'a>,
    number: u32,
    program: ProgramBuilder,
    streams: Vec<(String, Stream)>,
    channels: Vec<Key>,
    /// By node: whether another stream waits for it.
    awaited: Vec<bool>,
    /// By node: its stream, and the event behind it.
    done: Vec<(Stream, Option<Event>)>,
}

impl<'a> Rank<'a> {
    fn new(cluster: &'a Cluster, layout: Layout<'a>, number: u32, nodes: &[TraceNode]) -> Self {
        let mut awaited = vec![false; nodes.len()];
        for node in nodes {
            for &before in &node.after {
                if let Some(it) = nodes.get(before)
                    && it.stream != node.stream
                {
                    awaited[before] = true;
                }
            }
        }
        let program = ProgramBuilder::new(&format!("rank {number}"));
        let (streams, channels, done) = (Vec::new(), Vec::new(), Vec::new());
        Self { cluster, layout, number, program, streams, channels, awaited, done }
    }

    fn write(&mut self, nodes: &[TraceNode]) -> Result<(), PlanError> {
        for (at, node) in nodes.iter().enumerate() {
            let stream = self.stream(&node.stream);
            for &before in &node.after {
                match self.done.get(before) {
                    Some(&(of, Some(event))) if of != stream => self.program.wait(stream, event),
                    Some(_) => {}
                    None => return Err(self.wrong(node, "waits for something that is not before it")),
                }
            }
            self.work(stream, node)?;
            let event = if self.awaited[at] { Some(self.program.record(stream)) } else { None };
            self.done.push((stream, event));
        }
        Ok(())
    }

    fn wrong(&self, node: &TraceNode, what: &str) -> PlanError {
        PlanError::Trace { message: format!("rank {}: \"{}\" {what}", self.number, node.name) }
    }

    fn stream(&mut self, name: &str) -> Stream {
        if let Some((_, stream)) = self.streams.iter().find(|(known, _)| known == name) {
            return *stream;
        }
        let stream = self.program.stream(name);
        self.streams.push((name.to_owned(), stream));
        stream
    }

    fn channel(&mut self, key: Key) -> Channel {
        if let Some(number) = self.channels.iter().position(|known| *known == key) {
            return Channel(number as u16);
        }
        self.channels.push(key);
        self.program.channel("group")
    }

    fn work(&mut self, stream: Stream, node: &TraceNode) -> Result<(), PlanError> {
        let (key, transfer, word, kinds) = match &node.work {
            TraceWork::Busy(duration) => {
                let label = self.program.label(&node.name);
                self.program.kernel(stream, classes::FORWARD, label, *duration, SimTime::ZERO);
                return Ok(());
            }
            TraceWork::Collective { kind, group, ranks, bytes } => {
                let mut members = ranks.clone();
                members.sort_unstable();
                members.dedup();
                let known = |rank: &u32| *rank < self.layout.pipeline;
                if !members.contains(&self.number) || !members.iter().all(known) {
                    return Err(self.wrong(node, "is a collective of ranks that are not in the trace"));
                }
                let placement = self.layout.placement_of(&members);
                let transfer = collective(self.cluster, *kind, placement, *bytes);
                let exchange = *kind == CollectiveKind::AllToAll;
                let kinds = (classes::COLLECTIVE, classes::COLLECTIVE_WAIT);
                (Key::Collective(group.clone(), members, exchange), transfer, word(*kind), kinds)
            }
            TraceWork::Send { to: other, tag, bytes } | TraceWork::Receive { from: other, tag, bytes } => {
                if *other >= self.layout.pipeline || *other == self.number {
                    return Err(self.wrong(node, &format!("is a transfer with rank {other}")));
                }
                let sends = matches!(node.work, TraceWork::Send { .. });
                let (from, to) = if sends { (self.number, *other) } else { (*other, self.number) };
                let transfer = point_to_point(self.cluster, self.layout.crosses(from, to, 0), *bytes);
                let kinds = (classes::TRANSFER, classes::TRANSFER_WAIT);
                (Key::Pair(from, to, *tag), transfer, "send_receive", kinds)
            }
        };
        let label = self.program.label(&format!("{}|{word}", node.name));
        let fixed = SimTime::from_seconds(transfer.fixed_s)?;
        // Groups of one have nobody to meet.
        if matches!(&key, Key::Collective(_, members, _) if members.len() < 2) {
            self.program.kernel(stream, kinds.0, label, fixed, SimTime::ZERO);
            return Ok(());
        }
        let channel = self.channel(key);
        self.program.rendezvous(stream, channel, kinds.0, kinds.1, label, fixed, transfer.wire_bytes);
        Ok(())
    }
}

/// A collective's word in labels.
fn word(kind: CollectiveKind) -> &'static str {
    match kind {
        CollectiveKind::AllReduce => "all_reduce",
        CollectiveKind::AllGather => "all_gather",
        CollectiveKind::ReduceScatter => "reduce_scatter",
        CollectiveKind::Broadcast => "broadcast",
        CollectiveKind::AllToAll => "all_to_all",
    }
}

#[cfg(test)]
mod tests {
    use steptime_clusters::Placement;
    use steptime_core::{NoObserver, simulate};

    use super::*;

    fn node(name: &str, stream: &str, work: TraceWork, after: &[usize]) -> TraceNode {
        TraceNode { name: name.to_owned(), stream: stream.to_owned(), work, after: after.to_vec() }
    }

    fn cluster() -> Cluster {
        let entry = steptime_clusters::cluster_from_catalogue("dgx-h100").expect("an entry");
        let steptime_clusters::ClusterEntry::Nodes(cluster) = entry else { panic!("nodes") };
        cluster
    }

    fn busy(picos: u64) -> TraceWork {
        TraceWork::Busy(SimTime::from_picos(picos))
    }

    #[test]
    fn a_collective_waits_for_its_slowest_member_and_takes_what_it_costs() {
        let cluster = cluster();
        let all = |bytes| TraceWork::Collective {
            kind: CollectiveKind::AllReduce,
            group: "world".to_owned(),
            ranks: vec![0, 1],
            bytes,
        };
        let rank =
            |time| vec![node("a", "compute", busy(time), &[]), node("sum", "comm", all(1 << 20), &[0])];
        let world = lower_trace(&cluster, &[rank(1_000_000), rank(3_000_000)]).unwrap();
        let end = simulate(&world, &mut NoObserver).unwrap().end;
        let placement = Placement { ranks: 2, nodes: 1 };
        let alone = collective(&cluster, CollectiveKind::AllReduce, placement, 1 << 20);
        let expected = 3e-6 + alone.alone_s(&cluster, placement);
        // The flow's last byte ends on a whole picosecond.
        assert!((end.seconds() - expected).abs() < 5e-12, "{} {expected}", end.seconds());
    }

    #[test]
    fn a_send_meets_its_receive() {
        let cluster = cluster();
        let send = TraceWork::Send { to: 1, tag: 0, bytes: 1 << 20 };
        let receive = TraceWork::Receive { from: 0, tag: 0, bytes: 1 << 20 };
        let ranks = [
            vec![node("a", "compute", busy(7_000_000), &[]), node("s", "send", send, &[0])],
            vec![node("r", "receive", receive, &[]), node("b", "compute", busy(5_000_000), &[0])],
        ];
        let world = lower_trace(&cluster, &ranks).unwrap();
        let end = simulate(&world, &mut NoObserver).unwrap().end;
        let way = point_to_point(&cluster, false, 1 << 20);
        let expected = 12e-6 + way.alone_s(&cluster, Placement { ranks: 2, nodes: 1 });
        assert!((end.seconds() - expected).abs() < 5e-12, "{} {expected}", end.seconds());
    }

    #[test]
    fn what_cannot_be_played_is_refused() {
        let alone = |work| lower_trace(&cluster(), &[vec![node("x", "s", work, &[])]]);
        assert!(alone(TraceWork::Send { to: 3, tag: 0, bytes: 8 }).is_err());
        assert!(lower_trace(&cluster(), &[vec![node("x", "s", busy(1), &[4])]]).is_err());
        assert!(lower_trace(&cluster(), &[]).is_err());
    }
}
