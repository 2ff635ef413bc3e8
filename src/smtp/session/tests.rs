//! Dialogues: what a client says, and every reply it gets.

mod auth;
mod patience;
mod protocol;
mod tls;

use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use postrider_providers::contract::ReversePath;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::access::Access;
use crate::clock::Clock;
use crate::config::{self, Application, BareNewline, Listener, MissingFields, Route, ToleranceSettings, When};
use crate::queue::{Queue, Settings as QueueSettings};
use crate::route::Router;
use crate::smtp::Settings;
use crate::spool::SpoolError;
use crate::spool::memory::MemorySpool;

/// A front end whose messages can be looked at.
struct Gate {
    door: Arc<Door>,
    front_end: Arc<FrontEnd<MemorySpool>>,
    spool: MemorySpool,
    shutdown: CancellationToken,
}

/// What a test may change about it.
struct Setup {
    settings: Settings,
    access: config::Access,
    applications: Vec<Application>,
    listener: Listener,
}

fn gate_with(change: impl FnOnce(&mut Setup), when: When) -> Gate {
    let mut setup = Setup {
        settings: Settings { hostname: "relay.example".to_owned(), ..Settings::default() },
        access: config::Access::default(),
        applications: Vec::new(),
        // What is added to a message that lacks something would stand in every comparison.
        listener: Listener {
            tolerance: ToleranceSettings { missing_fields: Some(MissingFields::Keep), ..ToleranceSettings::default() },
            ..Listener::plain("127.0.0.1:25".parse().unwrap())
        },
    };
    change(&mut setup);
    let spool = MemorySpool::new();
    let route = Route { name: "all".into(), when, providers: vec!["capture.all".into()], ..Route::default() };
    let front_end = Arc::new(FrontEnd {
        settings: setup.settings,
        access: Access::new(setup.access, setup.applications.into_iter().map(Arc::new).collect()),
        router: Arc::new(Router::new(vec![route])),
        queue: Queue::new(spool.clone(), QueueSettings::default(), Clock::system()),
        clock: Clock::system(),
        census: Arc::default(),
    });
    Gate { door: Arc::new(Door { listener: setup.listener, tls: None }), front_end, spool, shutdown: CancellationToken::new() }
}

fn gate() -> Gate {
    gate_with(|_| {}, When::default())
}

impl Gate {
    fn connect_from(&self, client: &str) -> DuplexStream {
        let (ours, theirs) = duplex(64 * 1024);
        let client = Client::at(client.parse().unwrap());
        tokio::spawn(converse(theirs, client, Arc::clone(&self.door), Arc::clone(&self.front_end), self.shutdown.clone()));
        ours
    }

    /// Says everything at once, as a pipelining client does, and gives all replies, the greeting first.
    async fn say(&self, input: impl AsRef<[u8]>) -> Vec<String> {
        self.say_from("127.0.0.1", input).await
    }

    async fn say_from(&self, client: &str, input: impl AsRef<[u8]>) -> Vec<String> {
        let (mut read, mut write) = tokio::io::split(self.connect_from(client));
        let input = input.as_ref().to_vec();
        let writing = tokio::spawn(async move {
            // The server may hang up in the middle; what it said is what counts.
            let _ = write.write_all(&input).await;
            let _ = write.shutdown().await;
        });
        let mut output = String::new();
        read.read_to_string(&mut output).await.unwrap();
        writing.await.unwrap();
        output.lines().map(str::to_owned).collect()
    }

    /// The only message that was taken: its envelope and body.
    async fn message(&self) -> (Envelope, Bytes) {
        let lease = self.front_end.queue.lease().await;
        let message = Arc::clone(lease.message());
        assert_eq!(self.front_end.queue.in_window(), 1);
        (message.envelope.clone(), message.body.bytes().await.unwrap())
    }
}

/// The replies' codes, continuation lines left out.
fn codes(replies: &[String]) -> Vec<&str> {
    replies.iter().filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| &line[..3]).collect()
}

