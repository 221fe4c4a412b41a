//! Where ranks sit, which links their traffic crosses, and which ranks do the same and are played once.
//!
//! Rank `((stage * data + replica) * context + chunk) * tensor + part` (Megatron-LM's default order: tensor-parallel ranks
//! are neighbours, then come those that share sequences, then the replicas, then the stages) sits on GPU `rank % gpus_per_node` of node `rank / gpus_per_node`,
//! unless the plan counts ranks in another order or names the GPU of each ([`super::seats`]).

use std::cell::RefCell;

use steptime_clusters::{Cluster, Network, Placement, TopologyError};
use steptime_core::{GroupId, LinkId, LinkUse, SimTime, WorldBuilder};
use steptime_models::ContextMethod;

use super::routes::{Crossed, Routes, Seat};
use super::seats::Seats;
use crate::error::PlanError;
use crate::plan::Plan;

/// The ranks of a job on the nodes of a cluster.
///
/// The ranks of a stage are its *lanes*: `data * context * tensor` of them, the ranks of a tensor-parallel group next to
/// each other. For experts the same lanes are `expert_tensor` neighbours that share each expert, `expert` such groups
/// that hold all experts, and as many copies of these as there is room for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout<'a> {
    /// Ranks with the same part of the layers and different tokens.
    pub(super) data: u32,
    /// Those of them that partition the states of one copy.
    pub(super) shard: u32,
    /// Those of these that keep a second copy together.
    pub(super) secondary: u32,
    /// Those of them that share each sequence.
    pub(super) context: u32,
    pub(super) tensor: u32,
    pub(super) expert: u32,
    pub(super) expert_tensor: u32,
    pub(super) pipeline: u32,
    pub(super) gpus_per_node: u32,
    /// Where ranks sit, if not in the usual order.
    pub(super) seats: Option<&'a Seats>,
}

/// Which ranks of a stage form a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Along {
    /// Those with the same part of the layers, or of these those over which ZeRO partitions.
    Data,
    /// Those that share the layers of one replica.
    Tensor,
    /// Those that share sequences.
    Context,
    /// Those over which the experts are spread.
    Expert,
    /// Those that share each expert.
    ExpertTensor,
    /// Those with the same part of the same experts, or of these those over which ZeRO partitions.
    ExpertData,
    /// Those with the same part of what is partitioned over smaller groups than all.
    Replicas,
    /// Those that keep a second copy of the parameters together.
    Secondary,
}

/// Where a stage's groups sit, by [`Along`].
pub(super) type Placements = [Placement; 8];

impl Along {
    /// All of them; each is at the place of its number.
    pub(super) const ALL: [Self; 8] = [
        Self::Data,
        Self::Tensor,
        Self::Context,
        Self::Expert,
        Self::ExpertTensor,
        Self::ExpertData,
        Self::Replicas,
        Self::Secondary,
    ];
}

