use super::*;
use crate::time::SimTime;

const NS: SimTime = SimTime(1_000);

#[test]
fn a_record_is_kept_in_8_bytes() {
    assert_eq!((size_of::<Kept>(), size_of::<Record>()), (8, 24));
}

#[test]
fn a_program_keeps_what_it_was_told() {
    let mut b = ProgramBuilder::new("step");
    let (compute, label) = (b.stream("compute"), b.label("gemm"));
    let channel = b.channel("data");
    let weights = b.tensor(40, Category(2), label);
    b.alloc(compute, weights);
    b.kernel(compute, Class(1), label, NS, NS);
    b.rendezvous(compute, channel, Class(2), Class(3), label, NS, (1 << 48) - 1);
    assert_eq!((b.label("gemm"), b.label("other")), (label, Label(1)));
    let program = b.build().unwrap();
    assert_eq!((program.name(), program.len(), program.is_empty()), ("step", 3, false));
    assert_eq!((program.streams(), program.channels()), (&["compute".into()][..], &["data".into()][..]));
    assert_eq!((program.label(label), program.label(Label(9))), ("gemm", ""));
    assert_eq!((program.tensors(), program.tensor_spec(weights).unwrap().bytes), (1, 40));
    let meeting = program.records().at(2);
    assert_eq!((meeting.bytes(), meeting.channel()), ((1 << 48) - 1, 0));
    assert_eq!((program.launches(), program.last_rendezvous()), (2, &[place(1, 3)][..]));
    assert_eq!(program.to_string(), "program step of 3 records on 1 streams");
}

/// Builds with one stream, label, tensor and channel and returns the error as text.
fn error(write: impl FnOnce(&mut ProgramBuilder, Stream, Label, Tensor, Channel)) -> String {
    let mut b = ProgramBuilder::new("p");
    let (stream, label, channel) = (b.stream("s"), b.label("l"), b.channel("c"));
    let tensor = b.tensor(8, Category(0), label);
    write(&mut b, stream, label, tensor, channel);
    b.build().unwrap_err().to_string()
}

#[test]
fn references_to_what_does_not_exist_are_named() {
    let text = error(|b, _, l, _, _| b.kernel(Stream(4), Class(0), l, NS, NS));
    assert_eq!(text, "record 0 of program p names stream 4, which the program does not have");
    let text = error(|b, s, _, _, _| b.kernel(s, Class(0), Label(7), NS, NS));
    assert_eq!(text, "record 0 of program p names label 7, which the program does not have");
    let text = error(|b, s, _, _, _| b.alloc(s, Tensor(3)));
    assert_eq!(text, "record 0 of program p names tensor 3, which the program does not have");
    let text = error(|b, s, l, _, _| b.rendezvous(s, Channel(2), Class(0), Class(0), l, NS, 1));
    assert_eq!(text, "record 0 of program p names channel 2, which the program does not have");
    let text = error(|b, s, l, _, _| b.kernel(s, Class(16), l, NS, NS));
    assert_eq!(text, "program p uses class 16; the last is 15");
    let text = error(|b, _, l, _, _| _ = b.tensor(1, Category(16), l));
    assert_eq!(text, "program p uses category 16; the last is 15");
}

#[test]
fn an_event_is_recorded_before_it_is_waited_for() {
    let text = error(|b, s, _, _, _| {
        b.wait(s, Event(0));
        b.record(s);
    });
    assert_eq!(text, "record 0 of program p waits for event 0, which is not recorded before it");
    let text = error(|b, _, _, _, _| b.host_wait(Event(5)));
    assert_eq!(text, "record 0 of program p waits for event 5, which is not recorded before it");
}

#[test]
fn allocations_and_frees_alternate() {
    let text = error(|b, s, _, t, _| {
        b.alloc(s, t);
        b.alloc(s, t);
    });
    assert_eq!(text, "record 1 of program p allocates tensor \"l\", which is allocated already");
    let text = error(|b, s, _, t, _| b.free(s, t));
    assert_eq!(text, "record 0 of program p frees tensor \"l\", which is not allocated");
    let mut b = ProgramBuilder::new("again");
    let (stream, label) = (b.stream("s"), b.label("l"));
    let tensor = b.tensor(8, Category(0), label);
    for _ in 0..2 {
        b.alloc(stream, tensor);
        b.free(stream, tensor);
    }
    assert!(b.build().is_ok());
}

#[test]
fn what_a_record_cannot_hold_is_refused() {
    let text = error(|b, s, l, _, c| b.rendezvous(s, c, Class(0), Class(0), l, NS, 1 << 48));
    assert_eq!(
        text,
        "record 0 of program p sends 281474976710656 bytes; at most 256 TiB can be sent at once"
    );
    let text = error(|b, _, _, _, _| {
        for _ in 0..256 {
            b.stream("more");
        }
    });
    assert_eq!(text, "program p has too many streams");
    let text = error(|b, _, l, _, _| _ = b.tensor(u64::MAX, Category(0), l));
    assert_eq!(text, "the tensors of program p add up to more than 8 EiB");
}

#[test]
fn a_program_lists_what_it_names() {
    let mut b = ProgramBuilder::new("lists");
    let (gemm, norm) = (b.label("gemm"), b.label("norm"));
    let [first, second, third] = [8, 16, 32].map(|bytes| b.tensor(bytes, Category(1), gemm));
    assert!(ProgramBuilder::new("empty").build().unwrap().is_empty());
    let (compute, copies) = (b.stream("compute"), b.stream("copies"));
    b.kernel(compute, Class(1), norm, NS, NS);
    b.alloc(copies, second);
    b.alloc(compute, first);
    b.free(copies, second);
    b.alloc(compute, third);
    let program = b.build().unwrap();
    assert_eq!(program.labels(), ["gemm", "norm"]);
    assert_eq!((program.tensors(), program.is_empty()), (3, false));
    let requests: Vec<_> = program.memory_requests().collect();
    let expected =
        [(second, copies, false), (first, compute, false), (second, copies, true), (third, compute, false)];
    assert_eq!(requests, expected);
}

/// 10 and 20 of one category, 400 of another: 430 at most, 30 of the first; then the 20 go, and 5 come.
#[test]
fn the_most_that_is_held_is_that_of_the_wanted_tensors() {
    let mut b = ProgramBuilder::new("held");
    let (stream, label) = (b.stream("s"), b.label("l"));
    let [ten, twenty, other, five] =
        [(10, 0), (20, 0), (400, 1), (5, 0)].map(|(bytes, kind)| b.tensor(bytes, Category(kind), label));
    for tensor in [ten, twenty] {
        b.alloc(stream, tensor);
    }
    b.alloc(stream, other);
    b.free(stream, twenty);
    b.alloc(stream, five);
    b.free(stream, ten);
    b.alloc(stream, ten);
    let program = b.build().unwrap();
    assert_eq!(program.most_held(|_| true), 430);
    assert_eq!(program.most_held(|spec| spec.category == Category(0)), 30);
    assert_eq!(program.most_held(|spec| spec.category == Category(1)), 400);
    assert_eq!(program.most_held(|_| false), 0);
}
