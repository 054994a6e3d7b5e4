//! `cabo keys certificate`: what a server or a client needs for `tls://`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use cabo::address::{Address, Host, HostName, HostPort, Place};
use cabo::keys::certificate::{Authority, Certified, self_signed};
use serde_json::json;

use crate::cmd::Globals;
use crate::exit::{self, Failure};
use crate::show::{json as json_lines, stderr, stdout};

/// Everybody may read a certificate, and its owner alone a key.
const CERTIFICATE_MODE: u32 = 0o644;
const KEY_MODE: u32 = 0o600;
/// The port in the examples that are printed.
const PORT: u16 = 5556;

/// Make a certificate and its key for tls://
///
/// Writes NAME.pem and NAME.key (readable by you alone). It signs itself, unless --ca names a CA: that one is made where
/// it does not exist yet, as CA.pem and CA.key, and signs every certificate after it. Who connects trusts it by ?ca=FILE.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo keys certificate host.lan 192.168.1.7       host.lan.pem and host.lan.key, for a name and an address
  cabo keys certificate host.lan --ca ca           signed by ca.pem, which is made if it is not there
  cabo keys certificate ana --ca ca                one for a client; listen with ?ca=ca.pem asks for it")]
pub(super) struct Args {
    /// The names and IP addresses of the host, as others write them
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// The CA that signs it: FILE.pem and FILE.key
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long it is good for, in days
    #[arg(long, value_name = "N", default_value_t = 365)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=36_500))]
    days: u32,
    /// Write FILE.pem and FILE.key
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long)]
    replace: bool,
}

impl Args {
    pub(super) fn run(self, globals: Globals) -> anyhow::Result<()> {
        let first = self.names.first().map_or("", String::as_str).replace('*', "all");
        let stem = self.output.clone().unwrap_or_else(|| first.into());
        let (certificate, key) = (with_ending(&stem, ".pem"), with_ending(&stem, ".key"));
        if !self.replace {
            [&certificate, &key].into_iter().try_for_each(|path| must_be_new(path))?;
        }
        if self.ca.as_ref().is_some_and(|ca| with_ending(ca, ".pem") == certificate) {
            let text = "the certificate would take the place of the CA that signs it; -o names another file";
            return Err(Failure::usage(text).into());
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let wrong =
            |error: cabo::keys::certificate::CertificateError| Failure::usage(error.to_string());
        let made = match &self.ca {
            Some(ca) => self.authority(ca)?.sign(&names, self.days).map_err(wrong)?,
            None => self_signed(&names, self.days).map_err(wrong)?,
        };
        store(&made, &certificate, &key, self.replace)?;
        let ca = self.ca.as_deref().map(|ca| with_ending(ca, ".pem"));
        self.tell(&certificate, &key, ca.as_deref(), globals)
    }

    /// The CA in these files, which is made where there are none.
    fn authority(&self, stem: &Path) -> Result<Authority, Failure> {
        let (certificate, key) = (with_ending(stem, ".pem"), with_ending(stem, ".key"));
        let read = |path: &Path| match fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", path, &error)),
            Ok(text) => Ok(Some(text)),
        };
        let broken = |error: &dyn std::fmt::Display| {
            let (certificate, key) = (certificate.display(), key.display());
            Failure::new(exit::FAILED, format!("{certificate} and {key}: {error}"))
        };
        match (read(&certificate)?, read(&key)?) {
            (Some(certificate), Some(key)) => {
                Authority::from_pem(&certificate, &key).map_err(|error| broken(&error))
            }
            (None, None) => {
                let authority = Authority::generate().map_err(|error| broken(&error))?;
                store(&authority.certified(), &certificate, &key, false)?;
                Ok(authority)
            }
            (Some(_), None) | (None, Some(_)) => {
                Err(broken(&"one of the two is missing; a CA is both, or neither, to be made"))
            }
        }
    }

    fn tell(
        &self,
        certificate: &Path,
        key: &Path,
        ca: Option<&Path>,
        globals: Globals,
    ) -> anyhow::Result<()> {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        if globals.json {
            let value = json!({
                "certificate": shown(certificate),
                "key": shown(key),
                "ca": ca.map(shown),
                "names": self.names,
                "days": self.days,
            });
            return Ok(json_lines::line(&value)?);
        }
        if globals.quiet {
            return Ok(());
        }
        let (days, names) = (self.days, self.names.join(", "));
        let mut out = stdout::styled();
        writeln!(out, "{}  a certificate for {names}, good for {days} days", shown(certificate))?;
        writeln!(out, "{}  its key, for nobody else", shown(key))?;
        let host = self.names.first().map_or("HOST", String::as_str);
        let url = |host: Host, files: &[(&'static str, &Path)]| {
            let mut address = Address::from(Place::Tls(HostPort { host, port: Some(PORT) }));
            for (word, path) in files {
                address.query.set(word, path.as_os_str().as_bytes());
            }
            address
        };
        let listen = url(Host::Any, &[("cert", certificate), ("key", key)]);
        let host = match host.parse() {
            Ok(std::net::IpAddr::V4(ip)) => Host::Ip4(ip),
            Ok(std::net::IpAddr::V6(ip)) => Host::Ip6(ip, None),
            Err(_) => HostName::new(host).map_or(Host::Any, Host::Name),
        };
        let connect = url(host, &[("ca", ca.unwrap_or(certificate))]);
        stderr::say(&format!("listen at   '{listen}'\nconnect to  '{connect}'"));
        Ok(())
    }
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(ending);
    name.into()
}

fn must_be_new(path: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("write", path, &error)),
        Ok(_) => Err(occupied(path)),
    }
}

fn occupied(path: &Path) -> Failure {
    let text = format!("{} exists; --replace writes over it, -o FILE elsewhere", path.display());
    Failure::new(exit::FAILED, text)
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(exit::FAILED, format!("cannot {what} {}: {error}", path.display()))
}

fn store(made: &Certified, certificate: &Path, key: &Path, replaces: bool) -> Result<(), Failure> {
    write(key, &made.key, KEY_MODE, replaces)?;
    write(certificate, &made.certificate, CERTIFICATE_MODE, replaces)
}

/// Writes a file that was not there, or puts it in the place of the one that was; whole or not at all.
fn write(path: &Path, text: &str, mode: u32, replaces: bool) -> Result<(), Failure> {
    let draft = with_ending(path, &format!(".{}", std::process::id()));
    let put = || {
        let mut file = File::options().write(true).create_new(true).mode(mode).open(&draft)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if replaces { fs::rename(&draft, path) } else { fs::hard_link(&draft, path) }
    };
    let written = put();
    let _ = fs::remove_file(&draft); // it has its name, or is of no use
    written.map_err(|error| {
        let is_occupied = error.kind() == ErrorKind::AlreadyExists;
        if is_occupied { occupied(path) } else { failed("write", path, &error) }
    })
}
