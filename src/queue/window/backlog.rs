//! The lanes as the window knows them: what of each is here, and what waits in the store.

use std::collections::{BTreeSet, HashMap};
use std::time::SystemTime;

use super::WaitReason;
use super::turns::{Tickets, Turns};
use crate::spool::view::Lane;

/// The most lanes that are remembered. Of the others it is known that there are some; they are looked up
/// when those that are known have had their turn.
pub(super) const MOST_LANES: usize = 65_536;

/// The lanes.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Those of which something is here or in the store.
    lanes: HashMap<Lane, Known>,
    /// Lanes of which nothing is due yet, by the time when that changes.
    later: BTreeSet<(SystemTime, Lane)>,
    /// Lanes from which something may be claimed.
    turns: Turns<(), ()>,
    /// When something is due in a lane that is not remembered.
    beyond: Option<SystemTime>,
}

/// What is known of one lane.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Messages of it that are ready or parked.
    pub(super) waiting: usize,
    /// Those of them that are parked.
    pub(super) parked: usize,
    /// Why messages of it were parked last; `None` once one gets away while none is parked.
    pub(super) parked_for: Option<WaitReason>,
    /// When the first that is in the store is due; `None` if there is none.
    due: Option<SystemTime>,
    /// There was no room for it to wait in; it stays in the store until then.
    stays_until: Option<SystemTime>,
    place: Place,
}

/// Where a lane is listed with what it has in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// Nowhere: nothing is in the store, or it has its share of the window.
    #[default]
    Nowhere,
    Later(SystemTime),
    Turn,
    /// A claim is under way.
    Asked,
}

/// Whether there is something to claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// From so many lanes.
    Now(usize),
    /// From lanes that have to be looked up first.
    Unknown,
    /// Not before then, as far as is known.
    Later(Option<SystemTime>),
}

impl Backlog {
    pub(super) fn get(&self, lane: &Lane) -> Option<&Known> {
        self.lanes.get(lane)
    }

    /// The lane, to change what is here of it; [`Backlog::tidy`] comes after that.
    pub(super) fn known(&mut self, lane: &Lane) -> &mut Known {
        self.lanes.entry(lane.clone()).or_default()
    }

    /// Forgets a lane of which there is nothing.
    pub(super) fn tidy(&mut self, lane: &Lane) {
        if self.lanes.get(lane).is_some_and(|known| known.waiting == 0 && known.due.is_none() && known.place == Place::Nowhere) {
            self.lanes.remove(lane);
        }
    }

    /// Whether fresh mail of the lane has to stand behind others in the store.
    pub(super) fn is_behind(&self, lane: &Lane, now: SystemTime) -> bool {
        match self.lanes.get(lane) {
            Some(known) => {
                let is_kept_away = known.stays_until.is_some_and(|until| now < until);
                is_kept_away || known.place == Place::Asked || known.due.is_some_and(|due| due <= now)
            }
            None => self.beyond.is_some_and(|due| due <= now),
        }
    }

    /// Something of the lane waits in the store, due then.
    pub(super) fn note(&mut self, lane: &Lane, due: SystemTime) {
        let known = self.known(lane);
        known.due = Some(known.due.map_or(due, |known| known.min(due)));
        if self.lanes.len() > MOST_LANES {
            self.make_room(lane, due);
        }
    }

    /// Forgets that mail of a lane waits in the store, and remembers only when: of the one that comes last, or
    /// of this one.
    fn make_room(&mut self, lane: &Lane, due: SystemTime) {
        let last = self.later.last().filter(|(at, _)| *at > due).cloned();
        let (at, lane) = last.unwrap_or_else(|| (due, lane.clone()));
        let Some(known) = self.lanes.get_mut(&lane).filter(|known| known.place != Place::Asked) else { return };
        match std::mem::take(&mut known.place) {
            Place::Later(listed) => drop(self.later.remove(&(listed, lane.clone()))),
            Place::Turn => drop(self.turns.remove(&lane, &())),
            Place::Nowhere | Place::Asked => {}
        }
        (known.due, known.stays_until) = (None, None);
        self.beyond = Some(self.beyond.map_or(at, |beyond| beyond.min(at)));
        self.tidy(&lane);
    }

    /// The lane stays in the store until then.
    pub(super) fn keep_away(&mut self, lane: &Lane, until: SystemTime) {
        self.known(lane).stays_until = Some(until);
    }

    /// The lane may come again.
    pub(super) fn let_back(&mut self, lane: &Lane) {
        if let Some(known) = self.lanes.get_mut(lane) {
            known.stays_until = None;
        }
    }

    /// Lists a lane where it belongs. `may_claim`: it has not used its share of the window.
    pub(super) fn list(&mut self, lane: &Lane, may_claim: bool, now: SystemTime, tickets: &mut Tickets) {
        let Some(known) = self.lanes.get_mut(lane) else { return };
        if known.place == Place::Asked {
            return;
        }
        let place = match known.due.map(|due| due.max(known.stays_until.unwrap_or(due))) {
            None => Place::Nowhere,
            Some(due) if due > now => Place::Later(due),
            Some(_) if may_claim => Place::Turn,
            Some(_) => Place::Nowhere,
        };
        if place == known.place {
            return;
        }
        match std::mem::replace(&mut known.place, place) {
            Place::Later(due) => drop(self.later.remove(&(due, lane.clone()))),
            Place::Turn => drop(self.turns.remove(lane, &())),
            Place::Nowhere | Place::Asked => {}
        }
        match place {
            Place::Later(due) => drop(self.later.insert((due, lane.clone()))),
            Place::Turn => self.turns.push(lane, (), (), None, tickets),
            Place::Nowhere | Place::Asked => {}
        }
        self.tidy(lane);
    }

    /// Takes a lane out of which something is due by now that was not before.
    pub(super) fn next_due(&mut self, now: SystemTime) -> Option<Lane> {
        self.later.first().filter(|(due, _)| *due <= now)?;
        let (_, lane) = self.later.pop_first()?;
        if let Some(known) = self.lanes.get_mut(&lane) {
            known.place = Place::Nowhere;
        }
        Some(lane)
    }

    /// Whether something may be claimed now.
    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }

    pub(super) fn outlook(&self, now: SystemTime) -> Outlook {
        if !self.turns.is_empty() {
            return Outlook::Now(self.turns.len());
        }
        if self.beyond.is_some_and(|due| due <= now) {
            return Outlook::Unknown;
        }
        Outlook::Later(self.later.first().map(|(due, _)| *due).into_iter().chain(self.beyond).min())
    }

    /// The lane whose turn it is to be claimed from.
    pub(super) fn next_turn(&mut self, tickets: &mut Tickets) -> Option<Lane> {
        let (lane, ..) = self.turns.pop(tickets)?;
        self.known(&lane).place = Place::Nowhere;
        Some(lane)
    }

    /// A claim is under way. Whatever is noted until it has ended counts besides what it tells.
    pub(super) fn ask(&mut self, lane: &Lane) {
        let known = self.known(lane);
        known.place = Place::Asked;
        known.due = None;
    }

    /// The claim has ended, and something is due then.
    pub(super) fn answered(&mut self, lane: &Lane, next_due: Option<SystemTime>) {
        let known = self.known(lane);
        known.place = Place::Nowhere;
        known.due = known.due.into_iter().chain(next_due).min();
    }

    /// All lanes were looked up, and those that are not remembered have something due then at the earliest.
    pub(super) fn looked_up(&mut self, beyond: Option<SystemTime>) {
        self.beyond = beyond;
    }
}
