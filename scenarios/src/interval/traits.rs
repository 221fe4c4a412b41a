//! What a predicted step is made of, as far as it tells how well the step is known.

use steptime_clusters::{Basis, Cluster, Framework, Lent};
use steptime_models::{Dtype, Fusion, Sample};
use steptime_plans::{Checkpointing, Plan, Task, Workload, ZeroStage};

use crate::report::Report;
use crate::scenario::{Job, Scenario};

/// A trait by which runs are grouped. Switches are 0 or 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trait {
    /// Where the GPU's prices of matrix products come from: 0 fitted on it, 1 borrowed within its architecture,
    /// 2 from another one.
    Borrowed,
    /// A convolutional network.
    Convolutions,
    /// Training, else inference.
    Training,
    /// Routed experts.
    Experts,
    /// Bits of the arithmetic: 4, 8, 16, 19 (tf32), 32.
    Bits,
    /// Parameters are gathered when needed (ZeRO 3).
    Gathered,
    /// Chains of memory-bound operations are fused.
    Fused,
    /// Blocks are recomputed in backward.
    Recomputed,
    /// Nodes.
    Nodes,
    /// GPUs.
    Gpus,
    /// Pipeline stages.
    Stages,
    /// Tensor-parallel ranks.
    Tensor,
    /// Micro-batches of a replica and step.
    MicroBatches,
    /// TFLOP of a GPU in one micro-batch.
    Work,
    /// Several GPUs of a node that do not reach each other's memory: what they send passes through the host's, at rates that
    /// depend on the machine.
    Staged,
    /// A trainer with host code of its own around layers, collectives and gradients (Megatron-LM, nanotron), else
    /// PyTorch's.
    Trainer,
    /// Share of the step waiting for the host. This and the other shares are of the step without the loading of
    /// samples, which [`Trait::Loading`] tells.
    Host,
    /// Share waiting for communication.
    Communication,
    /// Share waiting for other stages.
    Bubble,
    /// Share in kernels of forward and backward.
    Compute,
    /// Share in the parameter update.
    Optimizer,
    /// Share of the whole step waiting for samples. No question of the tree: what a sample costs is the scenario's to say.
    Loading,
}

/// How a trait reads.
pub(super) struct Shape {
    pub(super) kind: Trait,
    /// As the table writes it.
    pub(super) name: &'static str,
    /// In words: at least the threshold, and below it; `#` stands for the threshold.
    words: [&'static str; 2],
    /// Where runs may be divided: round numbers, so that tables stay readable and stable.
    pub(super) thresholds: &'static [f64],
}

const fn shape(
    kind: Trait,
    name: &'static str,
    words: [&'static str; 2],
    thresholds: &'static [f64],
) -> Shape {
    Shape { kind, name, words, thresholds }
}

const COUNT: usize = 22;

/// All traits, in the order of [`Trait`].
pub(super) const SHAPES: [Shape; COUNT] = [
    shape(
        Trait::Borrowed,
        "borrowed",
        ["prices borrowed (# or more)", "prices borrowed (less than #)"],
        &[1.0, 2.0],
    ),
    shape(Trait::Convolutions, "convolutions", ["convolutional", "no convolutional network"], &[1.0]),
    shape(Trait::Training, "training", ["training", "inference"], &[1.0]),
    shape(Trait::Experts, "experts", ["routed experts", "no experts"], &[1.0]),
    shape(Trait::Bits, "bits", ["# bits or more", "less than # bits"], &[16.0, 19.0, 32.0]),
    shape(Trait::Gathered, "gathered", ["ZeRO 3", "not ZeRO 3"], &[1.0]),
    shape(Trait::Fused, "fused", ["fused kernels", "unfused kernels"], &[1.0]),
    shape(Trait::Recomputed, "recomputed", ["full recomputation", "no full recomputation"], &[1.0]),
    shape(Trait::Nodes, "nodes", ["# nodes or more", "less than # nodes"], &[2.0, 8.0, 32.0]),
    shape(Trait::Gpus, "gpus", ["# GPUs or more", "less than # GPUs"], &[2.0, 16.0, 64.0, 256.0]),
    shape(Trait::Stages, "stages", ["# stages or more", "less than # stages"], &[2.0, 8.0]),
    shape(Trait::Tensor, "tensor", ["tensor parallel # or more", "tensor parallel below #"], &[2.0]),
    shape(
        Trait::MicroBatches,
        "micro_batches",
        ["# micro-batches or more", "less than # micro-batches"],
        &[2.0, 8.0, 32.0],
    ),
    shape(
        Trait::Work,
        "work",
        ["# TFLOP or more a micro-batch", "less than # TFLOP a micro-batch"],
        &[0.1, 1.0, 10.0, 100.0],
    ),
    shape(Trait::Staged, "staged", ["transfers through the host", "no transfers through the host"], &[1.0]),
    shape(Trait::Trainer, "trainer", ["trainer with its own host code", "PyTorch's own host code"], &[1.0]),
    shape(Trait::Host, "host", ["host # or more", "host below #"], &[0.05, 0.2, 0.5]),
    shape(
        Trait::Communication,
        "communication",
        ["communication # or more", "communication below #"],
        &[0.05, 0.15, 0.3, 0.5],
    ),
    shape(Trait::Bubble, "bubble", ["bubble # or more", "bubble below #"], &[0.05, 0.2]),
    shape(Trait::Compute, "compute", ["compute # or more", "compute below #"], &[0.5, 0.8]),
    shape(Trait::Optimizer, "optimizer", ["update # or more", "update below #"], &[0.05, 0.2]),
    shape(Trait::Loading, "loading", ["loading # or more", "loading below #"], &[]),
];

/// Traits whose range says whether a prediction lies among the runs of its group.
pub(super) const COVERED: [Trait; 5] =
    [Trait::Borrowed, Trait::Gpus, Trait::Work, Trait::Host, Trait::Loading];

/// Asked before all others: the host's time comes from another model on either side, so that runs of one side say
/// nothing of steps of the other.
pub(super) const FIRST: Condition = Condition { kind: Trait::Trainer, at_least: true, threshold: 1.0 };

impl Trait {
    pub(super) fn shape(self) -> &'static Shape {
        &SHAPES[self as usize]
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        SHAPES.iter().find(|shape| shape.name == name).map(|shape| shape.kind)
    }

    /// Whether it is a share of the step.
    pub(super) fn is_share(self) -> bool {
        self as usize >= Self::Host as usize
    }
}

/// One side of a threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Condition {
    pub(super) kind: Trait,
    /// At least the threshold, else below it.
    pub(super) at_least: bool,
    pub(super) threshold: f64,
}

