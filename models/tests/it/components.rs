//! The VisionEncoder models against the files that they were published in.

use std::path::PathBuf;

use steptime_models::{
    AttentionKind, Bytes, ComponentGraph, Dtype, Flops, Model, Overrides, catalogue_names,
};

use crate::{model, shape};

/// Entry, and totals of capacity, FLOPs and communication in units of 10^9, each summed over the published file
/// independently of this crate.
const TOTALS: [(&str, f64, f64, f64); 5] = [
    ("visionencoder-small", 5.55, 17.70, 2.22),
    ("visionencoder-medium", 7.50, 23.40, 2.90),
    ("visionencoder", 9.30, 29.50, 3.50),
    ("visionencoder-large", 11.10, 35.60, 4.45),
    ("visionencoder-xlarge", 14.01, 44.25, 5.35),
];

fn graph(name: &str) -> ComponentGraph {
    model(name).components().unwrap().clone()
}

#[test]
fn totals_are_right() {
    for (name, capacity, flops, communication) in TOTALS {
        let graph = graph(name);
        assert_eq!((graph.components.len(), graph.partitions.len()), (12, 9));
        let close =
            |found: f64, expected: f64| assert!((found / 1e9 - expected).abs() < 1e-9, "{name}: {found}");
        close((0..9).map(|index| graph.partition_capacity(index)).sum(), capacity);
        close((0..9).map(|index| graph.partition_flops(index)).sum(), flops);
        close(graph.partitions.iter().map(|partition| partition.communication_volume).sum(), communication);
    }
}

#[test]
fn the_original_size_has_two_names() {
    assert_eq!(graph("visionencoder-original"), graph("visionencoder"));
    assert!(!catalogue_names().contains(&"visionencoder-original"));
}

#[test]
fn a_partition_is_a_layer() {
    let model = model("visionencoder");
    assert_eq!((model.parameters(), model.layers.len()), (0, 9));
    assert_eq!(model.layers[0].name, "ShallowFeatureExtraction");
    assert_eq!(model.layers[0].stated_memory, Bytes(2_200_000_000));
    let shape = shape(32, 0, Dtype::Fp32, AttentionKind::Eager);
    let shallow = model.work(0, &shape);
    // 3 + 4 GFLOP a sample, twice that backward.
    assert_eq!(shallow.forward_flops(), Flops(32 * 7_000_000_000));
    assert_eq!(shallow.backward_flops(), Flops(2 * 32 * 7_000_000_000));
    assert_eq!((shallow.input, shallow.output), (Bytes(0), Bytes(32 * 600_000_000)));
    assert_eq!(model.work(1, &shape).input, shallow.output);
    assert_eq!(model.forward_flops(&shape), Flops(32 * 29_500_000_000));
    assert!(model.layers.windows(2).all(|pair| pair[0].signature != pair[1].signature));
    assert!(Model::from_catalogue("visionencoder", &Overrides::none().with("layers", 3)).is_err());
}

/// Where the published files are, if they are here.
fn published() -> Option<PathBuf> {
    let folder = std::env::var_os("STEPTIME_SWIFT_DATA").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/seeds/data/swift"),
        PathBuf::from,
    );
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("SKIPPED: {} is missing, the published model files are not compared", folder.display());
    None
}

/// Value of an attribute within a tag.
fn attribute<'t>(tag: &'t str, name: &str) -> &'t str {
    let start = tag.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    &tag[start..start + tag[start..].find('"').unwrap()]
}

/// The published number, read as the source's program reads it.
fn number(tag: &str, name: &str) -> u64 {
    attribute(tag, name).parse::<f64>().unwrap().to_bits()
}

#[test]
fn the_catalogue_is_the_published_files_bit_by_bit() {
    let Some(folder) = published() else { return };
    for (name, ..) in TOTALS {
        let text = std::fs::read_to_string(folder.join(format!("{}.xml", name.replace('-', "_")))).unwrap();
        let tags = |kind: &str| -> Vec<&str> {
            text.split('<').filter(|tag| tag.split_whitespace().next() == Some(kind)).collect()
        };
        let graph = graph(name);
        let components = tags("component");
        assert_eq!(components.len(), graph.components.len());
        for (component, tag) in graph.components.iter().zip(components) {
            assert_eq!(component.name, attribute(tag, "name"));
            assert_eq!(component.flops_per_sample.to_bits(), number(tag, "flops_per_sample"), "{tag}");
            assert_eq!(component.capacity.to_bits(), number(tag, "capacity"), "{tag}");
        }
        let partitions = tags("partition");
        assert_eq!(partitions.len(), graph.partitions.len());
        for (partition, tag) in graph.partitions.iter().zip(partitions) {
            assert_eq!(partition.name, attribute(tag, "name"));
            assert_eq!(
                partition.communication_volume.to_bits(),
                number(tag, "communication_volume"),
                "{tag}"
            );
        }
        let members = graph.partitions.iter().flat_map(|partition| &partition.components);
        let names = members.map(|&index| graph.components[index].name.as_str());
        assert!(names.eq(tags("component_ref").into_iter().map(|tag| attribute(tag, "name"))), "{name}");
    }
}
