//! Taking turns: over the lanes of one priority one after the other, over the priorities by weight.

use std::collections::{BTreeMap, HashMap};

use postrider_providers::contract::Priority;

use crate::spool::view::Lane;

/// What one turn costs a priority: 8 turns of `high` to 4 of `normal` to 1 of `bulk`.
const COSTS: [u64; 3] = [1, 2, 8];

/// Things that wait in lanes. What is next in a lane is its least key.
///
/// A turn that came to nothing can be given back, and then the lane stands where it stood: whoever is
/// refused again and again is not overtaken again and again.
#[derive(Debug)]
pub(super) struct Turns<K, T> {
    /// None of them is empty.
    lanes: HashMap<Lane, Line<K, T>>,
    /// Whose turn it is, for each priority.
    order: [BTreeMap<Ticket, Lane>; 3],
    /// What each priority has spent. The one that has spent least is next.
    spent: [u64; 3],
    len: usize,
}

/// A place in the order of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Gives out tickets, each one once.
#[derive(Debug, Default)]
pub(super) struct Tickets(u64);

#[derive(Debug)]
struct Line<K, T> {
    ticket: Ticket,
    things: BTreeMap<K, T>,
}

impl Tickets {
    fn next(&mut self) -> Ticket {
        self.0 += 1;
        Ticket(self.0)
    }
}

impl<K, T> Default for Turns<K, T> {
    fn default() -> Self {
        Self { lanes: HashMap::new(), order: Default::default(), spent: [0; 3], len: 0 }
    }
}

impl<K: Ord, T> Turns<K, T> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds something to a lane. `back`: it had its turn here, with this ticket, and that came to nothing.
    pub(super) fn push(&mut self, lane: &Lane, key: K, thing: T, back: Option<Ticket>, tickets: &mut Tickets) {
        let class = class(lane.priority);
        match back {
            Some(_) => self.spent[class] = self.spent[class].saturating_sub(COSTS[class]),
            // Who was away has no claim to what the others had meanwhile.
            None if self.order[class].is_empty() => {
                let least = (0..3).filter(|other| !self.order[*other].is_empty()).map(|other| self.spent[other]).min();
                self.spent[class] = self.spent[class].max(least.unwrap_or(0));
            }
            None => {}
        }
        self.len += 1;
        if let Some(line) = self.lanes.get_mut(lane) {
            if let Some(ticket) = back.filter(|ticket| *ticket < line.ticket) {
                self.order[class].remove(&line.ticket);
                line.ticket = ticket;
                self.order[class].insert(ticket, lane.clone());
            }
            self.len -= usize::from(line.things.insert(key, thing).is_some());
            return;
        }
        let ticket = back.unwrap_or_else(|| tickets.next());
        self.order[class].insert(ticket, lane.clone());
        self.lanes.insert(lane.clone(), Line { ticket, things: BTreeMap::from([(key, thing)]) });
    }

    /// Takes what is next, with the ticket of its turn.
    pub(super) fn pop(&mut self, tickets: &mut Tickets) -> Option<(Lane, Ticket, T)> {
        let class = (0..3).filter(|class| !self.order[*class].is_empty()).min_by_key(|class| self.spent[*class])?;
        self.spent[class] += COSTS[class];
        let (ticket, lane) = self.order[class].pop_first()?;
        let line = self.lanes.get_mut(&lane)?;
        let (_, thing) = line.things.pop_first()?;
        self.len -= 1;
        if line.things.is_empty() {
            self.lanes.remove(&lane);
        } else {
            line.ticket = tickets.next();
            self.order[class].insert(line.ticket, lane.clone());
        }
        Some((lane, ticket, thing))
    }

    /// Takes one thing out of turn.
    pub(super) fn remove(&mut self, lane: &Lane, key: &K) -> Option<T> {
        let line = self.lanes.get_mut(lane)?;
        let thing = line.things.remove(key)?;
        self.len -= 1;
        if line.things.is_empty() {
            self.order[class(lane.priority)].remove(&line.ticket);
            self.lanes.remove(lane);
        }
        Some(thing)
    }
}

