//! What holds in every plan: bytes on the wire are the closed forms of its collectives, FLOPs those of the model, and
//! playing one rank for all changes nothing.

use proptest::prelude::*;
use steptime_clusters::{Cluster, Fabric, FabricKind};
use steptime_core::{Recorder, simulate};
use steptime_models::{
    ContextMethod, ExchangeGroup, ExchangeKind, Kernel, LayerRole, Model, Operation, Overrides,
};

use super::fixtures::{Both, both, cluster, plan, twin, workload};
use crate::bucket::Share;
use crate::lower::lower;
use crate::plan::Plan;
use crate::rank_order::{Dimension, RankOrder};
use crate::schedule::ScheduleKind;
use crate::sharding::Sharding;
use crate::workload::{Checkpointing, Workload};
use crate::zero::ZeroStage;

/// A job of a random plan.
#[derive(Clone, Debug)]
struct Case {
    plan: Plan,
    workload: Workload,
    experts: bool,
    per_node: u32,
}

impl Case {
    fn ranks(&self) -> u32 {
        self.plan.ranks() as u32
    }

    /// Ten layers, so that eight stages or chunks have something each.
    fn model(&self) -> Model {
        if !self.experts {
            // GPT-2 has 50,257 words, which do not divide among ranks that share layers.
            let overrides = Overrides::none().with("layers", 8).with("vocabulary", 50_304);
            return Model::from_catalogue("gpt2", &overrides).expect("a catalogue entry");
        }
        let small = [("layers", 8), ("hidden", 256), ("heads", 8), ("kv_heads", 8), ("vocabulary", 1024)];
        let overrides = small.into_iter().fold(Overrides::none(), |all, (key, value)| all.with(key, value));
        Model::from_catalogue("mixtral-8x7b", &overrides).expect("a smaller Mixtral")
    }

    fn spread(&self) -> Cluster {
        let per_node = if self.ranks().is_multiple_of(self.per_node) { self.per_node } else { 1 };
        cluster("dgx-a100-80gb").with_size(self.ranks() / per_node, per_node).expect("a possible size")
    }

    /// All ranks on one node of equal ports, where nothing scales the bytes.
    fn together(&self) -> Cluster {
        let mut gpus = cluster("dgx-a100-80gb");
        (gpus.nodes, gpus.gpus_per_node) = (1, self.ranks());
        gpus.fabric = Fabric::flat(FabricKind::NvSwitch, 300e9);
        gpus
    }
}

const SIZES: [(u64, u64, u64, u64); 12] = [
    // Data, context, tensor, pipeline.
    (8, 1, 1, 1),
    (4, 1, 2, 1),
    (4, 2, 1, 1),
    (2, 2, 2, 1),
    (4, 1, 1, 2),
    (2, 1, 2, 2),
    (4, 1, 2, 2),
    (2, 2, 1, 4),
    (8, 1, 1, 2),
    (16, 1, 1, 1),
    (2, 1, 4, 2),
    (3, 1, 2, 4),
];

const SCHEDULES: [(ScheduleKind, u64); 14] = [
    (ScheduleKind::OneForwardOneBackward, 1),
    (ScheduleKind::GPipe, 1),
    (ScheduleKind::OneForwardOneBackward, 2),
    (ScheduleKind::ZeroBubbleH1, 1),
    (ScheduleKind::ZeroBubbleH2, 1),
    (ScheduleKind::ZeroBubbleOne, 1),
    (ScheduleKind::ZeroBubbleTwo, 1),
    (ScheduleKind::ZeroBubbleV, 2),
    (ScheduleKind::LoopedBreadthFirst, 2),
    (ScheduleKind::Hanayo, 2),
    (ScheduleKind::VHalf, 2),
    (ScheduleKind::VMin, 2),
    (ScheduleKind::DualPipeV, 2),
    (ScheduleKind::DualPipe, 2),
];

const ORDERS: [[Dimension; 4]; 4] = [
    RankOrder::USUAL,
    [Dimension::Tensor, Dimension::Context, Dimension::Pipeline, Dimension::Data],
    [Dimension::Pipeline, Dimension::Tensor, Dimension::Context, Dimension::Data],
    [Dimension::Tensor, Dimension::Data, Dimension::Context, Dimension::Pipeline],
];

