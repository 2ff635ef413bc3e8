//! What a tenant's mail host says to a machine that it should know by a connector.
//!
//! <https://learn.microsoft.com/exchange/troubleshoot/email-delivery/ndr/relay-access-denied-smtp>,
//! <https://learn.microsoft.com/exchange/troubleshoot/email-delivery/wrong-office-365-region-exo>

use crate::exchange;
use crate::smtp::rules::Rule;
use crate::smtp::verdict::{Stage, Verdict};

/// The table: first its own, then what Exchange Online says to everybody.
pub const RULES: &[&[Rule]] = &[OWN, exchange::RULES];

const OWN: &[Rule] = &[
    // 4yz, and yet no retry helps: the host belongs to somebody else.
    Rule::new(4, Verdict::Unauthorized).says("attr35").advice(WRONG_REGION),
    Rule::new(451, Verdict::Unauthorized).status(4, 62).advice(WRONG_REGION),
    Rule::new(5, Verdict::Unauthorized).status(7, 64).advice(NO_CONNECTOR),
    Rule::new(5, Verdict::Unauthorized).says("tenantattribution").advice(NO_CONNECTOR),
    Rule::new(5, Verdict::Unauthorized).status(7, 68).advice(
        "the tenant refuses Direct Send, and no connector knows this machine: make an inbound connector in the Exchange admin center under Mail flow > Connectors, by this machine's address or certificate",
    ),
    Rule::new(5, Verdict::Unauthorized).at(Stage::Rcpt).status(7, 1).says("relay").advice(NO_CONNECTOR),
];

const WRONG_REGION: &str = "`host` is another tenant's or another region's: copy the MX name of your domain from the Microsoft 365 admin center under Settings > Domains > DNS records, and use no fixed address";
const NO_CONNECTOR: &str = "no inbound connector takes this machine for yours: in the Exchange admin center under Mail flow > Connectors, make one from \"Your organization's email server\" with this machine's public address or the name in `certificate`; the sender's domain or the certificate's must be an accepted domain";
