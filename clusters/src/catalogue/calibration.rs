//! Reads `[calibration]`: the coefficients of the kernel models, fitted on this GPU or borrowed from a relative.

use steptime_models::{Dtype, MemoryBoundKind};

use super::embedded::GPUS;
use super::error::{CatalogueError, nearest, nearest_hint};
use super::gpu;
use super::power::PowerDensity;
use super::reader::{Section, parse};
use crate::coefficients::{
    ATTENTION, AttentionCoefficients, CONVOLUTION, Coefficient, ConvolutionCoefficients, GEMM,
    GemmCoefficients, MEMORY,
};
use crate::fact::{Basis, Constant, Fact, FactId};
use crate::gpu::{Calibrated, FORMATS, GpuArchitecture, Ground, Lent, MemoryShare};

/// Kinds of memory-bound kernels, as files call them.
pub(crate) const MEMORY_KINDS: [(&str, MemoryBoundKind); 7] = [
    ("elementwise", MemoryBoundKind::Elementwise),
    ("norm", MemoryBoundKind::Norm),
    ("softmax", MemoryBoundKind::Softmax),
    ("reduction", MemoryBoundKind::Reduction),
    ("indexing", MemoryBoundKind::Indexing),
    ("fill", MemoryBoundKind::Fill),
    ("batch_norm", MemoryBoundKind::BatchNorm),
];
/// Tables that coefficients may come from: `gemm` by format, `attention`, `memory` by kind, `convolution`.
const SLOTS: usize = CONVOLUTION_SLOT + 1;
const CONVOLUTION_SLOT: usize = FORMATS.len() + 1 + MEMORY_KINDS.len();
/// Norms by rows, the second of [`MEMORY_KINDS`].
const NORM_SLOT: usize = FORMATS.len() + 2;
/// Shares of the peak by tile, at the front of [`GEMM`].
const GEMM_TILES: usize = 6;
const KEYS: [&str; 5] = ["borrowed_from", "gemm", "attention", "memory", "convolution"];
/// The same where nothing may be borrowed from another GPU.
pub(super) const OWN_KEYS: [&str; 4] = ["gemm", "attention", "memory", "convolution"];

/// A table that another stands for.
struct Borrowed<'a> {
    slot: usize,
    /// Whose: a GPU, or `self`.
    from: String,
    /// Which of its tables.
    like: usize,
    /// Coefficients that differ from the lender's: index, value, as written.
    changes: Vec<(usize, f64, String)>,
    /// Where the file says so.
    table: Section<'a>,
}

impl Borrowed<'_> {
    /// The lender's block as this table takes it.
    fn take(&self, block: &Block, lender: &str) -> Result<Block, CatalogueError> {
        let mut block = block.lent(lender);
        if !self.changes.is_empty() {
            let (reason, _) = self.table.provenance()?;
            let keys = self.changes.iter().filter_map(|(index, ..)| coefficients(self.slot).get(*index));
            let keys = keys.map(|coefficient| coefficient.key).collect::<Vec<_>>().join(", ");
            block.source = format!("{}; but {keys}: {reason}", block.source);
        }
        for (index, value, written) in &self.changes {
            if let (Some(place), Some(text)) = (block.values.get_mut(*index), block.written.get_mut(*index)) {
                (*place, *text) = (*value, written.clone());
            }
        }
        Ok(block)
    }
}

/// One table of coefficients.
#[derive(Clone, Debug)]
struct Block {
    values: Vec<f64>,
    written: Vec<String>,
    source: String,
    basis: Basis,
    error: f64,
    lent: Lent,
}

/// A table as the file has it.
enum Entry<'a> {
    Own(Block),
    Borrowed(Borrowed<'a>),
}

/// All coefficients of a GPU.
#[derive(Clone, Debug, Default)]
pub(super) struct Calibration {
    blocks: [Option<Block>; SLOTS],
}

const ERROR: Coefficient = Coefficient {
    key: "error",
    unit: crate::coefficients::CoefficientUnit::Number,
    meaning: "relative error that 80 % of unseen shapes stay below",
    prior: 0.1,
    spread: 0.1,
    least: 0.0,
    most: 10.0,
};

