//! What the links have to do, moment by moment.

use crate::flow::Due;
use crate::queue::EventQueue;
use crate::time::SimTime;

/// What goes through the event queue.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shared {
    /// The flow of a meeting starts.
    FlowStart(u32),
    /// The first flows of a part of the network end.
    FlowsEnd(Due),
}

/// The event queue, with events of one moment that are inserted in a row under one entry.
///
/// Ranks that do the same start and end their flows at the same moments, thousands at a time; one entry for
/// all of them costs one insertion.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    queue: EventQueue<u32>,
    batches: Vec<Vec<Shared>>,
    free: Vec<u32>,
    /// Time and batch of the last insertion, if it still waits.
    last: Option<(u64, u32)>,
}

impl Agenda {
    pub(super) fn push(&mut self, time: u64, event: Shared) {
        let batch = match self.last {
            Some((last, batch)) if last == time => batch,
            _ => {
                let batch = self.free.pop().unwrap_or_else(|| {
                    self.batches.push(Vec::new());
                    self.batches.len() as u32 - 1
                });
                self.queue.push(SimTime(time), 0, batch);
                self.last = Some((time, batch));
                batch
            }
        };
        self.batches[batch as usize].push(event);
    }

    /// Time of the first event.
    pub(super) fn next(&self) -> Option<u64> {
        self.queue.peek_time().map(|time| time.0)
    }

    /// Flows that are to start: when, and of which meetings, in no order.
    pub(super) fn starts(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let entries = self
            .queue
            .waiting()
            .flat_map(|(time, batch)| self.batches[batch as usize].iter().map(move |event| (time.0, *event)));
        entries.filter_map(|(time, event)| match event {
            Shared::FlowStart(meeting) => Some((time, meeting)),
            Shared::FlowsEnd(_) => None,
        })
    }

    /// Everything happens so many picoseconds later.
    pub(super) fn put_off(&mut self, picos: u64) {
        self.queue.put_off(picos);
        self.last = None;
    }

    /// Moves the first entry's events to the end of `events`.
    pub(super) fn pop(&mut self, events: &mut Vec<Shared>) {
        if let Some((_, batch)) = self.queue.pop() {
            events.append(&mut self.batches[batch as usize]);
            self.free.push(batch);
            if self.last.is_some_and(|(_, last)| last == batch) {
                self.last = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pops an entry and returns the meetings that start in it.
    fn starts(agenda: &mut Agenda) -> Vec<u32> {
        let mut events = Vec::new();
        agenda.pop(&mut events);
        let meeting = |event: &Shared| match event {
            Shared::FlowStart(meeting) => Some(*meeting),
            Shared::FlowsEnd(_) => None,
        };
        events.iter().filter_map(meeting).collect()
    }

    #[test]
    fn events_of_one_moment_in_a_row_share_an_entry() {
        let mut agenda = Agenda::default();
        for (time, meeting) in [(5, 0), (5, 1), (3, 2), (5, 3)] {
            agenda.push(time, Shared::FlowStart(meeting));
        }
        assert_eq!((agenda.next(), starts(&mut agenda)), (Some(3), vec![2]));
        assert_eq!(starts(&mut agenda), [0, 1]);
        // The moment is still being played: a new event joins the entry that waits.
        agenda.push(5, Shared::FlowStart(4));
        assert_eq!(starts(&mut agenda), [3, 4]);
        agenda.push(5, Shared::FlowStart(5));
        assert_eq!((agenda.next(), starts(&mut agenda)), (Some(5), vec![5]));
        assert_eq!(agenda.next(), None);
    }
}
