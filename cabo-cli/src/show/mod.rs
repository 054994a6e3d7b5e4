//! What a person or a machine sees: sizes and times, tables, progress, questions, JSON, and the two streams.

pub(crate) mod ask;
pub(crate) mod demo;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod log;
pub(crate) mod progress;
pub(crate) mod sockets;
pub(crate) mod stderr;
pub(crate) mod stdout;
pub(crate) mod table;
