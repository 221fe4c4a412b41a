//! How ZeRO 3 fetches: units, amounts, what stays whole; bytes by closed forms.

use steptime_clusters::{Fabric, FabricKind};
use steptime_core::{Outcome, Recorder, simulate};

use super::fixtures::{cluster, model, plan, workload};
use crate::classes;
use crate::fetch::{BackwardPrefetch, ByValues, Fetch};
use crate::lower::{Lowered, lower, lower_sizes, lower_times};
use crate::plan::Plan;
use crate::recompute::Checkpointing;
use crate::schedule::ScheduleKind;
use crate::workload::Workload;
use crate::zero::ZeroStage;

const LAYERS: i64 = 4;

fn sharded() -> Plan {
    plan(8, 1, ScheduleKind::GPipe, ZeroStage::Three)
}

fn fetching(fetch: Fetch) -> Plan {
    Plan { fetch, ..sharded() }
}

/// Flows and bytes of a step of two micro-batches of Llama on ports of equal speed, and how it went.
fn played(plan: &Plan) -> (usize, f64, Outcome) {
    let llama = model("llama3-8b", LAYERS);
    let mut dgx = cluster("dgx-h100");
    dgx.fabric = Fabric::flat(FabricKind::NvSwitch, dgx.fabric.bandwidth);
    let lowered = lower(&llama, &dgx, plan, &workload(2)).expect("legal");
    let mut recorder = Recorder::default();
    let outcome = simulate(&lowered.world, &mut recorder).expect("no deadlock");
    let flows = recorder.flows();
    (flows.len(), flows.iter().map(|flow| flow.bytes as f64).sum(), outcome)
}

/// 2 bytes of each of the parameters, 7/8 of which pass a port when they are gathered or scattered.
fn once() -> f64 {
    2.0 * model("llama3-8b", LAYERS).parameters() as f64 * 7.0 / 8.0
}

fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-4, "{found} against {expected}");
}

#[test]
fn blocks_of_a_unit_are_gathered_and_reduced_together() {
    let (flows, bytes, alone) = played(&sharded());
    let (fewer, same, pairs) = played(&fetching(Fetch { unit: 2, ..Fetch::default() }));
    // Embedding, 4 blocks, head: two gathers and a reduction of each in each of two micro-batches.
    assert_eq!((flows, fewer), (2 * 3 * 6, 2 * 3 * 4));
    close(bytes, 6.0 * once());
    close(same, bytes);
    let buffers = |outcome: &Outcome| outcome.ranks[0].memory.peak_by_category[classes::BUFFERS.0 as usize];
    assert!(buffers(&pairs) > buffers(&alone));
}

/// DeepSpeed keeps whole what is used again soon: with room for everything backward gathers nothing.
#[test]
fn what_stays_whole_is_not_gathered_again() {
    let by_values = |ahead, live, reuse| {
        fetching(Fetch { by_values: Some(ByValues { ahead, live, reuse }), ..Fetch::default() })
    };
    let everything = 1 << 40;
    close(played(&by_values(0, 0, 0)).1, 6.0 * once());
    let (_, kept, outcome) = played(&by_values(everything, everything, everything));
    close(kept, 4.0 * once());
    let whole = 2 * model("llama3-8b", LAYERS).parameters();
    assert!(outcome.ranks[0].memory.peak_by_category[classes::BUFFERS.0 as usize] >= whole);
    // Nothing is used between the head's forward and its backward: it stays whatever the reuse.
    let head = 4096 * (128_256 + 1);
    let (_, last, _) = played(&by_values(0, everything, 0));
    close(last, 6.0 * once() - 2.0 * 2.0 * f64::from(head) * 7.0 / 8.0);
}

/// Two norms of 4,096 values a block and one before the head stay whole: 9 x 4,096 values, gathered once after the update.
#[test]
fn small_parameters_stay_whole() {
    let small = 9 * 4096_u64;
    let persistent = fetching(Fetch { persistent_below: 100_000, ..Fetch::default() });
    let llama = model("llama3-8b", LAYERS);
    let states = |plan: &Plan| {
        let dgx = cluster("dgx-h100");
        lower(&llama, &dgx, plan, &workload(1)).expect("legal").stages[0].states.parameters
    };
    let rest = llama.parameters() - small;
    assert_eq!(states(&persistent), 2 * (rest.div_ceil(8) + small));
    let gathered = 2.0 * small as f64 * 7.0 / 8.0;
    close(played(&persistent).1, 6.0 * once() - 4.0 * gathered + gathered);
}

#[test]
fn prefetch_hides_what_is_asked_for_early() {
    let end = |fetch| played(&fetching(fetch)).2.end;
    let of = |backward| end(Fetch { backward, ..Fetch::default() });
    let [before, after, never] =
        [BackwardPrefetch::Before, BackwardPrefetch::After, BackwardPrefetch::None].map(of);
    assert!(before <= after && after <= never && before < never, "{before:?} {after:?} {never:?}");
    let free = end(Fetch { limited: false, ..Fetch::default() });
    assert!(free <= before);
    assert!(end(Fetch { forward_ahead: true, ..Fetch::default() }) <= before);
}

