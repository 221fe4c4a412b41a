//! The catalogue: GPUs and clusters described in TOML, part of the binary.

mod calibration;
mod cluster;
mod embedded;
mod error;
mod fabric;
mod gpu;
mod hooks;
mod network;
mod overlay;
mod parts;
mod peer;
mod power;
mod reader;
#[cfg(test)]
mod tests;
mod vehicles;

pub(crate) use self::calibration::MEMORY_KINDS;
#[cfg(test)]
pub(crate) use self::calibration::widened;
pub(crate) use self::embedded::GPU_ALIASES;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use self::embedded::{CLUSTERS, GPUS, VEHICLE_ALIASES, VEHICLES};
pub use self::error::CatalogueError;
use self::error::nearest;
pub(crate) use self::fabric::CURVES;
pub(crate) use self::parts::network_from_catalogue;
use self::parts::optional;
pub use self::parts::{fabric_from_catalogue, fabric_names, host_from_catalogue, host_names, network_names};
use self::reader::{Section, parse};
use crate::cluster::Cluster;
use crate::gpu::Gpu;
use crate::vehicle::VehicleCluster;

/// A cluster of the catalogue.
#[expect(
    clippy::large_enum_variant,
    reason = "a handful live at a time, and a plain variant matches without a box"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterEntry {
    /// Nodes of equal GPUs.
    Nodes(Cluster),
    /// Unequal vehicles.
    Vehicles(VehicleCluster),
}

impl ClusterEntry {
    /// Catalogue name.
    pub fn name(&self) -> &str {
        match self {
            Self::Nodes(cluster) => &cluster.name,
            Self::Vehicles(cluster) => &cluster.name,
        }
    }
}

/// Entries that have been read. They do not change, and whoever plays many scenarios asks for the same few.
static READ_CLUSTERS: ReadEntries<ClusterEntry> = ReadEntries::new();
static READ_GPUS: ReadEntries<Gpu> = ReadEntries::new();

/// Entries by name.
struct ReadEntries<T>(Mutex<BTreeMap<&'static str, T>>);

impl<T: Clone> ReadEntries<T> {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The entry of a name, which `read` reads the first time.
    fn entry(
        &self,
        name: &'static str,
        read: impl FnOnce() -> Result<T, CatalogueError>,
    ) -> Result<T, CatalogueError> {
        // An entry that somebody failed to add while holding the lock leaves the others as they were.
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(known.clone());
        }
        // Reading an entry may read others, so that the lock is not held meanwhile.
        let entry = read()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name, entry.clone());
        Ok(entry)
    }
}

/// A cluster by its name in the catalogue or an alias of it (`clusterwith5member` for `vehicles-5`).
///
/// # Errors
/// [`CatalogueError::UnknownName`] with the nearest name.
pub fn cluster_from_catalogue(name: &str) -> Result<ClusterEntry, CatalogueError> {
    let name = VEHICLE_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |&(_, entry)| entry);
    let entry = CLUSTERS.iter().chain(&VEHICLES).find(|(entry, _)| *entry == name);
    let &(name, text) = entry.ok_or_else(|| unknown("cluster", name, &cluster_names()))?;
    READ_CLUSTERS.entry(name, || cluster_from_toml(text))
}

/// A cluster from the text of a file in the catalogue's form: `[[vehicle]]` tables, or a `gpu` (a catalogue name
/// or a `[gpu]` table) with `[fabric]`, `[network]` and `[host]`.
///
/// # Errors
/// [`CatalogueError`] with the place of the first error: unknown keys and names (with the nearest valid one),
/// missing keys, numbers without a unit, constants without a source.
pub fn cluster_from_toml(text: &str) -> Result<ClusterEntry, CatalogueError> {
    let document = parse(text)?;
    let is_vehicles = document.get_ref().keys().any(|key| key.get_ref() == "vehicle");
    if is_vehicles {
        let root = Section::root(text, &document, &vehicles::KEYS)?;
        vehicles::read(&root).map(ClusterEntry::Vehicles)
    } else {
        let root = Section::root(text, &document, &cluster::KEYS)?;
        cluster::read(&root).map(ClusterEntry::Nodes)
    }
}

/// A GPU by its name in the catalogue or an alias of it (`h100-sxm5-80gb` for `h100-80gb-sxm`).
///
/// # Errors
/// [`CatalogueError::UnknownName`] with the nearest name.
pub fn gpu_from_catalogue(name: &str) -> Result<Gpu, CatalogueError> {
    let name = GPU_ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |&(_, entry)| entry);
    let entry = GPUS.iter().find(|(entry, _)| *entry == name);
    let &(name, text) = entry.ok_or_else(|| unknown("GPU", name, &gpu_names()))?;
    READ_GPUS.entry(name, || gpu_from_toml(text))
}

/// A GPU from the text of a file in the catalogue's form.
///
/// # Errors
/// [`CatalogueError`] with the place of the first error.
pub fn gpu_from_toml(text: &str) -> Result<Gpu, CatalogueError> {
    let document = parse(text)?;
    gpu::read(&Section::root(text, &document, &gpu::KEYS)?)
}

/// Names of all clusters, those of GPUs first.
pub fn cluster_names() -> Vec<&'static str> {
    CLUSTERS.iter().chain(&VEHICLES).map(|&(name, _)| name).collect()
}

/// Names of all GPUs.
pub fn gpu_names() -> Vec<&'static str> {
    GPUS.iter().map(|&(name, _)| name).collect()
}

fn unknown(kind: &'static str, name: &str, known: &[&str]) -> CatalogueError {
    CatalogueError::UnknownName {
        kind,
        name: name.to_owned(),
        nearest: nearest(name, known.iter().copied()).map(str::to_owned),
        known: known.join(", "),
    }
}
