use std::path::PathBuf;

use steptime_models::{Bytes, Dtype};

use super::*;
use crate::cluster::ClusterError;
use crate::fact::{Basis, Fact};
use crate::gpu::GpuArchitecture;

pub(super) fn nodes(name: &str) -> Cluster {
    match cluster_from_catalogue(name).unwrap() {
        ClusterEntry::Nodes(cluster) => cluster,
        ClusterEntry::Vehicles(_) => panic!("{name} has no GPUs"),
    }
}

fn vehicles(name: &str) -> VehicleCluster {
    match cluster_from_catalogue(name).unwrap() {
        ClusterEntry::Vehicles(cluster) => cluster,
        ClusterEntry::Nodes(_) => panic!("{name} has GPUs"),
    }
}

fn sourced(owner: &str, facts: &[Fact]) {
    assert!(!facts.is_empty(), "{owner} has no facts");
    for fact in facts {
        assert!(fact.source.len() > 5, "{owner}: {} has no source", fact.what);
    }
}

#[test]
fn every_gpu_loads_with_a_source_for_every_constant() {
    assert_eq!(gpu_names().len(), 23);
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).unwrap();
        assert_eq!(gpu.name, name);
        sourced(name, &gpu.facts);
        // 7 constants, 2 for each of 7 memory-bound kinds, 13 of attention, 8 of convolutions, a ratio; a peak and 19
        // a format; the power of some boards; from Hopper on the rate of FlashAttention-2.
        let power = gpu.facts.iter().filter(|fact| fact.what == "power").count();
        let portable = usize::from(gpu.architecture >= GpuArchitecture::Hopper);
        assert_eq!(gpu.facts.len(), 43 + power + portable + 20 * gpu.arithmetic.len(), "{name}");
        let fp32 = gpu.peak(Dtype::Fp32).unwrap();
        assert!(gpu.arithmetic.iter().all(|arithmetic| arithmetic.peak.value >= fp32), "{name}");
        assert!(gpu.memory > Bytes(14 << 30) && gpu.context < Bytes(1 << 30), "{name}");
    }
}

/// Peaks follow from the silicon: fp32 is 2 FLOPs x lanes x SMs x clock, and all catalogued chips are within 9 %
/// of it (the H100's clock is the one of its tensor peaks, below its highest).
#[test]
fn fp32_peaks_agree_with_multiprocessors_and_clock() {
    for name in gpu_names() {
        let gpu = gpu_from_catalogue(name).unwrap();
        let few = gpu.architecture < GpuArchitecture::Ampere || name.starts_with("a100");
        let lanes = if few { 64.0 } else { 128.0 };
        let computed = 2.0 * lanes * f64::from(gpu.sms) * gpu.clock_hz;
        let peak = gpu.peak(Dtype::Fp32).unwrap();
        assert!((peak / computed - 1.0).abs() < 0.09, "{name}: {peak} against {computed}");
    }
}

#[test]
fn every_cluster_loads_with_a_source_for_every_constant() {
    assert_eq!(cluster_names().len(), 30);
    for name in cluster_names() {
        let entry = cluster_from_catalogue(name).unwrap();
        assert_eq!(entry.name(), name);
        if let ClusterEntry::Nodes(cluster) = entry {
            assert!(!cluster.source.is_empty());
            sourced(name, &cluster.fabric.facts);
            sourced(name, &cluster.host.facts);
            assert!(cluster.host.facts.len() >= 9, "{name}");
            assert!(cluster.fabric.facts.iter().any(|fact| fact.what == "all_reduce.wire"), "{name}");
            if let Some(network) = &cluster.network {
                sourced(name, &network.facts);
            }
        }
    }
}

