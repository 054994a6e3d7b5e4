//! What a person or a machine sees: tables, progress, JSON.

pub(crate) mod table;
