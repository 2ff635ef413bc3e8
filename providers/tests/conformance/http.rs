//! The generic provider, with a service for each form of request, as the config would declare it.

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::api::{Api, ApiSubject, Row, check_api};
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::{Seen, SeenContent, SeenFields, attempt, check, content};
use postrider_providers::contract::{Address, DynProvider, Outcome, RecipientIndex};
use postrider_providers::generic;
use postrider_providers::http::verdict::{Rule, Verdict};
use serde_json::{Value, json};

use super::{connect, strict};

/// A service that takes the message as this.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Generic {
    /// The message in base64, in JSON.
    Template,
    /// The message itself; the envelope in header fields.
    Raw,
    /// The message in base64; the envelope in the query, one recipient in a call.
    Base64,
    /// Fields, with each list in the service's own form.
    Fields,
}

impl Generic {
    fn settings(self) -> Value {
        let form = match self {
            Self::Template => json!({
                "template": {
                    "key": "{secrets.key}", "from": "{sender}", "rcpt": "{recipients}", "mime": "{raw_base64}", "ref": "relay-{message_id}",
                },
                "secrets": { "key": "hunter2" },
                "success": { "pointer": "/status", "equals": "ok", "id": "/id", "refused": "/not_for" },
            }),
            Self::Raw => json!({
                "bearer": "hunter2", "recipients": { "header": "X-Recipients" }, "sender": { "header": "X-Sender" }, "method": "PUT",
                "success": { "id": "/id" },
            }),
            Self::Base64 => json!({
                "basic": { "username": "relay", "password": "hunter2" }, "body": "base64", "max_recipients": 1,
                "recipients": { "query": "to" }, "sender": { "query": "from" },
                "query": { "v": "1" },
                "success": { "id_header": "X-Id" },
            }),
            Self::Fields => json!({
                "headers": { "X-Key": "hunter2" },
                "template": {
                    "subject": "{subject}", "text": "{text}", "html": "{html}", "from": { "email": "{from}", "name": "{from_name}" },
                    "to": [{ "email": "{to.address}" }], "cc": [{ "email": "{cc.address}" }], "bcc": [{ "email": "{bcc.address}" }],
                    "files": [{ "name": "{attachments.name}", "data": "{attachments.content}" }],
                },
                "success": { "id": "/id" },
            }),
        };
        let all = json!({
            "idempotency": { "header": "Idempotency-Key", "window": "24h" },
            "refusal": { "code": "/error/code", "text": "/error/text", "recipients": "/error/addresses" },
            "throttle": { "status": [420], "pause": "/error/wait" },
            "error": [
                { "status": 400, "code": "no_such_user", "verdict": "recipients" },
                { "status": 400, "code": "from", "verdict": "sender", "advice": "verify it" },
                { "status": 400, "says": "Too Large", "verdict": "unsuitable" },
                { "status": 400, "verdict": "rejected" },
                { "code": "maintenance", "verdict": "unavailable" },
                { "status": 403, "code": "quota", "verdict": "throttled", "pause": "1h" },
                { "status": 409, "verdict": "taken" },
                { "status": 410, "verdict": "credential", "advice": "make a new key" },
                { "status": 422, "verdict": "in_doubt" },
            ],
        });
        strict::settings(all, form)
    }

    fn config(self, endpoint: &str, settings: Value) -> generic::Config {
        let base = strict::settings(self.settings(), json!({ "url": format!("{endpoint}/send") }));
        serde_json::from_value(strict::settings(base, settings)).unwrap()
    }
}

fn query(request: &Request, name: &str) -> Vec<String> {
    let (_, query) = request.line().split_once('?').unwrap();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let of_name = pairs.filter(|(found, _)| *found == name);
    of_name.map(|(_, value)| value.replace("%40", "@").replace("%2B", "+")).collect()
}

impl ApiSubject for Generic {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn provider(&self, endpoint: &str, settings: Value) -> Arc<dyn DynProvider> {
        connect("http", &self.config(endpoint, settings))
    }

    fn sends(&self, head: &str) -> bool {
        head.starts_with("POST ") || head.starts_with("PUT ")
    }

