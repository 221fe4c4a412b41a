//! How a row's layers and passes lie over its pipeline stages, and its batch.

use std::fmt::Write;

use super::measurement::Measurement;

/// No step takes as many tokens: the largest published ones have some tens of millions.
const MOST_TOKENS: u64 = 1 << 30;

/// Sequences a step. Some tables give the tokens of a step in their place: a number that would make more tokens than
/// any step has is one of tokens.
pub(super) fn global_batch(row: &Measurement) -> Option<u64> {
    let global = row.global_batch?;
    let tokens = |length: u64| global.saturating_mul(length) > MOST_TOKENS && global.is_multiple_of(length);
    Some(row.seq_len.filter(|&length| tokens(length)).map_or(global, |length| global / length))
}

/// Micro-batches a step, as far as the row says what it takes to tell.
fn micro_batches(row: &Measurement) -> Option<u64> {
    let others = row.tp.checked_mul(row.pp)?.checked_mul(row.cp)?;
    let data = row.dp.or_else(|| row.nodes.checked_mul(row.gpus_per_node)?.checked_div(others))?;
    global_batch(row)?.checked_div(data.checked_mul(row.micro_batch?)?)
}

/// Whether embedding and head must have counted as layers: Megatron-LM refuses layers that its virtual stages cannot share
/// evenly, unless it is told that (`account_for_embedding_in_pipeline_split`, `account_for_loss_in_pipeline_split`) or how
/// many the ends have.
fn counts_ends(row: &Measurement) -> bool {
    let stages = row.pp.saturating_mul(row.vpp.max(1));
    let told = row.notes.contains("last stage layers ");
    row.layers
        .is_some_and(|layers| !told && !layers.is_multiple_of(stages) && (layers + 2).is_multiple_of(stages))
}

/// Keys of `[parallelism]` about stages and schedule.
pub(super) fn keys(row: &Measurement, megatron: bool) -> Result<String, String> {
    let mut text = String::new();
    if row.pp == 1 {
        return Ok(text);
    }
    if row.notes.contains("first and last stage have one fewer layer") || megatron && counts_ends(row) {
        text += "count_embedding_as_layer = true\ncount_head_as_layer = true\n";
    }
    if let Some(last) = number_after(&row.notes, "last stage layers ") {
        let _ = writeln!(text, "layers_in_last_stage = {last}");
    }
    let mut chunks = row.vpp;
    match row.schedule.as_str() {
        "" | "1f1b" | "interleaved-1f1b" => {}
        "1f1b-i-(1-layer/chunk)" => {
            let layers = row.layers.ok_or("layers is not stated")?;
            chunks = layers.div_ceil(row.pp);
        }
        "interleaved-1f1b-(vpp-not-listed)" => chunks = chunks.max(fewest_chunks(row)),
        name @ ("gpipe" | "zb-h1" | "zb-h2" | "zb-1p" | "zb-2p" | "zb-v" | "v-half" | "v-min") => {
            let _ = writeln!(text, "schedule = \"{name}\"");
        }
        other => return Err(format!("schedule {other}")),
    }
    if chunks > 1 {
        let _ = writeln!(text, "virtual_pipeline = {chunks}");
        if let Some(group) = micro_batches(row).and_then(|count| smallest_group(row.pp, count)) {
            let _ = writeln!(text, "micro_batch_group = {group}");
        }
    }
    Ok(text)
}

/// The smallest number of chunks above 1 that a stage's layers divide into; 1 where there is none.
fn fewest_chunks(row: &Measurement) -> u64 {
    let of_stage = row.layers.and_then(|layers| layers.checked_div(row.pp)).unwrap_or(1);
    (2..=of_stage).find(|&chunks| of_stage.is_multiple_of(chunks)).unwrap_or(1)
}

/// Where the micro-batches do not come in groups of the stages, Megatron-LM has been told another size: the smallest
/// that it takes, which leaves no group smaller than the number of stages.
fn smallest_group(stages: u64, micro_batches: u64) -> Option<u64> {
    let fits = |group: &u64| {
        let rest = micro_batches % group;
        rest == 0 || rest >= stages
    };
    (stages..=micro_batches).find(fits).filter(|&group| group != stages)
}

/// The number behind some words: `last stage layers 4`, `image size 224`.
pub(super) fn number_after(notes: &str, words: &str) -> Option<u64> {
    let (_, rest) = notes.split_once(words)?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_no_step_has_is_one_of_tokens() {
        let row = |global, length| Measurement {
            global_batch: Some(global),
            seq_len: Some(length),
            ..Measurement::default()
        };
        assert_eq!(global_batch(&row(1_048_576, 4096)), Some(256));
        assert_eq!(global_batch(&row(2048, 4096)), Some(2048));
        // DeepSeek-V3, section 4.2: 15,360 sequences of 4,096 tokens, the largest published.
        assert_eq!(global_batch(&row(15_360, 4096)), Some(15_360));
        assert_eq!(
            global_batch(&Measurement { global_batch: Some(1 << 31), ..Measurement::default() }),
            Some(1 << 31)
        );
    }

    /// Llama 3.1 405B has 126 blocks so that 128 layers with embedding and head divide (Llama 3 technical report, section
    /// 3.3.2).
    #[test]
    fn layers_that_do_not_divide_share_with_the_ends() {
        let row = |layers, pp, vpp| Measurement { layers: Some(layers), pp, vpp, ..Measurement::default() };
        assert!(counts_ends(&row(126, 16, 8)) && counts_ends(&row(94, 8, 4)));
        assert!(!counts_ends(&row(128, 16, 8)) && !counts_ends(&row(61, 4, 4)));
        let keys_of = |megatron| keys(&row(126, 8, 1), megatron).unwrap();
        assert!(keys_of(true).contains("count_head_as_layer") && !keys_of(false).contains("count_head"));
    }

    #[test]
    fn megatron_takes_groups_no_smaller_than_the_stages() {
        assert_eq!(smallest_group(4, 8), None);
        assert_eq!(smallest_group(4, 5), Some(5));
        assert_eq!(smallest_group(4, 9), Some(5));
        assert_eq!(smallest_group(4, 3), None);
    }
}
