//! The plans that a search looks at.

use steptime_clusters::Cluster;
use steptime_models::{AttentionKind, LayerRole};
use steptime_plans::{
    Checkpointing, MOST_MICRO_BATCHES, Offload, Plan, ScheduleKind, Store, Task, Workload, ZeroStage,
};

use super::gpus_of;
use super::section::SearchSection;
use crate::batch::Batch;
use crate::error::InputError;
use crate::pipeline::SCHEDULES;
use crate::scenario::{Job, Scenario};

/// A plan by its sizes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    pub(super) nodes: u64,
    pub(super) gpus_per_node: u64,
    pub(super) data: u64,
    pub(super) tensor: u64,
    pub(super) sequence_parallel: bool,
    pub(super) pipeline: u64,
    pub(super) virtual_pipeline: u64,
    pub(super) zero: u64,
    pub(super) micro: u64,
    pub(super) steps: u64,
    pub(super) global: u64,
    /// 0 none, 1 selective, 2 full.
    pub(super) checkpointing: u8,
    /// Ranks that share each sequence; as the scenario has it where absent, and so the following ones.
    pub(super) context: Option<u64>,
    /// Ranks over which experts are spread.
    pub(super) expert: Option<u64>,
    /// Place of the schedule among [`SCHEDULES`].
    pub(super) schedule: Option<usize>,
    /// What is kept on the hosts.
    pub(super) offload: Option<Offloaded>,
    /// Blocks of each virtual stage, where they are not even.
    pub(super) stages: Option<Vec<u64>>,
}

impl Candidate {
    pub(super) fn checkpoints(&self) -> Checkpointing {
        match self.checkpointing {
            0 => Checkpointing::None,
            1 => Checkpointing::Selective,
            _ => Checkpointing::Full,
        }
    }

    /// The schedule.
    fn kind(&self, plan: &Plan) -> ScheduleKind {
        let chosen = self.schedule.and_then(|index| SCHEDULES.get(index));
        chosen.map_or(plan.schedule, |(_, kind)| *kind)
    }

    /// Keys that make a scenario this plan.
    pub(super) fn set(&self) -> Vec<String> {
        let word = ["none", "selective", "full"][usize::from(self.checkpointing.min(2))];
        let mut set = vec![
            format!("cluster.nodes={}", self.nodes),
            format!("parallelism.data={}", self.data),
            format!("parallelism.tensor={}", self.tensor),
            format!("parallelism.sequence_parallel={}", self.sequence_parallel),
            format!("parallelism.pipeline={}", self.pipeline),
            format!("parallelism.virtual_pipeline={}", self.virtual_pipeline),
            format!("parallelism.zero_stage={}", self.zero),
            format!("workload.micro_batch_size={}", self.micro),
            format!("workload.gradient_accumulation_steps={}", self.steps),
            format!("workload.global_batch_size={}", self.global),
            format!("workload.activation_checkpointing={word}"),
        ];
        for (key, size) in [("context", self.context), ("expert", self.expert)] {
            set.extend(size.map(|size| format!("parallelism.{key}={size}")));
        }
        let schedule = self.schedule.and_then(|index| SCHEDULES.get(index));
        set.extend(schedule.map(|(name, _)| format!("parallelism.schedule={name}")));
        set.extend(self.offload.map(|offload| format!("parallelism.offload={}", offload.toml())));
        if let Some(stages) = &self.stages {
            let list: Vec<String> = stages.iter().map(u64::to_string).collect();
            set.push(format!("parallelism.stages=[{}]", list.join(",")));
        }
        set
    }

    /// The cluster, plan and workload of a base with these sizes.
    pub(super) fn apply(&self, base: &Scenario) -> Result<(Cluster, Plan, Workload), InputError> {
        let (plan, workload) = self.sized(base)?;
        Ok((self.cluster(base)?, plan, workload))
    }