impl Block {
    /// On other hardware, or for another kind than it was fitted to: an estimate, and a wider one ([`widened`]).
    fn lent(&self, lender: &str) -> Self {
        let source = match self.source.strip_prefix("Borrowed from ") {
            Some(rest) => format!("Borrowed from {lender}, borrowed from {rest}"),
            None => format!("Borrowed from {lender}: {}", self.source),
        };
        Self {
            source,
            basis: Basis::DataSheet,
            error: widened(self.error),
            lent: self.lent.max(Lent::Near),
            ..self.clone()
        }
    }

    /// Under load at another clock than the lender's: a board with less power runs slower; one with more throttles less, as far as the
    /// lender does.
    fn clocked(mut self, slot: usize, clock: f64) -> Self {
        let rates = clocked(slot);
        if rates == 0 {
            return self;
        }
        let throttle = coefficients(slot).iter().position(|coefficient| coefficient.key == "throttle");
        for (index, (value, written)) in self.values.iter_mut().zip(&mut self.written).enumerate() {
            if clock < 1.0 && index < rates {
                *value *= clock;
            } else if clock > 1.0 && Some(index) == throttle {
                *value = ((1.0 + *value) / clock - 1.0).max(0.0);
            } else {
                continue;
            }
            *written = format!("{value:.3}");
        }
        let (less, more) = ("of its clock", "of its clock under load");
        let what = if clock < 1.0 { less } else { more };
        #[expect(
            clippy::float_cmp,
            reason = "boards of one power, or of an unknown one, have a ratio of exactly 1"
        )]
        if clock != 1.0 {
            self.source = format!("{}; at {clock:.3} {what}, by the boards' power", self.source);
        }
        self
    }

    /// Adds its facts and returns the first's identity with the ground of prices.
    fn record(&self, path: &str, coefficients: &[Coefficient], facts: &mut Vec<Fact>) -> Ground {
        let fact = FactId(facts.len());
        for (coefficient, value) in coefficients.iter().zip(&self.written) {
            facts.push(Fact {
                what: format!("calibration.{path}.{}", coefficient.key),
                value: value.clone(),
                source: self.source.clone(),
                basis: self.basis,
            });
        }
        Ground { basis: self.basis, fact, error: self.error, lent: self.lent }
    }
}

/// Coefficients of `slot` that are rates of tensor cores: they follow the clock that a board's power allows.
fn clocked(slot: usize) -> usize {
    match FORMATS.get(slot) {
        Some((_, Dtype::Fp32)) => 0,
        Some(_) => GEMM_TILES,
        None if slot == FORMATS.len() => 1,
        None => 0,
    }
}

/// Error of coefficients one step away from the hardware that they were fitted on. One step within an architecture and
/// two to another one hold 80 % of the shapes in each of eight pairs of measured GPUs (the test of `calibrate` counts them).
pub(crate) fn widened(error: f64) -> f64 {
    1.5 * error + 0.06
}

/// Own tables of the GPUs that lend, each file read once.
struct Lenders {
    /// Architecture of the borrower.
    architecture: GpuArchitecture,
    /// Power of the borrower.
    power: Option<PowerDensity>,
    read: Vec<(String, Lender)>,
}

/// What a GPU lends.
#[derive(Clone)]
struct Lender {
    calibration: Calibration,
    /// Clock of the borrower under load, of the lender's.
    clock: f64,
}