impl Layout<'_> {
    pub(super) fn lanes(self) -> u32 {
        self.data * self.tensor
    }

    pub(super) fn ranks(self) -> u32 {
        self.lanes() * self.pipeline
    }

    /// Place of a lane of a stage on the GPUs of all nodes.
    pub(super) fn rank(self, stage: u32, lane: u32) -> u32 {
        let usual = stage * self.lanes() + lane;
        self.seats.map_or(usual, |seats| seats.gpu(usual))
    }

    /// Its number among the job's ranks.
    pub(super) fn number(self, stage: u32, lane: u32) -> u32 {
        let usual = stage * self.lanes() + lane;
        self.seats.map_or(usual, |seats| seats.number(usual))
    }

    pub(super) fn node(self, rank: u32) -> u32 {
        rank / self.gpus_per_node
    }

    /// Lanes of the group that a lane belongs to, in order.
    pub(super) fn members(self, along: Along, lane: u32) -> impl Iterator<Item = u32> + Clone + use<> {
        let block = self.tensor * self.shard;
        let (first, step, count) = match along {
            Along::Data => (Self::first_of_block(lane, self.tensor, self.shard), self.tensor, self.shard),
            Along::Replicas => (lane % block, block, self.data / self.shard),
            Along::Secondary => {
                (Self::first_of_block(lane, self.tensor, self.secondary), self.tensor, self.secondary)
            }
            Along::Tensor => (lane / self.tensor * self.tensor, 1, self.tensor),
            Along::Context => {
                (Self::first_of_block(lane, self.tensor, self.context), self.tensor, self.context)
            }
            Along::Expert => {
                let first = Self::first_of_block(lane, self.expert_tensor, self.expert);
                (first, self.expert_tensor, self.expert)
            }
            Along::ExpertTensor => (lane / self.expert_tensor * self.expert_tensor, 1, self.expert_tensor),
            Along::ExpertData => {
                let copy = self.expert_tensor * self.expert;
                let copies = block / copy;
                (Self::first_of_block(lane, copy, copies), copy, copies)
            }
        };
        (0..count).map(move |index| first + index * step)
    }

    /// First of `count` lanes that are `step` apart, in the block of lanes that they fill together.
    const fn first_of_block(lane: u32, step: u32, count: u32) -> u32 {
        let block = step * count;
        lane / block * block + lane % step
    }

    /// Placement of the first lane's group along each direction, by the direction's number.
    pub(super) fn placements(self, stage: u32) -> Placements {
        Along::ALL.map(|along| self.placement(along, stage, 0))
    }

    /// First lane of the group that a lane belongs to.
    pub(super) fn first_member(self, along: Along, lane: u32) -> u32 {
        self.members(along, lane).next().unwrap_or(lane)
    }

    /// Ranks of a group and the nodes over which they spread.
    pub(super) fn placement(self, along: Along, stage: u32, lane: u32) -> Placement {
        let ring = self.ring(along, stage, lane).into_iter();
        self.placement_of(&ring.map(|member| self.rank(stage, member)).collect::<Vec<u32>>())
    }

    /// The same of ranks of which those of a node are next to each other.
    pub(super) fn placement_of(self, ranks: &[u32]) -> Placement {
        let mut nodes = 0;
        let mut last = None;
        for &rank in ranks {
            let node = self.node(rank);
            nodes += u32::from(last.replace(node) != Some(node));
        }
        Placement { ranks: ranks.len() as u32, nodes }
    }

    /// Members of a group in the order in which a ring visits them: node by node.
    fn ring(self, along: Along, stage: u32, lane: u32) -> Vec<u32> {
        let mut members: Vec<u32> = self.members(along, lane).collect();
        if self.seats.is_some() {
            members.sort_by_key(|&member| self.rank(stage, member));
        }
        members
    }

    /// Whether the traffic between two stages of a lane leaves the node.
    pub(super) fn crosses(self, from: u32, to: u32, lane: u32) -> bool {
        self.node(self.rank(from, lane)) != self.node(self.rank(to, lane))
    }

    /// Lanes of a stage on the node that a given one of them sits on.
    fn beside(self, stage: u32, lane: u32) -> impl Iterator<Item = u32> {
        let range = if self.seats.is_none() { self.neighbours(stage, lane) } else { 0..self.lanes() };
        let node = self.node(self.rank(stage, lane));
        range.filter(move |&other| self.node(self.rank(stage, other)) == node)
    }

    /// The same as an interval, where ranks sit in the usual order.
    fn neighbours(self, stage: u32, lane: u32) -> std::ops::Range<u32> {
        let first = self.rank(stage, 0);
        let begin = self.node(self.rank(stage, lane)) * self.gpus_per_node;
        let end = begin.saturating_add(self.gpus_per_node);
        begin.saturating_sub(first)..end.saturating_sub(first).min(self.lanes())
    }

    /// Lanes whose traffic from stage `from` to stage `to` shares a given lane's pair of nodes.
    pub(super) fn sharing(self, from: u32, to: u32, lane: u32) -> u32 {
        if self.seats.is_some() {
            let there = self.node(self.rank(to, lane));
            let both = self.beside(from, lane).filter(|&other| self.node(self.rank(to, other)) == there);
            return both.count() as u32;
        }
        let (a, b) = (self.neighbours(from, lane), self.neighbours(to, lane));
        a.end.min(b.end).saturating_sub(a.start.max(b.start))
    }

    /// Lanes of a stage on a rank's node.
    fn lanes_on_node(self, stage: u32, lane: u32) -> u32 {
        if self.seats.is_some() {
            return self.beside(stage, lane).count() as u32;
        }
        let range = self.neighbours(stage, lane);
        range.end - range.start
    }

    /// Lanes of a stage among the ranks from the first to behind the last of a range.
    pub(super) fn lanes_among(self, stage: u32, (begin, end): (u32, u32)) -> u32 {
        if self.seats.is_some() {
            let among = |lane: &u32| (begin..end).contains(&self.rank(stage, *lane));
            return (0..self.lanes()).filter(among).count() as u32;
        }
        let first = self.rank(stage, 0);
        end.min(first + self.lanes()).saturating_sub(begin.max(first))
    }

    /// Where ranks sit that are all stages of their own.
    pub(super) fn in_a_row(ranks: u32, gpus_per_node: u32) -> Self {
        Self {
            data: 1,
            shard: 1,
            secondary: 1,
            context: 1,
            tensor: 1,
            expert: 1,
            expert_tensor: 1,
            pipeline: ranks,
            gpus_per_node,
            seats: None,
        }
    }

    /// Members of a lane's group on its node.
    fn members_on_node(self, along: Along, stage: u32, lane: u32) -> u32 {
        self.places_on_node(along, stage, lane).len() as u32
    }

    /// GPUs of its node on which the members of a lane's group sit.
    pub(super) fn places_on_node(self, along: Along, stage: u32, lane: u32) -> Vec<u32> {
        let node = self.node(self.rank(stage, lane));
        let ranks = self.ring(along, stage, lane).into_iter().map(|member| self.rank(stage, member));
        ranks.filter(|&rank| self.node(rank) == node).map(|rank| rank % self.gpus_per_node).collect()
    }

    /// GPUs of the first rank's node on which it and those that follow sit, up to the first on another node.
    fn places_from(self, ranks: &[u32]) -> Vec<u32> {
        let node = ranks.first().map(|&first| self.node(first));
        let here = ranks.iter().take_while(|&&rank| Some(self.node(rank)) == node);
        here.map(|rank| rank % self.gpus_per_node).collect()
    }

    /// Stages of which a lane's rank sits on the node of its rank of `stage`: ranks of one lane are `lanes` apart.
    fn stages_on_node(self, stage: u32, lane: u32) -> u32 {
        let begin = self.node(self.rank(stage, lane)) * self.gpus_per_node;
        let below = |rank: u32| rank.saturating_sub(lane).div_ceil(self.lanes()).min(self.pipeline);
        below(begin.saturating_add(self.gpus_per_node)) - below(begin)
    }

    /// Whether all lanes see the same network, so that one of them stands for all.
    ///
    /// They do when, for every boundary between stages, either all or none cross nodes and all share their
    /// pair of nodes with equally many others, and every node of a stage holds equally many of its lanes and
    /// of other stages. That is plain where stages fill whole nodes or nodes whole stages. Elsewhere it is
    /// looked at for the first lane after each border between nodes: those up to the next see the same. Groups that
    /// share layers, sequences or experts must lie alike too: inside the nodes, or filling them.
    pub(super) fn symmetric(self) -> bool {
        if self.seats.is_some() {
            return super::seats::symmetric(self);
        }
        let (lanes, tensor, node) = (self.lanes(), self.tensor, self.gpus_per_node);
        let alike = |block: u32| node.is_multiple_of(block) || block.is_multiple_of(node);
        let experts = self.expert_tensor * self.expert;
        let (shard, secondary) = (tensor * self.shard, tensor * self.secondary);
        let blocks = [tensor, tensor * self.context, self.expert_tensor, experts, shard, secondary];
        if !blocks.into_iter().all(alike) {
            return false;
        }
        if lanes.is_multiple_of(node) || node.is_multiple_of(lanes) {
            return true;
        }
        if self.context > 1 || experts > tensor || self.shard < self.data || self.secondary > 1 {
            // Their blocks may lie across the borders between nodes in different ways.
            return false;
        }
        let view = |lane: u32| {
            (0..self.pipeline).map(move |stage| {
                let next = (stage + 1) % self.pipeline;
                (
                    self.crosses(stage, next, lane),
                    self.sharing(stage, next, lane),
                    self.lanes_on_node(stage, lane),
                    self.stages_on_node(stage, lane),
                    self.members_on_node(Along::Tensor, stage, lane),
                )
            })
        };
        let borders = (0..self.pipeline).flat_map(|stage| {
            let first = self.rank(stage, 0);
            let offset = (node - first % node) % node;
            (offset..lanes).step_by(node as usize)
        });
        borders.into_iter().all(|lane| view(lane).eq(view(0)))
    }
}