    /// The base's cluster with as many nodes.
    pub(super) fn cluster(&self, base: &Scenario) -> Result<Cluster, InputError> {
        let (cluster, ..) = parts(base)?;
        if u64::from(cluster.nodes) == self.nodes {
            return Ok(cluster.clone());
        }
        let sized = cluster.with_size(self.nodes as u32, self.gpus_per_node as u32);
        sized.map_err(|error| base.places.cluster.conflict(error.to_string()))
    }

    /// The plan and workload of a base with these sizes.
    pub(super) fn sized(&self, base: &Scenario) -> Result<(Plan, Workload), InputError> {
        let (_, plan, workload) = parts(base)?;
        let plan = Plan {
            data: self.data,
            tensor: self.tensor,
            sequence_parallel: self.sequence_parallel,
            pipeline: self.pipeline,
            virtual_pipeline: self.virtual_pipeline,
            stages: self.stages.clone(),
            zero: ZeroStage::from_number(self.zero).unwrap_or(ZeroStage::Zero),
            context: self.context.unwrap_or(plan.context),
            expert: self.expert.unwrap_or(plan.expert),
            schedule: self.kind(plan),
            offload: self.offload.map_or(plan.offload, Offloaded::offload),
            ..plan.clone()
        };
        let workload = Workload {
            micro_batch_size: self.micro,
            accumulation: self.steps,
            last_micro_batch_size: None,
            checkpointing: self.checkpoints(),
            ..workload.clone()
        };
        Ok((plan, workload))
    }

    /// The scenario with these sizes, not read again: for many plays.
    pub(super) fn scenario(&self, base: &Scenario) -> Result<Scenario, InputError> {
        let (cluster, plan, workload) = self.apply(base)?;
        let mut scenario = base.clone();
        scenario.job = Job::Gpus { cluster: Box::new(cluster), plan: Box::new(plan), workload };
        let (micro, accumulation, data, global) = (self.micro, self.steps, self.data, self.global);
        scenario.batch = Batch { micro, accumulation, data, global, last: None };
        Ok(scenario)
    }
}

fn parts(base: &Scenario) -> Result<(&Cluster, &Plan, &Workload), InputError> {
    gpus_of(base).ok_or_else(|| base.places.cluster.conflict("vehicles are not searched"))
}

/// What a plan keeps in the memory of the hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Offloaded {
    /// Nothing.
    Nothing,
    /// Optimizer states, which the host updates.
    Optimizer,
    /// These and the partitioned parameters of ZeRO 3.
    Parameters,
}

