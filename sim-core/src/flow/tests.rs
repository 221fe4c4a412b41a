use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::look::Seen;

/// Starts the given flows at time 0, one per path, and returns the network with its reports.
fn started(capacities: &[f64], paths: &[Vec<(u32, u32)>], bytes: u64) -> (FlowNetwork, Vec<(u64, Due)>) {
    let mut network = FlowNetwork::from_parts(capacities, paths);
    for group in 0..paths.len() as u32 {
        network.start(0, group, group, bytes);
    }
    let mut reports = Vec::new();
    network.settle(0, |end, due| reports.push((end, due))).unwrap();
    (network, reports)
}

fn rates(capacities: &[f64], paths: &[Vec<(u32, u32)>]) -> Vec<f64> {
    started(capacities, paths, 1_000).0.rates().into_values().collect()
}

#[test]
fn flows_on_one_link_share_it_by_weight() {
    assert_eq!(rates(&[12.0], &[vec![(0, 1)], vec![(0, 1)]]), [6.0, 6.0]);
    // Weight 3 stands for three flows of the same rate: 3r + r = 12.
    assert_eq!(rates(&[12.0], &[vec![(0, 3)], vec![(0, 1)]]), [3.0, 3.0]);
}

#[test]
fn a_chain_of_three_links_fills_progressively() {
    // In the manner of Bertsekas and Gallager, section 6.5.2. Links of capacity 6, 10 and 12. Flow 0 crosses
    // all three, flows 1 and 2 the first, flow 3 the second, flow 4 the third.
    //   level 2: link 0 (6 / 3 flows) saturates; flows 0, 1, 2 freeze at 2.
    //   level 8: link 1 has 10 - 2 left for flow 3.
    //   level 10: link 2 has 12 - 2 left for flow 4.
    let paths = [vec![(0, 1), (1, 1), (2, 1)], vec![(0, 1)], vec![(0, 1)], vec![(1, 1)], vec![(2, 1)]];
    assert_eq!(rates(&[6.0, 10.0, 12.0], &paths), [2.0, 2.0, 2.0, 8.0, 10.0]);
}

#[test]
fn an_ended_flow_leaves_its_share_to_the_others() {
    // 1 byte/ps. Two flows of 10 and 30 bytes: half the rate each until the first ends at 20; 20 bytes are
    // left of the second, which ends at 40.
    let mut network = FlowNetwork::from_parts(&[1e12], &[vec![(0, 1)], vec![(0, 1)]]);
    let mut reports = Vec::new();
    let mut finished = Vec::new();
    network.start(0, 0, 7, 10);
    network.start(0, 1, 8, 30);
    network.settle(0, |end, due| reports.push((end, due))).unwrap();
    let (end, first) = reports.pop().unwrap();
    assert_eq!((end, reports.len()), (20, 0));
    network.finish(first, &mut finished);
    network.settle(20, |end, due| reports.push((end, due))).unwrap();
    assert_eq!(reports[0].0, 40);
    network.finish(reports[0].1, &mut finished);
    let meetings: Vec<u32> = finished.iter().map(|f| f.meeting).collect();
    assert_eq!(meetings, [7, 8]);
}

