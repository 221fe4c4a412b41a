mod drawn;

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

/// 10 and 20 of one category and 400 of another; the 20 go, 5 come, the others go and come again, and 50 come.
#[test]
fn the_most_that_is_held_is_that_of_the_wanted_tensors() {
    let mut b = ProgramBuilder::new("held");
    let (stream, label) = (b.stream("s"), b.label("l"));
    let [ten, twenty, other, five, fifty] = [(10, 0), (20, 0), (400, 1), (5, 0), (50, 0)]
        .map(|(bytes, kind)| b.tensor(bytes, Category(kind), label));
    for tensor in [ten, twenty] {
        b.alloc(stream, tensor);
    }
    b.alloc(stream, other);
    b.free(stream, twenty);
    b.alloc(stream, five);
    b.free(stream, ten);
    b.alloc(stream, ten);
    b.free(stream, other);
    b.alloc(stream, other);
    b.alloc(stream, fifty);
    let program = b.build().unwrap();
    assert_eq!(program.most_held(|_| true), 10 + 5 + 400 + 50);
    assert_eq!(program.most_held(|spec| spec.category == Category(0)), 10 + 5 + 50);
    assert_eq!(program.most_held(|spec| spec.category == Category(1)), 400);
    assert_eq!(program.most_held(|_| false), 0);
}

#[test]
fn a_builder_counts_what_it_was_given() {
    let mut b = ProgramBuilder::new("counts");
    let (stream, label) = (b.stream("s"), b.label("l"));
    let tensor = b.tensor(8, Category(0), label);
    b.kernel(stream, Class(0), label, NS, NS);
    b.alloc(stream, tensor);
    b.free(stream, tensor);
    b.alloc(stream, tensor);
    assert_eq!((b.records(), b.memory_steps(), b.tensor_label(tensor)), (4, 3, Some(label)));
    b.tensor(8, Category(0), label);
    assert_eq!(b.tensors(), 2);
    b.tensor(8, Category(0), label);
    assert_eq!(b.tensors(), 3);
    assert_eq!(b.tensor_label(Tensor(3)), None);
    let mut times = ProgramBuilder::without_memory("times");
    let stream = times.stream("s");
    times.alloc(stream, Tensor(0));
    times.free(stream, Tensor(0));
    assert_eq!((times.records(), times.memory_steps()), (0, 0));
}

/// The first index past the end of each list is as unknown as any later one; the last is known.
#[test]
fn the_first_that_does_not_exist_is_named() {
    let unknown = |what: &str, index: u32| {
        format!("record 0 of program p names {what} {index}, which the program does not have")
    };
    assert_eq!(error(|b, _, l, _, _| b.kernel(Stream(1), Class(0), l, NS, NS)), unknown("stream", 1));
    assert_eq!(error(|b, s, _, _, _| b.kernel(s, Class(0), Label(1), NS, NS)), unknown("label", 1));
    assert_eq!(error(|b, _, _, _, _| b.host(NS, Class(0), Label(1))), unknown("label", 1));
    assert_eq!(error(|b, s, _, _, _| b.alloc(s, Tensor(1))), unknown("tensor", 1));
    assert_eq!(error(|b, _, _, t, _| b.alloc(Stream(1), t)), unknown("stream", 1));
    assert_eq!(error(|b, _, _, _, _| b.host_sync(Stream(1))), unknown("stream", 1));
    let channel = error(|b, s, l, _, _| b.rendezvous(s, Channel(1), Class(0), Class(0), l, NS, 1));
    assert_eq!(channel, unknown("channel", 1));
    let class = "program p uses class 16; the last is 15";
    assert_eq!(error(|b, _, l, _, _| b.host(NS, Class(16), l)), class);
    assert_eq!(error(|b, s, l, _, c| b.rendezvous(s, c, Class(0), Class(16), l, NS, 1)), class);
    let mut b = ProgramBuilder::new("last");
    let (stream, label, channel) = (b.stream("s"), b.label("l"), b.channel("c"));
    b.kernel(stream, Class(15), label, NS, NS);
    b.rendezvous(stream, channel, Class(15), Class(15), label, NS, 0);
    let tensor = b.tensor(i64::MAX as u64, Category(15), label);
    b.alloc(stream, tensor);
    assert_eq!(b.build().unwrap().launches(), 2);
    // One byte more than tensors may have together.
    let text = error(|b, _, l, _, _| _ = b.tensor(i64::MAX as u64 - 7, Category(0), l));
    assert_eq!(text, "the tensors of program p add up to more than 8 EiB");
}

