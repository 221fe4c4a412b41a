//! Measured kernels, read from CSV.

use std::io::Read;

use steptime_models::{AttentionShape, Dtype, FlashGeneration, MemoryBoundKind, Pass};
use thiserror::Error;

use super::published::is_system;
use crate::catalogue::GPU_ALIASES;
use crate::gpu::{FORMATS, Gpu};
use crate::price::GemmShape;
use crate::price::memory::read_again;

/// A table of measurements that cannot be read.
#[derive(Debug, Error)]
pub enum RowsError {
    /// Not a table, or not a readable one.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// A column is missing.
    #[error("line 1: the column `{0}` is missing")]
    Column(&'static str),
    /// None of the tables that are known.
    #[error(
        "line 1: the columns are {0}; a table of matrix products has gpu, dtype, batch, m, n, k, time_us, source, one of \
         attention has gpu, dtype, batch, seq_len, heads, kv_heads, head_dim, time_us, source, one of memory-bound \
         kernels has gpu, dtype, op, rows, width, time_us, source"
    )]
    Unknown(String),
    /// A system file that is no JSON, or of another form.
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    /// An entry of a system file holds something else.
    #[error("`{key}`: expected {expected}")]
    Entry {
        /// The entry's key.
        key: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A column holds something else.
    #[error("line {line}: column `{column}` holds \"{found}\", expected {expected}")]
    Value {
        /// Line of the file, from 1.
        line: u64,
        /// Column.
        column: &'static str,
        /// What stands there.
        found: String,
        /// What should.
        expected: &'static str,
    },
}

/// A measured matrix product.
#[derive(Clone, Debug, PartialEq)]
pub struct GemmRow {
    /// Catalogue name of the GPU, or the table's own name for one that is not known.
    pub gpu: String,
    /// What was computed.
    pub shape: GemmShape,
    /// Measured time.
    pub seconds: f64,
    /// Who published it.
    pub source: String,
}

/// A measured fused attention, forward.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionRow {
    /// Catalogue name of the GPU.
    pub gpu: String,
    /// What was computed.
    pub shape: AttentionShape,
    /// Measured time.
    pub seconds: f64,
    /// Who published it.
    pub source: String,
}

/// A measured memory-bound kernel.
#[derive(Clone, Debug, PartialEq)]
pub struct MemoryRow {
    /// Catalogue name of the GPU.
    pub gpu: String,
    /// Kind of kernel.
    pub kind: MemoryBoundKind,
    /// Bytes that it must read and write.
    pub bytes: f64,
    /// Bytes of them that the kernel before has just written; 0: none.
    pub cached_bytes: f64,
    /// Instructions of its arithmetic, which may take longer on GPUs with little of that.
    pub instructions: f64,
    /// Rows and width of the tensor.
    pub shape: [u64; 2],
    /// Measured time.
    pub seconds: f64,
    /// Who published it.
    pub source: String,
}

/// Measurements of single kernels.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Matrix products.
    pub gemm: Vec<GemmRow>,
    /// Fused attention.
    pub attention: Vec<AttentionRow>,
    /// Memory-bound kernels.
    pub memory: Vec<MemoryRow>,
    /// Rows of memory-bound kernels that were not taken: operations that the models do not know, and times below 5
    /// microseconds.
    pub skipped: usize,
    /// Entries of system files that were not taken: products that add to a gradient, attention of scattered operands.
    pub skipped_entries: usize,
}