/// Link identifiers of a cluster's ports.
pub(super) struct Ports<'a> {
    layout: Layout<'a>,
    folded: bool,
    /// Egress and ingress of each GPU into the fabric of its node.
    gpus: Vec<Option<(LinkId, LinkId)>>,
    /// The host bridge that all GPUs of a node share, where there is one.
    bridges: Vec<Option<LinkId>>,
    /// Egress and ingress of each node into the network, all cards together.
    nodes: Vec<Option<(LinkId, LinkId)>>,
    /// What the GPUs of a node can bring to the network through cards far from them, where that is less.
    far: Vec<Option<LinkId>>,
    /// What each GPU can bring to the network through its nearest cards.
    cards: Vec<Option<LinkId>>,
    /// By node: what its ranks can bring to the network.
    networks: Vec<Option<Network>>,
    /// Whether context-parallel ranks send to each other all at once, instead of round a ring.
    all_to_all: bool,
    /// Links behind the ports, where they are described.
    routes: Option<RefCell<Routes>>,
}

impl<'a> Ports<'a> {
    /// Makes the links of the ranks that are played and of their nodes.
    pub(super) fn new(
        world: &mut WorldBuilder,
        cluster: &Cluster,
        context: ContextMethod,
        layout: Layout<'a>,
        folded: bool,
    ) -> Self {
        let ranks = layout.ranks();
        let nodes = layout.node(ranks - 1) + 1;
        let mut ports = Self {
            layout,
            folded,
            gpus: vec![None; ranks as usize],
            bridges: vec![None; nodes as usize],
            nodes: vec![None; nodes as usize],
            far: vec![None; nodes as usize],
            cards: vec![None; ranks as usize],
            networks: (0..nodes).map(|node| network(cluster, node).filter(|_| nodes > 1)).collect(),
            all_to_all: context == ContextMethod::AllToAll,
            routes: cluster.topology.as_ref().map(|it| RefCell::new(Routes::new(it, layout.gpus_per_node))),
        };
        let played = if folded { 1 } else { layout.lanes() };
        let places = (0..layout.pipeline).flat_map(|stage| (0..played).map(move |lane| (stage, lane)));
        for rank in places.map(|(stage, lane)| layout.rank(stage, lane)) {
            let own = cluster.kind(cluster.kind_of(u64::from(rank)));
            let capacity = own.fabric.port_bandwidth();
            let out = world.link(&format!("gpu {rank} out"), capacity, SimTime::ZERO);
            let into = world.link(&format!("gpu {rank} in"), capacity, SimTime::ZERO);
            ports.gpus[rank as usize] = Some((out, into));
            let node = layout.node(rank) as usize;
            if ports.bridges[node].is_none() {
                ports.bridges[node] = own
                    .fabric
                    .shared_bandwidth
                    .map(|shared| world.link(&format!("node {node} bridge"), shared, SimTime::ZERO));
            }
            let Some(network) = &ports.networks[node] else { continue };
            let card = world.link(&format!("gpu {rank} cards"), network.gpu_bandwidth, SimTime::ZERO);
            ports.cards[rank as usize] = Some(card);
            if ports.nodes[node].is_none() {
                let capacity = network.node_bandwidth();
                let out = world.link(&format!("node {node} out"), capacity, SimTime::ZERO);
                let into = world.link(&format!("node {node} in"), capacity, SimTime::ZERO);
                ports.nodes[node] = Some((out, into));
                let far = |capacity| world.link(&format!("node {node} far cards"), capacity, SimTime::ZERO);
                ports.far[node] = network.far_bandwidth.map(far);
            }
        }
        ports
    }

