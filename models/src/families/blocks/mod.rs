//! Architectures that a user writes down: `[input]`, and a table `[[layer]]` for each layer or run of equal layers with
//! its blocks in the order of forward. `docs/models.md` has the grammar.

mod fields;
mod flow;
mod kinds;
mod moe;
mod play;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use super::{Architecture, LayerPlan, limits};
use crate::document::Section;
use crate::error::ModelError;
use crate::model::{LayerRole, Sample};
use crate::tape::{Trace, Traced};
use flow::{Flow, Length};
use kinds::{Block, Kind};
use read::Reader;

/// An architecture made of blocks.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    sample: Sample,
    longest: Option<u64>,
    layers: Vec<Entry>,
}

/// One `[[layer]]`: equal layers in a row.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    role: LayerRole,
    /// Numbered only if the file says how often.
    repeat: Option<u64>,
    input: Flow,
    blocks: Vec<Block>,
}

const ROLES: [&str; 3] = ["embedding", "block", "head"];

impl Blocks {
    /// Reads the whole file. `fields` are the overrides: `image_size`, of models that take images.
    pub(super) fn read(file: &Section, fields: &Section) -> Result<Self, ModelError> {
        let (input, sequence_length) = read_input(file, fields)?;
        let tables = file.sections("layer")?;
        let (mut embedding, mut longest) = (None, None);
        let (mut flow, mut layers, mut count) = (input, Vec::new(), 0_u64);
        let mut names = BTreeSet::new();
        for (index, table) in tables.iter().enumerate() {
            table.only(&["name", "role", "repeat", "blocks"])?;
            let name =
                if table.has("name") { table.text("name")?.to_owned() } else { format!("layer{index}") };
            if !names.insert(name.clone()) {
                let place = table.place_of("name").or(table.place());
                return Err(ModelError::DuplicateName { what: "layer", name, place });
            }
            let mut reader =
                Reader { layer: &name, embedding: &mut embedding, longest: &mut longest, sequence_length };
            let (mut blocks, output) = reader.blocks(table, "blocks", flow, "")?;
            name_modules(&mut blocks)?;
            let repeat = table.range("repeat", 1, limits::LAYERS)?;
            count = count.saturating_add(repeat.unwrap_or(1));
            check_repeat(table, repeat, count, [flow, output])?;
            let role = match table.choice_or("role", &ROLES, default_role(index, tables.len()))? {
                0 => LayerRole::Embedding,
                1 => LayerRole::Block,
                _ => LayerRole::Head,
            };
            layers.push(Entry { name, role, repeat, input: flow, blocks });
            flow = output;
        }
        let sample = sample_of(input, sequence_length, &layers);
        Ok(Self { sample, longest, layers })
    }
}

/// The first layer embeds and the last is the head, unless there is but one.
const fn default_role(index: usize, layers: usize) -> usize {
    match index {
        _ if layers == 1 => 1,
        0 => 0,
        _ if index + 1 == layers => 2,
        _ => 1,
    }
}

/// What the first layer is given, and the sequence length that the file states (1 for images).
fn read_input(file: &Section, fields: &Section) -> Result<(Flow, u64), ModelError> {
    let input = file.section("input")?;
    if input.choice("kind", &["tokens", "image"])? == 0 {
        fields.only(&[])?;
        input.only(&["kind", "sequence_length"])?;
        return Ok((Flow::Ids, input.count("sequence_length", limits::POSITIONS)?));
    }
    fields.only(&["image_size"])?;
    input.only(&["kind", "channels", "size"])?;
    let channels = input.range("channels", 1, limits::CHANNELS)?.unwrap_or(3);
    let stated = input.count("size", limits::PIXELS)?;
    let side = fields.range("image_size", 1, limits::PIXELS)?.unwrap_or(stated);
    Ok((Flow::Pixels { channels, side }, 1))
}

/// A layer that follows itself must hand on what it takes; and there must not be too many.
fn check_repeat(
    table: &Section,
    repeat: Option<u64>,
    count: u64,
    [input, output]: [Flow; 2],
) -> Result<(), ModelError> {
    if count > limits::LAYERS {
        let allowed = format!("small enough for {} layers in all", limits::LAYERS);
        return Err(table.refuse("repeat", repeat.unwrap_or(1), allowed));
    }
    match repeat {
        Some(times) if times > 1 && input != output => {
            let allowed = format!("1, or the layer must hand on what it takes ({input}) and not {output}");
            Err(table.refuse("repeat", times, allowed))
        }
        _ => Ok(()),
    }
}

