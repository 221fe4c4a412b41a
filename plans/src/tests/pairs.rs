//! Forwards and backwards that DualPipe joins: exchanges of one beside kernels of the other.

use proptest::test_runner::TestCaseError;
use steptime_core::{Class, Outcome, Recorder, simulate};
use steptime_models::{Model, Overrides};

use super::fixtures::{both, cluster, free_links, model, plan, play, workload};
use crate::classes;
use crate::lower::lower;
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::Workload;
use crate::zero::ZeroStage;

fn experts(layers: i64) -> Model {
    let overrides = Overrides::none().with("layers", layers).with("vocabulary", 1024);
    Model::from_catalogue("mixtral-8x7b", &overrides).expect("a smaller Mixtral")
}

/// Stages of two nodes each, experts over both.
fn spread(schedule: ScheduleKind, pair_overlap: bool) -> Plan {
    let base = plan(16, 2, schedule, ZeroStage::Zero);
    Plan { virtual_pipeline: 2, expert: 8, expert_tensor: Some(1), pair_overlap, ..base }
}

fn work(micro_batches: u64) -> Workload {
    Workload { sequence_length: 4096, ..workload(micro_batches) }
}

/// Seconds in which the compute stream of rank 0 waits for collectives or is held up by them.
fn exposed(outcome: &Outcome) -> f64 {
    let rank = &outcome.ranks[0];
    let of = |class: Class| {
        rank.idle[class.0 as usize].seconds() + rank.streams[0].busy[class.0 as usize].seconds()
    };
    of(classes::COLLECTIVE_WAIT) + of(classes::COLLECTIVE)
}

/// Further micro-batches are pairs throughout, and hide most of what they exchange.
#[test]
fn exchanges_hide_behind_the_other_pass() {
    let (mixtral, gpus) = (experts(8), cluster("dgx-h100").with_size(4, 8).expect("a size"));
    for kind in [ScheduleKind::DualPipe, ScheduleKind::DualPipeV] {
        let run = |joined, count| play(&mixtral, &gpus, &spread(kind, joined), &work(count));
        let more = |joined| {
            let [few, many] = [16, 32].map(|count| run(joined, count).1);
            [exposed(&many) - exposed(&few), many.end.seconds() - few.end.seconds()]
        };
        let ([hidden, fast], [shown, slow]) = (more(true), more(false));
        assert!(hidden < 0.5 * shown, "{kind:?}: {hidden} of {shown} s");
        // Kernels beside collectives take longer, so that less than all of it is gained. In few micro-batches a V can lose more
        // at its start, where the results of two passes are there when both have ended.
        assert!(fast < slow && slow - fast < shown - hidden, "{kind:?}: {fast}, {slow}");
        let ((lowered, joined), (_, apart)) = (run(true, 16), run(false, 16));
        // Both hold as many passes, and nothing is left.
        let held = 2 + 1 + 2 * u64::from(kind == ScheduleKind::DualPipeV);
        assert_eq!(lowered.schedule.in_flight(0), held);
        for (a, b) in joined.ranks.iter().zip(&apart.ranks) {
            assert_eq!(a.memory.end_by_category, b.memory.end_by_category);
        }
    }
}

#[test]
fn as_much_is_sent_and_computed() {
    let (mixtral, gpus) = (experts(4), free_links(4, 8));
    let run = |joined| {
        let lowered =
            lower(&mixtral, &gpus, &spread(ScheduleKind::DualPipe, joined), &work(8)).expect("legal");
        let mut recorder = Recorder::default();
        let outcome = simulate(&lowered.world, &mut recorder).expect("no deadlock");
        let bytes: u64 = recorder.flows().iter().map(|flow| flow.bytes).sum();
        let computed = [classes::FORWARD, classes::BACKWARD];
        let kernels = recorder.spans().iter().filter(|span| computed.contains(&span.class)).count();
        (bytes, kernels, outcome.operations)
    };
    let (joined, apart) = (run(true), run(false));
    assert_eq!((joined.0, joined.1), (apart.0, apart.1));
    // Events between the streams come on top.
    assert!(joined.2 > apart.2);
}

/// One of the equal ranks stands for all, and every operation through the queue gives the same.
#[test]
fn pairs_fold() -> Result<(), TestCaseError> {
    let (mixtral, gpus) = (experts(4), cluster("dgx-h100").with_size(2, 8).expect("a size"));
    for kind in [ScheduleKind::DualPipe, ScheduleKind::DualPipeV] {
        let plan = Plan { data: 8, ..spread(kind, true) };
        let outcome = both(&mixtral, &gpus, &plan, &Workload { sequence_length: 512, ..workload(6) })?;
        assert!(outcome.folded.folded);
    }
    Ok(())
}

#[test]
fn passes_without_exchanges_are_not_joined() {
    let (gpt, gpus) = (model("gpt2", 8), cluster("dgx-h100"));
    let run = |pair_overlap| {
        let base = plan(2, 4, ScheduleKind::DualPipeV, ZeroStage::One);
        play(&gpt, &gpus, &Plan { virtual_pipeline: 2, pair_overlap, ..base }, &workload(8)).1
    };
    let (joined, apart) = (run(true), run(false));
    assert_eq!((joined.end, joined.operations), (apart.end, apart.operations));
}
