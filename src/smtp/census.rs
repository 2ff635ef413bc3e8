//! Who does what oddly: each oddity that was put up with, counted by client, and told in the log once.
//!
//! An administrator who wants to become strict must know whom it would hit. Memory is bounded: from
//! [`MAX_CLIENTS`] clients on, further ones are counted together.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::Discriminant;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::info;

use crate::telemetry::SeldomEach;
use crate::tls::Failure;

/// The most clients that are counted one by one.
pub const MAX_CLIENTS: usize = 1000;

/// Something that a client does otherwise than the standards say, and that can be put up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Oddity {
    /// `MAIL FROM: <a@b>`.
    SpaceAfterColon,
    /// `MAIL FROM:a@b`.
    NoAngleBrackets,
    /// `HELO` and nothing else.
    HelloWithoutName,
    /// A CR or LF that stands alone in content.
    BareNewline,
    /// A line of content longer than 1000 octets.
    LongLine,
    /// A message without Date.
    MissingDate,
    /// A message without Message-ID.
    MissingMessageId,
}

/// What is known about one oddity, in words.
struct Words {
    /// What the client does.
    does: &'static str,
    /// What is made of it.
    taken_as: &'static str,
    /// The setting that ends it.
    setting: &'static str,
}

impl Oddity {
    fn words(self) -> Words {
        match self {
            Self::SpaceAfterColon => Words {
                does: "writes a space after FROM: or TO:",
                taken_as: "the space is ignored",
                setting: "tolerance.commands = \"reject\"",
            },
            Self::NoAngleBrackets => Words {
                does: "writes addresses without angle brackets",
                taken_as: "the brackets are supplied",
                setting: "tolerance.commands = \"reject\"",
            },
            Self::HelloWithoutName => Words {
                does: "gives no name in HELO or EHLO",
                taken_as: "its address is taken for its name",
                setting: "tolerance.commands = \"reject\"",
            },
            Self::BareNewline => Words {
                does: "sends content with a bare CR or LF",
                taken_as: "each becomes CRLF",
                setting: "tolerance.bare_newline = \"reject\"",
            },
            Self::LongLine => Words {
                does: "sends lines longer than 1000 octets",
                taken_as: "they are folded",
                setting: "tolerance.long_lines = \"reject\"",
            },
            Self::MissingDate => {
                Words { does: "sends messages without Date", taken_as: "it is added", setting: "tolerance.missing_fields = \"keep\"" }
            }
            Self::MissingMessageId => {
                Words { does: "sends messages without Message-ID", taken_as: "it is added", setting: "tolerance.missing_fields = \"keep\"" }
            }
        }
    }
}

impl fmt::Display for Oddity {
    /// What the client does, as in "writes a space after FROM: or TO:".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words().does)
    }
}

/// Who does it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// An application, wherever it connects from.
    Application(Arc<str>),
    /// A client that belongs to no application.
    Address(IpAddr),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(name) => write!(f, "app.{name}"),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Habit {
    /// Whose; `None`: the clients beyond [`MAX_CLIENTS`], together.
    pub who: Option<Who>,
    /// What it does.
    pub oddity: Oddity,
    /// In how many commands or messages.
    pub count: u64,
    /// The address from which it did so last.
    pub address: IpAddr,
}

/// Counts and last addresses by oddity.
type Counts = BTreeMap<Oddity, (u64, IpAddr)>;

/// How often the log tells of the same trouble that a client has with encryption. A scanner has more of
/// it in a minute than a printer in a year.
const TROUBLE: Duration = Duration::from_secs(10 * 60);

/// Trouble with encryption, as far as one kind is told apart from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trouble {
    /// A handshake has failed.
    Handshake(Discriminant<Failure>),
    /// Something came in clear text behind STARTTLS.
    Injection,
    /// The client began with a handshake where nobody waits for one.
    TooEarly,
}

/// The list of who does what.
#[derive(Debug)]
pub struct Census {
    table: Mutex<Table>,
    troubles: SeldomEach<(IpAddr, SocketAddr, Trouble)>,
}

impl Default for Census {
    fn default() -> Self {
        Self { table: Mutex::default(), troubles: SeldomEach::every(TROUBLE, MAX_CLIENTS) }
    }
}

