//! What a person decides about providers, routes and senders while the gateway runs.

mod holds;
mod spans;
mod status;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::ProviderName;
use tracing::{error, info};

pub(super) use holds::{Holds, How};
pub use status::{CircuitStatus, Pause, Pin, ProviderError, ProviderStatus, RefusedSender};

use super::transport::Guarded;
use super::{Dispatcher, breaker, rate, senders};
use crate::config::Route;
use crate::history::{Event, Record, event::millis};
use crate::spool::{Spool, SpoolError};

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Opens the circuit of a provider, until a reset: its mail goes to the next one, or waits.
    Trip(ProviderName),
    /// Closes the circuit of a provider, and forgets which senders it refused and that it asked to slow down.
    Reset(ProviderName),
    /// Gives a provider no new mail, until it is resumed. What is in doubt there may be repeated.
    Drain(ProviderName),
    /// Keeps mail from going, until it is resumed. The time does not age it.
    Pause(Subject),
    /// Ends a pause; of a provider, also that it is drained.
    Resume(Subject),
    /// Lets a route ask only this one of its providers.
    Pin {
        /// The route.
        route: Arc<str>,
        /// The provider.
        provider: ProviderName,
    },
    /// Lets a route ask all its providers again.
    Unpin(Arc<str>),
}

/// What can be paused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A provider.
    Provider(ProviderName),
    /// A route, by name.
    Route(Arc<str>),
    /// Mail from a sending domain, in lower case.
    Domain(Arc<str>),
    /// Mail of an application, by name.
    Application(Arc<str>),
}

/// Who has decided, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// Who.
    pub who: Arc<str>,
    /// When.
    pub at: SystemTime,
}

/// Why a command was not followed. Nothing has changed then.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    /// There is nothing by that name.
    #[error("there is no {what} \"{name}\"; {}", known.words())]
    Unknown {
        /// `provider`, `route` or `application`.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is instead.
        known: Known,
    },
    /// A route cannot be pinned to a provider that it does not name.
    #[error("route \"{route}\" does not name {provider}, so it cannot be pinned to it")]
    NotOfRoute {
        /// The route.
        route: Arc<str>,
        /// The provider.
        provider: ProviderName,
    },
    /// It could not be recorded.
    #[error("{0}")]
    Spool(#[from] SpoolError),
}

/// The names that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known(Vec<String>);

impl Known {
    /// So many of them are told.
    const TOLD: usize = 20;

    fn new(names: impl IntoIterator<Item: ToString>) -> Self {
        let mut names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
        names.sort_unstable();
        Self(names)
    }

    fn words(&self) -> String {
        let told = self.0.iter().take(Self::TOLD).cloned().collect::<Vec<_>>().join(", ");
        match self.0.len() {
            0 => "there is none at all".to_owned(),
            count if count > Self::TOLD => format!("there are {told}, and {} more", count - Self::TOLD),
            _ => format!("there are {told}"),
        }
    }
}

impl Subject {
    /// What it is, and its name.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Provider(name) => ("provider", name.as_str()),
            Self::Route(name) => ("route", name),
            Self::Domain(name) => ("domain", name),
            Self::Application(name) => ("application", name),
        }
    }

    /// The subject with these parts; `None` if there is no such kind of thing.
    #[must_use]
    pub fn of_parts(what: &str, name: &str) -> Option<Self> {
        Some(match what {
            "provider" => Self::Provider(name.into()),
            "route" => Self::Route(name.into()),
            "domain" => Self::Domain(name.to_ascii_lowercase().into()),
            "application" => Self::Application(name.into()),
            _ => return None,
        })
    }
}

impl Command {
    /// The name, as in the history and on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Trip(_) => "trip",
            Self::Reset(_) => "reset",
            Self::Drain(_) => "drain",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Pin { .. } => "pin",
            Self::Unpin(_) => "unpin",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Provider(name) => write!(f, "provider {name}"),
            Self::Route(name) => write!(f, "route {name}"),
            Self::Domain(name) => write!(f, "sending domain {name}"),
            Self::Application(name) => write!(f, "application {name}"),
        }
    }
}

