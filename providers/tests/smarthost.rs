//! The smart host client against a scripted host, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use std::sync::Arc;
use std::time::Duration;

use postrider_providers::conformance::smart_host::{Action, FakeSmartHost, Log, Script, Step};
use postrider_providers::conformance::{address, attempt, content};
use postrider_providers::contract::{
    Attempt, Body, BodyType, Delivery, DynProvider, Failure, Notify, OriginalRecipient, Outcome, Probed, ProviderName, RecipientIndex,
    Returned, ReversePath,
};
use postrider_providers::registry::{Context, Settings};
use postrider_providers::smarthost;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

/// A provider for `host`, with `settings` on top of clear text.
fn provider(host: &FakeSmartHost, settings: Value) -> Arc<dyn DynProvider> {
    let mut config = json!({ "host": "127.0.0.1", "port": host.address.port(), "tls": "off" });
    config.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    let config: smarthost::Config = serde_json::from_value(config).unwrap();
    let context = Context::new("relay.example").unwrap();
    config.connect(ProviderName::new("smarthost", "test"), &context).unwrap().provider
}

async fn deliver(script: Script, attempt: &Attempt) -> (Delivery, Log) {
    let host = FakeSmartHost::start(script).await.unwrap();
    let delivery = provider(&host, json!({})).deliver(attempt.clone()).await;
    (delivery, host.log())
}

/// The verdict in short: the failure's name, or the outcomes' names in order.
fn verdict(delivery: &Delivery) -> String {
    match delivery {
        Err(failure) => failure.name().to_owned(),
        Ok(report) => report.outcomes.iter().map(|(_, outcome)| outcome.name()).collect::<Vec<_>>().join(" "),
    }
}

fn lines(log: &Log) -> Vec<&str> {
    log.commands.iter().map(|command| command.line.as_str()).collect()
}

/// `attempt` with its message changed.
fn altered(attempt: &Attempt, change: impl FnOnce(&mut postrider_providers::contract::Message)) -> Attempt {
    let mut message = (*attempt.message).clone();
    change(&mut message);
    Attempt { message: Arc::new(message), ..attempt.clone() }
}

const EIGHT_BIT: &[u8] = b"Subject: x\r\n\r\nc\xc3\xa9\r\n";

fn small() -> Attempt {
    attempt(&content(300), PATIENCE)
}

#[tokio::test]
async fn odd_but_legal_messages_arrive_byte_for_byte() {
    let mut large = Vec::new();
    while large.len() < 5 << 20 {
        large.extend_from_slice(b".line with a dot\r\n..two\r\nand none\r\n\r\n");
    }
    let corpus: Vec<(&str, Vec<u8>)> = vec![
        ("plain", b"Subject: x\r\n\r\nhello\r\n".to_vec()),
        ("8-bit", b"Subject: x\r\n\r\n\xe4\xf6\xfc \xff\x00\x80\r\n".to_vec()),
        ("leading dots", b".\r\n..\r\n...\r\n.a\r\n\r\n.\r\n".to_vec()),
        ("only a dot line", b".\r\n".to_vec()),
        ("empty", Vec::new()),
        ("only line ends", b"\r\n\r\n".to_vec()),
        ("long lines", format!("Subject: x\r\n\r\n{}\r\n", ".".repeat(70_000)).into_bytes()),
        ("folded", b"Subject: a\r\n\tb\r\n c\r\n\r\n".to_vec()),
        ("5 MB", large),
    ];
    for pipelining in [true, false] {
        let script = if pipelining { Script::modern() } else { Script::offering(&["8BITMIME"]) };
        let host = FakeSmartHost::start(script).await.unwrap();
        let provider = provider(&host, json!({}));
        let directory = tempfile::tempdir().unwrap();
        for (name, bytes) in &corpus {
            let inline = attempt(bytes, PATIENCE);
            let path = directory.path().join("body");
            std::fs::write(&path, bytes).unwrap();
            let file = altered(&inline, |message| message.body = Body::File { path, len: bytes.len() as u64 });
            for (kind, attempt) in [("inline", inline), ("file", file)] {
                let delivery = provider.deliver(attempt).await;
                assert_eq!(verdict(&delivery), "relayed relayed relayed", "{name}, {kind}: {delivery:?}");
                let received = host.log().messages.pop().unwrap();
                assert!(received.content == *bytes, "{name}, {kind}: the content was changed");
                assert_eq!(received.recipients, ["first@a.example", "refused@b.example", "Third+Tag@C.example"]);
            }
        }
        assert_eq!(host.log().connections, 1, "one connection carries them all");
    }
}

