//! Links inside a node: NVLink from GPU to GPU, and PCI Express below switches, host bridges and sockets.

use super::TopologyError;
use super::graph::Graph;

/// PCI Express inside a node: GPUs below switches, switches below the host bridge of a socket, sockets joined.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PcieTree {
    /// GPUs below one switch.
    pub gpus_per_switch: u32,
    /// Switches below the host bridge of one socket.
    pub switches_per_socket: u32,
    /// Rate of a GPU's slot, each direction, bytes/s.
    pub slot: f64,
    /// Rate of a switch's port to the host bridge, bytes/s.
    pub uplink: f64,
    /// Rate between two sockets, bytes/s.
    pub between_sockets: f64,
}

/// How the GPUs of a node are joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inside {
    /// GPUs joined by NVLink; a pair that is named twice has twice the rate.
    pub nvlinks: Vec<(u32, u32)>,
    /// Rate of one of them, each direction, bytes/s.
    pub nvlink: f64,
    /// PCI Express, which also joins what NVLink does not.
    pub pcie: Option<PcieTree>,
}

impl Inside {
    /// Links of one node with so many GPUs, each of two directions, or more.
    pub(super) fn links(&self, gpus: u64) -> u64 {
        let tree = self.pcie.map_or(0, |tree| {
            let below = u64::from(tree.gpus_per_switch.max(1)) * u64::from(tree.switches_per_socket.max(1));
            let sockets = gpus.div_ceil(below);
            gpus.saturating_mul(2).saturating_add(sockets.saturating_mul(sockets) / 2)
        });
        (self.nvlinks.len() as u64).saturating_add(gpus).saturating_add(tree)
    }

    /// Adds the links of all nodes; gives the vertices of their GPUs.
    pub(super) fn build(
        &self,
        graph: &mut Graph,
        places: u32,
        gpus_per_node: u32,
    ) -> Result<Vec<Vec<u32>>, TopologyError> {
        if let Some((a, b)) = self.nvlinks.iter().find(|(a, b)| a == b || *a.max(b) >= gpus_per_node) {
            let message = format!("GPUs {a} and {b} of a node with {gpus_per_node} cannot be joined");
            return Err(TopologyError::Inside(message));
        }
        (0..places).map(|place| self.node(graph, place, gpus_per_node)).collect()
    }

    fn node(&self, graph: &mut Graph, place: u32, gpus_per_node: u32) -> Result<Vec<u32>, TopologyError> {
        let gpus: Vec<u32> =
            (0..gpus_per_node).map(|gpu| graph.vertex(format!("node {place} gpu {gpu}"))).collect();
        let mut pairs: Vec<(u32, u32, u32)> = Vec::new();
        for &(a, b) in &self.nvlinks {
            let (a, b) = (a.min(b), a.max(b));
            match pairs.iter_mut().find(|(c, d, _)| (*c, *d) == (a, b)) {
                Some((_, _, count)) => *count += 1,
                None => pairs.push((a, b, 1)),
            }
        }
        for (a, b, count) in pairs {
            graph.join(gpus[a as usize], gpus[b as usize], f64::from(count) * self.nvlink);
        }
        if let Some(tree) = self.pcie {
            tree.build(graph, place, &gpus);
        }
        if place > 0 {
            // Nodes are alike: what joins the GPUs of one joins those of all.
            return Ok(gpus);
        }
        let distances = gpus.first().map_or_else(Vec::new, |&first| graph.distances(first));
        let apart = gpus.iter().position(|&gpu| distances[gpu as usize] == u32::MAX);
        match apart {
            Some(gpu) => {
                let message =
                    format!("nothing joins GPU {gpu} of a node with GPU 0; give it NVLink or PCI Express");
                Err(TopologyError::Inside(message))
            }
            None => Ok(gpus),
        }
    }
}

impl PcieTree {
    fn build(self, graph: &mut Graph, place: u32, gpus: &[u32]) {
        let mut sockets = Vec::new();
        let switches: Vec<&[u32]> = gpus.chunks(self.gpus_per_switch.max(1) as usize).collect();
        let mut number = 0;
        for below in switches.chunks(self.switches_per_socket.max(1) as usize) {
            let socket = graph.vertex(format!("node {place} socket {}", sockets.len()));
            for gpus in below {
                let switch = graph.vertex(format!("node {place} switch {number}"));
                number += 1;
                graph.join(switch, socket, self.uplink);
                for &gpu in *gpus {
                    graph.join(gpu, switch, self.slot);
                }
            }
            for &other in &sockets {
                graph.join(other, socket, self.between_sockets);
            }
            sockets.push(socket);
        }
    }
}
