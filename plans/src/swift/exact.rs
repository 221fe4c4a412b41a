//! The least time of all placements on all paths, proven by branch and bound.
//!
//! With the last vehicle `l` given the formula is a generalized assignment problem:
//!
//! ```text
//! minimize  sum_p c(p, v(p))   with   sum_{p on v} capacity_p <= memory_v
//! c(p, v) = t_compute(p, v) + t_transfer(p, v) [v != l]
//! ```
//!
//! Partitions are placed one by one, the largest first. Two bounds prune: every partition that is left on its cheapest
//! vehicle with room for it; and the same with the memory rules relaxed into prices `lambda_v >= 0` a byte,
//!
//! ```text
//! L(lambda) = sum_p min_v (c(p, v) + lambda_v capacity_p) - sum_v lambda_v memory_v  <=  optimum
//! ```
//!
//! (Held and Karp 1971; Ross and Soland 1975 for this problem), with prices found by the subgradient method. Whatever
//! the prices, the bound holds. Times are compared in whole picoseconds.

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::costs::Costs;
use super::{FormulaParameters, GreedyError, PathPlan, SerialTime};

/// Nodes after which a search may reasonably stop: some seconds.
pub const EXACT_NODE_LIMIT: u64 = 20_000_000;

/// What the search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Exact {
    /// The best plan and its time; none where no placement has room.
    pub best: Option<(PathPlan, SerialTime)>,
    /// No plan is faster than this, seconds; infinite where there is none.
    pub bound_s: f64,
    /// Whether the search went through: `best` is optimal then, or there is no plan.
    pub proven: bool,
    /// Nodes of the search tree.
    pub nodes: u64,
    /// Why there is no plan.
    pub infeasible: Option<String>,
}

/// Finds the plan of least [`PathPlan::serial_time`] over all placements and paths, looking at no more than
/// `node_limit` nodes ([`EXACT_NODE_LIMIT`] suits).
///
/// # Errors
/// No vehicles, dependencies in a cycle, or parameters with which the formula means nothing.
pub fn exact_optimum(
    graph: &ComponentGraph,
    cluster: &VehicleCluster,
    parameters: &FormulaParameters,
    node_limit: u64,
) -> Result<Exact, GreedyError> {
    let costs = Costs::new(graph, cluster, parameters)?;
    let Solved { best, root_bound, proven, nodes } = solve(&costs, node_limit);
    let Some((vehicle_of, last)) = best else {
        let infeasible = proven.then(|| why_infeasible(graph, cluster, &costs));
        let bound_s = if proven { f64::INFINITY } else { root_bound };
        return Ok(Exact { best: None, bound_s, proven, nodes, infeasible });
    };
    let plan = costs.plan(&vehicle_of, last);
    let time = plan.serial_time(graph, cluster, parameters)?;
    let bound_s = if proven { time.total_s } else { root_bound.min(time.total_s) };
    Ok(Exact { best: Some((plan, time)), bound_s, proven, nodes, infeasible: None })
}

/// What the search tree gave.
pub(super) struct Solved {
    /// Of each partition its vehicle, and the last vehicle.
    pub(super) best: Option<(Vec<usize>, usize)>,
    /// The bound before anything was placed, seconds.
    root_bound: f64,
    /// Whether the tree was gone through.
    proven: bool,
    nodes: u64,
}

/// The placement of least cost.
pub(super) fn solve(costs: &Costs, node_limit: u64) -> Solved {
    let mut search = Search::new(costs, node_limit);
    let mut ends: Vec<Relaxed> = costs.enders.iter().map(|&last| Relaxed::new(costs, last)).collect();
    ends.sort_by(|a, b| a.bound().total_cmp(&b.bound()).then(a.last.cmp(&b.last)));
    for relaxed in &ends {
        search.run(relaxed);
    }
    let root_bound = ends.first().map_or(0.0, Relaxed::bound);
    Solved { best: search.best.take(), root_bound, proven: search.proven(), nodes: search.nodes }
}

