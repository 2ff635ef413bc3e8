//! The admin API of a gateway in this process: who may call it, what every endpoint answers, and what each
//! action does to real mail.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

#[path = "admin/api.rs"]
mod api;
#[path = "admin/schema.rs"]
mod schema;
mod support;

use std::collections::BTreeSet;

use api::Setup;
use postrider::gateway::{Gateway, StartError};
use postrider::sandbox::SmarthostMode;
use serde_json::{Value, json};
use support::{eventually, server, smarthost};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

#[tokio::test]
async fn without_the_token_nothing_is_answered_and_wrong_ones_are_answered_slowly() {
    let setup = Setup::start(Some(TOKEN)).await;
    assert_eq!(setup.get("/api/v1/status").await.status, 200);
    let started = tokio::time::Instant::now();
    for wrong in ["", "0123456789abcdef", "0123456789abcdef0123456789abcdeF"] {
        for path in ["/api/v1/status", "/api/openapi.json", "/api/v1/queue", "/nothing"] {
            let spoiled = |request: reqwest::RequestBuilder| {
                request
                    .header("authorization", "none")
                    .headers([("authorization".parse().unwrap(), format!("Bearer {wrong}").parse().unwrap())].into_iter().collect())
            };
            let answer = setup.ask_as("GET", path, None, spoiled).await;
            assert_eq!((answer.status, answer.content_type.as_str()), (401, "application/problem+json"), "{path} {wrong}");
            assert!(!answer.text.contains(TOKEN));
        }
    }
    assert!(started.elapsed() >= std::time::Duration::from_millis(12 * 250), "twelve wrong tokens took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_web_page_cannot_use_an_api_on_loopback() {
    let setup = Setup::start(None).await;
    let ids = setup.deferred(1).await;
    let path = format!("/api/v1/queue/messages/{}/actions", ids[0]);
    let remove = json!({ "action": "remove" });
    // A name that a page has made up for this address, a page of another origin, a form.
    for (name, value, status) in [
        ("host", "evil.example:8025", 403),
        ("origin", "http://evil.example", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("content-type", "text/plain", 415),
        ("x-postrider-by", "", 400),
    ] {
        let spoiled =
            |request: reqwest::RequestBuilder| request.headers([(name.parse().unwrap(), value.parse().unwrap())].into_iter().collect());
        let answer = setup.ask_as("POST", &path, Some(&remove), spoiled).await;
        assert_eq!(answer.status, status, "{name}: {}", answer.text);
    }
    assert_eq!(setup.state(&ids[0]).await, "deferred", "none of them has done it");
    setup.act(&ids[0], remove).await;
    assert_eq!(setup.state(&ids[0]).await, "gone");
}

#[tokio::test]
async fn what_is_asked_wrongly_is_told_with_what_was_expected() {
    let setup = Setup::start(None).await;
    let ids = setup.deferred(1).await;
    let actions = format!("/api/v1/queue/messages/{}/actions", ids[0]);
    for (method, path, body, status, words) in [
        ("GET", "/api/v1/nothing", None, 404, "nothing at this path"),
        ("POST", "/api/v1/status", Some(json!({})), 405, "does not take this method"),
        ("GET", "/api/v1/queue/messages?limit=501", None, 400, "1 to 500"),
        ("GET", "/api/v1/queue/messages?limti=5", None, 400, "limti"),
        ("GET", "/api/v1/queue/messages?filter=sate%3Dheld", None, 400, "sate"),
        ("GET", "/api/v1/queue/messages/xyz", None, 400, "32 hexadecimal digits"),
        ("GET", "/api/v1/queue/messages/00000000000000000000000000000000", None, 404, "not in the queue"),
        ("POST", actions.as_str(), Some(json!({ "action": "explode" })), 422, "explode"),
        ("POST", actions.as_str(), Some(json!({ "action": "reroute" })), 400, "`route` is missing"),
        ("POST", actions.as_str(), Some(json!({ "action": "retry", "route": "spare" })), 400, "means nothing"),
        ("POST", actions.as_str(), Some(json!({ "action": "bounce", "reason": "a\nb" })), 400, "one line"),
        ("POST", "/api/v1/control", Some(json!({ "action": "pause" })), 400, "exactly one"),
        ("POST", "/api/v1/control", Some(json!({ "action": "trip", "provider": "smarthost.none" })), 404, "smarthost.none"),
        (
            "POST",
            "/api/v1/control",
            Some(json!({ "action": "pause", "route": "defualt" })),
            404,
            "there is no route \\\"defualt\\\"; there are default, notices, spare",
        ),
        ("POST", "/api/v1/control", Some(json!({ "action": "pause", "application": "erp" })), 404, "there is none at all"),
        ("GET", "/api/v1/history?state=happy", None, 400, "relayed"),
        ("GET", "/api/v1/queue/jobs/77", None, 404, "no job 77"),
        ("GET", "/api/v1/messages/xyz/explain", None, 400, "32 hexadecimal digits"),
        ("GET", "/api/v1/messages/00000000000000000000000000000000/explain", None, 404, "history.keep"),
        ("POST", "/api/v1/explain", Some(json!({ "from": "", "to": [] })), 400, "1 to 1000"),
        ("POST", "/api/v1/explain", Some(json!({ "from": "nobody", "to": ["b@example.net"] })), 400, "`from` is"),
        ("POST", "/api/v1/explain", Some(json!({ "from": "", "to": ["b@example.net"], "client": "here" })), 400, "no IP address"),
        ("POST", "/api/v1/explain", Some(json!({ "from": "", "to": ["b@example.net"], "signed": "rot13" })), 422, "rot13"),
    ] {
        let answer = setup.ask_as(method, path, body.as_ref(), |request| request).await;
        assert_eq!((answer.status, answer.content_type.as_str()), (status, "application/problem+json"), "{path} {body:?}: {}", answer.text);
        let said = format!("{} {}", answer.body["detail"], answer.body["help"]);
        assert!(said.contains(words), "{path}: {said}");
        assert_eq!(answer.body["status"], status);
    }
    let huge = json!({ "filter": "x".repeat(100_000), "action": { "action": "retry" } });
    assert_eq!(setup.post("/api/v1/queue/jobs", &huge).await.status, 413);
}

#[tokio::test]
async fn every_action_does_to_a_message_what_it_says() {
    let setup = Setup::start(None).await;
    let ids = setup.deferred(7).await;
    let [retried, held, released, removed, bounced, rerouted, readdressed] = &ids[..] else { panic!("{ids:?}") };

    setup.act(held, json!({ "action": "hold" })).await;
    setup.act(released, json!({ "action": "hold" })).await;
    assert_eq!((setup.state(held).await, setup.state(released).await), ("held".to_owned(), "held".to_owned()));
    setup.act(removed, json!({ "action": "remove" })).await;
    assert_eq!(setup.state(removed).await, "gone");

    setup.act(bounced, json!({ "action": "bounce", "reason": "the project has ended" })).await;
    setup.spare.recorder().reached(1).await;
    let notice = setup.spare.recorder().received().remove(0);
    assert_eq!((notice.reverse_path.as_str(), notice.recipients[0].as_str()), ("", "a@corp.example"));
    assert!(String::from_utf8_lossy(notice.body.as_ref().unwrap()).contains("the project has ended"));

    setup.act(rerouted, json!({ "action": "reroute", "route": "spare" })).await;
    setup.becomes(rerouted, "gone").await;
    assert_eq!(setup.spare.recorder().count(), 2, "the notice, and the one that was rerouted");
    let quota = &setup.get("/api/v1/providers/smarthost.spare").await.body["limits"][0];
    assert_eq!((&quota["name"], &quota["setting"]), (&json!("quota of smarthost.spare"), &json!("provider.smarthost.spare.limits.quota")));
    assert_eq!((&quota["count"], &quota["period_seconds"], &quota["counted"]), (&json!(50), &json!(86_400), &json!("messages")));
    assert_eq!((&quota["used"], &quota["left"], &quota["next"]), (&json!(2), &json!(48), &json!(null)), "{quota}");

    setup.down.set_mode(SmarthostMode::Up).await;
    setup.act(retried, json!({ "action": "retry" })).await;
    setup.becomes(retried, "gone").await;
    // It need not be held for that; but then nothing happens to it between the two.
    setup.act(readdressed, json!({ "action": "hold" })).await;
    setup.act(readdressed, json!({ "action": "readdress", "from": "b@example.net", "to": "new@example.org" })).await;
    assert_eq!(setup.state(readdressed).await, "held");
    setup.act(readdressed, json!({ "action": "release" })).await;
    setup.becomes(readdressed, "gone").await;
    setup.act(released, json!({ "action": "release" })).await;
    setup.becomes(released, "gone").await;
    assert_eq!(setup.state(held).await, "held", "it stays where it was put");
    let got: Vec<String> = setup.down.recorder().received().into_iter().flat_map(|received| received.recipients).collect();
    assert_eq!(got, ["b@example.net", "new@example.org", "b@example.net"]);
}

#[tokio::test]
async fn an_action_on_many_is_counted_first_and_refused_when_the_queue_is_another_by_then() {
    let setup = Setup::start(None).await;
    setup.deferred(13).await;
    let hold = |dry_run: bool, expected: Option<u64>| json!({ "filter": "state=deferred", "action": { "action": "hold" }, "dry_run": dry_run, "expected_count": expected });
    let preview = setup.post("/api/v1/queue/jobs", &hold(true, None)).await;
    assert_eq!((preview.status, &preview.body["count"], &preview.body["job"]), (200, &json!(13), &json!(null)));
    assert_eq!(preview.body["examples"].as_array().unwrap().len(), 5);
    for wrong in [None, Some(1), Some(40)] {
        let refused = setup.post("/api/v1/queue/jobs", &hold(false, wrong)).await;
        assert_eq!(refused.status, if wrong.is_some() { 409 } else { 400 }, "{}", refused.text);
    }
    assert_eq!(setup.get("/api/v1/queue/jobs").await.body["jobs"], json!([]));
    let started = setup.post("/api/v1/queue/jobs", &hold(false, Some(13))).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let ended = setup.job_ends(&started.body["job"]).await;
    assert_eq!((&ended["state"], &ended["done"], &ended["by"]), (&json!("finished"), &json!(13), &json!("anna")));
    assert_eq!(setup.get("/api/v1/queue/count?filter=state%3Dheld").await.body["count"], 13);
}

#[tokio::test]
async fn every_path_of_the_document_answers_as_the_document_says() {
    let setup = Setup::start(None).await;
    let ids = setup.deferred(3).await;
    let document = setup.get("/api/openapi.json").await.body;
    let job = setup
        .post("/api/v1/queue/jobs", &json!({ "filter": "state=deferred", "action": { "action": "retry" }, "expected_count": 3 }))
        .await;
    let ended = setup.job_ends(&job.body["job"]).await;
    // Nobody holds a message of which a provider is being asked.
    let again = "/api/v1/queue/count?filter=state%3Ddeferred%20attempts%3E%3D2";
    eventually("all were tried again", async || setup.get(again).await.body["count"] == 3).await;
    eventually("the history knows it", async || setup.get(&format!("/api/v1/messages/{}/trace", ids[0])).await.body["past"].is_object())
        .await;
    let mut open: BTreeSet<String> = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        open.extend(methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())));
    }
    // The last one ends nothing here: nobody follows the order.
    for (entry, path, body, status) in [
        ("GET /api/v1/status", "/api/v1/status".to_owned(), None, 200),
        ("GET /api/v1/queue", "/api/v1/queue".to_owned(), None, 200),
        ("GET /api/v1/queue/messages", "/api/v1/queue/messages?limit=2".to_owned(), None, 200),
        ("GET /api/v1/queue/count", "/api/v1/queue/count".to_owned(), None, 200),
        ("GET /api/v1/queue/messages/{id}", format!("/api/v1/queue/messages/{}?body=true", ids[0]), None, 200),
        ("GET /api/v1/queue/messages/{id}/export", format!("/api/v1/queue/messages/{}/export", ids[0]), None, 200),
        (
            "POST /api/v1/queue/messages/{id}/actions",
            format!("/api/v1/queue/messages/{}/actions", ids[0]),
            Some(json!({ "action": "hold" })),
            200,
        ),
        ("GET /api/v1/queue/jobs", "/api/v1/queue/jobs".to_owned(), None, 200),
        (
            "POST /api/v1/queue/jobs",
            "/api/v1/queue/jobs".to_owned(),
            Some(json!({ "filter": "", "action": { "action": "retry" }, "dry_run": true })),
            200,
        ),
        ("GET /api/v1/queue/jobs/{id}", format!("/api/v1/queue/jobs/{}", ended["id"]), None, 200),
        ("POST /api/v1/queue/jobs/{id}/cancel", format!("/api/v1/queue/jobs/{}/cancel", ended["id"]), Some(json!({})), 409),
        ("POST /api/v1/control", "/api/v1/control".to_owned(), Some(json!({ "action": "trip", "provider": "smarthost.first" })), 200),
        ("POST /api/v1/control", "/api/v1/control".to_owned(), Some(json!({ "action": "pause", "domain": "corp.example" })), 200),
        (
            "POST /api/v1/control",
            "/api/v1/control".to_owned(),
            Some(json!({ "action": "pin", "route": "default", "provider": "smarthost.first" })),
            200,
        ),
        ("GET /api/v1/providers", "/api/v1/providers".to_owned(), None, 200),
        ("GET /api/v1/providers/{name}", "/api/v1/providers/smarthost.first".to_owned(), None, 200),
        ("GET /api/v1/history", "/api/v1/history?recipient=b%40example.net&limit=2".to_owned(), None, 200),
        ("GET /api/v1/history/actions", "/api/v1/history/actions".to_owned(), None, 200),
        ("GET /api/v1/messages/{id}/trace", format!("/api/v1/messages/{}/trace", ids[0]), None, 200),
        ("GET /api/v1/messages/{id}/explain", format!("/api/v1/messages/{}/explain", ids[0]), None, 200),
        ("POST /api/v1/explain", "/api/v1/explain".to_owned(), Some(json!({ "from": "a@corp.example", "to": ["b@example.net"] })), 200),
        ("POST /api/v1/drain", "/api/v1/drain".to_owned(), Some(json!({})), 202),
    ] {
        open.remove(entry);
        let (method, pattern) = entry.split_once(' ').unwrap();
        let answer = setup.ask_as(method, &path, body.as_ref(), |request| request).await;
        assert_eq!(answer.status, status, "{entry}: {}", answer.text);
        let responses = &document["paths"][pattern][method.to_lowercase()]["responses"];
        let content = responses.get(status.to_string()).unwrap_or(&responses["default"])["content"]
            .as_object()
            .unwrap_or_else(|| panic!("{entry}: {responses}"));
        let (content_type, described) = content.iter().next().unwrap();
        assert_eq!(&answer.content_type, content_type, "{entry}");
        if content_type.ends_with("json") {
            let found = schema::complaints(&document, &described["schema"], &answer.body);
            assert!(found.is_empty(), "{entry}: {found:#?}\n{}", answer.text);
            // The check can fail: an answer with something more, and one with nothing in it, are no answers.
            let mut more = answer.body.clone();
            more["unheard_of"] = json!(1);
            assert!(!schema::complaints(&document, &described["schema"], &more).is_empty(), "{entry}");
            assert!(!schema::complaints(&document, &described["schema"], &Value::from(0)).is_empty(), "{entry}");
        } else {
            assert!(answer.text.contains("Subject: test"), "{}", answer.text);
        }
    }
    // It waits for the gateway's owner, and there is none here; the program's tests have one.
    open.remove("POST /api/v1/reload");
    assert_eq!(open, BTreeSet::new(), "the document has endpoints that were not asked");
}

