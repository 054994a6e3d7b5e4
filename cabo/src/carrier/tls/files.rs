//! From the files that an address names to what rustls is configured with.
//!
//! Neighbours: `settings` names the files, `verify` looks at the certificates of servers.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, KeyLog, KeyLogFile, NoKeyLog, RootCertStore, ServerConfig};

use super::settings::{ConnectSettings, ListenSettings, Pair};
use super::verify::{Trusted, Unverified};
use super::words;
use crate::config::{read_named, shell_word};
use crate::keys::certificate::{objection, pem_words};

/// Names the file for secrets, as of other programs.
const KEY_LOG: &str = "SSLKEYLOGFILE";
/// A file of certificates is no larger.
const FILE_MAX_BYTES: u64 = 1 << 20;
/// Bits of a mode that let others at a file. A group may read what is root's: it was made for that.
const OTHERS: u32 = 0o007;
const GROUP: u32 = 0o070;

/// What a server shows and asks for. There are no tickets: each would be a write that a client may never read, and whose
/// reset then destroys what was sent to it.
pub(super) fn server_config(
    settings: &ListenSettings,
    alpn: &[&[u8]],
) -> Result<ServerConfig, String> {
    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(in_words)?;
    let builder = match &settings.client_ca {
        Some(path) => {
            let roots = Arc::new(roots(certificates(path)?, path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            builder.with_client_cert_verifier(verifier.map_err(in_words)?)
        }
        None => builder.with_no_client_auth(),
    };
    let (chain, key) = own(&settings.own)?;
    let mut config =
        builder.with_single_cert(chain, key).map_err(|e| unusable(&settings.own, &e))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.key_log = key_log();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// What a client trusts and shows.
pub(super) fn client_config(
    settings: &ConnectSettings,
    alpn: &[&[u8]],
) -> Result<ClientConfig, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(in_words)?
        .dangerous(); // rustls' word for any verifier of one's own
    let builder = if settings.is_unverified {
        builder.with_custom_certificate_verifier(Arc::new(Unverified::new(&provider)))
    } else {
        let trusted = match &settings.ca {
            Some(path) => {
                let certificates = certificates(path)?;
                Trusted::new(roots(certificates.clone(), path)?, certificates, provider)
            }
            None => Trusted::new(system_roots()?, Vec::new(), provider),
        };
        builder.with_custom_certificate_verifier(Arc::new(trusted?))
    };
    let mut config = match &settings.own {
        Some(pair) => {
            let (chain, key) = own(pair)?;
            builder.with_client_auth_cert(chain, key).map_err(|e| unusable(pair, &e))?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.key_log = key_log();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Where the secrets of TLS connections go: nowhere, or to the file that `SSLKEYLOGFILE` names, as elsewhere, for Wireshark to
/// read one's own traffic. Whoever reads it does so, too.
fn key_log() -> Arc<dyn KeyLog> {
    static LOG: OnceLock<Option<Arc<KeyLogFile>>> = OnceLock::new();
    let open = || {
        let path = std::env::var_os(KEY_LOG).filter(|path| !path.is_empty())?;
        // What is made here is for nobody else. A pipe that nobody reads would hold us up, and is an error so.
        let mut options = File::options();
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NONBLOCK);
        let (opened, path) = (options.open(&path), Path::new(&path).display());
        if let Err(error) = opened {
            tracing::warn!("{KEY_LOG}: cannot open {path}: {error}; no secrets are written");
            return None;
        }
        tracing::warn!(
            "{KEY_LOG}: the secrets of all TLS connections are written to {path}; whoever has that file can read them"
        );
        Some(Arc::new(KeyLogFile::new()))
    };
    match LOG.get_or_init(open) {
        Some(log) => log.clone(),
        None => Arc::new(NoKeyLog),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn in_words(error: impl std::error::Error) -> String {
    error.to_string()
}

fn unusable(pair: &Pair, error: &rustls::Error) -> String {
    let (certificate, key) = (pair.certificate.display(), pair.key.display());
    if matches!(error, rustls::Error::InconsistentKeys(_)) {
        format!("the key in {key} is not the one of the certificate in {certificate}")
    } else {
        format!("the certificate in {certificate} and the key in {key}: {error}")
    }
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn own(pair: &Pair) -> Result<Own, String> {
    let chain = certificates(&pair.certificate)?;
    warn_of_dates(&pair.certificate, &chain);
    warn_of_readers(&pair.key);
    let key = PrivateKeyDer::from_pem_slice(&read(&pair.key)?).map_err(|error| {
        let path = pair.key.display();
        if !matches!(error, PemError::NoItemsFound) {
            format!("{path}: {}", pem_words(&error))
        } else if pair.key == pair.certificate {
            format!("{path} has no private key; name its file: key=FILE")
        } else {
            format!("{path} has no private key")
        }
    })?;
    Ok((chain, key))
}

/// Says that a certificate of ours is of no use now: the other side would refuse it, and only that side would be told.
fn warn_of_dates(path: &Path, chain: &[CertificateDer<'static>]) {
    let over = |certificate| objection(certificate).as_ref().and_then(words::of_dates);
    if let Some(words) = chain.iter().find_map(over) {
        tracing::warn!("{}: others refuse this certificate of ours: it {words}", path.display());
    }
}

/// Says that a key is no secret. It is not refused: a system's keys are there for a group, or for all of a container.
fn warn_of_readers(path: &Path) {
    let Ok(meta) = fs::metadata(path) else { return };
    let (mode, is_of_system) = (meta.mode() & 0o777, meta.uid() == 0);
    let too_open = if is_of_system { OTHERS } else { OTHERS | GROUP };
    if mode & too_open != 0 {
        let (shown, word) = (path.display(), shell_word(path));
        tracing::warn!("{shown}: this key is open to others (mode {mode:03o}); chmod 600 {word}");
    }
}

/// The certificates of a PEM file, of which there is at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| format!("{}: {}", path.display(), pem_words(&error)))?;
    match all.is_empty() {
        true => Err(format!("{} has no certificate (PEM: BEGIN CERTIFICATE)", path.display())),
        false => Ok(all),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    read_named(path, FILE_MAX_BYTES).map_err(|error| format!("{}: {error}", path.display()))
}

fn roots(certificates: Vec<CertificateDer<'static>>, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// The list of this machine; `SSL_CERT_FILE` and `SSL_CERT_DIR` lead to another one, as elsewhere.
fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!(
        "this machine has no list of CAs{why}; name the one to trust: ca=FILE, or install ca-certificates"
    ))
}