/// Two flows over a link each, of which one ends first: what is left out of the time between puts off both.
#[test]
fn flows_that_are_put_off_end_so_much_later() {
    let mut network = FlowNetwork::from_parts(&[1e12, 1e12], &[vec![(0, 1)], vec![(1, 1)]]);
    let mut reports = Vec::new();
    let begun = |network: &mut FlowNetwork| Seen::of(|it| network.look(it, |meeting| (meeting, 0)));
    network.start(0, 0, 0, 10);
    network.start(0, 1, 1, 30);
    network.settle(0, |end, due| reports.push((end, due))).unwrap();
    let before = begun(&mut network);
    let mut network = FlowNetwork::from_parts(&[1e12, 1e12], &[vec![(0, 1)], vec![(1, 1)]]);
    reports.clear();
    network.start(5, 0, 0, 10);
    network.start(5, 1, 1, 30);
    network.settle(5, |end, due| reports.push((end, due))).unwrap();
    assert_eq!((reports.len(), reports[0].0), (1, 15));
    let now = begun(&mut network);
    assert!(before.is_later_in_whole(&now, 5));
    network.look(&mut before.mover(&now, 1000), |meeting| (meeting, 0));
    network.put_off_ends(1000);
    let mut finished = Vec::new();
    network.finish(reports[0].1, &mut finished);
    assert_eq!((finished.len(), finished[0].meeting, finished[0].start), (1, 0, 1005));
    reports.clear();
    network.settle(1015, |end, due| reports.push((end, due))).unwrap();
    assert_eq!((reports.len(), reports[0].0), (1, 1035));
}

#[test]
fn flows_that_differ_look_different() {
    let show = |flows: &[(u64, u32, u64)], settled: bool, name: &dyn Fn(u32) -> (u32, u64)| {
        let mut network = FlowNetwork::from_parts(&[1e12], &[vec![(0, 1)], vec![(0, 2)]]);
        for &(now, group, bytes) in flows {
            network.start(now, group, group, bytes);
        }
        if settled {
            network.settle(flows[0].0, |_, _| ()).unwrap();
        }
        Seen::of(|it| network.look(it, name))
    };
    let plain = |meeting| (meeting, 0);
    Seen::all_differ(&[
        show(&[(0, 0, 10)], true, &plain),
        show(&[(0, 0, 10)], false, &plain),
        show(&[(1, 0, 10)], true, &plain),
        show(&[(0, 0, 11)], true, &plain),
        show(&[(0, 1, 10)], true, &plain),
        show(&[(0, 0, 10), (0, 1, 10)], true, &plain),
        show(&[(0, 0, 10)], true, &|_| (0, 1)),
        show(&[(0, 0, 10)], true, &|_| (3, 0)),
    ]);
}

#[test]
fn a_report_is_stale_once_its_component_changed() {
    let (mut network, reports) = started(&[1e12], &[vec![(0, 1)], vec![(0, 1)]], 10);
    network.start(5, 0, 2, 10);
    let mut later = Vec::new();
    network.settle(5, |end, due| later.push((end, due))).unwrap();
    let mut finished = Vec::new();
    network.finish(reports[0].1, &mut finished);
    assert!(finished.is_empty());
    network.settle(reports[0].0, |_, _| panic!("nothing is left to report")).unwrap();
    assert!(!network.is_dirty());
    // 7.5 bytes left at a third of the link each: 22.5 ps more, rounded up.
    assert_eq!(later[0].0, 28);
}

#[test]
fn equal_flows_end_in_one_report() {
    let paths: Vec<_> = (0..30_u32).map(|f| vec![(f % 6, 1), (6 + f % 5, 1)]).collect();
    let (mut network, reports) = started(&[1e9; 11], &paths, 1 << 20);
    assert_eq!(reports.len(), 1);
    let mut finished = Vec::new();
    network.finish(reports[0].1, &mut finished);
    assert_eq!(finished.len(), 30);
}

#[test]
fn a_lone_flow_takes_its_bytes_over_its_narrowest_link() {
    for (bytes, capacity, weight, picos) in [
        (1_000_000_000, 1e9, 1, 1_000_000_000_000_u64),
        (3, 3e9, 1, 1_000),
        (7, 49e9, 1, 143),      // 142.86 rounded up
        (100, 25e9, 5, 20_000), // 5 GB/s
        (1, 4e12, 1, 1),        // never less than a picosecond
    ] {
        let (_, reports) = started(&[capacity, 1e15], &[vec![(0, weight), (1, 1)]], bytes);
        assert_eq!(reports[0].0, picos);
        assert_eq!(alone(bytes, capacity / f64::from(weight)), Some(picos));
    }
}

