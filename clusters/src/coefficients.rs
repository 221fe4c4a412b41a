//! Coefficients of the kernel models: what each means, its unit, and the range that a real kernel can have.

/// How a catalogue file writes a coefficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoefficientUnit {
    /// A bare number.
    Number,
    /// A time with its unit.
    Seconds,
}

/// One coefficient of a kernel model.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Coefficient {
    /// Key in catalogue files.
    pub key: &'static str,
    /// How files write it.
    pub unit: CoefficientUnit,
    /// What it means, for the reader of a file.
    pub meaning: &'static str,
    /// Value that a fit starts from and leans to where the data are silent, SI units.
    pub prior: f64,
    /// How far from it real kernels commonly lie, SI units.
    pub spread: f64,
    /// Least value that has a meaning.
    pub least: f64,
    /// Greatest value that has a meaning.
    pub most: f64,
}

const fn number(
    key: &'static str,
    meaning: &'static str,
    [prior, spread, least, most]: [f64; 4],
) -> Coefficient {
    Coefficient { key, unit: CoefficientUnit::Number, meaning, prior, spread, least, most }
}

const fn seconds(
    key: &'static str,
    meaning: &'static str,
    [prior, spread, least, most]: [f64; 4],
) -> Coefficient {
    Coefficient { key, unit: CoefficientUnit::Seconds, meaning, prior, spread, least, most }
}

/// Coefficients of [`GemmCoefficients`].
pub(crate) const GEMM: [Coefficient; 19] = [
    number(
        "tile_256x128",
        "share of a multiprocessor's peak with tiles of 256x128",
        [0.85, 0.15, 0.05, 1.05],
    ),
    number("tile_128x128", "the same with 128x128", [0.80, 0.15, 0.05, 1.05]),
    number("tile_256x64", "the same with 256x64", [0.75, 0.15, 0.05, 1.05]),
    number("tile_128x64", "the same with 128x64", [0.70, 0.15, 0.05, 1.05]),
    number("tile_64x64", "the same with 64x64", [0.55, 0.15, 0.05, 1.05]),
    number("tile_small", "the same with a side of 32 or 16", [0.30, 0.15, 0.02, 1.05]),
    number(
        "fill",
        "filling and draining the pipeline of one tile, in steps of k",
        [150.0, 100.0, 0.0, 2000.0],
    ),
    number(
        "resident",
        "tiles of 128x128 that a multiprocessor holds at once, hiding each other's fill",
        [1.0, 0.5, 0.25, 4.0],
    ),
    number("bandwidth", "share of the memory bandwidth that operands reach", [0.80, 0.10, 0.3, 1.0]),
    seconds("split", "fixed time of adding up a sum split over k", [2.5e-6, 1.5e-6, 0.0, 20e-6]),
    number("remainder", "cost of an incomplete wave, of a full one", [0.5, 0.5, 0.0, 1.0]),
    number(
        "together",
        "how far small tiles end in groups as large as the largest tile: 0 each by itself, 1 whole groups only",
        [0.5, 0.5, 0.0, 1.0],
    ),
    number(
        "throttle",
        "slow-down of long kernels as the clock drops to its power limit",
        [0.1, 0.1, 0.0, 1.0],
    ),
    seconds("throttle_after", "time after which half of that is reached", [2e-3, 2e-3, 50e-6, 50e-3]),
    number(
        "serial",
        "share of the shorter of arithmetic and memory time that the other does not hide",
        [0.05, 0.1, 0.0, 1.0],
    ),
    number(
        "l2_share",
        "share of the second-level cache below which operands stay in it",
        [0.7, 0.3, 0.01, 1.5],
    ),
    number("l2_speedup", "speed of such operands, of those in memory", [2.0, 0.7, 1.0, 5.0]),
    seconds(
        "measured_start",
        "time that the measurement added to every kernel; not priced",
        [0.0, 20e-6, 0.0, 80e-6],
    ),
    number(
        "measured_cast",
        "bytes moved a value of A to cast it in the measurement; not priced",
        [0.0, 10.0, 0.0, 60.0],
    ),
];

