//! Stretches of a program that come again, but for the names of what they touch.
//!
//! Many parts of a program do the same to other tensors, under other labels. Such a stretch is written once and then
//! copied: what it makes itself (tensors, events) is made anew, what was there before it is what the caller says.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

use super::stretches::Copied;
use super::{Kind, Label, Part, ProgramBuilder, Records, Tensor};

/// A place between two records of a program that is being written.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    records: usize,
    parts: usize,
    tensors: usize,
    events: usize,
    notes: usize,
    memory_steps: usize,
}

/// The records between two places, and what they make.
#[derive(Clone, Debug)]
pub struct Passage {
    stretches: Vec<Part>,
    /// The first of its records that was written.
    first: usize,
    tensors: Range<usize>,
    events: Range<usize>,
    notes: Range<usize>,
    memory_steps: usize,
    /// Whether it waits for events from before it.
    waits_for_others: bool,
    /// What its copies rename, once there is one.
    names: OnceLock<Names>,
}

/// What the records of a passage are about, each thing once: a copy looks up what stands for it, and then its records only
/// add a number to what they had.
#[derive(Clone, Debug)]
struct Names {
    /// Number of the passage among those that have copies.
    number: u32,
    list: Vec<Name>,
    /// By record of the passage: which of them.
    of: Vec<u32>,
}

/// What a record is about that may have another number in a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    /// Nothing that changes.
    Fixed,
    /// A tensor that the passage makes.
    Own,
    /// A tensor from before it.
    Outer(u32),
    /// An event from before it.
    Event,
    Label(u32),
}

impl Names {
    fn new(number: u32, passage: &Passage, records: Records<'_>) -> Self {
        let mut names = Self { number, list: Vec::new(), of: Vec::new() };
        let mut known: BTreeMap<Name, u32> = BTreeMap::new();
        let mut recorded = 0;
        let mut last = None;
        for (shape, index) in passage.stretches.iter().flat_map(|part| records.shapes_of(part.range())) {
            let name = match shape.kind {
                Kind::Host | Kind::Kernel | Kind::Rendezvous => Name::Label(index),
                Kind::Alloc | Kind::Free if index as usize >= passage.tensors.start => Name::Own,
                Kind::Alloc | Kind::Free => Name::Outer(index),
                Kind::Wait | Kind::HostWait if index > recorded => Name::Event,
                Kind::Record | Kind::Wait | Kind::HostWait | Kind::HostSync => Name::Fixed,
            };
            recorded += u32::from(shape.kind == Kind::Record);
            let number = match last {
                Some((same, number)) if same == name => number,
                _ => *known.entry(name).or_insert_with(|| {
                    names.list.push(name);
                    names.list.len() as u32 - 1
                }),
            };
            last = Some((name, number));
            names.of.push(number);
        }
        names
    }
}

impl Place {
    /// Number of the record behind it.
    pub(super) const fn record(self) -> usize {
        self.records
    }
}

impl Passage {
    /// Numbers of the tensors that it makes.
    pub fn tensors(&self) -> Range<u32> {
        self.tensors.start as u32..self.tensors.end as u32
    }
}

impl ProgramBuilder {
    /// Where the next record will be.
    pub fn place(&mut self) -> Place {
        if self.only_times {
            // What begins here may come again.
            self.cut();
        }
        Place {
            records: self.records(),
            parts: self.inner.parts.len(),
            tensors: self.inner.tensors.len(),
            events: self.inner.waits.len(),
            notes: self.inner.notes.len(),
            memory_steps: self.memory_steps,
        }
    }

