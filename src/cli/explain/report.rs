//! What `postrider explain` has found, for people and as JSON.

use std::fmt;

use postrider_providers::contract::{Address, Capabilities, ContentForm, ReversePath};
use postrider_providers::mime::signature::Signature;
use postrider_providers::settings::{Rate, Size};
use serde_json::{Value, json};

use crate::access::{Client, Recognised, Standing, Tolerance};
use crate::config::{BareNewline, InDoubt, Listener, LongLines, MissingFields, OddCommands, ProviderConfig, Rewrite, Route};
use crate::route::{Condition, Obstacle};

/// Everything that is known about one message before it is handed in.
pub(super) struct Explanation<'c> {
    pub(super) listener: &'c Listener,
    pub(super) client: Client,
    pub(super) standing: Standing,
    pub(super) from: ReversePath,
    pub(super) size: Option<u64>,
    pub(super) signature: Option<Signature>,
    /// Whether an address needs SMTPUTF8.
    pub(super) smtputf8: bool,
    pub(super) recipients: Vec<Fate<'c>>,
}

/// What would become of one recipient.
pub(super) struct Fate<'c> {
    pub(super) to: Address,
    /// What the client would hear, at the latest at RCPT.
    pub(super) reply: String,
    /// Why it is refused; `None` if it is not.
    pub(super) why: Option<String>,
    /// Routes that do not match, up to the one that does: name, condition, and what it asks for.
    pub(super) passed_over: Vec<(String, Condition, String)>,
    pub(super) way: Option<Way<'c>>,
    pub(super) limits: Vec<Limit>,
}

/// The route that matches.
pub(super) struct Way<'c> {
    pub(super) route: &'c Route,
    pub(super) candidates: Vec<Candidate<'c>>,
}

/// A provider of the route, and whether it can carry the message.
pub(super) struct Candidate<'c> {
    pub(super) provider: &'c ProviderConfig,
    pub(super) capabilities: Capabilities,
    pub(super) obstacle: Option<Obstacle>,
    /// The signature that does not survive there, and is no obstacle.
    pub(super) breaks: Option<Signature>,
    /// How many calls it takes for those recipients that have this route.
    pub(super) calls: usize,
    /// What it changes of this sender, and the setting that says so.
    pub(super) rewrite: Option<(Rewrite, String)>,
}

/// A limit on whoever sends the message.
pub(super) struct Limit {
    /// The setting.
    pub(super) setting: String,
    /// The application or the domain.
    pub(super) of: String,
    pub(super) rate: Rate,
}

impl Fate<'_> {
    pub(super) fn is_accepted(&self) -> bool {
        self.why.is_none()
    }
}

impl fmt::Display for Explanation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, client, standing, from, .. } = self;
        let how = if client.encrypted { "with TLS" } else { "in clear text" };
        writeln!(f, "client       {} at {}, {how}", client.address, listener.bind)?;
        writeln!(f, "known as     {standing}")?;
        if standing.recognised.is_some() {
            writeln!(f, "may send     {}, {} recipients", Octets(standing.max_message_size), standing.max_recipients)?;
        }
        writeln!(f, "tolerance    {}", Words(&standing.tolerance))?;
        let size = self.size.map(|size| format!(", {}", Octets(size))).unwrap_or_default();
        let smtputf8 = if self.smtputf8 { ", with SMTPUTF8" } else { "" };
        let signed = self.signature.map(|signature| format!(", signed with {}", signature.name())).unwrap_or_default();
        writeln!(f, "message      from {from}{size}{smtputf8}{signed}")?;
        for fate in &self.recipients {
            write!(f, "\n{fate}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Fate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.why {
            None => writeln!(f, "<{}> accepted", self.to)?,
            Some(why) => {
                writeln!(f, "<{}> REFUSED: {why}", self.to)?;
                writeln!(f, "reply        {}", self.reply)?;
            }
        }
        for (name, condition, written) in &self.passed_over {
            writeln!(f, "passed over  {name}: {condition} is {written}")?;
        }
        let Some(way) = &self.way else { return Ok(()) };
        let label = if self.is_accepted() { "takes" } else { "would take" };
        let at_limit = if way.route.spill { "goes on to the next" } else { "waits" };
        writeln!(f, "{label:<12} {}; {at_limit} where a provider's limit is reached", way.route.name)?;
        let width = way.candidates.iter().map(|candidate| candidate.provider.name.as_str().len()).max().unwrap_or(0);
        for (index, candidate) in way.candidates.iter().enumerate() {
            writeln!(f, "             {}. {:<width$}  {candidate}", index + 1, candidate.provider.name.as_str())?;
        }
        for Limit { setting, of, rate } in &self.limits {
            writeln!(f, "limit        {rate} for {of} ({setting})")?;
        }
        Ok(())
    }
}

