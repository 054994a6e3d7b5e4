//! `cabo keys certificate`: what a server or a client needs for `tls://`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
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
const PORT: u16 = 5006;

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
    /// Write FILE.pem and FILE.key; into a folder, where FILE is one
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long)]
    replace: bool,
}

impl Args {
    pub(super) fn run(self, globals: Globals) -> anyhow::Result<()> {
        let stem = self.stem()?;
        let (certificate, key) = (with_ending(&stem, ".pem"), with_ending(&stem, ".key"));
        self.spare_ca(&certificate, &key)?;
        if !self.replace {
            [&certificate, &key].into_iter().try_for_each(|path| must_be_new(path))?;
        }
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        let wrong =
            |error: cabo::keys::certificate::CertificateError| Failure::usage(error.to_string());
        let signer = self.ca.as_deref().map(authority).transpose()?;
        let made = match &signer {
            Some((ca, _)) => ca.sign(&names, self.days).map_err(wrong)?,
            None => self_signed(&names, self.days).map_err(wrong)?,
        };
        store(&made, &certificate, &key, self.replace)?;
        let ca = self.ca.as_deref().zip(signer.map(|(_, is_new)| is_new));
        self.tell(&certificate, &key, ca, globals)
    }

    /// Refuses to write a certificate over the CA that signs it.
    fn spare_ca(&self, certificate: &Path, key: &Path) -> Result<(), Failure> {
        let Some(ca) = &self.ca else { return Ok(()) };
        for of_ca in [".pem", ".key"].map(|ending| with_ending(ca, ending)) {
            if is_place_of(certificate, &of_ca) || is_place_of(key, &of_ca) {
                let text = format!(
                    "this would take the place of the CA that signs it ({}); -o names another file",
                    of_ca.display()
                );
                return Err(Failure::usage(text));
            }
        }
        Ok(())
    }

    /// What both files are named after: -o, or the first name, in a folder if -o is one.
    fn stem(&self) -> Result<PathBuf, Failure> {
        let first = self.names.first().map_or("", String::as_str).replace('*', "all");
        let Some(output) = &self.output else { return Ok(first.into()) };
        match fs::metadata(output) {
            Ok(meta) if meta.is_dir() => Ok(output.join(first)),
            Ok(meta) if !meta.is_file() => {
                let shown = output.display();
                let text = format!(
                    "-o {shown}: neither a file nor a folder; {shown}.pem and {shown}.key would be made"
                );
                Err(Failure::usage(text))
            }
            Ok(_) | Err(_) => Ok(output.clone()),
        }
    }

    fn tell(
        &self,
        certificate: &Path,
        key: &Path,
        ca: Option<(&Path, bool)>,
        globals: Globals,
    ) -> anyhow::Result<()> {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let new_ca = ca.and_then(|(ca, is_new)| is_new.then(|| with_ending(ca, ".key")));
        let ca = ca.map(|(ca, _)| with_ending(ca, ".pem"));
        if globals.json {
            let value = json!({
                "certificate": shown(certificate),
                "key": shown(key),
                "ca": ca.as_deref().map(shown),
                "ca_is_new": new_ca.is_some(),
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
        if let (Some(ca), Some(ca_key)) = (&ca, &new_ca) {
            writeln!(out, "{}  a new CA, to be trusted by who connects", shown(ca))?;
            writeln!(out, "{}  its key: who has it signs for any name", shown(ca_key))?;
        }
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
        let connect = url(host, &[("ca", ca.as_deref().unwrap_or(certificate))]);
        stderr::say(&format!("listen at   '{listen}'\nconnect to  '{connect}'"));
        Ok(())
    }
}

/// The CA in these files, and whether it is new: it is made where there are none.
fn authority(stem: &Path) -> Result<(Authority, bool), Failure> {
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
            let authority = Authority::from_pem(&certificate, &key);
            Ok((authority.map_err(|error| broken(&error))?, false))
        }
        (None, None) => {
            let authority = Authority::generate().map_err(|error| broken(&error))?;
            store(&authority.certified(), &certificate, &key, false)?;
            Ok((authority, true))
        }
        (Some(_), None) | (None, Some(_)) => {
            Err(broken(&"one of the two is missing; a CA is both, or neither, to be made"))
        }
    }
}

fn with_ending(stem: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(ending);
    name.into()
}

/// Whether a new file at `path` would take the place of `of_ca`, however both are spelled.
fn is_place_of(path: &Path, of_ca: &Path) -> bool {
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let is_file = match (fs::symlink_metadata(path), fs::metadata(of_ca)) {
        (Ok(there), Ok(ca)) => id(there) == id(ca),
        _ => false,
    };
    is_file || entry(path).is_some_and(|path| entry(of_ca) == Some(path))
}

/// The entry of a folder that a path leads to, be there a file or not; none where there is no such folder.
fn entry(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new(".")).canonicalize().ok()?;
    Some(folder.join(path.file_name()?))
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