#[test]
fn a_flow_that_outlasts_time_is_an_error() {
    let mut network = FlowNetwork::from_parts(&[1e-9], &[vec![(0, 1)]]);
    network.start(0, 0, 5, 1 << 40);
    assert_eq!(network.settle(0, |_, _| ()), Err(5));
    assert_eq!(alone(1 << 40, 1e-9), None);
}

/// Flows of two ports each that a switch with room for all of them joins: what starts or ends between one pair of ports is
/// no matter of the others. With less room it is.
#[test]
fn flows_over_a_slack_link_are_left_alone() {
    for (room, alone) in [(1e6, true), (60.0, false)] {
        let capacities: Vec<f64> = [vec![room], vec![10.0; 20]].concat();
        let paths: Vec<_> = (0..10).map(|pair| vec![(1 + 2 * pair, 1), (0, 1), (2 + 2 * pair, 1)]).collect();
        let (mut network, _) = started(&capacities, &paths, 1 << 20);
        network.start(1, 3, 10, 1 << 20);
        let before: Vec<u32> = network.flows.iter().map(|flow| flow.batch).collect();
        network.settle(1, |_, _| ()).unwrap();
        let again = network.flows.iter().zip(&before).filter(|(flow, before)| flow.batch != **before);
        assert_eq!(again.count(), if alone { 2 } else { 11 });
        let expected = if alone { 5.0 } else { 60.0 / 11.0 };
        assert!(close(network.rates()[&10], if alone { 5.0 } else { 5.0_f64.min(expected) }));
    }
}

/// A link that becomes slack sets its flows free, and each part of what it held together then ends by itself.
#[test]
fn a_link_that_becomes_slack_parts_its_flows() {
    // The switch has room for two of three flows of 10 each.
    let capacities = [25.0, 10.0, 10.0, 10.0];
    let paths: Vec<_> = (0..3).map(|port| vec![(0, 1), (1 + port, 1)]).collect();
    let mut network = FlowNetwork::from_parts(&capacities, &paths);
    for (group, bytes) in [(0, 10), (1, 1_000), (2, 2_000)] {
        network.start(0, group, group, bytes);
    }
    let mut reports = Vec::new();
    network.settle(0, |end, due| reports.push((end, due))).unwrap();
    let (end, due) = reports.pop().unwrap();
    assert!(reports.is_empty());
    let mut finished = Vec::new();
    network.finish(due, &mut finished);
    network.settle(end, |end, due| reports.push((end, due))).unwrap();
    assert_eq!(network.rates().into_values().collect::<Vec<_>>(), [10.0, 10.0]);
    network.finish(reports[0].1, &mut finished);
    network.settle(reports[0].0, |end, due| reports.push((end, due))).unwrap();
    assert_eq!((reports.len(), network.rates().len()), (2, 1));
    // 1.2 s at 25 / 3 bytes/s each, then 10 bytes/s for the 990 and the 1990 bytes that are left.
    let seconds: Vec<u64> = reports.iter().map(|(end, _)| (*end as f64 / 1e9).round() as u64).collect();
    assert_eq!(seconds, [1_200 + 99_000, 1_200 + 199_000]);
}

/// The books of every link are those of the flows that run: how many and how heavy, what they could take, and what is listed.
fn assert_balanced(network: &FlowNetwork) {
    for (number, link) in (0..).zip(&network.links) {
        let (mut alive, mut weight, mut most) = (0, 0, 0);
        for flow in network.flows.iter().filter(|flow| flow.alive) {
            for hop in network.path(flow.group).map(|at| network.hops[at]).filter(|hop| hop.link == number) {
                (alive, weight, most) =
                    (alive + 1, weight + u64::from(hop.weight), most + u128::from(hop.most));
            }
        }
        assert_eq!((link.alive, link.weight, link.most), (alive, weight, most), "link {number}");
        let gone = link.flows.iter().filter(|entry| {
            let flow = &network.flows[entry.flow as usize];
            !(flow.alive && flow.use_count == entry.use_count)
        });
        assert_eq!(link.ended as usize, gone.count(), "link {number}");
    }
}