impl fmt::Display for Candidate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.obstacle {
            None => match self.breaks {
                None => f.write_str("can carry it")?,
                Some(signature) => write!(f, "can carry it, and breaks the signature ({})", signature.name())?,
            },
            Some(Obstacle::Size { max, .. }) => write!(f, "CANNOT: too large, it takes {}", Octets(max))?,
            Some(Obstacle::Smtputf8) => f.write_str("CANNOT: no SMTPUTF8")?,
            Some(Obstacle::NullSender | Obstacle::Combination) => f.write_str("CANNOT: no null sender")?,
            Some(Obstacle::RawOnly) => f.write_str("CANNOT: takes fields, and the route is raw_only")?,
            Some(Obstacle::Signature(signature)) => write!(f, "CANNOT: would break the signature ({})", signature.name())?,
        }
        if self.calls > 1 {
            write!(f, ", in {} calls", self.calls)?;
        }
        if let Some((rewrite, setting)) = &self.rewrite {
            for (what, becomes) in [("From", &rewrite.from), ("envelope sender", &rewrite.envelope)] {
                if let Some(becomes) = becomes {
                    write!(f, "; {what} becomes {becomes} ({setting})")?;
                }
            }
        }
        let limits = &self.provider.limits;
        let rates = limits.rate.iter().chain(limits.quota.iter()).map(ToString::to_string);
        let per_domain = limits.per_sending_domain.map(|rate| format!("{rate} for each sending domain"));
        let all: Vec<String> = rates.chain(per_domain).chain(limits.concurrency.map(|number| format!("{number} at a time"))).collect();
        if !all.is_empty() {
            write!(f, "; at most {}", all.join(", "))?;
        }
        write!(f, "; {}", self.provider.destination)
    }
}

/// A size as short as it can be said exactly.
pub(super) struct Octets(pub(super) u64);

impl fmt::Display for Octets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            octets if octets > 0 && octets.is_multiple_of(1024) => Size(octets).fmt(f),
            octets if octets > 0 && octets.is_multiple_of(1_000_000) => write!(f, "{}MB", octets / 1_000_000),
            octets => write!(f, "{octets} octets"),
        }
    }
}

/// A tolerance in words.
struct Words<'a>(&'a Tolerance);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tolerance { bare_newline, long_lines, commands, missing_fields } = self.0;
        let bare_newline = match bare_newline {
            BareNewline::Normalize => "bare CR or LF becomes CRLF",
            BareNewline::Reject => "bare CR or LF is refused",
        };
        let long_lines = match long_lines {
            LongLines::Fold => "long lines are folded",
            LongLines::Keep => "long lines stay",
            LongLines::Reject => "long lines are refused",
        };
        let commands = match commands {
            OddCommands::Accept => "odd commands are understood",
            OddCommands::Reject => "odd commands are refused",
        };
        let missing_fields = match missing_fields {
            MissingFields::Add => "missing Date and Message-ID are added",
            MissingFields::Keep => "missing fields stay missing",
        };
        write!(f, "{bare_newline}, {long_lines}, {commands}, {missing_fields}")
    }
}

