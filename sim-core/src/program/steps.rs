//! Reading a program record by record, for tools that write it in other forms.

use super::{Channel, Class, Event, Kind, Label, Program, Stream};
use crate::time::SimTime;

/// What its writer said of a rendezvous beside the bytes on its path: an opaque kind and the bytes of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is, in the caller's numbers.
    pub kind: u8,
    /// Bytes that the caller asked to move, before any algorithm.
    pub bytes: u64,
}

/// One record of a program that takes time or orders work; see [`crate::ProgramBuilder`] for what each does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The host works.
    Host {
        /// How long.
        duration: SimTime,
        /// Its name.
        label: Label,
    },
    /// The host issues work onto a stream.
    Kernel {
        /// The stream.
        stream: Stream,
        /// Class of the work.
        class: Class,
        /// Its name.
        label: Label,
        /// How long the stream works.
        duration: SimTime,
        /// How long the host takes to issue it.
        issue: SimTime,
    },
    /// A stream records an event.
    Record {
        /// The stream.
        stream: Stream,
        /// The event.
        event: Event,
    },
    /// A stream waits for an event.
    Wait {
        /// The stream.
        stream: Stream,
        /// The event.
        event: Event,
    },
    /// The host waits for a stream.
    HostSync {
        /// The stream.
        stream: Stream,
    },
    /// The host waits for an event.
    HostWait {
        /// The event.
        event: Event,
    },
    /// A stream meets the other members of a group.
    Rendezvous {
        /// The stream.
        stream: Stream,
        /// The group, by the program's name for it.
        channel: Channel,
        /// Class of the transfer.
        class: Class,
        /// Its name.
        label: Label,
        /// The part of its time that does not depend on links.
        fixed: SimTime,
        /// Bytes over the group's path.
        bytes: u64,
        /// What was said of it.
        note: Option<Note>,
    },
}

impl Program {
    /// Its records in order, but for allocations and frees.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        let mut notes = self.inner.notes.iter().peekable();
        let mut recorded = 0_u32;
        self.in_order().enumerate().filter_map(move |(at, it)| {
            let (stream, label) = (Stream(it.stream), Label(it.index));
            let class = Class(it.class);
            let event = if it.kind == Kind::Record {
                recorded += 1;
                Event(recorded - 1)
            } else {
                Event(recorded.wrapping_sub(it.index))
            };
            Some(match it.kind {
                Kind::Host => Step::Host { duration: SimTime(it.time), label },
                Kind::Kernel => Step::Kernel {
                    stream,
                    class,
                    label,
                    duration: SimTime(it.time),
                    issue: SimTime(it.extra),
                },
                Kind::Record => Step::Record { stream, event },
                Kind::Wait => Step::Wait { stream, event },
                Kind::HostSync => Step::HostSync { stream },
                Kind::HostWait => Step::HostWait { event },
                Kind::Rendezvous => Step::Rendezvous {
                    stream,
                    channel: Channel(it.channel() as u16),
                    class,
                    label,
                    fixed: SimTime(it.time),
                    bytes: it.bytes(),
                    note: notes.next_if(|(record, _)| *record == at).map(|(_, note)| *note),
                },
                Kind::Alloc | Kind::Free => return None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::ProgramBuilder;

    #[test]
    fn steps_are_what_was_written_and_notes_follow_copies() {
        let mut p = ProgramBuilder::new("p");
        let (stream, channel, label) = (p.stream("s"), p.channel("pair"), p.label("x"));
        let place = p.place();
        p.kernel(stream, Class(1), label, SimTime(5), SimTime(2));
        p.rendezvous(stream, channel, Class(2), Class(3), label, SimTime(7), 64);
        p.note(Note { kind: 4, bytes: 60 });
        let passage = p.passage(place);
        p.rendezvous(stream, channel, Class(2), Class(3), label, SimTime(7), 8);
        p.repeat(&passage, |it| it, |_| label, |it| it);
        let program = p.build().unwrap();
        let notes = |program: &Program| -> Vec<Option<Note>> {
            let met = program.steps().filter_map(|it| match it {
                Step::Rendezvous { note, .. } => Some(note),
                _ => None,
            });
            met.collect()
        };
        let said = Some(Note { kind: 4, bytes: 60 });
        assert_eq!(notes(&program), [said, None, said]);
        assert_eq!(notes(&program.stretched(|_| 2.0)), [said, None, said]);
        let kernel = Step::Kernel { stream, class: Class(1), label, duration: SimTime(5), issue: SimTime(2) };
        assert_eq!(program.steps().next(), Some(kernel));
    }
}
