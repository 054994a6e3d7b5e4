//! The bytes of one message, described by a string: Python's `struct` formats with names (D-1).
//!
//! `parse` reads the string, `code` knows the single values, `encode` and `decode` go between values and bytes, `places` says
//! where everything stands.
//!
//! ```
//! use cabo_proto::dialect::{layout::Layout, value::{Fields, Value}};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let layout = Layout::parse("!B:version L:size {size}s:text")?;
//! let given = Fields::from([("version", Value::Int(1)), ("text", Value::from("ola"))]);
//! let bytes = layout.encode(&given)?;
//! assert_eq!(bytes, b"\x01\x00\x00\x00\x03ola"); // the size is what the text has
//! assert_eq!(layout.decode(&bytes)?.get("size"), Some(&Value::Int(3)));
//! # Ok(()) }
//! ```

use crate::dialect::value::Value;

pub use code::{Code, Order, Unfit};
pub use decode::{DecodeError, Extent, Misread};
pub use encode::{EncodeError, Miswritten};
pub use parse::{ParseError, Problem};
pub use places::Place;

pub(in crate::dialect) use code::Slot;
pub(in crate::dialect) use encode::only_free;
pub(in crate::dialect) use parse::integer;

mod code;
mod decode;
mod encode;
mod parse;
mod places;
#[cfg(test)]
mod tests;

/// Bytes of a layout's text.
pub const TEXT_MAX: usize = 16 * 1024;
/// Items of a layout, with groups of a fixed count written out.
pub const ITEMS_MAX: usize = 65_536;
/// How deep groups may stand in each other.
pub const DEPTH_MAX: usize = 8;
/// Bytes of the part of a layout that is always there.
pub const FIXED_MAX: usize = 16 * 1024 * 1024;
/// Values of one decoded message.
pub const VALUES_MAX: usize = 1024 * 1024;

/// A described message. What it prints reads as the same layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    text: String,
    order: Order,
    items: Vec<Item>,
    /// Bytes of a message, where all have the same.
    fixed_size: Option<usize>,
}

/// One piece of a layout.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    /// The name of its field: as given, or its position. Pad bytes have none.
    pub name: String,
    /// Whether the name was given.
    pub is_named: bool,
    /// What stands there.
    pub kind: Kind,
    /// The one value that it may have.
    pub constant: Option<Value>,
    /// Something after it is counted by it (D-1.10).
    pub is_counting: bool,
}

impl Item {
    /// Whether it is one integer.
    pub fn is_integer(&self) -> bool {
        matches!(self.kind, Kind::One(code) if code.is_integer())
    }
}

/// What an item is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Zero bytes, `x`.
    Pad(usize),
    /// Aligns as a value of this code would, and has none: a count of 0.
    Align(Code),
    /// One value.
    One(Code),
    /// Several values under one name.
    Several(Code, usize),
    /// Bytes, `s`.
    Text(Count),
    /// A Pascal string, `p`, of so many bytes with the one for its length.
    Pascal(usize),
    /// Items, repeated.
    Group(Count, Vec<Item>),
    /// Items, repeated until so many bytes are used up.
    Block(Count, Vec<Item>),
}

/// How many.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Count {
    /// As the layout says.
    Fixed(usize),
    /// As an earlier field says.
    By(Reference),
}

/// Where the counting field stands: so many groups up, and the item there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reference {
    up: usize,
    item: usize,
}

impl Layout {
    /// Reads a layout (D-1).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        parse::parse(text)
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Byte order, sizes and alignment.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Its items in order.
    pub fn items(&self) -> &[Item] {
        &self.items
    }

    /// The fewest bytes that a message has.
    pub fn least_size(&self) -> usize {
        least_size(&self.items, self.order)
    }

    /// Bytes of a message, where all have the same.
    pub fn fixed_size(&self) -> Option<usize> {
        self.fixed_size
    }

    /// Where the integer of that name stands, if that is all there is to look at: of the same size in every message, and
    /// without constants.
    pub(in crate::dialect) fn slot(&self, name: &str) -> Option<Slot> {
        self.fixed_size?;
        let is_plain = |item: &Item| {
            let is_simple = matches!(item.kind, Kind::One(_) | Kind::Pad(_) | Kind::Align(_));
            is_simple && item.constant.is_none()
        };
        if !self.items.iter().all(is_plain) {
            return None;
        }
        let place = self.places().into_iter().find(|place| place.item.name == name)?;
        match (&place.item.kind, place.at) {
            (Kind::One(code), Some(at)) if code.is_integer() => {
                Some(Slot::new(at, *code, self.order))
            }
            _ => None,
        }
    }
}

/// Where items end that begin at `at`; `None` where a message decides.
fn end(items: &[Item], at: usize, order: Order) -> Option<usize> {
    items.iter().try_fold(at, |at, item| item.kind.end(at, order))
}

impl Kind {
    /// Where it ends if it begins at `at`; `None` where a message decides.
    fn end(&self, at: usize, order: Order) -> Option<usize> {
        match self {
            Self::Pad(size) | Self::Pascal(size) | Self::Text(Count::Fixed(size)) => {
                Some(at.saturating_add(*size))
            }
            Self::Align(code) => Some(aligned(at, *code, order)),
            Self::One(code) => Some(aligned(at, *code, order).saturating_add(code.size(order))),
            Self::Several(code, count) => {
                let size = code.size(order).saturating_mul(*count);
                Some(aligned(at, *code, order).saturating_add(size))
            }
            Self::Group(Count::Fixed(count), items) => {
                (0..*count).try_fold(at, |at, _| end(items, at, order))
            }
            Self::Text(Count::By(_)) | Self::Group(Count::By(_), _) | Self::Block(..) => None,
        }
    }

    /// The fewest bytes that it has, without alignment.
    fn least_size(&self, order: Order) -> usize {
        match self {
            Self::Pad(size) | Self::Pascal(size) | Self::Text(Count::Fixed(size)) => *size,
            Self::One(code) => code.size(order),
            Self::Several(code, count) => code.size(order).saturating_mul(*count),
            Self::Group(Count::Fixed(count), items) => {
                least_size(items, order).saturating_mul(*count)
            }
            Self::Align(_)
            | Self::Text(Count::By(_))
            | Self::Group(Count::By(_), _)
            | Self::Block(..) => 0,
        }
    }
}

/// The fewest bytes that items have together.
fn least_size(items: &[Item], order: Order) -> usize {
    items.iter().fold(0, |sum, item| item.kind.least_size(order).saturating_add(sum))
}

/// Where a value of `code` begins, at `at` or after it (D-1.4).
fn aligned(at: usize, code: Code, order: Order) -> usize {
    match order {
        Order::Native => at.next_multiple_of(code.size(order)),
        Order::Little | Order::Big => at,
    }
}