impl<S: Spool> Dispatcher<S> {
    /// How each provider is doing, by name.
    #[must_use]
    pub fn providers(&self) -> Vec<ProviderStatus> {
        let pins = self.holds.pins();
        let rules = self.rules();
        let mut all: Vec<_> = rules.transports.iter().map(|(name, guarded)| self.status(name, guarded, &pins)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    fn status(&self, name: &ProviderName, guarded: &Guarded, pins: &[Pin]) -> ProviderStatus {
        let by = |how| self.holds.by(how, &Subject::Provider(name.clone()));
        let tripped = by(How::Tripped);
        let circuit = match &tripped {
            Some(By { who, at }) => {
                CircuitStatus { state: "open", since: Some(*at), until: None, why: format!("opened by {who}"), at_once: None }
            }
            None => guarded.circuit.status(),
        };
        let (last_success, last_errors) = guarded.vitals.last();
        let in_doubt_by_route = guarded.vitals.in_doubt();
        ProviderStatus {
            name: name.clone(),
            kind: name.as_str().split_once('.').map_or(name.as_str(), |(kind, _)| kind).to_owned(),
            circuit,
            tripped,
            drained: by(How::Drained),
            paused: by(How::Paused),
            in_flight: guarded.vitals.under_way(),
            concurrency: guarded.vitals.concurrency(),
            last_success,
            last_errors,
            throttled_until: guarded.limits.throttle().until().map(|until| self.queue.clock().time_of(until)),
            in_doubt: in_doubt_by_route.iter().map(|(_, count)| count).sum(),
            in_doubt_by_route,
            pins: pins.iter().filter(|pin| pin.provider == *name).cloned().collect(),
            refused_senders: guarded.senders.list(),
            limits: guarded.limits.status(),
        }
    }

    /// What people have paused, providers included.
    #[must_use]
    pub fn pauses(&self) -> Vec<Pause> {
        self.holds.pauses()
    }

    /// The routes that people have pinned.
    #[must_use]
    pub fn pins(&self) -> Vec<Pin> {
        self.holds.pins()
    }

    /// Follows a command of the person `by`. It is recorded durably, in the history as well, and holds from
    /// now on, also after a restart. Says in words what has changed; that may be nothing.
    ///
    /// # Errors
    /// [`ControlError`]; then nothing has changed.
    pub async fn control(&self, command: Command, by: &str) -> Result<String, ControlError> {
        let _alone = self.holds.deciding.lock().await;
        let by = By { who: by.into(), at: self.queue.clock().now() };
        let action = command.name();
        let words = match command {
            Command::Trip(name) => self.stop(How::Tripped, Subject::Provider(self.known(name)?), &by).await?,
            Command::Drain(name) => self.stop(How::Drained, Subject::Provider(self.known(name)?), &by).await?,
            Command::Pause(subject) => self.stop(How::Paused, self.existing(subject)?, &by).await?,
            Command::Resume(subject) => {
                let subject = normal(subject);
                let resumed = self.go_on(How::Paused, &subject, &by).await?;
                let is_filled_again = matches!(subject, Subject::Provider(_)) && self.go_on(How::Drained, &subject, &by).await?;
                if resumed || is_filled_again { format!("{subject} is resumed") } else { format!("{subject} was not stopped") }
            }
            Command::Reset(name) => self.reset(self.known(name)?, &by).await?,
            Command::Pin { route, provider } => {
                let known = self.route(&route)?;
                if !known.providers.contains(&provider) {
                    return Err(ControlError::NotOfRoute { route, provider });
                }
                let pin = Pin { route: Arc::clone(&known.name), provider: provider.clone(), by: by.clone() };
                self.queue.spool().remember(&holds::pin_key(&route), pin.note()).await?;
                self.holds.pin(&route, Some(pin));
                self.look_again(&known);
                format!("route {route} asks {provider} alone")
            }
            Command::Unpin(route) => {
                self.queue.spool().remember(&holds::pin_key(&route), None).await?;
                self.holds.pin(&route, None);
                if let Ok(known) = self.route(&route) {
                    self.look_again(&known);
                }
                format!("route {route} asks all its providers")
            }
        };
        info!(action, by = %by.who, "{words}");
        let event = Event::Action { action: action.to_owned(), words: words.clone(), by: by.who.to_string() };
        let record = Record { at: millis(by.at), message: String::new(), about: None, events: vec![event], ended: false };
        if let Err(error) = self.queue.spool().note(record.to_json()).await {
            // It holds all the same.
            error!(action, by = %by.who, %error, "what a person did could not be written into the history");
        }
        Ok(words)
    }

    /// Takes up what was decided and seen before a restart. Call it before [`Dispatcher::run`].
    ///
    /// # Errors
    /// When the spool cannot be read.
    pub async fn restore(&self) -> Result<(), SpoolError> {
        let (spool, rules) = (self.queue.spool(), self.rules());
        for (key, note) in spool.recall(holds::NOTES).await? {
            self.holds.restore(&key, &note);
        }
        for (key, note) in spool.recall(breaker::NOTES).await? {
            if let Some(guarded) = rules.transports.get(&ProviderName::from(&key[breaker::NOTES.len()..])) {
                guarded.circuit.restore(&note);
            }
        }
        for (key, note) in spool.recall(rate::THROTTLES).await? {
            if let Some(guarded) = rules.transports.get(&ProviderName::from(&key[rate::THROTTLES.len()..])) {
                guarded.limits.throttle().restore(&note);
            }
        }
        for (key, note) in spool.recall(senders::NOTES).await? {
            let Some((provider, sender)) = key[senders::NOTES.len()..].split_once('/') else { continue };
            if let Some(guarded) = rules.transports.get(&ProviderName::from(provider)) {
                guarded.senders.restore(sender, &note);
            }
        }
        Ok(())
    }

    /// Stops something.
    async fn stop(&self, how: How, subject: Subject, by: &By) -> Result<String, ControlError> {
        let what = match how {
            How::Tripped => "tripped",
            How::Drained => "drained",
            How::Paused => "paused",
        };
        let Some(stop) = self.holds.changed(how, &subject, Some(by.clone()), by.at) else {
            return Ok(format!("{subject} was {what} already"));
        };
        self.queue.spool().remember(&holds::stop_key(how, &subject), stop.note()).await?;
        self.holds.change(how, &subject, stop);
        Ok(format!("{subject} is {what}"))
    }

    /// Ends a stop; says whether there was one.
    async fn go_on(&self, how: How, subject: &Subject, by: &By) -> Result<bool, ControlError> {
        let Some(stop) = self.holds.changed(how, subject, None, by.at) else { return Ok(false) };
        self.queue.spool().remember(&holds::stop_key(how, subject), stop.note()).await?;
        if let Some(reason) = self.holds.change(how, subject, stop) {
            self.queue.wake(&reason, usize::MAX);
        }
        Ok(true)
    }

    async fn reset(&self, name: ProviderName, by: &By) -> Result<String, ControlError> {
        self.go_on(How::Tripped, &Subject::Provider(name.clone()), by).await?;
        if let Some(guarded) = self.rules().transports.get(&name) {
            guarded.circuit.reset();
            let throttle = guarded.limits.throttle().reset();
            for reason in guarded.senders.reset().iter().chain([&throttle]) {
                self.queue.wake(reason, usize::MAX);
            }
        }
        self.notebook.flush(self.queue.spool()).await?;
        Ok(format!("provider {name} is asked again"))
    }

    /// Lets mail of a route go that waits for the circuits of its providers: it may go another way now.
    fn look_again(&self, route: &Route) {
        let rules = self.rules();
        for guarded in route.providers.iter().filter_map(|name| rules.transports.get(name)) {
            guarded.circuit.wake_all();
        }
    }

    fn known(&self, name: ProviderName) -> Result<ProviderName, ControlError> {
        let rules = self.rules();
        if rules.transports.contains_key(&name) {
            return Ok(name);
        }
        Err(ControlError::Unknown { what: "provider", name: name.to_string(), known: Known::new(rules.transports.keys()) })
    }

    fn route(&self, name: &str) -> Result<Arc<Route>, ControlError> {
        let rules = self.rules();
        let route = rules.router.routes().iter().find(|route| *route.name == *name);
        let known = || Known::new(rules.router.routes().iter().map(|route| &route.name));
        route.map(Arc::clone).ok_or_else(|| ControlError::Unknown { what: "route", name: name.to_owned(), known: known() })
    }

    fn application(&self, name: Arc<str>) -> Result<Arc<str>, ControlError> {
        let rules = self.rules();
        if rules.applications.contains(&name) {
            return Ok(name);
        }
        Err(ControlError::Unknown { what: "application", name: name.to_string(), known: Known::new(rules.applications.iter()) })
    }

    /// What can be paused, by the name that it has elsewhere.
    fn existing(&self, subject: Subject) -> Result<Subject, ControlError> {
        match normal(subject) {
            Subject::Provider(name) => self.known(name).map(Subject::Provider),
            Subject::Route(name) => self.route(&name).map(|route| Subject::Route(Arc::clone(&route.name))),
            Subject::Application(name) => self.application(name).map(Subject::Application),
            // Anybody may send from any domain.
            subject @ Subject::Domain(_) => Ok(subject),
        }
    }
}

/// Domains are compared in lower case.
fn normal(subject: Subject) -> Subject {
    match subject {
        Subject::Domain(name) => Subject::Domain(name.to_ascii_lowercase().into()),
        subject => subject,
    }
}