#[tokio::test]
async fn a_message_without_a_final_line_end_gets_one() {
    let (delivery, log) = deliver(Script::modern(), &attempt(b"Subject: x\r\n\r\nno end", PATIENCE)).await;
    assert_eq!(verdict(&delivery), "relayed relayed relayed");
    assert_eq!(log.messages[0].content, b"Subject: x\r\n\r\nno end\r\n");
}

#[tokio::test]
async fn the_envelope_goes_in_one_write_only_where_the_host_allows_it() {
    let (_, log) = deliver(Script::modern(), &small()).await;
    let size = content(300).len();
    let mail = format!("MAIL FROM:<sender@app.example> SIZE={size}");
    let rcpt = ["RCPT TO:<first@a.example>", "RCPT TO:<refused@b.example>", "RCPT TO:<Third+Tag@C.example>"];
    assert_eq!(lines(&log), ["EHLO relay.example", &mail, rcpt[0], rcpt[1], rcpt[2], "DATA"]);
    let pipelined: Vec<bool> = log.commands.iter().map(|command| command.pipelined).collect();
    assert_eq!(pipelined, [false, true, true, true, true, false]);

    let (_, log) = deliver(Script::default(), &small()).await;
    assert_eq!(lines(&log), ["EHLO relay.example", "MAIL FROM:<sender@app.example>", rcpt[0], rcpt[1], rcpt[2], "DATA"]);
    assert!(log.commands.iter().all(|command| !command.pipelined), "{log:?}");
}

#[tokio::test]
async fn what_the_sender_asked_about_notifications_goes_to_a_host_that_offers_dsn_and_to_no_other() {
    let asking = altered(&small(), |message| {
        message.envelope.returned = Some(Returned::Headers);
        message.envelope.envelope_id = Some("QQ 314".into());
        let recipient = |address: &str| message.envelope.recipients.iter().position(|one| one.address.as_str() == address).unwrap();
        let (first, second) = (recipient("first@a.example"), recipient("refused@b.example"));
        message.envelope.recipients[first].notify = Notify::parse("SUCCESS,DELAY");
        message.envelope.recipients[second].original = OriginalRecipient::parse("rfc822;old+2Bname@b.example").ok();
    });
    let remote_and_dsn = |delivery: &Delivery| match &delivery.as_ref().unwrap().outcomes[0].1 {
        Outcome::Relayed(receipt) => (receipt.remote.clone().unwrap().to_string(), receipt.dsn),
        other => panic!("{other:?}"),
    };
    for extensions in [&["PIPELINING", "DSN"][..], &["dsn"]] {
        let (delivery, log) = deliver(Script::offering(extensions), &asking).await;
        assert_eq!(verdict(&delivery), "relayed relayed relayed");
        assert_eq!(remote_and_dsn(&delivery), ("[127.0.0.1]".to_owned(), true));
        let expected = [
            "MAIL FROM:<sender@app.example> RET=HDRS ENVID=QQ+20314",
            "RCPT TO:<first@a.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first@a.example",
            "RCPT TO:<refused@b.example> ORCPT=rfc822;old+2Bname@b.example",
            "RCPT TO:<Third+Tag@C.example>",
        ];
        assert_eq!(lines(&log)[1..5], expected);
        assert_eq!(log.messages[0].recipients, ["first@a.example", "refused@b.example", "Third+Tag@C.example"]);
    }
    let (delivery, log) = deliver(Script::default(), &asking).await;
    assert_eq!(remote_and_dsn(&delivery), ("[127.0.0.1]".to_owned(), false));
    assert!(!log.commands.iter().any(|command| command.line.contains('=')), "{log:?}");
}

