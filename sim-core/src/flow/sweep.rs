//! Filling links again, from the levels on at which something changed.

use std::cmp::Reverse;

use super::level::{Level, NEVER};
use super::link::{Entry, Step};
use super::{FlowNetwork, Hop, Place};

impl FlowNetwork {
    fn is_alive(&self, entry: Entry) -> bool {
        let flow = &self.flows[entry.flow as usize];
        flow.alive && flow.use_count == entry.use_count
    }

    /// Flows that started: alone on their links they have their rates at once, the others rise.
    pub(super) fn place_new_flows(&mut self) {
        let mut started = std::mem::take(&mut self.started);
        for index in started.drain(..) {
            let group = self.flows[index as usize].group;
            let hops = self.path(group);
            let is_alone = self.hops[hops.clone()].iter().all(|hop| {
                let link = &self.links[hop.link as usize];
                if link.is_slack() { !link.filling } else { link.alive == 1 }
            });
            let flow = &mut self.flows[index as usize];
            flow.seen = self.settlement;
            let entry = Entry { flow: index, use_count: flow.use_count };
            if !is_alone {
                continue;
            }
            let level = self.paths[group as usize].alone;
            (flow.level, flow.place) = (level, Place::Frozen);
            self.changed.push(index);
            for hop in &self.hops[hops] {
                let link = &mut self.links[hop.link as usize];
                if !link.is_slack() {
                    link.fill_with(entry, level);
                }
            }
        }
        self.started = started;
    }

    /// Puts the links on the agenda on which flows started or ended, each at its first change.
    pub(super) fn seed(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for link in dirty.drain(..) {
            let state = &mut self.links[link as usize];
            if !std::mem::take(&mut state.dirty) {
                continue;
            }
            if state.alive == 0 {
                state.forget();
                continue;
            }
            if !state.filling {
                if state.is_slack() {
                    state.lowest_end = NEVER;
                    self.tidy(link);
                    continue;
                }
                self.fill_as_settled(link);
            }
            let state = &mut self.links[link as usize];
            let first = state.first_change();
            state.lowest_end = NEVER;
            if first == NEVER && state.is_slack() {
                state.forget();
            }
            self.plan(link, first);
        }
        self.dirty = dirty;
    }

    /// Drops ended flows from a slack link once they are the most of what it lists.
    fn tidy(&mut self, link: u32) {
        let state = &mut self.links[link as usize];
        if 2 * state.ended as usize <= state.flows.len() {
            return;
        }
        state.ended = 0;
        let mut flows = std::mem::take(&mut state.flows);
        flows.retain(|&entry| self.is_alive(entry));
        self.links[link as usize].flows = flows;
    }

    /// How a link that was slack had been filled by the flows on it. Those that ended on it held up nobody there.
    fn fill_as_settled(&mut self, link: u32) {
        let mut flows = std::mem::take(&mut self.links[link as usize].flows);
        flows.retain(|&entry| self.is_alive(entry));
        let level_of = |entry: &Entry| match self.flows[entry.flow as usize].level {
            0 => NEVER,
            level => level,
        };
        if flows.len() > 1 {
            flows.sort_by_cached_key(level_of);
        }
        let (mut left, mut frozen) = (self.links[link as usize].capacity, 0);
        let mut steps = std::mem::take(&mut self.links[link as usize].steps);
        steps.clear();
        for (entry, number) in flows.iter().zip(1..) {
            let level = level_of(entry);
            if level == NEVER {
                break;
            }
            let hops = &self.hops[self.path(self.flows[entry.flow as usize].group)];
            let weight: u64 =
                hops.iter().filter(|hop| hop.link == link).map(|hop| u64::from(hop.weight)).sum();
            left = left.saturating_sub(level * Level::from(weight));
            frozen += weight;
            let step = Step { level, left, frozen, flows: number };
            match steps.last_mut() {
                Some(last) if last.level == level => *last = step,
                _ => steps.push(step),
            }
        }
        let state = &mut self.links[link as usize];
        (state.filling, state.saturated, state.lowest_end, state.ended) = (true, NEVER, NEVER, 0);
        (state.flows, state.steps) = (flows, steps);
    }

    /// The next level at which something happens on a link.
    fn plan(&mut self, link: u32, level: Level) {
        self.links[link as usize].sweep.next = level;
        if level != NEVER {
            self.agenda.push(Reverse((level, link)));
        }
    }

    /// Plays all levels from the lowest change on.
    pub(super) fn sweep(&mut self) {
        while let Some(level) = self.next_level() {
            let (mut filled, mut passed) = (0, 0);
            // Links that saturate come first: they may add links, as may the others.
            loop {
                if let Some(&link) = self.at_level.get(filled) {
                    filled += 1;
                    self.fill(link, level);
                } else if let Some(&link) = self.at_level.get(passed) {
                    passed += 1;
                    self.pass(link, level);
                } else {
                    break;
                }
            }
            self.step(level);
        }
        while let Some(link) = self.open_links.pop() {
            let state = &mut self.links[link as usize];
            state.sweep.open = false;
            state.sweep.pending.clear();
            if state.is_slack() {
                state.forget();
            }
        }
    }

