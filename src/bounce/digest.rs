//! What somebody gets instead of too many notifications: one, about all of them.

use std::collections::BTreeMap;
use std::fmt::{Arguments, Write as _};
use std::time::{Duration, SystemTime};

use postrider_providers::contract::{Address, Body, BodyType, Diagnostic, Message, MessageId};
use serde::{Deserialize, Serialize};

use super::people::count;
use super::report::{date, one_line};
use super::{Event, Notice, Relay, Who, envelope, origin};

/// The most reasons and domains that are counted apart.
const MAX_KINDS: usize = 40;

/// The most failures that are told as they were.
const MAX_EXAMPLES: usize = 10;

/// When notifications are too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// How many are sent by themselves in a period.
    pub after: u32,
    /// How long a period is.
    pub every: Duration,
}

/// What one reader was told lately, and is still to be told. As it is kept over restarts (JSON).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// As what.
    pub who: Who,
    /// When it began, in milliseconds since 1970.
    pub since: u64,
    /// How many notifications went out in it.
    pub told: u32,
    /// What was not told.
    #[serde(default)]
    pub gathered: Gathered,
}

/// Failures that nobody was told about one by one. Its size is bounded, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gathered {
    /// Messages.
    pub messages: u64,
    /// Recipients.
    pub recipients: u64,
    /// Recipients by what was said of them.
    pub reasons: BTreeMap<String, u64>,
    /// Recipients by domain.
    pub domains: BTreeMap<String, u64>,
    /// The first ones.
    pub examples: Vec<Example>,
}

/// One failure as it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Example {
    /// The message's id.
    pub id: String,
    /// The reverse-path; empty for the null one.
    pub sender: String,
    /// The recipient.
    pub recipient: String,
    /// What was said.
    pub words: String,
}

impl Period {
    /// A period that begins now.
    #[must_use]
    pub fn new(who: Who, now: SystemTime) -> Self {
        Self { who, since: millis(now), told: 0, gathered: Gathered::default() }
    }

    /// When it ends.
    #[must_use]
    pub fn ends(&self, rule: Rule) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.since) + rule.every
    }

    /// Whether it is over. A clock that was set back must not make it last.
    #[must_use]
    pub fn is_over(&self, rule: Rule, now: SystemTime) -> bool {
        now >= self.ends(rule) || self.since > millis(now)
    }

    /// Takes a notification into account. `true`: it is to be sent by itself; otherwise it is gathered.
    pub fn admit(&mut self, rule: Rule, now: SystemTime, message: &Message, notices: &[Notice<'_>]) -> bool {
        // What is gathered ends with its digest.
        if self.is_over(rule, now) && self.gathered.messages == 0 {
            *self = Self::new(self.who, now);
        }
        if self.told < rule.after {
            self.told += 1;
            return true;
        }
        self.gathered.add(message, notices);
        false
    }
}