impl Condition {
    pub(super) fn holds(&self, traits: &Traits) -> bool {
        (traits.get(self.kind) >= self.threshold) == self.at_least
    }

    pub(super) fn words(&self) -> String {
        if self.kind == Trait::Borrowed {
            // 1 parts own prices from borrowed ones, 2 architectures.
            let words = match (self.threshold > 1.0, self.at_least) {
                (false, false) => "kernels fitted on this GPU",
                (false, true) => "kernels borrowed",
                (true, false) => "kernels fitted on this GPU or its architecture",
                (true, true) => "kernels borrowed from another architecture",
            };
            return words.to_owned();
        }
        let number = if self.kind.is_share() {
            format!("{} %", 100.0 * self.threshold)
        } else {
            self.threshold.to_string()
        };
        self.kind.shape().words[usize::from(!self.at_least)].replace('#', &number)
    }
}

/// The traits of one prediction.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Traits([f64; COUNT]);

impl Traits {
    pub(super) fn get(&self, kind: Trait) -> f64 {
        self.0[kind as usize]
    }

    #[cfg(test)]
    pub(super) fn with(values: &[(Trait, f64)]) -> Self {
        let mut traits = [0.0; COUNT];
        for &(kind, value) in values {
            traits[kind as usize] = value;
        }
        Self(traits)
    }

    /// Of a step on GPUs; absent where nothing ran.
    pub(crate) fn of(scenario: &Scenario, report: &Report) -> Option<Self> {
        let Job::Gpus { cluster, plan, workload } = &scenario.job else { return None };
        let step = report.step_time_s.filter(|step| *step > 0.0)?;
        let parts = &report.time_breakdown_s;
        // How well a step on the device is known does not depend on what it waits for before.
        let device = (step - parts.data_loading).max(f64::MIN_POSITIVE);
        let switch = |on: bool| if on { 1.0 } else { 0.0 };
        let micro_batches = workload.accumulation as f64;
        let work = report.flops_per_step / (report.gpus as f64 * micro_batches) / 1e12;
        Some(Self([
            borrowed(cluster, workload),
            switch(matches!(scenario.model.sample, Sample::Image { tokens: 0 | 1, .. })),
            switch(workload.task == Task::Training),
            switch(report.parameters.active < report.parameters.total),
            bits(workload),
            switch(plan.zero == ZeroStage::Three),
            switch(workload.fusion != Fusion::None),
            switch(workload.checkpointing == Checkpointing::Full),
            nodes(cluster, plan),
            report.gpus as f64,
            plan.pipeline as f64,
            plan.tensor as f64,
            micro_batches,
            work,
            switch(cluster.stages_in_host() && plan.ranks().min(u64::from(cluster.gpus_per_node)) > 1),
            switch(workload.framework != Framework::PyTorch),
            parts.host / device,
            parts.exposed_communication / device,
            parts.pipeline_bubble / device,
            parts.compute / device,
            parts.optimizer / device,
            parts.data_loading / step,
        ]))
    }
}

fn nodes(cluster: &Cluster, plan: &Plan) -> f64 {
    plan.ranks().div_ceil(u64::from(cluster.gpus_per_node).max(1)) as f64
}

fn bits(workload: &Workload) -> f64 {
    match workload.precision.compute() {
        Dtype::Fp4 => 4.0,
        Dtype::Fp8 => 8.0,
        Dtype::Tf32 => 19.0,
        Dtype::Fp32 => 32.0,
        _ => 16.0,
    }
}

/// Where the prices of matrix products come from.
fn borrowed(cluster: &Cluster, workload: &Workload) -> f64 {
    let gpu = &cluster.gpu;
    let Some(arithmetic) = gpu.arithmetic(workload.precision.compute()) else { return 2.0 };
    let ground = arithmetic.model.ground;
    match ground.lent {
        Lent::Not if ground.basis <= Basis::Fitted => 0.0,
        Lent::Near => 1.0,
        Lent::Not | Lent::Far => 2.0,
    }
}
