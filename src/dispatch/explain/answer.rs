//! What is asked about a message, and the answer: its recipients, their way, what stands in it, how it ends.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use postrider_providers::contract::{Diagnostic, Envelope, Failure, Message, ProviderName, RecipientIndex};
use postrider_providers::mime::signature::Signature;

use crate::config::Route;
use crate::dispatch::control::Pin;
use crate::dispatch::rate::{LimitStatus, Piece};
use crate::queue::WaitReason;
use crate::route::Condition;

/// A message that somebody would hand in.
#[derive(Debug, Clone)]
pub struct Imagined {
    /// Its envelope.
    pub envelope: Envelope,
    /// The application that hands it in.
    pub application: Option<Arc<str>>,
    /// The client that hands it in.
    pub client: Option<IpAddr>,
    /// Its octets; 0 if no size is to be judged.
    pub size: u64,
    /// What is signed about it.
    pub signature: Option<Signature>,
}

/// What would become of the recipients of one message.
#[derive(Debug, Clone)]
pub struct Explanation {
    /// The message.
    pub message: Arc<Message>,
    /// How many attempts asked a provider.
    pub attempts: u32,
    /// Its recipients, by what would become of them: each is in one part.
    pub parts: Vec<Part>,
}

/// Recipients of whom the same is to be said.
#[derive(Debug, Clone)]
pub struct Part {
    /// Who.
    pub recipients: Vec<RecipientIndex>,
    /// Which way they would go; `None` if nobody is to be asked for them, or there is no route.
    pub way: Option<Way>,
    /// What that comes to.
    pub conclusion: Conclusion,
}

/// The way of some recipients, with all that stands in it.
#[derive(Debug, Clone)]
pub struct Way {
    /// The route.
    pub route: Arc<Route>,
    /// Whether a person has chosen it; otherwise it is the first that matches.
    pub rerouted: bool,
    /// Routes that do not match the first of them, up to the one that does: name, condition, what it asks for.
    pub passed_over: Vec<(Arc<str>, Condition, String)>,
    /// The provider that alone may be asked again, because a handover to it is in doubt.
    pub in_doubt: Option<ProviderName>,
    /// What lets the route ask one provider only.
    pub pinned: Option<Pin>,
    /// What keeps them from going at all: a pause, or a limit of whoever sends this.
    pub waits: Vec<Wait>,
    /// The limits of whoever sends this.
    pub limits: Vec<LimitStatus>,
    /// How many recipients go at once at most, if that is not all of them, and when as many may follow.
    pub piece: Option<Piece>,
    /// Whom there is to ask, in order.
    pub candidates: Vec<Candidate>,
    /// When they are given up, as things stand.
    pub expires: SystemTime,
}

/// A provider, and what stands between it and the message.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its name.
    pub name: ProviderName,
    /// Why it cannot be asked at all for this message.
    pub cannot: Option<Cannot>,
    /// What there is to wait for, in the order in which it is met: the first that lasts decides. Nothing: it
    /// would be asked.
    pub waits: Vec<Wait>,
    /// Its limits.
    pub limits: Vec<LimitStatus>,
    /// How many recipients it gets in one call at most, if that is not all of them.
    pub per_call: Option<usize>,
}

/// Why a provider cannot be asked for a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cannot {
    /// There is none of that name.
    NotConfigured,
    /// It cannot carry it.
    Carry(Diagnostic),
    /// The message cannot be read.
    Read(Diagnostic),
}

/// Something that has to end first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// What kind of thing.
    pub cause: Cause,
    /// What, in words.
    pub reason: WaitReason,
    /// When it ends, if that is known: not what a person has stopped, nor what ends with others' handovers.
    pub until: Option<SystemTime>,
}

/// What kind of thing a message waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A person has stopped it.
    Stopped,
    /// The provider has refused its sender.
    SenderRefused,
    /// The circuit is not closed.
    Circuit,
    /// All hands are full.
    Concurrency,
    /// A limit.
    Limit,
}

/// What becomes of some recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conclusion {
    /// In one word.
    pub verdict: Verdict,
    /// When; `None`: now, or that is not known.
    pub at: Option<SystemTime>,
    /// Who is asked then.
    pub provider: Option<ProviderName>,
    /// Why, in words; empty if there is nothing to say.
    pub reason: String,
    /// How many other messages wait for the same: some of them go first, and take from it what they need.
    pub others: usize,
}

/// What becomes of some recipients, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A provider is asked now.
    Now,
    /// Something has to end first.
    Waits,
    /// Its time comes by the retry schedule.
    Retry,
    /// An attempt has it in hand.
    UnderWay,
    /// A person holds the message, since `at`.
    Held,
    /// A handover is in doubt, and a person decides.
    InDoubt,
    /// A dead letter, which waits for a person.
    Dead,
    /// No candidate can carry it: it is given up.
    Bounces,
    /// Nobody can be asked; the retry schedule decides when that is looked at again.
    Deferred,
    /// It is given up at `at`: what it waits for lasts longer.
    Expires,
    /// The door does not take it.
    Refused,
    /// Nothing is left to do.
    Ended,
}

impl Cause {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::SenderRefused => "sender_refused",
            Self::Circuit => "circuit",
            Self::Concurrency => "concurrency",
            Self::Limit => "limit",
        }
    }
}

impl Verdict {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Waits => "waits",
            Self::Retry => "retry",
            Self::UnderWay => "under_way",
            Self::Held => "held",
            Self::InDoubt => "in_doubt",
            Self::Dead => "dead",
            Self::Bounces => "bounces",
            Self::Deferred => "deferred",
            Self::Expires => "expires",
            Self::Refused => "refused",
            Self::Ended => "ended",
        }
    }
}

impl Cannot {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::Carry(_) => "cannot_carry",
            Self::Read(_) => "unreadable",
        }
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> Cow<'static, str> {
        match self {
            Self::NotConfigured => "it is no longer configured".into(),
            Self::Carry(why) | Self::Read(why) => why.to_string().into(),
        }
    }
}

impl From<Failure> for Cannot {
    fn from(failure: Failure) -> Self {
        let why = failure.diagnostic().clone();
        if let Failure::Unsuitable(_) = failure { Self::Carry(why) } else { Self::Read(why) }
    }
}

impl Conclusion {
    pub(super) fn new(verdict: Verdict, at: Option<SystemTime>, reason: impl Into<String>) -> Self {
        Self { verdict, at, provider: None, reason: reason.into(), others: 0 }
    }
}
