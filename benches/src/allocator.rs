//! Requests and frees as a training step makes them, for the caching allocator.

use steptime_core::Stream;
use steptime_core::allocator::{Allocator, Block, OutOfMemory};

use crate::Delays;

/// Layers of the step, tensors that a layer saves, and their sizes: from a few bytes to tens of MiB.
const LAYERS: usize = 48;
const SAVED: usize = 12;
const SIZES: [u64; 8] = [256, 16_384, 65_536, 786_432, 4_194_304, 8_388_608, 25_165_824, 67_108_864];

/// A request of so many bytes into a slot, or, with 0 bytes, the free of what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    slot: u32,
    bytes: u64,
}

/// Requests and frees of one step, as many of the one as of the other: forward, every layer saves tensors and
/// frees a temporary after each; backward, last in first out, every saved tensor is freed after a temporary.
pub fn training_step() -> Vec<Turn> {
    let mut delays = Delays::default();
    let mut size = || SIZES[delays.draw() as usize % SIZES.len()];
    let temporary = (LAYERS * SAVED) as u32;
    let mut turns = Vec::new();
    for slot in 0..temporary {
        turns.extend([(slot, size()), (temporary, size()), (temporary, 0)]);
    }
    for slot in (0..temporary).rev() {
        turns.extend([(temporary, size()), (slot, 0), (temporary, 0)]);
    }
    turns.into_iter().map(|(slot, bytes)| Turn { slot, bytes }).collect()
}

/// Slots for the blocks of a step.
pub fn slots() -> Vec<Option<Block>> {
    (0..=LAYERS * SAVED).map(|_| None).collect()
}

/// Plays a step. Returns the sum of the addresses handed out.
///
/// # Errors
/// The allocator's device is too small.
pub fn play_step(
    allocator: &mut Allocator,
    slots: &mut [Option<Block>],
    turns: &[Turn],
) -> Result<u64, OutOfMemory> {
    let mut sum = 0;
    for turn in turns {
        let Some(slot) = slots.get_mut(turn.slot as usize) else { continue };
        if turn.bytes > 0 {
            let block = allocator.alloc(Stream(0), turn.bytes)?;
            sum += block.address();
            *slot = Some(block);
        } else if let Some(block) = slot.take() {
            allocator.free(block);
        }
    }
    Ok(sum)
}

/// The same step with an allocator that forgets: sizes are rounded and noted, addresses only rise.
pub fn bare_step(slots: &mut [Option<u64>], turns: &[Turn]) -> u64 {
    let (mut sum, mut next, mut held) = (0, 0, 0_u64);
    for turn in turns {
        let Some(slot) = slots.get_mut(turn.slot as usize) else { continue };
        if turn.bytes > 0 {
            let size = turn.bytes.next_multiple_of(512);
            sum += next;
            next += size;
            held += size;
            *slot = Some(size);
        } else if let Some(size) = slot.take() {
            held -= size;
        }
    }
    sum + held
}

#[cfg(test)]
mod tests {
    use steptime_core::allocator::Config;

    use super::*;

    #[test]
    fn a_step_frees_what_it_takes_and_the_next_takes_no_more() {
        let turns = training_step();
        assert_eq!(turns.len(), 4 * LAYERS * SAVED + 2 * LAYERS * SAVED);
        for expandable_segments in [false, true] {
            let mut allocator = Allocator::new(Config { expandable_segments, ..Config::default() }).unwrap();
            let mut slots = slots();
            play_step(&mut allocator, &mut slots, &turns).unwrap();
            let first = *allocator.stats();
            play_step(&mut allocator, &mut slots, &turns).unwrap();
            let second = allocator.stats();
            assert_eq!(second.all.allocated_bytes.current, 0);
            assert_eq!(second.all.reserved_bytes, first.all.reserved_bytes);
            assert_eq!(second.all.allocations.risen, turns.len() as u64);
        }
        let mut slots: Vec<Option<u64>> = slots().iter().map(|_| None).collect();
        assert!(bare_step(&mut slots, &turns) > 0);
        assert!(slots.iter().all(Option::is_none));
    }
}
