use steptime_models::{
    AttentionShape, Bytes, ConvolutionPass, ConvolutionShape, FlashGeneration, MemoryBoundKind, MemoryFormat,
    Pass,
};

use super::*;
use crate::catalogue::{ClusterEntry, cluster_from_catalogue, gpu_from_catalogue, gpu_from_toml, gpu_names};
use crate::cluster::Cluster;

fn named(name: &str) -> Cluster {
    match cluster_from_catalogue(name).unwrap() {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(_) => panic!("{name} has no GPUs"),
    }
}

/// Within the digits of a number worked by hand.
fn close(found: f64, expected: f64) {
    assert!((found / expected - 1.0).abs() < 1e-6, "{found} is not {expected}");
}

fn square(size: u64, dtype: Dtype) -> Kernel {
    Kernel::Gemm { batch: 1, m: size, n: size, k: size, dtype }
}

/// A GPU with round coefficients: 100 multiprocessors, 400 TFLOP/s of tf32, 3 TB/s, a start of 2 us.
fn round_gpu() -> Gpu {
    gpu_from_toml(include_str!("../catalogue/fixtures/gpu.toml")).unwrap()
}

#[test]
fn large_gemm_by_tiles_and_waves() {
    // 4096^2 results are 32 x 32 tiles of 128x128 on 100 multiprocessors: 11 waves of 4096 + 128 steps of k, each
    // 2 x 128^2 / (4 TFLOP/s x 0.8) = 10.24 ns: 475.79136 us. Tiles of 256x128 would take 6 waves of twice the
    // time, 519 us. Traffic: 201.326592 MB at 0.8 x 3 TB/s = 83.88608 us. 4-norm: 475.906219 us.
    let gpu = round_gpu();
    let shape = GemmShape { batch: 1, m: 4096, n: 4096, k: 4096, dtype: Dtype::Tf32 };
    let price = gemm(&gpu, shape).unwrap();
    close(price.seconds, 477.906253e-6);
    assert_eq!((price.basis, price.error), (Basis::Fitted, 0.1));
}

/// Published by aiconfigurator for the A100 (108 multiprocessors), sums of 2048: 512 x 8192, 512 x 10240 and 768 x 7168, 1.19,
/// 1.48 and 1.56 waves of 256x128, all three in 109 us. Three waves of 128x128 would have been faster, and are not taken.
/// 512 x 6144, 0.89 waves, takes half as long as 512 x 8192 (103 and 206 us with sums of 4096).
#[test]
fn small_tiles_do_not_trim_the_last_wave_of_large_ones() {
    let gpu = gpu_from_catalogue("a100-80gb-sxm").unwrap();
    let seconds = |m, n| {
        let shape = GemmShape { batch: 1, m, n, k: 2048, dtype: Dtype::Bf16 };
        let c = gpu.arithmetic(Dtype::Bf16).unwrap().model.coefficients;
        let operands = shape.operands(5.0);
        gemm::Work::new(&gpu, gpu.peak(Dtype::Bf16).unwrap(), &shape, operands).seconds(&c)
    };
    for (m, n) in [(512, 8192), (512, 10_240), (768, 7168)] {
        let error = seconds(m, n) / 109e-6 - 1.0;
        assert!(error.abs() < 0.08, "{m} x {n}: {error}");
    }
    assert!(seconds(512, 6144) < 0.6 * seconds(512, 8192));
}

/// Waves of tiles a quarter as large as the largest: two of four take half of a group's time, five take two groups'.
#[test]
fn tiles_end_in_groups() {
    let c = |remainder, together| gemm_coefficients(remainder, together);
    let close_to = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-12, "{found}");
    close_to(gemm::waves(0.3, 4.0, &c(1.0, 1.0)), 1.0);
    close_to(gemm::waves(1.2, 4.0, &c(1.0, 1.0)), 2.0);
    close_to(gemm::waves(2.5, 4.0, &c(1.0, 1.0)), 4.0);
    close_to(gemm::waves(4.1, 4.0, &c(1.0, 1.0)), 8.0);
    close_to(gemm::waves(4.1, 4.0, &c(1.0, 0.0)), 5.0);
    close_to(gemm::waves(4.1, 4.0, &c(0.0, 0.0)), 4.1);
    // Half of the way from five tiles to eight.
    close_to(gemm::waves(4.1, 4.0, &c(1.0, 0.5)), 6.5);
}