#[test]
fn constants_arrive_in_si_units_with_their_provenance() {
    let cluster = nodes("dgx-h100");
    assert_eq!(cluster.gpu.name, "h100-80gb-sxm");
    assert_eq!(cluster.gpu.peak(Dtype::Bf16), Some(989.4e12));
    assert_eq!(cluster.gpu.l2, Bytes(50 << 20));
    assert_eq!((cluster.gpus_per_node, cluster.nodes, cluster.gpus()), (8, 1, 8));
    assert_eq!(cluster.fabric.name, "nvswitch-4");
    assert!((cluster.fabric.port_bandwidth() - 450e9).abs() < 1.0);
    assert!((cluster.network.as_ref().unwrap().node_bandwidth() - 376e9).abs() < 1.0);
    assert_eq!(cluster.host.launch_queue, 1024);
    let peak = cluster.gpu.facts.iter().find(|fact| fact.what == "peak.bf16").unwrap();
    assert_eq!((peak.value.as_str(), peak.basis), ("989.4 TFLOP/s", Basis::DataSheet));
    let memory = cluster.gpu.facts.iter().find(|fact| fact.what == "memory").unwrap();
    assert_eq!((memory.value.as_str(), memory.basis), ("79.10 GiB", Basis::Measured));
}

#[test]
fn a_cluster_changes_size_within_its_hardware() {
    let cluster = nodes("dgx-a100-80gb");
    let larger = cluster.with_size(4, 2).unwrap();
    assert_eq!((larger.nodes, larger.gpus_per_node, larger.gpus()), (4, 2, 8));
    assert_eq!(
        cluster.with_size(1, 16).unwrap_err().to_string(),
        "dgx-a100-80gb: 16 GPUs of a node were asked for, but a node has 8"
    );
    assert_eq!(
        nodes("rtx8000-pcie-4").with_size(2, 4).unwrap_err().to_string(),
        "rtx8000-pcie-4: 2 nodes were asked for, but the cluster has no [network] between nodes"
    );
    assert!(matches!(cluster.with_size(0, 8), Err(ClusterError::Empty { .. })));
}

#[test]
fn a_cluster_file_may_describe_its_own_gpu() {
    let gpu = GPUS.iter().find(|(name, _)| *name == "a40").unwrap().1;
    let gpu = gpu.replace("\n[", "\n[gpu.").replace("\"a40\"", "\"my-a40\"");
    let base = CLUSTERS.iter().find(|(name, _)| *name == "a40-pcie-4").unwrap().1;
    let text = format!("{}\n[gpu]\n{gpu}", base.replace("gpu = \"a40\"\n", ""));
    let ClusterEntry::Nodes(cluster) = cluster_from_toml(&text).unwrap() else { panic!("vehicles") };
    assert_eq!(cluster.gpu.name, "my-a40");
    assert_eq!(cluster.gpu.peak(Dtype::Fp32), Some(37.4e12));
}

#[test]
fn published_names_of_the_vehicle_clusters_are_aliases() {
    assert_eq!(vehicles("clusterwith5member"), vehicles("vehicles-5"));
    assert_eq!(vehicles("vehicles-7").dependencies.len(), 9);
    assert_eq!(vehicles("vehicles-9").index("v9"), Some(8));
}

/// The published XML files: every number as their reader takes it (decimal text to the nearest double), every
/// dependency in its order.
#[test]
fn vehicles_equal_the_published_files() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/seeds/data/swift");
    for count in [3, 5, 7, 9] {
        let path = folder.join(format!("clusterwith{count}member.xml"));
        let Ok(xml) = std::fs::read_to_string(&path) else {
            assert!(std::env::var_os("CI").is_none(), "{} is missing", path.display());
            eprintln!("SKIPPED: {} is missing, the vehicles were not compared", path.display());
            return;
        };
        let cluster = vehicles(&format!("vehicles-{count}"));
        let elements = |name: &str| -> Vec<String> {
            xml.split('<')
                .filter(|element| element.starts_with(&format!("{name} ")))
                .map(str::to_owned)
                .collect()
        };
        let published = elements("vehicle");
        assert_eq!(published.len(), cluster.vehicles.len());
        for (element, vehicle) in published.iter().zip(&cluster.vehicles) {
            assert_eq!(attribute(element, "id"), vehicle.id);
            for (name, value) in [
                ("memory", vehicle.memory),
                ("comp_capability", vehicle.compute),
                ("comm_capability", vehicle.communication),
            ] {
                let expected: f64 = attribute(element, name).parse().unwrap();
                assert_eq!(value.to_bits(), expected.to_bits(), "{count} {} {name}", vehicle.id);
            }
        }
        let order: Vec<_> = elements("dependency")
            .iter()
            .map(|element| {
                let index = |name| cluster.index(attribute(element, name)).unwrap();
                (index("source"), index("target"))
            })
            .collect();
        assert_eq!(cluster.dependencies, order);
    }
}