    fn read(&self, request: &Request) -> Option<Seen> {
        assert_eq!(request.header("idempotency-key").map(str::len), Some(64));
        let content_type = request.header("content-type").unwrap();
        if *self == Self::Base64 {
            assert!(request.line().starts_with("POST /send?v=1&to="), "{}", request.line());
            assert_eq!(request.header("authorization"), Some("Basic cmVsYXk6aHVudGVyMg=="), "relay:hunter2");
            assert_eq!(content_type, "text/plain");
            assert_eq!(query(request, "from"), ["sender@app.example"]);
            let octets = strict::base64(&String::from_utf8(request.body.clone()).unwrap().into());
            return Some(Seen { recipients: query(request, "to"), content: SeenContent::Raw(octets) });
        }
        if *self == Self::Raw {
            assert_eq!(request.line(), "PUT /send");
            assert_eq!(request.header("authorization"), Some("Bearer hunter2"));
            assert_eq!(content_type, "message/rfc822");
            assert_eq!(request.header("x-sender"), Some("sender@app.example"));
            let recipients = request.header("x-recipients").unwrap().split(", ").map(str::to_owned).collect();
            return Some(Seen { recipients, content: SeenContent::Raw(request.body.clone()) });
        }
        assert_eq!(request.line(), "POST /send");
        assert_eq!(content_type, "application/json");
        let body = request.json();
        if *self == Self::Template {
            strict::members(&body, &["key", "from", "rcpt", "mime", "ref"]);
            assert_eq!((&body["key"], &body["from"]), (&json!("hunter2"), &json!("sender@app.example")));
            assert!(strict::text(&body["ref"]).starts_with("relay-0"), "{}", body["ref"]);
            let recipients = strict::list(&body["rcpt"]).iter().map(strict::text).collect();
            return Some(Seen { recipients, content: SeenContent::Raw(strict::base64(&body["mime"])) });
        }
        assert_eq!(request.header("x-key"), Some("hunter2"));
        strict::members(&body, &["subject", "text", "html", "from", "to", "cc", "bcc", "files"]);
        assert_eq!(body["from"]["email"], "sender@app.example");
        let recipients: Vec<String> = ["to", "cc", "bcc"].iter().flat_map(|list| strict::addresses(&body[list], "email")).collect();
        let attachments = strict::list(&body["files"]);
        Some(Seen {
            recipients,
            content: SeenContent::Fields(SeenFields {
                subject: strict::text(&body["subject"]),
                text: body["text"].as_str().map(str::to_owned),
                html: body["html"].as_str().map(str::to_owned),
                attachments: attachments.iter().map(|one| (strict::text(&one["name"]), strict::base64(&one["data"]))).collect(),
                headers: Vec::new(),
            }),
        })
    }

    fn success(&self, _: &Request) -> Answer {
        let body = json!({ "status": "ok", "id": 4711 }).to_string();
        Answer::Reply { status: 200, headers: vec!["X-Id: 4711".to_owned()], body }
    }

    fn partial(&self, _: &Request) -> Option<Answer> {
        let body = json!({ "status": "ok", "id": 4711, "not_for": ["refused@b.example"] }).to_string();
        (*self == Self::Template).then(|| Answer::json(200, &body))
    }

    fn rules(&self) -> &'static [Rule] {
        self.config("http://api.example", json!({})).rules().unwrap().leak()
    }

    fn rows(&self) -> Vec<Row> {
        let error = |code: &str, text: &str| json!({ "error": { "code": code, "text": text } });
        let row = |status: u16, code: &str, text: &str, verdict: Verdict| Row::json(status, &error(code, text), verdict);
        let hour = Some(Duration::from_secs(3600));
        vec![
            Row::json(
                400,
                &json!({ "error": { "code": "no_such_user", "addresses": ["first@a.example", "refused@b.example", "third+tag@c.example"] } }),
                Verdict::RecipientsRefused,
            ),
            row(400, "from", "unknown sender", Verdict::SenderRefused),
            row(400, "x", "it is too large", Verdict::Unsuitable),
            row(400, "x", "", Verdict::Rejected),
            row(500, "maintenance", "", Verdict::Unavailable),
            row(403, "quota", "", Verdict::Throttled(hour)),
            row(409, "", "", Verdict::TakenBefore),
            row(410, "", "", Verdict::Unauthorized),
            row(422, "", "", Verdict::InDoubt),
            row(420, "", "", Verdict::Throttled(None)),
            Row::json(420, &json!({ "error": { "wait": 7 } }), Verdict::Throttled(Some(Duration::from_secs(7)))),
            // Not declared: the default for all HTTP APIs.
            Row::text(401, "", Verdict::Unauthorized),
            Row::text(403, "", Verdict::Unauthorized),
            Row::text(404, "", Verdict::Unauthorized),
            Row::text(413, "", Verdict::Unsuitable),
            row(418, "", "", Verdict::Unsuitable),
            row(429, "", "", Verdict::Throttled(None)),
            Row::text(500, "", Verdict::InDoubt),
            Row::text(204, "", Verdict::InDoubt),
            Row::text(200, "ok", Verdict::InDoubt),
        ]
    }
}

#[tokio::test]
async fn every_form_of_request_keeps_the_contract() {
    for form in [Generic::Raw, Generic::Base64, Generic::Fields] {
        check(&Api(form)).await;
        check_api(form).await;
    }
}

#[tokio::test]
async fn a_message_for_which_a_template_has_no_place_is_not_offered() {
    let api = FakeApi::start([Answer::Close]).await.unwrap();
    let settings = json!({ "template": { "to": "{recipients}", "text": "{html}" }, "max_recipients": 1 });
    let provider = Generic::Fields.provider(&api.url(), settings);
    let failure = provider.deliver(attempt(&content(300), Duration::from_secs(60))).await.unwrap_err();
    assert!(failure.name() == "unsuitable" && failure.diagnostic().text.contains("plain text"), "{failure:?}");

    let addressed = Generic::Raw.provider(&api.url(), json!({}));
    let mut odd = attempt(&content(300), Duration::from_secs(60));
    Arc::make_mut(&mut odd.message).envelope.recipients[0].address = "\"a, b\"@c.example".parse().unwrap();
    assert_eq!(addressed.deliver(odd).await.unwrap_err().name(), "unsuitable", "a comma stands between recipients");
    assert!(api.requests().is_empty());
}