#[tokio::test]
async fn what_would_become_of_a_message_is_explained_as_long_as_it_waits_and_what_became_of_it_later() {
    let setup = Setup::start(None).await;
    let id = setup.deferred(1).await.remove(0);
    let path = format!("/api/v1/messages/{id}/explain");
    let queued = setup.get(&path).await;
    assert_eq!(queued.status, 200, "{}", queued.text);
    let queued = queued.body;
    assert_eq!((&queued["kind"], &queued["state"], &queued["attempts"]), (&json!("queued"), &json!("deferred"), &json!(1)));
    let part = &queued["parts"][0];
    let (end, way) = (&part["conclusion"], &part["way"]);
    assert_eq!(
        (&part["recipients"], &end["verdict"], &end["provider"]),
        (&json!(["b@example.net"]), &json!("retry"), &json!("smarthost.first"))
    );
    let due = setup.get(&format!("/api/v1/queue/messages/{id}")).await.body["message"]["due"].clone();
    assert_eq!(end["at"], due, "{end}");
    let sentence = format!("next attempt at {} by the retry schedule (attempt 2), which goes to smarthost.first", due.as_str().unwrap());
    assert_eq!(end["sentence"], sentence);
    assert!(part["said"].as_str().unwrap().contains("onnection refused"), "{part}");
    assert_eq!((&way["route"], &way["why"]), (&json!("default"), &json!("first_match")));
    let passed: Vec<&str> = way["passed_over"].as_array().unwrap().iter().map(|route| route["condition"].as_str().unwrap()).collect();
    assert_eq!(passed, ["when.sender_domain", "when.null_sender"]);
    assert_eq!(way["candidates"][0]["verdict"], "would_be_asked");

    // What people decide shows at once, for an imagined message as well.
    let imagined = async |from: &str| {
        let answer = setup.post("/api/v1/explain", &json!({ "from": from, "to": ["b@example.net"] })).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!((&answer.body["kind"], &answer.body["id"], &answer.body["past"]), (&json!("imagined"), &json!(null), &json!(null)));
        answer.body["parts"][0].clone()
    };
    assert_eq!(imagined("a@corp.example").await["conclusion"]["sentence"], "would go now to smarthost.first");
    setup.post("/api/v1/control", &json!({ "action": "trip", "provider": "smarthost.first" })).await;
    let stopped = imagined("a@corp.example").await;
    assert_eq!((&stopped["conclusion"]["verdict"], &stopped["way"]["candidates"][0]["verdict"]), (&json!("waits"), &json!("stopped")));
    assert!(stopped["conclusion"]["sentence"].as_str().unwrap().contains("whose circuit anna has opened"), "{stopped}");
    assert_eq!(imagined("").await["conclusion"]["provider"], "smarthost.spare", "notifications have their own route");
    setup.act(&id, json!({ "action": "hold" })).await;
    assert_eq!(setup.get(&path).await.body["parts"][0]["conclusion"]["verdict"], "held");

    setup.act(&id, json!({ "action": "reroute", "route": "spare" })).await;
    assert_eq!(setup.get(&path).await.body["parts"][0]["way"]["why"], "rerouted");
    setup.act(&id, json!({ "action": "release" })).await;
    let mut past = json!(null);
    eventually("the history has its end", async || {
        past = setup.get(&path).await.body;
        past["kind"] == "past" && past["state"] == "relayed"
    })
    .await;
    assert_eq!((&past["parts"], &past["attempts"]), (&json!([]), &json!(2)));
    assert_eq!(past["past"]["recipients"][0]["provider"], "smarthost.spare");
    let tried: Vec<_> = past["events"].as_array().unwrap().iter().filter(|event| event["what"] == "attempt").collect();
    assert_eq!(tried.len(), 2);
    assert!(tried[0]["words"].as_str().unwrap().contains("onnection refused"), "{past}");
}

