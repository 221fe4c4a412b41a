//! How far jobs on a network that others share lie apart.

use steptime_clusters::Cluster;

use super::Interval;
use crate::estimate::in_part_times;
use crate::scenario::{Job, Scenario};

/// What a step takes where messages between nodes cost what they do in the fastest and in the slowest tenth of the jobs
/// of its size, of what it is predicted to take.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Jobs {
    pub(crate) fastest: f64,
    pub(crate) slowest: f64,
    nodes: u32,
}

impl Jobs {
    /// Plays the step over both. `None` within a node and where no spread was measured.
    pub(crate) fn of(scenario: &Scenario, step_s: Option<f64>) -> Option<Self> {
        let Job::Gpus { cluster, plan, .. } = &scenario.job else { return None };
        let step_s = step_s.filter(|step| *step > 0.0)?;
        let nodes = plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1));
        let nodes = u32::try_from(nodes).ok()?;
        let (fastest_s, slowest_s) = cluster.network.as_ref()?.messages(nodes)?;
        let factor = |message_s: f64| {
            let report = in_part_times(&with_messages(scenario, message_s)).ok()?;
            Some(report.step_time_s? / step_s)
        };
        Some(Self { fastest: factor(fastest_s)?.min(1.0), slowest: factor(slowest_s)?.max(1.0), nodes })
    }
}

/// The scenario on the same network, where a message costs so much.
fn with_messages(scenario: &Scenario, message_s: f64) -> Scenario {
    let mut other = scenario.clone();
    if let Job::Gpus { cluster, .. } = &mut other.job {
        let Cluster { network: Some(network), .. } = cluster.as_mut() else { return other };
        network.message_s = message_s;
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
            "{}; widened to {:.2} to {:.2} times: the network of the fastest and of the slowest tenth of jobs on {} nodes",
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
        let jobs = Some(Jobs { fastest: 0.7, slowest: 1.5, nodes: 8 });
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
