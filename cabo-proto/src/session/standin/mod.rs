//! A deterministic stand-in for the real crypto, for simulation and fuzzing: the same flights, spaces, sizes and rules,
//! from a seed, with nothing secret about it.
//!
//! As with TLS 1.3 the client's hello and the server's cross in the Initial space, each too long for one packet of 1200
//! bytes or nearly so; the server's parameters and both identities cross in the Handshake space with a proof over all
//! that was said. Packets carry a tag of 16 bytes that covers number, header and body under the keys of both sides'
//! data: a bit flipped, a packet of another connection, phase, space or direction does not open. Messages have the
//! form of
//! `plain`. Never use it on a wire: whoever reads a handshake can forge what follows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::crypto::{
    Crypto, CryptoError, Handshake, KeyChange, Keys, PacketKey, PublicKey, Side, Space,
};
use super::plain::{Field, Inbox, Kind, Message, Outbox, PROTOCOL, error, malformed, unexpected};
use crate::wire::packet::ConnectionId;

const CLIENT_HELLO_LEN: usize = 1500; // bytes, as a ClientHello with X25519MLKEM768 and parameters has them
const SERVER_HELLO_LEN: usize = 1200;
const SERVER_PROOF_LEN: usize = 300;
const CLIENT_PROOF_LEN: usize = 200;
const TAG_LEN: usize = 16;

/// Crypto of one simulated endpoint.
#[derive(Debug)]
pub struct StandIn {
    seed: u64,
    expected: Option<PublicKey>,
    seal_limit: u64,
    failure_limit: u64,
    started: AtomicU64, // handshakes, so that no two are alike
}

impl StandIn {
    /// An endpoint whose identity and secrets follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            expected: None,
            seal_limit: 1 << 23,
            failure_limit: 1 << 36,
            started: AtomicU64::new(0),
        }
    }

    /// Refuses any peer but the one with this key.
    #[must_use]
    pub fn expecting(mut self, key: PublicKey) -> Self {
        self.expected = Some(key);
        self
    }

    /// Sets how many packets one key may seal, and how many may fail to open; small numbers exercise key update.
    #[must_use]
    pub fn with_limits(mut self, seal: u64, failures: u64) -> Self {
        (self.seal_limit, self.failure_limit) = (seal, failures);
        self
    }

    /// The identity that peers see.
    pub fn public_key(&self) -> PublicKey {
        let mut key = [0; 32];
        for (half, chunk) in key.chunks_exact_mut(16).enumerate() {
            chunk.copy_from_slice(
                &hash(self.seed.into(), &[b"identity", &[half as u8]]).to_be_bytes(),
            );
        }
        PublicKey(key)
    }

    fn limits(&self) -> Limits {
        Limits { seal: self.seal_limit, failures: self.failure_limit }
    }
}

impl Crypto for StandIn {
    fn initial_keys(&self, side: Side, first_id: ConnectionId) -> Keys {
        Secrets::new(hash(0, &[b"initial", &first_id.0])).keys(side, self.limits())
    }

    fn start(&self, side: Side, params: Vec<u8>) -> Result<Box<dyn Handshake>, CryptoError> {
        let turn = self.started.fetch_add(1, Ordering::Relaxed);
        let mut shake = StandInHandshake {
            side,
            state: State::WaitClientHello,
            chance: hash(self.seed.into(), &[b"chance", &turn.to_be_bytes()]),
            own_key: self.public_key(),
            own_params: params,
            expected: self.expected,
            limits: self.limits(),
            transcript: 0,
            inbox: Inbox::default(),
            outbox: Outbox::default(),
            peer_params: None,
            peer_key: None,
            data: None,
        };
        if side == Side::Client {
            let hello = shake.hello(Kind::ClientHello)?;
            shake.outbox.push(hello, None);
            shake.state = State::WaitServerHello;
        }
        Ok(Box::new(shake))
    }

