//! Streams: order, credit, ends and priorities.
