//! The question on the terminal: does somebody new get in?

use std::io::{self, IsTerminal as _, Write as _};

use cabo::server::Question;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};
use tokio::sync::mpsc;

use crate::show::human::escaped;

/// Asks whoever sits at the terminal.
pub(super) struct Asker(());

impl Asker {
    /// Somebody can be asked only where both the question and the answer are at a terminal.
    pub(super) fn if_possible(is_needless: bool) -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        (is_terminal && !is_needless).then_some(Self(()))
    }

    /// Asks one question after the other. What is not answered in time is dropped by the server.
    pub(super) async fn run(self, mut questions: mpsc::Receiver<Question>) {
        let mut lines: Option<Lines> = None;
        while let Some(question) = questions.recv().await {
            if question.answer.is_closed() {
                continue;
            }
            if !is_in_foreground() {
                // To read would stop the whole program; who wants in is told what to do.
                tracing::warn!(
                    fingerprint = %question.fingerprint,
                    "somebody wants in, and this is in the background: bring it to the foreground to be asked"
                );
                continue;
            }
            ask(question, lines.get_or_insert_with(Lines::new)).await;
        }
    }
}

async fn ask(question: Question, lines: &mut Lines) {
    let Question { fingerprint, agent, from, mut answer } = question;
    let name = escaped(agent.as_deref().unwrap_or("somebody"));
    let name: String = name.chars().take(80).collect();
    lines.forget();
    let _ = write!(anstream::stderr(), "{name} {fingerprint} (from {from}) wants in: y/N ");
    let line = tokio::select! {
        line = lines.next() => line,
        () = answer.closed() => {
            let _ = writeln!(anstream::stderr(), "\nnobody answered, so {fingerprint} was sent away");
            return;
        }
    };
    let Some(line) = line else {
        let _ = writeln!(anstream::stderr());
        return; // the end of stdin: dropped is "not known", and not "no"
    };
    let is_welcome = matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes");
    let _ = answer.send(is_welcome); // the peer may have gone meanwhile
}

fn is_in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Lines of stdin, read on a thread of their own: a read of a terminal cannot be taken back. It reads only for a question
/// that is shown, so nothing typed ahead answers a question that nobody has read.
struct Lines {
    wanted: std::sync::mpsc::Sender<()>,
    lines: mpsc::Receiver<String>,
    is_reading: bool,
}

impl Lines {
    fn new() -> Self {
        let (wanted, wishes) = std::sync::mpsc::channel();
        let (sender, lines) = mpsc::channel(1); // as many as are read at once
        std::thread::spawn(move || {
            while let Ok(()) = wishes.recv() {
                let mut line = String::new();
                let Ok(1..) = io::stdin().read_line(&mut line) else { return };
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Self { wanted, lines, is_reading: false }
    }

    /// Forgets what was typed so far.
    fn forget(&mut self) {
        let _ = tcflush(io::stdin(), QueueSelector::IFlush); // without a terminal there is nothing to forget
        while self.lines.try_recv().is_ok() {
            self.is_reading = false;
        }
    }

    /// The next line; none at the end of stdin.
    async fn next(&mut self) -> Option<String> {
        if !self.is_reading {
            self.wanted.send(()).ok()?;
            self.is_reading = true;
        }
        let line = self.lines.recv().await;
        self.is_reading = false;
        line
    }
}