    /// Egress and ingress of a rank's GPU into the fabric, if it is played.
    pub(super) fn port(&self, rank: u32) -> Option<(LinkId, LinkId)> {
        self.gpus[rank as usize]
    }

    /// A group of a stage's ranks: a ring crosses every member's egress once, every hop inside a node crosses that
    /// node's bridge, and one hop a node leaves it. Where one lane stands for all, so does its group for those beside
    /// it on the node.
    pub(super) fn group(&self, world: &mut WorldBuilder, along: Along, stage: u32, lane: u32) -> GroupId {
        let layout = self.layout;
        let members = if self.folded { vec![lane] } else { layout.ring(along, stage, lane) };
        let spread = layout.placement(along, stage, lane).nodes > 1;
        let ranks: Vec<u32> = members.iter().map(|&member| layout.rank(stage, member)).collect();
        let path = self.ring_path(world, &format!("stage {stage}"), &ranks, spread, |index| {
            if !self.folded {
                return (layout.places_from(&ranks[index..]), 1);
            }
            let places = layout.places_on_node(along, stage, lane);
            let beside = layout.lanes_on_node(stage, lane).div_ceil((places.len() as u32).max(1));
            (places, beside)
        });
        let crossed = self.crossed(|routes| {
            let seats: Vec<Seat> = members.iter().map(|&member| self.seat(stage, member)).collect();
            let exchange = along == Along::Expert || along == Along::Context && self.all_to_all;
            if exchange { routes.exchange(&seats) } else { routes.ring(&seats) }
        });
        self.make(world, members.len() as u32, &path, crossed)
    }

