//! Links between GPUs and what their hosts hold: ports of processors, memory, cores and drives, and who shares them.

use std::collections::BTreeMap;

use steptime_clusters::{Backing, Cluster, FabricKind};
use steptime_core::{GroupId, LinkId, LinkUse, SimTime, WorldBuilder};

use super::placement::{Layout, Ports};
use crate::plan::Plan;

/// A way between a GPU and its host, or within the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HostPath {
    /// From the GPU to the host's memory.
    ToHost,
    /// From there to the GPU.
    ToDevice,
    /// The same from memory that is not page-locked.
    UnpinnedToDevice,
    /// Through the processor: memory read and written by its cores.
    Processor,
    /// From the drives to memory.
    DriveRead,
    /// From memory to the drives.
    DriveWrite,
}

impl HostPath {
    /// All of them.
    pub(super) const ALL: [Self; 6] = [
        Self::ToHost,
        Self::ToDevice,
        Self::UnpinnedToDevice,
        Self::Processor,
        Self::DriveRead,
        Self::DriveWrite,
    ];
}

/// A shared part of a node, by its number among its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    GpuOut(u32),
    GpuIn(u32),
    Unpinned(u32),
    RootOut(u32),
    RootIn(u32),
    Memory(u32),
    Cores(u32),
    DriveRead(u32),
    DriveWrite(u32),
}

/// Links of the hosts, made when first used.
pub(super) struct HostPorts<'a> {
    cluster: &'a Cluster,
    backing: Backing,
    layout: Layout<'a>,
    folded: bool,
    pinned: bool,
    links: BTreeMap<Part, LinkId>,
}

impl<'a> HostPorts<'a> {
    /// For a plan that offloads onto hosts of which enough is known.
    pub(super) fn new(cluster: &'a Cluster, plan: &Plan, layout: Layout<'a>, folded: bool) -> Option<Self> {
        let backing = cluster.host.backing.filter(|_| plan.offload.acts())?;
        let pinned = plan.offload.pin_memory;
        Some(Self { cluster, backing, layout, folded, pinned, links: BTreeMap::new() })
    }

    /// The group in which a rank meets nobody, and whose bytes take a way through its host.
    pub(super) fn group(
        &mut self,
        world: &mut WorldBuilder,
        ports: &Ports<'_>,
        way: HostPath,
        (stage, lane): (u32, u32),
    ) -> GroupId {
        let rank = self.layout.rank(stage, lane);
        let node = self.layout.node(rank);
        let of_socket = self.slice(rank, self.backing.gpus_per_socket);
        let of_root = self.slice(rank, self.backing.gpus_per_root);
        let socket = self.number(rank, self.backing.gpus_per_socket);
        let root = self.number(rank, self.backing.gpus_per_root);
        let sharing = |ranks: (u32, u32)| if self.folded { self.layout.lanes_among(stage, ranks) } else { 1 };
        let (beside, at_socket, at_root) =
            (sharing(self.slice(rank, self.layout.gpus_per_node)), sharing(of_socket), sharing(of_root));
        let shared_port = of_root.1 - of_root.0 > 1;
        let out =
            [(Part::GpuOut(rank), 1), (Part::RootOut(root), at_root), (Part::Memory(socket), at_socket)];
        let into = [(Part::GpuIn(rank), 1), (Part::RootIn(root), at_root), (Part::Memory(socket), at_socket)];
        let mut parts: Vec<(Part, u32)> = match way {
            HostPath::ToHost => out.to_vec(),
            HostPath::ToDevice => into.to_vec(),
            HostPath::UnpinnedToDevice => {
                let mut parts = into.to_vec();
                parts.push((Part::Unpinned(rank), 1));
                parts
            }
            HostPath::Processor => vec![(Part::Cores(socket), at_socket), (Part::Memory(socket), at_socket)],
            HostPath::DriveRead => vec![(Part::DriveRead(node), beside), (Part::Memory(socket), at_socket)],
            HostPath::DriveWrite => vec![(Part::DriveWrite(node), beside), (Part::Memory(socket), at_socket)],
        };
        parts.retain(|(part, _)| shared_port || !matches!(part, Part::RootOut(_) | Part::RootIn(_)));
        let mut path: Vec<LinkUse> = parts
            .into_iter()
            .map(|(part, weight)| LinkUse { link: self.link(world, part), weight })
            .collect();
        // On PCI Express the GPUs' traffic with each other takes the same port.
        if self.cluster.fabric.kind == FabricKind::Pcie {
            let port = match way {
                HostPath::ToHost => ports.port(rank).map(|(out, _)| out),
                HostPath::ToDevice | HostPath::UnpinnedToDevice => ports.port(rank).map(|(_, into)| into),
                _ => None,
            };
            path.extend(port.map(|link| LinkUse { link, weight: 1 }));
        }
        world.group(1, path)
    }

