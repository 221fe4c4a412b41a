//! Parameter counts of published models.

use steptime_models::catalogue_names;

use crate::model;

const HF: &str = "Hugging Face, parameters of the model's card";
const HEADER: &str = "Hugging Face, sum over the checkpoint; the tied projection once";
const FOUNDRY: &str = "mosaicml/llm-foundry, scripts/train/benchmarking/README.md, NumParams at 2,048 tokens";
const WORKED_OUT: &str = "worked out from the configuration; the rounded one is in PRINTED";

/// Entry, parameters, where the number is from.
pub(crate) const PUBLISHED: [(&str, u64, &str); 95] = [
    // 30522 h + 512 h + 2 h + 2 h; a layer 4 (h^2 + h) + 2 h f + f + h + 4 h; pooler h^2 + h.
    ("bert-base", 109_482_240, HF),
    ("bert-large", 335_141_888, HF),
    ("roberta-base", 124_645_632, HF),
    ("contriever", 109_482_240, HF),
    ("all-minilm-l6-v2", 22_713_216, HF),
    ("all-minilm-l12-v2", 33_360_000, HF),
    ("paraphrase-minilm-l3-v2", 17_389_824, HF),
    ("paraphrase-multilingual-minilm-l12-v2", 117_653_760, HF),
    // The encoders above, the module (see the tests of it) and its frozen reference of 184,961.
    ("minilm-l6-maw", 22_713_216 + 1_169_153 + 184_961, "MAW transformers repository, module TokenLevelMAW"),
    (
        "contriever-maw",
        109_482_240 + 3_332_993 + 184_961,
        "MAW transformers repository, module TokenLevelMAW",
    ),
    // 50272 h + 2050 h + l (12 h^2 + 13 h) + 2 h.
    ("opt-125m", 125_239_296, HEADER),
    ("opt-350m", 331_196_416, HEADER),
    ("opt-1.3b", 1_315_758_080, HEADER),
    ("opt-2.7b", 2_651_596_800, HEADER),
    ("opt-6.7b", 6_658_473_984, HEADER),
    ("opt-13b", 12_853_473_280, HEADER),
    ("opt-30b", 29_974_540_288, HEADER),
    ("opt-66b", 65_719_701_504, WORKED_OUT),
    ("opt-175b", 174_604_468_224, WORKED_OUT),
    // 50432 h + l (12 h^2 + 2 h) + h.
    ("mpt-7b", 6_649_286_656, HF),
    ("mpt-30b", 29_957_200_896, WORKED_OUT),
    // 50368 h + 2048 h + l (12 h^2 + 13 h) + 2 h.
    ("llm-foundry-125m", 125_311_488, FOUNDRY),
    ("llm-foundry-350m", 355_985_408, FOUNDRY),
    ("llm-foundry-760m", 760_470_528, FOUNDRY),
    ("llm-foundry-1b", 1_315_950_592, FOUNDRY),
    ("llm-foundry-3b", 2_651_837_440, FOUNDRY),
    ("llm-foundry-7b", 6_658_859_008, FOUNDRY),
    ("llm-foundry-13b", 12_853_954_560, FOUNDRY),
    ("llm-foundry-30b", 29_975_214_080, FOUNDRY),
    ("llm-foundry-70b", 64_862_437_376, FOUNDRY),
    // 2 v h; a layer: queries and output 64 heads, keys and values 8, of 64 values, with biases; 64 sinks; a router and E
    // experts of h x 2 h and h x h with biases.
    ("gpt-oss-20b", 20914757184, "gpt-oss model card, table 1: 20.91 B"),
    ("gpt-oss-120b", 116829156672, "gpt-oss model card, table 1: 116.83 B"),
    ("qwen2-0.5b", 494_032_768, HF),
    ("qwen2-1.5b", 1_543_714_304, HF),
    ("qwen2-7b", 7_615_616_512, HF),
    ("qwen2-72b", 72_706_203_648, HF),
    ("qwen2-57b-a14b", 57_408_658_944, WORKED_OUT),
    ("qwen2.5-0.5b", 494_032_768, HF),
    ("qwen2.5-1.5b", 1_543_714_304, HF),
    ("qwen2.5-3b", 3_085_938_688, HF),
    ("qwen2.5-7b", 7_615_616_512, HF),
    ("qwen2.5-14b", 14_770_033_664, HF),
    ("qwen2.5-32b", 32_763_876_352, HF),
    ("qwen2.5-72b", 72_706_203_648, HF),
    ("qwen3-0.6b", 596_049_920, HEADER),
    ("qwen3-1.7b", 1_720_574_976, HEADER),
    ("qwen3-4b", 4_022_468_096, HF),
    ("qwen3-8b", 8_190_735_360, HF),
    ("qwen3-14b", 14_768_307_200, HF),
    ("qwen3-32b", 32_762_123_264, HF),
    ("qwen3-30b-a3b", 30_532_122_624, HF),
    ("qwen3-235b-a22b", 235_093_634_560, HF),
    ("mixtral-8x7b", 46_702_792_704, HF),
    ("mixtral-8x22b", 140_620_634_112, HF),
    ("gemma2-2b", 2_614_341_888, HF),
    ("gemma2-9b", 9_241_705_984, HF),
    ("gemma2-27b", 27_227_128_320, HF),
    ("deepseek-v2", 235_741_434_880, HF),
    ("deepseek-v2-lite", 15_706_484_224, HF),
    // With one correction value for each of 58 * 256 experts.
    ("deepseek-v3", 671_026_419_200, WORKED_OUT),
    // 64 layers of 8 * 3 * 6144 * 32768 + 2 * 6144 * 7168 + 6144 * 8 + 4 * 6144, 131072 * 6144 + 6144. The announcement
    // says 314 billion.
    ("grok-1", 315_684_820_992, "worked out from the released code"),
    ("nemotron-4-15b", 15_628_775_424, WORKED_OUT),
    ("nemotron-4-340b", 341_029_195_776, WORKED_OUT),
    ("gpt-neox-20b", 20_554_567_680, HEADER),
    ("pythia-70m", 70_426_624, "Biderman et al. 2023, table 1"),
    ("pythia-160m", 162_322_944, "Biderman et al. 2023, table 1"),
    ("pythia-410m", 405_334_016, "Biderman et al. 2023, table 1"),
    ("pythia-1b", 1_011_781_632, "Biderman et al. 2023, table 1"),
    ("pythia-1.4b", 1_414_647_808, "Biderman et al. 2023, table 1"),
    ("pythia-2.8b", 2_775_208_960, "Biderman et al. 2023, table 1"),
    ("pythia-6.9b", 6_857_302_016, "Biderman et al. 2023, table 1"),
    ("pythia-12b", 11_846_072_320, "Biderman et al. 2023, table 1"),
    ("t5-small", 60_506_624, HF),
    ("t5-base", 222_903_552, HF),
    ("t5-large", 737_668_096, HF),
    ("t5-3b", 2_851_598_336, HEADER),
    ("t5-11b", 11_307_321_344, HEADER),
    ("flan-t5-small", 76_961_152, HF),
    ("flan-t5-base", 247_577_856, HF),
    ("flan-t5-large", 783_150_080, HF),
    ("flan-t5-xl", 2_849_757_184, HF),
    ("flan-t5-xxl", 11_135_332_352, HF),
    // T5-base with 12 more feed-forwards of 2 * 768 * 3072 for each expert beyond the first, and routers of 768 values
    // an expert.
    ("switch-base-8", 619_339_008, WORKED_OUT),
    ("switch-base-16", 1_072_397_568, WORKED_OUT),
    ("switch-base-32", 1_978_514_688, WORKED_OUT),
    ("switch-base-64", 3_790_748_928, WORKED_OUT),
    ("switch-base-128", 7_415_217_408, WORKED_OUT),
    ("switch-base-256", 14_664_154_368, WORKED_OUT),
    ("switch-c", 1_571_308_972_448, WORKED_OUT),
    ("llama1-7b", 6_738_415_616, HF),
    ("llama1-13b", 13_015_864_320, HF),
    ("llama1-30b", 32_528_943_616, HF),
    ("llama1-65b", 65_285_660_672, HF),
    ("llama3.3-70b", 70_553_706_496, HF),
    // The formula of the other GPT-3 models; see the note in the entry.
    ("gpt3-13b", 12_853_386_240, "Brown et al. 2020, tables 2.1 and D.1"),
];

