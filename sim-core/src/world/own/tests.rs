//! Which transfers are alone on a rank's links, against counting.

use proptest::prelude::*;

use super::{Order, WIDTH, Watched};
use crate::engine::simulate;
use crate::observer::NoObserver;
use crate::program::{Channel, Class, Event, Kind, Program, ProgramBuilder, Stream};
use crate::time::SimTime;
use crate::world::{Group, LinkUse, RankSpec, World, WorldBuilder};

/// What a rank does between two sums of its own.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    /// It sends to its neighbour what the first sum gave.
    SendsAfter,
    /// It sends beside the first sum.
    SendsBeside,
}

/// A rank that sums twice, 100 bytes each at 1 byte/ps over its link, and in between sends 50 over the same link at half
/// of its rate; its neighbour is there after `late`. `others` says whether the neighbour uses the link for itself too.
fn world(between: Between, late: u64, others: bool) -> World {
    let time = SimTime::from_picos;
    let program = |first: bool| {
        let mut b = ProgramBuilder::new("p");
        let label = b.label("x");
        let (compute, sends) = (b.stream("compute"), b.stream("sends"));
        let (sums, pair) = (b.channel("sums"), b.channel("pair"));
        let meet = |b: &mut ProgramBuilder, stream: Stream, channel, bytes| {
            b.rendezvous(stream, channel, Class(1), Class(2), label, time(0), bytes);
        };
        let after = |b: &mut ProgramBuilder, event: Event| b.wait(sends, event);
        if !first {
            b.kernel(sends, Class(0), label, time(late), time(0));
        }
        let before = b.record(compute);
        if first {
            meet(&mut b, compute, sums, 100);
        }
        let summed = b.record(compute);
        after(&mut b, if between == Between::SendsAfter { summed } else { before });
        meet(&mut b, sends, pair, 50);
        b.kernel(compute, Class(0), label, time(500), time(0));
        meet(&mut b, compute, sums, 100);
        b.build().unwrap()
    };
    let mut w = WorldBuilder::new();
    let (one, two) = (w.program(program(true)), w.program(program(false)));
    let (out, way) = (w.link("out", 1e12, time(0)), w.link("way", 5e11, time(0)));
    let far = if others { out } else { w.link("far", 1e12, time(0)) };
    let path = |links: &[_]| links.iter().map(|&link| LinkUse { link, weight: 1 }).collect();
    let (own, pair) = (w.group(1, path(&[out])), w.group(2, path(&[out, way])));
    let theirs = w.group(1, path(&[far]));
    w.rank(RankSpec { program: one, groups: vec![own, pair], ..RankSpec::default() });
    w.rank(RankSpec { program: two, groups: vec![theirs, pair], ..RankSpec::default() });
    w.build().unwrap()
}

fn played(world: &World) -> (u64, u64) {
    let outcome = simulate(world, &mut NoObserver).unwrap();
    (outcome.ranks[0].end.picos(), outcome.events)
}

#[test]
fn a_sum_is_alone_where_what_came_before_is_over() {
    let world = world(Between::SendsAfter, 0, false);
    assert_eq!(world.groups()[0].own_rate, Some(1e12));
    // Its neighbour takes part in the other: that is not its own, whoever else uses its links.
    assert_eq!(world.groups()[1].own_rate, None);
    // The transfer starts and ends by events, and so does the second sum, which its rank gets to before the neighbour has
    // been looked at; the first does not.
    assert_eq!(played(&world), (700, 4));
}

#[test]
fn a_sum_shares_its_link_with_what_was_issued_before_and_is_under_way() {
    // The neighbour is there at 550. The second sum starts at 600 with 25 bytes of the transfer left, which take 50, and in
    // which it has half of its rate.
    let world = world(Between::SendsAfter, 550, false);
    assert_eq!(world.groups()[0].own_rate, Some(1e12));
    assert_eq!(played(&world).0, 600 + 50 + 75);
}

#[test]
fn a_sum_that_something_may_join_is_never_alone() {
    let beside = world(Between::SendsBeside, 0, false);
    assert_eq!(beside.groups()[0].own_rate, None);
    assert_eq!(played(&beside).0, 150 + 500 + 100);
    assert_eq!(world(Between::SendsAfter, 0, true).groups()[0].own_rate, None);
}

/// What a rank writes that has three channels to itself and two streams.
type Writes<'a> =
    &'a dyn Fn(&mut ProgramBuilder, [Stream; 2], &mut dyn FnMut(&mut ProgramBuilder, Stream, usize, u64));

