//! The engine against the player of every operation, on random worlds.

use std::ops::Range;

use proptest::prelude::*;

use super::*;
use crate::{Category, Channel, Event, Place, Stream, Tensor};

/// One step of writing the programs of a world. Indices are taken modulo what exists.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Host {
        rank: u8,
        duration: u64,
        class: u8,
    },
    Kernel {
        rank: u8,
        stream: u8,
        duration: u64,
        issue: u64,
        class: u8,
    },
    Record {
        rank: u8,
        stream: u8,
    },
    Wait {
        rank: u8,
        stream: u8,
        event: u8,
    },
    HostSync {
        rank: u8,
        stream: u8,
    },
    HostWait {
        rank: u8,
        event: u8,
    },
    Allocate {
        rank: u8,
        stream: u8,
        bytes: u64,
    },
    Free {
        rank: u8,
        stream: u8,
        tensor: u8,
    },
    /// All members meet, each on a stream of its own choice.
    Meet {
        group: u8,
        streams: u32,
        fixed: u64,
        bytes: u64,
    },
}

/// A world to be: small times, so that many things happen at once.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) streams: Vec<u8>,
    pub(super) depths: Vec<u32>,
    pub(super) capacities: Vec<Option<u64>>,
    pub(super) links: Vec<(u8, u64)>,
    /// Members as bits, links as bits, weights.
    pub(super) groups: Vec<(u8, u8, u32)>,
    pub(super) steps: Vec<Step>,
    /// The meeting to which a member does not come, and whether all meetings are of one size, so that the
    /// member's next one passes for it and somebody waits at the end.
    pub(super) sabotage: Option<(usize, u8, bool)>,
    /// Steps that all ranks do so many times, and then without account of memory.
    pub(super) rounds: Option<(Range<usize>, u32)>,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (rank, stream, small) = (any::<u8>(), any::<u8>(), 0_u64..5);
    let r = (rank, stream);
    prop_oneof![
        1 => (any::<u8>(), 0_u64..9, 0_u8..6).prop_map(|(rank, duration, class)| {
            Step::Host { rank, duration, class }
        }),
        4 => (r, 0_u64..9, 0_u64..3, 0_u8..6).prop_map(|((rank, stream), duration, issue, class)| {
            Step::Kernel { rank, stream, duration, issue, class }
        }),
        2 => r.prop_map(|(rank, stream)| Step::Record { rank, stream }),
        2 => (r, any::<u8>()).prop_map(|((rank, stream), event)| Step::Wait { rank, stream, event }),
        1 => r.prop_map(|(rank, stream)| Step::HostSync { rank, stream }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(rank, event)| Step::HostWait { rank, event }),
        1 => (r, small.clone()).prop_map(|((rank, stream), bytes)| Step::Allocate { rank, stream, bytes }),
        1 => (r, any::<u8>()).prop_map(|((rank, stream), tensor)| Step::Free { rank, stream, tensor }),
        4 => (any::<u8>(), any::<u32>(), small, prop_oneof![Just(0_u64), 1_u64..30]).prop_map(
            |(group, streams, fixed, bytes)| Step::Meet { group, streams, fixed, bytes }
        ),
    ]
}

fn plan() -> impl Strategy<Value = Plan> {
    (1_usize..=6).prop_flat_map(|ranks| {
        (
            prop::collection::vec(1_u8..=4, ranks),
            prop::collection::vec(prop_oneof![2 => Just(0_u32), 1 => 1_u32..6], ranks),
            prop::collection::vec(prop::option::of(0_u64..8), ranks),
            prop::collection::vec((0_u8..5, 0_u64..3), 0..4),
            prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>()), 0..5),
            prop::collection::vec(step(), 0..60),
            prop_oneof![4 => Just(None), 1 => any::<(usize, u8, bool)>().prop_map(Some)],
        )
            .prop_map(|(streams, depths, capacities, links, groups, steps, sabotage)| Plan {
                streams,
                depths,
                capacities,
                links,
                groups,
                steps,
                sabotage,
                rounds: None,
            })
    })
}

