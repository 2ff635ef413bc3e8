//! The labels of metrics, and the bound on how many there are.

use std::collections::HashSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};

/// The most names of one sort that get a label of their own; the rest are "other".
pub(super) const MOST: usize = 100;

/// A label's value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Name(Arc<str>);

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl EncodeLabelValue for Name {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&&*self.0, encoder)
    }
}

/// Names that have a label of their own.
#[derive(Debug, Default)]
pub struct Known(RwLock<HashSet<Arc<str>>>);

impl Known {
    /// The label of `name`: itself, or "other" once there are too many; "none" for nobody.
    pub(super) fn name(&self, name: Option<&Arc<str>>) -> Name {
        let Some(name) = name else { return "none".into() };
        if self.0.read().contains(name) {
            return Name(Arc::clone(name));
        }
        let mut known = self.0.write();
        if known.len() >= MOST {
            return "other".into();
        }
        known.insert(Arc::clone(name));
        Name(Arc::clone(name))
    }
}

/// What a set of labels has to be.
pub(super) trait Labels: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static {}

impl<L: EncodeLabelSet + Clone + Hash + Eq + Debug + Send + Sync + 'static> Labels for L {}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($label:ident),* })*) => {
        $($(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name { $(pub(super) $label: Name),* })*
    };
}

labels! {
    /// Who handed a message in.
    Application { application }
    /// How it was refused.
    Verdict { class }
    /// What became of a recipient, where.
    Ended { outcome, provider, route, application }
    /// How a call ended.
    Handover { provider, verdict }
    /// Whom it went to.
    Provider { provider }
    /// The state of something of a provider.
    StateOf { provider, state }
    /// Something with a name.
    Named { name }
    /// The program.
    Build { version }
}
