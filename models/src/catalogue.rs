//! The models that come with the program, one file each.

use crate::error::ModelError;
use crate::quantity::nearest;

macro_rules! entries {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../catalog/", $name, ".toml")))),*]
    };
}

/// Names and texts, sorted by name.
const ENTRIES: [(&str, &str); 99] = entries![
    "convnext_base",
    "convnext_large",
    "convnext_small",
    "convnext_tiny",
    "deit_base_patch16_224",
    "deit_small_patch16_224",
    "deit_tiny_patch16_224",
    "densenet121",
    "densenet161",
    "densenet169",
    "densenet201",
    "efficientnet_b0",
    "efficientnet_v2_l",
    "efficientnet_v2_m",
    "efficientnet_v2_s",
    "efficientnetv2_rw_m",
    "efficientnetv2_rw_s",
    "efficientnetv2_rw_t",
    "gpt-18b",
    "gpt2",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "gpt3-125m",
    "gpt3-175b",
    "gpt3-2.7b",
    "gpt3-350m",
    "gpt3-6.7b",
    "gpt3-760m",
    "inception_v3",
    "llama2-13b",
    "llama2-70b",
    "llama2-7b",
    "llama3-70b",
    "llama3-8b",
    "llama3.1-405b",
    "llama3.1-70b",
    "llama3.1-8b",
    "llama3.2-1b",
    "llama3.2-3b",
    "megatron-1t",
    "megatron-22b",
    "megatron-530b",
    "mistral-7b",
    "mobilenet_v2",
    "rat",
    "rat-detection",
    "rat-huge",
    "rat-multiscale",
    "rat-optimized",
    "rat-ray",
    "rat-small",
    "rat-sparse",
    "resnet101",
    "resnet152",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "resnext50_32x4d",
    "switch-vit-32",
    "switch-vit-64",
    "tinyllama-1.1b",
    "vgg11",
    "vgg11_bn",
    "vgg13",
    "vgg13_bn",
    "vgg16",
    "vgg16_bn",
    "vgg19",
    "vgg19_bn",
    "visionencoder",
    "visionencoder-large",
    "visionencoder-medium",
    "visionencoder-small",
    "visionencoder-xlarge",
    "vit-cifar",
    "vit-huge-128",
    "vit_b_16",
    "vit_b_32",
    "vit_base_patch16_224",
    "vit_base_patch16_384",
    "vit_base_patch32_224",
    "vit_base_patch32_384",
    "vit_h_14",
    "vit_l_16",
    "vit_l_32",
    "vit_large_patch16_224",
    "vit_large_patch16_384",
    "vit_large_patch32_224",
    "vit_large_patch32_384",
    "vit_small_patch16_224",
    "vit_small_patch16_384",
    "vit_small_patch32_224",
    "vit_small_patch32_384",
    "vit_tiny_patch16_224",
    "wide_resnet101_2",
    "wide_resnet50_2",
];

/// Other names of entries: those of PyTorch Image Models (`tf_` pads as TensorFlow does, a copy before each strided
/// convolution that is not counted here) and of a benchmark of model search.
const ALIASES: [(&str, &str); 7] = [
    ("eff_net_v2_l", "efficientnet_v2_l"),
    ("eff_net_v2_s", "efficientnet_v2_s"),
    ("efficientnetv2_l", "efficientnet_v2_l"),
    ("efficientnetv2_s", "efficientnet_v2_s"),
    ("mobilenetv2_100", "mobilenet_v2"),
    ("tf_efficientnetv2_l", "efficientnet_v2_l"),
    ("visionencoder-original", "visionencoder"),
];

/// Names of all entries, sorted; aliases are not among them.
pub fn catalogue_names() -> Vec<&'static str> {
    ENTRIES.iter().map(|&(name, _)| name).collect()
}

/// The file of an entry.
pub(crate) fn text_of(name: &str) -> Result<&'static str, ModelError> {
    let canonical =
        ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |&(_, canonical)| canonical);
    let entry = ENTRIES.iter().find(|(entry, _)| *entry == canonical);
    entry.map(|&(_, text)| text).ok_or_else(|| ModelError::UnknownModel {
        name: name.to_owned(),
        nearest: nearest(name, ENTRIES.iter().map(|&(entry, _)| entry)),
        known: ENTRIES.iter().map(|&(entry, _)| entry.to_owned()).collect(),
    })
}
