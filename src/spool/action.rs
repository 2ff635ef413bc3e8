//! What a person does to a message in the queue.

use std::sync::Arc;

use postrider_providers::contract::{Address, MessageId};

/// One action. Each applies to a message that nobody is attempting at the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Due at once, whatever the retry schedule says. Does not touch a hold.
    Retry,
    /// Waits until it is released. The time does not age it.
    Hold,
    /// Ends every hold, also that of handovers in doubt and of dead letters: its open recipients are due at once.
    Release,
    /// Removed, and nobody is told.
    Remove,
    /// Removed, if nothing but a dead letter is left of it that nobody holds.
    Discard,
    /// Given up: whoever is to be told of failures is told, with these words.
    Bounce(String),
    /// Goes by this route from now on, whatever its addresses say.
    Reroute(Arc<str>),
    /// Goes to this address instead of that one.
    Readdress {
        /// A recipient that is not finished.
        from: Address,
        /// Who gets it instead.
        to: Address,
    },
}

impl Action {
    /// The name, as in the history and on the command line.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Release => "release",
            Self::Remove | Self::Discard => "remove",
            Self::Bounce(_) => "bounce",
            Self::Reroute(_) => "reroute",
            Self::Readdress { .. } => "readdress",
        }
    }
}

/// What came of an action on one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// It was done.
    Done,
    /// It is being attempted right now; come again in a moment.
    Busy,
    /// It is not in the queue any more.
    Gone,
    /// It does not apply, in words.
    Refused(String),
}

/// A message to act on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The message.
    pub id: MessageId,
    /// What the history is told if it is done, as JSON.
    pub record: String,
    /// Whether whoever leases it on this node hands it over.
    pub handed_over: bool,
}

/// Why an action does not apply, in the words of every store.
pub(super) mod words {
    pub const HELD: &str = "it is held; release it instead";
    pub const HELD_ALREADY: &str = "it is held already";
    pub const NOT_HELD: &str = "nothing holds it";
    pub const WAITS_FOR_A_PERSON: &str = "what is left of it waits for a person already; release it, or end it";
    pub const NOT_ONLY_DEAD: &str = "it is no dead letter any more, or not only that";
    pub const SET_ASIDE: &str = "its record cannot be read and was set aside";
    pub const NOT_HERE: &str = "a message is bounced by settling it";
}

/// Finds the recipients that get another address; one logic for every store.
pub(super) struct Readdressing<'a> {
    from: &'a Address,
    to: &'a Address,
    smtputf8: bool,
    positions: Vec<i64>,
    /// One of them may be with a provider already.
    in_doubt: bool,
    /// The new address is a recipient already.
    is_there: bool,
}

impl<'a> Readdressing<'a> {
    pub(super) fn new(from: &'a Address, to: &'a Address, smtputf8: bool) -> Self {
        Self { from, to, smtputf8, positions: Vec::new(), in_doubt: false, is_there: false }
    }

    /// One recipient, in turn, with the name of its state.
    pub(super) fn look_at(&mut self, position: i64, address: &str, state: &str) {
        let is = |other: &Address| other.as_str().eq_ignore_ascii_case(address);
        if is(self.from) && matches!(state, "pending" | "dead" | "in_doubt" | "held") {
            self.positions.push(position);
            self.in_doubt |= matches!(state, "in_doubt" | "held");
        }
        self.is_there |= is(self.to);
    }

    pub(super) fn positions(self) -> Result<Vec<i64>, String> {
        let Self { from, to, smtputf8, positions, in_doubt, is_there } = self;
        if positions.is_empty() {
            Err(format!("{from} is no recipient of it that is not finished"))
        } else if in_doubt {
            Err(format!("a provider may have it for {from} already"))
        } else if is_there {
            Err(format!("{to} is a recipient of it already"))
        } else if !to.is_ascii() && !smtputf8 {
            Err(format!("it was handed in without SMTPUTF8, which {to} needs"))
        } else {
            Ok(positions)
        }
    }
}