impl Lenders {
    fn own(&mut self, section: &Section<'_>, name: &str) -> Result<Lender, CatalogueError> {
        if let Some((_, lender)) = self.read.iter().find(|(known, _)| known == name) {
            return Ok(lender.clone());
        }
        let text = GPUS.iter().find(|(entry, _)| *entry == name).map(|&(_, text)| text);
        let text = text.ok_or_else(|| {
            let hint = nearest_hint(nearest(name, GPUS.iter().map(|&(entry, _)| entry)));
            section.error_at("borrowed_from", format!("`borrowed_from`: unknown GPU `{name}`{hint}"))
        })?;
        let document = parse(text)?;
        let root = Section::root(text, &document, &gpu::KEYS)?;
        let (mut calibration, _) = Calibration::own(&root.section("calibration", &KEYS)?)?;
        let far = root.choice("architecture", &GpuArchitecture::NAMES)? != self.architecture;
        if far {
            for block in calibration.blocks.iter_mut().flatten() {
                (block.error, block.lent) = (widened(block.error), Lent::Far);
            }
        }
        let clock = match (self.power, PowerDensity::read(&root)?) {
            // What other circuits do with more power is not known.
            (Some(own), Some(lender)) if far => own.clock(lender).min(1.0),
            (Some(own), Some(lender)) => own.clock(lender),
            _ => 1.0,
        };
        let lender = Lender { calibration, clock };
        self.read.push((name.to_owned(), lender.clone()));
        Ok(lender)
    }
}

/// The table's path below `[calibration]`.
fn path(slot: usize) -> String {
    match FORMATS.get(slot) {
        Some((format, _)) => format!("gemm.{format}"),
        None if slot == FORMATS.len() => "attention".to_owned(),
        None if slot == CONVOLUTION_SLOT => "convolution".to_owned(),
        None => format!("memory.{}", MEMORY_KINDS.get(slot - FORMATS.len() - 1).map_or("", |(name, _)| name)),
    }
}

fn coefficients(slot: usize) -> &'static [Coefficient] {
    match slot.cmp(&FORMATS.len()) {
        std::cmp::Ordering::Less => &GEMM,
        std::cmp::Ordering::Equal => &ATTENTION,
        std::cmp::Ordering::Greater if slot == CONVOLUTION_SLOT => &CONVOLUTION,
        std::cmp::Ordering::Greater => &MEMORY,
    }
}

impl Calibration {
    /// Of the GPU that `root` describes: its own tables, those it borrows one by one, and for the rest the first
    /// of its lenders that has the table itself.
    pub(super) fn read(root: &Section<'_>) -> Result<Self, CatalogueError> {
        let section = root.section("calibration", &KEYS)?;
        let (mut all, borrowed) = Self::own(&section)?;
        let architecture = root.choice("architecture", &GpuArchitecture::NAMES)?;
        let mut lenders = Lenders { architecture, power: PowerDensity::read(root)?, read: Vec::new() };
        for entry in borrowed.iter().filter(|entry| entry.from != "self") {
            let lender = lenders.own(&entry.table, &entry.from)?;
            let block = lender.calibration.get(entry.like).ok_or_else(|| {
                let wanted = path(entry.like);
                let problem = format!("`{}` has no [calibration.{wanted}] of its own to borrow", entry.from);
                entry.table.error_at("borrowed_from", problem)
            })?;
            let block = block.clone().clocked(entry.slot, lender.clock);
            all.set(entry.slot, entry.take(&block, &entry.from)?);
        }
        if section.has("borrowed_from") {
            for name in section.names("borrowed_from")? {
                let lender = lenders.own(&section, name)?;
                for slot in 0..SLOTS {
                    let takes_its_own = borrowed.iter().any(|entry| entry.slot == slot);
                    if let (None, Some(block), false) =
                        (all.get(slot), lender.calibration.get(slot), takes_its_own)
                    {
                        all.set(slot, block.lent(name).clocked(slot, lender.clock));
                    }
                }
            }
        }
        all.resolve(&borrowed)?;
        Ok(all)
    }

