//! How far jobs on a network that others share lie apart.

use steptime_clusters::Network;

use super::Interval;
use crate::estimate::in_part_times;
use crate::report::Report;
use crate::scenario::{Job, Scenario};

/// What a step takes over the network of the fastest and of the slowest jobs of its size, of what it is predicted to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Jobs {
    pub(crate) fastest: f64,
    pub(crate) slowest: f64,
    nodes: u32,
}

impl Jobs {
    /// Plays the step over both where messages between nodes differ, which changes what hides behind what. Where clusters
    /// reach other shares of their line rate, what the step waits for transfers takes longer or shorter by their ratio: an
    /// estimate, for transfers within nodes do not, and hidden ones may come to light. `None` within a node and where no
    /// spread was measured.
    pub(crate) fn of(scenario: &Scenario, report: &Report) -> Option<Self> {
        let Job::Gpus { cluster, plan, .. } = &scenario.job else { return None };
        let step_s = report.step_time_s.filter(|step| *step > 0.0)?;
        let nodes = plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1));
        let nodes = u32::try_from(nodes).ok()?;
        let network = cluster.network.as_ref()?;
        let (fastest, slowest) = network.extremes(nodes)?;
        if network.messages(nodes).is_none() {
            let exposed = report.time_breakdown_s.exposed_communication / step_s;
            let factor = |other: &Network| 1.0 + exposed * (network.share / other.share - 1.0);
            let (fastest, slowest) = (factor(&fastest).min(1.0), factor(&slowest).max(1.0));
            return Some(Self { fastest, slowest, nodes });
        }
        let factor = |network: Network| {
            let report = in_part_times(&over(scenario, network)).ok()?;
            Some(report.step_time_s? / step_s)
        };
        Some(Self { fastest: factor(fastest)?.min(1.0), slowest: factor(slowest)?.max(1.0), nodes })
    }

    #[cfg(test)]
    pub(super) fn between(fastest: f64, slowest: f64) -> Self {
        Self { fastest, slowest, nodes: 8 }
    }

    /// Whether a step that took so many times its predicted time lies among those that other jobs' networks make of it.
    pub(super) fn hold(self, ratio: f64) -> bool {
        (self.fastest..=self.slowest).contains(&ratio)
    }
}

/// The scenario over another network.
fn over(scenario: &Scenario, network: Network) -> Scenario {
    let mut other = scenario.clone();
    if let Job::Gpus { cluster, .. } = &mut other.job {
        cluster.network = Some(network);
    }
    other
}

impl Interval {
    /// Wide enough for four jobs in five on a shared network. Runs of a group differ by their networks, too, so that the
    /// wider of both ends holds, not their sum.
    pub(super) fn among(self, jobs: Option<Jobs>) -> Self {
        let Some(jobs) = jobs.filter(|jobs| jobs.fastest < self.low || jobs.slowest > self.high) else {
            return self;
        };
        let widened = format!(
            "{}; widened to {:.2} to {:.2} times: the network of the fastest and of the slowest jobs on {} nodes",
            self.widened,
            jobs.fastest.min(self.low),
            jobs.slowest.max(self.high),
            jobs.nodes
        );
        Self { low: self.low.min(jobs.fastest), high: self.high.max(jobs.slowest), widened, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(low: f64, high: f64) -> Interval {
        Interval { low, high, group: "any step".to_owned(), runs: 10, widened: String::new() }
    }

    #[test]
    fn the_wider_end_holds() {
        let jobs = Some(Jobs::between(0.7, 1.5));
        let wide = group(0.9, 1.2).among(jobs);
        assert_eq!(wide, Interval { widened: wide.widened.clone(), ..group(0.7, 1.5) });
        assert!(wide.widened.contains("0.70 to 1.50 times") && wide.widened.contains("8 nodes"));
        let one_end = group(0.6, 1.2).among(jobs);
        assert_eq!(one_end, Interval { widened: one_end.widened.clone(), ..group(0.6, 1.5) });
        for same in [group(0.6, 1.6).among(jobs), group(0.6, 1.6).among(None)] {
            assert_eq!(same, group(0.6, 1.6));
        }
    }
}
