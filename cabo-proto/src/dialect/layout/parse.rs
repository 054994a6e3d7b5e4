//! Reads a layout's text (D-1.1 to D-1.3, D-1.6 to D-1.9, D-1.12).

use super::{
    Code, Count, DEPTH_MAX, FIXED_MAX, ITEMS_MAX, Item, Kind, Layout, Order, Reference, TEXT_MAX,
    least_size,
};
use crate::dialect::value::Value;

/// What is wrong with a layout, and at which byte of it.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("byte {at} of the layout: {problem}")]
pub struct ParseError {
    /// The byte, from 0.
    pub at: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What can be wrong with a layout.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Problem {
    /// More text than anybody needs.
    #[error("a layout has at most {TEXT_MAX} bytes")]
    TooLong,
    /// A letter that is no code in this order.
    #[error("{0:?} is no code here (x c b B ? h H i I l L q Q n N e f d s p P; n N P only with @)")]
    Code(char),
    /// A count without a code behind it.
    #[error("a count needs a code right behind it")]
    CountAlone,
    /// A number beyond all bounds.
    #[error("the number is too large")]
    Number,
    /// No name where there must be one.
    #[error("a name is a letter or _, then letters, digits, _ and -")]
    Name,
    /// Two fields of one name in one group.
    #[error("there already is a field {0:?} here")]
    Twice(String),
    /// Pad bytes have no value.
    #[error("pad bytes have no value, so no name and no constant")]
    NamedPad,
    /// A constant that its field cannot have.
    #[error("the constant does not fit: the field {0}")]
    Constant(String),
    /// A constant of a list or a group.
    #[error("only a single value can be constant")]
    ConstantList,
    /// A reference to what is not there.
    #[error("there is no integer field {0:?} before this, here or around it")]
    Reference(String),
    /// A reference where it means nothing.
    #[error("only s and groups can be counted by a field")]
    ReferenceCode,
    /// A reference where alignment would depend on it.
    #[error("a field can count only with =, <, > or ! before the layout")]
    ReferenceNative,
    /// A bracket without its other.
    #[error("{0:?} is missing")]
    Bracket(char),
    /// Groups in groups in groups.
    #[error("groups stand at most {DEPTH_MAX} deep")]
    Depth,
    /// A group without a count.
    #[error("a group needs a count: digits, {{field}}, or {{field}}s")]
    GroupCount,
    /// A group that could be repeated without end.
    #[error("a group that may take no bytes cannot be repeated by a field")]
    EmptyGroup,
    /// Too many items.
    #[error("a layout has at most {ITEMS_MAX} items")]
    TooManyItems,
    /// Too many bytes.
    #[error("a layout has at most {FIXED_MAX} bytes that are always there")]
    TooLarge,
}

pub(super) fn parse(text: &str) -> Result<Layout, ParseError> {
    if text.len() > TEXT_MAX {
        return Err(ParseError { at: TEXT_MAX, problem: Problem::TooLong });
    }
    let mut parser =
        Parser { text: text.as_bytes(), at: 0, order: Order::Native, open: Vec::new() };
    parser.order();
    let items = parser.items()?;
    if parser.at < text.len() {
        return Err(parser.wrong(Problem::Bracket('('))); // what ended the items is a ')'
    }
    if weight(&items) > ITEMS_MAX {
        return Err(parser.wrong(Problem::TooManyItems));
    }
    if least_size(&items, parser.order) > FIXED_MAX {
        return Err(parser.wrong(Problem::TooLarge));
    }
    let fixed_size = super::end(&items, 0, parser.order);
    Ok(Layout { text: text.to_owned(), order: parser.order, items, fixed_size })
}

/// Items with groups of a fixed count written out.
fn weight(items: &[Item]) -> usize {
    let of = |kind: &Kind| match kind {
        Kind::Group(Count::Fixed(count), inner) => weight(inner).saturating_mul(*count),
        Kind::Group(Count::By(_), inner) | Kind::Block(_, inner) => weight(inner),
        Kind::Several(_, count) => *count / 16, // a list is one item, but not of any length
        Kind::Pad(_) | Kind::Align(_) | Kind::One(_) | Kind::Text(_) | Kind::Pascal(_) => 0,
    };
    items.iter().fold(0, |sum: usize, item| sum.saturating_add(1).saturating_add(of(&item.kind)))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    order: Order,
    /// The groups that are open, the outermost first, each with its items so far.
    open: Vec<Vec<Item>>,
}

/// What stands before a code.
enum Before {
    Nothing,
    Digits(usize),
    Field(Reference),
}

impl Parser<'_> {
    fn order(&mut self) {
        self.order = match self.text.first() {
            Some(b'@') => Order::Native,
            Some(b'=' | b'<') => Order::Little,
            Some(b'>' | b'!') => Order::Big,
            _ => return,
        };
        self.at = 1;
    }

