//! Paths of vehicles, solved exactly.

use std::time::Instant;

use steptime_clusters::Vehicle;
use steptime_plans::{EXACT_NODE_LIMIT, exact_optimum};
use steptime_scenarios::Job;

use crate::SetUp;
use crate::scenarios::read;

const TEXT: &str = include_str!("../../scenarios/visionencoder-small-vehicles.toml");
const MODELS: [&str; 3] = ["visionencoder-small", "visionencoder", "visionencoder-xlarge"];

/// The most seconds that the optimum of a random cluster of ten vehicles took, of so many clusters with each of three models.
///
/// # Errors
/// A cluster is refused, or its optimum is not proven.
pub fn slowest_of_ten_vehicles(clusters: u64) -> SetUp<f64> {
    let mut random = Random(3);
    let mut slowest = 0.0_f64;
    for number in 0..clusters {
        let vehicles: Vec<Vehicle> = (1..=10).map(|vehicle| random.vehicle(vehicle)).collect();
        let dependencies = if number % 2 == 0 { vec![(0, 3), (1, 4), (4, 7)] } else { Vec::new() };
        for model in MODELS {
            let scenario = read("vehicles.toml", &TEXT.replace(MODELS[0], model))?;
            let (Job::Vehicles { mut cluster, formula, .. }, Some(graph)) =
                (scenario.job, scenario.model.components())
            else {
                return Err("no vehicles".into());
            };
            cluster.vehicles.clone_from(&vehicles);
            cluster.dependencies.clone_from(&dependencies);
            let start = Instant::now();
            let found = exact_optimum(graph, &cluster, &formula, EXACT_NODE_LIMIT)?;
            slowest = slowest.max(start.elapsed().as_secs_f64());
            if !found.proven {
                return Err(format!("cluster {number}, {model}: not proven").into());
            }
        }
    }
    Ok(slowest)
}

/// A linear congruential generator (Knuth's MMIX), of which the upper half is taken.
struct Random(u64);

impl Random {
    fn millions(&mut self, from: u64, to: u64) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (from + (self.0 >> 33) % (to - from)) as f64 * 1e6
    }

    fn vehicle(&mut self, number: u64) -> Vehicle {
        Vehicle {
            id: format!("v{number}"),
            memory: self.millions(600, 3200),
            compute: self.millions(800, 4000),
            communication: self.millions(100, 1500),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn optima_are_proven() {
        assert!(slowest_of_ten_vehicles(2).unwrap() > 0.0);
    }
}
