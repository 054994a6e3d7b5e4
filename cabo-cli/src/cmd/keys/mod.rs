//! `cabo keys`: who we are, and which servers we know again.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

use cabo::address::Address;
use cabo::config::ConfigDir;
use cabo::keys::known::Known;
use cabo::keys::{Fingerprint, Identity};
use serde_json::json;
use tracing_subscriber::filter::LevelFilter;

use super::Globals;
use crate::exit::{self, Failure};
use crate::show::json;
use crate::show::table::{self, Align, Cell};
use crate::show::{stderr, stdout};

mod certificate;

/// Show the own identity and known servers; make certificates
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo keys                                  who I am; the line for another's --allow file
  cabo keys list                             the servers met so far
  cabo keys forget tcp://host:5555           after that server was set up anew
  cabo keys certificate host.lan --ca ca     host.lan.pem and host.lan.key for tls://, signed by a CA of one's own")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// The own fingerprint, and where the key is
    Show,
    /// The servers met so far
    List,
    /// Forget a server, so that it may have another key
    Forget {
        /// Its address, as `cabo keys list` shows it
        #[arg(value_name = "ADDRESS")]
        address: OsString,
    },
    Certificate(certificate::Args),
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        match self.what.unwrap_or(What::Show) {
            What::Show => show(&ConfigDir::of_user()?, globals)?,
            What::List => list(ConfigDir::of_user()?, globals)?,
            What::Forget { address } => {
                forget(ConfigDir::of_user()?, address.as_bytes(), globals)?;
            }
            What::Certificate(args) => args.run(globals)?,
        }
        Ok(ExitCode::from(exit::OK))
    }
}

fn show(dir: &ConfigDir, globals: Globals) -> anyhow::Result<()> {
    let fingerprint = Identity::load_or_create(dir)?.fingerprint();
    let path = dir.path().join("identity.key");
    if globals.json {
        let value = json!({"fingerprint": fingerprint.to_string(), "path": path.to_string_lossy()});
        return Ok(json::line(&value)?);
    }
    let mut out = stdout::styled();
    if globals.quiet {
        return Ok(writeln!(out, "{fingerprint}")?);
    }
    writeln!(out, "{fingerprint}  {}", crate::session::agent())?;
    stderr::say(&format!(
        "This line in a file lets you in where `cabo serve` or `cabo listen` runs with --allow FILE. The key is in {}.",
        path.display()
    ));
    Ok(())
}

fn list(dir: ConfigDir, globals: Globals) -> anyhow::Result<()> {
    let known = Known::new(dir).list()?;
    if globals.json {
        for (address, key) in known {
            let fingerprint = Fingerprint::of(key).to_string();
            json::line(&json!({"address": address, "fingerprint": fingerprint}))?;
        }
        return Ok(());
    }
    let rows: Vec<_> = known
        .into_iter()
        .map(|(address, key)| vec![Cell::new(Fingerprint::of(key).to_string()), Cell::new(address)])
        .collect();
    if rows.is_empty() {
        stderr::say("no server was met so far");
        return Ok(());
    }
    let head = [("fingerprint", Align::Left), ("server", Align::Left)];
    Ok(table::write(&mut stdout::styled(), &head, &rows)?)
}

fn forget(dir: ConfigDir, address: &[u8], globals: Globals) -> anyhow::Result<()> {
    let parsed = Address::parse(address).map_err(|error| Failure::usage(error.to_string()))?;
    let words = parsed.server_words().ok_or_else(|| {
        Failure::usage(format!(
            "{parsed} names a link and no server; `cabo keys list` shows the addresses that are known"
        ))
    })?;
    if !Known::new(dir).forget(&words)? {
        let text = format!("{words} is not known; `cabo keys list` shows what is");
        return Err(Failure::new(exit::FAILED, text).into());
    }
    if !globals.quiet {
        stderr::say(&format!("forgot {words}"));
    }
    Ok(())
}