#[tokio::test]
async fn a_reply_that_becomes_a_notification_names_the_host_that_gave_it() {
    let refusing = Script::modern().on_containing(Step::Rcpt, "first@a.example", Action::reply("550 5.1.1 who?"));
    let (delivery, _) = deliver(refusing, &small()).await;
    let Outcome::Bounced(diagnostic) = &delivery.as_ref().unwrap().outcomes[0].1 else { panic!("{delivery:?}") };
    assert_eq!(diagnostic.remote.as_deref(), Some("[127.0.0.1]"));
    let (delivery, _) = deliver(Script::modern().on(Step::FinalDot, Action::reply("554 5.6.0 no")), &small()).await;
    assert_eq!(delivery.unwrap_err().diagnostic().remote.as_deref(), Some("[127.0.0.1]"));
    let (delivery, _) = deliver(Script::modern().on(Step::Greeting, Action::Close), &small()).await;
    assert_eq!(delivery.unwrap_err().diagnostic().remote, None, "nobody said anything");
}

#[tokio::test]
async fn a_host_that_knows_no_ehlo_is_greeted_with_helo() {
    for code in ["500 5.5.1 what?", "502 5.5.1 not implemented"] {
        let (delivery, log) = deliver(Script::modern().on(Step::Ehlo, Action::reply(code)), &small()).await;
        assert_eq!(verdict(&delivery), "relayed relayed relayed");
        assert_eq!(lines(&log)[..3], ["EHLO relay.example", "HELO relay.example", "MAIL FROM:<sender@app.example>"]);
    }
}

#[tokio::test]
async fn each_refusal_gets_the_verdict_of_its_stage() {
    let close = |text: &str| Action::ReplyAndClose(text.to_owned());
    let first = "first@a.example";
    let cases = [
        ("greeting 421", Script::modern().on(Step::Greeting, close("421 4.3.2 down")), "unavailable"),
        ("no SMTP", Script::modern().on(Step::Greeting, Action::reply("SSH-2.0-OpenSSH")), "unavailable"),
        ("closed at once", Script::modern().on(Step::Greeting, Action::Close), "unavailable"),
        ("MAIL 421", Script::modern().on(Step::Mail, close("421 4.3.2 down")), "unavailable"),
        ("MAIL 450", Script::modern().on(Step::Mail, Action::reply("450 4.7.1 grey")), "deferred deferred deferred"),
        ("MAIL 552", Script::modern().on(Step::Mail, Action::reply("552 5.3.4 size")), "unsuitable"),
        ("one 4yz", Script::modern().on_containing(Step::Rcpt, first, Action::reply("450 4.2.1 busy")), "deferred relayed relayed"),
        ("one 5yz", Script::modern().on_containing(Step::Rcpt, first, Action::reply("550 5.1.1 who?")), "bounced relayed relayed"),
        ("one 421", Script::modern().on_containing(Step::Rcpt, "Third", close("421 4.3.2 down")), "unavailable"),
        ("all 550", Script::modern().on(Step::Rcpt, Action::reply("550 5.1.1 who?")), "bounced bounced bounced"),
        ("all relay", Script::modern().on(Step::Rcpt, Action::reply("554 5.7.1 Relay access denied")), "sender_refused"),
        (
            "one relay",
            Script::modern().on_containing(Step::Rcpt, first, Action::reply("554 5.7.1 Relay access denied")),
            "deferred relayed relayed",
        ),
        ("DATA 451", Script::modern().on(Step::Data, Action::reply("451 4.3.0 later")), "deferred deferred deferred"),
        ("DATA 421", Script::modern().on(Step::Data, close("421 4.3.0 down")), "unavailable"),
        ("final 451", Script::modern().on(Step::FinalDot, Action::reply("451 4.3.0 later")), "deferred deferred deferred"),
        ("final 421", Script::modern().on(Step::FinalDot, close("421 4.3.0 down")), "unavailable"),
        ("final 554", Script::modern().on(Step::FinalDot, Action::reply("554 5.7.1 spam")), "rejected"),
        (
            "one refused, then 554",
            Script::modern()
                .on_containing(Step::Rcpt, first, Action::reply("450 4.2.1 busy"))
                .on(Step::FinalDot, Action::reply("554 5.7.1 spam")),
            "deferred bounced bounced",
        ),
        (
            "one refused, then lost",
            Script::modern().on_containing(Step::Rcpt, first, Action::reply("550 5.1.1 who?")).on(Step::FinalDot, Action::Close),
            "bounced in_doubt in_doubt",
        ),
    ];
    for (name, script, expected) in cases {
        for pipelining in [true, false] {
            let mut script = script.clone();
            if !pipelining {
                script.extensions.retain(|extension| extension != "PIPELINING");
            }
            let (delivery, log) = deliver(script, &small()).await;
            assert_eq!(verdict(&delivery), expected, "{name}, pipelining {pipelining}: {delivery:?}");
            let relayed = expected.split(' ').filter(|&outcome| outcome == "relayed").count();
            assert_eq!(log.messages.iter().map(|message| message.recipients.len()).sum::<usize>(), relayed, "{name}");
        }
    }
}

