//! The dialect of a message, shared by all of a peer's messages.
//!
//! Most messages are dropped before the next one on their thread is made. Each leaves its share of the dialect to the next,
//! which is cheaper by two atomic operations than to give it back and take it again.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use cabo_proto::dialect::Dialect;

thread_local! {
    /// What the last message on this thread left.
    static LEFT: Cell<Option<Arc<Dialect>>> = const { Cell::new(None) };
}

/// A share of a dialect. There is one until it is dropped.
#[derive(Clone, Debug)]
pub(super) struct Tongue(Option<Arc<Dialect>>);

impl Tongue {
    #[inline]
    pub(super) fn of(dialect: &Arc<Dialect>) -> Self {
        let left = LEFT.try_with(Cell::take).ok().flatten();
        let left = left.filter(|left| Arc::ptr_eq(left, dialect));
        Self(Some(left.unwrap_or_else(|| dialect.clone())))
    }
}

impl Deref for Tongue {
    type Target = Dialect;

    fn deref(&self) -> &Dialect {
        self.0.as_ref().unwrap_or_else(|| unreachable!("it is taken when it is dropped"))
    }
}

impl Drop for Tongue {
    #[inline]
    fn drop(&mut self) {
        let _ = LEFT.try_with(|left| left.set(self.0.take())); // a thread that ends keeps none
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_that_is_left_is_taken_by_the_next_message_in_that_dialect_alone() {
        let [first, second] = ["lines", "nul"].map(|cut| Arc::new(Dialect::parse(cut).unwrap()));
        drop(Tongue::of(&first));
        assert_eq!(Arc::strong_count(&first), 2, "one is left here");
        let (taken, cloned) = (Tongue::of(&first), Tongue::of(&first));
        assert_eq!(Arc::strong_count(&first), 3, "one was taken, and one is new");
        drop((taken, cloned));
        assert_eq!(Arc::strong_count(&first), 2, "one is left at most");
        assert_eq!(Tongue::of(&second).name, second.name);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
    }
}
