//! Google Workspace's SMTP relay: a host that takes XOAUTH2 under TLS only, and a token service.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::DynProvider;
use postrider_providers::smtp::rules::Rule;
use postrider_providers::smtp::verdict::{Stage, Verdict};
use postrider_providers::workspace;
use postrider_providers::workspace::refusals::{self, PEAK_PAUSE, QUOTA_PAUSE};
use serde_json::{Value, json};

use super::connect;
use super::smtp::{self, FarSide, Row, SmtpSubject};

/// The SMTP relay.
#[derive(Clone, Copy)]
pub struct Workspace;

impl SmtpSubject for Workspace {
    fn kind(&self) -> &'static str {
        "workspace"
    }

    fn provider(&self, far: &FarSide, settings: Value) -> Arc<dyn DynProvider> {
        let own = json!({
            "username": "relay@corp.example", "client_id": "app", "client_secret": "s", "refresh_token": "r",
            "token_endpoint": far.tokens.url(),
        });
        connect("workspace", &serde_json::from_value::<workspace::Config>(far.settings(own, settings)).unwrap())
    }

    fn offers(&self) -> &'static [&'static str] {
        &[
            "SIZE 157286400",
            "8BITMIME",
            "AUTH LOGIN PLAIN XOAUTH2 PLAIN-CLIENTTOKEN OAUTHBEARER XOAUTH",
            "ENHANCEDSTATUSCODES",
            "PIPELINING",
            "CHUNKING",
            "SMTPUTF8",
        ]
    }

    fn rules(&self) -> &'static [&'static [Rule]] {
        refusals::RULES
    }

    fn table(&self) -> Vec<Row> {
        use Stage::{Auth, Greeting, Mail, Message, Rcpt};
        use Verdict::{Bounced, Deferred, Rejected, SenderRefused, Throttled, Unauthorized, Unavailable, Unsuitable};
        vec![
            (
                Mail,
                "550 5.7.1 Daily SMTP relay limit exceeded for customer. For more information on SMTP relay sending limits please contact your administrator.",
                Throttled(Some(QUOTA_PAUSE)),
            ),
            (
                Mail,
                "550 5.4.5 Daily SMTP relay limit exceeded for user. For more information on SMTP relay sending limits please contact your administrator.",
                Throttled(Some(Duration::ZERO)),
            ),
            (
                Message,
                "550 5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to https://support.google.com/a/answer/166852",
                Throttled(Some(QUOTA_PAUSE)),
            ),
            (Mail, "450 4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error.", Throttled(Some(PEAK_PAUSE))),
            (Message, "421 4.7.28 Gmail has detected an unusual rate of email originating from your IP address.", Throttled(None)),
            (
                Mail,
                "550 5.7.1 Invalid credentials for relay [192.0.2.1]. The IP address you've registered in your Workspace SMTP Relay service doesn't match the domain of the account this email is being sent from.",
                SenderRefused,
            ),
            (Greeting, "421 4.7.0 Try again later, closing connection. (EHLO)", Unauthorized),
            (
                Auth,
                "535 5.7.8 Username and Password not accepted. For more information, go to https://support.google.com/mail/?p=BadCredentials",
                Unauthorized,
            ),
            (Auth, "534 5.7.9 Application-specific password required.", Unauthorized),
            (Auth, "534 5.7.14 Please log in via your web browser and then try again.", Unauthorized),
            (Mail, "530 5.7.0 Authentication Required.", Unauthorized),
            (Mail, "553 5.7.1 The sender address is not one of yours", SenderRefused),
            (Auth, "454 4.7.0 Cannot authenticate due to temporary system problem. Try again later.", Unavailable),
            (Greeting, "421 4.3.0 Temporary System Problem. Try again later.", Unavailable),
            (Greeting, "421 4.4.5 Server busy, try again later.", Unavailable),
            (Greeting, "454 4.5.0 SMTP protocol violation, no commands allowed to pipeline after STARTTLS", Unavailable),
            (Rcpt, "452 4.5.3 Your message has too many recipients.", Deferred),
            (Rcpt, "451 4.3.0 Multiple destination domains per transaction is unsupported. Please try again.", Deferred),
            (Mail, "552 5.3.4 Your message exceeded Google's message size limits.", Unsuitable),
            (Message, "552 5.2.3 Your message exceeded Google's message size limits.", Unsuitable),
            (Message, "552 5.7.0 This message was blocked because its content presents a potential security issue.", Rejected),
            (Message, "550 5.7.1 Message rejected by the administrator's policy - gcdp", Rejected),
            (Rcpt, "550 5.1.1 The email account that you tried to reach does not exist.", Bounced),
            (Rcpt, "553 5.1.2 We weren't able to find the recipient domain.", Bounced),
        ]
    }
}

/// For the documentation.
pub fn rows() -> Vec<(String, &'static str, &'static str)> {
    smtp::rows(&Workspace)
}
