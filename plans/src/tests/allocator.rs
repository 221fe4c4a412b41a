//! A job's allocations and frees through the caching allocator.

use proptest::prelude::*;
use steptime_clusters::Framework;
use steptime_core::{NoObserver, SimTime, simulate};
use steptime_models::Bytes;

use super::fixtures::{cluster, model, plan, workload};
use crate::lower::{Lowered, lower, lower_in_detail, lower_times};
use crate::memory::{AllocatorSettings, RankMemory, Told, WORTH_THREADS, memory_of, play, trace_of};
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::{Checkpointing, OptimizerImplementation, Workload};
use crate::zero::ZeroStage;
use crate::{PlanError, classes};

const MIB: u64 = 1 << 20;

fn memories(plan: &Plan, workload: &Workload, gpus: u32) -> Result<Vec<RankMemory>, PlanError> {
    let gpt = model("gpt2", 8);
    let cluster = cluster("dgx-h100").with_size(1, gpus).expect("a possible size");
    let in_flight: Vec<u64> =
        lower(&gpt, &cluster, plan, workload)?.stages.iter().map(|stage| stage.in_flight).collect();
    memory_of((&gpt, &cluster, plan, workload), &AllocatorSettings::default(), &in_flight, None)
}

#[test]
fn blocks_of_a_small_model_add_up() {
    // GPT-2 alone on a GPU: weights and gradients in 16 bits, a copy and two moments in 32 (16 bytes a parameter), each
    // parameter's block rounded up to 512 bytes, and to the end of its segment where less than a MiB would be left.
    let plan = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let memory = &memories(&plan, &workload(2), 1).expect("a legal job")[0];
    let gpt = model("gpt2", 8);
    let parameters = gpt.parameters();
    let of = |category: steptime_core::Category| memory.by_category[usize::from(category.0)];
    assert!(of(classes::PARAMETERS) >= 2 * parameters && of(classes::PARAMETERS) < 2 * parameters + 10 * MIB);
    assert!(of(classes::OPTIMIZER_STATES) >= 12 * parameters);
    assert_eq!(memory.by_category.iter().sum::<u64>(), memory.allocated, "every byte belongs to a category");
    assert!(memory.reserved >= memory.allocated);
    assert_eq!(memory.reserved % (2 * MIB), 0, "segments are whole");
    // Gradients have gone with the update.
    assert!(memory.after_step < memory.allocated && memory.after_step >= 14 * parameters);
    assert_eq!((memory.communicators, memory.retries), (0, 0));
}

#[test]
fn moments_are_made_by_the_first_update() {
    // So few tokens that the fullest moment is in the second step, with the moments in place.
    let plan = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let work = Workload { sequence_length: 16, ..workload(1) };
    let with = &memories(&plan, &work, 1).expect("a legal job")[0];
    let none = Workload { optimizer: crate::OptimizerKind::Sgd, ..work };
    let without = &memories(&plan, &none, 1).expect("a legal job")[0];
    let parameters = model("gpt2", 8).parameters();
    let moments = with.after_step - without.after_step;
    assert!(moments >= 8 * parameters && moments < 8 * parameters + 80 * MIB, "{moments}");
}

#[test]
fn detail_changes_no_time() {
    let gpt = model("gpt2", 4);
    let gpus = cluster("dgx-h100");
    for (pipeline, zero) in [(1, ZeroStage::Three), (2, ZeroStage::One), (4, ZeroStage::Zero)] {
        let plan = plan(8 / pipeline, pipeline, ScheduleKind::OneForwardOneBackward, zero);
        // A queue that never fills, and one that does.
        for launch_queue in [1024, 24] {
            let mut gpus = gpus.clone();
            gpus.host.launch_queue = launch_queue;
            let end = |lowered: Lowered| simulate(&lowered.world, &mut NoObserver).expect("no deadlock").end;
            let plain = end(lower(&gpt, &gpus, &plan, &workload(6)).expect("legal"));
            let times = end(lower_times(&gpt, &gpus, &plan, &workload(6)).expect("legal"));
            let detail = end(lower_in_detail(&gpt, &gpus, &plan, &workload(6)).expect("legal"));
            let job = play(&gpt, &gpus, &plan, &workload(6), &AllocatorSettings::default(), Told::Everything);
            assert_eq!([times, detail, job.expect("legal").outcome.end], [plain; 3], "{launch_queue}");
        }
    }
}