fn gemm_coefficients(remainder: f64, together: f64) -> crate::coefficients::GemmCoefficients {
    let round = round_gpu().arithmetic(Dtype::Tf32).unwrap().model.coefficients;
    crate::coefficients::GemmCoefficients { remainder, together, ..round }
}

#[test]
fn long_sums_of_few_tiles_are_split() {
    // One tile of 128x128 alone: 16384 + 128 steps of 10.24 ns = 169 us. In parts, and by smaller tiles, it is a tenth of that.
    let shape = GemmShape { batch: 1, m: 128, n: 128, k: 16384, dtype: Dtype::Tf32 };
    let seconds = gemm(&round_gpu(), shape).unwrap().seconds;
    assert!((6e-6..30e-6).contains(&seconds), "{seconds}");
}

#[test]
fn thin_gemm_is_limited_by_memory() {
    // One row by 8192 x 8192 in tf32: (8192 + 8192^2 + 8192) x 4 bytes at 2.4 TB/s = 111.875413 us.
    let shape = GemmShape { batch: 1, m: 1, n: 8192, k: 8192, dtype: Dtype::Tf32 };
    let seconds = gemm(&round_gpu(), shape).unwrap().seconds;
    assert!((113.8e-6..125e-6).contains(&seconds), "{seconds}");
}

/// Large products on measured GPUs stay between the peak and half of it, as published measurements do. On the A100 at the
/// power limit: 280 measured fp16 products of 0.8 TFLOP and more reach 204 to 268 TFLOP/s, four fifths of them 219 to 243, with
/// a median of 233, 0.75 of the peak.
#[test]
fn measured_gpus_reach_most_of_their_peak() {
    for (name, dtype, least) in [
        ("h100-80gb-sxm", Dtype::Bf16, 0.65),
        ("a100-80gb-sxm", Dtype::Bf16, 0.74),
        ("a40", Dtype::Fp16, 0.6),
        ("v100-32gb-pcie", Dtype::Fp32, 0.75),
    ] {
        let gpu = gpu_from_catalogue(name).unwrap();
        let shape = GemmShape { batch: 1, m: 8192, n: 8192, k: 8192, dtype };
        let price = gemm(&gpu, shape).unwrap();
        let reached = shape.flops() / price.seconds / gpu.peak(dtype).unwrap();
        assert!((least..0.95).contains(&reached), "{name}: {reached}");
        assert_eq!(price.basis, Basis::Fitted);
        assert!((0.01..0.3).contains(&price.error), "{name}: {}", price.error);
    }
}

#[test]
fn borrowed_coefficients_are_weaker_ground() {
    let price = |name: &str| {
        let gpu = gpu_from_catalogue(name).unwrap();
        let price = gemm(&gpu, GemmShape { batch: 1, m: 512, n: 512, k: 512, dtype: Dtype::Fp16 }).unwrap();
        let FactRef::Gpu(fact) = price.fact else { panic!("a host's fact") };
        (price, gpu.facts[fact.0].source.clone())
    };
    let ((own, _), (borrowed, source)) = (price("a40"), price("rtx-a5000"));
    assert_eq!((own.basis, borrowed.basis), (Basis::Fitted, Basis::DataSheet));
    assert!(borrowed.error > own.error + 0.05);
    assert!(source.starts_with("Borrowed from a40: Fitted to "), "{source}");
}

#[test]
fn element_wise_operation_by_bandwidth() {
    // 200 MB at 0.9 x 3 TB/s = 74.074074 us, and a start of 2 us.
    let price = memory_bound(&round_gpu(), MemoryBoundKind::Elementwise, Bytes(200_000_000));
    close(price.seconds, 76.074074e-6);
    assert_eq!((price.basis, price.error), (Basis::Fitted, 0.02));
}

