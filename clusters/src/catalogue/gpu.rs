//! Reads a GPU.

use steptime_models::Dimension;

use super::error::CatalogueError;
use super::reader::Section;
use crate::fact::Fact;
use crate::gpu::{Achievable, Arithmetic, FORMATS, Gpu, GpuArchitecture, MemoryFractions};

/// Keys of a GPU file.
pub(super) const KEYS: [&str; 12] = [
    "name",
    "product",
    "architecture",
    "streaming_multiprocessors",
    "clock",
    "memory",
    "memory_bandwidth",
    "l2",
    "kernel_latency",
    "context",
    "peak",
    "achievable",
];

pub(super) fn read(root: &Section<'_>) -> Result<Gpu, CatalogueError> {
    let mut facts = Vec::new();
    root.own_source()?;
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
        arithmetic: arithmetic(root, &mut facts)?,
        achievable: achievable(root, &mut facts)?,
        facts,
    })
}

/// Every format of `[peak]` needs its fraction in `[achievable.gemm]`, and no other may stand there.
fn arithmetic(root: &Section<'_>, facts: &mut Vec<Fact>) -> Result<Vec<Arithmetic>, CatalogueError> {
    let peak = root.section("peak", &FORMATS.map(|(name, _)| name))?;
    let formats: Vec<_> = FORMATS.into_iter().filter(|&(name, _)| peak.has(name)).collect();
    if formats.is_empty() {
        return Err(root.error_at("peak", "[peak] lists no format; the GPU needs at least fp32".to_owned()));
    }
    let names: Vec<_> = formats.iter().map(|&(name, _)| name).collect();
    let gemm = root.section("achievable", &ACHIEVABLE)?.section("gemm", &names)?;
    let mut arithmetic = Vec::new();
    for (name, dtype) in formats {
        let peak = peak.quantity(name, Dimension::FlopsPerSecond, facts)?;
        arithmetic.push(Arithmetic { dtype, peak, gemm: gemm.fraction(name, facts)? });
    }
    Ok(arithmetic)
}

const ACHIEVABLE: [&str; 5] = ["gemm", "attention_forward", "attention_backward", "convolution", "memory"];

fn achievable(root: &Section<'_>, facts: &mut Vec<Fact>) -> Result<Achievable, CatalogueError> {
    let section = root.section("achievable", &ACHIEVABLE)?;
    let memory =
        section.section("memory", &["elementwise", "norm", "softmax", "reduction", "indexing", "fill"])?;
    Ok(Achievable {
        attention_forward: section.fraction("attention_forward", facts)?,
        attention_backward: section.fraction("attention_backward", facts)?,
        convolution: section.fraction("convolution", facts)?,
        memory: MemoryFractions {
            elementwise: memory.fraction("elementwise", facts)?,
            norm: memory.fraction("norm", facts)?,
            softmax: memory.fraction("softmax", facts)?,
            reduction: memory.fraction("reduction", facts)?,
            indexing: memory.fraction("indexing", facts)?,
            fill: memory.fraction("fill", facts)?,
        },
    })
}