    /// The tables of the file itself, with those that stand for others of the same file, and the borrowed ones.
    fn own<'a>(section: &Section<'a>) -> Result<(Self, Vec<Borrowed<'a>>), CatalogueError> {
        let mut all = Self::default();
        let mut borrowed = Vec::new();
        for (slot, table) in tables(section)? {
            match entry(table, slot)? {
                Entry::Own(block) => all.set(slot, block),
                Entry::Borrowed(entry) => borrowed.push(entry),
            }
        }
        all.resolve(&borrowed)?;
        Ok((all, borrowed))
    }

    /// The tables of a file that describes no GPU: nothing is borrowed from another one.
    pub(super) fn of_one(section: &Section<'_>) -> Result<Self, CatalogueError> {
        let (all, borrowed) = Self::own(section)?;
        match borrowed.iter().find(|entry| entry.from != "self") {
            Some(entry) => {
                let problem = "`borrowed_from`: only \"self\" here, for another table of the same file";
                Err(entry.table.error_at("borrowed_from", problem.to_owned()))
            }
            None => Ok(all),
        }
    }

    /// Whether there is a table for the matrix products of a format, given as index of [`FORMATS`].
    pub(super) fn has_gemm(&self, format: usize) -> bool {
        format < FORMATS.len() && self.get(format).is_some()
    }

    /// Whether there is a table for fused attention.
    pub(super) fn has_attention(&self) -> bool {
        self.get(FORMATS.len()).is_some()
    }

    /// Whether there is a table for convolutions.
    pub(super) fn has_convolution(&self) -> bool {
        self.get(CONVOLUTION_SLOT).is_some()
    }

    /// Whether there is a table for a memory-bound kind, given as index of [`MEMORY_KINDS`].
    pub(super) fn has_memory(&self, kind: usize) -> bool {
        self.get(FORMATS.len() + 1 + kind).is_some()
    }

    /// Fills the tables that stand for another of the same GPU, where that one is known.
    fn resolve(&mut self, borrowed: &[Borrowed<'_>]) -> Result<(), CatalogueError> {
        for entry in borrowed.iter().filter(|entry| entry.from == "self") {
            if let (None, Some(block)) = (self.get(entry.slot), self.get(entry.like)) {
                let block = entry.take(block, &format!("{} of the same GPU", path(entry.like)))?;
                self.set(entry.slot, block);
            }
        }
        Ok(())
    }

    fn set(&mut self, slot: usize, block: Block) {
        if let Some(place) = self.blocks.get_mut(slot) {
            *place = Some(block);
        }
    }

    fn get(&self, slot: usize) -> Option<&Block> {
        self.blocks.get(slot).and_then(Option::as_ref)
    }

    fn needed(&self, slot: usize, root: &Section<'_>) -> Result<&Block, CatalogueError> {
        self.get(slot).ok_or_else(|| {
            let problem =
                format!("the table [calibration.{}] is missing, and nothing is borrowed", path(slot));
            root.error_at("calibration", problem)
        })
    }

    /// The matrix products of a format, given as index of [`FORMATS`].
    pub(super) fn gemm(
        &self,
        format: usize,
        root: &Section<'_>,
        facts: &mut Vec<Fact>,
    ) -> Result<(Calibrated<GemmCoefficients>, Constant), CatalogueError> {
        let block = self.needed(format, root)?;
        let ground = block.record(&path(format), &GEMM, facts);
        let coefficients = GemmCoefficients::from_values(&array(&block.values));
        let largest = Constant { value: coefficients.tiles[0], fact: ground.fact, basis: ground.basis };
        Ok((Calibrated { coefficients, ground }, largest))
    }

    /// Fused attention.
    pub(super) fn attention(
        &self,
        root: &Section<'_>,
        facts: &mut Vec<Fact>,
    ) -> Result<Calibrated<AttentionCoefficients>, CatalogueError> {
        let block = self.needed(FORMATS.len(), root)?;
        let ground = block.record("attention", &ATTENTION, facts);
        Ok(Calibrated { coefficients: AttentionCoefficients::from_values(&array(&block.values)), ground })
    }

    /// Convolutions.
    pub(super) fn convolution(
        &self,
        root: &Section<'_>,
        facts: &mut Vec<Fact>,
    ) -> Result<Calibrated<ConvolutionCoefficients>, CatalogueError> {
        let block = self.needed(CONVOLUTION_SLOT, root)?;
        let ground = block.record("convolution", &CONVOLUTION, facts);
        Ok(Calibrated { coefficients: ConvolutionCoefficients::from_values(&array(&block.values)), ground })
    }

    /// A memory-bound kind, given as index of [`MEMORY_KINDS`].
    pub(super) fn memory(
        &self,
        kind: usize,
        root: &Section<'_>,
        facts: &mut Vec<Fact>,
    ) -> Result<MemoryShare, CatalogueError> {
        let slot = FORMATS.len() + 1 + kind;
        // Files from before norms were told apart have one table for both.
        let batch_norm = MEMORY_KINDS.get(kind).is_some_and(|(_, it)| *it == MemoryBoundKind::BatchNorm);
        let missing = batch_norm && self.get(slot).is_none();
        let block = self.needed(if missing { NORM_SLOT } else { slot }, root)?;
        let ground = block.record(&path(slot), &MEMORY, facts);
        let [value, measured_start_s] = array(&block.values);
        let share = Constant { value, fact: ground.fact, basis: ground.basis };
        Ok(MemoryShare { share, error: ground.error, measured_start_s })
    }
}

