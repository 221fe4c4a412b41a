//! Orders of vehicles that respect the dependencies.

use steptime_clusters::VehicleCluster;

use super::GreedyError;

/// The dependencies of a cluster, known to be free of cycles.
pub(super) struct Precedence {
    /// For each vehicle those that must come before it.
    before: Vec<Vec<usize>>,
    /// `ancestors[v][u]`: a chain of dependencies leads from `u` to `v`.
    ancestors: Vec<Vec<bool>>,
    /// For each vehicle those that depend on it.
    after: Vec<Vec<usize>>,
}

impl Precedence {
    /// Reads the dependencies of a cluster.
    pub(super) fn new(cluster: &VehicleCluster) -> Result<Self, GreedyError> {
        let vehicles = cluster.vehicles.len();
        let mut before = vec![Vec::new(); vehicles];
        let mut after = vec![Vec::new(); vehicles];
        for &(source, target) in &cluster.dependencies {
            if let Some(index) = [source, target].into_iter().find(|&v| v >= vehicles) {
                return Err(GreedyError::UnknownVehicle { index, vehicles });
            }
            before[target].push(source);
            after[source].push(target);
        }
        for list in before.iter_mut().chain(&mut after) {
            list.sort_unstable();
            list.dedup();
        }
        let mut ancestors = vec![vec![false; vehicles]; vehicles];
        let mut placed = vec![false; vehicles];
        while let Some(v) = (0..vehicles).find(|&v| !placed[v] && before[v].iter().all(|&u| placed[u])) {
            for &u in &before[v] {
                let inherited = ancestors[u].clone();
                ancestors[v].iter_mut().zip(inherited).for_each(|(mine, theirs)| *mine |= theirs);
                ancestors[v][u] = true;
            }
            placed[v] = true;
        }
        if placed.contains(&false) {
            let names = find_cycle(&before, &placed).into_iter().map(|v| cluster.vehicles[v].id.clone());
            return Err(GreedyError::Cycle { vehicles: names.collect() });
        }
        Ok(Self { before, ancestors, after })
    }

    /// Whether a chain of dependencies leads from `first` to `second`.
    pub(super) fn leads_to(&self, first: usize, second: usize) -> bool {
        self.ancestors[second][first]
    }

    /// Whether no vehicle depends on this one.
    pub(super) fn can_end(&self, vehicle: usize) -> bool {
        self.after[vehicle].is_empty()
    }

    /// Whether two vehicles depend on the same ones and have the same dependents.
    pub(super) fn alike(&self, u: usize, v: usize) -> bool {
        self.before[u] == self.before[v] && self.after[u] == self.after[v]
    }

    /// Writes into `path` the lexicographically first order of all vehicles in which, besides the
    /// dependencies, `tie_before[v]` comes before `v`, and `last` (on which nothing may depend) comes last.
    /// Returns false where these wishes and the dependencies contradict each other.
    pub(super) fn first_path(
        &self,
        tie_before: &[Option<usize>],
        last: Option<usize>,
        placed: &mut [bool],
        path: &mut Vec<usize>,
    ) -> bool {
        let vehicles = self.before.len();
        path.clear();
        placed.fill(false);
        let inner = vehicles - usize::from(last.is_some());
        while path.len() < inner {
            let is_next = |v: usize| {
                !placed[v]
                    && Some(v) != last
                    && tie_before[v].is_none_or(|u| placed[u])
                    && self.before[v].iter().all(|&u| placed[u])
            };
            let Some(v) = (0..vehicles).find(|&v| is_next(v)) else {
                return false;
            };
            placed[v] = true;
            path.push(v);
        }
        path.extend(last);
        true
    }
}

/// A cycle among the vehicles that are not placed, each of which waits for another one of them. In the order
/// of the dependencies, beginning with the least index.
fn find_cycle(before: &[Vec<usize>], placed: &[bool]) -> Vec<usize> {
    let mut walk: Vec<usize> = placed.iter().position(|&is_placed| !is_placed).into_iter().collect();
    while let Some(&v) = walk.last() {
        let Some(&u) = before[v].iter().find(|&&u| !placed[u]) else {
            break;
        };
        if let Some(start) = walk.iter().position(|&seen| seen == u) {
            walk.drain(..start);
            break;
        }
        walk.push(u);
    }
    walk.reverse();
    let least = walk.iter().enumerate().min_by_key(|&(_, &v)| v).map_or(0, |(position, _)| position);
    walk.rotate_left(least);
    walk
}