    /// Links of a ring over ranks, those of a node next to each other. `sides` tells of the first rank on a node which
    /// GPUs of the node take part and how many such groups share the node.
    fn ring_path(
        &self,
        world: &mut WorldBuilder,
        name: &str,
        ranks: &[u32],
        spread: bool,
        sides: impl Fn(usize) -> (Vec<u32>, u32),
    ) -> Vec<LinkUse> {
        let layout = self.layout;
        let mut path: Vec<LinkUse> = Vec::new();
        let mut seen = None;
        for (index, &rank) in ranks.iter().enumerate() {
            if let Some((out, _)) = self.gpus[rank as usize] {
                path.push(LinkUse { link: out, weight: 1 });
            }
            let node = layout.node(rank);
            if seen.replace(node) == Some(node) {
                continue;
            }
            let (places, beside) = sides(index);
            let inside = places.len() as u32;
            if let (Some(bridge), true) = (self.bridges[node as usize], inside > 1) {
                path.push(LinkUse { link: bridge, weight: inside * beside });
            }
            if let (Some((out, _)), Some(network), true) =
                (self.nodes[node as usize], &self.networks[node as usize], spread)
            {
                path.push(LinkUse { link: out, weight: beside });
                // The ring leaves the node through the cards of all its members here.
                let capacity = network.group_bandwidth(inside);
                let cards = world.link(&format!("{name} node {node} cards"), capacity, SimTime::ZERO);
                path.push(LinkUse { link: cards, weight: 1 });
                if let (Some(far), true) =
                    (self.far[node as usize], network.leaves_by_far_card(&places, layout.gpus_per_node))
                {
                    path.push(LinkUse { link: far, weight: beside });
                }
            }
        }
        path
    }

    /// A group of ranks that are stages of their own, wherever they sit; `exchange` if every one sends to every other.
    pub(super) fn group_of(
        &self,
        world: &mut WorldBuilder,
        name: &str,
        ranks: &[u32],
        exchange: bool,
    ) -> GroupId {
        let layout = self.layout;
        let mut ring = ranks.to_vec();
        ring.sort_unstable();
        let placement = layout.placement_of(&ring);
        let path = self.ring_path(world, name, &ring, placement.nodes > 1, |index| {
            (layout.places_from(&ring[index..]), 1)
        });
        let crossed = self.crossed(|routes| {
            let seats: Vec<Seat> = ring.iter().map(|&rank| self.seat(rank, 0)).collect();
            if exchange { routes.exchange(&seats) } else { routes.ring(&seats) }
        });
        self.make(world, ring.len() as u32, &path, crossed)
    }