/// 100 multiprocessors of 2,048 threads hold 1,600 blocks of 128, each with a row. Rows of 4 KiB in and out are 6.6 MB at
/// work in a cache of 52.4 MB, and read once; of 640 KiB, 1.05 GB, they are read twice: 100 MB in, 100 MB again, 100 MB out.
#[test]
fn rows_that_fill_the_cache_are_read_twice() {
    let gpu = round_gpu();
    let traffic = [Bytes(100_000_000), Bytes(100_000_000)];
    let of = |row| memory::of_rows(&gpu, MemoryBoundKind::Elementwise, traffic, Bytes(row), 0).seconds;
    close(of(0), 76.074074e-6);
    close(of(4096), 76.074074e-6);
    close(of(640 << 10), 113.111111e-6);
    assert!(of(24 << 10) > of(16 << 10) && of(64 << 10) > of(32 << 10));
}

/// A multiprocessor of 128 lanes starts 128 threads' instructions a clock and 0.7 of that in such kernels: 100 at 1.5 GHz
/// 13.44 T/s; 40 instructions for each of 50 million values take 148.8 us, their 200 MB 74. One of 64 lanes needs 1.2 times as
/// long.
#[test]
fn arithmetic_counts_where_it_is_longer() {
    let gpu = round_gpu();
    let traffic = [Bytes(100_000_000), Bytes(100_000_000)];
    let kind = MemoryBoundKind::Elementwise;
    let of = |gpu: &Gpu, count| memory::of_rows(gpu, kind, traffic, Bytes(0), count).seconds;
    close(of(&gpu, 2_000_000_000), 150.809524e-6);
    close(of(&gpu, 500_000_000), 76.074074e-6);
    let mut narrow = round_gpu();
    for arithmetic in narrow.arithmetic.iter_mut().filter(|arithmetic| arithmetic.dtype == Dtype::Fp32) {
        arithmetic.peak.value = 20e12;
    }
    close(of(&narrow, 2_000_000_000), 180.571429e-6);
}

/// NeuSight's LayerNorms of the T4: the one of 768 values a row reaches 0.73 of its bandwidth, of 4,096 and wider 0.51.
/// Vidur's GELU of 39 million values in 16 bits: 121 us on the A100 SXM, 64.5 on the H100.
#[test]
fn published_rows_and_gelus_come_back() {
    let t4 = gpu_from_catalogue("t4").unwrap();
    for (rows, width, measured) in
        [(32_768, 768, 859e-6), (65_536, 4096, 13.044e-3), (16_384, 16_384, 13.112e-3)]
    {
        let array = Bytes(4 * rows * width);
        let kind = MemoryBoundKind::Norm;
        let found = memory::of_rows(&t4, kind, [array, array], Bytes(8 * width), 0).seconds;
        assert!((found / measured - 1.0).abs() < 0.08, "{rows} x {width}: {found}");
    }
    for (name, measured) in [("a100-80gb-sxm", 3.107e-12), ("h100-80gb-sxm", 1.654e-12)] {
        let gpu = gpu_from_catalogue(name).unwrap();
        let kind = MemoryBoundKind::Elementwise;
        let found = memory::of_rows(&gpu, kind, [Bytes(78_000_000); 2], Bytes(0), 36 * 39_000_000).seconds;
        let value = (found - gpu.kernel_latency_s) / 39e6;
        assert!((value / measured - 1.0).abs() < 0.08, "{name}: {value}");
    }
}

