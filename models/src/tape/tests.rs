//! The derivation of backward, on steps made by hand.

use super::*;

const SHAPE: WorkShape = WorkShape::smallest();

/// Everything before and in the layer is trained.
const fn trace(shape: &WorkShape) -> Trace<'_> {
    Trace { shape, trainable: &Trainable::All, input_needs_gradient: true, lists_parameters: true }
}

/// One kernel forward and one backward over `rows` values of 4 bytes, keeping its input.
fn step(tape: &mut Tape<'_>, names: Names, x: Tensor, rows: u64) -> Tensor {
    let y = tape.activation(names.output, rows, 1);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Elementwise, x.bytes(), y.bytes())],
        reads: &[x],
        saves: &[x],
        inputs: &[x],
        outputs: &[y],
        backward: &[memory(names.grad, MemoryBoundKind::Elementwise, y.bytes(), x.bytes())],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    y
}

fn names_of(operations: &[Operation]) -> Vec<&'static str> {
    operations.iter().map(|operation| operation.name).collect()
}

#[test]
fn backward_is_the_reverse_and_frees_what_it_used() {
    let (mut tape, x) = Tape::start(trace(&SHAPE), 1, 1, 4);
    let y = step(&mut tape, names!("a"), x, 10);
    let z = step(&mut tape, names!("b"), y, 100);
    let work = tape.finish(z).work;
    assert_eq!(names_of(&work.forward), ["a", "b"]);
    assert_eq!(names_of(&work.backward), ["b.grad", "a.grad"]);
    let saved: Vec<_> = work.saved.iter().map(|it| (it.name, it.bytes.0, it.born, it.freed)).collect();
    assert_eq!(saved, [("input", 4, 0, 1), ("a.output", 40, 0, 0)]);
    assert_eq!((work.input, work.output), (Bytes(4), Bytes(400)));
    // Forward makes nothing that is neither kept nor the output; backward holds two neighbouring gradients.
    assert_eq!((work.forward_temporary, work.backward_temporary), (Bytes(0), Bytes(440)));
}

#[test]
fn two_readers_need_one_addition() {
    let (mut tape, x) = Tape::start(trace(&SHAPE), 10, 1, 4);
    let a = step(&mut tape, names!("a"), x, 10);
    let b = step(&mut tape, names!("b"), x, 10);
    let names = names!("add");
    let sum = tape.activation(names.output, 10, 1);
    tape.record(&Step {
        names,
        forward: &[memory(names.op, MemoryBoundKind::Elementwise, 80, 40)],
        reads: &[a, b],
        saves: &[],
        inputs: &[a, b],
        outputs: &[sum],
        backward: &[],
        scratch: 0,
        gradient: Gradient::Passed,
        trains: false,
    });
    let work = tape.finish(sum).work;
    assert_eq!(names_of(&work.backward), ["b.grad", "a.grad", "a.grad_sum"]);
    // The input is kept by both and counted once; the two results live until the sum.
    assert_eq!(work.saved_bytes(), Bytes(40));
    assert_eq!(work.saved[0].freed, 1);
    assert_eq!(work.forward_temporary, Bytes(80));
    // While the two contributions are added: both and their sum.
    assert_eq!(work.backward_temporary, Bytes(120));
}

#[test]
fn steps_that_no_gradient_reaches_are_left_out() {
    let (mut tape, x) = Tape::start(trace(&SHAPE), 10, 1, 4);
    let y = step(&mut tape, names!("a"), x, 10);
    step(&mut tape, names!("logging"), y, 10);
    let work = tape.finish(y).work;
    assert_eq!(names_of(&work.backward), ["a.grad"]);
}

#[test]
fn views_share_memory() {
    let (mut tape, x) = Tape::start(trace(&SHAPE), 10, 2, 4);
    let view = tape.view(x, 20, 1);
    assert_eq!(view.bytes(), x.bytes());
    let y = step(&mut tape, names!("a"), view, 10);
    let y = step(&mut tape, names!("b"), y, 10);
    let work = tape.finish(y).work;
    assert_eq!(work.saved.iter().map(|it| it.bytes.0).collect::<Vec<_>>(), [80, 40]);
}

