//! Mailgun, as its reference describes `POST /v3/{domain}/messages.mime`.

use std::sync::Arc;

use postrider_providers::conformance::api::{ApiSubject, Row};
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{Seen, SeenContent, attempt, content};
use postrider_providers::contract::{DynProvider, Outcome};
use postrider_providers::http::verdict::{Rule, Verdict};
use postrider_providers::mailgun;
use serde_json::{Value, json};

use super::{connect, strict};

/// Mailgun.
#[derive(Clone, Copy)]
pub struct Mailgun;

impl ApiSubject for Mailgun {
    fn kind(&self) -> &'static str {
        "mailgun"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        let base = json!({ "api_key": "key", "domain": "mg.example", "tags": ["a b"], "endpoint": endpoint });
        connect("mailgun", &serde_json::from_value::<mailgun::Config>(strict::settings(base, settings)).unwrap())
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.line(), "POST /v3/mg.example/messages.mime");
        assert_eq!(request.header("authorization"), Some("Basic YXBpOmtleQ=="), "api:key");
        let (mut recipients, mut message) = (Vec::new(), None);
        for part in strict::form(request) {
            match (part.name.as_str(), part.file) {
                ("to", None) => recipients.push(String::from_utf8(part.value).unwrap()),
                ("message", Some(_)) => assert!(message.replace(part.value).is_none(), "two messages"),
                ("o:tracking" | "o:tracking-clicks" | "o:tracking-opens", None) => assert_eq!(part.value, b"no"),
                ("o:tag", None) => assert_eq!(part.value, b"a b"),
                ("o:testmode", None) => assert_eq!(part.value, b"yes"),
                (name, file) => panic!("Mailgun knows no {name}, file {file:?}"),
            }
        }
        strict::distinct(&recipients);
        assert!((1..=1000).contains(&recipients.len()), "{} recipients", recipients.len());
        Some(Seen { recipients, content: SeenContent::Raw(message.unwrap()) })
    }

    fn success(&self, _: &Request) -> Answer {
        Answer::json(200, &json!({ "id": "<1.2@mg.example>", "message": "Queued. Thank you." }).to_string())
    }

    fn rules(&self) -> &'static [Rule] {
        mailgun::RULES
    }

    fn rows(&self) -> Vec<Row> {
        let row = |status: u16, message: &str, verdict: Verdict| Row::json(status, &json!({ "message": message }), verdict);
        vec![
            row(400, "'to' parameter is not a valid address. please check documentation", Verdict::RecipientsRefused),
            row(400, "to parameter is not a valid address: first@a.example", Verdict::RecipientsRefused),
            row(400, "Too many recipients; max is 1000", Verdict::Unsuitable),
            row(400, "Domain mg.example is not allowed to send: recipient limit exceeded", Verdict::Throttled(None)),
            row(
                400,
                "Domain mg.example is not allowed to send: You are sending too fast. Your account is on probation.",
                Verdict::Throttled(None),
            ),
            row(
                403,
                "Domain sandbox1.mailgun.org is not allowed to send: Sandbox subdomains are for test purposes only. Please add your own \
                 domain or add the address to authorized recipients in Account Settings.",
                Verdict::SenderRefused,
            ),
            row(403, "Domain mg.example is not allowed to send: Account disabled", Verdict::Unauthorized),
            row(400, "'message' parameter is missing", Verdict::Rejected),
            Row::text(401, "Forbidden", Verdict::Unauthorized),
            Row::text(402, "Payment required", Verdict::Unauthorized),
            Row::text(403, "Forbidden", Verdict::Unauthorized),
            row(404, "Domain not found: mg.example", Verdict::Unauthorized),
            Row::text(413, "Request Entity Too Large", Verdict::Unsuitable),
            row(429, "Too many requests", Verdict::Throttled(None)),
            row(500, "Internal Server Error", Verdict::InDoubt),
            Row::text(503, "", Verdict::InDoubt),
            Row::text(200, "Mailgun Magnificent API", Verdict::Unauthorized),
            Row::text(200, "{}", Verdict::InDoubt),
        ]
    }
}

/// An API that refuses the whole call if `bad@…` is among its recipients, and says no name.
#[tokio::test]
async fn an_address_that_mailgun_refuses_without_a_name_is_found_and_the_others_get_the_message() {
    let answer = |request: &Request| {
        let seen = Mailgun.read(request).unwrap();
        match seen.recipients.iter().any(|address| address.starts_with("refused@")) {
            true => Answer::json(400, r#"{ "message": "'to' parameter is not a valid address. please check documentation" }"#),
            false => Mailgun.success(request),
        }
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let provider = Mailgun.provider(&api.url(), json!({}));
    let report = provider.deliver(attempt(&content(300), std::time::Duration::from_secs(60))).await.unwrap();
    let outcomes: Vec<(u32, &str)> = report.outcomes.iter().map(|(index, outcome)| (index.0, outcome.name())).collect();
    assert_eq!(outcomes, [(0, "relayed"), (2, "bounced"), (3, "relayed")]);
    let relayed = report.outcomes.iter().find_map(|(_, outcome)| match outcome {
        Outcome::Relayed(receipt) => receipt.remote_id.as_deref(),
        _ => None,
    });
    assert_eq!(relayed, Some("<1.2@mg.example>"));
    let accepted = api.requests().iter().filter(|(_, answer)| matches!(answer, Answer::Reply { status: 200, .. })).count();
    assert_eq!(accepted, 2, "each of the others in one call");
}

#[tokio::test]
async fn a_probe_sends_nothing_and_tells_a_good_key_from_a_bad_one() {
    let answer = |request: &Request| match request.line() {
        "POST /v3/mg.example/messages.mime" => {
            let names: Vec<String> = strict::form(request).into_iter().map(|part| part.name).collect();
            assert_eq!(names, ["o:testmode"], "nothing to send");
            Answer::json(400, r#"{ "message": "to parameter is missing" }"#)
        }
        "GET /v4/domains/mg.example" => {
            Answer::json(200, r#"{ "domain": { "name": "mg.example", "state": "unverified", "type": "custom" } }"#)
        }
        other => panic!("{other}"),
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let probed = Mailgun.provider(&api.url(), json!({})).probe().await.unwrap();
    assert_eq!(probed.facts, ["the key may send as mg.example"]);
    assert!(probed.warnings[0].contains("unverified"), "{probed:?}");

    for (status, body, expected) in
        [(401, "Forbidden", "unauthorized"), (404, r#"{"message":"Domain not found: x"}"#, "unauthorized"), (503, "", "unavailable")]
    {
        let api = FakeApi::start([Answer::json(status, body)]).await.unwrap();
        let failure = Mailgun.provider(&api.url(), json!({})).probe().await.unwrap_err();
        assert_eq!(failure.name(), expected, "{failure:?}");
    }
}
