//! The files of the catalogue, by name.

macro_rules! entries {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../catalog/", $folder, "/", $name, ".toml")))),+]
    };
}

pub(super) const GPUS: [(&str, &str); 23] = entries!("gpus":
    "quadro-rtx-8000",
    "rtx-a5000",
    "rtx-a6000",
    "rtx-3090",
    "rtx-4090",
    "a40",
    "l4",
    "l40s",
    "t4",
    "v100-16gb-sxm2",
    "v100-32gb-sxm2",
    "v100-32gb-pcie",
    "a100-40gb-sxm",
    "a100-80gb-sxm",
    "a100-40gb-pcie",
    "a100-80gb-pcie",
    "h100-80gb-sxm",
    "h100-80gb-pcie",
    "h200-141gb-sxm",
    "b200",
    "b300",
    "gb200",
    "gb300",
);

/// Names that publications of measurements use.
pub(crate) const GPU_ALIASES: [(&str, &str); 17] = [
    ("rtx8000", "quadro-rtx-8000"),
    ("a5000", "rtx-a5000"),
    ("a6000", "rtx-a6000"),
    ("rtx3090", "rtx-3090"),
    ("rtx4090", "rtx-4090"),
    ("v100-sxm2-16gb", "v100-16gb-sxm2"),
    ("v100-sxm2-32gb", "v100-32gb-sxm2"),
    ("v100-pcie-32gb", "v100-32gb-pcie"),
    ("a100-sxm4-40gb", "a100-40gb-sxm"),
    ("a100-sxm4-80gb", "a100-80gb-sxm"),
    ("a100-pcie-40gb", "a100-40gb-pcie"),
    ("a100-pcie-80gb", "a100-80gb-pcie"),
    ("h100-sxm5-80gb", "h100-80gb-sxm"),
    ("h100-pcie-80gb", "h100-80gb-pcie"),
    ("h200-sxm-141gb", "h200-141gb-sxm"),
    ("b200-sxm", "b200"),
    ("b300-sxm", "b300"),
];

pub(super) const CLUSTERS: [(&str, &str); 26] = entries!("clusters":
    "rtx8000-pcie-4",
    "rtx8000-pcie-8",
    "rtx8000-nvlink-8",
    "a5000-pcie-2",
    "a5000-pcie-4",
    "a6000-pcie-8",
    "a40-pcie-4",
    "rtx3090-pcie-8",
    "rtx4090-pcie-8",
    "dgx-v100-16gb",
    "dgx-v100-32gb",
    "a100-40gb-pcie-8",
    "a100-80gb-pcie-8",
    "dgx-a100-40gb",
    "dgx-a100-80gb",
    "a100-40gb-roce",
    "a100-80gb-roce",
    "a100-80gb-ib-800",
    "h100-80gb-pcie-8",
    "dgx-h100",
    "h100-efa",
    "dgx-h200",
    "dgx-b200",
    "dgx-b300",
    "gb200-nvl72",
    "gb300-nvl72",
);

pub(super) const VEHICLES: [(&str, &str); 4] =
    entries!("vehicles": "vehicles-3", "vehicles-5", "vehicles-7", "vehicles-9");

/// Names that the publication of the vehicle clusters uses.
pub(super) const VEHICLE_ALIASES: [(&str, &str); 4] = [
    ("clusterwith3member", "vehicles-3"),
    ("clusterwith5member", "vehicles-5"),
    ("clusterwith7member", "vehicles-7"),
    ("clusterwith9member", "vehicles-9"),
];
