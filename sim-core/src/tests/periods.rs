//! Steps that do the same again and again are played in part, and their outcome is that of the whole.

use proptest::prelude::*;

use super::agreement::{Plan, Step, build, step};
use super::*;
use crate::engine::rounds_left_out;

/// A step of many rounds on a few ranks, whose hosts can be ahead by little.
fn rounds() -> impl Strategy<Value = Plan> {
    let act = prop_oneof![
        6 => (any::<u8>(), any::<u8>(), 0_u64..9, 0_u64..4, 0_u8..6).prop_map(
            |(rank, stream, duration, issue, class)| Step::Kernel { rank, stream, duration, issue, class }
        ),
        3 => (any::<u8>(), any::<u32>(), 0_u64..5, prop_oneof![Just(0_u64), 1_u64..30]).prop_map(
            |(group, streams, fixed, bytes)| Step::Meet { group, streams, fixed, bytes }
        ),
        3 => step(),
    ];
    (1_usize..=5).prop_flat_map(move |ranks| {
        (
            prop::collection::vec(1_u8..=3, ranks),
            prop::collection::vec(prop_oneof![1 => Just(0_u32), 4 => 1_u32..9], ranks),
            prop::collection::vec((0_u8..5, 0_u64..3), 0..4),
            prop::collection::vec((any::<u8>(), any::<u8>(), any::<u32>()), 1..5),
            (prop::collection::vec(act.clone(), 0..8), prop::collection::vec(act.clone(), 1..25)),
            prop::collection::vec(act.clone(), 0..8),
            8_u32..90,
            prop_oneof![6 => Just(None), 1 => any::<(usize, u8, bool)>().prop_map(Some)],
        )
            .prop_map(
                move |(streams, depths, links, groups, (before, round), after, times, sabotage)| {
                    let rounds = Some((before.len()..before.len() + round.len(), times));
                    let steps = [before, round, after].concat();
                    let capacities = vec![None; ranks];
                    Plan { streams, depths, capacities, links, groups, steps, sabotage, rounds }
                },
            )
    })
}

/// One rank whose rounds take 10 ps on the stream and 4 on the host, which is two launches ahead; before them 7 ps, and 5
/// behind: all but the first few rounds are left out, and what is told of the others is right.
#[test]
fn a_thousand_rounds_are_played_as_a_few() {
    let world = one_rank({
        let mut p = ProgramBuilder::without_memory("p");
        let (stream, label) = (p.stream("compute"), p.label("x"));
        p.kernel(stream, LOAD, label, ps(7), ps(1));
        let place = p.place();
        p.kernel(stream, COMPUTE, label, ps(6), ps(2));
        p.kernel(stream, SEND, label, ps(4), ps(2));
        let round = p.passage(place);
        for _ in 1..1000 {
            p.repeat_as_it_is(&round);
        }
        p.place();
        p.kernel(stream, LOAD, label, ps(5), ps(2));
        p.build().unwrap()
    });
    let mut spec = world.ranks()[0].clone();
    spec.queue_depth = 2;
    let mut limited = super::world();
    spec.program = limited.program(world.programs()[0].clone());
    limited.rank(spec);
    let limited = limited.build().unwrap();
    let left_out = rounds_left_out(&limited);
    assert!(left_out > 980 && left_out < 1000, "{left_out}");
    let outcome = play(&limited).0;
    // The first kernel is issued at 1 and ends at 8.
    assert_eq!(outcome.end, ps(8 + 1000 * 10 + 5));
    assert_eq!(charges(&outcome.ranks[0].streams[0].busy), [(1, 6000), (2, 4000), (4, 12)]);
    assert_eq!((outcome.operations, charges(&outcome.ranks[0].idle)), (2002, vec![(6, 1)]));
}

/// The rank that is watched is one whose program goes round, which need not be the first.
#[test]
fn any_rank_may_go_round() {
    let mut w = world();
    for rounds in [1, 100] {
        let mut p = ProgramBuilder::without_memory("p");
        let (stream, label) = (p.stream("compute"), p.label("x"));
        for _ in 0..rounds {
            p.place();
            p.kernel(stream, COMPUTE, label, ps(6), ps(2));
        }
        let spec = rank(&mut w, p.build().unwrap(), &[]);
        w.rank(RankSpec { queue_depth: 2, ..spec });
    }
    let world = w.build().unwrap();
    assert!(rounds_left_out(&world) > 80, "{}", rounds_left_out(&world));
    assert_eq!(play(&world).0.end, ps(602));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_repeats_itself_ends_as_if_it_were_played(plan in rounds()) {
        let result = play_both(&build(&plan));
        prop_assert!(result.is_ok() || plan.sabotage.is_some(), "{result:?}");
    }
}

/// The comparison above is one of worlds that are played in part: of drawn ones at least a third.
#[test]
fn drawn_rounds_are_left_out() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut left_out = || {
        let plan = rounds().new_tree(&mut runner).unwrap().current();
        rounds_left_out(&build(&plan)) > 0
    };
    let count = (0..300).filter(|_| left_out()).count();
    assert!(count >= 100, "{count} of 300");
}