#[test]
fn without_training_intermediates_are_temporaries() {
    let inference = WorkShape { training: false, ..SHAPE };
    let (mut tape, x) = Tape::start(trace(&inference), 1, 1, 4);
    let y = step(&mut tape, names!("a"), x, 10);
    let y = step(&mut tape, names!("b"), y, 20);
    let work = tape.finish(y).work;
    assert!(work.saved.is_empty() && work.backward.is_empty());
    assert_eq!(work.forward_temporary, Bytes(40));
}

#[test]
fn peaks_count_what_overlaps() {
    let life = |bytes, born, last| Life { name: "a", bytes, born, last };
    assert_eq!(peak(&[], 0), 0);
    assert_eq!(peak(&[life(5, 0, 0), life(7, 1, 2)], 3), 7);
    assert_eq!(peak(&[life(5, 0, 1), life(7, 1, 2)], 3), 12);
    assert_eq!(peak(&[life(u64::MAX, 0, 1), life(7, 1, 2)], 3), u64::MAX);
}

#[test]
fn the_largest_temporaries_have_names() {
    let inference = WorkShape { training: false, ..SHAPE };
    let (mut tape, x) = Tape::start(trace(&inference), 1, 1, 4);
    let mut y = step(&mut tape, names!("first"), x, 1);
    for rows in 10..20 {
        y = step(&mut tape, names!("a"), y, rows);
    }
    let z = step(&mut tape, names!("last"), y, 1);
    let named: Vec<_> =
        tape.finish(z).work.temporaries.iter().map(|it| (it.name, it.bytes.0, it.born, it.freed)).collect();
    assert_eq!(named.len(), 8, "the smallest are left out");
    assert_eq!((named[0], named[7]), (("a.output", 48, 3, 4), ("a.output", 76, 10, 11)));
}

#[test]
fn held_tensors_live_on_and_handed_on_tensors_are_no_temporaries() {
    let inference = WorkShape { training: false, ..SHAPE };
    let (mut tape, x) = Tape::start(trace(&inference), 1, 1, 4);
    let early = step(&mut tape, names!("early"), x, 5);
    let beside = step(&mut tape, names!("beside"), x, 7);
    let y = step(&mut tape, names!("y"), x, 1);
    tape.hold(&[early]);
    let work = tape.finish_with(&[y], &[beside]).work;
    assert_eq!((work.output, work.forward_temporary), (Bytes(4 + 28), Bytes(20)));
    assert_eq!(
        work.temporaries.iter().map(|it| (it.name, it.freed)).collect::<Vec<_>>(),
        [("early.output", 2)]
    );
}

#[test]
fn frozen_steps_before_anything_trained_keep_nothing() {
    let frozen = Trace { input_needs_gradient: false, ..trace(&SHAPE) };
    let (mut tape, x) = Tape::start(frozen, 1, 1, 4);
    let y = step(&mut tape, names!("a"), x, 10);
    let z = step(&mut tape, names!("b"), y, 100);
    assert!(!tape.needs_gradient(z));
    let work = tape.finish(z).work;
    assert!(work.saved.is_empty() && work.backward.is_empty());
    assert_eq!((work.forward.len(), work.backward_temporary), (2, Bytes(0)));
}

#[test]
fn a_gathered_tensor_is_kept_in_part_and_gathered_once_more() {
    let (mut tape, x) = Tape::start(trace(&SHAPE), 10, 1, 4);
    let whole = tape.gathered("whole", x, 3);
    let gather = exchange("gather", ExchangeKind::AllGather, whole.bytes());
    tape.record(&Step {
        names: names!("gather"),
        forward: &[gather],
        reads: &[x],
        saves: &[],
        inputs: &[x],
        outputs: &[whole],
        backward: &[],
        scratch: 0,
        gradient: Gradient::New,
        trains: false,
    });
    let a = step(&mut tape, names!("a"), whole, 30);
    let b = step(&mut tape, names!("b"), whole, 30);
    let both = crate::blocks::add(&mut tape, names!("add"), a, b);
    let work = tape.finish(both).work;
    assert_eq!(work.saved.iter().map(|it| (it.name, it.bytes.0)).collect::<Vec<_>>(), [("input", 40)]);
    assert_eq!(names_of(&work.backward), ["tensor_parallel.gather_again", "b.grad", "a.grad", "a.grad_sum"]);
}