/// Kernels that tables name, with their kind and the passes over the tensor that they must make: those of Vidur's tables
/// and those of all others, which call them as NeuSight does (`u` for one operand instead of two). Vidur's norm,
/// SwiGLU, rotary and token embedding hold several kernels or the gaps between them and are left out.
const MEMORY_OPERATIONS: [(&str, &str, MemoryBoundKind, f64); 15] = [
    ("NeuSight", "add", MemoryBoundKind::Elementwise, 3.0),
    ("NeuSight", "mul", MemoryBoundKind::Elementwise, 3.0),
    ("NeuSight", "div", MemoryBoundKind::Elementwise, 3.0),
    ("NeuSight", "pow", MemoryBoundKind::Elementwise, 3.0),
    ("NeuSight", "addu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "mulu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "divu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "powu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "gelu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "relu", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "tanh", MemoryBoundKind::Elementwise, 2.0),
    ("NeuSight", "ln", MemoryBoundKind::Norm, 2.0),
    ("NeuSight", "softmax", MemoryBoundKind::Softmax, 2.0),
    ("vidur", "gelu", MemoryBoundKind::Elementwise, 2.0),
    ("vidur", "residual_add", MemoryBoundKind::Elementwise, 3.0),
];

/// Vidur's sum with the residual adds to what the kernel before it has just written, and finds part of that in the cache: it
/// says something of memory only where the array is about as large as the cache ([`spared`]).
const CACHED: (&str, &str) = ("vidur", "residual_add");
/// How large, in caches: from there on the rule below makes one rate of all sizes on the A100, within 3 %.
const SMALLEST_CACHED: f64 = 0.6;

/// Share of an array of `caches` times the second-level cache that is read from there right after it was written. On the A100 (40 MiB)
/// sums of arrays of 1.1, 1.4 and 1.8 caches are 7.7, 6 and 4.9 % faster than those of 2.5 to 10 caches, whose rates no longer change:
/// of their three arrays one is spared by a fifth, a sixth and a seventh.
fn spared(caches: f64) -> f64 {
    if (SMALLEST_CACHED..FAR_FROM_CACHED).contains(&caches) { 0.24 / caches } else { 0.0 }
}

/// From how many caches on an array's time says what memory gives: the cache spares it nothing any more.
const FAR_FROM_CACHED: f64 = 2.0;
/// Weights of so many caches are read from memory, whatever was there before.
const STREAM: f64 = 10.0;
/// Most rows of a product whose time is that of its weights' way from memory: the arithmetic of tensor cores takes a tenth of it.
const STREAM_ROWS: u64 = 32;
/// Of so many such products the fastest one is left out: one time that was measured too short must not speak for memory.
const STREAMS_LEFT_OUT: usize = 20;

/// The operation whose arithmetic counts, and its instructions a value (those that the models' GELU has).
const GELU: (&str, f64) = ("gelu", 36.0);

/// Tables that round to whole microseconds say nothing useful of shorter memory-bound kernels.
const SHORTEST: f64 = 5e-6;

/// Whether a shape is kept out of fits: one in three, by a hash (FNV-1a) of its numbers.
fn held_out(numbers: &[u64]) -> bool {
    held_out_bytes(numbers.iter().flat_map(|number| number.to_le_bytes()))
}

/// The same of a name.
pub(super) fn held_out_bytes(bytes: impl Iterator<Item = u8>) -> bool {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    // The low bits of FNV-1a repeat for numbers that differ in high bits only.
    (hash >> 32).is_multiple_of(3)
}

impl GemmRow {
    /// Weights that take turns in the measurement before the same ones are read again. aiconfigurator builds five layers
    /// and runs one after the other (collector, `repeat_n = 5`); Vidur runs a model's layers, each with its own; others
    /// repeat one product.
    pub(super) fn turns(&self) -> f64 {
        match self.source.split(':').next() {
            Some("aiconfigurator") => 5.0,
            Some("vidur") => f64::INFINITY,
            _ => 1.0,
        }
    }

    /// Whether the fit leaves this shape for its report.
    pub fn held_out(&self) -> bool {
        let GemmShape { batch, m, n, k, .. } = self.shape;
        held_out(&[batch, m, n, k])
    }
}

impl AttentionRow {
    /// Whether the fit leaves this shape for its report.
    pub fn held_out(&self) -> bool {
        let AttentionShape { batch, heads, kv_heads, key_length, head_dim, .. } = self.shape;
        held_out(&[batch, heads, kv_heads, key_length, head_dim])
    }
}

impl MemoryRow {
    /// Whether the fit leaves this shape for its report.
    pub fn held_out(&self) -> bool {
        held_out(&self.shape)
    }
}

impl Rows {
    /// Adds a table of any kind, known by its columns: see [`Self::read_gemm`], [`Self::read_attention`] and
    /// [`Self::read_memory`]; JSON is taken for a system file, see [`Self::read_system`].
    ///
    /// # Errors
    /// [`RowsError`] with the line.
    pub fn read(&mut self, table: &[u8]) -> Result<(), RowsError> {
        if is_system(table) {
            return self.read_system(table);
        }
        let headers = csv::Reader::from_reader(table).headers()?.clone();
        let has = |column: &str| headers.iter().any(|name| name == column);
        if has("m") {
            self.read_gemm(table)
        } else if has("seq_len") {
            self.read_attention(table)
        } else if has("width") {
            self.read_memory(table)
        } else {
            Err(RowsError::Unknown(headers.iter().collect::<Vec<_>>().join(", ")))
        }
    }

    /// Adds matrix products: columns `gpu, dtype, batch, m, n, k, time_us, source`. In NeuSight's rows the last
    /// two dimensions are the length of the sums and the columns of the result: times step at whole tiles of its
    /// `m` and `k` and run smoothly over its `n`, and the operations of its models repeat with these two in the
    /// other order. They are read in that order.
    ///
    /// # Errors
    /// [`RowsError`] with the line.
    pub fn read_gemm(&mut self, table: impl Read) -> Result<(), RowsError> {
        read(table, |row| {
            let source = row.text("source")?;
            let (n, k) = if source.starts_with("NeuSight") { ("k", "n") } else { ("n", "k") };
            let shape = GemmShape {
                batch: row.number("batch")?,
                m: row.number("m")?,
                n: row.number(n)?,
                k: row.number(k)?,
                dtype: row.dtype()?,
            };
            row.countable("m", &[shape.batch, shape.m, shape.n, shape.k])?;
            self.gemm.push(GemmRow {
                gpu: row.gpu()?,
                shape,
                seconds: row.seconds()?,
                source: source.to_owned(),
            });
            Ok(())
        })
    }

    /// Adds causal fused attention, forward: columns `gpu, dtype, batch, seq_len, heads, kv_heads, head_dim,
    /// time_us, source`.
    ///
    /// # Errors
    /// [`RowsError`] with the line.
    pub fn read_attention(&mut self, table: impl Read) -> Result<(), RowsError> {
        read(table, |row| {
            let length = row.number("seq_len")?;
            let heads = row.number("heads")?;
            row.countable(
                "seq_len",
                &[row.number("batch")?, heads, length, length, row.number("head_dim")?, 4],
            )?;
            self.attention.push(AttentionRow {
                gpu: row.gpu()?,
                shape: AttentionShape {
                    batch: row.number("batch")?,
                    heads,
                    kv_heads: row.number("kv_heads")?,
                    query_length: length,
                    key_length: length,
                    head_dim: row.number("head_dim")?,
                    value_dim: row.number("head_dim")?,
                    window: 0,
                    causal: true,
                    pass: Pass::Forward,
                    dtype: row.dtype()?,
                    generation: FlashGeneration::Current,
                },
                seconds: row.seconds()?,
                source: row.text("source")?.to_owned(),
            });
            Ok(())
        })
    }

    /// Adds memory-bound kernels: columns `gpu, dtype, op, rows, width, time_us, source`. Kernels that the
    /// models do not know are skipped.
    ///
    /// # Errors
    /// [`RowsError`] with the line.
    pub fn read_memory(&mut self, table: impl Read) -> Result<(), RowsError> {
        read(table, |row| {
            let (source, operation) = (row.text("source")?, row.text("op")?);
            let who = if source.starts_with("vidur") { "vidur" } else { "NeuSight" };
            let known = MEMORY_OPERATIONS.iter().find(|(of, name, ..)| *of == who && *name == operation);
            let seconds = row.seconds()?;
            let known = known.filter(|_| seconds >= SHORTEST);
            self.skipped += usize::from(known.is_none());
            if let Some(&(.., kind, passes)) = known {
                let shape = [row.number("rows")?, row.number("width")?];
                let values = shape[0] as f64 * shape[1] as f64;
                let array = values * row.dtype()?.bytes() as f64;
                self.memory.push(MemoryRow {
                    gpu: row.gpu()?,
                    kind,
                    bytes: passes * array,
                    cached_bytes: if (who, operation) == CACHED { array } else { 0.0 },
                    instructions: if operation == GELU.0 { GELU.1 * values } else { 0.0 },
                    shape,
                    seconds,
                    source: source.to_owned(),
                });
            }
            Ok(())
        })
    }

    /// Names of the GPUs that have rows, each once, in order.
    pub fn gpus(&self) -> Vec<&str> {
        let gemm = self.gemm.iter().map(|row| row.gpu.as_str());
        let attention = self.attention.iter().map(|row| row.gpu.as_str());
        let memory = self.memory.iter().map(|row| row.gpu.as_str());
        let mut names: Vec<&str> = gemm.chain(attention).chain(memory).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Rows of a GPU and format. Frameworks cast to fp8 by different kernels, so of fp8 only the framework with
    /// the most rows is taken.
    pub(super) fn gemm_of(&self, gpu: &str, dtype: Dtype) -> Vec<&GemmRow> {
        let mut rows: Vec<_> =
            self.gemm.iter().filter(|row| row.gpu == gpu && row.shape.dtype == dtype).collect();
        if dtype == Dtype::Fp8 {
            let count = |source: &str| rows.iter().filter(|row| row.source == source).count();
            let most = rows.iter().map(|row| row.source.clone()).max_by_key(|source| count(source));
            rows.retain(|row| Some(&row.source) == most.as_ref());
        }
        rows
    }

    pub(super) fn attention_of(&self, gpu: &str) -> Vec<&AttentionRow> {
        self.attention.iter().filter(|row| row.gpu == gpu).collect()
    }

    /// Rows of a GPU that tell what its memory does.
    pub(super) fn memory_of(&self, gpu: &Gpu, kind: MemoryBoundKind) -> Vec<&MemoryRow> {
        let telling = |row: &MemoryRow| {
            row.cached_bytes == 0.0 || row.cached_bytes >= SMALLEST_CACHED * gpu.l2.0 as f64
        };
        self.memory.iter().filter(|row| row.gpu == gpu.name && row.kind == kind && telling(row)).collect()
    }
}

impl Rows {
    /// The greatest share of the bandwidth that kernels of a kind can have, where their rows leave that open: all of them are so near
    /// to the cache in size that a rule of another GPU has to say what it spared. Memory gives no kernel that also writes more than
    /// it gives the fastest of those that only read: products of few rows, whose time is that of weights many caches long. `None`
    /// where rows tell by themselves, or such products are few.
    pub(super) fn ceiling(&self, gpu: &Gpu, kind: MemoryBoundKind) -> Option<f64> {
        let cache = gpu.l2.0 as f64;
        let tells = |row: &MemoryRow| {
            row.instructions == 0.0
                && (row.cached_bytes == 0.0 || row.cached_bytes >= FAR_FROM_CACHED * cache)
        };
        if self.memory_of(gpu, kind).into_iter().any(tells) {
            return None;
        }
        let streams = self.gemm.iter().filter(|row| row.gpu == gpu.name && !row.held_out());
        let shares = streams.filter_map(|row| {
            let GemmShape { batch, m, n, k, dtype } = row.shape;
            let weights = batch as f64 * n as f64 * k as f64 * dtype.bytes() as f64;
            let seconds = row.seconds - gpu.kernel_latency_s;
            let streams = m <= STREAM_ROWS && weights >= STREAM * cache && seconds > 0.0;
            streams.then(|| row.shape.traffic().0 as f64 / (seconds * gpu.memory_bandwidth))
        });
        let mut shares: Vec<f64> = shares.collect();
        shares.sort_unstable_by(f64::total_cmp);
        let left_out = shares.len() / STREAMS_LEFT_OUT;
        (left_out > 0).then(|| shares[shares.len() - 1 - left_out])
    }
}

impl MemoryRow {
    /// Bytes that memory itself moves on a GPU: without what its second-level cache spares, and with what norms read twice.
    pub(super) fn memory_bytes(&self, gpu: &Gpu) -> f64 {
        let again = match self.kind {
            MemoryBoundKind::Norm => {
                let row = self.bytes / self.shape[0] as f64;
                self.bytes / 2.0 * read_again(gpu, row)
            }
            _ => 0.0,
        };
        self.bytes + again - self.cached_bytes * spared(self.cached_bytes / gpu.l2.0 as f64)
    }
}

/// The publishers' names, each once, in order.
pub(super) fn source_names<'a>(sources: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = sources.filter_map(|source| source.split(':').next()).collect();
    names.sort_unstable();
    names.dedup();
    toml_text(&names.join(", "))
}

/// What a text of a user's becomes between the quotes of a TOML file.
pub(crate) fn toml_text(text: &str) -> String {
    text.chars().map(|c| if c == '"' || c == '\\' || c.is_control() { '\'' } else { c }).collect()
}

/// One line of a table.
pub(super) struct Row<'a> {
    headers: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
}

