//! From a filter to SQL.
//!
//! Whatever is asked, the answer comes in the order of ids, so that it can be read in pieces. There are
//! four ways to it, and which one is taken decides how long it takes: by the ids themselves, by the index
//! of states, through the recipients, or through the messages.

use std::time::SystemTime;

use postrider_providers::contract::MessageId;
use rusqlite::types::Value;

use super::super::record::millis;
use crate::spool::filter::{Filter, Pattern, Term, received_before};
use crate::spool::view::QueueState;

/// A query for ids, and its parameters.
pub(super) struct Query {
    pub(super) sql: String,
    pub(super) parameters: Vec<Value>,
}

/// How the messages are come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Ids,
    States,
    Recipients,
    Messages,
}

/// The conditions so far, and their parameters.
#[derive(Default)]
struct Conditions {
    parameters: Vec<Value>,
}

impl Query {
    /// The ids of what `filter` means, behind `after`; at most `limit`, if there is one.
    pub(super) fn ids(filter: &Filter, now: SystemTime, after: Option<MessageId>, limit: Option<usize>) -> Self {
        let way = Way::of(filter);
        let mut conditions = Conditions::default();
        let of_messages = conditions.all(filter.terms.iter().filter(|term| !term.is_about_a_recipient()), now);
        let of_recipients = conditions.all(filter.terms.iter().filter(|term| term.is_about_a_recipient()), now);
        let after = after.map(|after| conditions.bind(after.as_bytes().to_vec()));
        let behind = |column: &str| after.as_ref().map(|after| format!(" AND {column} > {after}")).unwrap_or_default();
        let has_recipient = match of_recipients.is_empty() {
            true => String::new(),
            false => format!(" AND EXISTS (SELECT 1 FROM recipients AS r WHERE r.message = m.id{of_recipients})"),
        };
        let mut sql = match way {
            Way::Recipients => format!(
                "SELECT m.id FROM recipients AS r NOT INDEXED CROSS JOIN messages AS m ON m.id = r.message \
                 WHERE m.owner IS NOT 0{of_recipients}{}{of_messages} GROUP BY r.message ORDER BY r.message",
                behind("r.message")
            ),
            Way::States => {
                let behind = behind("m.id");
                let rest = format!("{of_messages}{has_recipient}{behind}");
                let waiting = filter.states().into_iter().filter(|state| *state != QueueState::Active).map(|state| {
                    let state = state.as_str();
                    format!(
                        "SELECT m.id FROM messages AS m INDEXED BY messages_standing WHERE m.owner IS NULL AND m.standing = '{state}'{rest}"
                    )
                });
                let leased =
                    format!("SELECT m.id FROM messages AS m INDEXED BY messages_leased WHERE m.owner IS NOT NULL AND m.owner > 0{rest}");
                let parts: Vec<_> = waiting.chain([leased]).collect();
                format!("{} ORDER BY 1", parts.join(" UNION ALL "))
            }
            Way::Ids | Way::Messages => format!(
                "SELECT m.id FROM messages AS m NOT INDEXED WHERE m.owner IS NOT 0{of_messages}{has_recipient}{} ORDER BY m.id",
                behind("m.id")
            ),
        };
        if let Some(limit) = limit {
            let limit = conditions.bind(i64::try_from(limit).unwrap_or(i64::MAX));
            sql.push_str(&format!(" LIMIT {limit}"));
        }
        Self { sql, parameters: conditions.parameters }
    }

    /// How many there are.
    pub(super) fn count(filter: &Filter, now: SystemTime) -> Self {
        let Self { sql, parameters } = Self::ids(filter, now, None, None);
        Self { sql: format!("SELECT count(*) FROM ({sql})"), parameters }
    }
}

impl Filter {
    /// The states in which a message can be that is meant; all, if nothing is said about them.
    fn states(&self) -> Vec<QueueState> {
        let allows = |state: &QueueState| {
            self.terms.iter().all(|term| match term {
                Term::State(states) => states.contains(state),
                _ => true,
            })
        };
        QueueState::ALL.into_iter().filter(allows).collect()
    }
}

