//! The smart host: what any SMTP server may say.

use std::sync::Arc;

use postrider_providers::contract::DynProvider;
use postrider_providers::smarthost;
use postrider_providers::smtp::rules::Rule;
use postrider_providers::smtp::verdict::{Stage, Verdict};
use serde_json::{Value, json};

use super::smtp::{self, FarSide, Row, SmtpSubject};
use super::{connect, strict};

/// The smart host.
#[derive(Clone, Copy)]
pub struct SmartHost;

impl SmtpSubject for SmartHost {
    fn kind(&self) -> &'static str {
        "smarthost"
    }

    fn in_clear(&self) -> bool {
        true
    }

    fn provider(&self, far: &FarSide, settings: Value) -> Arc<dyn DynProvider> {
        let base = json!({ "host": "127.0.0.1", "port": far.port, "tls": "off", "username": "u", "password": "hunter2" });
        connect("smarthost", &serde_json::from_value::<smarthost::Config>(strict::settings(base, settings)).unwrap())
    }

    fn offers(&self) -> &'static [&'static str] {
        &["PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "AUTH PLAIN LOGIN"]
    }

    fn rules(&self) -> &'static [&'static [Rule]] {
        &[]
    }

    fn table(&self) -> Vec<Row> {
        use Stage::{Auth, Greeting, Mail, Message, Rcpt};
        use Verdict::{Bounced, Deferred, Rejected, SenderRefused, Throttled, Unauthorized, Unavailable, Unsuitable};
        vec![
            (Greeting, "421 4.3.2 shutting down", Unavailable),
            (Greeting, "554 5.7.1 Client host [192.0.2.1] blocked using bl.example", Unauthorized),
            (Auth, "535 5.7.8 Authentication credentials invalid", Unauthorized),
            (Auth, "534 5.7.9 Authentication mechanism is too weak", Unauthorized),
            (Auth, "538 5.7.11 Encryption required for requested authentication mechanism", Unauthorized),
            (Auth, "454 4.7.0 Temporary authentication failure", Unavailable),
            (Mail, "530 5.7.0 Authentication required", Unauthorized),
            (Mail, "451 4.7.0 too many messages, slow down", Throttled(None)),
            (Mail, "550 5.4.5 Daily user sending limit exceeded", Throttled(None)),
            (Mail, "451 4.4.1 no answer from host", Unavailable),
            (Mail, "502 5.5.2 command not recognized", Unavailable),
            (Mail, "550 5.1.7 bad sender address syntax", SenderRefused),
            (Mail, "450 4.7.1 greylisted, try again later", Deferred),
            (Mail, "452 4.3.1 Insufficient system storage", Unavailable),
            (Mail, "550 5.7.1 not authorised to send from this address", SenderRefused),
            (Mail, "550 5.1.8 bad sender domain", SenderRefused),
            (Mail, "552 5.3.4 message size exceeds fixed limit", Unsuitable),
            (Mail, "555 5.5.4 unsupported parameter", Unsuitable),
            (Rcpt, "450 4.2.1 mailbox busy", Deferred),
            (Rcpt, "452 4.5.3 too many recipients", Deferred),
            (Rcpt, "550 5.1.1 no such user", Bounced),
            (Rcpt, "550 5.2.1 mailbox disabled", Bounced),
            (Rcpt, "551 5.1.6 user not local", Bounced),
            (Rcpt, "552 5.2.2 mailbox full", Bounced),
            (Rcpt, "553 5.1.3 bad address", Bounced),
            (Rcpt, "554 5.7.1 Relay access denied", SenderRefused),
            (Message, "451 4.3.0 queue file write error", Deferred),
            (Message, "552 5.3.4 message too large", Unsuitable),
            (Message, "554 5.6.0 bad content", Rejected),
            (Message, "550 5.7.1 looks like spam", Rejected),
            (Message, "550 5.7.1 rate limit of 100/h exceeded", Throttled(None)),
        ]
    }
}

/// For the documentation.
pub fn rows() -> Vec<(String, &'static str, &'static str)> {
    smtp::rows(&SmartHost)
}
