//! The alert rules and the dashboard, against a gateway that is scraped.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;

use postrider::sandbox::{SandboxSmarthost, SmarthostMode, SmarthostSettings};
use postrider::spool::Spool as _;
use support::client::{message, send};
use support::{client, eventually, gateway, run, server, smarthost};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/monitoring").join(name)
}

/// The metrics that a text names.
fn named(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("postrider_")).map(str::to_owned).collect()
}

/// The same in the older text format, the only one that `promtool check metrics` knows: there, what is said of
/// a counter has its whole name, and no comment ends anything.
fn older(scrape: &str) -> String {
    let counters: Vec<&str> = scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::new();
    for line in scrape.lines().filter(|line| *line != "# EOF" && !line.starts_with("# UNIT ")) {
        let mut words: Vec<&str> = line.splitn(4, ' ').collect();
        let whole = format!("{}_total", words.get(2).copied().unwrap_or_default());
        if line.starts_with("# ") && counters.contains(&words[2]) {
            words[2] = &whole;
        }
        text.push_str(&words.join(" "));
        text.push('\n');
    }
    text
}

async fn promtool(arguments: &[&str], input: &str) -> String {
    let output = run(client("promtool", arguments), input).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

#[tokio::test]
async fn the_rules_are_sound_and_fire_when_they_should() {
    promtool(&["check", "rules", file("alerts.yml").to_str().unwrap()], "").await;
    promtool(&["test", "rules", file("alerts.test.yml").to_str().unwrap()], "").await;
}

#[tokio::test]
async fn every_metric_that_is_named_is_there_and_well_formed() {
    let directory = tempfile::tempdir().unwrap();
    let host = SandboxSmarthost::start(SmarthostSettings::default()).await.unwrap();
    let key = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    let (certificate, private_key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&certificate, key.cert.pem()).unwrap();
    std::fs::write(&private_key, key.signing_key.serialize_pem()).unwrap();
    let tls = format!("tls = \"starttls\"\ncertificate = {certificate:?}\nprivate_key = {private_key:?}\n");
    let params = || {
        let mut params = rcgen::CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2061, 4, 2);
        params
    };
    let known_by = rcgen::KeyPair::generate().unwrap();
    let (shown, shown_key) = (directory.path().join("shown.pem"), directory.path().join("shown.key"));
    std::fs::write(&shown, params().self_signed(&known_by).unwrap().pem()).unwrap();
    std::fs::write(&shown_key, known_by.serialize_pem()).unwrap();
    let quota = "[provider.smarthost.one.limits]\nquota = \"5/hour\"\n".to_owned();
    let connector = format!(
        "[provider.office365_connector.tenant]\nhost = \"tenant.mail.example\"\ncertificate = {shown:?}\nprivate_key = {shown_key:?}\n"
    );
    // Nothing can be written there, so that what happens waits in the journal.
    std::fs::create_dir(directory.path().join("history.db")).unwrap();
    let route = "[[route]]\nname = \"default\"\nproviders = [\"smarthost.one\"]\n[admin]\nbind = \"127.0.0.1:0\"\n";
    let config = [server(directory.path()), tls, smarthost("one", host.address().port()), quota, connector, route.to_owned()].concat();
    let gateway = gateway(&config).await;
    send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message("one")).await;
    eventually("it is delivered", async || gateway.counts().await.unwrap().messages == 0).await;
    // Another one waits, so that there is a lane.
    host.set_mode(SmarthostMode::Down).await;
    send(gateway.addresses()[0], "a@corp.example", &["b@example.net"], &message("two")).await;
    eventually("both are in the journal", async || gateway.queue().spool().journal_length().await.unwrap() == 2).await;

    let address = gateway.admin_address().unwrap();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET /metrics HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, scrape) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    promtool(&["check", "metrics"], &older(scrape)).await;
    let ends = rcgen::date_time_ymd(2061, 4, 2).unix_timestamp();
    for (meter, value) in [
        // Two of five are used: a provider that cannot be reached was asked as well.
        ("postrider_limit_left{name=\"quota of smarthost.one\"}", "3.0".to_owned()),
        ("postrider_credential_expires_timestamp_seconds{name=\"office365_connector.tenant\"}", format!("{ends}.0")),
        ("postrider_journal_records", "2".to_owned()),
        ("postrider_config_last_reload_successful", "1".to_owned()),
        ("postrider_config_generation", "1".to_owned()),
    ] {
        let line = format!("{meter} {value}");
        assert!(scrape.lines().any(|found| found == line), "{line}\n{scrape}");
    }
    let there = named(scrape);
    for source in ["alerts.yml", "dashboard.json"] {
        let wanted = named(&std::fs::read_to_string(file(source)).unwrap());
        assert!(wanted.len() > 5, "{source}: {wanted:?}");
        let missing: Vec<_> = wanted.difference(&there).collect();
        assert!(missing.is_empty(), "{source} names what no scrape has: {missing:?}\n{scrape}");
    }
    gateway.drain().await;
}