/// DeepSpeed's default asks for less than a block of this model has: a block is on its way behind each layer all the same.
#[test]
fn a_prefetch_smaller_than_a_block_asks_for_a_block() {
    let ahead = |ahead, live| {
        let by_values = Some(ByValues { ahead, live, reuse: 0 });
        played(&fetching(Fetch { by_values, ..Fetch::default() })).2
    };
    let everything = 1 << 40;
    let [never, usual, block] = [0, ByValues::USUAL.ahead, 218_000_000].map(|it| ahead(it, everything));
    assert!(usual.end < never.end);
    assert_eq!(usual.end, block.end);
    // Nothing is asked for where more values are whole than may be.
    assert_eq!(ahead(ByValues::USUAL.ahead, 0).end, ahead(0, 0).end);
    // Where more is on its way, more memory is taken.
    let buffers = |outcome: &Outcome| outcome.ranks[0].memory.peak_by_category[classes::BUFFERS.0 as usize];
    assert!(buffers(&usual) < buffers(&ahead(everything, everything)));
}

#[test]
fn buckets_join_reductions_and_split_gathers() {
    // One reduction a micro-batch instead of six.
    let (flows, bytes, _) = played(&Plan { bucket_bytes: Some(1 << 50), ..sharded() });
    assert_eq!(flows, 2 * (2 * 6 + 1));
    close(bytes, 6.0 * once());
    // Nothing beside what waits for each reduction.
    let inline = played(&Plan { gradient_overlap: false, ..sharded() }).2.end;
    assert!(inline > played(&sharded()).2.end);
    let one = plan(8, 1, ScheduleKind::GPipe, ZeroStage::One);
    let whole = 2 * model("llama3-8b", LAYERS).parameters();
    let pieces = Plan { gather_bucket_bytes: Some(whole / 10), ..one.clone() };
    let ((all, sent, quick), (more, same, slow)) = (played(&one), played(&pieces));
    assert_eq!(more - all, 9);
    close(same, sent);
    assert!(slow.end >= quick.end);
}

/// Nine parameters a block, the embedding, the last norm and the output: gathered twice and reduced once, each by itself.
#[test]
fn lists_hold_one_parameter() {
    let lists = Fetch { lists: true, ..Fetch::default() };
    let (flows, bytes, outcome) = played(&fetching(lists));
    let parameters = 9 * LAYERS as usize + 3;
    assert_eq!(flows, 2 * 3 * parameters);
    close(bytes, 6.0 * once());
    assert!(outcome.end > played(&sharded()).2.end);
    // Small parameters stay whole; their gradients are reduced by themselves all the same.
    let small = played(&fetching(Fetch { persistent_below: 100_000, ..lists })).0;
    assert_eq!(small, 2 * (2 * (parameters - 9) + parameters) + 1);
}

/// With recomputation a parameter of a block is gathered once more unless little is used before backward needs it again.
#[test]
fn lists_give_back_what_backward_uses_late() {
    let llama = model("llama3-8b", LAYERS);
    let work = Workload { checkpointing: Checkpointing::Full, ..workload(1) };
    let flows = |reuse| {
        let by_values = Some(ByValues { ahead: 0, live: 0, reuse });
        let plan = fetching(Fetch { lists: true, by_values, ..Fetch::default() });
        let lowered = lower(&llama, &cluster("dgx-h100"), &plan, &work).expect("legal");
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        recorder.flows().len()
    };
    let once = flows(u64::MAX);
    // Nothing lies behind a block's last parameter.
    assert_eq!(flows(0), once + 8 * LAYERS as usize);
    let last = 4096 * 14336;
    assert_eq!(flows(2 * last), once + 7 * LAYERS as usize);
}

/// The copies of a thousand ranks' parts do not hold the host up, whether memory is accounted for or not.
#[test]
fn lists_of_many_ranks_take_as_long_with_memory() {
    let llama = model("llama3-8b", 2);
    let mut dgx = cluster("dgx-h100");
    dgx.nodes = 128;
    let fetch = Fetch { lists: true, by_values: Some(ByValues::USUAL), ..Fetch::default() };
    let plan = Plan { data: 1024, fetch, ..sharded() };
    let end = |lowered: Lowered| simulate(&lowered.world, &mut Recorder::default()).expect("no deadlock").end;
    let times = end(lower_times(&llama, &dgx, &plan, &workload(1)).expect("legal"));
    let sizes = end(lower_sizes(&llama, &dgx, &plan, &workload(1)).expect("legal"));
    assert_eq!(times, sizes);
}
