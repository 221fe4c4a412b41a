//! Reads the links between nodes: a preset of `networks/`, the `[network]` table of a cluster, or that of a calibration
//! file.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::network_from_catalogue;
use super::reader::Section;
use crate::cluster::Cluster;
use crate::fact::Fact;
use crate::network::{Network, NetworkKind, Spread};

/// What a fit can give anew.
const FITTED: [&str; 10] = [
    "share",
    "share_low",
    "share_high",
    "point_to_point",
    "latency",
    "bulk_latency",
    "message",
    "ll_message",
    "reported_latency",
    "spread",
];
/// How a network is built.
const BUILT: [&str; 5] = ["kind", "card", "slot", "staging", "far_cards"];
/// Keys of a preset.
pub(super) const KEYS: [&str; 16] = joined(["name"], joined::<5, 10, 15>(BUILT, FITTED));
/// Keys of a cluster's network.
const CLUSTER_KEYS: [&str; 18] = joined(["like", "rate", "cards"], joined::<5, 10, 15>(BUILT, FITTED));
/// Keys of a calibration file's.
pub(super) const OVERLAY_KEYS: [&str; 11] = joined(["name"], FITTED);

const fn joined<const A: usize, const B: usize, const N: usize>(
    first: [&'static str; A],
    second: [&'static str; B],
) -> [&'static str; N] {
    let mut keys = [""; N];
    let mut index = 0;
    while index < N {
        keys[index] = if index < A { first[index] } else { second[index - A] };
        index += 1;
    }
    keys
}

/// A network without the rate of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetworkPreset {
    name: String,
    kind: NetworkKind,
    /// Line rate of one card, bytes/s.
    card: f64,
    /// What the card's slot carries in each direction, bytes/s, where it is known.
    slot: Option<f64>,
    /// What one GPU copies to and from the host's memory at the same time, where cards cannot reach the GPU's own.
    staging: Option<f64>,
    far_bandwidth: Option<f64>,
    fitted: Fitted,
    facts: Vec<Fact>,
}

/// What is fitted ([`FITTED`]).
#[derive(Clone, Debug, Default, PartialEq)]
struct Fitted {
    /// Share of the line rate that collectives reach.
    share: f64,
    share_low: Option<f64>,
    share_high: Option<f64>,
    point_to_point: f64,
    latency_s: f64,
    bulk_latency_s: f64,
    message_s: f64,
    ll_message_s: f64,
    reported_latency_s: f64,
    spread: Vec<Spread>,
}

impl Fitted {
    /// Takes what the section says. Where `complete`, it must say what every network has.
    fn read(
        &mut self,
        section: &Section<'_>,
        complete: bool,
        facts: &mut Vec<Fact>,
    ) -> Result<(), CatalogueError> {
        for (key, place) in [("share", &mut self.share), ("point_to_point", &mut self.point_to_point)] {
            if complete || section.has(key) {
                *place = section.fraction(key, facts)?.value;
            }
        }
        // What was published of other clusters says nothing of one whose own share was measured.
        if section.has("share") {
            (self.share_low, self.share_high) = (None, None);
        }
        for (key, place) in [("share_low", &mut self.share_low), ("share_high", &mut self.share_high)] {
            if section.has(key) {
                *place = Some(section.fraction(key, facts)?.value);
            }
        }
        for (key, needed, place) in [
            ("latency", true, &mut self.latency_s),
            ("bulk_latency", true, &mut self.bulk_latency_s),
            ("message", false, &mut self.message_s),
            ("ll_message", false, &mut self.ll_message_s),
            ("reported_latency", false, &mut self.reported_latency_s),
        ] {
            if complete && needed || section.has(key) {
                *place = section.quantity(key, Dimension::Seconds, facts)?.value;
            }
        }
        if section.has("spread") {
            self.spread = spread(section)?;
        }
        Ok(())
    }
}

impl NetworkPreset {
    /// The network of nodes with a line rate of `rate` bytes/s. A GPU alone uses its part of the cards, but
    /// no less than one card; no card carries more than its slot, and no GPU more than it copies through the host, where it
    /// must.
    pub(crate) fn network(self, rate: f64, gpus_per_node: u32) -> Network {
        let gpus = f64::from(gpus_per_node);
        let cards = (rate / self.card).round().clamp(1.0, 1e6);
        let of_slots = |rate: f64| self.slot.map_or(rate, |slot| rate * (slot / self.card).min(1.0));
        let alone = of_slots((rate / gpus).max(self.card).min(rate));
        let staged = |rate: f64, gpus: f64| self.staging.map_or(rate, |copies| rate.min(gpus * copies));
        let Fitted {
            share,
            share_low,
            share_high,
            point_to_point,
            latency_s,
            bulk_latency_s,
            message_s,
            ll_message_s,
            reported_latency_s,
            spread,
        } = self.fitted;
        Network {
            name: self.name,
            kind: self.kind,
            share,
            share_low,
            share_high,
            bandwidth: staged(of_slots(rate), gpus) * share,
            gpu_bandwidth: staged(alone, 1.0) * share,
            point_to_point,
            cards: cards as u32,
            far_bandwidth: self.far_bandwidth,
            latency_s,
            bulk_latency_s,
            message_s,
            ll_message_s,
            reported_latency_s,
            spread,
            facts: self.facts,
        }
    }

    /// Takes what the section says of how the network is built and of what it reaches.
    fn read(&mut self, section: &Section<'_>, complete: bool) -> Result<Vec<Fact>, CatalogueError> {
        let mut facts = Vec::new();
        if complete || section.has("kind") {
            self.kind = section.choice("kind", &NetworkKind::NAMES)?;
        }
        let mut rate = |key: &str| Ok(section.quantity(key, Dimension::BytesPerSecond, &mut facts)?.value);
        if complete || section.has("card") {
            self.card = rate("card")?;
        }
        for (key, place) in
            [("slot", &mut self.slot), ("staging", &mut self.staging), ("far_cards", &mut self.far_bandwidth)]
        {
            if section.has(key) {
                *place = Some(rate(key)?);
            }
        }
        self.fitted.read(section, complete, &mut facts)?;
        Ok(facts)
    }

    fn unknown(name: String) -> Self {
        Self {
            name,
            kind: NetworkKind::Ethernet,
            card: 0.0,
            slot: None,
            staging: None,
            far_bandwidth: None,
            fitted: Fitted::default(),
            facts: Vec::new(),
        }
    }
}

/// Reads a preset.
pub(super) fn read_preset(section: &Section<'_>) -> Result<NetworkPreset, CatalogueError> {
    let name = section.name(if section.has("name") { "name" } else { "kind" })?;
    let mut preset = NetworkPreset::unknown(name.to_owned());
    preset.facts = preset.read(section, true)?;
    Ok(preset)
}

/// The network of a cluster file, if it has one: a rate, and what differs from the preset that it is `like`.
pub(super) fn read(root: &Section<'_>, gpus_per_node: u32) -> Result<Option<Network>, CatalogueError> {
    let Some(section) = root.optional_section("network", &CLUSTER_KEYS)? else {
        return Ok(None);
    };
    let mut facts = Vec::new();
    let rate = section.quantity("rate", Dimension::BytesPerSecond, &mut facts)?.value;
    let mut preset = if section.has("like") { borrowed(&section)? } else { read_preset(&section)? };
    if section.has("cards") {
        preset.card = rate / f64::from(section.count("cards", &mut facts)?);
    }
    facts.append(&mut preset.facts);
    preset.facts = facts;
    Ok(Some(preset.network(rate, gpus_per_node)))
}

fn borrowed(section: &Section<'_>) -> Result<NetworkPreset, CatalogueError> {
    let name = section.name("like")?;
    let path = section.key("like");
    let mut preset = network_from_catalogue(name)
        .map_err(|error| section.error_at("like", format!("`{path}`: {error}")))?;
    for fact in &mut preset.facts {
        fact.what = section.key(&fact.what);
    }
    let facts = preset.read(section, false)?;
    preset.facts.retain(|fact| facts.iter().all(|own| own.what != fact.what));
    preset.facts.extend(facts);
    Ok(preset)
}

/// Lays what a calibration file says of the network over that of a cluster; the facts of what it says.
pub(super) fn overlay(section: &Section<'_>, cluster: &mut Cluster) -> Result<Vec<Fact>, CatalogueError> {
    let mut facts = Vec::new();
    let Some(network) = &mut cluster.network else {
        let problem = "`network`: the cluster has no [network] between nodes".to_owned();
        return Err(section.error_at("name", problem));
    };
    let mut fitted = Fitted {
        share: network.share,
        share_low: network.share_low,
        share_high: network.share_high,
        point_to_point: network.point_to_point,
        latency_s: network.latency_s,
        bulk_latency_s: network.bulk_latency_s,
        message_s: network.message_s,
        ll_message_s: network.ll_message_s,
        reported_latency_s: network.reported_latency_s,
        spread: std::mem::take(&mut network.spread),
    };
    fitted.read(section, false, &mut facts)?;
    let factor = fitted.share / network.share;
    network.share = fitted.share;
    network.share_low = fitted.share_low;
    network.share_high = fitted.share_high;
    network.bandwidth *= factor;
    network.gpu_bandwidth *= factor;
    network.point_to_point = fitted.point_to_point;
    network.latency_s = fitted.latency_s;
    network.bulk_latency_s = fitted.bulk_latency_s;
    network.message_s = fitted.message_s;
    network.ll_message_s = fitted.ll_message_s;
    network.reported_latency_s = fitted.reported_latency_s;
    network.spread = fitted.spread;
    if let Some(domain) = &mut cluster.domain {
        domain.node_bandwidth *= factor;
    }
    Ok(facts)
}

/// `[[spread]]` tables by ascending nodes.
fn spread(section: &Section<'_>) -> Result<Vec<Spread>, CatalogueError> {
    let mut list = Vec::new();
    for row in section.sections("spread", &["nodes", "fastest", "slowest"])? {
        let mut facts = Vec::new();
        let spread = Spread {
            nodes: row.count("nodes", &mut facts)?,
            fastest_s: row.quantity("fastest", Dimension::Seconds, &mut facts)?.value,
            slowest_s: row.quantity("slowest", Dimension::Seconds, &mut facts)?.value,
        };
        if list.last().is_some_and(|last: &Spread| last.nodes >= spread.nodes) {
            let path = row.key("nodes");
            return Err(row.error_at("nodes", format!("`{path}`: the rows must ascend by nodes")));
        }
        list.push(spread);
    }
    Ok(list)
}
