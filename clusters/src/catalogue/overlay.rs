//! Calibration files: what was fitted on somebody's own machine, laid over a cluster of the catalogue.

use steptime_models::Dimension;

use super::calibration::{self, Calibration};
use super::cluster::{OWN_HOST_KEYS, read_backing, read_megatron};
use super::error::CatalogueError;
use super::fabric;
use super::network;
use super::reader::{Section, parse};
use crate::cluster::{Cluster, Host};
use crate::fact::{Fact, FactId};
use crate::gpu::{FORMATS, Gpu, Ground};

/// Tables of a calibration file.
const KEYS: [&str; 4] = ["gpu", "fabric", "network", "host"];

impl Cluster {
    /// The cluster with what a calibration file says in place of what it had: tables `[gpu.calibration.*]`,
    /// `[fabric.*]` and keys of `[network]` and `[host]`, as `steptime calibrate` writes them. `name` in `[gpu]`, `[fabric]`
    /// and `[network]`, where it is written, must be that of the cluster's own.
    ///
    /// # Errors
    /// [`CatalogueError::Invalid`] with the place of the first error: as in [`crate::cluster_from_toml`], and names of
    /// other hardware.
    pub fn calibrated(&self, text: &str) -> Result<Self, CatalogueError> {
        let document = parse(text)?;
        let root = Section::root(text, &document, &KEYS)?;
        let mut cluster = self.clone();
        if let Some(section) = root.optional_section("gpu", &["name", "calibration"])? {
            same_name(&section, "GPU", &self.gpu.name)?;
            gpu(&mut cluster.gpu, &section)?;
        }
        if let Some(section) = root.optional_section("fabric", &fabric::OVERLAY_KEYS)? {
            same_name(&section, "fabric", &self.fabric.name)?;
            fabric::overlay(&section, &mut cluster.fabric)?;
        }
        if let Some(section) = root.optional_section("network", &network::OVERLAY_KEYS)? {
            if let Some(own) = &self.network {
                same_name(&section, "network", &own.name)?;
            }
            let facts = network::overlay(&section, &mut cluster)?;
            if let Some(network) = &mut cluster.network {
                replace(&mut network.facts, facts, "network.");
            }
        }
        if let Some(section) = root.optional_section("host", OWN_HOST_KEYS)? {
            host(&mut cluster.host, &section)?;
        }
        Ok(cluster)
    }
}

fn same_name(section: &Section<'_>, what: &str, own: &str) -> Result<(), CatalogueError> {
    if !section.has("name") || section.name("name")? == own {
        return Ok(());
    }
    let name = section.name("name")?;
    let path = section.key("name");
    let problem = format!("`{path}`: fitted on the {what} `{name}`, but the cluster has `{own}`");
    Err(section.error_at("name", problem))
}

/// Puts facts in the place of those on the same constants, so that references to them stay right; the first's place.
fn replace(facts: &mut Vec<Fact>, new: Vec<Fact>, root: &str) -> FactId {
    let mut first = None;
    for fact in new {
        let name = fact.what.strip_prefix(root).unwrap_or(&fact.what);
        let place = facts.iter().position(|old| old.what.strip_prefix(root).unwrap_or(&old.what) == name);
        let index = place.unwrap_or(facts.len());
        match facts.get_mut(index) {
            Some(old) => *old = Fact { what: old.what.clone(), ..fact },
            None => facts.push(fact),
        }
        first = first.or(Some(index));
    }
    FactId(first.unwrap_or_default())
}

fn gpu(gpu: &mut Gpu, section: &Section<'_>) -> Result<(), CatalogueError> {
    let Some(tables) = section.optional_section("calibration", &calibration::OWN_KEYS)? else {
        return Ok(());
    };
    let calibration = Calibration::of_one(&tables)?;
    for (index, (format, dtype)) in FORMATS.into_iter().enumerate() {
        if !calibration.has_gemm(index) {
            continue;
        }
        let mut facts = Vec::new();
        let (mut model, mut largest) = calibration.gemm(index, &tables, &mut facts)?;
        let Some(arithmetic) = gpu.arithmetic.iter_mut().find(|arithmetic| arithmetic.dtype == dtype) else {
            let problem =
                format!("`gpu.calibration.gemm.{format}`: {} does not compute in {format}", gpu.name);
            return Err(tables.error_at("gemm", problem));
        };
        let fact = replace(&mut gpu.facts, facts, "");
        model.ground = Ground { fact, ..model.ground };
        largest.fact = fact;
        (arithmetic.model, arithmetic.gemm) = (model, largest);
    }
    if calibration.has_attention() {
        let mut facts = Vec::new();
        let mut attention = calibration.attention(&tables, &mut facts)?;
        attention.ground.fact = replace(&mut gpu.facts, facts, "");
        gpu.achievable.attention = attention;
        // What was measured are the kernels that run, whosever they are.
        gpu.achievable.portable_attention = None;
    }
    if calibration.has_convolution() {
        let mut facts = Vec::new();
        let mut convolution = calibration.convolution(&tables, &mut facts)?;
        convolution.ground.fact = replace(&mut gpu.facts, facts, "");
        gpu.achievable.convolution = convolution;
    }
    for (kind, place) in gpu.achievable.memory.each_mut().into_iter().enumerate() {
        if calibration.has_memory(kind) {
            let mut facts = Vec::new();
            let mut share = calibration.memory(kind, &tables, &mut facts)?;
            share.share.fact = replace(&mut gpu.facts, facts, "");
            *place = share;
        }
    }
    Ok(())
}

fn host(host: &mut Host, section: &Section<'_>) -> Result<(), CatalogueError> {
    let mut facts = Vec::new();
    let launch_s = host.launch.eager_forward_s;
    for (key, dimension, place) in [
        ("eager_forward_launch", Dimension::Seconds, &mut host.launch.eager_forward_s),
        ("eager_backward_launch", Dimension::Seconds, &mut host.launch.eager_backward_s),
        ("compiled_launch", Dimension::Seconds, &mut host.launch.compiled_s),
        ("cuda_graphs_launch", Dimension::Seconds, &mut host.launch.cuda_graphs_s),
        ("sync_latency", Dimension::Seconds, &mut host.sync_latency_s),
        ("pinned_bandwidth", Dimension::BytesPerSecond, &mut host.pinned_bandwidth),
        ("pageable_bandwidth", Dimension::BytesPerSecond, &mut host.pageable_bandwidth),
    ] {
        if section.has(key) {
            *place = section.quantity(key, dimension, &mut facts)?.value;
        }
    }
    // A faster processor is faster at hooks and at a framework's Python as well.
    if launch_s > 0.0 {
        host.hooks = host.hooks.scaled(host.launch.eager_forward_s / launch_s);
    }
    if let Some(costs) = read_megatron(section, &mut facts)? {
        host.megatron = costs;
    } else if launch_s > 0.0 {
        host.megatron = host.megatron.scaled(host.launch.eager_forward_s / launch_s);
    }
    if section.has("launch_queue") {
        host.launch_queue = section.count("launch_queue", &mut facts)?;
    }
    if section.has("memory") {
        host.memory = section.bytes("memory", &mut facts)?;
    }
    if let Some(backing) = read_backing(section, &mut facts)? {
        host.backing = Some(backing);
    }
    replace(&mut host.facts, facts, "host.");
    Ok(())
}
