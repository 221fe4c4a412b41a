//! Step times and the order of schedules of the zero-bubble paper's runs.
//!
//! Qi et al. 2024, Zero Bubble Pipeline Parallelism, table 4: samples per GPU and second of GPTs (table 3) over 8 stages, one
//! A100 80 GB each. The vocabulary is that of the published code's tokenizer, which the models' sizes agree with.

use crate::support::{Case, number};

const CASE: &str = r#"
[model]
file = "model.toml"
sequence_length = 1024

[cluster]
name = "a100-80gb-roce"
gpus_per_node = 8

[workload]
micro_batch_size = 1
gradient_accumulation_steps = 24
precision = "fp16"
optimizer = "adam"
attention = "eager"
framework = "megatron"
fused_kernels = "transformer-engine"
transformer_implementation = "local"
gradient_accumulation_fusion = true
check_for_nan = false
attention_mask = true

[parallelism]
pipeline = 8
count_embedding_as_layer = true
count_head_as_layer = true
"#;

fn model(layers: u64, hidden: u64, heads: u64) -> String {
    format!(
        "name = \"gpt\"\nsource = \"Qi et al. 2024, table 3\"\nfamily = \"transformer\"\n\n[architecture]\n\
         layers = {layers}\nhidden = {hidden}\nheads = {heads}\nfeed_forward = {}\nvocabulary = 32000\n\
         positions = 1024\ntied = true\nposition = \"learned\"\nnorm = \"layer\"\nactivation = \"gelu\"\n\
         gated = false\nqkv_bias = true\nprojection_bias = true\nmlp_bias = true\ndropout = true\n",
        4 * hidden
    )
}

/// A model of table 3, samples of a micro-batch, micro-batches, and the figures of table 4 by schedule.
type Runs = ([u64; 3], u64, u64, [f64; 4]);

const SCHEDULES: [&str; 4] = ["zb-2p", "zb-1p", "1f1b", "1f1b, a layer a chunk"];
const RUNS: [Runs; 4] = [
    ([22, 2304, 24], 6, 24, [14.5, 12.9, 11.8, 13.1]),
    ([22, 2304, 24], 6, 64, [14.9, 14.2, 13.6, 13.9]),
    ([30, 4096, 32], 3, 24, [4.32, 3.88, 3.50, 4.01]),
    ([30, 4096, 32], 3, 64, [4.39, 4.20, 4.03, 4.19]),
];

#[test]
fn step_times_of_the_paper_are_met_and_its_order_of_schedules_is_kept() {
    let mut errors = Vec::new();
    let (mut pairs, mut right) = (0, 0);
    for ([layers, hidden, heads], samples, micro_batches, measured) in RUNS {
        let case = Case::new(CASE);
        std::fs::write(case.file("model.toml"), model(layers, hidden, heads)).unwrap();
        let batch = [
            format!("workload.micro_batch_size={samples}"),
            format!("workload.gradient_accumulation_steps={micro_batches}"),
        ];
        let predicted = SCHEDULES.map(|name| {
            let way = match name {
                "1f1b, a layer a chunk" => format!("parallelism.virtual_pipeline={}", layers.div_ceil(8)),
                name => format!("parallelism.schedule={name}"),
            };
            let report = case.report(&[&batch[0], &batch[1], &way]);
            number(&report["samples_per_s"]) / 8.0
        });
        for a in 0..4 {
            errors.push((measured[a] / predicted[a] - 1.0).abs());
            for b in 0..a {
                let ratio = measured[a] / measured[b];
                if !(1.0 / 1.03..=1.03).contains(&ratio) {
                    pairs += 1;
                    right += usize::from((predicted[a] > predicted[b]) == (ratio > 1.0));
                }
            }
        }
    }
    errors.sort_by(f64::total_cmp);
    let median = f64::midpoint(errors[7], errors[8]);
    assert!(median <= 0.05, "median error {median}, all {errors:?}");
    assert!(pairs >= 20 && right * 100 >= pairs * 95, "{right} of {pairs} pairs are in the right order");
}
