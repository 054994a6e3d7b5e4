//! Who is there, in secret or plain, on which streams.

pub mod crypto;
pub mod plain;
pub mod standin;
