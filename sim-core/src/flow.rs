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
//! Weights are summed as integers, and what freezes at one level leaves a link's capacity in one
//! subtraction. So the rates depend on the set of flows only, never on the order they came in, and links
//! with equal loads saturate at exactly equal levels. Levels never fall in exact arithmetic, so a computed
//! level is not allowed to fall either; that also keeps every rate positive.
//!
//! A rate is held in bytes per second, which is the same number of picobytes (1e-12 byte) per picosecond;
//! what remains of a flow is therefore counted in picobytes. That way the capacities of real links are exact
//! numbers, which bytes per picosecond would not be. A flow with `b` picobytes left at time `t` ends at
//! `t + ceil(b / r)`, at least one picosecond later. What remains is brought up to date only when the rate
//! changes, so that a flow whose neighbours come and go without effect accumulates no rounding.
//!
//! # The increments
//!
//! A flow is never faster than `a(f)`, the least of `C(l) / w(f, l)` over its links: what it would be alone. A link with
//! `sum over f on l of w(f, l) a(f) < C(l)` can therefore never saturate: it is *slack*, and can be left out of the
//! conditions without changing any rate. (A link that gives some flow its `a(f)` is not slack while the flow is on it.) The
//! sums are kept as integers, rounded up, so that they depend on the set of flows only; a billionth of the capacity is
//! kept clear, far more than rounding in the rates amounts to.
//!
//! Flows and links that are not slack form a graph; rates depend on the connected component only. All starts and ends of
//! one moment are gathered, then [`FlowNetwork::settle`] solves each component that touches one of them, once. A link
//! becomes slack or ceases to be only when a flow on it starts or ends; the components on it are then solved anew.
//! For a component it reports one moment: the earliest end among its flows, with the list of the flows that
//! end then. Solving a component again gives its flows a new generation, which makes the earlier report
//! stale. Every flow of a changed component is visited, so each component always has exactly one live
//! report. Time per component: O(hops + levels x links).

use std::ops::Range;

use crate::time::{PICOS_PER_SECOND, later};
use crate::world::World;

/// Part of a link's capacity that is kept clear where it counts as slack.
const CLEAR: f64 = 1e-9;
/// No flow.
const NONE: u32 = u32::MAX;

/// A flow's use of a link.
#[derive(Clone, Copy, Debug)]
struct Hop {
    link: u32,
    weight: u32,
    /// The most that a flow can take of the link, bytes/s, rounded up.
    most: u64,
}

#[derive(Clone, Debug)]
struct LinkState {
    capacity: f64,
    /// The flows on it; ended ones stay until the next look.
    flows: Vec<u32>,
    /// The settlement that last visited it.
    seen: u64,
    dirty: bool,
    /// The most that its flows could take of it together, bytes/s; [`Hop::most`] of those that are alive.
    most: u128,
    /// Up to which sum of these it is slack, bytes/s; 0: never with a flow on it.
    slack_up_to: u128,
    /// Whether it was slack when last settled.
    was_slack: bool,
    /// While solving: capacity left by frozen flows, weight of unfrozen ones, weight that froze this round.
    left: f64,
    open: u64,
    froze: u64,
    share: f64,
}

impl LinkState {
    fn is_slack(&self) -> bool {
        self.most <= self.slack_up_to
    }
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    group: u32,
    meeting: u32,
    bytes: u64,
    start: u64,
    alive: bool,
    seen: u64,
    generation: u64,
    /// While solving: the new rate, 0 before it froze.
    level: f64,
    /// Bytes per second; 0 before the first settlement.
    rate: f64,
    /// Picobytes left at `updated`.
    left: f64,
    updated: u64,
    end: u64,
    next_due: u32,
}

