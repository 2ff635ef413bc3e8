//! SMTP smuggling: content that pretends to end early comes in by a real gateway and goes out by its
//! smart host client. Whatever is tried, one message arrives with its own envelope, and on the wire
//! there is nothing that any server could take for the end of it.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use support::{eventually, gateway, server, smarthost};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What servers have been known to take for the end of data.
const ENDS: [&[u8]; 12] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r.\r\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r\n.\n",
    b"\n.\r",
    b"\r\r\n.\r\r\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\n\r\n.\r\n\n",
    b"\r\n.\r\n",
];

/// The last two hold the true end of data: by DATA they end it, by BDAT they are content.
const BY_DATA: usize = 10;

const BEFORE: &[u8] = b"Subject: honest\r\n\r\nfirst";
const AFTER: &[u8] = b"MAIL FROM:<forged@bank.example>\r\nRCPT TO:<victim@d.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nsecond\r\n";

/// One message as a server received it, octet for octet.
#[derive(Debug, Default, Clone)]
struct Transaction {
    commands: Vec<String>,
    /// Between the reply 354 and the first CRLF.CRLF, the final dot left out.
    content: Vec<u8>,
}

/// A server that records, and interprets nothing but CRLF and CRLF.CRLF.
#[derive(Debug, Default, Clone)]
struct Recorder(Arc<Mutex<Vec<Transaction>>>);

impl Recorder {
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let recorder = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let recorder = recorder.clone();
                tokio::spawn(async move { recorder.serve(stream).await });
            }
        });
        port
    }

    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let mut input = Vec::new();
        let mut transaction = Transaction::default();
        stream.write_all(b"220 sink\r\n").await.ok()?;
        loop {
            let line = String::from_utf8(until(&mut stream, &mut input, b"\r\n").await?).unwrap();
            transaction.commands.push(line.clone());
            let reply = match line.get(..4).unwrap_or_default() {
                "EHLO" => {
                    transaction.commands.clear();
                    "250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n"
                }
                "DATA" => {
                    stream.write_all(b"354 go\r\n").await.ok()?;
                    // The start of the content is the start of a line.
                    input.splice(0..0, *b"\r\n");
                    let mut content = until(&mut stream, &mut input, b"\r\n.\r\n").await?;
                    content.extend_from_slice(b"\r\n");
                    transaction.content = content.split_off(2);
                    self.0.lock().unwrap().push(std::mem::take(&mut transaction));
                    "250 taken\r\n"
                }
                _ => "250 ok\r\n",
            };
            stream.write_all(reply.as_bytes()).await.ok()?;
        }
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

/// What comes before `end`, which is taken as well.
async fn until(stream: &mut TcpStream, input: &mut Vec<u8>, end: &[u8]) -> Option<Vec<u8>> {
    loop {
        if let Some(at) = input.windows(end.len()).position(|window| window == end) {
            let found = input.drain(..at + end.len()).take(at).collect();
            return Some(found);
        }
        if stream.read_buf(input).await.ok()? == 0 {
            return None;
        }
    }
}

/// Says all of it in the given pieces, and gives the codes of all replies.
async fn say(server: SocketAddr, pieces: &[&[u8]]) -> Vec<String> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        stream.write_all(piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut replies = String::new();
    stream.read_to_string(&mut replies).await.unwrap();
    replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| line[..3].to_owned()).collect()
}

const ENVELOPE: &[u8] = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

/// The dialogue with DATA, and where its content is cut: around and within what pretends to be an end.
fn by_data(end: &[u8]) -> (Vec<u8>, std::ops::Range<usize>) {
    let before = [ENVELOPE, b"DATA\r\n", BEFORE].concat();
    let cuts = before.len()..before.len() + end.len() + 1;
    ([&before[..], end, AFTER, b"\r\n.\r\nQUIT\r\n"].concat(), cuts)
}

/// The dialogue with BDAT, cut into two chunks at each place.
fn by_bdat(end: &[u8]) -> Vec<Vec<u8>> {
    let content = [BEFORE, end, AFTER].concat();
    let chunk = |content: &[u8], last: &str| [format!("BDAT {}{last}\r\n", content.len()).as_bytes(), content].concat();
    (BEFORE.len()..=BEFORE.len() + end.len())
        .map(|at| {
            let (one, two) = content.split_at(at);
            [ENVELOPE, &chunk(one, ""), &chunk(two, " LAST"), b"QUIT\r\n"].concat()
        })
        .collect()
}