#[tokio::test]
async fn a_reload_that_failed_is_told_until_one_succeeds_and_mail_is_taken_all_the_time() {
    let setup = Setup::start(None).await;
    let config = setup.get("/api/v1/status").await.body["config"].clone();
    assert_eq!((&config["generation"], &config["failure"]), (&json!(1), &json!(null)));
    setup.gateway.reload_file(std::path::Path::new("/nowhere/postrider.toml")).await.unwrap_err();
    let config = setup.get("/api/v1/status").await.body["config"].clone();
    assert_eq!(config["generation"], 1);
    let failure = &config["failure"];
    assert!(failure["why"].as_str().unwrap().contains("/nowhere/postrider.toml") && failure["at"].is_string(), "{config}");
    assert_eq!(setup.get("/readyz").await.status, 200);
    let meters = setup.get("/metrics").await.text;
    assert!(meters.contains("\npostrider_config_last_reload_successful 0\n"), "{meters}");
    setup.gateway.reload((*setup.gateway.config()).clone()).await.unwrap();
    let config = setup.get("/api/v1/status").await.body["config"].clone();
    assert_eq!((&config["generation"], &config["failure"]), (&json!(2), &json!(null)));
    let meters = setup.get("/metrics").await.text;
    assert!(meters.contains("\npostrider_config_last_reload_successful 1\n"), "{meters}");
    assert!(meters.contains("\npostrider_config_last_reload_success_timestamp_seconds 1"), "{meters}");
}

