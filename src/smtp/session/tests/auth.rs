//! Dialogues with AUTH in them, and who may send what after it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use postrider_providers::contract::Priority;

use super::*;
use crate::config::{ListenerTls, PasswordHash};

/// `hunter2`; bcrypt's least cost, to be quick.
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

const STRANGER: &str = "192.0.2.1";

fn erp() -> Application {
    Application {
        passwords: vec![PasswordHash::parse(HASH).unwrap()],
        senders: vec!["@erp.example".parse().unwrap()],
        ..Application::named("erp".into())
    }
}

/// AUTH is offered without TLS to everybody.
fn door(change: impl FnOnce(&mut Setup)) -> Gate {
    let with_auth = |setup: &mut Setup| {
        setup.listener.auth_without_tls = true;
        setup.applications = vec![erp()];
        change(setup);
    };
    gate_with(with_auth, When::default())
}

fn plain(authzid: &str, name: &str, password: &str) -> String {
    BASE64.encode(format!("{authzid}\0{name}\0{password}"))
}

fn base64(text: &str) -> String {
    BASE64.encode(text)
}

/// The codes after the greeting and the answer to EHLO.
async fn after_ehlo(gate: &Gate, client: &str, lines: &[&str]) -> Vec<String> {
    let replies = gate.say_from(client, format!("EHLO x\r\n{}\r\nQUIT\r\n", lines.join("\r\n"))).await;
    replies.into_iter().filter(|line| line.as_bytes().get(3) == Some(&b' ')).skip(2).collect()
}

fn only_codes(replies: &[String]) -> Vec<&str> {
    replies.iter().map(|line| &line[..3]).collect()
}

#[tokio::test]
async fn an_application_that_may_says_how_urgent_its_mail_is_and_no_other() {
    let data = "DATA\r\nMessage-ID: <7@erp.example>\r\nX-Postrider-Priority: high\r\n\r\nx\r\n.";
    for (may_set_priority, expected) in [(true, Some(Priority::High)), (false, None)] {
        let gate = door(|setup| setup.applications = vec![Application { may_set_priority, ..erp() }]);
        let login = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
        let lines = [&login, "MAIL FROM:<a@erp.example>", "RCPT TO:<c@d.example>", data];
        let replies = after_ehlo(&gate, STRANGER, &lines).await;
        assert_eq!(only_codes(&replies), ["235", "250", "250", "354", "250", "221"]);
        let lease = gate.front_end.queue.lease().await;
        let origin = &lease.message().origin;
        assert_eq!((origin.priority, origin.message_id.as_deref()), (expected, Some("7@erp.example")));
        let body = lease.message().body.bytes().await.unwrap();
        assert!(body.ends_with(b"X-Postrider-Priority: high\r\n\r\nx\r\n"), "the field passes as it is");
    }
    // Whoever is trusted by address has no such right.
    let gate = gate();
    gate.say(format!("EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n{data}\r\nQUIT\r\n")).await;
    assert_eq!(gate.front_end.queue.lease().await.message().origin.priority, None);
}

#[tokio::test]
async fn plain_and_login_with_and_without_an_initial_response() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-8
    //= type=test
    //# Implementations MUST accept these strings in a case-insensitive fashion.
    let gate = door(|_| {});
    let (name, password, whole) = (base64("erp"), base64("hunter2"), plain("", "erp", "hunter2"));
    let (with_plain, with_login) = (format!("AUTH PLAIN {whole}"), format!("auth login {name}"));
    let own = plain("erp", "erp", "hunter2");
    for (lines, expected) in [
        (vec![with_plain.as_str()], vec!["235", "221"]),
        (vec!["AUTH PLAIN", &whole], vec!["334", "235", "221"]),
        (vec!["AUTH PLAIN", &own], vec!["334", "235", "221"]),
        (vec!["AUTH LOGIN", &name, &password], vec!["334", "334", "235", "221"]),
        (vec![&with_login, &password], vec!["334", "235", "221"]),
        (vec!["AUTH LOGIN =", &name, &password], vec!["334", "334", "235", "221"]),
    ] {
        let replies = after_ehlo(&gate, STRANGER, &lines).await;
        assert_eq!(only_codes(&replies), expected, "{lines:?}");
        assert!(replies.iter().any(|reply| reply == "235 2.7.0 Authentication successful"));
    }
}

