//! Explicit topologies: switches between nodes and links inside them, and the ways that traffic takes.
//!
//! Without a topology every node has its own ports into a network that is never the bottleneck, and every GPU its own port
//! into the fabric of its node. A topology adds the links behind those ports; what flows over several of them is limited by
//! the slowest, and all flows share them max-min fairly.
//!
//! | shape | links | ways |
//! | --- | --- | --- |
//! | fat tree | nodes to leaf switches, these to every spine; what leaves a leaf is what its nodes bring over the oversubscription | up and down, spines in turns (ECMP without collisions) |
//! | rail-optimised fat tree | the same with a leaf for each card of a group of nodes | the rail of the receiving GPU's card: the sender reaches it over NVLink (NCCL's PXN) |
//! | dragonfly (Kim, Dally, Scott, Abts 2008) | routers of a group joined with each other, one link between every two groups | minimal: local, global, local |
//! | torus | nodes to their neighbours in each dimension | dimension by dimension, the shorter way round |
//! | explicit | as written | shortest, in turns |
//!
//! Cut links are gone round on the shortest way that is left.

mod graph;
mod inside;

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

pub use graph::{Edge, Graph};
pub use inside::{Inside, PcieTree};

/// How nodes are joined.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// Leaf and spine switches.
    FatTree {
        /// Nodes below one leaf.
        nodes_per_leaf: u32,
        /// Spines, to each of which every leaf has one link.
        spines: u32,
        /// What the nodes of a leaf bring over what leaves it.
        oversubscription: f64,
        /// Leaves that the cards of a node are spread over, one for each rail; 1 in a plain fat tree.
        rails: u32,
    },
    /// Groups of routers.
    Dragonfly {
        /// Routers of a group, joined with each other.
        routers_per_group: u32,
        /// Nodes at a router.
        nodes_per_router: u32,
        /// Rate between two routers of a group, bytes/s.
        local: f64,
        /// Rate between two groups, bytes/s.
        global: f64,
    },
    /// A grid whose ends are joined.
    Torus {
        /// Nodes in each dimension.
        dimensions: Vec<u32>,
        /// Rate between neighbours, bytes/s.
        link: f64,
    },
    /// Links between named vertices; `node 0` and so on are the nodes.
    Explicit {
        /// Both ends, and the rate in each direction, bytes/s.
        links: Vec<(String, String, f64)>,
    },
}

/// Links that do not work as they should.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// Vertices that they join.
    pub between: [String; 2],
    /// Share of the rate that is left; 0: they are cut.
    pub rate: f64,
}

/// A topology that cannot be.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum TopologyError {
    /// More nodes than the shape has places for, or fewer.
    #[error("{nodes} nodes do not fit the {places} places of the topology")]
    Places {
        /// Nodes of the job.
        nodes: u32,
        /// Places.
        places: u64,
    },
    /// A node's place is taken or does not exist.
    #[error("node {node} cannot be at place {place}: the topology has {places}, each for one node")]
    Place {
        /// The job's node.
        node: usize,
        /// Its place.
        place: u32,
        /// Places.
        places: u32,
    },
    /// A link that does not exist.
    #[error("{a} and {b} are not joined; vertices are {known}, ...")]
    NotJoined {
        /// One end.
        a: String,
        /// The other.
        b: String,
        /// Some vertices.
        known: String,
    },
    /// No way between two nodes.
    #[error("no way is left from {from} to {to}")]
    Unreachable {
        /// Where the traffic starts.
        from: String,
        /// Where it should go.
        to: String,
    },
    /// More links than are held.
    #[error("{links} links are too many; a topology has at most {MOST_LINKS}")]
    TooLarge {
        /// Links, each of two directions.
        links: u64,
    },
    /// Links inside a node that leave GPUs apart.
    #[error("{0}")]
    Inside(String),
}

/// The grid of a torus, for routing by dimension.
#[derive(Clone, Debug, PartialEq)]
struct Grid {
    dimensions: Vec<u32>,
}

/// Switches, links and ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    graph: Graph,
    /// By place and rail: the vertex of the cards.
    ports: Vec<Vec<u32>>,
    /// By place and GPU of a node: its vertex, where the links inside nodes are given.
    gpus: Vec<Vec<u32>>,
    grid: Option<Grid>,
    /// Ways that what one pair of cards sends is spread over.
    ways: u32,
    /// By node of the job: its place.
    at: Vec<u32>,
}