impl Gathered {
    fn add(&mut self, message: &Message, notices: &[Notice<'_>]) {
        self.messages += 1;
        for Notice { recipient, event } in notices {
            let Event::Failed { diagnostic, expired } = event else { continue };
            self.recipients += 1;
            bump(&mut self.reasons, reason(diagnostic, *expired), 1);
            bump(&mut self.domains, recipient.address.domain().to_ascii_lowercase(), 1);
            if self.examples.len() < MAX_EXAMPLES {
                self.examples.push(Example {
                    id: message.id.to_string(),
                    sender: message.envelope.reverse_path.address().map_or_else(String::new, |sender| sender.to_string()),
                    recipient: recipient.address.to_string(),
                    words: one_line(&diagnostic.to_string()).chars().take(200).collect(),
                });
            }
        }
    }

    /// Puts what was gathered meanwhile behind this.
    pub fn extend(&mut self, later: Self) {
        self.messages += later.messages;
        self.recipients += later.recipients;
        for (counts, more) in [(&mut self.reasons, later.reasons), (&mut self.domains, later.domains)] {
            more.into_iter().for_each(|(kind, number)| bump(counts, kind, number));
        }
        let room = MAX_EXAMPLES.saturating_sub(self.examples.len());
        self.examples.extend(later.examples.into_iter().take(room));
    }
}

/// A reason under which failures are counted: short, and the same for all that failed alike.
fn reason(diagnostic: &Diagnostic, expired: bool) -> String {
    match (expired, diagnostic.code, diagnostic.status) {
        (true, ..) => "expired: it was tried for too long".to_owned(),
        (_, Some(code), Some(status)) => format!("refused: {code} {status}"),
        (_, Some(code), None) => format!("refused: {code}"),
        (_, None, Some(status)) => format!("refused: {status}"),
        (_, None, None) => format!("refused: {}", one_line(&diagnostic.text).chars().take(60).collect::<String>()),
    }
}

fn bump(counts: &mut BTreeMap<String, u64>, kind: String, by: u64) {
    let kind = if counts.len() < MAX_KINDS || counts.contains_key(&kind) { kind } else { "others".to_owned() };
    *counts.entry(kind).or_default() += by;
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The digest of a period.
#[must_use]
pub fn compose(to: &Address, period: &Period, relay: Relay<'_>, now: SystemTime) -> Message {
    let Period { who, since, told, gathered } = period;
    let hostname = relay.hostname;
    let id = MessageId::generate();
    let since = SystemTime::UNIX_EPOCH + Duration::from_millis(*since);
    let (messages, recipients) = (usize::try_from(gathered.messages).unwrap_or(usize::MAX), gathered.recipients);
    let mut body = String::new();
    let mut line = |text: Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = body.write_fmt(text);
        body.push_str("\r\n");
    };
    line(format_args!("From: Mail Delivery System <{}>", relay.from()));
    line(format_args!("To: <{to}>"));
    line(format_args!("Subject: Undelivered mail: {}", count(messages, "more message")));
    line(format_args!("Date: {}", date(now)));
    line(format_args!("Message-ID: <{id}@{hostname}>"));
    line(format_args!("Auto-Submitted: auto-generated"));
    line(format_args!("MIME-Version: 1.0"));
    line(format_args!("Content-Type: text/plain; charset=utf-8"));
    line(format_args!("Content-Transfer-Encoding: 8bit"));
    line(format_args!("\r\nThis is the mail relay at {hostname}."));
    line(format_args!("You get this as {}.", if *who == Who::Owner { "the owner of an application" } else { "its operator" }));
    line(format_args!("\r\nSince {}, {} could not be delivered to {recipients} of", date(since), count(messages, "message")));
    line(format_args!("their recipients, beside the {told} that you were told about one by one."));
    for (heading, counts) in [("Reasons", &gathered.reasons), ("Domains", &gathered.domains)] {
        line(format_args!("\r\n{heading}, by recipients:\r\n"));
        let mut counts: Vec<_> = counts.iter().collect();
        counts.sort_by(|one, other| other.1.cmp(one.1).then(one.0.cmp(other.0)));
        for (kind, number) in counts {
            line(format_args!("  {number:>8}  {kind}"));
        }
    }
    line(format_args!("\r\nThe first of them:\r\n"));
    for Example { id, sender, recipient, words } in &gathered.examples {
        line(format_args!("  <{recipient}> from <{sender}>\r\n    {words}\r\n    id {id}"));
    }
    line(format_args!("\r\nTo see them all: postrider history state=bounced,expired,dead"));
    let body_type = if body.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
    Message { id, received: now, origin: origin(id, hostname), envelope: envelope(to, body_type), body: Body::Inline(body.into()) }
}

#[cfg(test)]
mod tests {
    use postrider_providers::contract::{Envelope, Origin, Recipient, ReversePath};

    use super::*;