    fn mac(&self, label: &[u8], data: &[u8]) -> [u8; 16] {
        hash(self.seed.into(), &[b"mac", label, data]).to_be_bytes()
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    WaitClientHello,
    WaitServerHello,
    WaitServerProof,
    WaitClientProof,
    Done,
    Failed,
}

struct StandInHandshake {
    side: Side,
    state: State,
    chance: u128,
    own_key: PublicKey,
    own_params: Vec<u8>,
    expected: Option<PublicKey>,
    limits: Limits,
    transcript: u128, // a hash of every message so far, in order
    inbox: Inbox,
    outbox: Outbox,
    peer_params: Option<Vec<u8>>,
    peer_key: Option<PublicKey>,
    data: Option<Secrets>, // of the phase that `next_keys` gives next
}

impl StandInHandshake {
    fn step(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError> {
        let (wanted_space, wanted) = match self.state {
            State::WaitClientHello => (Space::Initial, Kind::ClientHello),
            State::WaitServerHello => (Space::Initial, Kind::ServerHello),
            State::WaitServerProof => (Space::Handshake, Kind::ServerProof),
            State::WaitClientProof => (Space::Handshake, Kind::ClientProof),
            State::Done | State::Failed => {
                return Err(unexpected("handshake bytes after the handshake"));
            }
        };
        if space != wanted_space {
            return Err(unexpected("handshake bytes in the wrong space"));
        }
        let Some(message) = self.inbox.push(data)? else { return Ok(()) };
        message.check(wanted)?;
        self.inbox.check_empty()?;
        match wanted {
            Kind::ClientHello => self.on_client_hello(&message),
            Kind::ServerHello => self.on_server_hello(&message),
            Kind::ServerProof => self.on_server_proof(&message),
            Kind::ClientProof => self.on_client_proof(&message),
        }
    }

    fn on_client_hello(&mut self, message: &Message) -> Result<(), CryptoError> {
        self.peer_params = Some(message.get(Field::Params)?.to_vec());
        self.hear(message)?;
        let hello = self.hello(Kind::ServerHello)?;
        self.outbox
            .push(hello, Some(KeyChange::Handshake(self.secrets().keys(self.side, self.limits))));
        let proof = self.proof(Kind::ServerProof)?;
        let keys = self.open_data();
        self.outbox.push(proof, Some(KeyChange::Data(keys)));
        self.state = State::WaitClientProof;
        Ok(())
    }

    fn on_server_hello(&mut self, message: &Message) -> Result<(), CryptoError> {
        self.hear(message)?;
        self.outbox.push(
            Vec::new(),
            Some(KeyChange::Handshake(self.secrets().keys(self.side, self.limits))),
        );
        self.state = State::WaitServerProof;
        Ok(())
    }

    fn on_server_proof(&mut self, message: &Message) -> Result<(), CryptoError> {
        self.check_proof(message)?;
        self.peer_params = Some(message.get(Field::Params)?.to_vec());
        self.hear(message)?;
        let keys = self.open_data();
        let proof = self.proof(Kind::ClientProof)?;
        self.outbox.push(proof, Some(KeyChange::Data(keys)));
        self.state = State::Done;
        Ok(())
    }

    fn on_client_proof(&mut self, message: &Message) -> Result<(), CryptoError> {
        self.check_proof(message)?;
        self.state = State::Done;
        Ok(())
    }

    /// Our first message, padded to the size of a real one, and noted in the transcript.
    fn hello(&mut self, kind: Kind) -> Result<Vec<u8>, CryptoError> {
        let mut message = Message::new(kind);
        message.put(Field::Protocol, PROTOCOL)?;
        message.put(Field::Chance, &self.chance.to_be_bytes())?;
        if self.side == Side::Client {
            message.put(Field::Params, &self.own_params)?;
            message.pad_to(CLIENT_HELLO_LEN)?;
        } else {
            message.pad_to(SERVER_HELLO_LEN)?;
        }
        self.hear(&message)?;
        message.encode()
    }

    /// Our identity with a proof over all that was said, noted in the transcript.
    fn proof(&mut self, kind: Kind) -> Result<Vec<u8>, CryptoError> {
        let mut message = Message::new(kind);
        message.put(Field::Identity, &self.own_key.0)?;
        message.put(Field::Proof, &self.proof_of(self.own_key).to_be_bytes())?;
        if self.side == Side::Server {
            message.put(Field::Params, &self.own_params)?;
            message.pad_to(SERVER_PROOF_LEN)?;
        } else {
            message.pad_to(CLIENT_PROOF_LEN)?;
        }
        self.hear(&message)?;
        message.encode()
    }

    fn proof_of(&self, key: PublicKey) -> u128 {
        hash(self.transcript, &[b"proof", &key.0])
    }

    fn check_proof(&mut self, message: &Message) -> Result<(), CryptoError> {
        let key = message.get(Field::Identity)?;
        let key =
            PublicKey(key.try_into().map_err(|_| malformed("an identity that is not 32 bytes"))?);
        if message.get(Field::Proof)? != self.proof_of(key).to_be_bytes() {
            return Err(error(51, "the peer's proof does not fit what was said")); // decrypt_error
        }
        if self.expected.is_some_and(|expected| expected != key) {
            return Err(error(
                CryptoError::WRONG_PEER,
                "the peer has another identity than expected",
            ));
        }
        self.peer_key = Some(key);
        Ok(())
    }

    fn hear(&mut self, message: &Message) -> Result<(), CryptoError> {
        self.transcript = hash(self.transcript, &[&message.encode()?]);
        Ok(())
    }

    fn secrets(&self) -> Secrets {
        Secrets::new(self.transcript)
    }

    /// The keys of the data space; the phase after them is kept. The transcript stands at the server's proof.
    fn open_data(&mut self) -> Keys {
        let secrets = self.secrets();
        self.data = Some(secrets.next());
        secrets.keys(self.side, self.limits)
    }
}

impl Handshake for StandInHandshake {
    fn read(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError> {
        if data.is_empty() {
            return Ok(());
        }
        let outcome = self.step(space, data);
        if outcome.is_err() {
            self.state = State::Failed;
        }
        outcome
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        self.outbox.write(out)
    }

    fn is_handshaking(&self) -> bool {
        self.state != State::Done
    }

    fn peer_params(&self) -> Option<&[u8]> {
        self.peer_params.as_deref()
    }

    fn peer_key(&self) -> Option<PublicKey> {
        self.peer_key
    }

    fn next_keys(&mut self) -> Option<Keys> {
        let secrets = self.data?;
        self.data = Some(secrets.next());
        Some(secrets.keys(self.side, self.limits))
    }
}

#[derive(Clone, Copy)]
struct Limits {
    seal: u64,
    failures: u64,
}

/// The secrets of one space or phase, one a direction.
#[derive(Clone, Copy)]
struct Secrets {
    client: u128,
    server: u128,
}

impl Secrets {
    fn new(root: u128) -> Self {
        Self { client: hash(root, &[b"client"]), server: hash(root, &[b"server"]) }
    }

