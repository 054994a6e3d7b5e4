//! What rustls says, in words that say what, why and what next.
//!
//! Neighbours: `mod.rs` for handshakes, `stream` for what comes after them.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the lists of rustls are long and grow; it has words for the rest"
)]

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError, Error};

const DAY: u64 = 24 * 60 * 60; // seconds

/// What became of a stream, in words.
pub(super) fn of_io(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(error) => of_tls(error),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed before the TLS handshake was done; does it speak TLS?".to_owned()
        }
        None => error.to_string(),
    }
}

fn of_tls(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. } => {
            tracing::debug!(%error, "no TLS handshake");
            "what it says is no TLS handshake; is that a port without TLS?".to_owned()
        }
        Error::NoCertificatesPresented => {
            "it showed no certificate, which is asked of clients here".to_owned()
        }
        Error::DecryptError => "a record was changed on the way: it does not open".to_owned(),
        error => error.to_string(),
    }
}

/// That a certificate is over or not yet begun, where that is what is wrong with it.
pub(super) fn of_dates(error: &CertificateError) -> Option<String> {
    match error {
        CertificateError::ExpiredContext { time, not_after } => {
            Some(format!("expired {} ago", since(time.as_secs(), not_after.as_secs())))
        }
        CertificateError::NotValidYetContext { time, not_before } => {
            let ahead = since(not_before.as_secs(), time.as_secs());
            Some(format!("is good from a date on that is {ahead} ahead; is the clock right?"))
        }
        _ => None,
    }
}

fn of_certificate(error: &CertificateError) -> String {
    if let Some(words) = of_dates(error) {
        return format!("its certificate {words}");
    }
    match error {
        // `Other` is, above all, a certificate that signed itself.
        CertificateError::UnknownIssuer | CertificateError::Other(_) => {
            "its certificate is signed by nobody who is trusted here; name its CA, or the certificate \
             itself: ca=FILE"
                .to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            let expected = expected.to_str();
            format!("its certificate is for {names}, not for {expected}; another name to expect: name=NAME")
        }
        error => format!("its certificate is not good: {error}"),
    }
}

/// `DnsName("host")` as `host`.
fn bare(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inner.trim_matches('"')
}

/// A time between two dates, in the words of people.
fn since(later: u64, earlier: u64) -> String {
    let seconds = later.saturating_sub(earlier);
    match seconds / DAY {
        0 => format!("{:?}", Duration::from_secs(seconds)),
        1 => "a day".to_owned(),
        days => format!("{days} days"),
    }
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::UnknownCA => {
            "it does not trust the CA of our certificate (unknown_ca)".to_owned()
        }
        AlertDescription::CertificateRequired => {
            "it asks for a certificate of ours: cert=FILE&key=FILE (certificate_required)"
                .to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown => {
            format!("it refuses our certificate ({alert:?})")
        }
        AlertDescription::HandshakeFailure => {
            "it refuses the handshake: no cipher in common, or it asks for a certificate of ours \
             (handshake_failure)"
                .to_owned()
        }
        AlertDescription::ProtocolVersion => {
            "it speaks neither TLS 1.3 nor 1.2 with us (protocol_version)".to_owned()
        }
        AlertDescription::NoApplicationProtocol => {
            "it serves another protocol (no_application_protocol)".to_owned()
        }
        alert => format!("it ended TLS: {alert:?}"),
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;

    #[test]
    fn a_wrong_certificate_is_named_with_what_would_do() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * DAY));
        let name = ServerName::try_from("host.example").expect("a name");
        for (error, wanted) in [
            (
                CertificateError::ExpiredContext { time: at(10), not_after: at(7) },
                "expired 3 days ago",
            ),
            (
                CertificateError::NotValidYetContext { time: at(7), not_before: at(8) },
                "a day ahead",
            ),
            (CertificateError::UnknownIssuer, "ca=FILE"),
            (
                CertificateError::NotValidForNameContext {
                    expected: name,
                    presented: vec!["DnsName(\"a.example\")".into(), "IpAddress(::1)".into()],
                },
                "is for a.example, ::1, not for host.example; another name to expect: name=NAME",
            ),
        ] {
            let text = of_io(&io::Error::other(Error::InvalidCertificate(error)));
            assert!(text.contains(wanted), "{text}");
        }
    }
}
