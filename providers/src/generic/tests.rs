//! What can be declared, and what is refused before any message comes.

use serde_json::json;

use super::*;

fn config(settings: Value) -> Config {
    let mut all = json!({ "url": "https://api.example/send?a=b" });
    all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn connect(settings: Value) -> Result<Connected, SettingsError> {
    config(settings).connect(ProviderName::new("http", "x"), &Context::new("relay.example").unwrap())
}

#[test]
fn settings_that_cannot_work_name_their_key() {
    let to = json!({ "header": "X-To" });
    for (settings, key, expected) in [
        (json!({}), "recipients", "nobody would be told"),
        (json!({ "url": "api.example", "recipients": to }), "url", ""),
        (json!({ "url": "ftp://api.example", "recipients": to }), "url", "no http or https URL"),
        (json!({ "url": "https://u:p@api.example", "recipients": to }), "url", "may hold no password"),
        (json!({ "recipients": {} }), "recipients", "expected one of"),
        (json!({ "recipients": { "header": "a", "query": "b" } }), "recipients", "expected one of"),
        (json!({ "recipients": { "header": "a b" } }), "recipients", "no name of a header"),
        (json!({ "recipients": to, "sender": { "header": "Host" } }), "sender", "belongs to the connection"),
        (json!({ "recipients": to, "headers": { "Content-Type": "x" } }), "headers", "`content_type`"),
        (json!({ "recipients": to, "headers": { "X": "a\nb" } }), "headers", "no HTTP header may have"),
        (json!({ "recipients": to, "headers": { "authorization": "x" }, "bearer": "t" }), "headers", "two credentials"),
        (json!({ "recipients": to, "bearer": { "file": "/nonexistent" } }), "bearer", "/nonexistent"),
        (json!({ "recipients": to, "max_recipients": 0 }), "max_recipients", "at least 1"),
        (json!({ "recipients": to, "timeouts": { "answer": "0s" } }), "timeouts.answer", "0 leaves no time"),
        (json!({ "recipients": to, "body": "template" }), "body", "`template` is missing"),
        (json!({ "recipients": to, "body": "raw", "template": {} }), "template", "remove one of the two"),
        (json!({ "template": { "to": "{recipients}" } }), "template", "nothing of the message's content"),
        (json!({ "template": { "m": "{raw}" } }), "template", "not all recipients"),
        (json!({ "template": { "m": "{text}", "to": "{to}", "bcc": "{bcc}" } }), "template", "not all recipients"),
        (json!({ "template": { "m": "{text}", "to": "{recipients}" } }), "template", "`max_recipients = 1`"),
        (json!({ "template": { "m": "{raw}", "to": ["{to.name}"], "cc": "{cc}", "bcc": "{bcc}" } }), "template", "not all recipients"),
        (json!({ "recipients": to, "error": [{ "status": 409, "verdict": "taken" }] }), "error", "needs `idempotency`"),
        (json!({ "template": { "m": "{form}" } }), "template", "there are {sender}"),
        (json!({ "recipients": to, "idempotency": { "window": "1h" } }), "idempotency", "told nowhere"),
        (json!({ "recipients": to, "probe": { "url": "x" } }), "probe.url", ""),
        (json!({ "recipients": to, "probe": { "url": "https://a.example", "status": 1000 } }), "probe.status", "no status 1000"),
        (json!({ "recipients": to, "success": { "id": "id" } }), "success.id", "no JSON pointer"),
    ] {
        let error = connect(settings.clone()).unwrap_err();
        assert!(error.key == key && error.message.contains(expected), "{settings}: {error:?}");
    }
}

#[test]
fn what_a_service_can_carry_follows_from_what_is_declared() {
    let of = |settings: Value| connect(settings).unwrap().provider.capabilities();
    let raw = of(json!({ "recipients": { "query": "to" }, "sender": { "query": "from" }, "max_size": "10MiB", "max_recipients": 9 }));
    let expected = Capabilities {
        max_size: Some(SizeLimit::message(10 << 20)),
        max_recipients: Some(9),
        smtputf8: false,
        null_sender: false,
        ..Capabilities::EVERYTHING
    };
    assert_eq!(raw, expected);
    let base64 = of(json!({ "template": { "m": "{raw_base64}", "to": "{recipients}" }, "null_sender": true }));
    assert_eq!((base64.content, base64.reverse_path, base64.null_sender), (ContentForm::Raw, false, true));
    let fields = of(json!({ "template": { "t": "{text}", "h": "{html}", "to": "{to}", "cc": "{cc}", "bcc": "{bcc}" } }));
    assert_eq!(fields, Capabilities::FIELDS);
    let key = of(json!({ "recipients": { "query": "to" }, "idempotency": { "header": "Idempotency-Key", "window": "24h" } }));
    assert_eq!(key.idempotency.map(|window| window.as_secs()), Some(86_400));
    // A header or a URL has no room for thousands.
    assert_eq!(key.max_recipients, Some(MOST_IN_A_PLACE));
    assert_eq!((base64.max_recipients, fields.max_recipients), (None, None));
}

#[test]
fn a_destination_shows_no_secret() {
    for (url, expected) in [
        ("https://api.example/send?key=hunter2#hunter2", "https://api.example/send"),
        ("https://hunter2:hunter2@api.example/send", "https://api.example/send"),
        ("https://api.example:8443/to@b", "https://api.example:8443/to@b"),
        ("https://[hunter2", "no URL"),
    ] {
        assert_eq!(config(json!({ "url": url })).destination(), expected);
    }
    let all =
        config(json!({ "bearer": "hunter2", "headers": { "X": "hunter2" }, "query": { "k": "hunter2" }, "secrets": { "k": "hunter2" } }));
    assert!(!format!("{all:?}{}", all.destination()).contains("hunter2"));
    let of = |variable: &str| config(json!({ "bearer": { "env": variable } })).destination();
    assert_ne!(of("ONE"), of("TWO"), "two accounts of one service");
}
