//! What answers of Graph mean.

use std::time::Duration;

use crate::contract::Diagnostic;
use crate::http::api::{Answer, Reading, Refused};
use crate::http::verdict::{Rule, Verdict};

/// Exchange counts recipients in a window of 24 hours, which moves on all the time.
pub const QUOTA_PAUSE: Duration = Duration::from_secs(3600);

/// What its refusals mean. Exchange's own codes come with different statuses, so for most of them only the
/// code counts; the statuses of `ErrorExceededMessageLimit` and `ErrorMessageSubmissionBlocked` are not
/// documented.
/// <https://learn.microsoft.com/graph/errors>,
/// <https://learn.microsoft.com/exchange/client-developer/web-service-reference/responsecode>
pub const RULES: &[Rule] = &[
    // Reported of messages that were too large: answered with 200, and never sent.
    // <https://github.com/microsoftgraph/microsoft-graph-docs/issues/13979>
    Rule::new(200, "request-id", Verdict::Unsuitable)
        .advice("Graph took the request and did not send: the message may be too large for one request; lower `mime_size`"),
    Rule::new(0, "ErrorMimeContentInvalidBase64String", Verdict::Rejected),
    Rule::new(0, "ErrorMimeContentInvalid", Verdict::Rejected),
    Rule::new(0, "ErrorMimeContentConversionFailed", Verdict::Rejected),
    Rule::new(0, "ErrorInvalidRecipients", Verdict::RecipientsRefused),
    Rule::new(401, "", Verdict::Unauthorized)
        .advice("Graph refuses the token: check `tenant`, and that `endpoint` and `authority` are of the same cloud"),
    Rule::new(0, "ErrorSendAsDenied", Verdict::SenderRefused).advice(
        "the mailbox may not send as this From: in the Exchange admin center give it Send as on that address (Add-RecipientPermission -AccessRights SendAs), let the application use the mailbox itself, or set `rewrite`",
    ),
    Rule::new(403, "ErrorAccessDenied", Verdict::Unauthorized).advice(
        "the application may not send from this mailbox: in Entra give it the application permission Mail.Send of Microsoft Graph with admin consent, or in Exchange the role Application Mail.Send with a scope that has the mailbox in it",
    ),
    Rule::new(0, "ErrorInvalidUser", Verdict::SenderRefused)
        .advice("there is no such mailbox in the tenant: set `mailbox`, or let applications send with an address that has one"),
    Rule::new(0, "MailboxNotEnabledForRESTAPI", Verdict::SenderRefused)
        .advice("the mailbox is not in Exchange Online, or has no licence: use another one in `mailbox`"),
    Rule::new(0, "ErrorMessageSizeExceeded", Verdict::Unsuitable)
        .advice("the tenant takes no message of this size: raise the mailbox's limit in the Exchange admin center, or lower `max_size`"),
    Rule::new(0, "", Verdict::Unsuitable)
        .says("maximum request length supported")
        .advice("the message is too large for one request: lower `mime_size`, so that it is uploaded"),
    Rule::new(0, "ErrorQuotaExceeded", Verdict::SenderRefused)
        .advice("the sending mailbox is full, as Exchange keeps each message in Sent Items: empty it, or give it a retention policy"),
    Rule::new(0, "ErrorExceededMessageLimit", Verdict::Throttled(Some(QUOTA_PAUSE)))
        .advice(QUOTA),
    Rule::new(0, "ErrorMessageSubmissionBlocked", Verdict::SenderRefused)
        .advice("Exchange has blocked the mailbox from sending, mostly after spam: look at Restricted entities in the Defender portal"),
    Rule::new(429, "", Verdict::Throttled(None))
        .says("mailboxconcurrency")
        .advice(CONCURRENCY),
    Rule::new(429, "", Verdict::Throttled(None)),
];

const QUOTA: &str =
    "the mailbox has reached Exchange's limit of 10,000 recipients in 24 hours: spread mail over more mailboxes or providers";
const CONCURRENCY: &str =
    "more than 4 requests at a time for one mailbox: lower `limits.concurrency`, and see whether another program uses the same application";

/// Whether a mailbox was told to slow down, and nobody else.
pub(super) fn is_of_one_mailbox(slowed: &Diagnostic) -> bool {
    slowed.advice == Some(QUOTA) || slowed.advice == Some(CONCURRENCY)
}

/// What an answer to `sendMail` or `send` says: only 202 is success.
/// <https://learn.microsoft.com/graph/api/user-sendmail#response>
pub(super) fn read(answer: &Answer) -> Reading {
    let id = answer.header("request-id");
    match (answer.status, id) {
        (202, id) => Reading::accepted(id.map(str::to_owned)),
        // From Graph itself, and not from something on the way.
        (200, Some(id)) => Reading::refused("request-id", format!("{id} was answered with 200, where only 202 means that it was taken")),
        _ => Reading::Refused(refusal(answer).unwrap_or_default()),
    }
}

/// Code and words of a refusal.
pub(super) fn refusal(answer: &Answer) -> Option<Refused> {
    let json = answer.json();
    let error = json.get("error")?;
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    Some(Refused { code: text("code"), text: text("message"), ..Refused::default() })
}