    /// What has been written since a place.
    pub fn passage(&mut self, from: Place) -> Passage {
        let here = self.place();
        let stretches = if self.only_times {
            self.inner.parts[from.parts..].to_vec()
        } else {
            // All records stand in their order.
            vec![Part::of(from.records..here.records)]
        };
        let records = stretches.iter().flat_map(|part| self.inner.kept().range(part.range()));
        let mut recorded = 0;
        let mut waits_for_others = false;
        for record in records.filter(super::Record::is_of_event) {
            waits_for_others |= record.index > recorded;
            recorded += u32::from(record.kind == Kind::Record);
        }
        Passage {
            stretches,
            first: from.records,
            tensors: from.tensors..here.tensors,
            events: from.events..here.events,
            notes: from.notes..here.notes,
            memory_steps: here.memory_steps - from.memory_steps,
            waits_for_others,
            names: OnceLock::new(),
        }
    }

    /// The same, as one stretch of a program without memory: there is less to look at when it comes again.
    pub fn passage_in_one(&mut self, from: Place) -> Passage {
        let mut passage = self.passage(from);
        if self.only_times && passage.stretches.len() > 1 {
            let first = self.inner.records.len();
            for part in &passage.stretches {
                self.inner.records.extend_from_within(part.range());
            }
            let part = self.known.share(&mut self.inner.records, first);
            self.shares = true;
            self.inner.parts.truncate(from.parts);
            self.inner.parts.push(part);
            self.close();
            passage.stretches = vec![part];
        }
        passage
    }

    /// The label of a tensor, if there is one of this number.
    pub fn tensor_label(&self, tensor: Tensor) -> Option<Label> {
        self.inner.tensors.get(tensor.0 as usize).map(|spec| spec.label)
    }

    /// Writes a passage again and returns the number of the first tensor that it makes. `label` gives the labels of what
    /// it does, `tensor_label` that of the n-th tensor that it makes, and `outer` what stands for a tensor that was there
    /// before it. Events from before it are waited for again.
    pub fn repeat(
        &mut self,
        passage: &Passage,
        label: impl Fn(Label) -> Label,
        tensor_label: impl Fn(usize) -> Label,
        outer: impl Fn(Tensor) -> Tensor,
    ) -> u32 {
        let here = self.place();
        let names = passage.names.get_or_init(|| {
            self.copied += 1;
            Names::new(self.copied - 1, passage, self.inner.kept())
        });
        // Between an event from before the passage and this copy there are more than before the passage.
        let between = (here.events - passage.events.start) as u32;
        let made = (here.tensors - passage.tensors.start) as u32;
        let added = |name: &Name| match *name {
            Name::Fixed => 0,
            Name::Own => made,
            Name::Outer(tensor) => outer(Tensor(tensor)).0.wrapping_sub(tensor),
            Name::Event => between,
            Name::Label(index) => label(Label(index)).0.wrapping_sub(index),
        };
        let added: Vec<u32> = names.list.iter().map(added).collect();
        let known = names.list.iter().zip(&added).all(|(name, added)| match *name {
            Name::Outer(tensor) => (tensor.wrapping_add(*added) as usize) < here.tensors,
            Name::Label(index) => (index.wrapping_add(*added) as usize) < self.inner.labels.len(),
            Name::Fixed | Name::Own | Name::Event => true,
        });
        let records = &mut self.inner.records;
        let copy = records.len();
        for part in &passage.stretches {
            records.extend_from_within(part.range());
        }
        for (kept, &name) in records[copy..].iter_mut().zip(&names.of) {
            kept.index = kept.index.wrapping_add(added[name as usize]);
        }
        if known && !self.only_times {
            let part = Part::of(copy..records.len());
            self.copies.push(Copied { part, passage: names.number, tensor: here.tensors as u32 });
        }
        self.inner.tensors.extend_from_within(passage.tensors.clone());
        for (number, spec) in self.inner.tensors[here.tensors..].iter_mut().enumerate() {
            spec.label = tensor_label(number);
        }
        self.repeat_beside(passage, here);
        here.tensors as u32
    }

    /// Writes a passage that makes no tensor again under the same labels; see [`ProgramBuilder::repeat`].
    pub fn repeat_as_it_is(&mut self, passage: &Passage) {
        if passage.waits_for_others || !self.only_times {
            self.repeat(passage, |label| label, |_| Label(0), |tensor| tensor);
            return;
        }
        let here = self.place();
        self.shares = true;
        self.inner.parts.extend_from_slice(&passage.stretches);
        self.closed += passage.stretches.iter().map(|part| part.len()).sum::<usize>();
        self.repeat_beside(passage, here);
    }

