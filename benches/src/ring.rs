//! A ring all-reduce message by message.

use steptime_core::{Class, LinkUse, ProgramBuilder, RankSpec, SimTime, World, WorldBuilder};

use crate::SetUp;

/// Bytes of a message and rate of a link, bytes/s.
const MESSAGE: u64 = 1 << 20;
const RATE: f64 = 25e9;

/// Ranks of a ring, each with a link to the next, that pass `2 (ranks - 1)` messages on in each of `rings` turns: what a
/// rank has received it sends with the next message (reduce-scatter, then all-gather; Patarasuk and Yuan 2009).
///
/// # Errors
/// The program or the world is refused.
pub fn ring(ranks: u32, rings: u32) -> SetUp<World> {
    let mut program = ProgramBuilder::new("ring");
    let label = program.label("message");
    let (compute, send, receive) =
        (program.stream("compute"), program.stream("send"), program.stream("receive"));
    let (next, before) = (program.channel("to the next"), program.channel("from the one before"));
    let class = Class(1);
    for _ in 0..rings * 2 * (ranks - 1) {
        program.rendezvous(send, next, class, class, label, SimTime::ZERO, MESSAGE);
        program.rendezvous(receive, before, class, class, label, SimTime::ZERO, MESSAGE);
        let received = program.record(receive);
        program.wait(send, received);
    }
    program.kernel(compute, class, label, SimTime::ZERO, SimTime::ZERO);
    let mut world = WorldBuilder::new();
    let program = world.program(program.build()?);
    let groups: Vec<_> = (0..ranks)
        .map(|rank| {
            let link = world.link(&format!("link {rank}"), RATE, SimTime(1_000_000));
            world.group(2, vec![LinkUse { link, weight: 1 }])
        })
        .collect();
    for rank in 0..ranks as usize {
        let before = (rank + ranks as usize - 1) % ranks as usize;
        world.rank(RankSpec {
            program,
            groups: vec![groups[rank], groups[before]],
            multiplicity: 1,
            ..RankSpec::default()
        });
    }
    Ok(world.build()?)
}

/// When the last message has arrived, by the closed form: messages of all ranks go at once, one after another.
pub fn ring_end(ranks: u64, rings: u64) -> SimTime {
    let each = (MESSAGE as f64 / RATE * 1e12).ceil() as u64 + 1_000_000;
    SimTime(rings * 2 * (ranks - 1) * each)
}

#[cfg(test)]
mod tests {
    use steptime_core::{NoObserver, simulate};

    use super::*;

    #[test]
    fn a_ring_takes_what_its_closed_form_says() {
        for (ranks, rings) in [(2, 1), (5, 2), (16, 1)] {
            let outcome = simulate(&ring(ranks, rings).unwrap(), &mut NoObserver).unwrap();
            assert_eq!(outcome.end, ring_end(u64::from(ranks), u64::from(rings)), "{ranks} ranks");
        }
    }
}
