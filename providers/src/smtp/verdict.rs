//! What a reply means: a pure function from stage and reply to verdict, and its table.
//!
//! Text rules come before digit rules, because large services say "daily limit exceeded" with a 5yz
//! code, which taken by its digits alone would bounce everything that waits.

use std::time::Duration;

use super::reply::Reply;
use super::rules::Rule;
use crate::contract::{Diagnostic, Failure, Outcome};

/// What was being asked when the reply came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Greeting, EHLO, STARTTLS.
    Greeting,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// The DATA command.
    Data,
    /// The message itself, after the final dot.
    Message,
}

/// What it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not now, and no fault of the host: greylisting, a recipient's own trouble.
    Deferred,
    /// This recipient never.
    Bounced,
    /// See [`Failure::Unavailable`].
    Unavailable,
    /// See [`Failure::Throttled`], with the pause that the service's documentation asks for.
    Throttled(Option<Duration>),
    /// See [`Failure::Unauthorized`].
    Unauthorized,
    /// See [`Failure::SenderRefused`].
    SenderRefused,
    /// See [`Failure::Unsuitable`].
    Unsuitable,
    /// See [`Failure::Rejected`].
    Rejected,
}

/// What a reply that is not positive means, and its words: by the first row of `rules` that fits, else by the
/// general table.
pub(super) fn judge(rules: &[&[Rule]], stage: Stage, during: &'static str, reply: &Reply) -> (Verdict, Diagnostic) {
    let text = reply.text();
    let (verdict, advice) = match rules.iter().copied().flatten().find(|rule| rule.fits(stage, reply.code, &text)) {
        Some(rule) => (rule.verdict, rule.advice),
        None => {
            let verdict = classify(stage, reply);
            (verdict, advice(stage, reply, verdict))
        }
    };
    (verdict, reply.diagnostic(during).advised(Some(advice)))
}

/// What a reply means that is written as on the wire, and what to do; `None` for what is no reply. For
/// tests and documentation.
#[must_use]
pub fn read(rules: &[&[Rule]], stage: Stage, reply: &str) -> Option<(Verdict, Option<&'static str>)> {
    let (reply, _) = Reply::parse(format!("{reply}\r\n").as_bytes()).ok()??;
    let (verdict, diagnostic) = judge(rules, stage, "", &reply);
    Some((verdict, diagnostic.advice))
}

/// What the administrator of any host can do about a refusal; empty where that depends on more.
fn advice(stage: Stage, reply: &Reply, verdict: Verdict) -> &'static str {
    let seen = Seen::new(stage, reply);
    match verdict {
        Verdict::Unauthorized if seen.refuses_this_host() => {
            "the host does not take mail from this machine's address or name: have it allowed there, or taken off the blocklist that the reply names"
        }
        Verdict::Unauthorized if stage == Stage::Auth && matches!(reply.code, 534 | 538) => {
            "the host wants another way to log in: look at what it asks for, and at `tls`"
        }
        Verdict::Unauthorized if stage == Stage::Auth => "check the login in the provider's table: the host refused it",
        Verdict::Unauthorized => "the host wants a login: give the provider one, or have this machine's address allowed at the host",
        Verdict::SenderRefused if stage == Stage::Rcpt && seen.says(&["relay"]) => {
            "the host does not relay for us: have this machine's address or login allowed there"
        }
        Verdict::SenderRefused => "allow this sender at the host, or set `rewrite` to one that is",
        Verdict::Throttled(_) => "set `limits` to what the host allows",
        Verdict::Unsuitable if seen.is_size() => "raise the size limit at the host, or route large messages elsewhere",
        _ => "",
    }
}

/// Classifies a reply that is not positive.
fn classify(stage: Stage, reply: &Reply) -> Verdict {
    let seen = Seen::new(stage, reply);
    if seen.is_throttling() {
        return Verdict::Throttled(None);
    }
    if seen.refuses_this_host() {
        return Verdict::Unauthorized;
    }
    if seen.refuses_sender() {
        return Verdict::SenderRefused;
    }
    if reply.code == 421 || !(400..600).contains(&reply.code) {
        return Verdict::Unavailable;
    }
    match stage {
        Stage::Greeting => Verdict::Unavailable,
        Stage::Auth if reply.is_transient() => Verdict::Unavailable,
        Stage::Auth => Verdict::Unauthorized,
        _ if seen.wants_authentication() => Verdict::Unauthorized,
        Stage::Mail => mail(&seen),
        Stage::Rcpt => rcpt(&seen),
        Stage::Data | Stage::Message => message(&seen),
    }
}

