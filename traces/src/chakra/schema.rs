//! The messages of the schema that are read and written, by its field numbers.

use prost::{Enumeration, Message, Oneof};

/// Version that written traces name.
pub(super) const VERSION: &str = "0.0.4";

/// First message of a file.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GlobalMetadata {
    #[prost(string, tag = "1")]
    pub(super) version: String,
    #[prost(message, repeated, tag = "2")]
    pub(super) attr: Vec<Attribute>,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub(super) enum NodeType {
    Invalid = 0,
    Metadata = 1,
    MemLoad = 2,
    MemStore = 3,
    Comp = 4,
    CommSend = 5,
    CommRecv = 6,
    CommColl = 7,
}

/// Collectives, by `comm_type`.
pub(super) const COMM_TYPES: [&str; 10] = [
    "ALL_REDUCE",
    "REDUCE",
    "ALL_GATHER",
    "GATHER",
    "SCATTER",
    "BROADCAST",
    "ALL_TO_ALL",
    "REDUCE_SCATTER",
    "REDUCE_SCATTER_BLOCK",
    "BARRIER",
];

/// An operation.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(enumeration = "NodeType", tag = "3")]
    pub(super) kind: i32,
    #[prost(uint64, repeated, tag = "4")]
    pub(super) ctrl_deps: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) data_deps: Vec<u64>,
    #[prost(uint64, tag = "6")]
    pub(super) start_time_micros: u64,
    #[prost(uint64, tag = "7")]
    pub(super) duration_micros: u64,
    #[prost(message, repeated, tag = "10")]
    pub(super) attr: Vec<Attribute>,
}

/// A named value.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(oneof = "Value", tags = "3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29")]
    pub(super) value: Option<Value>,
}

/// The value; lists and bytes are passed over.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Value {
    #[prost(double, tag = "3")]
    Double(f64),
    #[prost(float, tag = "5")]
    Float(f32),
    #[prost(int32, tag = "7")]
    Int32(i32),
    #[prost(int64, tag = "9")]
    Int64(i64),
    #[prost(uint32, tag = "11")]
    Uint32(u32),
    #[prost(uint64, tag = "13")]
    Uint64(u64),
    #[prost(sint32, tag = "15")]
    Sint32(i32),
    #[prost(sint64, tag = "17")]
    Sint64(i64),
    #[prost(fixed32, tag = "19")]
    Fixed32(u32),
    #[prost(fixed64, tag = "21")]
    Fixed64(u64),
    #[prost(sfixed32, tag = "23")]
    Sfixed32(i32),
    #[prost(sfixed64, tag = "25")]
    Sfixed64(i64),
    #[prost(bool, tag = "27")]
    Bool(bool),
    #[prost(string, tag = "29")]
    Text(String),
}

impl Attribute {
    pub(super) fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value: Some(value) }
    }
}

impl Value {
    /// The value as a number that is not negative, whatever type of integer it has.
    pub(super) fn count(&self) -> Option<u64> {
        match *self {
            Self::Int32(it) | Self::Sint32(it) | Self::Sfixed32(it) => u64::try_from(it).ok(),
            Self::Int64(it) | Self::Sint64(it) | Self::Sfixed64(it) => u64::try_from(it).ok(),
            Self::Uint32(it) | Self::Fixed32(it) => Some(u64::from(it)),
            Self::Uint64(it) | Self::Fixed64(it) => Some(it),
            Self::Double(it) if it >= 0.0 && it < 2_f64.powi(63) => Some(it as u64),
            Self::Float(it) if it >= 0.0 && it < 2_f32.powi(63) => Some(it as u64),
            Self::Text(ref text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The value as text.
    pub(super) fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            other => other.count().map(|count| count.to_string()),
        }
    }
}

impl Node {
    pub(super) fn value(&self, name: &str) -> Option<&Value> {
        self.attr.iter().find(|it| it.name == name).and_then(|it| it.value.as_ref())
    }

    /// A number by its name.
    pub(super) fn count(&self, name: &str) -> Option<u64> {
        self.value(name).and_then(Value::count)
    }
}

/// Appends a message with its length before it.
pub(super) fn append<M: Message>(bytes: &mut Vec<u8>, message: &M) {
    // Memory has room for what it encodes.
    let _ = message.encode_length_delimited(bytes);
}
