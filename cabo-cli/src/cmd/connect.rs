//! `cabo connect`: a conversation with a cabo peer or a program that knows nothing of cabo.

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use cabo::address::Address;
use tracing_subscriber::filter::LevelFilter;

use super::{Globals, block_on, interrupted, relay::amount};
use crate::exit::{self, Failure};
use crate::show::log::{LogArgs, SHOWN};
use crate::show::stderr;
use crate::talk::config::ConfigArgs;
use crate::talk::converse::{Script, is_datagrams};
use crate::talk::explain::ExplainArgs;
use crate::talk::manner::ConverseArgs;
use crate::talk::{self, DialectArgs, Way};

/// Talk with a foreign program or a cabo peer
///
/// What is typed is sent, what comes is shown. The end of stdin ends our half of the stream; the command ends when the
/// other side ends its own, over UDP when it has been silent for 1 s. Raw bytes go through as they are, other dialects
/// line by line. Our own address and port, the family, interface and TTL stand in the URL.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo connect tcp://host:5005
  printf 'hola\\n' | cabo connect tcp://host:5005
  cabo connect tcp://host --as chat                   line by line, until Ctrl-D, Ctrl+X or /sair
  cabo connect tcp://host --as tp0                    then type: MENSAJE text=hola
  cabo connect 'tls://host:5006?ca=ca.pem'            the server's certificate is signed by that CA
  cabo connect tcp://host:5005 --explain              each system call, and what it put on the wire
  cabo connect --as tp0 --config cliente.config       CLAVE, then all lines up to an empty one, as its own client
  cabo connect 'tcp://host:5005?from=10.0.0.2:4000'   from one of our addresses, from a port; ?ip=6 takes IPv6
  cabo connect tcp://host:5005 --exec 'sort -u'       a program in the place of stdin and stdout
  cabo connect tcp://host:5005 --record talk          then: cabo connect tcp://other:5005 --replay talk")]
pub(crate) struct Args {
    /// Whom to talk with: tcp://HOST:PORT, tls://HOST:PORT?ca=FILE, udp://HOST:PORT, unix:///PATH; a cabo peer also at
    /// eth://INTERFACE
    #[arg(value_name = "URL", required_unless_present = "config")]
    url: Option<String>,
    #[command(flatten)]
    dialect: DialectArgs,
    /// Give up connecting, and the first words of a dialect, after so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = amount::time)]
    timeout: Duration,
    /// Leave when neither side has said anything for so long; an error where stdin had more that was not taken
    #[arg(long, value_name = "TIME", value_parser = amount::time)]
    idle: Option<Duration>,
    #[command(flatten)]
    converse: ConverseArgs,
    #[command(flatten)]
    explain: ExplainArgs,
    #[command(flatten)]
    config: ConfigArgs,
    #[command(flatten)]
    log: LogArgs,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log_to(LevelFilter::WARN, &self.log)?;
        self.explain.begin(globals);
        let dialect = self.dialect.dialect()?;
        let configured = self.config.read(&dialect)?;
        let address: Address = match (&self.url, &configured) {
            (None, Some(configured)) => configured.server()?,
            (url, _) => url.as_deref().unwrap_or_default().parse().map_err(Failure::from)?,
        };
        let is_cabo = self.dialect.is_cabo(&address);
        let is_datagrams = is_datagrams(&address) && !is_cabo;
        let holding = self.converse.meant(&dialect, is_datagrams, self.idle, globals)?;
        let watching = holding.watching()?;
        let script = Script {
            opening: configured.as_ref().map(|file| file.opening()).transpose()?.flatten(),
            gathering: configured.and_then(|file| file.gathering()),
        };
        block_on(async move {
            let caught = interrupted()?; // above all, no program is to outlive us
            let talking = async {
                let watch = Some(watching.watch());
                let way = Way { is_cabo, within: self.timeout, watch };
                let client = talk::connect(&address, dialect, way, globals).await?;
                if !globals.quiet && (globals.verbose > 0 || std::io::stderr().is_terminal()) {
                    stderr::say(&format!("connected to {}; Ctrl-D ends", client.to()));
                }
                tracing::info!(target: SHOWN, "connected to {}", client.to());
                holding.hold(client, &watching, script).await
            };
            tokio::select! {
                held = talking => held?,
                () = caught => return Ok(ExitCode::from(exit::INTERRUPTED)),
            }
            Ok(ExitCode::from(exit::OK))
        })
    }
}
