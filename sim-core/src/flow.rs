//! Links with shared bandwidth: max-min fair rates, solved only where something changed.
//!
//! # The rule
//!
//! Link `l` has capacity `C(l)`. Flow `f` crosses a set of links, link `l` with integer weight `w(f, l)`: it
//! stands for that many equal flows there. Rates `r(f)` are feasible if on every link
//!
//! ```text
//! sum over f on l of  w(f, l) r(f)  <=  C(l)
//! ```
//!
//! They are max-min fair if no rate can rise without lowering one that is not larger; equivalently, if every
//! flow crosses a *bottleneck*: a saturated link on which no other flow is faster (Bertsekas and Gallager,
//! Data Networks, 2nd edition, section 6.5.2). There is exactly one such set of rates, and progressive
//! filling finds it: all rates rise together from zero; when a link saturates, its flows freeze; the others
//! rise on. In formulas, with `U` the flows not frozen yet, the next link saturates at level
//!
//! ```text
//! min over l with flows in U of  (C(l) - sum of frozen w r) / (sum of w(f, l) for f in U)
//! ```
//!
//! # The arithmetic
//!
//! Levels and capacities are whole numbers of a small power of two ([`level`]), and weights are whole, so what is left of
//! a link is exact. So the rates depend on the set of flows only, never on the order they came in; links with equal
//! loads saturate at exactly equal levels; and what a link looked like at any level can be told from what froze on it
//! below, without filling anything again.
//!
//! A rate is held in bytes per second, which is the same number of picobytes (1e-12 byte) per picosecond;
//! what remains of a flow is therefore counted in picobytes. A flow with `b` picobytes left at time `t` ends at
//! `t + ceil(b / r)`, at least one picosecond later. What remains is brought up to date only when the rate
//! changes, so that a flow whose neighbours come and go without effect accumulates no rounding.
//!
//! # Slack links
//!
//! A flow is never faster than `a(f)`, the least of `C(l) / w(f, l)` over its links: what it would be alone. A link with
//! `sum over f on l of w(f, l) a(f) < C(l)` can therefore never saturate: it is *slack*, and can be left out of the
//! conditions without changing any rate. (A link that gives some flow its `a(f)` is not slack while the flow is on it.) The
//! sums are kept as integers, rounded up, so that they depend on the set of flows only; a billionth of the capacity is
//! kept clear, far more than rounding in the rates amounts to.
//!
//! # The increments
//!
//! All starts and ends of one moment are gathered, then [`FlowNetwork::settle`] changes the rates that they change. Every
//! link that is not slack remembers how it filled: its flows in the order of their levels, and what was left after each
//! level. A flow that ends makes no difference below its level, and one that starts none below the level at which the first
//! of its links now saturates. From these levels the filling is done again in ascending order ([`sweep`]), on as few links
//! as possible:
//!
//! - A link is *taken back* to a level when one of its flows freezes there that did not, or does not freeze there
//!   that did; what froze on it below stays.
//! - A flow on such a link freezes where it did before as long as another of its links, that has not been taken back,
//!   saturates there. Otherwise it is open, and so are from there on all of its links.
//!
//! What is looked at are thus the flows on the links of those that started, ended or changed, and no others. Time:
//! `O(h log n)` for `h` hops of these and `n` links taken back. What a settlement changed waits together for its ends, in
//! the order of their times ([`ends`]).

mod ends;
mod level;
mod link;
mod sweep;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

use crate::look::Look;
use crate::time::{PICOS_PER_SECOND, later};
use crate::world::World;

pub(crate) use ends::Due;

use ends::{Ends, NO_BATCH};
use level::{Level, NEVER, Unit, saturation};
use link::{Entry, LinkState};

/// A flow's use of a link.
#[derive(Clone, Copy, Debug)]
struct Hop {
    link: u32,
    weight: u32,
    /// The most that a flow can take of the link, bytes/s, rounded up.
    most: u64,
}

/// The way of a group's flows.
#[derive(Clone, Debug)]
struct Path {
    /// Its part of all hops.
    hops: Range<u32>,
    /// The level of a flow that is alone.
    alone: Level,
    /// The parts that the group's bytes are divided into. A flow here is one of them.
    parts: u32,
}

/// What a settlement has done with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It rises.
    Open,
    /// It froze.
    Frozen,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    group: u32,
    meeting: u32,
    bytes: u64,
    start: u64,
    alive: bool,
    /// How often this place has been used.
    use_count: u32,
    /// The settlement that last looked at it, and what it did.
    seen: u64,
    place: Place,
    /// Where it froze; 0 before.
    level: Level,
    /// Bytes per second; 0 before the first settlement.
    rate: f64,
    /// Picobytes left at `updated`.
    left: f64,
    updated: u64,
    /// With which others it waits for its end.
    batch: u32,
}