fn attribute<'a>(element: &'a str, name: &str) -> &'a str {
    let (_, rest) = element.split_once(&format!(" {name}=\"")).unwrap();
    rest.split_once('"').unwrap().0
}

#[test]
fn unknown_names_are_answered_with_the_nearest() {
    let message = |name| cluster_from_catalogue(name).unwrap_err().to_string();
    assert!(
        message("dgxh100")
            .starts_with("unknown cluster `dgxh100`; did you mean `dgx-h100`?; known: rtx8000-pcie-4, ")
    );
    assert!(gpu_from_catalogue("h100").unwrap_err().to_string().contains("did you mean `h100-80gb-sxm`?"));
    assert!(!message("###").contains("did you mean"));
}

/// A catalogue text with one passage replaced.
fn changed(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "`{from}` must occur once");
    text.replace(from, to)
}

const GPU: &str = include_str!("fixtures/gpu.toml");
const CLUSTER: &str = include_str!("fixtures/cluster.toml");

fn cluster_error(from: &str, to: &str) -> String {
    cluster_from_toml(&changed(CLUSTER, from, to)).unwrap_err().to_string()
}

fn gpu_error(from: &str, to: &str) -> String {
    gpu_from_toml(&changed(GPU, from, to)).unwrap_err().to_string()
}

#[test]
fn the_fixtures_are_right_before_they_are_changed() {
    cluster_from_toml(CLUSTER).unwrap();
    gpu_from_toml(GPU).unwrap();
}

#[test]
fn malformed_clusters_are_explained() {
    assert_eq!(
        cluster_error("start = \"5 us\"", "stort = \"5 us\""),
        "line 15, column 1: unknown key `stort` in [fabric.all_reduce]; did you mean `start`?; allowed: start, hop, \
         fill, wire, touch, source, basis"
    );
    assert_eq!(
        cluster_error("start = \"5 us\"", "start = 5"),
        "line 15, column 9: `fabric.all_reduce.start`: found the number 5, expected an amount and its unit in \
         quotes, e.g. \"2.5 us\""
    );
    assert_eq!(
        cluster_error("start = \"5 us\"", "start = \"5 GB\""),
        "line 15, column 9: `fabric.all_reduce.start`: `GB` in `5 GB` is not a unit of time; allowed are s, ms, us, \
         ns, ps, like \"2.5 us\""
    );
    assert_eq!(
        cluster_error("bandwidth = \"400 GB/s\"\n", ""),
        "line 7, column 1: `bandwidth` is missing in [fabric]"
    );
    assert!(cluster_error("like = \"nvswitch-4\"", "like = \"nvswitch-44\"").starts_with(
        "line 11, column 8: `fabric.like`: unknown fabric `nvswitch-44`; did you mean `nvswitch-4`?; known: "
    ));
    assert_eq!(
        cluster_error("like = \"nvswitch-4\"\n", ""),
        "line 7, column 1: the table [fabric.overlap] is missing"
    );
    assert_eq!(
        cluster_error("gpu = \"h100-80gb-sxm\"", "gpu = \"h100-sxm\""),
        "line 2, column 7: `gpu`: unknown GPU `h100-sxm`; did you mean `h100-80gb-sxm`?; known: \
         quadro-rtx-8000, rtx-a5000, rtx-a6000, rtx-3090, rtx-4090, a40, l4, l40s, t4, v100-16gb-sxm2, \
         v100-32gb-sxm2, v100-32gb-pcie, a100-40gb-sxm, a100-80gb-sxm, a100-40gb-pcie, a100-80gb-pcie, \
         h100-80gb-sxm, h100-80gb-pcie, h200-141gb-sxm, b200, b300, gb200, gb300"
    );
    assert_eq!(
        cluster_error("gpus_per_node = 8", "gpus_per_node = 0"),
        "line 3, column 17: `gpus_per_node`: found the number 0, expected a whole number from 1"
    );
    assert_eq!(
        cluster_error("nodes = 1\n", "nodes = 2\n"),
        "line 4, column 9: `nodes` is 2, but the file has no [network] between nodes"
    );
    assert_eq!(
        cluster_error("kind = \"nvswitch\"", "kind = \"nv-switch\""),
        "line 9, column 8: `fabric.kind`: unknown `nv-switch`; did you mean `nvswitch`?; allowed: nvswitch, \
         nvlink-mesh, nvlink-bridge, pcie"
    );
    assert_eq!(
        cluster_error("gpus_per_node = 8", "gpus_per_node 8"),
        "line 3, column 15: not TOML: key with no value, expected `=`"
    );
}