#[tokio::test]
async fn a_message_is_taken_with_one_received_field_before_it() {
    let gate = gate();
    let replies = gate.say("EHLO printer.example\r\nMAIL FROM:<a@b.example> SIZE=20\r\nRCPT TO:<c@d.example>\r\nDATA\r\nSubject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "250", "221"]);
    assert!(replies[0].starts_with("220 relay.example ESMTP"));
    assert!(replies.iter().any(|line| line.starts_with("250 2.0.0 Ok: queued as ")));

    let (envelope, body) = gate.message().await;
    assert_eq!(envelope.reverse_path, ReversePath::Mailbox("a@b.example".parse().unwrap()));
    assert_eq!(envelope.recipients[0].address.as_str(), "c@d.example");
    let text = String::from_utf8(body.to_vec()).unwrap();
    let (trace, content) = text.split_at(text.find("Subject").unwrap());
    assert_eq!(content, "Subject: x\r\n\r\n.dot\r\n");
    assert!(trace.starts_with("Received: from printer.example ([127.0.0.1])\r\n\tby relay.example (Postrider) with ESMTP id "), "{trace}");
    assert!(trace.contains("\r\n\tfor <c@d.example>;\r\n\t"));
    assert_eq!(trace.matches("Received:").count(), 1);
}

#[tokio::test]
async fn ehlo_offers_what_is_built_and_nothing_else() {
    let replies = gate().say("EHLO x\r\nQUIT\r\n").await;
    assert_eq!(
        &replies[1..8],
        ["250-relay.example", "250-PIPELINING", "250-SIZE 36700160", "250-8BITMIME", "250-ENHANCEDSTATUSCODES", "250-SMTPUTF8", "250-DSN"]
    );
}

#[tokio::test]
async fn commands_out_of_order_are_refused_and_change_nothing() {
    let gate = gate();
    let replies = gate
        .say("MAIL FROM:<a@b>\r\nHELO x\r\nRCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<c@d>\r\nDATA\r\nRSET\r\nRCPT TO:<a@b>\r\nQUIT\r\n")
        .await;
    assert_eq!(codes(&replies), ["220", "503", "250", "503", "503", "250", "503", "503", "250", "503", "221"]);
    assert_eq!(gate.front_end.queue.in_window(), 0);
}

#[tokio::test]
async fn several_messages_go_through_one_session() {
    let gate = gate();
    let one = "MAIL FROM:<>\r\nRCPT TO:<c@d>\r\nDATA\r\n.\r\n";
    let replies = gate.say(format!("EHLO x\r\n{one}{one}QUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "250", "250", "250", "354", "250", "221"]);
    assert_eq!(gate.front_end.queue.in_window(), 2);
}

#[tokio::test]
async fn a_client_outside_the_trusted_networks_cannot_relay() {
    let gate = gate();
    let replies = gate.say_from("192.0.2.1", "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["220", "250", "250", "554", "503", "221"]);
}

#[tokio::test]
async fn a_recipient_that_no_route_takes_is_refused_at_once() {
    let when = When { recipient_domains: vec!["d.example".parse().unwrap()], ..When::default() };
    let replies =
        gate_with(|_| {}, when).say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d.example>\r\nRCPT TO:<c@e.example>\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "550", "221"]);
}

#[tokio::test]
async fn the_same_recipient_twice_gets_one_copy_and_too_many_wait_for_the_next_transaction() {
    let gate = gate_with(|setup| setup.access.max_recipients = 2, When::default());
    let replies = gate
        .say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<c@D>\r\nRCPT TO:<C@d>\r\nRCPT TO:<e@d>\r\nDATA\r\n.\r\nQUIT\r\n")
        .await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "250", "452", "354", "250", "221"]);
    let (envelope, _) = gate.message().await;
    assert_eq!(envelope.recipients.iter().map(|recipient| recipient.address.as_str()).collect::<Vec<_>>(), ["c@d", "C@d"]);
}

