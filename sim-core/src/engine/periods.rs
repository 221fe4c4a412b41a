//! Periods: a step of hundreds of micro-batches does the same again and again, and is played only until it does so exactly.
//!
//! A program names what it repeats: its parts are the same stretches of records ([`Part`]). Where the parts of a rank go
//! round, its host pauses after every round, and the state of play is held against an earlier one ([`crate::look`]). If
//! every rank is at the same record of the same part, if all that waits, is under way or is kept of the past is the same,
//! and if all that moved is later by one and the same time, then what the ranks did between the two is what they will do
//! again, that much later, as long as their parts go round. So many rounds are not played: what was moved is moved on,
//! sums of times grow by what they grew, and the hosts go on behind the rounds.
//!
//! # Why it is exact
//!
//! Clocks are whole picoseconds, and an engine compares and adds them; nothing depends on where zero is. Flows keep what is
//! left of them and since when, not when they began. What did not move between two equal states is before every clock that
//! did ([`crate::look::Seen::is_later`]), so that it loses every comparison, then and in all rounds to come. The order in
//! which ranks are played never shows ([`super`]), hence the ranks may be taken wherever their hosts are at a pause, and the
//! rounds that are left out may be thought of as played in the order of the one that was.
//!
//! Members of a group have issued as many of its meetings as have resolved and as their streams still have before them. The
//! latter are facts of the ranks, so that all members of a group are as many meetings further, and numbers need not move.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::ops::Range;

use super::Engine;
use super::looking::About;
use super::rank::RankState;
use crate::accounts::ByClass;
use crate::look::{Look, Seen};
use crate::observer::Observer;
use crate::program::{Mixer, Part};
use crate::world::World;

/// Fewest rounds that are worth a look.
const ROUNDS: usize = 8;
/// Most lengths of a round that are tried at a part.
const LENGTHS: usize = 48;
/// Worlds of more ranks are played in full: their states take too much memory to be kept.
const MOST_RANKS: usize = 4096;
/// Times are left alone that might come near the end of time.
const LATEST: u64 = u64::MAX >> 1;

/// Where the parts of a program go round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch {
    first: usize,
    /// Parts of a round.
    round: usize,
    /// The part behind the last that is as it was a round before.
    end: usize,
}

/// Looks for periods.
#[derive(Debug, Default)]
pub(super) struct Periods {
    /// The rank whose host pauses.
    watched: u32,
    /// By part of its program: the next that is the same, or none.
    next_alike: Vec<u32>,
    stretch: Option<Stretch>,
    /// An earlier state of the watched rank, and of all.
    own: Option<Kept<RankSeen>>,
    before: Option<Kept<State>>,
    /// Pauses in the stretch.
    pauses: u32,
    /// Looks in vain, and pauses without one since: one costs a part of what a round costs to play.
    in_vain: usize,
    rests: usize,
    /// Rounds that were not played.
    pub(super) skipped: u64,
}

/// An earlier state. What has not settled yet may take as long again: the next is kept after twice as many pauses.
#[derive(Debug)]
struct Kept<S> {
    state: S,
    until: u32,
}

impl<S> Kept<S> {
    fn new(state: S, pauses: u32) -> Self {
        Self { state, until: 2 * pauses }
    }
}

/// A state of play.
#[derive(Debug)]
struct State {
    now: u64,
    events: u64,
    ranks: Vec<RankSeen>,
    meetings: Seen,
    /// What is planned and under way.
    ahead: Seen,
}

/// What is seen of a rank.
#[derive(Clone, Debug)]
struct RankSeen {
    host: u64,
    part: usize,
    event: u32,
    busy: Box<[ByClass]>,
    idle: ByClass,
    host_busy: ByClass,
    seen: Seen,
}

