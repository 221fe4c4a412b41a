//! Sums of busy and idle time by class, and why a stream was idle.

use crate::program::CLASSES;
use crate::time::SimTime;

/// Time by class, in picoseconds. Intervals of one account are disjoint, so no sum exceeds the last moment.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByClass([u64; CLASSES]);

impl ByClass {
    #[inline]
    pub(crate) fn add(&mut self, class: u8, duration: u64) {
        // Classes are checked to be below 16; the mask only tells the compiler.
        self.0[usize::from(class) % CLASSES] += duration;
    }

    /// What was added since an earlier state of it is added so many times more.
    pub(crate) fn repeat(&mut self, before: &Self, times: u64) {
        for (now, before) in self.0.iter_mut().zip(before.0) {
            *now += (*now - before) * times;
        }
    }

    pub(crate) fn times(&self) -> [SimTime; CLASSES] {
        self.0.map(SimTime)
    }

    /// Charges the wait of a stream for an event, `from..until`, to what completed last before it.
    pub(crate) fn event_wait(&mut self, from: u64, until: u64, cause: &Cause) {
        let waiting = overlap((from, until), (cause.arrived, cause.met));
        self.add(cause.wait_class, waiting);
        self.add(cause.class, until - from - waiting);
    }

    /// Charges the time a stream had nothing issued to it, `from..until`, to the host's last explicit work
    /// where they overlap and to `host_class` elsewhere.
    pub(crate) fn host_late(&mut self, from: u64, until: u64, work: &HostWork, host_class: u8) {
        let working = overlap((from, until), (work.start, work.end));
        self.add(work.class, working);
        self.add(host_class, until - from - working);
    }
}

/// Length that two intervals have in common.
fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

/// What an event stands for: the operation that completed last before it on its stream.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cause {
    /// Its class; the host's if there was none.
    pub(crate) class: u8,
    /// Its class while waiting, and when it waited; empty unless it was a rendezvous.
    pub(crate) wait_class: u8,
    pub(crate) arrived: u64,
    pub(crate) met: u64,
}

/// The host's most recent explicit work.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HostWork {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) class: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picos(account: &ByClass) -> Vec<u64> {
        account.times()[..4].iter().map(|time| time.0).collect()
    }

    #[test]
    fn a_wait_for_a_rendezvous_splits_at_the_meeting() {
        // The stream waits from 10 to 30 for a transfer that arrived at 5 and met at 18.
        let cause = Cause { class: 1, wait_class: 2, arrived: 5, met: 18 };
        let mut account = ByClass::default();
        account.event_wait(10, 30, &cause);
        assert_eq!(picos(&account), [0, 12, 8, 0]);
    }

    #[test]
    fn a_late_host_is_charged_for_what_it_did() {
        // Idle from 10 to 30; the host worked from 5 to 22 and then issued.
        let mut account = ByClass::default();
        account.host_late(10, 30, &HostWork { start: 5, end: 22, class: 3 }, 0);
        assert_eq!(picos(&account), [8, 0, 0, 12]);
    }
}
