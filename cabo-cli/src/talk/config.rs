//! `--config FILE`: the settings file of foreign programs, where their dialect says what its keys mean (D-6).

use std::path::{Path, PathBuf};

use cabo::address::Address;
use cabo::proto::dialect::Dialect;
use cabo::proto::dialect::assign::assign;
use cabo::proto::dialect::config::{Config, Settings};
use cabo::proto::dialect::value::Fields;

use super::{Typed, read_text, typed, words};
use crate::exit::Failure;
use crate::show::human::escaped;

/// Where a server is, for those programs, if the file does not say.
const HERE: &str = "127.0.0.1";

/// Which settings file.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ConfigArgs {
    /// A file of KEY=value lines that programs of the dialect have; tp0 knows IP, PUERTO and CLAVE
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What a settings file says.
pub(crate) struct Configured<'d> {
    file: String,
    settings: Settings,
    meaning: &'d Config,
    dialect: &'d Dialect,
}

impl ConfigArgs {
    /// Reads the file, if one was given.
    pub(crate) fn read<'d>(&self, dialect: &'d Dialect) -> Result<Option<Configured<'d>>, Failure> {
        let Some(file) = &self.config else { return Ok(None) };
        let shown = format!("--config {}", escaped(&file.display().to_string()));
        let wrong = |problem: String| Failure::usage(format!("{shown}: {}", escaped(&problem)));
        let meaning = dialect.config.as_ref().ok_or_else(|| {
            let problem = "its dialect has no [config] that says what the keys mean";
            wrong(format!("{problem}; tp0 has one"))
        })?;
        let settings = Settings::read(&read_text(Path::new(file)).map_err(wrong)?);
        let settings = settings.map_err(|error| wrong(error.to_string()))?;
        Ok(Some(Configured { file: shown, settings, meaning, dialect }))
    }
}

impl Configured<'_> {
    /// Where the server is.
    pub(crate) fn server(&self) -> Result<Address, Failure> {
        let host = self.setting(self.meaning.host.as_deref()).unwrap_or(HERE);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        self.address(&host)
    }

    /// Where a server listens: on every address.
    pub(crate) fn anywhere(&self) -> Result<Address, Failure> {
        self.address("")
    }

    /// What a client says first.
    pub(crate) fn opening(&self) -> Result<Option<Typed>, Failure> {
        let Some(opens) = &self.meaning.opens else { return Ok(None) };
        let said: Result<Vec<Vec<u8>>, _> = words(opens.as_bytes())?
            .iter()
            .map(|word| self.settings.fill(&String::from_utf8_lossy(word)).map(String::into_bytes))
            .collect();
        let said = said.map_err(|error| self.wrong(&error.to_string()))?;
        typed(self.dialect, &said).map(Some)
    }

    /// The message that lines become, with none in it yet.
    pub(crate) fn gathering(&self) -> Option<Gathered> {
        let (kind, field) = self.meaning.gathers.clone()?;
        Some(Gathered { kind, field, fields: Fields::default(), bytes: 0 })
    }

    fn setting(&self, key: Option<&str>) -> Option<&str> {
        self.settings.get(key?)
    }

    fn address(&self, host: &str) -> Result<Address, Failure> {
        let port = self.setting(self.meaning.port.as_deref());
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let url = format!("tcp://{host}{port}");
        url.parse().map_err(|error: cabo::address::AddressError| self.wrong(&error.to_string()))
    }

    fn wrong(&self, problem: &str) -> Failure {
        Failure::usage(format!("{}: {}", self.file, escaped(problem)))
    }
}

/// Lines up to an empty one, as the values of one message.
pub(crate) struct Gathered {
    kind: String,
    field: String,
    fields: Fields,
    bytes: usize,
}

impl Gathered {
    /// Takes one more line.
    pub(crate) fn add(&mut self, dialect: &Dialect, line: &[u8]) -> Result<(), Failure> {
        self.bytes = self.bytes.saturating_add(line.len());
        if self.bytes > dialect.limit_bytes {
            let limit = dialect.limit_bytes;
            return Err(Failure::usage(format!(
                "all lines together are over the {limit} bytes of a message"
            )));
        }
        let wrong = |error: String| Failure::usage(escaped(&error));
        let kind = dialect.kind(Some(&self.kind)).map_err(|error| wrong(error.to_string()))?;
        let Some(kind) = kind else { return Ok(()) };
        assign(&kind.layout, &mut self.fields, &self.field, line)
            .map_err(|error| wrong(error.to_string()))
    }

    /// The message.
    pub(crate) fn message(self) -> Typed {
        Typed { kind: Some(self.kind), fields: self.fields }
    }
}
