//! Named, versioned uses of a session (`docs/protocol/services.md`): built on streams and requests alone, so that each is an
//! example too.

pub mod echo;
pub mod gateway;
pub mod media;