/// Records are counted over the whole program, whichever stretches of it stand once.
#[test]
fn a_fault_is_named_by_its_record_behind_stretches_that_come_again() {
    let mut b = ProgramBuilder::without_memory("p");
    let (stream, label) = (b.stream("s"), b.label("l"));
    b.host(NS, Class(0), label);
    let place = b.place();
    b.kernel(stream, Class(0), label, NS, NS);
    b.kernel(stream, Class(0), label, NS, NS);
    let passage = b.passage(place);
    for _ in 0..3 {
        b.repeat_as_it_is(&passage);
    }
    b.host(NS, Class(0), label);
    assert_eq!(b.records(), 10);
    b.host_wait(Event(0));
    let text = b.build().unwrap_err().to_string();
    assert_eq!(text, "record 10 of program p waits for event 0, which is not recorded before it");
}

/// A passage that makes two tensors and frees one from before, and copies of it. Of the copies the third and later ones are
/// not looked at record by record, and what is wrong in them shows all the same.
#[test]
fn what_is_wrong_in_a_copy_of_many_is_named() {
    // What each copy frees and the name of its kernel, and what is freed at the end; by the first tensors of the passage and
    // of the copies before.
    let copies =
        |outer: &dyn Fn(usize, &[u32]) -> u32, name: &dyn Fn(usize) -> u32, end: &dyn Fn(&[u32]) -> u32| {
            let mut b = ProgramBuilder::new("p");
            let (s, l) = (b.stream("s"), b.label("l"));
            let old = b.tensor(4, Category(0), l);
            b.alloc(s, old);
            let place = b.place();
            let made = [8, 16].map(|bytes| b.tensor(bytes, Category(1), l));
            for tensor in made {
                b.alloc(s, tensor);
            }
            b.kernel(s, Class(1), l, NS, NS);
            b.free(s, old);
            let passage = b.passage(place);
            let mut made = vec![made[0].0];
            for copy in 0..6 {
                let (outer, name) = (Tensor(outer(copy, &made)), Label(name(copy)));
                made.push(b.repeat(&passage, |_| name, |_| l, |_| outer));
            }
            b.free(s, Tensor(end(&made)));
            b.build().map(|program| program.len()).map_err(|error| error.to_string())
        };
    let before = |copy: usize, made: &[u32]| made[copy] + 1;
    let (known, last) = (|_: usize| 0, |made: &[u32]| made[6] + 1);
    assert_eq!(copies(&before, &known, &last), Ok(1 + 7 * 4 + 1));
    let freed =
        |record: usize| format!("record {record} of program p frees tensor \"l\", which is not allocated");
    assert_eq!(copies(&before, &known, &|made| made[5] + 1), Err(freed(29)));
    for copy in [0, 1, 2, 5] {
        let first = 5 + 4 * copy;
        let twice = |at: usize, made: &[u32]| if at == copy { 0 } else { made[at] + 1 };
        assert_eq!(copies(&twice, &known, &last), Err(freed(first + 3)));
        let unknown = |at: usize| u32::from(at == copy);
        let text =
            format!("record {} of program p names label 1, which the program does not have", first + 2);
        assert_eq!(copies(&before, &unknown, &last), Err(text));
        // What the copy makes itself it may free, once.
        let own = |at: usize, made: &[u32]| if at == copy { made[at] + 2 } else { made[at] + 1 };
        assert_eq!(copies(&own, &known, &last), Ok(30));
        assert_eq!(copies(&own, &known, &|made| made[copy + 1]), Err(freed(29)));
    }
}

/// Programs that keep stretches once though nobody said that they come again lose what they lose one by one.
#[test]
fn stretches_that_are_written_alike_lose_each_its_own() {
    let load = Load { bandwidth: 1e12, arithmetic: 250_000, memory: 125_000, transfer: 500_000 };
    let contended = |mut b: ProgramBuilder| {
        let (compute, other, l) = (b.stream("compute"), b.stream("other"), b.label("l"));
        let c = b.channel("c");
        b.rendezvous(other, c, Class(2), Class(3), l, SimTime(50), 0);
        for _ in 0..4 {
            b.place();
            b.kernel(compute, Class(1), l, SimTime(40), SimTime(0));
        }
        b.contend(&[Some(load)]);
        let program = b.build().unwrap();
        program.in_order().map(|it| it.time).collect::<Vec<u64>>()
    };
    let plain = contended(ProgramBuilder::new("p"));
    assert_eq!(plain, [75, 50, 42, 40, 40]);
    assert_eq!(contended(ProgramBuilder::without_memory("p")), plain);
}

