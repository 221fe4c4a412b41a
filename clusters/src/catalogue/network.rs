//! Reads the links between nodes: a preset of `networks/`, or the `[network]` table of a cluster.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;
use super::{network_from_catalogue, optional};
use crate::fact::Fact;
use crate::network::{Network, NetworkKind, Spread};

/// Keys of a preset.
pub(super) const KEYS: [&str; 10] = [
    "name",
    "kind",
    "card",
    "share",
    "point_to_point",
    "latency",
    "bulk_latency",
    "message",
    "far_cards",
    "spread",
];
/// Keys of a cluster's network.
const CLUSTER_KEYS: [&str; 12] = [
    "like",
    "rate",
    "cards",
    "kind",
    "card",
    "share",
    "point_to_point",
    "latency",
    "bulk_latency",
    "message",
    "far_cards",
    "spread",
];

/// A network without the rate of a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NetworkPreset {
    kind: NetworkKind,
    /// Line rate of one card, bytes/s.
    card: f64,
    /// Share of the line rate that collectives reach.
    share: f64,
    point_to_point: f64,
    latency_s: f64,
    bulk_latency_s: f64,
    message_s: f64,
    far_bandwidth: Option<f64>,
    spread: Vec<Spread>,
    facts: Vec<Fact>,
}

impl NetworkPreset {
    /// The network of nodes with a line rate of `rate` bytes/s. A GPU alone uses its part of the cards, but
    /// no less than one card.
    pub(crate) fn network(self, rate: f64, gpus_per_node: u32) -> Network {
        let cards = (rate / self.card).round().clamp(1.0, 1e6);
        let alone = (rate / f64::from(gpus_per_node)).max(self.card).min(rate);
        Network {
            kind: self.kind,
            bandwidth: rate * self.share,
            gpu_bandwidth: alone * self.share,
            point_to_point: self.point_to_point,
            cards: cards as u32,
            far_bandwidth: self.far_bandwidth,
            latency_s: self.latency_s,
            bulk_latency_s: self.bulk_latency_s,
            message_s: self.message_s,
            spread: self.spread,
            facts: self.facts,
        }
    }
}

/// Reads a preset.
pub(super) fn read_preset(section: &Section<'_>) -> Result<NetworkPreset, CatalogueError> {
    let mut facts = Vec::new();
    Ok(NetworkPreset {
        kind: section.choice("kind", &NetworkKind::NAMES)?,
        card: section.quantity("card", Dimension::BytesPerSecond, &mut facts)?.value,
        share: section.fraction("share", &mut facts)?.value,
        point_to_point: section.fraction("point_to_point", &mut facts)?.value,
        latency_s: section.quantity("latency", Dimension::Seconds, &mut facts)?.value,
        bulk_latency_s: section.quantity("bulk_latency", Dimension::Seconds, &mut facts)?.value,
        message_s: optional(section, "message", Dimension::Seconds, &mut facts)?.unwrap_or(0.0),
        far_bandwidth: optional(section, "far_cards", Dimension::BytesPerSecond, &mut facts)?,
        spread: spread(section)?,
        facts,
    })
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
    let mut facts = Vec::new();
    if section.has("kind") {
        preset.kind = section.choice("kind", &NetworkKind::NAMES)?;
    }
    for (key, dimension, place) in [
        ("card", Dimension::BytesPerSecond, &mut preset.card),
        ("latency", Dimension::Seconds, &mut preset.latency_s),
        ("bulk_latency", Dimension::Seconds, &mut preset.bulk_latency_s),
        ("message", Dimension::Seconds, &mut preset.message_s),
    ] {
        *place = optional(section, key, dimension, &mut facts)?.unwrap_or(*place);
    }
    for (key, place) in [("share", &mut preset.share), ("point_to_point", &mut preset.point_to_point)] {
        if section.has(key) {
            *place = section.fraction(key, &mut facts)?.value;
        }
    }
    preset.far_bandwidth =
        optional(section, "far_cards", Dimension::BytesPerSecond, &mut facts)?.or(preset.far_bandwidth);
    if section.has("spread") {
        preset.spread = spread(section)?;
    }
    preset.facts.retain(|fact| facts.iter().all(|own| own.what != fact.what));
    preset.facts.extend(facts);
    Ok(preset)
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
