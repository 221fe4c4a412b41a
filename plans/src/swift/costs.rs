//! What each partition costs on each vehicle: the formula is a sum over partitions once the last vehicle is chosen.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::formula::{communication_seconds, compute_seconds};
use super::order::Precedence;
use super::{FormulaParameters, GreedyError, PathPlan};

/// The formula by partition and vehicle. Among all paths that end in the same vehicle a placement costs the same.
pub(super) struct Costs {
    /// `compute[p][v]`, seconds.
    pub(super) compute: Vec<Vec<f64>>,
    /// `transfer[p][v]`, seconds, unless `v` is the last vehicle of the path.
    pub(super) transfer: Vec<Vec<f64>>,
    /// Bytes of each partition.
    pub(super) capacity: Vec<f64>,
    /// Bytes of each vehicle.
    pub(super) memory: Vec<f64>,
    /// Vehicles that a path can end with.
    pub(super) enders: Vec<usize>,
    precedence: Precedence,
}

impl Costs {
    pub(super) fn new(
        graph: &ComponentGraph,
        cluster: &VehicleCluster,
        parameters: &FormulaParameters,
    ) -> Result<Self, GreedyError> {
        parameters.validate()?;
        if cluster.vehicles.is_empty() {
            return Err(GreedyError::NoVehicles);
        }
        let precedence = Precedence::new(cluster)?;
        let by_vehicle = |price: &dyn Fn(usize, usize) -> f64| -> Vec<Vec<f64>> {
            let of = |p| (0..cluster.vehicles.len()).map(|v| price(p, v)).collect();
            (0..graph.partitions.len()).map(of).collect()
        };
        Ok(Self {
            compute: by_vehicle(&|p, v| {
                compute_seconds(graph.partition_flops(p), &cluster.vehicles[v], parameters)
            }),
            transfer: by_vehicle(&|p, v| {
                communication_seconds(
                    graph.partitions[p].communication_volume,
                    &cluster.vehicles[v],
                    parameters,
                )
            }),
            capacity: (0..graph.partitions.len()).map(|p| graph.partition_capacity(p)).collect(),
            memory: cluster.vehicles.iter().map(|vehicle| vehicle.memory).collect(),
            enders: (0..cluster.vehicles.len()).filter(|&v| precedence.can_end(v)).collect(),
            precedence,
        })
    }

    /// Seconds of a partition on a vehicle where the path ends with `last`.
    pub(super) fn of(&self, p: usize, v: usize, last: usize) -> f64 {
        self.compute[p][v] + if v == last { 0.0 } else { self.transfer[p][v] }
    }

    /// The plan with each partition on its vehicle, on the first path in lexicographic order that ends with `last`.
    pub(super) fn plan(&self, vehicle_of: &[usize], last: usize) -> PathPlan {
        let vehicles = self.memory.len();
        let mut assignment = vec![Vec::new(); vehicles];
        for (p, &v) in vehicle_of.iter().enumerate() {
            assignment[v].push(p);
        }
        let mut order = Vec::new();
        // Nothing depends on `last`, so that there is such a path.
        self.precedence.first_path(&vec![None; vehicles], Some(last), &mut vec![false; vehicles], &mut order);
        PathPlan { order, assignment }
    }
}