/// Matrix products in one number format on one GPU: tiles, waves, pipeline fill, memory, power.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmCoefficients {
    /// Share of a multiprocessor's peak by class of tile, the largest first.
    pub tiles: [f64; 6],
    /// Steps of k that filling and draining the pipeline of a tile cost.
    pub fill: f64,
    /// Tiles of 128x128 that a multiprocessor holds at once.
    pub resident: f64,
    /// Share of the memory bandwidth.
    pub bandwidth: f64,
    /// Fixed time of a split sum, seconds.
    pub split_s: f64,
    /// Cost of an incomplete wave after the first, between its share (0) and a full one (1).
    pub remainder: f64,
    /// How far small tiles end in groups as large as the largest tile: 0 each by itself, 1 whole groups only.
    pub together: f64,
    /// Slow-down of long kernels.
    pub throttle: f64,
    /// Time at which half of the slow-down is reached, seconds.
    pub throttle_after_s: f64,
    /// Share of the shorter of arithmetic and memory time that the other does not hide.
    pub serial: f64,
    /// Share of L2 that operands may fill and stay resident.
    pub l2_share: f64,
    /// Speed of resident operands over memory's.
    pub l2_speedup: f64,
    /// Time that the measurement added to every kernel, seconds; not part of prices.
    pub measured_start_s: f64,
    /// Bytes moved for each value of the left input to cast it within the measurement; not part of prices.
    pub measured_cast: f64,
}

/// Sides of the tiles that libraries choose from, with the index of their efficiency.
pub(crate) const TILES: [(u32, u32, usize); 12] = [
    (256, 128, 0),
    (128, 256, 0),
    (128, 128, 1),
    (256, 64, 2),
    (64, 256, 2),
    (128, 64, 3),
    (64, 128, 3),
    (64, 64, 4),
    (64, 32, 5),
    (32, 64, 5),
    (64, 16, 5),
    (16, 64, 5),
];

impl GemmCoefficients {
    /// In the order of [`GEMM`].
    pub(crate) fn from_values(v: &[f64; GEMM.len()]) -> Self {
        Self {
            tiles: [v[0], v[1], v[2], v[3], v[4], v[5]],
            fill: v[6],
            resident: v[7],
            bandwidth: v[8],
            split_s: v[9],
            remainder: v[10],
            together: v[11],
            throttle: v[12],
            throttle_after_s: v[13],
            serial: v[14],
            l2_share: v[15],
            l2_speedup: v[16],
            measured_start_s: v[17],
            measured_cast: v[18],
        }
    }
}

/// Coefficients of [`AttentionCoefficients`].
pub(crate) const ATTENTION: [Coefficient; 13] = [
    number(
        "efficiency",
        "share of the peak while every multiprocessor has blocks of queries",
        [0.65, 0.15, 0.05, 1.0],
    ),
    number("fill", "start and end of a block of queries, in keys", [50.0, 50.0, 0.0, 1000.0]),
    number("tail", "cost of the longest block, which nothing hides at the end", [0.5, 0.4, 0.0, 3.0]),
    number("imbalance", "slow-down where blocks are few, of a full GPU", [0.5, 0.5, 0.0, 4.0]),
    number("crowd", "blocks a multiprocessor at which half of that is gone", [1.0, 1.0, 0.1, 20.0]),
    number("bandwidth", "share of the memory bandwidth", [0.8, 0.1, 0.3, 1.0]),
    number(
        "l2_share",
        "share of the second-level cache below which operands stay in it",
        [0.7, 0.3, 0.01, 1.5],
    ),
    number("l2_speedup", "speed of such operands, of those in memory", [2.0, 0.7, 1.0, 5.0]),
    number(
        "throttle",
        "slow-down of long kernels as the clock drops to its power limit",
        [0.1, 0.1, 0.0, 1.0],
    ),
    seconds("throttle_after", "time after which half of that is reached", [1e-3, 1e-3, 20e-6, 50e-3]),
    seconds(
        "measured_start",
        "time that the measurement added to every kernel; not priced",
        [8e-6, 10e-6, 0.0, 80e-6],
    ),
    seconds(
        "measured_cache",
        "time a token to write a key-value cache in the measurement; not priced",
        [15e-9, 20e-9, 0.0, 500e-9],
    ),
    number("measured_cache_heads", "key-value heads at half of that", [8.0, 8.0, 0.1, 100.0]),
];