#[tokio::test]
async fn a_host_that_takes_data_for_nobody_gets_an_empty_message_and_stays_in_use() {
    let script = Script::modern().once(Step::Mail, Action::reply("550 5.1.8 no")).once(Step::Data, Action::reply("354 go on, then"));
    let host = FakeSmartHost::start(script).await.unwrap();
    let provider = provider(&host, json!({}));
    let refused = provider.deliver(small()).await;
    assert_eq!(verdict(&refused), "sender_refused");
    assert!(host.log().messages.iter().all(|message| message.recipients.is_empty() && message.content.is_empty()));
    assert_eq!(verdict(&provider.deliver(small()).await), "relayed relayed relayed");
    let log = host.log();
    assert_eq!((log.connections, log.messages.last().unwrap().recipients.len()), (1, 3));
    assert!(lines(&log).contains(&"RSET"), "{log:?}");
}

#[tokio::test]
async fn an_early_answer_ends_the_content_without_a_final_dot() {
    for (reply, expected) in
        [("552 5.3.4 too big", "unsuitable"), ("421 4.3.2 down", "unavailable"), ("451 4.3.0 disk", "deferred deferred deferred")]
    {
        let host = FakeSmartHost::start(Script::modern().on(Step::Content, Action::reply(reply))).await.unwrap();
        let delivery = provider(&host, json!({})).deliver(attempt(&content(20 << 20), PATIENCE)).await;
        assert_eq!(verdict(&delivery), expected, "{delivery:?}");
        let log = host.until(|log| log.closed == 1).await;
        assert!(log.messages.is_empty(), "the host cannot have taken it for complete");
    }
}

