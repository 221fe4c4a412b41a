//! Reading execution traces: the graph of one rank, in an order in which it can be played.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use prost::Message;
use prost::encoding::decode_varint;
use steptime_clusters::CollectiveKind;
use steptime_core::SimTime;
use steptime_plans::{TraceNode, TraceWork};

use super::ChakraError;
use super::schema::{COMM_TYPES, GlobalMetadata, Node, NodeType};

/// Ranks of process groups, by name.
pub type Groups = BTreeMap<String, Vec<u32>>;

/// The operations of one rank.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RankTrace {
    /// Operations, each after all that it waits for.
    pub nodes: Vec<TraceNode>,
    /// Groups that the file itself lists.
    pub groups: Groups,
    /// Computations without a duration, by place in `nodes`: operations and bytes that they name.
    pub unpriced: Vec<(usize, u64, u64)>,
}

/// Reads a rank's file. Process groups are those that the file lists, or `groups`; without a name, and where nothing
/// knows the name, all of `ranks`.
///
/// # Errors
/// The file is not a Chakra trace, names what it does not have, or its dependencies go round in a circle.
pub fn read(bytes: &[u8], groups: &Groups, ranks: u32) -> Result<RankTrace, ChakraError> {
    let mut rest = bytes;
    let metadata: GlobalMetadata = next(bytes, &mut rest)?.unwrap_or_default();
    let mut nodes: Vec<Node> = Vec::new();
    while let Some(node) = next::<Node>(bytes, &mut rest)? {
        nodes.push(node);
    }
    let listed = metadata.attr.iter().find(|it| it.name == "process_groups");
    let listed = listed.and_then(|it| it.value.as_ref()).and_then(super::schema::Value::text);
    let mut known = groups.clone();
    if let Some(text) = listed {
        let own: Groups = serde_json::from_str(&text)
            .map_err(|error| ChakraError::Damaged { at: 0, message: format!("process_groups: {error}") })?;
        known.extend(own);
    }
    let order = order(&nodes)?;
    let mut place = vec![0_usize; nodes.len()];
    for (at, &(node, _)) in order.iter().enumerate() {
        place[node] = at;
    }
    let mut trace = RankTrace { groups: known, ..RankTrace::default() };
    for (at, (node, before)) in order.iter().enumerate() {
        let node = &nodes[*node];
        let after = before.iter().map(|&it| place[it]).collect();
        let work = work(node, &trace.groups, ranks)?;
        if work == TraceWork::Busy(SimTime::ZERO)
            && let (Some(operations), bytes) = (node.count("num_ops"), node.count("tensor_size"))
        {
            trace.unpriced.push((at, operations, bytes.unwrap_or(0)));
        }
        trace.nodes.push(TraceNode { name: node.name.clone(), stream: stream(node), work, after });
    }
    Ok(trace)
}

/// The next message, if there is one.
fn next<M: Message + Default>(all: &[u8], rest: &mut &[u8]) -> Result<Option<M>, ChakraError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let at = all.len() - rest.len();
    let damaged = |message: String| ChakraError::Damaged { at, message };
    let length = decode_varint(rest).map_err(|error| damaged(error.to_string()))?;
    let length = usize::try_from(length).ok().filter(|&length| length <= rest.len());
    let Some(length) = length else {
        return Err(damaged(
            "a message is longer than the file, which is no Chakra trace or cut short".to_owned(),
        ));
    };
    let (message, behind) = rest.split_at(length);
    *rest = behind;
    M::decode(message).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Places of the nodes in an order in which each comes after what it waits for, the file's where that allows; with each
/// the places of what it waits for.
fn order(nodes: &[Node]) -> Result<Vec<(usize, Vec<usize>)>, ChakraError> {
    let mut places: BTreeMap<u64, usize> = BTreeMap::new();
    for (at, node) in nodes.iter().enumerate() {
        if places.insert(node.id, at).is_some() {
            return Err(wrong(node, "has the number of another node"));
        }
    }
    let mut missing = vec![0_usize; nodes.len()];
    let mut waiting: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (at, node) in nodes.iter().enumerate() {
        for id in node.ctrl_deps.iter().chain(&node.data_deps) {
            let Some(&other) = places.get(id) else {
                return Err(wrong(node, &format!("waits for node {id}, which the trace does not have")));
            };
            before[at].push(other);
        }
        before[at].sort_unstable();
        before[at].dedup();
        missing[at] = before[at].len();
        for &other in &before[at] {
            waiting[other].push(at);
        }
    }
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|&at| missing[at] == 0).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(at)) = ready.pop() {
        for &next in &waiting[at] {
            missing[next] -= 1;
            if missing[next] == 0 {
                ready.push(Reverse(next));
            }
        }
        order.push((at, std::mem::take(&mut before[at])));
    }
    match missing.iter().position(|&count| count > 0) {
        Some(at) => Err(wrong(&nodes[at], "waits for itself by way of others")),
        None => Ok(order),
    }
}

