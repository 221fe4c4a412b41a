//! A link: the flows on it, and how they filled it level by level.

use super::level::{Level, NEVER, is_saturated, saturation};

/// Part of a link's capacity that is kept clear where it counts as slack.
const CLEAR: f64 = 1e-9;

/// A flow on a link. Places of flows are used again; their counts tell an old flow from a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) flow: u32,
    pub(super) use_count: u32,
}

/// What is left of a link once some of its flows froze at a level, and all that froze below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Step {
    pub(super) level: Level,
    pub(super) left: Level,
    /// Weight of all that froze.
    pub(super) frozen: u64,
    /// How many: so many entries of [`LinkState::flows`].
    pub(super) flows: u32,
}

#[derive(Clone, Debug)]
pub(super) struct LinkState {
    pub(super) capacity: Level,
    /// The most that its flows could take of it together, bytes/s.
    pub(super) most: u128,
    /// Up to which sum of these it is slack, bytes/s; 0: never with a flow on it.
    slack_up_to: u128,
    /// Weight and number of its flows that have not ended.
    pub(super) weight: u64,
    pub(super) alive: u32,
    /// Ended flows that are still listed.
    pub(super) ended: u32,
    /// Whether its filling is known: it was not slack when last settled.
    pub(super) filling: bool,
    /// While filling: by the level at which they froze; new ones come last, ended ones stay until it is filled again.
    pub(super) flows: Vec<Entry>,
    /// By level.
    pub(super) steps: Vec<Step>,
    /// Where it saturated, or never.
    pub(super) saturated: Level,
    /// Whether a flow started or ended on it since the last settlement, and the lowest level of those that ended.
    pub(super) dirty: bool,
    pub(super) lowest_end: Level,
    pub(super) sweep: Sweep,
}

/// Of a link that is being filled.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    /// Whether its filling has been taken back.
    pub(super) open: bool,
    /// Whether something happens on it at the level at hand.
    pub(super) listed: bool,
    /// Flows that froze at this level or later, or are new; how many of them have been looked at by their old levels.
    pub(super) pending: Vec<Entry>,
    pub(super) looked_at: usize,
    /// Capacity that is left, and weight of what has not frozen.
    pub(super) left: Level,
    pub(super) weight: u64,
    /// Weight that freezes at the level at hand.
    pub(super) freezing: u64,
    /// Where it saturates as things stand.
    pub(super) saturates: Level,
    /// The next level at which something happens on it.
    pub(super) next: Level,
}

impl LinkState {
    pub(super) fn new(capacity: Level, bytes_per_second: f64) -> Self {
        let slack_up_to =
            if bytes_per_second < 1e18 { (bytes_per_second * (1.0 - CLEAR)) as u128 } else { 0 };
        let sweep = Sweep {
            open: false,
            listed: false,
            pending: Vec::new(),
            looked_at: 0,
            left: 0,
            weight: 0,
            freezing: 0,
            saturates: NEVER,
            next: NEVER,
        };
        Self {
            capacity,
            most: 0,
            slack_up_to,
            weight: 0,
            alive: 0,
            ended: 0,
            filling: false,
            flows: Vec::new(),
            steps: Vec::new(),
            saturated: NEVER,
            dirty: false,
            lowest_end: NEVER,
            sweep,
        }
    }

    pub(super) fn is_slack(&self) -> bool {
        self.most <= self.slack_up_to
    }

    /// No flow is on it, or it holds none of them up.
    pub(super) fn forget(&mut self) {
        self.filling = false;
        self.steps.clear();
        self.saturated = NEVER;
        self.lowest_end = NEVER;
        if self.alive == 0 {
            self.flows.clear();
            self.ended = 0;
        }
    }

    /// What is left, and the weight that is frozen, after so many steps.
    fn after(&self, steps: usize) -> (Level, u64, usize) {
        match steps.checked_sub(1).and_then(|last| self.steps.get(last)) {
            Some(step) => (step.left, step.frozen, step.flows as usize),
            None => (self.capacity, 0, 0),
        }
    }

    /// The lowest level at which what started and ended on it makes a difference, as long as no other flow on it changes:
    /// where the first flow froze that ended, or where it saturates with those that started.
    pub(super) fn first_change(&self) -> Level {
        if self.is_slack() {
            return self.lowest_end;
        }
        // Below the lowest level of ended flows, all that froze is still there.
        let mut saturated_from = self.steps.partition_point(|step| step.level < self.lowest_end);
        let mut low = 0;
        while low < saturated_from {
            let middle = usize::midpoint(low, saturated_from);
            let (left, frozen, _) = self.after(middle);
            if is_saturated(left, self.weight - frozen, self.steps[middle].level) {
                saturated_from = middle;
            } else {
                low = middle + 1;
            }
        }
        let (left, frozen, _) = self.after(low);
        match self.weight - frozen {
            0 => self.lowest_end,
            open => saturation(left, open).min(self.lowest_end),
        }
    }

    /// Takes the filling back to below a level. Returns the flows that froze from there on, and new ones.
    pub(super) fn take_back(&mut self, level: Level) -> Vec<Entry> {
        let kept = self.steps.partition_point(|step| step.level < level);
        let (left, frozen, flows) = self.after(kept);
        self.steps.truncate(kept);
        self.saturated = NEVER;
        self.ended = 0;
        let sweep = &mut self.sweep;
        (sweep.open, sweep.left, sweep.weight) = (true, left, self.weight - frozen);
        (sweep.freezing, sweep.looked_at) = (0, 0);
        let mut pending = std::mem::take(&mut sweep.pending);
        pending.clear();
        pending.extend(self.flows.drain(flows..));
        self.saturate();
        pending
    }

    /// Where it saturates now.
    fn saturate(&mut self) {
        let slack = self.is_slack() || self.sweep.weight == 0;
        self.sweep.saturates = if slack { NEVER } else { saturation(self.sweep.left, self.sweep.weight) };
    }

    /// Writes down what froze at a level.
    pub(super) fn step(&mut self, level: Level) {
        let sweep = &mut self.sweep;
        if sweep.saturates <= level {
            self.saturated = level;
        }
        if sweep.freezing > 0 {
            sweep.left = sweep.left.saturating_sub(level * Level::from(sweep.freezing));
            sweep.weight -= sweep.freezing;
            sweep.freezing = 0;
            let (left, frozen) = (sweep.left, self.weight - sweep.weight);
            self.steps.push(Step { level, left, frozen, flows: self.flows.len() as u32 });
        }
        self.saturate();
    }

    /// The filling by one flow that is alone on the link.
    pub(super) fn fill_with(&mut self, entry: Entry, level: Level) {
        let left = self.capacity.saturating_sub(level * Level::from(self.weight));
        self.filling = true;
        self.flows.clear();
        self.flows.push(entry);
        self.steps.clear();
        self.steps.push(Step { level, left, frozen: self.weight, flows: 1 });
        self.saturated = if is_saturated(self.capacity, self.weight, level) { level } else { NEVER };
        (self.dirty, self.ended, self.lowest_end) = (false, 0, NEVER);
    }
}
