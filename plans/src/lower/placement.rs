//! Where ranks sit, which links their traffic crosses, and which ranks do the same and are played once.
//!
//! Rank `stage * data + replica` (data-parallel ranks of a stage are neighbours, as in Megatron-LM's default
//! order) sits on GPU `rank % gpus_per_node` of node `rank / gpus_per_node`.

use steptime_clusters::{Cluster, Placement};
use steptime_core::{GroupId, LinkId, LinkUse, SimTime, WorldBuilder};

use crate::error::PlanError;

/// The ranks of a job on the nodes of a cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) data: u32,
    pub(super) pipeline: u32,
    pub(super) gpus_per_node: u32,
}

impl Layout {
    pub(super) fn rank(self, stage: u32, replica: u32) -> u32 {
        stage * self.data + replica
    }

    pub(super) fn node(self, rank: u32) -> u32 {
        rank / self.gpus_per_node
    }

    /// Nodes over which a stage's data-parallel group spreads.
    pub(super) fn data_placement(self, stage: u32) -> Placement {
        let first = self.node(self.rank(stage, 0));
        let last = self.node(self.rank(stage, self.data - 1));
        Placement { ranks: self.data, nodes: last - first + 1 }
    }

    /// Whether the traffic between two stages of a replica leaves the node.
    pub(super) fn crosses(self, from: u32, to: u32, replica: u32) -> bool {
        self.node(self.rank(from, replica)) != self.node(self.rank(to, replica))
    }

    /// Replicas of a stage on the node that a given one of them sits on, as an interval.
    fn neighbours(self, stage: u32, replica: u32) -> std::ops::Range<u32> {
        let first = self.rank(stage, 0);
        let begin = self.node(self.rank(stage, replica)) * self.gpus_per_node;
        let end = begin.saturating_add(self.gpus_per_node);
        begin.saturating_sub(first)..end.saturating_sub(first).min(self.data)
    }

    /// Replicas whose traffic from stage `from` to stage `to` shares a given replica's pair of nodes.
    fn sharing(self, from: u32, to: u32, replica: u32) -> u32 {
        let (a, b) = (self.neighbours(from, replica), self.neighbours(to, replica));
        a.end.min(b.end).saturating_sub(a.start.max(b.start))
    }

    /// Members of a stage's data-parallel group on a rank's node.
    fn group_on_node(self, stage: u32, replica: u32) -> u32 {
        let range = self.neighbours(stage, replica);
        range.end - range.start
    }

    /// Stages of which a replica's rank sits on the node of its rank of `stage`: ranks of one replica are `data`
    /// apart.
    fn stages_on_node(self, stage: u32, replica: u32) -> u32 {
        let begin = self.node(self.rank(stage, replica)) * self.gpus_per_node;
        let below = |rank: u32| rank.saturating_sub(replica).div_ceil(self.data).min(self.pipeline);
        below(begin.saturating_add(self.gpus_per_node)) - below(begin)
    }

    /// Whether all replicas see the same network, so that one of them stands for all.
    ///
    /// They do when, for every boundary between stages, either all or none cross nodes and all share their
    /// pair of nodes with equally many others, and every node of a stage holds equally many of its replicas and
    /// of other stages. That is plain where stages fill whole nodes or nodes whole stages. Elsewhere it is
    /// looked at for the first replica after each border between nodes: those up to the next see the same.
    pub(super) fn symmetric(self) -> bool {
        let (data, node) = (self.data, self.gpus_per_node);
        if data.is_multiple_of(node) || node.is_multiple_of(data) {
            return true;
        }
        let view = |replica: u32| {
            (0..self.pipeline).map(move |stage| {
                let next = (stage + 1) % self.pipeline;
                (
                    self.crosses(stage, next, replica),
                    self.sharing(stage, next, replica),
                    self.group_on_node(stage, replica),
                    self.stages_on_node(stage, replica),
                )
            })
        };
        let borders = (0..self.pipeline).flat_map(|stage| {
            let first = self.rank(stage, 0);
            let offset = (node - first % node) % node;
            (offset..data).step_by(node as usize)
        });
        borders.into_iter().all(|replica| view(replica).eq(view(0)))
    }
}

/// Link identifiers of a cluster's ports.
pub(super) struct Ports {
    layout: Layout,
    folded: bool,
    /// Egress and ingress of each GPU into the fabric of its node.
    gpus: Vec<Option<(LinkId, LinkId)>>,
    /// The host bridge that all GPUs of a node share, where there is one.
    bridges: Vec<Option<LinkId>>,
    /// Egress and ingress of each node into the network, all cards together.
    nodes: Vec<Option<(LinkId, LinkId)>>,
    /// What each GPU can bring to the network through its nearest cards.
    cards: Vec<Option<LinkId>>,
    /// What a group of so many ranks on a node can bring to the network.
    network: Option<steptime_clusters::Network>,
}