#[tokio::test]
async fn what_the_client_asks_about_notifications_goes_with_the_envelope() {
    let gate = gate();
    let replies = gate
        .say(
            "EHLO x\r\nMAIL FROM:<a@b> RET=full ENVID=QQ+20314\r\nRCPT TO:<c@d> NOTIFY=SUCCESS ORCPT=rfc822;First@d\r\nRCPT TO:<e@d> NOTIFY=NEVER\r\n\
             RCPT TO:<f@d>\r\nRCPT TO:<c@D> NOTIFY=DELAY ORCPT=rfc822;Second@d\r\nRCPT TO:<g@d> NOTIFY=SOMETIMES\r\nDATA\r\n.\r\nQUIT\r\n",
        )
        .await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "250", "250", "501", "354", "250", "221"]);
    let (envelope, _) = gate.message().await;
    assert_eq!((envelope.returned.unwrap().as_str(), envelope.envelope_id.as_deref()), ("FULL", Some("QQ 314")));
    let asked: Vec<String> = envelope
        .recipients
        .iter()
        .map(|recipient| {
            let notify = recipient.notify.map_or("-".to_owned(), |notify| notify.to_string());
            format!("{} {notify} {}", recipient.address, recipient.original.as_ref().map_or("-", |original| &original.address))
        })
        .collect();
    assert_eq!(asked, ["c@d SUCCESS,DELAY First@d", "e@d NEVER -", "f@d - -"], "one that is named twice keeps both requests");
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_at_mail_or_while_it_comes_and_the_session_goes_on() {
    let gate = gate_with(|setup| setup.access.max_message_size = 100, When::default());
    let big = "x".repeat(200);
    let replies = gate
        .say(format!(
            "EHLO x\r\nMAIL FROM:<a@b> SIZE=101\r\nMAIL FROM:<a@b> SIZE=100\r\nRCPT TO:<c@d>\r\nDATA\r\n{big}\r\n.\r\nNOOP\r\nQUIT\r\n"
        ))
        .await;
    assert_eq!(codes(&replies), ["220", "250", "552", "250", "250", "354", "552", "250", "221"]);
    assert_eq!(gate.front_end.queue.in_window(), 0);
}

