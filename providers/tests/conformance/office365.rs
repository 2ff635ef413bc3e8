//! Microsoft 365 by client submission: a host that takes XOAUTH2 under TLS only, and an Entra.

use std::sync::Arc;

use postrider_providers::contract::DynProvider;
use postrider_providers::exchange::{CONNECTION_PAUSE, QUOTA_PAUSE};
use postrider_providers::office365::{self, refusals};
use postrider_providers::smtp::rules::Rule;
use postrider_providers::smtp::verdict::{Stage, Verdict};
use serde_json::{Value, json};

use super::connect;
use super::smtp::{self, FarSide, Row, SmtpSubject};

/// Client submission.
#[derive(Clone, Copy)]
pub struct Office365;

impl SmtpSubject for Office365 {
    fn kind(&self) -> &'static str {
        "office365"
    }

    fn provider(&self, far: &FarSide, settings: Value) -> Arc<dyn DynProvider> {
        let own = json!({
            "tenant": "contoso.example", "client_id": "app", "client_secret": "s", "mailbox": "mailbox@contoso.example",
            "authority": far.tokens.url(),
        });
        connect("office365", &serde_json::from_value::<office365::Config>(far.settings(own, settings)).unwrap())
    }

    fn offers(&self) -> &'static [&'static str] {
        &[
            "SIZE 157286400",
            "PIPELINING",
            "DSN",
            "ENHANCEDSTATUSCODES",
            "8BITMIME",
            "BINARYMIME",
            "CHUNKING",
            "SMTPUTF8",
            "AUTH LOGIN XOAUTH2",
        ]
    }

    fn rules(&self) -> &'static [&'static [Rule]] {
        refusals::RULES
    }

    fn table(&self) -> Vec<Row> {
        use Stage::{Auth, Greeting, Mail, Message, Rcpt};
        use Verdict::{Deferred, Rejected, SenderRefused, Throttled, Unauthorized, Unsuitable};
        let mut table = vec![
            (Auth, "535 5.7.3 Authentication unsuccessful [FR0P281CA0001.DEUP281.PROD.OUTLOOK.COM]", Unauthorized),
            (
                Auth,
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant. Visit https://aka.ms/smtp_auth_disabled for more information.",
                Unauthorized,
            ),
            (
                Auth,
                "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox. Visit https://aka.ms/smtp_auth_disabled for more information.",
                Unauthorized,
            ),
            (
                Auth,
                "535 5.7.139 Authentication unsuccessful, user is locked by your organization's security defaults policy. Contact your administrator.",
                Unauthorized,
            ),
            (
                Auth,
                "535 5.7.139 Authentication unsuccessful, the request did not meet the criteria to be authenticated successfully. Contact your administrator.",
                Unauthorized,
            ),
            (Auth, "535 5.7.139 Authentication unsuccessful, basic authentication is disabled.", Unauthorized),
            (Auth, "550 5.7.30 Basic authentication is not supported for Client Submission.", Unauthorized),
            (Mail, "530 5.7.57 Client not authenticated to send mail.", Unauthorized),
            (Mail, "550 5.7.1 Client does not have permissions for this sender address", SenderRefused),
            (Mail, "432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded", Throttled(Some(CONNECTION_PAUSE))),
            (Greeting, "432 4.3.2 concurrent connection limit exceeded", Throttled(Some(CONNECTION_PAUSE))),
            (
                Message,
                "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message due to a permanent exception",
                Throttled(Some(QUOTA_PAUSE)),
            ),
            (
                Message,
                "554 5.2.2 mailbox full; STOREDRV.Submission.Exception:QuotaExceededException; Failed to process message",
                SenderRefused,
            ),
            (Message, "554 5.2.2 mailbox full", SenderRefused),
            (
                Message,
                "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied; Cannot submit message.",
                SenderRefused,
            ),
            (
                Message,
                "554 5.2.252 SendAsDenied; a@contoso.example not allowed to send as b@contoso.example; STOREDRV.Submission.Exception:SendAsDeniedException.MapiExceptionSendAsDenied",
                SenderRefused,
            ),
            (Message, "554 5.2.252 not allowed to send as b@contoso.example", SenderRefused),
            (Message, "554 5.2.3 STOREDRV.Submission.Exception:SubmissionFailedException.MapiExceptionMaxSubmissionExceeded", Unsuitable),
            (Message, "550 5.2.3 Message size exceeds fixed maximum message size", Unsuitable),
            (Mail, "552 5.3.4 Message size exceeds fixed limit", Unsuitable),
            (Message, "550 5.6.11 SMTPSEND.BareLinefeedsAreIllegal", Rejected),
            (Rcpt, "550 5.7.136 RESOLVER.RST.RestrictedToRecipientsPermission; not authorized", Verdict::Bounced),
            (Rcpt, "452 4.5.3 Too many recipients of one domain", Deferred),
            (Rcpt, "451 4.4.316 Connection refused", Deferred),
        ];
        table.extend(everywhere());
        table
    }
}

