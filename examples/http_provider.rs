//! A provider of your own for an HTTP API, with the toolkit: `cargo run --example http_provider`.
//!
//! Pelican takes mail as JSON: `POST /letters` with a token, the fields of the message and its recipients.
//! It answers `201 {"letter": "…"}`, or `{"problem": "…", "detail": "…"}` with a status of 4xx. Everything
//! that is particular to it is in the module `pelican`. In the tree that module is the one file,
//! `providers/src/pelican.rs`, and `pelican,` in the registry of `providers/src/lib.rs` the one line.
//!
//! The fake API at the end, on a real port, shows one message taken and one refused.

#![allow(clippy::print_stdout, reason = "an example shows what happens")]

use std::path::Path;

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use postrider::clock::Clock;
use postrider::config::{Config, Secrets};
use postrider::gateway::Gateway;
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::ProviderName;
use postrider_providers::registry::{Context, Settings as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

type Error = Box<dyn std::error::Error + Send + Sync>;

mod pelican {
    //! Pelican through its letters API. It takes fields, and one verified sender.

    use std::sync::Arc;

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use postrider_providers::contract::{
        Attempt, Capabilities, Connected, Delivery, Failure, Probed, Provider, ProviderName, RecipientIndex, SizeLimit,
    };
    use postrider_providers::http::api::{self, Answer, Part, Reading, Refused, Timeouts};
    use postrider_providers::http::credential::credential;
    use postrider_providers::http::parts::Turns;
    use postrider_providers::http::verdict::{Rule, Verdict};
    use postrider_providers::mime::fields::{Addressed, Attachment, Fields, Mailbox};
    use postrider_providers::registry::{Context, Settings, SettingsError};
    use postrider_providers::settings::{LimitSettings, Rewrite, Secret};
    use reqwest::header::{AUTHORIZATION, HeaderValue};
    use serde_json::{Value, json};

    /// What is known before any call. Everything else is as with most JSON APIs.
    const CAPABILITIES: Capabilities =
        Capabilities { max_size: Some(SizeLimit::message(10_000_000)), max_recipients: Some(50), ..Capabilities::FIELDS };

    /// What its refusals mean, the particular before the general. A status without a rule follows the default
    /// of all HTTP APIs: 429 is throttled, 401 the credential, 5xx in doubt.
    pub const RULES: &[Rule] = &[
        Rule::new(422, "no-such-reader", Verdict::RecipientsRefused),
        Rule::new(422, "sender", Verdict::SenderRefused).advice("verify the sender's domain in Pelican under Account > Domains"),
        Rule::new(422, "", Verdict::Rejected),
    ];

    /// `[provider.pelican.<name>]`
    #[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Config {
        /// The token, from Account > Tokens.
        pub token: Secret,
        /// The service's URL.
        pub endpoint: Option<String>,
        /// How long to wait, for each phase.
        #[serde(default)]
        pub timeouts: Timeouts,
        /// What the administrator or the account allows.
        #[serde(default)]
        pub limits: LimitSettings,
        /// In whose name mail is handed over.
        pub rewrite: Option<Rewrite>,
    }

    struct Pelican {
        /// Has the one HTTP client of the gateway.
        context: Context,
        endpoint: String,
        /// As a header's value that no log shows.
        token: HeaderValue,
        timeouts: Timeouts,
    }

    impl Settings for Config {
        fn connect(&self, name: ProviderName, context: &Context) -> Result<Connected, SettingsError> {
            self.timeouts.check()?;
            let token = credential("token", &self.token, "Bearer ")?;
            let endpoint = api::endpoint(self.endpoint.as_deref(), "https://api.pelican.example")?;
            let provider = Arc::new(Pelican { context: context.clone(), endpoint, token, timeouts: self.timeouts });
            Ok(Connected { name, default_concurrency: 8, provider })
        }

        fn limits(&self) -> &LimitSettings {
            &self.limits
        }

        fn rewrite(&self) -> Option<&Rewrite> {
            self.rewrite.as_ref()
        }

        fn destination(&self) -> String {
            // Tells accounts apart in the check's output, and shows no secret.
            format!("Pelican (token {:?})", self.token)
        }

        fn kind_capabilities() -> Capabilities {
            CAPABILITIES
        }
    }

    impl Pelican {
        async fn send(&self, attempt: &Attempt, fields: &Fields, recipients: &[RecipientIndex], addressed: &Addressed) -> Part {
            let request = self.context.http.post(format!("{}/letters", self.endpoint));
            let request = request.header(AUTHORIZATION, self.token.clone()).json(&body(fields, addressed));
            // One call. How far it got, and what silence means, is decided in there.
            api::hand_over("letters", request, self.timeouts, attempt, recipients, RULES, read).await
        }
    }

    fn body(fields: &Fields, addressed: &Addressed) -> Value {
        let addresses = |list: &[Mailbox]| list.iter().map(|one| one.address.clone()).collect::<Vec<_>>();
        let enclosure = |one: &Attachment| json!({ "name": one.name, "type": one.media_type, "octets": STANDARD.encode(&one.content) });
        json!({
            "from": fields.from.address,
            "to": addresses(&addressed.to),
            "cc": addresses(&addressed.cc),
            "hidden": addresses(&addressed.bcc),
            "answers_to": addresses(&fields.reply_to),
            "subject": fields.subject,
            "text": fields.text,
            "html": fields.html,
            "enclosures": fields.attachments.iter().map(enclosure).collect::<Vec<_>>(),
        })
    }

    /// What an answer says. What it means is up to the rules.
    fn read(answer: &Answer) -> Reading {
        match (answer.status, answer.json()["letter"].as_str()) {
            (201, Some(letter)) => Reading::accepted(Some(letter.to_owned())),
            _ => Reading::Refused(refusal(answer).unwrap_or_default()),
        }
    }

    fn refusal(answer: &Answer) -> Option<Refused> {
        let json = answer.json();
        let detail = json["detail"].as_str().unwrap_or_default().to_owned();
        Some(Refused { code: json["problem"].as_str()?.to_owned(), text: detail, ..Refused::default() })
    }

    impl Provider for Pelican {
        fn capabilities(&self) -> Capabilities {
            CAPABILITIES
        }

        async fn deliver(&self, attempt: Attempt) -> Delivery {
            let mut fields = Fields::of(&attempt).await?;
            fields.keep_headers(|_| false, "Pelican takes no header fields");
            // Mostly one call; one for each recipient where the header shows none of them.
            let mut turns = Turns::new(fields.addressed(&attempt));
            while let Some((recipients, addressed)) = turns.next_call() {
                let part = self.send(&attempt, &fields, &recipients, &addressed).await;
                turns.done(recipients, part);
            }
            // What the fields could not say goes into the receipt, and from there into the log.
            fields.told(turns.end())
        }

        async fn probe(&self) -> Result<Probed, Failure> {
            let request = self.context.http.get(format!("{}/account", self.endpoint)).header(AUTHORIZATION, self.token.clone());
            api::ask("account", request, self.timeouts, RULES, refusal).await?;
            Ok(Probed::default().fact("the token is good"))
        }
    }
}

