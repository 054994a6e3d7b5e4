//! The real body of `cabo_proto`'s [`Crypto`]: TLS 1.3 as QUIC runs it (RFC 9001), by rustls (S-2).
//!
//! Both sides prove a raw Ed25519 key (RFC 7250, `raw_key`); the key exchange is the X25519MLKEM768 hybrid, with X25519
//! alone where the peer has no other; ALPN `cabo/1` is mandatory; there is no resumption, no ticket, no 0-RTT and no
//! header protection. Every carrier uses the same handshake. `key_log` writes the secrets down where one asked for it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use cabo_proto::session::crypto::{
    Crypto, CryptoError, Handshake, KeyChange, Keys, PacketKey, PublicKey, Side, Space,
};
use cabo_proto::session::plain::Plain;
use cabo_proto::wire::packet::ConnectionId;
use cabo_proto::wire::params::Params;
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ClientConfig, ServerConfig, quic, version};

pub use key_log::{KeyLogError, KeyLogFile};

use crate::keys::{Identity, KeyError};
use key_log::ConnectionLog;
use raw_key::{ClientKeys, ServerKeys, WrongPeer};

mod key_log;
mod raw_key;

const ALPN: &[u8] = b"cabo/1";
const MAX_HANDSHAKE_LEN: usize = 64 * 1024; // bytes that are taken from one peer before it is done
const TAG_LEN: usize = 16; // of every cipher that TLS 1.3 has for QUIC

/// Why the crypto of an endpoint could not be set up.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SetupError {
    /// The identity cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The TLS library refused its configuration.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Crypto of one endpoint with an identity: seals what crosses the wire and knows who is at the other end.
#[derive(Clone)]
pub struct Sealed {
    provider: Arc<CryptoProvider>,
    suite: quic::Suite, // of the Initial space
    certified: Arc<CertifiedKey>,
    key_log: Option<Arc<KeyLogFile>>,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    mac: Arc<hmac::Key>,
}

impl Sealed {
    /// Makes the crypto of one endpoint; its secrets go to `key_log` where there is one.
    pub fn new(identity: &Identity, key_log: Option<Arc<KeyLogFile>>) -> Result<Self, SetupError> {
        let provider = Arc::new(CryptoProvider {
            cipher_suites: vec![
                provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
                provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
                provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            kx_groups: vec![provider::kx_group::X25519MLKEM768, provider::kx_group::X25519],
            ..provider::default_provider()
        });
        let suite = provider::cipher_suite::TLS13_AES_128_GCM_SHA256
            .tls13()
            .and_then(|suite| suite.quic_suite())
            .ok_or_else(|| rustls::Error::General("AES-128-GCM is missing".to_owned()))?;
        let certified = certified(identity)?;
        let client = client_config(&provider, &certified, None)?;
        let server = server_config(&provider, &certified)?;
        let mac = hmac::Key::new(hmac::HMAC_SHA256, &identity.derive(b"mac")?);
        Ok(Self { provider, suite, certified, key_log, client, server, mac: Arc::new(mac) })
    }

    /// The same endpoint, but as a client it refuses any server that does not prove `key`.
    pub fn expecting(&self, key: PublicKey) -> Result<Self, SetupError> {
        let client = client_config(&self.provider, &self.certified, Some(key))?;
        Ok(Self { client, ..self.clone() })
    }
}

impl Sealed {
    /// The crypto of the same endpoint where it speaks plain: it seals nothing, and its cookies and reset tokens are
    /// still made with the identity's secret.
    pub fn to_plain(&self) -> impl Crypto + use<> {
        let secret = self.clone();
        Plain::new(move |label: &[u8], data: &[u8]| secret.mac(label, data))
    }
}

impl Crypto for Sealed {
    fn initial_keys(&self, side: Side, first_id: ConnectionId) -> Keys {
        let side = match side {
            Side::Client => rustls::Side::Client,
            Side::Server => rustls::Side::Server,
        };
        whole(self.suite.keys(&first_id.0, side, quic::Version::V1))
    }

