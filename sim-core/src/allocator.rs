//! A caching allocator of device memory, as PyTorch has one.
//!
//! Asking the driver for memory is slow and waits for the device, so the allocator keeps what it once got. It
//! takes *segments* from the device, cuts them into *blocks*, hands these out, and caches freed ones by stream
//! in two pools. What it holds ([`PoolStats::reserved_bytes`]) is therefore more than what its users hold
//! ([`PoolStats::allocated_bytes`]), and by how much depends on the order of requests and frees.
//!
//! The rules are those of `c10/cuda/CUDACachingAllocator.cpp` of PyTorch 2:
//!
//! - Requests are rounded up to 512 bytes ([`Config::round`]). At most 1 MiB are served by the small pool,
//!   others by the large one. A block serves only the stream it was allocated on.
//! - The smallest free block that suffices serves, of equals the one with the lowest address. What remains of it
//!   becomes a block if it has at least 512 bytes (small pool, expandable segments) or more than 1 MiB.
//! - Without such a block the device gives a segment: 2 MiB for the small pool; for the large one 20 MiB below
//!   requests of 10 MiB, from there on the request rounded up to 2 MiB.
//! - A freed block joins its free neighbours in the segment.
//! - If the device has nothing left, whole cached segments of at least `max_split_size` are given back until the
//!   request fits; then all that is wholly free; then the request fails.
//! - Expandable segments have address space for more than the device and memory in pages of 2 or 20 MiB, mapped
//!   at the lowest address that has room; empty pages are given back as above.
//!
//! Not modelled: private pools (captured graphs, `MemPool`), switching settings while running, and tensors
//! that come from other processes. Addresses are those of a device that never hands out an address twice; they
//! decide only between free blocks of equal size.

mod blocks;
mod cache;
mod config;
mod events;
mod expandable;
mod release;
mod snapshot;
mod stats;

use thiserror::Error;

use self::blocks::{Blocks, Node, State, pool_index, pool_kind};
use self::cache::{Cache, Entry};
use self::config::LARGEST_REQUEST;
use self::events::{Events, Uses};
use self::expandable::Unmapped;
use crate::program::Stream;

pub use self::config::{Config, ConfigError, PoolKind, ROUNDUP_INTERVALS};
pub use self::snapshot::{BlockState, SnapshotBlock, SnapshotSegment};
pub use self::stats::{Counts, PoolStats, Stat, Stats, Totals};

/// A block that was handed out; freeing consumes it. It means nothing to any other allocator but a clone, for which a clone
/// of the block stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a block that is dropped stays allocated"]
pub struct Block {
    index: u32,
    address: u64,
    size: u64,
    requested: u64,
}

impl Block {
    /// Its first byte in the address space of the device; 0 for an empty block.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// Bytes it occupies: at least what was asked for, rounded up.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that were asked for.
    pub fn requested(&self) -> u64 {
        self.requested
    }
}

/// Why a request failed; all in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "out of device memory: {requested} bytes requested, {segment} bytes needed from the device, of which {} \
     bytes are free; {allocated} bytes are allocated and {unallocated} bytes are reserved but unallocated",
    .free.map_or_else(|| "unlimited".to_owned(), |free| free.to_string())
)]
pub struct OutOfMemory {
    /// What was asked for.
    pub requested: u64,
    /// Size of the segment that the device did not give.
    pub segment: u64,
    /// What the device has, if it ends.
    pub capacity: Option<u64>,
    /// What the device has left, if it ends: its capacity less what is reserved.
    pub free: Option<u64>,
    /// What the allocator allows itself, if limited.
    pub allowed: Option<u64>,
    /// Blocks handed out.
    pub allocated: u64,
    /// Reserved less allocated: cached, still in use by streams, or lost to splitting.
    pub unallocated: u64,
}

/// The free blocks of one stream and kind.
#[derive(Clone, Debug, Default)]
struct Pool {
    free: Cache,
    unmapped: Unmapped,
}

/// A request on its way.
#[derive(Clone, Copy, Debug)]
struct Request {
    /// Bytes asked for.
    bytes: u64,
    /// The same, rounded up.
    size: u64,
    kind: PoolKind,
    pool: u16,
}

/// A caching allocator of the memory of one device, which counts what `C` says: everything, or [`Totals`] alone.
#[derive(Clone, Debug)]
pub struct Allocator<C = Stats> {
    config: Config,
    blocks: Blocks,
    /// Indexed by [`pool_index`].
    pools: Vec<Pool>,
    /// Searches of the pools of each kind, the clock of garbage collection.
    searches: [u64; 2],
    /// Where the device puts the next segment.
    next_address: u64,
    /// Streams that use a block of another stream.
    uses: Uses,
    /// By stream.
    events: Vec<Events>,
    counts: C,
}

/// Where the device begins to put segments; no address is 0.
const FIRST_ADDRESS: u64 = 1 << 30;