    /// Items up to the end or to a closing bracket.
    fn items(&mut self) -> Result<Vec<Item>, ParseError> {
        if self.open.len() > DEPTH_MAX {
            return Err(self.wrong(Problem::Depth));
        }
        self.open.push(Vec::new());
        let mut position = 0;
        loop {
            self.skip_space();
            if matches!(self.peek(), None | Some(b')')) {
                return Ok(self.open.pop().unwrap_or_default());
            }
            self.item(&mut position)?;
        }
    }

    fn item(&mut self, position: &mut usize) -> Result<(), ParseError> {
        let start = self.at;
        let before = self.before()?;
        let Some(letter) = self.peek() else { return Err(self.wrong(Problem::CountAlone)) };
        let kind = match letter {
            b'(' => self.group(before, start)?,
            b's' => self.text(before)?,
            _ => self.plain(before, letter)?,
        };
        let name = self.name(&kind)?;
        let constant = self.constant(&kind)?;
        self.push(kind, name, constant, position)
    }

    /// Puts an item into the open group; values without a name are counted.
    fn push(
        &mut self,
        kind: Kind,
        name: Option<String>,
        constant: Option<Value>,
        position: &mut usize,
    ) -> Result<(), ParseError> {
        let (is_named, mut constant) = (name.is_some(), constant);
        let (kinds, has_value) = match kind {
            Kind::Pad(_) | Kind::Align(_) => (vec![kind], false),
            // As in CPython, so many values; unless they are named together.
            Kind::Several(code, count) if !is_named => {
                if count > ITEMS_MAX {
                    return Err(self.wrong(Problem::TooManyItems));
                }
                (vec![Kind::One(code); count], true)
            }
            Kind::One(_)
            | Kind::Several(..)
            | Kind::Text(_)
            | Kind::Pascal(_)
            | Kind::Group(..)
            | Kind::Block(..) => (vec![kind], true),
        };
        for kind in kinds {
            let name = name.clone().unwrap_or_else(|| position.to_string());
            let is_taken = self.open.last().is_some_and(|items| find(items, &name).is_some());
            if has_value && is_taken {
                return Err(self.wrong(Problem::Twice(name)));
            }
            *position += usize::from(has_value);
            let name = if has_value { name } else { String::new() };
            let constant = constant.take(); // what has one is a single item
            let item = Item { name, is_named, kind, constant, is_counting: false };
            if let Some(items) = self.open.last_mut() {
                if items.len() >= ITEMS_MAX {
                    return Err(self.wrong(Problem::TooManyItems));
                }
                items.push(item);
            }
        }
        Ok(())
    }

    /// A count of digits or a reference.
    fn before(&mut self) -> Result<Before, ParseError> {
        match self.peek() {
            Some(b'0'..=b'9') => Ok(Before::Digits(self.number()?)),
            Some(b'{') => {
                self.at += 1;
                let start = self.at;
                let name = self.word()?;
                if self.peek() != Some(b'}') {
                    return Err(self.wrong(Problem::Bracket('}')));
                }
                self.at += 1;
                if self.order == Order::Native {
                    return Err(ParseError { at: start, problem: Problem::ReferenceNative });
                }
                self.reference(&name, start).map(Before::Field)
            }
            _ => Ok(Before::Nothing),
        }
    }

    /// Finds the field that counts, and marks it.
    fn reference(&mut self, name: &str, at: usize) -> Result<Reference, ParseError> {
        for (up, items) in self.open.iter_mut().rev().enumerate() {
            let Some(item) = find(items, name) else { continue };
            let Some(found) = items.get_mut(item) else { continue };
            if !matches!(found.kind, Kind::One(code) if code.is_integer()) {
                break;
            }
            found.is_counting = true;
            return Ok(Reference { up, item });
        }
        Err(ParseError { at, problem: Problem::Reference(name.to_owned()) })
    }

    fn plain(&mut self, before: Before, letter: u8) -> Result<Kind, ParseError> {
        let count = match before {
            Before::Nothing => None,
            Before::Digits(count) => Some(count),
            Before::Field(_) => return Err(self.wrong(Problem::ReferenceCode)),
        };
        let code = Code::of(letter, self.order);
        let kind = match (letter, code, count) {
            (b'x', ..) => Kind::Pad(count.unwrap_or(1)),
            (b'p', ..) => Kind::Pascal(count.unwrap_or(1)),
            (_, Some(code), None | Some(1)) => Kind::One(code),
            (_, Some(code), Some(0)) => Kind::Align(code),
            (_, Some(code), Some(count)) => Kind::Several(code, count),
            (_, None, Some(_)) if letter.is_ascii_whitespace() => {
                return Err(self.wrong(Problem::CountAlone));
            }
            (_, None, _) => {
                let rest = String::from_utf8_lossy(self.text.get(self.at..).unwrap_or_default());
                return Err(self.wrong(Problem::Code(rest.chars().next().unwrap_or_default())));
            }
        };
        self.at += 1;
        Ok(kind)
    }

