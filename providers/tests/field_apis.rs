//! What APIs that take fields are told of a rich message, exactly, and what they tell when they are probed.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::attempt;
use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::contract::{DynProvider, Failure, Outcome, Probed, ProviderName};
use postrider_providers::registry::{Context, Settings, SettingsError};
use postrider_providers::{brevo, postmark, resend, sendgrid};
use serde_json::{Value, json};

/// Texts, a picture, a file, an invitation; people of all sorts; and header fields that must not go on.
const RICH: &str = "Received: from app by relay\r\nFrom: \"App, the\" <sender@app.example>\r\nTo: \"First, The\" <FIRST@a.example>, stranger@x.example\r\n\
    Cc: =?utf-8?q?J=C3=B6rg?= <refused@b.example>\r\nBcc: third+tag@c.example\r\nReply-To: desk@app.example, second@app.example\r\n\
    Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nMessage-ID: <m1@app.example>\r\nDate: Tue, 24 Nov 2026 11:00:00 +0000\r\n\
    X-Job: 17\r\nX-Job: 18\r\nX-SMTPAPI: {\"to\":[\"thief@x.example\"]}\r\nX-PM-Tag: t\r\nIn-Reply-To: <m0@app.example>\r\n\
    Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/related; boundary=r\r\n\r\n\
    --r\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n--a\r\n\r\nplain\r\n--a\r\nContent-Type: text/html\r\n\r\n<img src=cid:p@x>\r\n\
    --a\r\nContent-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR\r\n--a--\r\n\
    --r\r\nContent-Type: image/png; name=p.png\r\nContent-ID: <p@x>\r\n\r\nPNG\r\n--r--\r\n\
    --m\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=f.pdf\r\n\r\nPDF\r\n--m--\r\n";

fn connect(kind: &str, config: &impl Settings) -> Result<Arc<dyn DynProvider>, SettingsError> {
    let context = Context::new("relay.example").unwrap();
    Ok(config.connect(ProviderName::new(kind, "test"), &context)?.provider)
}

fn sendgrid(api: &FakeApi, more: &Value) -> Arc<dyn DynProvider> {
    connect("sendgrid", &config::<sendgrid::Config>("api_key", api, more)).unwrap()
}

fn postmark(api: &FakeApi, more: &Value) -> Arc<dyn DynProvider> {
    connect("postmark", &config::<postmark::Config>("server_token", api, more)).unwrap()
}

fn resend(api: &FakeApi, more: &Value) -> Arc<dyn DynProvider> {
    connect("resend", &config::<resend::Config>("api_key", api, more)).unwrap()
}

fn config<C: serde::de::DeserializeOwned>(secret: &str, api: &FakeApi, more: &Value) -> C {
    let mut settings = json!({ secret: "key", "endpoint": api.url() });
    settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(settings).unwrap()
}

/// The bodies that a message makes, and what its first receipt says was lost.
async fn told(api: FakeApi, provider: Arc<dyn DynProvider>, message: &str) -> (Vec<Value>, Vec<String>) {
    let report = provider.deliver(attempt(message.as_bytes(), Duration::from_secs(60))).await.unwrap();
    let [(_, Outcome::Relayed(receipt)), ..] = report.outcomes.as_slice() else { panic!("{report:?}") };
    (api.requests().iter().map(|(request, _)| request.json()).collect(), receipt.lost.clone())
}

async fn answers(status: u16, body: &Value) -> FakeApi {
    FakeApi::start([Answer::json(status, &body.to_string())]).await.unwrap()
}

