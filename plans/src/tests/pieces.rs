//! Products in pieces beside the transfers of their parts.

use steptime_core::{Outcome, Recorder, simulate};

use super::fixtures::{cluster, free_links, model, plan, play, workload};
use crate::classes;
use crate::error::PlanError;
use crate::lower::lower;
use crate::plan::Plan;
use crate::schedule::ScheduleKind;
use crate::workload::Workload;
use crate::zero::ZeroStage;

fn shared(tensor_pieces: bool) -> Plan {
    let base = plan(1, 1, ScheduleKind::GPipe, ZeroStage::Zero);
    Plan { tensor: 8, sequence_parallel: true, tensor_pieces, ..base }
}

fn long() -> Workload {
    Workload { sequence_length: 8192, ..workload(1) }
}

/// Seconds in which the compute of rank 0 waits for collectives.
fn exposed(outcome: &Outcome) -> f64 {
    outcome.ranks[0].idle[classes::COLLECTIVE_WAIT.0 as usize].seconds()
        + outcome.ranks[0].streams[0].busy[classes::COLLECTIVE.0 as usize].seconds()
        + outcome.ranks[0].idle[classes::COLLECTIVE.0 as usize].seconds()
}

#[test]
fn parts_travel_while_products_run() {
    let llama = model("llama3-8b", 2);
    let dgx = cluster("dgx-h100");
    let run = |pieces| play(&llama, &dgx, &shared(pieces), &long()).1;
    let (whole, pieces) = (run(false), run(true));
    assert!(pieces.end < whole.end, "{:?} {:?}", pieces.end, whole.end);
    assert!(exposed(&pieces) < 0.75 * exposed(&whole), "{} {}", exposed(&pieces), exposed(&whole));
}

/// A block gathers twice and scatters twice in each direction. Forward, the products behind a gather and those before a
/// scatter run in 8 pieces with 7 hops; backward, those behind the two gathers of the results' gradients. Each hop moves an
/// eighth of the tokens.
#[test]
fn as_many_bytes_go_round_the_ring() {
    let llama = model("llama3-8b", 2);
    let gpus = free_links(1, 8);
    let flows = |pieces| {
        let lowered = lower(&llama, &gpus, &shared(pieces), &long()).expect("legal");
        let mut recorder = Recorder::default();
        simulate(&lowered.world, &mut recorder).expect("no deadlock");
        recorder.flows().iter().map(|flow| flow.bytes).collect::<Vec<_>>()
    };
    let (whole, pieces) = (flows(false), flows(true));
    let sum = |flows: &[u64]| flows.iter().sum::<u64>() as f64;
    assert!((sum(&pieces) / sum(&whole) - 1.0).abs() < 1e-6);
    let hop = 8192 * 4096 * 2 / 8;
    let hops = pieces.iter().filter(|bytes| **bytes == hop).count();
    assert_eq!(hops, 2 * (4 + 2) * 7);
    assert_eq!(whole.len() - (pieces.len() - hops), 2 * 6);
}

#[test]
fn pieces_fold_and_need_a_divided_sequence() {
    let llama = model("llama3-8b", 4);
    let gpus = cluster("dgx-a100-80gb").with_size(2, 8).expect("two nodes");
    let base = plan(2, 2, ScheduleKind::OneForwardOneBackward, ZeroStage::One);
    let base = Plan { tensor: 4, sequence_parallel: true, tensor_pieces: true, ..base };
    let (folded, fast) = play(&llama, &gpus, &base, &workload(4));
    let (_, every) = play(&llama, &gpus, &Plan { explicit: true, ..base.clone() }, &workload(4));
    assert!(folded.folded);
    assert_eq!(fast.end, every.end);
    let whole = Plan { sequence_parallel: false, ..base };
    assert!(matches!(lower(&llama, &gpus, &whole, &workload(4)), Err(PlanError::Tensor { .. })));
}
