//! Whether a route's conditions hold, also while not everything about a message is known; pure.

use std::fmt;

use postrider_providers::contract::{Address, Origin, ReversePath};

use crate::config::When;

/// One condition of a route. Displayed as its key in the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// `when.sender_domain`
    SenderDomain,
    /// `when.recipient_domain`
    RecipientDomain,
    /// `when.null_sender`
    NullSender,
    /// `when.app`
    Application,
    /// `when.client`
    Client,
}

/// What is known about a message so far.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who hands it in.
    pub origin: &'a Origin,
    /// Whether the client may still log in, and then be another application.
    pub may_log_in: bool,
    /// The reverse-path; `None` before MAIL.
    pub from: Option<&'a ReversePath>,
    /// The recipient; `None` before RCPT.
    pub to: Option<&'a Address>,
}

impl<'a> Known<'a> {
    /// Everything that a route can ask about.
    #[must_use]
    pub fn all(origin: &'a Origin, from: &'a ReversePath, to: &'a Address) -> Self {
        Self { origin, may_log_in: false, from: Some(from), to: Some(to) }
    }
}

impl Condition {
    /// The first condition of `when` that does not hold, whatever else turns out.
    #[must_use]
    pub fn first_unmet(when: &When, known: &Known<'_>) -> Option<Self> {
        conditions(when, known).into_iter().find(|(_, holds)| *holds == Some(false)).map(|(condition, _)| condition)
    }

    /// What it asks for, as it stands in the config.
    #[must_use]
    pub fn written(self, when: &When) -> String {
        fn list<T: ToString>(items: &[T]) -> String {
            items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        match self {
            Self::SenderDomain => list(&when.sender_domains),
            Self::RecipientDomain => list(&when.recipient_domains),
            Self::NullSender => when.null_sender.map(|wanted| wanted.to_string()).unwrap_or_default(),
            Self::Application => list(&when.applications),
            Self::Client => list(&when.clients),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SenderDomain => "when.sender_domain",
            Self::RecipientDomain => "when.recipient_domain",
            Self::NullSender => "when.null_sender",
            Self::Application => "when.app",
            Self::Client => "when.client",
        })
    }
}

/// Whether all conditions hold; `None` if that cannot be told yet.
pub(super) fn verdict(when: &When, known: &Known<'_>) -> Option<bool> {
    let mut all = Some(true);
    for (_, holds) in conditions(when, known) {
        match holds {
            Some(true) => {}
            Some(false) => return Some(false),
            None => all = None,
        }
    }
    all
}

/// Each condition: it holds, it does not, or that cannot be told yet. A list holds when one of its
/// entries does, and one that is empty always.
fn conditions(when: &When, known: &Known<'_>) -> [(Condition, Option<bool>); 5] {
    let holds = |is_given: bool, answer: Option<bool>| if is_given { answer } else { Some(true) };
    let sender =
        known.from.map(|from| from.domain().is_some_and(|domain| when.sender_domains.iter().any(|pattern| pattern.matches(domain))));
    let recipient = known.to.map(|to| when.recipient_domains.iter().any(|pattern| pattern.matches(to.domain())));
    let null_sender = known.from.map(|from| when.null_sender == Some(*from == ReversePath::Null));
    let application = (!known.may_log_in).then(|| known.origin.application.as_ref().is_some_and(|name| when.applications.contains(name)));
    let client = known.origin.client.is_some_and(|client| {
        // A socket for both families gives IPv4 clients as ::ffff:192.0.2.1.
        let client = client.to_canonical();
        when.clients.iter().any(|network| network.contains(&client))
    });
    [
        (Condition::SenderDomain, holds(!when.sender_domains.is_empty(), sender)),
        (Condition::RecipientDomain, holds(!when.recipient_domains.is_empty(), recipient)),
        (Condition::NullSender, holds(when.null_sender.is_some(), null_sender)),
        (Condition::Application, holds(!when.applications.is_empty(), application)),
        (Condition::Client, holds(!when.clients.is_empty(), Some(client))),
    ]
}