/// Ranks of such programs, each with a group of one member for every channel, on the rank's own links of these numbers.
/// Returns, by rank and channel, whether the groups are alone where what was issued before is over.
fn alone(programs: &[Writes<'_>], ranks: &[(u32, [usize; 3])], parts: u32) -> Vec<[bool; 3]> {
    let mut w = WorldBuilder::new();
    for writes in programs {
        let mut b = ProgramBuilder::new("p");
        let label = b.label("x");
        let streams = [b.stream("one"), b.stream("two")];
        let channels = ["a", "b", "c"].map(|name| b.channel(name));
        writes(&mut b, streams, &mut |b, stream, channel, bytes| {
            let fixed = SimTime::ZERO;
            b.rendezvous(stream, channels[channel], Class(1), Class(2), label, fixed, bytes);
        });
        w.program(b.build().unwrap());
    }
    for &(program, links) in ranks {
        let own = [0, 1, 2].map(|_| w.link("own", 1e12, SimTime::ZERO));
        let groups =
            links.map(|link| w.divided_group(1, vec![LinkUse { link: own[link], weight: 1 }], parts));
        w.rank(RankSpec { program, groups: groups.to_vec(), ..RankSpec::default() });
    }
    let world = w.build().unwrap();
    let of_rank = |groups: &[Group]| [0, 1, 2].map(|channel| groups[channel].own_rate.is_some());
    world.groups().chunks(3).map(of_rank).collect()
}

/// Ranks of one program with links alike are looked at once, and no others.
#[test]
fn each_program_and_way_is_looked_at() {
    let in_turn: Writes<'_> = &|b, [one, _], send| {
        for channel in [0, 1, 0] {
            send(b, one, channel, 100);
        }
    };
    // The third channel's transfers may begin at any time.
    let third_beside: Writes<'_> = &|b, [one, two], send| {
        for channel in [0, 1, 0] {
            send(b, one, channel, 100);
        }
        send(b, two, 2, 100);
        send(b, one, 0, 100);
    };
    let beside: Writes<'_> = &|b, [one, two], send| {
        send(b, one, 0, 100);
        send(b, two, 1, 100);
        send(b, one, 0, 100);
    };
    let (yes, no) = ([true, true, false], [false; 3]);
    let (shared, apart) = ([0, 0, 0], [0, 0, 1]);
    let programs = [in_turn, third_beside, beside];
    let ranks = [(0, shared), (2, shared), (0, shared), (1, apart), (1, shared), (1, apart)];
    assert_eq!(alone(&programs, &ranks, 1), [yes, no, yes, yes, no, yes]);
    // Halves are exact, thirds are not.
    assert_eq!(alone(&[in_turn], &[(0, shared)], 2), [yes]);
    assert_eq!(alone(&[in_turn], &[(0, shared)], 3), [no]);
}

/// What an event says to be over is over; transfers of nothing are beside nobody.
#[test]
fn events_put_transfers_in_order_and_empty_ones_need_none() {
    let ordered = |waits_for: usize| {
        move |b: &mut ProgramBuilder,
              [one, two]: [Stream; 2],
              send: &mut dyn FnMut(&mut ProgramBuilder, Stream, usize, u64)| {
            let before = b.record(one);
            send(b, one, 0, 100);
            let events = [before, b.record(one)];
            b.wait(two, events[waits_for]);
            send(b, two, 1, 100);
            let last = b.record(two);
            b.wait(one, last);
            send(b, one, 0, 100);
        }
    };
    let empty: Writes<'_> = &|b, [one, two], send| {
        send(b, one, 0, 100);
        send(b, one, 1, 100);
        send(b, two, 1, 0);
    };
    let (yes, no) = ([true, true, false], [false, false, false]);
    let ranks = [(0, [0; 3]), (1, [0; 3]), (2, [0; 3])];
    let programs: [Writes<'_>; 3] = [&ordered(1), &ordered(0), empty];
    let found = alone(&programs, &ranks, 1);
    assert_eq!((found[0], found[2]), (yes, yes));
    assert_ne!(found[1], yes);
    assert_eq!(found[1][2], no[2]);
}

/// The same by counts: how many rendezvous of a watched channel are over where a stream, the host or an event is.
fn overtaken_by_counts(program: &Program, it: &Watched) -> bool {
    let (mut streams, mut host, mut events) = (vec![0; program.streams().len()], 0, Vec::new());
    let (mut met, mut overtaken) = (0, false);
    for record in program.in_order() {
        let stream = usize::from(record.stream);
        let event = |events: &Vec<u32>| events[events.len() - record.index as usize];
        match record.kind {
            Kind::Rendezvous if record.bytes() > 0 => {
                if it.beside.contains(&record.channel()) {
                    overtaken |= host.max(streams[stream]) < met;
                }
                if it.channel == record.channel() {
                    met += 1;
                    streams[stream] = met;
                }
            }
            Kind::Record => events.push(host.max(streams[stream])),
            Kind::Wait => streams[stream] = streams[stream].max(event(&events)),
            Kind::HostSync => host = host.max(streams[stream]),
            Kind::HostWait => host = host.max(event(&events)),
            Kind::Rendezvous | Kind::Host | Kind::Kernel | Kind::Alloc | Kind::Free => {}
        }
    }
    overtaken
}

