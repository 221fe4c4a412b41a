//! Presets that clusters are made of: fabrics, networks, hosts.

use steptime_models::Dimension;

use super::cluster::{HOST_KEYS, read_host};
use super::error::CatalogueError;
use super::network::NetworkPreset;
use super::reader::{Section, parse};
use super::{fabric, network, unknown};
use crate::cluster::Host;
use crate::fabric::Fabric;
use crate::fact::Fact;

macro_rules! entries {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../catalog/", $folder, "/", $name, ".toml")))),+]
    };
}

const FABRICS: [(&str, &str); 14] = entries!("fabrics":
    "nvswitch-3",
    "nvswitch-4",
    "nvswitch-5",
    "nvl72",
    "nvlink-mesh-v100",
    "nvlink-bridge-a100",
    "nvlink-bridge-h100",
    "nvlink-bridge-rtx8000",
    "pcie3",
    "pcie4",
    "pcie5",
    "pcie3-no-peer",
    "pcie4-no-peer",
    "pcie5-no-peer",
);
const NETWORKS: [(&str, &str); 11] = entries!("networks":
    "infiniband",
    "infiniband-edr",
    "infiniband-hdr",
    "infiniband-ndr",
    "infiniband-xdr",
    "roce",
    "roce-100",
    "roce-200",
    "roce-400",
    "efa",
    "ethernet",
);
const HOSTS: [(&str, &str); 4] = entries!("hosts": "x86-pcie3", "x86-pcie4", "x86-pcie5", "grace");

/// Links inside a node by the name of their preset, e.g. `nvswitch-4`.
///
/// # Errors
/// [`CatalogueError::UnknownName`] with the nearest name.
pub fn fabric_from_catalogue(name: &str) -> Result<Fabric, CatalogueError> {
    let text = text("fabric", name, &FABRICS)?;
    let document = parse(text)?;
    fabric::read(&Section::root(text, &document, &fabric::KEYS)?, name)
}

/// Names of all presets of links inside a node.
pub fn fabric_names() -> Vec<&'static str> {
    FABRICS.iter().map(|&(name, _)| name).collect()
}

/// Names of all presets of links between nodes.
pub fn network_names() -> Vec<&'static str> {
    NETWORKS.iter().map(|&(name, _)| name).collect()
}

pub(crate) fn network_from_catalogue(name: &str) -> Result<NetworkPreset, CatalogueError> {
    let text = text("network", name, &NETWORKS)?;
    let document = parse(text)?;
    network::read_preset(&Section::root(text, &document, &network::KEYS)?)
}

/// A host by the name of its preset, e.g. `x86-pcie5`.
///
/// # Errors
/// [`CatalogueError::UnknownName`] with the nearest name.
pub fn host_from_catalogue(name: &str) -> Result<Host, CatalogueError> {
    let text = text("host", name, &HOSTS)?;
    let document = parse(text)?;
    let mut host = read_host(&Section::root(text, &document, &HOST_KEYS)?, "")?;
    // A preset says its framework costs itself.
    name.clone_into(&mut host.framework_from);
    Ok(host)
}

/// Names of all presets of hosts.
pub fn host_names() -> Vec<&'static str> {
    HOSTS.iter().map(|&(name, _)| name).collect()
}

fn text(
    kind: &'static str,
    name: &str,
    list: &[(&'static str, &'static str)],
) -> Result<&'static str, CatalogueError> {
    let found = list.iter().find(|(entry, _)| *entry == name).map(|&(_, text)| text);
    found.ok_or_else(|| unknown(kind, name, &list.iter().map(|&(entry, _)| entry).collect::<Vec<_>>()))
}

/// A quantity that may be left out.
pub(super) fn optional(
    section: &Section<'_>,
    key: &str,
    dimension: Dimension,
    facts: &mut Vec<Fact>,
) -> Result<Option<f64>, CatalogueError> {
    if section.has(key) { Ok(Some(section.quantity(key, dimension, facts)?.value)) } else { Ok(None) }
}