/// Entry, parameters as printed, one of the last printed digit, where.
const PRINTED: [(&str, u64, u64, &str); 18] = [
    ("opt-66b", 66, BILLION, "Zhang et al. 2022, table 1"),
    ("opt-175b", 175, BILLION, "Zhang et al. 2022, table 1"),
    ("mpt-30b", 30, BILLION, "model card of mosaicml/mpt-30b"),
    ("qwen2-57b-a14b", 57, BILLION, "Qwen2 Technical Report, table 1"),
    ("qwen3-30b-a3b", 305, BILLION / 10, "model card of Qwen/Qwen3-30B-A3B"),
    ("qwen3-235b-a22b", 235, BILLION, "model card of Qwen/Qwen3-235B-A22B"),
    ("deepseek-v2", 236, BILLION, "DeepSeek-V2, abstract"),
    ("deepseek-v2-lite", 157, BILLION / 10, "DeepSeek-V2, appendix B"),
    ("deepseek-v3", 671, BILLION, "DeepSeek-V3 Technical Report, abstract"),
    ("nemotron-4-340b", 341, BILLION, "Nemotron-4 340B: 9.4 billion embedding and 331.6 other parameters"),
    ("nemotron-4-15b", 156, BILLION / 10, "Nemotron-4 15B: 3.2 billion embedding and 12.5 other parameters"),
    ("gpt-neox-20b", 20_554_567_680, 1, "Black et al. 2022, section 2"),
    ("switch-base-8", 62, BILLION / 100, "model card of google/switch-base-8"),
    ("switch-base-128", 74, BILLION / 10, "Fedus et al. 2022, table 9"),
    ("switch-base-256", 147, BILLION / 10, "Fedus et al. 2022, table 1"),
    ("switch-c", 1571, BILLION, "Fedus et al. 2022, table 9"),
    ("gpt3-13b", 1285, BILLION / 100, "Brown et al. 2020, table D.1"),
    ("llama1-65b", 652, BILLION / 10, "Touvron et al. 2023, table 2"),
];

