//! What client submission says in words of its own, and what the administrator must do about it.
//!
//! <https://learn.microsoft.com/exchange/client-developer/legacy-protocols/how-to-authenticate-an-imap-pop-smtp-application-by-using-oauth>,
//! <https://learn.microsoft.com/exchange/clients-and-mobile-in-exchange-online/authenticated-client-smtp-submission>

use crate::exchange;
use crate::smtp::rules::Rule;
use crate::smtp::verdict::{Stage, Verdict};

/// The table: first its own, then what Exchange Online says to everybody.
pub const RULES: &[&[Rule]] = &[OWN, exchange::RULES];

const OWN: &[Rule] = &[
    Rule::new(535, Verdict::Unauthorized).says("disabled for the tenant").advice(
        "SMTP AUTH is switched off: allow it for the mailbox with Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false, or for all with Set-TransportConfig -SmtpClientAuthenticationDisabled $false (Exchange Online PowerShell)",
    ),
    Rule::new(535, Verdict::Unauthorized).says("disabled for the mailbox").advice(
        "SMTP AUTH is switched off for the mailbox: Set-CASMailbox -Identity MAILBOX -SmtpClientAuthenticationDisabled $false (Exchange Online PowerShell; it takes up to an hour)",
    ),
    Rule::new(535, Verdict::Unauthorized).says("security defaults").advice(
        "the tenant's security defaults forbid SMTP AUTH: replace them by Conditional Access policies in Entra under Overview > Properties > Manage security defaults, or use `graph` or `office365_connector` instead",
    ),
    Rule::new(535, Verdict::Unauthorized).says("did not meet the criteria").advice(
        "a Conditional Access or authentication policy forbids this login: look at Entra under Monitoring > Sign-in logs for which, and exclude this application from it",
    ),
    Rule::new(535, Verdict::Unauthorized).status(7, 139).advice(
        "a policy of the tenant forbids this login: look at Entra under Monitoring > Sign-in logs for which",
    ),
    Rule::new(535, Verdict::Unauthorized).advice(
        "Exchange refuses the application: it needs the permission SMTP.SendAsApp with admin consent; New-ServicePrincipal -AppId CLIENT_ID -ObjectId ID with the object id that Entra shows under Enterprise applications (not under App registrations); and Add-MailboxPermission -Identity MAILBOX -User ID -AccessRights FullAccess",
    ),
    Rule::new(550, Verdict::Unauthorized)
        .status(7, 30)
        .advice("Exchange Online takes no passwords any more, and this login was one: something between here and there changes it"),
    Rule::new(530, Verdict::Unauthorized).status(7, 57).advice(
        "Exchange takes this session for anonymous: check `host`; only smtp.office365.com (or your national cloud's name) takes logins",
    ),
    // Nobody logs in to the wrong tenant: this is about where the sender's mailbox is.
    Rule::new(5, Verdict::SenderRefused)
        .at(Stage::Mail)
        .status(7, 1)
        .advice("the sender is no address of the mailbox: add it as an alias, allow SendAs, or set `rewrite`"),
];
