//! `cabo send`: one message to a cabo peer or a program that knows nothing of cabo.

use std::ffi::OsString;
use std::io::Read as _;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use cabo::address::{Address, Place};
use cabo::proto::dialect::Dialect;
use cabo::talk::ClientError;
use cabo::talk::client::{Receiver, Sender};
use tokio::time::sleep;
use tracing_subscriber::filter::LevelFilter;

use super::{Globals, block_on, interrupted};
use crate::exit::{self, Failure};
use crate::show::stderr;
use crate::talk::explain::ExplainArgs;
use crate::talk::headway::while_taken;
use crate::talk::view::View;
use crate::talk::{self, DialectArgs, Show, Typed, Way, failed};

/// How long a stream's answers are waited for, from the last one on.
const WAIT: Duration = Duration::from_secs(5);

/// Send one message to one of these, and show what it answers
///
/// The message is the words themselves, or `KIND name=value ..` where the dialect has fields; `-` is all of stdin.
/// Sizes and counters need not be given. After it the stream is ended from our side, and answers are shown until the
/// other side ends its own or is silent for the time to wait; one that never is goes on until Ctrl-C. Raw bytes go into a
/// pipe as they are, and are text on a terminal.
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
    /// How long to wait for answers, from the last one on: 5 s over streams and not at all over UDP, unless given. Where
    /// none comes, stderr says so
    #[arg(long, value_name = "TIME", value_parser = super::relay::amount::time)]
    wait: Option<Duration>,
    /// Give up connecting after so long, and sending where nothing at all is taken for so long
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
        if is_datagram && words.is_empty() && dialect.kinds.is_empty() {
            return Err(Failure::usage("there is no MESSAGE; '' is an empty one").into());
        }
        if !is_cabo {
            typed.check(&dialect)?; // before anybody is called for a message that cannot be sent
        }
        let view = View::new(&dialect, is_datagram, self.show, globals)?;
        let wait = self.wait.unwrap_or(if is_datagram { Duration::ZERO } else { WAIT });
        let sending = Sending {
            address,
            dialect,
            typed,
            is_cabo,
            within: self.timeout,
            is_awaited: !(is_datagram && wait.is_zero()),
            wait,
            is_asked: self.wait.is_some(),
            view,
            globals,
        };
        block_on(async move {
            let caught = interrupted()?;
            tokio::select! {
                sent = sending.run() => sent?,
                () = caught => return Ok(ExitCode::from(exit::INTERRUPTED)),
            }
            Ok(ExitCode::from(exit::OK))
        })
    }
}

/// What was meant.
struct Sending {
    address: Address,
    dialect: Arc<Dialect>,
    typed: Typed,
    is_cabo: bool,
    /// To connect, and to send the next byte.
    within: Duration,
    is_awaited: bool,
    wait: Duration,
    /// Somebody said how long to wait, and wants to know where nothing came.
    is_asked: bool,
    view: View,
    globals: Globals,
}

impl Sending {
    async fn run(self) -> anyhow::Result<()> {
        let way = Way { is_cabo: self.is_cabo, within: self.within, watch: None };
        let client = talk::connect(&self.address, self.dialect.clone(), way, self.globals).await?;
        let (mut receiver, mut sender) = client.split();
        self.converse(&mut receiver, &mut sender).await?;
        if self.is_cabo {
            drop(receiver);
            sender.close().await.map_err(failed)?; // what was sent is with it
        }
        Ok(())
    }

    /// Says all, and shows meanwhile and after it what is answered: who is not heard may stop listening.
    async fn converse(&self, receiver: &mut Receiver, sender: &mut Sender) -> anyhow::Result<()> {
        let progress = sender.progress();
        let saying = async {
            sender.send_fields(self.typed.kind.as_deref(), &self.typed.fields).await?;
            sender.flush().await?;
            Ok::<(), ClientError>(sender.finish().await?)
        };
        let mut saying = pin!(while_taken(saying, &progress, self.within));
        let (mut is_said, mut is_ended, mut is_silent) = (false, false, true);
        while !is_said || (self.is_awaited && !is_ended) {
            tokio::select! {
                biased; // over UDP nothing is awaited, unless somebody asks for it
                said = &mut saying, if !is_said => {
                    said?.map_err(failed)?;
                    is_said = true;
                }
                answer = receiver.next(), if !is_ended => match answer.map_err(failed)? {
                    Some(answer) => {
                        is_silent = false;
                        self.view.message(&answer, receiver.from())?;
                    }
                    None => is_ended = true,
                },
                () = sleep(self.wait), if is_said => {
                    if is_silent && self.is_asked && !self.globals.quiet {
                        stderr::say(&format!("no answer within {:?}", self.wait));
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