/// What Exchange Online says to everybody; the connector's table ends with it, too.
pub fn everywhere() -> Vec<Row> {
    use Stage::{Greeting, Mail, Message, Rcpt};
    use Verdict::{Bounced, Deferred, Rejected, SenderRefused, Throttled, Unauthorized, Unavailable};
    vec![
        (Greeting, "421 4.7.66 TLS 1.0 and 1.1 are not supported. Please upgrade/update your client to support TLS 1.2.", Unauthorized),
        (Message, "550 5.7.60 SMTP; Client does not have permissions to send as this sender", SenderRefused),
        (Message, "550 5.2.2 Submission quota exceeded", Throttled(Some(QUOTA_PAUSE))),
        (
            Message,
            "554 5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
            Throttled(Some(QUOTA_PAUSE)),
        ),
        (
            Message,
            "550 5.7.232 Your message can't be sent because your trial tenant has exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit).",
            Throttled(Some(QUOTA_PAUSE)),
        ),
        (
            Message,
            "550 5.7.233 Your message can't be sent because your tenant exceeded its daily limit for sending email to external recipients (tenant external recipient rate limit).",
            Throttled(Some(QUOTA_PAUSE)),
        ),
        (Mail, "451 4.7.500 Server busy. Please try again later from [192.0.2.1].", Throttled(None)),
        (Mail, "451 4.7.850 Access denied, please try again later", Throttled(None)),
        (Mail, "451 4.3.2 Temporary server error. Please try again later", Unavailable),
        (Rcpt, "550 5.2.121 The recipient's mailbox can't accept more messages right now: per-sender hourly receive limit", Deferred),
        (Rcpt, "550 5.2.122 The recipient has exceeded their limit for the number of messages they can receive per hour.", Deferred),
        (Mail, "550 5.1.8 Access denied, bad outbound sender", SenderRefused),
        (Mail, "550 5.7.705 Access denied, tenant has exceeded threshold", Unauthorized),
        (Mail, "550 5.7.708 Access denied, traffic not accepted from this IP", Unauthorized),
        (Mail, "550 5.7.750 Service unavailable. Client blocked from sending from unregistered domains.", Unauthorized),
        (Message, "550 5.7.501 Access denied, spam abuse detected", SenderRefused),
        (Message, "550 5.7.502 Access denied, banned sender", SenderRefused),
        (
            Message,
            "550 5.7.703 Your message can't be delivered because messages to this address are blocked by your organization using Tenant Allow Block List.",
            Rejected,
        ),
        (Message, "550 5.7.23 The message was rejected because of Sender Policy Framework violation", Rejected),
        (
            Message,
            "550 5.7.509 Access denied, sending domain contoso.example does not pass DMARC verification and has a DMARC policy of reject.",
            Rejected,
        ),
        (Message, "550 5.7.512 Access denied, message must be RFC 5322 section 3.6.2 compliant", Rejected),
        (
            Message,
            "550 5.7.513 Service unavailable, Client host [192.0.2.1] blocked by contoso.example using Customer Block list",
            Rejected,
        ),
        (Rcpt, "550 5.7.513 Service unavailable, Client host [192.0.2.1] blocked by contoso.example using Customer Block list", Bounced),
        (Message, "550 5.7.1 Message rejected for its content", Rejected),
        (Rcpt, "550 5.7.511 Access denied, banned sender. Please email delist@microsoft.com", Unauthorized),
        (
            Rcpt,
            "550 5.7.606 Access denied, banned sending IP [192.0.2.1]. To request removal from this list please visit https://sender.office.com/",
            Unauthorized,
        ),
        (Rcpt, "450 4.7.26 Service does not accept messages sent over IPv6 unless they pass either SPF or DKIM validation", Unauthorized),
        (Rcpt, "550 5.7.25 Service does not accept messages sent over IPv6 from addresses without a PTR record", Unauthorized),
        (Rcpt, "451 4.7.323 tlsa-invalid: The domain failed DANE validation", Deferred),
        (Rcpt, "550 5.1.1 User unknown", Bounced),
        (Rcpt, "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient not found by SMTP address lookup", Bounced),
        (Rcpt, "550 5.4.1 Recipient address rejected: Access denied. AS(201806281)", Bounced),
        (Rcpt, "550 5.7.12 Sender was not authenticated by organization", Bounced),
        (Rcpt, "550 5.7.124 Sender not in allowed-senders list", Bounced),
        (Rcpt, "550 5.7.133 Sender not authenticated for group", Bounced),
    ]
}

/// For the documentation.
pub fn rows() -> Vec<(String, &'static str, &'static str)> {
    smtp::rows(&Office365)
}
