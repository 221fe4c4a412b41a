//! The links of an explicit topology that traffic crosses, in equal parts that take ways of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use steptime_clusters::{Router, Topology, TopologyError};
use steptime_core::{LinkId, LinkUse, SimTime, WorldBuilder};

/// Where a rank sits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) node: u32,
    /// Its GPU on the node.
    pub(super) place: u32,
}

/// Links behind the ports of GPUs and nodes, and how often the parts of a group's bytes cross each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Crossed {
    /// Parts of the bytes.
    pub(super) parts: u32,
    /// By edge of the topology: parts that cross it.
    edges: BTreeMap<u32, u32>,
}

impl Crossed {
    fn add(&mut self, edges: Vec<u32>, parts: u32) {
        for edge in edges {
            let weight = self.edges.entry(edge).or_default();
            *weight = weight.saturating_add(parts);
        }
    }
}

/// Ways that were found, and the links of the world that were made for them.
#[derive(Debug)]
pub(super) struct Routes {
    topology: Arc<Topology>,
    router: Router,
    gpus_per_node: u32,
    links: Vec<Option<LinkId>>,
    /// The first way that could not be found.
    pub(super) fault: Option<TopologyError>,
}

impl Routes {
    pub(super) fn new(topology: &Arc<Topology>, gpus_per_node: u32) -> Self {
        Self {
            topology: Arc::clone(topology),
            router: Router::new(Arc::clone(topology)),
            gpus_per_node,
            links: vec![None; topology.edges().len()],
            fault: None,
        }
    }

    /// A ring over seats in its order, those of a node together. What leaves a node is spread over the cards of all its
    /// members here, and of each card over the topology's ways.
    pub(super) fn ring(&mut self, seats: &[Seat]) -> Crossed {
        let spread = seats.windows(2).any(|pair| pair[0].node != pair[1].node);
        let parts = if spread && self.topology.joins_nodes() {
            self.topology.ways() * self.topology.rails()
        } else {
            1
        };
        let mut crossed = Crossed { parts, ..Crossed::default() };
        if seats.len() < 2 {
            return crossed;
        }
        for (at, &from) in seats.iter().enumerate() {
            let to = seats[(at + 1) % seats.len()];
            if from.node == to.node {
                let way = self.router.inside(from.node, from.place, to.place);
                self.cross(&mut crossed, way, parts);
                continue;
            }
            let here: Vec<u32> =
                seats.iter().filter(|it| it.node == from.node).map(|it| self.rail(it.place)).collect();
            for part in 0..parts {
                let rail = here[part as usize % here.len()];
                let turn = u64::from(part) / here.len() as u64 + u64::from(to.node);
                let way = self.router.between_nodes(from.node, to.node, rail, turn);
                self.cross(&mut crossed, way, 1);
            }
        }
        crossed
    }

    /// Every seat sends to every other. Between nodes the parts are the pairs that leave a node, of which the fullest node
    /// has the most; inside one they are those that leave a GPU.
    pub(super) fn exchange(&mut self, seats: &[Seat]) -> Crossed {
        let beside = |seat: &Seat| seats.iter().filter(|other| other.node == seat.node).count();
        let all = seats.len();
        let leaving = seats.iter().map(beside).map(|here| here * (all - here)).max().unwrap_or(0);
        let parts = if leaving > 0 { leaving } else { all.saturating_sub(1).max(1) };
        let mut crossed = Crossed { parts: u32::try_from(parts).unwrap_or(u32::MAX), ..Crossed::default() };
        for (number, &from) in seats.iter().enumerate() {
            for (turn, &to) in seats.iter().enumerate().filter(|(other, _)| *other != number) {
                let way = if from.node == to.node {
                    self.router.inside(from.node, from.place, to.place)
                } else {
                    self.router.between_nodes(from.node, to.node, self.rail(to.place), turn as u64)
                };
                self.cross(&mut crossed, way, 1);
            }
        }
        crossed
    }

    /// One seat sends to another.
    pub(super) fn pair(&mut self, from: Seat, to: Seat) -> Crossed {
        let inside = from.node == to.node;
        let parts = if inside || !self.topology.joins_nodes() { 1 } else { self.topology.ways() };
        let mut crossed = Crossed { parts, ..Crossed::default() };
        for part in 0..parts {
            let way = if inside {
                self.router.inside(from.node, from.place, to.place)
            } else {
                let turn = u64::from(part) + u64::from(to.node);
                self.router.between_nodes(from.node, to.node, self.rail(to.place), turn)
            };
            self.cross(&mut crossed, way, 1);
        }
        crossed
    }

    /// Two seats send to each other.
    pub(super) fn both_ways(&mut self, a: Seat, b: Seat) -> Crossed {
        let mut crossed = self.pair(a, b);
        for (edge, parts) in self.pair(b, a).edges {
            crossed.add(vec![edge], parts);
        }
        crossed
    }

    /// The rail of a GPU's card.
    fn rail(&self, place: u32) -> u32 {
        let rail = u64::from(place) * u64::from(self.topology.rails()) / u64::from(self.gpus_per_node.max(1));
        rail as u32
    }

    fn cross(&mut self, crossed: &mut Crossed, way: Result<Vec<u32>, TopologyError>, parts: u32) {
        match way {
            Ok(edges) => crossed.add(edges, parts),
            Err(fault) => {
                self.fault.get_or_insert(fault);
            }
        }
    }

    /// A path over ports, whose links carry all parts, and over the crossed links.
    pub(super) fn path(
        &mut self,
        world: &mut WorldBuilder,
        ports: &[LinkUse],
        crossed: &Crossed,
    ) -> Vec<LinkUse> {
        let whole = |port: &LinkUse| LinkUse { weight: port.weight.saturating_mul(crossed.parts), ..*port };
        let mut path: Vec<LinkUse> = ports.iter().map(whole).collect();
        for (&edge, &weight) in &crossed.edges {
            let known = self.links[edge as usize];
            let link = known.unwrap_or_else(|| {
                let edge = &self.topology.edges()[edge as usize];
                world.link(&edge.name, edge.bandwidth, SimTime::ZERO)
            });
            self.links[edge as usize] = Some(link);
            path.push(LinkUse { link, weight });
        }
        path
    }
}
