//! Parameter counts, equal to the published ones.

use steptime_models::{Family, LayerRole, Model, Overrides, catalogue_names};

use crate::model;
use crate::transformers;
use crate::vision::PUBLISHED_VISION;

/// Entry, parameters, where the number is from. Where a paper prints a rounded number only, the exact one is worked
/// out here and [`PRINTED`] has the rounded one.
const PUBLISHED: [(&str, u64, &str); 31] = [
    ("vit-cifar", 12_798_490, "training log of the switch-vit repository"),
    ("switch-vit-32", 238_732_426, "training log of the switch-vit repository"),
    ("switch-vit-64", 464_669_962, "training log of the switch-vit repository"),
    ("vit_b_16", 86_567_656, "torchvision, ViT_B_16_Weights.IMAGENET1K_V1 num_params"),
    ("vit_l_16", 304_326_632, "torchvision, ViT_L_16_Weights.IMAGENET1K_V1 num_params"),
    ("gpt2", 124_439_808, "Hugging Face, sum over openai-community/gpt2"),
    ("gpt2-medium", 354_823_168, "Hugging Face, parameters of openai-community/gpt2-medium"),
    ("gpt2-large", 774_030_080, "Hugging Face, parameters of openai-community/gpt2-large"),
    ("gpt2-xl", 1_557_611_200, "Hugging Face, parameters of openai-community/gpt2-xl"),
    // 12 l h^2 (1 + 13 / 12h + (V + s) / 12 l h) of Narayanan et al. 2021, equation 2, and the 2h of the last norm:
    // 12*40*6144^2 + 13*40*6144 + (51200 + 2048)*6144 + 2*6144; the table prints 18.4 billion.
    ("gpt-18b", 18_449_756_160, "Narayanan et al. 2021, equation 2 and table 1"),
    // 12*96*12288^2 + 13*96*12288 + (51200 + 2048)*12288 + 2*12288; the paper prints 174.6 billion.
    ("gpt3-175b", 174_615_846_912, "Narayanan et al. 2021, equation 2"),
    // The same formula with V = 50257 and s = 2048, first 12*12*768^2 + 13*12*768 + (50257 + 2048)*768 + 2*768.
    ("gpt3-125m", 125_226_240, "Brown et al. 2020, tables 2.1 and D.1"),
    ("gpt3-350m", 355_871_744, "Brown et al. 2020, tables 2.1 and D.1"),
    ("gpt3-760m", 760_300_032, "Brown et al. 2020, tables 2.1 and D.1"),
    ("gpt3-2.7b", 2_651_553_280, "Brown et al. 2020, tables 2.1 and D.1"),
    ("gpt3-6.7b", 6_658_404_352, "Brown et al. 2020, tables 2.1 and D.1"),
    // With V = 51200 again: 12*48*6144^2 + 13*48*6144 + (51200 + 2048)*6144 + 2*6144, and so on.
    ("megatron-22b", 22_074_273_792, "Korthikanti et al. 2022, table 3"),
    ("megatron-530b", 529_600_819_200, "Korthikanti et al. 2022, table 3"),
    ("megatron-1t", 1_008_038_758_400, "Korthikanti et al. 2022, table 3"),
    ("llama2-7b", 6_738_415_616, "Hugging Face, safetensors header of meta-llama/Llama-2-7b-hf"),
    ("llama2-13b", 13_015_864_320, "Hugging Face, parameters of meta-llama/Llama-2-13b-hf"),
    ("llama2-70b", 68_976_648_192, "Hugging Face, parameters of meta-llama/Llama-2-70b-hf"),
    ("llama3-8b", 8_030_261_248, "Hugging Face, safetensors header of meta-llama/Meta-Llama-3-8B"),
    ("llama3-70b", 70_553_706_496, "Hugging Face, safetensors header of meta-llama/Meta-Llama-3-70B"),
    ("llama3.1-8b", 8_030_261_248, "Hugging Face, parameters of meta-llama/Llama-3.1-8B"),
    ("llama3.1-70b", 70_553_706_496, "Hugging Face, parameters of meta-llama/Llama-3.1-70B"),
    ("llama3.1-405b", 405_853_388_800, "Hugging Face, parameters of meta-llama/Llama-3.1-405B"),
    ("llama3.2-1b", 1_235_814_400, "Hugging Face, parameters of meta-llama/Llama-3.2-1B"),
    ("llama3.2-3b", 3_212_749_824, "Hugging Face, parameters of meta-llama/Llama-3.2-3B"),
    ("mistral-7b", 7_241_732_096, "Hugging Face, parameters of mistralai/Mistral-7B-v0.1"),
    ("tinyllama-1.1b", 1_100_048_384, "Hugging Face, parameters of TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
];

/// Entry, parameters as a paper prints them, one of the last printed digit, which paper.
const PRINTED: [(&str, u64, u64, &str); 10] = [
    ("gpt-18b", 18_400_000_000, 100_000_000, "Narayanan et al. 2021, table 1"),
    ("gpt3-125m", 125_000_000, 1_000_000, "Brown et al. 2020, table D.1"),
    ("gpt3-350m", 356_000_000, 1_000_000, "Brown et al. 2020, table D.1"),
    ("gpt3-760m", 760_000_000, 1_000_000, "Brown et al. 2020, table D.1"),
    ("gpt3-2.7b", 2_650_000_000, 10_000_000, "Brown et al. 2020, table D.1"),
    ("gpt3-6.7b", 6_660_000_000, 10_000_000, "Brown et al. 2020, table D.1"),
    ("gpt3-175b", 174_600_000_000, 100_000_000, "Brown et al. 2020, table D.1"),
    ("megatron-22b", 22_000_000_000, 1_000_000_000, "Korthikanti et al. 2022, table 3"),
    // The same two architectures stand in table 1 of Narayanan et al. 2021, with one digit after the point.
    ("megatron-530b", 529_600_000_000, 100_000_000, "Narayanan et al. 2021, table 1"),
    ("megatron-1t", 1_008_000_000_000, 100_000_000, "Narayanan et al. 2021, table 1"),
];

#[test]
fn counts_are_the_published_ones() {
    for (name, parameters, source) in PUBLISHED {
        assert_eq!(model(name).parameters(), parameters, "{name}: {source}");
    }
}

#[test]
fn counts_round_to_the_printed_ones() {
    for (name, printed, digit, source) in PRINTED {
        let parameters = model(name).parameters();
        assert_eq!((parameters + digit / 2) / digit * digit, printed, "{name}: {parameters}, {source}");
    }
}

#[test]
fn every_entry_is_checked() {
    for name in catalogue_names() {
        let model = model(name);
        assert_eq!(model.name, name);
        assert!(!model.source.is_empty());
        // The counts of the resolution-aware transformers are in `rat.rs`.
        let checked = PUBLISHED
            .iter()
            .chain(&PUBLISHED_VISION)
            .chain(&transformers::PUBLISHED)
            .any(|&(published, ..)| published == name);
        assert!(
            // The detector's count is worked by hand in `vision.rs`.
            checked || name == "ssd300-resnet50" || matches!(model.family, Family::Components | Family::Rat),
            "{name} has no published count"
        );
    }
    assert!(catalogue_names().is_sorted());
}

#[test]
fn cifar_100_adds_ninety_classes() {
    // 90 * (3072 + 1) = 276,570 more; the counts are those of the CIFAR-100 logs.
    let hundred = Overrides::none().with("classes", 100);
    for (name, parameters) in
        [("vit-cifar", 13_075_060), ("switch-vit-32", 239_008_996), ("switch-vit-64", 464_946_532)]
    {
        assert_eq!(Model::from_catalogue(name, &hundred).unwrap().parameters(), parameters, "{name}");
    }
}

#[test]
fn layers_of_switch_vit_add_up() {
    // positions 300*300, convolution 3*16*300 + 300, class token 300; final norm 600, head 300*3072 + 3072 + 3072*10 + 10.
    let (embedding, head) = (90_000 + 14_700 + 300, 600 + 924_672 + 30_730);
    assert_eq!(embedding + head, 1_061_002);
    for (name, experts, hidden) in [("switch-vit-32", 32, 1010), ("switch-vit-64", 64, 994)] {
        let model = model(name);
        let expert = 2 * 300 * hidden + hidden + 300;
        let dense = 4 * (300 * 300 + 300) + 2 * 600 + 300 * experts + experts;
        assert_eq!(model.layers.len(), 14);
        assert_eq!(model.layers[0].parameter_count(), embedding);
        assert_eq!(model.layers[13].parameter_count(), head);
        for block in &model.layers[1..13] {
            assert_eq!(block.role, LayerRole::Block);
            assert_eq!(block.parameter_count(), dense + experts * expert);
            assert_eq!(block.active_parameters, dense + expert);
            assert_eq!(block.parameters.len() as u64, 8 + 4 * experts + 2 + 4);
        }
        assert_eq!(model.active_parameters(), 1_061_002 + 12 * (dense + expert));
    }
}

#[test]
fn an_expert_narrows_with_their_number() {
    // 12 experts: 1024 - 6 + 2 = 1020 wide.
    let twelve = Overrides::none().with("experts", 12);
    let model = Model::from_catalogue("switch-vit-32", &twelve).unwrap();
    let widest = model.layers[1].parameters.iter().find(|p| p.name == "feed_forward.experts.11.layer1.bias");
    assert_eq!(widest.unwrap().count, 1020);
}

#[test]
fn tied_weights_are_counted_once_and_held_twice() {
    let gpt2 = model("gpt2");
    let head = gpt2.layers.last().unwrap();
    assert_eq!(head.parameter_count(), 2 * 768);
    assert_eq!(head.held_parameter_count(), 2 * 768 + 50_257 * 768);
    assert_eq!(gpt2.active_parameters(), gpt2.parameters());
    assert!(head.parameters.iter().any(|parameter| parameter.tied));
    // Of the Llama models only the small ones of 3.2 tie: a final norm of 2048, and the copy of the embedding.
    let llama = model("llama3.2-1b");
    assert_eq!(llama.layers.last().unwrap().parameter_count(), 2048);
    assert_eq!(llama.layers.last().unwrap().held_parameter_count(), 2048 + 128_256 * 2048);
    assert!(model("llama3-8b").layers.last().unwrap().parameters.iter().all(|parameter| !parameter.tied));
}

#[test]
fn blocks_share_their_parameters_and_signature() {
    let llama = model("llama3-8b");
    assert_eq!(llama.layers.len(), 34);
    assert!(llama.layers[1..33].iter().all(|layer| layer.signature == 1));
    assert!(std::sync::Arc::ptr_eq(&llama.layers[1].parameters, &llama.layers[32].parameters));
}

#[test]
fn overrides_change_the_architecture() {
    // One block of GPT-2: 12 h^2 + 13 h.
    let eleven = Model::from_catalogue("gpt2", &Overrides::none().with("layers", 11)).unwrap();
    assert_eq!(model("gpt2").parameters() - eleven.parameters(), 12 * 768 * 768 + 13 * 768);
    // Four times the pixels a side: the table of positions grows from 197 to 577 rows of 768.
    let larger = Model::from_catalogue("vit_b_16", &Overrides::none().with("image_size", 384)).unwrap();
    assert_eq!(larger.parameters() - model("vit_b_16").parameters(), (577 - 197) * 768);
}