#[tokio::test]
async fn bcc_does_not_pass_and_a_loop_is_noticed() {
    let gate = gate();
    let loop_ = "Received: x\r\n".repeat(100);
    let head = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";
    let replies = gate.say(format!("EHLO x\r\n{head}{loop_}\r\n.\r\n{head}Bcc: secret@x\r\nSubject: s\r\n\r\n.\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "554", "250", "250", "354", "250", "221"]);
    let (_, body) = gate.message().await;
    assert!(body.ends_with(b"Subject: s\r\n\r\n") && !body.windows(6).any(|window| window == b"secret"));
}

#[tokio::test]
async fn a_bare_newline_is_mended_or_refused_as_configured() {
    let dialogue = "EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n\r\none\ntwo\n.\nthree\r\n.\r\nQUIT\r\n";
    let mending = gate();
    assert_eq!(codes(&mending.say(dialogue).await), ["220", "250", "250", "250", "354", "250", "221"]);
    assert!(mending.message().await.1.ends_with(b"\r\n\r\none\r\ntwo\r\n.\r\nthree\r\n"));
    let refusing = gate_with(|setup| setup.access.bare_newline = BareNewline::Reject, When::default());
    assert_eq!(codes(&refusing.say(dialogue).await), ["220", "250", "250", "250", "354", "550", "221"]);
}

#[tokio::test]
async fn a_command_that_ends_with_a_bare_lf_or_is_too_long_is_refused() {
    let long = "x".repeat(5000);
    let replies = gate().say(format!("EHLO x\nNOOP {long}\r\nNOOP\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "500", "500", "250", "221"]);
}

#[tokio::test]
async fn too_many_errors_end_the_session() {
    let gate = gate_with(|setup| setup.settings.max_errors = 3, When::default());
    let replies = gate.say("A\r\nB\r\nC\r\nEHLO x\r\n").await;
    assert_eq!(codes(&replies), ["220", "500", "500", "500", "421"]);
}

#[tokio::test]
async fn a_full_spool_is_a_temporary_refusal_and_the_next_message_is_taken() {
    let gate = gate();
    let one = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhello\r\n.\r\n";
    gate.spool.set_fault(Some(SpoolError::Full("no space left".to_owned())));
    assert_eq!(codes(&gate.say(format!("EHLO x\r\n{one}QUIT\r\n")).await), ["220", "250", "250", "250", "354", "452", "221"]);
    gate.spool.set_fault(Some(SpoolError::Unavailable("read-only".to_owned())));
    assert_eq!(codes(&gate.say(format!("EHLO x\r\n{one}QUIT\r\n")).await)[5], "451");
    gate.spool.set_fault(None);
    assert_eq!(codes(&gate.say(format!("EHLO x\r\n{one}QUIT\r\n")).await)[5], "250");
}

#[tokio::test]
async fn a_client_that_goes_away_in_the_middle_of_data_leaves_nothing() {
    let gate = gate();
    let replies = gate.say("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhalf a mess").await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354"]);
    assert_eq!(gate.front_end.queue.in_window(), 0);
    assert_eq!(gate.front_end.queue.counts().await.unwrap().messages, 0);
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_told_and_dropped_after_five_minutes() {
    let mut client = gate().connect_from("127.0.0.1");
    let start = tokio::time::Instant::now();
    let mut output = String::new();
    client.read_to_string(&mut output).await.unwrap();
    assert!(output.contains("\r\n421 4.4.2 "), "{output}");
    assert_eq!(start.elapsed().as_secs(), Duration::from_secs(300).as_secs());
}

#[tokio::test]
async fn a_drain_lets_the_message_at_hand_finish_and_says_goodbye() {
    let gate = gate();
    let mut client = gate.connect_from("127.0.0.1");
    client.write_all(b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nbegin").await.unwrap();
    let mut output = Vec::new();
    while !output.ends_with(b"<CR><LF>.<CR><LF>\r\n") {
        client.read_buf(&mut output).await.unwrap();
    }
    gate.shutdown.cancel();
    client.write_all(b" end\r\n.\r\nNOOP\r\n").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(codes(&rest.lines().map(str::to_owned).collect::<Vec<_>>()), ["250", "421"]);
    assert_eq!(gate.front_end.queue.in_window(), 1);
}

#[tokio::test]
async fn recipients_past_the_limit_do_not_cost_the_session() {
    let gate = gate_with(|setup| setup.access.max_recipients = 3, When::default());
    let recipients: String = (0..40).map(|number| format!("RCPT TO:<u{number}@d.example>\r\n")).collect();
    let replies = gate.say(format!("EHLO x\r\nMAIL FROM:<a@b.example>\r\n{recipients}DATA\r\nhi\r\n.\r\nQUIT\r\n")).await;
    assert_eq!(replies.iter().filter(|reply| reply.starts_with("452 4.5.3")).count(), 37);
    assert_eq!(codes(&replies[replies.len() - 3..]), ["354", "250", "221"]);
}

#[tokio::test]
async fn refusals_count_from_the_last_message_that_was_taken() {
    let gate = gate_with(|setup| setup.settings.max_errors = 3, When::default());
    let message = "NONSENSE\r\nNONSENSE\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nhi\r\n.\r\n";
    let replies = gate.say(format!("EHLO x\r\n{message}{message}NONSENSE\r\nNONSENSE\r\nNONSENSE\r\nNOOP\r\n")).await;
    assert_eq!(replies.iter().filter(|reply| reply.contains("queued as")).count(), 2);
    assert_eq!(codes(&replies[replies.len() - 4..]), ["500", "500", "500", "421"]);
}

#[tokio::test]
async fn when_serving_is_cut_off_so_are_the_sessions() {
    let gate = gate();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = crate::smtp::Serving {
        door: Arc::new(ArcSwap::new(Arc::clone(&gate.door))),
        front_end: Arc::new(ArcSwap::new(Arc::clone(&gate.front_end))),
        sessions: Arc::default(),
        gone: CancellationToken::new(),
    };
    let closed = CancellationToken::new();
    let serving = tokio::spawn(crate::smtp::serve(listener, serving, closed, gate.shutdown.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\nDATA\r\nhi\r\n").await.unwrap();
    let mut replies = String::new();
    while !replies.contains("354") {
        replies.push(char::from(client.read_u8().await.unwrap()));
    }
    gate.shutdown.cancel();
    serving.abort();
    assert!(serving.await.is_err());
    let ended = tokio::time::timeout(Duration::from_secs(20), client.read_to_string(&mut replies)).await;
    assert!(ended.is_ok(), "the session goes on");
    assert!(replies.ends_with(">\r\n"), "it ends without another word: {replies}");
    assert_eq!(gate.front_end.queue.in_window(), 0);
}
