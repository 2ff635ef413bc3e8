//! Amazon SES, against a scripted API.

use postrider_providers::conformance::{Arranged, Arranging, Behaviour, Seen, SeenContent, Subject, nobody};
use serde_json::json;

use super::connect;

/// Amazon SES.
pub struct Ses;

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

        fn taken((request, answer): (Request, Answer)) -> Option<Seen> {
            let Answer::Reply { status: 200, .. } = answer else { return None };
            let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
            let content = base64::engine::general_purpose::STANDARD.decode(body["Content"]["Raw"]["Data"].as_str().unwrap()).unwrap();
            let addresses = body["Destination"]["ToAddresses"].as_array().unwrap();
            Some(Seen {
                recipients: addresses.iter().map(|address| address.as_str().unwrap().to_owned()).collect(),
                content: SeenContent::Raw(content),
            })
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
