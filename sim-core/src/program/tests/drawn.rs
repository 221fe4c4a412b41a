//! Drawn programs: kept once and written out they are the same, and what runs side by side loses what it shares.

use proptest::prelude::*;

use super::*;
use crate::engine::simulate;
use crate::observer::{Recorder, SpanKind};
use crate::world::{RankSpec, WorldBuilder};

/// What a rank does; streams and channels are counted from 0.
#[derive(Clone, Copy, Debug)]
enum Act {
    Host(u64),
    Kernel {
        stream: u8,
        time: u64,
        issue: u64,
        by_memory: bool,
    },
    Record(u8),
    /// Waits for the event so many back, by a stream or the host.
    Wait {
        stream: Option<u8>,
        back: usize,
    },
    Meet {
        stream: u8,
        channel: u16,
        fixed: u64,
        bytes: u64,
        noted: bool,
    },
    Sync(u8),
}

const STREAMS: u8 = 3;
const CHANNELS: u16 = 2;

fn act() -> impl Strategy<Value = Act> {
    let stream = || 0..STREAMS;
    prop_oneof![
        1 => (0_u64..20).prop_map(Act::Host),
        5 => (stream(), 0_u64..60, 0_u64..4, any::<bool>())
            .prop_map(|(stream, time, issue, by_memory)| Act::Kernel { stream, time, issue, by_memory }),
        2 => stream().prop_map(Act::Record),
        3 => (prop::option::of(stream()), 0_usize..5).prop_map(|(stream, back)| Act::Wait { stream, back }),
        3 => (stream(), 0..CHANNELS, 0_u64..90, 0_u64..3, any::<bool>())
            .prop_map(|(stream, channel, fixed, bytes, noted)| Act::Meet { stream, channel, fixed, bytes, noted }),
        1 => stream().prop_map(Act::Sync),
    ]
}

/// A builder with three streams, two channels and a label.
fn named(mut builder: ProgramBuilder) -> ProgramBuilder {
    for name in ["compute", "one", "two"] {
        builder.stream(name);
    }
    for name in ["first", "second"] {
        builder.channel(name);
    }
    builder.label("x");
    builder
}

/// An event that a stretch waits for: one of its own by its number in it, or one from before. None, if there was none when
/// it was written first.
#[derive(Clone, Copy)]
enum Awaited {
    Own(usize),
    Before(Event),
}

/// Writes a stretch of which it is known what it waits for, or finds that out.
fn write(
    b: &mut ProgramBuilder,
    acts: &[Act],
    events: &mut Vec<Event>,
    awaited: Option<&[Option<Awaited>]>,
) -> Vec<Option<Awaited>> {
    let (begin, label) = (events.len(), Label(0));
    let mut found = Vec::new();
    for act in acts {
        match *act {
            Act::Host(time) => b.host(SimTime(time), Class(0), label),
            Act::Kernel { stream, time, issue, by_memory } => {
                b.kernel(Stream(stream), Class(1), label, SimTime(time), SimTime(issue));
                if by_memory {
                    b.limited_by_memory();
                }
            }
            Act::Record(stream) => events.push(b.record(Stream(stream))),
            Act::Wait { .. } if awaited.map_or(events.is_empty(), |known| known[found.len()].is_none()) => {
                found.push(None);
            }
            Act::Wait { stream, back } => {
                let number = events.len() - 1 - back % events.len();
                let chosen = match awaited.and_then(|known| known[found.len()]) {
                    Some(known) => known,
                    None if number < begin => Awaited::Before(events[number]),
                    None => Awaited::Own(number - begin),
                };
                found.push(Some(chosen));
                let event = match chosen {
                    Awaited::Own(number) => events[begin + number],
                    Awaited::Before(event) => event,
                };
                match stream {
                    Some(stream) => b.wait(Stream(stream), event),
                    None => b.host_wait(event),
                }
            }
            Act::Meet { stream, channel, fixed, bytes, noted } => {
                let (stream, channel) = (Stream(stream), Channel(channel));
                b.rendezvous(stream, channel, Class(2), Class(3), label, SimTime(fixed), bytes);
                if noted {
                    b.note(Note { kind: 1, bytes });
                }
            }
            Act::Sync(stream) => b.host_sync(Stream(stream)),
        }
    }
    found
}

