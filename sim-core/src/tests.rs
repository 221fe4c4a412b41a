//! Whole simulations: hand-worked ones, and the engine against the reference.

mod agreement;
mod collectives;
mod failures;
mod memory;
mod periods;
mod speed;
mod streams;

use crate::{
    Class, GroupId, LinkUse, MemoryRecord, MemoryRequest, NoObserver, Observer, Outcome, Program,
    ProgramBuilder, RankSpec, Recorder, SimTime, SimulationError, World, WorldBuilder, simulate,
    simulate_every_operation,
};

/// Classes of the hand-worked worlds.
const HOST: Class = Class(6);
const COMPUTE: Class = Class(1);
const SEND: Class = Class(2);
const WAIT: Class = Class(3);
const LOAD: Class = Class(4);
const TAIL: Class = Class(5);

/// Picoseconds, the unit of the hand-worked worlds.
fn ps(picos: u64) -> SimTime {
    SimTime(picos)
}

fn write(name: &str, write: impl FnOnce(&mut ProgramBuilder)) -> Program {
    let mut builder = ProgramBuilder::new(name);
    write(&mut builder);
    builder.build().unwrap()
}

/// A world builder with the classes above.
fn world() -> WorldBuilder {
    let mut world = WorldBuilder::new();
    world.host_class(HOST);
    world.tail_class(TAIL);
    world
}

/// A rank of a new program.
fn rank(world: &mut WorldBuilder, program: Program, groups: &[GroupId]) -> RankSpec {
    let program = world.program(program);
    RankSpec { program, groups: groups.to_vec(), multiplicity: 1, ..RankSpec::default() }
}

/// A world of one rank without groups.
fn one_rank(program: Program) -> World {
    let mut world = world();
    let spec = rank(&mut world, program, &[]);
    world.rank(spec);
    world.build().unwrap()
}

fn uses(link: crate::LinkId, weight: u32) -> LinkUse {
    LinkUse { link, weight }
}

/// The result of both players, which must agree on outcome, records and error.
fn play_both(world: &World) -> Result<(Outcome, Recorder), SimulationError> {
    let (mut ahead, mut every) = (Recorder::new(), Recorder::new());
    let engine = simulate(world, &mut ahead);
    let reference = simulate_every_operation(world, &mut every);
    let unseen = simulate(world, &mut NoObserver);
    assert_eq!(engine, unseen, "observing changes nothing");
    match (engine, reference) {
        (Ok(engine), Ok(reference)) => {
            assert_eq!(engine.ranks, reference.ranks);
            assert_eq!((engine.end, engine.operations), (reference.end, reference.operations));
            // Every record is a step of the host, which is an event there.
            assert!(reference.events >= reference.operations);
            assert_eq!(ahead.spans(), every.spans());
            assert_eq!(ahead.memory_records(), every.memory_records());
            assert_eq!(ahead.flows(), every.flows());
            assert_eq!(requests(world), by_request(world, &ahead));
            for rank in &engine.ranks {
                let busy = rank.streams.first().map_or(0, |stream| stream.total_busy().0);
                assert_eq!(
                    busy + rank.total_idle().0,
                    engine.end.0,
                    "primary busy and idle add up to the end"
                );
                for stream in &rank.streams {
                    assert!(stream.total_busy() <= stream.end && stream.end <= rank.end);
                }
            }
            Ok((engine, ahead))
        }
        // Of several disagreements, which one shows first depends on the order of play.
        (Err(error @ SimulationError::Disagreement { .. }), Err(SimulationError::Disagreement { .. })) => {
            Err(error)
        }
        (engine, reference) => {
            assert_eq!(engine.as_ref().err(), reference.as_ref().err());
            Err(engine.unwrap_err())
        }
    }
}

/// Requests in order, each with the moment at which its stream gets there.
type Requests = Vec<(MemoryRequest, SimTime)>;

/// Keeps requests, by rank.
#[derive(Default)]
struct RequestRecorder(Vec<Requests>);

impl Observer for RequestRecorder {
    const REQUESTS: bool = true;

    fn asked(&mut self, request: &MemoryRequest) {
        let rank = request.rank as usize;
        self.0.resize_with(self.0.len().max(rank + 1), Vec::new);
        self.0[rank].push((*request, SimTime(u64::MAX)));
    }

    fn reached(&mut self, rank: u32, number: u32, at: SimTime) {
        let reached = &mut self.0[rank as usize][number as usize].1;
        assert_eq!(std::mem::replace(reached, at), SimTime(u64::MAX), "a stream gets there once");
    }

    fn memory(&mut self, _: &MemoryRecord) {
        panic!("requests or steps, not both");
    }
}

/// The requests of a world that plays well, one rank after the other.
fn requests(world: &World) -> Requests {
    let mut recorder = RequestRecorder::default();
    simulate(world, &mut recorder).unwrap();
    recorder.0.into_iter().flatten().collect()
}

/// The same as the steps of its curves tell them.
fn by_request(world: &World, recorder: &Recorder) -> Requests {
    let mut frees = (0..).zip(world.ranks()).flat_map(|(rank, spec)| {
        let program = &world.programs()[spec.program as usize];
        program.memory_requests().map(move |(.., frees)| (rank, frees))
    });
    let request = |step: &MemoryRecord| {
        let MemoryRecord { rank, host, stream, tensor, reached, .. } = *step;
        let frees = frees.next().filter(|it| it.0 == rank).unwrap().1;
        (MemoryRequest { rank, host, stream, tensor, frees }, reached)
    };
    recorder.memory_records().iter().map(request).collect()
}

/// The outcome of a world that plays well, from both players.
fn play(world: &World) -> (Outcome, Recorder) {
    play_both(world).unwrap()
}

/// Nonzero entries of an account as (class, picoseconds).
fn charges(account: &[SimTime]) -> Vec<(u8, u64)> {
    let entries = account.iter().enumerate().filter(|(_, time)| time.0 > 0);
    entries.map(|(class, time)| (class as u8, time.0)).collect()
}
