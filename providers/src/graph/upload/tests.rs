//! Drafts and uploads against a scripted Graph.

use std::sync::Arc;

use parking_lot::Mutex;

use super::*;
use crate::conformance::attempt;
use crate::conformance::http_api::{FakeApi, Request};
use crate::contract::ProviderName;
use crate::http::api::Timeouts;
use crate::oauth::entra::Entra;
use crate::registry::Context;
use crate::settings::{Secret, Span};

/// Two pieces.
const LARGE: usize = 3_400_000;

type Scripted = crate::conformance::http_api::Answer;

/// A Graph that takes everything, but for requests whose line contains a text.
struct Far {
    api: FakeApi,
    graph: Graph,
    uploaded: Arc<Mutex<Vec<u8>>>,
}

impl Far {
    async fn new(but: Vec<(&'static str, Scripted)>) -> Self {
        let uploaded = Arc::new(Mutex::new(Vec::new()));
        let (kept, but) = (uploaded.clone(), Mutex::new(but));
        let answer = move |request: &Request| {
            let line = request.line().to_owned();
            let mut but = but.lock();
            if let Some(at) = but.iter().position(|(text, _)| line.contains(text)) {
                return but.remove(at).1;
            }
            let json = |status, value: Value| Scripted::json(status, &value.to_string());
            let host = request.header("host").unwrap();
            if line.starts_with("PUT /session") {
                // The URL is the credential.
                assert_eq!(request.header("authorization"), None);
                let mut uploaded = kept.lock();
                let range = format!("bytes {}-{}/", uploaded.len(), uploaded.len() + request.body.len() - 1);
                assert!(request.header("content-range").unwrap().starts_with(&range), "{range}: {:?}", request.header("content-range"));
                assert!(request.body.len() < 4_000_000);
                uploaded.extend_from_slice(&request.body);
                if uploaded.len() == LARGE {
                    return Scripted::Reply { status: 201, headers: vec!["location: here".to_owned()], body: String::new() };
                }
                return json(200, json!({ "nextExpectedRanges": [uploaded.len().to_string()] }));
            }
            match line.as_str() {
                "POST /corp.example/oauth2/v2.0/token" => json(200, json!({ "access_token": "tok.en", "expires_in": 3599 })),
                "POST /v1.0/users/relay@corp.example/messages" => json(201, json!({ "id": "AAMk=/1", "isDraft": true })),
                "POST /v1.0/users/relay@corp.example/messages/AAMk=%2F1/attachments" => json(201, json!({ "id": "att" })),
                "POST /v1.0/users/relay@corp.example/messages/AAMk=%2F1/attachments/createUploadSession" => {
                    json(201, json!({ "uploadUrl": format!("http://{host}/session?authtoken=x"), "nextExpectedRanges": ["0-"] }))
                }
                "POST /v1.0/users/relay@corp.example/messages/AAMk=%2F1/send" => {
                    assert_eq!((request.header("content-length"), request.body.len()), (Some("0"), 0));
                    Scripted::Reply { status: 202, headers: vec!["request-id: 0f5a".to_owned()], body: String::new() }
                }
                "DELETE /v1.0/users/relay@corp.example/messages/AAMk=%2F1" => {
                    Scripted::Reply { status: 204, headers: Vec::new(), body: String::new() }
                }
                other => panic!("Graph knows no {other}"),
            }
        };
        let api = FakeApi::asking(|_| None, answer).await.unwrap();
        let context = Context::new("relay.example").unwrap();
        let (url, secret) = (api.url(), Secret::Literal("x".into()));
        let entra = Entra {
            tenant: "corp.example",
            client_id: "app",
            client_secret: Some(&secret),
            certificate: None,
            private_key: None,
            refresh_token: None,
            authority: Some(&url),
            app_scope: "https://graph.microsoft.com/.default",
            user_scope: "https://graph.microsoft.com/.default",
            patience: Duration::from_secs(20),
        };
        let tokens = entra.tokens(&ProviderName::new("graph", "test"), &context).unwrap();
        let graph = Graph {
            http: context.http,
            endpoint: url.parse().unwrap(),
            tokens,
            mailbox: None,
            mime_size: 1000,
            max_size: 35_000_000,
            timeouts: Timeouts { answer: Span(Duration::from_secs(2)), ..Timeouts::default() },
        };
        Self { api, graph, uploaded }
    }

    async fn upload(&self, fields: &Fields) -> Part {
        let attempt = attempt(b"", Duration::from_secs(60));
        self.graph.upload(&attempt, &attempt.recipients, "relay@corp.example", &mut fields.clone()).await
    }

    /// What was asked, without the mailbox and the requests for tokens.
    fn asked(&self) -> Vec<String> {
        let lines = self.api.requests().into_iter().map(|(request, _)| request.line().replace("/v1.0/users/relay@corp.example", ""));
        lines.filter(|line| !line.contains("/oauth2/")).collect()
    }

    fn body_of(&self, end: &str) -> Value {
        self.api.requests().iter().find(|(request, _)| request.line().ends_with(end)).map(|(request, _)| request.json()).unwrap()
    }
}

fn of(address: &str) -> Mailbox {
    Mailbox { name: None, address: address.to_owned() }
}

fn fields() -> Fields {
    let header = |name: &str| (name.to_owned(), "v".to_owned());
    Fields {
        from: Mailbox { name: Some("Sender".to_owned()), address: "sender@app.example".to_owned() },
        reply_to: vec![of("answers@app.example")],
        to: vec![of("FIRST@a.example"), of("done@a.example")],
        cc: vec![of("refused@b.example")],
        subject: "large".to_owned(),
        text: Some("text".to_owned()),
        html: Some("<b>html</b>".to_owned()),
        attachments: vec![
            Attachment {
                name: "small.txt".into(),
                media_type: "text/plain".into(),
                content_id: Some("c1".into()),
                content: b"small".to_vec(),
            },
            Attachment {
                name: "large.bin".into(),
                media_type: "application/octet-stream".into(),
                content_id: None,
                content: b"0123456789".repeat(LARGE / 10),
            },
        ],
        headers: ["X-1", "x-2", "X-3", "X-4", "X-5", "X-6", "List-ID"].map(header).to_vec(),
        lost: Vec::new(),
        message_id: Some("<id@app.example>".to_owned()),
        ..Fields::default()
    }
}

fn all(part: &Part, name: &str) -> bool {
    matches!(part, Part::Answered(outcomes) if outcomes.len() == 3 && outcomes.iter().all(|(_, outcome)| outcome.name() == name))
}

#[tokio::test]
async fn a_large_message_is_a_draft_with_uploads_that_is_sent_at_the_end() {
    let far = Far::new(Vec::new()).await;
    let fields = fields();
    let part = far.upload(&fields).await;
    assert!(all(&part, "relayed"), "{part:?}");
    let Part::Answered(outcomes) = &part else { panic!("{part:?}") };
    let Outcome::Relayed(receipt) = &outcomes[0].1 else { panic!("{part:?}") };
    assert_eq!(receipt.remote_id.as_deref(), Some("0f5a"));
    let steps = [
        "POST /messages",
        "POST /messages/AAMk=%2F1/attachments",
        "POST /messages/AAMk=%2F1/attachments/createUploadSession",
        "PUT /session?authtoken=x",
        "PUT /session?authtoken=x",
        "POST /messages/AAMk=%2F1/send",
    ];
    assert_eq!(far.asked(), steps);
    assert!(*far.uploaded.lock() == fields.attachments[1].content, "the pieces are the attachment");

    let mailbox = |address: &str| json!({ "emailAddress": { "address": address } });
    let header = |name: &str| json!({ "name": name, "value": "v" });
    let draft = json!({
        "subject": "large",
        "body": { "contentType": "html", "content": "<b>html</b>" },
        "from": { "emailAddress": { "name": "Sender", "address": "sender@app.example" } },
        // The envelope's spelling, and nobody for whom the attempt is not.
        "toRecipients": [mailbox("first@a.example")],
        "ccRecipients": [mailbox("refused@b.example")],
        "bccRecipients": [mailbox("Third+Tag@C.example")],
        "replyTo": [mailbox("answers@app.example")],
        "internetMessageId": "<id@app.example>",
        "internetMessageHeaders": (["X-1", "x-2", "X-3", "X-4", "X-5"].map(header)),
    });
    assert_eq!(far.body_of("/messages"), draft);
    let small = json!({
        "@odata.type": "#microsoft.graph.fileAttachment", "name": "small.txt", "contentType": "text/plain",
        "isInline": true, "contentId": "c1", "contentBytes": "c21hbGw=",
    });
    assert_eq!(far.body_of("/attachments"), small);
    let item = json!({ "AttachmentItem": {
        "attachmentType": "file", "name": "large.bin", "size": LARGE, "contentType": "application/octet-stream",
        "isInline": false, "contentId": null,
    } });
    assert_eq!(far.body_of("/createUploadSession"), item);
}

#[tokio::test]
async fn recipients_who_are_not_shown_are_in_one_draft_and_see_nobody() {
    let far = Far::new(Vec::new()).await;
    let part = far.upload(&Fields { to: Vec::new(), cc: Vec::new(), attachments: Vec::new(), ..fields() }).await;
    assert!(all(&part, "relayed"), "{part:?}");
    let draft = far.body_of("/messages");
    assert_eq!((draft["toRecipients"].as_array().map(Vec::len), draft["bccRecipients"].as_array().map(Vec::len)), (Some(0), Some(3)));
}

#[test]
fn what_a_draft_cannot_say_is_lost() {
    let mut fields = fields();
    draft(&mut fields, &Addressed::default());
    let lost = [
        "text/plain: there is room for one text, which is the HTML",
        "List-ID: Graph takes only those that begin with X-",
        "X-6: Graph takes 5 header fields",
    ];
    assert_eq!(fields.lost, lost);
}

#[test]
fn addresses_that_differ_in_case_only_are_all_told() {
    let mut attempt = attempt(b"", Duration::from_secs(60));
    let mut message = (*attempt.message).clone();
    let recipients = ["first@a.example", "FIRST@A.example", "cc@a.example", "bcc@a.example"];
    message.envelope.recipients = recipients.map(|one| crate::conformance::address(one).into()).to_vec();
    attempt.recipients = (0..4).map(RecipientIndex).collect();
    attempt.message = Arc::new(message);
    let fields = Fields { to: vec![of("First@a.example")], cc: vec![of("CC@a.example")], ..Fields::default() };
    let addressed = addressed(&fields, &attempt);
    let addresses = |list: Vec<Mailbox>| list.into_iter().map(|one| one.address).collect::<Vec<_>>();
    assert_eq!(addresses([addressed.to, addressed.cc, addressed.bcc].concat()), recipients);
}

#[tokio::test]
async fn whatever_fails_before_the_draft_is_sent_hands_nothing_over_and_leaves_no_draft() {
    let busy = || Scripted::json(503, &json!({ "error": { "code": "ErrorServerBusy", "message": "busy" } }).to_string());
    for (line, answer, verdict, deletes) in [
        ("/messages", busy(), "unavailable", false),
        ("/messages", Scripted::Close, "unavailable", false),
        ("/messages", Scripted::Hang, "unavailable", false),
        ("/messages", Scripted::json(201, "{}"), "unavailable", false),
        ("/attachments", busy(), "unavailable", true),
        ("/createUploadSession", Scripted::json(201, r#"{"uploadUrl":"nowhere"}"#), "unavailable", true),
        ("PUT", Scripted::Close, "unavailable", true),
        ("PUT", Scripted::json(413, "{}"), "unsuitable", true),
        // The session is gone, or of another mind about what it has.
        ("PUT", Scripted::json(401, "{}"), "unavailable", true),
        ("PUT", Scripted::json(404, "{}"), "unavailable", true),
        ("PUT", Scripted::json(416, "{}"), "unavailable", true),
        // It took in nothing, less than nothing, more than it was given, or all of it too soon.
        ("PUT", Scripted::json(200, r#"{"nextExpectedRanges":["0"]}"#), "unavailable", true),
        ("PUT", Scripted::json(200, r#"{"nextExpectedRanges":["?"]}"#), "unavailable", true),
        ("PUT", Scripted::json(200, r#"{"nextExpectedRanges":["3300000"]}"#), "unavailable", true),
        ("PUT", Scripted::json(201, "{}"), "unavailable", true),
        ("/send", Scripted::json(429, "{}"), "throttled", true),
        ("/send", Scripted::json(403, r#"{"error":{"code":"ErrorSendAsDenied"}}"#), "sender_refused", true),
    ] {
        let far = Far::new(vec![(line, answer.clone())]).await;
        let part = far.upload(&fields()).await;
        assert!(matches!(&part, Part::Failed(failure) if failure.name() == verdict), "{line} {answer:?}: {part:?}");
        let asked = far.asked();
        assert_eq!(asked.iter().any(|line| line.starts_with("DELETE")), deletes, "{line} {answer:?}: {asked:?}");
        assert_eq!(asked.iter().any(|line| line.ends_with("/send")), line == "/send", "{asked:?}");
    }
}

#[tokio::test]
async fn an_upload_goes_on_from_where_graph_says_and_is_not_sent_before_all_of_it_is_there() {
    let partly = |next: usize| Scripted::json(200, &json!({ "nextExpectedRanges": [format!("{next}-")] }).to_string());
    let done = Scripted::Reply { status: 201, headers: Vec::new(), body: String::new() };
    let far = Far::new(vec![("PUT", partly(1_000_000)), ("PUT", done)]).await;
    let part = far.upload(&fields()).await;
    assert!(all(&part, "relayed"), "{part:?}");
    let requests = far.api.requests();
    let puts: Vec<_> = requests.iter().map(|(request, _)| request).filter(|request| request.line().starts_with("PUT")).collect();
    let ranges: Vec<_> = puts.iter().map(|request| request.header("content-range").unwrap()).collect();
    assert_eq!(ranges, ["bytes 0-3276799/3400000", "bytes 1000000-3399999/3400000"]);
    assert_eq!(puts[1].body, fields().attachments[1].content[1_000_000..]);

    // The last piece was not taken as a whole.
    let far = Far::new(vec![("PUT", partly(PIECE)), ("PUT", partly(PIECE))]).await;
    let part = far.upload(&fields()).await;
    assert!(matches!(&part, Part::Failed(Failure::Unavailable(_))), "{part:?}");
    assert!(far.asked().iter().all(|line| !line.ends_with("/send")), "{:?}", far.asked());
}

#[tokio::test]
async fn an_upload_that_takes_too_long_is_given_up_and_tidied_up_by_the_deadline() {
    let mut far = Far::new(vec![("/createUploadSession", Scripted::Hang), ("DELETE", Scripted::Hang)]).await;
    far.graph.timeouts.answer = Span(Duration::from_secs(60));
    let attempt = attempt(b"", CLEANUP + Duration::from_secs(1));
    let part = far.graph.upload(&attempt, &attempt.recipients, "relay@corp.example", &mut fields()).await;
    assert!(matches!(&part, Part::Failed(Failure::Unavailable(_))), "{part:?}");
    let late = Instant::now().saturating_duration_since(attempt.deadline);
    assert!(late < CLEANUP / 2, "{late:?} too late");
}

#[tokio::test]
async fn silence_after_the_draft_was_sent_is_doubt_and_the_draft_stays() {
    for answer in [Scripted::Close, Scripted::Hang, Scripted::json(500, "{}"), Scripted::json(200, "<html>")] {
        let far = Far::new(vec![("/send", answer.clone())]).await;
        let part = far.upload(&Fields { attachments: Vec::new(), ..fields() }).await;
        assert!(all(&part, "in_doubt"), "{answer:?}: {part:?}");
        assert_eq!(far.asked(), ["POST /messages", "POST /messages/AAMk=%2F1/send"]);
    }
}

#[tokio::test]
async fn a_missing_permission_to_make_drafts_is_no_refusal_of_the_credential() {
    let denied = json!({ "error": { "code": "ErrorAccessDenied", "message": "Access is denied." } });
    let far = Far::new(vec![("/messages", Scripted::json(403, &denied.to_string()))]).await;
    let part = far.upload(&fields()).await;
    let Part::Failed(Failure::Unsuitable(diagnostic)) = &part else { panic!("{part:?}") };
    assert!(diagnostic.advice.unwrap().contains("Mail.ReadWrite"));
}

#[tokio::test]
async fn a_token_that_has_expired_is_renewed_and_the_message_sent_once() {
    let expired = json!({ "error": { "code": "InvalidAuthenticationToken", "message": "Lifetime validation failed" } });
    let far = Far::new(vec![("/messages", Scripted::json(401, &expired.to_string()))]).await;
    far.graph.tokens.get().await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(120)).await;
    tokio::time::resume();
    let part = far.upload(&Fields { attachments: Vec::new(), ..fields() }).await;
    assert!(all(&part, "relayed"), "{part:?}");
    assert_eq!(far.asked(), ["POST /messages", "POST /messages", "POST /messages/AAMk=%2F1/send"]);
}

#[tokio::test]
async fn a_text_that_is_too_large_for_a_draft_is_not_taken() {
    let far = Far::new(Vec::new()).await;
    let part = far.upload(&Fields { html: Some("x".repeat(4_000_000)), ..fields() }).await;
    assert!(matches!(&part, Part::Failed(Failure::Unsuitable(_))), "{part:?}");
    assert!(far.asked().is_empty());
}