#[tokio::test]
async fn what_a_host_cannot_carry_is_not_offered_to_it() {
    let old = || Script::offering(&["SIZE 1000"]);
    let eight_bit = altered(&attempt(EIGHT_BIT, PATIENCE), |message| message.envelope.body_type = BodyType::EightBitMime);
    let declared = altered(&small(), |message| message.envelope.smtputf8 = true);
    let foreign = altered(&small(), |message| message.envelope.reverse_path = ReversePath::Mailbox(address("bücher@app.example")));
    for (attempt, parameter) in [(&eight_bit, " BODY=8BITMIME"), (&declared, " SMTPUTF8"), (&foreign, " SMTPUTF8")] {
        let (delivery, log) = deliver(old(), attempt).await;
        assert!(matches!(&delivery, Err(Failure::Unsuitable(_))), "{delivery:?}");
        assert_eq!(lines(&log), ["EHLO relay.example"]);
        let (delivery, log) = deliver(Script::modern(), attempt).await;
        assert_eq!(verdict(&delivery), "relayed relayed relayed");
        assert!(log.messages[0].mail.ends_with(parameter), "{}", log.messages[0].mail);
    }
    let (delivery, _) = deliver(old(), &attempt(&content(2000), PATIENCE)).await;
    assert!(matches!(&delivery, Err(Failure::Unsuitable(diagnostic)) if diagnostic.text.contains("1000")), "{delivery:?}");
    // No fixed limit (RFC 1870 section 4).
    let (delivery, _) = deliver(Script::offering(&["SIZE 0"]), &small()).await;
    assert_eq!(verdict(&delivery), "relayed relayed relayed");
}

#[tokio::test]
async fn what_a_host_has_offered_is_what_the_provider_can_carry() {
    let host = FakeSmartHost::start(Script::offering(&["SIZE 1000"])).await.unwrap();
    let provider = provider(&host, json!({}));
    let known = || (provider.capabilities().max_message_size(), provider.capabilities().smtputf8);
    assert_eq!(known(), (None, true), "before it was asked");
    assert_eq!(verdict(&provider.deliver(small()).await), "relayed relayed relayed");
    assert_eq!(known(), (Some(1000), false));
}

#[tokio::test]
async fn ascii_that_is_declared_as_8_bit_goes_to_a_host_that_knows_no_such_declaration() {
    let declared = altered(&small(), |message| message.envelope.body_type = BodyType::EightBitMime);
    let (delivery, log) = deliver(Script::offering(&[]), &declared).await;
    assert_eq!(verdict(&delivery), "relayed relayed relayed", "{delivery:?}");
    assert!(!log.messages[0].mail.contains("BODY"), "{}", log.messages[0].mail);
}

#[tokio::test]
async fn a_notification_is_not_lost_because_a_host_knows_no_8_bit_mime() {
    let notification = altered(&attempt(EIGHT_BIT, PATIENCE), |message| {
        message.envelope.reverse_path = ReversePath::Null;
        message.envelope.body_type = BodyType::EightBitMime;
    });
    let (delivery, log) = deliver(Script::offering(&[]), &notification).await;
    assert_eq!(verdict(&delivery), "relayed relayed relayed", "{delivery:?}");
    assert_eq!(log.messages[0].mail, "MAIL FROM:<>");
}

#[tokio::test]
async fn a_notification_goes_out_with_the_null_reverse_path() {
    let notification = altered(&small(), |message| message.envelope.reverse_path = ReversePath::Null);
    let (delivery, log) = deliver(Script::default(), &notification).await;
    assert_eq!((verdict(&delivery).as_str(), log.messages[0].mail.as_str()), ("relayed relayed relayed", "MAIL FROM:<>"));
}

#[tokio::test]
async fn the_receipt_has_the_hosts_own_id() {
    let (delivery, _) = deliver(Script::modern(), &small()).await;
    let (index, outcome) = &delivery.unwrap().outcomes[0];
    let Outcome::Relayed(receipt) = outcome else { panic!("{outcome:?}") };
    assert_eq!(
        (*index, receipt.remote_id.as_deref(), receipt.reply.as_str()),
        (RecipientIndex(0), Some("FAKE0"), "250 2.0.0 Ok: queued as FAKE0")
    );
}