fn mail(seen: &Seen) -> Verdict {
    match (seen.code, seen.subject) {
        // The server's own condition: by RFC 3463 (mail system, network), or by RFC 5321
        // section 4.2.3 where there is no enhanced status.
        (400..500, Some(3 | 4)) | (451 | 452 | 454, None) => Verdict::Unavailable,
        (400..500, _) => Verdict::Deferred,
        _ if seen.is_size() => Verdict::Unsuitable,
        // A parameter or a kind of content that this host does not carry.
        (555, _) | (_, Some(6)) => Verdict::Unsuitable,
        // It does not understand what every server understands. Mail must not bounce for that.
        (500 | 502 | 503 | 504, _) => Verdict::Unavailable,
        _ => Verdict::SenderRefused,
    }
}

fn rcpt(seen: &Seen) -> Verdict {
    match (seen.code, seen.subject, seen.detail) {
        (400..500, ..) => Verdict::Deferred,
        // Too many recipients for one message: RFC 5321 section 4.5.3.1.10 asks for 452 and tells
        // clients to take 552 for it.
        (_, Some(5), Some(3)) => Verdict::Deferred,
        _ if seen.text.contains("too many recipients") => Verdict::Deferred,
        // The dialogue went wrong, which says nothing about the recipient.
        (500 | 502 | 503 | 504 | 555, ..) => Verdict::Deferred,
        _ => Verdict::Bounced,
    }
}

fn message(seen: &Seen) -> Verdict {
    match seen.code {
        400..500 => Verdict::Deferred,
        _ if seen.is_size() => Verdict::Unsuitable,
        500 | 502 | 503 | 504 if seen.stage == Stage::Data => Verdict::Unavailable,
        _ => Verdict::Rejected,
    }
}

/// A reply taken apart for the rules.
struct Seen {
    stage: Stage,
    code: u16,
    /// The second and third number of the enhanced status.
    subject: Option<u16>,
    detail: Option<u16>,
    /// In lower case.
    text: String,
}

impl Seen {
    fn new(stage: Stage, reply: &Reply) -> Self {
        let status = reply.status();
        Self {
            stage,
            code: reply.code,
            subject: status.map(|status| status.1),
            detail: status.map(|status| status.2),
            text: reply.text().to_ascii_lowercase(),
        }
    }

    fn says(&self, texts: &[&str]) -> bool {
        texts.iter().any(|text| self.text.contains(text))
    }

    /// A quota or rate of ours that is used up. A full mailbox of the recipient's is none.
    fn is_throttling(&self) -> bool {
        let submission = self.says(&["submissionquotaexceeded", "submission quota exceeded"]);
        let mailbox = self.says(&["mailbox"]) || (self.stage == Stage::Rcpt && (self.code == 552 || matches!(self.subject, Some(1 | 2))));
        let quota = self.says(&["quota exceeded", "daily limit", "daily sending", "daily message", "sending limit", "sending rate"])
            || (self.says(&["daily"]) && self.says(&["limit", "quota"]));
        if submission || (quota && !mailbox) {
            return true;
        }
        // A limit of the message (size, recipients) or of time is another matter.
        let other_limit = self.says(&["size", "too many recipients"]) || (self.subject, self.detail) == (Some(3), Some(4));
        let by_code = (400..500).contains(&self.code) && matches!(self.subject, None | Some(0 | 3 | 7));
        let by_status = self.subject == Some(7) && self.stage != Stage::Auth;
        let words = self.says(&["too many", "throttl"])
            || self.text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == "rate" || word.contains("limit"));
        words && !other_limit && (by_code || by_status)
    }

    /// Our address or name is refused, whatever the message.
    fn refuses_this_host(&self) -> bool {
        self.code >= 500 && self.says(&["client host rejected", "client host [", "helo command rejected"])
    }

    /// The sender identity is refused, at whatever stage the host says so: Postfix checks it at
    /// RCPT, Exchange and Amazon SES after the message. Relaying that is denied counts as that, and not as
    /// a login that is refused: it depends on the recipient, and a host that refuses one of them still takes
    /// mail for its own domains. It is not the recipient's fault either, who must not bounce for it.
    fn refuses_sender(&self) -> bool {
        let relay = self.stage == Stage::Rcpt && self.code != 421 && self.says(&["relay"]);
        let identity = self.code >= 500
            && !matches!(self.stage, Stage::Greeting | Stage::Auth)
            && self.says(&[
                "sendasdenied",
                "send as this sender",
                "not allowed to send as",
                "not owned by user",
                "sender address rejected",
                "address is not verified",
                "domain is not verified",
            ]);
        relay || identity
    }

    fn wants_authentication(&self) -> bool {
        matches!(self.code, 530 | 534 | 535 | 538)
            || (self.code >= 500 && self.subject == Some(7) && matches!(self.detail, Some(8 | 9 | 11 | 57)))
            || (self.code == 503 && self.says(&["auth"]))
    }

    fn is_size(&self) -> bool {
        match (self.subject, self.detail) {
            (Some(3), Some(4)) | (Some(2), Some(3)) => true,
            // 552 without a status is about storage or size; with one of content or policy it is not.
            (None, _) => self.code == 552,
            _ => false,
        }
    }
}

