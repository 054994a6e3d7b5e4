//! The first words of a foreign protocol (D-4): who does not speak it is turned away before anything else is read.

use std::time::Duration;

/// How long a client may take for its first words, unless a dialect says otherwise.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// What is said first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hello {
    /// What a client writes.
    pub client: Vec<u8>,
    /// What it is answered if it is taken.
    pub accept: Vec<u8>,
    /// What it is answered if it is not, before the close.
    pub refuse: Vec<u8>,
    /// For all of it.
    pub deadline: Duration,
}

/// What the first bytes of a peer show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Right so far.
    More,
    /// It speaks our dialect; so many bytes were its first words.
    Welcome(usize),
    /// It does not.
    Stranger,
}

impl Hello {
    /// A server's view of what a client has said so far.
    pub fn judge_client(&self, said: &[u8]) -> Verdict {
        judge(said, &self.client)
    }

    /// A client's view of what a server has answered so far. Only `accept` is a yes.
    pub fn judge_server(&self, said: &[u8]) -> Verdict {
        judge(said, &self.accept)
    }
}

fn judge(said: &[u8], wanted: &[u8]) -> Verdict {
    let both = said.len().min(wanted.len());
    if said.get(..both) != wanted.get(..both) {
        Verdict::Stranger
    } else if both < wanted.len() {
        Verdict::More
    } else {
        Verdict::Welcome(both)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D-4.1: every beginning of the right words is waited with, every other byte is a stranger at once.
    #[test]
    fn only_the_right_words_are_welcome() {
        let word = |number: i32| number.to_le_bytes().to_vec();
        let hello =
            Hello { client: word(1), accept: word(0), refuse: word(-1), deadline: DEADLINE };
        for said in 0..4 {
            assert_eq!(hello.judge_client(&word(1)[..said]), Verdict::More);
        }
        assert_eq!(hello.judge_client(b"\x01\0\0\0"), Verdict::Welcome(4));
        assert_eq!(hello.judge_client(b"\x01\0\0\0and more"), Verdict::Welcome(4));
        for stranger in [b"\x02".as_slice(), b"\0\0\0\x01", b"GET / HTTP/1.1", b"\x01\0\0\x01"] {
            assert_eq!(hello.judge_client(stranger), Verdict::Stranger, "{stranger:x?}");
        }
        assert_eq!(hello.judge_server(b"\0\0\0\0"), Verdict::Welcome(4));
        assert_eq!(hello.judge_server(b"\xff"), Verdict::Stranger);
    }
}