#[tokio::test]
async fn an_idle_connection_that_the_host_has_closed_costs_nothing() {
    for farewell in [Action::ReplyAndClose("421 4.4.2 idle for too long".to_owned()), Action::Close] {
        // Found out only when MAIL is said.
        let script = Script::modern();
        let host = FakeSmartHost::start(script.once(Step::Mail, Action::reply("250 2.1.0 ok")).once(Step::Mail, farewell)).await.unwrap();
        let provider = provider(&host, json!({}));
        for _ in 0..2 {
            assert_eq!(verdict(&provider.deliver(small()).await), "relayed relayed relayed");
        }
        let log = host.log();
        assert_eq!((log.connections, log.messages.len()), (2, 2));
    }
}

#[tokio::test]
async fn a_fresh_connection_that_dies_is_not_tried_again() {
    let (delivery, log) = deliver(Script::modern().once(Step::Mail, Action::Close), &small()).await;
    assert_eq!((verdict(&delivery).as_str(), log.connections), ("unavailable", 1));
}

#[tokio::test]
async fn connections_are_given_up_when_idle_or_worn() {
    let host = FakeSmartHost::start(Script::modern()).await.unwrap();
    let idle = provider(&host, json!({ "idle_timeout": "100ms" }));
    assert_eq!(verdict(&idle.deliver(small()).await), "relayed relayed relayed");
    let log = host.until(|log| log.closed == 1).await;
    assert_eq!(lines(&log).last(), Some(&"QUIT"));

    let host = FakeSmartHost::start(Script::modern()).await.unwrap();
    let worn = provider(&host, json!({ "max_messages_per_connection": 2 }));
    for _ in 0..4 {
        assert_eq!(verdict(&worn.deliver(small()).await), "relayed relayed relayed");
    }
    let log = host.until(|log| log.closed == 2).await;
    assert_eq!((log.connections, log.messages.len()), (2, 4));
}

#[tokio::test]
async fn a_deadline_before_the_final_dot_is_unavailable_and_after_it_in_doubt() {
    for (step, expected) in [(Step::Rcpt, "unavailable"), (Step::FinalDot, "in_doubt in_doubt in_doubt")] {
        let host = FakeSmartHost::start(Script::modern().on(step, Action::Hang)).await.unwrap();
        let delivery = provider(&host, json!({})).deliver(attempt(&content(300), Duration::from_secs(2))).await;
        assert_eq!(verdict(&delivery), expected, "{step:?}");
    }
}

#[tokio::test]
async fn a_probe_goes_as_far_as_auth_and_sends_nothing() {
    let script = Script::offering(&["AUTH PLAIN"]);
    let host = FakeSmartHost::start(script.clone()).await.unwrap();
    let login = json!({ "username": "u", "password": "p" });
    let facts = Probed::default().fact(format!("127.0.0.1:{} answers, in clear text", host.address.port())).fact("logged in as u");
    assert_eq!(provider(&host, login.clone()).probe().await, Ok(facts));
    let log = host.until(|log| log.closed == 1).await;
    assert_eq!(lines(&log), ["EHLO relay.example", "AUTH PLAIN AHUAcA==", "QUIT"]);

    let host = FakeSmartHost::start(script.on(Step::Auth, Action::reply("535 5.7.8 no"))).await.unwrap();
    assert!(matches!(provider(&host, login).probe().await, Err(Failure::Unauthorized(_))));
}

