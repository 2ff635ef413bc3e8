//! A gateway in this process with one provider that is down and one that works, and a client of its API.

use postrider::gateway::Gateway;
use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use postrider::spool::sqlite::SqliteSpool;
use postrider_providers::registry::Context;
use serde_json::{Value, json};

use crate::support::client::{message, send};
use crate::support::{eventually, gateway, server, smarthost};

/// What an answer was.
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Value,
    pub text: String,
}

/// The gateway with its providers.
pub struct Setup {
    pub gateway: Gateway<SqliteSpool>,
    pub down: SandboxSmarthost,
    pub spare: SandboxSmarthost,
    pub base: String,
    http: reqwest::Client,
    token: Option<&'static str>,
    _directory: tempfile::TempDir,
}

impl Setup {
    /// All mail goes to a provider that is down, unless somebody reroutes it to `spare`.
    pub async fn start(token: Option<&'static str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mode = SmarthostMode::Down;
        let down = SandboxSmarthost::start(SmarthostSettings { mode, keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
        let spare = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
        let config = [
            server(directory.path()),
            smarthost("first", down.address().port()),
            smarthost("spare", spare.address().port()),
            "[provider.smarthost.spare.limits]\nquota = \"50/day\"\n".to_owned(),
            "[[route]]\nname = \"spare\"\nwhen = { sender_domain = [\"nobody.example\"] }\nproviders = [\"smarthost.spare\"]\n\
             [[route]]\nname = \"notices\"\nwhen = { null_sender = true }\nproviders = [\"smarthost.spare\"]\n\
             [[route]]\nname = \"default\"\nproviders = [\"smarthost.first\"]\n\
             [queue]\nretry = [\"1h\"]\n[failover]\ntrip_after = 50\n[admin]\nbind = \"127.0.0.1:0\"\n"
                .to_owned(),
            token.map(|token| format!("token = \"{token}\"\n")).unwrap_or_default(),
        ];
        let gateway = gateway(&config.concat()).await;
        let base = format!("http://{}", gateway.admin_address().unwrap());
        let http = Context::new("client.example").unwrap().http;
        Self { gateway, down, spare, base, http, token, _directory: directory }
    }

    /// A request as a program sends it; `change` may spoil it.
    pub async fn ask_as(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Answer {
        let mut request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.base)).header("X-Postrider-By", "anna");
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = change(request).send().await.unwrap();
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let text = response.text().await.unwrap();
        Answer { status, content_type, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask_as("GET", path, None, |request| request).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask_as("POST", path, Some(body), |request| request).await
    }

    /// Takes in messages, and waits until all of them have been tried in vain.
    pub async fn deferred(&self, count: usize) -> Vec<String> {
        for number in 0..count {
            send(self.gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message(&format!("{number}"))).await;
        }
        let mut ids = Vec::new();
        eventually("all are deferred", async || {
            let page = self.get("/api/v1/queue/messages?filter=state%3Ddeferred").await.body;
            ids = page["messages"].as_array().into_iter().flatten().map(|message| message["id"].as_str().unwrap().to_owned()).collect();
            ids.len() == count
        })
        .await;
        ids
    }

    /// Does something to a message, and wants it done.
    pub async fn act(&self, id: &str, action: Value) {
        let answer = self.post(&format!("/api/v1/queue/messages/{id}/actions"), &action).await;
        assert_eq!(answer.status, 200, "{action}: {}", answer.text);
    }

    /// The state of a message, or `gone`.
    pub async fn state(&self, id: &str) -> String {
        let answer = self.get(&format!("/api/v1/queue/messages/{id}")).await;
        if answer.status == 404 { "gone".to_owned() } else { answer.body["message"]["state"].as_str().unwrap_or_default().to_owned() }
    }

    /// Waits until a message is in this state.
    pub async fn becomes(&self, id: &str, state: &str) {
        eventually(&format!("{id} is {state}"), async || self.state(id).await == state).await;
    }

    /// Waits for the end of a job.
    pub async fn job_ends(&self, job: &Value) -> Value {
        let mut last = json!(null);
        eventually("the job ends", async || {
            last = self.get(&format!("/api/v1/queue/jobs/{}", job["id"])).await.body;
            last["state"] != "running"
        })
        .await;
        last
    }
}