#[test]
fn causal_attention_by_blocks() {
    let shape = |pass| AttentionShape {
        batch: 4,
        heads: 32,
        kv_heads: 8,
        query_length: 4096,
        key_length: 4096,
        head_dim: 128,
        value_dim: 128,
        window: 0,
        causal: true,
        pass,
        dtype: Dtype::Tf32,
        generation: FlashGeneration::Current,
    };
    // 4 x 32 x 32 blocks on 100 multiprocessors, 40.96 each, visit 2112 keys on average, each in
    // 4 x 128 x 128 / (4 TFLOP/s x 0.5) = 32.768 ns: 2834.678415 us; and 671.08864 MB at 3 TB/s: 223.696213 us.
    let gpu = round_gpu();
    close(attention(&gpu, shape(Pass::Forward)).unwrap().seconds, 3060.374629e-6);
    // 2.5 times the work at 0.8 of the rate, and twice the traffic.
    close(attention(&gpu, shape(Pass::Backward)).unwrap().seconds, 9307.762475e-6);
}

/// What the kernel before has written is read from the second-level cache, if it fits.
#[test]
fn attention_finds_small_operands_in_the_cache() {
    let mut gpu = round_gpu();
    let shape = |batch| AttentionShape {
        batch,
        heads: 4,
        kv_heads: 4,
        query_length: 1024,
        key_length: 1024,
        head_dim: 128,
        value_dim: 128,
        window: 0,
        causal: true,
        pass: Pass::Forward,
        dtype: Dtype::Tf32,
        generation: FlashGeneration::Current,
    };
    let mut gained = |batch| {
        let seconds = |gpu: &Gpu| attention(gpu, shape(batch)).unwrap().seconds;
        gpu.achievable.attention.coefficients.l2_speedup = 1.0;
        let before = seconds(&gpu);
        gpu.achievable.attention.coefficients.l2_speedup = 2.0;
        before - seconds(&gpu)
    };
    // Queries, keys, values and the result: 4 x 1024 x 4 x 128 values of 4 bytes, 8.39 MB: half of 2.796203 us at 3 TB/s.
    let small = gained(1);
    assert!((small / 1.398101e-6 - 1.0).abs() < 0.01, "{small}");
    // Sixteen times as much fits no more.
    assert!(gained(16) < 0.1 * small);
}

/// 64 images of 64 channels and 56 x 56 pixels, a filter of 3 x 3.
const CONVOLUTION: ConvolutionShape = ConvolutionShape {
    batch: 64,
    in_channels: 64,
    out_channels: 64,
    out_height: 56,
    out_width: 56,
    kernel_height: 3,
    kernel_width: 3,
    stride: 1,
    pass: ConvolutionPass::Forward,
    format: MemoryFormat::ChannelsLast,
    groups: 1,
    traffic: Bytes(102_907_904),
    dtype: Dtype::Tf32,
};

/// Seconds of a matrix product on the round GPU without its start, the traffic being another's.
fn product_seconds(m: u64, n: u64, k: u64, traffic: Bytes) -> f64 {
    let gpu = round_gpu();
    let arithmetic = gpu.arithmetic(Dtype::Tf32).unwrap();
    let shape = GemmShape { batch: 1, m, n, k, dtype: Dtype::Tf32 };
    let operands = gemm::Operands::activations(traffic);
    gemm::Work::new(&gpu, arithmetic.peak.value, &shape, operands).seconds(&arithmetic.model.coefficients)
}