/// What a topology is made for.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// How nodes are joined; `None`: as without a topology.
    pub shape: Option<Shape>,
    /// How the GPUs of a node are joined; `None`: as without a topology.
    pub inside: Option<Inside>,
    /// Places for nodes.
    pub places: u32,
    /// Places of the job's nodes.
    pub at: Vec<u32>,
    /// GPUs of a node.
    pub gpus_per_node: u32,
    /// What a node brings to the network, bytes/s.
    pub node_bandwidth: f64,
    /// Ways that what one pair of cards sends is spread over (queue pairs).
    pub ways: u32,
    /// Degraded and cut links.
    pub faults: Vec<Fault>,
}

/// Links of a topology, each of two directions: what is held of them stays below a gibibyte.
const MOST_LINKS: u64 = 1 << 21;

impl Blueprint {
    /// Links that it asks for, each of two directions, or more.
    fn links(&self) -> u64 {
        let places = u64::from(self.places);
        let between = self.shape.as_ref().map_or(0, |shape| shape.links(places));
        let inside = self.inside.as_ref().map_or(0, |inside| inside.links(u64::from(self.gpus_per_node)));
        between.saturating_add(places.saturating_mul(inside))
    }
}

impl Shape {
    /// Links, each of two directions, between so many places.
    fn links(&self, places: u64) -> u64 {
        let pairs = |count: u64| count.saturating_mul(count.saturating_sub(1)) / 2;
        match self {
            Self::FatTree { nodes_per_leaf, spines, rails, .. } => {
                let rails = u64::from(*rails);
                let leaves = places.div_ceil(u64::from(*nodes_per_leaf).max(1)).saturating_mul(rails);
                places.saturating_mul(rails).saturating_add(leaves.saturating_mul(u64::from(*spines)))
            }
            Self::Dragonfly { routers_per_group, nodes_per_router, .. } => {
                let routers = u64::from(*routers_per_group);
                let groups = places.div_ceil((routers * u64::from(*nodes_per_router)).max(1));
                let local = groups.saturating_mul(pairs(routers).max(routers));
                places.saturating_add(local).saturating_add(pairs(groups))
            }
            Self::Torus { dimensions, .. } => places.saturating_mul(dimensions.len() as u64),
            Self::Explicit { links } => places.saturating_add(links.len() as u64),
        }
    }
}

impl Topology {
    /// The topology of a blueprint.
    ///
    /// # Errors
    /// [`TopologyError`], but for [`TopologyError::Unreachable`].
    pub fn new(blueprint: &Blueprint) -> Result<Self, TopologyError> {
        let links = blueprint.links();
        if links > MOST_LINKS {
            return Err(TopologyError::TooLarge { links });
        }
        let mut topology = Self {
            graph: Graph::default(),
            ports: Vec::new(),
            gpus: Vec::new(),
            grid: None,
            ways: blueprint.ways.max(1),
            at: blueprint.at.clone(),
        };
        if let Some(shape) = &blueprint.shape {
            topology.join_nodes(shape, blueprint)?;
        }
        if let Some(inside) = &blueprint.inside {
            topology.gpus = inside.build(&mut topology.graph, blueprint.places, blueprint.gpus_per_node)?;
        }
        let mut taken = vec![false; blueprint.places as usize];
        for (node, &place) in blueprint.at.iter().enumerate() {
            match taken.get_mut(place as usize) {
                Some(taken) if !*taken => *taken = true,
                _ => return Err(TopologyError::Place { node, place, places: blueprint.places }),
            }
        }
        for Fault { between: [a, b], rate } in &blueprint.faults {
            let ends = topology.graph.find(a).zip(topology.graph.find(b));
            let joined = ends.is_some_and(|(a, b)| topology.graph.degrade(a, b, *rate));
            if !joined {
                let known: Vec<&str> = topology.graph.vertices().iter().map(String::as_str).take(8).collect();
                let (a, b, known) = (a.clone(), b.clone(), known.join(", "));
                return Err(TopologyError::NotJoined { a, b, known });
            }
        }
        Ok(topology)
    }

