//! What people have stopped, and which routes they have pinned: now, and when before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use postrider_providers::contract::{Message, ProviderName};
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::spans::Spans;
use super::{By, Pause, Pin, Subject};
use crate::config::Route;
use crate::history::event::millis;
use crate::queue::WaitReason;

/// Under this the spool keeps all of it.
pub(in crate::dispatch) const NOTES: &str = "control/";

/// For how long it is known when something was stopped: for longer than any mail waits.
const KEPT: Duration = Duration::from_secs(400 * 86_400);

/// So many times at most are known of one subject.
const MOST_SPANS: usize = 256;

/// What waits looks again after half the time for which it was stopped already, within these bounds: what
/// is parked is woken when it may go, what has no room to be parked is not.
const LOOKS_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(900));

/// How something is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::dispatch) enum How {
    /// The circuit of a provider is open by a person's word.
    Tripped,
    /// A provider gets no new mail.
    Drained,
    /// Nothing goes.
    Paused,
}

/// Everything that people have decided. Clones of what is in it are never taken: it is looked at in place.
#[derive(Debug, Default)]
pub(in crate::dispatch) struct Holds {
    decided: RwLock<Decided>,
    /// One command at a time.
    pub(super) deciding: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Decided {
    stops: BTreeMap<(How, Subject), Stop>,
    pins: BTreeMap<Arc<str>, Pin>,
}

/// When something was stopped.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop {
    /// Who, if it is stopped now.
    pub(super) now: Option<By>,
    /// When it was before.
    past: Vec<(SystemTime, SystemTime)>,
}

/// A stop as it is written down. Times are milliseconds since 1970.
#[derive(Debug, Serialize, Deserialize)]
struct StopNote {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    now: Option<(Arc<str>, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    past: Vec<(u64, u64)>,
}

/// A pin as it is written down.
#[derive(Debug, Serialize, Deserialize)]
struct PinNote {
    provider: String,
    who: Arc<str>,
    at: u64,
}

fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

impl How {
    fn name(self) -> &'static str {
        match self {
            Self::Tripped => "trip",
            Self::Drained => "drain",
            Self::Paused => "pause",
        }
    }

    /// What waits for it, waits for this.
    pub(super) fn reason(self, subject: &Subject, by: &By) -> WaitReason {
        let By { who, .. } = by;
        WaitReason::new(match self {
            Self::Tripped => format!("{subject}, whose circuit {who} has opened"),
            Self::Drained => format!("{subject}, which {who} drains"),
            Self::Paused => format!("{subject}, which {who} has paused"),
        })
    }
}

/// The key of a stop in the spool.
pub(super) fn stop_key(how: How, subject: &Subject) -> String {
    let (what, name) = subject.parts();
    format!("{NOTES}{}/{what}/{name}", how.name())
}

/// The key of a pin in the spool.
pub(super) fn pin_key(route: &str) -> String {
    format!("{NOTES}pin/{route}")
}

impl Stop {
    /// The same, begun or ended at `at`.
    fn changed(&self, now: Option<By>, at: SystemTime) -> Self {
        let mut past = self.past.clone();
        if let Some(before) = &self.now {
            past.push((before.at, at));
        }
        past.retain(|(_, ended)| *ended + KEPT > at);
        let surplus = past.len().saturating_sub(MOST_SPANS);
        past.drain(..surplus);
        Self { now, past }
    }

    /// As it is written down; `None` if there is nothing to know.
    pub(super) fn note(&self) -> Option<String> {
        let note = StopNote {
            now: self.now.as_ref().map(|by| (Arc::clone(&by.who), millis(by.at))),
            past: self.past.iter().map(|(from, to)| (millis(*from), millis(*to))).collect(),
        };
        (note.now.is_some() || !note.past.is_empty()).then(|| serde_json::to_string(&note).ok()).flatten()
    }

    fn spans(&self, until: SystemTime) -> impl Iterator<Item = (SystemTime, SystemTime)> {
        self.past.iter().copied().chain(self.now.as_ref().map(|by| (by.at, until)))
    }
}

impl Pin {
    /// As it is written down.
    pub(super) fn note(&self) -> Option<String> {
        let Self { provider, by, .. } = self;
        serde_json::to_string(&PinNote { provider: provider.to_string(), who: Arc::clone(&by.who), at: millis(by.at) }).ok()
    }
}

impl Holds {
    /// Takes up one note of before a restart.
    pub(in crate::dispatch) fn restore(&self, key: &str, note: &str) {
        if self.read(key, note).is_none() {
            warn!(key, "what a person has decided cannot be read; it does not hold any more");
        }
    }

    fn read(&self, key: &str, note: &str) -> Option<()> {
        let (kind, rest) = key.strip_prefix(NOTES)?.split_once('/')?;
        let mut decided = self.decided.write();
        if kind == "pin" {
            let PinNote { provider, who, at } = serde_json::from_str(note).ok()?;
            let (route, provider) = (Arc::<str>::from(rest), ProviderName::from(provider.as_str()));
            decided.pins.insert(Arc::clone(&route), Pin { route, provider, by: By { who, at: time(at) } });
            return Some(());
        }
        let how = [How::Tripped, How::Drained, How::Paused].into_iter().find(|how| how.name() == kind)?;
        let (what, name) = rest.split_once('/')?;
        let StopNote { now, past } = serde_json::from_str(note).ok()?;
        let stop = Stop {
            now: now.map(|(who, at)| By { who, at: time(at) }),
            past: past.into_iter().map(|(from, to)| (time(from), time(to))).collect(),
        };
        decided.stops.insert((how, Subject::of_parts(what, name)?), stop);
        Some(())
    }

