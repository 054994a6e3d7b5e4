//! Players of this machine: found, and started with an address as one argument, never through a shell.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use tokio::process::{Child, Command};

use crate::exit::{self, Failure};

/// Players in the order of preference, with what makes them end with the film and keep quiet.
const PLAYERS: &[(&str, &[&str])] = &[
    ("mpv", &["--"]),
    ("vlc", &["--play-and-exit"]),
    ("cvlc", &["--play-and-exit"]),
    ("ffplay", &["-loglevel", "warning", "-autoexit"]),
];

/// A program with its first arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Player {
    /// What people call it: as they typed it, or its program.
    name: String,
    words: Vec<OsString>,
    /// It gives the address to another program and ends at once.
    pub(super) hands_on: bool,
}

impl Player {
    /// A command as it was typed, parted at spaces.
    pub(super) fn from_words(command: &OsStr) -> Result<Self, Failure> {
        let words = command.as_bytes().split(u8::is_ascii_whitespace);
        let words = words.filter(|word| !word.is_empty());
        let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
        match words.is_empty() {
            true => Err(Failure::usage("--player needs the name of a program")),
            false => {
                let name = words.join(OsStr::new(" ")).to_string_lossy().into_owned();
                Ok(Self { name, words, hands_on: false })
            }
        }
    }

    /// What is here for this media type: players for films and sounds, else the browser.
    pub(super) fn find(media_type: &str) -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let browsers = std::env::var_os("BROWSER");
        let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| is_set(name));
        choose(media_type, &path, browsers.as_deref(), has_screen)
    }

    /// The browser.
    pub(super) fn browser() -> Option<Self> {
        Self::find("text/html")
    }

    /// Starts it; it ends with us.
    pub(super) fn start(&self, url: &str, is_silent: bool) -> Result<Child, Failure> {
        let (program, first) =
            self.words.split_first().ok_or_else(|| Failure::usage("no player"))?;
        let mut command = Command::new(program);
        command.args(first).arg(url).kill_on_drop(true);
        if is_silent {
            command.stdout(Stdio::null()); // which is for our own lines
        }
        command.spawn().map_err(|error| {
            Failure::new(exit::FAILED, format!("cannot start the player {self}: {error}"))
        })
    }
}

impl fmt::Display for Player {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|value| !value.is_empty())
}

fn choose(
    media_type: &str,
    path: &OsStr,
    browsers: Option<&OsStr>,
    has_screen: bool,
) -> Option<Player> {
    let is_here = |name: &OsStr| std::env::split_paths(path).any(|dir| is_program(&dir.join(name)));
    if media_type.starts_with("video/") || media_type.starts_with("audio/") {
        let found = PLAYERS.iter().find(|(name, _)| {
            is_here(OsStr::new(name)) && (has_screen || *name != "ffplay") // it needs a window even for sound
        });
        if let Some((name, first)) = found {
            let shown = (*name).to_owned();
            let words = [name].into_iter().chain(*first).map(OsString::from).collect();
            return Some(Player { name: shown, words, hands_on: false });
        }
    }
    // A text browser of the terminal is meant where it is named; who starts windows needs a screen.
    let browsers = browsers.unwrap_or_default().as_bytes().split(|byte| *byte == b':');
    let named = browsers.map(OsStr::from_bytes).find(|name| {
        !name.is_empty()
            && (is_here(name) || (name.as_bytes().contains(&b'/') && is_program(Path::new(name))))
    });
    let found = named.or_else(|| {
        let opener = OsStr::new("xdg-open");
        (has_screen && is_here(opener)).then_some(opener)
    });
    found.map(|name| Player {
        name: name.to_string_lossy().into_owned(),
        words: vec![name.to_owned()],
        hands_on: true,
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(programs: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in programs {
            let path = dir.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        std::fs::write(dir.path().join("mpv.txt"), "").unwrap();
        dir
    }

    #[test]
    fn the_best_player_that_is_here_is_chosen() {
        type Case = (
            &'static [&'static str],
            &'static str,
            Option<&'static str>,
            bool,
            Option<&'static str>,
        );
        let cases: [Case; 9] = [
            (&["mpv", "vlc", "ffplay", "xdg-open"], "video/mp4", None, true, Some("mpv")),
            (&["vlc", "ffplay"], "video/mp4", None, true, Some("vlc")),
            (&["ffplay"], "audio/flac", None, true, Some("ffplay")),
            (&["ffplay"], "video/mp4", None, false, None),
            (&["mpv", "xdg-open"], "image/png", None, true, Some("xdg-open")),
            (&["mpv", "xdg-open"], "image/png", None, false, None),
            (&["w3m", "xdg-open"], "text/html", Some("absent:w3m"), false, Some("w3m")),
            (&[], "video/mp4", Some("firefox"), true, None),
            (&["mpv.txt"], "video/mp4", None, true, None),
        ];
        for (programs, media_type, browsers, has_screen, expected) in cases {
            let dir = machine(programs);
            let browsers = browsers.map(OsStr::new);
            let player = choose(media_type, dir.path().as_os_str(), browsers, has_screen);
            let name = player.as_ref().map(ToString::to_string);
            assert_eq!(name.as_deref(), expected, "{programs:?} {media_type}");
        }
    }

    #[test]
    fn a_typed_player_is_words_and_no_shell() {
        let player = Player::from_words(OsStr::new(" mpv  --fs $(touch x) ")).unwrap();
        let words = ["mpv", "--fs", "$(touch", "x)"];
        assert_eq!(player.words, words.map(OsString::from));
        assert!(Player::from_words(OsStr::new("  ")).is_err());
    }
}