    fn join_nodes(&mut self, shape: &Shape, blueprint: &Blueprint) -> Result<(), TopologyError> {
        let (places, bandwidth) = (blueprint.places, blueprint.node_bandwidth);
        let graph = &mut self.graph;
        match shape {
            Shape::FatTree { nodes_per_leaf, spines, oversubscription, rails } => {
                self.ports = fat_tree(
                    graph,
                    (places, *rails, *nodes_per_leaf, *spines),
                    bandwidth / f64::from(*rails),
                    *oversubscription,
                );
            }
            Shape::Dragonfly { routers_per_group, nodes_per_router, local, global } => {
                let size = (places, *routers_per_group, *nodes_per_router);
                self.ports = dragonfly(graph, size, [bandwidth, *local, *global]);
            }
            Shape::Torus { dimensions, link } => {
                let all = dimensions.iter().map(|&it| u64::from(it)).fold(1, u64::saturating_mul);
                if all != u64::from(places) {
                    return Err(TopologyError::Places { nodes: places, places: all });
                }
                self.ports = torus(graph, dimensions, *link);
                self.grid = Some(Grid { dimensions: dimensions.clone() });
            }
            Shape::Explicit { links } => {
                self.ports = (0..places).map(|node| vec![graph.vertex(format!("node {node}"))]).collect();
                for (a, b, rate) in links {
                    let [a, b] = [a, b].map(|name| graph.find(name).unwrap_or_else(|| graph.vertex(name)));
                    graph.join(a, b, *rate);
                }
            }
        }
        Ok(())
    }

    /// The links, by number.
    pub fn edges(&self) -> &[Edge] {
        self.graph.edges()
    }

    /// Whether it joins nodes.
    pub fn joins_nodes(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Whether it joins the GPUs of a node.
    pub fn joins_gpus(&self) -> bool {
        !self.gpus.is_empty()
    }

    /// Rails that the cards of a node are spread over.
    pub fn rails(&self) -> u32 {
        self.ports.first().map_or(1, |rails| rails.len().max(1) as u32)
    }

    /// Ways that what one pair of cards sends is spread over.
    pub fn ways(&self) -> u32 {
        self.ways
    }
}

/// Ways through a topology, found when first asked for.
#[derive(Clone, Debug)]
pub struct Router {
    topology: Arc<Topology>,
    /// By vertex: hops from every other.
    distances: BTreeMap<u32, Vec<u32>>,
}

impl Router {
    /// Nothing found yet.
    pub fn new(topology: Arc<Topology>) -> Self {
        Self { topology, distances: BTreeMap::new() }
    }

    /// Links from a node of the job to another, on a rail and a turn among equal ways.
    ///
    /// # Errors
    /// [`TopologyError::Unreachable`].
    pub fn between_nodes(
        &mut self,
        from: u32,
        to: u32,
        rail: u32,
        turn: u64,
    ) -> Result<Vec<u32>, TopologyError> {
        let topology = &self.topology;
        let port = |node: u32| {
            let place = topology.at.get(node as usize).copied().unwrap_or(node);
            let rails = topology.ports.get(place as usize)?;
            Some((place, *rails.get(rail as usize % rails.len().max(1))?))
        };
        let (Some((from, start)), Some((to, end))) = (port(from), port(to)) else { return Ok(Vec::new()) };
        if let Some(way) = topology.grid.as_ref().and_then(|grid| grid.route(&topology.graph, from, to)) {
            return Ok(way);
        }
        self.shortest(start, end, turn)
    }

    /// Links from a GPU of a node of the job to another of the same node.
    ///
    /// # Errors
    /// [`TopologyError::Unreachable`].
    pub fn inside(&mut self, node: u32, from: u32, to: u32) -> Result<Vec<u32>, TopologyError> {
        let topology = &self.topology;
        let place = topology.at.get(node as usize).copied().unwrap_or(node);
        let vertex = |gpu: u32| topology.gpus.get(place as usize)?.get(gpu as usize).copied();
        let (Some(start), Some(end)) = (vertex(from), vertex(to)) else { return Ok(Vec::new()) };
        self.shortest(start, end, 0)
    }

    fn shortest(&mut self, from: u32, to: u32, turn: u64) -> Result<Vec<u32>, TopologyError> {
        let graph = &self.topology.graph;
        let distances = self.distances.entry(to).or_insert_with(|| graph.distances(to));
        graph.route(from, distances, turn).ok_or_else(|| {
            let [from, to] = [from, to].map(|it| graph.vertices()[it as usize].clone());
            TopologyError::Unreachable { from, to }
        })
    }
}

impl Grid {
    fn coordinates(&self, mut place: u32) -> Vec<u32> {
        let digit = |size: &u32| {
            let digit = place % size;
            place /= size;
            digit
        };
        self.dimensions.iter().map(digit).collect()
    }

    fn place(&self, coordinates: &[u32]) -> u32 {
        let digits = coordinates.iter().zip(&self.dimensions).rev();
        digits.fold(0, |place, (digit, size)| place * size + digit)
    }