/// Left operand and result of neighbours stay in the second-level cache as far as it reaches, weights as far as those that
/// come in between leave them room.
#[test]
fn the_cache_holds_what_was_touched_last() {
    let gpu = gpu_from_catalogue("l40s").unwrap();
    let c = gpu.arithmetic(Dtype::Bf16).unwrap().model.coefficients;
    let peak = gpu.peak(Dtype::Bf16).unwrap();
    let seconds = |m: u64, n: u64, k: u64, turns: f64| {
        let shape = GemmShape { batch: 1, m, n, k, dtype: Dtype::Bf16 };
        gemm::Work::new(&gpu, peak, &shape, shape.operands(turns)).seconds(&c)
    };
    // Published by aiconfigurator, whose five weights take turns: 8192 x 64 x 4096, 68 MB of activations and 0.5 MB of weights, in
    // 32.2 us, 2.1 TB/s from 0.864 TB/s of memory; 64 x 7168 x 4096, 59 MB of weights and 1.4 MB of activations, in 101.5 us.
    let (activations, weights) = (seconds(8192, 64, 4096, 5.0), seconds(64, 7168, 4096, 5.0));
    assert!((activations / 32.2e-6 - 1.0).abs() < 0.2, "{activations}");
    assert!((weights / 101.5e-6 - 1.0).abs() < 0.2, "{weights}");
    // Weights that return at once stay, too; in a step they never do.
    assert!(seconds(64, 7168, 4096, 1.0) < 0.6 * weights);
    assert!(seconds(64, 7168, 4096, f64::INFINITY) >= weights);
    // Far beyond the cache nothing stays, whatever comes between.
    let huge = seconds(64, 1 << 20, 4096, 1.0);
    assert!((seconds(64, 1 << 20, 4096, f64::INFINITY) / huge - 1.0).abs() < 1e-6);
}

#[test]
fn older_attention_kernels_are_slower() {
    use FlashGeneration::{Current, First, Triton};

    let shape = |generation, pass, head_dim| AttentionShape {
        batch: 4,
        heads: 32,
        kv_heads: 32,
        query_length: 8192,
        key_length: 8192,
        head_dim,
        value_dim: head_dim,
        window: 0,
        causal: true,
        pass,
        dtype: Dtype::Bf16,
        generation,
    };
    let seconds = |name: &str, generation, pass, head_dim| {
        let gpu = gpu_from_catalogue(name).unwrap();
        attention(&gpu, shape(generation, pass, head_dim)).unwrap().seconds
    };
    for pass in [Pass::Forward, Pass::Backward] {
        let on = |name, generation| seconds(name, generation, pass, 128);
        // Dao 2023: FlashAttention-2 is about twice as fast as the first, and 1.3-2.5 times as fast as Triton's kernels.
        let first = on("a100-80gb-sxm", First) / on("a100-80gb-sxm", Current);
        assert!((1.7..2.6).contains(&first), "{pass:?}: {first}");
        let triton = on("a100-80gb-sxm", Triton) / on("a100-80gb-sxm", Current);
        assert!((1.3..2.5).contains(&triton), "{pass:?}: {triton}");
    }
}

#[test]
fn odd_vocabularies_are_slow() {
    let gpu = gpu_from_catalogue("a100-80gb-sxm").unwrap();
    let seconds = |n, dtype| gemm(&gpu, GemmShape { batch: 1, m: 65_536, n, k: 768, dtype }).unwrap().seconds;
    let slower = seconds(50_257, Dtype::Bf16) / seconds(50_304, Dtype::Bf16);
    assert!((1.8..2.6).contains(&slower), "{slower}");
    let on_cuda_cores = seconds(50_257, Dtype::Fp32) / seconds(50_304, Dtype::Fp32);
    assert!((on_cuda_cores - 1.0).abs() < 0.05, "{on_cuda_cores}");
}

#[test]
fn large_products_run_at_the_power_limit() {
    // Random values in 8192^3 products on an A100: 257 TFLOP/s (He 2024), within a tenth; another board's long fp16 products, to
    // which the limit is fitted, run at 222 to 262, most at 233 to 241.
    let gpu = gpu_from_catalogue("a100-80gb-sxm").unwrap();
    let shape = GemmShape { batch: 1, m: 8192, n: 8192, k: 8192, dtype: Dtype::Bf16 };
    let rate = shape.flops() / gemm(&gpu, shape).unwrap().seconds / 1e12;
    assert!((231.0..262.0).contains(&rate), "{rate}");
}

