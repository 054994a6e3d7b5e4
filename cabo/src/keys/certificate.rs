//! Certificates for `tls://` (X.509), for who has no other maker of them: signed by themselves, or by a CA made here.
//!
//! They have nothing to do with identities. Neighbours: `carrier/tls` uses what stands in the files.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;

use crate::address::HostName;

/// A CA is good for ten years.
const AUTHORITY_DAYS: u32 = 3650;
/// A certificate is good from an hour ago on: other clocks may be behind.
const SKEW: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The longest name that a subject may have (RFC 5280); all of them stand among the alternative names.
const SUBJECT_MAX_LEN: usize = 64;

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Neither a host's name nor an address.
    #[error("{0:?} is neither a host's name nor an IP address")]
    Name(String),
    /// Nobody to be certified.
    #[error("a certificate is for one name at least")]
    Nameless,
    /// A CA made by others, or not a CA.
    #[error("this is no CA that `cabo keys certificate --ca` made: {0}")]
    Authority(String),
    /// The library refused.
    #[error("cannot make a certificate: {0}")]
    Library(#[from] rcgen::Error),
}

/// A certificate and its key, as PEM.
pub struct Certified {
    /// What everybody may see.
    pub certificate: String,
    /// What nobody else may.
    pub key: String,
}

/// A CA of one's own.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
    key: String,
}

impl Authority {
    /// Makes one.
    pub fn generate() -> Result<Self, CertificateError> {
        let key = KeyPair::generate()?;
        let params = authority_params(&key);
        let (certificate, pem) = (params.self_signed(&key)?.pem(), key.serialize_pem());
        Ok(Self { issuer: Issuer::new(params, key), certificate, key: pem })
    }