const ZERO: [ZeroStage; 4] = [ZeroStage::Zero, ZeroStage::One, ZeroStage::Two, ZeroStage::Three];

prop_compose! {
    fn case()(
        (data, context, tensor, pipeline) in prop::sample::select(SIZES.to_vec()),
        (schedule, chunks) in prop::sample::select(SCHEDULES.to_vec()),
        order in prop::sample::select(ORDERS.to_vec()),
        zero in prop::sample::select(ZERO.to_vec()),
        (shard, second, expert) in (0_usize..4, 0_usize..3, 0_usize..4),
        (experts, ulysses, sequence, sums_once, shuffled) in any::<(bool, bool, bool, bool, bool)>(),
        (scatter_gather, gradient_overlap, tensor_overlap) in any::<(bool, bool, bool)>(),
        full in any::<bool>(),
        (micro_batches, per_node, seed) in (1_u64..4, prop::sample::select(vec![8_u32, 4, 2]), any::<u64>()),
    ) -> Case {
        let replicas = data * context;
        let divisors = |of: u64| (1..=of).filter(move |it| of.is_multiple_of(*it)).collect::<Vec<u64>>();
        let (schedule, chunks) =
            if pipeline > 1 { (schedule, chunks) } else { (ScheduleKind::OneForwardOneBackward, 1) };
        let micro_batches = match schedule {
            ScheduleKind::DualPipe | ScheduleKind::DualPipeV => (micro_batches + 1) * pipeline,
            _ if chunks > 1 => micro_batches * pipeline,
            _ => micro_batches,
        };
        let lanes = replicas * tensor;
        let spread: Vec<u64> = [1, 2, 4, 8].into_iter().filter(|ways| lanes.is_multiple_of(*ways)).collect();
        let usual = order[0] == Dimension::Tensor && order[1] == Dimension::Context;
        let expert = if experts && usual { spread[expert % spread.len()] } else { 1 };
        let group = divisors(replicas)[shard % divisors(replicas).len()];
        let base = Plan { tensor, context, expert, ..plan(data, pipeline, schedule, zero) };
        let copy = expert * if base.spreads_experts() { base.expert_tensor() } else { 1 };
        let fits = zero >= ZeroStage::One && group > 1 && (group * tensor).is_multiple_of(copy);
        let group = Some(group).filter(|_| fits);
        let whole = group.unwrap_or(replicas);
        let second = divisors(whole)[second % divisors(whole).len()];
        let second = Some(second).filter(|&it| it > 1 && zero == ZeroStage::Three && expert == 1);
        // A shuffle of the GPUs by a linear congruence, where its step and the number of ranks have no common divisor.
        let ranks = lanes * pipeline;
        let gpus = (shuffled && seed.is_multiple_of(4)).then(|| {
            let step = if ranks.is_multiple_of(3) { 5 } else { 3 };
            (0..ranks).map(|rank| ((rank * step + seed % ranks) % ranks) as u32).collect::<Vec<_>>()
        });
        let plan = Plan {
            sequence_parallel: tensor > 1 && (sequence || expert > 1),
            context_method: if ulysses { ContextMethod::AllToAll } else { ContextMethod::Ring },
            virtual_pipeline: chunks,
            sharding: Sharding { group, sums_once: sums_once && group.is_some(), secondary: second },
            rank_order: RankOrder { order: Some(order), gpus },
            scatter_gather,
            gradient_overlap: gradient_overlap || zero >= ZeroStage::Two,
            tensor_overlap,
            ..base
        };
        let checkpointing = if full { Checkpointing::Full } else { Checkpointing::None };
        Case { plan, workload: Workload { checkpointing, ..workload(micro_batches) }, experts, per_node }
    }
}

/// Bytes through a port of each member (Thakur, Rabenseifner and Gropp 2005) of a collective over `bytes`.
fn through_port(kind: ExchangeKind, ranks: u64, bytes: f64) -> f64 {
    let part = (ranks - 1) as f64 / ranks as f64;
    match kind {
        ExchangeKind::AllReduce => 2.0 * part * bytes,
        ExchangeKind::AllGather | ExchangeKind::ReduceScatter | ExchangeKind::AllToAll => part * bytes,
        ExchangeKind::SendReceive if ranks > 1 => bytes,
        ExchangeKind::SendReceive => 0.0,
    }
}

