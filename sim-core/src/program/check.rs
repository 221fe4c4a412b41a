//! Checking of a finished program, and what is counted on the way.

use std::collections::BTreeMap;

use super::{CLASSES, ChannelUse, Inner, Kind, Part, ProgramError, Record, Records, parts};

/// One pass over the records in order, with what has happened so far. A part that has been seen is not looked at again.
pub(super) struct Checker<'a> {
    inner: &'a mut Inner,
    /// Number of the record.
    at: usize,
    /// Number of the part, from 1, and its records before this one.
    place: (usize, usize),
    recorded: u32,
    allocated: Vec<bool>,
}

/// What a part does to what is counted.
#[derive(Default)]
struct Seen {
    /// By stream: kernels and rendezvous.
    launches: Vec<u32>,
    /// The last rendezvous of each stream that has one: its record.
    last: Vec<(usize, u32)>,
    /// Records of events, from the first of the part on, and for how many events back they wait; 0 is an event itself.
    events: Vec<(u32, u32)>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(inner: &'a mut Inner) -> Self {
        inner.uses = vec![ChannelUse::default(); inner.channels.len()];
        inner.last_rendezvous = vec![0; inner.streams.len()];
        inner.launches = vec![0; inner.streams.len()];
        let allocated = vec![false; inner.tensors.len()];
        Self { inner, at: 0, place: (0, 0), recorded: 0, allocated }
    }

    pub(super) fn check(&mut self) -> Result<(), ProgramError> {
        let records = std::mem::take(&mut self.inner.records);
        let shapes = std::mem::take(&mut self.inner.shapes);
        let parts = std::mem::take(&mut self.inner.parts);
        let checked = self.check_all(&parts, Records { kept: &records, shapes: &shapes });
        (self.inner.records, self.inner.shapes, self.inner.parts) = (records, shapes, parts);
        checked
    }

    fn check_all(&mut self, parts: &[Part], records: Records<'_>) -> Result<(), ProgramError> {
        let mut begin = 0;
        // What comes a second time is worth a summary for the third.
        let mut seen: BTreeMap<Part, Option<Seen>> = BTreeMap::new();
        for (number, part) in (1..).zip(parts) {
            let known = if parts.len() > 1 { seen.get(part) } else { None };
            if let Some(Some(known)) = known {
                self.again(begin, number, known)?;
            } else {
                let comes_again = known.is_some();
                let before = self.inner.launches.clone();
                self.first_time(begin, number, *part, records)?;
                let summary = || self.summary(&before, number, records.range(part.range()));
                if parts.len() > 1 {
                    seen.insert(*part, comes_again.then(summary));
                }
            }
            begin += part.len();
        }
        Ok(())
    }

    fn summary(&self, before: &[u32], number: usize, records: impl Iterator<Item = Record>) -> Seen {
        let launches = self.inner.launches.iter().zip(before).map(|(after, before)| after - before).collect();
        let last = self.inner.last_rendezvous.iter().enumerate();
        let here = last.filter(|(_, place)| **place > parts::place(number, 0));
        let events = (0..).zip(records).filter(|(_, record)| record.is_of_event());
        Seen {
            launches,
            last: here.map(|(stream, place)| (stream, *place as u32)).collect(),
            events: events.map(|(at, it)| (at, if it.kind == Kind::Record { 0 } else { it.index })).collect(),
        }
    }

    fn again(&mut self, begin: usize, number: usize, seen: &Seen) -> Result<(), ProgramError> {
        for (launches, more) in self.inner.launches.iter_mut().zip(&seen.launches) {
            *launches += more;
        }
        for &(stream, record) in &seen.last {
            self.inner.last_rendezvous[stream] = parts::place(number, record as usize);
        }
        for &(at, back) in &seen.events {
            self.at = begin + at as usize;
            if back == 0 {
                self.recorded += 1;
            } else {
                self.waits(back)?;
            }
        }
        Ok(())
    }

    fn first_time(
        &mut self,
        begin: usize,
        number: usize,
        part: Part,
        records: Records<'_>,
    ) -> Result<(), ProgramError> {
        let (streams, labels) = (self.inner.streams.len(), self.inner.labels.len());
        for (at, record) in records.range(part.range()).enumerate() {
            self.at = begin + at;
            // Most records are kernels that are right.
            let known = usize::from(record.stream) < streams && (record.index as usize) < labels;
            if record.kind == Kind::Kernel
                && known
                && usize::from(record.class.max(record.wait_class)) < CLASSES
            {
                self.inner.launches[usize::from(record.stream)] += 1;
                continue;
            }
            if !matches!(record.kind, Kind::Host | Kind::HostWait) {
                self.known("stream", u32::from(record.stream), self.inner.streams.len())?;
            }
            self.place = (number, part.first as usize + at);
            match record.kind {
                // What is right of kernels was counted.
                Kind::Host | Kind::Kernel => self.named(&record)?,
                Kind::Rendezvous => self.rendezvous(&record)?,
                Kind::Record => self.recorded += 1,
                Kind::Wait | Kind::HostWait => self.waits(record.index)?,
                Kind::HostSync => {}
                Kind::Alloc | Kind::Free => self.memory(&record)?,
            }
        }
        Ok(())
    }

    fn known(&self, what: &'static str, index: u32, len: usize) -> Result<(), ProgramError> {
        if (index as usize) < len {
            return Ok(());
        }
        Err(ProgramError::Unknown { program: self.inner.name.clone(), record: self.at, what, index })
    }

    /// Label and classes of a host, kernel or rendezvous record.
    fn named(&self, record: &Record) -> Result<(), ProgramError> {
        self.known("label", record.index, self.inner.labels.len())?;
        let index = record.class.max(record.wait_class);
        if usize::from(index) >= CLASSES {
            return Err(ProgramError::OutOfRange { program: self.inner.name.clone(), what: "class", index });
        }
        Ok(())
    }

    fn rendezvous(&mut self, record: &Record) -> Result<(), ProgramError> {
        self.named(record)?;
        let channel = record.channel();
        self.known("channel", channel as u32, self.inner.channels.len())?;
        let uses = &mut self.inner.uses[channel];
        uses.sends |= record.bytes() > 0;
        uses.overlaps |= uses.stream.is_some_and(|stream| stream != record.stream);
        uses.stream = Some(record.stream);
        let (part, at) = self.place;
        let stream = usize::from(record.stream);
        self.inner.last_rendezvous[stream] = parts::place(part, at + 1);
        self.inner.launches[stream] += 1;
        Ok(())
    }

    /// A wait for the event that is so many back.
    fn waits(&mut self, back: u32) -> Result<(), ProgramError> {
        let event = self.recorded.wrapping_sub(back);
        if event < self.recorded {
            self.inner.waits[event as usize] += 1;
            return Ok(());
        }
        let (program, record) = (self.inner.name.clone(), self.at);
        Err(ProgramError::NotRecorded { program, record, event })
    }

    fn memory(&mut self, record: &Record) -> Result<(), ProgramError> {
        self.known("tensor", record.index, self.inner.tensors.len())?;
        let index = record.index as usize;
        let allocates = record.kind == Kind::Alloc;
        if self.allocated[index] == allocates {
            let label = self.inner.tensors[index].label.0 as usize;
            return Err(ProgramError::Allocation {
                program: self.inner.name.clone(),
                record: self.at,
                action: if allocates { "allocates" } else { "frees" },
                tensor: self.inner.labels.get(label).cloned().unwrap_or_default(),
                state: if allocates { "is allocated already" } else { "is not allocated" },
            });
        }
        self.allocated[index] = allocates;
        Ok(())
    }
}