fn class(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Bulk => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(priority: Priority, domain: &str) -> Lane {
        Lane { priority, route: "all".into(), domain: domain.into() }
    }

    fn popped(turns: &mut Turns<u32, ()>, tickets: &mut Tickets, count: usize) -> String {
        (0..count).filter_map(|_| turns.pop(tickets)).map(|(lane, ..)| lane.domain.to_string()).collect()
    }

    #[test]
    fn lanes_of_one_priority_take_turns_however_much_waits_in_each() {
        let (mut turns, mut tickets) = (Turns::default(), Tickets::default());
        for number in 0..100 {
            turns.push(&lane(Priority::Normal, "a"), number, (), None, &mut tickets);
        }
        for (number, domain) in [(0, "b"), (1, "b"), (0, "c")] {
            turns.push(&lane(Priority::Normal, domain), number, (), None, &mut tickets);
        }
        assert_eq!(popped(&mut turns, &mut tickets, 8), "abcabaaa");
        assert_eq!(turns.len(), 95);
        assert_eq!(turns.remove(&lane(Priority::Normal, "b"), &0), None);
        for number in 0..100 {
            turns.remove(&lane(Priority::Normal, "a"), &number);
        }
        assert!(turns.is_empty() && turns.pop(&mut tickets).is_none());
    }

    #[test]
    fn priorities_take_turns_by_weight_and_none_starves() {
        let (mut turns, mut tickets) = (Turns::default(), Tickets::default());
        for number in 0..200 {
            for (priority, domain) in [(Priority::High, "h"), (Priority::Normal, "n"), (Priority::Bulk, "b")] {
                turns.push(&lane(priority, domain), number, (), None, &mut tickets);
            }
        }
        for round in 0..5 {
            let turn = popped(&mut turns, &mut tickets, 13);
            let count = |domain| turn.chars().filter(|one| *one == domain).count();
            assert_eq!((count('h'), count('n'), count('b')), (8, 4, 1), "round {round}: {turn}");
        }
        // Bulk mail alone has all of it, and that is not held against it.
        let (mut turns, mut tickets) = (Turns::default(), Tickets::default());
        for number in 0..200 {
            turns.push(&lane(Priority::Bulk, "b"), number, (), None, &mut tickets);
        }
        popped(&mut turns, &mut tickets, 100);
        for number in 0..200 {
            turns.push(&lane(Priority::High, "h"), number, (), None, &mut tickets);
        }
        let turn = popped(&mut turns, &mut tickets, 90);
        assert_eq!(turn.chars().filter(|one| *one == 'b').count(), 10, "{turn}");
    }

    #[test]
    fn who_is_refused_keeps_the_place() {
        let (mut turns, mut tickets) = (Turns::default(), Tickets::default());
        let priorities = [(Priority::High, "h"), (Priority::Normal, "n"), (Priority::Normal, "m"), (Priority::Bulk, "b")];
        for number in 0..1000 {
            for (priority, domain) in priorities {
                turns.push(&lane(priority, domain), number, (), None, &mut tickets);
            }
        }
        // Sixteen are let go each time, and the first of them alone finds something.
        let mut served = String::new();
        let mut numbers = 1000..;
        for _ in 0..130 {
            let mut batch: Vec<_> = (0..16).filter_map(|_| turns.pop(&mut tickets)).collect();
            served.push_str(&batch.remove(0).0.domain);
            for (lane, ticket, ()) in batch {
                turns.push(&lane, numbers.next().unwrap(), (), Some(ticket), &mut tickets);
            }
        }
        let count = |domain| served.chars().filter(|one| *one == domain).count();
        assert_eq!((count('h'), count('n'), count('m'), count('b')), (80, 20, 20, 10), "{served}");
    }
}