    /// Ranks that sit with a rank on the same `size` GPUs of its node, from the first to behind the last.
    fn slice(&self, rank: u32, size: u32) -> (u32, u32) {
        let per_node = self.layout.gpus_per_node;
        let begin = self.layout.node(rank) * per_node;
        let size = size.clamp(1, per_node);
        let first = begin + (rank - begin) / size * size;
        (first, (first + size).min(begin + per_node))
    }

    /// Number of such a part among all nodes'.
    fn number(&self, rank: u32, size: u32) -> u32 {
        let per_node = self.layout.gpus_per_node;
        let size = size.clamp(1, per_node);
        self.layout.node(rank) * per_node.div_ceil(size) + rank % per_node / size
    }

    fn link(&mut self, world: &mut WorldBuilder, part: Part) -> LinkId {
        let (host, backing) = (&self.cluster.host, &self.backing);
        let copies = if self.pinned { host.pinned_bandwidth } else { host.pageable_bandwidth };
        let drives = backing.drives;
        let (name, rate) = match part {
            Part::GpuOut(gpu) => (format!("gpu {gpu} to host"), copies),
            Part::GpuIn(gpu) => (format!("gpu {gpu} from host"), copies),
            Part::Unpinned(gpu) => (format!("gpu {gpu} from pageable memory"), host.pageable_bandwidth),
            Part::RootOut(root) => (format!("port {root} to host"), host.pinned_bandwidth),
            Part::RootIn(root) => (format!("port {root} from host"), host.pinned_bandwidth),
            Part::Memory(socket) => (format!("memory of processor {socket}"), backing.streaming_bandwidth()),
            Part::Cores(socket) => (format!("cores of processor {socket}"), backing.adam_bandwidth()),
            // Nothing is sent there without drives.
            Part::DriveRead(node) => {
                (format!("drives of node {node}, read"), drives.map_or(1.0, |it| it.read))
            }
            Part::DriveWrite(node) => {
                (format!("drives of node {node}, written"), drives.map_or(1.0, |it| it.write))
            }
        };
        *self.links.entry(part).or_insert_with(|| world.link(&name, rate, SimTime::ZERO))
    }
}

/// Whether all lanes of a stage see the same of their hosts: processors and ports are filled by one stage, or hold whole
/// stages, and are themselves full or the only ones of their nodes.
pub(super) fn symmetric(cluster: &Cluster, plan: &Plan, layout: Layout<'_>) -> bool {
    let Some(backing) = cluster.host.backing.filter(|_| plan.offload.acts()) else { return true };
    if layout.seats.is_some() {
        return false;
    }
    let (lanes, node) = (layout.lanes(), layout.gpus_per_node);
    let alike = |size: u32| lanes.is_multiple_of(size) || size.is_multiple_of(lanes);
    let even = |size: u32| {
        let size = size.clamp(1, node);
        node.is_multiple_of(size) && alike(size)
    };
    even(backing.gpus_per_socket) && even(backing.gpus_per_root) && alike(node)
}
