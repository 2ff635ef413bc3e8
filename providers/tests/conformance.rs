//! Every kind of provider passes the behaviour suite.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use postrider_providers::Providers;
use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Script, Step};
use postrider_providers::conformance::{Arranged, Behaviour, Subject, Taken, check};
use postrider_providers::contract::ProviderName;
use postrider_providers::registry::{Context, Settings};
use postrider_providers::{capture, smarthost};
use serde_json::json;

type Arranging<'a> = Pin<Box<dyn Future<Output = Option<Arranged>> + Send + 'a>>;

fn connect(kind: &str, config: &impl Settings) -> std::sync::Arc<dyn postrider_providers::contract::DynProvider> {
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new(kind, "subject"), &context).unwrap().provider
}

/// An address of the loopback on which nobody listens.
async fn nobody() -> std::net::SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

struct SmartHost;

impl Subject for SmartHost {
    fn kind(&self) -> &'static str {
        "smarthost"
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        Box::pin(async move {
            let plain = Script::modern();
            let script = match behaviour {
                Behaviour::Accepts | Behaviour::RefusesConnections => plain,
                Behaviour::RefusesOneRecipient => plain.on_containing(Step::Rcpt, "refused@", Action::reply("550 5.1.1 no such mailbox")),
                Behaviour::HangsBeforeTheMessage => plain.on(Step::Greeting, Action::Hang),
                Behaviour::ClosesInTheMessage => plain.on(Step::Content, Action::Close),
                Behaviour::ClosesAfterTheMessage => plain.on(Step::FinalDot, Action::Close),
                Behaviour::HangsAfterTheMessage => plain.on(Step::FinalDot, Action::Hang),
                Behaviour::AnswersNonsense => plain.on(Step::FinalDot, Action::reply("<html>")),
                Behaviour::Throttles => plain.on(Step::Mail, Action::reply("451 4.7.0 too many messages, slow down")),
                Behaviour::RefusesTheCredential => plain.on(Step::Mail, Action::reply("530 5.7.0 Authentication required")),
                Behaviour::RefusesTheSender => plain.on(Step::Mail, Action::reply("550 5.7.1 not your address")),
                Behaviour::RefusesTheContent => plain.on(Step::FinalDot, Action::reply("554 5.6.0 no")),
            };
            let host = FakeSmartHost::start(script).await.unwrap();
            let address = if behaviour == Behaviour::RefusesConnections { nobody().await } else { host.address };
            let config: smarthost::Config = serde_json::from_value(json!({
                "host": "127.0.0.1", "port": address.port(), "tls": "off",
                "timeouts": { "command": if behaviour == Behaviour::HangsBeforeTheMessage { "500ms" } else { "20s" } },
            }))
            .unwrap();
            let taken = move || {
                let taken = |message| {
                    let postrider_providers::conformance::smart_host::Received { recipients, content, .. } = message;
                    Taken { recipients, content }
                };
                host.log().messages.into_iter().map(taken).collect()
            };
            Some(Arranged { provider: connect("smarthost", &config), taken: Box::new(taken) })
        })
    }
}

#[cfg(feature = "ses")]
struct Ses;

#[cfg(feature = "ses")]
impl Subject for Ses {
    fn kind(&self) -> &'static str {
        "ses"
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        use base64::Engine as _;
        use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
        use postrider_providers::ses;

        fn error(status: u16, code: &str, message: &str) -> Answer {
            Answer::Reply {
                status,
                headers: vec![format!("x-amzn-ErrorType: {code}"), "Content-Type: application/json".to_owned()],
                body: json!({ "message": message }).to_string(),
            }
        }