impl Allocator {
    /// An allocator that holds nothing.
    ///
    /// # Errors
    /// A setting that PyTorch would refuse.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        Self::counting(config)
    }

    /// Peaks are counted from now on (`torch.cuda.reset_peak_memory_stats`).
    pub fn reset_peaks(&mut self) {
        self.counts.reset_peaks();
    }
}

impl<C: Counts> Allocator<C> {
    /// The same for anything that can be counted.
    ///
    /// # Errors
    /// As [`Allocator::new`].
    pub fn counting(config: Config) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            config,
            blocks: Blocks::default(),
            pools: Vec::new(),
            searches: [0; 2],
            next_address: FIRST_ADDRESS,
            uses: Uses::default(),
            events: Vec::new(),
            counts: C::default(),
        })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it counted.
    pub fn stats(&self) -> &C {
        &self.counts
    }

    /// Hands out a block of at least `bytes` bytes for use on `stream`. A request of 0 bytes takes nothing.
    ///
    /// # Errors
    /// The device has too little left, after everything cached that could be given back was.
    #[inline]
    pub fn alloc(&mut self, stream: Stream, bytes: u64) -> Result<Block, OutOfMemory> {
        if bytes == 0 {
            return Ok(Block { index: blocks::NONE, address: 0, size: 0, requested: 0 });
        }
        if bytes > LARGEST_REQUEST {
            return Err(self.out_of_memory(bytes, bytes));
        }
        let request = self.request(stream, bytes);
        match self.take_cached(&request).or_else(|| self.take_new(&request)) {
            Some(found) => Ok(self.hand_out(&request, found)),
            None => Err(self.out_of_memory(bytes, Config::segment(request.size))),
        }
    }

    /// The same, but `None` where cached memory would have to be given back first: then nothing has changed. Neither
    /// expandable segments nor garbage collection are known to it.
    #[inline]
    pub fn alloc_at_once(&mut self, stream: Stream, bytes: u64) -> Option<Block> {
        if bytes == 0 || bytes > LARGEST_REQUEST || !self.can_tell_first_failure() {
            return None;
        }
        let request = self.request(stream, bytes);
        if let Some(found) = self.take_cached(&request).or_else(|| self.grow(&request)) {
            return Some(self.hand_out(&request, found));
        }
        self.searches[request.kind as usize] -= 1;
        None
    }

    /// Whether [`Allocator::alloc_at_once`] acts.
    pub fn can_tell_first_failure(&self) -> bool {
        !self.config.expandable_segments && self.config.collects_above().is_none()
    }

    /// The same allocator, holding the same, on a device without end.
    pub fn without_limits(&self) -> Self {
        let config = Config { capacity: None, allowed: None, ..self.config.clone() };
        Self { config, ..self.clone() }
    }

    #[inline]
    fn request(&mut self, stream: Stream, bytes: u64) -> Request {
        let size = self.config.round(bytes);
        let kind = Config::kind(size);
        let request = Request { bytes, size, kind, pool: pool_index(stream.0, kind) };
        if usize::from(request.pool) >= self.pools.len() {
            self.pools.resize_with(usize::from(request.pool) + 1, Pool::default);
        }
        request
    }

    /// Takes a block back. It is cached at once, or, if other streams were recorded to use it, once the events
    /// now recorded on these streams have passed ([`Allocator::events_passed`]).
    #[inline]
    #[expect(clippy::needless_pass_by_value, reason = "a freed block must not be used again")]
    pub fn free(&mut self, block: Block) {
        if block.size == 0 {
            return;
        }
        let node = self.blocks.get(block.index);
        debug_assert_eq!((node.state, node.address), (State::Allocated, block.address));
        let (kind, size, shared) = (node.kind(), node.size, node.shared);
        self.counts.frees(kind, size, size >= self.config.split_limit());
        if shared {
            self.await_streams(block.index);
        } else {
            self.recycle(block.index);
        }
    }

    /// Best fit among the cached blocks of the stream.
    #[inline]
    fn take_cached(&mut self, request: &Request) -> Option<u32> {
        self.searches[request.kind as usize] += 1;
        if self.config.expandable_segments {
            return self.take_least_growing(request);
        }
        let Self { pools, config, .. } = self;
        let Pool { free, .. } = pools.get_mut(usize::from(request.pool))?;
        free.take_best(request.size, |found| config.serves(request.size, found)).map(|found| found.block)
    }

    /// A block from the device, if need be after giving back what is cached.
    fn take_new(&mut self, request: &Request) -> Option<u32> {
        self.collect_garbage();
        if let Some(found) = self.grow(request) {
            return Some(found);
        }
        if self.give_back_oversize(request)
            && let Some(found) = self.grow(request)
        {
            return Some(found);
        }
        self.empty_cache();
        self.counts.retries();
        self.grow(request)
    }

    /// A new segment, or more memory in an expandable one; the block is in no cache.
    fn grow(&mut self, request: &Request) -> Option<u32> {
        let segment = Config::segment(request.size);
        let reserved = self.counts.reserved();
        if self.config.allowed.is_some_and(|allowed| reserved + segment > allowed) {
            return None;
        }
        if self.config.expandable_segments {
            return self.expand(request);
        }
        self.reserve(segment, request.kind)?;
        self.counts.makes_segment(request.kind, segment >= self.config.split_limit());
        let address = self.address_range(segment);
        Some(self.blocks.add(Node::segment(address, segment, request.pool, State::Free)))
    }

    /// Takes bytes from the device, if it has them.
    fn reserve(&mut self, bytes: u64, kind: PoolKind) -> Option<()> {
        let after = self.counts.reserved().checked_add(bytes)?;
        if self.config.capacity.is_some_and(|capacity| after > capacity) {
            return None;
        }
        self.counts.reserves(kind, bytes);
        Some(())
    }

    /// Addresses that the device has not used before.
    fn address_range(&mut self, size: u64) -> u64 {
        let address = self.next_address;
        self.next_address += size;
        address
    }

    /// A free block outside the cache becomes allocated; what remains of it is cached.
    #[inline]
    fn hand_out(&mut self, request: &Request, found: u32) -> Block {
        let node = self.blocks.get_mut(found);
        let (address, was_split, remaining) = (node.address, node.is_split(), node.size - request.size);
        let counted = !self.config.expandable_segments;
        let (index, size) = if self.config.splits(request.kind, request.size, remaining) {
            let front = self.blocks.hand_out_front(found, (request.size, request.bytes));
            self.cache(found);
            if counted {
                let (left, taken) =
                    if was_split { ((0, 0), (0, request.size)) } else { ((1, remaining), (0, 0)) };
                self.counts.splits(request.kind, left, taken);
            }
            (front, request.size)
        } else {
            (node.state, node.requested, node.shared) = (State::Allocated, request.bytes, false);
            let size = node.size;
            if was_split && counted {
                self.counts.splits(request.kind, (0, 0), (1, size));
            }
            (found, size)
        };
        self.counts.hands_out(request.kind, (size, request.bytes), size >= self.config.split_limit());
        Block { index, address, size, requested: request.bytes }
    }

    /// A block that nobody uses any more joins its free neighbours and is cached.
    #[inline]
    fn recycle(&mut self, block: u32) {
        let Node { size, requested, pool, .. } = *self.blocks.get(block);
        let kind = pool_kind(pool);
        let Some(Pool { free, .. }) = self.pools.get_mut(usize::from(pool)) else { return };
        let (joined, joined_bytes) = self.blocks.join_free(block, free);
        let node = self.blocks.get_mut(block);
        (node.state, node.freed_at) = (State::Free, self.searches[kind as usize]);
        free.insert(Entry { size: node.size, address: node.address, block });
        let (left, left_bytes) = if node.is_split() { (1, node.size) } else { (0, 0) };
        if !self.config.expandable_segments {
            self.counts.splits(kind, (left, left_bytes), (joined, joined_bytes));
        }
        self.counts.recycles(kind, (size, requested));
    }

    /// Lets a block take in a neighbour, if that is in the given state, free or unmapped. Returns the bytes
    /// that joined.
    #[inline]
    fn join(&mut self, block: u32, neighbour: u32, state: State) -> Option<u64> {
        let Node { address, size, pool, .. } = *self.blocks.neighbour(neighbour, state)?;
        match state {
            State::Unmapped => self.forget_unmapped(pool, address),
            _ => self.forget(pool, size, address),
        }
        self.blocks.absorb(block, neighbour);
        Some(size)
    }

    /// A block becomes free and enters the cache of its pool.
    #[inline]
    fn cache(&mut self, block: u32) {
        let node = self.blocks.get_mut(block);
        node.state = State::Free;
        node.freed_at = self.searches[node.kind() as usize];
        let entry = Entry { size: node.size, address: node.address, block };
        if let Some(pool) = self.pools.get_mut(usize::from(node.pool)) {
            pool.free.insert(entry);
        }
    }

    /// A block leaves the cache of its pool.
    #[inline]
    fn forget(&mut self, pool: u16, size: u64, address: u64) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.free.remove(size, address);
        }
    }

    fn out_of_memory(&mut self, requested: u64, segment: u64) -> OutOfMemory {
        self.counts.fails();
        let (reserved, allocated) = (self.counts.reserved(), self.counts.allocated());
        OutOfMemory {
            requested,
            segment,
            capacity: self.config.capacity,
            free: self.config.capacity.map(|capacity| capacity - reserved),
            allowed: self.config.allowed,
            allocated,
            unallocated: reserved - allocated,
        }
    }
}

#[cfg(test)]
mod tests;