/// Every block of a layer, nested ones included.
fn visit(blocks: &mut [Block], act: &mut impl FnMut(&mut Block)) {
    for block in blocks {
        act(block);
        if let Kind::Residual { branch, shortcut } = &mut block.kind {
            visit(branch, act);
            visit(shortcut, act);
        }
    }
}

/// Modules without a name of their own are called by their kind, and numbered where a layer has several of it.
fn name_modules(blocks: &mut [Block]) -> Result<(), ModelError> {
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    visit(blocks, &mut |block| counts.entry(block.module.clone()).or_default().0 += u64::from(!block.named));
    let mut names = BTreeSet::new();
    let mut twice = None;
    visit(blocks, &mut |block| {
        let several = counts.get_mut(&block.module).filter(|(all, _)| !block.named && *all > 1);
        if let Some((_, seen)) = several {
            *seen += 1;
            block.module = format!("{}{seen}", block.module);
        }
        if !names.insert(block.module.clone()) && twice.is_none() {
            twice = Some((block.module.clone(), block.place));
        }
    });
    match twice {
        None => Ok(()),
        Some((name, place)) => Err(ModelError::DuplicateName { what: "block", name, place }),
    }
}

fn sample_of(input: Flow, sequence_length: u64, layers: &[Entry]) -> Sample {
    let Flow::Pixels { channels, side } = input else {
        return Sample::Tokens { default_length: sequence_length };
    };
    let flows = layers.iter().flat_map(|layer| layer.blocks.iter()).map(|block| block.input);
    let tokens = flows.filter_map(|flow| match flow {
        Flow::Tokens { length: Length::Fixed(tokens), .. } => Some(tokens),
        _ => None,
    });
    Sample::Image { size: side, channels, tokens: tokens.max().unwrap_or(1) }
}

impl Architecture for Blocks {
    fn sample(&self) -> Sample {
        self.sample
    }

    fn layers(&self) -> Vec<LayerPlan> {
        let mut plans = Vec::new();
        let mut held = false;
        for (index, entry) in (0_u32..).zip(&self.layers) {
            for number in 0..entry.repeat.unwrap_or(1) {
                let name = match entry.repeat {
                    None => entry.name.clone(),
                    Some(_) => format!("{}.{number}", entry.name),
                };
                plans.push(LayerPlan::new(name, entry.role, kind(index, held)));
                held = play::keeps_result(&entry.blocks, held);
            }
        }
        plans
    }

    fn trace(&self, kind: u32, trace: Trace<'_>) -> Traced {
        // A layer that does not exist would do nothing.
        let (index, held) = (kind / 2, kind % 2 == 1);
        let entry = self.layers.get(index as usize);
        let (input, role) = entry.map_or((Flow::Predictions, LayerRole::Block), |it| (it.input, it.role));
        play::layer(input, role, entry.map_or(&[], |it| &it.blocks), held, trace)
    }

    fn longest_sequence(&self) -> Option<u64> {
        self.longest
    }

    fn widest_head(&self) -> u64 {
        self.layers.iter().map(|layer| widest_head(&layer.blocks)).max().unwrap_or(0)
    }
}

/// Values of the widest head of some blocks' attention, nested ones included.
fn widest_head(blocks: &[Block]) -> u64 {
    let of = |block: &Block| match &block.kind {
        Kind::Attention(attend) => attend.head_dim,
        Kind::Residual { branch, shortcut } => widest_head(branch).max(widest_head(shortcut)),
        _ => 0,
    };
    blocks.iter().map(of).max().unwrap_or(0)
}

/// Kind of the layers of an entry: its index, and whether the layer before keeps what they receive.
fn kind(index: u32, held: bool) -> u32 {
    2 * index + u32::from(held)
}

/// Tokens of a sample under a workload.
fn tokens(length: Length, sequence_length: u64) -> u64 {
    match length {
        Length::Sequence => sequence_length,
        Length::Fixed(tokens) => tokens,
    }
}
