//! Expandable segments: address space for the whole device, and memory by pages where it is needed.

use std::collections::BTreeSet;

use super::blocks::{NONE, Node, State};
use super::cache::Entry;
use super::config::Config;
use super::{Allocator, Counts, Request};

/// Address space of a pool without memory: address and index of the blocks.
pub(super) type Unmapped = BTreeSet<(u64, u32)>;

impl<C: Counts> Allocator<C> {
    /// Best fit among the cached blocks of the stream by what they could grow to: as long as the next larger block would end
    /// up smaller than this one with the unmapped space after it, the next one is taken.
    pub(super) fn take_least_growing(&mut self, request: &Request) -> Option<u32> {
        let pool = self.pools.get(usize::from(request.pool))?;
        let grown = |entry: &Entry| {
            let after = self.blocks.neighbour(self.blocks.get(entry.block).next, State::Unmapped);
            entry.size + after.map_or(0, |unmapped| unmapped.size)
        };
        let mut found = pool.free.at_or_after(request.size, 0)?;
        while let Some(next) = pool.free.at_or_after(found.size, found.address + 1)
            && grown(&next) < grown(&found)
        {
            found = next;
        }
        if !self.config.serves(request.size, found.size) {
            return None;
        }
        self.forget(request.pool, found.size, found.address);
        Some(found.block)
    }

    /// Maps pages until a block has room for the request; the block is in no cache. `None` if the device has
    /// too little left; pages mapped until then stay cached.
    pub(super) fn expand(&mut self, request: &Request) -> Option<u32> {
        let mut found = self.expandable_block(request);
        if self.blocks.get(found).state == State::Unmapped {
            let size = request.size.min(self.blocks.get(found).size);
            self.map(found, size)?;
        }
        while self.blocks.get(found).size < request.size {
            let node = self.blocks.get(found);
            let (next, missing) = (node.next, request.size - node.size);
            let size = self.blocks.neighbour(next, State::Unmapped)?.size.min(missing);
            self.map(next, size)?;
            found = next;
        }
        let Node { size, address, .. } = *self.blocks.get(found);
        self.forget(request.pool, size, address);
        Some(found)
    }

    /// The lowest free or unmapped block that has room for the request together with the free and unmapped
    /// blocks after it; in a new segment if there is none.
    fn expandable_block(&mut self, request: &Request) -> u32 {
        let pool = self.pools.get(usize::from(request.pool));
        for (_, unmapped) in pool.iter().flat_map(|pool| &pool.unmapped) {
            let before = self.blocks.get(*unmapped).prev;
            let begins_free = self.blocks.neighbour(before, State::Free).is_some();
            let first = if begins_free { before } else { *unmapped };
            if self.has_room(first, request.size) {
                return first;
            }
        }
        let size = self.config.address_space(request.kind);
        // Pages begin at multiples of their size.
        self.next_address = self.next_address.next_multiple_of(Config::page(request.kind));
        let address = self.address_range(size);
        let block = self.blocks.add(Node::segment(address, size, request.pool, State::Unmapped));
        self.cache_unmapped(block);
        block
    }

    fn has_room(&self, first: u32, size: u64) -> bool {
        let (mut block, mut bytes) = (first, 0);
        while bytes < size && block != NONE {
            let node = self.blocks.get(block);
            if !matches!(node.state, State::Free | State::Unmapped) {
                return false;
            }
            bytes += node.size;
            block = node.next;
        }
        bytes >= size
    }

    /// Maps pages for the first `size` bytes of an unmapped block, which becomes free, joins its free
    /// neighbours and is cached.
    fn map(&mut self, block: u32, size: u64) -> Option<()> {
        let Node { address, size: whole, pool, .. } = *self.blocks.get(block);
        let kind = self.blocks.get(block).kind();
        // Unmapped blocks begin and end at pages, so that no page reaches beyond them.
        let mapped = size.next_multiple_of(Config::page(kind)).min(whole);
        self.reserve(mapped, kind)?;
        self.forget_unmapped(pool, address);
        let mut rest = None;
        if mapped < whole {
            // The index stays with the front, to which the caller holds on.
            let after = self.blocks.get(block).next;
            let tail = Node { prev: block, ..*self.blocks.get(block) };
            let tail = self.blocks.add(Node { address: address + mapped, size: whole - mapped, ..tail });
            if after != NONE {
                self.blocks.get_mut(after).prev = tail;
            }
            let front = self.blocks.get_mut(block);
            (front.next, front.size) = (tail, mapped);
            rest = Some(tail);
        }
        self.blocks.get_mut(block).state = State::Free;
        if let Some(tail) = rest {
            self.cache_unmapped(tail);
        }
        let Node { prev, next, .. } = *self.blocks.get(block);
        self.join(block, prev, State::Free);
        self.join(block, next, State::Free);
        self.cache(block);
        Some(())
    }

    /// Gives the pages back that lie wholly within a free block.
    pub(super) fn unmap(&mut self, block: u32) {
        let Node { address, size, pool, .. } = *self.blocks.get(block);
        let kind = self.blocks.get(block).kind();
        let page = Config::page(kind);
        let begin = address.next_multiple_of(page);
        let end = (address + size) / page * page;
        if begin >= end {
            return;
        }
        self.forget(pool, size, address);
        let mut middle = block;
        if begin > address {
            let front = self.blocks.split_front(middle, begin - address);
            self.cache(front);
        }
        if self.blocks.get(middle).end() > end {
            let rest = middle;
            middle = self.blocks.split_front(rest, end - begin);
            self.cache(rest);
        }
        self.blocks.get_mut(middle).state = State::Unmapped;
        let Node { prev, next, .. } = *self.blocks.get(middle);
        self.join(middle, prev, State::Unmapped);
        self.join(middle, next, State::Unmapped);
        self.counts.gives_back(kind, end - begin);
        if self.blocks.get(middle).is_split() {
            self.cache_unmapped(middle);
        } else {
            // Nothing is left of the segment; its address space goes as well.
            self.blocks.discard(middle);
        }
    }

    fn cache_unmapped(&mut self, block: u32) {
        let Node { address, pool, .. } = *self.blocks.get(block);
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            pool.unmapped.insert((address, block));
        }
    }

    pub(super) fn forget_unmapped(&mut self, pool: u16, address: u64) {
        if let Some(pool) = self.pools.get_mut(usize::from(pool)) {
            let at = pool.unmapped.range((address, 0)..=(address, u32::MAX)).next().copied();
            if let Some(entry) = at {
                pool.unmapped.remove(&entry);
            }
        }
    }
}
