//! Models and clusters small enough to reckon by hand.

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use steptime_clusters::{Cluster, ClusterEntry, Fabric, FabricKind, cluster_from_catalogue};
use steptime_core::{NoObserver, Outcome, simulate, simulate_every_operation};
use steptime_models::{AttentionKind, Model, Overrides};

use crate::lower::{Lowered, PlayedRank, lower};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::{
    CheckpointedBlocks, Checkpointing, Execution, OptimizerImplementation, OptimizerKind, Precision, Task,
    Workload,
};
use crate::zero::ZeroStage;

/// A component model of equal partitions that send `volume` to each other.
pub(super) fn equal_partitions(count: usize, volume: &str) -> Model {
    let mut text = String::from("name = \"equal\"\nfamily = \"components\"\nsource = \"test\"\n");
    for index in 0..count {
        text += &format!(
            "[[component]]\nname = \"c{index}\"\nflops_per_sample = \"1 TFLOP\"\ncapacity = \"1 GB\"\n"
        );
    }
    for index in 0..count {
        text += &format!(
            "[[partition]]\nname = \"p{index}\"\ncommunication_volume = \"{volume}\"\ncomponents = [\"c{index}\"]\n"
        );
    }
    Model::from_toml(&text, &Overrides::none()).expect("a valid component model")
}

pub(super) fn cluster(name: &str) -> Cluster {
    match cluster_from_catalogue(name) {
        Ok(ClusterEntry::Nodes(cluster)) => cluster,
        other => panic!("{name} is a cluster of nodes, found {other:?}"),
    }
}

/// GPUs whose links and hosts cost nothing: what is left is arithmetic and order.
pub(super) fn free_links(nodes: u32, gpus_per_node: u32) -> Cluster {
    let mut cluster = cluster("dgx-h100").with_size(nodes, gpus_per_node).expect("a possible size");
    cluster.fabric = Fabric::flat(FabricKind::NvSwitch, cluster.fabric.bandwidth);
    if let Some(network) = &mut cluster.network {
        network.latency_s = 0.0;
        network.bulk_latency_s = 0.0;
    }
    cluster.host.launch.eager_forward_s = 0.0;
    cluster.host.launch.eager_backward_s = 0.0;
    cluster.host.hooks = steptime_clusters::HookCost::default();
    cluster.gpu.kernel_latency_s = 0.0;
    cluster
}

pub(super) fn workload(micro_batches: u64) -> Workload {
    Workload {
        task: Task::Training,
        micro_batch_size: 1,
        accumulation: micro_batches,
        last_micro_batch_size: None,
        sequence_length: 128,
        precision: Precision::Bf16,
        scaling: steptime_models::Scaling::Delayed,
        router: crate::router::Router::Uniform,
        low_precision_norms: false,
        documents: 1,
        loss_metrics: 0,
        cross_entropy: steptime_models::CrossEntropy::Torch,
        optimizer: OptimizerKind::Adam,
        loss_scaling: false,
        clipping: crate::clipping::Clipping::None,
        implementation: OptimizerImplementation::Fused,
        attention: AttentionKind::Flash,
        execution: Execution::Eager,
        framework: steptime_clusters::Framework::PyTorch,
        fusion: steptime_models::Fusion::None,
        checkpointing: Checkpointing::None,
        checkpointed: CheckpointedBlocks::Each,
        wide_gradients: false,
        accumulation_fusion: false,
        sequential_experts: false,
        check_for_nan: false,
        log_num_zeros_in_grad: false,
        log_params_norm: false,
        weight_decay: false,
        convolutions: steptime_models::Convolutions::default(),
        autocast: false,
        wide_parameters: false,
        modules: steptime_models::Modules::PyTorch,
        deterministic: false,
        attention_mask: false,
        synthetic_data: false,
    }
}

pub(super) fn plan(data: u64, pipeline: u64, schedule: ScheduleKind, zero: ZeroStage) -> Plan {
    Plan {
        data,
        tensor: 1,
        sequence_parallel: false,
        context: 1,
        context_method: steptime_models::ContextMethod::Ring,
        expert: 1,
        expert_tensor: None,
        pipeline,
        virtual_pipeline: 1,
        schedule,
        written: None,
        micro_batch_group: None,
        stages: None,
        micro_batches: None,
        micro_batch_counts: None,
        zero,
        sharding: crate::Sharding::default(),
        rank_order: crate::RankOrder::default(),
        exchange: crate::ExchangeFormats::default(),
        fetch: crate::Fetch::default(),
        gather_bucket_bytes: None,
        bucket_bytes: None,
        tensor_overlap: true,
        tensor_pieces: false,
        pair_overlap: true,
        scatter_gather: false,
        gradient_overlap: true,
        offload: crate::Offload::default(),
        gradient_as_bucket_view: false,
        explicit: false,
    }
}

pub(super) fn model(name: &str, layers: i64) -> Model {
    Model::from_catalogue(name, &Overrides::none().with("layers", layers)).expect("a catalogue entry")
}

pub(super) fn play(model: &Model, cluster: &Cluster, plan: &Plan, workload: &Workload) -> (Lowered, Outcome) {
    let lowered = lower(model, cluster, plan, workload).expect("a legal plan");
    let outcome = simulate(&lowered.world, &mut NoObserver).expect("a world without deadlock");
    (lowered, outcome)
}

/// A job with equal ranks folded, and with every rank on its own.
pub(super) struct Both {
    pub(super) folded: Lowered,
    pub(super) explicit: Lowered,
    pub(super) fast: Outcome,
    pub(super) every_rank: Outcome,
}

/// Plays a job folded, with every rank, and folded with every operation through the queue; all end together, and the
/// last equals the first in everything.
pub(super) fn both(
    model: &Model,
    cluster: &Cluster,
    plan: &Plan,
    workload: &Workload,
) -> Result<Both, TestCaseError> {
    let explicit = Plan { explicit: true, ..plan.clone() };
    let folded = lower(model, cluster, plan, workload).expect("legal");
    let explicit = lower(model, cluster, &explicit, workload).expect("legal");
    let fast = simulate(&folded.world, &mut NoObserver).expect("no deadlock");
    let every_rank = simulate(&explicit.world, &mut NoObserver).expect("no deadlock");
    let every_operation = simulate_every_operation(&folded.world, &mut NoObserver).expect("no deadlock");
    prop_assert_eq!(fast.end, every_rank.end);
    prop_assert_eq!(fast.end, every_operation.end);
    prop_assert_eq!(&fast.ranks, &every_operation.ranks);
    Ok(Both { folded, explicit, fast, every_rank })
}

/// The rank of the folded job that stands for one of all.
pub(super) fn twin(folded: &Lowered, played: &PlayedRank) -> usize {
    let twin = folded
        .ranks
        .iter()
        .position(|rank| rank.stage == played.stage && (rank.multiplicity > 1 || rank.rank == played.rank));
    twin.unwrap_or(0)
}
