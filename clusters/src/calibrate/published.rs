//! Kernels that are published as shares of a peak: the system files of SimuMax (MooreThreads/SimuMax, `configs/system`), JSON in
//! which `accelerator.op` holds, by operation, a rate (`tflops`) and a map from the shape of a kernel to the share of that rate
//! that it reached (`accurate_efficient_factor`).
//!
//! Operations that are counted: a matrix product 2 m n k, causal attention's forward without the half that its mask saves, its
//! backward twice as many. Attention of long sequences would pass the peak otherwise.

use serde::Deserialize;
use serde_json::{Map, Value};
use steptime_models::{AttentionShape, Dtype, FlashGeneration, Pass};

use super::rows::{AttentionRow, GemmRow, Rows, RowsError};
use crate::catalogue::{GPU_ALIASES, gpu_names};
use crate::price::GemmShape;

/// How the source of such rows begins.
pub(super) const SOURCE: &str = "SimuMax";
/// Shares count with so many digits behind the point: the next one is a thousandth of the scatter of repeated measurements.
const DIGITS: f64 = 1e4;

#[derive(Deserialize)]
struct System {
    sys_name: String,
    accelerator: Accelerator,
}

#[derive(Deserialize)]
struct Accelerator {
    op: Operations,
}

#[derive(Deserialize)]
struct Operations {
    matmul: Option<Shares>,
    sdp_fwd: Option<Shares>,
    sdp_bwd: Option<Shares>,
}

#[derive(Deserialize)]
struct Shares {
    tflops: f64,
    accurate_efficient_factor: Map<String, Value>,
}

/// Whether a file is JSON and no table.
pub(super) fn is_system(text: &[u8]) -> bool {
    text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// One entry of a map of shares.
struct Entry<'a> {
    key: &'a str,
    /// FLOP/s that were reached.
    rate: f64,
}

impl<'a> Entry<'a> {
    fn of(shares: &'a Shares) -> impl Iterator<Item = Result<Self, RowsError>> + 'a {
        shares.accurate_efficient_factor.iter().map(|(key, value)| {
            let share = value.as_f64().map(|share| (share * DIGITS).round() / DIGITS);
            let rate = share.map(|share| share * shares.tflops * 1e12).filter(|rate| *rate > 0.0);
            match rate {
                Some(rate) => Ok(Self { key, rate }),
                None => Err(wrong(key, "a share of the rate above 0")),
            }
        })
    }

    fn field(&self, name: &str) -> Option<&'a str> {
        let fields = self.key.split(',').filter_map(|field| field.trim().split_once('='));
        fields.into_iter().find(|(found, _)| *found == name).map(|(_, value)| value)
    }

    fn number(&self, name: &'static str) -> Result<u64, RowsError> {
        let number = self.field(name).and_then(|text| text.parse().ok());
        let number = number.filter(|number| (1..=1 << 31).contains(number));
        number.ok_or_else(|| wrong(self.key, "whole numbers from 1 to 2147483648 for each size of the shape"))
    }
}

fn wrong(key: &str, expected: &'static str) -> RowsError {
    RowsError::Entry { key: key.to_owned(), expected }
}

/// The GPU that the name of a system begins with, or the name itself.
fn gpu_of(system: &str) -> String {
    let ends = system.match_indices('_').map(|(at, _)| at).chain([system.len()]);
    let known = |name: &str| {
        let name = name.replace('_', "-");
        let alias = GPU_ALIASES.iter().find(|(other, _)| *other == name).map(|&(_, name)| name);
        alias.or_else(|| gpu_names().into_iter().find(|own| *own == name))
    };
    let found = ends.filter_map(|end| known(system.get(..end)?)).next_back();
    found.unwrap_or(system).to_owned()
}

