//! Amazon SES, as its reference and the service model of AWS's SDKs describe `SendEmail`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, Request};
use postrider_providers::conformance::{Seen, SeenContent};
use postrider_providers::contract::DynProvider;
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::ses::{self, QUOTA_PAUSE, RATE_PAUSE};
use serde_json::{Value, json};

use super::{connect, strict};

/// Amazon SES.
#[derive(Clone, Copy)]
pub struct Ses;

/// A row as SES writes it: the error's name in a header, its words in the body.
fn row(status: u16, code: &str, message: &str, verdict: Verdict) -> Row {
    Row::json(status, &json!({ "message": message }), verdict).header(&format!("x-amzn-ErrorType: {code}"))
}

fn unverified(listed: &str) -> String {
    format!("Email address is not verified. The following identities failed the check in region EU-WEST-1: {listed}")
}

/// Holds the signature to its form (Signature Version 4).
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
fn signature(request: &Request) {
    let date = request.header("x-amz-date").unwrap();
    assert!(date.len() == 16 && date.ends_with('Z'), "{date}");
    let said = request.header("authorization").unwrap().strip_prefix("AWS4-HMAC-SHA256 ").unwrap();
    let parts: Vec<(&str, &str)> = said.split(", ").map(|part| part.split_once('=').unwrap()).collect();
    let [("Credential", scope), ("SignedHeaders", signed), ("Signature", signature)] = parts[..] else { panic!("{said}") };
    assert_eq!(scope, format!("AKIATEST/{}/eu-west-1/ses/aws4_request", &date[..8]));
    let signed: Vec<&str> = signed.split(';').collect();
    assert!(signed.contains(&"host") && signed.contains(&"x-amz-date"), "{signed:?}");
    assert!(signature.len() == 64 && signature.bytes().all(|b| b.is_ascii_hexdigit()), "{signature}");
}

impl ApiSubject for Ses {
    fn kind(&self) -> &'static str {
        "ses"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let base = json!({
            "region": "eu-west-1", "access_key_id": "AKIATEST", "secret_access_key": "secret", "endpoint": endpoint,
            "configuration_set": "transactional", "tags": { "team": "billing" }, "feedback_address": "bounces@app.example", "tenant": "erp",
        });
        connect("ses", &serde_json::from_value::<ses::Config>(strict::settings(base, settings)).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v2/email/outbound-emails");
        assert_eq!(request.header("content-type"), Some("application/json"));
        signature(request);
        let body = request.json();
        strict::members(
            &body,
            &[
                "FromEmailAddress",
                "FromEmailAddressIdentityArn",
                "Destination",
                "ReplyToAddresses",
                "FeedbackForwardingEmailAddress",
                "FeedbackForwardingEmailAddressIdentityArn",
                "Content",
                "EmailTags",
                "ConfigurationSetName",
                "EndpointId",
                "TenantName",
                "ListManagementOptions",
                "ConfigurationOverrides",
            ],
        );
        assert_eq!(body["FromEmailAddress"], "sender@app.example");
        assert_eq!(body["FeedbackForwardingEmailAddress"], "bounces@app.example");
        assert_eq!(body["EmailTags"], json!([{ "Name": "team", "Value": "billing" }]));
        assert_eq!((&body["ConfigurationSetName"], &body["TenantName"]), (&json!("transactional"), &json!("erp")));
        strict::members(&body["Destination"], &["ToAddresses", "CcAddresses", "BccAddresses"]);
        let recipients: Vec<String> = ["ToAddresses", "CcAddresses", "BccAddresses"]
            .iter()
            .flat_map(|list| strict::list(&body["Destination"][list]))
            .map(|one| strict::text(&one))
            .collect();
        assert!((1..=50).contains(&recipients.len()), "{} recipients", recipients.len());
        strict::distinct(&recipients);
        strict::members(&body["Content"], &["Raw"]);
        strict::members(&body["Content"]["Raw"], &["Data"]);
        Some(Seen { recipients, content: SeenContent::Raw(strict::base64(&body["Content"]["Raw"]["Data"])) })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(200, r#"{"MessageId":"0102018c-id-000000"}"#)
    }

    fn rules(&self) -> &'static [Rule] {
        ses::RULES
    }

