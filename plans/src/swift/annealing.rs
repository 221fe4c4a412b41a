//! Simulated annealing (Kirkpatrick, Gelatt, Vecchi 1983) over placements: the baseline that planners are compared with.
//!
//! A state is a vehicle for each partition and the last vehicle of the path. A move puts one partition elsewhere, lets two
//! change places, or ends the path elsewhere. Too little memory costs time in proportion to what is missing, so that
//! the search may pass through plans that do not fit; only plans that do are kept.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::costs::Costs;
use super::mersenne::Mersenne;
use super::{FormulaParameters, GreedyError, PathPlan, SerialTime};

/// Moves after which annealing may reasonably stop.
pub const ANNEALING_MOVES: u32 = 50_000;

/// Temperature at the end, as a share of that at the start.
const COLD: f64 = 1e-4;

/// Anneals for so many moves; none where no plan that fits was met.
///
/// # Errors
/// No vehicles, dependencies in a cycle, or parameters with which the formula means nothing.
pub fn annealed(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    parameters: &FormulaParameters,
    seed: u32,
    moves: u32,
) -> Result<Option<(PathPlan, SerialTime)>, GreedyError> {
    let costs = Costs::new(graph, cluster, parameters)?;
    let Some(&last) = costs.enders.first() else { return Ok(None) };
    let mut random = Mersenne::new(seed);
    let mut state = State { vehicle_of: vec![0; costs.capacity.len()], last };
    for p in 0..costs.capacity.len() {
        state.vehicle_of[p] = random.below(costs.memory.len());
    }
    // Warm enough that a typical partition may move anywhere, and missing memory dearer than any move.
    let dearest =
        costs.compute.iter().zip(&costs.transfer).flat_map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b));
    let dearest = dearest.fold(0.0, f64::max);
    let mut energy = state.energy(&costs, dearest);
    let mut best: Option<(f64, State)> = None;
    for count in 0..moves {
        let temperature = 0.3 * dearest * libm::pow(COLD, f64::from(count) / f64::from(moves.max(1)));
        let other = state.neighbour(&costs, &mut random);
        let next = other.energy(&costs, dearest);
        let chance = libm::exp((energy.0 - next.0) / temperature.max(f64::MIN_POSITIVE));
        if next.0 <= energy.0 || random.sample() < chance {
            (state, energy) = (other, next);
            if energy.1 && best.as_ref().is_none_or(|(least, _)| energy.0 < *least) {
                best = Some((energy.0, state.clone()));
            }
        }
    }
    let Some((_, state)) = best else { return Ok(None) };
    let plan = costs.plan(&state.vehicle_of, state.last);
    let time = plan.serial_time(graph, cluster, parameters)?;
    Ok(Some((plan, time)))
}

#[derive(Clone)]
struct State {
    vehicle_of: Vec<usize>,
    last: usize,
}

impl State {
    /// Seconds, with a penalty of `dearest` for each memory of a vehicle that is missing, and whether all fits.
    fn energy(&self, costs: &Costs, dearest: f64) -> (f64, bool) {
        let mut held = vec![0.0; costs.memory.len()];
        let mut seconds = 0.0;
        for (p, &v) in self.vehicle_of.iter().enumerate() {
            held[v] += costs.capacity[p];
            seconds += costs.of(p, v, self.last);
        }
        let missing: f64 =
            held.iter().zip(&costs.memory).map(|(held, memory)| ((held - memory) / memory).max(0.0)).sum();
        (seconds + if missing > 0.0 { dearest * (1.0 + 10.0 * missing) } else { 0.0 }, missing <= 0.0)
    }

    fn neighbour(&self, costs: &Costs, random: &mut Mersenne) -> Self {
        let mut other = self.clone();
        let partitions = self.vehicle_of.len();
        if partitions == 0 {
            return other;
        }
        match random.below(10) {
            0 => other.last = costs.enders[random.below(costs.enders.len())],
            1..=3 => other.vehicle_of.swap(random.below(partitions), random.below(partitions)),
            _ => other.vehicle_of[random.below(partitions)] = random.below(costs.memory.len()),
        }
        other
    }
}
