//! The search of the greedy baseline over all paths, without enumerating them.
//!
//! A placement depends on the path only through the order of vehicles of *equal* compute, and a time depends
//! on the path only through the placement and the vehicle at its end, which pays no transfer. So the search runs
//! over the orders in which the vehicles are filled, as far as they are filled, and for each over the vehicles
//! that can stand last; the first path of a class is built only when the class is as good as the best so far.
//! Vehicles that are the same in everything but their name are filled in one order only. Nine vehicles without
//! dependencies have 362,880 paths, but nine vehicles of different compute have one filling order and nine
//! classes.
//!
//! Times are compared in whole picoseconds, the clock of the simulator, added as integers: sums of floats
//! would make equal paths differ by the order in which they were added.

use std::ops::Range;

use steptime_clusters::VehicleCluster;
use steptime_models::ComponentGraph;

use super::formula::{communication_seconds, compute_seconds};
use super::order::Precedence;
use super::{FormulaParameters, GreedyError, Infeasibility, PathPlan};

/// The depth-first search over filling orders: one order, extended and taken back vehicle by vehicle.
pub(super) struct Search<'a> {
    graph: &'a ComponentGraph,
    cluster: &'a VehicleCluster,
    parameters: &'a FormulaParameters,
    order_limit: u64,
    precedence: Precedence,
    /// Partitions by FLOPs, largest first; a position in this list is a partition's *rank*.
    ranked: Vec<usize>,
    /// Sizes of the partition of each rank.
    sizes: Vec<Sizes>,
    /// Vehicles by compute, fastest first.
    fastest: Vec<usize>,
    /// For each vehicle the number of its group of equal compute.
    group: Vec<usize>,
    /// For each group its positions in `fastest`.
    positions: Vec<Range<usize>>,
    /// For each vehicle one that is the same in all but its index, which is smaller: the two can change places
    /// on any path, and the path with the smaller index first is the one to keep.
    twin: Vec<Option<usize>>,
    /// Vehicles in the order in which they are filled; always the same computes as in `fastest`.
    filled: Vec<usize>,
    is_filled: Vec<bool>,
    /// What each vehicle holds.
    assignment: Vec<Vec<usize>>,
    /// Transfer time of each vehicle, should it not be the last of the path.
    transfer: Vec<u128>,
    /// Per number of vehicles filled: the time of all their compute and transfers.
    total: Vec<u128>,
    /// Per number of vehicles filled: ranks of the partitions for which they had no room.
    leftover: Vec<Vec<usize>>,
    orders: u64,
    best: Option<Candidate>,
    furthest: Option<Furthest>,
    scratch: Scratch,
}

/// What a partition costs.
#[derive(Clone, Copy)]
struct Sizes {
    flops: f64,
    capacity: f64,
    volume: f64,
}

/// The best plan so far.
struct Candidate {
    picoseconds: u128,
    path: Vec<usize>,
    assignment: Vec<Vec<usize>>,
}

/// The failed path that placed the most so far.
struct Furthest {
    placed: usize,
    path: Vec<usize>,
    assignment: Vec<Vec<usize>>,
}

/// Memory reused from order to order.
struct Scratch {
    tie_before: Vec<Option<usize>>,
    placed: Vec<bool>,
    path: Vec<usize>,
}

impl Scratch {
    /// See [`Precedence::first_path`].
    fn find_path(&mut self, precedence: &Precedence, last: Option<usize>) -> bool {
        precedence.first_path(&self.tie_before, last, &mut self.placed, &mut self.path)
    }
}

impl<'a> Search<'a> {
    /// Prepares the search; nothing is filled yet.
    pub(super) fn new(
        graph: &'a ComponentGraph,
        cluster: &'a VehicleCluster,
        parameters: &'a FormulaParameters,
        order_limit: u64,
    ) -> Result<Self, GreedyError> {
        let vehicles = cluster.vehicles.len();
        if vehicles == 0 {
            return Err(GreedyError::NoVehicles);
        }
        let precedence = Precedence::new(cluster)?;
        let mut ranked: Vec<usize> = (0..graph.partitions.len()).collect();
        ranked.sort_by(|&p, &q| graph.partition_flops(q).total_cmp(&graph.partition_flops(p)));
        let sizes = |&p: &usize| Sizes {
            flops: graph.partition_flops(p),
            capacity: graph.partition_capacity(p),
            volume: graph.partitions[p].communication_volume,
        };
        let sizes = ranked.iter().map(sizes).collect();
        let compute = |v: usize| cluster.vehicles[v].compute;
        let mut fastest: Vec<usize> = (0..vehicles).collect();
        fastest.sort_by(|&u, &v| compute(v).total_cmp(&compute(u)));
        let mut group = vec![0; vehicles];
        let mut positions: Vec<Range<usize>> = Vec::new();
        for same in fastest.chunk_by(|&u, &v| compute(u).total_cmp(&compute(v)).is_eq()) {
            let start = positions.last().map_or(0, |group| group.end);
            for &v in same {
                group[v] = positions.len();
            }
            positions.push(start..start + same.len());
        }
        let twin = (0..vehicles).map(|v| find_twin(cluster, &precedence, v)).collect();
        let mut leftover = vec![Vec::with_capacity(ranked.len()); vehicles + 1];
        leftover[0].extend(0..ranked.len());
        Ok(Self {
            graph,
            cluster,
            parameters,
            order_limit,
            precedence,
            ranked,
            sizes,
            fastest,
            group,
            positions,
            twin,
            filled: Vec::with_capacity(vehicles),
            is_filled: vec![false; vehicles],
            assignment: vec![Vec::new(); vehicles],
            transfer: vec![0; vehicles],
            total: vec![0; vehicles + 1],
            leftover,
            orders: 0,
            best: None,
            furthest: None,
            scratch: Scratch {
                tie_before: vec![None; vehicles],
                placed: vec![false; vehicles],
                path: Vec::with_capacity(vehicles),
            },
        })
    }