fn why_infeasible(graph: &ComponentGraph, cluster: &VehicleCluster, costs: &Costs) -> String {
    let roomiest = (0..costs.memory.len()).max_by(|&u, &v| costs.memory[u].total_cmp(&costs.memory[v]));
    let largest = (0..costs.capacity.len()).max_by(|&p, &q| costs.capacity[p].total_cmp(&costs.capacity[q]));
    if let (Some(v), Some(p)) = (roomiest, largest)
        && costs.capacity[p] > costs.memory[v]
    {
        let (partition, vehicle) = (&graph.partitions[p].name, &cluster.vehicles[v].id);
        let (needs, has) = (costs.capacity[p], costs.memory[v]);
        return format!(
            "{partition} needs {needs} bytes, and {vehicle}, the vehicle with the most memory, has {has}"
        );
    }
    let (needs, has): (f64, f64) = (costs.capacity.iter().sum(), costs.memory.iter().sum());
    if needs > has {
        return format!("the partitions need {needs} bytes together, the vehicles have {has}");
    }
    format!(
        "no placement of the {} partitions has room on every vehicle (all were looked at)",
        costs.capacity.len()
    )
}

/// Picoseconds in a second.
const PICOS: f64 = 1e12;

/// Bounds are sums of floats: this share of them is not trusted.
const ROUNDING: f64 = 1e-9;

/// Steps of the subgradient method.
const STEPS: usize = 300;
/// Steps without a better bound after which the step length is halved.
const PATIENCE: usize = 12;

/// One last vehicle, with the prices of memory that bound it best.
struct Relaxed {
    last: usize,
    /// `c(p, v)`, seconds.
    cost: Vec<Vec<f64>>,
    /// `c(p, v) + lambda_v capacity_p`.
    reduced: Vec<Vec<f64>>,
    /// `sum_v lambda_v memory_v`.
    offset: f64,
}

impl Relaxed {
    fn new(costs: &Costs, last: usize) -> Self {
        let (partitions, vehicles) = (costs.capacity.len(), costs.memory.len());
        let cost: Vec<Vec<f64>> =
            (0..partitions).map(|p| (0..vehicles).map(|v| costs.of(p, v, last)).collect()).collect();
        // Bytes in units of the largest memory, so that prices are seconds.
        let unit = costs.memory.iter().fold(1.0, |most: f64, &bytes| most.max(bytes));
        let dearest: f64 = cost.iter().map(|of| of.iter().copied().fold(0.0, f64::max)).sum();
        let mut prices = vec![0.0; vehicles];
        let mut best = (f64::NEG_INFINITY, prices.clone());
        let (mut length, mut since) = (1.0, 0);
        for _ in 0..STEPS {
            let mut slope: Vec<f64> = costs.memory.iter().map(|memory| -memory / unit).collect();
            let mut value: f64 =
                -prices.iter().zip(&costs.memory).map(|(price, memory)| price * memory / unit).sum::<f64>();
            for (of, bytes) in cost.iter().zip(&costs.capacity) {
                let size = bytes / unit;
                let price = |v: usize| of[v] + prices[v] * size;
                let v = (0..vehicles).fold(0, |least, v| if price(v) < price(least) { v } else { least });
                value += price(v);
                slope[v] += size;
            }
            since += 1;
            if value > best.0 {
                best = (value, prices.clone());
                since = 0;
            } else if since > PATIENCE {
                length *= 0.5;
                since = 0;
            }
            let norm: f64 = slope.iter().map(|part| part * part).sum();
            // The optimum is not known: the aim is a little above the bound so far.
            let aim = best.0.abs() * 0.05 + dearest * 1e-3;
            let step = length * aim / norm.max(1e-12);
            prices.iter_mut().zip(&slope).for_each(|(price, part)| *price = (*price + step * part).max(0.0));
        }
        let prices = best.1;
        let reduced =
            |p: usize| (0..vehicles).map(|v| cost[p][v] + prices[v] * costs.capacity[p] / unit).collect();
        let offset = prices.iter().zip(&costs.memory).map(|(price, memory)| price * memory / unit).sum();
        Self { last, reduced: (0..partitions).map(reduced).collect(), cost, offset }
    }

    /// Nothing that ends with this vehicle is faster, seconds.
    fn bound(&self) -> f64 {
        let least = |of: &Vec<f64>| of.iter().copied().fold(f64::INFINITY, f64::min);
        let priced: f64 = self.reduced.iter().map(least).sum();
        let cheapest: f64 = self.cost.iter().map(least).sum();
        (priced - self.offset).max(cheapest)
    }
}

struct Search<'a> {
    costs: &'a Costs,
    /// Partitions, the largest first.
    ranked: Vec<usize>,
    /// Bytes of the partitions from each rank on.
    rest: Vec<f64>,
    room: Vec<f64>,
    vehicle_of: Vec<usize>,
    /// Picoseconds of the best plan so far.
    least: u64,
    best: Option<(Vec<usize>, usize)>,
    nodes: u64,
    node_limit: u64,
}