/// Bytes that all ranks send in a step, by closed forms alone.
fn closed_form(case: &Case, model: &Model) -> f64 {
    let Case { plan, workload, .. } = case;
    let lanes = plan.lanes() as f64;
    let micro_batches = workload.accumulation as f64;
    let shape = plan.shape(workload, model.experts(), 0);
    let group = |group: ExchangeGroup| match group {
        ExchangeGroup::Tensor => plan.tensor,
        ExchangeGroup::Context => plan.context,
        ExchangeGroup::Expert => plan.expert,
        ExchangeGroup::ExpertTensor => plan.expert_tensor(),
    };
    let exchanged = |operations: &[Operation]| -> f64 {
        let one = |it: &Operation| match it.kernel {
            Kernel::Exchange { group: along, kind, bytes } => {
                through_port(kind, group(along), bytes.0 as f64)
            }
            _ => 0.0,
        };
        operations.iter().map(one).sum()
    };
    let mut within = 0.0;
    let mut outputs = Vec::new();
    for (index, layer) in model.layers.iter().enumerate() {
        let work = model.work(index, &shape);
        let again = workload.checkpointing == Checkpointing::Full && layer.role == LayerRole::Block;
        let forwards = if again { 2.0 } else { 1.0 };
        within += forwards * exchanged(&work.forward) + exchanged(&work.backward);
        outputs.push(work.output.0);
    }
    // Between stages every lane sends an activation and its gradient, whole or its part, which is gathered then.
    let virtual_stages = plan.layer_stages() as usize;
    let ranges = crate::partition_layers(model, virtual_stages, None).expect("enough layers");
    let back_and_forth = plan.chunk_order() == crate::ChunkOrder::BackAndForth;
    let stage = |at: usize| {
        let (chunk, place) = (at / plan.pipeline as usize, at % plan.pipeline as usize);
        if back_and_forth && chunk % 2 == 1 { plan.pipeline as usize - 1 - place } else { place }
    };
    let crossing = (1..virtual_stages).filter(|&at| stage(at - 1) != stage(at));
    let sent: u64 = crossing.map(|at| outputs[ranges[at].start - 1]).sum();
    let parts = plan.senders() as f64;
    let gathered = through_port(ExchangeKind::AllGather, plan.senders(), sent as f64);
    let between = 2.0 * (sent as f64 / parts + gathered);
    lanes * (micro_batches * (within + between) + states(case, model, &ranges, stage))
}

