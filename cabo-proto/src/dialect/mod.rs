//! Foreign protocols, described: how a byte stream is cut into messages, and which bytes a message has.
//!
//! Rules: `docs/dialects/README.md` D-1 to D-5. Imports no sibling room: what a dialect says, it says of bytes alone.

pub mod cut;
pub mod kind;
pub mod layout;
pub mod value;
