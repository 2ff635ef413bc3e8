//! The filter language of the queue: `state=deferred to=*@example.com older=1h provider=ses.eu`.

/// Which messages are meant: all terms must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// The terms; none: every message.
    pub terms: Vec<Term>,
}

/// One term of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Term {
    /// `state=deferred`, or several: `state=held,dead`.
    State(Vec<super::view::QueueState>),
}

/// Why a text is no filter: what was seen, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// A key of the language, for help texts.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What may stand behind it, for instance `deferred,held`.
    pub example: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// All keys.
pub const KEYS: &[Key] = &[];

impl std::str::FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Err(FilterError(text.to_owned()))
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}
