//! The models and clusters of the source (pippyoldversion, branch CYH, `flad/settings/*.xml`).

use steptime_clusters::{Vehicle, VehicleCluster};
use steptime_models::{Component, ComponentGraph, Partition};

/// `visionencoder*.xml`, in 1e6: per component its FLOPs and bytes, per partition its bytes sent.
pub(super) struct Sizes {
    pub(super) name: &'static str,
    components: [(u32, u32); 12],
    volumes: [u32; 9],
}

pub(super) const SMALL: Sizes = Sizes {
    name: "visionencoder_small",
    components: [
        (1800, 600),
        (3000, 900),
        (2400, 700),
        (3600, 1100),
        (1100, 300),
        (1100, 300),
        (800, 300),
        (1100, 350),
        (1100, 350),
        (1100, 350),
        (300, 150),
        (300, 150),
    ],
    volumes: [400, 300, 300, 250, 200, 200, 250, 200, 120],
};

pub(super) const MEDIUM: Sizes = Sizes {
    name: "visionencoder_medium",
    components: [
        (2400, 800),
        (4000, 1200),
        (3200, 1000),
        (4800, 1400),
        (1400, 400),
        (1400, 400),
        (1100, 400),
        (1400, 500),
        (1400, 500),
        (1500, 500),
        (400, 200),
        (400, 200),
    ],
    volumes: [500, 400, 400, 350, 250, 250, 350, 250, 150],
};

pub(super) const ORIGINAL: Sizes = Sizes {
    name: "visionencoder",
    components: [
        (3000, 1000),
        (5000, 1500),
        (4000, 1200),
        (6000, 1800),
        (1800, 500),
        (1800, 500),
        (1400, 500),
        (1800, 600),
        (1800, 600),
        (1900, 600),
        (500, 250),
        (500, 250),
    ],
    volumes: [600, 500, 500, 400, 300, 300, 400, 300, 200],
};

pub(super) const LARGE: Sizes = Sizes {
    name: "visionencoder_large",
    components: [
        (3600, 1200),
        (6000, 1800),
        (4800, 1400),
        (7200, 2200),
        (2200, 600),
        (2200, 600),
        (1700, 600),
        (2200, 700),
        (2200, 700),
        (2300, 700),
        (600, 300),
        (600, 300),
    ],
    volumes: [800, 600, 600, 500, 400, 400, 500, 400, 250],
};

pub(super) const XLARGE: Sizes = Sizes {
    name: "visionencoder_xlarge",
    components: [
        (4500, 1500),
        (7500, 2300),
        (6000, 1800),
        (9000, 2700),
        (2700, 750),
        (2700, 750),
        (2100, 750),
        (2700, 900),
        (2700, 900),
        (2850, 900),
        (750, 380),
        (750, 380),
    ],
    volumes: [1000, 750, 750, 600, 450, 450, 600, 450, 300],
};

const COMPONENTS: [&str; 12] = [
    "RGB_Backbone_Shallow",
    "RGB_Backbone_Deep",
    "Lidar_Backbone_Shallow",
    "Lidar_Backbone_Deep",
    "TransformerEncoder_Layer1",
    "TransformerEncoder_Layer2",
    "TransformerEncoder_Layer3",
    "TransformerDecoder_Layer1",
    "TransformerDecoder_Layer2",
    "TransformerDecoder_Layer3",
    "PredictionHeads_Traffic",
    "PredictionHeads_Waypoints",
];

const PARTITIONS: [(&str, &[usize]); 9] = [
    ("ShallowFeatureExtraction", &[0, 2]),
    ("RGB_DeepProcessing", &[1]),
    ("Lidar_DeepProcessing", &[3]),
    ("EncoderFusion_Early", &[4]),
    ("EncoderFusion_Middle", &[5]),
    ("EncoderFusion_Late", &[6]),
    ("DecoderProcessing_Early", &[7]),
    ("DecoderProcessing_Late", &[8, 9]),
    ("PredictionOutputs", &[10, 11]),
];

pub(super) fn model(sizes: &Sizes) -> ComponentGraph {
    let component = |(name, (flops, bytes)): (&str, (u32, u32))| Component {
        name: name.to_owned(),
        flops_per_sample: f64::from(flops) * 1e6,
        capacity: f64::from(bytes) * 1e6,
    };
    let partition = |((name, components), volume): ((&str, &[usize]), u32)| Partition {
        name: name.to_owned(),
        communication_volume: f64::from(volume) * 1e6,
        components: components.to_vec(),
    };
    ComponentGraph {
        components: COMPONENTS.into_iter().zip(sizes.components).map(component).collect(),
        partitions: PARTITIONS.into_iter().zip(sizes.volumes).map(partition).collect(),
    }
}

/// A cluster from `(memory, FLOP/s, bytes/s)` per vehicle in 1e6, and dependencies numbered from 1 as the
/// source names its vehicles.
pub(super) fn cluster(vehicles: &[(u32, u32, u32)], dependencies: &[(usize, usize)]) -> VehicleCluster {
    let vehicle = |(v, &(memory, compute, communication)): (usize, &(u32, u32, u32))| Vehicle {
        id: format!("v{}", v + 1),
        memory: f64::from(memory) * 1e6,
        compute: f64::from(compute) * 1e6,
        communication: f64::from(communication) * 1e6,
    };
    VehicleCluster {
        name: format!("clusterwith{}member", vehicles.len()),
        vehicles: vehicles.iter().enumerate().map(vehicle).collect(),
        dependencies: dependencies.iter().map(|&(source, target)| (source - 1, target - 1)).collect(),
        source: "pippyoldversion, branch CYH, flad/settings".to_owned(),
    }
}

pub(super) fn three_vehicles() -> VehicleCluster {
    let vehicles = [(3500, 3000, 800), (2900, 2500, 1200), (3600, 2000, 1300)];
    cluster(&vehicles, &[])
}

pub(super) fn five_vehicles() -> VehicleCluster {
    let vehicles =
        [(2500, 2500, 100), (3000, 2100, 200), (3200, 3000, 130), (2100, 3500, 150), (2800, 2700, 130)];
    cluster(&vehicles, &[(1, 2), (1, 3), (3, 4)])
}

pub(super) fn seven_vehicles() -> VehicleCluster {
    let vehicles = [
        (2100, 3000, 1000),
        (2400, 3100, 1200),
        (2300, 4000, 800),
        (1900, 3500, 900),
        (2800, 2500, 1100),
        (2150, 2400, 1300),
        (2500, 3000, 850),
    ];
    cluster(&vehicles, &[(1, 5), (2, 1), (2, 6), (2, 7), (4, 3), (4, 5), (5, 3), (6, 3), (7, 3)])
}

pub(super) fn nine_vehicles() -> VehicleCluster {
    let vehicles = [
        (1670, 2000, 300),
        (1670, 2000, 1200),
        (1670, 2100, 1300),
        (1670, 1200, 1500),
        (1660, 1000, 1300),
        (1660, 1500, 1300),
        (1660, 1800, 1300),
        (1670, 2000, 1000),
        (1670, 800, 2000),
    ];
    cluster(&vehicles, &[])
}