/// Entry, parameters that a token uses as printed, one of the last printed digit, and whether the printed number leaves
/// out the table that tokens are looked up in. Some authors round, others cut off: the numbers agree to within one of the
/// last digit.
const ACTIVE: [(&str, u64, u64, bool); 9] = [
    ("mixtral-8x7b", 129, BILLION / 10, false),
    ("mixtral-8x22b", 39, BILLION, false),
    ("qwen2-57b-a14b", 14, BILLION, false),
    ("qwen3-30b-a3b", 33, BILLION / 10, false),
    ("qwen3-235b-a22b", 22, BILLION, false),
    ("deepseek-v2", 21, BILLION, false),
    ("deepseek-v2-lite", 24, BILLION / 10, true),
    ("deepseek-v3", 37, BILLION, false),
    // The same FLOPs a token as T5-base, whose size it has without the experts.
    ("switch-base-8", 223, BILLION / 1000, false),
];

const BILLION: u64 = 1_000_000_000;

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
        let apart = parameters.abs_diff(printed * digit);
        assert!(apart < digit, "{name}: {parameters}, {source}");
    }
}

#[test]
fn a_token_uses_the_printed_part() {
    for (name, printed, digit, without_table) in ACTIVE {
        let model = model(name);
        let table = if without_table { model.layers[0].parameter_count() } else { 0 };
        let active = model.active_parameters() - table;
        assert!(active.abs_diff(printed * digit) < digit, "{name}: {active}");
        assert!(model.active_parameters() < model.parameters(), "{name}");
    }
}

#[test]
fn aliases_are_the_same_model() {
    assert_eq!(model("mt-nlg-530b").name, "megatron-530b");
    assert!(!catalogue_names().contains(&"mt-nlg-530b"));
}

#[test]
fn modules_have_the_names_of_their_implementation() {
    let names = |model: &str, layer: usize| -> Vec<(String, Vec<u64>)> {
        let layer = &crate::model(model).layers[layer];
        layer.parameters.iter().map(|it| (it.name.clone(), it.dimensions.clone())).collect()
    };
    let has = |model: &str, layer: usize, name: &str, dimensions: &[u64]| {
        let found = names(model, layer);
        assert!(
            found.iter().any(|(other, sizes)| other == name && sizes == dimensions),
            "{model}: {found:?}"
        );
    };
    has("bert-base", 0, "embeddings.token_type_embeddings.weight", &[2, 768]);
    has("bert-base", 1, "attention.self.query.weight", &[768, 768]);
    has("bert-base", 1, "intermediate.dense.bias", &[3072]);
    has("bert-base", 13, "pooler.dense.weight", &[768, 768]);
    has("opt-350m", 0, "project_in.weight", &[1024, 512]);
    has("opt-350m", 25, "project_out.weight", &[512, 1024]);
    has("opt-125m", 0, "embed_positions.weight", &[2050, 768]);
    has("mpt-7b", 1, "attn.Wqkv.weight", &[12_288, 4096]);
    has("mixtral-8x7b", 1, "block_sparse_moe.experts.7.w2.weight", &[4096, 14_336]);
    has("qwen3-8b", 1, "self_attn.q_norm.weight", &[128]);
    has("qwen2-57b-a14b", 1, "mlp.shared_expert.gate_proj.weight", &[20_480, 3584]);
    has("qwen2-57b-a14b", 1, "mlp.shared_expert_gate.weight", &[1, 3584]);
    has("gemma2-2b", 1, "post_feedforward_layernorm.weight", &[2304]);
    has("deepseek-v3", 1, "mlp.gate_proj.weight", &[18_432, 7168]);
    has("deepseek-v3", 4, "mlp.gate.e_score_correction_bias", &[256]);
    has("deepseek-v3", 4, "self_attn.kv_a_proj_with_mqa.weight", &[576, 7168]);
    has("deepseek-v3", 4, "self_attn.kv_b_proj.weight", &[32_768, 512]);
    has("t5-base", 1, "layer.0.SelfAttention.relative_attention_bias.weight", &[32, 12]);
    has("t5-base", 14, "layer.1.EncDecAttention.k.weight", &[768, 768]);
    has("flan-t5-base", 14, "layer.2.DenseReluDense.wi_1.weight", &[2048, 768]);
    has("switch-base-8", 2, "layer.1.mlp.experts.expert_7.wi.weight", &[3072, 768]);
    // Every other block has experts, and only the first of a stack the table of distances.
    assert!(!names("switch-base-8", 1).iter().any(|(name, _)| name.contains("expert")));
    assert!(!names("t5-base", 2).iter().any(|(name, _)| name.contains("relative")));
}
