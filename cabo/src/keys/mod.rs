//! Who we are and whom we know: the static identity, fingerprints, and the servers met before.
//!
//! An identity is an Ed25519 key pair, PKCS#8 where it is stored. `crypto` proves it in a handshake, `store` keeps it
//! in a file, [`fingerprint`] prints its public half, [`known`] remembers servers, and `access` decides who may enter.
//! [`certificate`] makes what `tls://` wants, which is another thing.

use std::fmt;

use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
pub use cabo_proto::session::crypto::PublicKey;
pub use fingerprint::{Fingerprint, FingerprintError};
pub use store::StoreError;

pub mod certificate;
pub mod fingerprint;
pub mod known;
mod store;

/// What went wrong with a key itself, wherever it came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// The system's cryptography refused to work.
    #[error("cannot make a key: the cryptographic library refused")]
    Refused,
    /// These bytes are something else.
    #[error("this is not an Ed25519 private key in PKCS#8 form (DER)")]
    NotAKey,
}

/// The static key pair that peers know us by.
pub struct Identity {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Identity {
    /// Makes a new one.
    pub fn generate() -> Result<Self, KeyError> {
        Self::new(Ed25519KeyPair::generate().map_err(|_| KeyError::Refused)?)
    }

    /// Reads one from its stored form, as `openssl genpkey -algorithm ed25519 -outform DER` also writes it.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Self::new(Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map_err(|_| KeyError::NotAKey)?)
    }

    /// The stored form; wiped from memory when dropped.
    pub fn to_pkcs8(&self) -> Result<impl AsRef<[u8]> + use<>, KeyError> {
        self.pair.to_pkcs8v1().map_err(|_| KeyError::Refused)
    }

    /// The half that everybody may know.
    pub fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The printable hash of the public half.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.public)
    }

    /// A secret that follows from the private key and from `label`, and tells nothing of either (HKDF-SHA256).
    pub(crate) fn derive(&self, label: &[u8]) -> Result<[u8; 32], KeyError> {
        let seed = self.pair.seed().map_err(|_| KeyError::Refused)?;
        let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| KeyError::Refused)?;
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"cabo/1 identity").extract(seed.as_ref());
        let mut secret = [0; 32];
        root.expand(&[label], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut secret))
            .map_err(|_| KeyError::Refused)?;
        Ok(secret)
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::NotAKey)?;
        Ok(Self { pair, public: PublicKey(public) })
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_the_same_after_storing() {
        let identity = Identity::generate().expect("works");
        let der = identity.to_pkcs8().expect("works");
        let again = Identity::from_pkcs8(der.as_ref()).expect("reads");
        assert_eq!(again.public_key(), identity.public_key());
        assert_eq!(again.derive(b"x"), identity.derive(b"x"));
        assert_ne!(again.derive(b"x"), identity.derive(b"y"));
        assert_ne!(Identity::generate().expect("works").derive(b"x"), identity.derive(b"x"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let der = Identity::generate().and_then(|identity| identity.to_pkcs8()).expect("works");
        for len in 0..der.as_ref().len() {
            assert_eq!(Identity::from_pkcs8(&der.as_ref()[..len]).err(), Some(KeyError::NotAKey));
        }
    }

    #[test]
    fn printing_an_identity_shows_no_secret() {
        let identity = Identity::generate().expect("works");
        let shown = format!("Identity {{ fingerprint: {}, .. }}", identity.fingerprint());
        assert_eq!(format!("{identity:?}"), shown);
    }
}