/// A stretch that is known: what it waits for, where it lies, and the events that it records.
type Known = (Vec<Option<Awaited>>, Passage, usize);

/// A kernel or a transfer that runs: whether it is a transfer, its channel, whether memory limits it, start and end.
type Busy = (bool, usize, bool, u64, u64);

/// A program of stretches in an order in which each may come several times: written out, or the first time only.
fn program(builder: ProgramBuilder, stretches: &[Vec<Act>], order: &[usize], again: bool) -> ProgramBuilder {
    let mut b = named(builder);
    let mut events = Vec::new();
    let mut known: Vec<Option<Known>> = vec![None; stretches.len()];
    for at in order.iter().map(|number| number % stretches.len()) {
        match &known[at] {
            Some((_, passage, recorded)) if again => {
                let begin = events.len() as u32;
                events.extend((begin..begin + *recorded as u32).map(Event));
                b.repeat_as_it_is(passage);
            }
            Some((awaited, ..)) => _ = write(&mut b, &stretches[at], &mut events, Some(awaited)),
            None => {
                let (place, before) = (b.place(), events.len());
                let awaited = write(&mut b, &stretches[at], &mut events, None);
                known[at] = Some((awaited, b.passage(place), events.len() - before));
            }
        }
    }
    b
}

/// By stream: how many records stand up to its last rendezvous.
fn up_to_last_meetings(program: &Program) -> Vec<usize> {
    let of_stream = |&place: &u64| {
        let (part, record) = ((place >> 32) as usize, place as u32 as usize);
        match part.checked_sub(1) {
            None => 0,
            Some(part) => {
                let before: usize = program.parts()[..part].iter().map(|it| it.len()).sum();
                before + record - program.parts()[part].first as usize
            }
        }
    };
    program.last_rendezvous().iter().map(of_stream).collect()
}

fn stretches() -> impl Strategy<Value = (Vec<Vec<Act>>, Vec<usize>)> {
    (
        prop::collection::vec(prop::collection::vec(act(), 1..7), 1..4),
        prop::collection::vec(0_usize..4, 1..12),
    )
}

fn assert_same(one: &Program, other: &Program, notes: bool) {
    let steps = |program: &Program| -> Vec<Step> {
        let without = |step| match step {
            Step::Rendezvous { stream, channel, class, label, fixed, bytes, .. } if !notes => {
                Step::Rendezvous { stream, channel, class, label, fixed, bytes, note: None }
            }
            step => step,
        };
        program.steps().map(without).collect()
    };
    assert_eq!(steps(one), steps(other));
    assert_eq!(
        (one.len(), one.is_empty(), one.launches()),
        (other.len(), other.is_empty(), other.launches())
    );
    assert_eq!(one.launches_by_stream(), other.launches_by_stream());
    assert_eq!(one.waits(), other.waits());
    let uses = |program: &Program| -> Vec<(bool, bool)> {
        program.channel_uses().iter().map(|it| (it.sends, it.overlaps)).collect()
    };
    assert_eq!(uses(one), uses(other));
    for program in [one, other] {
        let last = |stream: u8| {
            let meets = |it: &(usize, Record)| it.1.kind == Kind::Rendezvous && it.1.stream == stream;
            program.in_order().enumerate().filter(meets).last().map_or(0, |(at, _)| at + 1)
        };
        assert_eq!(up_to_last_meetings(program), (0..STREAMS).map(last).collect::<Vec<usize>>());
    }
}

/// A quarter of arithmetic, an eighth of memory, half of the transfer.
const LOAD: Load = Load { bandwidth: 1e12, arithmetic: 250_000, memory: 125_000, transfer: 500_000 };
/// A third, a fifth and a tenth.
const OTHER: Load = Load { bandwidth: 1e12, arithmetic: 333_333, memory: 200_000, transfer: 100_000 };