#[tokio::test]
async fn the_challenges_are_what_clients_look_for() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-4
    //= type=test
    //# Note that there is still a space following the reply code, so the complete response line is "334 ".
    let replies = after_ehlo(&door(|_| {}), STRANGER, &["AUTH PLAIN", "*", "AUTH LOGIN", "*"]).await;
    assert_eq!(replies[0], "334 ");
    assert_eq!(replies[2], "334 VXNlcm5hbWU6");
}

#[tokio::test]
async fn an_exchange_can_be_cancelled_and_a_bad_response_is_refused_and_the_session_goes_on() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-4
    //= type=test
    //# If the server receives such a response, it MUST reject the AUTH command by sending a 501 reply.
    //= https://www.rfc-editor.org/rfc/rfc4954#section-4
    //= type=test
    //# In particular, servers and clients MUST reject (and not ignore) any character not explicitly
    //# allowed by the BASE64 alphabet, and MUST reject any sequence of BASE64 characters that contains the
    //# pad character ('=') anywhere other than the end of the string (e.g., "=AAA" and "AAA=BBB" are not
    //# allowed).
    let gate = door(|_| {});
    for (line, expected) in [
        ("*", "501 5.7.0"),
        ("!!!", "501 5.5.2"),
        ("=AAA", "501 5.5.2"),
        ("AAA=BBB", "501 5.5.2"),
        ("", "501 5.5.2"),
        ("AA A=", "501 5.5.2"),
        (&base64("erp\0hunter2"), "501 5.5.2"),
        (&base64("\0erp\0hunter2\0"), "501 5.5.2"),
        (&base64("\0\0hunter2"), "501 5.5.2"),
        (&BASE64.encode(b"\0erp\0\xff\xfe"), "501 5.5.2"),
    ] {
        let replies = after_ehlo(&gate, STRANGER, &["AUTH PLAIN", line, "NOOP"]).await;
        assert!(replies[1].starts_with(expected), "{line}: {replies:?}");
        assert_eq!(only_codes(&replies), ["334", "501", "250", "221"], "{line}");
        if !line.is_empty() && !line.contains(' ') && line != "*" {
            let replies = after_ehlo(&gate, STRANGER, &[&format!("AUTH PLAIN {line}"), "NOOP"]).await;
            assert_eq!(only_codes(&replies), ["501", "250", "221"], "{line}");
        }
    }
    let with_nul = base64("hunt\0er2");
    let replies = after_ehlo(&gate, STRANGER, &["AUTH LOGIN", &base64("erp"), &with_nul]).await;
    assert_eq!(only_codes(&replies), ["334", "334", "501", "221"]);
    let replies = after_ehlo(&gate, STRANGER, &["AUTH PLAIN =", "AUTH", "AUTH PLAIN a b"]).await;
    assert_eq!(only_codes(&replies), ["501", "501", "501", "221"]);
}

#[tokio::test]
async fn a_response_may_be_as_long_as_the_rfc_says_and_no_longer() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-4
    //= type=test
    //# If, during an authentication exchange, the server receives a line that is longer than the
    //# server's authentication buffer, the server fails the AUTH command with the 500 reply.
    let gate = door(|_| {});
    let (longest, too_long) = ("A".repeat(12_284), "A".repeat(12_292));
    let replies = after_ehlo(&gate, STRANGER, &["AUTH PLAIN", &longest, "AUTH PLAIN", &too_long, "NOOP"]).await;
    assert!(replies[1].starts_with("501 5.5.2"), "it is zeros, and was read: {}", replies[1]);
    assert!(replies[3].starts_with("500 5.5.6"), "{}", replies[3]);
    assert_eq!(only_codes(&replies[4..]), ["250", "221"]);
}