/// What a flow could take of its links is its narrowest link's share, by weight: 3 of 4 and 7 at weight 2 and 3.
#[test]
fn the_most_that_a_flow_takes_is_what_it_has_alone() {
    let (network, _) = started(&[8.0, 21.0], &[vec![(0, 2), (1, 3)], vec![(1, 1)]], 100);
    let most: Vec<u64> = network.hops.iter().map(|hop| hop.most).collect();
    assert_eq!(most, [8, 12, 21]);
    assert_eq!(network.links.iter().map(|link| link.most).collect::<Vec<_>>(), [8, 33]);
}

#[test]
fn times_end_before_the_last_bit() {
    assert_eq!(duration(9.1e18, 1.0), Some(9_100_000_000_000_000_000));
    assert_eq!(duration(9.2e18, 1.0), None);
    assert_eq!(duration(0.0, 1.0), Some(1), "nothing takes no time");
}

/// Of two flows of a group that outlast time the first is named, of two groups the lower.
#[test]
fn the_first_flow_that_outlasts_time_is_named() {
    let mut network = FlowNetwork::from_parts(&[1e-9], &[vec![(0, 1)], vec![(0, 1)]]);
    for (group, meeting) in [(1, 4), (0, 7), (0, 8), (1, 9)] {
        network.start(0, group, meeting, 1 << 40);
    }
    assert_eq!(network.settle(0, |_, _| ()), Err(7));
}

/// Two flows that start together: the first gets another rate before it ends, so that its report is stale; the second,
/// whose rate stays, has another report to come.
#[test]
fn a_stale_report_is_followed_by_the_next() {
    let (mut network, reports) = started(&[1e12, 0.5e12], &[vec![(0, 1)], vec![(1, 1)]], 10);
    network.start(5, 0, 2, 10);
    network.settle(5, |_, _| ()).unwrap();
    let (mut finished, mut next) = (Vec::new(), Vec::new());
    assert_eq!(reports[0].0, 10);
    network.finish(reports[0].1, &mut finished);
    assert!(finished.is_empty() && network.is_dirty());
    network.settle(10, |end, due| next.push((end, due))).unwrap();
    assert_eq!(next[0].0, 20);
    network.finish(next[0].1, &mut finished);
    assert_eq!(finished.iter().map(|it| it.meeting).collect::<Vec<_>>(), [1]);
}

/// Flows that started together and got other rates one after the other are remembered where they wait, and nowhere else.
#[test]
fn what_waits_takes_memory_and_what_has_left_does_not() {
    const FLOWS: u32 = 1_001;
    let paths: Vec<_> = (0..FLOWS).map(|link| vec![(link, 1)]).collect();
    let (mut network, reports) = started(&vec![1e9; FLOWS as usize], &paths, 1 << 30);
    // Each gets a companion on its link; the last keeps its rate.
    for group in 0..FLOWS - 1 {
        network.start(1, group, FLOWS + group, 1 << 30);
        network.settle(1, |_, _| ()).unwrap();
        let waiting = (FLOWS - 1 - group) as usize;
        assert!(network.ends.listed(0) <= 2 * waiting + 8, "{} for {waiting}", network.ends.listed(0));
    }
    let mut finished = Vec::new();
    network.finish(reports[0].1, &mut finished);
    assert_eq!(finished.iter().map(|it| it.meeting).collect::<Vec<_>>(), [FLOWS - 1]);
}