#[tokio::test]
async fn sendgrid_is_told_in_its_own_terms() {
    let api = answers(200, &json!({})).await;
    let provider = sendgrid(&api, &json!({ "sandbox": true, "categories": ["erp"] }));
    let (bodies, lost) = told(api, provider, RICH).await;
    let expected = json!({
        "personalizations": [{
            "to": [{ "email": "first@a.example", "name": "First The" }],
            "cc": [{ "email": "refused@b.example", "name": "J\u{f6}rg" }],
            "bcc": [{ "email": "Third+Tag@C.example" }],
        }],
        "from": { "email": "sender@app.example", "name": "App, the" },
        "reply_to_list": [{ "email": "desk@app.example" }, { "email": "second@app.example" }],
        "subject": "Gr\u{fc}\u{df}e",
        "content": [
            { "type": "text/plain", "value": "plain" },
            { "type": "text/html", "value": "<img src=cid:p@x>" },
            { "type": "text/calendar", "value": "BEGIN:VCALENDAR" },
        ],
        "attachments": [
            { "filename": "p.png", "type": "image/png", "content": "UE5H", "disposition": "inline", "content_id": "p@x" },
            { "filename": "f.pdf", "type": "application/pdf", "content": "UERG" },
        ],
        "headers": { "X-Job": "17", "X-PM-Tag": "t", "In-Reply-To": "<m0@app.example>" },
        "tracking_settings": { "click_tracking": { "enable": false, "enable_text": false }, "open_tracking": { "enable": false } },
        "categories": ["erp"],
        "mail_settings": { "sandbox_mode": { "enable": true } },
    });
    assert_eq!(bodies, [expected]);
    assert_eq!(
        lost,
        [
            "Message-ID: the service gives its own",
            "Date: the service sets its own",
            "To and Cc: stranger@x.example, who are shown and get no copy by this call",
            "X-SMTPAPI: SendGrid does not take it",
            "X-Job: it is there more than once, and the first is kept",
            "text/calendar: the method beside it",
        ]
    );
}

#[tokio::test]
async fn postmark_is_told_in_its_own_terms() {
    let api = answers(200, &json!({ "MessageID": "1", "ErrorCode": 0, "Message": "OK" })).await;
    let provider = postmark(&api, &json!({ "message_stream": "erp", "tag": "jobs" }));
    let (bodies, lost) = told(api, provider, RICH).await;
    let header = |name: &str, value: &str| json!({ "Name": name, "Value": value });
    let expected = json!({
        "From": "=?utf-8?b?QXBwLCB0aGU=?= <sender@app.example>",
        "To": "=?utf-8?b?Rmlyc3QsIFRoZQ==?= <first@a.example>",
        "Cc": "=?utf-8?b?SsO2cmc=?= <refused@b.example>",
        "Bcc": "Third+Tag@C.example",
        "ReplyTo": "desk@app.example, second@app.example",
        "Subject": "Gr\u{fc}\u{df}e",
        "TextBody": "plain",
        "HtmlBody": "<img src=cid:p@x>",
        "Headers": [
            header("X-Job", "17"),
            header("X-Job", "18"),
            header("X-SMTPAPI", "{\"to\":[\"thief@x.example\"]}"),
            header("In-Reply-To", "<m0@app.example>"),
            header("Message-ID", "<m1@app.example>"),
            header("X-PM-KeepID", "true"),
        ],
        "Attachments": [
            { "Name": "invite.ics", "ContentType": "text/calendar", "Content": "QkVHSU46VkNBTEVOREFS" },
            { "Name": "p.png", "ContentType": "image/png", "Content": "UE5H", "ContentID": "cid:p@x" },
            { "Name": "f.pdf", "ContentType": "application/pdf", "Content": "UERG" },
        ],
        "TrackOpens": false,
        "TrackLinks": "None",
        "MessageStream": "erp",
        "Tag": "jobs",
    });
    assert_eq!(bodies, [expected]);
    assert_eq!(
        lost,
        [
            "Date: the service sets its own",
            "text/calendar: the invitation is handed over as an attachment",
            "To and Cc: stranger@x.example, who are shown and get no copy by this call",
            "X-PM-Tag: it would be an order to Postmark",
        ]
    );
}