pub(super) fn read(
    table: impl Read,
    mut take: impl FnMut(&Row<'_>) -> Result<(), RowsError>,
) -> Result<(), RowsError> {
    let mut reader = csv::Reader::from_reader(table);
    let headers = reader.headers()?.clone();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record)? {
        take(&Row { headers: &headers, record: &record })?;
    }
    Ok(())
}

impl Row<'_> {
    pub(super) fn text(&self, column: &'static str) -> Result<&str, RowsError> {
        let index = self.headers.iter().position(|name| name == column);
        index.and_then(|index| self.record.get(index)).ok_or(RowsError::Column(column))
    }

    pub(super) fn wrong(&self, column: &'static str, expected: &'static str) -> RowsError {
        let line = self.record.position().map_or(0, csv::Position::line);
        let index = self.headers.iter().position(|name| name == column);
        let found = index.and_then(|index| self.record.get(index)).unwrap_or_default().to_owned();
        RowsError::Value { line, column, found, expected }
    }

    fn number(&self, column: &'static str) -> Result<u64, RowsError> {
        let number = self.text(column)?.parse().ok().filter(|number| (1..=1 << 31).contains(number));
        number.ok_or_else(|| self.wrong(column, "a whole number from 1 to 2147483648"))
    }

    /// Refuses sizes whose work no counter of operations holds; `column` is the one to name.
    fn countable(&self, column: &'static str, factors: &[u64]) -> Result<(), RowsError> {
        let work: f64 = factors.iter().map(|&factor| factor as f64).product();
        if work < 1e18 { Ok(()) } else { Err(self.wrong(column, "sizes with less than 1e18 operations")) }
    }

    /// Seconds of a column that may hold 0.
    pub(super) fn microseconds(&self, column: &'static str) -> Result<f64, RowsError> {
        let time = self.text(column)?.parse().ok().filter(|&time: &f64| time >= 0.0 && time.is_finite());
        Ok(time.ok_or_else(|| self.wrong(column, "microseconds, 0 where there is nothing"))? * 1e-6)
    }

    fn seconds(&self) -> Result<f64, RowsError> {
        let time = self.text("time_us")?.parse().ok().filter(|&time: &f64| time > 0.0 && time.is_finite());
        Ok(time.ok_or_else(|| self.wrong("time_us", "microseconds above 0"))? * 1e-6)
    }

    fn dtype(&self) -> Result<Dtype, RowsError> {
        let word = self.text("dtype")?;
        let known = FORMATS.iter().find(|(name, _)| *name == word).map(|&(_, dtype)| dtype);
        known.ok_or_else(|| self.wrong("dtype", "fp32, tf32, fp16, bf16 or fp8"))
    }

    pub(super) fn gpu(&self) -> Result<String, RowsError> {
        let name = self.text("gpu")?;
        let known = GPU_ALIASES.iter().find(|(other, _)| *other == name).map_or(name, |&(_, name)| name);
        Ok(known.to_owned())
    }
}
