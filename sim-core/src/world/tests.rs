use super::*;
use crate::program::ProgramBuilder;

const NS: SimTime = SimTime(1_000);

/// A program of one channel whose rendezvous are on the given streams, each sending `bytes`.
fn meets(streams: &[u8], bytes: u64) -> Program {
    let mut b = ProgramBuilder::new("meets");
    let label = b.label("m");
    let all = [b.stream("a"), b.stream("b")];
    let channel = b.channel("c");
    for &stream in streams {
        b.rendezvous(all[usize::from(stream)], channel, Class(1), Class(2), label, NS, bytes);
    }
    b.build().unwrap()
}

fn uses(link: LinkId, weight: u32) -> LinkUse {
    LinkUse { link, weight }
}

fn rank(program: u32, groups: &[GroupId]) -> RankSpec {
    RankSpec { program, groups: groups.to_vec(), multiplicity: 1, ..RankSpec::default() }
}

#[test]
fn groups_know_their_members_and_latency() {
    let mut w = WorldBuilder::new();
    let program = w.program(meets(&[0], 8));
    let (a, b) = (w.link("a", 4e9, NS), w.link("b", 1e9, NS));
    let group = w.group(2, vec![uses(a, 8), uses(b, 1)]);
    w.rank(rank(program, &[group]));
    w.rank(rank(program, &[group]));
    let world = w.build().unwrap();
    let group = &world.groups()[0];
    assert_eq!((group.members(), group.latency(), group.path().len()), (&[0, 1][..], SimTime(2_000), 2));
    // 4e9 / 8 is less than 1e9 / 1.
    assert_eq!(group.private_rate, Some(5e8));
}

#[test]
fn a_group_is_private_only_without_company_and_overlap() {
    let private = |streams: &[u8], shared: bool| {
        let mut w = WorldBuilder::new();
        let program = w.program(meets(streams, 8));
        let link = w.link("l", 1e9, NS);
        let other = if shared { link } else { w.link("k", 1e9, NS) };
        for link in [link, other] {
            let group = w.group(1, vec![uses(link, 1)]);
            w.rank(rank(program, &[group]));
        }
        w.build().unwrap().groups()[0].private_rate.is_some()
    };
    assert!(private(&[0, 0], false));
    assert!(!private(&[0, 0], true));
    assert!(!private(&[0, 1], false));
}

/// A world with one program, link and group of one member; `change` breaks it.
fn error(change: impl FnOnce(&mut WorldBuilder, u32, LinkId, GroupId)) -> String {
    let mut w = WorldBuilder::new();
    let program = w.program(meets(&[0], 8));
    let link = w.link("nic", 1e9, NS);
    let group = w.group(1, vec![uses(link, 1)]);
    change(&mut w, program, link, group);
    w.build().unwrap_err().to_string()
}

#[test]
fn what_does_not_fit_together_is_named() {
    assert_eq!(error(|_, _, _, _| {}), "group 0 has 1 members, but 0 ranks list it");
    assert_eq!(
        error(|w, p, _, g| {
            w.rank(rank(p, &[g]));
            w.rank(rank(p, &[g]));
        }),
        "group 0 has 1 members, but 2 ranks list it"
    );
    assert_eq!(error(|w, _, _, _| _ = w.rank(rank(9, &[]))), "rank 0 runs program 9, which does not exist");
    assert_eq!(
        error(|w, p, _, _| _ = w.rank(rank(p, &[]))),
        "rank 0 lists 0 groups, but program meets has 1 channels"
    );
    assert_eq!(
        error(|w, p, _, _| _ = w.rank(rank(p, &[GroupId(5)]))),
        "rank 0 lists group 5, which does not exist"
    );
    assert_eq!(
        error(|w, p, _, _| {
            let empty = w.group(1, vec![]);
            w.rank(rank(p, &[empty]));
        }),
        "rank 0 sends bytes in group 1, which has no path"
    );
    assert_eq!(error(|w, _, _, _| w.tail_class(Class(16))), "class 16 does not exist; the last is 15");
}

#[test]
fn a_rank_lists_a_group_once() {
    let mut b = ProgramBuilder::new("two");
    b.channel("a");
    b.channel("b");
    let two = b.build().unwrap();
    let mut w = WorldBuilder::new();
    let program = w.program(two);
    let group = w.group(2, vec![]);
    w.rank(rank(program, &[group, group]));
    assert_eq!(w.build().unwrap_err(), WorldError::GroupTwice { rank: 0, group });
}

#[test]
fn bad_links_and_paths_are_named() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let text = error(|w, _, _, _| _ = w.link("bad", bad, NS));
        assert_eq!(text, format!("link bad has {bad} bytes/s; a bandwidth is positive and finite"));
    }
    assert_eq!(
        error(|w, _, _, _| _ = w.group(1, vec![uses(LinkId(4), 1)])),
        "the path of group 1 names link 4, which does not exist"
    );
    assert_eq!(
        error(|w, _, l, _| _ = w.group(1, vec![uses(l, 1), uses(l, 1)])),
        "the path of group 1 names link nic twice; a weight of 2 says so"
    );
    assert_eq!(
        error(|w, _, l, _| _ = w.group(1, vec![uses(l, 0)])),
        "the path of group 1 uses link nic with weight 0"
    );
    assert_eq!(
        error(|w, _, l, _| {
            let far = w.link("far", 1e9, SimTime::MAX);
            w.group(1, vec![uses(l, 1), uses(far, 1)]);
        }),
        "the latencies of the path of group 1 overflow"
    );
}
