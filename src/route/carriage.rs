//! What providers can carry, asked of them at that moment, and what a message needs; the judging is pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use postrider_providers::contract::{Address, Capabilities, Connected, DynProvider, Envelope, ProviderName, ReversePath};

/// What a message needs of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its octets, as far as that is known; 0 otherwise.
    pub size: u64,
    /// Whether it cannot be handed over without SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether its reverse-path is null.
    pub null_sender: bool,
}

/// Why a message cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Obstacle {
    /// It is larger than what is taken at most.
    Size {
        /// The message's octets.
        size: u64,
        /// The most octets taken.
        max: u64,
    },
    /// SMTPUTF8 is not carried.
    Smtputf8,
    /// The null reverse-path is not taken.
    NullSender,
    /// Each of its needs is met by one of several providers, and all of them by none.
    Combination,
}

/// What several providers can carry. A message goes to one of them, so each counts by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carriage(Vec<Capabilities>);

/// How large a message may be at most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// Its octets, with the fields that this host adds.
    pub octets: u64,
    /// The route that takes no more.
    pub route: Arc<str>,
    /// A recipient whose route that is.
    pub recipient: Address,
}

/// The providers by name, to be asked what they can carry.
#[derive(Clone, Default)]
pub(super) struct Carriers(HashMap<ProviderName, Arc<dyn DynProvider>>);

impl Needs {
    /// What the envelope alone tells.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        Self { size: 0, smtputf8: envelope.smtputf8, null_sender: envelope.reverse_path == ReversePath::Null }
    }
}

/// Why one provider cannot carry a message that needs this.
#[must_use]
pub fn obstacle(capabilities: &Capabilities, needs: &Needs) -> Option<Obstacle> {
    if let Some(max) = capabilities.max_message_size().filter(|max| needs.size > *max) {
        return Some(Obstacle::Size { size: needs.size, max });
    }
    if needs.smtputf8 && !capabilities.smtputf8 {
        return Some(Obstacle::Smtputf8);
    }
    (needs.null_sender && !capabilities.null_sender).then_some(Obstacle::NullSender)
}

impl Carriage {
    /// The largest message that any of them takes, in octets; `None` if one of them sets no limit.
    #[must_use]
    pub fn max_message_size(&self) -> Option<u64> {
        self.max_message_size_for(&Needs::default())
    }

    /// The same, of those that meet the other needs; without any, there is no limit to tell.
    #[must_use]
    pub fn max_message_size_for(&self, needs: &Needs) -> Option<u64> {
        let others = Needs { size: 0, ..*needs };
        let sizes = self.0.iter().filter(|capabilities| obstacle(capabilities, &others).is_none()).map(Capabilities::max_message_size);
        // `None` is more than any number.
        sizes.max_by_key(|size| size.unwrap_or(u64::MAX)).flatten()
    }

    /// Whether any of them carries SMTPUTF8.
    #[must_use]
    pub fn smtputf8(&self) -> bool {
        self.0.iter().any(|capabilities| capabilities.smtputf8)
    }

    /// Whether any of them takes the null reverse-path.
    #[must_use]
    pub fn null_sender(&self) -> bool {
        self.0.iter().any(|capabilities| capabilities.null_sender)
    }

    /// Whether any of them can carry what needs this. With no provider at all, there is nothing to
    /// judge, and nothing is refused here.
    ///
    /// # Errors
    /// The need that none meets; [`Obstacle::Combination`] if there is no single one.
    pub fn check(&self, needs: &Needs) -> Result<(), Obstacle> {
        if self.0.is_empty() || self.0.iter().any(|capabilities| obstacle(capabilities, needs).is_none()) {
            return Ok(());
        }
        match self.max_message_size().filter(|max| needs.size > *max) {
            Some(max) => Err(Obstacle::Size { size: needs.size, max }),
            None if needs.smtputf8 && !self.smtputf8() => Err(Obstacle::Smtputf8),
            None if needs.null_sender && !self.null_sender() => Err(Obstacle::NullSender),
            None => Err(Obstacle::Combination),
        }
    }
}

