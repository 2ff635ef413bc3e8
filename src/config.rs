//! The config file: read, checked, and turned into the settings of each part.
//!
//! `file` holds the tables as written, `reader` fills them and `validate` gives them meaning. Each
//! adds what it finds to one list, so that a run reports every problem, drawn at its line. Secrets
//! are taken out of the text before any of it is drawn (`mask`).

mod certificate;
mod document;
mod domain;
mod explain;
mod file;
mod mask;
mod password;
mod password_file;
mod problem;
mod reader;
mod sender;
mod settings;
mod summary;
mod validate;

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use postrider_providers::Providers;
use postrider_providers::contract::{Connected, ContentForm, ProviderName};
use postrider_providers::registry::{Context, SettingsError};
use postrider_providers::settings::{LimitSettings, Witness};
use toml::de::DeTable;

use document::{Document, Findings};
use problem::{Problem, Source};

pub use certificate::{Certificate, CertificateError, Validity};
pub use domain::{DomainPattern, DomainPatternError};
pub(crate) use explain::nearest;
pub use password::{PasswordHash, PasswordHashError};
pub use password_file::{MAX_PASSWORD_FILE, PasswordFile, PasswordFileError};
pub use problem::{ConfigErrors, Warning};
pub use sender::SenderPatternError;
pub use settings::{
    Access, Admin, Application, BareNewline, Bounce, CertificateFiles, CircuitSettings, Failover, History, InDoubt, Listener, ListenerTls,
    Log, LogFormat, LogLevel, LongLines, MissingFields, Notified, OddCommands, ProviderFailover, Queue, Rewrite, Route, SenderPattern,
    SendingDomainLimits, Server, Share, ToleranceSettings, When,
};
pub use summary::{summary, summary_json};

/// Where the config is if nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/postrider/postrider.toml";

/// A config that can be run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this gateway is.
    pub server: Server,
    /// Where mail is taken; at least one.
    pub listeners: Vec<Listener>,
    /// Who may relay, and how much at once.
    pub access: Access,
    /// The applications, in the order of the file.
    pub applications: Vec<Arc<Application>>,
    /// Where mail can go, in the order of the file; at least one.
    pub providers: Vec<ProviderConfig>,
    /// Which mail goes where; the first match wins. Only names providers that exist.
    pub routes: Vec<Route>,
    /// What each sending domain may send.
    pub sending_domain_limits: SendingDomainLimits,
    /// How long mail waits.
    pub queue: Queue,
    /// When a provider counts as down, and how it comes back.
    pub failover: Failover,
    /// Who is told about mail that could not be delivered.
    pub bounce: Bounce,
    /// What is kept of what happened to messages.
    pub history: History,
    /// Where the gateway is looked at and operated; `None`: nowhere.
    pub admin: Option<Admin>,
    /// How events are logged.
    pub log: Log,
    /// Where `raw_only` is, by route, for an error that only connecting shows.
    raw_only: Vec<(Arc<str>, Range<usize>)>,
    /// The text, for errors that only connecting shows.
    source: Option<Arc<Source>>,
}

/// One provider, as configured.
#[derive(Debug, Clone)]
pub struct ProviderConfig {
    /// Its name in routes and logs.
    pub name: ProviderName,
    /// Where mail goes, in words.
    pub destination: String,
    /// What the administrator allows, and for the rest what the service does.
    pub limits: LimitSettings,
    /// Of these, what the file says.
    pub own_limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Arc<Rewrite>>,
    /// The registry's tables, with this provider alone.
    settings: Providers,
    /// Where its header (under the empty key) and each of its settings are.
    places: Vec<(String, Range<usize>)>,
}

/// Whether the secrets that a config points at are read while it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// Each must be there. They are read, and forgotten.
    Read,
    /// They are on another machine: a config is checked before it is rolled out.
    Skip,
}