#[test]
fn too_small_a_device_names_what_does_not_fit() {
    let gpt = model("gpt2", 8);
    let plan = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    let mut gpus = cluster("dgx-h100").with_size(1, 1).expect("one of eight");
    let all = memory_of((&gpt, &gpus, &plan, &workload(2)), &AllocatorSettings::default(), &[1], None)
        .expect("legal");
    // Half of what it needs, beside the context.
    gpus.gpu.memory = Bytes(gpus.gpu.context.0 + all[0].reserved / 2);
    let small = memory_of((&gpt, &gpus, &plan, &workload(2)), &AllocatorSettings::default(), &[1], None)
        .expect("legal");
    let shortage = small[0].shortage.as_ref().expect("it cannot fit");
    assert!(shortage.requested > 0 && shortage.segment >= shortage.requested);
    assert!(shortage.free < shortage.segment, "{shortage:?}");
    assert!(!shortage.tensor.is_empty());
    assert_eq!(small[0].reserved, all[0].reserved, "what it would take");
    // What it needs to the byte is enough.
    gpus.gpu.memory = Bytes(gpus.gpu.context.0 + all[0].reserved);
    let fits = memory_of((&gpt, &gpus, &plan, &workload(2)), &AllocatorSettings::default(), &[1], None)
        .expect("legal");
    assert_eq!(fits[0].shortage, None);
}

/// So many requests that stages are replayed on several threads, with and without enough memory.
#[test]
fn stages_on_all_threads_are_stages_one_by_one() {
    let gpt = model("gpt3-175b", 96);
    let plan = plan(1, 8, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    for (memory, fits) in [(4096 << 30, true), (330 << 30, false)] {
        let mut gpus = cluster("dgx-h100");
        gpus.gpu.memory = Bytes(memory);
        let job = (&gpt, &gpus, &plan, &workload(16));
        let alone = trace_of(job, &AllocatorSettings::default(), &[], None).expect("legal");
        let requests: usize = alone.iter().map(|stage| stage.blocks.len() / 4).sum();
        assert!(requests > WORTH_THREADS || !fits, "{requests}");
        let alone: Vec<RankMemory> = alone.into_iter().map(|stage| stage.memory).collect();
        assert_eq!(alone.iter().all(|stage| stage.shortage.is_none()), fits);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("few threads");
            let together = pool.install(|| memory_of(job, &AllocatorSettings::default(), &[], None));
            assert_eq!(together.expect("legal"), alone, "{threads}");
        }
    }
}

#[test]
fn traces_account_for_every_block_and_segment() {
    let gpt = model("gpt2", 4);
    let gpus = cluster("dgx-h100").with_size(1, 2).expect("two of eight");
    let plan = plan(1, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::Zero);
    for traced in
        trace_of((&gpt, &gpus, &plan, &workload(4)), &AllocatorSettings::default(), &[], None).expect("legal")
    {
        let sum = |action: &str| {
            traced.blocks.iter().filter(|it| it.action == action).map(|it| it.size).sum::<u64>()
        };
        let held: u64 = traced.segments.iter().map(|segment| segment.allocated_size).sum();
        let reserved: u64 = traced.segments.iter().map(|segment| segment.total_size).sum();
        assert_eq!(sum("alloc") - sum("free_requested"), held);
        assert_eq!(sum("free_requested"), sum("free_completed"));
        assert_eq!(sum("segment_alloc") - sum("segment_free"), reserved);
        let most = traced.blocks.iter().map(|it| it.allocated).max();
        assert_eq!(most, Some(traced.memory.allocated));
        assert!(traced.blocks.iter().all(|it| it.reserved >= it.allocated));
    }
}

#[test]
fn a_few_micro_batches_stand_for_many() {
    for (pipeline, schedule) in
        [(1, ScheduleKind::GPipe), (4, ScheduleKind::OneForwardOneBackward), (4, ScheduleKind::ZeroBubbleH1)]
    {
        let plan = plan(1, pipeline, schedule, ZeroStage::Zero);
        let gpus = pipeline as u32;
        let few = memories(&plan, &workload(24), gpus).expect("legal");
        let gpt = model("gpt2", 8);
        let cluster = cluster("dgx-h100").with_size(1, gpus).expect("a possible size");
        // Of stages that nobody knows anything of, all is replayed.
        let all = trace_of((&gpt, &cluster, &plan, &workload(24)), &AllocatorSettings::default(), &[], None)
            .expect("legal");
        for (few, all) in few.iter().zip(all) {
            assert_eq!(few.allocated, all.memory.allocated, "{schedule:?}");
            // How blocks fall into place may differ by a segment.
            let apart = few.reserved.abs_diff(all.memory.reserved);
            assert!(100 * apart <= all.memory.reserved, "{schedule:?}: {apart}");
        }
    }
}