fn has_bare_newline(content: &[u8]) -> bool {
    let text: String = content.iter().copied().map(char::from).collect();
    text.replace("\r\n", "").contains(['\r', '\n'])
}

/// One message, one envelope, and on the wire nothing to take for the end.
fn assert_honest(transaction: &Transaction) {
    let Transaction { commands, content } = transaction;
    assert!(commands[0].starts_with("MAIL FROM:<a@b.example>"), "{commands:?}");
    assert_eq!(commands[1..], ["RCPT TO:<c@d.example>", "DATA"], "{commands:?}");
    assert!(!has_bare_newline(content), "{}", content.escape_ascii());
    // Whoever takes other things for line ends finds no line that is a dot: each is doubled.
    let lines = content.split(|octet| matches!(octet, b'\r' | b'\n'));
    assert!(lines.clone().all(|line| line != b"."), "{}", content.escape_ascii());
    assert!(content.windows(6).any(|window| window == b"second"), "all of the content arrives: {}", content.escape_ascii());
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_pretends_to_end_data_one_message_arrives_with_its_own_envelope() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let port = recorder.start().await;
    let gateway = gateway(&(server(directory.path()) + &smarthost("host", port))).await;
    let address = gateway.addresses()[0];
    let mut sent = 0;
    for end in &ENDS[..BY_DATA] {
        let (dialogue, cuts) = by_data(end);
        for at in cuts {
            let (one, two) = dialogue.split_at(at);
            assert_eq!(say(address, &[one, two]).await, ["220", "250", "250", "250", "354", "250", "221"], "{}", end.escape_ascii());
            sent += 1;
        }
        let octets: Vec<&[u8]> = dialogue.chunks(1).collect();
        assert_eq!(say(address, &octets).await, ["220", "250", "250", "250", "354", "250", "221"], "{}", end.escape_ascii());
        sent += 1;
    }
    for end in ENDS {
        for dialogue in by_bdat(end) {
            let replies = say(address, &[&dialogue]).await;
            assert_eq!(replies, ["220", "250", "250", "250", "250", "250", "221"], "{}", end.escape_ascii());
            sent += 1;
        }
    }
    eventually("everything has been handed over", async || gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!(recorder.count(), sent);
    recorder.0.lock().unwrap().iter().for_each(assert_honest);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_bare_newlines_are_refused_nothing_of_such_a_message_goes_out() {
    let directory = tempfile::tempdir().unwrap();
    let recorder = Recorder::default();
    let port = recorder.start().await;
    let config = server(directory.path()) + "[access]\nbare_newline = \"reject\"\n" + &smarthost("host", port);
    let gateway = gateway(&config).await;
    let address = gateway.addresses()[0];
    let mut taken = 0;
    for end in &ENDS[..BY_DATA] {
        let refused = has_bare_newline(end);
        let last = if refused { "550" } else { "250" };
        let (dialogue, cuts) = by_data(end);
        for at in cuts {
            let (one, two) = dialogue.split_at(at);
            assert_eq!(say(address, &[one, two]).await, ["220", "250", "250", "250", "354", last, "221"], "{}", end.escape_ascii());
            taken += usize::from(!refused);
        }
    }
    for end in ENDS {
        for dialogue in by_bdat(end) {
            let replies = say(address, &[&dialogue]).await;
            // The chunk that has it is refused, and the other one with it.
            if has_bare_newline(end) {
                assert!(matches!(replies[4..].join(" ").as_str(), "550 503 221" | "250 550 221"), "{}: {replies:?}", end.escape_ascii());
            } else {
                assert_eq!(replies[4..], ["250", "250", "221"], "{}", end.escape_ascii());
                taken += 1;
            }
        }
    }
    eventually("everything has been handed over", async || gateway.counts().await.unwrap().messages == 0).await;
    assert_eq!(recorder.count(), taken);
    recorder.0.lock().unwrap().iter().for_each(assert_honest);
}
