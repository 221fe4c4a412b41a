//! Clusters whose GPUs are not all alike: nodes of several kinds, and GPUs at lower clocks.

use thiserror::Error;

use crate::cluster::Cluster;
use crate::gpu::Gpu;

/// The kinds of GPUs of a cluster, and which GPU is of which.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// Clusters of one kind each, of which GPU, host, fabric and network count.
    kinds: Vec<Cluster>,
    /// By GPU, node by node: the number of its kind.
    of_gpu: Vec<u32>,
}

/// Kinds of GPUs that one cluster may have: a set of them has to fit a word.
pub const MOST_KINDS: usize = 64;

/// Nodes that do not make one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MixError {
    /// Nodes with different numbers of GPUs.
    #[error("nodes of {first} and of {other} GPUs cannot be mixed; ask for equally many with gpus_per_node")]
    GpusPerNode {
        /// GPUs of the first group's nodes.
        first: u32,
        /// GPUs of another group's.
        other: u32,
    },
    /// Machines that a fabric joins.
    #[error("{cluster}: the nodes of a rack with one fabric cannot be mixed with others")]
    Rack {
        /// Catalogue name.
        cluster: String,
    },
    /// No network.
    #[error("{cluster} has no network that could join it with other nodes")]
    NoNetwork {
        /// Catalogue name.
        cluster: String,
    },
    /// More kinds than can be told apart.
    #[error("{kinds} kinds of GPUs, of which at most {MOST_KINDS} can be told apart")]
    TooMany {
        /// Different GPUs.
        kinds: usize,
    },
}

impl Gpu {
    /// The GPU at a share of its clock: arithmetic is so much slower; its memory has a clock of its own.
    #[must_use]
    pub fn at_clock(mut self, share: f64) -> Self {
        self.clock_hz *= share;
        for arithmetic in &mut self.arithmetic {
            arithmetic.peak.value *= share;
        }
        self
    }
}

impl Cluster {
    /// One cluster of several groups of nodes, in their order.
    ///
    /// # Errors
    /// [`MixError`]; no group is [`MixError::NoNetwork`] of nothing.
    pub fn of_groups(groups: &[Self]) -> Result<Self, MixError> {
        let Some(first) = groups.first() else { return Err(MixError::NoNetwork { cluster: String::new() }) };
        for group in groups {
            let cluster = group.name.clone();
            if group.gpus_per_node != first.gpus_per_node {
                let (first, other) = (first.gpus_per_node, group.gpus_per_node);
                return Err(MixError::GpusPerNode { first, other });
            }
            if group.domain.is_some() && groups.len() > 1 {
                return Err(MixError::Rack { cluster });
            }
            if group.network.is_none() && groups.len() > 1 {
                return Err(MixError::NoNetwork { cluster });
            }
        }
        let mut kinds: Vec<Self> = Vec::new();
        let mut of_gpu = Vec::new();
        for group in groups {
            let own = Self { nodes: 1, ..group.clone() };
            let kind = kinds.iter().position(|kind| *kind == own).unwrap_or_else(|| {
                kinds.push(own);
                kinds.len() - 1
            });
            of_gpu.extend((0..group.gpus()).map(|_| kind as u32));
        }
        let nodes = groups.iter().map(|group| group.nodes).fold(0, u32::saturating_add);
        let names: Vec<&str> = groups.iter().map(|group| group.name.as_str()).collect();
        Ok(Self { nodes, name: names.join(" + "), mix: None, ..first.clone() }
            .with_mix(Mix { kinds, of_gpu }))
    }

    /// The cluster with GPUs at shares of their clocks, one for each, node by node.
    ///
    /// # Errors
    /// [`MixError::TooMany`].
    pub fn at_clocks(&self, shares: &[f64]) -> Result<Self, MixError> {
        let mut kinds: Vec<((usize, u64), Self)> = Vec::new();
        let mut of_gpu = Vec::with_capacity(shares.len());
        for (gpu, &share) in (0..self.gpus()).zip(shares) {
            let key = (self.kind_of(gpu), share.to_bits());
            let known = kinds.iter().position(|(known, _)| *known == key);
            of_gpu.push(known.unwrap_or_else(|| {
                let own = self.kind(key.0);
                let slower = if share < 1.0 { own.gpu.clone().at_clock(share) } else { own.gpu.clone() };
                kinds.push((key, Self { gpu: slower, mix: None, ..own.clone() }));
                kinds.len() - 1
            }) as u32);
        }
        if kinds.len() > MOST_KINDS {
            return Err(MixError::TooMany { kinds: kinds.len() });
        }
        let kinds = kinds.into_iter().map(|(_, kind)| kind).collect();
        Ok(self.clone().with_mix(Mix { kinds, of_gpu }))
    }