#[tokio::test]
async fn auth_says_what_each_mechanism_needs() {
    let login = json!({ "username": "u", "password": "p" });
    for (offer, expected) in [("AUTH PLAIN LOGIN", &["AUTH PLAIN AHUAcA=="][..]), ("AUTH=LOGIN", &["AUTH LOGIN", "dQ==", "cA=="])] {
        let host = FakeSmartHost::start(Script::offering(&[offer])).await.unwrap();
        assert_eq!(verdict(&provider(&host, login.clone()).deliver(small()).await), "relayed relayed relayed");
        assert_eq!(lines(&host.log())[1..=expected.len()], *expected);
    }
    // A server that wants the response on a line of its own.
    let host = FakeSmartHost::start(Script::offering(&["AUTH PLAIN"]).once(Step::Auth, Action::reply("334 "))).await.unwrap();
    assert_eq!(verdict(&provider(&host, login.clone()).deliver(small()).await), "relayed relayed relayed");
    assert_eq!(lines(&host.log())[1..3], ["AUTH PLAIN AHUAcA==", "AHUAcA=="]);

    for (script, expected) in [
        (Script::offering(&[]), "unauthorized"),
        (Script::offering(&["AUTH CRAM-MD5"]), "unauthorized"),
        (Script::offering(&["AUTH PLAIN"]).on(Step::Auth, Action::reply("535 5.7.8 wrong")), "unauthorized"),
        (Script::offering(&["AUTH PLAIN"]).on(Step::Auth, Action::reply("454 4.7.0 directory down")), "unavailable"),
    ] {
        let host = FakeSmartHost::start(script).await.unwrap();
        assert_eq!(verdict(&provider(&host, login.clone()).deliver(small()).await), expected);
    }
}

#[tokio::test]
async fn a_password_never_travels_in_clear_text_unless_that_was_written() {
    for settings in [
        json!({ "tls": "opportunistic", "username": "u", "password": "p" }),
        json!({ "tls": null, "username": "u", "password": "p" }),
        json!({ "tls": "starttls", "username": "u", "password": "p" }),
    ] {
        let host = FakeSmartHost::start(Script::offering(&["AUTH PLAIN"])).await.unwrap();
        let delivery = provider(&host, settings.clone()).deliver(small()).await;
        assert!(delivery.is_err(), "{settings}");
        assert!(!lines(&host.log()).iter().any(|line| line.starts_with("AUTH")), "{settings}");
    }
}

mod tls {
    use std::path::PathBuf;

    use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    struct Authority {
        directory: tempfile::TempDir,
        server: Arc<rustls::ServerConfig>,
    }