/// Few ranks and streams with little room in flight, which meet often and have much to issue meanwhile: runs of kernels wait
/// behind meetings, places in flight are used again and again, hosts are late and early.
fn crowded() -> impl Strategy<Value = Plan> {
    let stream = any::<u8>();
    let crowd = prop_oneof![
        8 => (any::<u8>(), stream, 0_u64..7, 0_u64..6, 0_u8..6).prop_map(|(rank, stream, duration, issue, class)| {
            Step::Kernel { rank, stream, duration, issue, class }
        }),
        3 => (any::<u32>(), 0_u64..12, prop_oneof![Just(0_u64), 1_u64..9]).prop_map(|(streams, fixed, bytes)| {
            Step::Meet { group: 0, streams, fixed, bytes }
        }),
        2 => step(),
    ];
    (1_usize..=2).prop_flat_map(move |ranks| {
        (
            prop::collection::vec(1_u8..=2, ranks),
            prop::collection::vec(prop_oneof![1 => Just(0_u32), 5 => 1_u32..5], ranks),
            prop::collection::vec(prop::option::of(0_u64..8), ranks),
            prop::collection::vec((0_u8..4, 0_u64..3), 1..3),
            prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>()), 0..3),
            prop::collection::vec(crowd.clone(), 20..90),
        )
            .prop_map(|(streams, depths, capacities, links, mut groups, steps)| {
                // All meet in the first one.
                groups.insert(0, (u8::MAX, u8::MAX, 0));
                Plan { streams, depths, capacities, links, groups, steps, sabotage: None, rounds: None }
            })
    })
}

/// A rank's program in the making.
struct Writer {
    builder: ProgramBuilder,
    streams: Vec<Stream>,
    events: Vec<Event>,
    /// Tensors, and whether they are allocated.
    tensors: Vec<(Tensor, bool)>,
    channels: Vec<(usize, Channel)>,
}

impl Writer {
    fn new(rank: usize, streams: u8, groups: &[(Vec<usize>, bool)], repeats: bool) -> Self {
        let name = format!("program {rank}");
        let mut builder =
            if repeats { ProgramBuilder::without_memory(&name) } else { ProgramBuilder::new(&name) };
        let streams = (0..streams).map(|i| builder.stream(&format!("stream {i}"))).collect();
        let mine = groups.iter().enumerate().filter(|(_, (members, _))| members.contains(&rank));
        let channels = mine.map(|(group, _)| (group, builder.channel("group"))).collect();
        Self { builder, streams, events: Vec::new(), tensors: Vec::new(), channels }
    }

    fn stream(&self, index: u8) -> Stream {
        self.streams[usize::from(index) % self.streams.len()]
    }

    fn write(&mut self, step: &Step, number: usize) {
        let label = self.builder.label(&format!("step {number}"));
        match *step {
            Step::Host { duration, class, .. } => self.builder.host(ps(duration), Class(class), label),
            Step::Kernel { stream, duration, issue, class, .. } => {
                self.builder.kernel(self.stream(stream), Class(class), label, ps(duration), ps(issue));
            }
            Step::Record { stream, .. } => {
                let event = self.builder.record(self.stream(stream));
                self.events.push(event);
            }
            Step::Wait { stream, event, .. } if !self.events.is_empty() => {
                let event = self.events[usize::from(event) % self.events.len()];
                self.builder.wait(self.stream(stream), event);
            }
            Step::HostWait { event, .. } if !self.events.is_empty() => {
                let event = self.events[usize::from(event) % self.events.len()];
                self.builder.host_wait(event);
            }
            Step::HostSync { stream, .. } => self.builder.host_sync(self.stream(stream)),
            Step::Allocate { stream, bytes, .. } => {
                let tensor = self.builder.tensor(bytes, Category(bytes as u8), label);
                self.tensors.push((tensor, true));
                self.builder.alloc(self.stream(stream), tensor);
            }
            Step::Free { stream, tensor, .. } if !self.tensors.is_empty() => {
                let index = usize::from(tensor) % self.tensors.len();
                let stream = self.stream(stream);
                let (tensor, allocated) = &mut self.tensors[index];
                if *allocated {
                    self.builder.free(stream, *tensor);
                } else {
                    self.builder.alloc(stream, *tensor);
                }
                *allocated = !*allocated;
            }
            _ => {}
        }
    }

    /// What was written since a place, before which there were so many events, comes so many times in all.
    fn again(&mut self, (begin, first): (Place, usize), times: u32) {
        let passage = self.builder.passage(begin);
        let recorded = (self.events.len() - first) as u32;
        for _ in 1..times {
            self.builder.repeat_as_it_is(&passage);
        }
        // Those of the last round may be waited for after it.
        let last: Vec<Event> =
            self.events[first..].iter().map(|event| Event(event.0 + (times - 1) * recorded)).collect();
        self.events.extend(last);
        // Whatever comes next has been there since the last round.
        self.builder.place();
    }

    fn meet(&mut self, group: usize, choice: u32, (fixed, bytes): (u64, u64), number: usize) {
        let Some(&(_, channel)) = self.channels.iter().find(|(mine, _)| *mine == group) else {
            return;
        };
        let label = self.builder.label(&format!("meeting {number}"));
        let stream = self.stream(choice as u8);
        self.builder.rendezvous(stream, channel, SEND, WAIT, label, ps(fixed), bytes);
    }
}

