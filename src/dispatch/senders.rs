//! Senders that a provider has refused: it is not asked again for each message of theirs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use postrider_providers::contract::{Diagnostic, ProviderName, ReversePath};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::control::RefusedSender;
use super::notebook::Notebook;
use super::vitals::words;
use crate::clock::Clock;
use crate::history::event::millis;
use crate::queue::WaitReason;

/// Under this and the provider's name, the spool keeps them.
pub(super) const NOTES: &str = "refused/";

/// For how long a sender is passed over at first, and at most when it is refused again and again.
const WAITS: (Duration, Duration) = (Duration::from_secs(3600), Duration::from_secs(86_400));

/// As many are remembered of one provider; then those that end first are forgotten.
const MOST: usize = 1000;

/// What one provider has refused. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Senders(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: ProviderName,
    clock: Clock,
    notebook: Notebook,
    refused: RwLock<HashMap<Arc<str>, Refused>>,
}

/// One sender. Times are milliseconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Refused {
    since: u64,
    until: u64,
    words: String,
}

impl Refused {
    fn until(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.until)
    }
}

impl Senders {
    pub(super) fn new(provider: ProviderName, clock: Clock, notebook: Notebook) -> Self {
        Self(Arc::new(Inner { provider, clock, notebook, refused: RwLock::default() }))
    }

    /// What there is to wait for before this sender is tried here again, and until when.
    pub(super) fn refusal(&self, from: &ReversePath) -> Option<(WaitReason, SystemTime)> {
        let Inner { provider, clock, refused, .. } = &*self.0;
        let refused = refused.read();
        if refused.is_empty() {
            return None;
        }
        let now = clock.now();
        keys(from).into_iter().find_map(|key| {
            let until = refused.get(&*key)?.until();
            (until > now).then(|| (reason(provider, &key), until))
        })
    }

    /// Learns that the provider has refused this sender.
    pub(super) fn learn(&self, from: &ReversePath, diagnostic: &Diagnostic) {
        let Some(key) = spoken_of(from, &diagnostic.text) else { return };
        let Inner { provider, clock, refused, notebook } = &*self.0;
        let now = clock.now();
        let mut refused = refused.write();
        let before = refused.get(&*key);
        if before.is_some_and(|before| before.until() > now) {
            // Another of those that were on their way already.
            return;
        }
        let wait = before.map_or(WAITS.0, |before| Duration::from_millis(before.until.saturating_sub(before.since)) * 2).min(WAITS.1);
        let learnt = Refused { since: millis(now), until: millis(now + wait), words: words(diagnostic) };
        warn!(%provider, sender = %key, passed_over_for = ?wait, reason = learnt.words, "the provider refuses this sender");
        notebook.keep(self.key(&key), serde_json::to_string(&learnt).ok());
        refused.insert(key, learnt);
        if refused.len() > MOST
            && let Some(first) = refused.iter().min_by_key(|(_, refused)| refused.until).map(|(key, _)| Arc::clone(key))
        {
            refused.remove(&first);
            notebook.keep(self.key(&first), None);
        }
    }

    /// Learns that the provider has taken a message of this sender.
    pub(super) fn forget(&self, from: &ReversePath) {
        let Inner { provider, refused, notebook, .. } = &*self.0;
        if refused.read().is_empty() {
            return;
        }
        let mut refused = refused.write();
        for key in keys(from) {
            if refused.remove(&*key).is_some() {
                info!(%provider, sender = %key, "the provider takes this sender again");
                notebook.keep(self.key(&key), None);
            }
        }
    }

    /// Forgets all of them; gives what was waited for.
    pub(super) fn reset(&self) -> Vec<WaitReason> {
        let Inner { provider, refused, notebook, .. } = &*self.0;
        let all = std::mem::take(&mut *refused.write());
        let forget = |key: &Arc<str>| {
            notebook.keep(self.key(key), None);
            reason(provider, key)
        };
        all.keys().map(forget).collect()
    }

    /// Takes up what was written down before a restart.
    pub(super) fn restore(&self, sender: &str, note: &str) {
        match serde_json::from_str(note) {
            Ok(note) => drop(self.0.refused.write().insert(sender.into(), note)),
            Err(error) => warn!(provider = %self.0.provider, sender, %error, "what was recorded of a refused sender cannot be read"),
        }
    }