/// Coefficients of [`ConvolutionCoefficients`].
pub(crate) const CONVOLUTION: [Coefficient; 8] = [
    number(
        "forward",
        "rate of the result, of the matrix product's that it amounts to",
        [0.95, 0.2, 0.05, 3.0],
    ),
    number("backward", "rate of either gradient, of the matrix product's", [0.9, 0.2, 0.05, 3.0]),
    number("grouped", "rate in groups of several channels, of that in one group", [1.0, 0.3, 0.05, 3.0]),
    number(
        "depthwise_bandwidth",
        "share of the memory bandwidth with one channel a group",
        [0.75, 0.2, 0.02, 1.0],
    ),
    number("depthwise_arithmetic", "share of the fp32 peak with one channel a group", [0.5, 0.3, 0.02, 1.0]),
    number(
        "layout_forward",
        "time of copies into channels-last and back, of the convolution's own traffic at full bandwidth",
        [1.4, 0.5, 0.0, 10.0],
    ),
    number("layout_backward", "the same around either gradient", [2.8, 1.0, 0.0, 10.0]),
    number("layout_tf32", "such copies of 32-bit tensors, of those of 16-bit ones", [0.5, 0.3, 0.0, 2.0]),
];

/// Coefficients of a memory-bound kind.
pub(crate) const MEMORY: [Coefficient; 2] = [
    number("share", "share of the memory bandwidth", [0.8, 0.2, 0.02, 1.0]),
    seconds(
        "measured_start",
        "time that the measurement added to every kernel; not priced",
        [10e-6, 20e-6, 0.0, 100e-6],
    ),
];

/// Fused attention forward on one GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AttentionCoefficients {
    /// Share of the peak of a full GPU.
    pub efficiency: f64,
    /// Keys that the start and end of a block of queries cost.
    pub fill: f64,
    /// Weight of the longest block, which runs alone at the end.
    pub tail: f64,
    /// Slow-down of a GPU with few blocks.
    pub imbalance: f64,
    /// Blocks a multiprocessor at which half of the slow-down is gone.
    pub crowd: f64,
    /// Share of the memory bandwidth.
    pub bandwidth: f64,
    /// Share of L2 that operands may fill and stay resident.
    pub l2_share: f64,
    /// Speed of resident operands over memory's.
    pub l2_speedup: f64,
    /// Slow-down of long kernels.
    pub throttle: f64,
    /// Time at which half of the slow-down is reached, seconds.
    pub throttle_after_s: f64,
    /// Time that the measurement added to every kernel, seconds; not part of prices.
    pub measured_start_s: f64,
    /// Time a token that a serving framework takes to write its key-value cache, seconds; not part of prices.
    pub measured_cache_s: f64,
    /// Key-value heads at which half of that is reached.
    pub measured_cache_heads: f64,
}

impl AttentionCoefficients {
    /// In the order of [`ATTENTION`].
    pub(crate) fn from_values(v: &[f64; ATTENTION.len()]) -> Self {
        Self {
            efficiency: v[0],
            fill: v[1],
            tail: v[2],
            imbalance: v[3],
            crowd: v[4],
            bandwidth: v[5],
            l2_share: v[6],
            l2_speedup: v[7],
            throttle: v[8],
            throttle_after_s: v[9],
            measured_start_s: v[10],
            measured_cache_s: v[11],
            measured_cache_heads: v[12],
        }
    }
}

/// Convolutions on one GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConvolutionCoefficients {
    /// Rate of the result, of the matrix product's that it amounts to.
    pub forward: f64,
    /// Rate of either gradient, of the matrix product's.
    pub backward: f64,
    /// Rate in groups of several channels, of that in one group.
    pub grouped: f64,
    /// Share of the memory bandwidth with one channel a group.
    pub depthwise_bandwidth: f64,
    /// Share of the fp32 peak with one channel a group.
    pub depthwise_arithmetic: f64,
    /// Time of the copies between layouts around the result, of the convolution's own traffic at full bandwidth.
    pub layout_forward: f64,
    /// The same around either gradient.
    pub layout_backward: f64,
    /// Such copies of 32-bit tensors, of those of 16-bit ones: part of the TF32 kernels read contiguous tensors.
    pub layout_tf32: f64,
}

impl ConvolutionCoefficients {
    /// In the order of [`CONVOLUTION`].
    pub(crate) fn from_values(v: &[f64; CONVOLUTION.len()]) -> Self {
        Self {
            forward: v[0],
            backward: v[1],
            grouped: v[2],
            depthwise_bandwidth: v[3],
            depthwise_arithmetic: v[4],
            layout_forward: v[5],
            layout_backward: v[6],
            layout_tf32: v[7],
        }
    }
}