impl Ports {
    /// Makes the links of the ranks that are played and of their nodes.
    pub(super) fn new(world: &mut WorldBuilder, cluster: &Cluster, layout: Layout, folded: bool) -> Self {
        let ranks = layout.data * layout.pipeline;
        let nodes = layout.node(ranks - 1) + 1;
        let mut ports = Self {
            layout,
            folded,
            gpus: vec![None; ranks as usize],
            bridges: vec![None; nodes as usize],
            nodes: vec![None; nodes as usize],
            cards: vec![None; ranks as usize],
            network: cluster.network.clone().filter(|_| nodes > 1),
        };
        let capacity = cluster.fabric.port_bandwidth();
        let step = if folded { layout.data } else { 1 };
        for rank in (0..ranks).step_by(step as usize) {
            let out = world.link(&format!("gpu {rank} out"), capacity, SimTime::ZERO);
            let into = world.link(&format!("gpu {rank} in"), capacity, SimTime::ZERO);
            ports.gpus[rank as usize] = Some((out, into));
            let node = layout.node(rank) as usize;
            if ports.bridges[node].is_none() {
                ports.bridges[node] = cluster
                    .fabric
                    .shared_bandwidth
                    .map(|shared| world.link(&format!("node {node} bridge"), shared, SimTime::ZERO));
            }
            let Some(network) = &ports.network else { continue };
            let card = world.link(&format!("gpu {rank} cards"), network.gpu_bandwidth, SimTime::ZERO);
            ports.cards[rank as usize] = Some(card);
            if ports.nodes[node].is_none() {
                let capacity = network.node_bandwidth();
                let out = world.link(&format!("node {node} out"), capacity, SimTime::ZERO);
                let into = world.link(&format!("node {node} in"), capacity, SimTime::ZERO);
                ports.nodes[node] = Some((out, into));
            }
        }
        ports
    }

    /// The group of a stage's data-parallel ranks: a ring crosses every member's egress once, every hop inside
    /// a node crosses that node's bridge, and one hop a node leaves it.
    pub(super) fn data_group(&self, world: &mut WorldBuilder, stage: u32) -> GroupId {
        let layout = self.layout;
        let members = if self.folded { 1 } else { layout.data };
        let mut path = Vec::new();
        for replica in 0..members {
            if let Some((out, _)) = self.gpus[layout.rank(stage, replica) as usize] {
                path.push(LinkUse { link: out, weight: 1 });
            }
        }
        let first = layout.node(layout.rank(stage, 0));
        let last = layout.node(layout.rank(stage, members - 1));
        let spread = layout.data_placement(stage).nodes > 1;
        for node in first..=last {
            let replica = (0..members).find(|&r| layout.node(layout.rank(stage, r)) == node).unwrap_or(0);
            let inside = layout.group_on_node(stage, replica);
            if let (Some(bridge), true) = (self.bridges[node as usize], inside > 1) {
                path.push(LinkUse { link: bridge, weight: inside });
            }
            if let (Some((out, _)), Some(network), true) = (self.nodes[node as usize], &self.network, spread)
            {
                path.push(LinkUse { link: out, weight: 1 });
                // The ring leaves the node through the cards of all its members here.
                let capacity = network.group_bandwidth(inside);
                let cards = world.link(&format!("stage {stage} node {node} cards"), capacity, SimTime::ZERO);
                path.push(LinkUse { link: cards, weight: 1 });
            }
        }
        world.group(members, path)
    }

    /// The pair of ranks of which one sends to the other, for one replica.
    pub(super) fn pair(&self, world: &mut WorldBuilder, from: u32, to: u32, replica: u32) -> GroupId {
        let path = self.path(from, to, replica);
        world.group(2, path)
    }

    /// The pair of ranks that send to each other at the same time, for one replica.
    pub(super) fn exchange(&self, world: &mut WorldBuilder, a: u32, b: u32, replica: u32) -> GroupId {
        let mut path = self.path(a, b, replica);
        for back in self.path(b, a, replica) {
            // The bridge between sockets carries both directions.
            match path.iter_mut().find(|there| there.link == back.link) {
                Some(there) => there.weight += back.weight,
                None => path.push(back),
            }
        }
        world.group(2, path)
    }

    fn path(&self, from: u32, to: u32, replica: u32) -> Vec<LinkUse> {
        let layout = self.layout;
        let (source, target) = (layout.rank(from, replica), layout.rank(to, replica));
        let shared = if self.folded { layout.sharing(from, to, replica) } else { 1 };
        let mut path = Vec::new();
        if let (Some((out, _)), Some((_, into))) = (self.gpus[source as usize], self.gpus[target as usize]) {
            path.push(LinkUse { link: out, weight: 1 });
            path.push(LinkUse { link: into, weight: 1 });
        }
        let (a, b) = (layout.node(source) as usize, layout.node(target) as usize);
        if a == b {
            path.extend(self.bridges[a].map(|bridge| LinkUse { link: bridge, weight: shared }));
        } else if let (Some((out, _)), Some((_, into))) = (self.nodes[a], self.nodes[b]) {
            path.push(LinkUse { link: out, weight: shared });
            path.push(LinkUse { link: into, weight: shared });
            path.extend(self.cards[source as usize].map(|card| LinkUse { link: card, weight: 1 }));
        }
        path
    }
}

/// Checks that the job uses exactly the cluster's GPUs.
pub(super) fn layout(cluster: &Cluster, data: u64, pipeline: u64) -> Result<Layout, PlanError> {
    let gpus = u64::from(cluster.nodes) * u64::from(cluster.gpus_per_node);
    let ranks = data.saturating_mul(pipeline);
    if ranks != gpus || ranks == 0 {
        return Err(PlanError::RankCount {
            data,
            pipeline,
            ranks,
            nodes: u64::from(cluster.nodes),
            gpus_per_node: u64::from(cluster.gpus_per_node),
            gpus,
        });
    }
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(Layout { data: narrow(data), pipeline: narrow(pipeline), gpus_per_node: cluster.gpus_per_node })
}
