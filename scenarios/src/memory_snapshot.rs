//! A step's memory as PyTorch dumps it (`torch.cuda.memory._dump_snapshot`): a pickle of plain lists and dictionaries that
//! `torch.cuda._memory_viz` and the page pytorch.org/memory_viz read; and the same as CSV.
//!
//! Each stage is a device of the snapshot. A tensor's name stands where PyTorch has the stack of the call: as the one frame
//! of its events, with its category in the place of the file.

use std::fmt::Write;

use steptime_core::allocator::PoolKind;
use steptime_plans::{Traced, classes};

/// Writes protocol 2 of Python's pickle, as far as plain data needs it.
#[derive(Default)]
struct Pickle {
    bytes: Vec<u8>,
    /// Keys that have been written, by the number of their memo.
    known: Vec<&'static str>,
}

impl Pickle {
    fn new() -> Self {
        // PROTO 2.
        Self { bytes: vec![0x80, 2], known: Vec::new() }
    }

    fn text(&mut self, text: &str) {
        // BINUNICODE: length in 32 bits, then UTF-8.
        self.bytes.push(b'X');
        let length = u32::try_from(text.len()).unwrap_or(0);
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text.as_bytes().iter().take(length as usize));
    }

    /// A text that comes again and again: written once, referred to later (BINPUT, BINGET).
    fn word(&mut self, word: &'static str) {
        let known = self.known.iter().position(|it| *it == word);
        let number = known.unwrap_or(self.known.len());
        match (known, u8::try_from(number)) {
            (Some(_), Ok(number)) => self.bytes.extend([b'h', number]),
            (None, Ok(number)) => {
                self.text(word);
                self.bytes.extend([b'q', number]);
                self.known.push(word);
            }
            (_, Err(_)) => self.text(word),
        }
    }

    fn number(&mut self, number: u64) {
        if let Ok(small) = i32::try_from(number) {
            // BININT.
            self.bytes.push(b'J');
            self.bytes.extend(small.to_le_bytes());
        } else {
            // LONG1: little-endian, signed; nine bytes hold every unsigned one of 64 bits.
            self.bytes.extend([0x8a, 9]);
            self.bytes.extend(number.to_le_bytes());
            self.bytes.push(0);
        }
    }

    fn flag(&mut self, flag: bool) {
        self.bytes.push(if flag { 0x88 } else { 0x89 });
    }

    fn list(&mut self, fill: impl FnOnce(&mut Self)) {
        // EMPTY_LIST, MARK, items, APPENDS.
        self.bytes.extend([b']', b'(']);
        fill(self);
        self.bytes.push(b'e');
    }

    fn dictionary(&mut self, fill: impl FnOnce(&mut Self)) {
        // EMPTY_DICT, MARK, keys and values, SETITEMS.
        self.bytes.extend([b'}', b'(']);
        fill(self);
        self.bytes.push(b'u');
    }

    fn entry(&mut self, key: &'static str, number: u64) {
        self.word(key);
        self.number(number);
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.push(b'.');
        self.bytes
    }
}

/// The snapshot of all stages, whose steps follow each other every `step_s` seconds.
pub fn memory_snapshot(stages: &[Traced], step_s: f64) -> Vec<u8> {
    let mut pickle = Pickle::new();
    pickle.dictionary(|pickle| {
        pickle.word("segments");
        pickle.list(|pickle| (0_u64..).zip(stages).for_each(|(device, it)| segments(pickle, device, it)));
        pickle.word("device_traces");
        pickle.list(|pickle| stages.iter().for_each(|it| pickle.list(|pickle| events(pickle, it, step_s))));
        pickle.word("allocator_settings");
        pickle.dictionary(|_| {});
        pickle.word("external_annotations");
        pickle.list(|_| {});
    });
    pickle.finish()
}

