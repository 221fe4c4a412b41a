//! What tables of runs under FSDP and of fine-tuning leave unsaid: the formats in which FSDP keeps parameters, and the
//! adapters of LoRA.

use std::fmt::Write;

use super::measurement::Measurement;
use super::pipeline::number_after;

/// Rank and targets of adapters where a row does not say them: those of NVIDIA's NeMo (`lora_tuning.adapter_dim`, on the
/// packed queries, keys and values), and of the package PEFT (`LoraConfig.r`, and its targets of Llama's kind).
const NEMO: (u64, &str) = (32, r#"["q_proj", "k_proj", "v_proj"]"#);
const PEFT: (u64, &str) = (8, r#"["q_proj", "v_proj"]"#);

/// Tokens of a document where NVIDIA fine-tunes for its tables: they pack SQuAD 1.1 into sequences of 4,096 tokens (NeMo,
/// docs/source/performance/performance_summary.md). Its passages have 120 words, questions 10, and answers 3 (Rajpurkar et
/// al. 2016); with the words of the prompt and four tokens to three words some 190, an estimate. The rates beside them count
/// no attention, which is next to nothing then (LLAMA2-7B: 682 TFLOP/s at 17,120 tokens/s are 39.8 GFLOP a token, 6 for each
/// parameter), as those of pre-training do (46.1).
const SQUAD: u64 = 190;

/// Keys of `[workload]`.
pub(super) fn workload(row: &Measurement, precision: &str) -> String {
    let mut text = String::new();
    if row.framework.starts_with("NeMo") && packs(row) {
        let _ = writeln!(text, "document_length = {SQUAD}");
    }
    if trains_adapters(row) {
        text += &adapters(row);
    } else if is_fsdp(row) && matches!(precision, "bf16" | "fp16") {
        // FSDP's shards, their gradients and their states are 32-bit, whatever its mixed precision gathers.
        text += "parameter_dtype = \"fp32\"\n";
    }
    text
}

/// Whether a row's samples are those of a set for fine-tuning, packed into sequences of one length.
fn packs(row: &Measurement) -> bool {
    let tunes = row.task == "SFT" || trains_adapters(row);
    tunes && row.attention == "flash" && row.seq_len.is_some_and(|length| length > SQUAD)
}

/// Whether a row trains low-rank adapters beside a frozen model.
fn trains_adapters(row: &Measurement) -> bool {
    [&row.task, &row.notes, &row.framework].iter().any(|text| text.to_ascii_lowercase().contains("lora"))
}

fn adapters(row: &Measurement) -> String {
    let (usual, targets) = if row.framework.starts_with("NeMo") { NEMO } else { PEFT };
    let notes = row.notes.to_ascii_lowercase();
    let written = ["rank ", "rank=", "rank = ", "r="].iter().find_map(|words| number_after(&notes, words));
    let rank = written.filter(|rank| *rank > 0).unwrap_or(usual);
    // Layers of other families than Llama's have other names.
    let named =
        row.gated_mlp != Some(false) && !notes.contains("all-linear") && !notes.contains("all linear");
    if named {
        format!("lora = {{ rank = {rank}, targets = {targets} }}\n")
    } else {
        format!("lora = {{ rank = {rank} }}\n")
    }
}

/// Whether a row's parameters are sharded by FSDP: neither by DeepSpeed nor by Megatron-LM, nor by the trainer whose
/// tables say it themselves.
fn is_fsdp(row: &Measurement) -> bool {
    let others = ["deepspeed", "megatron", "nemo", "llm-foundry"];
    let framework = row.framework.to_ascii_lowercase();
    row.zero_stage == 3 && !others.iter().any(|name| framework.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_are_told_from_whole_models() {
        let row = |task: &str, framework: &str, notes: &str| Measurement {
            task: task.to_owned(),
            framework: framework.to_owned(),
            notes: notes.to_owned(),
            gated_mlp: Some(true),
            ..Measurement::default()
        };
        assert_eq!(workload(&row("SFT", "NeMo 24.07", ""), "bf16"), "");
        let packed = |task, framework, seq_len| {
            let row = Measurement {
                attention: "flash".to_owned(),
                seq_len: Some(seq_len),
                ..row(task, framework, "")
            };
            workload(&row, "bf16").contains("document_length = 190\n")
        };
        assert!(packed("SFT", "NeMo 24.07", 4096) && packed("LoRA", "NeMo 25.09", 4096));
        assert!(!packed("pretrain", "NeMo 24.07", 4096) && !packed("SFT", "NeMo 24.07", 128));
        assert!(!packed("SFT", "axolotl", 4096));
        let nemo = workload(&row("LoRA", "NeMo 24.07", "fsdp=nan"), "fp8");
        assert_eq!(nemo, "lora = { rank = 32, targets = [\"q_proj\", \"k_proj\", \"v_proj\"] }\n");
        let peft = workload(&row("train", "transformers 4.40, peft", "LoRA rank 16"), "bf16");
        assert_eq!(peft, "lora = { rank = 16, targets = [\"q_proj\", \"v_proj\"] }\n");
        let all = workload(&row("LoRA", "axolotl", "r=64, all-linear"), "bf16");
        assert_eq!(all, "lora = { rank = 64 }\n");
    }

    #[test]
    fn shards_of_fsdp_are_wide() {
        let row = |framework: &str, zero_stage| Measurement {
            framework: framework.to_owned(),
            zero_stage,
            ..Measurement::default()
        };
        assert_eq!(workload(&row("torchtitan", 3), "bf16"), "parameter_dtype = \"fp32\"\n");
        for (framework, stage, precision) in
            [("torchtitan", 3, "fp32"), ("pytorch ddp", 0, "bf16"), ("DeepSpeed", 3, "bf16")]
        {
            assert_eq!(workload(&row(framework, stage), precision), "", "{framework}");
        }
    }
}
