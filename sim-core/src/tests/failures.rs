//! What cannot be played to its end.

use super::*;

/// A program of meetings on the given channels, in order, one stream, with a label per channel.
fn meets(name: &str, channels: usize, order: &[usize], fixed: u64, bytes: u64) -> Program {
    write(name, |b| {
        let s = b.stream("s");
        let all: Vec<_> =
            (0..channels).map(|c| (b.channel("g"), b.label(&format!("meeting on {c}")))).collect();
        for &index in order {
            let (channel, label) = all[index];
            b.rendezvous(s, channel, SEND, WAIT, label, ps(fixed), bytes);
        }
    })
}

#[test]
fn a_deadlock_names_who_waits_for_whom() {
    // Two ranks meet in two groups in opposite order; the third has ended.
    let mut w = world();
    let groups = [w.group(2, vec![]), w.group(2, vec![])];
    for (name, order) in [("up", [0, 1]), ("down", [1, 0])] {
        let spec = rank(&mut w, meets(name, 2, &order, 1, 0), &groups);
        w.rank(spec);
    }
    let spec = rank(&mut w, meets("idle", 0, &[], 1, 0), &[]);
    w.rank(spec);
    let error = play_both(&w.build().unwrap()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "deadlock: rank 0 (program up) waits for \"meeting on 0\", meeting 1 of group 0, where rank 1 has \
         not arrived; rank 1 (program down) waits for \"meeting on 1\", meeting 1 of group 1, where rank 0 \
         has not arrived"
    );
}

#[test]
fn a_member_too_few_meetings_is_a_deadlock() {
    let mut w = world();
    let group = w.group(12, vec![]);
    for member in 0..12 {
        let order: &[usize] = if member == 0 { &[0, 0] } else { &[0] };
        let spec = rank(&mut w, meets("p", 1, order, 1, 0), &[group]);
        w.rank(spec);
    }
    let error = play_both(&w.build().unwrap()).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "meeting 2 of group 0, where ranks 1, 2, 3, 4, 5, 6, 7, 8 and 3 more have not arrived"
        )
    );
}

#[test]
fn members_that_disagree_are_named_with_their_values() {
    let mut w = world();
    let link = w.link("l", 1e9, ps(0));
    let group = w.group(3, vec![uses(link, 1)]);
    for (fixed, bytes) in [(5, 100), (5, 100), (5, 101)] {
        let spec = rank(&mut w, meets("p", 1, &[0], fixed, bytes), &[group]);
        w.rank(spec);
    }
    let world = w.build().unwrap();
    let error = play_both(&world).unwrap_err();
    assert_eq!(simulate_every_operation(&world, &mut NoObserver).unwrap_err(), error);
    assert_eq!(
        error.to_string(),
        "the members of group 0's meeting 1 disagree: rank 0 in \"meeting on 0\" gives 100 bytes after 5 ps, \
         but rank 2 in \"meeting on 0\" gives 101 bytes after 5 ps"
    );
}

#[test]
fn time_that_overflows_is_an_error() {
    let most = u64::MAX - 1;
    let overflow = |label: &str| Err(SimulationError::Overflow { rank: 0, label: label.to_owned() });
    let kernels = |first: u64, second: u64| {
        one_rank(write("p", |b| {
            let (s, l, m) = (b.stream("s"), b.label("first"), b.label("second"));
            b.kernel(s, COMPUTE, l, ps(first), ps(0));
            b.kernel(s, COMPUTE, m, ps(second), ps(0));
        }))
    };
    assert_eq!(play(&kernels(most, 0)).0.end, ps(most));
    assert_eq!(play_both(&kernels(most, 1)).map(|_| ()), overflow("second"));
    assert_eq!(play_both(&kernels(u64::MAX, 0)).map(|_| ()), overflow("first"));
    let host = one_rank(write("p", |b| {
        let (l, m) = (b.label("first"), b.label("second"));
        b.host(ps(most), LOAD, l);
        b.host(ps(1), LOAD, m);
    }));
    assert_eq!(play_both(&host).map(|_| ()), overflow("second"));
}

#[test]
fn a_flow_or_meeting_past_the_end_of_time_is_an_error() {
    let overflow = Err(SimulationError::Overflow { rank: 0, label: "meeting on 0".into() });
    // One byte per second for 2^40 s, alone and beside another group on the link; then a fixed time and a
    // latency too long.
    for (groups, fixed, bytes, latency) in [
        (1, 0, 1 << 40, 0),
        (2, 0, 1 << 40, 0),
        (1, u64::MAX, 0, 0),
        (1, 9, 0, u64::MAX - 5),
        (2, 9, 1, u64::MAX - 5),
    ] {
        let mut w = world();
        let link = w.link("slow", 1.0, ps(latency));
        for more in 0..groups {
            let group = w.group(1, vec![uses(link, 1)]);
            let spec = rank(&mut w, meets("p", 1, &[0], fixed, bytes + more), &[group]);
            w.rank(spec);
        }
        assert_eq!(play_both(&w.build().unwrap()).map(|_| ()), overflow);
    }
}

/// Of kernels in a row the one is named whose issue or whose end has no time: played at once, and behind a meeting.
#[test]
fn the_kernel_in_a_row_that_overflows_is_named() {
    let most = u64::MAX - 1_000;
    let overflow = |label: &str| Err(SimulationError::Overflow { rank: 0, label: label.to_owned() });
    let kernels = |b: &mut ProgramBuilder, s, kernels: &[(&str, u64, u64)]| {
        for &(name, time, issue) in kernels {
            let label = b.label(name);
            b.kernel(s, COMPUTE, label, ps(time), ps(issue));
        }
    };
    let late_issue = [("one", 1, 1), ("two", 1, most), ("three", 1, 2_000), ("four", 1, 1)];
    let late_end = [("one", 1, 1), ("two", most, 1), ("three", 2_000, 1), ("four", 1, 1)];
    for row in [late_issue, late_end] {
        let at_once = one_rank(write("p", |b| {
            let s = b.stream("s");
            kernels(b, s, &row);
        }));
        assert_eq!(play_both(&at_once).map(|_| ()), overflow("three"));
        // The first stream waits at a meeting to which the other rank comes after another one: the host has to issue ahead.
        let mut w = world();
        let groups = [w.group(2, vec![]), w.group(2, vec![])];
        let ahead = write("ahead", |b| {
            let (s, t, l) = (b.stream("s"), b.stream("t"), b.label("other"));
            let (first, second) = (b.channel("first"), b.channel("second"));
            (0..3).for_each(|_| b.host(ps(1), LOAD, l));
            b.rendezvous(s, first, SEND, WAIT, l, ps(1), 0);
            kernels(b, s, &row);
            b.rendezvous(t, second, SEND, WAIT, l, ps(1), 0);
        });
        let behind = write("behind", |b| {
            let (s, l) = (b.stream("s"), b.label("other"));
            let (first, second) = (b.channel("first"), b.channel("second"));
            b.rendezvous(s, second, SEND, WAIT, l, ps(1), 0);
            b.rendezvous(s, first, SEND, WAIT, l, ps(1), 0);
        });
        for program in [ahead, behind] {
            let spec = rank(&mut w, program, &groups);
            w.rank(spec);
        }
        assert_eq!(play_both(&w.build().unwrap()).map(|_| ()), overflow("three"));
    }
}
