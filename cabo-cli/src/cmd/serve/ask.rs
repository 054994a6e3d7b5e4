//! The question on the terminal: does somebody new get in?

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use cabo::access::Refusal;
use cabo::server::Question;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};
use tokio::sync::mpsc;

use super::PROGRAM;
use crate::show::human::escaped;
use crate::show::stderr;

/// Letters of a name that are shown.
const NAME_MAX: usize = 40;

/// Asks whoever sits at the terminal.
pub(super) struct Asker {
    allow: Option<PathBuf>,
}

impl Asker {
    /// Somebody can be asked only where both the question and the answer are at a terminal. `allow` is the file of those
    /// who get in without a question.
    pub(super) fn if_possible(is_needless: bool, allow: Option<PathBuf>) -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        (is_terminal && !is_needless).then_some(Self { allow })
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
            self.ask(question, lines.get_or_insert_with(Lines::new)).await;
        }
    }

    async fn ask(&self, question: Question, lines: &mut Lines) {
        let Question { fingerprint, agent, from, mut answer } = question;
        let name = escaped(agent.as_deref().unwrap_or("somebody"));
        let name: String = name.chars().take(NAME_MAX).collect();
        stderr::say(&format!("{name} {fingerprint} (from {from}) wants in"));
        let prompt = format!("let {name} {} in? y/n ", fingerprint.short());
        let is_welcome = loop {
            lines.forget();
            stderr::ask(&prompt);
            let line = tokio::select! {
                line = lines.next() => line,
                () = answer.closed() => {
                    stderr::withdraw();
                    stderr::say(&format!("{name} {} left, or nobody answered in time", fingerprint.short()));
                    return;
                }
            };
            stderr::answered();
            match line.as_deref().map(|line| line.trim().to_ascii_lowercase()).as_deref() {
                Some("y" | "yes") => break true,
                Some("n" | "no") => break false,
                Some(_) => {}
                None => {
                    stderr::say("");
                    return; // the end of stdin: dropped is "not known", and not "no"
                }
            }
        };
        if answer.send(is_welcome).is_err() {
            return stderr::say(&format!("{name} {} has left meanwhile", fingerprint.short()));
        }
        let remedy = Refusal::Unknown(fingerprint).remedy(PROGRAM, self.allow.as_deref());
        stderr::say(&match is_welcome {
            true => format!("let in until this server ends; for good: {remedy}"),
            false => "sent away until this server ends".to_owned(),
        });
    }
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
