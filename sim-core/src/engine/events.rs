//! The events of a rank that may still be waited for.

use std::collections::VecDeque;

use super::UNKNOWN;
use crate::accounts::Cause;
use crate::look::Look;

/// A window over a rank's events, which are numbered in the order of their issue: those before it have been
/// waited for as often as the program does, those after it are not issued yet.
///
/// A program of many steps records thousands of events and needs a handful at a time; the window keeps the
/// handful.
#[derive(Debug, Default)]
pub(super) struct Events {
    first: u32,
    window: VecDeque<Event>,
    /// Events of the program that were not issued because they were skipped: numbers do not count them.
    skipped: u32,
}

#[derive(Clone, Copy, Debug)]
struct Event {
    time: u64,
    /// Of its cause.
    arrived: u64,
    met: u64,
    class: u8,
    wait_class: u8,
    /// Waits to come.
    waits: u32,
}

impl Events {
    /// The host issues the next event, of which `waits` say by number how often the program waits for it; its number.
    pub(super) fn issue(&mut self, waits: &[u32]) -> u32 {
        let number = self.back(0);
        let waits = waits.get(self.skipped.wrapping_add(number) as usize).copied().unwrap_or(0);
        let event = Event { time: UNKNOWN, arrived: 0, met: 0, class: 0, wait_class: 0, waits };
        self.window.push_back(event);
        self.trim();
        number
    }

    /// Number of the event that is so many back from the next one.
    #[inline]
    pub(super) fn back(&self, back: u32) -> u32 {
        self.first.wrapping_add(self.window.len() as u32).wrapping_sub(back)
    }

    /// The stream of an event gets there.
    pub(super) fn happen(&mut self, event: u32, time: u64, cause: Cause) {
        // An event that nobody waits for may have left the window before it happens.
        let index = event.checked_sub(self.first);
        if let Some(event) = index.and_then(|index| self.window.get_mut(index as usize)) {
            let Cause { class, wait_class, arrived, met } = cause;
            *event = Event { time, arrived, met, class, wait_class, waits: event.waits };
        }
    }

    /// Time of an event with waits to come, and what it stands for; `None` if it has not happened.
    #[inline]
    pub(super) fn happened(&self, event: u32) -> Option<(u64, Cause)> {
        let event = self.window.get(event.wrapping_sub(self.first) as usize)?;
        let &Event { time, arrived, met, class, wait_class, .. } = event;
        (time != UNKNOWN).then_some((time, Cause { class, wait_class, arrived, met }))
    }

    /// One wait for an event is over.
    #[inline]
    pub(super) fn waited(&mut self, event: u32) {
        if let Some(event) = self.window.get_mut(event.wrapping_sub(self.first) as usize) {
            event.waits -= 1;
        }
        self.trim();
    }

    /// Which of the program's events comes next.
    pub(super) fn next_of_program(&self) -> u32 {
        self.skipped.wrapping_add(self.back(0))
    }

    /// So many events of the program do not come.
    pub(super) fn skip(&mut self, count: u32) {
        self.skipped = self.skipped.wrapping_add(count);
    }

    pub(super) fn look(&mut self, look: &mut impl Look) {
        let Self { first: _, window, skipped: _ } = self;
        look.fact(window.len() as u64);
        for Event { time, arrived, met, class, wait_class, waits } in window {
            look.fact(u64::from(*waits) << 16 | u64::from(*class) << 8 | u64::from(*wait_class));
            look.fact(u64::from(*time == UNKNOWN));
            if *time != UNKNOWN {
                look.clock(time);
                look.time(arrived);
                look.time(met);
            }
        }
    }

    #[inline]
    fn trim(&mut self) {
        while self.window.front().is_some_and(|event| event.waits == 0) {
            self.window.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::look::Seen;

    /// Whatever differs between events that may still be waited for is looked at, and nothing before them.
    #[test]
    fn events_that_differ_look_different() {
        let cause = Cause { class: 1, wait_class: 2, arrived: 5, met: 6 };
        let show = |waits: u32, time: u64, cause: Cause| {
            let mut events = Events::default();
            events.issue(&[waits, 1]);
            events.issue(&[waits, 1]);
            events.happen(0, time, cause);
            Seen::of(|it| events.look(it))
        };
        let mut late = Events { first: 7, skipped: 3, ..Events::default() };
        late.issue(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        late.issue(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        late.happen(7, 9, cause);
        assert!(show(1, 9, cause).is_same(&Seen::of(|it| late.look(it))));
        Seen::all_differ(&[
            show(0, 9, cause),
            show(1, 9, cause),
            show(2, 9, cause),
            show(1, UNKNOWN, cause),
            show(1, 8, cause),
            show(1, 9, Cause { class: 3, ..cause }),
            show(1, 9, Cause { class: 3, wait_class: 1, ..cause }),
            show(1, 9, Cause { wait_class: 3, ..cause }),
            show(1, 9, Cause { arrived: 4, ..cause }),
            show(1, 9, Cause { met: 7, ..cause }),
        ]);
    }

    #[test]
    fn events_leave_when_all_waits_are_over() {
        let mut events = Events::default();
        let cause = Cause::default();
        for number in 0..3 {
            assert_eq!(events.issue(&[2, 0, 1]), number);
        }
        events.happen(1, 5, cause);
        events.happen(0, 7, cause);
        assert_eq!(events.happened(0).map(|(time, _)| time), Some(7));
        assert!(events.happened(2).is_none());
        events.waited(0);
        assert_eq!((events.first, events.window.len()), (0, 3));
        events.waited(0);
        // The second, for which nobody waits, leaves with the first.
        assert_eq!((events.first, events.window.len()), (2, 1));
        events.happen(2, 9, cause);
        events.waited(2);
        assert_eq!((events.first, events.window.len()), (3, 0));
    }

    #[test]
    fn an_event_without_waits_may_happen_after_it_left() {
        let mut events = Events::default();
        events.issue(&[0]);
        events.happen(0, 3, Cause::default());
        assert!(events.window.is_empty());
    }
}