#[test]
fn malformed_gpus_are_explained() {
    assert_eq!(
        gpu_error("share = 0.9", "share = 1.9"),
        "line 90, column 9: `calibration.memory.elementwise.share`: found the number 1.9, expected a number from \
         0.02 to 1 (share of the memory bandwidth)"
    );
    assert_eq!(
        gpu_error("split = \"2 us\"", "split = \"40 us\""),
        "line 38, column 9: `calibration.gemm.tf32.split`: found the text \"40 us\", expected a time from 0 to 20 us \
         in quotes, e.g. \"2.5 us\" (fixed time of adding up a sum split over k)"
    );
    assert_eq!(
        gpu_error("\"h100-80gb-sxm\", ", "\"h100\", "),
        "line 23, column 17: `borrowed_from`: unknown GPU `h100`; did you mean `h100-80gb-sxm`?"
    );
    assert_eq!(
        gpu_error("borrowed_from = [\"h100-80gb-sxm\", \"a100-40gb-pcie\"]\n", ""),
        "line 22, column 1: the table [calibration.memory.norm] is missing, and nothing is borrowed"
    );
    assert_eq!(
        gpu_error("architecture = \"hopper\"", "architecture = \"hoper\""),
        "line 3, column 16: `architecture`: unknown `hoper`; did you mean `hopper`?; allowed: volta, turing, \
         ampere, ada, hopper, blackwell"
    );
    assert_eq!(
        gpu_error("memory_bandwidth = \"3 TB/s\"", "memory_bandwidth = \"0 TB/s\""),
        "line 8, column 20: `memory_bandwidth`: found \"0 TB/s\", expected more than zero, e.g. \"3.35 TB/s\" or \
         \"400 Gbit/s\""
    );
    assert_eq!(
        gpu_error("basis = \"measured\"", "basis = \"guessed\""),
        "line 11, column 66: `context.basis`: found the text \"guessed\", allowed: measured, fitted, data-sheet"
    );
}

#[test]
fn a_constant_without_a_source_is_refused() {
    assert_eq!(
        gpu_error("[peak]\nsource = \"its data sheet\"", "[peak]"),
        "line 14, column 8: `peak.fp32` has no source; write `source = \"...\"` in [peak], or `fp32 = { value = \
         ..., source = \"...\" }`"
    );
    assert_eq!(
        gpu_error("\"hopper\"\nsource = \"its data sheet\"", "\"hopper\"\nsource = \" \""),
        "line 4, column 10: `source`: found the text \" \", expected where the values come from"
    );
    assert_eq!(
        cluster_error("source = \"nobody built it\"\n", ""),
        "line 1, column 1: the file has no source; write `source = \"...\"` at its top"
    );
}