impl Periods {
    pub(super) fn of(world: &World) -> Self {
        if world.ranks().len() > MOST_RANKS {
            return Self::default();
        }
        let mut known = vec![false; world.programs().len()];
        for (rank, spec) in (0..).zip(world.ranks()) {
            if std::mem::replace(&mut known[spec.program as usize], true) {
                continue;
            }
            let parts = world.program_of(rank).parts();
            if parts.len() < ROUNDS {
                continue;
            }
            let next_alike = next_alike(parts);
            if let Some(stretch) = find(parts, &next_alike, 0) {
                return Self { watched: rank, next_alike, stretch: Some(stretch), ..Self::default() };
            }
        }
        Self::default()
    }

    /// The rank that pauses, and where it does first.
    pub(super) fn pause(&self) -> Option<(u32, usize)> {
        self.stretch.map(|stretch| (self.watched, stretch.first))
    }

    /// What was seen so far is of no use.
    fn settle_again(&mut self) {
        (self.own, self.before) = (None, None);
        (self.pauses, self.in_vain, self.rests) = (0, 0, 0);
    }

    /// Where the host pauses next that is at a part of its program.
    fn next_pause(&mut self, parts: &[Part], at: usize) -> usize {
        if let Some(Stretch { round, end, .. }) = self.stretch {
            if at + 2 * round <= end {
                return at + round;
            }
            self.settle_again();
            self.stretch = find(parts, &self.next_alike, at.max(end));
        }
        self.stretch.map_or(usize::MAX, |stretch| stretch.first)
    }
}

/// By part: the next that is the same, or their number.
fn next_alike(parts: &[Part]) -> Vec<u32> {
    let mut seen: HashMap<Part, u32, BuildHasherDefault<Mixer>> = HashMap::default();
    let mut next = vec![parts.len() as u32; parts.len()];
    for (at, part) in parts.iter().enumerate().rev() {
        if let Some(later) = seen.insert(*part, at as u32) {
            next[at] = later;
        }
    }
    next
}

/// The first stretch from a part on that goes round often enough; of several lengths of a round the one that goes on longest.
fn find(parts: &[Part], next_alike: &[u32], from: usize) -> Option<Stretch> {
    // Parts are compared so often at most that a program without rounds costs little.
    let mut left = 16 * parts.len();
    for first in from..parts.len() {
        let mut best: Option<Stretch> = None;
        let mut alike = next_alike[first] as usize;
        for _ in 0..LENGTHS {
            let round = alike - first;
            if first + ROUNDS * round > parts.len() || left == 0 {
                break;
            }
            // To go further than the best it has to go past its end: twice its round does not.
            let same_at = |end: usize| end < alike || parts[end] == parts[end - round];
            let goes_past = |end: usize| end < parts.len() && same_at(end);
            if best.is_none_or(|best| goes_past(best.end)) {
                let pairs = parts[first..].iter().zip(&parts[alike..]);
                let same = pairs.take_while(|(a, b)| a == b).count();
                left = left.saturating_sub(same + 1);
                let end = alike + same;
                if end - first >= ROUNDS * round && best.is_none_or(|best| end > best.end) {
                    best = Some(Stretch { first, round, end });
                }
            }
            alike = next_alike[alike] as usize;
        }
        if best.is_some() || left == 0 {
            return best;
        }
    }
    None
}

/// How often what a list has in a range comes again right behind it.
fn goes_on<T: PartialEq>(list: &[T], round: Range<usize>) -> u64 {
    if round.is_empty() {
        return u64::MAX;
    }
    let pairs = list[round.end..].iter().zip(&list[round.start..]);
    (pairs.take_while(|(again, earlier)| again == earlier).count() / round.len()) as u64
}

