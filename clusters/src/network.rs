//! Links between nodes.

use crate::fact::Fact;

/// How nodes are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    /// InfiniBand.
    InfiniBand,
    /// RDMA over converged Ethernet.
    RoCe,
    /// Elastic Fabric Adapter of Amazon EC2.
    Efa,
    /// TCP over Ethernet.
    Ethernet,
}

impl NetworkKind {
    pub(crate) const NAMES: [(&'static str, Self); 4] = [
        ("infiniband", Self::InfiniBand),
        ("roce", Self::RoCe),
        ("efa", Self::Efa),
        ("ethernet", Self::Ethernet),
    ];
}

/// What a message costs ([`Network::message_s`]) in the jobs over so many nodes, which differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Nodes.
    pub nodes: u32,
    /// In 10 % of the jobs it is less than this, seconds.
    pub fastest_s: f64,
    /// In 10 % of the jobs it is more than this, seconds.
    pub slowest_s: f64,
}

/// Channels for each card that a group uses: NCCL finds a ring for each card and doubles them
/// (`src/graph/connect.cc`).
const CHANNELS_PER_CARD: f64 = 2.0;

/// Links between nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Name of the preset that it is or is like; of a network that says everything itself, the word of its kind.
    pub name: String,
    /// How it is built.
    pub kind: NetworkKind,
    /// Share of the cards' line rate that collectives reach.
    pub share: f64,
    /// What collectives reach in the slowest published clusters of this kind whose cards are sound, as [`Self::share`].
    pub share_low: Option<f64>,
    /// The same of the fastest.
    pub share_high: Option<f64>,
    /// What one node reaches with all its cards in each direction, bytes/s.
    pub bandwidth: f64,
    /// What one GPU reaches alone through the cards nearest to it, bytes/s.
    pub gpu_bandwidth: f64,
    /// Share of [`Self::gpu_bandwidth`] that a single send reaches.
    pub point_to_point: f64,
    /// Cards of a node.
    pub cards: u32,
    /// What the GPUs of a node reach together in each direction through cards that are near to other GPUs, bytes/s:
    /// through the host's memory and between its sockets. Absent where the library moves the data to a GPU near the
    /// card instead (NCCL's PXN, since 2.12), and then there is no such limit.
    pub far_bandwidth: Option<f64>,
    /// Time of one hop between two nodes in the low-latency protocol, seconds.
    pub latency_s: f64,
    /// Time of one hop in the Simple protocol, which posts, polls and flushes, seconds.
    pub bulk_latency_s: f64,
    /// What a message between nodes adds to a collective, whatever its size, seconds: posting, completing and
    /// acknowledging it. The parts of all other ranks pass each link of a ring one after another, so that a group of
    /// `n` ranks has `n - 1` of them in each round. Zero for a network without such measurements.
    pub message_s: f64,
    /// The same in the low-latency protocol, whose receivers see data arrive and acknowledge nothing.
    pub ll_message_s: f64,
    /// What the network's driver tells the collective library of the latency of a hop, seconds. The library chooses by it
    /// and not by what a hop takes.
    pub reported_latency_s: f64,
    /// Spread of that from job to job, by ascending nodes; empty where it was not measured.
    pub spread: Vec<Spread>,
    /// Every constant with its source.
    pub facts: Vec<Fact>,
}

impl Network {
    /// Capacity of a node's egress and of its ingress with all cards, bytes/s.
    pub fn node_bandwidth(&self) -> f64 {
        self.bandwidth
    }

    /// What a group with `members` ranks on a node reaches when no other group uses the cards, bytes/s: each
    /// rank brings its nearest cards, so a ring over whole nodes spreads over all of them.
    pub fn group_bandwidth(&self, members: u32) -> f64 {
        (f64::from(members) * self.gpu_bandwidth).min(self.bandwidth)
    }

    /// Channels of a group with `members` ranks on a node of so many GPUs, as many as its cards ask for.
    ///
    /// Cards are counted as the library sees them: where a GPU has several (EFA), the driver shows them as one
    /// (aws-ofi-nccl groups the interfaces behind one PCI Express switch).
    pub fn channels(&self, members: u32, gpus_per_node: u32) -> f64 {
        let gpus = gpus_per_node.max(1);
        let part = (f64::from(members) / f64::from(gpus)).min(1.0);
        CHANNELS_PER_CARD * (f64::from(self.cards.min(gpus)) * part).max(1.0)
    }

    /// Whether a ring through these GPUs of a node (their places in it, of so many) leaves it through a card that is far
    /// from the last of them.
    ///
    /// A ring leaves by the card by which it came, on the other node's side the same one. That card is near to the
    /// first GPU and to the last if they are one, or two that share the card.
    pub fn leaves_by_far_card(&self, places: &[u32], gpus_per_node: u32) -> bool {
        let card = |place: u32| u64::from(place) * u64::from(self.cards) / u64::from(gpus_per_node.max(1));
        let near =
            |(at, &place): (usize, &u32)| places[at + 1..].iter().any(|&other| card(other) == card(place));
        self.far_bandwidth.is_some() && places.len() > 1 && !places.iter().enumerate().any(near)
    }

    /// The network as the fastest and as the slowest jobs over so many nodes find it: those of one network
    /// ([`Self::spread`]), and other clusters of its kind ([`Self::share_low`]). `None` within a node and where nothing was
    /// measured.
    pub fn extremes(&self, nodes: u32) -> Option<(Self, Self)> {
        let messages = self.messages(nodes);
        if nodes <= 1 || messages.is_none() && self.share_low.is_none() && self.share_high.is_none() {
            return None;
        }
        let (fastest_s, slowest_s) = messages.unwrap_or((self.message_s, self.message_s));
        let other = |share: Option<f64>, message_s: f64| {
            let share = share.unwrap_or(self.share);
            let factor = share / self.share;
            Self {
                share,
                bandwidth: factor * self.bandwidth,
                gpu_bandwidth: factor * self.gpu_bandwidth,
                message_s,
                ..self.clone()
            }
        };
        Some((other(self.share_high, fastest_s), other(self.share_low, slowest_s)))
    }

    /// What a message costs in the fastest and in the slowest tenth of the jobs over so many nodes, seconds: the line
    /// between the measured numbers of nodes, the nearest one outside of them. `None` within a node and where
    /// nothing was measured.
    pub fn messages(&self, nodes: u32) -> Option<(f64, f64)> {
        if nodes <= 1 {
            return None;
        }
        let above = self.spread.iter().find(|spread| spread.nodes >= nodes);
        let below = self.spread.iter().rev().find(|spread| spread.nodes <= nodes);
        let (low, high) = (below.or(above)?, above.or(below)?);
        let width = f64::from(high.nodes - low.nodes);
        let at = if width > 0.0 { f64::from(nodes - low.nodes) / width } else { 0.0 };
        let between = |from: f64, to: f64| from + at * (to - from);
        Some((between(low.fastest_s, high.fastest_s), between(low.slowest_s, high.slowest_s)))
    }
}