    /// A mix of one kind is none.
    fn with_mix(mut self, mut mix: Mix) -> Self {
        if mix.kinds.len() > 1 {
            self.mix = Some(Box::new(mix));
        } else if let Some(only) = mix.kinds.pop() {
            (self.gpu, self.mix) = (only.gpu, None);
        }
        self
    }

    /// Whether GPUs are of several kinds.
    pub fn is_mixed(&self) -> bool {
        self.mix.is_some()
    }

    /// One cluster for each kind of GPU.
    pub fn kinds(&self) -> Vec<&Self> {
        self.mix.as_ref().map_or_else(|| vec![self], |mix| mix.kinds.iter().collect())
    }

    /// The cluster of a kind.
    pub fn kind(&self, kind: usize) -> &Self {
        self.mix.as_ref().and_then(|mix| mix.kinds.get(kind)).unwrap_or(self)
    }

    /// The kind of a GPU, counted node by node.
    pub fn kind_of(&self, gpu: u64) -> usize {
        let kind = self.mix.as_ref().and_then(|mix| mix.of_gpu.get(usize::try_from(gpu).ok()?));
        kind.map_or(0, |kind| *kind as usize)
    }

    /// The cluster with every kind of its GPUs changed in the same way.
    #[must_use]
    pub fn with_gpus(mut self, change: impl Fn(Gpu) -> Gpu) -> Self {
        if let Some(mix) = &mut self.mix {
            for kind in &mut mix.kinds {
                kind.gpu = change(kind.gpu.clone());
            }
        }
        self.gpu = change(self.gpu);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ClusterEntry, cluster_from_catalogue};

    fn nodes(name: &str) -> Cluster {
        match cluster_from_catalogue(name).unwrap() {
            ClusterEntry::Nodes(cluster) => cluster,
            ClusterEntry::Vehicles(_) => panic!("{name} is a cluster of nodes"),
        }
    }

    #[test]
    fn groups_of_nodes_make_one_cluster() {
        let (h100, a100) = (nodes("dgx-h100"), nodes("dgx-a100-80gb"));
        let [h100, a100] = [(h100, 2), (a100, 1)].map(|(it, count)| it.with_size(count, 4).unwrap());
        let mixed = Cluster::of_groups(&[h100.clone(), a100.clone()]).unwrap();
        assert_eq!((mixed.nodes, mixed.gpus(), mixed.kinds().len()), (3, 12, 2));
        assert_eq!([0, 7, 8, 11].map(|gpu| mixed.kind_of(gpu)), [0, 0, 1, 1]);
        assert_eq!(mixed.kind(1).gpu.name, a100.gpu.name);
        // Two groups of one kind are one cluster like any other.
        assert!(!Cluster::of_groups(&[h100.clone(), h100.clone()]).unwrap().is_mixed());
        let other = nodes("dgx-a100-80gb");
        assert!(matches!(Cluster::of_groups(&[h100, other]), Err(MixError::GpusPerNode { .. })));
    }

    #[test]
    fn a_lower_clock_is_a_kind_of_its_own() {
        let node = nodes("dgx-h100");
        let slower = node.at_clocks(&[1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]).unwrap();
        assert_eq!((slower.kinds().len(), slower.kind_of(2)), (2, 1));
        let peak = |gpu: &Gpu| gpu.peak(steptime_models::Dtype::Bf16).unwrap();
        assert!((peak(&slower.kind(1).gpu) / peak(&node.gpu) - 0.5).abs() < 1e-12);
        assert!((slower.kind(1).gpu.memory_bandwidth - node.gpu.memory_bandwidth).abs() < f64::EPSILON);
        let all = node.at_clocks(&[0.5; 8]).unwrap();
        assert!(!all.is_mixed());
        assert!((peak(&all.gpu) / peak(&node.gpu) - 0.5).abs() < 1e-12);
    }
}