impl<O: Observer> Engine<'_, O> {
    /// The host of the watched rank pauses: what it did since an earlier pause may be what it will do again.
    pub(super) fn look_for_period(&mut self) {
        self.compare();
        let watched = self.periods.watched;
        let parts = self.world.program_of(watched).parts();
        let at = self.ranks[watched as usize].next.part;
        self.ranks[watched as usize].pause_at = self.periods.next_pause(parts, at);
    }

    fn compare(&mut self) {
        self.periods.pauses += 1;
        let pauses = self.periods.pauses;
        let own = self.see(self.periods.watched);
        if self.periods.rests > 0 {
            self.periods.rests -= 1;
        } else if let Some(before) = self.periods.before.take() {
            if self.repeat(&before.state, &own).is_some() {
                self.periods.settle_again();
                return;
            }
            self.periods.before = Some(before).filter(|before| pauses < before.until);
        }
        // All are looked at once the watched rank does the same again.
        let Some(before) = self.periods.own.take() else {
            self.periods.own = Some(Kept::new(own, pauses));
            return;
        };
        let by = own.host - before.state.host;
        if self.periods.before.is_none() && before.state.seen.is_later(&own.seen, by) {
            self.periods.before = Some(Kept::new(self.state(), pauses));
        }
        self.periods.own = Some(if pauses < before.until { before } else { Kept::new(own, pauses) });
    }

    fn state(&mut self) -> State {
        let ranks = (0..self.ranks.len() as u32).map(|rank| self.see(rank)).collect();
        let issued = self.issued();
        let (meetings, ahead) = self.see_shared(&issued);
        State { now: self.now, events: self.events, ranks, meetings, ahead }
    }

    fn see(&mut self, rank: u32) -> RankSeen {
        let mut seen = Seen::default();
        self.look_at(rank, &mut seen);
        let state = &self.ranks[rank as usize];
        RankSeen {
            host: state.host,
            part: state.next.part,
            event: state.events.next_of_program(),
            busy: state.busy.clone(),
            idle: state.idle,
            host_busy: state.host_busy,
            seen,
        }
    }

    /// What is seen of meetings, and of what is planned and under way.
    fn see_shared(&mut self, issued: &[u32]) -> (Seen, Seen) {
        let (mut meetings, mut ahead) = (Seen::default(), Seen::default());
        self.meetings.look(&mut meetings, issued);
        self.look_ahead(&mut ahead, issued);
        (meetings, ahead)
    }

    fn look_at(&mut self, rank: u32, look: &mut impl Look) {
        let about =
            About { records: self.world.program_of(rank).records(), classes: self.world.classes(rank) };
        self.ranks[rank as usize].look(look, about, &self.meetings);
    }

    fn look_ahead(&mut self, look: &mut impl Look, issued: &[u32]) {
        self.meetings.look_ahead(look, issued);
        let meetings = &self.meetings;
        self.network.look(look, |meeting| meetings.name(meeting, issued));
    }

    /// By group: how many of its meetings its first member has issued.
    fn issued(&self) -> Vec<u32> {
        let mut issued = vec![0; self.world.groups().len()];
        for (spec, state) in self.world.ranks().iter().zip(&self.ranks).rev() {
            for (group, count) in spec.groups.iter().zip(&state.issued) {
                issued[group.0 as usize] = *count;
            }
        }
        issued
    }

    /// If the state is an earlier one, only later, leaves out as many rounds as there are; returns how many.
    /// `own` is what is seen of the watched rank.
    fn repeat(&mut self, before: &State, own: &RankSeen) -> Option<u64> {
        let watched = self.periods.watched as usize;
        let by = own.host - before.ranks[watched].host;
        let mut now: Vec<Option<RankSeen>> = vec![None; self.ranks.len()];
        let mut looked_at = 0;
        // Most often the watched rank itself tells the difference.
        for rank in std::iter::once(watched).chain((0..self.ranks.len()).filter(|rank| *rank != watched)) {
            let seen = if rank == watched { own.clone() } else { self.see(rank as u32) };
            let same = before.ranks[rank].seen.is_later(&seen.seen, by);
            looked_at += 1;
            if !same {
                // The more ranks it takes to tell, the less often it is tried.
                self.periods.in_vain += 1;
                self.periods.rests = self.periods.in_vain * looked_at / now.len();
                return None;
            }
            now[rank] = Some(seen);
        }
        let now: Vec<RankSeen> = now.into_iter().flatten().collect();
        let issued = self.issued();
        let (meetings, ahead) = self.see_shared(&issued);
        let moves_on = self.now == before.now || before.now.checked_add(by) == Some(self.now);
        if !moves_on
            || !before.meetings.is_later_in_parts(&meetings, by)
            || !before.ahead.is_later_in_whole(&ahead, by)
        {
            return None;
        }
        let rounds =
            (0..now.len()).map(|rank| self.rounds(rank as u32, &before.ranks[rank], &now[rank])).min()?;
        let picos = rounds.checked_mul(by)?;
        let latest =
            now.iter().map(|rank| rank.seen.latest()).chain([meetings.latest(), ahead.latest()]).max()?;
        if rounds == 0 || latest.checked_add(picos)? > LATEST {
            return None;
        }
        for (rank, now) in (0..).zip(&now) {
            self.move_on(rank, (&before.ranks[rank as usize], now), (rounds, picos));
        }
        self.meetings.look(&mut before.meetings.mover(&meetings, picos), &issued);
        self.look_ahead(&mut before.ahead.mover(&ahead, picos), &issued);
        self.meetings.agenda.put_off(picos);
        self.network.put_off_ends(picos);
        if self.now != before.now {
            self.now += picos;
        }
        self.events += rounds * (self.events - before.events);
        self.periods.skipped += rounds;
        Some(rounds)
    }

    /// How often a rank's program does again from here on what it did since an earlier state.
    fn rounds(&self, rank: u32, before: &RankSeen, now: &RankSeen) -> u64 {
        let program = self.world.program_of(rank);
        let (parts, waits) = (program.parts(), program.waits());
        let of_parts = goes_on(parts, before.part..now.part);
        let of_events = goes_on(waits, before.event as usize..now.event as usize);
        of_parts.min(of_events)
    }

    /// A rank is so many rounds and picoseconds on.
    fn move_on(&mut self, rank: u32, (before, now): (&RankSeen, &RankSeen), (rounds, picos): (u64, u64)) {
        self.look_at(rank, &mut before.seen.mover(&now.seen, picos));
        let state: &mut RankState = &mut self.ranks[rank as usize];
        state.next.part += rounds as usize * (now.part - before.part);
        state.events.skip(rounds as u32 * (now.event - before.event));
        for (busy, before) in state.busy.iter_mut().zip(&before.busy) {
            busy.repeat(before, rounds);
        }
        state.idle.repeat(&before.idle, rounds);
        state.host_busy.repeat(&before.host_busy, rounds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts by letters, and the stretch that is found in them.
    fn found(letters: &str) -> Option<(usize, usize, usize)> {
        let parts: Vec<Part> =
            letters.bytes().map(|letter| Part { first: u32::from(letter), end: 1000 }).collect();
        let found = find(&parts, &next_alike(&parts), 0);
        found.map(|Stretch { first, round, end }| (first, round, end))
    }

    #[test]
    fn the_round_that_goes_on_longest_is_found() {
        assert_eq!(found("x"), None);
        assert_eq!(found(&"ab".repeat(7)), None);
        assert_eq!(found(&format!("xay{}abz", "ab".repeat(8))), Some((3, 2, 21)));
        // Eight times the same, and then another eight times: the long round has both.
        let long = format!("{}{}", "a".repeat(8), "b".repeat(8));
        assert_eq!(found(&long.repeat(9)), Some((0, 16, 144)));
        // A part may come twice in a round.
        assert_eq!(found(&format!("{}abc", "aab".repeat(20))), Some((0, 3, 61)));
    }

    #[test]
    fn a_program_without_rounds_costs_little() {
        let mut drawn = 1_u32;
        let parts: Vec<Part> = (0..20_000)
            .map(|_| {
                drawn = drawn.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Part { first: drawn >> 30, end: 4 }
            })
            .collect();
        assert_eq!(find(&parts, &next_alike(&parts), 0), None);
    }
}