/// A flow that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) group: u32,
    /// The meeting it was started for.
    pub(crate) meeting: u32,
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// The links of a world and the flows on them.
#[derive(Clone, Debug)]
pub(crate) struct FlowNetwork {
    unit: Unit,
    links: Vec<LinkState>,
    hops: Vec<Hop>,
    /// By group.
    paths: Vec<Path>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    ends: Ends,
    /// Flows that started or ended since the last settlement. The places of the latter are free after it.
    started: Vec<u32>,
    ended: Vec<u32>,
    /// Links on which some did.
    dirty: Vec<u32>,
    settlement: u64,
    /// Levels at which something happens on links, lowest first; out of date where the link says another.
    agenda: BinaryHeap<Reverse<(Level, u32)>>,
    /// Links of the level at hand, links taken back in this settlement, and flows with new levels.
    at_level: Vec<u32>,
    open_links: Vec<u32>,
    changed: Vec<u32>,
    /// Flows and links looked at so far.
    #[cfg(test)]
    looks: usize,
}

/// Picoseconds in which `picobytes` pass at `rate` bytes per second, at least 1; `None` if not a time.
fn duration(picobytes: f64, rate: f64) -> Option<u64> {
    let picos = (picobytes / rate).ceil().max(1.0);
    // 2^63 ps are 106 days; the last bit of range is not worth the care its rounding would need.
    (picos < 9.2e18).then_some(picos as u64)
}

/// Duration of a flow that has its links to itself, in picoseconds; `None` if not a time.
pub(crate) fn alone(bytes: u64, rate: f64) -> Option<u64> {
    duration(bytes as f64 * PICOS_PER_SECOND, rate)
}

impl FlowNetwork {
    pub(crate) fn new(world: &World) -> Self {
        let capacities: Vec<f64> = world.links().iter().map(|link| link.bytes_per_second).collect();
        let mut network = Self::of_paths(&capacities, world.groups(), |group| {
            group.path().iter().map(|hop| (hop.link.0, hop.weight))
        });
        for (path, group) in network.paths.iter_mut().zip(world.groups()) {
            path.parts = group.parts();
        }
        network
    }

    /// From capacities in bytes per second and one path of (link, weight) per group.
    #[cfg(test)]
    fn from_parts(capacities: &[f64], group_paths: &[Vec<(u32, u32)>]) -> Self {
        Self::of_paths(capacities, group_paths, |path| path.iter().copied())
    }

    /// The same, from what has a path for each group.
    fn of_paths<'a, G, I>(capacities: &[f64], groups: &'a [G], path: impl Fn(&'a G) -> I) -> Self
    where
        I: Iterator<Item = (u32, u32)> + Clone,
    {
        let unit = Unit::of(capacities);
        let mut hops = Vec::new();
        let mut paths = Vec::with_capacity(groups.len());
        for path in groups.iter().map(path) {
            let first = hops.len() as u32;
            let share = |(link, weight): (u32, u32)| capacities[link as usize] / f64::from(weight);
            let alone = path.clone().map(share).fold(f64::INFINITY, f64::min);
            hops.extend(path.clone().map(|(link, weight)| {
                let most = (alone * f64::from(weight)).ceil() as u64;
                Hop { link, weight, most }
            }));
            let level = |(link, weight): (u32, u32)| {
                saturation(unit.whole(capacities[link as usize]), u64::from(weight))
            };
            let alone = path.map(level).min().unwrap_or(NEVER);
            paths.push(Path { hops: first..hops.len() as u32, alone, parts: 1 });
        }
        Self {
            links: capacities.iter().map(|&it| LinkState::new(unit.whole(it), it)).collect(),
            unit,
            hops,
            paths,
            flows: Vec::new(),
            free: Vec::new(),
            ends: Ends::default(),
            started: Vec::new(),
            ended: Vec::new(),
            dirty: Vec::new(),
            settlement: 0,
            agenda: BinaryHeap::new(),
            at_level: Vec::new(),
            open_links: Vec::new(),
            changed: Vec::new(),
            #[cfg(test)]
            looks: 0,
        }
    }

    fn path(&self, group: u32) -> Range<usize> {
        let hops = &self.paths[group as usize].hops;
        hops.start as usize..hops.end as usize
    }

    /// A flow of `bytes` > 0 over the path of `group` starts now; its rate is known after settling.
    pub(crate) fn start(&mut self, now: u64, group: u32, meeting: u32, bytes: u64) {
        let mut flow = Flow {
            group,
            meeting,
            bytes,
            start: now,
            alive: true,
            use_count: 0,
            seen: 0,
            place: Place::Open,
            level: 0,
            rate: 0.0,
            left: bytes as f64 * PICOS_PER_SECOND / f64::from(self.paths[group as usize].parts),
            updated: now,
            batch: NO_BATCH,
        };
        let index = if let Some(index) = self.free.pop() {
            flow.use_count = self.flows[index as usize].use_count.wrapping_add(1);
            self.flows[index as usize] = flow;
            index
        } else {
            self.flows.push(flow);
            self.flows.len() as u32 - 1
        };
        self.started.push(index);
        for at in self.path(group) {
            let Hop { link, weight, most } = self.hops[at];
            let state = &mut self.links[link as usize];
            state.flows.push(Entry { flow: index, use_count: flow.use_count });
            state.most += u128::from(most);
            state.weight += u64::from(weight);
            state.alive += 1;
            self.mark_dirty(link);
        }
    }

    /// Takes the flows out that the report announced, unless they have got other rates since.
    pub(crate) fn finish(&mut self, due: Due, finished: &mut Vec<Finished>) {
        let before = self.ended.len();
        self.ends.take(due, &mut self.flows, &mut self.ended);
        for at in before..self.ended.len() {
            let flow = &mut self.flows[self.ended[at] as usize];
            let Flow { group, meeting, start, bytes, level, .. } = *flow;
            flow.alive = false;
            finished.push(Finished { group, meeting, start, bytes });
            for at in self.path(group) {
                let Hop { link, weight, most } = self.hops[at];
                let state = &mut self.links[link as usize];
                state.most -= u128::from(most);
                state.weight -= u64::from(weight);
                state.alive -= 1;
                state.ended += 1;
                state.lowest_end = state.lowest_end.min(level);
                self.mark_dirty(link);
            }
        }
    }

    fn mark_dirty(&mut self, link: u32) {
        let state = &mut self.links[link as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(link);
        }
    }

    /// Whether something changed since the last settlement, or an end is to be reported.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.ends.is_waiting()
    }

