//! A probe for keys that may do nothing but send: a call that lacks its message. A key that is good is
//! told what is missing, any other is refused as it always is, and nothing is sent.

use reqwest::RequestBuilder;

use super::api::{Answer, Refused, Timeouts, exchange};
use super::verdict::{Rule, Verdict, judge};
use crate::contract::{Diagnostic, Failure};

/// Makes the call. It must lack what no message can do without, such as the recipients.
///
/// # Errors
/// What is refused beside the message that is not there, by the same rules as for one; nothing is in
/// doubt here.
pub async fn dry_run(
    during: &'static str,
    request: RequestBuilder,
    timeouts: Timeouts,
    rules: &[Rule],
    read: impl FnOnce(&Answer) -> Option<Refused>,
) -> Result<(), Failure> {
    let (answer, _) = exchange(during, request, timeouts, None).await.map_err(|unanswered| Failure::Unavailable(unanswered.diagnostic))?;
    let refused = read(&answer).unwrap_or_default();
    let text = if refused.text.is_empty() { answer.excerpt() } else { refused.text };
    let (verdict, advice) = judge(rules, answer.status, &refused.code, &text);
    if matches!(verdict, Verdict::Rejected | Verdict::RecipientsRefused) {
        return Ok(());
    }
    let diagnostic = Diagnostic { code: Some(answer.status), ..Diagnostic::during(during, text) }.advised(advice);
    Err(verdict.failure(diagnostic).unwrap_or_else(Failure::Unavailable))
}
