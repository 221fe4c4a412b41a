//! The `[search]` section: what is wanted, and what the search may choose.

use std::cell::Cell;

use steptime_plans::{Checkpointing, RankOrder, Sharding};

use super::{gpus_of, score_of};
use crate::draft::Draft;
use crate::error::InputError;
use crate::report::Report;
use crate::scenario::Scenario;
use crate::section::{Section, wrong};
use crate::tree::Value;

/// What is minimized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objective {
    StepTime,
    Money,
    Energy,
    SmallestCluster,
}

impl Objective {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::StepTime => "step_time",
            Self::Money => "money",
            Self::Energy => "energy",
            Self::SmallestCluster => "smallest_cluster",
        }
    }
}

/// What a scenario asks of the search. A list that is not given is what sizes and divisors allow.
#[derive(Clone, Debug)]
pub(super) struct SearchSection {
    pub(super) objective: Objective,
    /// Longest step that counts, seconds.
    deadline_s: Option<f64>,
    pub(super) nodes: Option<Vec<u64>>,
    pub(super) tensor: Option<Vec<u64>>,
    pub(super) pipeline: Option<Vec<u64>>,
    pub(super) virtual_pipeline: Option<Vec<u64>>,
    pub(super) zero: Option<Vec<u64>>,
    pub(super) micro: Option<Vec<u64>>,
    pub(super) checkpointing: Option<Vec<Checkpointing>>,
    pub(super) sequence_parallel: Option<bool>,
    pub(super) uneven: bool,
    /// Least score among plans that were not played.
    pub(super) unplayed: Cell<f64>,
}

const CHECKPOINTING: [(&str, Checkpointing); 3] =
    [("none", Checkpointing::None), ("selective", Checkpointing::Selective), ("full", Checkpointing::Full)];

/// Keys that say what the search is to find out.
const CHOSEN: [(&str, &str); 6] = [
    ("parallelism", "stages"),
    ("parallelism", "layers_in_first_stage"),
    ("parallelism", "layers_in_last_stage"),
    ("parallelism", "count_embedding_as_layer"),
    ("parallelism", "count_head_as_layer"),
    ("workload", "last_micro_batch"),
];

impl SearchSection {
    /// The document without its `[search]`, and that.
    pub(super) fn take(draft: &Draft) -> Result<(Draft, Self), InputError> {
        let section = Section::of(draft.root(), "search", &[])?;
        let objectives = [
            ("step_time", Objective::StepTime),
            ("money", Objective::Money),
            ("energy", Objective::Energy),
            ("smallest_cluster", Objective::SmallestCluster),
        ];
        let list = |key| section.counts(key);
        let checkpointing = match section.node("activation_checkpointing")? {
            None => None,
            Some(_) => Some(
                section
                    .texts("activation_checkpointing")?
                    .into_iter()
                    .map(|(text, origin)| {
                        let known = CHECKPOINTING.iter().find(|(word, _)| *word == text);
                        known.map(|(_, kind)| *kind).ok_or_else(|| {
                            let allowed = "none, selective, full";
                            wrong(&origin, "search.activation_checkpointing", &Value::Text(text), allowed)
                        })
                    })
                    .collect::<Result<Vec<_>, _>>()?,
            ),
        };
        let found = Self {
            objective: section.choice("objective", &objectives)?.unwrap_or(Objective::StepTime),
            deadline_s: section.factor("deadline_seconds", 1e-6, 1e9)?,
            nodes: list("nodes")?,
            tensor: list("tensor")?,
            pipeline: list("pipeline")?,
            virtual_pipeline: list("virtual_pipeline")?,
            zero: list("zero_stage")?,
            micro: list("micro_batch_size")?,
            checkpointing,
            sequence_parallel: section.flag("sequence_parallel")?,
            uneven: section.flag("uneven_stages")?.unwrap_or(true),
            unplayed: Cell::new(f64::INFINITY),
        };
        if found.objective == Objective::SmallestCluster
            && (found.deadline_s.is_none() || found.nodes.is_none())
        {
            let why = "\"smallest_cluster\" needs deadline_seconds, the longest step that counts, and nodes to choose from";
            return Err(section.conflict("objective", why));
        }
        for (key, list) in [
            ("nodes", &found.nodes),
            ("tensor", &found.tensor),
            ("pipeline", &found.pipeline),
            ("virtual_pipeline", &found.virtual_pipeline),
            ("micro_batch_size", &found.micro),
        ] {
            if list.as_ref().is_some_and(|list| list.is_empty() || list.contains(&0)) {
                return Err(section.conflict(key, "is a list of whole numbers from 1"));
            }
        }
        if found.zero.as_ref().is_some_and(|list| list.is_empty() || list.iter().any(|&stage| stage > 3)) {
            return Err(section.conflict("zero_stage", "is a list of whole numbers from 0 to 3"));
        }
        section.finish()?;
        for (name, key) in CHOSEN {
            let section = Section::of(draft.root(), name, &[])?;
            if section.node(key)?.is_some() {
                return Err(section.conflict(key, "is for the search to choose; leave this key out"));
            }
        }
        Ok((draft.clone().take("search").0, found))
    }

    /// The same where it can be met by the scenario.
    pub(super) fn checked(self, base: &Scenario) -> Result<Self, InputError> {
        let place = &base.places.parallelism;
        let Some((cluster, plan, _)) = gpus_of(base) else {
            return Err(base.places.cluster.conflict(
                "vehicles have one plan for the search to find, their placement: `steptime check` compares it with the optimum",
            ));
        };
        let usual =
            plan.sharding == Sharding::default() && plan.rank_order == RankOrder::default() && !plan.explicit;
        let alike = !cluster.is_mixed() && cluster.topology.is_none() && !plan.has_uneven_batches();
        let others = plan.written.is_some() || base.input.is_some() || base.variability.is_some();
        if others || !base.jobs.is_empty() || !usual || !alike {
            return Err(place.conflict(
                "the search plays neither written schedules, [input], [variability], [jobs], topologies, mixed GPUs, uneven \
                 micro-batches, groups of sharding, other orders of ranks, nor every rank; leave them out",
            ));
        }
        let priced = base.cost.is_some();
        if matches!(self.objective, Objective::Money | Objective::Energy) && !priced {
            let why = format!("objective \"{}\" needs [cost] with prices or powers", self.objective.word());
            return Err(place.conflict(why));
        }
        Ok(self)
    }

    pub(super) fn score(&self, report: &Report) -> f64 {
        if self.meets(report) { score_of(self.objective, report) } else { f64::INFINITY }
    }

    /// Whether a step is short enough.
    pub(super) fn meets(&self, report: &Report) -> bool {
        self.deadline_s.is_none_or(|most| report.step_time_s.is_some_and(|step| step <= most))
    }

    /// The score that a plan has at least, whose step takes at least so long.
    pub(super) fn least(&self, scenario: &Scenario, step: f64, (gpus, nodes): (u64, u64)) -> f64 {
        if self.deadline_s.is_some_and(|most| step > most) {
            return f64::INFINITY;
        }
        let cost = scenario.cost.as_ref();
        match self.objective {
            Objective::StepTime => step,
            Objective::SmallestCluster => gpus as f64,
            Objective::Money => cost.map_or(0.0, |cost| cost.least_money(gpus as f64, nodes as f64, step)),
            Objective::Energy => cost.map_or(0.0, |cost| cost.least_energy(gpus as f64, nodes as f64, step)),
        }
    }
}
