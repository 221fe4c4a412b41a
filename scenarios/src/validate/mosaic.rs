//! What tables of MosaicML's trainer (Composer with FSDP and autocast) leave unsaid: it follows from the year of the
//! software and from the mode of mixed precision, both stated.

use std::fmt::Write;

use super::measurement::Measurement;

/// How a run of the trainer computes and exchanges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mosaic {
    /// Parameters are gathered in 32 bits and converted by autocast, or gathered in 16.
    gathers_wide: bool,
    /// Norms stay in 16 bits.
    low_precision_norms: bool,
    /// Whose kernels compute the attention: the first FlashAttention's, Triton's after them, or the second's, which came
    /// in the middle of 2023.
    attention: &'static str,
    /// The loss is flash-attn's (`loss_fn = "fused_crossentropy"`, the default since it came), not PyTorch's.
    fuses_loss: bool,
    /// Attention gets its tokens without padding.
    pub(super) unpads: bool,
}

impl Mosaic {
    /// Language cross-entropy and perplexity, which the trainer follows of every micro-batch of training.
    const METRICS: u64 = 2;

    /// Of a row of that trainer, told by its framework.
    ///
    /// Composer's mode DEFAULT kept parameters in 32 bits and reduced in 16 until the trainer became a repository of its
    /// own in 2023; since then it gathers in 16 bits like PURE. Low-precision layer norms and
    /// the fused loss came at the same time.
    pub(super) fn of(row: &Measurement) -> Option<Self> {
        let year = row.framework.strip_prefix("llm-foundry ")?;
        let pure = row.notes.contains("mixed precision PURE");
        let early = year == "2022" || row.source.contains(":examples/") && !pure;
        Some(Self {
            gathers_wide: early,
            low_precision_norms: !early,
            fuses_loss: !early,
            attention: match year {
                _ if early => "flash-1",
                "2023" => "flash-triton",
                _ => "flash",
            },
            unpads: early,
        })
    }

    /// Keys of `[workload]`.
    pub(super) fn workload(self) -> String {
        let mut text = format!("autocast = true\nloss_metrics = {}\n", Self::METRICS);
        if self.fuses_loss {
            text += "cross_entropy = \"flash-attn\"\n";
        }
        if self.low_precision_norms {
            text += "low_precision_norms = true\n";
        }
        let _ = writeln!(text, "attention = \"{}\"", self.attention);
        text
    }

    /// Keys of `[parallelism]`.
    pub(super) fn exchange(self, precision: &str) -> String {
        let half = if precision == "fp16" { "fp16" } else { "bf16" };
        let gather = if self.gathers_wide { "fp32" } else { half };
        let mut text = String::new();
        let _ = write!(text, "gather_dtype = \"{gather}\"\nreduce_dtype = \"{half}\"\n");
        text
    }
}
