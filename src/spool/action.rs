//! What a person does to a message in the queue.

use std::sync::Arc;

use postrider_providers::contract::Address;

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
            Self::Remove => "remove",
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