impl Config {
    /// Loads and checks the file at `path`, its secrets included.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first.
    pub fn load(path: &Path) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let alone = |problem| ConfigErrors::new(Source::new(Path::new(""), "", &[]), vec![problem]);
        let octets = std::fs::read(path).map_err(|error| {
            alone(
                Problem::error(format!("cannot read the config file {}: {error}", path.display()))
                    .help("name another file with --config FILE, or in the environment variable POSTRIDER_CONFIG"),
            )
        })?;
        let text = String::from_utf8(octets).map_err(|error| {
            let valid = error.utf8_error().valid_up_to();
            let line = error.as_bytes()[..valid].iter().filter(|&&octet| octet == b'\n').count() + 1;
            alone(
                Problem::error(format!("{} is not UTF-8: line {line} has an octet that is no text", path.display()))
                    .help("save the file as UTF-8"),
            )
        })?;
        Self::parse(&text, path, Secrets::Read)
    }

    /// Checks `text`, which is the content of the file at `path`.
    ///
    /// # Errors
    /// Everything that is wrong with it, not only the first. Where it is no TOML, only that: what
    /// else is found in such a text is mostly a consequence.
    pub fn parse(text: &str, path: &Path, secrets: Secrets) -> Result<(Self, Vec<Warning>), ConfigErrors> {
        let (root, syntax_errors) = DeTable::parse_recoverable(text);
        if !syntax_errors.is_empty() {
            let problems = explain::syntax(&syntax_errors, text);
            return Err(ConfigErrors::new(Source::new(path, text, &[]), problems));
        }
        let document = Document { root: root.into_inner() };
        let mut findings = Findings::default();
        let file = reader::read_file(&document, &mut findings);
        let mut config = validate::validate(&file, &document, secrets, &mut findings);

        let source = Source::new(path, text, &findings.suspects);
        config.source = Some(source.clone());
        if findings.problems.iter().any(|problem| !problem.is_warning) {
            return Err(ConfigErrors::new(source, findings.problems));
        }
        findings.problems.sort_by_key(Problem::position);
        Ok((config, findings.problems.into_iter().map(|problem| Warning::new(source.clone(), problem)).collect()))
    }

    /// Builds every provider. Reads secrets and files, but opens no connection.
    ///
    /// # Errors
    /// Draws each setting that cannot work, at its line.
    pub fn connect(&self, context: &Context) -> Result<Vec<Connected>, ConfigErrors> {
        Ok(self.connect_witnessed(context)?.into_iter().map(|(connected, _)| connected).collect())
    }

    /// The same, with what was read of each one's secrets.
    ///
    /// # Errors
    /// As [`Config::connect`].
    pub fn connect_witnessed(&self, context: &Context) -> Result<Vec<(Connected, Witness)>, ConfigErrors> {
        let mut connected = Vec::new();
        let mut problems = Vec::new();
        for provider in &self.providers {
            let connect = || {
                // A certificate that was renewed makes another provider, as a new password does.
                provider.certificate().into_iter().for_each(Witness::note_file);
                provider.connect(context)
            };
            match Witness::of(connect) {
                (Ok(ready), witness) => connected.push((ready, witness)),
                (Err(error), _) => problems.push(provider.explain(&error)),
            }
        }
        // What a provider can carry may depend on its settings, so that it has to be there to be asked.
        if problems.is_empty() {
            problems.extend(self.raw_only.iter().filter_map(|(name, span)| self.nobody_takes_raw(name, span, &connected)));
        }
        match &self.source {
            Some(source) if !problems.is_empty() => Err(ConfigErrors::new(source.clone(), problems)),
            _ => Ok(connected),
        }
    }
}

impl Config {
    /// Keeps of a running config what only a restart can change.
    pub fn keep_until_restart(&mut self, running: &Self) {
        self.server.data_dir.clone_from(&running.server.data_dir);
        (self.queue.window, self.queue.inline_max) = (running.queue.window, running.queue.inline_max);
        (self.admin, self.history, self.log) = (running.admin.clone(), running.history, running.log);
    }

    /// A route that wants a provider which takes messages as they are, and has none.
    fn nobody_takes_raw(&self, name: &str, span: &Range<usize>, connected: &[(Connected, Witness)]) -> Option<Problem> {
        let route = self.routes.iter().find(|route| *route.name == *name)?;
        let takes_raw = |wanted: &&ProviderName| {
            connected.iter().any(|(one, _)| one.name == **wanted && one.provider.capabilities().content != ContentForm::Fields)
        };
        if route.providers.iter().any(|name| takes_raw(&name)) {
            return None;
        }
        let names: Vec<String> = route.providers.iter().map(ToString::to_string).collect();
        Some(
            Problem::error(format!("no provider of the route `{name}` takes messages as they are"))
                .at(span.clone(), "passes over every provider of this route")
                .note(format!(
                    "{} subject, texts and attachments by themselves",
                    if let [only] = names.as_slice() { format!("`{only}` takes") } else { format!("{} take", explain::all_of(&names)) }
                ))
                .help("add a provider that takes raw messages, such as a smart host, or remove `raw_only`"),
        )
    }
}

impl ProviderConfig {
    /// Builds the provider. Reads secrets and files, but opens no connection.
    ///
    /// # Errors
    /// Names the setting at fault and says what to do.
    pub fn connect(&self, context: &Context) -> Result<Connected, SettingsError> {
        match self.settings.iter().as_slice() {
            [(_, _, settings)] => settings.connect(self.name.clone(), context),
            _ => Err(SettingsError::new("", format!("`{}` has no settings", self.name))),
        }
    }

    /// The file of the certificate by which the provider knows us, if it has one.
    #[must_use]
    pub fn certificate(&self) -> Option<&Path> {
        match self.settings.iter().as_slice() {
            [(_, _, settings)] => settings.certificate(),
            _ => None,
        }
    }

    /// Whether another one would be built in the same way, unless its secrets are different.
    #[must_use]
    pub fn has_same_settings(&self, other: &Self) -> bool {
        (&self.name, &self.settings) == (&other.name, &other.settings)
    }

    /// Whether a limit is the kind's, because the file does not set it.
    #[must_use]
    pub fn is_by_default<T>(&self, limit: impl Fn(&LimitSettings) -> Option<T>) -> bool {
        limit(&self.limits).is_some() && limit(&self.own_limits).is_none()
    }

    fn explain(&self, error: &SettingsError) -> Problem {
        let place = |key: &str| self.places.iter().find(|(name, _)| name == key).map(|(_, span)| span.clone());
        let problem = Problem::error(format!("`{}` cannot work: {}", self.name, error.message));
        match (place(error.key), place("")) {
            (Some(span), _) if !error.key.is_empty() => problem.at(span, format!("`{}` is at fault", error.key)),
            (_, Some(header)) if !error.key.is_empty() => problem.at(header, format!("`{}` is not set in this table", error.key)),
            (_, Some(header)) => problem.at(header, "this provider"),
            _ => problem,
        }
    }
}