#[tokio::test]
async fn what_a_template_has_no_place_for_is_told() {
    let api = FakeApi::start([Answer::json(200, r#"{"id": 1}"#)]).await.unwrap();
    let template = json!({ "to": "{recipients}", "t": "{text}", "h": "{html}", "f": "{attachments}", "from": "{from}" });
    let settings = json!({ "template": template, "max_recipients": 1 });
    let content = b"From: a@b.example\r\nSubject: x\r\nReply-To: c@b.example\r\nX-Case: 7\r\n\r\nhi\r\n";
    let report = Generic::Fields.provider(&api.url(), settings).deliver(attempt(content, Duration::from_secs(60))).await.unwrap();
    let (_, Outcome::Relayed(receipt)) = &report.outcomes[0] else { panic!("{report:?}") };
    for what in ["Subject", "Reply-To", "X-Case"] {
        assert!(receipt.lost.contains(&format!("{what}: the template has no place for it")), "{what}: {:?}", receipt.lost);
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_not_kept() {
    for status in [200, 401] {
        let long = Answer::Reply { status, headers: Vec::new(), body: "x".repeat(2 << 20) };
        let api = FakeApi::start([long]).await.unwrap();
        let delivery = Generic::Raw.provider(&api.url(), json!({})).deliver(attempt(&content(300), Duration::from_secs(60))).await;
        let (_, Outcome::InDoubt(diagnostic)) = &delivery.unwrap().outcomes[0] else { panic!("{status}") };
        assert!(diagnostic.text.contains("more than 1048576 octets"), "{diagnostic}");
    }
}

#[tokio::test]
async fn of_a_service_that_talks_a_lot_little_is_kept() {
    let long = "a\\n".repeat(100_000);
    for body in [format!(r#"{{"id": "{long}"}}"#), format!(r#"{{"error": {{"text": "{long}"}}}}"#)] {
        let api = FakeApi::start([Answer::json(200, &body)]).await.unwrap();
        let delivery = Generic::Raw.provider(&api.url(), json!({})).deliver(attempt(&content(300), Duration::from_secs(60))).await;
        let said = match &delivery.unwrap().outcomes[0].1 {
            Outcome::Relayed(receipt) => receipt.reply.clone(),
            Outcome::InDoubt(diagnostic) => diagnostic.text.clone(),
            other => panic!("{other:?}"),
        };
        assert!((900..1100).contains(&said.len()) && !said.contains('\n'), "{}", said.len());
    }
}

#[tokio::test]
async fn what_a_url_has_no_room_for_shows_no_secret() {
    let api = FakeApi::start([Answer::json(200, "{}")]).await.unwrap();
    let settings = json!({ "query": { "key": "hunter2" }, "max_recipients": 100_000 });
    let mut many = attempt(&content(300), Duration::from_secs(60));
    let recipients: Vec<_> = (0..5000).map(|n| format!("somebody-{n}@a.example").parse::<Address>().unwrap().into()).collect();
    Arc::make_mut(&mut many.message).envelope.recipients = recipients;
    many.recipients = (0..5000).map(RecipientIndex).collect();
    // Here, and not at the service, whose health this says nothing about.
    let failure = Generic::Base64.provider(&api.url(), settings).deliver(many).await.unwrap_err();
    assert!(failure.name() == "unsuitable" && !format!("{failure:?}").contains("hunter2"), "{failure:?}");
    assert!(api.requests().is_empty());
}

#[tokio::test]
async fn a_probe_asks_what_is_declared_and_says_when_nothing_is() {
    let answer = |request: &Request| match request.line() {
        "HEAD /send" => Answer::Reply { status: 405, headers: Vec::new(), body: String::new() },
        "GET /ping" if request.header("authorization") == Some("Bearer hunter2") => Answer::json(204, ""),
        other => panic!("{other}"),
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let probed = Generic::Raw.provider(&api.url(), json!({})).probe().await.unwrap();
    assert!(probed.warnings[0].contains("405"), "{probed:?}");
    let ping = json!({ "probe": { "url": format!("{}/ping", api.url()), "status": 204 } });
    assert_eq!(Generic::Raw.provider(&api.url(), ping).probe().await.unwrap().facts, ["the probe is answered with 204"]);

    let refuses = FakeApi::start([Answer::json(401, "")]).await.unwrap();
    let ping = json!({ "probe": { "url": refuses.url() } });
    assert_eq!(Generic::Raw.provider(&refuses.url(), ping).probe().await.unwrap_err().name(), "unauthorized");
}
