//! Headers and the tensors they list.

use indexmap::IndexMap;
use serde::Serialize;

use super::super::json;
use super::super::node::{Node, Value, shorten};
use super::super::source::Source;
use crate::error::{InputError, nearest};
use crate::origin::Origin;
use crate::section::list;

/// Longest header, bytes: the format's own limit.
pub const HEADER_LIMIT: u64 = 100_000_000;

/// Number formats and their bits a value.
const FORMATS: [(&str, u64); 20] = [
    ("BOOL", 8),
    ("F4", 4),
    ("F6_E2M3", 6),
    ("F6_E3M2", 6),
    ("U8", 8),
    ("I8", 8),
    ("F8_E5M2", 8),
    ("F8_E4M3", 8),
    ("F8_E8M0", 8),
    ("F8_E4M3FNUZ", 8),
    ("F8_E5M2FNUZ", 8),
    ("I16", 16),
    ("U16", 16),
    ("F16", 16),
    ("BF16", 16),
    ("I32", 32),
    ("U32", 32),
    ("F32", 32),
    ("F64", 64),
    ("I64", 64),
];

/// The first bytes of a file, and its length.
#[derive(Clone, Copy, Debug)]
pub struct SafetensorsFile<'a> {
    /// How errors name the file.
    pub name: &'a str,
    /// Its first eight bytes; fewer if it has fewer.
    pub prefix: &'a [u8],
    /// Its length, bytes.
    pub length: u64,
}

impl SafetensorsFile<'_> {
    /// The length of the header that follows the first eight bytes.
    ///
    /// # Errors
    /// The file is shorter than its header says, or the header longer than [`HEADER_LIMIT`].
    pub fn header_length(&self) -> Result<u64, InputError> {
        let refuse = |message: String| Err(conflict(self.name, message));
        let Ok(prefix) = <[u8; 8]>::try_from(self.prefix) else {
            return refuse(format!("found {} bytes, allowed: at least 8", self.prefix.len()));
        };
        let length = u64::from_le_bytes(prefix);
        if length > HEADER_LIMIT {
            return refuse(format!("the header would have {length} bytes, allowed: at most {HEADER_LIMIT}"));
        }
        if length + 8 > self.length {
            return refuse(format!("the header would have {length} bytes, but the file has {}", self.length));
        }
        Ok(length)
    }
}

/// A tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorEntry {
    pub(super) format: &'static str,
    pub(super) shape: Vec<u64>,
    pub(super) values: u64,
    bytes: u64,
}

/// Tensors of one format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FormatTotal {
    /// Name of the format, such as `BF16`.
    pub format: String,
    /// Tensors.
    pub tensors: u64,
    /// Values in them.
    pub values: u64,
    /// Bytes of data.
    pub bytes: u64,
}

/// All tensors of a checkpoint.
#[derive(Clone, Debug)]
pub struct TensorTable {
    name: String,
    tensors: IndexMap<String, TensorEntry>,
}

impl TensorTable {
    /// Reads the header of one file; `data` is the length of what follows it, bytes.
    ///
    /// # Errors
    /// Not UTF-8 or not JSON; an entry without format, shape or offsets; a size that does not follow from the shape;
    /// offsets outside of the file or of two tensors that overlap.
    pub fn read(name: &str, header: &[u8], data: u64) -> Result<Self, InputError> {
        let text = std::str::from_utf8(header).map_err(|error| {
            conflict(name, format!("the header is not UTF-8 at byte {}", 8 + error.valid_up_to()))
        })?;
        let source = Source::new(name, text);
        let root = json::parse(&source)?;
        let Value::Table(entries) = &root.value else {
            return Err(source.syntax(0, "found no table of tensors in the header"));
        };
        let mut tensors = IndexMap::with_capacity(entries.len());
        let mut spans = Vec::with_capacity(entries.len());
        for (tensor, node) in entries {
            if tensor == "__metadata__" {
                continue;
            }
            let (entry, begin, end) = read_entry(&source, tensor, node, data)?;
            spans.push((begin, end, node.key_at));
            tensors.insert(tensor.clone(), entry);
        }
        spans.sort_unstable();
        for pair in spans.windows(2) {
            if let [(_, end, _), (begin, _, at)] = pair
                && begin < end
            {
                return Err(source.syntax(
                    *at,
                    format!("begins at byte {begin} of the data, before {end}, where another tensor ends"),
                ));
            }
        }
        Ok(Self { name: name.to_owned(), tensors })
    }

