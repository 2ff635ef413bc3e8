//! What Exchange Online says when it refuses, to whoever comes by SMTP.
//!
//! Texts decide before numbers, because a used-up quota has a 5yz code there, as a full mailbox has.
//! <https://learn.microsoft.com/troubleshoot/exchange/email-delivery/ndr/non-delivery-reports-in-exchange-online>

use std::time::Duration;

use crate::contract::Diagnostic;
use crate::smtp::rules::Rule;
use crate::smtp::verdict::{Stage, Verdict};

/// Limits on recipients are counted over the last 24 hours, so some of it comes back with each hour.
pub const QUOTA_PAUSE: Duration = Duration::from_secs(3600);

/// A connection too many is one for a moment.
pub const CONNECTION_PAUSE: Duration = Duration::from_secs(10);

/// The refusals that are the same for client submission and connectors.
pub const RULES: &[Rule] = &[
    // Quotas.
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).says("submissionquotaexceeded").advice(QUOTA),
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).says("submission quota exceeded").advice(QUOTA),
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).status(1, 90).advice(QUOTA),
    Rule::new(5, Verdict::Throttled(Some(QUOTA_PAUSE))).statuses(7, 232, 233).advice(
        "the tenant's limit for external recipients (TERRL) is used up: look at it in the Exchange admin center under Reports > Mail flow > Tenant Outbound External Recipients, buy more licences, or send bulk mail by another provider",
    ),
    Rule::new(4, Verdict::Throttled(Some(CONNECTION_PAUSE))).says("sender thread limit exceeded").advice(CONNECTIONS),
    Rule::new(4, Verdict::Throttled(Some(CONNECTION_PAUSE))).says("concurrent connection").advice(CONNECTIONS),
    Rule::new(4, Verdict::Throttled(None)).statuses(7, 500, 699).advice(ADDRESS_SLOWED),
    Rule::new(4, Verdict::Throttled(None)).statuses(7, 850, 899).advice(ADDRESS_SLOWED),
    // The recipient's own limit: nothing that another sender is told.
    Rule::new(5, Verdict::Deferred).statuses(2, 121, 122),
    // The message.
    Rule::new(5, Verdict::Unsuitable).says("maxsubmissionexceeded").advice(SIZE),
    Rule::new(5, Verdict::Unsuitable).says("message size exceeds").advice(SIZE),
    Rule::new(5, Verdict::Rejected).status(7, 703).advice(
        "an entry of your own blocks it: look in the Defender portal under Email & collaboration > Policies & rules > Threat policies > Tenant Allow/Block Lists",
    ),
    Rule::new(5, Verdict::Rejected).status(7, 23).advice("publish an SPF record for the sender's domain that includes this machine's address"),
    Rule::new(5, Verdict::Rejected).status(7, 509).advice(
        "the sender's domain has a DMARC policy that this message fails: sign it with DKIM for that domain, or send in the name of a domain of yours",
    ),
    Rule::new(5, Verdict::Rejected)
        .status(7, 512)
        .advice("the application writes no valid From header: correct it there, or set `rewrite`"),
    // One recipient's own list, though it names this machine ("Client host [192.0.2.1] blocked by ...").
    Rule::new(5, Verdict::Bounced).at(Stage::Rcpt).status(7, 513).advice(CUSTOMER_LIST),
    Rule::new(5, Verdict::Rejected).status(7, 513).advice(CUSTOMER_LIST),
    // The sender.
    Rule::new(5, Verdict::SenderRefused).at(Stage::Message).says("sendasdenied").advice(SEND_AS),
    Rule::new(5, Verdict::SenderRefused).status(2, 252).advice(SEND_AS),
    Rule::new(5, Verdict::SenderRefused).status(7, 60).advice(SEND_AS),
    Rule::new(5, Verdict::SenderRefused).at(Stage::Message).says("quotaexceededexception").advice(MAILBOX_FULL),
    Rule::new(5, Verdict::SenderRefused).at(Stage::Message).status(2, 2).advice(MAILBOX_FULL),
    Rule::new(5, Verdict::SenderRefused).status(1, 8).advice(
        "the sender is blocked for outbound spam: find out what was sent, then unblock it in the Defender portal under Review > Restricted entities",
    ),
    // "The sending account has been banned": nothing that another account is told.
    Rule::new(5, Verdict::SenderRefused).statuses(7, 501, 503).advice(
        "Microsoft has banned the sender for spam: find out what was sent and from where, then ask Microsoft support to lift the block",
    ),
    // The tenant, and this machine.
    Rule::new(5, Verdict::Unauthorized).statuses(7, 705, 708).advice(
        "the tenant or this machine's address is blocked for what was sent before: look for compromised accounts and connectors, then ask Microsoft support to lift it",
    ),
    Rule::new(5, Verdict::Unauthorized).status(7, 750).advice(
        "mail was sent from domains that are not the tenant's: add and verify the sender's domain in the Microsoft 365 admin center under Settings > Domains, then ask Microsoft support to lift the block",
    ),
    Rule::new(5, Verdict::Unauthorized).status(7, 511).advice(
        "this machine's address is banned: write to delist@microsoft.com with the whole reply, as it asks for",
    ),
    Rule::new(5, Verdict::Unauthorized)
        .statuses(7, 606, 649)
        .advice("this machine's address is banned: have it delisted at https://sender.office.com"),
    Rule::new(4, Verdict::Unauthorized).status(7, 26).advice(IPV6),
    Rule::new(5, Verdict::Unauthorized).status(7, 25).advice(IPV6),
    Rule::new(421, Verdict::Unauthorized)
        .status(7, 66)
        .advice("Exchange Online wants TLS 1.2 or later: something between here and there lowers it; look at proxies and firewalls that open TLS"),
];

/// Whether a mailbox was told to slow down, and nobody else.
pub(crate) fn is_of_one_mailbox(slowed: &Diagnostic) -> bool {
    slowed.advice == Some(QUOTA) || slowed.advice == Some(CONNECTIONS)
}

const CUSTOMER_LIST: &str = "the recipient's organization has this machine's address on a list of its own: ask its administrator";
const QUOTA: &str = "the mailbox has reached its limit of 10,000 recipients in 24 hours: spread the senders over more mailboxes, set `limits.quota`, or send bulk mail by another provider";
const CONNECTIONS: &str =
    "a mailbox may have three connections at a time: lower `limits.concurrency`, and look for other programs that send with this mailbox";
const ADDRESS_SLOWED: &str =
    "Exchange Online slows this machine's address down: lower `limits.rate`, and look for what else sends from there";
const SIZE: &str =
    "raise the limit with Set-Mailbox -Identity MAILBOX -MaxSendSize 150MB (Exchange Online PowerShell), or route large messages elsewhere";
const SEND_AS: &str = "allow it with Add-RecipientPermission -Identity SENDER -Trustee MAILBOX -AccessRights SendAs (Exchange Online PowerShell; it takes up to an hour), or set `rewrite`";
const MAILBOX_FULL: &str = "the sending mailbox is full, because all that it sends is kept in Sent Items: empty it, give it an archive, or have a retention policy delete old items";
const IPV6: &str =
    "mail over IPv6 needs a PTR record, SPF and DKIM: set them up for this machine's address, or reach the host by IPv4 only";
