//! Settings of a caching allocator, and the sizes that follow from them.

use thiserror::Error;

/// Bytes to which every request is rounded up (`kMinBlockSize`).
pub(super) const MIN_BLOCK: u64 = 512;
/// The largest request that the small pool serves (`kSmallSize`).
pub(super) const SMALL_REQUEST: u64 = 1 << 20;
/// Size of a segment, and of a page of an expandable one, in the small pool (`kSmallBuffer`).
pub(super) const SMALL_SEGMENT: u64 = 2 << 20;
/// Size of a segment that several middling requests share, and of a page of an expandable one, in the large
/// pool (`kLargeBuffer`).
pub(super) const LARGE_SEGMENT: u64 = 20 << 20;
/// From this request on, a segment is made for the request alone (`kMinLargeAlloc`).
const OWN_SEGMENT: u64 = 10 << 20;
/// Segments made for one request are rounded up to this (`kRoundLarge`).
const SEGMENT_ROUNDING: u64 = 2 << 20;
/// Address space of devices that do not end, 256 TiB as GPUs have (note on expandable segments).
const ADDRESS_SPACE: u64 = 1 << 48;
/// Requests beyond this are refused unseen.
pub(super) const LARGEST_REQUEST: u64 = ADDRESS_SPACE / 2;

/// Intervals of [`Config::roundup_power2_divisions`].
pub const ROUNDUP_INTERVALS: usize = 16;

/// Which of a stream's two pools serves a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolKind {
    /// Requests of at most 1 MiB, packed into segments of 2 MiB.
    Small,
    /// All others.
    Large,
}

/// Settings of an [`Allocator`](super::Allocator), named as in `PYTORCH_CUDA_ALLOC_CONF`. The default is
/// PyTorch's, on a device without end.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bytes of the device that the allocator can get: all of it less what lies outside (contexts, libraries,
    /// other processes). `None`: no end.
    pub capacity: Option<u64>,
    /// Bytes that the allocator allows itself, `torch.cuda.set_per_process_memory_fraction` of the device.
    pub allowed: Option<u64>,
    /// One segment for each stream and pool, which grows by pages, instead of many of fixed size.
    pub expandable_segments: bool,
    /// Blocks of at least so many bytes are not split (`max_split_size_mb`); whole MiB, at least 20. `None`:
    /// all may be split.
    pub max_split_size: Option<u64>,
    /// A request of at least [`Config::max_split_size`] takes no cached block that is larger by so many bytes
    /// or more (`max_non_split_rounding_mb`).
    pub max_non_split_rounding: u64,
    /// Once more than this part of [`Config::allowed`] is reserved, cached blocks that have not been reused
    /// for long are given back before a new segment is made; strictly between 0 and 1. Without `allowed`
    /// nothing is collected, as in PyTorch.
    pub garbage_collection_threshold: Option<f64>,
    /// Into how many parts the space between two powers of two is divided, to whose next border requests are
    /// rounded up; 0 and 1 leave the rounding to 512 bytes. Entry i holds for requests from 2^(20+i) bytes to
    /// the next power of two, the first also for smaller and the last also for larger ones. Powers of two.
    pub roundup_power2_divisions: [u64; ROUNDUP_INTERVALS],
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: None,
            allowed: None,
            expandable_segments: false,
            max_split_size: None,
            max_non_split_rounding: LARGE_SEGMENT,
            garbage_collection_threshold: None,
            roundup_power2_divisions: [0; ROUNDUP_INTERVALS],
        }
    }
}

/// A setting that PyTorch would refuse.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ConfigError {
    /// Segments of 20 MiB must stay divisible, and what is left of a segment after a split below the limit.
    #[error("max_split_size is {found} bytes, but must be 20 MiB ({LARGE_SEGMENT} bytes) or more whole MiB")]
    MaxSplitSize {
        /// The value given.
        found: u64,
    },
    /// Not a part of the whole.
    #[error("garbage_collection_threshold is {found}, but must lie between 0 and 1")]
    Threshold {
        /// The value given.
        found: f64,
    },
    /// The divisions are found by shifting.
    #[error("roundup_power2_divisions has {found}, but must be 0 or a power of two")]
    Divisions {
        /// The value given.
        found: u64,
    },
}

