//! The question on the terminal: does somebody new get in?
//!
//! `serve` and `listen` ask it. Where others read stdin too, as the operator of `listen`, a [`Keyboard`] says whose a line is.

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cabo::access::Refusal;
use cabo::server::Question;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};
use tokio::sync::{mpsc, oneshot};

use super::human::escaped;
use super::stderr;

/// Letters of a name that are shown.
const NAME_MAX: usize = 40;

/// Asks whoever sits at the terminal.
pub(crate) struct Asker {
    /// What was typed to run it, in commands that let somebody in.
    program: &'static str,
    allow: Option<PathBuf>,
    keyboard: Option<Arc<Keyboard>>,
}

impl Asker {
    /// Somebody can be asked only where both the question and the answer are at a terminal. `allow` is the file of those
    /// who get in without a question.
    pub(crate) fn if_possible(
        program: &'static str,
        is_needless: bool,
        allow: Option<PathBuf>,
    ) -> Option<Self> {
        let is_terminal = io::stdin().is_terminal() && io::stderr().is_terminal();
        (is_terminal && !is_needless).then_some(Self { program, allow, keyboard: None })
    }

    /// The same where somebody else reads stdin.
    pub(crate) fn sharing(self, keyboard: Arc<Keyboard>) -> Self {
        Self { keyboard: Some(keyboard), ..self }
    }

    /// Asks one question after the other. What is not answered in time is dropped by the server.
    pub(crate) async fn run(self, mut questions: mpsc::Receiver<Question>) {
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
            let of_keyboard = || Lines::of(self.keyboard.clone());
            self.ask(question, lines.get_or_insert_with(of_keyboard)).await;
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
                Some(other) => {
                    if !other.is_empty() && self.keyboard.is_some() {
                        stderr::say(
                            "not sent: the question wants y or n; @1 and a text goes to client 1",
                        );
                    }
                }
                None => {
                    stderr::say("");
                    return; // the end of stdin: dropped is "not known", and not "no"
                }
            }
        };
        if answer.send(is_welcome).is_err() {
            return stderr::say(&format!("{name} {} has left meanwhile", fingerprint.short()));
        }
        let remedy = Refusal::Unknown(fingerprint).remedy(self.program, self.allow.as_deref());
        stderr::say(&match is_welcome {
            true => format!("let in until this server ends; for good: {remedy}"),
            false => "sent away until this server ends".to_owned(),
        });
    }
}

fn is_in_foreground() -> bool {
    tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp())
}

/// Lines of a stdin that somebody else reads: his, but for those that answer a question.
#[derive(Default)]
pub(crate) struct Keyboard {
    state: Mutex<Wanted>,
}

#[derive(Default)]
struct Wanted {
    by: Option<oneshot::Sender<String>>,
    is_over: bool,
}

impl Keyboard {
    /// Gives a line to whoever asks; gives it back where nobody does, and one that says for whom it is.
    pub(crate) fn answer(&self, line: Vec<u8>) -> Option<Vec<u8>> {
        let Some(asking) = self.lock().by.take() else { return Some(line) };
        if line.starts_with(b"@") {
            let _ = asking.send(String::new()); // asks again, if it still does
            return Some(line);
        }
        let answer = String::from_utf8_lossy(&line).into_owned();
        asking.send(answer).is_err().then_some(line)
    }

    /// No more lines come.
    pub(crate) fn end(&self) {
        *self.lock() = Wanted { by: None, is_over: true };
    }

    /// The next line from now on; none at the end.
    async fn next(&self) -> Option<String> {
        let (by, line) = oneshot::channel();
        {
            let mut wanted = self.lock();
            if wanted.is_over {
                return None;
            }
            wanted.by = Some(by);
        }
        line.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where answers come from.
enum Lines {
    Own(OwnLines),
    Shared(Arc<Keyboard>),
}

impl Lines {
    fn of(keyboard: Option<Arc<Keyboard>>) -> Self {
        keyboard.map_or_else(|| Self::Own(OwnLines::new()), Self::Shared)
    }

    /// Forgets what was typed so far.
    fn forget(&mut self) {
        let _ = tcflush(io::stdin(), QueueSelector::IFlush); // without a terminal there is nothing to forget
        if let Self::Own(own) = self {
            own.forget();
        }
    }

    /// The next line; none at the end of stdin.
    async fn next(&mut self) -> Option<String> {
        match self {
            Self::Own(own) => own.next().await,
            Self::Shared(keyboard) => keyboard.next().await,
        }
    }
}

/// Lines of stdin, read on a thread of their own: a read of a terminal cannot be taken back. It reads only for a question
/// that is shown, so nothing typed ahead answers a question that nobody has read.
struct OwnLines {
    wanted: std::sync::mpsc::Sender<()>,
    lines: mpsc::Receiver<String>,
    is_reading: bool,
}

impl OwnLines {
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

    fn forget(&mut self) {
        while self.lines.try_recv().is_ok() {
            self.is_reading = false;
        }
    }

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