#[tokio::test]
async fn auth_in_the_wrong_place_is_refused() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-4
    //= type=test
    //# An AUTH command issued during a mail transaction MUST be rejected with a 503 reply.
    let gate = door(|_| {});
    let auth = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    let replies = gate.say_from(STRANGER, format!("{auth}\r\nHELO x\r\n{auth}\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "503", "250", "503", "221"]);
    let replies = after_ehlo(&gate, "127.0.0.1", &["MAIL FROM:<a@b.example>", &auth, "RSET", &auth, &auth]).await;
    assert_eq!(only_codes(&replies), ["250", "503", "250", "235", "503", "221"]);
    let replies = after_ehlo(&gate, STRANGER, &["AUTH CRAM-MD5", "AUTH XOAUTH2 AAAA"]).await;
    assert!(replies[0].starts_with("504 5.5.4") && replies[1].starts_with("504 5.5.4"), "{replies:?}");
    // Old clients on a trusted network log in after HELO, too.
    let replies = gate.say_from("127.0.0.1", format!("HELO x\r\n{auth}\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "235", "221"]);
}

#[tokio::test]
async fn without_tls_auth_is_neither_offered_nor_taken_unless_the_listener_says_so() {
    let auth = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    let closed = door(|setup| setup.listener.auth_without_tls = false);
    let replies = closed.say_from(STRANGER, format!("EHLO x\r\n{auth}\r\nQUIT\r\n")).await;
    assert!(!replies.iter().any(|line| line.contains("AUTH PLAIN LOGIN")), "{replies:?}");
    assert!(replies.iter().any(|line| line.starts_with("538 5.7.11 ")), "{replies:?}");
    let nobody = door(|setup| setup.applications.clear());
    assert_eq!(codes(&nobody.say_from(STRANGER, format!("EHLO x\r\n{auth}\r\nQUIT\r\n")).await), ["220", "250", "502", "221"]);

    let open = door(|_| {});
    let strange = open.say_from(STRANGER, "EHLO x\r\nQUIT\r\n").await;
    assert!(strange.iter().any(|line| &line[4..] == "AUTH PLAIN LOGIN") && !strange.iter().any(|line| line.contains("AUTH=")));
    let known = open.say("EHLO x\r\nQUIT\r\n").await;
    assert!(known.iter().any(|line| &line[4..] == "AUTH=PLAIN LOGIN"), "{known:?}");
}

#[tokio::test]
async fn over_tls_auth_is_offered_and_required_of_strangers() {
    let gate = door(|setup| {
        setup.listener.auth_without_tls = false;
        setup.listener.tls = ListenerTls::Required;
    });
    let replies = after_ehlo(&gate, "127.0.0.1", &["MAIL FROM:<a@b.example>"]).await;
    assert!(replies[0].starts_with("530 5.7.0 Must issue a STARTTLS"), "{replies:?}");

    let (ours, theirs) = duplex(64 * 1024);
    let client = Client { encrypted: true, ..Client::at(STRANGER.parse().unwrap()) };
    tokio::spawn(converse(theirs, client, Arc::clone(&gate.door), Arc::clone(&gate.front_end), gate.shutdown.clone()));
    let (mut read, mut write) = tokio::io::split(ours);
    let auth = plain("", "erp", "hunter2");
    write
        .write_all(format!("EHLO x\r\nMAIL FROM:<a@erp.example>\r\nAUTH PLAIN {auth}\r\nMAIL FROM:<a@erp.example>\r\nQUIT\r\n").as_bytes())
        .await
        .unwrap();
    let mut output = String::new();
    read.read_to_string(&mut output).await.unwrap();
    let replies: Vec<String> = output.lines().map(str::to_owned).collect();
    assert_eq!(codes(&replies), ["220", "250", "530", "235", "250", "221"], "{output}");
}

#[tokio::test]
async fn whoever_logged_in_may_send_as_it_is_allowed_and_the_trace_says_so() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-7
    //= type=test
    //# Upon successful authentication, a server SHOULD use the "ESMTPA" or the "ESMTPSA" [SMTP-TT] (when
    //# appropriate) keyword in the "with" clause of the Received header field.
    let gate = door(|_| {});
    let auth = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    let lines = [
        "MAIL FROM:<a@erp.example>",
        &auth,
        "MAIL FROM:<a@other.example>",
        "MAIL FROM:<a@erp.example>",
        "RCPT TO:<c@d.example>",
        "DATA",
        "\r\nhi\r\n.",
    ];
    let replies = after_ehlo(&gate, STRANGER, &lines).await;
    assert_eq!(only_codes(&replies), ["530", "235", "553", "250", "250", "354", "250", "221"]);
    assert_eq!(replies[2], "553 5.7.1 <a@other.example>: sender not allowed for application erp; it may use @erp.example");
    let lease = gate.front_end.queue.lease().await;
    assert_eq!(lease.message().origin.application.as_deref(), Some("erp"));
    let body = lease.message().body.bytes().await.unwrap();
    assert!(String::from_utf8_lossy(&body).contains("\r\n\tby relay.example (Postrider) with ESMTPA id "));
}

#[tokio::test]
async fn limits_of_an_application_hold_from_its_login_on() {
    let gate = door(|setup| {
        setup.applications = vec![Application { max_message_size: Some(70_000), max_recipients: Some(1), senders: Vec::new(), ..erp() }];
    });
    let auth = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    let replies = gate.say_from(STRANGER, format!("EHLO x\r\n{auth}\r\nEHLO x\r\nMAIL FROM:<a@b.example> SIZE=70001\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<e@d.example>\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "235", "250", "552", "250", "250", "452", "221"]);
    assert!(replies.iter().any(|line| line.ends_with("SIZE 70000")));
}

#[tokio::test]
async fn a_disabled_application_is_refused_by_its_network_and_cannot_log_in() {
    let disabled = Application { disabled: true, networks: vec!["127.0.0.1/32".parse().unwrap()], ..erp() };
    let gate = door(|setup| setup.applications = vec![disabled]);
    let auth = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    let replies = after_ehlo(&gate, "127.0.0.1", &["MAIL FROM:<a@erp.example>", &auth]).await;
    assert_eq!(replies[0], "550 5.7.1 Application erp is disabled");
    assert_eq!(replies[1], "535 5.7.8 Authentication credentials invalid");
}

#[tokio::test(start_paused = true)]
async fn whatever_was_wrong_the_answer_is_the_same_and_comes_later_each_time_until_there_is_none() {
    let gate = door(|setup| setup.access.auth_failures = 5);
    let wrong = [plain("", "erp", "wrong"), plain("", "nobody", "hunter2"), plain("other", "erp", "hunter2"), plain("", "erp", "")];
    let mut said = std::collections::BTreeSet::new();
    let begun = tokio::time::Instant::now();
    for message in &wrong {
        let replies = after_ehlo(&gate, STRANGER, &[&format!("AUTH PLAIN {message}")]).await;
        said.insert(replies[0].clone());
    }
    assert_eq!(said.into_iter().collect::<Vec<_>>(), ["535 5.7.8 Authentication credentials invalid"]);
    assert_eq!(begun.elapsed().as_secs(), 1 + 2 + 4, "an identity that is not its own costs no verification");

    let wrong = format!("AUTH PLAIN {}", wrong[0]);
    let replies = after_ehlo(&gate, STRANGER, &[&wrong, &wrong, &wrong, "NOOP"]).await;
    assert_eq!(only_codes(&replies), ["535", "535", "454", "250", "221"]);
    let right = format!("AUTH PLAIN {}", plain("", "erp", "hunter2"));
    assert_eq!(only_codes(&after_ehlo(&gate, STRANGER, &[&right]).await), ["454", "221"]);
    assert_eq!(only_codes(&after_ehlo(&gate, "192.0.2.2", &[&right]).await), ["235", "221"]);
    tokio::time::advance(Duration::from_secs(15 * 60)).await;
    assert_eq!(only_codes(&after_ehlo(&gate, STRANGER, &[&right]).await), ["235", "221"]);
}

#[tokio::test(start_paused = true)]
async fn three_failures_end_a_session() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-9
    //= type=test
    //# If they do so, they SHOULD NOT drop the connection until at least 3 attempts to authenticate have
    //# failed.
    let wrong = format!("AUTH PLAIN {}", plain("", "erp", "wrong"));
    let replies = after_ehlo(&door(|_| {}), STRANGER, &[&wrong, &wrong, &wrong, &wrong]).await;
    assert_eq!(only_codes(&replies), ["535", "535", "535", "421"]);
}

#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_an_exchange_nor_for_the_answer_to_a_failure() {
    for last in ["AUTH LOGIN\r\n".to_owned(), format!("AUTH PLAIN {}\r\n", plain("", "erp", "wrong"))] {
        let gate = door(|_| {});
        let mut client = gate.connect_from(STRANGER);
        client.write_all(format!("EHLO x\r\n{last}").as_bytes()).await.unwrap();
        let mut output = Vec::new();
        while !String::from_utf8_lossy(&output).contains("AUTH PLAIN LOGIN\r\n") {
            assert_ne!(client.read_buf(&mut output).await.unwrap(), 0);
        }
        let begun = tokio::time::Instant::now();
        gate.shutdown.cancel();
        let mut rest = String::new();
        client.read_to_string(&mut rest).await.unwrap();
        assert!(rest.ends_with("421 4.3.2 Shutting down, try again later\r\n"), "{rest}");
        assert!(begun.elapsed().as_secs() < 1);
    }
}

#[test]
fn what_a_client_shows_is_not_in_debug_output() {
    let command = Command::parse(format!("AUTH PLAIN {}", plain("", "erp", "hunter2")).as_bytes(), config::OddCommands::Reject).unwrap();
    assert_eq!(format!("{:?}", command.command), "Auth { mechanism: \"PLAIN\", initial: Some(InitialResponse(***)) }");
}
