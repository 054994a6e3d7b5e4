//! Tests of `loss.rs`.

use super::*;