impl<'a> Search<'a> {
    fn new(costs: &'a Costs, node_limit: u64) -> Self {
        let mut ranked: Vec<usize> = (0..costs.capacity.len()).collect();
        ranked.sort_by(|&p, &q| costs.capacity[q].total_cmp(&costs.capacity[p]));
        let mut rest = vec![0.0; ranked.len() + 1];
        for (rank, &p) in ranked.iter().enumerate().rev() {
            rest[rank] = rest[rank + 1] + costs.capacity[p];
        }
        let vehicle_of = vec![0; ranked.len()];
        let room = costs.memory.clone();
        Self { costs, ranked, rest, room, vehicle_of, least: u64::MAX, best: None, nodes: 0, node_limit }
    }

    fn proven(&self) -> bool {
        self.nodes < self.node_limit
    }

    fn run(&mut self, relaxed: &Relaxed) {
        if self.hopeless(relaxed.bound()) {
            return;
        }
        self.place(relaxed, 0, 0, 0.0);
    }

    /// Whether nothing of at least so many seconds can beat the best so far.
    fn hopeless(&self, bound: f64) -> bool {
        bound * (1.0 - ROUNDING) * PICOS >= self.least as f64
    }

    /// Places the partitions from `rank` on, with what those before cost: picoseconds, and priced seconds.
    fn place(&mut self, relaxed: &Relaxed, rank: usize, spent: u64, priced: f64) {
        self.nodes += 1;
        if !self.proven() {
            return;
        }
        let Some(&p) = self.ranked.get(rank) else {
            // Equal plans go to the first that is found: the order of the search is fixed.
            if spent < self.least {
                self.least = spent;
                self.best = Some((self.vehicle_of.clone(), relaxed.last));
            }
            return;
        };
        let Some((cheapest, priced_rest)) = self.bounds(relaxed, rank) else { return };
        let bound = (spent as f64 / PICOS + cheapest).max(priced + priced_rest - relaxed.offset);
        if self.hopeless(bound) || self.rest[rank] * (1.0 - ROUNDING) > self.room.iter().sum() {
            return;
        }
        let size = self.costs.capacity[p];
        let mut vehicles: Vec<usize> = (0..self.room.len()).filter(|&v| size <= self.room[v]).collect();
        vehicles.sort_by(|&u, &v| relaxed.reduced[p][u].total_cmp(&relaxed.reduced[p][v]).then(u.cmp(&v)));
        for (index, &v) in vehicles.iter().enumerate() {
            if vehicles[..index].iter().any(|&u| self.are_twins(u, v, relaxed.last)) {
                continue;
            }
            let picos = (relaxed.cost[p][v] * PICOS).round() as u64;
            self.room[v] -= size;
            self.vehicle_of[p] = v;
            self.place(relaxed, rank + 1, spent.saturating_add(picos), priced + relaxed.reduced[p][v]);
            self.room[v] += size;
        }
    }

    /// Of the partitions from `rank` on, each on its cheapest vehicle with room for it: their seconds, and their priced
    /// seconds; none where one has room nowhere.
    fn bounds(&self, relaxed: &Relaxed, rank: usize) -> Option<(f64, f64)> {
        let mut sums = (0.0, 0.0);
        for &p in &self.ranked[rank..] {
            let (mut cost, mut reduced) = (f64::INFINITY, f64::INFINITY);
            for (v, &room) in self.room.iter().enumerate() {
                if self.costs.capacity[p] <= room {
                    cost = cost.min(relaxed.cost[p][v]);
                    reduced = reduced.min(relaxed.reduced[p][v]);
                }
            }
            if cost.is_infinite() {
                return None;
            }
            sums = (sums.0 + cost, sums.1 + reduced);
        }
        Some(sums)
    }

    /// Whether two vehicles that hold nothing can change places: the second need not be tried after the first.
    fn are_twins(&self, u: usize, v: usize, last: usize) -> bool {
        let costs = self.costs;
        let same = |x: f64, y: f64| x.total_cmp(&y).is_eq();
        let is_empty = |v: usize| same(self.room[v], costs.memory[v]);
        let alike = |table: &[Vec<f64>]| table.iter().all(|of| same(of[u], of[v]));
        u != last
            && v != last
            && same(costs.memory[u], costs.memory[v])
            && is_empty(u)
            && is_empty(v)
            && alike(&costs.compute)
            && alike(&costs.transfer)
    }
}
