use steptime_models::{AttentionShape, ConvolutionPass, ConvolutionShape, MemoryBoundKind, Pass};

use super::*;
use crate::catalogue::{ClusterEntry, cluster_from_catalogue, gpu_from_catalogue, gpu_names};
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

#[test]
fn large_bf16_gemm_on_h100() {
    let cluster = named("dgx-h100");
    // 2 x 4096^3 = 137.438953472 GFLOP at 0.756 x 989.4 TFLOP/s = 183.745257 us, and a start of 2.5 us;
    // its 100.7 MB of traffic would take 42 us.
    let price = price(&cluster.gpu, &cluster.host, &square(4096, Dtype::Bf16)).unwrap();
    close(price.seconds, 186.245257e-6);
    assert_eq!(price.basis, Basis::Fitted);
    assert_eq!(price.fact(&cluster.gpu, &cluster.host).unwrap().what, "achievable.gemm.bf16");
}

#[test]
fn thin_gemm_is_limited_by_memory() {
    let cluster = named("dgx-h100");
    // One row by 8192 x 8192 in bf16: (8192 + 8192^2 + 8192) x 2 = 134_250_496 bytes at 0.71 x 3.35 TB/s
    // = 56.443345 us, and a start of 2.5 us.
    let kernel = Kernel::Gemm { batch: 1, m: 1, n: 8192, k: 8192, dtype: Dtype::Bf16 };
    let price = price(&cluster.gpu, &cluster.host, &kernel).unwrap();
    close(price.seconds, 58.943345e-6);
    assert_eq!(price.fact(&cluster.gpu, &cluster.host).unwrap().what, "achievable.memory.elementwise");
}

#[test]
fn element_wise_operation_on_a40() {
    let cluster = named("a40-pcie-4");
    // 200 MB at 0.83 x 696 GB/s = 346.212436 us, and a start of 2.5 us.
    let bytes = Bytes(100_000_000);
    let kernel = Kernel::MemoryBound { kind: MemoryBoundKind::Elementwise, read: bytes, written: bytes };
    close(price(&cluster.gpu, &cluster.host, &kernel).unwrap().seconds, 348.712436e-6);
}

#[test]
fn causal_attention_on_a100() {
    let gpu = gpu_from_catalogue("a100-80gb-sxm").unwrap();
    let shape = |pass| AttentionShape {
        batch: 4,
        heads: 32,
        kv_heads: 8,
        query_length: 4096,
        key_length: 4096,
        head_dim: 128,
        causal: true,
        pass,
        dtype: Dtype::Bf16,
    };
    // 4 x 4 x 32 x 4096^2 x 128 / 2 = 549.755813888 GFLOP at 0.478 x 312 TFLOP/s = 3686.271684 us.
    close(attention(&gpu, shape(Pass::Forward)).unwrap().seconds, 3689.071684e-6);
    // 2.5 times the work at 0.413: 10666.088771 us.
    close(attention(&gpu, shape(Pass::Backward)).unwrap().seconds, 10668.888771e-6);
}

#[test]
fn convolution_optimizer_embedding_copy_and_component() {
    let cluster = named("rtx8000-pcie-4");
    let seconds = |kernel| price(&cluster.gpu, &cluster.host, &kernel).unwrap().seconds;
    let start = 2.5e-6;
    // 2 x 64 x 64 x 56^2 x 64 x 9 = 14.797504512 GFLOP at 0.70 x 16.3 TFLOP/s = 1296.889090 us.
    let convolution = Kernel::Convolution(ConvolutionShape {
        batch: 64,
        in_channels: 64,
        out_channels: 64,
        out_height: 56,
        out_width: 56,
        kernel_height: 3,
        kernel_width: 3,
        stride: 1,
        pass: ConvolutionPass::Forward,
        groups: 1,
        traffic: Bytes(102_907_904),
        dtype: Dtype::Fp32,
    });
    close(seconds(convolution), start + 1296.889090e-6);
    // 1e6 parameters x 28 bytes at 0.73 x 672 GB/s = 57.077626 us.
    close(
        seconds(Kernel::Optimizer { parameters: 1_000_000, bytes_per_parameter: 28 }),
        start + 57.077626e-6,
    );
    // Look-up of 1e6 rows of 100 fp32: 800 MB at 0.5 x 672 GB/s = 2380.952381 us. Its gradient: 1200 MB the
    // same way, and 40 MB of zeros at 0.73 of the bandwidth = 81.539465 us by a second kernel.
    let embedding = |pass| Kernel::Embedding {
        tokens: 1_000_000,
        width: 100,
        vocabulary: 100_000,
        pass,
        dtype: Dtype::Fp32,
    };
    close(seconds(embedding(Pass::Forward)), start + 2380.952381e-6);
    close(seconds(embedding(Pass::Backward)), 2.0 * start + 3571.428571e-6 + 81.539465e-6);
    // 12.5 MB at 12.5 GB/s pinned, at 6 GB/s pageable.
    let copy = |pinned| Kernel::HostCopy { bytes: Bytes(12_500_000), pinned };
    close(seconds(copy(true)), start + 1e-3);
    close(seconds(copy(false)), start + 12.5e6 / 6e9);
    let copied = price(&cluster.gpu, &cluster.host, &copy(true)).unwrap();
    let fact = copied.fact(&cluster.gpu, &cluster.host).unwrap();
    assert_eq!((fact.what.as_str(), fact.value.as_str()), ("host.pinned_bandwidth", "12.5 GB/s"));
    // 16.3 TFLOP at 0.72 of 16.3 TFLOP/s.
    let component = Kernel::Component { flops: Flops(16_300_000_000_000), dtype: Dtype::Fp32 };
    close(seconds(component), start + 1.0 / 0.72);
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

/// No dimension of a shape makes an operation faster, on any GPU and in any format it has.
#[test]
fn bigger_shapes_are_never_faster() {
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).unwrap();
        for dtype in gpu.arithmetic.iter().map(|arithmetic| arithmetic.dtype) {
            for base in [[1, 1, 1, 1], [4, 64, 128, 32], [1, 4096, 4096, 4096], [96, 65, 25, 65]] {
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
