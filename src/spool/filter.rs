//! The filter language of the queue: `state=deferred to=*@example.com older=1h provider=ses.eu`.
//!
//! A filter is a list of terms, and all of them must hold. What is said about recipients (`to`,
//! `provider`, `reason`) must hold of one and the same recipient. [`KEYS`] is the only list of what there
//! is: it is what the parser reads, and what help texts print.

mod parse;
mod pattern;

use std::fmt;
use std::time::{Duration, SystemTime};

use postrider_providers::contract::{MessageId, Priority};
use postrider_providers::settings::Span;

pub use self::parse::FilterError;
pub use self::pattern::Pattern;

use super::RecipientState;
use super::view::{Listed, ListedRecipient, QueueState};

/// Which messages are meant: all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The terms; none: every message.
    pub terms: Vec<Term>,
}

/// One term of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// It is in one of these states.
    State(Vec<QueueState>),
    /// A recipient's address.
    To(Pattern),
    /// The reverse-path; empty text is the null one.
    From(Pattern),
    /// It was accepted at least so long ago.
    Older(Duration),
    /// It was accepted less long ago.
    Younger(Duration),
    /// Who was asked for a recipient last, or who has it in doubt.
    Provider(Pattern),
    /// The route by which it waits.
    Route(Pattern),
    /// The domain of the reverse-path.
    Domain(Pattern),
    /// The application that handed it in.
    App(Pattern),
    /// The address of the client that handed it in.
    Client(Pattern),
    /// Its Message-ID, without the angle brackets.
    MessageId(Pattern),
    /// It is one of these.
    Id(Vec<MessageId>),
    /// It is of one of these priorities.
    Priority(Vec<Priority>),
    /// How many attempts asked a provider.
    Attempts(Comparison, u32),
    /// What was said last about a recipient.
    Reason(Pattern),
}

/// How a number is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `<`
    Less,
    /// `<=`
    AtMost,
}

/// A key of the language, for the parser and for help texts.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// A term with it.
    pub example: &'static str,
    /// What it means.
    pub help: &'static str,
}

const fn key(name: &'static str, example: &'static str, help: &'static str) -> Key {
    Key { name, example, help }
}

/// All keys. In texts `*` stands for anything, and the case of ASCII letters does not matter.
pub const KEYS: &[Key] = &[
    key("state", "state=deferred,held", "where it stands: queued, active, deferred, in_doubt, held or dead"),
    key("to", "to=*@example.com", "a recipient's address"),
    key("from", "from=erp@example.com", "the envelope sender; from=<> is the null one"),
    key("older", "older=1h", "accepted at least so long ago"),
    key("younger", "younger=30m", "accepted less than so long ago"),
    key("provider", "provider=ses.eu", "the provider that was asked last, or that has it in doubt"),
    key("route", "route=newsletter", "the route by which it waits"),
    key("domain", "domain=news.example", "the domain of the envelope sender"),
    key("app", "app=erp", "the application that handed it in"),
    key("client", "client=10.1.2.*", "the address of the client that handed it in"),
    key("message_id", "message_id=*@erp.example", "its Message-ID, without angle brackets"),
    key("id", "id=01987f5e0d5b7cc1a3a8d2b9f0c4e6a1", "its id in Postrider, or several"),
    key("priority", "priority=bulk", "high, normal or bulk, or several"),
    key("attempts", "attempts>=3", "how often a provider was asked; with =, >, >=, < or <="),
    key("reason", "reason=\"*mailbox full*\"", "what was said last about a recipient"),
];

impl Comparison {
    /// The sign, as it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::More => ">",
            Self::AtLeast => ">=",
            Self::Less => "<",
            Self::AtMost => "<=",
        }
    }

    /// Whether `left` stands in this relation to `right`.
    #[must_use]
    pub fn holds(self, left: u32, right: u32) -> bool {
        match self {
            Self::Equal => left == right,
            Self::More => left > right,
            Self::AtLeast => left >= right,
            Self::Less => left < right,
            Self::AtMost => left <= right,
        }
    }
}

impl Filter {
    /// The filter that means exactly these messages.
    #[must_use]
    pub fn of_ids(ids: Vec<MessageId>) -> Self {
        Self { terms: vec![Term::Id(ids)] }
    }

    /// Whether `message` is meant at `now`.
    #[must_use]
    pub fn matches(&self, message: &Listed, now: SystemTime) -> bool {
        let about_recipients = || self.terms.iter().filter(|term| term.is_about_a_recipient());
        self.terms.iter().all(|term| term.is_about_a_recipient() || term.holds(message, now))
            && (about_recipients().next().is_none()
                || message.recipients.iter().any(|recipient| about_recipients().all(|term| term.holds_of(recipient))))
    }
}