fn wrong(node: &Node, message: &str) -> ChakraError {
    ChakraError::Node { id: node.id, name: node.name.clone(), message: message.to_owned() }
}

/// The stream that does a node: the one that it names, or one for each kind of work.
fn stream(node: &Node) -> String {
    let cpu = node.value("is_cpu_op").is_some_and(|it| *it == super::schema::Value::Bool(true));
    let named = node.value("stream").and_then(super::schema::Value::text);
    match (named, NodeType::try_from(node.kind)) {
        (Some(name), _) if !cpu => name,
        (Some(_) | None, _) if cpu => "host".to_owned(),
        (_, Ok(NodeType::CommSend)) => format!("send to {}", node.count("comm_dst").unwrap_or(0)),
        (_, Ok(NodeType::CommRecv)) => format!("receive from {}", node.count("comm_src").unwrap_or(0)),
        (_, Ok(NodeType::CommColl)) => "collectives".to_owned(),
        (_, Ok(NodeType::MemLoad | NodeType::MemStore)) => "memory".to_owned(),
        _ => "compute".to_owned(),
    }
}

fn work(node: &Node, groups: &Groups, ranks: u32) -> Result<TraceWork, ChakraError> {
    let duration = match node.count("duration_picos") {
        Some(picos) => SimTime::from_picos(picos),
        None => SimTime::from_picos(node.duration_micros.saturating_mul(1_000_000)),
    };
    let rank = |name: &str| {
        let found = node.count(name).and_then(|it| u32::try_from(it).ok());
        found.ok_or_else(|| wrong(node, &format!("has no attribute {name} with a rank")))
    };
    let tag = node.count("comm_tag").unwrap_or(0) as u32;
    let bytes = node.count("comm_size");
    let bytes = || bytes.ok_or_else(|| wrong(node, "has no attribute comm_size"));
    match NodeType::try_from(node.kind) {
        Ok(NodeType::CommSend) => Ok(TraceWork::Send { to: rank("comm_dst")?, tag, bytes: bytes()? }),
        Ok(NodeType::CommRecv) => Ok(TraceWork::Receive { from: rank("comm_src")?, tag, bytes: bytes()? }),
        Ok(NodeType::CommColl) => {
            let name = node.value("pg_name").and_then(super::schema::Value::text).unwrap_or_default();
            let members = groups.get(&name).cloned().unwrap_or_else(|| (0..ranks).collect());
            let number = node.count("comm_type").unwrap_or(u64::MAX);
            let kind = collective(number).ok_or_else(|| {
                let word = COMM_TYPES.get(number as usize).copied().unwrap_or("unknown");
                let allowed =
                    "ALL_REDUCE, REDUCE, ALL_GATHER, BROADCAST, ALL_TO_ALL, REDUCE_SCATTER, BARRIER";
                wrong(node, &format!("has comm_type {number} ({word}), allowed: {allowed}"))
            })?;
            // A barrier moves a flag.
            let bytes = if number == 9 { node.count("comm_size").unwrap_or(1).max(1) } else { bytes()? };
            Ok(TraceWork::Collective { kind, group: name, ranks: members, bytes })
        }
        Ok(NodeType::Invalid) => Err(wrong(node, "has no type")),
        Ok(NodeType::Metadata) => Ok(TraceWork::Busy(SimTime::ZERO)),
        Ok(NodeType::Comp | NodeType::MemLoad | NodeType::MemStore) => Ok(TraceWork::Busy(duration)),
        Err(_) => Err(wrong(node, &format!("is of type {}, which is not played", node.kind))),
    }
}

/// The collective of a `CollectiveCommType`. A reduction to one rank takes the way of a broadcast, backwards.
fn collective(number: u64) -> Option<CollectiveKind> {
    match number {
        0 | 9 => Some(CollectiveKind::AllReduce),
        1 | 5 => Some(CollectiveKind::Broadcast),
        2 => Some(CollectiveKind::AllGather),
        6 => Some(CollectiveKind::AllToAll),
        7 | 8 => Some(CollectiveKind::ReduceScatter),
        _ => None,
    }
}