    /// What a stop would be if it began, or ended, at `at`; `None` if it is so already.
    pub(super) fn changed(&self, how: How, subject: &Subject, now: Option<By>, at: SystemTime) -> Option<Stop> {
        let decided = self.decided.read();
        let stop = decided.stops.get(&(how, subject.clone())).cloned().unwrap_or_default();
        (stop.now.is_some() != now.is_some()).then(|| stop.changed(now, at))
    }

    /// Makes it so. Gives what was waited for, if nothing is any more.
    pub(super) fn change(&self, how: How, subject: &Subject, stop: Stop) -> Option<WaitReason> {
        let is_stopped = stop.now.is_some();
        let before = self.decided.write().stops.insert((how, subject.clone()), stop);
        before.and_then(|before| before.now).filter(|_| !is_stopped).map(|by| how.reason(subject, &by))
    }

    /// Pins a route, or unpins it.
    pub(super) fn pin(&self, route: &Arc<str>, pin: Option<Pin>) {
        let pins = &mut self.decided.write().pins;
        match pin {
            Some(pin) => pins.insert(Arc::clone(route), pin),
            None => pins.remove(route),
        };
    }

    /// The provider that a route is pinned to, as long as it names it.
    pub(in crate::dispatch) fn pinned(&self, route: &Route) -> Option<ProviderName> {
        self.pin_of(route).map(|pin| pin.provider)
    }

    /// The same, with who said so.
    pub(in crate::dispatch) fn pin_of(&self, route: &Route) -> Option<Pin> {
        self.decided.read().pins.get(&route.name).filter(|pin| route.providers.contains(&pin.provider)).cloned()
    }

    /// The pins.
    pub(super) fn pins(&self) -> Vec<Pin> {
        self.decided.read().pins.values().cloned().collect()
    }

    /// The pauses.
    pub(super) fn pauses(&self) -> Vec<Pause> {
        let decided = self.decided.read();
        let paused = decided.stops.iter().filter(|((how, _), _)| *how == How::Paused);
        paused.filter_map(|((_, subject), stop)| Some(Pause { subject: subject.clone(), by: stop.now.clone()? })).collect()
    }

    /// Who has stopped this, if it is stopped.
    pub(super) fn by(&self, how: How, subject: &Subject) -> Option<By> {
        self.decided.read().stops.get(&(how, subject.clone()))?.now.clone()
    }

    /// What keeps mail from a provider, and when to look again.
    pub(in crate::dispatch) fn of_provider(
        &self,
        name: &ProviderName,
        in_doubt: bool,
        now: SystemTime,
    ) -> Option<(WaitReason, SystemTime)> {
        let hows: &[How] = if in_doubt { &[How::Paused, How::Tripped] } else { &[How::Paused, How::Tripped, How::Drained] };
        let subject = Subject::Provider(name.clone());
        self.stopped(hows.iter().map(|how| (*how, subject.clone())), now)
    }

    /// What keeps a message from going by this route at all, and when to look again.
    pub(in crate::dispatch) fn of_message(&self, message: &Message, route: &Route, now: SystemTime) -> Option<(WaitReason, SystemTime)> {
        self.stopped(subjects(message, route).map(|subject| (How::Paused, subject)), now)
    }

    fn stopped(&self, keys: impl Iterator<Item = (How, Subject)>, now: SystemTime) -> Option<(WaitReason, SystemTime)> {
        let decided = self.decided.read();
        if decided.stops.is_empty() {
            return None;
        }
        keys.into_iter().find_map(|key| {
            let by = decided.stops.get(&key)?.now.as_ref()?;
            let half = now.duration_since(by.at).unwrap_or_default() / 2;
            Some((key.0.reason(&key.1, by), now + half.clamp(LOOKS_AGAIN.0, LOOKS_AGAIN.1)))
        })
    }

    /// How long a message was kept from going since it came: by what it comes from and how it goes, or
    /// because each of its candidates was stopped.
    pub(in crate::dispatch) fn kept(
        &self,
        message: &Message,
        route: &Route,
        candidates: &[ProviderName],
        in_doubt: bool,
        now: SystemTime,
    ) -> Duration {
        let decided = self.decided.read();
        if decided.stops.is_empty() {
            return Duration::ZERO;
        }
        let spans = |how, subject: Subject| decided.stops.get(&(how, subject)).into_iter().flat_map(|stop| stop.spans(now));
        let whole = Spans::any(subjects(message, route).flat_map(|subject| spans(How::Paused, subject)));
        let of = |name: &ProviderName| {
            let hows = [How::Paused, How::Tripped, How::Drained].into_iter().filter(|how| !in_doubt || *how != How::Drained);
            Spans::any(hows.flat_map(|how| spans(how, Subject::Provider(name.clone()))))
        };
        let each = candidates.iter().map(of).reduce(|one, other| one.and(&other)).unwrap_or_default();
        whole.or(&each).within(message.received, now)
    }
}

/// What a message can be stopped by, its candidates aside.
fn subjects<'a>(message: &'a Message, route: &'a Route) -> impl Iterator<Item = Subject> {
    let domain = message.envelope.reverse_path.domain().map(|domain| Subject::Domain(domain.to_ascii_lowercase().into()));
    let application = message.origin.application.as_ref().map(|name| Subject::Application(Arc::clone(name)));
    [Some(Subject::Route(Arc::clone(&route.name))), domain, application].into_iter().flatten()
}
