//! Small duties of RFC 5321 that no other test comes by, in dialogues with a whole session.

#![allow(clippy::unwrap_used, reason = "a helper of a test may end the test")]

use std::sync::Arc;

use bytes::Bytes;
use postrider::access::{Access, Client};
use postrider::clock::Clock;
use postrider::config::{self, Listener, Route, When};
use postrider::queue::{Queue, Settings as QueueSettings};
use postrider::route::Router;
use postrider::smtp::{Door, FrontEnd, Settings, converse};
use postrider::spool::memory::MemorySpool;
use postrider_providers::contract::Envelope;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_util::sync::CancellationToken;

/// Says everything to a relay that trusts the client; gives the replies, the greeting first, and what
/// was taken.
async fn say(input: impl AsRef<[u8]>) -> (Vec<String>, Vec<(Envelope, Bytes)>) {
    let route = Route { name: "all".into(), when: When::default(), providers: vec!["capture.all".into()], ..Route::default() };
    let front_end = Arc::new(FrontEnd {
        settings: Settings { hostname: "relay.example".to_owned(), ..Settings::default() },
        access: Access::new(config::Access::default(), Vec::new()),
        router: Arc::new(Router::new(vec![route])),
        queue: Queue::new(MemorySpool::new(), QueueSettings::default(), Clock::system()),
        clock: Clock::system(),
        census: Arc::default(),
    });
    let door = Arc::new(Door { listener: Listener::plain("127.0.0.1:25".parse().unwrap()), tls: None });
    let (ours, theirs) = duplex(64 * 1024);
    let client = Client::at("127.0.0.1".parse().unwrap());
    let session = tokio::spawn(converse(theirs, client, door, Arc::clone(&front_end), CancellationToken::new()));
    let (mut read, mut write) = tokio::io::split(ours);
    let mut output = String::new();
    let writing = async {
        // The relay may hang up first; then what it said is what counts.
        let _ = write.write_all(input.as_ref()).await;
        let _ = write.shutdown().await;
    };
    let (_, read) = tokio::join!(writing, read.read_to_string(&mut output));
    read.unwrap();
    session.await.unwrap();
    let mut messages = Vec::new();
    for _ in 0..front_end.queue.in_window() {
        let lease = front_end.queue.lease().await;
        messages.push((lease.message().envelope.clone(), lease.message().body.bytes().await.unwrap()));
    }
    (output.lines().map(str::to_owned).collect(), messages)
}

/// The code of each reply, the greeting's left out.
fn codes(replies: &[String]) -> Vec<&str> {
    replies.iter().filter(|line| line.as_bytes().get(3) == Some(&b' ')).skip(1).map(|line| &line[..3]).collect()
}

#[tokio::test]
async fn helo_gets_one_line_and_is_enough() {
    let (replies, messages) = say("HELO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nQUIT\r\n").await;
    assert_eq!(replies[1], "250 relay.example");
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "354", "250", "221"], 1));
}

#[tokio::test]
async fn every_command_of_the_minimum_is_there() {
    let (replies, _) = say("EHLO x\r\nHELO x\r\nMAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nRSET\r\nNOOP\r\nVRFY c\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["250", "250", "250", "250", "354", "250", "250", "250", "252", "221"]);
}

#[tokio::test]
async fn what_is_no_part_of_a_transaction_is_answered_before_any_greeting() {
    let (replies, _) = say("VRFY someone\r\nHELP\r\nHELP MAIL\r\nNOOP\r\nNOOP with words\r\nRSET\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["252", "214", "214", "250", "250", "250", "221"]);
}

#[tokio::test]
async fn each_command_that_is_not_offered_gets_the_code_that_says_so() {
    let (replies, _) = say("EHLO x\r\nEXPN list\r\nTURN\r\nSEND FROM:<a@b>\r\nXYZZY\r\nQUIT now\r\nRSET now\r\nDATA now\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["250", "502", "502", "502", "500", "501", "501", "501", "221"]);
    assert!(!replies.iter().any(|line| ["EXPN", "TURN", "SEND"].iter().any(|verb| line.starts_with(&format!("250-{verb}")))));
}

#[tokio::test]
async fn postmaster_needs_no_domain_and_is_read_in_any_case() {
    let (replies, messages) =
        say("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<pOSTmASTER>\r\nRCPT TO:<Postmaster@d.example>\r\nDATA\r\n.\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["250", "250", "250", "250", "354", "250", "221"]);
    let recipients: Vec<_> = messages[0].0.recipients.iter().map(|recipient| recipient.address.as_str()).collect();
    assert_eq!(recipients, ["postmaster@relay.example", "Postmaster@d.example"]);
}

#[tokio::test]
async fn rset_forgets_the_transaction_and_keeps_the_connection() {
    let (replies, messages) =
        say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRSET\r\nDATA\r\nRCPT TO:<c@d>\r\nMAIL FROM:<e@f>\r\nRCPT TO:<g@h>\r\nDATA\r\n.\r\nQUIT\r\n")
            .await;
    assert_eq!(codes(&replies), ["250", "250", "250", "250", "503", "503", "250", "250", "354", "250", "221"]);
    assert_eq!(messages[0].0.recipients[0].address.as_str(), "g@h");
}

#[tokio::test]
async fn quit_is_answered_and_only_then_the_connection_closed() {
    let (replies, _) = say("NONSENSE\r\nEHLO x\r\nMAIL FROM:<a@b>\r\nQUIT\r\nNOOP\r\n").await;
    assert_eq!(codes(&replies), ["500", "250", "250", "221"]);
}

#[tokio::test]
async fn ehlo_in_a_transaction_ends_it() {
    let (replies, messages) = say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nEHLO y\r\nDATA\r\nMAIL FROM:<a@b>\r\nQUIT\r\n").await;
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "250", "503", "250", "221"], 0));
}

#[tokio::test]
async fn a_refused_ehlo_changes_nothing() {
    let (replies, messages) = say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nEHLO two words\r\nDATA\r\n.\r\nQUIT\r\n").await;
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "501", "354", "250", "221"], 1));
}