impl Term {
    /// The key that it is written with.
    #[must_use]
    pub fn key(&self) -> &'static str {
        match self {
            Self::State(_) => "state",
            Self::To(_) => "to",
            Self::From(_) => "from",
            Self::Older(_) => "older",
            Self::Younger(_) => "younger",
            Self::Provider(_) => "provider",
            Self::Route(_) => "route",
            Self::Domain(_) => "domain",
            Self::App(_) => "app",
            Self::Client(_) => "client",
            Self::MessageId(_) => "message_id",
            Self::Id(_) => "id",
            Self::Priority(_) => "priority",
            Self::Attempts(..) => "attempts",
            Self::Reason(_) => "reason",
        }
    }

    /// Whether it says something about one of the recipients.
    #[must_use]
    pub fn is_about_a_recipient(&self) -> bool {
        matches!(self, Self::To(_) | Self::Provider(_) | Self::Reason(_))
    }

    fn holds(&self, message: &Listed, now: SystemTime) -> bool {
        let is = |pattern: &Pattern, text: Option<&str>| text.is_some_and(|text| pattern.matches(text));
        match self {
            Self::State(states) => states.contains(&message.state),
            Self::From(pattern) => pattern.matches(message.sender.as_deref().unwrap_or_default()),
            Self::Older(age) => received_before(now, *age).is_some_and(|time| message.received <= time),
            Self::Younger(age) => received_before(now, *age).is_none_or(|time| message.received > time),
            Self::Route(pattern) => pattern.matches(message.rerouted.as_deref().unwrap_or(&message.lane.route)),
            Self::Domain(pattern) => is(&pattern.behind_at(), message.sender.as_deref()),
            Self::App(pattern) => is(pattern, message.application.as_deref()),
            Self::Client(pattern) => is(pattern, message.client.map(|client| client.to_string()).as_deref()),
            Self::MessageId(pattern) => is(pattern, message.message_id.as_deref()),
            Self::Id(ids) => ids.contains(&message.id),
            Self::Priority(priorities) => priorities.contains(&message.lane.priority),
            Self::Attempts(comparison, number) => comparison.holds(message.attempts, *number),
            Self::To(_) | Self::Provider(_) | Self::Reason(_) => true,
        }
    }

    fn holds_of(&self, recipient: &ListedRecipient) -> bool {
        match self {
            Self::To(pattern) => pattern.matches(&recipient.address),
            Self::Provider(pattern) => {
                let own = match &recipient.state {
                    RecipientState::InDoubt(provider) | RecipientState::Held(provider) => Some(provider),
                    _ => None,
                };
                own.into_iter().chain(&recipient.last_provider).any(|provider| pattern.matches(provider.as_str()))
            }
            Self::Reason(pattern) => recipient.diagnostic.as_deref().is_some_and(|text| pattern.matches(text)),
            _ => true,
        }
    }
}

/// Until when a message was accepted that is of this age at `now`; `None`: before there was time.
pub(super) fn received_before(now: SystemTime, age: Duration) -> Option<SystemTime> {
    now.checked_sub(age)
}

/// As it is written, so that it can be read again.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, term) in self.terms.iter().enumerate() {
            write!(f, "{}{term}", if position == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.key())?;
        let list = |texts: Vec<String>| texts.join(",");
        match self {
            Self::State(states) => write!(f, "={}", list(states.iter().map(|state| state.as_str().to_owned()).collect())),
            Self::Id(ids) => write!(f, "={}", list(ids.iter().map(MessageId::to_string).collect())),
            Self::Priority(priorities) => write!(f, "={}", list(priorities.iter().map(Priority::to_string).collect())),
            Self::Older(age) | Self::Younger(age) => write!(f, "={}", Span(*age).to_string().replace(' ', "")),
            Self::Attempts(comparison, number) => write!(f, "{}{number}", comparison.as_str()),
            Self::From(pattern) if pattern.as_str().is_empty() => f.write_str("=<>"),
            Self::To(pattern)
            | Self::From(pattern)
            | Self::Provider(pattern)
            | Self::Route(pattern)
            | Self::Domain(pattern)
            | Self::App(pattern)
            | Self::Client(pattern)
            | Self::MessageId(pattern)
            | Self::Reason(pattern) => write!(f, "={}", parse::quoted(pattern.as_str())),
        }
    }
}

#[cfg(test)]
mod tests;
