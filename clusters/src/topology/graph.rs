//! Vertices, directed links, and shortest ways between them.

use std::collections::{BTreeMap, VecDeque};

/// A link in one direction.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// `leaf 0 > spine 1`.
    pub name: String,
    /// Vertex that it leaves.
    pub from: u32,
    /// Vertex that it reaches.
    pub to: u32,
    /// Rate, bytes/s.
    pub bandwidth: f64,
    /// Whether it is cut.
    pub cut: bool,
}

/// Vertices and the links between them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    vertices: Vec<String>,
    /// By name: the first vertex that has it.
    named: BTreeMap<String, u32>,
    edges: Vec<Edge>,
    /// By vertex: the edges that leave it, in the order in which they were made.
    out: Vec<Vec<u32>>,
    /// By vertex: those that reach it.
    into: Vec<Vec<u32>>,
    /// Links from one vertex to another: a spine's own are too many to be counted for each.
    parallel: BTreeMap<(u32, u32), u32>,
}

impl Graph {
    /// A new vertex.
    pub fn vertex(&mut self, name: impl Into<String>) -> u32 {
        let name = name.into();
        self.named.entry(name.clone()).or_insert(self.vertices.len() as u32);
        self.vertices.push(name);
        self.out.push(Vec::new());
        self.into.push(Vec::new());
        self.vertices.len() as u32 - 1
    }

    /// The vertex of a name.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.named.get(name).copied()
    }

    /// Names of the vertices, by number.
    pub fn vertices(&self) -> &[String] {
        &self.vertices
    }

    /// The links, by number.
    pub fn edges(&self) -> &[Edge] {
        &self.edges
    }

    /// Joins two vertices by a link of this rate in each direction.
    pub fn join(&mut self, a: u32, b: u32, bandwidth: f64) {
        self.link(a, b, bandwidth);
        self.link(b, a, bandwidth);
    }

    fn link(&mut self, from: u32, to: u32, bandwidth: f64) {
        let count = self.parallel.entry((from, to)).or_default();
        let beside = *count;
        *count += 1;
        let mut name = format!("{} > {}", self.vertices[from as usize], self.vertices[to as usize]);
        if beside > 0 {
            name += &format!(" ({beside})");
        }
        let number = self.edges.len() as u32;
        self.edges.push(Edge { name, from, to, bandwidth, cut: false });
        self.out[from as usize].push(number);
        self.into[to as usize].push(number);
    }

    /// Links from one vertex to another.
    fn between(&self, from: u32, to: u32) -> impl Iterator<Item = u32> + '_ {
        self.out[from as usize].iter().copied().filter(move |&edge| self.edges[edge as usize].to == to)
    }

    /// Leaves a share of the rate of all links between two vertices, in both directions, or none; `false` if there are no
    /// such links.
    pub fn degrade(&mut self, a: u32, b: u32, share: f64) -> bool {
        let edges: Vec<u32> = self.between(a, b).chain(self.between(b, a)).collect();
        for &edge in &edges {
            let edge = &mut self.edges[edge as usize];
            if share > 0.0 {
                edge.bandwidth *= share;
            } else {
                edge.cut = true;
            }
        }
        !edges.is_empty()
    }

    /// Hops from every vertex to one, along links that are not cut; `u32::MAX` where there is no way.
    pub fn distances(&self, to: u32) -> Vec<u32> {
        let mut distances = vec![u32::MAX; self.vertices.len()];
        let mut queue = VecDeque::from([to]);
        distances[to as usize] = 0;
        while let Some(vertex) = queue.pop_front() {
            let next = distances[vertex as usize] + 1;
            for &edge in &self.into[vertex as usize] {
                let edge = &self.edges[edge as usize];
                if !edge.cut && distances[edge.from as usize] == u32::MAX {
                    distances[edge.from as usize] = next;
                    queue.push_back(edge.from);
                }
            }
        }
        distances
    }

    /// A shortest way to the vertex that `distances` are of; of several next hops that are equally near the one that `turn`
    /// picks, so that turns 0, 1, 2, ... take them in their order. `None` if there is no way.
    pub fn route(&self, from: u32, distances: &[u32], turn: u64) -> Option<Vec<u32>> {
        let mut way = Vec::new();
        let mut at = from;
        if distances[at as usize] == u32::MAX {
            return None;
        }
        while distances[at as usize] > 0 {
            let left = distances[at as usize];
            let nearer = |edge: &&u32| {
                let edge = &self.edges[**edge as usize];
                !edge.cut && distances[edge.to as usize] == left - 1
            };
            let choices = self.out[at as usize].iter().filter(nearer).count() as u64;
            let pick = turn.checked_rem(choices)? as usize;
            let edge = *self.out[at as usize].iter().filter(nearer).nth(pick)?;
            way.push(edge);
            at = self.edges[edge as usize].to;
        }
        Some(way)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// a - b - d and a - c - d.
    fn diamond() -> Graph {
        let mut graph = Graph::default();
        let [a, b, c, d] = ["a", "b", "c", "d"].map(|name| graph.vertex(name));
        for (from, to) in [(a, b), (b, d), (a, c), (c, d)] {
            graph.join(from, to, 1.0);
        }
        graph
    }

    fn names(graph: &Graph, way: Option<Vec<u32>>) -> Vec<String> {
        way.unwrap_or_default().into_iter().map(|edge| graph.edges()[edge as usize].name.clone()).collect()
    }

    #[test]
    fn equally_short_ways_take_turns() {
        let graph = diamond();
        let to = graph.distances(3);
        assert_eq!(to, [2, 1, 1, 0]);
        assert_eq!(names(&graph, graph.route(0, &to, 0)), ["a > b", "b > d"]);
        assert_eq!(names(&graph, graph.route(0, &to, 1)), ["a > c", "c > d"]);
        assert_eq!(graph.route(0, &to, 2), graph.route(0, &to, 0));
    }

    #[test]
    fn a_cut_link_is_gone_round_until_no_way_is_left() {
        let mut graph = diamond();
        assert!(graph.degrade(0, 1, 0.0));
        let to = graph.distances(3);
        assert_eq!(names(&graph, graph.route(0, &to, 0)), ["a > c", "c > d"]);
        assert!(graph.degrade(2, 3, 0.0));
        assert_eq!(graph.route(0, &graph.distances(3), 0), None);
        assert!(!graph.degrade(0, 3, 0.5), "a and d are not joined");
    }

    /// A hub of 200,000: were its links looked through for each new one, this would take 40 thousand million looks.
    #[test]
    fn the_links_of_a_hub_are_not_looked_through_for_each() {
        let mut graph = Graph::default();
        let hub = graph.vertex("hub");
        for leaf in 0..200_000 {
            let leaf = graph.vertex(leaf.to_string());
            graph.join(leaf, hub, 1.0);
        }
        let again = graph.find("7").unwrap();
        graph.join(again, hub, 1.0);
        let named = |name: &str| graph.edges().iter().filter(|edge| edge.name == name).count();
        assert_eq!(
            [named("7 > hub"), named("7 > hub (1)"), named("hub > 7 (1)"), named("8 > hub (1)")],
            [1, 1, 1, 0]
        );
    }
}
