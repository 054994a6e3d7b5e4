//! Parameters (W-5): what each side states about itself inside the handshake.

use std::time::Duration;

use super::frame::{MOST_STREAMS, cut_text};
use super::packet::ConnectionId;
use super::varint::{self, Malformed, Reader};

/// The longest `agent`, in bytes.
pub const LONGEST_AGENT: usize = 256;

const IDLE_TIMEOUT: u64 = 0x01;
const LARGEST_PACKET: u64 = 0x02;
const MAX_DATA: u64 = 0x03;
const MAX_STREAM_DATA: u64 = 0x04;
const MAX_STREAMS_BOTH: u64 = 0x05;
const MAX_STREAMS_ONE: u64 = 0x06;
const MAX_ACK_DELAY: u64 = 0x07;
const BURST: u64 = 0x08;
const RESET_TOKEN: u64 = 0x09;
const LARGEST_DATAGRAM: u64 = 0x0A;
const FIRST_ID: u64 = 0x0B;
const OWN_ID: u64 = 0x0C;
const AGENT: u64 = 0x0D;
const CHANNEL: u64 = 0x0E;

/// What tells a sealed channel around a session from every other one (S-7.6): both of its ends know it, and nobody can
/// make another channel that has the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Channel(pub [u8; 32]);

/// One side's parameters. The default is what holds where nothing was said. The numbers are the peer's own: whoever
/// acts on one bounds it first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Params {
    /// Silence after which the connection is over, in whole milliseconds; zero for never.
    pub idle_timeout: Duration,
    /// Bytes of the largest packet it takes.
    pub largest_packet: u64,
    /// Bytes of credit of the connection at the start.
    pub max_data: u64,
    /// Bytes of credit of each stream at the start.
    pub max_stream_data: u64,
    /// Streams of both ways that the other side may open at the start.
    pub max_streams_both: u64,
    /// Streams of one way that the other side may open at the start.
    pub max_streams_one: u64,
    /// How long it may hold back an acknowledgement, in whole microseconds.
    pub max_ack_delay: Duration,
    /// Bytes that its socket takes at once.
    pub burst: u64,
    /// What proves a stateless reset of it.
    pub reset_token: Option<[u8; 16]>,
    /// Bytes of the largest DATAGRAM it takes.
    pub largest_datagram: u64,
    /// From a server: the receiver id of the client's first packet.
    pub first_id: Option<ConnectionId>,
    /// The id under which it receives.
    pub own_id: Option<ConnectionId>,
    /// What it calls itself, for people: at most [`LONGEST_AGENT`] bytes, to be escaped before it meets a terminal.
    pub agent: Option<String>,
    /// The channel around the session, where there is one.
    pub channel: Option<Channel>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::ZERO,
            largest_packet: 1_200,
            max_data: 0,
            max_stream_data: 0,
            max_streams_both: 0,
            max_streams_one: 0,
            max_ack_delay: Duration::from_millis(25),
            burst: 65_536,
            reset_token: None,
            largest_datagram: 0,
            first_id: None,
            own_id: None,
            agent: None,
            channel: None,
        }
    }
}

impl Params {
    /// The bytes of what differs from the default, by rising id.
    pub fn encode(&self) -> Vec<u8> {
        let absent = Self::default();
        let mut out = Vec::new();
        put_number(&mut out, IDLE_TIMEOUT, millis(self.idle_timeout), millis(absent.idle_timeout));
        put_number(&mut out, LARGEST_PACKET, self.largest_packet, absent.largest_packet);
        put_number(&mut out, MAX_DATA, self.max_data, absent.max_data);
        put_number(&mut out, MAX_STREAM_DATA, self.max_stream_data, absent.max_stream_data);
        put_number(
            &mut out,
            MAX_STREAMS_BOTH,
            self.max_streams_both.min(MOST_STREAMS),
            absent.max_streams_both,
        );
        put_number(
            &mut out,
            MAX_STREAMS_ONE,
            self.max_streams_one.min(MOST_STREAMS),
            absent.max_streams_one,
        );
        put_number(
            &mut out,
            MAX_ACK_DELAY,
            micros(self.max_ack_delay),
            micros(absent.max_ack_delay),
        );
        put_number(&mut out, BURST, self.burst, absent.burst);
        if let Some(token) = &self.reset_token {
            put_field(&mut out, RESET_TOKEN, token);
        }
        put_number(&mut out, LARGEST_DATAGRAM, self.largest_datagram, absent.largest_datagram);
        if let Some(id) = &self.first_id {
            put_field(&mut out, FIRST_ID, &id.0);
        }
        if let Some(id) = &self.own_id {
            put_field(&mut out, OWN_ID, &id.0);
        }
        if let Some(agent) = &self.agent {
            put_field(&mut out, AGENT, cut_text(agent.as_bytes(), LONGEST_AGENT));
        }
        if let Some(channel) = &self.channel {
            put_field(&mut out, CHANNEL, &channel.0);
        }
        out
    }