#[test]
fn convolution_as_implicit_gemm() {
    let gpu = round_gpu();
    let seconds = |shape| convolution(&gpu, shape).unwrap().seconds;
    // 200704 positions by 64 channels, sums of 576, at half of the matrix product's rate.
    let product = product_seconds(200_704, 64, 576, CONVOLUTION.traffic);
    close(seconds(CONVOLUTION), 2e-6 + 2.0 * product);
    // The gradient of the input is the same product, at a quarter of the rate.
    let backward = ConvolutionShape { pass: ConvolutionPass::GradInput, ..CONVOLUTION };
    close(seconds(backward), 2e-6 + 4.0 * product);
    // That of the filter: 64 by 576, sums over all positions.
    let filter = ConvolutionShape { pass: ConvolutionPass::GradWeight, ..CONVOLUTION };
    close(seconds(filter), 2e-6 + 4.0 * product_seconds(64, 576, 200_704, CONVOLUTION.traffic));
    // Backward through a stride of 2: four times the positions, each met by a quarter of the filter.
    let strided = ConvolutionShape { stride: 2, ..backward };
    close(seconds(strided), 2e-6 + 4.0 * product_seconds(802_816, 64, 144, CONVOLUTION.traffic));
}

#[test]
fn depthwise_convolution_multiplies_on_the_cuda_cores() {
    let depthwise = ConvolutionShape { groups: 64, ..CONVOLUTION };
    // 102.907904 MB at 0.6 x 3 TB/s = 57.171058 us; 2 x 64 x 64 x 3136 x 9 FLOPs at 0.25 x 40 TFLOP/s = 23.121101 us.
    let gpu = round_gpu();
    close(convolution(&gpu, depthwise).unwrap().seconds, 82.292159e-6);
    // No layout is copied: these kernels run in either.
    let contiguous = ConvolutionShape { format: MemoryFormat::Contiguous, ..depthwise };
    close(convolution(&gpu, contiguous).unwrap().seconds, 82.292159e-6);
}

#[test]
fn tensor_cores_need_channels_last() {
    let gpu = round_gpu();
    let contiguous = ConvolutionShape { format: MemoryFormat::Contiguous, ..CONVOLUTION };
    let seconds = |shape| convolution(&gpu, shape).unwrap().seconds;
    // Two copies with a start of 2 us each, and half of 1.5 x 102.907904 MB at 3 TB/s = 25.726976 us.
    close(seconds(contiguous) - seconds(CONVOLUTION), 29.726976e-6);
    // On the CUDA cores nothing is copied.
    let plain = ConvolutionShape { dtype: Dtype::Fp32, ..CONVOLUTION };
    let contiguous = ConvolutionShape { format: MemoryFormat::Contiguous, ..plain };
    close(seconds(contiguous), seconds(plain));
}

/// The head of a detector: 4 boxes of 81 classes are 324 channels, a multiple of 4 (32 bits) but not of 8 (16 bits); 6 boxes
/// are a multiple of neither. The 3 channels of an image have kernels of their own.
#[test]
fn channels_that_fill_no_vectors_are_slow_on_tensor_cores() {
    let gpu = gpu_from_catalogue("a100-40gb-sxm").unwrap();
    let head = ConvolutionShape {
        in_channels: 1024,
        out_channels: 328,
        out_height: 38,
        out_width: 38,
        traffic: Bytes(0),
        ..CONVOLUTION
    };
    let ratio = |dtype, from, to| {
        let seconds = |shape| convolution(&gpu, shape).unwrap().seconds;
        let odd = ConvolutionShape { dtype, in_channels: from, out_channels: to, ..head };
        seconds(odd) / seconds(ConvolutionShape { dtype, in_channels: from, ..head })
    };
    let slow = ratio(Dtype::Fp16, 1024, 324);
    assert!((2.2..2.6).contains(&slow), "{slow}");
    assert!(ratio(Dtype::Fp16, 1024, 320) < 1.05);
    assert!(ratio(Dtype::Tf32, 1024, 324) < 1.05);
    assert!(ratio(Dtype::Tf32, 1024, 326) > 2.0);
    assert!(ratio(Dtype::Fp32, 1024, 325) < 1.05);
    assert!(ratio(Dtype::Fp16, 3, 320) < 1.05);
}