    /// Where a lane of a stage sits.
    fn seat(&self, stage: u32, lane: u32) -> Seat {
        let rank = self.layout.rank(stage, lane);
        Seat { node: self.layout.node(rank), place: rank % self.layout.gpus_per_node }
    }

    /// Links behind the ports, where they are described.
    fn crossed(&self, find: impl FnOnce(&mut Routes) -> Crossed) -> Option<Crossed> {
        self.routes.as_ref().map(|routes| find(&mut routes.borrow_mut()))
    }

    /// A group over ports and what is behind them.
    fn make(
        &self,
        world: &mut WorldBuilder,
        members: u32,
        ports: &[LinkUse],
        crossed: Option<Crossed>,
    ) -> GroupId {
        match (&self.routes, crossed) {
            (Some(routes), Some(crossed)) => {
                let path = routes.borrow_mut().path(world, ports, &crossed);
                world.divided_group(members, path, crossed.parts)
            }
            _ => world.group(members, ports.to_vec()),
        }
    }

    /// The first traffic for which the topology has no way.
    pub(super) fn fault(&self) -> Option<TopologyError> {
        self.routes.as_ref().and_then(|routes| routes.borrow().fault.clone())
    }

    /// The pair of ranks of which one sends to the other, for one lane.
    pub(super) fn pair(&self, world: &mut WorldBuilder, from: u32, to: u32, lane: u32) -> GroupId {
        let path = self.path(from, to, lane);
        let crossed = self.crossed(|routes| routes.pair(self.seat(from, lane), self.seat(to, lane)));
        self.make(world, 2, &path, crossed)
    }

    /// The pair of ranks that send to each other at the same time, for one lane.
    pub(super) fn exchange(&self, world: &mut WorldBuilder, a: u32, b: u32, lane: u32) -> GroupId {
        let mut path = self.path(a, b, lane);
        for back in self.path(b, a, lane) {
            // The bridge between sockets carries both directions.
            match path.iter_mut().find(|there| there.link == back.link) {
                Some(there) => there.weight += back.weight,
                None => path.push(back),
            }
        }
        let crossed = self.crossed(|routes| routes.both_ways(self.seat(a, lane), self.seat(b, lane)));
        self.make(world, 2, &path, crossed)
    }

    fn path(&self, from: u32, to: u32, lane: u32) -> Vec<LinkUse> {
        let layout = self.layout;
        let (source, target) = (layout.rank(from, lane), layout.rank(to, lane));
        let shared = if self.folded { layout.sharing(from, to, lane) } else { 1 };
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

/// The network of a node's kind.
fn network(cluster: &Cluster, node: u32) -> Option<Network> {
    let first = u64::from(node) * u64::from(cluster.gpus_per_node);
    cluster.kind(cluster.kind_of(first)).network.clone()
}

/// Checks that the job uses exactly the cluster's GPUs.
pub(super) fn layout<'a>(
    cluster: &Cluster,
    plan: &Plan,
    seats: Option<&'a Seats>,
) -> Result<Layout<'a>, PlanError> {
    let gpus = u64::from(cluster.nodes) * u64::from(cluster.gpus_per_node);
    let Plan { data, context, tensor, pipeline, .. } = *plan;
    let ranks = plan.ranks();
    if ranks != gpus || ranks == 0 {
        return Err(PlanError::RankCount {
            data,
            context,
            tensor,
            pipeline,
            ranks,
            nodes: u64::from(cluster.nodes),
            gpus_per_node: u64::from(cluster.gpus_per_node),
            gpus,
        });
    }
    let narrow = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    Ok(Layout {
        data: narrow(plan.replicas()),
        shard: narrow(plan.shard_group()),
        secondary: narrow(plan.sharding.secondary.unwrap_or(1)),
        context: narrow(context),
        tensor: narrow(tensor),
        expert: narrow(plan.expert),
        expert_tensor: narrow(plan.expert_tensor()),
        pipeline: narrow(pipeline),
        gpus_per_node: cluster.gpus_per_node,
        seats,
    })
}
