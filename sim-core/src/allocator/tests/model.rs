//! The rules of segments of fixed size once more, as plainly as they can be written: lists and no statistics.

use super::*;

struct Piece {
    size: u64,
    used: bool,
}

struct Segment {
    address: u64,
    stream: Stream,
    small: bool,
    pieces: Vec<Piece>,
}

/// An allocator that searches everything every time.
pub(super) struct Model {
    config: Config,
    segments: Vec<Segment>,
    next: u64,
}

impl Model {
    pub(super) fn new(config: Config) -> Self {
        Self { config, segments: Vec::new(), next: FIRST_ADDRESS }
    }

    pub(super) fn reserved(&self) -> u64 {
        self.segments.iter().flat_map(|segment| &segment.pieces).map(|piece| piece.size).sum()
    }

    /// Address and size of what was handed out.
    pub(super) fn alloc(&mut self, stream: Stream, bytes: u64) -> Option<(u64, u64)> {
        let size = bytes.max(1).next_multiple_of(512);
        let small = size <= MIB;
        let limit = self.config.max_split_size.unwrap_or(u64::MAX);
        let waste = self.config.max_non_split_rounding;
        let fits = self.free(stream, small).into_iter().filter(|found| found.0 >= size).min();
        let oversize = |found: u64| if size < limit { found >= limit } else { found >= size + waste };
        let (_, address) = match fits.filter(|found| !oversize(found.0)) {
            Some(found) => found,
            None => self.grow(stream, small, size)?,
        };
        let (segment, piece) = self.find(address);
        let pieces = &mut self.segments[segment].pieces;
        let rest = pieces[piece].size - size;
        pieces[piece].used = true;
        if if small { rest >= 512 } else { size < limit && rest > MIB } {
            pieces[piece].size = size;
            pieces.insert(piece + 1, Piece { size: rest, used: false });
        }
        Some((address, pieces[piece].size))
    }

    pub(super) fn free_at(&mut self, address: u64) {
        let (segment, piece) = self.find(address);
        let pieces = &mut self.segments[segment].pieces;
        pieces[piece].used = false;
        for left in (piece.saturating_sub(1)..=piece).rev() {
            if left + 1 < pieces.len() && !pieces[left].used && !pieces[left + 1].used {
                pieces[left].size += pieces.remove(left + 1).size;
            }
        }
    }

    /// Size and address of the free pieces of a pool.
    fn free(&self, stream: Stream, small: bool) -> Vec<(u64, u64)> {
        let mut free = Vec::new();
        for segment in self.segments.iter().filter(|s| (s.stream, s.small) == (stream, small)) {
            let mut address = segment.address;
            for piece in &segment.pieces {
                if !piece.used {
                    free.push((piece.size, address));
                }
                address += piece.size;
            }
        }
        free
    }

    fn find(&self, address: u64) -> (usize, usize) {
        for (i, segment) in self.segments.iter().enumerate() {
            let mut at = segment.address;
            for (j, piece) in segment.pieces.iter().enumerate() {
                if at == address {
                    return (i, j);
                }
                at += piece.size;
            }
        }
        panic!("no piece at {address}")
    }

    fn grow(&mut self, stream: Stream, small: bool, size: u64) -> Option<(u64, u64)> {
        let segment = match size {
            _ if small => 2 * MIB,
            _ if size < 10 * MIB => 20 * MIB,
            _ => size.next_multiple_of(2 * MIB),
        };
        let capacity = self.config.capacity.unwrap_or(u64::MAX);
        let mut fits = self.reserved() + segment <= capacity;
        if !fits {
            fits = self.give_back_oversize(stream, small, size) && self.reserved() + segment <= capacity;
        }
        if !fits {
            self.segments.retain(|segment| segment.pieces.iter().any(|piece| piece.used));
        }
        if self.reserved() + segment > capacity {
            return None;
        }
        let address = self.next;
        self.next += segment;
        let pieces = vec![Piece { size: segment, used: false }];
        self.segments.push(Segment { address, stream, small, pieces });
        Some((segment, address))
    }

    /// Whether what was given back suffices.
    fn give_back_oversize(&mut self, stream: Stream, small: bool, size: u64) -> bool {
        let Some(limit) = self.config.max_split_size else { return false };
        let needed = size.max(limit);
        let mut oversize = self.free(stream, small);
        oversize.retain(|found| found.0 >= limit);
        oversize.sort_unstable();
        let mut gone = Vec::new();
        if let Some(enough) = oversize.iter().find(|found| found.0 >= needed) {
            gone.push(*enough);
        } else {
            for found in oversize.iter().rev() {
                if gone.iter().map(|found: &(u64, u64)| found.0).sum::<u64>() < needed {
                    gone.push(*found);
                }
            }
        }
        self.segments.retain(|segment| gone.iter().all(|found| found.1 != segment.address));
        gone.iter().map(|found| found.0).sum::<u64>() >= needed
    }
}