/// The far side, for the sake of the example: takes what is not for `nobody@`.
fn fake_pelican(seen: mpsc::UnboundedSender<(Value, StatusCode)>) -> Router {
    let letters = |headers: HeaderMap, Json(letter): Json<Value>| async move {
        let is_known = headers.get("authorization").is_some_and(|value| value == "Bearer secret");
        let (status, answer) = match letter["to"][0].as_str() {
            _ if !is_known => (StatusCode::UNAUTHORIZED, json!({ "problem": "token" })),
            Some(address) if address.starts_with("nobody@") => {
                (StatusCode::UNPROCESSABLE_ENTITY, json!({ "problem": "no-such-reader", "detail": format!("{address} does not read") }))
            }
            _ => (StatusCode::CREATED, json!({ "letter": "4711" })),
        };
        // The example may have ended.
        let _ = seen.send((letter, status));
        (status, Json(answer))
    };
    Router::new().route("/letters", post(letters))
}

/// An application that submits one message by SMTP.
async fn submit(server: std::net::SocketAddr, to: &str) -> Result<(), Error> {
    let mut stream = BufReader::new(TcpStream::connect(server).await?);
    let content = format!("Subject: Hello\r\nFrom: app@corp.example\r\nTo: {to}\r\n\r\nFrom an application, by SMTP.\r\n.\r\n");
    let (mut line, recipient) = (String::new(), format!("RCPT TO:<{to}>\r\n"));
    stream.read_line(&mut line).await?;
    for said in ["HELO app\r\n", "MAIL FROM:<app@corp.example>\r\n", &recipient, "DATA\r\n", &content, "QUIT\r\n"] {
        stream.get_mut().write_all(said.as_bytes()).await?;
        line.clear();
        stream.read_line(&mut line).await?;
        if !line.starts_with(['2', '3']) {
            return Err(line.into());
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}", listener.local_addr()?);
    let (seen, mut letters) = mpsc::unbounded_channel();
    let far_side = tokio::spawn(async move { axum::serve(listener, fake_pelican(seen)).await });

    // In the tree, this is what `[provider.pelican.desk]` becomes. Here it is built by hand.
    let settings: pelican::Config = serde_json::from_value(json!({ "token": "secret", "endpoint": endpoint }))?;
    let name = ProviderName::new("pelican", "desk");
    let connected = settings.connect(name.clone(), &Context::new("relay.example")?)?;

    // The config file knows the kinds of provider that are built in. Ours takes the place of one.
    let text = "[[listener]]\nbind = \"127.0.0.1:0\"\n[provider.capture.placeholder]\ndirectory = \"placeholder\"\n";
    let (mut config, _) = Config::parse(text, Path::new("example.toml"), Secrets::Skip)?;
    for route in &mut config.routes {
        route.providers = vec![name.clone()];
    }
    let gateway = Gateway::start_with(&config, MemorySpool::new(), vec![connected], Clock::system()).await?;
    let server = *gateway.addresses().first().ok_or("the gateway listens nowhere")?;

    for to in ["desk@example.net", "nobody@example.net"] {
        submit(server, to).await?;
        let (letter, status) = letters.recv().await.ok_or("Pelican has gone")?;
        println!("For {to} Pelican got {letter}\nand answered {status}.\n");
    }
    // Lets the attempts at hand end, so that their outcomes are written down, too.
    gateway.drain().await;
    far_side.abort();
    Ok(())
}