impl FromIterator<Capabilities> for Carriage {
    fn from_iter<I: IntoIterator<Item = Capabilities>>(capabilities: I) -> Self {
        Self(capabilities.into_iter().collect())
    }
}

impl FromIterator<Self> for Carriage {
    fn from_iter<I: IntoIterator<Item = Self>>(several: I) -> Self {
        Self(several.into_iter().flat_map(|carriage| carriage.0).collect())
    }
}

impl Carriers {
    pub(super) fn new(connected: &[Connected]) -> Self {
        Self(connected.iter().map(|connected| (connected.name.clone(), Arc::clone(&connected.provider))).collect())
    }

    pub(super) fn capabilities(&self, name: &ProviderName) -> Option<Capabilities> {
        self.0.get(name).map(|provider| provider.capabilities())
    }

    pub(super) fn of(&self, names: &[ProviderName]) -> Carriage {
        names.iter().map(|name| self.capabilities(name).unwrap_or(Capabilities::EVERYTHING)).collect()
    }
}

impl fmt::Debug for Carriers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use postrider_providers::contract::SizeLimit;

    use super::*;

    /// (largest message, SMTPUTF8, null sender)
    fn carriage(of: &[(Option<u64>, bool, bool)]) -> Carriage {
        let one = |&(octets, smtputf8, null_sender): &(Option<u64>, bool, bool)| Capabilities {
            max_size: octets.map(SizeLimit::message),
            smtputf8,
            null_sender,
            ..Capabilities::EVERYTHING
        };
        of.iter().map(one).collect()
    }

    fn needs(size: u64, smtputf8: bool, null_sender: bool) -> Needs {
        Needs { size, smtputf8, null_sender }
    }

    #[test]
    fn what_several_can_carry_is_the_best_of_each() {
        for (of, size, smtputf8, null_sender) in [
            (&[(Some(10), false, false)][..], Some(10), false, false),
            (&[(Some(10), false, true), (Some(30), true, false)], Some(30), true, true),
            (&[(Some(10), false, false), (None, false, false)], None, false, false),
            (&[], None, false, false),
        ] {
            let carriage = carriage(of);
            let found = (carriage.max_message_size(), carriage.smtputf8(), carriage.null_sender());
            assert_eq!(found, (size, smtputf8, null_sender), "{of:?}");
        }
    }

    #[test]
    fn the_size_is_that_of_providers_which_meet_the_other_needs() {
        let carriage = carriage(&[(Some(40), false, false), (Some(10), true, false), (Some(20), true, true)]);
        for (needs, expected) in [
            (needs(0, false, false), Some(40)),
            (needs(0, true, false), Some(20)),
            (needs(0, false, true), Some(20)),
            (needs(99, true, true), Some(20)),
        ] {
            assert_eq!(carriage.max_message_size_for(&needs), expected, "{needs:?}");
        }
    }

    #[test]
    fn an_obstacle_is_the_need_that_nobody_meets() {
        let ses_like = (Some(40), false, false);
        let old_host = (Some(10), true, true);
        for (of, needs, expected) in [
            (&[ses_like][..], needs(40, false, false), Ok(())),
            (&[ses_like], needs(41, false, false), Err(Obstacle::Size { size: 41, max: 40 })),
            (&[ses_like], needs(1, true, false), Err(Obstacle::Smtputf8)),
            (&[ses_like], needs(1, false, true), Err(Obstacle::NullSender)),
            (&[ses_like, old_host], needs(41, true, true), Err(Obstacle::Size { size: 41, max: 40 })),
            (&[ses_like, old_host], needs(10, true, true), Ok(())),
            (&[ses_like, old_host], needs(11, true, false), Err(Obstacle::Combination)),
            (&[ses_like, old_host], needs(40, false, false), Ok(())),
            (&[ses_like, (None, true, true)], needs(u64::MAX, true, true), Ok(())),
            (&[], needs(u64::MAX, true, true), Ok(())),
        ] {
            assert_eq!(carriage(of).check(&needs), expected, "{of:?} {needs:?}");
        }
    }
}