#[derive(Debug, Default)]
struct Table {
    clients: BTreeMap<Who, Counts>,
    others: Counts,
}

impl Census {
    /// Counts one command or message, and logs the first of its kind from this client.
    pub fn note(&self, who: &Who, address: IpAddr, oddity: Oddity) {
        let (first, counted_alone) = {
            let mut table = self.table.lock();
            let Table { clients, others } = &mut *table;
            let has_room = clients.len() < MAX_CLIENTS;
            let (counts, counted_alone) = match clients.get_mut(who) {
                Some(counts) => (counts, true),
                None if has_room => (clients.entry(who.clone()).or_default(), true),
                None => (others, false),
            };
            let (count, last) = counts.entry(oddity).or_insert((0, address));
            (*count, *last) = (count.saturating_add(1), address);
            (*count == 1, counted_alone)
        };
        if first {
            let Words { does, taken_as, setting } = oddity.words();
            let application = if let Who::Application(name) = who { Some(name.as_ref()) } else { None };
            let further = if counted_alone { "" } else { "; further clients are counted together and not told one by one" };
            info!(client = %address, application, "the client {does}: {taken_as}; {setting} for its listener or application ends this{further}");
        }
    }

    /// Whether the log tells of this trouble; then, how often it was left out before.
    pub(super) fn tells(&self, client: IpAddr, listener: SocketAddr, trouble: Trouble) -> Option<u64> {
        self.troubles.tell((client, listener, trouble))
    }

    /// Everything that was counted, by client.
    #[must_use]
    pub fn list(&self) -> Vec<Habit> {
        let table = self.table.lock();
        let clients = table.clients.iter().map(|(who, counts)| (Some(who), counts));
        clients
            .chain([(None, &table.others)])
            .flat_map(|(who, counts)| {
                counts.iter().map(move |(&oddity, &(count, address))| Habit { who: who.cloned(), oddity, count, address })
            })
            .collect()
    }

    /// Logs one line for each client.
    pub fn summarize(&self) {
        let list = self.list();
        for habits in list.chunk_by(|one, next| one.who == next.who) {
            let told: Vec<String> = habits.iter().map(|habit| format!("{} ({} times)", habit.oddity, habit.count)).collect();
            let who = habits[0].who.as_ref().map_or_else(|| "further clients".to_owned(), Who::to_string);
            info!(client = %who, "put up with since the start: {}", told.join(", "));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn each_oddity_is_counted_by_client_and_an_application_is_one_client_wherever_it_is() {
        let census = Census::default();
        let (printer, erp) = (Who::Address(address(1)), Who::Application("erp".into()));
        census.note(&printer, address(1), Oddity::BareNewline);
        census.note(&printer, address(1), Oddity::BareNewline);
        census.note(&printer, address(1), Oddity::SpaceAfterColon);
        census.note(&erp, address(2), Oddity::BareNewline);
        census.note(&erp, address(3), Oddity::BareNewline);
        let habit = |who: &Who, oddity, count, last| Habit { who: Some(who.clone()), oddity, count, address: address(last) };
        assert_eq!(
            census.list(),
            [
                habit(&erp, Oddity::BareNewline, 2, 3),
                habit(&printer, Oddity::SpaceAfterColon, 1, 1),
                habit(&printer, Oddity::BareNewline, 2, 1)
            ]
        );
    }

    #[test]
    fn clients_beyond_the_limit_are_counted_together() {
        let census = Census::default();
        for number in 0..MAX_CLIENTS as u32 + 5 {
            let address = IpAddr::from(number.to_be_bytes());
            census.note(&Who::Address(address), address, Oddity::LongLine);
        }
        let list = census.list();
        assert_eq!(list.len(), MAX_CLIENTS + 1);
        assert_eq!(list.last().map(|habit| (habit.who.clone(), habit.count)), Some((None, 5)));
        // Who was counted alone before still is.
        census.note(&Who::Address(IpAddr::from([0, 0, 0, 0])), IpAddr::from([0, 0, 0, 0]), Oddity::BareNewline);
        assert_eq!(census.list().len(), MAX_CLIENTS + 2);
    }
}