    fn start(&self, side: Side, params: Vec<u8>) -> Result<Box<dyn Handshake>, CryptoError> {
        let version = quic::Version::V1;
        let own_id = id_in(&params);
        let log = self.key_log.clone().map(|file| Arc::new(ConnectionLog::new(file)));
        let connection = match side {
            Side::Client => {
                let mut config = self.client.clone();
                if let Some(log) = &log {
                    Arc::make_mut(&mut config).key_log = log.clone();
                }
                let nameless = ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into()); // never sent
                quic::ClientConnection::new(config, version, nameless, params)
                    .map(quic::Connection::from)
            }
            Side::Server => {
                let mut config = self.server.clone();
                if let Some(log) = &log {
                    Arc::make_mut(&mut config).key_log = log.clone();
                }
                quic::ServerConnection::new(config, version, params).map(quic::Connection::from)
            }
        };
        let connection = connection.map_err(|error| explain(&error, None))?;
        let mut shake = TlsHandshake {
            connection: Some(Box::new(connection)),
            side,
            own_id,
            log,
            flights: VecDeque::new(),
            has_handshake_keys: false,
            read_len: 0,
            is_failed: false,
            peer_params: None,
            peer_key: None,
            next: None,
        };
        shake.collect();
        Ok(Box::new(shake))
    }

    /// HMAC-SHA256 over the label with its length and the data, cut to 16 bytes.
    fn mac(&self, label: &[u8], data: &[u8]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.mac);
        context.update(&(label.len() as u64).to_be_bytes());
        context.update(label);
        context.update(data);
        let tag = context.sign();
        let mut short = [0; 16];
        for (to, from) in short.iter_mut().zip(tag.as_ref()) {
            *to = *from;
        }
        short
    }

    fn mac_matches(&self, label: &[u8], data: &[u8], tag: &[u8]) -> bool {
        constant_time::verify_slices_are_equal(&self.mac(label, data), tag).is_ok()
    }
}

fn certified(identity: &Identity) -> Result<Arc<CertifiedKey>, SetupError> {
    let der = identity.to_pkcs8()?;
    let signer = provider::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(der.as_ref()))?;
    let spki = CertificateDer::from(raw_key::spki_of(identity.public_key()));
    Ok(Arc::new(CertifiedKey::new(vec![spki], signer)))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
    expected: Option<PublicKey>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous() // rustls' word for any verifier of one's own; ours does verify
        .with_custom_certificate_verifier(Arc::new(ServerKeys::new(algorithms, expected)))
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(
            certified.clone(),
        )));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(Arc::new(config))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    certified: &Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&version::TLS13])?
        .with_client_cert_verifier(Arc::new(ClientKeys::new(algorithms)))
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified.clone())));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// One handshake. What rustls wants to send is taken at once and kept in flights, so that it never meets bytes of a
/// later space with flights of an earlier one still inside (it would then mix them).
struct TlsHandshake {
    connection: Option<Box<quic::Connection>>, // until it is done; thousands of sessions idle for hours
    side: Side,
    own_id: Option<ConnectionId>,
    log: Option<Arc<ConnectionLog>>,
    flights: VecDeque<(Vec<u8>, Option<KeyChange>)>,
    has_handshake_keys: bool,
    read_len: usize,
    is_failed: bool,
    peer_params: Option<Vec<u8>>,
    peer_key: Option<PublicKey>,
    next: Option<quic::Secrets>,
}