    /// Tries every filling order.
    pub(super) fn run(&mut self) -> Result<(), GreedyError> {
        self.fill_from(0)
    }

    /// The plan of least time, if one was found.
    pub(super) fn best_plan(&self) -> Option<PathPlan> {
        let best = self.best.as_ref()?;
        Some(PathPlan { order: best.path.clone(), assignment: best.assignment.clone() })
    }

    /// Tries every way to go on once `depth` vehicles are filled.
    fn fill_from(&mut self, depth: usize) -> Result<(), GreedyError> {
        let everything_placed = self.leftover[depth].is_empty();
        if everything_placed || depth == self.fastest.len() {
            self.orders += 1;
            if self.orders > self.order_limit {
                return Err(GreedyError::TooManyOrders { limit: self.order_limit });
            }
            if everything_placed {
                self.judge_times();
            } else {
                self.judge_distance();
            }
            return Ok(());
        }
        let group = self.positions[self.group[self.fastest[depth]]].clone();
        for position in group.clone() {
            let vehicle = self.fastest[position];
            if self.is_filled[vehicle] || self.must_wait(vehicle, group.clone()) {
                continue;
            }
            self.fill(depth, vehicle);
            self.fill_from(depth + 1)?;
            self.take_back(vehicle);
        }
        Ok(())
    }

    /// Whether an unfilled vehicle of the same group comes before this one: by the dependencies, or because
    /// the two are the same.
    fn must_wait(&self, vehicle: usize, group: Range<usize>) -> bool {
        let leads_here = |&u: &usize| !self.is_filled[u] && self.precedence.leads_to(u, vehicle);
        self.twin[vehicle].is_some_and(|twin| !self.is_filled[twin])
            || self.fastest[group].iter().any(leads_here)
    }

    /// Gives the next vehicle all that is left over and fits. Doing so vehicle by vehicle gives the same
    /// placement as looking for the first vehicle partition by partition.
    fn fill(&mut self, depth: usize, vehicle: usize) {
        let (done, open) = self.leftover.split_at_mut(depth + 1);
        let (left, still_left) = (&done[depth], &mut open[0]);
        let held = &mut self.assignment[vehicle];
        let host = &self.cluster.vehicles[vehicle];
        still_left.clear();
        let mut used = Sizes { flops: 0.0, capacity: 0.0, volume: 0.0 };
        for &rank in left {
            let Sizes { flops, capacity, volume } = self.sizes[rank];
            if used.capacity + capacity <= host.memory {
                used.flops += flops;
                used.capacity += capacity;
                used.volume += volume;
                held.push(self.ranked[rank]);
            } else {
                still_left.push(rank);
            }
        }
        let compute = picoseconds(compute_seconds(used.flops, host, self.parameters));
        let transfer = picoseconds(communication_seconds(used.volume, host, self.parameters));
        self.transfer[vehicle] = transfer;
        self.total[depth + 1] = self.total[depth].saturating_add(compute).saturating_add(transfer);
        self.filled.push(vehicle);
        self.is_filled[vehicle] = true;
    }

    fn take_back(&mut self, vehicle: usize) {
        self.filled.pop();
        self.is_filled[vehicle] = false;
        self.assignment[vehicle].clear();
        self.transfer[vehicle] = 0;
    }