#[test]
fn optimizer_embedding_copy_and_component() {
    let cluster = named("rtx8000-pcie-4");
    let seconds = |kernel| price(&cluster.gpu, &cluster.host, &kernel).unwrap().seconds;
    let bandwidth = |kind| 672e9 * cluster.gpu.achievable.memory.of(kind).share.value;
    let start = 2.5e-6;
    close(
        seconds(Kernel::Optimizer { parameters: 1_000_000, bytes_per_parameter: 28 }),
        start + 28e6 / bandwidth(MemoryBoundKind::Elementwise),
    );
    // Look-up of 1e6 rows of 100 fp32: 800 MB. Its gradient: 1200 MB the same way, and 40 MB of zeros by a
    // second kernel.
    let embedding = |pass| Kernel::Embedding {
        tokens: 1_000_000,
        width: 100,
        vocabulary: 100_000,
        pass,
        dtype: Dtype::Fp32,
    };
    close(seconds(embedding(Pass::Forward)), start + 800e6 / bandwidth(MemoryBoundKind::Indexing));
    let scatter = 1200e6 / bandwidth(MemoryBoundKind::Indexing) + 40e6 / bandwidth(MemoryBoundKind::Fill);
    close(seconds(embedding(Pass::Backward)), 2.0 * start + scatter);
    // 12.5 MB at 12.5 GB/s pinned, at 6 GB/s pageable.
    let copy = |pinned| Kernel::HostCopy { bytes: Bytes(12_500_000), pinned };
    close(seconds(copy(true)), start + 1e-3);
    close(seconds(copy(false)), start + 12.5e6 / 6e9);
    let copied = price(&cluster.gpu, &cluster.host, &copy(true)).unwrap();
    let fact = copied.fact(&cluster.gpu, &cluster.host).unwrap();
    assert_eq!((fact.what.as_str(), fact.value.as_str()), ("host.pinned_bandwidth", "12.5 GB/s"));
    // 16.3 TFLOP at the share of the largest tiles of 16.3 TFLOP/s.
    let component = Kernel::Component { flops: Flops(16_300_000_000_000), dtype: Dtype::Fp32 };
    close(seconds(component), start + 1.0 / cluster.gpu.arithmetic(Dtype::Fp32).unwrap().gemm.value);
}

#[test]
fn a_format_that_the_gpu_lacks_is_an_error() {
    let message = |cluster: &str, dtype| {
        let cluster = named(cluster);
        price(&cluster.gpu, &cluster.host, &square(64, dtype)).unwrap_err().to_string()
    };
    assert_eq!(
        message("dgx-a100-80gb", Dtype::Fp8),
        "a100-80gb-sxm (Ampere) does not compute in fp8; it computes in fp32, tf32, fp16, bf16"
    );
    for (dtype, name) in [(Dtype::Bf16, "bf16"), (Dtype::Tf32, "tf32"), (Dtype::Fp8, "fp8")] {
        assert_eq!(
            message("rtx8000-pcie-4", dtype),
            format!("quadro-rtx-8000 (Turing) does not compute in {name}; it computes in fp32, fp16")
        );
    }
    assert!(message("dgx-h100", Dtype::Int64).contains("does not compute in int64"));
    let cluster = named("rtx8000-pcie-4");
    let component = Kernel::Component { flops: Flops(1), dtype: Dtype::Bf16 };
    assert!(price(&cluster.gpu, &cluster.host, &component).is_err());
}

