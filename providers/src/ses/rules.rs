//! What an answer of SES means, and what the administrator must do about it.
//!
//! The errors of the call: <https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html>.
//! Those of every AWS service come with different statuses, so their codes decide:
//! <https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html>.

use std::time::Duration;

use crate::http::verdict::{Rule, Verdict};

/// SES counts by the second.
pub const RATE_PAUSE: Duration = Duration::from_secs(1);
/// What the documentation says to wait when the daily quota is used up.
/// <https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html>
pub const QUOTA_PAUSE: Duration = Duration::from_secs(600);

const RATE: Verdict = Verdict::Throttled(Some(RATE_PAUSE));
const MORE_QUOTA: &str = "ask for a higher quota in the AWS console under Service Quotas > Amazon Simple Email Service";
const VERIFY: &str =
    "verify the address or its domain in the SES console of this region under Configuration > Identities, or set `rewrite`";
const IAM: &str = "in the IAM console, let this user or role do ses:SendEmail and ses:SendRawEmail on the sender's identity";
const NEW_KEY: &str =
    "the access key does not exist any more or its secret is another: make a new one in the IAM console under Users > Security credentials";
const CLOCK: &str = "set this machine's clock (NTP): AWS takes no request that is more than minutes old";
const EXPIRED: &str =
    "the temporary credentials have ended and no newer ones are to be had: renew `session_token`, or what the default chain reads";
const SUSPENDED: &str =
    "AWS has ended this account's right to send: answer the case in the AWS Support Center, and use another account or provider until then";
const PAUSED: &str =
    "sending is paused for the account or the configuration set: see Account dashboard and Configuration sets in the SES console";
const NOT_FOUND: &str = "check `configuration_set`, `tenant` and `region`: the SES console of this region must list them under Configuration and Tenant management";
const MAIL_FROM: &str = "the identity's MAIL FROM domain lacks its MX record: see Identities > Custom MAIL FROM domain in the SES console, or let it fall back to the default domain";

/// What its refusals mean.
pub const RULES: &[Rule] = &[
    Rule::new(0, "", Verdict::Throttled(Some(QUOTA_PAUSE))).says("daily message quota exceeded").advice(MORE_QUOTA),
    Rule::new(0, "TooManyRequestsException", RATE),
    Rule::new(0, "ThrottlingException", RATE),
    Rule::new(0, "Throttling", RATE),
    Rule::new(429, "", RATE),
    Rule::new(0, "LimitExceededException", Verdict::Throttled(None)).advice(MORE_QUOTA),
    Rule::new(0, "AccountSuspendedException", Verdict::Unauthorized).advice(SUSPENDED),
    Rule::new(0, "SendingPausedException", Verdict::Unauthorized).advice(PAUSED),
    // It belongs to one identity; others may send.
    Rule::new(0, "MailFromDomainNotVerifiedException", Verdict::SenderRefused).advice(MAIL_FROM),
    Rule::new(0, "NotFoundException", Verdict::Unauthorized).advice(NOT_FOUND),
    Rule::new(0, "MessageRejected", Verdict::SenderRefused).says("not verified").advice(VERIFY),
    Rule::new(0, "MessageRejected", Verdict::Rejected),
    Rule::new(0, "BadRequestException", Verdict::Rejected),
    // A policy may name the identities that a key may send for, so one sender says nothing of another.
    Rule::new(403, "AccessDeniedException", Verdict::SenderRefused).says(":identity/").advice(IAM),
    Rule::new(403, "AccessDeniedException", Verdict::Unauthorized).advice(IAM),
    Rule::new(403, "ExpiredTokenException", Verdict::Unauthorized).advice(EXPIRED),
    Rule::new(403, "ExpiredToken", Verdict::Unauthorized).advice(EXPIRED),
    Rule::new(0, "", Verdict::Unauthorized).says("signature expired").advice(CLOCK),
    Rule::new(0, "", Verdict::Unauthorized).says("signature not yet current").advice(CLOCK),
    Rule::new(0, "RequestExpired", Verdict::Unauthorized).advice(CLOCK),
    Rule::new(0, "SignatureDoesNotMatch", Verdict::Unauthorized).advice(NEW_KEY),
    Rule::new(0, "InvalidSignatureException", Verdict::Unauthorized).advice(NEW_KEY),
    Rule::new(0, "IncompleteSignature", Verdict::Unauthorized).advice(NEW_KEY),
    Rule::new(0, "InvalidClientTokenId", Verdict::Unauthorized).advice(NEW_KEY),
    Rule::new(0, "UnrecognizedClientException", Verdict::Unauthorized).advice(NEW_KEY),
    Rule::new(0, "NotAuthorized", Verdict::Unauthorized).advice(IAM),
];

/// What the same refusal means when all that it names are recipients: the account is in the sandbox.
/// <https://docs.aws.amazon.com/ses/latest/dg/request-production-access.html>
pub const SANDBOX: &[Rule] = &[Rule::new(0, "MessageRejected", Verdict::RecipientsRefused).says("not verified").advice(LEAVE_SANDBOX)];

/// How an account gets out of the sandbox.
pub(super) const LEAVE_SANDBOX: &str = "the account is in the SES sandbox, where recipients must be verified, too: request production access in the SES console of this region under Account dashboard";

/// An error's name. They come as `X`, `ns#X` or `X:http://...`.
pub(super) fn bare(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default()
}

/// Whether the credentials were good once.
pub(super) fn is_expired(code: &str) -> bool {
    matches!(bare(code), "ExpiredTokenException" | "ExpiredToken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_errors_are_read_in_each_of_their_forms() {
        for code in
            ["MessageRejected", "com.amazonaws.ses#MessageRejected", "MessageRejected:http://internal/", "a#MessageRejected:http://x#y"]
        {
            assert_eq!(bare(code), "MessageRejected", "{code}");
        }
    }
}
