//! What a person or a machine sees: sizes and times, tables, progress, JSON.

pub(crate) mod demo;
pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod progress;
pub(crate) mod table;