#[test]
fn malformed_vehicles_are_explained() {
    let base = VEHICLES.iter().find(|(name, _)| *name == "vehicles-5").unwrap().1;
    let message = |from: &str, to: &str| cluster_from_toml(&changed(base, from, to)).unwrap_err().to_string();
    assert_eq!(
        message("{ before = \"v3\", after = \"v4\" }", "{ before = \"v3\", after = \"v6\" }"),
        "line 6, column 30: `dependencies[2].after`: no vehicle `v6`; known: v1, v2, v3, v4, v5"
    );
    assert_eq!(
        message("{ before = \"v3\", after = \"v4\" }", "{ before = \"v3\", after = \"v1\" }"),
        "line 3, column 16: the dependencies form a cycle: no path of vehicles can keep them"
    );
    assert_eq!(
        message("id = \"v2\"", "id = \"v1\""),
        "line 16, column 6: a second vehicle `v1`; ids must differ"
    );
    assert_eq!(
        message("memory = \"3.2 GB\"", "memory = 3.2e9"),
        "line 23, column 10: `vehicle[2].memory`: found the number 3.2e9, expected an amount and its unit in \
         quotes, e.g. \"80 GiB\""
    );
}

#[test]
fn aliases_of_gpus_lead_to_the_catalogue() {
    for (alias, name) in GPU_ALIASES {
        assert_eq!(gpu_from_catalogue(alias).unwrap().name, name);
        assert!(!gpu_names().contains(&alias));
    }
}

#[test]
fn borrowed_tables_may_change_a_coefficient_and_say_why() {
    let gpu = gpu_from_toml(GPU).unwrap();
    let fill = |what: &str| gpu.facts.iter().find(|fact| fact.what == what).unwrap();
    let fact = fill("calibration.gemm.fp32.fill");
    assert_eq!((fact.value.as_str(), fact.basis), ("64.0", Basis::DataSheet));
    assert_eq!(fact.source, "Borrowed from gemm.tf32 of the same GPU: a fit; but fill: shorter pipelines");
    assert_eq!(fill("calibration.gemm.tf32.fill").basis, Basis::Fitted);
    // 1.5 times the error of the lender and 6 %.
    let error = |dtype| gpu.arithmetic(dtype).unwrap().model.ground.error;
    assert!((error(Dtype::Tf32) - 0.1).abs() < 1e-12 && (error(Dtype::Fp32) - 0.21).abs() < 1e-12);
}

/// Every table of a calibration file acts; measured attention is that of the kernels that run, whosever they are.
#[test]
fn calibrated_attention_and_convolutions_replace_the_catalogues() {
    let text = "[gpu.calibration.attention]\nsource = \"x\"\nbasis = \"fitted\"\nerror = 0.1\nefficiency = 0.5\n\
                fill = 0.0\ntail = 0.5\nimbalance = 0.5\ncrowd = 4.0\nbandwidth = 0.5\nl2_share = 0.5\n\
                l2_speedup = 2.0\nthrottle = 0.0\nthrottle_after = \"1 ms\"\nmeasured_start = \"0 ns\"\nmeasured_cache = \"0 ns\"\nmeasured_cache_heads = 1.0\n\
                \n[gpu.calibration.convolution]\nsource = \"x\"\nbasis = \"fitted\"\nerror = 0.2\nforward = 0.9\n\
                backward = 0.8\ngrouped = 1.0\ndepthwise_bandwidth = 0.5\ndepthwise_arithmetic = 0.4\n\
                layout_forward = 1.0\nlayout_backward = 2.0\nlayout_tf32 = 0.5\n";
    let before = nodes("dgx-h100").gpu;
    let after = nodes("dgx-h100").calibrated(text).unwrap().gpu.achievable;
    assert!(before.achievable.portable_attention.is_some());
    assert_eq!((after.attention.coefficients.efficiency, after.portable_attention), (0.5, None));
    assert_eq!((after.convolution.coefficients.forward, after.convolution.ground.error), (0.9, 0.2));
}

