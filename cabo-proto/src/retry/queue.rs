//! What waits for a connection: whole messages, in order, under a bound.

use std::collections::VecDeque;

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

/// Messages in order, whatever they are. Each counts as 64 bytes more than it has.
#[derive(Debug)]
pub struct Queue<M> {
    /// With what each costs.
    messages: VecDeque<(M, usize)>,
    bytes: usize,
    bytes_max: usize,
    full: Full,
    dropped_messages: u64,
}

impl<M> Queue<M> {
    /// One that holds no more than `bytes_max`.
    pub fn new(bytes_max: usize, full: Full) -> Self {
        Self { messages: VecDeque::new(), bytes: 0, bytes_max, full, dropped_messages: 0 }
    }

    /// Puts a message of so many bytes behind the others.
    pub fn push(&mut self, message: M, bytes: usize) -> Result<(), Refused> {
        let cost = bytes.saturating_add(MESSAGE_BYTES);
        let is_possible = self.full == Full::DropOldest && cost <= self.bytes_max;
        if !self.is_room(cost) && !is_possible {
            let (waiting_bytes, bytes_max) = (self.bytes, self.bytes_max);
            return Err(Refused { bytes, waiting_bytes, bytes_max });
        }
        while !self.is_room(cost) && self.pop().is_some() {
            self.dropped_messages += 1;
        }
        self.bytes += cost;
        self.messages.push_back((message, cost));
        Ok(())
    }

    fn is_room(&self, cost: usize) -> bool {
        self.bytes.checked_add(cost).is_some_and(|sum| sum <= self.bytes_max)
    }

    /// Puts one that was taken in front of the others, also where that is beyond the bound.
    pub fn put_back(&mut self, message: M, bytes: usize) {
        let cost = bytes.saturating_add(MESSAGE_BYTES);
        self.bytes = self.bytes.saturating_add(cost);
        self.messages.push_front((message, cost));
    }

    /// Takes the oldest.
    pub fn pop(&mut self) -> Option<M> {
        let (message, cost) = self.messages.pop_front()?;
        self.bytes -= cost;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn push(queue: &mut Queue<u8>, number: u8, len: usize) {
        queue.push(number, len).unwrap();
    }

    #[test]
    fn messages_come_out_in_order_and_their_room_is_free_again() {
        let mut queue = Queue::new(10 * (MESSAGE_BYTES + 5), Full::Refuse);
        for round in 0..3 {
            (0..10).for_each(|number| push(&mut queue, number, 5));
            let refused = queue.push(10, 0).unwrap_err();
            let text = "no room for a message of 0 bytes: 690 of 690 wait already";
            assert_eq!(refused.to_string(), text, "round {round}");
            (0..10).for_each(|number| assert_eq!(queue.pop(), Some(number)));
            assert_eq!((queue.pop(), queue.bytes(), queue.is_empty()), (None, 0, true));
        }
    }

    #[test]
    fn what_was_taken_goes_back_to_the_front_though_there_is_no_room() {
        let mut queue = Queue::new(2 * (MESSAGE_BYTES + 5), Full::DropOldest);
        (0..2).for_each(|number| push(&mut queue, number, 5));
        let first = queue.pop().unwrap();
        push(&mut queue, 2, 5);
        queue.put_back(first, 5);
        assert_eq!(queue.bytes(), 3 * (MESSAGE_BYTES + 5));
        push(&mut queue, 3, 5); // and two make room for one
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(3), None));
        assert_eq!((queue.bytes(), queue.dropped_messages()), (0, 2));
    }

    #[test]
    fn the_oldest_make_room_where_that_is_wanted_but_for_none_that_never_fits() {
        let mut queue = Queue::new(3 * (MESSAGE_BYTES + 10), Full::DropOldest);
        (0..5).for_each(|number| push(&mut queue, number, 10));
        assert_eq!(queue.dropped_messages(), 2);
        push(&mut queue, 9, 20);
        assert_eq!(queue.dropped_messages(), 4, "a larger one needs the room of two");
        assert!(queue.push(7, 1000).is_err());
        assert_eq!(queue.dropped_messages(), 4, "and nothing is dropped for what cannot be kept");
        assert_eq!(queue.pop(), Some(4));
        assert_eq!(queue.pop(), Some(9));
        assert_eq!(queue.pop(), None);
    }
}
