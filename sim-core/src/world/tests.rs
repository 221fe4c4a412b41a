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

#[test]
fn builders_number_what_they_are_given() {
    let mut w = WorldBuilder::new();
    let programs = [w.program(meets(&[], 0)), w.program(meets(&[], 0))];
    let links = [w.link("a", 1e9, NS), w.link("b", 1e9, NS)];
    let groups =
        [w.group(0, vec![]), w.divided_group(0, vec![uses(links[1], 3)], 4), w.divided_group(0, vec![], 0)];
    assert_eq!((programs, links), ([0, 1], [LinkId(0), LinkId(1)]));
    assert_eq!(groups, [GroupId(0), GroupId(1), GroupId(2)]);
    assert_eq!([0, 1].map(|_| w.rank(RankSpec::default())), [0, 1]);
    w.host_class(Class(3));
    w.tail_class(Class(4));
    assert_eq!((w.world.host_class, w.world.tail_class), (Class(3), Class(4)));
    assert_eq!([0, 1, 2].map(|group| w.world.groups[group].parts()), [1, 4, 1], "there is always a part");
}

/// Four parts of which two cross a link of 8e9: each part gets 4e9, all together 16e9.
#[test]
fn a_divided_group_alone_has_the_sum_of_its_parts() {
    let mut w = WorldBuilder::new();
    let program = w.program(meets(&[0], 8));
    let (half, wide) = (w.link("half", 8e9, NS), w.link("wide", 1e12, NS));
    let group = w.divided_group(1, vec![uses(half, 2), uses(wide, 4)], 4);
    w.rank(rank(program, &[group]));
    assert_eq!(w.build().unwrap().groups()[0].private_rate, Some(16e9));
}

/// Two ranks, one program, one link; every rank's own program and the rates come anew, all else stays.
#[test]
fn a_varied_world_differs_in_programs_and_rates_alone() {
    let mut w = WorldBuilder::new();
    let program = w.program(meets(&[0], 8));
    let (one, two) = (w.link("one", 4e9, NS), w.link("two", 1e9, SimTime(7)));
    let group = w.group(2, vec![uses(one, 2), uses(two, 1)]);
    for (multiplicity, queue_depth) in [(3, 5), (4, 6)] {
        let memory_capacity = Some(u64::from(multiplicity) << 30);
        let groups = vec![group];
        w.rank(RankSpec { program, groups, memory_capacity, queue_depth, multiplicity });
    }
    w.host_class(Class(3));
    let world = w.build().unwrap();
    let mut asked = Vec::new();
    let varied = world
        .varied(
            |rank, program| {
                asked.push((rank, program.name().to_owned()));
                meets(&[0], 100 + u64::from(rank))
            },
            |link| link.bytes_per_second / 4.0,
        )
        .unwrap();
    assert_eq!(asked, [(0, "meets".to_owned()), (1, "meets".to_owned())]);
    let sent: Vec<u64> = varied.programs().iter().map(|it| it.records().at(0).bytes()).collect();
    assert_eq!(sent, [100, 101]);
    let of_rank: Vec<u32> = varied.ranks().iter().map(|rank| rank.program).collect();
    assert_eq!(of_rank, [0, 1]);
    let plain = |world: &World| -> Vec<RankSpec> {
        world.ranks().iter().map(|rank| RankSpec { program: 0, ..rank.clone() }).collect()
    };
    assert_eq!(plain(&varied), plain(&world));
    let links: Vec<Link> = world
        .links()
        .iter()
        .map(|it| Link { bytes_per_second: it.bytes_per_second / 4.0, ..it.clone() })
        .collect();
    assert_eq!(varied.links(), links);
    let (old, new) = (&world.groups()[0], &varied.groups()[0]);
    assert_eq!((old.members(), old.path(), old.latency()), (new.members(), new.path(), new.latency()));
    assert_eq!(new.private_rate.map(|rate| rate * 4.0), old.private_rate);
    assert_eq!((varied.host_class(), varied.tail_class()), (Class(3), Class(0)));
    assert!(world.varied(|_, program| program.clone(), |_| 0.0).is_err(), "no link is without a rate");
}

/// A world of one rank that sends over a link of its own, a shared one, and one that is called like the other's own.
fn job(bytes: u64, depth: u32, shared_rate: f64) -> World {
    let mut w = WorldBuilder::new();
    w.program(meets(&[], 0));
    let program = w.program(meets(&[0], bytes));
    let own = w.link("own", 3e9 + shared_rate, SimTime(depth.into()));
    let switch = w.link("switch", shared_rate, NS);
    w.group(0, vec![]);
    let group = w.divided_group(1, vec![uses(own, depth), uses(switch, 3)], depth);
    w.rank(RankSpec { queue_depth: depth, multiplicity: depth, ..rank(program, &[group]) });
    w.build().unwrap()
}

#[test]
fn jobs_beside_each_other_share_the_links_that_are_named() {
    let (first, second) = (job(8, 2, 1e9), job(9, 5, 2e9));
    let both = first.beside(&second, "second/", |name| name == "switch").unwrap();
    let links: Vec<(&str, f64)> =
        both.links().iter().map(|it| (it.name.as_str(), it.bytes_per_second)).collect();
    assert_eq!(links, [("own", 4e9), ("switch", 1e9), ("second/own", 5e9)]);
    assert_eq!(both.links()[2].latency, SimTime(5));
    assert_eq!((both.programs().len(), both.groups().len(), both.ranks().len()), (4, 4, 2));
    let rank = &both.ranks()[1];
    assert_eq!(
        (rank.program, &rank.groups[..], rank.queue_depth, rank.multiplicity),
        (3, &[GroupId(3)][..], 5, 5)
    );
    assert_eq!(both.program_of(1).records().at(0).bytes(), 9);
    assert_eq!(both.ranks()[0], first.ranks()[0]);
    let group = &both.groups()[3];
    assert_eq!((group.members(), group.parts()), (&[1][..], 5));
    assert_eq!(group.path(), [uses(LinkId(2), 5), uses(LinkId(1), 3)]);
    assert_eq!(both.groups()[1].path(), first.groups()[1].path());
    // Both cross the switch: neither has it to itself any more.
    assert!(first.groups()[1].private_rate.is_some() && both.groups()[1].private_rate.is_none());

    let apart = first.beside(&second, "second/", |_| false).unwrap();
    let names: Vec<&str> = apart.links().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["own", "switch", "second/own", "second/switch"]);
    assert_eq!(apart.groups()[3].path(), [uses(LinkId(2), 5), uses(LinkId(3), 3)]);
    // What is shared by name and not there yet keeps its name.
    let alone = first.beside(&second, "second/", |name| name == "own" || name == "none").unwrap();
    let names: Vec<&str> = alone.links().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["own", "switch", "second/switch"]);
    let mut empty = first.clone();
    (empty.links, empty.groups, empty.ranks) = (Vec::new(), Vec::new(), Vec::new());
    let fresh = empty.beside(&second, "second/", |name| name == "switch").unwrap();
    let names: Vec<&str> = fresh.links().iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["second/own", "switch"]);
}
