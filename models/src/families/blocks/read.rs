//! Reading blocks, each checked against what the one before it hands on.

use super::fields::{component, image, simple, transformer};
use super::flow::{Flow, Length};
use super::kinds::{Block, Kind};
use crate::blocks::Window;
use crate::document::Section;
use crate::error::ModelError;
use crate::families::limits;
use crate::units::product;

const KINDS: [&str; 19] = [
    "embedding",
    "positions",
    "token_types",
    "patches",
    "class_token",
    "norm",
    "attention",
    "mlp",
    "moe",
    "conv",
    "activation",
    "dropout",
    "linear",
    "pool",
    "flatten",
    "head",
    "component",
    "residual",
    // Last, so that it is offered last.
    "relu",
];

/// What is known while a file is read.
pub(super) struct Reader<'l> {
    /// Name of the layer, for messages.
    pub(super) layer: &'l str,
    /// Rows and width of the token embedding, once there is one.
    pub(super) embedding: &'l mut Option<[u64; 2]>,
    /// Longest sequence that the workload may have, once there are learned positions.
    pub(super) longest: &'l mut Option<u64>,
    /// Sequence length that the file states.
    pub(super) sequence_length: u64,
}

/// A block's table with its number, to refuse what does not fit.
pub(super) struct Entry<'s> {
    pub(super) section: &'s Section,
    layer: &'s str,
    path: &'s str,
    /// What it is given.
    pub(super) flow: Flow,
}

impl Entry<'_> {
    /// The error that the block cannot take what it is given.
    pub(super) fn needs(&self, needs: impl Into<String>) -> ModelError {
        self.mismatch(needs, self.flow.to_string())
    }

    fn mismatch(&self, needs: impl Into<String>, gets: impl Into<String>) -> ModelError {
        ModelError::BlockMismatch {
            layer: self.layer.to_owned(),
            block: self.path.to_owned(),
            needs: needs.into(),
            gets: gets.into(),
            place: self.section.place(),
        }
    }

    /// Width of the tokens, the pixels or the vector.
    pub(super) fn width(&self) -> Result<u64, ModelError> {
        self.flow.width().ok_or_else(|| self.needs("tokens, an image or a vector"))
    }

    pub(super) fn token_width(&self) -> Result<(u64, Length), ModelError> {
        match self.flow {
            Flow::Tokens { width, length } => Ok((width, length)),
            _ => Err(self.needs("tokens")),
        }
    }

    /// Tokens or a vector, and its width.
    pub(super) fn row_width(&self) -> Result<u64, ModelError> {
        match self.flow {
            Flow::Tokens { width, .. } | Flow::Vector { width } => Ok(width),
            _ => Err(self.needs("tokens or a vector")),
        }
    }

    pub(super) fn image(&self) -> Result<[u64; 3], ModelError> {
        match self.flow {
            Flow::Image { channels, height, width } => Ok([channels, height, width]),
            _ => Err(self.needs("an image")),
        }
    }

    /// Reads `kernel`, `stride` and `padding`, and what an image becomes under that window.
    pub(super) fn window(
        &self,
        stride: Option<u64>,
        padding: Option<u64>,
    ) -> Result<(Window, u64, u64), ModelError> {
        let section = self.section;
        let size = section.count("kernel", limits::PIXELS)?;
        let stride = section.range("stride", 1, limits::PIXELS)?.unwrap_or(stride.unwrap_or(size));
        let padding = section.range("padding", 0, limits::PIXELS)?.unwrap_or(padding.unwrap_or(size / 2));
        let window = Window::square(size, stride, padding);
        let [_, height, width] = self.image()?;
        let [rows, columns] = window.over([height, width]);
        if rows == 0 || columns == 0 {
            return Err(self.needs(format!("an image of at least {size} x {size} with its padding")));
        }
        Ok((window, rows, columns))
    }
}

