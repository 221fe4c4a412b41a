//! Kernels of one rank on one stream: what the engine does most.

use steptime_core::{Class, ProgramBuilder, RankSpec, SimTime, World, WorldBuilder};

use crate::SetUp;

/// What the engine reads of a plain kernel, 24 bytes. A record of a program is a third of that, but for the table of what many
/// of them have in common, which has as many entries where no two kernels take the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Class that its time is counted in.
    pub class: Class,
    /// Time on the stream.
    pub duration: SimTime,
    /// Host time to issue it.
    pub issue: SimTime,
}

/// `count` kernels in three classes, each issued in 3 ns and a picosecond longer than the one before from
/// 2 ns on: the host is the later of the two for the first thousand, then the stream is.
pub fn kernels(count: u64) -> Vec<Kernel> {
    let kernel = |i: u64| Kernel {
        class: Class(1 + (i % 3) as u8),
        duration: SimTime(2_000 + i),
        issue: SimTime(3_000),
    };
    (0..count).map(kernel).collect()
}

/// A world of one rank that runs the kernels, with at most `queue_depth` of them in flight (0: no limit).
///
/// # Errors
/// The program or the world is refused.
pub fn one_rank(kernels: &[Kernel], queue_depth: u32) -> SetUp<World> {
    let mut program = ProgramBuilder::new("kernels");
    let (label, stream) = (program.label("kernel"), program.stream("compute"));
    for kernel in kernels {
        program.kernel(stream, kernel.class, label, kernel.duration, kernel.issue);
    }
    let mut world = WorldBuilder::new();
    let program = world.program(program.build()?);
    world.rank(RankSpec { program, queue_depth, multiplicity: 1, ..RankSpec::default() });
    Ok(world.build()?)
}

/// The moment at which the last kernel ends, by nothing but max-plus arithmetic: no check for overflow, no
/// account of busy or idle time. What the engine takes longer than this is the price of all it reports.
pub fn bare_loop(kernels: &[Kernel]) -> SimTime {
    let (mut host, mut stream) = (0_u64, 0_u64);
    for kernel in kernels {
        host = host.wrapping_add(kernel.issue.0);
        stream = stream.max(host).wrapping_add(kernel.duration.0);
    }
    SimTime(stream)
}

#[cfg(test)]
mod tests {
    use steptime_core::{NoObserver, simulate};

    use super::*;

    #[test]
    fn the_engine_and_the_bare_loop_end_at_the_same_moment() {
        let kernels = kernels(5_000);
        assert_eq!(size_of::<Kernel>(), 24);
        for queue_depth in [0, 1024] {
            let world = one_rank(&kernels, queue_depth).unwrap();
            let outcome = simulate(&world, &mut NoObserver).unwrap();
            assert_eq!((outcome.end, outcome.operations), (bare_loop(&kernels), 5_000));
        }
    }
}
