//! Requests to the sandbox SES endpoint over raw sockets.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const SIGNED: &str = "authorization: AWS4-HMAC-SHA256 Credential=AKID/20260101/eu-west-1/ses/aws4_request, \
                      SignedHeaders=host;x-amz-date, Signature=00\r\nx-amz-date: 20260101T000000Z\r\n";

async fn start(mode: SesMode) -> SandboxSes {
    SandboxSes::start(SesSettings { mode, keep_bodies: true, ..SesSettings::default() }).await.unwrap()
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\nhost: ses\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// One request on a connection of its own: status line, head and body, or nothing when it was cut.
async fn ask(ses: &SandboxSes, request: &str) -> (String, String, String) {
    let mut stream = TcpStream::connect(ses.address()).await.unwrap();
    stream.write_all(request.replacen("\r\n", "\r\nconnection: close\r\n", 1).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let (status, head) = head.split_once("\r\n").unwrap_or_default();
    (status.to_owned(), head.to_owned(), body.to_owned())
}

fn email(recipients: usize, content: &[u8]) -> String {
    let mut recipients: Vec<String> = (0..recipients).map(|number| format!("r{number}@x")).collect();
    let bcc = recipients.split_off(recipients.len().min(1));
    serde_json::json!({
        "FromEmailAddress": "a@x",
        "Destination": { "ToAddresses": recipients, "BccAddresses": bcc },
        "Content": { "Raw": { "Data": STANDARD.encode(content) } },
    })
    .to_string()
}

fn send(body: &str) -> String {
    request("POST /v2/email/outbound-emails", SIGNED, body)
}

#[tokio::test]
async fn a_signed_raw_message_is_taken() {
    let ses = start(SesMode::Up).await;
    let content = b"Message-ID: <1@x>\r\n\r\n\xff 8 bit\r\n";
    let (status, _, body) = ask(&ses, &send(&email(50, content))).await;
    assert_eq!((status.as_str(), body.as_str()), ("HTTP/1.1 200 OK", r#"{"MessageId":"sandbox-000001"}"#));
    let received = ses.recorder().received();
    assert_eq!((received[0].reverse_path.as_str(), received[0].recipients.len()), ("a@x", 50));
    assert_eq!(received[0].message_id().as_deref(), Some("<1@x>"));
    assert_eq!(received[0].body.as_deref(), Some(&content[..]));
    assert_eq!(ses.recorder().violations(), Vec::<String>::new());
}

#[tokio::test]
async fn the_account_tells_its_quotas() {
    let ses = start(SesMode::Up).await;
    ask(&ses, &send(&email(3, b"x"))).await;
    let (status, _, body) = ask(&ses, &request("GET /v2/email/account", SIGNED, "")).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let account: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(account["SendQuota"], serde_json::json!({ "Max24HourSend": 50000.0, "MaxSendRate": 1000.0, "SentLast24Hours": 3 }));
    assert_eq!(account["SendingEnabled"], true);
}

#[tokio::test]
async fn what_the_service_would_refuse_is_refused_and_kept() {
    let no_base64 = email(1, b"x").replace(&STANDARD.encode("x"), "x\u{e9}");
    let no_date = SIGNED.split_inclusive("\r\n").next().unwrap();
    for (request, status, kind) in [
        (request("POST /v2/email/outbound-emails", "", &email(1, b"x")), "403", "MissingAuthenticationTokenException"),
        (request("POST /v2/email/outbound-emails", no_date, &email(1, b"x")), "403", "MissingAuthenticationTokenException"),
        (request("GET /v2/email/account", "authorization: Bearer x\r\n", ""), "403", "MissingAuthenticationTokenException"),
        (send("{}"), "400", "BadRequestException"),
        (send(&email(0, b"x")), "400", "BadRequestException"),
        (send(&email(51, b"x")), "400", "BadRequestException"),
        (send(&email(1, b"x").replace("r0@x", "é@x")), "400", "BadRequestException"),
        (send(&no_base64), "400", "BadRequestException"),
        (send(&email(1, &vec![b'x'; 30_000_001])), "400", "BadRequestException"),
    ] {
        let ses = start(SesMode::Up).await;
        let (line, head, body) = ask(&ses, &request).await;
        assert!(line.contains(status), "{line} {body}");
        assert!(head.contains(&format!("x-amzn-errortype: {kind}")), "{head}");
        assert_eq!((ses.recorder().count(), ses.recorder().violations().len()), (0, 1));
    }
}

#[tokio::test]
async fn each_mode_answers_as_it_says() {
    for (mode, status, kind, received) in [
        (SesMode::Throttle, "HTTP/1.1 429 Too Many Requests", "TooManyRequestsException", 0),
        (SesMode::Error, "HTTP/1.1 500 Internal Server Error", "InternalServiceErrorException", 0),
        (SesMode::DropAfterBody, "", "", 1),
    ] {
        let ses = start(mode).await;
        let (line, head, _) = ask(&ses, &send(&email(1, b"x"))).await;
        assert_eq!(line, status);
        assert!(head.contains(kind), "{head}");
        assert_eq!((ses.recorder().count(), ses.recorder().violations().len()), (received, 0), "{mode:?}");
    }
}

#[tokio::test]
async fn down_refuses_and_closes_and_up_is_the_same_address() {
    let ses = start(SesMode::Up).await;
    let mut idle = TcpStream::connect(ses.address()).await.unwrap();
    let mut half = TcpStream::connect(ses.address()).await.unwrap();
    half.write_all(b"POST /v2/email/outbound-emails HTTP/1.1\r\n").await.unwrap();
    for round in 1..=2 {
        ses.set_mode(SesMode::Down).await;
        assert_eq!(TcpStream::connect(ses.address()).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        ses.set_mode(SesMode::Up).await;
        assert_eq!(ask(&ses, &send(&email(1, b"x"))).await.0, "HTTP/1.1 200 OK");
        assert_eq!(ses.recorder().count(), round);
    }
    for stream in [&mut idle, &mut half] {
        assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "the old connections have been closed");
    }
}

#[tokio::test]
async fn hang_says_nothing_and_takes_nothing() {
    let ses = start(SesMode::Hang).await;
    let mut stream = TcpStream::connect(ses.address()).await.unwrap();
    stream.write_all(send(&email(1, b"x")).as_bytes()).await.unwrap();
    let silence = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut [0])).await;
    assert!(silence.is_err(), "{silence:?}");
    ses.set_mode(SesMode::Up).await;
    assert_eq!(stream.read(&mut [0]).await.unwrap_or(0), 0, "a request that hung is dropped");
    assert_eq!(ses.recorder().count(), 0);
}

#[tokio::test]
async fn a_dropped_handle_stops_everything() {
    let ses = start(SesMode::Up).await;
    let address = ses.address();
    let mut idle = TcpStream::connect(address).await.unwrap();
    // Answered once, so that the connection is known to be served.
    idle.write_all(request("GET /v2/email/account", SIGNED, "").as_bytes()).await.unwrap();
    assert_ne!(idle.read(&mut [0; 1024]).await.unwrap(), 0);
    drop(ses);
    while idle.read(&mut [0; 1024]).await.unwrap_or(0) > 0 {}
    assert!(TcpStream::connect(address).await.is_err());
}