/// Flows that come and go on a link with room for all, on which some stay: what it lists keeps to those that are there.
#[test]
fn a_slack_link_forgets_what_ended() {
    let paths: Vec<_> = (1..=40).map(|port| vec![(0, 1), (port, 1)]).collect();
    let mut capacities = vec![1e9; 41];
    capacities[0] = 1e12;
    let mut network = FlowNetwork::from_parts(&capacities, &paths);
    for group in 0..10 {
        network.start(0, group, group, 1 << 40);
    }
    network.settle(0, |_, _| ()).unwrap();
    let mut now = 0;
    for turn in 0..1_000 {
        let mut reports = Vec::new();
        network.start(now, 10 + turn % 30, 10 + turn, 1);
        network.settle(now, |end, due| reports.push((end, due))).unwrap();
        let (end, due) = reports[0];
        now = end;
        network.finish(due, &mut Vec::new());
        network.settle(now, |_, _| ()).unwrap();
        let link = &network.links[0];
        assert!(link.is_slack() && link.flows.len() <= 2 * link.alive as usize + 1, "{}", link.flows.len());
        assert_balanced(&network);
    }
}

/// Progressive filling as the text has it: in every round look at every link and every flow.
fn brute_force(capacities: &[f64], paths: &BTreeMap<u32, Vec<(u32, u32)>>) -> BTreeMap<u32, f64> {
    let mut rates: BTreeMap<u32, f64> = BTreeMap::new();
    while rates.len() < paths.len() {
        let mut tightest = (f64::INFINITY, 0);
        for (link, capacity) in capacities.iter().enumerate() {
            let (mut used, mut open) = (0.0, 0.0);
            for (flow, path) in paths {
                for hop in path.iter().filter(|hop| hop.0 as usize == link) {
                    match rates.get(flow) {
                        Some(rate) => used += rate * f64::from(hop.1),
                        None => open += f64::from(hop.1),
                    }
                }
            }
            let level = (capacity - used) / open;
            if open > 0.0 && level < tightest.0 {
                tightest = (level, link as u32);
            }
        }
        for (flow, path) in paths {
            if path.iter().any(|hop| hop.0 == tightest.1) {
                rates.entry(*flow).or_insert(tightest.0);
            }
        }
    }
    rates
}

/// Every pair of hosts exchanges. When one flow ends, nobody gains by it: each of those that shared a port with it is held
/// up at its other port. That takes a look at these, not at all flows.
#[test]
fn an_end_costs_what_shared_its_ports() {
    const HOSTS: u32 = 64;
    let pairs = (0..HOSTS).flat_map(|from| (0..HOSTS).map(move |to| (from, to)));
    let paths: Vec<_> =
        pairs.filter(|(from, to)| from != to).map(|(from, to)| vec![(from, 1), (HOSTS + to, 1)]).collect();
    let (ports, flows) = (2 * HOSTS as usize, paths.len());
    let mut network = FlowNetwork::from_parts(&vec![50e9; ports], &paths);
    for group in 0..flows as u32 {
        network.start(0, group, group, if group == 0 { 1 << 10 } else { 1 << 30 });
    }
    let mut reports = Vec::new();
    network.settle(0, |end, due| reports.push((end, due))).unwrap();
    assert!(network.looks <= 2 * flows + ports, "{}", network.looks);
    network.looks = 0;
    let mut finished = Vec::new();
    network.finish(reports[0].1, &mut finished);
    network.settle(reports[0].0, |_, _| ()).unwrap();
    assert_eq!((finished.len(), network.rates().len()), (1, flows - 1));
    assert!(network.rates().values().all(|rate| close(*rate, 50e9 / 63.0)));
    // Its two ports, and 62 other flows on each.
    assert_eq!(network.looks, 2 * (1 + 62));
}

/// What comes and goes on a line of links changes its neighbours as far as they get more or less by it.
#[test]
fn a_change_goes_as_far_as_rates_do() {
    // Link i is shared by flows i and i + 1; links grow, so that each holds up the first of its flows.
    const LINKS: u32 = 1_000;
    let capacities: Vec<f64> = (0..LINKS).map(|link| 1e9 * f64::from(10 + 10 * link)).collect();
    let paths: Vec<_> = (0..=LINKS)
        .map(|flow| (flow.saturating_sub(1)..=flow.min(LINKS - 1)).map(|link| (link, 1)).collect())
        .collect();
    let (mut network, _) = started(&capacities, &paths, 1 << 40);
    for (group, least) in [(LINKS, 1), (LINKS / 2, 1), (1, 1)] {
        let before = network.rates();
        network.looks = 0;
        network.start(1, group, 5_000 + group, 1 << 40);
        network.settle(1, |_, _| ()).unwrap();
        let after = network.rates();
        let changed = before.iter().filter(|(flow, rate)| after[*flow].to_bits() != rate.to_bits()).count();
        assert!(changed >= least, "{changed}");
        // Two links of each, and at most four flows on each of these.
        assert!(network.looks <= 10 * (changed + 1), "{} for {changed}", network.looks);
    }
}

