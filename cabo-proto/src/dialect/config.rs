//! The settings file of a foreign program (D-6): `KEY=value` lines, and what a client of the dialect does with them.
//!
//! Neighbours: `file` reads [`Config`] from a dialect file; the program that speaks the dialect does what it says.

use std::collections::BTreeMap;

/// Bytes of a settings file.
pub const SETTINGS_MAX: usize = 64 * 1024;

/// What the keys of a settings file mean to programs of a dialect.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// The key of the server's host.
    pub host: Option<String>,
    /// The key of its port.
    pub port: Option<String>,
    /// What a client says first, as it would be typed, with `{KEY}` for a setting.
    pub opens: Option<String>,
    /// The kind and the field that take all lines up to an empty one, as one message.
    pub gathers: Option<(String, String)>,
}

/// The settings of a file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings(BTreeMap<String, String>);

/// What is wrong with a settings file.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SettingsError {
    /// Too large to be one.
    #[error("a settings file has at most {SETTINGS_MAX} bytes")]
    TooLong,
    /// A line that is none.
    #[error("line {line}: {text:?} is not KEY=value")]
    NoSetting {
        /// From 1.
        line: usize,
        /// As it stands.
        text: String,
    },
    /// A key that stands twice.
    #[error("line {line}: {key} stands in line {before} already")]
    Twice {
        /// From 1.
        line: usize,
        /// The first.
        before: usize,
        /// The key.
        key: String,
    },
}

/// A setting that is asked for and not there.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key} is not set")]
pub struct Missing {
    /// Its key.
    pub key: String,
}

impl Settings {
    /// Reads `KEY=value` lines. Empty lines and lines that begin with `#` are passed over; blanks around both parts do
    /// not count.
    pub fn read(text: &str) -> Result<Self, SettingsError> {
        if text.len() > SETTINGS_MAX {
            return Err(SettingsError::TooLong);
        }
        let mut lines = BTreeMap::<&str, usize>::new();
        let mut settings = BTreeMap::new();
        for (line, text) in (1..).zip(text.lines()) {
            let text = text.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (key, value) = match text.split_once('=') {
                Some((key, value)) if !key.trim().is_empty() => (key.trim(), value.trim()),
                _ => return Err(SettingsError::NoSetting { line, text: text.to_owned() }),
            };
            if let Some(before) = lines.insert(key, line) {
                return Err(SettingsError::Twice { line, before, key: key.to_owned() });
            }
            settings.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(settings))
    }

    /// A setting.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// `text` with settings in the place of `{KEY}`. A brace that is never closed stands for itself.
    pub fn fill(&self, text: &str) -> Result<String, Missing> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, key, after)) = split_at_key(rest) {
            let value = self.get(key).ok_or_else(|| Missing { key: key.to_owned() })?;
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }
}

/// The text before the first `{KEY}`, the key, and the text after it.
fn split_at_key(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once('{')?;
    let (key, after) = rest.split_once('}')?;
    Some((before, key, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_lines_of_key_and_value() {
        let settings = Settings::read("# mine\nIP=127.0.0.1\n\n PUERTO = 4444 \r\nCLAVE=a = b\n");
        let settings = settings.unwrap();
        assert_eq!(settings.get("IP"), Some("127.0.0.1"));
        assert_eq!(settings.get("PUERTO"), Some("4444"));
        assert_eq!(settings.get("CLAVE"), Some("a = b"));
        assert_eq!(settings.get("OTRA"), None);
    }

    #[test]
    fn what_is_no_setting_is_named_with_its_line() {
        let error = |text: &str| Settings::read(text).unwrap_err().to_string();
        assert_eq!(error("IP=1\nhola\n"), "line 2: \"hola\" is not KEY=value");
        assert_eq!(error("=1\n"), "line 1: \"=1\" is not KEY=value");
        assert_eq!(error("IP=1\n\nIP=2\n"), "line 3: IP stands in line 1 already");
        assert_eq!(error(&"x".repeat(SETTINGS_MAX + 1)), "a settings file has at most 65536 bytes");
    }

    #[test]
    fn keys_in_braces_are_filled_in() {
        let settings = Settings::read("CLAVE=valor{x}\nN=1").unwrap();
        assert_eq!(settings.fill("text={CLAVE}-{N}{").unwrap(), "text=valor{x}-1{");
        assert_eq!(settings.fill("{OTRA}").unwrap_err().to_string(), "OTRA is not set");
    }
}