    /// Reads what [`encode`](Self::encode) wrote, here or elsewhere.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut params = Self::default();
        for field in read_fields(bytes)? {
            params.take(field)?;
        }
        Ok(params)
    }

    fn take(&mut self, field: Field<'_>) -> Result<(), Malformed> {
        match field.id {
            IDLE_TIMEOUT => self.idle_timeout = Duration::from_millis(field.number()?),
            LARGEST_PACKET => self.largest_packet = field.number()?,
            MAX_DATA => self.max_data = field.number()?,
            MAX_STREAM_DATA => self.max_stream_data = field.number()?,
            MAX_STREAMS_BOTH => self.max_streams_both = field.stream_count()?,
            MAX_STREAMS_ONE => self.max_streams_one = field.stream_count()?,
            MAX_ACK_DELAY => self.max_ack_delay = Duration::from_micros(field.number()?),
            BURST => self.burst = field.number()?,
            RESET_TOKEN => self.reset_token = Some(field.array()?),
            LARGEST_DATAGRAM => self.largest_datagram = field.number()?,
            FIRST_ID => self.first_id = Some(ConnectionId(field.array()?)),
            OWN_ID => self.own_id = Some(ConnectionId(field.array()?)),
            AGENT => self.agent = Some(field.text(LONGEST_AGENT)?.to_owned()),
            CHANNEL => self.channel = Some(Channel(field.array()?)),
            _ => {}
        }
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(varint::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(varint::MAX)
}

/// Appends a number, unless it is what holds when absent.
fn put_number(out: &mut Vec<u8>, id: u64, value: u64, absent: u64) {
    if value != absent {
        let value = value.min(varint::MAX);
        varint::put(out, id);
        varint::put(out, varint::len(value) as u64);
        varint::put(out, value);
    }
}

/// Appends one parameter.
pub(super) fn put_field(out: &mut Vec<u8>, id: u64, value: &[u8]) {
    varint::put(out, id);
    varint::put_with_length(out, value);
}

/// One parameter as it came (W-5.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    /// Which.
    pub(super) id: u64,
    /// Its value.
    pub(super) value: &'a [u8],
    at: usize, // of the id
}

/// The parameters in `bytes`, in order; no id stands there twice.
pub(super) fn read_fields(bytes: &[u8]) -> Result<impl Iterator<Item = Field<'_>>, Malformed> {
    let mut fields = Fields(Reader::new(bytes));
    let mut ids = Vec::new();
    while let Some(field) = fields.read()? {
        ids.push(field.id);
    }
    ids.sort_unstable();
    let fields = Fields(Reader::new(bytes));
    match ids.iter().zip(ids.iter().skip(1)).find(|(id, next)| id == next) {
        Some((id, _)) => {
            let at = fields.filter(|field| field.id == *id).nth(1).map_or(0, |field| field.at);
            Err(Malformed { what: "one parameter twice", at })
        }
        None => Ok(fields),
    }
}

struct Fields<'a>(Reader<'a>);

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let at = self.0.position();
        Ok(Some(Field { id: self.0.varint()?, value: self.0.with_length()?, at }))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        self.read().ok().flatten()
    }
}

