//! `cabo send`: one message to a cabo peer or a program that knows nothing of cabo.

use std::ffi::OsString;
use std::io::Read as _;
use std::process::ExitCode;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::talk::ClientError;
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;

use super::{Globals, block_on};
use crate::exit::{self, Failure};
use crate::show::stderr;
use crate::talk::explain::ExplainArgs;
use crate::talk::view::View;
use crate::talk::{self, DialectArgs, Show, Way, failed};

/// How long a stream's answers are waited for, from the last one on.
const WAIT: Duration = Duration::from_secs(5);

/// Send one message to one of these, and show what it answers
///
/// The message is the words themselves, or `KIND name=value ..` where the dialect has fields; `-` is all of stdin.
/// Sizes and counters need not be given. After it the stream is ended from our side, and answers are shown until the
/// other side ends its own or is silent for the time to wait. Raw bytes go into a pipe as they are, and are text on a terminal.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  cabo send tcp://host:5005 'hola mundo'
  cabo send udp://host:5005 --wait 1s ping            UDP is waited for only if asked to
  cabo send 'udp://255.255.255.255:5005?if=eth0' ping everybody on a link; ?ttl=, ?loop= for groups
  cabo send tcp://host:5005 --as 'struct:!B:version L:order L:size {size}s:text' version=1 order=7 text=ola
  cabo send tcp://host --as tp0 PAQUETE values=hola values=mundo
  cabo send tcp://host:5005 --as length:!L - < file
  cabo send udp://host --as cabo 'bom dia'            sealed, to `cabo listen` on the other side
  cabo send eth://enp3s0 'bom dia'                    the same on a cable without addresses")]
pub(crate) struct Args {
    /// Whom to send it to: tcp://HOST:PORT, tls://HOST:PORT?ca=FILE, udp://HOST:PORT, unix:///PATH; a cabo peer also at
    /// eth://INTERFACE
    #[arg(value_name = "URL")]
    url: String,
    #[command(flatten)]
    dialect: DialectArgs,
    #[command(flatten)]
    explain: ExplainArgs,
    /// How answers are shown: raw bytes, text with escapes, or hexadecimal
    #[arg(long, value_name = "HOW")]
    show: Option<Show>,
    /// How long to wait for answers: 5 s over streams and not at all over UDP, unless given. Where none comes, stderr says
    /// so
    #[arg(long, value_name = "TIME", value_parser = super::relay::amount::time)]
    wait: Option<Duration>,
    /// Give up connecting after so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::relay::amount::time)]
    timeout: Duration,
    /// The message
    #[arg(value_name = "MESSAGE")]
    message: Vec<OsString>,
}

impl Args {
    pub(crate) fn run(self, globals: Globals) -> anyhow::Result<ExitCode> {
        globals.log(LevelFilter::WARN);
        self.explain.begin(globals);
        let dialect = self.dialect.dialect()?;
        let address: Address = self.url.parse().map_err(Failure::from)?;
        let words = match self.message.as_slice() {
            [only] if only == "-" && dialect.kinds.is_empty() => {
                let mut all = Vec::new();
                std::io::stdin()
                    .lock()
                    .take(dialect.limit_bytes as u64 + 1)
                    .read_to_end(&mut all)?;
                vec![all]
            }
            words => talk::bytes_of(words),
        };
        let typed = talk::typed(&dialect, &words)?;
        let is_cabo = self.dialect.is_cabo(&address);
        let is_datagram = matches!(address.place, Place::Udp(_)) && !is_cabo;
        let view = View::new(&dialect, is_datagram, self.show, globals)?;
        let wait = self.wait.unwrap_or(if is_datagram { Duration::ZERO } else { WAIT });
        block_on(async move {
            let way = Way { is_cabo, within: self.timeout, watch: None };
            let mut client = talk::connect(&address, dialect, way, globals).await?;
            client
                .sender
                .send_fields(typed.kind.as_deref(), &typed.fields)
                .await
                .map_err(failed)?;
            client.sender.finish().await.map_err(ClientError::from).map_err(failed)?;
            let (mut is_silent, mut is_over) = (true, is_datagram && wait.is_zero());
            while !is_over {
                match timeout(wait, client.receiver.next()).await {
                    Ok(answer) => match answer.map_err(failed)? {
                        Some(answer) => {
                            is_silent = false;
                            view.message(&answer, client.receiver.from())?;
                        }
                        None => is_over = true,
                    },
                    Err(_) => {
                        is_over = true;
                        if is_silent && self.wait.is_some() && !globals.quiet {
                            stderr::say(&format!("no answer within {wait:?}"));
                        }
                    }
                }
            }
            if is_cabo {
                client.close().await; // what was sent is with it
            }
            Ok(ExitCode::from(exit::OK))
        })
    }
}