        fn taken((request, answer): (Request, Answer)) -> Option<Taken> {
            let Answer::Reply { status: 200, .. } = answer else { return None };
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let content = base64::engine::general_purpose::STANDARD.decode(body["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap();
            let addresses = body["Destination"]["ToAddresses"].as_array().unwrap();
            Some(Taken { recipients: addresses.iter().map(|address| address.as_str().unwrap().to_owned()).collect(), content })
        }

        Box::pin(async move {
            let answer = match behaviour {
                Behaviour::Accepts | Behaviour::RefusesConnections => Answer::json(200, r#"{"MessageId":"0100"}"#),
                // All or nothing, there.
                Behaviour::RefusesOneRecipient => return None,
                Behaviour::HangsBeforeTheMessage => Answer::HangAtOnce,
                Behaviour::ClosesInTheMessage => Answer::CloseInTheBody,
                Behaviour::ClosesAfterTheMessage => Answer::Close,
                Behaviour::HangsAfterTheMessage => Answer::Hang,
                Behaviour::AnswersNonsense => Answer::json(200, "<html>"),
                Behaviour::Throttles => error(429, "TooManyRequestsException", "Maximum sending rate exceeded."),
                Behaviour::RefusesTheCredential => error(403, "SignatureDoesNotMatch", "no"),
                Behaviour::RefusesTheSender => error(400, "MailFromDomainNotVerifiedException", "no"),
                Behaviour::RefusesTheContent => error(400, "MessageRejected", "Illegal filename"),
            };
            let api = FakeApi::start([answer]).await.unwrap();
            let endpoint = match behaviour {
                Behaviour::RefusesConnections => format!("http://{}", nobody().await),
                // A handshake that gets no answer: in clear text the message would leave at once.
                Behaviour::HangsBeforeTheMessage => format!("https://{}", api.address),
                _ => api.url(),
            };
            let config: ses::Config = serde_json::from_value(json!({
                "region": "eu-west-1", "access_key_id": "AKIATEST", "secret_access_key": "secret", "endpoint": endpoint,
                "timeouts": { "connect": if behaviour == Behaviour::HangsBeforeTheMessage { "500ms" } else { "20s" } },
            }))
            .unwrap();
            Some(Arranged {
                provider: connect("ses", &config),
                taken: Box::new(move || api.requests().into_iter().filter_map(taken).collect()),
            })
        })
    }
}

struct Capture;

impl Subject for Capture {
    fn kind(&self) -> &'static str {
        "capture"
    }

    fn arrange(&self, behaviour: Behaviour) -> Arranging<'_> {
        Box::pin(async move {
            let scratch = tempfile::tempdir().unwrap();
            let directory: PathBuf = match behaviour {
                Behaviour::Accepts => scratch.path().join("mail"),
                Behaviour::RefusesConnections => {
                    std::fs::write(scratch.path().join("file"), "").unwrap();
                    scratch.path().join("file/mail")
                }
                _ => return None,
            };
            let config: capture::Config = serde_json::from_value(json!({ "directory": directory })).unwrap();
            let taken = move || {
                // Moved in here, so that the directory lives as long as the provider.
                let _scratch = &scratch;
                let Ok(files) = std::fs::read_dir(&directory) else { return Vec::new() };
                let records = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "json"));
                let taken = |path: PathBuf| {
                    let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                    let recipients = record["recipients"].as_array().unwrap();
                    Taken {
                        recipients: recipients.iter().map(|address| address.as_str().unwrap().to_owned()).collect(),
                        content: std::fs::read(path.with_extension("eml")).unwrap(),
                    }
                };
                records.map(taken).collect()
            };
            Some(Arranged { provider: connect("capture", &config), taken: Box::new(taken) })
        })
    }
}

fn subjects() -> Vec<Box<dyn Subject>> {
    vec![
        Box::new(Capture),
        #[cfg(feature = "ses")]
        Box::new(Ses),
        Box::new(SmartHost),
    ]
}

#[test]
fn every_kind_of_provider_has_a_subject() {
    let kinds: Vec<&str> = subjects().iter().map(|subject| subject.kind()).collect();
    assert_eq!(kinds, Providers::KINDS);
}

#[tokio::test]
async fn every_provider_keeps_the_contract() {
    for subject in subjects() {
        check(&*subject).await;
    }
}
