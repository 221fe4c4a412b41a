//! The files of the catalogue, by name.

macro_rules! entries {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../catalog/", $folder, "/", $name, ".toml")))),+]
    };
}

pub(super) const GPUS: [(&str, &str); 8] = entries!("gpus":
    "quadro-rtx-8000",
    "rtx-a5000",
    "a40",
    "a100-40gb-sxm",
    "a100-80gb-sxm",
    "a100-40gb-pcie",
    "a100-80gb-pcie",
    "h100-80gb-sxm",
);

pub(super) const CLUSTERS: [(&str, &str); 7] = entries!("clusters":
    "rtx8000-pcie-4",
    "a5000-pcie-2",
    "a40-pcie-4",
    "dgx-a100-40gb",
    "dgx-a100-80gb",
    "dgx-h100",
    "h100-efa",
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