/// A host that says nothing of Megatron-LM's layers is as much slower at them as at launches.
#[test]
fn hosts_without_framework_costs_take_those_of_a_preset_by_their_launches() {
    let preset = include_str!("../../catalog/hosts/x86-pcie5.toml");
    let (silent, _) = preset.split_once("[megatron]").unwrap();
    let silent = &silent.replace("eager_forward_launch = \"6.4 us\"", "eager_forward_launch = \"12.8 us\"");
    let host = |text: &str| {
        let document = parse(text).unwrap();
        let section = Section::root(text, &document, &cluster::HOST_KEYS).unwrap();
        cluster::read_host(&section, "x86-pcie5").unwrap()
    };
    let (said, derived) = (host(preset).megatron, host(silent).megatron);
    for (said, derived) in [
        (said.block_forward_s, derived.block_forward_s),
        (said.block_backward_s, derived.block_backward_s),
        (said.collective_s, derived.collective_s),
        (said.chunk_pass_s, derived.chunk_pass_s),
        (said.routing_s, derived.routing_s),
        (said.expert_s, derived.expert_s),
        (said.tensor_s, derived.tensor_s),
        (said.step_s, derived.step_s),
    ] {
        assert!((derived / said - 2.0).abs() < 1e-9, "{said} {derived}");
    }
}

/// A cluster file whose network is like InfiniBand's, with these lines besides.
fn with_network(lines: &str) -> Result<Cluster, CatalogueError> {
    let text = format!(
        "name = \"mine\"\nsource = \"test\"\ngpu = \"a100-80gb-sxm\"\ngpus_per_node = 8\nnodes = 4\nfabric = \"nvswitch-3\"\n\n\
         [network]\nsource = \"test\"\nlike = \"infiniband\"\nrate = \"1600 Gbit/s\"\ncards = 8\n{lines}"
    );
    match cluster_from_toml(&text)? {
        ClusterEntry::Nodes(cluster) => Ok(cluster),
        ClusterEntry::Vehicles(_) => panic!("vehicles"),
    }
}

/// Eight cards of 25 GB/s reach 94 %. In slots of 16 GB/s none brings more than that, and where GPUs copy 10 GB/s to the
/// host's memory because cards cannot reach theirs, no GPU brings more.
#[test]
fn slots_and_copies_through_the_host_limit_cards() {
    for (lines, gpu) in [
        ("", 25e9),
        ("slot = \"16 GB/s\"\n", 16e9),
        ("slot = \"32 GB/s\"\n", 25e9),
        ("staging = \"10 GB/s\"\n", 10e9),
    ] {
        let network = with_network(lines).unwrap().network.unwrap();
        let close =
            |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-9, "{lines}: {found}");
        close(network.gpu_bandwidth, 0.94 * gpu);
        close(network.node_bandwidth(), 8.0 * 0.94 * gpu);
    }
}

/// A calibration file's network takes the place of what a cluster's said; a share counts anew from the line rate, and what is
/// not said stays.
#[test]
fn a_measured_network_is_laid_over_a_cluster() {
    let cluster = with_network("").unwrap();
    let text = "[network]\nname = \"infiniband\"\nsource = \"mine\"\nbasis = \"fitted\"\nshare = 0.47\nmessage = \"3 us\"\n\n[[network.spread]]\nnodes = 2\nfastest = \"1 us\"\nslowest = \"9 us\"\n";
    let taken = cluster.calibrated(text).unwrap().network.unwrap();
    let before = cluster.network.clone().unwrap();
    assert!((taken.node_bandwidth() / before.node_bandwidth() - 0.5).abs() < 1e-12);
    assert!((taken.gpu_bandwidth / before.gpu_bandwidth - 0.5).abs() < 1e-12);
    assert!((taken.message_s - 3e-6).abs() < 1e-15 && taken.messages(2).unwrap().1 > 8e-6);
    assert!((taken.bulk_latency_s - before.bulk_latency_s).abs() < 1e-15);
    // What other clusters reach says nothing of one that was measured.
    assert!(before.share_low.is_some() && taken.share_low.is_none() && taken.share_high.is_none());
    let fact = taken.facts.iter().find(|fact| fact.what.ends_with("share")).unwrap();
    assert_eq!((fact.source.as_str(), fact.basis), ("mine", Basis::Fitted));
    let refused = |text: &str| cluster.calibrated(text).unwrap_err().to_string();
    assert!(
        refused("[network]\nname = \"efa\"\n")
            .contains("fitted on the network `efa`, but the cluster has `infiniband`")
    );
    assert!(refused("[network]\nrate = \"1 GB/s\"\n").contains("unknown key `rate`"));
}
