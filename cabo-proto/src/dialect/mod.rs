//! Foreign protocols, described: how a byte stream is cut into messages, and which bytes a message has.
//!
//! Rules: `docs/dialects/README.md` D-1 to D-6. Imports no sibling room: what a dialect says, it says of bytes alone.
//!
//! `layout` describes the bytes of one message, `value` is what they hold, `kind` adds what a layout cannot say, `cut`
//! finds the end of a message in a stream, `hello` is what is said first, `config` what a settings file means, `file` reads
//! all of it from TOML, `assign` makes values of what was typed.

use bytes::{Bytes, BytesMut};
use kind::{Counters, Kind};
use layout::{DecodeError, EncodeError};
use value::{Fields, Value};

pub mod assign;
pub mod config;
pub mod cut;
pub mod file;
pub mod hello;
pub mod kind;
pub mod layout;
#[cfg(test)]
mod tests;
pub mod value;

use config::Config;
use cut::{Cut, CutSpecError, WriteError};
use hello::Hello;

/// The name of what a message of a cut without kinds carries.
pub const PAYLOAD: &str = "payload";

/// The dialects that are built in, by name.
const BUILT_IN: [(&str, &str); 9] = [
    ("chat", include_str!("builtin/chat.toml")),
    ("labs-header", include_str!("builtin/labs-header.toml")),
    ("labs-header-order-first", include_str!("builtin/labs-header-order-first.toml")),
    ("labs-record", include_str!("builtin/labs-record.toml")),
    ("led", include_str!("builtin/led.toml")),
    ("tp0", include_str!("builtin/tp0.toml")),
    ("tp0-bare", include_str!("builtin/tp0-bare.toml")),
    ("tp0-big-endian", include_str!("builtin/tp0-big-endian.toml")),
    ("tp0-byte", include_str!("builtin/tp0-byte.toml")),
];

/// A described foreign protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Dialect {
    /// Its name.
    pub name: String,
    /// What it is, in a line.
    pub about: String,
    /// The port where it is usually spoken.
    pub port: Option<u16>,
    /// How a stream is cut into messages.
    pub cut: Cut,
    /// Bytes of one message.
    pub limit_bytes: usize,
    /// What is said first.
    pub hello: Option<Hello>,
    /// What the settings file of its programs means.
    pub config: Option<Config>,
    /// Lines that, typed alone, end the conversation and are not sent (D-5.4).
    pub leave: Vec<Vec<u8>>,
    /// Its messages, in the order in which they are tried.
    pub kinds: Vec<Kind>,
}

/// A message, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// Of which kind, where that has a name.
    pub kind: Option<String>,
    /// Its values.
    pub fields: Fields,
}

/// A message that is of no kind: what stood against each.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.in_words())]
pub struct NoKind(pub Vec<(Option<String>, DecodeError)>);