impl Reader<'_> {
    /// Reads the list of blocks `name`, which is given `flow`.
    pub(super) fn blocks(
        &mut self,
        table: &Section,
        name: &str,
        flow: Flow,
        before: &str,
    ) -> Result<(Vec<Block>, Flow), ModelError> {
        let mut flow = flow;
        let mut blocks = Vec::new();
        for (index, section) in table.sections(name)?.into_iter().enumerate() {
            let block = self.block(section, flow, &format!("{before}{}", index + 1))?;
            flow = block.output;
            blocks.push(block);
        }
        Ok((blocks, flow))
    }

    fn block(&mut self, section: Section, flow: Flow, path: &str) -> Result<Block, ModelError> {
        let word = KINDS[section.choice("kind", &KINDS)?];
        let section = section.renamed(word);
        let named = section.has("name");
        let module = if named { section.text("name")? } else { word }.to_owned();
        let flow = flow.touched();
        let entry = Entry { section: &section, layer: self.layer, path, flow };
        let (kind, output) = match word {
            "embedding" | "positions" | "token_types" | "patches" | "class_token" => {
                self.beginning(word, &entry)?
            }
            "residual" => self.residual(&entry)?,
            "head" => self.head(&entry)?,
            "attention" | "mlp" | "moe" => transformer(word, &entry)?,
            "conv" | "pool" | "flatten" => image(word, &entry)?,
            "component" => component(&entry)?,
            _ => simple(word, &entry)?,
        };
        Ok(Block { kind, module, named, place: section.place(), input: flow, output })
    }

    /// Kinds that make tokens or mark them.
    fn beginning(&mut self, word: &str, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
        let (section, flow) = (entry.section, entry.flow);
        match word {
            "embedding" => {
                only(section, &["vocabulary", "width"])?;
                let vocabulary = section.count("vocabulary", limits::VOCABULARY)?;
                let width = section.count("width", limits::WIDTH)?;
                if flow != Flow::Ids {
                    return Err(entry.needs("token ids"));
                }
                *self.embedding = Some([vocabulary, width]);
                Ok((Kind::Embedding { vocabulary, width }, Flow::Tokens { width, length: Length::Sequence }))
            }
            "positions" => {
                only(section, &["rows"])?;
                let rows = section.count("rows", limits::POSITIONS)?;
                let needed = match entry.token_width()?.1 {
                    Length::Sequence => self.sequence_length,
                    Length::Fixed(tokens) => tokens,
                };
                if rows < needed {
                    return Err(section.refuse(
                        "rows",
                        rows,
                        format!("at least the {needed} tokens of a sample"),
                    ));
                }
                if entry.token_width()?.1 == Length::Sequence {
                    *self.longest = Some(self.longest.map_or(rows, |other| other.min(rows)));
                }
                Ok((Kind::Positions { rows }, flow))
            }
            "token_types" => {
                only(section, &["count"])?;
                let count = section.count("count", limits::VOCABULARY)?;
                match entry.token_width()?.1 {
                    Length::Sequence => Ok((Kind::TokenTypes { count }, flow)),
                    Length::Fixed(_) => Err(entry.needs("tokens of a text")),
                }
            }
            "class_token" => {
                only(section, &[])?;
                match entry.token_width()? {
                    (width, Length::Fixed(tokens)) => {
                        let length = Length::Fixed(tokens + 1);
                        Ok((Kind::ClassToken, Flow::Tokens { width, length }))
                    }
                    _ => Err(entry.needs("the patches of an image")),
                }
            }
            _ => {
                only(section, &["size", "width"])?;
                let size = section.count("size", limits::PIXELS)?;
                let tokens_width = section.count("width", limits::WIDTH)?;
                let [_, height, width] = entry.image()?;
                if height != width || !height.is_multiple_of(size) {
                    return Err(entry.needs(format!("a square image with sides of a multiple of {size}")));
                }
                let length = Length::Fixed(product(&[height / size, width / size]));
                Ok((
                    Kind::Patches { size, width: tokens_width },
                    Flow::Tokens { width: tokens_width, length },
                ))
            }
        }
    }

    fn residual(&mut self, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
        only(entry.section, &["blocks", "shortcut"])?;
        let (branch, output) =
            self.blocks(entry.section, "blocks", entry.flow, &format!("{}.", entry.path))?;
        let (shortcut, other) = if entry.section.has("shortcut") {
            self.blocks(entry.section, "shortcut", entry.flow, &format!("{}.shortcut.", entry.path))?
        } else {
            (Vec::new(), entry.flow)
        };
        if output != other {
            let from = if shortcut.is_empty() { "its input" } else { "its shortcut" };
            return Err(entry.mismatch(
                format!("a branch that hands on {other}, to be added to {from}"),
                output.to_string(),
            ));
        }
        if output.width().is_none() {
            return Err(entry.mismatch("tokens, an image or a vector to add", output.to_string()));
        }
        Ok((Kind::Residual { branch, shortcut }, output))
    }

    fn head(&self, entry: &Entry<'_>) -> Result<(Kind, Flow), ModelError> {
        let section = entry.section;
        only(section, &["outputs", "tied", "bias"])?;
        let outputs = section.count("outputs", limits::VOCABULARY)?;
        let (tied, bias) = (section.flag("tied", false)?, section.flag("bias", false)?);
        let width = entry.row_width()?;
        match *self.embedding {
            Some(table) if tied && table != [outputs, width] => {
                let [rows, columns] = table;
                return Err(entry.mismatch(
                    format!(
                        "{rows} outputs and a width of {columns}, as the embedding has, to be tied to it"
                    ),
                    format!("{outputs} outputs and a width of {width}"),
                ));
            }
            None if tied => return Err(entry.mismatch("an embedding to be tied to", "none")),
            _ => {}
        }
        Ok((Kind::Head { outputs, tied, bias }, Flow::Predictions))
    }
}

/// Refuses fields that the kind does not have; all blocks have `kind` and `name`.
pub(super) fn only(section: &Section, fields: &[&str]) -> Result<(), ModelError> {
    section.only(&[&["kind", "name"], fields].concat())
}