/// Bytes through a rank's port, over all stages, for gradients and parameters.
fn states(
    case: &Case,
    model: &Model,
    ranges: &[std::ops::Range<usize>],
    stage: impl Fn(usize) -> usize,
) -> f64 {
    let Case { plan, workload, .. } = case;
    let division = plan.division();
    let (micro_batches, copies) = (workload.accumulation as f64, plan.shard_copies());
    let sums = if plan.sharding.sums_once || plan.zero < ZeroStage::Two { 1.0 } else { micro_batches };
    let holds = |layer: usize| stage(ranges.iter().position(|range| range.contains(&layer)).unwrap_or(0));
    // Both ends hold both where the pipeline is entered from both; there every part of the gradients is reduced twice, on
    // opposite stages, and then summed over these.
    let tied_apart = holds(0) != holds(model.layers.len() - 1) && !plan.from_both_ends();
    let twice = if plan.from_both_ends() { 2.0 } else { 1.0 };
    // Of the micro-batches each of the two does half.
    let micro_batches = micro_batches / twice;
    let sums = if sums > 1.0 { sums / twice } else { sums };
    let mut total = 0.0;
    for parameter in model.layers.iter().flat_map(|layer| layer.parameters.iter()) {
        let share =
            if Share::Experts.contains(parameter, &division) { Share::Experts } else { Share::Common };
        let group = match share {
            Share::Common => plan.shard_group(),
            Share::Experts => plan.shard_group() * plan.tensor / (plan.expert * plan.expert_tensor()),
        };
        let bytes = 2.0 * parameter.held_in(&division) as f64;
        let scattered = through_port(ExchangeKind::ReduceScatter, group, bytes);
        let summed = sums * through_port(ExchangeKind::AllReduce, copies, bytes / group as f64);
        let second = plan.sharding.secondary.unwrap_or(group);
        let again = through_port(ExchangeKind::AllGather, second, bytes);
        if parameter.tied && !tied_apart {
            // One gradient, but both layers gather it.
            total +=
                if plan.zero == ZeroStage::Three { twice * micro_batches * (scattered + again) } else { 0.0 };
            continue;
        }
        total += twice
            * match plan.zero {
                ZeroStage::Zero => through_port(ExchangeKind::AllReduce, group, bytes),
                ZeroStage::One => 2.0 * scattered + summed,
                ZeroStage::Two => (micro_batches + 1.0) * scattered + summed,
                ZeroStage::Three => micro_batches * (2.0 * scattered + again) + summed,
            };
        if plan.from_both_ends() {
            let part = if plan.zero >= ZeroStage::One { group as f64 } else { 1.0 };
            total += 2.0 * through_port(ExchangeKind::AllReduce, 2, bytes / part);
        }
        if parameter.tied {
            // The first and the last stage sum their gradients of it: of two ranks each sends it once.
            let part = if plan.zero >= ZeroStage::Two { plan.shard_group() as f64 } else { 1.0 };
            total += 2.0 * through_port(ExchangeKind::AllReduce, 2, bytes / part);
        }
    }
    total
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn bytes_and_flops_are_those_of_the_closed_forms(case in case()) {
        let (model, gpus) = (case.model(), case.together());
        // On one node products may run in pieces; the parts that go round are as many bytes.
        let tensor_pieces = case.plan.sequence_parallel && case.workload.accumulation % 2 == 0;
        let explicit = Plan { explicit: true, tensor_pieces, ..case.plan.clone() };
        let lowered = lower(&model, &gpus, &explicit, &case.workload).expect("legal");
        let mut recorder = Recorder::default();
        // A meeting whose members do not agree on the bytes, some sending what others do not receive, is an error.
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        let found: f64 = recorder.flows().iter().map(|flow| {
            let members = lowered.world.groups()[flow.group.0 as usize].members();
            let same = members.iter().all(|&it| {
                lowered.ranks[it as usize].stage == lowered.ranks[members[0] as usize].stage
            });
            let both = lowered.world.groups()[flow.group.0 as usize].path().iter().filter(|it| it.weight == 1).count();
            let senders = if same { members.len() } else if both >= 4 { 2 } else { 1 };
            flow.bytes as f64 * senders as f64
        }).sum();
        let expected = closed_form(&case, &model);
        prop_assert!((found - expected).abs() <= 1e-3 * expected + 1.0, "{found} against {expected}");
        let shape = case.workload.shape();
        let alone = |layer: usize| {
            let work = model.work(layer, &shape);
            // Ranks that share a layer and have all its tokens choose the experts of each, every one for itself.
            let times = |it: &Operation| {
                let apart = case.plan.sequence_parallel && case.plan.spreads_experts();
                if it.name.contains("router") && !apart { case.plan.tensor } else { 1 }
            };
            let of = |operations: &[Operation]| {
                operations.iter().map(|it| times(it) * it.kernel.model_flops().0).sum::<u64>() as f64
            };
            let block = model.layers[layer].role == LayerRole::Block;
            let again = if block && case.workload.checkpointing == Checkpointing::Full { of(&work.forward) } else { 0.0 };
            [of(&work.forward) + of(&work.backward), again]
        };
        let sums = (0..model.layers.len()).map(alone).fold([0.0, 0.0], |[a, b], [x, y]| [a + x, b + y]);
        let samples = (case.plan.data * case.workload.accumulation) as f64;
        for (found, expected) in [(lowered.model_flops, sums[0]), (lowered.executed_flops, sums[0] + sums[1])] {
            prop_assert!((found / (samples * expected) - 1.0).abs() < 1e-9, "{found} against {}", samples * expected);
        }
    }

    #[test]
    fn one_rank_stands_for_all(case in case()) {
        let (model, gpus) = (case.model(), case.spread());
        let Both { folded, explicit, fast, every_rank } = both(&model, &gpus, &case.plan, &case.workload)?;
        prop_assert_eq!(explicit.ranks.len() as u64, case.plan.ranks());
        for (played, outcome) in explicit.ranks.iter().zip(&every_rank.ranks) {
            let twin = twin(&folded, played);
            prop_assert_eq!(fast.ranks[twin].end, outcome.end, "rank {}", played.rank);
            prop_assert_eq!(&fast.ranks[twin].memory, &outcome.memory, "rank {}", played.rank);
        }
    }
}