/// Parts that find what they found before are not looked at again, unless they wait for what was before them. By letters:
/// `a` and `c` send on the first stream and `b` on the second, `r` records an event of the first; of those behind it `y`,
/// `z` and `w` wait on the second, and of `x` the event is between two transfers.
#[test]
fn parts_that_come_again_leave_what_they_left() {
    let overtaken = |letters: &str| {
        let mut p = ProgramBuilder::without_memory("p");
        let label = p.label("x");
        let [one, two] = ["one", "two"].map(|name| p.stream(name));
        let [a, b, c] = ["a", "b", "c"].map(|name| p.channel(name));
        let mut events = vec![p.record(one)];
        for letter in letters.chars() {
            p.place();
            let send = |p: &mut ProgramBuilder, stream: Stream, channels: &[Channel]| {
                for &channel in channels {
                    p.rendezvous(stream, channel, Class(1), Class(2), label, SimTime::ZERO, 1);
                }
            };
            let last = events[events.len() - 1];
            match letter {
                'a' => send(&mut p, one, &[a]),
                'b' => send(&mut p, two, &[b]),
                'c' => send(&mut p, one, &[c]),
                'r' => events.push(p.record(one)),
                'x' => {
                    send(&mut p, one, &[a]);
                    events.push(p.record(one));
                    send(&mut p, one, &[a]);
                }
                'z' => {
                    events.push(p.record(two));
                    p.wait(two, last);
                }
                'w' => {
                    send(&mut p, one, &[c, c]);
                    p.wait(two, last);
                }
                _ => p.wait(two, last),
            }
        }
        let program = p.build().unwrap();
        let watched = [0, 2].map(|channel| Watched { channel, beside: vec![1] });
        let found = Order::overtaken(&program, 3, &watched);
        let counted: Vec<bool> = watched.iter().map(|it| overtaken_by_counts(&program, it)).collect();
        assert_eq!(found, counted, "{letters}");
        found[0]
    };
    assert!(!overtaken("aryaryarayryb"));
    assert!(overtaken("aryaryayb"));
    assert!(overtaken("aarayb"));
    assert!(!overtaken("cacacraayrzb"));
    overtaken("cacacraayb");
    assert!(overtaken("xxxyb"));
    assert!(overtaken("axxxyb"));
    assert!(overtaken("arzarzazb"));
    assert!(overtaken("arwarwarwawb"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

    /// Bits say what counts do, of programs whose rounds come again and of more channels than a word has bits.
    #[test]
    fn what_is_overtaken_is_what_counting_finds(
        parts in prop::collection::vec(prop::collection::vec((0_u8..20, 0_u8..3, 0_u16..70, 1_u32..4), 1..12), 1..4),
        order in prop::collection::vec(0_usize..6, 1..14),
        few in any::<bool>(),
        beside in prop::collection::vec(prop::collection::vec((0_usize..14).prop_map(|it| it * 5), 0..2), 70),
    ) {
        let mut b = ProgramBuilder::without_memory("p");
        let label = b.label("x");
        let streams = ["one", "two", "three"].map(|name| b.stream(name));
        let channels: Vec<_> = (0..70).map(|_| b.channel("c")).collect();
        let first = b.record(streams[0]);
        let mut last = vec![first; 4];
        let mut recorded = 1;
        // What is written again is kept once; some of it is what was there before, as it is.
        let mut passages = vec![None; parts.len()];
        for which in order {
            let number = which % parts.len();
            if let Some((passage, events)) = passages[number].as_ref().filter(|_| which >= 3) {
                b.repeat_as_it_is(passage);
                recorded += events;
                last.extend((recorded - events..recorded).map(Event));
                continue;
            }
            let (place, before) = (b.place(), recorded);
            for &(what, stream, channel, back) in &parts[number] {
                let stream = streams[usize::from(stream)];
                // Most waits are for what the part has recorded, of which there may be nothing.
                let own = (recorded > before).then(|| last[last.len() - 1]);
                let event = if what < 7 && number > 0 { Some(last[last.len() - back as usize]) } else { own };
                match (what, event) {
                    (0..=3, _) => {
                        last.push(b.record(stream));
                        recorded += 1;
                    }
                    (4..=8, Some(event)) => b.wait(stream, event),
                    (9 | 10, Some(event)) => b.host_wait(event),
                    (11, _) => b.host_sync(stream),
                    _ => {
                        // Few channels, each on one stream in most parts, so that much is in order.
                        let number = if few { usize::from(channel % 2) * 5 } else { usize::from(channel / 5 * 5) };
                        let stream = if back == 3 { stream } else { streams[number % 3] };
                        let (channel, bytes) = (channels[number], u64::from(what % 8));
                        b.rendezvous(stream, channel, Class(1), Class(2), label, SimTime::ZERO, bytes);
                    }
                }
            }
            passages[number] = Some((b.passage(place), recorded - before));
        }
        let program = b.build().unwrap();
        let watched: Vec<Watched> = beside.into_iter().enumerate().map(|(channel, mut beside)| {
            if few {
                for other in &mut beside {
                    *other %= 10;
                }
            }
            beside.retain(|other| *other != channel);
            beside.push(channel);
            Watched { channel, beside }
        }).collect();
        let found: Vec<bool> =
            watched.chunks(WIDTH).flat_map(|watched| Order::overtaken(&program, 70, watched)).collect();
        let counted: Vec<bool> = watched.iter().map(|it| overtaken_by_counts(&program, it)).collect();
        prop_assert_eq!(found, counted);
    }
}