impl<'a> Field<'a> {
    /// The complaint `what` about this parameter.
    pub(super) const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at }
    }

    /// The value, if it has `N` bytes.
    pub(super) fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.value.try_into().map_err(|_| self.malformed("parameter of a wrong length"))
    }

    fn number(&self) -> Result<u64, Malformed> {
        let mut reader = Reader::new(self.value);
        match reader.varint() {
            Ok(number) if reader.is_empty() => Ok(number),
            Ok(_) | Err(_) => Err(self.malformed("parameter of a wrong length")),
        }
    }

    fn stream_count(&self) -> Result<u64, Malformed> {
        match self.number()? {
            count if count > MOST_STREAMS => Err(self.malformed("more streams than there are ids")),
            count => Ok(count),
        }
    }

    fn text(&self, longest: usize) -> Result<&'a str, Malformed> {
        if self.value.len() > longest {
            return Err(self.malformed("parameter of a wrong length"));
        }
        std::str::from_utf8(self.value).map_err(|_| self.malformed("parameter is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::wire::discovery::{Here, Question};
    use crate::wire::seeded;

    #[test]
    fn silence_is_the_default() {
        assert_eq!(Params::default().encode(), []);
        assert_eq!(Params::decode(&[]), Ok(Params::default()));
    }

    #[test]
    fn what_has_no_form_on_the_wire_is_cut_to_what_has_one() {
        let params = Params {
            idle_timeout: Duration::MAX,
            max_ack_delay: Duration::from_nanos(1_999),
            max_streams_one: u64::MAX,
            agent: Some("\u{e9}".repeat(LONGEST_AGENT)),
            ..Params::default()
        };
        let read = Params::decode(&params.encode()).expect("what we write parses");
        assert_eq!(read.idle_timeout, Duration::from_millis(varint::MAX));
        assert_eq!(read.max_ack_delay, Duration::from_micros(1));
        assert_eq!(read.max_streams_one, MOST_STREAMS);
        assert_eq!(read.agent.map(|agent| agent.len()), Some(LONGEST_AGENT));
    }

    #[test]
    fn thousands_of_unknown_parameters_cost_little() {
        let mut bytes = Vec::new();
        for id in (100..20_000).rev() {
            put_field(&mut bytes, id, &[]);
        }
        assert_eq!(Params::decode(&bytes), Ok(Params::default()));
        put_field(&mut bytes, 100, &[]);
        assert_eq!(Params::decode(&bytes).map_err(|error| error.what), Err("one parameter twice"));
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn what_is_encoded_is_decoded(
            numbers: [u64; 8],
            shift in 2u32..62,
            token: Option<[u8; 16]>,
            ids: (Option<[u8; 8]>, Option<[u8; 8]>),
            agent in proptest::option::of(".{0,64}"),
            channel: Option<[u8; 32]>,
        ) {
            let n = numbers.map(|number| number >> shift);
            let params = Params {
                idle_timeout: Duration::from_millis(n[0]),
                largest_packet: n[1],
                max_data: n[2],
                max_stream_data: n[3],
                max_streams_both: n[4].min(MOST_STREAMS),
                max_streams_one: n[5].min(MOST_STREAMS),
                max_ack_delay: Duration::from_micros(n[6]),
                burst: n[7],
                reset_token: token,
                largest_datagram: n[0],
                first_id: ids.0.map(ConnectionId),
                own_id: ids.1.map(ConnectionId),
                agent: agent.filter(|agent| agent.len() <= LONGEST_AGENT),
                channel: channel.map(Channel),
            };
            prop_assert_eq!(Params::decode(&params.encode())?, params);
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in vec(prop_oneof![0u8..16, any::<u8>()], 0..200)) {
            let params = Params::decode(&bytes);
            prop_assert!(Question::decode(&bytes).is_ok() || params.is_err());
            if let Ok(params) = params {
                prop_assert_eq!(Params::decode(&params.encode())?, params);
            }
            if let Ok(here) = Here::decode(&bytes) {
                let again = here.encode();
                prop_assert_eq!(Here::decode(&again)?, here);
            }
        }
    }
}
