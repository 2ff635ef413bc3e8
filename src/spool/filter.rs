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
