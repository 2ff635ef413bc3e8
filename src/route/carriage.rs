//! What providers can carry, asked of them at that moment, and what a message needs; the judging is pure.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use postrider_providers::contract::{Address, Capabilities, Connected, ContentForm, DynProvider, Envelope, ProviderName, ReversePath};
use postrider_providers::mime::signature::Signature;

use crate::config::Route;

/// What a message needs of a provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Its octets, as far as that is known; 0 otherwise.
    pub size: u64,
    /// Whether it cannot be handed over without SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// Whether its reverse-path is null.
    pub null_sender: bool,
    /// Whether its route passes over providers that take fields instead of the message.
    pub raw_only: bool,
    /// What is signed about it, and must not break; `None` also as long as that is not known.
    pub signature: Option<Signature>,
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
    /// The route wants it to go as it is, and fields are taken instead.
    RawOnly,
    /// Its signature would break.
    Signature(Signature),
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
        Self { smtputf8: envelope.smtputf8, null_sender: envelope.reverse_path == ReversePath::Null, ..Self::default() }
    }

    /// The same on this route, which says what becomes of signatures.
    #[must_use]
    pub fn on(self, route: &Route) -> Self {
        Self { raw_only: route.raw_only, signature: self.signature.filter(|_| !route.break_signatures), ..self }
    }
}

impl Obstacle {
    /// Its name for machines.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Size { .. } => "size",
            Self::Smtputf8 => "smtputf8",
            Self::NullSender => "null_sender",
            Self::RawOnly => "raw_only",
            Self::Signature(_) => "signature",
            Self::Combination => "combination",
        }
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
    if needs.null_sender && !capabilities.null_sender {
        return Some(Obstacle::NullSender);
    }
    if capabilities.content != ContentForm::Fields {
        return None;
    }
    if needs.raw_only { Some(Obstacle::RawOnly) } else { needs.signature.map(Obstacle::Signature) }
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

    /// Whether any of them takes 8-bit content (RFC 6152).
    #[must_use]
    pub fn eight_bit(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|capabilities| capabilities.eight_bit)
    }

    /// Whether any of them takes messages as they are, and not fields.
    fn keeps_messages(&self) -> bool {
        self.0.iter().any(|capabilities| capabilities.content != ContentForm::Fields)
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
            None if self.keeps_messages() => Err(Obstacle::Combination),
            None if needs.raw_only => Err(Obstacle::RawOnly),
            None => Err(needs.signature.map_or(Obstacle::Combination, Obstacle::Signature)),
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

    /// What the candidates of a route can carry. Those that it passes over count for nothing.
    pub(super) fn of(&self, route: &Route) -> Carriage {
        let all = route.providers.iter().map(|name| self.capabilities(name).unwrap_or(Capabilities::EVERYTHING));
        all.filter(|capabilities| !(route.raw_only && capabilities.content == ContentForm::Fields)).collect()
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
        Needs { size, smtputf8, null_sender, ..Needs::default() }
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

    #[test]
    fn what_must_not_break_goes_to_those_alone_that_take_messages_as_they_are() {
        let raw = Capabilities { null_sender: false, max_size: Some(SizeLimit::message(10)), ..Capabilities::EVERYTHING };
        let fields = Capabilities { max_size: Some(SizeLimit::message(20)), ..Capabilities::FIELDS };
        let signed = Needs { signature: Some(Signature::Smime), ..Needs::default() };
        let raw_only = Needs { raw_only: true, ..Needs::default() };
        for (of, needs, expected) in [
            (&[raw, fields][..], signed, Ok(())),
            (&[raw, fields], raw_only, Ok(())),
            (&[fields], Needs::default(), Ok(())),
            (&[fields], signed, Err(Obstacle::Signature(Signature::Smime))),
            (&[fields], raw_only, Err(Obstacle::RawOnly)),
            (&[fields], Needs { size: 21, ..signed }, Err(Obstacle::Size { size: 21, max: 20 })),
            (&[raw, fields], Needs { size: 15, ..signed }, Err(Obstacle::Combination)),
        ] {
            assert_eq!(of.iter().copied().collect::<Carriage>().check(&needs), expected, "{needs:?}");
        }
        let breaks = Route { break_signatures: true, ..Route::default() };
        assert_eq!((signed.on(&Route::default()), signed.on(&breaks)), (signed, Needs::default()));
    }
}
