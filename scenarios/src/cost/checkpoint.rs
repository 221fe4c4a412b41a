//! Checkpoints: how often, how large, how long.

use steptime_models::{Dimension, parse_quantity};
use steptime_plans::Task;

use super::closed_form::{daly_interval, young_interval};
use crate::error::InputError;
use crate::scenario::{Job, Scenario};
use crate::section::{Section, wrong};
use crate::tree::{Node, Value};

/// Longest interval, write, or read, seconds: a year.
const LONGEST: f64 = 3.2e7;

/// When a checkpoint is due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rule {
    /// After so many seconds of work.
    Every(f64),
    /// [`young_interval`].
    Young,
    /// [`daly_interval`].
    Daly,
    /// The best that long runs find.
    Best,
}

impl Rule {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Every(_) => "fixed",
            Self::Young => "young",
            Self::Daly => "daly",
            Self::Best => "best",
        }
    }
}

/// `checkpoint = { ... }`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    pub(super) rule: Rule,
    write_s: Option<f64>,
    read_s: Option<f64>,
    /// Bytes a second to and from storage.
    bandwidth: Option<f64>,
    asynchronous: bool,
    blocks_s: Option<f64>,
}

/// Times of a checkpoint, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Times {
    /// The job stands still.
    pub(super) blocks: f64,
    /// From its beginning until it can be read.
    pub(super) write: f64,
    /// To read it.
    pub(super) read: f64,
}

impl Checkpoint {
    /// Reads the table; `node` is `failures.checkpoint`.
    pub(super) fn read(node: &Node) -> Result<Self, InputError> {
        let section = Section::inner(node, "failures.checkpoint")?;
        let seconds = |key| section.factor(key, 0.0, LONGEST);
        let (write_s, read_s) = (seconds("write_seconds")?, seconds("read_seconds")?);
        let bandwidth = match section.text("bandwidth")? {
            None => None,
            Some((text, origin)) => match parse_quantity(&text, Dimension::BytesPerSecond) {
                Ok(rate) if rate > 0.0 => Some(rate),
                _ => {
                    let allowed = "a rate such as \"100 GB/s\"";
                    return Err(wrong(&origin, "failures.checkpoint.bandwidth", &Value::Text(text), allowed));
                }
            },
        };
        match (write_s, bandwidth) {
            (None, None) => {
                return Err(section.missing(
                    "write_seconds",
                    "a checkpoint takes write_seconds, or its bytes over a bandwidth",
                ));
            }
            (Some(_), Some(_)) if read_s.is_some() => {
                return Err(section.conflict(
                    "bandwidth",
                    "write_seconds and read_seconds say it already; keep them or this",
                ));
            }
            _ => {}
        }
        let asynchronous = section.flag("asynchronous")?.unwrap_or(false);
        let blocks_s = seconds("blocks_seconds")?;
        if blocks_s.is_some() && !asynchronous {
            let why =
                "is the time that an asynchronous checkpoint holds the job up; needs asynchronous = true";
            return Err(section.conflict("blocks_seconds", why));
        }
        let rule = read_rule(&section)?;
        section.finish()?;
        Ok(Self { rule, write_s, read_s, bandwidth, asynchronous, blocks_s })
    }

    /// Its times in a scenario.
    pub(super) fn costs(&self, scenario: &Scenario) -> Times {
        let moved = self.bandwidth.map_or(0.0, |rate| checkpoint_bytes(scenario) / rate);
        let write_s = self.write_s.unwrap_or(moved);
        let read_s = self.read_s.unwrap_or(if self.bandwidth.is_some() { moved } else { write_s });
        let blocks_s = if self.asynchronous { self.blocks_s.unwrap_or(0.0).min(write_s) } else { write_s };
        Times { blocks: blocks_s, write: write_s, read: read_s }
    }

    /// Seconds of work between checkpoints at a mean time between failures.
    pub(super) fn interval(&self, times: &Times, mean: f64) -> f64 {
        // An asynchronous checkpoint is not begun before the one before it has ended.
        let least = (times.write - times.blocks).max(1.0);
        let found = match self.rule {
            Rule::Every(seconds) => seconds,
            Rule::Young => young_interval(times.blocks, mean),
            Rule::Daly | Rule::Best => daly_interval(times.blocks, mean),
        };
        found.max(least)
    }
}

/// `interval = "daly"`, or seconds.
fn read_rule(section: &Section<'_>) -> Result<Rule, InputError> {
    let key = "failures.checkpoint.interval";
    let allowed = "\"daly\", \"young\", \"best\", or seconds of work";
    let Some(node) = section.node("interval")? else { return Ok(Rule::Daly) };
    let seconds = match &node.value {
        Value::Text(text) => {
            return match text.as_str() {
                "daly" => Ok(Rule::Daly),
                "young" => Ok(Rule::Young),
                "best" => Ok(Rule::Best),
                _ => Err(wrong(&node.origin, key, &node.value, allowed)),
            };
        }
        Value::Integer(value) => *value as f64,
        Value::Float(value) => *value,
        _ => f64::NAN,
    };
    if (1.0..=LONGEST).contains(&seconds) {
        Ok(Rule::Every(seconds))
    } else {
        Err(wrong(&node.origin, key, &node.value, allowed))
    }
}

/// Bytes of a checkpoint: each trained parameter in 32 bits and the optimizer's states; frozen ones are not written.
pub(super) fn checkpoint_bytes(scenario: &Scenario) -> f64 {
    let Job::Gpus { workload, .. } = &scenario.job else { return 0.0 };
    if workload.task != Task::Training {
        return 0.0;
    }
    let each = 4 + 4 * workload.optimizer.moments();
    scenario.model.trainable_parameters() as f64 * each as f64
}
