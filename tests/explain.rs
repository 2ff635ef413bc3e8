//! `postrider explain`, the real program: what it says about a message, as text and as JSON, and its
//! exit codes. A session with the same config says the same.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
#[cfg(feature = "ses")]
use support::{client::Client, process::Postrider};

/// Three routes, limits, and a provider that carries neither notifications nor large messages.
#[cfg(feature = "ses")]
const CONFIG: &str = r#"
[server]
hostname = "relay.example"
data_dir = "@DATA@"

[[listener]]
bind = "127.0.0.1:0"

[access]
trusted_networks = ["127.0.0.0/8", "10.0.0.0/8"]
max_message_size = "40MiB"

[provider.smarthost.internal]
host = "mail.corp.example"
tls = "off"
[provider.smarthost.internal.limits]
rate = "30/min"
concurrency = 3

[provider.ses.eu]
region = "eu-west-1"
access_key_id = "AKIAIOSFODNN7EXAMPLE"
secret_access_key = "hush"
[provider.ses.eu.limits]
quota = "50000 recipients/day"

[[route]]
name = "colleagues"
when = { recipient_domain = ["corp.example", "*.corp.example"] }
providers = ["smarthost.internal"]

[[route]]
name = "lab"
when = { client = "10.9.0.0/16", null_sender = false }
providers = ["ses.eu", "smarthost.internal"]
spill = true

[[route]]
name = "world"
when = { null_sender = false }
providers = ["ses.eu"]
[route.limits]
per_sending_domain = "20/s"

[[route]]
name = "notifications"
when = { null_sender = true, recipient_domain = "partner.example" }
providers = ["ses.eu"]

[limits.sending_domain]
"erp.example" = "600/min"
default = "50/s"
"#;