impl Way {
    fn of(filter: &Filter) -> Self {
        let has = |is: fn(&Term) -> bool| filter.terms.iter().any(is);
        let is_rare = |state: &QueueState| !matches!(state, QueueState::Deferred | QueueState::Queued);
        // What stands in the index of states, so that the messages themselves need not be looked at.
        let is_covered = |term: &Term| matches!(term, Term::State(_) | Term::Older(_) | Term::Younger(_) | Term::Priority(_));
        if has(|term| matches!(term, Term::Id(_))) {
            Self::Ids
        } else if has(|term| matches!(term, Term::State(_))) && (filter.states().iter().all(is_rare) || filter.terms.iter().all(is_covered))
        {
            Self::States
        } else if has(Term::is_about_a_recipient) {
            Self::Recipients
        } else {
            Self::Messages
        }
    }
}

impl Conditions {
    /// A parameter, by its number.
    fn bind(&mut self, value: impl Into<Value>) -> String {
        self.parameters.push(value.into());
        format!("?{}", self.parameters.len())
    }

    /// ` AND …` for each term.
    fn all<'t>(&mut self, terms: impl Iterator<Item = &'t Term>, now: SystemTime) -> String {
        let mut all = String::new();
        for term in terms {
            all.push_str(" AND ");
            all.push_str(&self.one(term, now));
        }
        all
    }

    fn one(&mut self, term: &Term, now: SystemTime) -> String {
        match term {
            Term::State(states) => {
                let states: Vec<_> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
                format!("m.standing IN ({})", states.join(", "))
            }
            Term::Id(ids) => {
                let ids: Vec<_> = ids.iter().map(|id| self.bind(id.as_bytes().to_vec())).collect();
                format!("m.id IN ({})", ids.join(", "))
            }
            Term::Priority(priorities) => {
                let priorities: Vec<_> = priorities.iter().map(|priority| format!("'{}'", priority.as_str())).collect();
                format!("m.lane IN (SELECT id FROM lanes WHERE priority IN ({}))", priorities.join(", "))
            }
            Term::Older(age) => match received_before(now, *age) {
                Some(time) => format!("m.received <= {}", self.bind(millis(time))),
                None => "0".to_owned(),
            },
            Term::Younger(age) => match received_before(now, *age) {
                Some(time) => format!("m.received > {}", self.bind(millis(time))),
                None => "1".to_owned(),
            },
            Term::Attempts(comparison, number) => format!("m.attempts {} {number}", comparison.as_str()),
            Term::From(pattern) => self.like("coalesce(m.reverse_path, '')", pattern),
            Term::Domain(pattern) => self.like("m.reverse_path", &pattern.behind_at()),
            Term::App(pattern) => self.like("m.application", pattern),
            Term::Client(pattern) => self.like("m.client", pattern),
            Term::MessageId(pattern) => self.like("m.message_id", pattern),
            Term::Route(pattern) => {
                let own = self.like("m.rerouted", pattern);
                let of_lane = self.like("route", pattern);
                format!("CASE WHEN m.rerouted IS NULL THEN m.lane IN (SELECT id FROM lanes WHERE {of_lane}) ELSE {own} END")
            }
            Term::To(pattern) => self.like("r.address", pattern),
            Term::Reason(pattern) => self.like("r.diagnostic", pattern),
            Term::Provider(pattern) => {
                let (own, last) = (self.like("r.provider", pattern), self.like("coalesce(r.asked, r.last_provider)", pattern));
                format!("({own} OR {last})")
            }
        }
    }

    fn like(&mut self, column: &str, pattern: &Pattern) -> String {
        let parameter = self.bind(pattern.to_like());
        format!("{column} LIKE {parameter} ESCAPE '\\'")
    }
}