/// A number has as many values as its type: the last stream and the last channel are there, one more of either is not.
#[test]
fn streams_and_channels_are_as_many_as_their_numbers() {
    let build = |streams: usize, channels: usize| {
        let mut b = ProgramBuilder::new("p");
        let streams: Vec<Stream> = (0..streams).map(|_| b.stream("s")).collect();
        let channels: Vec<Channel> = (0..channels).map(|_| b.channel("c")).collect();
        let label = b.label("l");
        if let Some(channel) = channels.last() {
            b.rendezvous(*streams.last().unwrap(), *channel, Class(0), Class(0), label, NS, 5);
        }
        b.build().map(|program| match program.steps().last() {
            Some(Step::Rendezvous { stream, channel, bytes, .. }) => (stream.0, channel.0, bytes),
            _ => (0, 0, 0),
        })
    };
    assert_eq!(build(256, 65_536).unwrap(), (255, 65_535, 5));
    assert_eq!(build(257, 1).unwrap_err().to_string(), "program p has too many streams");
    assert_eq!(build(1, 65_537).unwrap_err().to_string(), "program p has too many channels");
}

/// What is said of a kernel or a rendezvous is said of the last record, and of no other kind.
#[test]
fn what_is_said_of_another_kind_of_record_is_not_kept() {
    let mut b = ProgramBuilder::new("p");
    let (stream, label, channel) = (b.stream("s"), b.label("l"), b.channel("c"));
    let note = Note { kind: 1, bytes: 2 };
    b.limited_by_memory();
    b.note(note);
    b.kernel(stream, Class(0), label, NS, NS);
    b.note(note);
    b.rendezvous(stream, channel, Class(0), Class(2), label, NS, 3);
    b.limited_by_memory();
    let program = b.build().unwrap();
    assert_eq!(program.len(), 2);
    assert!(program.in_order().all(|record| !record.is_limited_by_memory()));
    let notes = program.steps().filter(|it| matches!(it, Step::Rendezvous { note: Some(_), .. }));
    assert_eq!(notes.count(), 0);
    // What stands in a stretch that has ended is not changed any more.
    let mut b = ProgramBuilder::without_memory("p");
    let (stream, label) = (b.stream("s"), b.label("l"));
    b.kernel(stream, Class(0), label, NS, NS);
    b.place();
    b.limited_by_memory();
    let program = b.build().unwrap();
    assert_eq!((program.len(), program.in_order().any(|it| it.is_limited_by_memory())), (1, false));
}

#[test]
fn records_go_by_their_own_label_or_their_tensors() {
    let mut b = ProgramBuilder::new("p");
    let (stream, first, second, channel) = (b.stream("s"), b.label("1"), b.label("2"), b.channel("c"));
    let tensor = b.tensor(8, Category(0), second);
    b.host(NS, Class(0), first);
    b.kernel(stream, Class(0), first, NS, NS);
    b.rendezvous(stream, channel, Class(0), Class(0), first, NS, 0);
    b.alloc(stream, tensor);
    b.free(stream, tensor);
    b.record(stream);
    b.host_sync(stream);
    let program = b.build().unwrap();
    let labels: Vec<&str> = program.in_order().map(|it| program.label(program.label_of(&it))).collect();
    assert_eq!(labels, ["1", "1", "1", "2", "2", "", ""]);
}

/// What is written the same between two places is kept once, though nobody said that it comes again.
#[test]
fn stretches_that_are_written_alike_are_kept_once() {
    let mut b = ProgramBuilder::without_memory("p");
    let (stream, labels) = (b.stream("s"), ["one", "two"].map(|text| b.label(text)));
    for number in [0, 1, 0, 0, 1] {
        b.place();
        for label in [labels[number], labels[0]] {
            b.kernel(stream, Class(0), label, NS, NS);
        }
    }
    let program = b.build().unwrap();
    let done: Vec<&str> = program.in_order().map(|it| program.label(Label(it.index))).collect();
    assert_eq!(done, ["one", "one", "two", "one", "one", "one", "one", "one", "two", "one"]);
    assert_eq!((program.len(), program.records().kept.len()), (10, 4));
}

#[test]
fn a_text_has_one_label_however_many_there_are() {
    let mut b = ProgramBuilder::new("p");
    let text = |number: u32| format!("label {number}");
    let labels: Vec<Label> = (0..500).map(|number| b.label(&text(number))).collect();
    // Those of equal beginnings, and the empty one.
    let [short, long, empty] = ["12345678", "123456789", ""].map(|text| b.label(text));
    assert_eq!((short, long, empty), (Label(500), Label(501), Label(502)));
    for (number, label) in (0..).zip(&labels) {
        assert_eq!(b.label(&text(number)), *label);
    }
    assert_eq!([b.label("12345678"), b.label("123456789"), b.label("")], [short, long, empty]);
    let again = b.new_label(text(7));
    let program = b.build().unwrap();
    assert_eq!((program.labels().len(), again), (504, Label(503)));
    assert!((0..).zip(labels).all(|(number, label)| program.label(label) == text(number)));
}