/// The program's exit code, standard output and standard error.
fn explain(config: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(["explain", "--config"])
        .arg(config)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// The config as a file in a directory of its own.
fn config(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postrider.toml");
    std::fs::write(&path, text.replace("@DATA@", directory.path().join("data").to_str().unwrap())).unwrap();
    (directory, path)
}

#[cfg(feature = "ses")]
#[test]
fn it_tells_the_rule_the_route_and_each_candidate() {
    let (_directory, path) = config(CONFIG);
    let (code, out, err) = explain(
        &path,
        &["--from", "app@erp.example", "--to", "a@corp.example", "--to", "b@partner.example", "--client", "10.9.1.2", "--size", "35MiB"],
    );
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    // What is tolerated of whom is told elsewhere.
    let out: Vec<&str> = out.lines().filter(|line| !line.starts_with("tolerance ")).collect();
    assert_eq!(
        out.join("\n"),
        "\
client       10.9.1.2 at 127.0.0.1:0, in clear text
known as     a trusted host, by its address, in the network 10.0.0.0/8 (access.trusted_networks)
may send     40MiB, 1000 recipients
message      from <app@erp.example>, 35MiB

<a@corp.example> accepted
takes        colleagues; waits where a provider's limit is reached
             1. smarthost.internal  can carry it; at most 30/min, 3 at a time; smtp://mail.corp.example:25
limit        600/min for erp.example (limits.sending_domain.\"erp.example\")

<b@partner.example> accepted
passed over  colleagues: when.recipient_domain is corp.example, *.corp.example
takes        lab; goes on to the next where a provider's limit is reached
             1. ses.eu              CANNOT: too large, it takes 30MB; at most 50000 recipients/day; https://email.eu-west-1.amazonaws.com (eu-west-1, access key AKIAIOSFODNN7EXAMPLE)
             2. smarthost.internal  can carry it; at most 30/min, 3 at a time; smtp://mail.corp.example:25
limit        600/min for erp.example (limits.sending_domain.\"erp.example\")"
    );
}

#[cfg(feature = "ses")]
#[test]
fn a_refusal_comes_with_its_reason_the_reply_and_the_exit_code_69() {
    let (_directory, path) = config(CONFIG);
    for (arguments, reason, reply, way) in [
        (
            &["--from", "a@erp.example", "--to", "b@y.example", "--client", "192.0.2.7"][..],
            "access.trusted_networks",
            "554 5.7.1 <b@y.example>: relay access denied for [192.0.2.7]",
            "would take   world;",
        ),
        (
            &["--from", "a@erp.example", "--to", "b@y.example", "--size", "41MiB"],
            "the message is larger than 40MiB (access.max_message_size)",
            "552 5.3.4 Message exceeds the maximum size",
            "would take   world;",
        ),
        (
            &["--from", "a@erp.example", "--to", "b@y.example", "--size", "35MiB"],
            "no provider of its route can carry the message",
            "552 5.3.4 <b@y.example>: the message has 36700160 octets; no provider of route \"world\" takes more than 30000000",
            "1. ses.eu  CANNOT: too large, it takes 30MB;",
        ),
        (
            &["--from", "\u{fc}@erp.example", "--to", "b@y.example"],
            "no provider of its route can carry the message",
            "550 5.6.7 <b@y.example>: no provider of route \"world\" carries SMTPUTF8",
            "1. ses.eu  CANNOT: no SMTPUTF8;",
        ),
        (
            &["--from", "<>", "--to", "b@partner.example"],
            "no provider of its route can carry the message",
            "550 5.7.1 <b@partner.example>: no provider of route \"notifications\" takes mail with the null reverse-path <>",
            "1. ses.eu  CANNOT: no null sender;",
        ),
        (
            &["--from", "<>", "--to", "b@y.example"],
            "no route matches",
            "550 5.4.4 <b@y.example>: no route matches this sender and recipient",
            "passed over  notifications: when.recipient_domain is partner.example",
        ),
    ] {
        let (code, out, err) = explain(&path, arguments);
        assert_eq!((code, err.as_str()), (69, ""), "{out}");
        let refused = out.lines().find(|line| line.contains("REFUSED")).unwrap();
        assert!(refused.contains(reason), "{out}");
        assert!(out.contains(&format!("\nreply        {reply}")) && out.contains(way), "{arguments:?}\n{out}");
    }
}

#[cfg(feature = "ses")]
#[test]
fn one_refused_recipient_among_others_is_told_by_the_exit_code() {
    let (_directory, path) = config(CONFIG);
    let (code, out, _) = explain(&path, &["--from", "<>", "--to", "a@corp.example", "--to", "b@y.example"]);
    assert_eq!(code, 69);
    assert!(out.contains("<a@corp.example> accepted\n") && out.contains("<b@y.example> REFUSED"), "{out}");
}

#[cfg(feature = "ses")]
#[test]
fn json_has_the_same_for_machines() {
    let (_directory, path) = config(CONFIG);
    let (code, out, _) = explain(&path, &["--from", "a@x.example", "--to", "b@y.example", "--client", "::ffff:10.9.0.1", "--json"]);
    let mut found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    let tolerance = found["standing"].as_object_mut().unwrap().remove("tolerance").unwrap();
    for key in ["bare_newline", "long_lines", "commands", "missing_fields"] {
        assert!(tolerance[key].is_string(), "{tolerance}");
    }
    let expected = json!({
        "accepted": true,
        "listener": "127.0.0.1:0",
        "client": { "address": "10.9.0.1", "encrypted": false, "login": null },
        "standing": {
            "application": null,
            "recognised_by": "trusted_network",
            "network": "10.0.0.0/8",
            "setting": "access.trusted_networks",
            "max_message_size": 41_943_040,
            "max_recipients": 1000,
        },
        "message": { "from": "a@x.example", "size": null, "smtputf8": false, "signature": null },
        "recipients": [{
            "to": "b@y.example",
            "accepted": true,
            "reply": "250 2.1.5 Ok",
            "reason": null,
            "passed_over": [
                { "route": "colleagues", "condition": "when.recipient_domain", "value": "corp.example, *.corp.example" },
            ],
            "route": {
                "name": "lab",
                "spill": true,
                "raw_only": false,
                "in_doubt": "retry",
                "candidates": [
                    {
                        "provider": "ses.eu",
                        "destination": "https://email.eu-west-1.amazonaws.com (eu-west-1, access key AKIAIOSFODNN7EXAMPLE)",
                        "max_message_size": 30_000_000,
                        "smtputf8": false,
                        "null_sender": false,
                        "raw": true,
                        "max_recipients": 50,
                        "obstacle": null,
                        "breaks": null,
                        "calls": 1,
                        "rewrite": null,
                        "limits": { "rate": null, "quota": "50000 recipients/day", "concurrency": null },
                    },
                    {
                        "provider": "smarthost.internal",
                        "destination": "smtp://mail.corp.example:25",
                        "max_message_size": null,
                        "smtputf8": true,
                        "null_sender": true,
                        "raw": true,
                        "max_recipients": 100,
                        "obstacle": null,
                        "breaks": null,
                        "calls": 1,
                        "rewrite": null,
                        "limits": { "rate": "30/min", "quota": null, "concurrency": 3 },
                    },
                ],
            },
            "limits": [{ "setting": "limits.sending_domain.default", "of": "x.example", "rate": "50/s" }],
        }],
    });
    assert_eq!(found, expected, "{found:#}");

    let (code, out, _) = explain(&path, &["--from", "a@x.example", "--to", "b@y.example", "--client", "2001:db8::1", "--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &found["accepted"], &found["standing"]["recognised_by"]), (69, &json!(false), &json!(null)));
    assert_eq!(found["recipients"][0]["route"]["name"], "world");
    assert_eq!(found["recipients"][0]["limits"][0]["setting"], "route.limits.per_sending_domain");
}

#[test]
fn wrong_questions_and_wrong_configs_have_their_exit_codes() {
    let (_directory, path) =
        config("[[listener]]\nbind = \"127.0.0.1:2525\"\n[provider.smarthost.x]\nhost = \"mail.corp.example\"\ntls = \"off\"\n");
    let whole = ["--from", "a@x.example", "--to", "b@y.example"];
    for (arguments, code, expected) in [
        (&["--from", "a@x.example"][..], 64, "--to"),
        (&["--to", "b@y.example"], 64, "--from"),
        (&["--from", "a b@x", "--to", "b@y.example"], 64, "local part"),
        (&[&whole[..], &["--client", "printer"]].concat(), 64, "--client"),
        (&[&whole[..], &["--size", "3 stone"]].concat(), 64, "expected a size such as"),
        (&[&whole[..], &["--app", "erp"]].concat(), 64, "--app erp: this config has none"),
        (&[&whole[..], &["--tls"]].concat(), 64, "--tls: the listener 127.0.0.1:2525 has no TLS"),
        (&[&whole[..], &["--listener", "127.0.0.1:25"]].concat(), 64, "no such listener, only 127.0.0.1:2525"),
        (&[&whole[..], &["--listener", "127.0.0.1:2525"]].concat(), 0, ""),
    ] {
        let (found, out, err) = explain(&path, arguments);
        assert_eq!((found, err.contains(expected)), (code, true), "{arguments:?}\n{out}{err}");
    }
    std::fs::write(&path, "[provider.smarthost.x]\nhots = \"mail.corp.example\"\n").unwrap();
    let (code, out, err) = explain(&path, &whole);
    assert_eq!((code, out.as_str()), (78, ""));
    assert!(err.contains("unknown key `hots`"), "{err}");
}

#[cfg(feature = "ses")]
#[tokio::test]
async fn what_it_says_is_what_a_session_says() {
    // Once for a client that is trusted, and once for a stranger.
    for text in [CONFIG.to_owned(), CONFIG.replace("\"127.0.0.0/8\", ", "")] {
        says_the_same(&text).await;
    }
}

#[cfg(feature = "ses")]
async fn says_the_same(text: &str) {
    let (directory, path) = config(text);
    let text = std::fs::read_to_string(&path).unwrap();
    let running = Postrider::start(directory.path(), &text);
    for (from, to, size) in [
        ("a@x.example", "b@y.example", ""),
        ("a@x.example", "b@y.example", "29MB"),
        ("a@x.example", "b@y.example", "35MiB"),
        ("a@x.example", "b@corp.example", "35MiB"),
        ("a@x.example", "b@corp.example", "41MiB"),
        ("\u{fc}@x.example", "b@y.example", ""),
        ("a@x.example", "\u{fc}@y.example", ""),
        ("a@x.example", "\u{fc}@corp.example", ""),
        ("", "b@y.example", ""),
        ("", "b@partner.example", ""),
        ("", "b@corp.example", ""),
    ] {
        let mut arguments = vec!["--json", "--to", to, "--from", if from.is_empty() { "<>" } else { from }];
        if !size.is_empty() {
            arguments.extend(["--size", size]);
        }
        let (code, out, _) = explain(&path, &arguments);
        let explained: Value = serde_json::from_str(&out).unwrap();

        let mut parameters = String::new();
        if let Ok(postrider_providers::settings::Size(octets)) = size.parse() {
            parameters = format!(" SIZE={octets}");
        }
        if !from.is_ascii() || !to.is_ascii() {
            parameters.push_str(" SMTPUTF8");
        }
        let mut client = Client::connect(running.address()).await.unwrap();
        let mut reply = client.command(&format!("MAIL FROM:<{from}>{parameters}")).await.unwrap();
        if reply.starts_with("250") {
            reply = client.command(&format!("RCPT TO:<{to}>")).await.unwrap();
        }
        assert_eq!(explained["recipients"][0]["reply"], json!(reply), "{from} {to} {size}");
        assert_eq!(code == 0, reply.starts_with("250"), "{from} {to} {size}");
    }
}

/// Applications, and routes for one of them and for a branch office.
const APPLICATIONS: &str = r#"
[[listener]]
bind = "127.0.0.1:2525"

[[listener]]
bind = "127.0.0.1:2526"
auth_without_tls = true

[access]
trusted_networks = ["127.0.0.0/8", "10.0.0.0/8"]

[app.erp]
networks = ["10.1.2.0/24"]
senders = ["@erp.example"]
rate = "600/min"
max_message_size = "10MiB"

[app.crm]
networks = ["10.1.3.0/24"]
rate = "100 recipients/hour"

[provider.smarthost.office]
host = "mail.corp.example"
tls = "off"

[[route]]
name = "erp"
when = { app = ["erp"] }
providers = ["smarthost.office"]

[[route]]
name = "branch"
when = { client = "10.7.0.0/16" }
providers = ["smarthost.office"]

[[route]]
name = "default"
providers = ["smarthost.office"]
"#;

#[test]
fn an_application_is_named_with_what_it_was_known_by_its_rule_and_its_rate() {
    let (_directory, path) = config(APPLICATIONS);
    let to = ["--to", "b@y.example"];
    for (arguments, code, expected) in [
        (
            &["--client", "10.1.2.3", "--from", "a@erp.example"][..],
            0,
            &[
                "known as     application erp, by its address in the network 10.1.2.0/24 (app.erp.networks)",
                "may send     10MiB, 1000 recipients",
                "takes        erp;",
                "limit        600/min for erp (app.erp.rate)",
            ][..],
        ),
        (
            &["--client", "10.1.2.3", "--from", "a@crm.example"],
            69,
            &[
                "REFUSED: the application may not use this sender, only @erp.example (app.erp.senders)",
                "reply        553 5.7.1 ",
                "would take   erp;",
            ],
        ),
        (
            &["--client", "10.1.2.3", "--from", "a@erp.example", "--size", "11MiB"],
            69,
            &["REFUSED: the message is larger than 10MiB (app.erp.max_message_size)"],
        ),
        (
            &["--client", "10.7.1.1", "--from", "a@erp.example"],
            0,
            &["known as     a trusted host,", "passed over  erp: when.app is erp", "takes        branch;"],
        ),
        (
            &["--client", "192.0.2.7", "--from", "a@crm.example", "--app", "crm", "--listener", "127.0.0.1:2526"],
            0,
            &[
                "known as     application crm, by its credential (AUTH)",
                "takes        default;",
                "limit        100 recipients/hour for crm (app.crm.rate)",
            ],
        ),
        (&["--from", "a@crm.example", "--app", "crm"], 64, &["nobody can log in at the listener 127.0.0.1:2525"]),
        (&["--from", "a@crm.example", "--app", "hr", "--listener", "127.0.0.1:2526"], 64, &["--app hr: this config has erp, crm"]),
    ] {
        let (found, out, err) = explain(&path, &[&to[..], arguments].concat());
        assert_eq!(found, code, "{arguments:?}\n{out}{err}");
        for expected in expected {
            assert!(out.contains(expected) || err.contains(expected), "{expected}\n{out}{err}");
        }
    }
    let (_, out, _) = explain(&path, &["--client", "10.1.2.3", "--from", "a@erp.example", "--to", "b@y.example", "--json"]);
    let found: Value = serde_json::from_str(&out).unwrap();
    let standing = &found["standing"];
    assert_eq!(
        (&standing["application"], &standing["recognised_by"], &standing["network"], &standing["setting"]),
        (&json!("erp"), &json!("application_network"), &json!("10.1.2.0/24"), &json!("app.erp.networks"))
    );
    assert_eq!(found["recipients"][0]["limits"], json!([{ "setting": "app.erp.rate", "of": "erp", "rate": "600/min" }]));
}

#[test]
fn a_name_of_the_password_file_is_an_application_and_any_other_is_a_mistake() {
    let (directory, path) = config("");
    let names = directory.path().join("names");
    std::fs::write(&names, "scanner:$2y$05$C6UzMDM.H6dfI/f/IKcEeO7.kqzsbXnMRuZsh3hCyaGWPVTd7MqRm\n").unwrap();
    let text = format!(
        "[[listener]]\nbind = \"127.0.0.1:2525\"\nauth_without_tls = true\n[access]\npassword_file = {names:?}\n\
         [provider.smarthost.office]\nhost = \"smtp.example.net\"\n"
    );
    std::fs::write(&path, text).unwrap();
    let message = ["--from", "a@x.example", "--to", "b@y.example", "--app"];
    let (code, out, err) = explain(&path, &[&message[..], &["scanner"]].concat());
    assert!(code == 0 && out.contains("application scanner, by its credential"), "{out}{err}");
    let (code, _, err) = explain(&path, &[&message[..], &["scaner"]].concat());
    assert!(code == 64 && err.contains("--app scaner: this config has none, and its password file has no such name"), "{code} {err}");
}

/// SendGrid before a smart host, another name for each, and routes that differ in what may become of signatures.
const FIELDS: &str = r#"
[[listener]]
bind = "127.0.0.1:2525"

[provider.sendgrid.main]
api_key = "hush"
rewrite = { from = "news@sg.example" }
[provider.smarthost.office]
host = "mail.corp.example"

[[route]]
name = "legal"
when = { sender_domain = "legal.example" }
providers = ["sendgrid.main", "smarthost.office"]
raw_only = true

[[route]]
name = "careless"
when = { sender_domain = "careless.example" }
providers = ["sendgrid.main"]
break_signatures = true

[[route]]
name = "fields"
when = { sender_domain = "fields.example" }
providers = ["sendgrid.main"]

[[route]]
name = "rest"
providers = ["sendgrid.main", "smarthost.office"]
rewrite = { from = "noreply@corp.example", envelope = "bounces@corp.example", except = ["@kept.example"] }
"#;

#[test]
fn each_candidate_is_told_with_what_it_cannot_carry_and_in_whose_name_it_gets_mail() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("postrider.toml");
    std::fs::write(&path, FIELDS).unwrap();
    for (arguments, expected) in [
        (
            &["--from", "a@legal.example"][..],
            &["1. sendgrid.main     CANNOT: takes fields, and the route is raw_only", "2. smarthost.office  can carry it;"][..],
        ),
        (
            &["--from", "a@x.example", "--signed", "smime"],
            &[
                "signed with S/MIME",
                "1. sendgrid.main     CANNOT: would break the signature (S/MIME); From becomes news@sg.example (provider.sendgrid.main.rewrite)",
            ],
        ),
        (
            &["--from", "a@x.example"],
            &[
                "2. smarthost.office  can carry it; From becomes noreply@corp.example (route.rewrite); envelope sender becomes bounces@corp.example (route.rewrite)",
            ],
        ),
        (&["--from", "a@kept.example"], &["2. smarthost.office  can carry it; smtp://mail.corp.example:25"]),
        (&["--from", "a@careless.example", "--signed", "dkim"], &["1. sendgrid.main  can carry it, and breaks the signature (DKIM);"]),
        (
            &["--from", "a@fields.example", "--signed", "pgp"],
            &["REFUSED: no provider of its route would keep the signature", "554 5.6.2 <b@y.example>: the message is signed with PGP/MIME"],
        ),
    ] {
        let (code, out, _) = explain(&path, &[&["--to", "b@y.example"], arguments].concat());
        assert_eq!(code == 0, !out.contains("REFUSED"), "{out}");
        for expected in expected {
            assert!(out.contains(expected), "{expected:?} is not in\n{out}");
        }
    }
    let many: Vec<String> = (0..1001).map(|number| format!("r{number}@y.example")).collect();
    let mut arguments = vec!["--from", "a@fields.example", "--json"];
    arguments.extend(many.iter().flat_map(|to| ["--to", to.as_str()]));
    let (_, out, _) = explain(&path, &arguments);
    let said: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(said["recipients"][0]["route"]["candidates"][0]["calls"], 2, "of a thousand recipients at most");
}