impl Config {
    /// Checks the settings against PyTorch's limits.
    ///
    /// # Errors
    /// Names the first setting outside them.
    pub fn check(&self) -> Result<(), ConfigError> {
        let unsplittable = |size: &u64| *size < LARGE_SEGMENT || !size.is_multiple_of(1 << 20);
        if let Some(found) = self.max_split_size.filter(unsplittable) {
            return Err(ConfigError::MaxSplitSize { found });
        }
        if let Some(found) = self.garbage_collection_threshold.filter(|part| !(*part > 0.0 && *part < 1.0)) {
            return Err(ConfigError::Threshold { found });
        }
        let odd = |divisions: &&u64| **divisions != 0 && !divisions.is_power_of_two();
        match self.roundup_power2_divisions.iter().find(odd) {
            Some(found) => Err(ConfigError::Divisions { found: *found }),
            None => Ok(()),
        }
    }

    /// Bytes of the block that serves a request of `bytes` (PyTorch's `round_size`): at least 512, a multiple
    /// of 512 or the next division between powers of two.
    #[inline]
    pub fn round(&self, bytes: u64) -> u64 {
        if bytes < MIN_BLOCK {
            return MIN_BLOCK;
        }
        let interval = (bytes.ilog2() as usize).saturating_sub(20).min(ROUNDUP_INTERVALS - 1);
        let divisions = self.roundup_power2_divisions[interval];
        if divisions > 1 && bytes > MIN_BLOCK.saturating_mul(divisions) {
            // More than 512 bytes for each division, so that its width is a multiple of 512.
            let width = (1 << bytes.ilog2()) / divisions;
            return bytes.next_multiple_of(width);
        }
        bytes.next_multiple_of(MIN_BLOCK)
    }

    /// Which pool serves a rounded size.
    #[inline]
    pub(super) fn kind(size: u64) -> PoolKind {
        if size <= SMALL_REQUEST { PoolKind::Small } else { PoolKind::Large }
    }

    /// Size of the segment that is made for a rounded size which no cached block serves.
    pub(super) fn segment(size: u64) -> u64 {
        if size <= SMALL_REQUEST {
            SMALL_SEGMENT
        } else if size < OWN_SEGMENT {
            LARGE_SEGMENT
        } else {
            size.next_multiple_of(SEGMENT_ROUNDING)
        }
    }

    /// Size of a page of an expandable segment.
    pub(super) fn page(kind: PoolKind) -> u64 {
        match kind {
            PoolKind::Small => SMALL_SEGMENT,
            PoolKind::Large => LARGE_SEGMENT,
        }
    }

    /// Blocks of this size and above are not split.
    #[inline]
    pub(super) fn split_limit(&self) -> u64 {
        self.max_split_size.unwrap_or(u64::MAX)
    }

    /// Whether what remains of a block becomes a block of its own.
    #[inline]
    pub(super) fn splits(&self, kind: PoolKind, size: u64, remaining: u64) -> bool {
        if kind == PoolKind::Small || self.expandable_segments {
            remaining >= MIN_BLOCK
        } else {
            size < self.split_limit() && remaining > SMALL_REQUEST
        }
    }

    /// Whether a cached block of size `found` may serve a request that it fits best.
    #[inline]
    pub(super) fn serves(&self, size: u64, found: u64) -> bool {
        let limit = self.split_limit();
        if size < limit { found < limit } else { found < size.saturating_add(self.max_non_split_rounding) }
    }

    /// Bytes reserved above which cached blocks are collected.
    pub(super) fn collects_above(&self) -> Option<u64> {
        let part = self.garbage_collection_threshold?;
        Some((part * self.allowed? as f64) as u64)
    }

    /// Address space of an expandable segment: an eighth more than the device has, so that pages given back
    /// at its beginning can be put at its end.
    pub(super) fn address_space(&self, kind: PoolKind) -> u64 {
        let whole = self.capacity.unwrap_or(ADDRESS_SPACE).min(ADDRESS_SPACE);
        (whole + whole / 8).max(1).next_multiple_of(Self::page(kind))
    }
}
