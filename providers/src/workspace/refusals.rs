//! What Google's SMTP hosts say in words of their own, and what the administrator must do about it.
//!
//! <https://support.google.com/a/answer/6140680>, <https://support.google.com/a/answer/3726730>
//!
//! Not confirmed by those pages, and taken as other clients report them: 421 4.7.28.

use std::time::Duration;

use crate::smtp::rules::Rule;
use crate::smtp::verdict::{Stage, Verdict};

/// Google counts over 24 hours, so some of it comes back with each hour.
pub const QUOTA_PAUSE: Duration = Duration::from_secs(3600);
/// A peak is counted over ten minutes.
pub const PEAK_PAUSE: Duration = Duration::from_secs(600);

/// The table.
pub const RULES: &[&[Rule]] = &[OWN];

const OWN: &[Rule] = &[
    // Limits, for which Google has 5yz codes.
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).says("limit exceeded for customer").advice(
        "the organization has sent all that it may in 24 hours: Google's limit grows with the number of licences; send bulk mail by another provider",
    ),
    // The relay counts by the envelope's sender: the message waits by the retry schedule, and nobody else.
    Rule::new(5, Verdict::Throttled(Some(Duration::ZERO))).says("relay limit exceeded for user").advice(USER_LIMIT),
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).says("user sending limit exceeded").advice(USER_LIMIT),
    Rule::new(4, Verdict::Throttled(Some(PEAK_PAUSE)))
        .says("peak smtp relay limit")
        .advice("too much at once for the organization: set `limits.rate`"),
    Rule::new(421, Verdict::Throttled(None))
        .status(7, 28)
        .advice("Google sees unusually much mail from this machine's address: set `limits.rate`, and look for what else sends from there"),
    // Who we are.
    // The address is not registered, or not for the sender's domain: one application with a foreign sender must
    // not stop the others.
    Rule::new(5, Verdict::SenderRefused).says("invalid credentials for relay").advice(
        "Google does not take this sender's domain from this machine's address: add the address in the Admin console under Apps > Google Workspace > Gmail > Routing > SMTP relay service, and use a sender of one of that organization's domains; or set `username`",
    ),
    Rule::new(421, Verdict::Unauthorized)
        .at(Stage::Greeting)
        .says("(ehlo)")
        .advice("Google does not like the name in EHLO: set `hostname` in [server] to this machine's full name in the DNS"),
    Rule::new(535, Verdict::Unauthorized).advice(
        "the login is refused. With `password`: make an app password at myaccount.google.com > Security > 2-Step Verification > App passwords. With a token: the user must exist, and the service account's client ID must have the scope https://mail.google.com/ in the Admin console under Security > API controls > Domain-wide delegation",
    ),
    Rule::new(534, Verdict::Unauthorized).advice(
        "Google wants an app password in `password`, or a token: the account's own password is not taken",
    ),
    Rule::new(530, Verdict::Unauthorized).advice(
        "Google wants a login: set `username` and a credential, or register this machine's address in the Admin console under Apps > Google Workspace > Gmail > Routing > SMTP relay service",
    ),
    // The rest goes with another transaction, in which it may be the first.
    Rule::new(451, Verdict::Deferred).says("multiple destination domains"),
];

const USER_LIMIT: &str = "the sender has reached its limit of 10,000 recipients a day (2,000 messages at smtp.gmail.com): spread the senders, or send bulk mail by another provider";
