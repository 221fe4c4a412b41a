//! A row of a table of measured runs.

use super::corrections;
use crate::error::InputError;
use crate::origin::Origin;

/// What a row says about a run; absent where the table is silent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Measurement {
    pub(super) run_id: String,
    pub(super) suite: String,
    pub(super) gpu: String,
    pub(super) nodes: u64,
    pub(super) gpus_per_node: u64,
    pub(super) interconnect: String,
    pub(super) source: String,
    pub(super) framework: String,
    pub(super) task: String,
    pub(super) model: String,
    pub(super) layers: Option<u64>,
    pub(super) hidden: Option<u64>,
    pub(super) heads: Option<u64>,
    pub(super) kv_heads: Option<u64>,
    pub(super) ffn: Option<u64>,
    pub(super) gated_mlp: Option<bool>,
    pub(super) vocab: Option<u64>,
    pub(super) tied_embeddings: Option<bool>,
    pub(super) experts: Option<u64>,
    pub(super) top_k: Option<u64>,
    pub(super) moe_ffn: Option<u64>,
    pub(super) seq_len: Option<u64>,
    pub(super) micro_batch: Option<u64>,
    pub(super) global_batch: Option<u64>,
    pub(super) dp: Option<u64>,
    pub(super) tp: u64,
    pub(super) pp: u64,
    pub(super) vpp: u64,
    pub(super) cp: u64,
    pub(super) ep: u64,
    pub(super) sequence_parallel: bool,
    pub(super) zero_stage: u64,
    pub(super) schedule: String,
    pub(super) activation_checkpointing: String,
    pub(super) attention: String,
    pub(super) precision: String,
    pub(super) optimizer: String,
    pub(super) fp32_grad_accumulation: Option<bool>,
    pub(super) overlap_grad_reduce: Option<bool>,
    pub(super) step_time_s: Option<f64>,
    pub(super) peak_allocated_gib: Option<f64>,
    pub(super) peak_reserved_gib: Option<f64>,
    pub(super) static_allocated_gib: Option<f64>,
    pub(super) outcome: Option<String>,
    pub(super) notes: String,
    /// Why a number is not the table's.
    pub(super) corrected: Option<&'static str>,
}

/// Columns without which a row means nothing.
const NEEDED: [&str; 4] = ["run_id", "suite", "gpu", "model"];

/// Reads a table.
pub(super) fn read(name: &str, text: &str) -> Result<Vec<Measurement>, InputError> {
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(text.as_bytes());
    let unreadable = |error: &csv::Error| {
        let line = error.position().map_or(1, csv::Position::line);
        InputError::Conflict {
            origin: Origin::at(name, line as usize, 1),
            key: "table".to_owned(),
            message: format!("is not readable as comma-separated values: {error}"),
        }
    };
    let header = reader.headers().map_err(|error| unreadable(&error))?.clone();
    for column in NEEDED {
        if !header.iter().any(|found| found == column) {
            return Err(InputError::Missing {
                origin: Origin::at(name, 1, 1),
                key: column.to_owned(),
                needed: format!("a table of measured runs has the columns {}", NEEDED.join(", ")),
            });
        }
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| unreadable(&error))?;
        let line = record.position().map_or(1, csv::Position::line) as usize;
        let mut row = Cells { name, header: &header, record: &record, line }.measurement()?;
        row.corrected = corrections::correct(&mut row);
        rows.push(row);
    }
    Ok(rows)
}

/// The cells of a row by their columns' names.
struct Cells<'a> {
    name: &'a str,
    header: &'a csv::StringRecord,
    record: &'a csv::StringRecord,
    line: usize,
}

impl Cells<'_> {
    /// A cell's text; empty cells and `nan` (an empty number as some tools write it) are absent.
    fn cell(&self, column: &str) -> Option<&str> {
        let index = self.header.iter().position(|found| found == column)?;
        self.record.get(index).map(str::trim).filter(|text| !text.is_empty() && *text != "nan")
    }

    fn text(&self, column: &str) -> String {
        self.cell(column).unwrap_or_default().to_owned()
    }

    fn parse<T>(
        &self,
        column: &str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, InputError> {
        let Some(text) = self.cell(column) else { return Ok(None) };
        parse(text).map(Some).ok_or_else(|| InputError::Value {
            origin: Origin::at(self.name, self.line, 1),
            key: column.to_owned(),
            found: format!("\"{text}\""),
            allowed: allowed.to_owned(),
            nearest: None,
        })
    }

    /// A whole number, also one that a tool has written with a fraction of zero.
    fn count(&self, column: &str) -> Result<Option<u64>, InputError> {
        self.parse(column, "a whole number, or nothing", |text| {
            text.strip_suffix(".0").unwrap_or(text).parse().ok()
        })
    }

    fn number(&self, column: &str) -> Result<Option<f64>, InputError> {
        let positive = |text: &str| text.parse().ok().filter(|value: &f64| value.is_finite() && *value > 0.0);
        self.parse(column, "a number above 0, or nothing", positive)
    }

    fn flag(&self, column: &str) -> Result<Option<bool>, InputError> {
        self.parse(column, "True or False, or nothing", |text| match text.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        })
    }

    fn measurement(&self) -> Result<Measurement, InputError> {
        Ok(Measurement {
            run_id: self.text("run_id"),
            suite: self.text("suite"),
            gpu: self.text("gpu"),
            nodes: self.count("nodes")?.unwrap_or(1),
            gpus_per_node: self.count("gpus_per_node")?.unwrap_or(1),
            interconnect: self.text("interconnect"),
            source: self.text("source"),
            framework: self.text("framework"),
            task: self.text("task"),
            model: self.text("model"),
            layers: self.count("layers")?,
            hidden: self.count("hidden")?,
            heads: self.count("heads")?,
            kv_heads: self.count("kv_heads")?,
            ffn: self.count("ffn")?,
            gated_mlp: self.flag("gated_mlp")?,
            vocab: self.count("vocab")?,
            tied_embeddings: self.flag("tied_embeddings")?,
            experts: self.count("experts")?,
            top_k: self.count("top_k")?,
            moe_ffn: self.count("moe_ffn")?,
            seq_len: self.count("seq_len")?,
            micro_batch: self.count("micro_batch")?,
            global_batch: self.count("global_batch")?,
            dp: self.count("dp")?,
            tp: self.count("tp")?.unwrap_or(1),
            pp: self.count("pp")?.unwrap_or(1),
            vpp: self.count("vpp")?.unwrap_or(1),
            cp: self.count("cp")?.unwrap_or(1),
            ep: self.count("ep")?.unwrap_or(1),
            sequence_parallel: self.flag("sequence_parallel")?.unwrap_or(false),
            zero_stage: self.count("zero_stage")?.unwrap_or(0),
            schedule: self.text("schedule"),
            activation_checkpointing: self.text("activation_checkpointing"),
            attention: self.text("attention"),
            precision: self.text("precision"),
            optimizer: self.text("optimizer"),
            fp32_grad_accumulation: self.flag("fp32_grad_accumulation")?,
            overlap_grad_reduce: self.flag("overlap_grad_reduce")?,
            step_time_s: self.number("step_time_s")?,
            peak_allocated_gib: self.number("peak_allocated_gib")?,
            peak_reserved_gib: self.number("peak_reserved_gib")?,
            static_allocated_gib: self.number("static_allocated_gib")?,
            outcome: self.cell("outcome").map(str::to_owned),
            notes: self.text("notes"),
            corrected: None,
        })
    }
}
