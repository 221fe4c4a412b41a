//! Reads a cluster of vehicles.

use steptime_models::Dimension;

use super::error::{CatalogueError, nearest, nearest_hint};
use super::reader::Section;
use crate::vehicle::{Vehicle, VehicleCluster};

/// Keys of a file of vehicles.
pub(super) const KEYS: [&str; 3] = ["name", "vehicle", "dependencies"];

pub(super) fn read(root: &Section<'_>) -> Result<VehicleCluster, CatalogueError> {
    let mut cluster = VehicleCluster {
        name: root.name("name")?.to_owned(),
        vehicles: Vec::new(),
        dependencies: Vec::new(),
        source: root.own_source()?.to_owned(),
    };
    for section in root.sections("vehicle", &["id", "memory", "compute", "communication"])? {
        let vehicle = vehicle(&section)?;
        if cluster.index(&vehicle.id).is_some() {
            return Err(section.error_at("id", format!("a second vehicle `{}`; ids must differ", vehicle.id)));
        }
        cluster.vehicles.push(vehicle);
    }
    for section in root.sections("dependencies", &["before", "after"])? {
        let pair = (end(&cluster, &section, "before")?, end(&cluster, &section, "after")?);
        cluster.dependencies.push(pair);
    }
    if has_cycle(&cluster) {
        let problem = "the dependencies form a cycle: no path of vehicles can keep them".to_owned();
        return Err(root.error_at("dependencies", problem));
    }
    Ok(cluster)
}

fn vehicle(section: &Section<'_>) -> Result<Vehicle, CatalogueError> {
    let mut facts = Vec::new();
    let mut amount = |key, dimension| Ok(section.quantity(key, dimension, &mut facts)?.value);
    Ok(Vehicle {
        id: section.name("id")?.to_owned(),
        memory: amount("memory", Dimension::Bytes)?,
        compute: amount("compute", Dimension::FlopsPerSecond)?,
        communication: amount("communication", Dimension::BytesPerSecond)?,
    })
}

/// Index of the vehicle that one end of a dependency names.
fn end(cluster: &VehicleCluster, section: &Section<'_>, key: &str) -> Result<usize, CatalogueError> {
    let id = section.name(key)?;
    cluster.index(id).ok_or_else(|| {
        let ids = || cluster.vehicles.iter().map(|vehicle| vehicle.id.as_str());
        let hint = nearest_hint(nearest(id, ids()));
        let known = ids().collect::<Vec<_>>().join(", ");
        let path = section.key(key);
        section.error_at(key, format!("`{path}`: no vehicle `{id}`{hint}; known: {known}"))
    })
}

/// Removes vehicles that nothing must precede until none is left (Kahn 1962).
fn has_cycle(cluster: &VehicleCluster) -> bool {
    let mut left: Vec<usize> = (0..cluster.vehicles.len()).collect();
    while !left.is_empty() {
        let waits = |vehicle: usize| {
            cluster.dependencies.iter().any(|&(before, after)| after == vehicle && left.contains(&before))
        };
        let waiting: Vec<usize> = left.iter().copied().filter(|&vehicle| waits(vehicle)).collect();
        if waiting.len() == left.len() {
            return true;
        }
        left = waiting;
    }
    false
}
