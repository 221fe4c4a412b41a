//! Reads a GPU.

use steptime_models::{Dimension, Dtype};

use super::calibration::{Calibration, widened};
use super::error::CatalogueError;
use super::gpu_from_catalogue;
use super::reader::Section;
use crate::coefficients::AttentionCoefficients;
use crate::fact::{Basis, Fact, FactId};
use crate::gpu::{
    Achievable, Arithmetic, Calibrated, FORMATS, Gpu, GpuArchitecture, Ground, Lent, MemoryFractions,
};

/// The GPU on which FlashAttention-2 was measured.
const AMPERE: &str = "a100-80gb-sxm";

/// Keys of a GPU file.
pub(super) const KEYS: [&str; 14] = [
    "name",
    "product",
    "architecture",
    "streaming_multiprocessors",
    "clock",
    "power",
    "memory",
    "memory_bandwidth",
    "l2",
    "kernel_latency",
    "context",
    "peak",
    "achievable",
    "calibration",
];

pub(super) fn read(root: &Section<'_>) -> Result<Gpu, CatalogueError> {
    let mut facts = Vec::new();
    root.own_source()?;
    let calibration = Calibration::read(root)?;
    if root.has("power") {
        root.quantity("power", Dimension::Watts, &mut facts)?;
    }
    let mut gpu = Gpu {
        name: root.name("name")?.to_owned(),
        product: root.name("product")?.to_owned(),
        architecture: root.choice("architecture", &GpuArchitecture::NAMES)?,
        sms: root.count("streaming_multiprocessors", &mut facts)?,
        clock_hz: root.quantity("clock", Dimension::Hertz, &mut facts)?.value,
        memory: root.bytes("memory", &mut facts)?,
        memory_bandwidth: root.quantity("memory_bandwidth", Dimension::BytesPerSecond, &mut facts)?.value,
        l2: root.bytes("l2", &mut facts)?,
        kernel_latency_s: root.quantity("kernel_latency", Dimension::Seconds, &mut facts)?.value,
        context: root.bytes("context", &mut facts)?,
        arithmetic: arithmetic(root, &calibration, &mut facts)?,
        achievable: achievable(root, &calibration, &mut facts)?,
        facts,
    };
    if gpu.architecture >= GpuArchitecture::Hopper {
        gpu.achievable.portable_attention = portable_attention(&mut gpu)?;
    }
    Ok(gpu)
}

/// Fused attention by kernels with the matrix instructions of Ampere (`mma.sync`), which Hopper and Blackwell run beside
/// the faster ones that FlashAttention-3 and cuDNN use: per multiprocessor and clock they do what an A100 does. The
/// published best of FlashAttention-2, forward and backward together, 225 TFLOP/s on an A100 and 335 TFLOP/s on an H100
/// (Dao 2023, section 4.1), is that ratio. None for a GPU without bf16.
fn portable_attention(gpu: &mut Gpu) -> Result<Option<Calibrated<AttentionCoefficients>>, CatalogueError> {
    let ampere = gpu_from_catalogue(AMPERE)?;
    let (Some(theirs), Some(own)) = (ampere.peak(Dtype::Bf16), gpu.peak(Dtype::Bf16)) else {
        return Ok(None);
    };
    let size = f64::from(gpu.sms) * gpu.clock_hz / (f64::from(ampere.sms) * ampere.clock_hz);
    let mut attention = ampere.achievable.attention;
    attention.coefficients.efficiency *= theirs * size / own;
    // Lent to another architecture.
    let error = widened(widened(attention.ground.error));
    attention.ground =
        Ground { basis: Basis::DataSheet, fact: FactId(gpu.facts.len()), error, lent: Lent::Far };
    gpu.facts.push(Fact {
        what: "calibration.attention.portable.efficiency".to_owned(),
        value: format!("{:.3}", attention.coefficients.efficiency),
        source: format!(
            "FlashAttention-2 as on {AMPERE} by multiprocessors and clock (Dao 2023, section 4.1: 225 TFLOP/s on an A100, \
             335 on an H100)"
        ),
        basis: Basis::DataSheet,
    });
    Ok(Some(attention))
}

fn arithmetic(
    root: &Section<'_>,
    calibration: &Calibration,
    facts: &mut Vec<Fact>,
) -> Result<Vec<Arithmetic>, CatalogueError> {
    let peak = root.section("peak", &FORMATS.map(|(name, _)| name))?;
    let mut arithmetic = Vec::new();
    for (index, (name, dtype)) in FORMATS.into_iter().enumerate().filter(|&(_, (name, _))| peak.has(name)) {
        let peak = peak.quantity(name, Dimension::FlopsPerSecond, facts)?;
        let (model, gemm) = calibration.gemm(index, root, facts)?;
        arithmetic.push(Arithmetic { dtype, peak, gemm, model });
    }
    if arithmetic.is_empty() {
        return Err(root.error_at("peak", "[peak] lists no format; the GPU needs at least fp32".to_owned()));
    }
    Ok(arithmetic)
}

fn achievable(
    root: &Section<'_>,
    calibration: &Calibration,
    facts: &mut Vec<Fact>,
) -> Result<Achievable, CatalogueError> {
    let section = root.section("achievable", &["attention_backward"])?;
    let mut memory = |kind| calibration.memory(kind, root, facts);
    let memory = MemoryFractions {
        elementwise: memory(0)?,
        norm: memory(1)?,
        softmax: memory(2)?,
        reduction: memory(3)?,
        indexing: memory(4)?,
        fill: memory(5)?,
        batch_norm: memory(6)?,
    };
    Ok(Achievable {
        attention: calibration.attention(root, facts)?,
        portable_attention: None,
        attention_backward: section.fraction("attention_backward", facts)?,
        convolution: calibration.convolution(root, facts)?,
        memory,
    })
}
