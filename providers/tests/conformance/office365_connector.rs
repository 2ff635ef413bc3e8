//! Microsoft 365 by connector: a host that takes no login, under TLS only.

use std::sync::Arc;

use postrider_providers::contract::DynProvider;
use postrider_providers::exchange::{CONNECTION_PAUSE, QUOTA_PAUSE};
use postrider_providers::office365_connector::{self, refusals};
use postrider_providers::smtp::rules::Rule;
use postrider_providers::smtp::verdict::{Stage, Verdict};
use serde_json::{Value, json};

use super::smtp::{self, FarSide, Row, SmtpSubject};
use super::{connect, office365};

/// The connector.
#[derive(Clone, Copy)]
pub struct Connector;

impl SmtpSubject for Connector {
    fn kind(&self) -> &'static str {
        "office365_connector"
    }

    fn provider(&self, far: &FarSide, settings: Value) -> Arc<dyn DynProvider> {
        let settings = far.settings(json!({ "certificate": far.certificate(), "private_key": far.key() }), settings);
        connect("office365_connector", &serde_json::from_value::<office365_connector::Config>(settings).unwrap())
    }

    fn offers(&self) -> &'static [&'static str] {
        &["SIZE 157286400", "PIPELINING", "DSN", "ENHANCEDSTATUSCODES", "8BITMIME", "BINARYMIME", "CHUNKING", "SMTPUTF8"]
    }

    fn rules(&self) -> &'static [&'static [Rule]] {
        refusals::RULES
    }

    fn table(&self) -> Vec<Row> {
        use Stage::{Mail, Message, Rcpt};
        use Verdict::{Deferred, SenderRefused, Throttled, Unauthorized, Unsuitable};
        let mut table = vec![
            (Rcpt, "550 5.7.64 TenantAttribution; Relay Access Denied [AM0EUR02FT001.eop-EUR02.prod.protection.outlook.com]", Unauthorized),
            (Rcpt, "554 5.7.1 TenantAttribution; Relay Access Denied", Unauthorized),
            (
                Rcpt,
                "451 4.4.62 Mail sent to the wrong Office 365 region. ATTR35. For more information please go to https://go.microsoft.com/fwlink/?linkid=865268",
                Unauthorized,
            ),
            (Rcpt, "451 4.4.62 Mail sent to the wrong Office 365 region", Unauthorized),
            (Rcpt, "452 4.5.3 Recipients belong to multiple regions ATTR38", Deferred),
            (
                Message,
                "550 5.7.68 TenantInboundAttribution; Direct Send not allowed for this organization from unauthorized sources",
                Unauthorized,
            ),
            (Rcpt, "550 5.7.1 Unable to relay", Unauthorized),
            // The same words as in client submission, and the same store behind them.
            (Mail, "432 4.3.2 sender thread limit exceeded", Throttled(Some(CONNECTION_PAUSE))),
            (Mail, "432 4.3.2 concurrent connection limit exceeded", Throttled(Some(CONNECTION_PAUSE))),
            (Message, "554 5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException", Throttled(Some(QUOTA_PAUSE))),
            (Message, "554 5.2.0 STOREDRV.Submission.Exception:SendAsDeniedException", SenderRefused),
            (Message, "554 5.2.252 not allowed to send as b@contoso.example", SenderRefused),
            (Message, "554 5.2.0 STOREDRV.Submission.Exception:QuotaExceededException", SenderRefused),
            (Message, "554 5.2.2 mailbox full", SenderRefused),
            (Message, "554 5.2.3 MapiExceptionMaxSubmissionExceeded", Unsuitable),
            (Message, "550 5.2.3 Message size exceeds fixed maximum message size", Unsuitable),
        ];
        table.extend(office365::everywhere());
        table
    }
}

/// For the documentation.
pub fn rows() -> Vec<(String, &'static str, &'static str)> {
    smtp::rows(&Connector)
}