impl Rows {
    /// Adds the kernels of a system file: plain products in bf16 (`matmul` without `accumulate`: one that adds to a gradient moves
    /// that as well) and causal attention forward and backward (`sdp_fwd`, `sdp_bwd`; with operands that are contiguous).
    ///
    /// # Errors
    /// [`RowsError`] with the line, or with the entry.
    pub fn read_system(&mut self, text: &[u8]) -> Result<(), RowsError> {
        let System { sys_name, accelerator: Accelerator { op } } = serde_json::from_slice(text)?;
        let gpu = gpu_of(&sys_name);
        let source = format!("{SOURCE} (configs/system/{sys_name}.json)");
        for entry in op.matmul.iter().flat_map(Entry::of) {
            let entry = entry?;
            if entry.field("accumulate") == Some("True") {
                self.skipped_entries += 1;
                continue;
            }
            let shape = GemmShape {
                batch: entry.number("b")?,
                m: entry.number("m")?,
                n: entry.number("n")?,
                k: entry.number("k")?,
                dtype: Dtype::Bf16,
            };
            let seconds = shape.flops() / entry.rate;
            self.gemm.push(GemmRow { gpu: gpu.clone(), shape, seconds, source: source.clone() });
        }
        for (shares, pass, factor) in [(&op.sdp_fwd, Pass::Forward, 1.0), (&op.sdp_bwd, Pass::Backward, 2.0)]
        {
            for entry in shares.iter().flat_map(Entry::of) {
                let entry = entry?;
                if entry.field("qkv_contiguous") == Some("False") {
                    self.skipped_entries += 1;
                    continue;
                }
                let shape = attention(&entry, pass)?;
                let square = shape.query_length as f64 * shape.key_length as f64;
                let widths = (shape.head_dim + shape.value_dim) as f64;
                let counted = factor * 2.0 * (shape.batch * shape.heads) as f64 * square * widths;
                let seconds = counted / entry.rate;
                self.attention.push(AttentionRow {
                    gpu: gpu.clone(),
                    shape,
                    seconds,
                    source: source.clone(),
                });
            }
        }
        Ok(())
    }
}