    /// `s`, or a block of bytes that holds a group.
    fn text(&mut self, before: Before) -> Result<Kind, ParseError> {
        let count = match before {
            Before::Nothing => Count::Fixed(1),
            Before::Digits(size) => Count::Fixed(size),
            Before::Field(reference) => Count::By(reference),
        };
        self.at += 1;
        if self.peek() != Some(b'(') {
            return Ok(Kind::Text(count));
        }
        let start = self.at;
        let items = self.bracketed(Count::Fixed(0))?; // what is inside may be repeated
        if least_size(&items, self.order) == 0 {
            return Err(ParseError { at: start, problem: Problem::EmptyGroup });
        }
        Ok(Kind::Block(count, items))
    }

    fn group(&mut self, before: Before, start: usize) -> Result<Kind, ParseError> {
        let count = match before {
            Before::Nothing => return Err(self.wrong(Problem::GroupCount)),
            Before::Digits(count) => Count::Fixed(count),
            Before::Field(reference) => Count::By(reference),
        };
        let items = self.bracketed(count)?;
        let is_endless = matches!(count, Count::By(_)) && least_size(&items, self.order) == 0;
        if is_endless {
            return Err(ParseError { at: start, problem: Problem::EmptyGroup });
        }
        Ok(Kind::Group(count, items))
    }

    /// The items in brackets.
    fn bracketed(&mut self, count: Count) -> Result<Vec<Item>, ParseError> {
        if matches!(count, Count::Fixed(count) if count > ITEMS_MAX) {
            return Err(self.wrong(Problem::TooManyItems));
        }
        self.at += 1;
        let items = self.items()?;
        if self.peek() != Some(b')') {
            return Err(self.wrong(Problem::Bracket(')')));
        }
        self.at += 1;
        Ok(items)
    }

    fn name(&mut self, kind: &Kind) -> Result<Option<String>, ParseError> {
        if self.peek() != Some(b':') {
            return Ok(None);
        }
        if matches!(kind, Kind::Pad(_) | Kind::Align(_)) {
            return Err(self.wrong(Problem::NamedPad));
        }
        self.at += 1;
        self.word().map(Some)
    }

    /// `=value` (D-1.7), checked by writing it.
    fn constant(&mut self, kind: &Kind) -> Result<Option<Value>, ParseError> {
        if self.peek() != Some(b'=') {
            return Ok(None);
        }
        let start = self.at;
        let wrong = |problem| ParseError { at: start, problem };
        self.at += 1;
        let value = self.literal()?;
        let misfit = match kind {
            Kind::Pad(_) | Kind::Align(_) => return Err(wrong(Problem::NamedPad)),
            Kind::Several(..) | Kind::Group(..) | Kind::Block(..) => {
                return Err(wrong(Problem::ConstantList));
            }
            Kind::One(code) => code.write(&value, self.order, &mut Vec::new()).err(),
            Kind::Text(Count::Fixed(size)) | Kind::Pascal(size) => {
                if value.as_bytes().is_none_or(|bytes| bytes.len() > *size) {
                    return Err(wrong(Problem::Constant(format!("takes {size} bytes of text"))));
                }
                None
            }
            Kind::Text(Count::By(_)) if value.as_bytes().is_none() => {
                return Err(wrong(Problem::Constant("takes text".to_owned())));
            }
            Kind::Text(Count::By(_)) => None,
        };
        match misfit {
            Some(unfit) => Err(wrong(Problem::Constant(unfit.to_string()))),
            None => Ok(Some(value)),
        }
    }

    fn literal(&mut self) -> Result<Value, ParseError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        if let Some(quoted) = rest.strip_prefix(b"'") {
            let Some(len) = quoted.iter().position(|byte| *byte == b'\'') else {
                return Err(self.wrong(Problem::Bracket('\'')));
            };
            self.at += len + 2;
            return Ok(Value::Bytes(quoted.get(..len).unwrap_or_default().to_vec()));
        }
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let word = String::from_utf8_lossy(rest.get(..len).unwrap_or_default());
        let value = match word.as_ref() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number => Value::Int(integer(number).ok_or_else(|| self.wrong(Problem::Number))?),
        };
        self.at += len;
        Ok(value)
    }

    fn word(&mut self) -> Result<String, ParseError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let len = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default();
        if !word.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
            return Err(self.wrong(Problem::Name));
        }
        self.at += len;
        Ok(String::from_utf8_lossy(word).into_owned())
    }

    fn number(&mut self) -> Result<usize, ParseError> {
        let mut number = 0_usize;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            number = number.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            self.at += 1;
        }
        if number > FIXED_MAX { Err(self.wrong(Problem::Number)) } else { Ok(number) }
    }

    fn skip_space(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace() || byte == 0x0B) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong(&self, problem: Problem) -> ParseError {
        ParseError { at: self.at, problem }
    }
}

/// A decimal or `0x` integer.
pub(in crate::dialect) fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let size = match digits.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    size.ok().map(|size| sign * i128::from(size))
}

/// The item of that name.
fn find(items: &[Item], name: &str) -> Option<usize> {
    items.iter().position(|item| item.name == name)
}
