//! The program as the person on call meets it: a provider is down at night, and the command line says what is
//! the matter, does something about it, and proves it later.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use serde_json::Value;
use support::client::{message, send};
use support::process::Postrider;
use support::{eventually, free_port, server, smarthost};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// A running program whose first provider is down.
struct Night {
    postrider: Postrider,
    down: SandboxSmarthost,
    spare: SandboxSmarthost,
    config: PathBuf,
    _directory: tempfile::TempDir,
}

impl Night {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = SmarthostSettings { mode: SmarthostMode::Down, ..SmarthostSettings::default() };
        let down = SandboxSmarthost::start(settings).await.unwrap();
        let spare = SandboxSmarthost::start(SmarthostSettings::default()).await.unwrap();
        std::fs::write(directory.path().join("token"), TOKEN).unwrap();
        let config = [
            server(directory.path()),
            smarthost("office", down.address().port()),
            smarthost("spare", spare.address().port()),
            "[provider.smarthost.spare.limits]\nquota = \"100/day\"\n".to_owned(),
            "[[route]]\nname = \"spare\"\nwhen = { sender_domain = [\"nobody.example\"] }\nproviders = [\"smarthost.spare\"]\n\
             [[route]]\nname = \"default\"\nproviders = [\"smarthost.office\"]\n[queue]\nretry = [\"1h\"]\n[failover]\ntrip_after = 50\n"
                .to_owned(),
            format!("[admin]\nbind = \"127.0.0.1:{}\"\ntoken = {{ file = {:?} }}\n", free_port(), directory.path().join("token")),
        ];
        let postrider = Postrider::start(directory.path(), &config.concat());
        Self { postrider, down, spare, config: directory.path().join("postrider.toml"), _directory: directory }
    }

    /// Runs a command to its end, and wants this exit code: standard output and standard error.
    fn says(&self, arguments: &[&str], code: i32) -> (String, String) {
        says(&self.config, arguments, code)
    }

    /// What a command prints when all is well.
    fn out(&self, arguments: &[&str]) -> String {
        self.says(arguments, 0).0
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.out(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }
}

fn says(config: &Path, arguments: &[&str], code: i32) -> (String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(arguments)
        .env("POSTRIDER_CONFIG", config)
        .env("USER", "anna")
        .env_remove("SUDO_USER")
        .env("http_proxy", "http://127.0.0.1:1")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{out}\n{err}");
    assert!(!out.contains(TOKEN) && !err.contains(TOKEN), "a secret is shown");
    (out, err)
}