fn attention(entry: &Entry<'_>, pass: Pass) -> Result<AttentionShape, RowsError> {
    let length = entry.number("seq_len")?;
    Ok(AttentionShape {
        batch: entry.number("batch")?,
        heads: entry.number("head_num")?,
        kv_heads: entry.number("kv_head_num")?,
        query_length: length,
        key_length: length,
        head_dim: entry.number("qk_head_dim")?,
        value_dim: entry.number("v_head_dim")?,
        window: 0,
        causal: true,
        pass,
        dtype: Dtype::Bf16,
        generation: FlashGeneration::Current,
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::*;
    use crate::calibrate::gpu;
    use crate::catalogue::gpu_from_catalogue;
    use crate::price::{attention, gemm};

    fn system(matmul: &str, forward: &str, backward: &str) -> String {
        let op = |name: &str, entries: &str| {
            format!("\"{name}\": {{ \"tflops\": 100.0, \"accurate_efficient_factor\": {{ {entries} }} }}")
        };
        format!(
            "{{ \"sys_name\": \"b200_bf16_test\", \"accelerator\": {{ \"op\": {{ {}, {}, {} }} }} }}",
            op("matmul", matmul),
            op("sdp_fwd", forward),
            op("sdp_bwd", backward),
        )
    }

    /// 2 x 1000 x 2000 x 500 operations at half of 100 TFLOP/s take 40 us; attention of one head of 64 and 96 over 1,000 tokens
    /// 2 x 10^6 x 160 at a quarter 12.8 us, its backward of twice as many at a fifth 32 us.
    #[test]
    fn shares_are_times() {
        let head = "\"batch=1, seq_len=1000, head_num=1, kv_head_num=1, qk_head_dim=64, v_head_dim=96, qkv_contiguous=True\"";
        let matmul = "\"b=1, m=1000, k=500, n=2000, layout=TN, accumulate=False, out_dtype=bf16\": 0.500001,\
                      \"b=1, m=9, k=9, n=9, layout=NT, accumulate=True, out_dtype=fp32\": 0.1";
        let text = system(matmul, &format!("{head}: 0.25"), &format!("{head}: 0.2"));
        let mut rows = Rows::default();
        rows.read(text.as_bytes()).unwrap();
        assert_eq!((rows.gemm.len(), rows.attention.len(), rows.skipped_entries), (1, 2, 1));
        assert_eq!(rows.gpus(), ["b200"]);
        let close = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-12, "{found}");
        close(rows.gemm[0].seconds, 40e-6);
        close(rows.attention[0].seconds, 12.8e-6);
        close(rows.attention[1].seconds, 32e-6);
    }

    #[test]
    fn wrong_entries_are_named() {
        let refused = |text: &str| Rows::default().read(text.as_bytes()).unwrap_err().to_string();
        let shape = "b=1, m=8, k=8, layout=TN";
        let error = refused(&system(&format!("\"{shape}\": 0.5"), "", ""));
        assert_eq!(
            error,
            "`b=1, m=8, k=8, layout=TN`: expected whole numbers from 1 to 2147483648 for each size of the shape"
        );
        let error = refused(&system("\"b=1, m=8, k=8, n=8\": -1", "", ""));
        assert_eq!(error, "`b=1, m=8, k=8, n=8`: expected a share of the rate above 0");
        assert!(refused("{ \"sys_name\": 3 }").contains("line 1 column"));
    }

    /// What the catalogue's B200 would have shown comes back from a fit to it.
    #[test]
    fn a_known_gpu_is_found_again() {
        let b200 = gpu_from_catalogue("b200").unwrap();
        let (mut products, mut forward, mut backward) = (String::new(), String::new(), String::new());
        for (m, n, k) in [1024, 3000, 7168, 20_480, 40_960].into_iter().flat_map(|m| {
            let sizes = [512, 1536, 4096, 9216, 16_384, 28_672];
            sizes.into_iter().flat_map(move |n| sizes.into_iter().map(move |k| (m, n, k)))
        }) {
            let shape = GemmShape { batch: 1, m, n, k, dtype: Dtype::Bf16 };
            let share = shape.flops() / gemm(&b200, shape).unwrap().seconds / 1e14;
            let comma = if products.is_empty() { "" } else { "," };
            write!(products, "{comma}\"b=1, m={m}, k={k}, n={n}, accumulate=False\": {share}").unwrap();
        }
        for (heads, length) in [4, 16, 40, 64, 128].into_iter().flat_map(|heads| {
            [2048, 4096, 8192, 16_384, 32_768, 65_536].into_iter().map(move |length| (heads, length))
        }) {
            let key = format!(
                "batch=1, seq_len={length}, head_num={heads}, kv_head_num={heads}, qk_head_dim=128, v_head_dim=128"
            );
            for (pass, entries, factor) in
                [(Pass::Forward, &mut forward, 1.0), (Pass::Backward, &mut backward, 2.0)]
            {
                let entry = Entry { key: &key, rate: 1.0 };
                let seconds = attention(&b200, super::attention(&entry, pass).unwrap()).unwrap().seconds;
                let share =
                    factor * 2.0 * f64::from(heads) * f64::from(length).powi(2) * 256.0 / seconds / 1e14;
                let comma = if entries.is_empty() { "" } else { "," };
                write!(entries, "{comma}\"{key}\": {share}").unwrap();
            }
        }
        let mut rows = Rows::default();
        rows.read(system(&products, &forward, &backward).as_bytes()).unwrap();
        let fit = gpu(&b200, &rows);
        assert_eq!(fit.tables.len(), 2, "{:?}", fit.short);
        for (path, report) in fit.report() {
            assert!(report.after().median < 0.05, "{path}: {:?}", report.after());
        }
        assert!(fit.to_toml().contains("shapes of SimuMax (configs/system/b200_bf16_test.json)"));
    }
}