    /// What belongs to the records of a passage that was written again from `here` on.
    fn repeat_beside(&mut self, passage: &Passage, here: Place) {
        self.inner.waits.resize(here.events + passage.events.len(), 0);
        for at in passage.notes.clone() {
            let (record, note) = self.inner.notes[at];
            self.inner.notes.push((record - passage.first + here.records, note));
        }
        self.memory_steps += passage.memory_steps;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::program::{Category, Class, Step};
    use crate::time::SimTime;

    /// A kernel that makes a tensor, reads and frees one from before, and sends on another stream.
    fn write(p: &mut ProgramBuilder, name: &str, old: Tensor) -> Tensor {
        let (label, made) = (p.label(name), p.label(&format!("{name} made")));
        let (compute, other) = (crate::program::Stream(0), crate::program::Stream(1));
        let tensor = p.tensor(8, Category(1), made);
        p.alloc(compute, tensor);
        p.kernel(compute, Class(1), label, SimTime(5), SimTime(1));
        p.limited_by_memory();
        let done = p.record(compute);
        p.wait(other, done);
        p.free(compute, old);
        tensor
    }

    #[test]
    fn a_passage_written_again_is_what_would_have_been_written() {
        let start = || {
            let mut p = ProgramBuilder::new("p");
            p.stream("compute");
            p.stream("other");
            let label = p.label("start");
            let old = p.tensor(4, Category(0), label);
            p.alloc(crate::program::Stream(0), old);
            (p, old)
        };
        let (mut plain, old) = start();
        let one = write(&mut plain, "one", old);
        let two = write(&mut plain, "two", one);
        let (mut again, old) = start();
        let place = again.place();
        let first = write(&mut again, "one", old);
        let passage = again.passage(place);
        let (label, made) = (again.label("two"), again.label("two made"));
        let second = again.repeat(&passage, |_| label, |_| made, |_| first);
        assert_eq!((first, Tensor(second)), (one, two));
        assert_eq!(plain.memory_steps(), again.memory_steps());
        let (plain, again) = (plain.build().unwrap(), again.build().unwrap());
        assert_eq!(plain.inner.in_full(), again.inner.in_full());
        assert_eq!(plain.tensor_specs(), again.tensor_specs());
        assert_eq!((plain.labels(), plain.waits()), (again.labels(), again.waits()));
    }

    #[test]
    fn a_passage_without_tensors_can_be_written_again_as_it_is() {
        let start = || {
            let mut p = ProgramBuilder::without_memory("p");
            p.stream("compute");
            p.stream("other");
            let before = p.record(crate::program::Stream(0));
            p.wait(crate::program::Stream(1), before);
            p
        };
        let (mut plain, mut again) = (start(), start());
        let old = Tensor(0);
        for _ in 0..9 {
            write(&mut plain, "one", old);
        }
        let place = again.place();
        write(&mut again, "one", old);
        let passage = again.passage(place);
        // Nine times: once, twice as one, and the three as one twice more.
        again.repeat_as_it_is(&passage);
        again.repeat_as_it_is(&passage);
        let three = again.passage(place);
        again.repeat_as_it_is(&three);
        again.repeat_as_it_is(&three);
        assert_eq!((plain.records(), again.records()), (2 + 9 * 3, 2 + 9 * 3));
        let (plain, again) = (plain.build().unwrap(), again.build().unwrap());
        assert_eq!(plain.inner.in_full(), again.inner.in_full());
        assert_eq!((plain.labels(), plain.waits()), (again.labels(), again.waits()));
        assert_eq!((plain.len(), plain.launches()), (again.len(), again.launches()));
        // What was repeated stands once.
        assert_eq!((plain.records().kept.len(), again.records().kept.len()), (2 + 9 * 3, 2 + 3));
    }

    #[test]
    fn a_passage_that_waits_for_an_event_from_before_it_waits_for_the_same_one_again() {
        let mut p = ProgramBuilder::without_memory("p");
        let stream = p.stream("compute");
        let before = p.record(stream);
        let place = p.place();
        p.wait(stream, before);
        p.record(stream);
        let passage = p.passage(place);
        p.repeat_as_it_is(&passage);
        let program = p.build().unwrap();
        let waits: Vec<u32> =
            program.inner.in_full().iter().filter(|it| it.kind == Kind::Wait).map(|it| it.index).collect();
        assert_eq!((waits, program.waits()), (vec![0, 0], &[2, 0, 0][..]));
    }

    /// Two tensors, two events and a note, after others of each kind: whatever is numbered goes on from there.
    fn write_two(p: &mut ProgramBuilder, name: &str) {
        let (label, made) = (p.label(name), p.label("made"));
        let (compute, other) = (crate::program::Stream(0), crate::program::Stream(1));
        let tensors = [8, 16].map(|bytes| p.tensor(bytes, Category(1), made));
        for tensor in tensors {
            p.alloc(compute, tensor);
        }
        p.kernel(compute, Class(1), label, SimTime(5), SimTime(1));
        p.limited_by_memory();
        let events = [p.record(compute), p.record(other)];
        p.rendezvous(other, crate::program::Channel(0), Class(1), Class(1), label, SimTime(5), 7);
        p.note(crate::program::Note { kind: 3, bytes: 7 });
        p.wait(other, events[0]);
        p.host_wait(events[1]);
        for tensor in tensors {
            p.free(compute, tensor);
        }
    }

    #[test]
    fn what_a_passage_numbers_goes_on_where_it_is_written_again() {
        let start = || {
            let mut p = ProgramBuilder::new("p");
            p.stream("compute");
            p.stream("other");
            p.channel("c");
            write_two(&mut p, "before");
            p
        };
        let (mut plain, mut again) = (start(), start());
        for name in ["one", "two", "two"] {
            write_two(&mut plain, name);
        }
        let place = again.place();
        write_two(&mut again, "one");
        let passage = again.passage(place);
        assert_eq!(passage.tensors(), 2..4);
        let (label, made) = (again.label("two"), again.label("made"));
        let firsts = [(); 2].map(|()| again.repeat(&passage, |_| label, |_| made, |tensor| tensor));
        assert_eq!((firsts, again.memory_steps()), ([4, 6], plain.memory_steps()));
        let (plain, again) = (plain.build().unwrap(), again.build().unwrap());
        assert!(plain.steps().eq(again.steps()));
        assert!(plain.memory_requests().eq(again.memory_requests()));
        assert_eq!(plain.tensor_specs(), again.tensor_specs());
        assert_eq!((plain.labels(), plain.waits()), (again.labels(), again.waits()));
    }

    /// Each tensor that a passage makes has a label of its own, by its number.
    #[test]
    fn tensors_of_a_copy_are_labelled_by_their_numbers() {
        let mut p = ProgramBuilder::new("p");
        let labels = ["first", "second", "third", "fourth"].map(|text| p.label(text));
        let stream = p.stream("s");
        p.tensor(1, Category(0), labels[0]);
        let place = p.place();
        for label in &labels[..2] {
            let tensor = p.tensor(8, Category(1), *label);
            p.alloc(stream, tensor);
        }
        let passage = p.passage(place);
        p.repeat(&passage, |label| label, |number| labels[number + 2], |tensor| tensor);
        let program = p.build().unwrap();
        let texts: Vec<&str> = program.tensor_specs().iter().map(|it| program.label(it.label)).collect();
        assert_eq!(texts, ["first", "first", "second", "third", "fourth"]);
        let allocated: Vec<u32> = program.memory_requests().map(|(tensor, ..)| tensor.0).collect();
        assert_eq!(allocated, [1, 2, 3, 4]);
    }

    /// Whether it is written with a memory account or without, a copy waits for its own events, and again for those from
    /// before the passage.
    #[test]
    fn a_copy_waits_for_its_own_events_and_again_for_those_from_before() {
        for mut p in [ProgramBuilder::new("p"), ProgramBuilder::without_memory("p")] {
            let (one, two) = (p.stream("one"), p.stream("two"));
            let before = [p.record(one), p.record(two)];
            let place = p.place();
            p.host_wait(before[0]);
            let own = p.record(one);
            p.wait(two, own);
            p.wait(two, before[1]);
            p.record(two);
            let passage = p.passage(place);
            p.repeat(&passage, |label| label, |_| Label(0), |tensor| tensor);
            p.record(one);
            p.repeat_as_it_is(&passage);
            let program = p.build().unwrap();
            let events = program.steps().filter_map(|it| match it {
                Step::Wait { event, .. } | Step::HostWait { event } => Some(event.0),
                _ => None,
            });
            // Two from before; each copy records two, and one comes between the second and the third.
            assert_eq!(events.collect::<Vec<u32>>(), [0, 2, 1, 0, 4, 1, 0, 7, 1]);
            assert_eq!(program.waits(), [3, 3, 1, 0, 1, 0, 0, 1, 0]);
        }
    }

    /// Turns of allocations and frees of two tensors from before and two of its own, in any order: what is wrong with copies
    /// is found where it would be found if they were written out.
    fn turns(turns: &[(bool, bool, usize)], copies: &[[usize; 2]], copied: bool) -> ProgramBuilder {
        let mut p = ProgramBuilder::new("p");
        let (label, stream) = (p.label("x"), p.stream("s"));
        let outer: Vec<Tensor> = (0..4).map(|_| p.tensor(8, Category(0), label)).collect();
        for tensor in &outer[..2] {
            p.alloc(stream, *tensor);
        }
        let write = |p: &mut ProgramBuilder, [first, second]: [usize; 2]| {
            let own = [(); 2].map(|()| p.tensor(16, Category(1), label));
            for &(makes, frees, number) in turns {
                let before = [outer[first], outer[second]];
                let tensor = if makes { own[number] } else { before[number] };
                if frees {
                    p.free(stream, tensor);
                } else {
                    p.alloc(stream, tensor);
                }
                p.kernel(stream, Class(1), label, SimTime(3), SimTime(1));
            }
        };
        let place = p.place();
        write(&mut p, [0, 1]);
        let passage = p.passage(place);
        for &tensors in copies {
            if copied {
                let outer = |tensor: Tensor| outer[tensors[tensor.0 as usize]];
                p.repeat(&passage, |label| label, |_| label, outer);
            } else {
                write(&mut p, tensors);
            }
        }
        p.alloc(stream, outer[3]);
        p
    }

    proptest! {
        #[test]
        fn copies_are_checked_as_if_they_were_written(
            drawn in prop::collection::vec((any::<bool>(), any::<bool>(), 0_usize..2), 0..7),
            tidy in any::<bool>(),
            copies in prop::collection::vec([0_usize..4, 0_usize..4], 0..6),
        ) {
            // Each tensor's turns alternate, so that the first writing is right; those from before come first as they are.
            let mut held = [[false; 2], [true; 2]];
            let alternating: Vec<_> = drawn.iter().map(|&(makes, _, number)| {
                let held = &mut held[usize::from(!makes)][number];
                *held = !*held;
                (makes, !*held, number)
            }).collect();
            let drawn = if tidy { alternating } else { drawn };
            let [copied, plain] = [true, false].map(|copied| turns(&drawn, &copies, copied).build());
            match (copied, plain) {
                (Ok(copied), Ok(plain)) => {
                    prop_assert_eq!(copied.inner.in_full(), plain.inner.in_full());
                    prop_assert_eq!(copied.tensor_specs(), plain.tensor_specs());
                    prop_assert_eq!(copied.launches(), plain.launches());
                }
                (copied, plain) => prop_assert_eq!(copied.map(|_| ()), plain.map(|_| ())),
            }
        }
    }
}