    /// The lowest level on the agenda, with its links in `at_level`.
    fn next_level(&mut self) -> Option<Level> {
        let mut level = None;
        while let Some(&Reverse((next, link))) = self.agenda.peek() {
            if level.is_some_and(|level| next > level) {
                break;
            }
            self.agenda.pop();
            if self.links[link as usize].sweep.next == next {
                level = Some(next);
                self.links[link as usize].sweep.next = NEVER;
                self.open(link, next);
            }
        }
        level
    }

    /// Has a link play at a level, and takes it back to there unless that has been done.
    fn open(&mut self, link: u32, level: Level) {
        let state = &mut self.links[link as usize];
        if !std::mem::replace(&mut state.sweep.listed, true) {
            self.at_level.push(link);
        }
        if state.sweep.open {
            return;
        }
        self.open_links.push(link);
        let mut pending = state.take_back(level);
        pending.retain(|&entry| self.is_alive(entry));
        #[cfg(test)]
        {
            self.looks += 1 + pending.len();
        }
        // What has frozen at this level before the link played has frozen on it, too.
        for &entry in &pending {
            if self.is_frozen(entry.flow) {
                let hops = self.path(self.flows[entry.flow as usize].group);
                let here = self.hops[hops].iter().find(|hop| hop.link == link);
                self.freeze_on(link, entry, here.map_or(0, |hop| hop.weight));
            }
        }
        self.links[link as usize].sweep.pending = pending;
    }

    fn is_frozen(&self, flow: u32) -> bool {
        let flow = &self.flows[flow as usize];
        flow.seen == self.settlement && flow.place == Place::Frozen
    }

    fn freeze_on(&mut self, link: u32, entry: Entry, weight: u32) {
        let state = &mut self.links[link as usize];
        state.sweep.freezing += u64::from(weight);
        state.flows.push(entry);
    }

    /// Freezes all that is left on a link if it saturates at a level.
    fn fill(&mut self, link: u32, level: Level) {
        if self.links[link as usize].sweep.saturates > level {
            return;
        }
        let pending = std::mem::take(&mut self.links[link as usize].sweep.pending);
        for &entry in &pending {
            self.freeze(entry, level);
        }
        self.links[link as usize].sweep.pending = pending;
    }

    /// Looks at the flows that froze at a level before, on a link that does not saturate there.
    fn pass(&mut self, link: u32, level: Level) {
        if self.links[link as usize].sweep.saturates <= level {
            return;
        }
        while let Some((entry, old)) = self.next_settled(link)
            && old <= level
        {
            if self.is_held_up_elsewhere(entry.flow, level) {
                self.freeze(entry, level);
            } else {
                self.release(entry.flow, level);
            }
        }
    }

    /// The next flow of a link that froze before and has not been looked at in this settlement, and its level.
    fn next_settled(&mut self, link: u32) -> Option<(Entry, Level)> {
        let sweep = &mut self.links[link as usize].sweep;
        while let Some(&entry) = sweep.pending.get(sweep.looked_at) {
            let flow = &self.flows[entry.flow as usize];
            if flow.seen != self.settlement {
                return Some((entry, flow.level));
            }
            sweep.looked_at += 1;
        }
        None
    }

    /// Whether a link that has not been taken back saturates at a level under a flow.
    fn is_held_up_elsewhere(&self, flow: u32, level: Level) -> bool {
        let hops = &self.hops[self.path(self.flows[flow as usize].group)];
        hops.iter().any(|hop| {
            let link = &self.links[hop.link as usize];
            link.filling && !link.sweep.open && link.saturated == level
        })
    }

    fn freeze(&mut self, entry: Entry, level: Level) {
        if self.is_frozen(entry.flow) {
            return;
        }
        let flow = &mut self.flows[entry.flow as usize];
        (flow.seen, flow.place) = (self.settlement, Place::Frozen);
        let has_changed = std::mem::replace(&mut flow.level, level) != level;
        if has_changed {
            self.changed.push(entry.flow);
        }
        let group = flow.group;
        for at in self.path(group) {
            let Hop { link, weight, .. } = self.hops[at];
            let state = &self.links[link as usize];
            let (fills, is_open) = (state.filling, state.sweep.open);
            if fills && (is_open || has_changed) {
                // Opening it has the flow frozen on it.
                self.open(link, level);
                if is_open {
                    self.freeze_on(link, entry, weight);
                }
            }
        }
    }

    /// A flow that froze at a level rises on.
    fn release(&mut self, index: u32, level: Level) {
        let flow = &mut self.flows[index as usize];
        (flow.seen, flow.place) = (self.settlement, Place::Open);
        let group = flow.group;
        for at in self.path(group) {
            let link = self.hops[at].link;
            if self.links[link as usize].filling {
                self.open(link, level);
            }
        }
    }

    /// Writes the level down on its links, and says when something happens on each of them next.
    fn step(&mut self, level: Level) {
        let mut at_level = std::mem::take(&mut self.at_level);
        for link in at_level.drain(..) {
            let state = &mut self.links[link as usize];
            state.sweep.listed = false;
            state.step(level);
            let saturates = state.sweep.saturates;
            let settled = self.next_settled(link).map_or(NEVER, |(_, level)| level);
            self.plan(link, saturates.min(settled));
        }
        self.at_level = at_level;
    }
}