/// The flows of a component that end first; worth a look at their end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    first: u32,
    generation: u64,
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
    links: Vec<LinkState>,
    hops: Vec<Hop>,
    /// By group: its part of `hops`.
    paths: Vec<Range<u32>>,
    /// By group: the parts that its bytes are divided into. A flow here is one of them.
    parts: Vec<u32>,
    flows: Vec<Flow>,
    free: Vec<u32>,
    /// Ended since the last settlement; their places are free after it.
    ended: Vec<u32>,
    /// Links on which something changed since the last settlement, and those whose components that touches.
    dirty: Vec<u32>,
    seeds: Vec<u32>,
    settlement: u64,
    generation: u64,
    /// Links and flows of the component at hand, and its links with unfrozen flows.
    component_links: Vec<u32>,
    component_flows: Vec<u32>,
    open_links: Vec<u32>,
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
        let paths: Vec<Vec<(u32, u32)>> = world
            .groups()
            .iter()
            .map(|group| group.path().iter().map(|hop| (hop.link.0, hop.weight)).collect())
            .collect();
        let parts = world.groups().iter().map(crate::world::Group::parts).collect();
        Self { parts, ..Self::from_parts(&capacities, &paths) }
    }

    /// From capacities in bytes per second and one path of (link, weight) per group.
    fn from_parts(capacities: &[f64], group_paths: &[Vec<(u32, u32)>]) -> Self {
        let link = |&capacity: &f64| LinkState {
            capacity,
            flows: Vec::new(),
            seen: 0,
            dirty: false,
            most: 0,
            slack_up_to: if capacity < 1e18 { (capacity * (1.0 - CLEAR)) as u128 } else { 0 },
            was_slack: true,
            left: 0.0,
            open: 0,
            froze: 0,
            share: 0.0,
        };
        let mut hops = Vec::new();
        let mut paths = Vec::with_capacity(group_paths.len());
        for path in group_paths {
            let first = hops.len() as u32;
            let share = |&(link, weight): &(u32, u32)| capacities[link as usize] / f64::from(weight);
            let alone = path.iter().map(share).fold(f64::INFINITY, f64::min);
            hops.extend(path.iter().map(|&(link, weight)| {
                let most = (alone * f64::from(weight)).ceil() as u64;
                Hop { link, weight, most }
            }));
            paths.push(first..hops.len() as u32);
        }
        Self {
            links: capacities.iter().map(link).collect(),
            hops,
            parts: vec![1; paths.len()],
            paths,
            flows: Vec::new(),
            free: Vec::new(),
            ended: Vec::new(),
            dirty: Vec::new(),
            seeds: Vec::new(),
            settlement: 0,
            generation: 0,
            component_links: Vec::new(),
            component_flows: Vec::new(),
            open_links: Vec::new(),
        }
    }

    fn path(&self, group: u32) -> Range<usize> {
        let path = &self.paths[group as usize];
        path.start as usize..path.end as usize
    }

    /// A flow of `bytes` > 0 over the path of `group` starts now; its rate is known after settling.
    pub(crate) fn start(&mut self, now: u64, group: u32, meeting: u32, bytes: u64) {
        let flow = Flow {
            group,
            meeting,
            bytes,
            start: now,
            alive: true,
            seen: 0,
            generation: 0,
            level: 0.0,
            rate: 0.0,
            left: bytes as f64 * PICOS_PER_SECOND / f64::from(self.parts[group as usize]),
            updated: now,
            end: 0,
            next_due: NONE,
        };
        let index = if let Some(index) = self.free.pop() {
            self.flows[index as usize] = flow;
            index
        } else {
            self.flows.push(flow);
            self.flows.len() as u32 - 1
        };
        for at in self.path(group) {
            let Hop { link, most, .. } = self.hops[at];
            let state = &mut self.links[link as usize];
            state.flows.push(index);
            state.most += u128::from(most);
            self.mark_dirty(link);
        }
    }

    /// Takes the flows out that the report announced, unless it is stale.
    pub(crate) fn finish(&mut self, due: Due, finished: &mut Vec<Finished>) {
        let mut index = due.first;
        while index != NONE {
            let flow = &mut self.flows[index as usize];
            if flow.generation != due.generation {
                return;
            }
            let Flow { group, meeting, start, bytes, next_due, .. } = *flow;
            flow.alive = false;
            flow.generation = 0;
            finished.push(Finished { group, meeting, start, bytes });
            self.ended.push(index);
            for at in self.path(group) {
                let Hop { link, most, .. } = self.hops[at];
                let state = &mut self.links[link as usize];
                state.most -= u128::from(most);
                self.mark_dirty(link);
            }
            index = next_due;
        }
    }

    fn mark_dirty(&mut self, link: u32) {
        let state = &mut self.links[link as usize];
        if !state.dirty {
            state.dirty = true;
            self.dirty.push(link);
        }
    }

    /// Whether something changed since the last settlement.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Solves every component that changed, once, and reports each one's earliest end.
    ///
    /// # Errors
    /// The meeting of a flow that does not end within simulated time; of several, that of the first group.
    pub(crate) fn settle(&mut self, now: u64, mut report: impl FnMut(u64, Due)) -> Result<(), u32> {
        let mut endless: Option<(u32, u32)> = None;
        self.settlement += 1;
        let dirty = std::mem::take(&mut self.dirty);
        let mut seeds = std::mem::take(&mut self.seeds);
        for &link in &dirty {
            self.seed(link, &mut seeds);
        }
        for &link in &seeds {
            if self.links[link as usize].seen == self.settlement {
                continue;
            }
            self.collect(link);
            if !self.component_flows.is_empty() {
                self.solve();
                let (end, due) = self.reschedule(now, &mut endless);
                report(end, due);
            }
        }
        seeds.clear();
        self.seeds = seeds;
        self.dirty = dirty;
        self.dirty.clear();
        self.free.append(&mut self.ended);
        endless.map_or(Ok(()), |(_, meeting)| Err(meeting))
    }

    /// The links whose components a change on a link touches: itself, or if it is slack, those of its flows if it was not
    /// before. Drops ended flows from it.
    fn seed(&mut self, link: u32, seeds: &mut Vec<u32>) {
        let state = &mut self.links[link as usize];
        let slack = state.is_slack();
        let was_slack = std::mem::replace(&mut state.was_slack, slack);
        state.dirty = false;
        if !slack {
            seeds.push(link);
            return;
        }
        let mut on_link = std::mem::take(&mut state.flows);
        on_link.retain(|&index| self.flows[index as usize].alive);
        if !was_slack {
            for &index in &on_link {
                let path = self.path(self.flows[index as usize].group);
                let others = self.hops[path].iter().map(|hop| hop.link);
                seeds.extend(others.filter(|&other| !self.links[other as usize].is_slack()));
            }
        }
        self.links[link as usize].flows = on_link;
    }

    /// Gathers the component of a link, its weights, and drops ended flows from its links.
    fn collect(&mut self, seed: u32) {
        self.component_links.clear();
        self.component_flows.clear();
        self.visit(seed);
        let mut next = 0;
        while let Some(&link) = self.component_links.get(next) {
            next += 1;
            let mut on_link = std::mem::take(&mut self.links[link as usize].flows);
            on_link.retain(|&index| self.flows[index as usize].alive);
            for &index in &on_link {
                let flow = &mut self.flows[index as usize];
                if flow.seen == self.settlement {
                    continue;
                }
                flow.seen = self.settlement;
                flow.level = 0.0;
                let group = flow.group;
                self.component_flows.push(index);
                for at in self.path(group) {
                    let Hop { link, weight, .. } = self.hops[at];
                    self.visit(link);
                    self.links[link as usize].open += u64::from(weight);
                }
            }
            self.links[link as usize].flows = on_link;
        }
    }

    fn visit(&mut self, link: u32) {
        let state = &mut self.links[link as usize];
        if state.seen != self.settlement {
            state.seen = self.settlement;
            state.left = state.capacity;
            (state.open, state.froze) = (0, 0);
            if !state.is_slack() {
                self.component_links.push(link);
            }
        }
    }

    /// Progressive filling of the component: leaves every flow's rate in its `level`.
    fn solve(&mut self) {
        if let [index] = self.component_flows[..] {
            let hops = &self.hops[self.path(self.flows[index as usize].group)];
            let share = |hop: &Hop| self.links[hop.link as usize].capacity / f64::from(hop.weight);
            let rate = hops.iter().map(share).fold(f64::INFINITY, f64::min);
            self.flows[index as usize].level = rate;
            return;
        }
        self.open_links.clear();
        self.open_links.extend_from_slice(&self.component_links);
        self.open_links.retain(|&link| self.links[link as usize].open > 0);
        let mut floor = 0.0_f64;
        while !self.open_links.is_empty() {
            let mut level = f64::INFINITY;
            for &link in &self.open_links {
                let state = &mut self.links[link as usize];
                state.share = (state.left / state.open as f64).max(floor);
                level = level.min(state.share);
            }
            self.freeze(level);
            for &link in &self.open_links {
                let state = &mut self.links[link as usize];
                state.left -= level * state.froze as f64;
                state.open -= state.froze;
                state.froze = 0;
            }
            self.open_links.retain(|&link| self.links[link as usize].open > 0);
            floor = level;
        }
    }

    /// Freezes the flows of all links that saturate at `level`.
    fn freeze(&mut self, level: f64) {
        for at in 0..self.open_links.len() {
            let link = self.open_links[at] as usize;
            if self.links[link].share > level {
                continue;
            }
            let on_link = std::mem::take(&mut self.links[link].flows);
            for &index in &on_link {
                let flow = &mut self.flows[index as usize];
                if flow.level > 0.0 {
                    continue;
                }
                flow.level = level;
                let group = flow.group;
                for at in self.path(group) {
                    let Hop { link, weight, .. } = self.hops[at];
                    self.links[link as usize].froze += u64::from(weight);
                }
            }
            self.links[link].flows = on_link;
        }
    }

    /// Gives the component's flows their new rates, ends and generation; returns the earliest end. Puts the
    /// first group and meeting whose flow ends past the end of time into `endless`.
    fn reschedule(&mut self, now: u64, endless: &mut Option<(u32, u32)>) -> (u64, Due) {
        self.generation += 1;
        let (mut earliest, mut first) = (u64::MAX, NONE);
        for &index in &self.component_flows {
            let flow = &mut self.flows[index as usize];
            flow.generation = self.generation;
            flow.next_due = NONE;
            if flow.level.to_bits() != flow.rate.to_bits() {
                flow.left = (flow.left - flow.rate * (now - flow.updated) as f64).max(0.0);
                flow.updated = now;
                flow.rate = flow.level;
                let end = duration(flow.left, flow.rate).and_then(|picos| later(now, picos));
                flow.end = end.unwrap_or(u64::MAX);
                if end.is_none() && endless.is_none_or(|(group, _)| flow.group < group) {
                    *endless = Some((flow.group, flow.meeting));
                }
            }
            if flow.end < earliest {
                (earliest, first) = (flow.end, index);
            } else if flow.end == earliest {
                flow.next_due = first;
                first = index;
            }
        }
        (earliest, Due { first, generation: self.generation })
    }

    /// Current rates by meeting, in bytes per second.
    #[cfg(test)]
    fn rates(&self) -> std::collections::BTreeMap<u32, f64> {
        self.flows.iter().filter(|flow| flow.alive).map(|flow| (flow.meeting, flow.rate)).collect()
    }
}

#[cfg(test)]
mod tests;
