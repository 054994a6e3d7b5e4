//! Raw Ed25519 keys in the place of certificates (RFC 7250): the verifiers that rustls asks.
//!
//! A key comes as a SubjectPublicKeyInfo, which for Ed25519 is always the same 12 bytes and the key (RFC 8410), so it
//! is compared, not parsed. The verifiers check that the peer holds the key that it shows, by its signature over the
//! handshake. Whether that key may enter is not their business but `access`'s, once the handshake is done; only the key
//! that a client expects of a server is compared here, after it was proved.

use std::sync::Arc;

use cabo_proto::session::crypto::PublicKey;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};

use crate::keys::Fingerprint;

const SPKI_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A server that proved another key than the one expected of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the server proved the identity {found}, but {expected} was expected")]
pub(super) struct WrongPeer {
    pub(super) expected: Fingerprint,
    pub(super) found: Fingerprint,
}

/// The SubjectPublicKeyInfo of `key`.
pub(super) fn spki_of(key: PublicKey) -> Vec<u8> {
    [SPKI_HEAD.as_slice(), key.0.as_slice()].concat()
}

/// The key in a SubjectPublicKeyInfo; `None` where it is anything but an Ed25519 key.
pub(super) fn key_of(spki: &[u8]) -> Option<PublicKey> {
    let key = spki.strip_prefix(&SPKI_HEAD)?;
    Some(PublicKey(key.try_into().ok()?))
}

/// A client's verifier of servers.
#[derive(Debug)]
pub(super) struct ServerKeys {
    algorithms: WebPkiSupportedAlgorithms,
    expected: Option<PublicKey>,
}

impl ServerKeys {
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms, expected: Option<PublicKey>) -> Self {
        Self { algorithms, expected }
    }
}

impl ServerCertVerifier for ServerKeys {
    fn verify_server_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        check_form(key, others)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let (found, valid) = check_signature(&self.algorithms, message, key, signature)?;
        match self.expected {
            Some(expected) if expected != found => {
                let wrong = WrongPeer {
                    expected: Fingerprint::of(expected),
                    found: Fingerprint::of(found),
                };
                Err(CertificateError::Other(OtherError(Arc::new(wrong))).into())
            }
            Some(_) | None => Ok(valid),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// A server's verifier of clients; every client must have a key.
#[derive(Debug)]
pub(super) struct ClientKeys {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientKeys {
    pub(super) fn new(algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { algorithms }
    }
}

impl ClientCertVerifier for ClientKeys {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        key: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        check_form(key, others)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _key: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        check_signature(&self.algorithms, message, key, signature).map(|(_, valid)| valid)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

fn check_form(key: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PublicKey, Error> {
    match key_of(key) {
        Some(key) if others.is_empty() => Ok(key),
        Some(_) | None => Err(CertificateError::BadEncoding.into()),
    }
}

fn check_signature(
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    key: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<(PublicKey, HandshakeSignatureValid), Error> {
    let found = check_form(key, &[])?;
    if signature.scheme != SignatureScheme::ED25519 {
        return Err(PeerIncompatible::NoSignatureSchemesInCommon.into());
    }
    let spki = SubjectPublicKeyInfoDer::from(key.as_ref());
    let valid = verify_tls13_signature_with_raw_key(message, &spki, signature, algorithms)?;
    Ok((found, valid))
}