fn any_network() -> impl Strategy<Value = (Vec<f64>, Vec<Vec<(u32, u32)>>)> {
    (1_u32..8).prop_flat_map(|links| {
        let capacities =
            prop::collection::vec(prop::sample::select(vec![1e9, 2e9, 2.5e9, 7e9]), links as usize);
        let path = prop::collection::btree_map(0..links, 1_u32..5, 1..=links as usize)
            .prop_map(|path| path.into_iter().collect::<Vec<_>>());
        (capacities, prop::collection::vec(path, 1..12))
    })
}

/// More links than a flow crosses, of capacities that do not divide well.
fn large_network() -> impl Strategy<Value = (Vec<f64>, Vec<Vec<(u32, u32)>>)> {
    (4_u32..24).prop_flat_map(|links| {
        let capacities = prop::collection::vec(
            prop::sample::select(vec![1e9, 1e9 / 3.0, 2.5e9, 7e9, 49e9, 4e11]),
            links as usize,
        );
        let path = prop::collection::btree_map(0..links, 1_u32..4, 1..=4_usize)
            .prop_map(|path| path.into_iter().collect::<Vec<_>>());
        (capacities, prop::collection::vec(path, 1..40))
    })
}

fn numbered(paths: &[Vec<(u32, u32)>]) -> BTreeMap<u32, Vec<(u32, u32)>> {
    (0..).zip(paths.iter().cloned()).collect()
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn rates_are_those_of_progressive_filling((capacities, paths) in any_network()) {
        let expected = brute_force(&capacities, &numbered(&paths));
        for (found, expected) in rates(&capacities, &paths).iter().zip(expected.values()) {
            prop_assert!(close(*found, *expected), "{found} instead of {expected}");
        }
    }

    #[test]
    fn every_flow_has_a_bottleneck((capacities, paths) in any_network()) {
        let rates = rates(&capacities, &paths);
        let on = |link: u32| paths.iter().zip(&rates).filter_map(move |(path, rate)| {
            path.iter().find(|hop| hop.0 == link).map(|hop| (f64::from(hop.1), *rate))
        });
        for (link, capacity) in capacities.iter().enumerate() {
            let load: f64 = on(link as u32).map(|(weight, rate)| weight * rate).sum();
            prop_assert!(load <= capacity * (1.0 + 1e-9));
        }
        for (path, rate) in paths.iter().zip(&rates) {
            let has_bottleneck = path.iter().any(|hop| {
                let load: f64 = on(hop.0).map(|(weight, rate)| weight * rate).sum();
                let is_fastest = on(hop.0).all(|(_, other)| other <= rate * (1.0 + 1e-9));
                close(load, capacities[hop.0 as usize]) && is_fastest
            });
            prop_assert!(has_bottleneck);
        }
    }

    #[test]
    fn rates_do_not_depend_on_insertion_order((capacities, paths) in any_network(), seed in any::<u64>()) {
        // Bit by bit: the same flows in another order, half of them after a first settlement.
        let mut order: Vec<u32> = (0..paths.len() as u32).collect();
        order.sort_by_key(|flow| (u64::from(*flow) + 1).wrapping_mul(seed | 1).rotate_left(17));
        let mut network = FlowNetwork::from_parts(&capacities, &paths);
        for (at, &flow) in order.iter().enumerate() {
            if at == order.len() / 2 {
                network.settle(0, |_, _| ()).unwrap();
            }
            network.start(0, flow, flow, 1_000);
        }
        network.settle(0, |_, _| ()).unwrap();
        let found: Vec<f64> = network.rates().into_values().collect();
        prop_assert_eq!(found, rates(&capacities, &paths));
    }

    #[test]
    fn solving_parts_equals_solving_all((capacities, paths) in any_network(), removed in any::<u16>()) {
        // Flows that come and go leave the rates of those that stay as if they had always been alone.
        let mut network = FlowNetwork::from_parts(&capacities, &paths);
        let mut now = 0;
        let mut reports: Vec<(u64, Due)> = Vec::new();
        for group in 0..paths.len() as u32 {
            let stays = removed >> group & 1 == 0;
            network.start(0, group, group, if stays { 1 << 40 } else { 1 + u64::from(group) });
        }
        network.settle(0, |end, due| reports.push((end, due))).unwrap();
        let mut staying = numbered(&paths);
        staying.retain(|flow, _| removed >> flow & 1 == 0);
        let mut finished = Vec::new();
        while network.rates().len() > staying.len() {
            reports.sort_by_key(|report| Reverse(report.0));
            let (end, due) = reports.pop().unwrap();
            prop_assert!(end >= now);
            now = end;
            network.finish(due, &mut finished);
            network.settle(now, |end, due| reports.push((end, due))).unwrap();
        }
        let expected = brute_force(&capacities, &staying);
        for (flow, rate) in network.rates() {
            prop_assert!(close(rate, expected[&flow]));
        }
    }

    /// Whatever came and went before: rates are bit by bit those of the same flows in a new network, and each settlement
    /// looks once at the flows on the links of those that started, ended, or changed.
    #[test]
    fn changes_alone_are_solved_and_nothing_tells(
        (capacities, paths) in large_network(),
        turns in prop::collection::vec((any::<prop::sample::Index>(), 1_u64..1 << 30, 0_u8..3), 1..40),
    ) {
        let mut network = FlowNetwork::from_parts(&capacities, &paths);
        let mut running: BTreeMap<u32, u32> = BTreeMap::new();
        let mut reports: Vec<(u64, Due)> = Vec::new();
        let (mut now, mut finished) = (0, Vec::new());
        for (meeting, (group, bytes, ends)) in (0..).zip(turns) {
            let before = network.levels();
            network.looks = 0;
            reports.sort_by_key(|report| Reverse(report.0));
            // Flows start between ends, at the moment of an end, or after it.
            if ends > 0 && let Some((end, due)) = reports.pop() {
                now = end;
                network.finish(due, &mut finished);
            }
            if ends < 2 {
                let group = group.index(paths.len()) as u32;
                network.start(now, group, meeting, bytes);
                running.insert(meeting, group);
            }
            let mut touched: Vec<u32> = finished.iter().map(|it: &Finished| it.group).collect();
            network.settle(now, |end, due| reports.push((end, due))).unwrap();
            for it in finished.drain(..) {
                running.remove(&it.meeting);
            }
            let found = network.levels();
            assert_balanced(&network);

            let mut new = FlowNetwork::from_parts(&capacities, &paths);
            for (&meeting, &group) in &running {
                new.start(0, group, meeting, 1 << 40);
            }
            new.settle(0, |_, _| ()).unwrap();
            prop_assert_eq!(&found, &new.levels());

            let differs = |meeting: &u32| before.get(meeting) != found.get(meeting);
            touched.extend(running.iter().filter(|(meeting, _)| differs(meeting)).map(|(_, &group)| group));
            let links: BTreeSet<u32> =
                touched.iter().flat_map(|&group| paths[group as usize].iter().map(|hop| hop.0)).collect();
            let most: usize = links.iter().map(|&link| 1 + network.links[link as usize].alive as usize).sum();
            prop_assert!(network.looks <= most, "{} looks, {} at most", network.looks, most);
        }
    }
}