/// Why a message cannot be made of values.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ComposeError {
    /// The dialect has no such kind.
    #[error("there is no message {given:?} here; there are: {known}")]
    Kind {
        /// As given.
        given: String,
        /// The kinds that there are.
        known: String,
    },
    /// Several kinds, and none was named.
    #[error("which message? {0}")]
    WhichKind(String),
    /// A value does not fit.
    #[error(transparent)]
    Field(#[from] EncodeError),
    /// The message does not go under the cut.
    #[error(transparent)]
    Cut(#[from] WriteError),
    /// No payload was given.
    #[error("field \"payload\": is not given")]
    NoPayload,
    /// Longer than a message may be.
    #[error("{bytes} bytes are over the limit of {limit}")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
}

impl Dialect {
    /// The dialects that are built in.
    pub fn built_in() -> impl Iterator<Item = &'static str> {
        BUILT_IN.iter().map(|(name, _)| *name)
    }

    /// The text of a built-in dialect: an example of a file, too.
    pub fn built_in_text(name: &str) -> Option<&'static str> {
        BUILT_IN.iter().find(|(own, _)| *own == name).map(|(_, text)| *text)
    }

    /// A built-in dialect, or one that is no more than a cut or a layout: `lines`, `length:!L`, `struct:!BLL20s`.
    pub fn parse(spec: &str) -> Result<Self, CutSpecError> {
        let built_in = Self::built_in_text(spec).and_then(|text| file::read(text).ok());
        match built_in {
            Some(dialect) => Ok(dialect),
            None => Cut::parse(spec).map(|cut| Self::of_cut(spec, cut)),
        }
    }

    /// A dialect that is no more than its cut (D-5.2).
    pub fn of_cut(name: &str, cut: Cut) -> Self {
        let kinds = match &cut {
            Cut::Struct(layout) => vec![Kind::plain(layout.clone())],
            Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any | Cut::Length(_) => Vec::new(),
        };
        Self {
            name: name.to_owned(),
            about: String::new(),
            port: None,
            cut,
            limit_bytes: cut::LIMIT_BYTES,
            hello: None,
            config: None,
            leave: Vec::new(),
            kinds,
        }
    }

    /// The values of a message that the cut gave (D-5.1).
    pub fn decode(&self, message: &[u8]) -> Result<Decoded, NoKind> {
        let mut against = Vec::new();
        for kind in &self.kinds {
            match kind.decode(message) {
                Ok(fields) => return Ok(Decoded { kind: kind.name.clone(), fields }),
                Err(error) => against.push((kind.name.clone(), error)),
            }
        }
        if !against.is_empty() {
            return Err(NoKind(against));
        }
        let (mut fields, payload) = match &self.cut {
            Cut::Length(header) => {
                let (start, payload) = message.split_at(header.size().min(message.len()));
                match header.layout().decode(start) {
                    Ok(fields) => (fields, payload),
                    Err(error) => return Err(NoKind(vec![(None, error)])),
                }
            }
            Cut::Raw | Cut::Lines | Cut::Nul | Cut::Any | Cut::Struct(_) => {
                (Fields::default(), message)
            }
        };
        fields.set(PAYLOAD, Value::Bytes(payload.to_vec()));
        Ok(Decoded { kind: None, fields })
    }

    /// The bytes of a message on the wire, with what the cut adds.
    pub fn encode(
        &self,
        kind: Option<&str>,
        given: &Fields,
        counters: &mut Counters,
    ) -> Result<Bytes, ComposeError> {
        let mut out = BytesMut::new();
        let message = match (self.kind(kind)?, given.get(PAYLOAD)) {
            (Some(kind), _) => kind.encode(given, counters)?,
            (None, Some(Value::Bytes(payload))) => payload.clone(),
            (None, _) => return Err(ComposeError::NoPayload),
        };
        let mut header = given.clone();
        header.remove(PAYLOAD);
        self.write(&message, &header, &mut out)?;
        if out.len() > self.limit_bytes.saturating_add(2) {
            return Err(ComposeError::TooLong { bytes: out.len(), limit: self.limit_bytes });
        }
        Ok(out.freeze())
    }

    /// Appends a message as it goes on the wire: with what the cut adds, but for the layout of a kind, which has its
    /// header in it. `header` are the header's other fields.
    pub fn write(
        &self,
        message: &[u8],
        header: &Fields,
        out: &mut BytesMut,
    ) -> Result<(), WriteError> {
        if matches!(self.cut, Cut::Length(_)) && !self.kinds.is_empty() {
            out.extend_from_slice(message);
            return Ok(());
        }
        self.cut.write(message, header, out)
    }

    /// The kind of that name; `None` where the dialect has no kinds.
    pub fn kind(&self, name: Option<&str>) -> Result<Option<&Kind>, ComposeError> {
        match (name, self.kinds.as_slice()) {
            (None, []) => Ok(None),
            (None, [only]) => Ok(Some(only)),
            (None, _) => Err(ComposeError::WhichKind(self.kinds_in_words())),
            (Some(name), kinds) => {
                let found = kinds.iter().find(|kind| kind.name.as_deref() == Some(name));
                let unknown =
                    || ComposeError::Kind { given: name.to_owned(), known: self.kinds_in_words() };
                found.map(Some).ok_or_else(unknown)
            }
        }
    }

    fn kinds_in_words(&self) -> String {
        let names: Vec<&str> = self.kinds.iter().filter_map(|kind| kind.name.as_deref()).collect();
        if names.is_empty() { "its messages have no names".to_owned() } else { names.join(", ") }
    }
}

impl NoKind {
    fn in_words(&self) -> String {
        let one = |(name, error): &(Option<String>, DecodeError)| match name {
            Some(name) => format!("no {name}: {error}"),
            None => error.to_string(),
        };
        self.0.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}