    /// Those that are passed over now, by name.
    pub(super) fn list(&self) -> Vec<RefusedSender> {
        let now = self.0.clock.now();
        let refused = self.0.refused.read();
        let mut list: Vec<_> = refused
            .iter()
            .filter(|(_, refused)| refused.until() > now)
            .map(|(sender, refused)| RefusedSender {
                sender: Arc::clone(sender),
                since: SystemTime::UNIX_EPOCH + Duration::from_millis(refused.since),
                until: refused.until(),
                words: refused.words.clone(),
            })
            .collect();
        list.sort_by(|one, other| one.sender.cmp(&other.sender));
        list
    }

    fn key(&self, sender: &str) -> String {
        format!("{NOTES}{}/{sender}", self.0.provider)
    }
}

fn reason(provider: &ProviderName, sender: &str) -> WaitReason {
    WaitReason::new(format!("{provider}, which refuses the sender {sender}"))
}

/// What a sender is remembered by: its address, its domain.
fn keys(from: &ReversePath) -> Vec<Arc<str>> {
    let address = from.address().map(|address| address.as_str().to_ascii_lowercase().into());
    address.into_iter().chain(from.domain().map(|domain| domain.to_ascii_lowercase().into())).collect()
}

/// What a refusal is about: the address if it says that one, the domain if it says none. One that speaks of
/// other addresses is about the header of this message, and says nothing about the sender's next.
fn spoken_of(from: &ReversePath, text: &str) -> Option<Arc<str>> {
    let [address, domain] = <[Arc<str>; 2]>::try_from(keys(from)).ok()?;
    let is_between = |c: char| c.is_whitespace() || "<>()[]{},;:\"'`".contains(c);
    let mut addresses = text.split(is_between).map(|word| word.trim_end_matches('.')).filter(|word| is_address(word)).peekable();
    if addresses.peek().is_none() {
        return Some(domain);
    }
    addresses.any(|word| word.eq_ignore_ascii_case(&address)).then_some(address)
}

fn is_address(word: &str) -> bool {
    word.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders() -> (Senders, Notebook) {
        let notebook = Notebook::default();
        let clock = Clock::following_tokio(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000));
        (Senders::new("ses.eu".into(), clock, notebook.clone()), notebook)
    }

    fn from(address: &str) -> ReversePath {
        ReversePath::Mailbox(address.parse().unwrap())
    }

    #[test]
    fn a_refusal_is_about_the_domain_unless_it_speaks_of_addresses() {
        for (text, expected) in [
            ("5.7.60 Client does not have permissions to send as this sender", Some("corp.example")),
            ("554 Message rejected: Email address is not verified: a@corp.example.", Some("a@corp.example")),
            ("relay@corp.example is not allowed to send as <A@Corp.example>;", Some("a@corp.example")),
            ("The following identities failed the check in region EU: x@other.example", None),
            ("the domain corp.example is not verified @ this service", Some("corp.example")),
        ] {
            assert_eq!(spoken_of(&from("a@corp.example"), text).as_deref(), expected, "{text}");
        }
        assert_eq!(spoken_of(&ReversePath::Null, "no"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_is_passed_over_for_an_hour_and_twice_as_long_each_time_up_to_a_day() {
        let (senders, _) = senders();
        let why = Diagnostic::local("the sender is not verified");
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            senders.learn(&from("a@corp.example"), &why);
            senders.learn(&from("b@Corp.Example"), &why);
            let (reason, until) = senders.refusal(&from("c@CORP.example")).unwrap();
            assert_eq!(reason.as_str(), "ses.eu, which refuses the sender corp.example");
            assert_eq!(until.duration_since(senders.0.clock.now()).unwrap(), Duration::from_secs(hours * 3600));
            assert!(senders.refusal(&from("a@other.example")).is_none());
            tokio::time::advance(Duration::from_secs(hours * 3600)).await;
            assert!(senders.refusal(&from("a@corp.example")).is_none());
        }
        senders.forget(&from("a@corp.example"));
        senders.learn(&from("a@corp.example"), &why);
        let until = senders.list()[0].until;
        assert_eq!(until.duration_since(senders.0.clock.now()).unwrap(), WAITS.0, "a success has ended it");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_is_bounded() {
        let (senders, notebook) = senders();
        for number in 0..MOST + 5 {
            senders.learn(&from(&format!("a@d{number}.example")), &Diagnostic::local("no"));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(senders.list().len(), MOST);
        assert!(senders.refusal(&from("a@d4.example")).is_none() && senders.refusal(&from("a@d5.example")).is_some());
        let spool = crate::spool::memory::MemorySpool::new();
        notebook.flush(&spool).await.unwrap();
        assert_eq!(crate::spool::Spool::recall(&spool, NOTES).await.unwrap().len(), MOST);
    }
}
