//! Reads the links inside a node: a preset of `fabrics/`, or the `[fabric]` table of a cluster.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;
use super::{fabric_from_catalogue, optional};
use crate::fabric::{Costs, Curve, Fabric, FabricKind, Overlap};
use crate::fact::{Basis, Fact};

/// Keys of a fabric besides its curves.
const OWN: [&str; 11] = [
    "name",
    "kind",
    "like",
    "like_share",
    "host",
    "bandwidth",
    "shared_bandwidth",
    "nodes_per_domain",
    "assumed",
    "overlap",
    "pair",
];
/// Keys of a fabric.
pub(super) const KEYS: [&str; 21] = {
    let mut keys = [""; 21];
    let mut index = 0;
    while index < OWN.len() {
        keys[index] = OWN[index];
        index += 1;
    }
    while index < keys.len() {
        keys[index] = CURVES[index - OWN.len()];
        index += 1;
    }
    keys
};
/// Curves of [`Costs`], in its order.
pub(crate) const CURVES: [&str; 10] = [
    "ll",
    "ll128",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "small_all_to_all",
    "all_to_all",
    "point_to_point",
    "large_point_to_point",
    "nvls",
];
/// Keys of the costs between the GPUs of a bridged pair.
const PAIR: [&str; 13] = {
    let mut keys = [""; 13];
    keys[0] = "like";
    keys[1] = "like_share";
    keys[2] = "assumed";
    let mut index = 0;
    while index < CURVES.len() {
        keys[index + 3] = CURVES[index];
        index += 1;
    }
    keys
};
/// Keys of the costs that a calibration file may give anew.
pub(super) const OVERLAY_KEYS: [&str; 13] = {
    let mut keys = [""; 13];
    keys[0] = "name";
    keys[1] = "assumed";
    keys[2] = "pair";
    let mut index = 0;
    while index < CURVES.len() {
        keys[index + 3] = CURVES[index];
        index += 1;
    }
    keys
};
const CURVE: [&str; 5] = ["start", "hop", "fill", "wire", "touch"];

/// Another fabric that lends what is not written.
struct Lender {
    fabric: Fabric,
    /// Factor on its rates.
    factor: f64,
    /// Whether it is the fabric itself, whose facts stay as they are.
    itself: bool,
}

impl Lender {
    /// The preset named by `like`; its rates are scaled to a port of `bandwidth` and by `like_share`.
    fn read(
        section: &Section<'_>,
        bandwidth: f64,
        facts: &mut Vec<Fact>,
    ) -> Result<Option<Self>, CatalogueError> {
        if !section.has("like") {
            return Ok(None);
        }
        let name = section.name("like")?;
        let path = section.key("like");
        let fabric = fabric_from_catalogue(name)
            .map_err(|error| section.error_at("like", format!("`{path}`: {error}")))?;
        let share =
            if section.has("like_share") { section.fraction("like_share", facts)?.value } else { 1.0 };
        let factor = share * bandwidth / fabric.bandwidth;
        Ok(Some(Self { fabric, factor, itself: false }))
    }

    /// The costs that it lends to the GPUs of a node, or to a bridged pair, and where its facts name them.
    fn costs(&self, pair: bool) -> (&Costs, &'static str) {
        match &self.fabric.pair {
            Some(costs) if pair => (costs, "pair."),
            _ => (&self.fabric.costs, ""),
        }
    }

    /// The lender's facts on a key below `from`, as facts on the key below `to`.
    fn facts(&self, key: &str, from: &str, to: &str) -> Vec<Fact> {
        if self.itself {
            return Vec::new();
        }
        let wanted = format!("{from}{key}");
        let lent = self.fabric.facts.iter().filter_map(|fact| {
            let rest = fact.what.strip_prefix(&wanted)?;
            (rest.is_empty() || rest.starts_with('.')).then(|| (format!("{to}{key}{rest}"), fact))
        });
        let scaled = (self.factor - 1.0).abs() > 1e-12;
        lent.map(|(what, fact)| Fact {
            what,
            value: if scaled && fact.value.ends_with("B/s") {
                format!("{} x {:.3}", fact.value, self.factor)
            } else {
                fact.value.clone()
            },
            source: format!("Borrowed from {}: {}", self.fabric.name, fact.source),
            basis: Basis::DataSheet,
        })
        .collect()
    }
}

/// Reads a fabric; `name` is that of the cluster when the table has none.
pub(super) fn read(section: &Section<'_>, name: &str) -> Result<Fabric, CatalogueError> {
    let mut facts = Vec::new();
    let bandwidth = section.quantity("bandwidth", Dimension::BytesPerSecond, &mut facts)?.value;
    let lender = Lender::read(section, bandwidth, &mut facts)?;
    let shared_bandwidth = optional(section, "shared_bandwidth", Dimension::BytesPerSecond, &mut facts)?;
    let nodes_per_domain =
        if section.has("nodes_per_domain") { section.count("nodes_per_domain", &mut facts)? } else { 1 };
    let overlap = overlap(section, lender.as_ref(), &mut facts)?;
    let costs = costs(section, lender.as_ref(), false, &mut facts)?;
    let pair = match section.optional_section("pair", &PAIR)? {
        Some(table) => {
            let lender = Lender::read(&table, bandwidth, &mut facts)?;
            Some(self::costs(&table, lender.as_ref(), true, &mut facts)?)
        }
        None => None,
    };
    let host = if section.has("host") {
        section.name("host")?.to_owned()
    } else {
        lender.map_or_else(String::new, |lender| lender.fabric.host)
    };
    Ok(Fabric {
        name: if section.has("name") { section.name("name")?.to_owned() } else { name.to_owned() },
        kind: section.choice("kind", &FabricKind::NAMES)?,
        host,
        bandwidth,
        costs,
        pair,
        shared_bandwidth,
        nodes_per_domain,
        overlap,
        facts,
    })
}