#[tokio::test]
async fn resend_is_told_in_its_own_terms() {
    let api = answers(200, &json!({ "id": "1" })).await;
    let provider = resend(&api, &json!({ "tags": { "system": "erp" } }));
    let (bodies, lost) = told(api, provider, RICH).await;
    let expected = json!({
        "from": "App the <sender@app.example>",
        "to": ["=?utf-8?b?Rmlyc3QsIFRoZQ==?= <first@a.example>"],
        "cc": ["=?utf-8?b?SsO2cmc=?= <refused@b.example>"],
        "bcc": ["Third+Tag@C.example"],
        "reply_to": ["desk@app.example", "second@app.example"],
        "subject": "Gr\u{fc}\u{df}e",
        "text": "plain",
        "html": "<img src=cid:p@x>",
        "headers": {
            "X-Job": "17", "X-SMTPAPI": "{\"to\":[\"thief@x.example\"]}", "X-PM-Tag": "t", "In-Reply-To": "<m0@app.example>",
        },
        "attachments": [
            { "filename": "invite.ics", "content_type": "text/calendar", "content": "QkVHSU46VkNBTEVOREFS" },
            { "filename": "p.png", "content_type": "image/png", "content": "UE5H", "content_id": "p@x" },
            { "filename": "f.pdf", "content_type": "application/pdf", "content": "UERG" },
        ],
        "tags": [{ "name": "system", "value": "erp" }],
    });
    assert_eq!(bodies, [expected]);
    assert_eq!(lost.len(), 6, "{lost:?}");
    assert!(lost.contains(&"From: the name \"App, the\" is shown as \"App the\"".to_owned()), "{lost:?}");
}

#[tokio::test]
async fn what_is_empty_is_not_refused_for_that() {
    let message = "From: sender@app.example\r\nTo: first@a.example\r\n\r\n";
    let api = FakeApi::start([Answer::Reply { status: 202, headers: vec![], body: String::new() }]).await.unwrap();
    let provider = sendgrid(&api, &json!({}));
    let (bodies, lost) = told(api, provider, message).await;
    assert_eq!(bodies[0]["content"], json!([{ "type": "text/plain", "value": " " }]));
    assert_eq!(
        (bodies[0]["subject"].as_str(), lost[0].as_str()),
        (Some("(no subject)"), "Subject: the message has none, and the service wants one")
    );
    let api = answers(200, &json!({ "MessageID": "1", "ErrorCode": 0, "Message": "OK" })).await;
    let provider = postmark(&api, &json!({}));
    let (bodies, _) = told(api, provider, message).await;
    assert_eq!((&bodies[0]["TextBody"], &bodies[0]["Subject"]), (&json!(" "), &json!("")));
    let api = answers(200, &json!({ "id": "1" })).await;
    let provider = resend(&api, &json!({}));
    let (bodies, _) = told(api, provider, &message.replace("\r\n\r\n", "\r\nContent-Type: text/html\r\n\r\n<p>")).await;
    // Without it Resend would write a text of its own.
    assert_eq!((&bodies[0]["text"], &bodies[0]["html"]), (&json!(""), &json!("<p>")));
}

#[tokio::test]
async fn recipients_whom_nobody_shows_are_told_one_by_one_with_keys_of_their_own() {
    let api = answers(200, &json!({ "id": "1" })).await;
    let provider = resend(&api, &json!({}));
    let once = attempt(b"From: sender@app.example\r\nTo: list@x.example\r\nSubject: x\r\n\r\ny\r\n", Duration::from_secs(60));
    for _ in 0..2 {
        assert_eq!(provider.deliver(once.clone()).await.unwrap().outcomes.len(), 3);
    }
    let requests = api.requests();
    let keys: Vec<&str> = requests.iter().map(|(request, _)| request.header("idempotency-key").unwrap()).collect();
    let to: Vec<Value> = requests.iter().map(|(request, _)| request.json()["to"].clone()).collect();
    assert_eq!(to[..3], [json!(["first@a.example"]), json!(["refused@b.example"]), json!(["Third+Tag@C.example"])]);
    assert_eq!((&keys[..3], &to[..3]), (&keys[3..], &to[3..]), "the same again is the same request");
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2]);
}