impl Offloaded {
    /// Names in `[search]`.
    pub(super) const WORDS: [(&'static str, Self); 3] =
        [("none", Self::Nothing), ("optimizer", Self::Optimizer), ("parameters", Self::Parameters)];

    fn offload(self) -> Offload {
        let store = |least| if self >= least { Store::Host } else { Store::Device };
        let (optimizer, parameters) = (store(Self::Optimizer), store(Self::Parameters));
        Offload { optimizer, parameters, ..Offload::default() }
    }

    fn toml(self) -> String {
        let word = |least| if self >= least { "cpu" } else { "none" };
        let (optimizer, parameters) = (word(Self::Optimizer), word(Self::Parameters));
        format!("{{optimizer=\"{optimizer}\",parameters=\"{parameters}\"}}")
    }

    /// Whether it acts under a ZeRO stage: hosts update what is partitioned, and hold parameters of ZeRO 3.
    fn goes_with(self, zero: u64) -> bool {
        match self {
            Self::Nothing => true,
            Self::Optimizer => zero >= 1,
            Self::Parameters => zero == 3,
        }
    }
}

/// All numbers that divide another.
fn divisors(number: u64) -> Vec<u64> {
    (1..=number).filter(|divisor| number.is_multiple_of(*divisor)).collect()
}

/// Most micro-batch sizes and plans that are looked at without being asked for.
const MOST_MICRO: u64 = 64;

/// Every plan that sizes and divisors allow, in a fixed order.
pub(super) fn candidates(base: &Scenario, section: &SearchSection) -> Result<Vec<Candidate>, InputError> {
    let (cluster, plan, workload) = parts(base)?;
    let per_node = u64::from(cluster.gpus_per_node);
    let mut all = Vec::new();
    let own_nodes = vec![u64::from(cluster.nodes)];
    for &nodes in section.nodes.as_ref().unwrap_or(&own_nodes) {
        let gpus = nodes * per_node;
        for (context, tensor) in contexts(base, section, gpus) {
            let room = gpus / context.unwrap_or(plan.context).max(1);
            let asked = section.tensor.as_ref().map(|list| list.contains(&tensor));
            // Beyond a node tensor parallelism is looked at only where it is asked for.
            if !asked.unwrap_or(tensor <= per_node)
                || !room.is_multiple_of(tensor)
                || base.model.tensor_parallel_fault(tensor).is_some()
            {
                continue;
            }
            for pipeline in divisors(room / tensor) {
                if section.pipeline.as_ref().is_some_and(|list| !list.contains(&pipeline)) {
                    continue;
                }
                let data = room / tensor / pipeline;
                let machine = Machine { nodes, per_node, data, tensor, pipeline, context };
                machine.batches(base, (plan, workload), section, &mut all);
            }
        }
    }
    Ok(all)
}

/// Context- and tensor-parallel sizes to look at.
fn contexts(base: &Scenario, section: &SearchSection, gpus: u64) -> Vec<(Option<u64>, u64)> {
    let possible = |size: &u64| {
        *size == 1 || gpus.is_multiple_of(*size) && base.model.context_parallel_fault().is_none()
    };
    let sizes: Vec<Option<u64>> = match &section.context {
        None => vec![None],
        Some(list) => list.iter().copied().filter(possible).map(Some).collect(),
    };
    sizes
        .iter()
        .flat_map(|&context| divisors(gpus).into_iter().map(move |tensor| (context, tensor)))
        .collect()
}

/// How the GPUs are shared out.
#[derive(Clone, Copy)]
struct Machine {
    nodes: u64,
    per_node: u64,
    data: u64,
    tensor: u64,
    pipeline: u64,
    context: Option<u64>,
}

impl Machine {
    /// The plans of one way to share the GPUs out.
    fn batches(
        self,
        base: &Scenario,
        (plan, workload): (&Plan, &Workload),
        section: &SearchSection,
        all: &mut Vec<Candidate>,
    ) {
        let blocks = base.model.layers.iter().filter(|layer| layer.role == LayerRole::Block).count() as u64;
        let global = base.batch.global;
        if self.pipeline > blocks || !global.is_multiple_of(self.data) {
            return;
        }
        let each = global / self.data;
        for micro in divisors(each) {
            let asked = section.micro.as_ref().map(|list| list.contains(&micro));
            let steps = each / micro;
            if !asked.unwrap_or(micro <= MOST_MICRO) || steps > MOST_MICRO_BATCHES {
                continue;
            }
            let shapes = self.shapes(plan, section, steps, blocks);
            let states = self.states(base, plan, section, workload);
            for &(schedule, virtual_pipeline) in &shapes {
                for &(expert, zero, offload) in &states {
                    for checkpointing in checkpointings(section, workload) {
                        all.push(Candidate {
                            nodes: self.nodes,
                            gpus_per_node: self.per_node,
                            data: self.data,
                            tensor: self.tensor,
                            sequence_parallel: self.tensor > 1 && section.sequence_parallel.unwrap_or(true),
                            pipeline: self.pipeline,
                            virtual_pipeline,
                            zero,
                            micro,
                            steps,
                            global,
                            checkpointing,
                            context: self.context,
                            expert,
                            schedule,
                            offload,
                            stages: None,
                        });
                    }
                }
            }
        }
    }

    /// Schedules with their chunks of layers on a stage. Without a pipeline there is nothing to order.
    fn shapes(
        self,
        plan: &Plan,
        section: &SearchSection,
        steps: u64,
        blocks: u64,
    ) -> Vec<(Option<usize>, u64)> {
        let Some(list) = &section.schedule else {
            let chunks = self.chunks(plan.schedule, plan.virtual_pipeline, section, steps, blocks);
            return chunks.into_iter().map(|chunks| (None, chunks)).collect();
        };
        if self.pipeline == 1 {
            let usual = SCHEDULES.iter().position(|(_, kind)| *kind == ScheduleKind::OneForwardOneBackward);
            return vec![(usual, 1)];
        }
        let mut all = Vec::new();
        for &index in list {
            let kind = SCHEDULES[index].1;
            if kind.refused_stages(self.pipeline).is_some() {
                continue;
            }
            let usual = u64::from(kind.usual_chunks());
            let chunks = self.chunks(kind, usual, section, steps, blocks);
            all.extend(chunks.into_iter().map(|chunks| (Some(index), chunks)));
        }
        all
    }

    /// Sizes and places of the model states: experts, ZeRO, offloading.
    fn states(
        self,
        base: &Scenario,
        plan: &Plan,
        section: &SearchSection,
        workload: &Workload,
    ) -> Vec<(Option<u64>, u64, Option<Offloaded>)> {
        let lanes = self.data * self.context.unwrap_or(plan.context) * self.tensor;
        let spreads = |size: &u64| {
            *size == 1 || lanes.is_multiple_of(*size) && base.model.expert_parallel_fault(*size).is_none()
        };
        let experts: Vec<Option<u64>> = match &section.expert {
            None => vec![None],
            Some(list) => list.iter().copied().filter(spreads).map(Some).collect(),
        };
        let offloads: Vec<Option<Offloaded>> = match &section.offload {
            None => vec![None],
            Some(list) => list.iter().copied().map(Some).collect(),
        };
        let mut all = Vec::new();
        for &expert in &experts {
            for zero in self.zero_stages(plan, section, workload) {
                let acts = |offload: &&Option<Offloaded>| offload.is_none_or(|it| it.goes_with(zero));
                all.extend(offloads.iter().filter(acts).map(|&offload| (expert, zero, offload)));
            }
        }
        all
    }

    /// Chunks of layers on a stage: interleaved 1F1B takes micro-batches in groups of the pipeline's stages; other schedules have
    /// their own number.
    fn chunks(
        self,
        kind: ScheduleKind,
        usual: u64,
        section: &SearchSection,
        steps: u64,
        blocks: u64,
    ) -> Vec<u64> {
        let interleaves = kind == ScheduleKind::OneForwardOneBackward && self.pipeline > 1;
        let possible = |chunks: &u64| {
            *chunks == 1
                || interleaves
                    && steps.is_multiple_of(self.pipeline)
                    && blocks.is_multiple_of(self.pipeline * chunks)
        };
        let wanted = section.virtual_pipeline.clone().unwrap_or_else(|| vec![1, 2, 4, 8]);
        if interleaves || usual == 1 {
            wanted.into_iter().filter(possible).collect()
        } else if self.pipeline > 1 && self.pipeline * usual <= blocks {
            vec![usual]
        } else {
            Vec::new()
        }
    }

    /// ZeRO 2 and 3 reduce in every micro-batch of a pipeline: looked at there only where they are asked for.
    fn zero_stages(self, plan: &Plan, section: &SearchSection, workload: &Workload) -> Vec<u64> {
        if workload.task == Task::Inference || self.data * self.context.unwrap_or(plan.context) == 1 {
            return vec![0];
        }
        match &section.zero {
            Some(list) => list.clone(),
            None if self.pipeline > 1 => vec![0, 1],
            None => vec![0, 1, 2, 3],
        }
    }
}

/// Checkpointing that can act.
fn checkpointings(section: &SearchSection, workload: &Workload) -> Vec<u8> {
    if workload.task == Task::Inference {
        return vec![0];
    }
    let eager = workload.attention == AttentionKind::Eager;
    let number = |kind: &Checkpointing| match kind {
        Checkpointing::None => 0,
        Checkpointing::Selective | Checkpointing::Modules(_) => 1,
        Checkpointing::Full => 2,
    };
    let wanted: Vec<u8> = section
        .checkpointing
        .as_ref()
        .map_or_else(|| vec![0, 1, 2], |list| list.iter().map(number).collect());
    wanted.into_iter().filter(|&kind| kind != 1 || eager).collect()
}