#[tokio::test]
async fn a_refused_mail_changes_nothing() {
    let (replies, messages) =
        say("EHLO x\r\nMAIL FROM:<a@b\r\nRCPT TO:<c@d>\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nQUIT\r\n").await;
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "501", "503", "250", "501", "250", "354", "250", "221"], 1));
}

#[tokio::test]
async fn the_name_in_ehlo_is_never_a_reason_to_refuse_mail() {
    for name in ["localhost", "[127.0.0.1]", "[IPv6:::1]", "not_a_name", "no.such.name.invalid", "relay.example"] {
        let (replies, messages) = say(format!("EHLO {name}\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\nQUIT\r\n")).await;
        assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "354", "250", "221"], 1), "{name}");
    }
}

#[tokio::test]
async fn white_space_before_the_line_end_is_tolerated() {
    let (replies, messages) = say("EHLO x  \r\nMAIL FROM:<a@b> \r\nRCPT TO:<c@d>  \r\nDATA \r\n.\r\nRSET \r\nQUIT \r\n").await;
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "354", "250", "250", "221"], 1));
}

#[tokio::test]
async fn defects_of_the_header_are_no_reason_to_refuse() {
    for content in [
        "Resent-To: c@d\r\n\r\ntext\r\n",
        "Resent-From: a@b\r\nResent-From: a@b\r\nResent-Date: never\r\n\r\n",
        "From: a@b\r\nFrom: c@d\r\nDate: yesterday\r\n\r\n",
        "Content-Type: multipart/mixed\r\nMime-Version: 17\r\n\r\n--\r\n",
        "Received: by nobody, at no time\r\nReturn-Path: <>\r\n\r\n",
        "no header at all\r\n",
    ] {
        let (replies, messages) = say(format!("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n{content}.\r\nQUIT\r\n")).await;
        assert_eq!(codes(&replies), ["250", "250", "250", "354", "250", "221"], "{content}");
        assert_eq!(messages.len(), 1, "{content}");
    }
}

/// RFC 5321 section 4.5.3.1: the least that every implementation must be able to receive.
#[tokio::test]
async fn objects_of_the_least_sizes_are_taken() {
    let local_part = "l".repeat(64);
    let label = "d".repeat(61);
    // 64 octets, the @, and 189 more; with the brackets a path of 256.
    let path = format!("{local_part}@{label}.{label}.{label}.example");
    let path = &path[..254.min(path.len())];
    let long_domain = format!("a@{label}.{label}.{label}.{}.example", "e".repeat(61));
    assert_eq!(long_domain.len() - 2, 255, "a domain of 255 octets");
    let command = format!("NOOP {}\r\n", "x".repeat(512 - 7));
    let recipients: String = (0..98).map(|number| format!("RCPT TO:<r{number}@d.example>\r\n")).collect();
    let line = format!("{}\r\n", "t".repeat(998));
    let content = line.repeat(66);
    let (replies, messages) = say(format!(
        "EHLO x\r\n{command}MAIL FROM:<{path}>\r\nRCPT TO:<{path}>\r\nRCPT TO:<{long_domain}>\r\n{recipients}DATA\r\n\r\n{content}.\r\nQUIT\r\n"
    ))
    .await;
    assert!(codes(&replies).iter().all(|code| matches!(*code, "250" | "354" | "221")), "{replies:?}");
    assert_eq!(messages[0].0.recipients.len(), 100);
    assert!(content.len() >= 64 * 1024 && messages[0].1.ends_with(content.as_bytes()));
}

#[tokio::test]
async fn what_was_promised_stays_promised_when_the_connection_breaks() {
    let one = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nfirst\r\n.\r\n";
    let (replies, messages) = say(format!("EHLO x\r\n{one}MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nsecond\r\n")).await;
    assert_eq!((codes(&replies), messages.len()), (vec!["250", "250", "250", "354", "250", "250", "250", "354"], 1));
    assert!(messages[0].1.ends_with(b"first\r\n"));
}
