//! `postrider providers`, the real program: what it lists, whom it asks, and what it says is to be done.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postrider_providers::conformance::http_api::{Answer, FakeApi, Request};
use postrider_providers::conformance::smart_host::{FakeSmartHost, Script};
use serde_json::{Value, json};
use support::{free_port, server, smarthost};

/// Exit code, standard output, standard error.
async fn providers(config: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.arg("providers").args(arguments).arg("--config").arg(config).env_remove("POSTRIDER_CONFIG").stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = |octets: Vec<u8>| String::from_utf8(octets).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A smart host that works, one that is down, and SendGrid with this answer.
async fn config(directory: &Path, host: &FakeSmartHost, api: &FakeApi) -> PathBuf {
    let sendgrid = format!("[provider.sendgrid.main]\napi_key = \"SG.hush\"\nendpoint = \"{}\"\n", api.url());
    let route = "[[route]]\nname = \"all\"\nproviders = [\"smarthost.up\", \"smarthost.down\", \"sendgrid.main\"]\n";
    let hosts = smarthost("up", host.address.port()) + &smarthost("down", free_port());
    let path = directory.join("postrider.toml");
    std::fs::write(&path, [server(&directory.join("data")), hosts, sendgrid, route.to_owned()].concat()).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn each_provider_is_asked_and_what_is_wrong_is_said_with_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let (host, api) =
        (FakeSmartHost::start(Script::modern()).await.unwrap(), FakeApi::start([Answer::json(401, r#"{"errors":[]}"#)]).await.unwrap());
    let config = config(directory.path(), &host, &api).await;

    let (code, out, _) = providers(&config, &["probe"]).await;
    assert_eq!(code, Some(69), "{out}");
    assert!(out.contains("smarthost.up: ok\n"), "{out}");
    assert!(out.contains("smarthost.down: FAILED: it cannot be reached\n") && out.contains("Connection refused"), "{out}");
    assert!(out.contains("sendgrid.main: FAILED: it refuses the credential\n"), "{out}");
    assert!(out.contains("  what to do: make a new API key in SendGrid"), "{out}");
    assert!(!out.contains("hush"), "{out}");
    assert!(host.log().messages.is_empty(), "no mail is sent");

    let (code, out, _) = providers(&config, &["probe", "--json", "smarthost.up", "sendgrid.main"]).await;
    assert_eq!(code, Some(69));
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["ok"], false);
    let [down, up] = said["providers"].as_array().unwrap().as_slice() else { panic!("{said}") };
    let (down, up) = if down["ok"] == json!(true) { (up, down) } else { (down, up) };
    assert_eq!((&up["name"], &up["ok"]), (&json!("smarthost.up"), &json!(true)), "{said}");
    assert_eq!((&down["name"], &down["failure"]["kind"]), (&json!("sendgrid.main"), &json!("unauthorized")), "{said}");
    assert!(down["failure"]["advice"].as_str().unwrap().contains("API key"), "{said}");

    let (code, out, _) = providers(&config, &["probe", "smarthost.up"]).await;
    assert_eq!(code, Some(0), "{out}");
    assert!(out.starts_with("smarthost.up: ok\n  smtp://127.0.0.1"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_a_gateway_was_given_is_used_and_the_next_one_kept() {
    let directory = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU32::new(2);
    let answer = move |_: &Request| {
        let next = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Answer::json(200, &json!({ "access_token": "one", "expires_in": 3599, "refresh_token": format!("r{next}") }).to_string())
    };
    let api = FakeApi::asking(|_| None, answer).await.unwrap();
    let data = directory.path().join("data");
    let graph = format!(
        "[provider.graph.main]\ntenant = \"corp.example\"\nclient_id = \"app\"\nrefresh_token = \"r1\"\nendpoint = \"{0}\"\nauthority = \"{0}\"\n",
        api.url()
    );
    let config = directory.path().join("postrider.toml");
    std::fs::write(&config, server(&data) + &graph).unwrap();
    providers(&config, &["probe"]).await;
    assert!(!data.exists(), "nothing is made before a gateway was at work");
    std::fs::create_dir(&data).unwrap();
    providers(&config, &["probe"]).await;
    providers(&config, &["probe"]).await;
    let bodies: Vec<String> = api.requests().iter().map(|(request, _)| String::from_utf8_lossy(&request.body).into_owned()).collect();
    let used: Vec<&str> = bodies.iter().filter_map(|body| body.split('&').find_map(|part| part.strip_prefix("refresh_token="))).collect();
    assert_eq!((used.len(), &used[..2]), (3, &["r1", "r1"][..]));
    assert!(used[2] != "r1", "{used:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_says_what_each_can_carry_and_a_name_that_is_unknown_is_a_slip() {
    let directory = tempfile::tempdir().unwrap();
    let (host, api) = (FakeSmartHost::start(Script::modern()).await.unwrap(), FakeApi::start([]).await.unwrap());
    let config = config(directory.path(), &host, &api).await;

    let (code, out, _) = providers(&config, &["list"]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("sendgrid.main: http://127.0.0.1") && out.contains("takes subject, texts and attachments"), "{out}");
    assert!(out.contains("does not carry addresses outside ASCII, notifications (the null sender)"), "{out}");
    assert!(out.contains("smarthost.up: smtp://127.0.0.1") && out.contains("takes messages as they are\n"), "{out}");
    let (_, out, _) = providers(&config, &["list", "--json"]).await;
    let said: Value = serde_json::from_str(&out).unwrap();
    let content: Vec<&str> = said["providers"].as_array().unwrap().iter().map(|one| one["content"].as_str().unwrap()).collect();
    assert_eq!((content.len(), content.contains(&"fields"), content.contains(&"raw")), (3, true, true), "{said}");
    assert!(host.log().connections == 0 && api.requests().is_empty(), "nobody is asked");

    for (name, meant) in [("up", "did you mean smarthost.up?"), ("sendgird.main", "did you mean sendgrid.main?"), ("x", "only ")] {
        let (code, _, err) = providers(&config, &["probe", name]).await;
        assert_eq!(code, Some(64), "{err}");
        assert!(err.contains(&format!("no provider {name}")) && err.contains(meant), "{err}");
    }
}