/// Lays the costs of a calibration file over those of a fabric.
pub(super) fn overlay(section: &Section<'_>, fabric: &mut Fabric) -> Result<(), CatalogueError> {
    let own = Lender { fabric: fabric.clone(), factor: 1.0, itself: true };
    let mut facts = Vec::new();
    fabric.costs = costs(section, Some(&own), false, &mut facts)?;
    if let Some(table) = section.optional_section("pair", &PAIR[2..])? {
        if fabric.pair.is_none() {
            let problem = format!("`{}`: {} has no bridged pairs", section.key("pair"), fabric.name);
            return Err(section.error_at("pair", problem));
        }
        fabric.pair = Some(costs(&table, Some(&own), true, &mut facts)?);
    }
    // A curve is replaced as a whole: what the new one does not name takes no time.
    let table = |what: &str| {
        let path = what.strip_prefix("fabric.").unwrap_or(what);
        path.rsplit_once('.').map_or(path, |(table, _)| table).to_owned()
    };
    fabric.facts.retain(|old| facts.iter().all(|new| table(&new.what) != table(&old.what)));
    fabric.facts.append(&mut facts);
    Ok(())
}

fn overlap(
    section: &Section<'_>,
    lender: Option<&Lender>,
    facts: &mut Vec<Fact>,
) -> Result<Overlap, CatalogueError> {
    if let (false, Some(lender)) = (section.has("overlap"), lender) {
        facts.extend(lender.facts("overlap", "", ""));
        return Ok(lender.fabric.overlap);
    }
    let table = section.section("overlap", &["channels", "bandwidth_share"])?;
    Ok(Overlap {
        channels: table.count("channels", facts)?,
        bandwidth_share: table.fraction("bandwidth_share", facts)?.value,
    })
}

/// Reads the costs of a fabric or of its bridged pairs; what is not written comes from the lender.
fn costs(
    section: &Section<'_>,
    lender: Option<&Lender>,
    pair: bool,
    facts: &mut Vec<Fact>,
) -> Result<Costs, CatalogueError> {
    let path = section.key("");
    let lent = lender.map(|lender| (lender, lender.costs(pair)));
    let (assumed_bandwidth, assumed_ll_bandwidth) = match lent {
        Some((lender, (costs, from))) if !section.has("assumed") => {
            facts.extend(lender.facts("assumed", from, &path));
            (costs.assumed_bandwidth * lender.factor, costs.assumed_ll_bandwidth * lender.factor)
        }
        _ => {
            let table = section.section("assumed", &["bandwidth", "ll_bandwidth"])?;
            let mut rate = |key: &str| Ok(table.quantity(key, Dimension::BytesPerSecond, facts)?.value);
            (rate("bandwidth")?, rate("ll_bandwidth")?)
        }
    };
    let mut curve = |key: &str, own: fn(&Costs) -> Option<Curve>| match lent {
        Some((lender, (costs, from))) if !section.has(key) => {
            facts.extend(lender.facts(key, from, &path));
            Ok(own(costs).map(|curve| curve.scaled(lender.factor)))
        }
        _ => read_curve(section, key, facts),
    };
    let ll128 = curve("ll128", |costs| costs.ll128)?;
    let large_point_to_point = curve("large_point_to_point", |costs| costs.large_point_to_point)?;
    let nvls = curve("nvls", |costs| costs.nvls)?;
    let mut needed = |key: &str, own: fn(&Costs) -> Option<Curve>| {
        curve(key, own)?.ok_or_else(|| {
            let path = section.key(key);
            section.error_at(key, format!("the table [{path}] is missing, and no `like` lends it"))
        })
    };
    Ok(Costs {
        assumed_bandwidth,
        assumed_ll_bandwidth,
        ll: needed("ll", |costs| Some(costs.ll))?,
        ll128,
        all_reduce: needed("all_reduce", |costs| Some(costs.all_reduce))?,
        all_gather: needed("all_gather", |costs| Some(costs.all_gather))?,
        reduce_scatter: needed("reduce_scatter", |costs| Some(costs.reduce_scatter))?,
        small_all_to_all: needed("small_all_to_all", |costs| Some(costs.small_all_to_all))?,
        all_to_all: needed("all_to_all", |costs| Some(costs.all_to_all))?,
        point_to_point: needed("point_to_point", |costs| Some(costs.point_to_point))?,
        large_point_to_point,
        nvls,
    })
}

/// A curve; what it does not name takes no time.
fn read_curve(
    section: &Section<'_>,
    key: &str,
    facts: &mut Vec<Fact>,
) -> Result<Option<Curve>, CatalogueError> {
    let Some(table) = section.optional_section(key, &CURVE)? else { return Ok(None) };
    let mut part = |key, dimension| optional(&table, key, dimension, facts);
    let (start, hop, fill) = (
        part("start", Dimension::Seconds)?,
        part("hop", Dimension::Seconds)?,
        part("fill", Dimension::Seconds)?,
    );
    let (wire, touch) = (part("wire", Dimension::BytesPerSecond)?, part("touch", Dimension::BytesPerSecond)?);
    Ok(Some(Curve {
        start_s: start.unwrap_or(0.0),
        hop_s: hop.unwrap_or(0.0),
        fill_s: fill.unwrap_or(0.0),
        wire: wire.unwrap_or(f64::INFINITY),
        touch: touch.unwrap_or(f64::INFINITY),
    }))
}
