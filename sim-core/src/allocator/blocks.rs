//! The blocks of all segments, in one array, each linked to its neighbours in the segment.

use super::cache::Cache;
use super::config::PoolKind;

/// No block.
pub(super) const NONE: u32 = u32::MAX;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A place in the array that is not in use.
    Vacant,
    /// Handed out.
    Allocated,
    /// Freed, but streams may still use it.
    Pending,
    /// Cached.
    Free,
    /// Address space of an expandable segment without memory.
    Unmapped,
}

/// A piece of a segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) address: u64,
    pub(super) size: u64,
    /// Bytes that were asked for.
    pub(super) requested: u64,
    /// Searches of its pool kind when it last became free.
    pub(super) freed_at: u64,
    /// Neighbours within the segment.
    pub(super) prev: u32,
    pub(super) next: u32,
    /// Events of other streams that have not passed.
    pub(super) events: u32,
    /// Index of the pool it belongs to.
    pub(super) pool: u16,
    pub(super) state: State,
    /// Other streams than its own have been recorded to use it.
    pub(super) shared: bool,
}

impl Node {
    /// A free block that is a whole segment.
    pub(super) fn segment(address: u64, size: u64, pool: u16, state: State) -> Self {
        Self {
            address,
            size,
            requested: 0,
            freed_at: 0,
            prev: NONE,
            next: NONE,
            events: 0,
            pool,
            state,
            shared: false,
        }
    }

    /// Whether it is only a part of its segment.
    #[inline]
    pub(super) fn is_split(&self) -> bool {
        self.prev != NONE || self.next != NONE
    }

    #[inline]
    pub(super) fn end(&self) -> u64 {
        self.address + self.size
    }

    #[inline]
    pub(super) fn kind(&self) -> PoolKind {
        pool_kind(self.pool)
    }

    /// Stream of its pool.
    #[inline]
    pub(super) fn stream(&self) -> u8 {
        (self.pool / 2) as u8
    }
}

/// Index of the pool of a stream and kind; [`Node::kind`] and [`Node::stream`] turn it back.
#[inline]
pub(super) fn pool_index(stream: u8, kind: PoolKind) -> u16 {
    u16::from(stream) * 2 + u16::from(kind == PoolKind::Large)
}

/// Kind of the pool of an index.
#[inline]
pub(super) fn pool_kind(pool: u16) -> PoolKind {
    if pool.is_multiple_of(2) { PoolKind::Small } else { PoolKind::Large }
}

/// The array of blocks.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
}

impl Blocks {
    /// A block; the index comes from this array.
    #[inline]
    pub(super) fn get(&self, block: u32) -> &Node {
        &self.nodes[block as usize]
    }

    #[inline]
    pub(super) fn get_mut(&mut self, block: u32) -> &mut Node {
        &mut self.nodes[block as usize]
    }

    /// A neighbour, if it is in this state.
    #[inline]
    pub(super) fn neighbour(&self, block: u32, state: State) -> Option<&Node> {
        self.nodes.get(block as usize).filter(|node| node.state == state)
    }

    /// All blocks in use, with their indices.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Node)> {
        (0..).zip(&self.nodes).filter(|(_, node)| node.state != State::Vacant)
    }

    /// Adds a block; nothing is allocated while there are vacant places.
    #[inline]
    pub(super) fn add(&mut self, node: Node) -> u32 {
        if let Some(block) = self.vacant.pop() {
            self.nodes[block as usize] = node;
            return block;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    /// Makes the place of a block vacant; its neighbours are not told.
    #[inline]
    pub(super) fn discard(&mut self, block: u32) {
        self.nodes[block as usize].state = State::Vacant;
        self.vacant.push(block);
    }

    /// Cuts the first `size` bytes off a free block into a new one, which is handed out for so many bytes asked for, and
    /// returns that.
    #[inline]
    pub(super) fn hand_out_front(&mut self, block: u32, (size, requested): (u64, u64)) -> u32 {
        let Node { address, prev, pool, .. } = *self.get(block);
        let front = Node::segment(address, size, pool, State::Allocated);
        let front = self.add(Node { requested, prev, next: block, ..front });
        if prev != NONE {
            self.get_mut(prev).next = front;
        }
        let rest = self.get_mut(block);
        rest.prev = front;
        rest.address += size;
        rest.size -= size;
        front
    }

    /// Lets a block take in its free neighbours, whose places become vacant and which leave their cache. Returns how many
    /// joined, and their bytes.
    #[inline]
    pub(super) fn join_free(&mut self, block: u32, cache: &mut Cache) -> (u64, u64) {
        let Node { prev, next, .. } = *self.get(block);
        let (mut joined, mut bytes) = (0, 0);
        if let Some(&Node { address, size, prev: before, .. }) = self.neighbour(prev, State::Free) {
            cache.remove(size, address);
            self.discard(prev);
            if before != NONE {
                self.get_mut(before).next = block;
            }
            let node = self.get_mut(block);
            (node.address, node.prev) = (address, before);
            node.size += size;
            (joined, bytes) = (1, size);
        }
        if let Some(&Node { address, size, next: after, .. }) = self.neighbour(next, State::Free) {
            cache.remove(size, address);
            self.discard(next);
            if after != NONE {
                self.get_mut(after).prev = block;
            }
            let node = self.get_mut(block);
            node.next = after;
            node.size += size;
            (joined, bytes) = (joined + 1, bytes + size);
        }
        (joined, bytes)
    }

    /// Cuts the first `size` bytes off a block into a new one in the same state, and returns that.
    pub(super) fn split_front(&mut self, block: u32, size: u64) -> u32 {
        let whole = *self.get(block);
        let front = self.add(Node { size, next: block, ..whole });
        if whole.prev != NONE {
            self.get_mut(whole.prev).next = front;
        }
        let rest = self.get_mut(block);
        rest.prev = front;
        rest.address += size;
        rest.size -= size;
        front
    }

    /// Lets `block` take in its neighbour `other`, whose place becomes vacant.
    pub(super) fn absorb(&mut self, block: u32, other: u32) {
        let taken = *self.get(other);
        let node = self.get_mut(block);
        node.size += taken.size;
        if node.prev == other {
            node.address = taken.address;
            node.prev = taken.prev;
            if taken.prev != NONE {
                self.get_mut(taken.prev).next = block;
            }
        } else {
            node.next = taken.next;
            if taken.next != NONE {
                self.get_mut(taken.next).prev = block;
            }
        }
        self.discard(other);
    }
}