/// How far the host gets ahead decides what waits for collectives: in detail, records of a program count as the entries of
/// the launch queue that they stand for. A block of Llama launches more than one kernel an operation, and each of its sums
/// over the tensor group takes five entries.
#[test]
fn the_launch_queue_holds_kernels_and_events() {
    let llama = model("llama3-8b", 8);
    let dgx = cluster("dgx-h100").with_size(1, 8).expect("a node");
    let depth = |tensor, detail: bool| {
        let plan = Plan { tensor, ..plan(8 / tensor, 1, ScheduleKind::GPipe, ZeroStage::Zero) };
        let lower = if detail { lower_in_detail } else { lower };
        lower(&llama, &dgx, &plan, &workload(1)).expect("legal").world.ranks()[0].queue_depth
    };
    // Collectives stand for five entries, an optimizer's record for all the kernels that it launches.
    for tensor in [1, 8] {
        assert!((1024 / 5..1024).contains(&depth(tensor, true)), "{}", depth(tensor, true));
    }
    assert_eq!((depth(1, true), depth(8, true)), (depth(1, false), depth(8, false)));
}

/// nanotron starts its gathers and waits for them (`_ColumnLinearAsyncCommunication`): PyTorch gives what they fill in
/// forward back when their stream has passed the free. In backward they fill buffers that all layers share.
#[test]
fn nanotron_gathers_beside_the_computation() {
    let llama = model("llama3-8b", 8);
    let dgx = cluster("dgx-h100").with_size(1, 8).expect("a node");
    let plan =
        Plan { tensor: 8, sequence_parallel: true, ..plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero) };
    let gathered = |framework| {
        let work = Workload { framework, ..workload(1) };
        let lowered = lower_in_detail(&llama, &dgx, &plan, &work).expect("legal");
        let program = &lowered.world.programs()[0];
        let (mut own, mut waiting, mut again) = (vec![None; program.tensors()], 0, 0);
        for (tensor, stream, frees) in program.memory_requests() {
            let spec = program.tensor_spec(tensor).expect("a tensor");
            let label = program.label(spec.label);
            if !frees {
                own[tensor.0 as usize] = Some(stream);
                again += usize::from(label.ends_with("tensor_parallel.gather_again"));
            } else if label.ends_with("tensor_parallel.enter.output")
                && own[tensor.0 as usize] != Some(stream)
            {
                waiting += 1;
            }
        }
        (waiting, again)
    };
    let blocks = llama.layers.iter().filter(|layer| layer.role == steptime_models::LayerRole::Block).count();
    // Two column-parallel products a block, and the head's.
    assert_eq!(gathered(Framework::Nanotron), (2 * blocks + 1, 0));
    assert_eq!(gathered(Framework::Megatron), (0, 2 * blocks + 1));
}

#[test]
fn moments_in_the_second_half_count_from_the_end() {
    let end = SimTime::from_seconds(10.0).expect("a time");
    let at = |seconds| SimTime::from_seconds(seconds).expect("a time");
    let early = crate::Moment { since_begin: at(1.0), until_end: None };
    let late = crate::Moment { since_begin: at(3.0), until_end: Some(at(0.5)) };
    assert_eq!((early.seconds(end), late.seconds(end)), (1.0, 9.5));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn replays_are_sound_and_alike_for_every_rank(
        pipeline in prop::sample::select(vec![1_u64, 2, 4]),
        zero in prop::sample::select(vec![ZeroStage::Zero, ZeroStage::One, ZeroStage::Two, ZeroStage::Three]),
        tensor in prop::sample::select(vec![1_u64, 2]),
        sequence_parallel in any::<bool>(),
        micro_batches in 1_u64..9,
        foreach in any::<bool>(),
        full in any::<bool>(),
    ) {
        let plan = Plan {
            tensor,
            sequence_parallel: sequence_parallel && tensor > 1,
            ..plan(8 / pipeline / tensor, pipeline, ScheduleKind::OneForwardOneBackward, zero)
        };
        let implementation =
            if foreach { OptimizerImplementation::Foreach } else { OptimizerImplementation::Fused };
        let checkpointing = if full { Checkpointing::Full } else { Checkpointing::None };
        let work = Workload { implementation, checkpointing, ..workload(micro_batches) };
        let folded = memories(&plan, &work, 8).expect("legal");
        for memory in &folded {
            prop_assert!(memory.reserved >= memory.allocated);
            prop_assert!(memory.allocated >= memory.after_step);
            prop_assert_eq!(memory.by_category.iter().sum::<u64>(), memory.allocated);
            prop_assert_eq!(&memory.shortage, &None);
        }
        prop_assert_eq!(&folded, &memories(&plan, &work, 8).expect("legal"), "the same again");
        let explicit = memories(&Plan { explicit: true, ..plan }, &work, 8).expect("legal");
        prop_assert_eq!(&folded, &explicit);
    }
}
