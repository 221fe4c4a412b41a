//! Clusters of vehicles: few, unequal devices that pass a model's partitions along a path.

/// One vehicle.
#[derive(Clone, Debug, PartialEq)]
pub struct Vehicle {
    /// Identifier, e.g. `v1`.
    pub id: String,
    /// Memory, bytes.
    pub memory: f64,
    /// Computing capability, FLOP/s.
    pub compute: f64,
    /// Communication capability, bytes/s.
    pub communication: f64,
}

/// Vehicles and the order that they must keep in a path.
#[derive(Clone, Debug, PartialEq)]
pub struct VehicleCluster {
    /// Catalogue name, e.g. `vehicles-5`.
    pub name: String,
    /// The vehicles, in the order of their source.
    pub vehicles: Vec<Vehicle>,
    /// Pairs of indices into `vehicles`: in any path the first comes before the second.
    pub dependencies: Vec<(usize, usize)>,
    /// Where the numbers come from.
    pub source: String,
}

impl VehicleCluster {
    /// Index of the vehicle with this identifier.
    pub fn index(&self, id: &str) -> Option<usize> {
        self.vehicles.iter().position(|vehicle| vehicle.id == id)
    }
}