/// An API that takes no message for `refused@b.example`, and does not say which address it dislikes.
async fn dislikes(status: u16, refusal: Value, success: Answer) -> FakeApi {
    let asked = move |request: &Request| match String::from_utf8_lossy(&request.body).contains("refused@b.example") {
        true => Answer::json(status, &refusal.to_string()),
        false => success.clone(),
    };
    FakeApi::asking(|_| None, asked).await.unwrap()
}

#[tokio::test]
async fn one_recipient_that_a_service_refuses_without_a_name_keeps_nobody_else_from_the_message() {
    let message = "From: sender@app.example\r\nTo: first@a.example\r\nSubject: x\r\n\r\ny\r\n";
    let ok = Answer::json(200, &json!({ "id": "1" }).to_string());
    let api = dislikes(422, json!({ "name": "validation_error", "message": "Invalid `cc` field." }), ok).await;
    let by_resend = (resend(&api, &json!({})), api);
    let ok = Answer::json(201, &json!({ "messageId": "1" }).to_string());
    let api = dislikes(400, json!({ "code": "invalid_parameter", "message": "email is not valid in to" }), ok).await;
    let by_brevo = (connect("brevo", &config::<brevo::Config>("api_key", &api, &json!({}))).unwrap(), api);
    for (provider, api) in [by_resend, by_brevo] {
        let report = provider.deliver(attempt(message.as_bytes(), Duration::from_secs(60))).await.unwrap();
        let mut outcomes: Vec<_> = report.outcomes.iter().map(|(index, outcome)| (index.0, outcome.name())).collect();
        outcomes.sort_unstable();
        assert_eq!(outcomes, [(0, "relayed"), (2, "bounced"), (3, "relayed")]);
        assert!(api.requests().len() <= 5, "{}", api.requests().len());
    }
}

#[tokio::test]
async fn addresses_outside_ascii_go_to_other_providers() {
    let api = answers(200, &json!({ "id": "1" })).await;
    for provider in [sendgrid(&api, &json!({})), postmark(&api, &json!({})), resend(&api, &json!({}))] {
        let delivery = provider.deliver(attempt("From: b\u{fc}ro@app.example\r\n\r\ny\r\n".as_bytes(), Duration::from_secs(60))).await;
        assert!(matches!(delivery, Err(Failure::Unsuitable(_))), "{delivery:?}");
    }
    assert_eq!(api.requests(), []);
}

