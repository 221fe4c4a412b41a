//! Checking of a finished program, and what is counted on the way.

use super::stretches::Stretch;
use super::{CLASSES, ChannelUse, Inner, Kind, Part, ProgramError, Record, Records, parts};

/// One pass over the records in order, with what has happened so far. What is alike is looked at twice and not again.
pub(super) struct Checker<'a> {
    inner: &'a mut Inner,
    /// Number of the record.
    at: usize,
    /// Number of the part, from 1, and its records before this one.
    place: (usize, usize),
    recorded: u32,
    allocated: Vec<bool>,
}

/// What is known of stretches that are alike.
#[derive(Default)]
enum Known {
    #[default]
    Nothing,
    /// One was right.
    Once,
    Seen(Seen),
}

/// What a record does that is counted or may be wrong.
#[derive(Clone, Copy)]
enum Touch {
    Records,
    Waits,
    /// It allocates or frees a tensor from before its stretch.
    Memory,
}

/// What a stretch does to what is counted. Records are counted from its first.
struct Seen {
    /// By stream: kernels and rendezvous.
    launches: Vec<u32>,
    /// The last rendezvous of each stream that has one: the record behind it.
    last: Vec<(usize, u32)>,
    /// What numbers depend on.
    touches: Vec<(u32, Touch)>,
    /// Whether the tensors that it makes are allocated after it.
    made: Vec<bool>,
}

impl<'a> Checker<'a> {
    pub(super) fn new(inner: &'a mut Inner) -> Self {
        inner.uses = vec![ChannelUse::default(); inner.channels.len()];
        inner.last_rendezvous = vec![0; inner.streams.len()];
        inner.launches = vec![0; inner.streams.len()];
        let allocated = vec![false; inner.tensors.len()];
        Self { inner, at: 0, place: (0, 0), recorded: 0, allocated }
    }

    /// Checks a program in stretches.
    pub(super) fn check(&mut self, stretches: &[Stretch]) -> Result<(), ProgramError> {
        let records = std::mem::take(&mut self.inner.records);
        let shapes = std::mem::take(&mut self.inner.shapes);
        let checked = self.check_all(stretches, Records { kept: &records, shapes: &shapes });
        (self.inner.records, self.inner.shapes) = (records, shapes);
        checked
    }

    fn check_all(&mut self, stretches: &[Stretch], records: Records<'_>) -> Result<(), ProgramError> {
        let mut begin = 0;
        let mut known: Vec<Known> = Vec::new();
        for stretch in stretches {
            let number = stretch.number as usize + 1;
            let alike = stretch.alike.map(|alike| alike as usize);
            known.resize_with(known.len().max(alike.map_or(0, |alike| alike + 1)), Known::default);
            match alike.map(|alike| &mut known[alike]) {
                None => self.first_time(begin, number, stretch.part, records)?,
                Some(Known::Seen(seen)) => self.again(begin, number, (stretch, seen), records)?,
                Some(known @ Known::Nothing) => {
                    self.first_time(begin, number, stretch.part, records)?;
                    *known = Known::Once;
                }
                // What comes a second time is worth a summary for the third.
                Some(known @ Known::Once) => {
                    let before = self.inner.launches.clone();
                    self.first_time(begin, number, stretch.part, records)?;
                    *known = Known::Seen(self.summary(&before, number, (stretch, records)));
                }
            }
            begin += stretch.part.len();
        }
        Ok(())
    }

    fn summary(&self, before: &[u32], number: usize, (stretch, records): (&Stretch, Records<'_>)) -> Seen {
        let Stretch { part, tensor, .. } = *stretch;
        let launches = self.inner.launches.iter().zip(before).map(|(after, before)| after - before).collect();
        let last = self.inner.last_rendezvous.iter().enumerate();
        let here = last.filter(|(_, place)| **place > parts::place(number, part.first as usize));
        let last = here.map(|(stream, place)| (stream, *place as u32 - part.first)).collect();
        let (mut touches, mut made) = (Vec::new(), 0);
        for (at, (record, index)) in (0..).zip(records.shapes_of(part.range())) {
            match record.kind {
                Kind::Record => touches.push((at, Touch::Records)),
                Kind::Wait | Kind::HostWait => touches.push((at, Touch::Waits)),
                Kind::Alloc | Kind::Free if index < tensor => touches.push((at, Touch::Memory)),
                Kind::Alloc | Kind::Free => made = made.max(index + 1 - tensor),
                Kind::Host | Kind::Kernel | Kind::HostSync | Kind::Rendezvous => {}
            }
        }
        let first = tensor as usize;
        let made = self.allocated.get(first..first + made as usize).unwrap_or_default().to_vec();
        Seen { launches, last, touches, made }
    }

    /// One that is like others: only what was there before it can be wrong.
    fn again(
        &mut self,
        begin: usize,
        number: usize,
        (stretch, seen): (&Stretch, &Seen),
        records: Records<'_>,
    ) -> Result<(), ProgramError> {
        let first = stretch.part.first;
        for (launches, more) in self.inner.launches.iter_mut().zip(&seen.launches) {
            *launches += more;
        }
        for &(stream, record) in &seen.last {
            self.inner.last_rendezvous[stream] = parts::place(number, (first + record) as usize);
        }
        for &(at, touch) in &seen.touches {
            self.at = begin + at as usize;
            let place = (first + at) as usize;
            match touch {
                Touch::Records => self.recorded += 1,
                Touch::Waits => self.waits(records.kept[place].index)?,
                Touch::Memory => self.memory(&records.at(place))?,
            }
        }
        let tensor = stretch.tensor as usize;
        if let Some(made) = self.allocated.get_mut(tensor..tensor + seen.made.len()) {
            made.copy_from_slice(&seen.made);
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