    /// Notes which equal vehicle must come before each vehicle for the path to give this filling order.
    fn note_ties(&mut self) {
        let tie_before = &mut self.scratch.tie_before;
        tie_before.fill(None);
        for pair in self.filled.windows(2) {
            if self.group[pair[0]] == self.group[pair[1]] {
                tie_before[pair[1]] = Some(pair[0]);
            }
        }
        let Some(&latest) = self.filled.last() else {
            return;
        };
        for (v, before) in tie_before.iter_mut().enumerate() {
            if !self.is_filled[v] && self.group[v] == self.group[latest] {
                *before = Some(latest);
            }
        }
    }

    /// Compares the paths of this filling order, in classes by the vehicle at the end, with the best so far.
    fn judge_times(&mut self) {
        for position in 0..self.filled.len() {
            // Another one of its group is filled later, hence comes later on the path.
            let next = self.fastest.get(position + 1);
            if next.is_none_or(|&next| self.group[next] != self.group[self.fastest[position]]) {
                self.judge_end(self.filled[position]);
            }
        }
        if self.filled.len() < self.fastest.len() {
            for v in 0..self.fastest.len() {
                if !self.is_filled[v] {
                    self.judge_end(v);
                }
            }
        }
    }

    /// Compares the paths of this filling order that end with `last` with the best so far.
    fn judge_end(&mut self, last: usize) {
        let time = self.total[self.filled.len()].saturating_sub(self.transfer[last]);
        if !self.precedence.can_end(last) || self.best.as_ref().is_some_and(|best| best.picoseconds < time) {
            return;
        }
        self.note_ties();
        if !self.scratch.find_path(&self.precedence, Some(last)) {
            return;
        }
        let path = &self.scratch.path;
        if self.best.as_ref().is_none_or(|best| (time, path) < (best.picoseconds, &best.path)) {
            let (path, assignment) = (path.clone(), self.assignment.clone());
            self.best = Some(Candidate { picoseconds: time, path, assignment });
        }
    }

    /// Compares how many partitions this filling order placed with the most so far.
    fn judge_distance(&mut self) {
        let placed = self.leftover[self.fastest.len()][0];
        if self.best.is_some() || self.furthest.as_ref().is_some_and(|furthest| furthest.placed > placed) {
            return;
        }
        self.note_ties();
        if !self.scratch.find_path(&self.precedence, None) {
            return;
        }
        let path = &self.scratch.path;
        let is_better = |old: &Furthest| placed > old.placed || *path < old.path;
        if self.furthest.as_ref().is_none_or(is_better) {
            let (path, assignment) = (path.clone(), self.assignment.clone());
            self.furthest = Some(Furthest { placed, path, assignment });
        }
    }

    /// The failure that got furthest, as of the moment when its first partition found no room.
    pub(super) fn explain_failure(&self) -> Option<Infeasibility> {
        let furthest = self.furthest.as_ref()?;
        let before: &[usize] = &self.ranked[..furthest.placed];
        let room = |v: usize| {
            let used = (furthest.assignment[v].iter().filter(|p| before.contains(p)))
                .fold(0.0, |sum, &p| sum + self.graph.partition_capacity(p));
            self.cluster.vehicles[v].memory - used
        };
        let (mut roomiest, mut available_bytes) = (0, room(0));
        for v in 1..self.cluster.vehicles.len() {
            if room(v) > available_bytes {
                (roomiest, available_bytes) = (v, room(v));
            }
        }
        let partition = self.graph.partitions[self.ranked[furthest.placed]].name.clone();
        let required_bytes = self.sizes[furthest.placed].capacity;
        let vehicle = self.cluster.vehicles[roomiest].id.clone();
        let short_by_bytes = required_bytes - available_bytes;
        let path: Vec<String> = furthest.path.iter().map(|&v| self.cluster.vehicles[v].id.clone()).collect();
        let (placed, partitions) = (furthest.placed, self.ranked.len());
        let reason = format!(
            "{partition} needs {required_bytes} bytes, but {vehicle}, the vehicle with the most room left, has \
             {available_bytes}: {short_by_bytes} bytes short, with {placed} of {partitions} partitions placed \
             on the path {}",
            path.join(" > ")
        );
        Some(Infeasibility {
            partition,
            required_bytes,
            vehicle,
            available_bytes,
            short_by_bytes,
            placed,
            path,
            reason,
        })
    }
}

/// The nearest vehicle of smaller index with the same capabilities and dependencies.
fn find_twin(cluster: &VehicleCluster, precedence: &Precedence, v: usize) -> Option<usize> {
    let capabilities = |v: usize| {
        let vehicle = &cluster.vehicles[v];
        [vehicle.compute, vehicle.memory, vehicle.communication].map(f64::to_bits)
    };
    (0..v).rev().find(|&u| capabilities(u) == capabilities(v) && precedence.alike(u, v))
}

/// Seconds as whole picoseconds, rounded to the nearest; beyond the range of the type its largest value.
fn picoseconds(seconds: f64) -> u128 {
    (seconds * 1e12 + 0.5) as u128
}