    /// The files that `model.safetensors.index.json` lists, each once, in order.
    ///
    /// # Errors
    /// Not JSON, no `weight_map`, a file name that leads out of the folder.
    pub fn read_index(name: &str, text: &str) -> Result<Vec<String>, InputError> {
        if text.len() as u64 > HEADER_LIMIT {
            return Err(conflict(
                name,
                format!("found {} bytes, allowed: at most {HEADER_LIMIT}", text.len()),
            ));
        }
        let source = Source::new(name, text);
        let root = json::parse(&source)?;
        let map = match &root.value {
            Value::Table(table) => table.get("weight_map"),
            _ => None,
        };
        let Some(Node { value: Value::Table(map), .. }) = map else {
            return Err(InputError::Missing {
                origin: source.origin(0),
                key: "weight_map".to_owned(),
                needed: "must be a table from tensors to files".to_owned(),
            });
        };
        let mut files = indexmap::IndexSet::new();
        for (tensor, node) in map {
            match &node.value {
                Value::Text(file) if !file.is_empty() && !file.contains(['/', '\\', ':']) && file != ".." => {
                    files.insert(file.clone());
                }
                other => {
                    return Err(InputError::Value {
                        origin: source.origin(node.at),
                        key: format!("weight_map.{tensor}"),
                        found: other.describe(),
                        allowed: "the name of a file in the same folder".to_owned(),
                        nearest: None,
                    });
                }
            }
        }
        Ok(files.into_iter().collect())
    }

    /// Adds the tensors of another file.
    ///
    /// # Errors
    /// A tensor is in both.
    pub fn merge(&mut self, other: Self) -> Result<(), InputError> {
        for (tensor, entry) in other.tensors {
            if self.tensors.contains_key(&tensor) {
                return Err(conflict(
                    &other.name,
                    format!("the tensor {} is in another file as well", shorten(&tensor)),
                ));
            }
            self.tensors.insert(tensor, entry);
        }
        Ok(())
    }

    /// An empty table that errors call `name`.
    pub fn empty(name: &str) -> Self {
        Self { name: name.to_owned(), tensors: IndexMap::new() }
    }

    /// Tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Tensors, values and bytes by number format, in the order of the format's own list.
    pub fn totals(&self) -> Vec<FormatTotal> {
        FORMATS
            .iter()
            .filter_map(|(format, _)| {
                let of: Vec<_> = self.tensors.values().filter(|tensor| tensor.format == *format).collect();
                let sum = |part: fn(&TensorEntry) -> u64| {
                    of.iter().map(|tensor| part(tensor)).fold(0, u64::saturating_add)
                };
                (!of.is_empty()).then(|| FormatTotal {
                    format: (*format).to_owned(),
                    tensors: of.len() as u64,
                    values: sum(|tensor| tensor.values),
                    bytes: sum(|tensor| tensor.bytes),
                })
            })
            .collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &TensorEntry)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A tensor by the end of its name, which prefixes such as `model.` stand before.
    pub(super) fn ending(&self, end: &str) -> Option<&TensorEntry> {
        let matches =
            |name: &str| name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        self.iter().find(|(name, _)| matches(name)).map(|(_, tensor)| tensor)
    }

    /// Values in parameters, and the tensors that are none: buffers, scales of 8-bit weights, and a projection that
    /// the model shares with its embedding.
    pub(super) fn parameters(&self, tied: bool) -> (u64, usize) {
        let mut values = 0_u64;
        let mut left_out = 0;
        for (name, tensor) in self.iter() {
            let buffer = name.ends_with(".inv_freq")
                || name.ends_with(".masked_bias")
                || name.ends_with(".position_ids")
                || name == "position_ids"
                || name.ends_with("_scale_inv")
                || (name.ends_with(".attn.bias") && tensor.shape.len() == 4)
                || (tied && (name == "lm_head.weight" || name.ends_with(".lm_head.weight")));
            if buffer {
                left_out += 1;
            } else {
                values = values.saturating_add(tensor.values);
            }
        }
        (values, left_out)
    }