    /// Visits the flows under way, in the order of what `name` says of their meetings; flows that ended and wait for a
    /// settlement to take note of it only make it dirty.
    pub(crate) fn look(&mut self, look: &mut impl Look, name: impl Fn(u32) -> (u32, u64)) {
        look.fact(u64::from(self.is_dirty()));
        let alive = (0..self.flows.len()).filter(|at| self.flows[*at].alive);
        let mut alive: Vec<_> = alive.map(|at| (name(self.flows[at].meeting), at)).collect();
        alive.sort_unstable();
        for ((group, number), at) in alive {
            let Flow { bytes, level, rate, left, updated, .. } = &mut self.flows[at];
            for fact in [u64::from(group), number, *bytes, rate.to_bits(), left.to_bits()] {
                look.fact(fact);
            }
            look.fact((*level >> 64) as u64);
            look.fact(*level as u64);
            look.time(updated);
        }
    }

    /// All flows end so many picoseconds later; [`FlowNetwork::look`] has moved what else is a time.
    pub(crate) fn put_off_ends(&mut self, picos: u64) {
        for flow in self.flows.iter_mut().filter(|flow| flow.alive) {
            flow.start = flow.start.saturating_add(picos);
        }
        self.ends.put_off(picos);
    }

    /// Gives every flow its rate, and reports the earliest end of those with new ones.
    ///
    /// # Errors
    /// The meeting of a flow that does not end within simulated time; of several, that of the first group.
    pub(crate) fn settle(&mut self, now: u64, mut report: impl FnMut(u64, Due)) -> Result<(), u32> {
        self.settlement += 1;
        self.place_new_flows();
        self.seed();
        self.sweep();
        let endless = self.reschedule(now, &mut report);
        self.ends.report(&self.flows, report);
        self.free.append(&mut self.ended);
        endless.map_or(Ok(()), |(_, meeting)| Err(meeting))
    }

    /// Gives the changed flows their rates and ends. Returns the first group and meeting whose flow ends past the end of
    /// time.
    fn reschedule(&mut self, now: u64, report: &mut impl FnMut(u64, Due)) -> Option<(u32, u32)> {
        let mut endless: Option<(u32, u32)> = None;
        let batch = self.ends.open();
        for &index in &self.changed {
            let flow = &mut self.flows[index as usize];
            let rate = self.unit.bytes_per_second(flow.level);
            if rate.to_bits() == flow.rate.to_bits() {
                continue;
            }
            flow.left = (flow.left - flow.rate * (now - flow.updated) as f64).max(0.0);
            flow.updated = now;
            flow.rate = rate;
            let end = duration(flow.left, flow.rate).and_then(|picos| later(now, picos));
            if end.is_none() && endless.is_none_or(|(group, _)| flow.group < group) {
                endless = Some((flow.group, flow.meeting));
            }
            let old = std::mem::replace(&mut flow.batch, batch);
            self.ends.leave(old, &self.flows);
            self.ends.add(batch, end.unwrap_or(u64::MAX), index);
        }
        self.changed.clear();
        if let Some((end, due)) = self.ends.close(batch) {
            report(end, due);
        }
        endless
    }

    /// Current levels by meeting.
    #[cfg(test)]
    fn levels(&self) -> std::collections::BTreeMap<u32, Level> {
        self.flows.iter().filter(|flow| flow.alive).map(|flow| (flow.meeting, flow.level)).collect()
    }

    /// Current rates by meeting, in bytes per second.
    #[cfg(test)]
    fn rates(&self) -> std::collections::BTreeMap<u32, f64> {
        self.flows.iter().filter(|flow| flow.alive).map(|flow| (flow.meeting, flow.rate)).collect()
    }
}

#[cfg(test)]
mod tests;
