//! What a service manager is told that started the server (`sd_notify(3)`), where there is one.

use std::path::Path;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Interval, MissedTickBehavior};

/// A manager that wants to hear more often than this hears as often as this.
const BEAT_MIN: Duration = Duration::from_millis(1);

pub(super) struct Manager {
    is_there: bool,
    beat: Option<Interval>,
}

impl Manager {
    /// The manager that the environment names, if it names one. It hears from the watched server twice in the time after
    /// which it would restart it.
    pub(super) fn from_environment() -> Self {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        let within = sd_notify::watchdog_enabled().filter(|within| is_there && !within.is_zero());
        let beat = within.map(|within| {
            let mut beat = tokio::time::interval((within / 2).max(BEAT_MIN));
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            beat
        });
        Self { is_there, beat }
    }

    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    pub(super) fn ready(&self, what: &Path) {
        let status = format!("serving {}", what.display()).escape_debug().to_string();
        self.tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!(%error, "no time to tell the service manager"),
        }
    }

    pub(super) fn stopping(&self, sessions: usize) {
        let status =
            format!("going down when transfers under way have ended; sessions: {sessions}");
        self.tell(&[NotifyState::Stopping, NotifyState::Status(&status)]);
    }

    /// Says that the server is alive when that is due, for ever; never, where nobody watches it. Whoever awaits it is what
    /// has to be alive.
    pub(super) async fn beat(&mut self) {
        match &mut self.beat {
            Some(beat) => {
                beat.tick().await;
                self.tell(&[NotifyState::Watchdog]);
            }
            None => std::future::pending().await,
        }
    }

    /// A manager that cannot be told will notice on its own; the server goes on.
    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(states) {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }
}