    /// Dimension by dimension, the shorter way round (of two equal ones upwards); `None` if a link on it is cut.
    fn route(&self, graph: &Graph, from: u32, to: u32) -> Option<Vec<u32>> {
        let (mut at, goal) = (self.coordinates(from), self.coordinates(to));
        let mut way = Vec::new();
        for dimension in 0..at.len() {
            let size = self.dimensions[dimension];
            while at[dimension] != goal[dimension] {
                let upwards = (goal[dimension] + size - at[dimension]) % size;
                let here = self.place(&at);
                let step = if 2 * upwards <= size { 1 } else { size - 1 };
                at[dimension] = (at[dimension] + step) % size;
                let there = self.place(&at);
                // Vertices of a torus are its places.
                let edge = graph.edges().iter().position(|it| it.from == here && it.to == there && !it.cut);
                way.push(edge? as u32);
            }
        }
        Some(way)
    }
}

fn fat_tree(
    graph: &mut Graph,
    (places, rails, nodes_per_leaf, spines): (u32, u32, u32, u32),
    card: f64,
    oversubscription: f64,
) -> Vec<Vec<u32>> {
    let name = |node: u32, rail: u32| {
        if rails == 1 { format!("node {node}") } else { format!("node {node} rail {rail}") }
    };
    let ports: Vec<Vec<u32>> =
        (0..places).map(|node| (0..rails).map(|rail| graph.vertex(name(node, rail))).collect()).collect();
    let groups = places.div_ceil(nodes_per_leaf);
    let mut leaves = Vec::new();
    for group in 0..groups {
        for rail in 0..rails {
            let leaf = graph.vertex(format!("leaf {}", group * rails + rail));
            for node in (group * nodes_per_leaf..).take(nodes_per_leaf as usize).take_while(|it| *it < places)
            {
                graph.join(ports[node as usize][rail as usize], leaf, card);
            }
            leaves.push(leaf);
        }
    }
    if leaves.len() > 1 {
        let up = card * f64::from(nodes_per_leaf) / oversubscription / f64::from(spines);
        for spine in 0..spines {
            let spine = graph.vertex(format!("spine {spine}"));
            for &leaf in &leaves {
                graph.join(leaf, spine, up);
            }
        }
    }
    ports
}

fn dragonfly(
    graph: &mut Graph,
    (places, routers, nodes): (u32, u32, u32),
    [terminal, local, global]: [f64; 3],
) -> Vec<Vec<u32>> {
    let ports: Vec<Vec<u32>> = (0..places).map(|node| vec![graph.vertex(format!("node {node}"))]).collect();
    let groups = places.div_ceil(routers.saturating_mul(nodes));
    let mut of_group = Vec::new();
    for group in 0..groups {
        let own: Vec<u32> = (0..routers).map(|it| graph.vertex(format!("router {group}.{it}"))).collect();
        for (at, &router) in own.iter().enumerate() {
            let first = (group * routers + at as u32) * nodes;
            for node in (first..places).take(nodes as usize) {
                graph.join(ports[node as usize][0], router, terminal);
            }
            for &other in &own[at + 1..] {
                graph.join(router, other, local);
            }
        }
        of_group.push(own);
    }
    // A group's links to the groups behind it go out from its routers in their order, as many from each.
    let each = groups.saturating_sub(1).div_ceil(routers).max(1);
    let router = |group: u32, other: u32| {
        let turn = (other + groups - group - 1) % groups;
        of_group[group as usize][(turn / each) as usize]
    };
    for group in 0..groups {
        for other in group + 1..groups {
            graph.join(router(group, other), router(other, group), global);
        }
    }
    ports
}

fn torus(graph: &mut Graph, dimensions: &[u32], link: f64) -> Vec<Vec<u32>> {
    let grid = Grid { dimensions: dimensions.to_vec() };
    let all: u32 = dimensions.iter().product();
    let ports: Vec<Vec<u32>> = (0..all).map(|node| vec![graph.vertex(format!("node {node}"))]).collect();
    for place in 0..all {
        let at = grid.coordinates(place);
        for (dimension, &size) in dimensions.iter().enumerate() {
            // Two nodes in a dimension have one link, not one each way round.
            if size < 2 || (size == 2 && at[dimension] == 1) {
                continue;
            }
            let mut next = at.clone();
            next[dimension] = (at[dimension] + 1) % size;
            graph.join(ports[place as usize][0], ports[grid.place(&next) as usize][0], link);
        }
    }
    ports
}

#[cfg(test)]
mod tests;
