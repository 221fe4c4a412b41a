//! The `[search]` section: what is wanted, and what the search may choose.

use std::cell::Cell;

use steptime_plans::{Checkpointing, RankOrder, ScheduleKind, Sharding};

use super::space::Offloaded;
use super::{gpus_of, score_of};
use crate::draft::Draft;
use crate::error::InputError;
use crate::origin::Origin;
use crate::pipeline::SCHEDULES;
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
    /// Most bytes of a GPU that count.
    memory_limit: Option<u64>,
    /// Most money for the work of `[cost]`.
    budget: Option<f64>,
    pub(super) nodes: Option<Vec<u64>>,
    pub(super) tensor: Option<Vec<u64>>,
    pub(super) pipeline: Option<Vec<u64>>,
    pub(super) virtual_pipeline: Option<Vec<u64>>,
    pub(super) zero: Option<Vec<u64>>,
    pub(super) micro: Option<Vec<u64>>,
    pub(super) checkpointing: Option<Vec<Checkpointing>>,
    pub(super) context: Option<Vec<u64>>,
    pub(super) expert: Option<Vec<u64>>,
    /// Places among [`SCHEDULES`].
    pub(super) schedule: Option<Vec<usize>>,
    pub(super) offload: Option<Vec<Offloaded>>,
    pub(super) sequence_parallel: Option<bool>,
    pub(super) uneven: bool,
    /// Whether plans are played, too, that may only take less memory, money or energy than faster ones.
    pub(super) whole_pareto: bool,
    /// Least score among plans that were not played.
    pub(super) unplayed: Cell<f64>,
}

const CHECKPOINTING: [(&str, Checkpointing); 3] =
    [("none", Checkpointing::None), ("selective", Checkpointing::Selective), ("full", Checkpointing::Full)];

/// Keys that say what the search is to find out.
pub(super) const CHOSEN: [(&str, &str); 6] = [
    ("parallelism", "stages"),
    ("parallelism", "layers_in_first_stage"),
    ("parallelism", "layers_in_last_stage"),
    ("parallelism", "count_embedding_as_layer"),
    ("parallelism", "count_head_as_layer"),
    ("workload", "last_micro_batch"),
];

/// A list of words, each for something.
fn words<T: Copy>(
    section: &Section<'_>,
    key: &'static str,
    known: &[(&'static str, T)],
) -> Result<Option<Vec<T>>, InputError> {
    if section.node(key)?.is_none() {
        return Ok(None);
    }
    let texts = section.texts(key)?;
    if texts.is_empty() {
        return Err(section.conflict(key, "is a list of one or more"));
    }
    let of = |(text, origin): (String, Origin)| {
        let found = known.iter().find(|(word, _)| *word == text);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let allowed: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
            wrong(&origin, &format!("search.{key}"), &Value::Text(text), &allowed.join(", "))
        })
    };
    texts.into_iter().map(of).collect::<Result<Vec<_>, _>>().map(Some)
}

/// `memory_limit = "70 GiB"`.
fn read_limit(section: &Section<'_>) -> Result<Option<u64>, InputError> {
    let Some((text, origin)) = section.text("memory_limit")? else { return Ok(None) };
    let bytes = steptime_models::parse_quantity(&text, steptime_models::Dimension::Bytes);
    let refuse =
        |_| wrong(&origin, "search.memory_limit", &Value::Text(text), "an amount such as \"70 GiB\"");
    bytes.map(|bytes| Some(bytes as u64)).map_err(refuse)
}

fn place(kind: ScheduleKind) -> Option<usize> {
    SCHEDULES.iter().position(|(_, other)| *other == kind)
}

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
        let checkpointing = words(&section, "activation_checkpointing", &CHECKPOINTING)?;
        let found = Self {
            objective: section.choice("objective", &objectives)?.unwrap_or(Objective::StepTime),
            memory_limit: read_limit(&section)?,
            budget: section.factor("budget", 0.0, 1e15)?,
            context: list("context")?,
            expert: list("expert")?,
            schedule: words(&section, "schedule", &SCHEDULES)?
                .map(|kinds| kinds.iter().filter_map(|kind| place(*kind)).collect()),
            offload: words(&section, "offload", &Offloaded::WORDS)?,
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
            whole_pareto: section.choice("pareto", &[("played", false), ("whole", true)])?.unwrap_or(false),
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
            ("context", &found.context),
            ("expert", &found.expert),
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
        if self.budget.is_some() && base.cost.as_ref().is_none_or(|cost| cost.work.is_none()) {
            let why = "search.budget is the money for all of the work: it needs [cost] with prices and one of tokens, samples, \
                       steps and epochs";
            return Err(place.conflict(why));
        }
        Ok(self)
    }

    pub(super) fn score(&self, report: &Report) -> f64 {
        if self.meets(report) { score_of(self.objective, report) } else { f64::INFINITY }
    }

    /// Whether a step is short enough, and takes no more memory and money than it may.
    pub(super) fn meets(&self, report: &Report) -> bool {
        let money = report.cost.as_ref().and_then(|cost| cost.to_finish).map(|finish| finish.money);
        self.deadline_s.is_none_or(|most| report.step_time_s.is_some_and(|step| step <= most))
            && self.memory_limit.is_none_or(|most| report.peak_memory.device_bytes <= most)
            && self.budget.is_none_or(|most| money.is_some_and(|money| money <= most))
    }

    /// Bytes that a plan may hold on a GPU that has so many.
    pub(super) fn room(&self, capacity: u64) -> u64 {
        self.memory_limit.map_or(capacity, |limit| limit.min(capacity))
    }

    /// Money and energy of a step that takes at least so long, where there are prices and powers.
    pub(super) fn least_costs(scenario: &Scenario, step: f64, (gpus, nodes): (u64, u64)) -> [f64; 2] {
        let (gpus, nodes) = (gpus as f64, nodes as f64);
        let cost = scenario.cost.as_ref();
        cost.map_or([0.0; 2], |cost| {
            [cost.least_money(gpus, nodes, step), cost.least_energy(gpus, nodes, step)]
        })
    }

    /// The score that a plan has at least, whose step takes at least so long.
    pub(super) fn least(&self, scenario: &Scenario, step: f64, (gpus, nodes): (u64, u64)) -> f64 {
        if self.deadline_s.is_some_and(|most| step > most) {
            return f64::INFINITY;
        }
        let cost = scenario.cost.as_ref();
        let [money, energy] = Self::least_costs(scenario, step, (gpus, nodes));
        // Failures only add to the money; how many tokens a sample has is the play's to say.
        let steps = cost.and_then(|cost| cost.steps(None, scenario.batch.global as f64)).unwrap_or(1.0);
        if self.budget.is_some_and(|most| money * steps > most) {
            return f64::INFINITY;
        }
        match self.objective {
            Objective::StepTime => step,
            Objective::SmallestCluster => gpus as f64,
            Objective::Money => money,
            Objective::Energy => energy,
        }
    }
}
