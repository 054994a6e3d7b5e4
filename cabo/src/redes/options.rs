//! What stands behind the question mark of a `redes://` address.

use cabo_proto::redes::frame::{Coverage, Form, Layout};
use cabo_proto::redes::{Sequence, Settings, WINDOW_MAX};

use crate::address::{Problem, Query};

const KEYS: [&str; 6] = ["layout", "crc", "sequence", "window", "cut", "header"];

/// How to talk on a link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options {
    /// Frames and their order.
    pub settings: Settings,
    /// Whether frames have an Ethernet header.
    pub has_header: bool,
}

/// A parameter that cannot be meant.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum OptionError {
    /// There is no such parameter.
    #[error("{0}")]
    Key(#[from] Problem),
    /// There is no such value.
    #[error("{key}={value} means nothing here; write {key}={known}")]
    Value {
        /// The parameter.
        key: &'static str,
        /// What stands there, escaped.
        value: String,
        /// What may stand there.
        known: &'static str,
    },
}

impl Options {
    /// Reads the parameters of an address; what is not said is as the programs of layout c69 have it.
    pub fn of(query: &Query) -> Result<Self, OptionError> {
        query.check(&KEYS)?;
        let layouts = [
            ("c69", Layout::C69),
            ("c68", Layout::C68),
            ("lsb", Layout::Lsb),
            ("msb", Layout::Msb),
        ];
        let layout = word(query, "layout", "c69, c68, lsb or msb", &layouts)?;
        let mut form = Form::of(layout.unwrap_or_default());
        let coverages =
            [("data", Coverage::Data), ("header", Coverage::Header), ("frame", Coverage::Frame)];
        if let Some(coverage) = word(query, "crc", "data, header or frame", &coverages)? {
            form.coverage = coverage;
        }
        let sequences = [
            ("rss", Sequence::Rss),
            ("streaming", Sequence::Streaming),
            ("wired", Sequence::Wired),
        ];
        let sequence = word(query, "sequence", "rss, streaming or wired", &sequences)?;
        let mut settings =
            Settings { form, sequence: sequence.unwrap_or_default(), ..Settings::default() };
        if let Some(text) = query.get("window") {
            let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
            settings.window =
                number.filter(|number| (1..=WINDOW_MAX).contains(number)).ok_or_else(|| {
                    OptionError::Value { key: "window", value: shown(text), known: "1 to 15" }
                })?;
        }
        let switch = [("on", true), ("off", false)];
        let known = "on or off";
        let has_header = word(query, "header", known, &switch)?.unwrap_or(false);
        // Behind a header, data stands where no tag is looked for.
        settings.is_cut = word(query, "cut", known, &switch)?.unwrap_or(!has_header);
        Ok(Self { settings, has_header })
    }
}

fn word<T: Copy>(
    query: &Query,
    key: &'static str,
    known: &'static str,
    words: &[(&str, T)],
) -> Result<Option<T>, OptionError> {
    let Some(text) = query.get(key) else { return Ok(None) };
    match words.iter().find(|(word, _)| word.as_bytes() == text) {
        Some((_, value)) => Ok(Some(*value)),
        None => Err(OptionError::Value { key, value: shown(text), known }),
    }
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).escape_debug().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn options(query: &str) -> Result<Options, OptionError> {
        Options::of(&format!("redes://veth0?{query}").parse::<Address>().expect("an address").query)
    }

    #[test]
    fn every_word_is_known_and_what_is_not_said_is_as_the_programs_have_it() {
        assert_eq!(options(""), Ok(Options::default()));
        let all = options("layout=msb&crc=frame&sequence=streaming&window=1&cut=off&header=on");
        let settings = Settings {
            form: Form { layout: Layout::Msb, coverage: Coverage::Frame },
            sequence: Sequence::Streaming,
            window: 1,
            is_cut: false,
        };
        assert_eq!(all, Ok(Options { settings, has_header: true }));
        assert_eq!(options("layout=lsb").map(|o| o.settings.form.coverage), Ok(Coverage::Header));
    }

    #[test]
    fn what_means_nothing_is_named_with_what_would() {
        let said = |query| options(query).expect_err("bad").to_string();
        let layout = "layout=c70 means nothing here; write layout=c69, c68, lsb or msb";
        assert_eq!(said("layout=c70"), layout);
        for window in ["window=0", "window=16", "window=x", "window=-1", "window="] {
            assert!(said(window).ends_with("write window=1 to 15"), "{}", said(window));
        }
        assert!(said("speed=9").contains("known are: layout, crc"), "{}", said("speed=9"));
    }
}