#[tokio::test(flavor = "multi_thread")]
async fn at_three_in_the_morning_the_provider_is_down() {
    let night = Night::start().await;
    let address = night.postrider.address();
    for number in 0..5 {
        send(address, "alarm@corp.example", &["oncall@example.net"], &message(&format!("{number}"))).await;
    }
    eventually("all have been tried", async || night.json(&["queue"])["states"]["deferred"] == 5).await;

    // Is it us or the provider? What is stuck, why, and when is the next try?
    let summary = night.out(&["queue"]);
    for word in ["5 messages: 5 deferred", "next try in ", "default", "corp.example", "smarthost.office", "onnection refused"] {
        assert!(summary.contains(word), "{word:?} is missing:\n{summary}");
    }
    let list = night.out(&["queue", "list", "state=deferred", "to=oncall@example.net"]);
    assert_eq!(list.lines().count(), 6, "{list}");
    assert_eq!(night.out(&["queue", "list", "to=nobody@example.net"]).trim(), "no message in the queue is meant by: to=nobody@example.net");
    let ids: Vec<String> = night.json(&["queue", "list"])["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["id"].as_str().unwrap().to_owned())
        .collect();
    let shown = night.out(&["queue", "show", &ids[0], "--body"]);
    for word in ["Connection refused", "next try", "Subject: test", "Text of 0.", "alarm@corp.example"] {
        assert!(shown.contains(word), "{word:?} is missing:\n{shown}");
    }
    assert!(night.out(&["queue", "export", &ids[0]]).ends_with("Text of 0.\r\n"));
    assert!(night.out(&["providers", "list"]).contains("smarthost.office"));
    assert!(night.out(&["providers", "show", "smarthost.office"]).contains("onnection refused"));

    // Nothing is done to many without a yes.
    let (_, err) = night.says(&["queue", "reroute", "state=deferred", "--to", "spare"], 64);
    assert!(err.contains("nothing was done"), "{err}");
    assert_eq!(night.json(&["queue", "remove", "--all", "--dry-run"])["count"], 5);
    assert_eq!(night.json(&["queue"])["messages"], 5);

    // One by the other way, then the others.
    assert!(night.out(&["queue", "reroute", &ids[0], "--to", "spare"]).contains("rerouted"));
    night.spare.recorder().reached(1).await;
    let told = night.out(&["queue", "reroute", "state=deferred", "--to", "spare", "--yes"]);
    assert!(told.contains("4 of 4 done"), "{told}");
    night.spare.recorder().reached(5).await;
    eventually("the queue is empty", async || night.json(&["queue"])["messages"] == 0).await;
    assert_eq!(night.out(&["queue"]).lines().next(), Some("the queue is empty"));
    assert_eq!(night.down.recorder().count(), 0);
    let list = night.out(&["providers", "list"]);
    assert!(list.lines().any(|line| line.contains("smarthost.spare") && line.contains("95 of 100/day")), "{list}");
    let spare = night.out(&["providers", "show", "smarthost.spare"]);
    assert!(spare.contains("quota of smarthost.spare: 100/day, 5 used, 95 left\n"), "{spare}");
    assert_eq!(night.json(&["providers", "show", "smarthost.spare"])["limits"][0]["left"], 95);

    // And prove it later.
    eventually("the history has it all", async || night.out(&["history", "trace", &ids[0]]).contains("now: relayed, not in the queue"))
        .await;
    let trace = night.out(&["history", "trace", &ids[0]]);
    for word in ["attempt", "smarthost.office", "onnection refused", "action reroute by anna", "relayed at smarthost.spare", "sandbox-"] {
        assert!(trace.contains(word), "{word:?} is missing:\n{trace}");
    }
    let found = night.json(&["history", "search", "--to", "oncall@example.net", "--state", "relayed", "--since", "1h"]);
    assert_eq!(found["messages"].as_array().unwrap().len(), 5);
    let (_, err) = night.says(&["queue", "show", &ids[0]], 65);
    assert!(err.contains("not in the queue") && err.contains("history trace"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_says_what_the_running_gateway_would_do_and_later_what_it_did() {
    let night = Night::start().await;
    send(night.postrider.address(), "alarm@corp.example", &["oncall@example.net"], &message("0")).await;
    eventually("it has been tried", async || night.json(&["queue"])["states"]["deferred"] == 1).await;
    let id = night.json(&["queue", "list"])["messages"][0]["id"].as_str().unwrap().to_owned();
    // The history follows the queue by a moment.
    eventually("the history has the attempt", async || night.out(&["explain", &id]).contains("what happened")).await;
    let queued = night.out(&["explain", &id]);
    for word in [
        "deferred, in the queue, 1 attempt",
        "by the retry schedule (attempt 2), which goes to smarthost.office",
        "passed over  spare: when.sender_domain is nobody.example",
        "route        default, the first that matches",
        "1. smarthost.office  would be asked",
        "last words",
        "given up",
        "what happened",
    ] {
        assert!(queued.contains(word), "{word:?} is missing:\n{queued}");
    }
    // An imagined message: by the config, and by the gateway that runs.
    let imagined = &["explain", "--from", "alarm@corp.example", "--to", "oncall@example.net"][..];
    assert!(night.out(imagined).contains("<oncall@example.net> accepted"));
    let live = &[imagined, &["--live"]].concat()[..];
    assert!(night.out(live).contains("would go now to smarthost.office"));
    night.out(&["providers", "pause", "--route", "default"]);
    let paused = night.out(live);
    assert!(paused.contains("waits for route default, which anna has paused, and nothing tells until when"), "{paused}");
    assert_eq!(night.json(live)["parts"][0]["conclusion"]["verdict"], "waits");
    night.out(&["providers", "resume", "--route", "default"]);

    night.out(&["queue", "reroute", &id, "--to", "spare"]);
    night.spare.recorder().reached(1).await;
    eventually("the history has it", async || night.out(&["explain", &id]).contains("relayed, not in the queue any more")).await;
    let past = night.out(&["explain", &id]);
    for word in ["relayed at smarthost.spare, by route spare", "onnection refused", "action reroute", "2 attempts"] {
        assert!(past.contains(word), "{word:?} is missing:\n{past}");
    }
    assert_eq!(night.json(&["explain", &id])["kind"], "past");

    // What cannot be answered.
    for (arguments, code, words) in [
        (&["explain", "00000000000000000000000000000000"][..], 65, "the history does not know it"),
        (&["explain", "xyz"], 64, "32 hexadecimal digits"),
        (&["explain"], 64, "--from"),
        (&["explain", &id, "--live"], 64, "--live"),
        (&[live, &["--tls"]].concat(), 64, "--tls"),
        (&[imagined, &["--server", "http://127.0.0.1:1"]].concat(), 64, "add --live"),
        (&[live, &["--server", "http://127.0.0.1:1"]].concat(), 69, "systemctl status postrider"),
        (&["explain", &id, "--server", "http://127.0.0.1:1"], 69, "systemctl status postrider"),
    ] {
        let (out, err) = night.says(arguments, code);
        assert!(out.is_empty() && err.contains(words), "{arguments:?}: {out}{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_about_a_provider_holds_until_it_is_taken_back() {
    let night = Night::start().await;
    night.out(&["providers", "pause", "--domain", "corp.example"]);
    night.out(&["providers", "trip", "smarthost.spare"]);
    let all = night.json(&["providers", "list"]);
    assert_eq!(all["pauses"][0]["decided"]["by"], "anna");
    let spare = night.json(&["providers", "show", "smarthost.spare"]);
    assert_eq!((spare["circuit"]["state"].as_str(), spare["tripped"]["by"].as_str()), (Some("open"), Some("anna")));
    let summary = night.out(&["queue", "summary"]);
    assert!(summary.contains("smarthost.spare: tripped by anna") && summary.contains("domain corp.example: paused by anna"), "{summary}");
    night.out(&["providers", "reset", "smarthost.spare"]);
    night.out(&["providers", "resume", "--domain", "corp.example"]);
    let all = night.json(&["providers", "list"]);
    assert_eq!(all["pauses"], serde_json::json!([]));
    let (_, err) = night.says(&["providers", "trip", "smarthost.sapre"], 65);
    assert!(err.contains("there is no provider \"smarthost.sapre\""), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_failed_stands_with_what_waits_until_it_is_mended() {
    let night = Night::start().await;
    let good = std::fs::read_to_string(&night.config).unwrap();
    std::fs::write(&night.config, good.replace("[[route]]", "[[rout]]")).unwrap();
    // The command has to find the gateway, so the config that it reads is another.
    let found = night.config.with_file_name("good.toml");
    std::fs::write(&found, &good).unwrap();
    says(&found, &["reload"], 65);
    let (summary, _) = says(&found, &["queue"], 0);
    assert!(summary.contains("config\n  the last reload (") && summary.contains(") failed, and the old one stays in use: "), "{summary}");
    std::fs::write(&night.config, &good).unwrap();
    says(&found, &["reload"], 0);
    let (summary, _) = says(&found, &["queue"], 0);
    assert!(!summary.contains(") failed, and"), "{summary}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_drain_ends_and_is_then_said_not_to_run() {
    let night = Night::start().await;
    assert!(night.out(&["drain"]).contains("ends"));
    assert!(night.postrider.wait().success());
    for command in
        [&["queue"][..], &["queue", "list"], &["history", "search"], &["reload"], &["drain"], &["providers", "show", "smarthost.spare"]]
    {
        let (out, err) = says(&night.config, command, 69);
        assert_eq!(out, "");
        assert!(err.contains("does not answer") && err.contains("systemctl status postrider"), "{err}");
    }
    // The config still says something.
    let (out, err) = says(&night.config, &["providers", "list"], 0);
    assert!(out.contains("smarthost.office") && err.contains("this is what the config says"), "{out}{err}");
}

#[test]
fn without_an_address_or_with_a_wrong_one_it_is_said_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("postrider.toml");
    std::fs::write(&config, [server(directory.path()), smarthost("only", 1)].concat()).unwrap();
    let (_, err) = says(&config, &["queue"], 78);
    assert!(err.contains("has no [admin]") && err.contains("bind = \"127.0.0.1:8025\""), "{err}");
    let (_, err) = says(&config, &["queue", "--server", "nonsense"], 64);
    assert!(err.contains("http://127.0.0.1:8025"), "{err}");
    let (_, err) = says(&config, &["queue", "--server", &format!("http://127.0.0.1:{}", free_port())], 69);
    assert!(err.contains("does not answer"), "{err}");
    let missing = directory.path().join("no-token");
    let (_, err) = says(&config, &["queue", "--server", "http://127.0.0.1:1", "--token-file", missing.to_str().unwrap()], 77);
    assert!(err.contains("token"), "{err}");
}