/// No dimension of a shape makes an operation faster, on any GPU and in any format it has, as long as rows start at
/// multiples of 16 bytes in both.
#[test]
fn bigger_shapes_are_never_faster() {
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).unwrap();
        for dtype in gpu.arithmetic.iter().map(|arithmetic| arithmetic.dtype) {
            for base in [[1, 1, 16, 16], [4, 64, 128, 32], [1, 4096, 4096, 4096], [96, 65, 32, 48]] {
                let seconds = |[batch, m, n, k]: [u64; 4]| {
                    gemm(&gpu, GemmShape { batch, m, n, k, dtype }).unwrap().seconds
                };
                for axis in 0..4 {
                    for factor in [2, 3, 10, 1000] {
                        let mut larger = base;
                        larger[axis] *= factor;
                        assert!(seconds(larger) >= seconds(base), "{name} {dtype:?} {larger:?} {base:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn faster_hardware_is_never_slower() {
    let slow = named("dgx-a100-80gb");
    let kernels = [
        square(128, Dtype::Bf16),
        square(8192, Dtype::Bf16),
        Kernel::Optimizer { parameters: 1 << 30, bytes_per_parameter: 28 },
        Kernel::HostCopy { bytes: Bytes(1 << 30), pinned: true },
    ];
    for change in 0..3 {
        let mut fast = slow.clone();
        match change {
            0 => fast.gpu.memory_bandwidth *= 2.0,
            1 => fast.gpu.arithmetic.iter_mut().for_each(|arithmetic| arithmetic.peak.value *= 2.0),
            _ => fast.host.pinned_bandwidth *= 2.0,
        }
        for kernel in &kernels {
            let before = price(&slow.gpu, &slow.host, kernel).unwrap().seconds;
            let after = price(&fast.gpu, &fast.host, kernel).unwrap().seconds;
            assert!(after <= before, "{kernel:?}: {after} > {before}");
        }
    }
}

#[test]
fn portable_attention_kernels_do_on_hopper_what_they_do_on_an_a100() {
    let of = |name: &str| gpu_from_catalogue(name).unwrap().achievable;
    assert_eq!(of("a100-80gb-sxm").portable_attention, None, "its own kernels are the portable ones");
    let (ampere, hopper) = (of("a100-80gb-sxm").attention, of("h100-80gb-sxm").portable_attention.unwrap());
    // 132 multiprocessors at 1.83 GHz of 989.4 TFLOP/s, for 108 at 1.41 GHz of 312.
    let expected = ampere.coefficients.efficiency * 312.0 / 989.4 * 132.0 * 1.83 / (108.0 * 1.41);
    assert!((hopper.coefficients.efficiency / expected - 1.0).abs() < 1e-9, "{expected}");
    assert!((hopper.coefficients.tail - ampere.coefficients.tail).abs() < 1e-12);
    assert!(hopper.ground.error > 2.0 * ampere.ground.error);
}

/// Heads of 64 against 128, as many values in all: 0.77 of the rate forward by FlashAttention-3 and 0.87 by FlashAttention-2 on an
/// H100, equal rates on an RTX 4090 (published, see `SHOWN_EXPONENTIALS`); backward less, of five products for each exponential.
#[test]
fn narrow_heads_show_their_exponentials() {
    let seconds = |gpu: &Gpu, heads, width, generation, pass| {
        let shape = AttentionShape {
            batch: 16,
            heads,
            kv_heads: heads,
            query_length: 16_384,
            key_length: 16_384,
            head_dim: width,
            value_dim: width,
            window: 0,
            causal: false,
            pass,
            dtype: Dtype::Bf16,
            generation,
        };
        attention(gpu, shape).unwrap().seconds
    };
    let rate = |name: &str, generation, pass| {
        let gpu = gpu_from_catalogue(name).unwrap();
        seconds(&gpu, 16, 128, generation, pass) / seconds(&gpu, 32, 64, generation, pass)
    };
    let (second, current) = (FlashGeneration::Second, FlashGeneration::Current);
    let hopper = rate("h100-80gb-sxm", current, Pass::Forward);
    assert!((hopper - 0.77).abs() < 0.05, "{hopper}");
    let portable = rate("h100-80gb-sxm", second, Pass::Forward);
    assert!((portable - 0.87).abs() < 0.05, "{portable}");
    assert!(rate("h100-80gb-sxm", second, Pass::Backward) > portable);
    let ada = rate("rtx-4090", current, Pass::Forward);
    assert!((ada - 1.0).abs() < 0.04, "{ada}");
}