impl Verdict {
    /// Its name in logs and documentation.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Deferred => "deferred",
            Self::Bounced => "bounced",
            Self::Unavailable => "unavailable",
            Self::Throttled(_) => "throttled",
            Self::Unauthorized => "unauthorized",
            Self::SenderRefused => "sender_refused",
            Self::Unsuitable => "unsuitable",
            Self::Rejected => "rejected",
        }
    }

    /// The verdict on the attempt as a whole; `None` where it is about recipients.
    pub(super) fn failure(self, diagnostic: Diagnostic) -> Option<Failure> {
        match self {
            Self::Deferred | Self::Bounced => None,
            Self::Unavailable => Some(Failure::Unavailable(diagnostic)),
            Self::Throttled(retry_after) => Some(Failure::Throttled { retry_after, diagnostic }),
            Self::Unauthorized => Some(Failure::Unauthorized(diagnostic)),
            Self::SenderRefused => Some(Failure::SenderRefused(diagnostic)),
            Self::Unsuitable => Some(Failure::Unsuitable(diagnostic)),
            Self::Rejected => Some(Failure::Rejected(diagnostic)),
        }
    }

    /// The verdict on one recipient among others.
    pub(super) fn outcome(self, diagnostic: Diagnostic) -> Outcome {
        match self {
            Self::Bounced | Self::Rejected => Outcome::Bounced(diagnostic),
            _ => Outcome::Deferred(diagnostic),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Stage::{Auth, Data, Greeting, Mail, Message, Rcpt};
    use super::Verdict::{Bounced, Deferred, Rejected, SenderRefused, Throttled, Unauthorized, Unavailable, Unsuitable};
    use super::*;

    #[test]
    fn every_reply_of_the_table_gets_its_verdict() {
        for (stage, reply, expected) in [
            // Connection and service.
            (Greeting, "421 4.3.2 shutting down", Unavailable),
            (Greeting, "554 no SMTP service here", Unavailable),
            (Greeting, "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using bl.example", Unauthorized),
            (Greeting, "421 4.7.0 Too many connections from your host", Throttled(None)),
            (Greeting, "454 4.7.0 TLS not available due to local problem", Unavailable),
            (Mail, "421 4.4.2 idle time limit exceeded", Unavailable),
            (Mail, "432 4.3.2 STOREDRV.ClientSubmit; concurrent connection limit exceeded", Throttled(None)),
            (Mail, "451 Requested action aborted: local error in processing", Unavailable),
            (Mail, "452 4.3.1 Insufficient system storage", Unavailable),
            (Mail, "450 4.7.1 greylisted, try again", Deferred),
            (Mail, "451 4.1.8 Domain of sender does not resolve", Deferred),
            // Our credential.
            (Auth, "535 5.7.8 Authentication credentials invalid", Unauthorized),
            (Auth, "534 5.7.9 mechanism too weak", Unauthorized),
            (Auth, "538 5.7.11 Encryption required", Unauthorized),
            (Auth, "550 5.7.30 Basic authentication is not supported", Unauthorized),
            (Auth, "535 5.7.0 too many failed attempts", Unauthorized),
            (Auth, "454 4.7.0 Temporary authentication failure", Unavailable),
            (Auth, "421 bye", Unavailable),
            (Mail, "530 5.7.0 Authentication required", Unauthorized),
            (Mail, "530 5.7.57 Client not authenticated to send mail", Unauthorized),
            (Rcpt, "503 5.5.1 AUTH first", Unauthorized),
            (Rcpt, "554 5.7.1 <host>: Client host rejected: Access denied", Unauthorized),
            // Our sender.
            (Mail, "550 5.1.7 bad sender", SenderRefused),
            (Mail, "550 5.1.8 bad sender domain", SenderRefused),
            (Mail, "550 5.7.1 not authorised", SenderRefused),
            (Mail, "553 sorry", SenderRefused),
            (Mail, "501 5.1.7 bad address", SenderRefused),
            (Rcpt, "553 5.7.1 <a@b>: Sender address rejected: not owned by user c", SenderRefused),
            (Message, "554 5.2.252 SendAsDenied; a not allowed to send as b", SenderRefused),
            (Message, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", SenderRefused),
            (Message, "554 Message rejected: Email address is not verified.", SenderRefused),
            (Rcpt, "550 5.7.1 Unable to relay", SenderRefused),
            (Rcpt, "554 5.7.1 <c@d>: Relay access denied", SenderRefused),
            (Rcpt, "454 4.7.1 <c@d>: Relay access denied", SenderRefused),
            // Limits: the text decides.
            (Mail, "550 5.4.5 Daily user sending limit exceeded", Throttled(None)),
            (Message, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; x", Throttled(None)),
            (Rcpt, "550 5.7.1 You have reached your daily limit", Throttled(None)),
            (Message, "454 Throttling failure: Maximum sending rate exceeded", Throttled(None)),
            (Message, "454 Throttling failure: Daily message quota exceeded", Throttled(None)),
            (Message, "451 4.7.0 rate limited, slow down", Throttled(None)),
            (Message, "550 5.7.1 rate limit of 100/h exceeded", Throttled(None)),
            (Message, "451 operation generated an accurate error", Deferred),
            // Recipients.
            (Rcpt, "450 4.2.1 mailbox busy", Deferred),
            (Rcpt, "451 4.7.1 greylisted", Deferred),
            (Rcpt, "452 4.5.3 Too many recipients", Deferred),
            (Rcpt, "452 too many recipients", Deferred),
            (Rcpt, "552 too many recipients", Deferred),
            (Rcpt, "550 5.5.3 too many", Deferred),
            (Rcpt, "421 4.3.0 closing", Unavailable),
            (Rcpt, "550 5.1.1 no such user", Bounced),
            (Rcpt, "550 5.2.1 mailbox disabled", Bounced),
            (Rcpt, "552 5.2.2 mailbox full", Bounced),
            (Rcpt, "552 quota exceeded", Bounced),
            (Rcpt, "452 4.2.2 over quota limit", Deferred),
            (Rcpt, "551 user not local", Bounced),
            (Rcpt, "553 5.1.3 bad address", Bounced),
            (Rcpt, "501 5.1.3 bad address syntax", Bounced),
            (Rcpt, "503 5.5.1 bad sequence", Deferred),
            // What this host does not carry.
            (Mail, "552 5.3.4 message size exceeds fixed limit", Unsuitable),
            (Mail, "552 too big", Unsuitable),
            (Mail, "555 5.5.4 unsupported parameter", Unsuitable),
            (Mail, "550 5.6.7 SMTPUTF8 required", Unsuitable),
            (Data, "552 5.3.4 message too big", Unsuitable),
            (Message, "552 5.3.4 size limit exceeded", Unsuitable),
            (Mail, "502 5.5.2 command not recognized", Unavailable),
            // The message.
            (Data, "451 4.3.0 try again", Deferred),
            (Data, "421 4.3.2 closing", Unavailable),
            (Data, "503 5.5.1 bad sequence", Unavailable),
            (Data, "554 5.7.1 no", Rejected),
            (Message, "451 4.3.0 queue file write error", Deferred),
            (Message, "421 4.3.0 closing", Unavailable),
            (Message, "554 5.6.0 bad content", Rejected),
            (Message, "550 5.7.1 spam", Rejected),
            (Message, "552 5.7.0 blocked attachment", Rejected),
            (Message, "500 line too long", Rejected),
            (Message, "530 5.7.0 Must authenticate", Unauthorized),
            // Nothing that SMTP knows here.
            (Mail, "354 go", Unavailable),
        ] {
            let (parsed, _) = Reply::parse(format!("{reply}\r\n").as_bytes()).unwrap().unwrap();
            assert_eq!(classify(stage, &parsed), expected, "{stage:?}: {reply}");
        }
    }
}