    const RULE: Rule = Rule { after: 2, every: Duration::from_secs(60) };

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1000 + seconds)
    }

    fn message(to: &str) -> Message {
        let sender = ReversePath::Mailbox("app@erp.example".parse().unwrap());
        Message {
            id: MessageId::generate(),
            received: at(0),
            origin: Origin::default(),
            envelope: Envelope::new(sender, vec![Recipient::from(to.parse::<Address>().unwrap())]),
            body: Body::Inline("".into()),
        }
    }

    fn admit(period: &mut Period, now: SystemTime, to: &str, words: &str) -> bool {
        let message = message(to);
        let event = Event::Failed { diagnostic: Diagnostic::local(words), expired: false };
        period.admit(RULE, now, &message, &[Notice { recipient: &message.envelope.recipients[0], event }])
    }

    #[test]
    fn what_is_too_much_for_a_period_is_gathered_and_the_next_period_starts_afresh() {
        let mut period = Period::new(Who::Owner, at(0));
        let sent: Vec<bool> = (0..4).map(|n| admit(&mut period, at(n), "a@x.example", "no")).collect();
        assert_eq!(sent, [true, true, false, false]);
        assert_eq!((period.gathered.messages, period.told), (2, 2));
        assert!(!admit(&mut period, at(61), "a@x.example", "no"), "it goes into the digest that is due");
        let mut next = Period::new(Who::Owner, at(0));
        next.told = 2;
        assert!(admit(&mut next, at(60), "a@x.example", "no") && next.since == millis(at(60)));
    }

    #[test]
    fn a_period_that_begins_in_the_future_is_over() {
        assert!(Period::new(Who::Owner, at(1)).is_over(RULE, at(0)));
        assert!(!Period::new(Who::Owner, at(0)).is_over(RULE, at(59)));
    }

    #[test]
    fn however_many_fail_and_why_a_digest_has_a_bounded_size_and_counts_all() {
        let mut period = Period { told: 2, ..Period::new(Who::Operator, at(0)) };
        let mut sizes = Vec::new();
        for n in 0..1000 {
            admit(&mut period, at(1), &format!("a@{n}.example"), &format!("reason {n} {}", "x".repeat(3000)));
            sizes.push(serde_json::to_string(&period).unwrap().len());
        }
        assert!(sizes[999] < 16_000 && sizes[999] - sizes[100] < 20, "{}", sizes[999]);
        for counts in [&period.gathered.reasons, &period.gathered.domains] {
            assert_eq!((counts.len(), counts.values().sum::<u64>()), (MAX_KINDS + 1, 1000));
        }
        let mut twice = period.gathered.clone();
        twice.extend(period.gathered.clone());
        assert_eq!((twice.messages, twice.examples.len(), twice.domains["others"]), (2000, MAX_EXAMPLES, 2 * 960));
    }

    #[tokio::test]
    async fn a_digest_says_how_many_failed_why_where_and_which() {
        let mut period = Period { told: 2, ..Period::new(Who::Owner, at(0)) };
        for to in ["a@x.example", "b@x.example", "c@y.example"] {
            admit(&mut period, at(1), to, "no such user");
        }
        let digest = compose(&"owner@corp.example".parse().unwrap(), &period, Relay { hostname: "relay.example", sender: None }, at(60));
        assert!(super::super::guard::is_own(&digest));
        let text = String::from_utf8(digest.body.bytes().await.unwrap().to_vec()).unwrap();
        for expected in [
            "Subject: Undelivered mail: 3 more messages\r\n",
            "the 2 that you were told about",
            "         3  refused: no such user\r\n",
            "         2  x.example\r\n         1  y.example\r\n",
            "  <a@x.example> from <app@erp.example>\r\n    no such user\r\n    id ",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
        let kept: Period = serde_json::from_str(&serde_json::to_string(&period).unwrap()).unwrap();
        assert_eq!(kept, period);
    }
}
