//! The `[failures]` section: what breaks, how long it is away, and how a job comes back.

use super::checkpoint::{Checkpoint, Times};
use super::life::Life;
use crate::error::InputError;
use crate::section::{Section, wrong};
use crate::tree::{Node, Value};

/// Most hours of anything.
const MOST_HOURS: f64 = 1e9;
/// Longest pauses, seconds.
const LONGEST: f64 = 3.2e7;
/// Seconds in an hour and a day.
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

/// What there is one of a component for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Per {
    Gpu,
    Node,
    Job,
}

/// A kind of part that fails.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Component {
    pub(super) name: String,
    pub(super) per: Per,
    pub(super) life: Life,
    /// Mean time that its node is away for, seconds; zero if a restart is all it takes.
    pub(super) repair_s: f64,
}

impl Component {
    pub(super) fn count(&self, gpus: u64, nodes: u64) -> u64 {
        match self.per {
            Per::Gpu => gpus,
            Per::Node => nodes,
            Per::Job => 1,
        }
    }
}

/// Failures of a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failures {
    pub(super) components: Vec<Component>,
    pub(super) checkpoint: Checkpoint,
    /// From a failure until somebody notices.
    pub(super) detect_s: f64,
    /// From there until the job reads its checkpoint.
    pub(super) restart_s: f64,
    /// Nodes that wait to take another's place.
    pub(super) spare_nodes: u64,
    /// Nodes that can be repaired at a time; none if all can.
    pub(super) repair_crews: Option<u64>,
    /// Work between two stops for maintenance, and a stop's length, seconds.
    pub(super) maintenance: Option<(f64, f64)>,
    /// Length of a run where `[cost]` names no amount of work, seconds.
    pub(super) horizon_s: f64,
    pub(super) repetitions: u64,
    pub(super) seed: u64,
}

impl Failures {
    /// Reads the section.
    pub(crate) fn read(section: Section<'_>) -> Result<Option<Self>, InputError> {
        if !section.is_present() {
            return Ok(None);
        }
        let needed =
            "a list such as [{ name = \"gpu\", per = \"gpu\", mean_hours = 50000, repair_hours = 24 }]";
        let node = section.node("components")?.ok_or_else(|| section.missing("components", needed))?;
        let Value::Array(items) = &node.value else {
            return Err(wrong(&node.origin, "failures.components", &node.value, needed));
        };
        if items.is_empty() {
            return Err(wrong(&node.origin, "failures.components", &node.value, needed));
        }
        let components = items.iter().map(read_component).collect::<Result<_, _>>()?;
        let checkpoint = section.node("checkpoint")?.ok_or_else(|| {
            section.missing("checkpoint", "a table such as { interval = \"daly\", write_seconds = 60 }")
        })?;
        let checkpoint = Checkpoint::read(checkpoint)?;
        let seconds = |key| section.factor(key, 0.0, LONGEST).map(|given| given.unwrap_or(0.0));
        let (detect_s, restart_s) = (seconds("detect_seconds")?, seconds("restart_seconds")?);
        let maintenance = match section.node("maintenance")? {
            None => None,
            Some(node) => Some(read_maintenance(node)?),
        };
        let failures = Self {
            components,
            checkpoint,
            detect_s,
            restart_s,
            spare_nodes: section.number("spare_nodes", 0, 1 << 20)?.unwrap_or(0),
            repair_crews: section.count("repair_crews", 1 << 20)?,
            maintenance,
            horizon_s: section.factor("days", 0.01, 36_500.0)?.unwrap_or(365.0) * DAY,
            repetitions: section.number("repetitions", 2, 100_000)?.unwrap_or(100),
            seed: section.number("seed", 0, u64::MAX >> 1)?.unwrap_or(0),
        };
        section.finish()?;
        Ok(Some(failures))
    }

    /// Mean seconds between failures of the job, had every part an exponential life of its mean.
    pub(super) fn mean_between(&self, gpus: u64, nodes: u64) -> f64 {
        let rate = |component: &Component| component.count(gpus, nodes) as f64 / component.life.mean_s();
        1.0 / self.components.iter().map(rate).sum::<f64>()
    }

    /// Seconds from a failure until work goes on, spare nodes at hand.
    pub(super) fn restart_s(&self, times: &Times) -> f64 {
        self.detect_s + self.restart_s + times.read
    }

    /// Share of the time that maintenance leaves.
    pub(super) fn maintenance_share(&self) -> f64 {
        self.maintenance.map_or(1.0, |(every, stop)| every / (every + stop))
    }
}

fn read_component(node: &Node) -> Result<Component, InputError> {
    let section = Section::inner(node, "failures.components")?;
    let name = section.text("name")?.map(|(text, _)| text);
    let name = name.ok_or_else(|| section.missing("name", "what fails, such as \"gpu\""))?;
    let per = section.choice("per", &[("gpu", Per::Gpu), ("node", Per::Node), ("job", Per::Job)])?;
    let per = per
        .ok_or_else(|| section.missing("per", "\"gpu\", \"node\" or \"job\": what there is one of it for"))?;
    let mean = section.factor("mean_hours", 1e-6, MOST_HOURS)?;
    let mean =
        mean.ok_or_else(|| section.missing("mean_hours", "mean hours between failures of one of them"))?;
    let shape = section.factor("weibull_shape", 0.1, 10.0)?.unwrap_or(1.0);
    let repair = section.factor("repair_hours", 0.0, MOST_HOURS)?.unwrap_or(0.0);
    if repair > 0.0 && per == Per::Job {
        return Err(
            section.conflict("repair_hours", "is the time that a node is away; a part of the job has none")
        );
    }
    section.finish()?;
    Ok(Component { name, per, life: Life::new(mean * HOUR, shape), repair_s: repair * HOUR })
}

fn read_maintenance(node: &Node) -> Result<(f64, f64), InputError> {
    let section = Section::inner(node, "failures.maintenance")?;
    let every = section.factor("every_days", 0.01, 36_500.0)?;
    let every = every.ok_or_else(|| section.missing("every_days", "days of operation between two stops"))?;
    let hours = section.factor("hours", 0.0, MOST_HOURS)?;
    let hours = hours.ok_or_else(|| section.missing("hours", "hours of a stop"))?;
    section.finish()?;
    Ok((every * DAY, hours * HOUR))
}