    pub(super) fn conflict(&self, message: String) -> InputError {
        conflict(&self.name, message)
    }
}

fn conflict(name: &str, message: String) -> InputError {
    InputError::Syntax { origin: Origin::File { file: name.to_owned(), line: 1, column: 1 }, message }
}

/// One entry, and where its data begins and ends.
fn read_entry(
    source: &Source<'_>,
    tensor: &str,
    node: &Node,
    data: u64,
) -> Result<(TensorEntry, u64, u64), InputError> {
    let short = shorten(tensor);
    let refuse = |key: &str, node: &Node, allowed: String, near: Option<String>| InputError::Value {
        origin: source.origin(node.at),
        key: format!("{short}{key}"),
        found: node.value.describe(),
        allowed,
        nearest: near,
    };
    let Value::Table(table) = &node.value else {
        return Err(refuse("", node, "a table with dtype, shape and data_offsets".to_owned(), None));
    };
    let part = |key: &str| {
        table.get(key).ok_or_else(|| InputError::Missing {
            origin: source.origin(node.at),
            key: format!("{short}.{key}"),
            needed: "every tensor has dtype, shape and data_offsets".to_owned(),
        })
    };
    if let Some((stray, value)) =
        table.iter().find(|(key, _)| !["dtype", "shape", "data_offsets"].contains(&key.as_str()))
    {
        return Err(InputError::UnknownKey {
            origin: source.origin(value.key_at),
            key: format!("{short}.{}", shorten(stray)),
            allowed: "dtype, shape, data_offsets".to_owned(),
            nearest: nearest(stray, ["dtype", "shape", "data_offsets"]),
        });
    }
    let dtype = part("dtype")?;
    let names = || FORMATS.iter().map(|(name, _)| *name);
    let Some(&(format, bits)) =
        FORMATS.iter().find(|(name, _)| matches!(&dtype.value, Value::Text(text) if text == name))
    else {
        let near = if let Value::Text(text) = &dtype.value { nearest(text, names()) } else { None };
        return Err(refuse(".dtype", dtype, list(names()), near));
    };
    let numbers = |key: &str, allowed: &str| -> Result<(Vec<u64>, &Node), InputError> {
        let node = part(key)?;
        let wrong = || refuse(&format!(".{key}"), node, allowed.to_owned(), None);
        let Value::List(items) = &node.value else { return Err(wrong()) };
        let numbers =
            items.iter().map(|item| item.value.whole().ok_or_else(wrong)).collect::<Result<_, _>>()?;
        Ok((numbers, node))
    };
    let (shape, shape_node) = numbers("shape", "a list of whole numbers")?;
    let (offsets, offsets_node) = numbers("data_offsets", "two whole numbers")?;
    let &[begin, end] = &offsets[..] else {
        return Err(refuse(".data_offsets", offsets_node, "two whole numbers".to_owned(), None));
    };
    let values = shape.iter().try_fold(1_u64, |all, &size| all.checked_mul(size));
    let bytes = values.and_then(|values| values.checked_mul(bits)).map(|bits| bits.div_ceil(8));
    let (Some(values), Some(bytes)) = (values, bytes) else {
        return Err(
            source.syntax(shape_node.at, format!("{short}.shape: the values cannot be counted in 64 bits"))
        );
    };
    if end.checked_sub(begin) != Some(bytes) || end > data {
        let message = format!(
            "{short}.data_offsets: found {begin} to {end}, allowed: {bytes} bytes, as {format} {shape:?} has, within \
             the {data} bytes of data"
        );
        return Err(source.syntax(offsets_node.at, message));
    }
    Ok((TensorEntry { format, shape, values, bytes }, begin, end))
}