#[tokio::test]
async fn probes_say_what_the_account_may_do_and_send_nothing() {
    let probed = |facts: &[&str], warnings: &[&str]| Probed {
        facts: facts.iter().map(ToString::to_string).collect(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        allowance: None,
    };
    let answer = |status: u16, body: Value| Answer::json(status, &body.to_string());
    let scopes = answer(200, json!({ "scopes": ["mail.send", "user.account.read"] }));
    let api = FakeApi::start([scopes, answer(200, json!({ "type": "paid", "reputation": 99.5 }))]).await.unwrap();
    let expected = ["the API key may send mail", "the account's plan is \"paid\"", "the account's reputation is 99.5 of 100"];
    assert_eq!(sendgrid(&api, &json!({})).probe().await, Ok(probed(&expected, &[])));
    let lines: Vec<String> = api.requests().iter().map(|(request, _)| request.line().to_owned()).collect();
    assert_eq!(lines, ["GET /v3/scopes", "GET /v3/user/account"]);
    let api = answers(200, &json!({ "scopes": [] })).await;
    assert_eq!(sendgrid(&api, &json!({ "sandbox": true })).probe().await.unwrap().warnings.len(), 2);

    let api = answers(200, &json!({ "Name": "erp", "DeliveryType": "Live" })).await;
    assert_eq!(postmark(&api, &json!({})).probe().await, Ok(probed(&["the token is of the server \"erp\""], &[])));
    assert_eq!(api.requests()[0].0.line(), "GET /server");
    let api = answers(200, &json!({ "Name": "erp", "DeliveryType": "Sandbox" })).await;
    assert_eq!(postmark(&api, &json!({})).probe().await.unwrap().warnings.len(), 1);
    let api = answers(401, &json!({ "ErrorCode": 10, "Message": "bad" })).await;
    let refused = postmark(&api, &json!({})).probe().await;
    assert!(matches!(&refused, Err(Failure::Unauthorized(diagnostic)) if diagnostic.advice.is_some()), "{refused:?}");

    // A page of a web server or of a proxy says nothing about a key, whatever its status.
    let page = Answer::json(200, "<html>Welcome</html>");
    let probes = [
        sendgrid(&FakeApi::start([page.clone()]).await.unwrap(), &json!({})).probe().await,
        postmark(&FakeApi::start([page.clone()]).await.unwrap(), &json!({})).probe().await,
        resend(&FakeApi::start([page]).await.unwrap(), &json!({})).probe().await,
    ];
    for probe in probes {
        assert!(
            matches!(&probe, Err(Failure::Unavailable(diagnostic)) if diagnostic.text.contains("Welcome") && diagnostic.advice.is_some()),
            "{probe:?}"
        );
    }

    let domains = json!({ "data": [{ "name": "app.example", "status": "verified" }, { "name": "b.example", "status": "pending" }] });
    let api = answers(200, &domains).await;
    let warning = "b.example is not verified (pending): finish it in Resend under Domains";
    assert_eq!(resend(&api, &json!({})).probe().await, Ok(probed(&["the API key has full access", "app.example is verified"], &[warning])));
    assert_eq!(api.requests()[0].0.line(), "GET /domains");
    let api = answers(401, &json!({ "name": "restricted_api_key", "message": "This API key is restricted to only send emails" })).await;
    assert_eq!(resend(&api, &json!({})).probe().await, Ok(probed(&["the API key may send mail, and nothing else"], &[])));
    let api = answers(403, &json!({ "name": "invalid_api_key", "message": "API key is invalid" })).await;
    assert!(matches!(resend(&api, &json!({})).probe().await, Err(Failure::Unauthorized(_))));
}

#[test]
fn settings_that_cannot_work_are_named() {
    let key_at_fault = |result: Result<Arc<dyn DynProvider>, SettingsError>| result.err().unwrap().key;
    let sendgrid = |more: Value| {
        let mut settings = json!({ "api_key": "SG.x" });
        settings.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        key_at_fault(connect("sendgrid", &serde_json::from_value::<sendgrid::Config>(settings).unwrap()))
    };
    assert_eq!(sendgrid(json!({ "categories": vec!["x"; 11] })), "categories");
    assert_eq!(sendgrid(json!({ "categories": [""] })), "categories");
    assert_eq!(sendgrid(json!({ "endpoint": "ftp://x" })), "endpoint");
    let postmark = json!({ "server_token": "x", "tag": "" });
    assert_eq!(key_at_fault(connect("postmark", &serde_json::from_value::<postmark::Config>(postmark).unwrap())), "tag");
    let broken = json!({ "server_token": "two\nlines" });
    assert_eq!(key_at_fault(connect("postmark", &serde_json::from_value::<postmark::Config>(broken).unwrap())), "server_token");
    let resend = json!({ "api_key": "x", "tags": { "a b": "c" } });
    assert_eq!(key_at_fault(connect("resend", &serde_json::from_value::<resend::Config>(resend).unwrap())), "tags");
}