fn rank_of(step: &Step) -> u8 {
    match *step {
        Step::Host { rank, .. }
        | Step::Kernel { rank, .. }
        | Step::Record { rank, .. }
        | Step::Wait { rank, .. }
        | Step::HostSync { rank, .. }
        | Step::HostWait { rank, .. }
        | Step::Allocate { rank, .. }
        | Step::Free { rank, .. } => rank,
        Step::Meet { .. } => 0,
    }
}

/// Builds the world. All members issue the meetings in one order, so only sabotage can deadlock it.
pub(super) fn build(plan: &Plan) -> World {
    let ranks = plan.streams.len();
    let mut w = world();
    let rates = [1e12, 2e12, 3e12, 0.7e12, 1e9];
    let links: Vec<_> = plan
        .links
        .iter()
        .map(|&(rate, latency)| w.link("link", rates[usize::from(rate)], ps(latency)))
        .collect();
    let mut groups: Vec<(Vec<usize>, bool)> = Vec::new();
    for &(members, path, weights) in &plan.groups {
        let mut members: Vec<usize> = (0..ranks).filter(|rank| members >> rank & 1 == 1).collect();
        if members.is_empty() {
            members.push(usize::from(path) % ranks);
        }
        let hops = links.iter().enumerate().filter(|(link, _)| path >> link & 1 == 1);
        let path: Vec<_> = hops.map(|(at, &link)| uses(link, 1 + (weights >> (2 * at) & 3))).collect();
        groups.push((members.clone(), !path.is_empty()));
        w.group(members.len() as u32, path);
    }
    let numbered = plan.streams.iter().enumerate();
    let mut writers: Vec<Writer> =
        numbered.map(|(rank, &streams)| Writer::new(rank, streams, &groups, plan.rounds.is_some())).collect();
    let meetings: Vec<usize> =
        (0..plan.steps.len()).filter(|at| matches!(plan.steps[*at], Step::Meet { .. })).collect();
    let mut begins: Vec<(Place, usize)> = Vec::new();
    for (number, step) in plan.steps.iter().enumerate() {
        if plan.rounds.as_ref().is_some_and(|(steps, _)| steps.start == number) {
            let place = |writer: &mut Writer| (writer.builder.place(), writer.events.len());
            begins = writers.iter_mut().map(place).collect();
        }
        match *step {
            Step::Meet { group, streams, fixed, bytes } if !groups.is_empty() => {
                let (group, one_size) =
                    (usize::from(group) % groups.len(), plan.sabotage.is_some_and(|s| s.2));
                let (members, has_path) = &groups[group];
                let (fixed, bytes) = if one_size { (2, 7) } else { (fixed, bytes) };
                let bytes = if *has_path { bytes } else { 0 };
                let sabotage = plan.sabotage.filter(|(at, ..)| meetings[at % meetings.len()] == number);
                let absent = sabotage.map(|(_, who, _)| members[usize::from(who) % members.len()]);
                for &rank in members.iter().filter(|rank| Some(**rank) != absent) {
                    writers[rank].meet(group, streams >> (4 * rank), (fixed, bytes), number);
                }
            }
            Step::Meet { .. } => {}
            _ => writers[usize::from(rank_of(step)) % ranks].write(step, number),
        }
        if let Some((_, times)) = plan.rounds.as_ref().filter(|(steps, _)| steps.end == number + 1) {
            for (writer, begin) in writers.iter_mut().zip(&begins) {
                writer.again(*begin, *times);
            }
        }
    }
    for (rank, writer) in writers.into_iter().enumerate() {
        let listed = writer.channels.iter().map(|(group, _)| GroupId(*group as u32)).collect();
        let program = w.program(writer.builder.build().unwrap());
        w.rank(RankSpec {
            program,
            groups: listed,
            memory_capacity: plan.capacities[rank],
            queue_depth: plan.depths[rank],
            multiplicity: 1,
        });
    }
    w.build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn running_ahead_equals_playing_every_operation(plan in plan()) {
        let world = build(&plan);
        // The comparison is in here, errors included.
        let result = play_both(&world);
        match result {
            Ok((outcome, _)) => {
                let records: usize = world.programs().iter().map(Program::len).sum();
                prop_assert_eq!(outcome.operations, records as u64);
            }
            Err(SimulationError::Deadlock { waiting }) => {
                prop_assert!(plan.sabotage.is_some() && !waiting.is_empty());
                prop_assert!(waiting.is_sorted_by_key(|waiting| waiting.rank));
            }
            // A member that misses a meeting goes to the next with the wrong size.
            Err(SimulationError::Disagreement { .. }) => prop_assert!(plan.sabotage.is_some()),
            Err(error @ SimulationError::Overflow { .. }) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn running_ahead_of_a_full_queue_equals_playing_every_operation(plan in crowded()) {
        let result = play_both(&build(&plan));
        prop_assert!(result.is_ok(), "{result:?}");
    }
}