impl Explanation<'_> {
    /// For machines.
    pub(super) fn json(&self) -> Value {
        json!({
            "accepted": self.recipients.iter().all(Fate::is_accepted),
            "listener": self.listener.bind.to_string(),
            "client": {
                "address": self.client.address.to_string(),
                "encrypted": self.client.encrypted,
                "login": self.client.login.as_deref(),
            },
            "standing": standing(&self.standing),
            "message": { "from": self.from.as_str(), "size": self.size, "smtputf8": self.smtputf8, "signature": self.signature.map(Signature::name) },
            "recipients": self.recipients.iter().map(Fate::json).collect::<Vec<_>>(),
        })
    }
}

fn standing(standing: &Standing) -> Value {
    let application = standing.application.as_ref().map(|application| &*application.name);
    let (by, network, setting) = match standing.recognised {
        None => (None, None, None),
        Some(Recognised::Credential) => (Some("credential"), None, None),
        Some(Recognised::ApplicationNetwork(network)) => {
            (Some("application_network"), Some(network), application.map(|name| format!("app.{name}.networks")))
        }
        Some(Recognised::TrustedNetwork(network)) => (Some("trusted_network"), Some(network), Some("access.trusted_networks".to_owned())),
    };
    let Tolerance { bare_newline, long_lines, commands, missing_fields } = standing.tolerance;
    json!({
        "application": application,
        "recognised_by": by,
        "network": network.map(|network| network.to_string()),
        "setting": setting,
        "max_message_size": standing.max_message_size,
        "max_recipients": standing.max_recipients,
        "tolerance": {
            "bare_newline": match bare_newline { BareNewline::Normalize => "normalize", BareNewline::Reject => "reject" },
            "long_lines": match long_lines { LongLines::Fold => "fold", LongLines::Keep => "keep", LongLines::Reject => "reject" },
            "commands": match commands { OddCommands::Accept => "accept", OddCommands::Reject => "reject" },
            "missing_fields": match missing_fields { MissingFields::Add => "add", MissingFields::Keep => "keep" },
        },
    })
}

impl Fate<'_> {
    fn json(&self) -> Value {
        json!({
            "to": self.to.as_str(),
            "accepted": self.is_accepted(),
            "reply": self.reply,
            "reason": self.why,
            "passed_over": self.passed_over.iter().map(|(name, condition, written)| json!({
                "route": name,
                "condition": condition.to_string(),
                "value": written,
            })).collect::<Vec<_>>(),
            "route": self.way.as_ref().map(Way::json),
            "limits": self.limits.iter().map(|Limit { setting, of, rate }| json!({
                "setting": setting,
                "of": of,
                "rate": rate.to_string(),
            })).collect::<Vec<_>>(),
        })
    }
}

impl Way<'_> {
    fn json(&self) -> Value {
        let candidate = |Candidate { provider, capabilities, obstacle, breaks, calls, rewrite }: &Candidate<'_>| {
            json!({
                "provider": provider.name.as_str(),
                "destination": provider.destination,
                "max_message_size": capabilities.max_message_size(),
                "smtputf8": capabilities.smtputf8,
                "null_sender": capabilities.null_sender,
                "raw": capabilities.content != ContentForm::Fields,
                "max_recipients": capabilities.max_recipients,
                "obstacle": obstacle.as_ref().map(Obstacle::name),
                "breaks": breaks.map(|signature| signature.name()),
                "calls": calls,
                "rewrite": rewrite.as_ref().map(|(rewrite, setting)| json!({
                    "setting": setting,
                    "from": rewrite.from.as_ref().map(ToString::to_string),
                    "envelope": rewrite.envelope.as_ref().map(ToString::to_string),
                })),
                "limits": {
                    "rate": provider.limits.rate.map(|rate| rate.to_string()),
                    "quota": provider.limits.quota.text(),
                    "concurrency": provider.limits.concurrency,
                },
            })
        };
        json!({
            "name": &*self.route.name,
            "spill": self.route.spill,
            "raw_only": self.route.raw_only,
            "in_doubt": match self.route.in_doubt { InDoubt::Retry => "retry", InDoubt::Hold => "hold" },
            "candidates": self.candidates.iter().map(candidate).collect::<Vec<_>>(),
        })
    }
}