    fn rows(&self) -> Vec<Row> {
        use Verdict::{InDoubt, RecipientsRefused, Rejected, SenderRefused, Throttled, Unauthorized, Unsuitable};
        let (rate, quota) = (Throttled(Some(RATE_PAUSE)), Throttled(Some(QUOTA_PAUSE)));
        let denied = |action: &str, resource: &str| {
            format!("User `arn:aws:iam::1:user/relay' is not authorized to perform `{action}' on resource `{resource}'")
        };
        let stale = "Signature expired: 20261124T100000Z is now earlier than 20261124T105500Z (20261124T110000Z - 5 min.)";
        let early = "Signature not yet current: 20261124T110000Z is still later than 20261124T100500Z (20261124T100000Z + 5 min.)";
        let invalid = "The security token included in the request is invalid.";
        vec![
            row(429, "TooManyRequestsException", "Too Many Requests", rate),
            row(400, "ThrottlingException", "Maximum sending rate exceeded.", rate),
            row(400, "Throttling", "Rate exceeded", rate),
            row(429, "", "", rate),
            row(400, "ThrottlingException", "Daily message quota exceeded.", quota),
            row(400, "LimitExceededException", "There are too many instances of the specified resource type.", Throttled(None)),
            row(400, "AccountSuspendedException", "Sending suspended for this account.", Unauthorized),
            row(400, "SendingPausedException", "Sending paused for this configuration set.", Unauthorized),
            row(400, "MailFromDomainNotVerifiedException", "The MAIL FROM domain is not verified.", SenderRefused),
            row(404, "NotFoundException", "Configuration set <transactional> does not exist.", Unauthorized),
            row(400, "MessageRejected", &unverified("sender@app.example"), SenderRefused),
            row(400, "MessageRejected", &unverified("author@other.example"), SenderRefused),
            row(400, "MessageRejected", &unverified("refused@b.example"), RecipientsRefused),
            row(400, "MessageRejected", "Illegal filename: 'x.exe'", Rejected),
            row(400, "com.amazonaws.ses#MessageRejected:http://internal.amazon.com/", "Virus detected", Rejected),
            row(400, "BadRequestException", "Local address contains control or whitespace", Rejected),
            row(403, "AccessDeniedException", &denied("ses:SendRawEmail", "arn:aws:ses:eu-west-1:1:identity/app.example"), SenderRefused),
            row(
                403,
                "AccessDeniedException",
                &denied("ses:SendEmail", "arn:aws:ses:eu-west-1:1:configuration-set/transactional"),
                Unauthorized,
            ),
            row(403, "ExpiredTokenException", "The security token included in the request is expired", Unauthorized),
            row(403, "ExpiredToken", "The provided token has expired.", Unauthorized),
            row(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
                Unauthorized,
            ),
            row(403, "InvalidSignatureException", stale, Unauthorized),
            row(403, "InvalidSignatureException", early, Unauthorized),
            row(403, "InvalidSignatureException", "The request signature we calculated does not match.", Unauthorized),
            row(400, "IncompleteSignature", "Authorization header requires 'Signature' parameter.", Unauthorized),
            row(400, "RequestExpired", "Request has expired.", Unauthorized),
            row(403, "InvalidClientTokenId", invalid, Unauthorized),
            row(403, "UnrecognizedClientException", invalid, Unauthorized),
            row(401, "NotAuthorized", "You do not have permission to perform this action.", Unauthorized),
            row(403, "OptInRequired", "The AWS Access Key Id needs a subscription for the service", Unauthorized),
            row(404, "UnknownOperationException", "", Unauthorized),
            row(413, "RequestEntityTooLargeException", "Request size exceeded", Unsuitable),
            row(400, "SomethingNewException", "never seen before", Unsuitable),
            row(408, "RequestTimeoutException", "", InDoubt),
            row(500, "InternalServiceErrorException", "", InDoubt),
            row(503, "ServiceUnavailable", "", InDoubt),
            Row::text(502, "Bad Gateway", InDoubt),
            Row::json(200, &json!({}), InDoubt),
        ]
    }
}

/// The rule for the sandbox stands beside the others, and is shown by the row that names a recipient.
#[tokio::test]
async fn in_the_sandbox_the_recipients_at_fault_bounce_and_the_others_go_without_them() {
    use postrider_providers::conformance::api::answered;
    use postrider_providers::contract::Outcome;
    let answer = |listed: &str| row(400, "MessageRejected", &unverified(listed), Verdict::RecipientsRefused).answer;
    let by_domain = answered(&Ses, answer("b.example")).await.unwrap();
    assert_eq!(by_domain.outcomes.iter().filter(|(_, outcome)| outcome.name() == "bounced").count(), 1, "{by_domain:?}");
    let report = answered(&Ses, answer("refused@b.example")).await.unwrap();
    let names: Vec<&str> = report.outcomes.iter().map(|(_, outcome)| outcome.name()).collect();
    assert_eq!(names, ["deferred", "bounced", "deferred"]);
    let Outcome::Bounced(diagnostic) = &report.outcomes[1].1 else { panic!("{report:?}") };
    assert!(diagnostic.text.contains("in the SES sandbox"), "{diagnostic}");
    assert!(diagnostic.advice.unwrap().contains("request production access"), "{diagnostic:?}");
}