    /// One that was made here before.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, CertificateError> {
        let of_key = |text: String| CertificateError::Authority(format!("its key: {text}"));
        let der = PrivateKeyDer::from_pem_slice(key.as_bytes());
        let der = der.map_err(|error| of_key(pem_words(&error)))?;
        let pair = KeyPair::try_from(&der).map_err(|error| of_key(error.to_string()))?;
        let issuer = Issuer::new(authority_params(&pair), pair);
        let authority = Self { issuer, certificate: certificate.to_owned(), key: key.to_owned() };
        // Its name is made from its key, so what it signs now tells whether the certificate is that of the key.
        authority.sign(&["trial.invalid"], 1)?;
        Ok(authority)
    }

    /// What to store of it.
    pub fn certified(&self) -> Certified {
        Certified { certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// A certificate for these hosts' names and addresses, good for so many days.
    pub fn sign(&self, names: &[&str], days: u32) -> Result<Certified, CertificateError> {
        let key = KeyPair::generate()?;
        let mut params = params(names, days)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &self.issuer)?;
        self.check(certificate.der())?;
        Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn check(&self, signed: &CertificateDer<'_>) -> Result<(), CertificateError> {
        let foreign = |error: String| CertificateError::Authority(error);
        let own = CertificateDer::from_pem_slice(self.certificate.as_bytes())
            .map_err(|error| foreign(format!("its certificate: {}", pem_words(&error))))?;
        let mut roots = RootCertStore::empty();
        roots.add(own).map_err(|error| foreign(error.to_string()))?;
        let signed = ParsedCertificate::try_from(signed).map_err(|e| foreign(e.to_string()))?;
        let algorithms = default_provider().signature_verification_algorithms;
        let now = UnixTime::now();
        verify_server_cert_signed_by_trust_anchor(&signed, &roots, &[], now, algorithms.all)
            .map_err(|_| foreign("its key is not the one of its certificate".to_owned()))
    }
}

/// A certificate that signed itself, for these hosts' names and addresses, good for so many days.
pub fn self_signed(names: &[&str], days: u32) -> Result<Certified, CertificateError> {
    let key = KeyPair::generate()?;
    let certificate = params(names, days)?.self_signed(&key)?;
    Ok(Certified { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// What stands against a certificate by itself; whether it is over or not yet begun comes first.
pub(crate) fn objection(certificate: &CertificateDer<'_>) -> Option<rustls::CertificateError> {
    let (now, nobody) = (UnixTime::now(), RootCertStore::empty());
    let algorithms = default_provider().signature_verification_algorithms;
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    // Its dates are looked at first. That nobody is trusted is an error that says nothing of them.
    match verify_server_cert_signed_by_trust_anchor(&parsed, &nobody, &[], now, algorithms.all) {
        Err(rustls::Error::InvalidCertificate(error)) => Some(error),
        Ok(()) | Err(_) => None,
    }
}

/// What is wrong with a PEM file.
pub(crate) fn pem_words(error: &PemError) -> String {
    match error {
        PemError::NoItemsFound => "it is not there (PEM: a line BEGIN ..)".to_owned(),
        PemError::MissingSectionEnd { end_marker } => {
            let label = String::from_utf8_lossy(end_marker);
            format!("it is cut: a section has no line -----END {label}-----")
        }
        PemError::IllegalSectionStart { line } => {
            format!("a section begins with {:?}", String::from_utf8_lossy(line).trim())
        }
        PemError::Base64Decode(_) | PemError::Io(_) | PemError::SectionTooLarge | _ => {
            error.to_string()
        }
    }
}

fn params(names: &[&str], days: u32) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        names.iter().map(|name| alternative(name)).collect::<Result<_, _>>()?;
    let first = names.first().ok_or(CertificateError::Nameless)?;
    params
        .distinguished_name
        .push(DnType::CommonName, if first.len() <= SUBJECT_MAX_LEN { first } else { "cabo" });
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    set_dates(&mut params, days);
    Ok(params)
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let hash = digest(&SHA256, key.der_bytes());
    let short: String = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, format!("cabo CA {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_dates(&mut params, AUTHORITY_DAYS);
    params
}

fn set_dates(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + DAY * days).into();
}

/// A name as a certificate has it: an address, a host, or all hosts of a domain (`*.lan`).
fn alternative(name: &str) -> Result<SanType, CertificateError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || CertificateError::Name(name.to_owned());
    HostName::new(name.strip_prefix("*.").unwrap_or(name)).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.to_ascii_lowercase().try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_domains_and_addresses() {
        for good in ["host.lan", "*.lan", "192.0.2.1", "::1", "localhost"] {
            assert!(self_signed(&[good], 1).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "1.2.3.4.5", "*", "h\u{f6}st", "[::1]"] {
            assert!(matches!(self_signed(&[bad], 1), Err(CertificateError::Name(_))), "{bad}");
        }
        assert!(matches!(self_signed(&[], 1), Err(CertificateError::Nameless)));
        let long = format!("{}.example", ["a".repeat(60), "b".repeat(60)].join("."));
        assert!(self_signed(&[&long], 36_500).is_ok());
    }

    #[test]
    fn a_pem_file_that_is_none_is_described_in_words() {
        for (text, wanted) in [
            ("", "it is not there"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n", "no line -----END PRIVATE KEY-----"),
            ("-----BEGIN \u{1b}[2J\n", r#"begins with "-----BEGIN \u{1b}[2J""#),
            ("-----BEGIN PRIVATE KEY-----\n?\n-----END PRIVATE KEY-----\n", "base64"),
        ] {
            let error = PrivateKeyDer::from_pem_slice(text.as_bytes()).expect_err("none");
            let words = pem_words(&error);
            assert!(words.contains(wanted), "{text:?}: {words}");
        }
    }

    #[test]
    fn a_ca_signs_after_it_was_stored_and_only_with_its_own_key() {
        let (one, other) =
            (Authority::generate().expect("made"), Authority::generate().expect("made"));
        let (one, other) = (one.certified(), other.certified());
        let again = Authority::from_pem(&one.certificate, &one.key).expect("the same");
        assert!(again.sign(&["host.lan", "10.0.0.1"], 365).is_ok());
        let wrong = Authority::from_pem(&one.certificate, &other.key);
        assert!(matches!(wrong, Err(CertificateError::Authority(_))));
        let leaf = again.sign(&["host.lan"], 1).expect("signed");
        for (certificate, key) in [
            (&leaf.certificate, &leaf.key),
            (&String::new(), &one.key),
            (&one.certificate, &String::new()),
        ] {
            assert!(matches!(
                Authority::from_pem(certificate, key),
                Err(CertificateError::Authority(_))
            ));
        }
    }
}