/// Times of the primary stream's kernels and of all streams' transfers, as they are played when nobody makes the rank wait.
fn played(program: Program) -> Vec<(Stream, bool, u64, u64)> {
    let mut world = WorldBuilder::new();
    let channels = program.channels().len();
    let program = world.program(program);
    let groups = (0..channels).map(|_| world.group(1, Vec::new())).collect();
    world.rank(RankSpec { program, groups, ..RankSpec::default() });
    let mut recorder = Recorder::new();
    simulate(&world.build().unwrap(), &mut recorder).unwrap();
    let of_streams = recorder.spans().iter().filter_map(|it| {
        let transfer = it.kind != SpanKind::Kernel;
        it.stream.map(|stream| (stream, transfer, it.start.0, it.end.0))
    });
    of_streams.collect()
}

proptest! {
    #[test]
    fn stretches_that_come_again_are_what_would_have_been_written((stretches, order) in stretches()) {
        let plain = program(ProgramBuilder::new("p"), &stretches, &order, false);
        let copied = program(ProgramBuilder::new("p"), &stretches, &order, true);
        let once = program(ProgramBuilder::without_memory("p"), &stretches, &order, true);
        prop_assert_eq!((plain.records(), plain.records()), (copied.records(), once.records()));
        let [plain, copied, once] = [plain, copied, once].map(|builder| builder.build().unwrap());
        assert_same(&plain, &copied, true);
        // What keeps no account of memory keeps no notes.
        assert_same(&plain, &once, false);
        assert_same(&plain.repeated(3), &once.repeated(3), false);
        assert_same(&plain.stretched(|_| 1.5), &once.stretched(|_| 1.5), false);
        prop_assert!(once.records().kept.len() <= plain.len());
    }

    #[test]
    fn stretches_that_come_again_lose_what_each_of_them_loses((stretches, order) in stretches()) {
        let loads = [Some(LOAD), Some(OTHER)];
        let contended = |mut builder: ProgramBuilder| {
            builder.contend(&loads);
            builder.build().unwrap()
        };
        let plain = contended(program(ProgramBuilder::new("p"), &stretches, &order, false));
        let copied = contended(program(ProgramBuilder::new("p"), &stretches, &order, true));
        let once = contended(program(ProgramBuilder::without_memory("p"), &stretches, &order, true));
        assert_same(&plain, &copied, true);
        assert_same(&plain, &once, false);
    }

    /// The same where the host is far ahead and each stretch ends with what it has sent, or not: most of them find the same
    /// each time.
    #[test]
    fn stretches_that_nothing_holds_up_lose_what_each_of_them_loses(
        (stretches, order) in stretches(),
        joined in prop::collection::vec(any::<bool>(), 4),
        long in 0_u64..400,
        (waiting, late) in (1..=STREAMS, 0_u64..900),
    ) {
        let closed: Vec<Vec<Act>> = stretches.into_iter().zip(&joined).map(|(acts, joined)| {
            let mut all = vec![Act::Kernel { stream: 0, time: long, issue: 1, by_memory: false }, Act::Record(0)];
            all.extend((1..waiting.min(STREAMS)).map(|stream| Act::Wait { stream: Some(stream), back: 0 }));
            all.extend(acts);
            for stream in (1..STREAMS).filter(|_| *joined) {
                all.extend([Act::Record(stream), Act::Wait { stream: Some(0), back: 0 }]);
            }
            all
        }).collect();
        let loads = [Some(LOAD), Some(OTHER)];
        let contended = |mut builder: ProgramBuilder| {
            // Where its stream has not waited it lies beside what has been written long before.
            let (stream, fixed) = (Stream(STREAMS - 1), SimTime(late));
            builder.rendezvous(stream, Channel(1), Class(2), Class(3), Label(0), fixed, 0);
            builder.contend(&loads);
            builder.build().unwrap()
        };
        let plain = contended(program(ProgramBuilder::new("p"), &closed, &order, false));
        let copied = contended(program(ProgramBuilder::new("p"), &closed, &order, true));
        let once = contended(program(ProgramBuilder::without_memory("p"), &closed, &order, true));
        assert_same(&plain, &copied, true);
        assert_same(&plain, &once, false);
    }

    /// A round of stretches that comes again as one stretch is the round again.
    #[test]
    fn rounds_in_one_stretch_are_what_would_have_been_written((stretches, order) in stretches(), rounds in 1_usize..6) {
        let loads = [Some(LOAD), Some(OTHER)];
        let write = |in_one: bool| {
            let mut b = program(ProgramBuilder::without_memory("p"), &stretches, &order[..1], true);
            let place = b.place();
            let mut known: Vec<Option<(Passage, usize)>> = vec![None; stretches.len()];
            let mut events: Vec<Event> = Vec::new();
            for at in order.iter().map(|number| number % stretches.len()) {
                if let Some((passage, recorded)) = &known[at] {
                    let begin = events.len() as u32;
                    events.extend((begin..begin + *recorded as u32).map(Event));
                    b.repeat_as_it_is(passage);
                } else {
                    let (place, before) = (b.place(), events.len());
                    write(&mut b, &stretches[at], &mut events, None);
                    known[at] = Some((b.passage(place), events.len() - before));
                }
            }
            let passage = if in_one { b.passage_in_one(place) } else { b.passage(place) };
            for _ in 0..rounds {
                b.repeat_as_it_is(&passage);
            }
            b.kernel(Stream(0), Class(1), Label(0), SimTime(5), SimTime(1));
            b.contend(&loads);
            b.build().unwrap()
        };
        assert_same(&write(false), &write(true), true);
    }

    /// Each pair of a primary kernel and another stream's transfer that are played at the same time takes its share.
    #[test]
    fn what_is_played_side_by_side_loses_a_share_of_the_time_together((stretches, order) in stretches()) {
        let without_time = |act: &Act| match *act {
            // A transfer of no length overlaps nothing, and a kernel of none takes no span.
            Act::Kernel { stream, time, issue, by_memory } => Act::Kernel { stream, time: time + 1, issue, by_memory },
            Act::Meet { stream, channel, fixed, noted, .. } =>
                Act::Meet { stream, channel, fixed: fixed + 1, bytes: 0, noted },
            act => act,
        };
        let stretches: Vec<Vec<Act>> = stretches.iter().map(|it| it.iter().map(without_time).collect()).collect();
        let write = || program(ProgramBuilder::new("p"), &stretches, &order, false);
        let before = write().build().unwrap();
        let loads = [LOAD, OTHER];
        let mut builder = write();
        builder.contend(&loads.map(Some));
        let after = builder.build().unwrap();
        let spans = played(before.clone());
        // The spans of a stream come in the order of its records.
        let mut begun = [0_usize; STREAMS as usize];
        let busy: Vec<Option<Busy>> = before.in_order().map(|record| {
            if !matches!(record.kind, Kind::Kernel | Kind::Rendezvous) { return None; }
            let transfer = record.kind == Kind::Rendezvous;
            let own: Vec<_> = spans.iter().filter(|it| it.0.0 == record.stream).collect();
            let (_, _, start, end) = *own[begun[usize::from(record.stream)]];
            begun[usize::from(record.stream)] += 1;
            (transfer != (record.stream == 0)).then_some((transfer, record.channel(), record.is_limited_by_memory(), start, end))
        }).collect();
        let more: Vec<u64> = busy.iter().map(|own| {
            let Some((transfer, channel, by_memory, start, end)) = *own else { return 0 };
            let (mut lost, mut sum) = (0, 0);
            for &(other, its, _, from, to) in busy.iter().flatten().filter(|it| it.0 != transfer) {
                let both = end.min(to).saturating_sub(start.max(from));
                let load = loads[if other { its } else { channel }];
                lost += both * u64::from(if by_memory { load.memory } else { load.arithmetic }) / 1_000_000;
                sum += both;
            }
            if transfer { sum * u64::from(loads[channel].transfer) / 1_000_000 } else { lost }
        }).collect();
        let found: Vec<u64> = after.in_order().zip(before.in_order()).map(|(after, before)| after.time - before.time).collect();
        prop_assert_eq!(found, more);
    }
}
