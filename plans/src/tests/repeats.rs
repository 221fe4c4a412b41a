//! Passes that are copied against passes that are written operation by operation.

use steptime_clusters::Framework;
use steptime_core::{NoObserver, Recorder, simulate};
use steptime_models::Modules;

use super::fixtures::{cluster, model, plan, workload};
use crate::lower::{Grain, Lowered, lower, lower_in_detail, lower_plainly, lower_times};
use crate::plan::Plan;
use crate::schedule::ScheduleKind::{GPipe, OneForwardOneBackward, ZeroBubbleOne, ZeroBubbleV};
use crate::workload::{Checkpointing, Workload};
use crate::zero::ZeroStage::{One, Three, Two, Zero};

/// Jobs that differ in what their passes do.
fn jobs() -> Vec<(Plan, Workload)> {
    let plain = workload(6);
    let again = Workload { checkpointing: Checkpointing::Full, ..workload(6) };
    let selective = Workload {
        checkpointing: Checkpointing::Selective,
        modules: Modules::MegatronLocal,
        framework: Framework::Megatron,
        accumulation_fusion: true,
        wide_gradients: true,
        ..workload(6)
    };
    let short = Workload { micro_batch_size: 3, last_micro_batch_size: Some(2), ..workload(6) };
    let nanotron = Workload { framework: Framework::Nanotron, wide_gradients: true, ..workload(6) };
    let interleaved = Plan { virtual_pipeline: 2, ..plan(4, 2, OneForwardOneBackward, One) };
    let tensor = Plan { tensor: 2, sequence_parallel: true, ..plan(2, 2, OneForwardOneBackward, Zero) };
    vec![
        (plan(4, 2, OneForwardOneBackward, Zero), plain.clone()),
        (plan(8, 1, OneForwardOneBackward, Three), plain.clone()),
        (plan(4, 2, GPipe, Two), again.clone()),
        (plan(2, 4, ZeroBubbleOne, Zero), again),
        (Plan { virtual_pipeline: 2, ..plan(4, 2, ZeroBubbleV, Zero) }, plain),
        (tensor.clone(), selective),
        (tensor, nanotron),
        (interleaved.clone(), short),
        (interleaved, Workload { deterministic: true, ..workload(4) }),
    ]
}

/// Everything that happens, with the names of what it happens to.
fn story(lowered: &Lowered) -> Vec<String> {
    let mut recorder = Recorder::new();
    let outcome = simulate(&lowered.world, &mut recorder).expect("no deadlock");
    let program = |rank: u32| &lowered.world.programs()[rank as usize];
    let spans = recorder.spans().iter().map(|span| {
        let label = program(span.rank).label(span.label);
        format!("{label} {:?} {:?} {:?} {:?} {:?}", span.stream, span.class, span.kind, span.start, span.end)
    });
    let memory = recorder.memory_records().iter().map(|record| {
        let spec = program(record.rank).tensor_spec(record.tensor).expect("a tensor of the program");
        format!("{} {record:?} {:?}", program(record.rank).label(spec.label), lowered.marks)
    });
    spans.chain(memory).chain([format!("{:?}", outcome.ranks)]).collect()
}

#[test]
fn a_copied_pass_is_the_pass_that_would_have_been_written() {
    let (gpt, gpus) = (model("gpt2", 9), cluster("dgx-h100"));
    for (number, (plan, work)) in jobs().into_iter().enumerate() {
        let plan = Plan { explicit: false, stages: None, ..plan };
        for grain in [Grain::Curve, Grain::Blocks] {
            let copied = match grain {
                Grain::Blocks => lower_in_detail(&gpt, &gpus, &plan, &work),
                _ => lower(&gpt, &gpus, &plan, &work),
            };
            let copied = story(&copied.expect("legal"));
            let written = story(&lower_plainly(&gpt, &gpus, &plan, &work, grain).expect("legal"));
            assert_eq!(copied.len(), written.len(), "job {number}");
            for (a, b) in copied.iter().zip(&written) {
                assert_eq!(a, b, "job {number}");
            }
        }
    }
}

/// Without memory whole passes over chunks are copied, in all micro-batches but the first and the last that make gradients.
#[test]
fn a_whole_pass_that_is_copied_is_the_pass_that_would_have_been_written() {
    let (gpt, gpus) = (model("gpt2", 9), cluster("dgx-h100"));
    let megatron = Workload { framework: Framework::Megatron, loss_scaling: true, ..workload(8) };
    let more = [
        (plan(4, 2, OneForwardOneBackward, Two), workload(12)),
        (Plan { context: 2, ..plan(2, 2, OneForwardOneBackward, One) }, workload(5)),
        (Plan { tensor: 2, virtual_pipeline: 2, ..plan(2, 2, OneForwardOneBackward, One) }, megatron),
        (plan(8, 1, OneForwardOneBackward, One), Workload { check_for_nan: true, ..workload(5) }),
    ];
    for (number, (plan, work)) in jobs().into_iter().chain(more).enumerate() {
        let plan = Plan { explicit: false, stages: None, ..plan };
        let copied = story(&lower_times(&gpt, &gpus, &plan, &work).expect("legal"));
        let written = story(&lower_plainly(&gpt, &gpus, &plan, &work, Grain::Times).expect("legal"));
        assert_eq!(copied.len(), written.len(), "job {number}");
        for (a, b) in copied.iter().zip(&written) {
            assert_eq!(a, b, "job {number}");
        }
    }
}

#[test]
fn a_program_without_memory_takes_the_same_time() {
    let (gpt, gpus) = (model("gpt2", 9), cluster("dgx-h100"));
    for (number, (plan, work)) in jobs().into_iter().enumerate() {
        let full = lower_plainly(&gpt, &gpus, &plan, &work, Grain::Blocks).expect("legal");
        let times = lower_times(&gpt, &gpus, &plan, &work).expect("legal");
        let play = |lowered: &Lowered| simulate(&lowered.world, &mut NoObserver).expect("no deadlock");
        let (full, times) = (play(&full), play(&times));
        assert_eq!(full.end, times.end, "job {number}");
        for (a, b) in full.ranks.iter().zip(&times.ranks) {
            assert_eq!((a.idle, a.host_end), (b.idle, b.host_end), "job {number}");
            for (a, b) in a.streams.iter().zip(&b.streams) {
                // A stream on which only frees waited may have been reached later.
                assert_eq!(a.busy, b.busy, "job {number}");
            }
            assert_eq!(b.memory.peak, 0, "job {number}");
        }
    }
}
