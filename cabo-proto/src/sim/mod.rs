//! A network in a box: virtual time and seeded links.

pub mod link;