fn segments(pickle: &mut Pickle, device: u64, stage: &Traced) {
    for segment in &stage.segments {
        pickle.dictionary(|pickle| {
            pickle.entry("device", device);
            pickle.entry("address", segment.address);
            pickle.entry("total_size", segment.total_size);
            pickle.entry("allocated_size", segment.allocated_size);
            pickle.entry("active_size", segment.active_size);
            pickle.entry("requested_size", segment.requested_size);
            pickle.entry("stream", u64::from(segment.stream.0));
            pickle.word("segment_type");
            pickle.word(match segment.kind {
                PoolKind::Small => "small",
                PoolKind::Large => "large",
            });
            pickle.word("is_expandable");
            pickle.flag(segment.is_expandable);
            pickle.word("frames");
            pickle.list(|_| {});
            pickle.word("blocks");
            pickle.list(|pickle| {
                for block in &segment.blocks {
                    pickle.dictionary(|pickle| {
                        pickle.entry("address", block.address);
                        pickle.entry("size", block.size);
                        pickle.entry("requested_size", block.requested_size);
                        pickle.word("state");
                        pickle.word(block.state.name());
                        pickle.word("frames");
                        pickle.list(|_| {});
                    });
                }
            });
        });
    }
}

fn events(pickle: &mut Pickle, stage: &Traced, step_s: f64) {
    for event in &stage.blocks {
        let seconds = f64::from(event.step) * step_s + event.at.seconds();
        pickle.dictionary(|pickle| {
            pickle.word("action");
            pickle.word(event.action);
            // What PyTorch says of a request that fails: no address, but what the device has left.
            pickle.entry(if event.action == "oom" { "device_free" } else { "addr" }, event.address);
            pickle.entry("size", event.size);
            pickle.entry("stream", u64::from(event.stream.0));
            pickle.entry("time_us", (seconds * 1e6).round() as u64);
            pickle.word("frames");
            pickle.list(|pickle| {
                let Some((name, category)) = tensor(stage, event.tensor) else { return };
                pickle.dictionary(|pickle| {
                    pickle.word("filename");
                    pickle.word(category);
                    pickle.entry("line", 0);
                    pickle.word("name");
                    pickle.text(name);
                });
            });
        });
    }
}

/// A tensor's name and category.
fn tensor(stage: &Traced, number: Option<u32>) -> Option<(&str, &'static str)> {
    let (name, category) = stage.tensors.get(number? as usize)?;
    Some((name, classes::CATEGORY_NAMES.get(usize::from(*category)).copied().unwrap_or("other")))
}

/// The same as a table; bytes, seconds since the beginning of the step.
pub fn memory_csv(stages: &[Traced]) -> String {
    let mut text = "rank,stage,step,time_s,event,tensor,category,stream,address,size_bytes,requested_bytes,\
                    allocated_bytes,reserved_bytes\n"
        .to_owned();
    for stage in stages {
        for event in &stage.blocks {
            let (name, category) = tensor(stage, event.tensor).unwrap_or(("", ""));
            let _ = writeln!(
                text,
                "{},{},{},{},{},{},{},{},{},{},{},{},{}",
                stage.memory.rank,
                stage.memory.stage,
                event.step,
                event.at.seconds(),
                event.action,
                name.replace([',', '"', '\n'], " "),
                category,
                event.stream.0,
                event.address,
                event.size,
                event.requested,
                event.allocated,
                event.reserved
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pickles_by_hand() {
        // What Python's `pickletools` reads as {'size': 300, 'size2': [True, 'a', 2**33]}.
        let mut pickle = Pickle::new();
        pickle.dictionary(|pickle| {
            pickle.entry("size", 300);
            pickle.word("size2");
            pickle.list(|pickle| {
                pickle.flag(true);
                pickle.text("a");
                pickle.number(1 << 33);
            });
        });
        let expected = [
            &[0x80, 2, b'}', b'(', b'X', 4, 0, 0, 0][..],
            b"size",
            &[b'q', 0, b'J', 0x2c, 1, 0, 0, b'X', 5, 0, 0, 0],
            b"size2",
            &[b'q', 1, b']', b'(', 0x88, b'X', 1, 0, 0, 0, b'a', 0x8a, 9, 0, 0, 0, 0, 2, 0, 0, 0, 0],
            b"eu.",
        ];
        assert_eq!(pickle.finish(), expected.concat());
    }

    #[test]
    fn words_are_written_once() {
        let mut pickle = Pickle::new();
        pickle.word("stream");
        let first = pickle.bytes.len();
        pickle.word("stream");
        assert_eq!(&pickle.bytes[first..], [b'h', 0]);
    }
}
