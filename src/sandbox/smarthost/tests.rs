//! Dialogues with the sandbox smart host over raw sockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

async fn start(settings: SmarthostSettings) -> SandboxSmarthost {
    SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, hostname: "mx".into(), ..settings }).await.unwrap()
}

/// Sends `lines` as they are, closes the sending half, and returns everything that came back.
async fn dialogue(host: &SandboxSmarthost, lines: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    // A host that drops the connection may do so while we write.
    let _ = stream.write_all(lines).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

/// The codes of `answer`'s replies, last lines only.
fn codes(answer: &str) -> Vec<&str> {
    answer.lines().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect()
}

/// Reads until `stream` has sent `text` as the end of what it has to say.
async fn expect(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(text.as_bytes()) {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0, "closed after {:?}", String::from_utf8_lossy(&seen));
    }
}

const ENVELOPE: &str = "EHLO me\r\nMAIL FROM:<a@x> BODY=8BITMIME\r\nRCPT TO:<b@x>\r\n";

/// A client that waits for the 354 before it sends `content`, and the reply that it gets, if any.
async fn submit(host: &SandboxSmarthost, content: &[u8]) -> String {
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(format!("{ENVELOPE}DATA\r\n").as_bytes()).await.unwrap();
    expect(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
    let _ = stream.write_all(content).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn a_pipelined_transaction_is_answered_in_order() {
    let host = start(SmarthostSettings::default()).await;
    host.refuse("c@x", "550 5.1.1 No such user");
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let group = "EHLO me\r\nMAIL FROM:<> SIZE=5 BODY=7BIT\r\nRCPT TO:<b@x>\r\nRCPT TO:<c@x>\r\nRCPT TO:<\"d>\\\" \"@x>\r\nDATA\r\n";
    stream.write_all(group.as_bytes()).await.unwrap();
    expect(
        &mut stream,
        "220 mx ESMTP\r\n250-mx\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 52428800\r\n250 ENHANCEDSTATUSCODES\r\n\
         250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n550 5.1.1 No such user\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n",
    )
    .await;
    stream.write_all(b"Message-ID: <1@x>\r\n\r\nhi\r\n.\r\nQUIT\r\n").await.unwrap();
    expect(&mut stream, "250 2.0.0 Ok: queued as sandbox-000001\r\n221 2.0.0 Bye\r\n").await;

    let received = host.recorder().received();
    assert_eq!((received[0].reverse_path.as_str(), received[0].message_id().as_deref()), ("", Some("<1@x>")));
    assert_eq!(received[0].recipients, ["b@x", "\"d>\\\" \"@x"]);
    assert_eq!(host.recorder().violations(), Vec::<String>::new());
}

#[tokio::test]
async fn content_is_kept_exactly_with_the_stuffing_undone() {
    let long = [vec![b'x'; 200_000], b"\r\n".to_vec()].concat();
    let cases: [(&[u8], &[u8]); 5] = [
        (b".\r\n", b""),
        (b"..\r\n...\r\n.a\r\nb.\r\n.\r\n", b".\r\n..\r\na\r\nb.\r\n"),
        (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        (b"\xff\x00 8 bit\r\n.\r\n", b"\xff\x00 8 bit\r\n"),
        (&[long.clone(), b".\r\n".to_vec()].concat(), &long),
    ];
    let host = start(SmarthostSettings::default()).await;
    for (sent, kept) in cases {
        assert_eq!(codes(&submit(&host, sent).await), ["250"]);
        assert_eq!(host.recorder().received().last().unwrap().body.as_deref(), Some(kept));
    }
    assert_eq!(host.recorder().violations(), Vec::<String>::new());
}

#[tokio::test]
async fn only_crlf_dot_crlf_ends_the_content() {
    let host = start(SmarthostSettings::default()).await;
    for end in ["a\n.\r\n", "a\r\n.\n", "a\n.\n", "a\r.\r\n", "a\r\n.\r\r\n"] {
        assert_eq!(submit(&host, end.as_bytes()).await, "", "{end:?} ended the content");
    }
    assert_eq!(codes(&submit(&host, b"a\n.\r\nb\r\n.\r\n").await), ["554"]);
    assert_eq!((host.recorder().count(), host.recorder().violations().len()), (0, 6));
}

#[tokio::test]
async fn what_is_against_the_protocol_is_refused_and_kept() {
    for (said, code) in [
        ("EHLO me\nQUIT\r\n", "500"),
        ("EHLO\r\n", "501"),
        ("BDAT 3 LAST\r\n", "500"),
        ("EHLO me\r\nMAIL FROM: <a@x>\r\n", "501"),
        ("EHLO me\r\nMAIL FROM:<a@x> RET=FULL\r\n", "555"),
        ("EHLO me\r\nMAIL FROM:<a@x> SIZE=99999999999999999999999\r\n", "501"),
        ("HELO me\r\nMAIL FROM:<a@x> SIZE=1\r\n", "555"),
        ("EHLO me\r\nMAIL FROM:<é@x>\r\n", "553"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nMAIL FROM:<a@x>\r\n", "503"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<>\r\n", "501"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x> NOTIFY=NEVER\r\n", "555"),
        ("EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<b@x\r\n", "501"),
    ] {
        let host = start(SmarthostSettings::default()).await;
        let answer = dialogue(&host, said.as_bytes()).await;
        assert!(codes(&answer).contains(&code), "{said:?}: {answer}");
        assert_eq!(host.recorder().violations().len(), 1, "{said:?}: {:?}", host.recorder().violations());
    }
    let host = start(SmarthostSettings::default()).await;
    dialogue(&host, format!("{ENVELOPE}DATA\r\nhi\r\n.\r\n").as_bytes()).await;
    assert_eq!(host.recorder().violations(), ["content was sent before the 354"]);
    dialogue(&host, &[b'x'; 3000]).await;
    assert_eq!(host.recorder().violations().len(), 2);
}

#[tokio::test]
async fn what_is_asked_about_notifications_is_kept_where_dsn_is_offered() {
    let host = start(SmarthostSettings { dsn: true, ..SmarthostSettings::default() }).await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    let group = "EHLO me\r\nMAIL FROM:<a@x> RET=FULL SIZE=5 ENVID=1+202\r\nRCPT TO:<b@x> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@x\r\nRCPT TO:<c@x>\r\nDATA\r\n";
    stream.write_all(group.as_bytes()).await.unwrap();
    expect(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
    stream.write_all(b".\r\n").await.unwrap();
    expect(&mut stream, "250 2.0.0 Ok: queued as sandbox-000001\r\n").await;
    assert_eq!(host.recorder().received()[0].dsn, ["RET=FULL ENVID=1+202", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b@x", ""]);
    for said in ["MAIL FROM:<a@x> RET=ALL", "MAIL FROM:<a@x> NOTIFY=NEVER", "MAIL FROM:<a@x>\r\nRCPT TO:<b@x> NOTIFY=NEVER,DELAY"] {
        let answer = dialogue(&host, format!("EHLO me\r\n{said}\r\n").as_bytes()).await;
        assert!(answer.contains("250-DSN\r\n") && codes(&answer).contains(&"555"), "{said}: {answer}");
    }
}

#[tokio::test]
async fn a_client_without_fault_may_be_out_of_luck() {
    let host = start(SmarthostSettings { max_message_size: 100, ..SmarthostSettings::default() }).await;
    let answer = dialogue(&host, b"EHLO me\r\nMAIL FROM:<a@x> SIZE=101\r\nRCPT TO:<b@x>\r\nDATA\r\nQUIT\r\n").await;
    assert_eq!(codes(&answer), ["220", "250", "552", "503", "503", "221"]);
    host.refuse("b@x", "450 4.2.1 Busy");
    let answer = dialogue(&host, format!("{ENVELOPE}DATA\r\nRSET\r\nNOOP\r\nQUIT\r\n").as_bytes()).await;
    assert_eq!(codes(&answer), ["220", "250", "250", "450", "554", "250", "250", "221"]);
    assert_eq!((host.recorder().count(), host.recorder().violations()), (0, Vec::new()));

    let host = start(SmarthostSettings { max_message_size: 100, ..SmarthostSettings::default() }).await;
    let too_big = [vec![b'x'; 300], b"\r\n.\r\n".to_vec()].concat();
    assert_eq!(codes(&submit(&host, &too_big).await), ["552"]);
    assert_eq!(codes(&submit(&host, b"small\r\n.\r\n").await), ["250"]);
    assert_eq!(host.recorder().count(), 1);
}

#[tokio::test]
async fn down_refuses_and_drops_and_up_is_the_same_address() {
    let host = start(SmarthostSettings::default()).await;
    let mut idle = TcpStream::connect(host.address()).await.unwrap();
    expect(&mut idle, "220 mx ESMTP\r\n").await;
    for _ in 0..3 {
        host.set_mode(SmarthostMode::Down).await;
        let refused = TcpStream::connect(host.address()).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        host.set_mode(SmarthostMode::Up).await;
        assert_eq!(codes(&submit(&host, b"hi\r\n.\r\n").await), ["250"]);
    }
    assert_eq!(idle.read(&mut [0]).await.unwrap_or(0), 0, "the idle connection has been dropped");
    assert_eq!((host.recorder().count(), host.connections(), host.mode()), (3, 4, SmarthostMode::Up));
}

#[tokio::test]
async fn hang_says_nothing_and_takes_nothing() {
    let host = start(SmarthostSettings { mode: SmarthostMode::Hang, ..SmarthostSettings::default() }).await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(ENVELOPE.as_bytes()).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0])).await;
    assert!(silence.is_err(), "{silence:?}");
    host.set_mode(SmarthostMode::Up).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "a session that hung ends");

    // One that hangs in the middle of a message takes it neither now nor later.
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(format!("{ENVELOPE}DATA\r\n").as_bytes()).await.unwrap();
    expect(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
    host.set_mode(SmarthostMode::Hang).await;
    stream.write_all(b"hi\r\n.\r\n").await.unwrap();
    host.set_mode(SmarthostMode::Up).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    assert_eq!(host.recorder().count(), 0);
}

#[tokio::test]
async fn each_mode_answers_as_it_says() {
    let group = format!("{ENVELOPE}DATA\r\n");
    for (mode, expected, received) in [
        (SmarthostMode::Busy, &["421"][..], 0),
        (SmarthostMode::Defer, &["220", "250", "250", "250", "451"], 0),
        (SmarthostMode::DropAtData, &["220", "250", "250", "250"], 0),
        (SmarthostMode::DropBeforeDot, &["220", "250", "250", "250", "354"], 0),
        (SmarthostMode::DropAfterDot, &["220", "250", "250", "250", "354"], 1),
        (SmarthostMode::Up, &["220", "250", "250", "250", "354", "250"], 1),
    ] {
        let host = start(SmarthostSettings { mode, ..SmarthostSettings::default() }).await;
        let mut stream = TcpStream::connect(host.address()).await.unwrap();
        stream.write_all(group.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let mut sent = false;
        while stream.read_buf(&mut answer).await.unwrap_or(0) > 0 {
            if !sent && answer.ends_with(b"<CR><LF>.<CR><LF>\r\n") {
                let _ = stream.write_all(b"hi\r\n.\r\n").await;
                sent = true;
            } else if answer.ends_with(b"queued as sandbox-000001\r\n") || answer.ends_with(b"try again later\r\n") {
                // The last answer to come, also where the host keeps the connection open.
                break;
            }
        }
        assert_eq!(codes(&String::from_utf8(answer).unwrap()), expected, "{mode:?}");
        assert_eq!(host.recorder().count(), received, "{mode:?}");
    }
}

#[tokio::test]
async fn busy_ends_a_session_that_exists() {
    let host = start(SmarthostSettings::default()).await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    expect(&mut stream, "220 mx ESMTP\r\n").await;
    host.set_mode(SmarthostMode::Busy).await;
    stream.write_all(b"EHLO me\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(codes(&answer), ["421"]);
}

#[tokio::test]
async fn a_large_message_sees_the_drop_before_it_has_left() {
    let host = start(SmarthostSettings { mode: SmarthostMode::DropBeforeDot, ..SmarthostSettings::default() }).await;
    let mut stream = TcpStream::connect(host.address()).await.unwrap();
    stream.write_all(format!("{ENVELOPE}DATA\r\n").as_bytes()).await.unwrap();
    expect(&mut stream, "354 End data with <CR><LF>.<CR><LF>\r\n").await;
    let line = [vec![b'x'; 998], b"\r\n".to_vec()].concat();
    let mut written = 0;
    while stream.write_all(&line).await.is_ok() {
        written += line.len();
    }
    assert!(written < 8 << 20, "{written} octets left before the drop was seen");
    assert_eq!(host.recorder().count(), 0);
}

#[tokio::test]
async fn a_dropped_handle_stops_everything() {
    let host = start(SmarthostSettings::default()).await;
    let address = host.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    expect(&mut stream, "220 mx ESMTP\r\n").await;
    drop(host);
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0);
    // The port was given back as well: it can be bound without sharing it.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(1).unwrap();
}

#[tokio::test]
async fn a_foreign_client_is_served_without_a_violation() {
    let host = start(SmarthostSettings::default()).await;
    let address = host.address().to_string();
    let submit = tokio::task::spawn_blocking(move || {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let arguments = ["-d", "-s", "20", "-m", "300", "-l", "4096", "-f", "a@x.example", "-t", "b@y.example", &address];
        std::process::Command::new("smtp-source").args(arguments).env("PATH", path).status()
    });
    let status = submit.await.unwrap().expect("smtp-source is missing; run tests/install.sh peers");
    assert!(status.success(), "{status}");
    assert_eq!((host.recorder().count(), host.recorder().violations()), (300, Vec::new()));
    assert!(host.recorder().received().iter().all(|received| received.message_id().is_some()));
}
