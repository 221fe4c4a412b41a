//! Reads a GPU.

use steptime_models::Dimension;

use super::calibration::Calibration;
use super::error::CatalogueError;
use super::reader::Section;
use crate::fact::Fact;
use crate::gpu::{Achievable, Arithmetic, FORMATS, Gpu, GpuArchitecture, MemoryFractions};

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
    Ok(Gpu {
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
    })
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
    };
    Ok(Achievable {
        attention: calibration.attention(root, facts)?,
        attention_backward: section.fraction("attention_backward", facts)?,
        convolution: calibration.convolution(root, facts)?,
        memory,
    })
}