    fn next(&self) -> Self {
        Self { client: hash(self.client, &[b"update"]), server: hash(self.server, &[b"update"]) }
    }

    fn keys(&self, side: Side, limits: Limits) -> Keys {
        let (ours, theirs) = match side {
            Side::Client => (self.client, self.server),
            Side::Server => (self.server, self.client),
        };
        Keys {
            seal: Box::new(StandInKey { secret: ours, limits }),
            open: Box::new(StandInKey { secret: theirs, limits }),
        }
    }
}

struct StandInKey {
    secret: u128,
    limits: Limits,
}

impl StandInKey {
    fn tag(&self, number: u64, header: &[u8], body: &[u8]) -> [u8; TAG_LEN] {
        hash(self.secret, &[&number.to_be_bytes(), header, body]).to_be_bytes()
    }
}

impl PacketKey for StandInKey {
    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) {
        if let Some((body, tag)) = body.split_last_chunk_mut::<TAG_LEN>() {
            *tag = self.tag(number, header, body);
        }
    }

    fn open(&self, number: u64, header: &[u8], body: &mut [u8]) -> Option<usize> {
        let (body, tag) = body.split_last_chunk::<TAG_LEN>()?;
        (*tag == self.tag(number, header, body)).then_some(body.len())
    }

    fn seal_limit(&self) -> u64 {
        self.limits.seal
    }

    fn failure_limit(&self) -> u64 {
        self.limits.failures
    }
}

/// A fast mixing of `parts` under `key`, the same on every machine. Every step can be undone, so two inputs that differ
/// in one word never meet. Good against accidents, worth nothing against a forger.
fn hash(key: u128, parts: &[&[u8]]) -> u128 {
    let (mut high, mut low) = ((key >> 64) as u64, key as u64);
    let mut mix = |word: u64| {
        high = (high ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        low = (low ^ word.rotate_left(32)).wrapping_mul(0xd6e8_feb8_6659_fd93).rotate_left(31);
    };
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            mix(u64::from_be_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        mix(u64::from_be_bytes(last));
        mix(part.len() as u64); // so that no two ways of cutting the same bytes are alike
    }
    for _ in 0..4 {
        mix(0);
    }
    (u128::from(high) << 64) | u128::from(low)
}

#[cfg(test)]
pub(super) mod tests;
