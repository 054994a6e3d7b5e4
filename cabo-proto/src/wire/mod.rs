//! Bytes and values, both ways.

pub mod packet;