/// The tables that the file has, by slot.
fn tables<'a>(section: &Section<'a>) -> Result<Vec<(usize, Section<'a>)>, CatalogueError> {
    let mut found = Vec::new();
    let formats = FORMATS.map(|(name, _)| name);
    if let Some(gemm) = section.optional_section("gemm", &formats)? {
        found.extend(slots(&gemm, &formats, 0)?);
    }
    found.extend(slots(section, &["attention"], FORMATS.len())?);
    found.extend(slots(section, &["convolution"], CONVOLUTION_SLOT)?);
    let kinds = MEMORY_KINDS.map(|(name, _)| name);
    if let Some(memory) = section.optional_section("memory", &kinds)? {
        found.extend(slots(&memory, &kinds, FORMATS.len() + 1)?);
    }
    Ok(found)
}

fn slots<'a>(
    section: &Section<'a>,
    names: &[&str],
    first: usize,
) -> Result<Vec<(usize, Section<'a>)>, CatalogueError> {
    let mut found = Vec::new();
    for (index, name) in names.iter().enumerate() {
        let slot = first + index;
        let mut keys = vec!["error", "borrowed_from", "like"];
        keys.extend(coefficients(slot).iter().map(|coefficient| coefficient.key));
        if let Some(table) = section.optional_section(name, &keys)? {
            found.push((slot, table));
        }
    }
    Ok(found)
}

fn entry(table: Section<'_>, slot: usize) -> Result<Entry<'_>, CatalogueError> {
    if table.has("borrowed_from") {
        return borrowed(table, slot).map(Entry::Borrowed);
    }
    let (source, basis) = table.provenance()?;
    let (error, _) = table.coefficient(&ERROR)?;
    let (mut values, mut written) = (Vec::new(), Vec::new());
    for coefficient in coefficients(slot) {
        // What belongs to the measurement may be left out: no price asks for it.
        let (value, text) = if coefficient.key.starts_with("measured") && !table.has(coefficient.key) {
            (coefficient.prior, coefficient.prior.to_string())
        } else {
            table.coefficient(coefficient)?
        };
        values.push(value);
        written.push(text);
    }
    Ok(Entry::Own(Block { values, written, source: source.to_owned(), basis, error, lent: Lent::Not }))
}

fn borrowed(table: Section<'_>, slot: usize) -> Result<Borrowed<'_>, CatalogueError> {
    let from = table.name("borrowed_from")?.to_owned();
    let kind = |index: usize| coefficients(index).len();
    let names: Vec<(usize, String)> =
        (0..SLOTS).filter(|&index| kind(index) == kind(slot)).map(|index| (index, path(index))).collect();
    let words: Vec<(&str, usize)> =
        names.iter().map(|(index, name)| (name.rsplit('.').next().unwrap_or(name), *index)).collect();
    let like = if table.has("like") { table.choice("like", &words)? } else { slot };
    let mut changes = Vec::new();
    for (index, coefficient) in coefficients(slot).iter().enumerate() {
        if table.has(coefficient.key) {
            let (value, written) = table.coefficient(coefficient)?;
            changes.push((index, value, written));
        }
    }
    Ok(Borrowed { slot, from, like, changes, table })
}

/// The values as an array; a table is only kept when it has all of them.
fn array<const N: usize>(values: &[f64]) -> [f64; N] {
    let mut array = [0.0; N];
    array.iter_mut().zip(values).for_each(|(place, &value)| *place = value);
    array
}