#[tokio::test]
async fn the_document_says_who_may_call_and_who_acts() {
    for token in [None, Some(TOKEN)] {
        let setup = Setup::start(token).await;
        let document = setup.get("/api/openapi.json").await.body;
        let scheme = &document["components"]["securitySchemes"]["token"];
        assert_eq!((&scheme["type"], &scheme["scheme"]), (&json!("http"), &json!("bearer")));
        let with_token = json!({ "token": [] });
        let wanted = if token.is_some() { json!([with_token]) } else { json!([{}, with_token]) };
        assert_eq!(document["security"], wanted);
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
                let by: Vec<_> = parameters.iter().filter(|parameter| parameter["name"] == "X-Postrider-By").collect();
                match (method.as_str(), &by[..]) {
                    ("post", [by]) => {
                        assert_eq!((&by["in"], &by["required"], &by["schema"]["maxLength"]), (&json!("header"), &json!(true), &json!(64)));
                    }
                    ("get", []) => {}
                    other => panic!("{path}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn a_person_sees_the_header_the_body_on_request_and_exports_the_very_bytes() {
    let setup = Setup::start(None).await;
    let ids = setup.deferred(1).await;
    let path = format!("/api/v1/queue/messages/{}", ids[0]);
    let header = setup.get(&path).await.body;
    assert!(header["header"].as_str().unwrap().contains("Message-ID: <0@test>") && header["body"].is_null(), "{header}");
    let body = setup.get(&format!("{path}?body=true")).await.body;
    assert_eq!((&body["body"], &body["cut"]), (&json!("Text of 0.\r\n"), &json!(false)));
    let exported = setup.get(&format!("{path}/export")).await;
    assert_eq!(exported.text, format!("{}\r\n{}", body["header"].as_str().unwrap(), body["body"].as_str().unwrap()));
    assert!(exported.text.starts_with("Received: ") && exported.text.ends_with("Text of 0.\r\n"));
}

#[tokio::test]
async fn a_port_that_is_taken_stops_the_start_and_leaves_nothing_running() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = [server(directory.path()), smarthost("only", 1), format!("[admin]\nbind = \"{address}\"\n")].concat();
    match Gateway::start(&support::parse(&config)).await {
        Err(StartError::Bind { address: named, .. }) => assert_eq!(named, address),
        other => panic!("{:?}", other.map(|_| "started")),
    }
    drop(taken);
    // The spool is free again as well.
    Gateway::start(&support::parse(&config)).await.map(|_| ()).unwrap();
}
