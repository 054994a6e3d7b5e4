//! What waits for a connection: whole messages, in order, under a bound.

use std::collections::VecDeque;

use bytes::Bytes;

/// What each message costs beside its bytes: empty ones are no way around the bound.
const MESSAGE_BYTES: usize = 64;

/// What becomes of a message for which there is no room.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Full {
    /// It is refused, and whoever sends it is told.
    #[default]
    Refuse,
    /// The oldest ones make room, and are counted.
    DropOldest,
}

/// There is no room for a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no room for a message of {bytes} bytes: {waiting_bytes} of {bytes_max} wait already")]
pub struct Refused {
    /// Of the message.
    pub bytes: usize,
    /// Of what waits.
    pub waiting_bytes: usize,
    /// The bound.
    pub bytes_max: usize,
}

/// Messages in order. Each counts as 64 bytes more than it has.
#[derive(Debug)]
pub struct Queue {
    messages: VecDeque<Bytes>,
    bytes: usize,
    bytes_max: usize,
    full: Full,
    dropped_messages: u64,
}

impl Queue {
    /// One that holds no more than `bytes_max`.
    pub fn new(bytes_max: usize, full: Full) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, bytes_max, full, dropped_messages: 0 }
    }

    /// Puts it behind the others.
    pub fn push(&mut self, message: Bytes) -> Result<(), Refused> {
        let cost = cost(&message);
        let is_room =
            |bytes: usize| bytes.checked_add(cost).is_some_and(|sum| sum <= self.bytes_max);
        let is_possible = self.full == Full::DropOldest && is_room(0);
        if !is_room(self.bytes) && !is_possible {
            let (waiting_bytes, bytes_max) = (self.bytes, self.bytes_max);
            return Err(Refused { bytes: message.len(), waiting_bytes, bytes_max });
        }
        while self.bytes + cost > self.bytes_max && self.pop().is_some() {
            self.dropped_messages += 1;
        }
        self.bytes += cost;
        self.messages.push_back(message);
        Ok(())
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<Bytes> {
        let message = self.messages.pop_front()?;
        self.bytes -= cost(&message);
        Some(message)
    }

    /// What waits, as it is counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Messages that made room for others.
    pub fn dropped_messages(&self) -> u64 {
        self.dropped_messages
    }
}

fn cost(message: &Bytes) -> usize {
    message.len().saturating_add(MESSAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u8, len: usize) -> Bytes {
        vec![number; len].into()
    }

    #[test]
    fn messages_come_out_in_order_and_their_room_is_free_again() {
        let mut queue = Queue::new(10 * (MESSAGE_BYTES + 5), Full::Refuse);
        for round in 0..3 {
            (0..10).for_each(|number| queue.push(message(number, 5)).unwrap());
            let refused = queue.push(Bytes::new()).unwrap_err();
            let text = "no room for a message of 0 bytes: 690 of 690 wait already";
            assert_eq!(refused.to_string(), text, "round {round}");
            (0..10).for_each(|number| assert_eq!(queue.pop(), Some(message(number, 5))));
            assert_eq!((queue.pop(), queue.bytes(), queue.is_empty()), (None, 0, true));
        }
    }

    #[test]
    fn the_oldest_make_room_where_that_is_wanted_but_for_none_that_never_fits() {
        let mut queue = Queue::new(3 * (MESSAGE_BYTES + 10), Full::DropOldest);
        (0..5).for_each(|number| queue.push(message(number, 10)).unwrap());
        assert_eq!(queue.dropped_messages(), 2);
        queue.push(message(9, 20)).unwrap();
        assert_eq!(queue.dropped_messages(), 4, "a larger one needs the room of two");
        assert!(queue.push(message(7, 1000)).is_err());
        assert_eq!(queue.dropped_messages(), 4, "and nothing is dropped for what cannot be kept");
        assert_eq!(queue.pop(), Some(message(4, 10)));
        assert_eq!(queue.pop(), Some(message(9, 20)));
        assert_eq!(queue.pop(), None);
    }
}