    impl Authority {
        /// A certificate for `name`, which is its own authority.
        fn new(name: &str) -> Self {
            let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            let directory = tempfile::tempdir().unwrap();
            std::fs::write(directory.path().join("ca.pem"), certified.cert.pem()).unwrap();
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
            let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let server = rustls::ServerConfig::builder_with_provider(crypto)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certified.cert.der().clone()], key)
                .unwrap();
            Self { directory, server: Arc::new(server) }
        }

        fn ca_file(&self) -> PathBuf {
            self.directory.path().join("ca.pem")
        }

        fn script(&self, implicit: bool) -> Script {
            let mut script = Script::offering(&["PIPELINING", "STARTTLS", "AUTH PLAIN"]);
            script.tls = Some(self.server.clone());
            script.implicit_tls = implicit;
            script
        }
    }

    #[tokio::test]
    async fn starttls_and_implicit_tls_carry_mail_and_password() {
        let authority = Authority::new("127.0.0.1");
        for (mode, implicit) in [("starttls", false), ("implicit", true)] {
            let host = FakeSmartHost::start(authority.script(implicit)).await.unwrap();
            let settings = json!({ "tls": mode, "ca_file": authority.ca_file(), "username": "u", "password": "p" });
            let provider = provider(&host, settings);
            for _ in 0..2 {
                let delivery = provider.deliver(attempt(&content(1 << 20), PATIENCE)).await;
                assert_eq!(verdict(&delivery), "relayed relayed relayed", "{mode}: {delivery:?}");
            }
            let log = host.log();
            assert!(log.messages.iter().all(|message| message.encrypted && message.content == content(1 << 20)));
            assert_eq!(log.connections, 1);
            let ehlos = lines(&log).iter().filter(|line| line.starts_with("EHLO")).count();
            assert_eq!(ehlos, if implicit { 1 } else { 2 }, "EHLO is said again under TLS");
        }
    }

    #[tokio::test]
    async fn a_certificate_for_another_name_or_from_nowhere_is_refused() {
        let other = Authority::new("other.example");
        let right = Authority::new("127.0.0.1");
        for (authority, trusted) in [(&other, json!(other.ca_file())), (&right, json!(null))] {
            for (mode, implicit) in [("starttls", false), ("implicit", true)] {
                let host = FakeSmartHost::start(authority.script(implicit)).await.unwrap();
                let settings = json!({ "tls": mode, "ca_file": trusted, "username": "u", "password": "p" });
                let delivery = provider(&host, settings).deliver(small()).await;
                assert!(matches!(&delivery, Err(Failure::Unavailable(diagnostic)) if diagnostic.during == "TLS"), "{mode}: {delivery:?}");
                assert!(!lines(&host.log()).iter().any(|line| line.starts_with("MAIL") || line.starts_with("AUTH")));
            }
        }
    }

    #[tokio::test]
    async fn opportunistic_tls_takes_any_certificate_and_none() {
        let authority = Authority::new("other.example");
        let host = FakeSmartHost::start(authority.script(false)).await.unwrap();
        let delivery = provider(&host, json!({ "tls": "opportunistic" })).deliver(small()).await;
        assert_eq!((verdict(&delivery).as_str(), host.log().messages[0].encrypted), ("relayed relayed relayed", true));

        for script in [Script::modern(), authority.script(false).on(Step::Starttls, Action::reply("454 4.7.0 not now"))] {
            let host = FakeSmartHost::start(script).await.unwrap();
            let delivery = provider(&host, json!({ "tls": "opportunistic" })).deliver(small()).await;
            assert_eq!((verdict(&delivery).as_str(), host.log().messages[0].encrypted), ("relayed relayed relayed", false));
        }
    }

    #[tokio::test]
    async fn starttls_that_is_missing_or_refused_is_never_done_without() {
        let authority = Authority::new("127.0.0.1");
        for script in [Script::modern(), authority.script(false).on(Step::Starttls, Action::reply("454 4.7.0 not now"))] {
            let host = FakeSmartHost::start(script).await.unwrap();
            let settings = json!({ "tls": "starttls", "ca_file": authority.ca_file() });
            assert_eq!(verdict(&provider(&host, settings).deliver(small()).await), "unavailable");
            assert!(!lines(&host.log()).iter().any(|line| line.starts_with("MAIL")));
        }
    }

    #[tokio::test]
    async fn what_was_said_in_clear_text_behind_starttls_is_not_heard_under_tls() {
        let authority = Authority::new("127.0.0.1");
        let injected = "220 go ahead\r\n250-injected\r\n250 PIPELINING";
        let host = FakeSmartHost::start(authority.script(false).on(Step::Starttls, Action::reply(injected))).await.unwrap();
        let settings = json!({ "tls": "starttls", "ca_file": authority.ca_file() });
        let delivery = provider(&host, settings).deliver(small()).await;
        // The bytes arrive with the reply and are forgotten, or after it and break the handshake.
        match verdict(&delivery).as_str() {
            "relayed relayed relayed" => assert!(host.log().messages[0].encrypted),
            other => assert_eq!(other, "unavailable"),
        }
    }
}

#[tokio::test]
async fn a_host_that_repeats_the_command_it_refuses_does_not_give_the_password_away() {
    const ECHO: &str = "535 5.7.8 wrong: AUTH PLAIN AHUAaHVudGVyMnNlY3JldA==";
    let host = FakeSmartHost::start(Script::offering(&["AUTH PLAIN"]).on(Step::Auth, Action::reply(ECHO))).await.unwrap();
    let login = json!({ "username": "u", "password": "hunter2secret" });
    let Err(Failure::Unauthorized(diagnostic)) = provider(&host, login).probe().await else { panic!("it was refused") };
    assert_eq!(diagnostic.text, "5.7.8 wrong: AUTH PLAIN ***");
}