impl TlsHandshake {
    fn step(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError> {
        let Some(connection) = &mut self.connection else {
            return Err(refusal(10, "handshake bytes after the handshake"));
        };
        let wanted = if self.has_handshake_keys { Space::Handshake } else { Space::Initial };
        if space != wanted {
            return Err(refusal(10, "handshake bytes in the wrong space"));
        }
        self.read_len = self.read_len.saturating_add(data.len());
        if self.read_len > MAX_HANDSHAKE_LEN {
            return Err(refusal(50, "a handshake beyond 64 KiB"));
        }
        if let Err(error) = connection.read_hs(data) {
            return Err(explain(&error, connection.alert().map(u8::from)));
        }
        self.collect();
        if let Some(connection) = self.connection.take_if(|connection| !connection.is_handshaking())
        {
            self.finish(&connection)?;
        }
        Ok(())
    }

    /// What rustls leaves to us at the end: that there is a key on the other side, and that it means this protocol.
    fn finish(&mut self, connection: &quic::Connection) -> Result<(), CryptoError> {
        if connection.alpn_protocol() != Some(ALPN) {
            return Err(refusal(120, "the peer speaks another protocol than cabo/1"));
        }
        let key = match connection.peer_certificates() {
            Some([key]) => raw_key::key_of(key),
            Some(_) | None => None,
        };
        self.peer_key = Some(key.ok_or_else(|| refusal(116, "the peer has proved no identity"))?);
        self.peer_params = connection.quic_transport_parameters().map(<[u8]>::to_vec);
        self.note_ids();
        Ok(())
    }

    fn note_ids(&self) {
        let peer_id = self.peer_params.as_deref().and_then(id_in);
        if let (Some(log), Some(own), Some(peer)) = (&self.log, self.own_id, peer_id) {
            match self.side {
                Side::Client => log.note_ids(own, peer),
                Side::Server => log.note_ids(peer, own),
            }
        }
    }

    fn collect(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        loop {
            let mut bytes = Vec::new();
            let change = match connection.write_hs(&mut bytes) {
                Some(quic::KeyChange::Handshake { keys }) => {
                    self.has_handshake_keys = true;
                    Some(KeyChange::Handshake(whole(keys)))
                }
                Some(quic::KeyChange::OneRtt { keys, next }) => {
                    self.next = Some(next);
                    Some(KeyChange::Data(whole(keys)))
                }
                None => None,
            };
            let is_last = change.is_none();
            if !bytes.is_empty() || !is_last {
                self.flights.push_back((bytes, change));
            }
            if is_last {
                break;
            }
        }
    }
}

impl Handshake for TlsHandshake {
    fn read(&mut self, space: Space, data: &[u8]) -> Result<(), CryptoError> {
        if data.is_empty() {
            return Ok(());
        }
        if self.is_failed {
            return Err(refusal(10, "handshake bytes after it failed"));
        }
        let outcome = self.step(space, data);
        self.is_failed = outcome.is_err();
        outcome
    }

    fn write(&mut self, out: &mut Vec<u8>) -> Option<KeyChange> {
        while let Some((bytes, change)) = self.flights.pop_front() {
            out.extend_from_slice(&bytes);
            if change.is_some() {
                return change;
            }
        }
        None
    }

    fn is_handshaking(&self) -> bool {
        self.is_failed || self.connection.is_some()
    }

    fn peer_params(&self) -> Option<&[u8]> {
        match &self.connection {
            Some(connection) => connection.quic_transport_parameters(),
            None => self.peer_params.as_deref(),
        }
    }

    fn peer_key(&self) -> Option<PublicKey> {
        self.peer_key
    }

    fn next_keys(&mut self) -> Option<Keys> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(Keys { seal: Box::new(Key(keys.local)), open: Box::new(Key(keys.remote)) })
    }
}

/// The packet keys of a set; those of header protection stay unused, for visibility is the product.
fn whole(keys: quic::Keys) -> Keys {
    Keys { seal: Box::new(Key(keys.local.packet)), open: Box::new(Key(keys.remote.packet)) }
}

struct Key(Box<dyn quic::PacketKey>);

impl PacketKey for Key {
    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn seal(&self, number: u64, header: &[u8], body: &mut [u8]) {
        let Some((text, tag)) = body.split_last_chunk_mut::<TAG_LEN>() else { return };
        match self.0.encrypt_in_place(number, header, text) {
            Ok(made) => tag.iter_mut().zip(made.as_ref()).for_each(|(to, from)| *to = *from),
            Err(_) => body.fill(0), // longer than the cipher allows: nothing of it may leave unsealed
        }
    }

    fn open(&self, number: u64, header: &[u8], body: &mut [u8]) -> Option<usize> {
        self.0.decrypt_in_place(number, header, body).ok().map(|text| text.len())
    }

    fn seal_limit(&self) -> u64 {
        self.0.confidentiality_limit()
    }

    fn failure_limit(&self) -> u64 {
        self.0.integrity_limit()
    }
}

/// The id under which the side with these parameters receives; on stream carriers there is none.
fn id_in(params: &[u8]) -> Option<ConnectionId> {
    Params::decode(params).ok()?.own_id
}

fn refusal(alert: u8, text: &str) -> CryptoError {
    CryptoError { alert: Some(alert), text: text.to_owned() }
}

/// Says in our words what rustls says in its own.
fn explain(error: &rustls::Error, alert: Option<u8>) -> CryptoError {
    if let rustls::Error::InvalidCertificate(CertificateError::Other(other)) = error
        && let Some(wrong) = other.0.downcast_ref::<WrongPeer>()
    {
        return refusal(CryptoError::WRONG_PEER, &wrong.to_string());
    }
    if matches!(error, rustls::Error::NoApplicationProtocol) {
        return refusal(120, "the peer speaks another protocol than cabo/1");
    }
    CryptoError { alert, text: error.to_string() }
}

#[cfg(test)]
mod tests;
