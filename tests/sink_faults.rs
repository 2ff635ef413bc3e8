//! What happens when the first provider is Postfix's test server and fails at one command after the
//! other, as no server of our own would.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use postrider::dispatch::CircuitState;
use postrider::gateway::Gateway;
use postrider::spool::sqlite::SqliteSpool;
use support::client::{message, send};
use support::sink::{Dumped, Sink, source};
use support::{eventually, gateway, server, smarthost};

/// Short waits, so that a retry is seen. Notifications have a way of their own past the faults.
const TAIL: &str = "[[route]]\nname = \"senders\"\nwhen = { recipient_domain = [\"corp.example\"] }\nproviders = [\"smarthost.second\"]\n\
                    [[route]]\nname = \"default\"\nproviders = [\"smarthost.first\", \"smarthost.second\"]\n\
                    [queue]\nretry = [\"1s\"]\n[failover]\ntrip_after = 3\nprobe_after = \"500ms\"\nprobe_max = \"1s\"\n";

const RECIPIENTS: [&str; 2] = ["b@example.net", "c@example.net"];

/// Two `smtp-sink`s behind a gateway.
struct Stage {
    directory: tempfile::TempDir,
    first: Sink,
    second: Sink,
    gateway: Gateway<SqliteSpool>,
}

/// What became of one message.
struct Fate {
    /// How many times the first provider read it to its end, whatever it answered.
    read_by_first: usize,
    at_second: usize,
    sender_told: bool,
}

impl Stage {
    async fn new(faults: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let first = Sink::start(&directory.path().join("first"), faults);
        let second = Sink::start(&directory.path().join("second"), &[]);
        let config =
            [server(&directory.path().join("data")), smarthost("first", first.port()), smarthost("second", second.port()), TAIL.to_owned()];
        let gateway = gateway(&config.concat()).await;
        Self { directory, first, second, gateway }
    }

    async fn queue_empties(&self) {
        eventually("the queue is empty", async || self.gateway.counts().await.unwrap().messages == 0).await;
    }

    /// The first provider gives way to one without faults, at the same address.
    fn recover(&mut self) {
        let port = self.first.port();
        let well = self.directory.path().join("well");
        self.first.stop();
        self.first = Sink::start_at(&well, port, &[]);
    }

    fn first_has_failed(&self) -> bool {
        let circuits = self.gateway.circuits();
        let (_, circuit) = circuits.iter().find(|(name, _)| name.as_str() == "smarthost.first").unwrap();
        !matches!(circuit.state(), CircuitState::Closed { faults: 0 })
    }
}

async fn drill(faults: &[&str], content: &[u8]) -> Fate {
    let mut stage = Stage::new(faults).await;
    send(stage.gateway.addresses()[0], "a@corp.example", &RECIPIENTS, content).await;
    let mut read_by_first = 0;
    if faults == ["-q", "."] {
        // In doubt: it stays with the first provider, for as long as that takes.
        eventually("the first provider has failed", async || stage.first_has_failed()).await;
        read_by_first = stage.first.dumped().len();
        stage.recover();
    }
    stage.queue_empties().await;
    let Stage { first, second, gateway, .. } = stage;
    gateway.drain().await;

    let (notifications, at_second): (Vec<_>, Vec<_>) = second.dumped().into_iter().partition(|dumped| dumped.mail.starts_with("<>"));
    let at_first = first.dumped();
    for dumped in at_first.iter().chain(&at_second) {
        assert_eq!(dumped.recipients, RECIPIENTS, "{faults:?}");
    }
    for notification in &notifications {
        assert_eq!(notification.recipients, ["a@corp.example"]);
        let text = String::from_utf8_lossy(&notification.content);
        for recipient in RECIPIENTS {
            assert!(text.contains(&format!("Final-Recipient: rfc822; {recipient}\nAction: failed\n")), "{faults:?}: {text}");
        }
    }
    assert!(notifications.len() <= 1, "{faults:?}: {} notifications", notifications.len());
    Fate { read_by_first: read_by_first + at_first.len(), at_second: at_second.len(), sender_told: !notifications.is_empty() }
}

#[tokio::test]
async fn each_fault_of_smtp_sink_ends_where_the_truth_table_says() {
    let small = message("small");
    // So large that content is still to be sent when the answer comes.
    let large = [message("large"), b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789\r\n".repeat(100_000)].concat();
    let mut table = String::from("the first provider                   | read by first | at second | sender told\n");
    let mut row = async |name: &str, faults: &[&str], content: &[u8]| {
        let Fate { read_by_first, at_second, sender_told } = drill(faults, content).await;
        let told = if sender_told { "yes" } else { "no" };
        writeln!(table, "{name:<36} | {read_by_first:>13} | {at_second:>9} | {told:>11}").unwrap();
    };

    row("is well", &[], &small).await;
    row("offers no extensions", &["-e"], &small).await;
    for command in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        row(&format!("hangs up at {command}"), &["-q", command], &small).await;
    }
    for command in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        row(&format!("421 at {command}"), &["-Q", command], &small).await;
    }
    for command in ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "."] {
        row(&format!("450 at {command}"), &["-r", command], &small).await;
    }
    // Its own words for a hard error are those for a command that it does not know.
    for command in ["CONNECT", "EHLO", "EHLO,HELO", "MAIL", "RCPT", "DATA", "."] {
        row(&format!("500 at {command}"), &["-f", command], &small).await;
    }
    for (command, words) in [
        ("MAIL", "550 5.7.1 not authorised"),
        ("RCPT", "550 5.1.1 no such user"),
        ("RCPT", "554 5.7.1 Relay access denied"),
        ("DATA", "554 5.7.1 not from you"),
        (".", "554 5.6.0 bad content"),
        (".", "552 5.3.4 too large"),
    ] {
        row(&format!("{words} ({command})"), &["-B", words, "-f", command], &small).await;
    }
    row("550 while a small message comes", &["-A", "0"], &small).await;
    row("550 while a large message comes", &["-A", "0"], &large).await;
    row("500 at EHLO, 421 at DATA", &["-f", "EHLO", "-Q", "DATA"], &small).await;
    row("450 at RCPT, hangs up at RSET", &["-r", "RCPT", "-q", "RSET"], &small).await;
    row("hangs up at QUIT", &["-q", "QUIT"], &small).await;

    // Twice in the line of the final dot: what it read before it hung up came again when it was
    // well, and never to the second. 550 at the end of content is a verdict on the content; said at
    // MAIL, or of a command that it does not know, it is not.
    assert_eq!(
        table,
        "\
the first provider                   | read by first | at second | sender told
is well                              |             1 |         0 |          no
offers no extensions                 |             1 |         0 |          no
hangs up at CONNECT                  |             0 |         1 |          no
hangs up at EHLO                     |             0 |         1 |          no
hangs up at MAIL                     |             0 |         1 |          no
hangs up at RCPT                     |             0 |         1 |          no
hangs up at DATA                     |             0 |         1 |          no
hangs up at .                        |             2 |         0 |          no
421 at CONNECT                       |             0 |         1 |          no
421 at EHLO                          |             0 |         1 |          no
421 at MAIL                          |             0 |         1 |          no
421 at RCPT                          |             0 |         1 |          no
421 at DATA                          |             0 |         1 |          no
421 at .                             |             1 |         1 |          no
450 at CONNECT                       |             0 |         1 |          no
450 at EHLO                          |             0 |         1 |          no
450 at MAIL                          |             0 |         1 |          no
450 at RCPT                          |             0 |         1 |          no
450 at DATA                          |             0 |         1 |          no
450 at .                             |             1 |         1 |          no
500 at CONNECT                       |             0 |         1 |          no
500 at EHLO                          |             1 |         0 |          no
500 at EHLO,HELO                     |             0 |         1 |          no
500 at MAIL                          |             0 |         1 |          no
500 at RCPT                          |             0 |         1 |          no
500 at DATA                          |             0 |         1 |          no
500 at .                             |             1 |         0 |         yes
550 5.7.1 not authorised (MAIL)      |             0 |         1 |          no
550 5.1.1 no such user (RCPT)        |             0 |         0 |         yes
554 5.7.1 Relay access denied (RCPT) |             0 |         1 |          no
554 5.7.1 not from you (DATA)        |             0 |         0 |         yes
554 5.6.0 bad content (.)            |             1 |         0 |         yes
552 5.3.4 too large (.)              |             1 |         1 |          no
550 while a small message comes      |             0 |         0 |         yes
550 while a large message comes      |             0 |         0 |         yes
500 at EHLO, 421 at DATA             |             0 |         1 |          no
450 at RCPT, hangs up at RSET        |             0 |         1 |          no
hangs up at QUIT                     |             1 |         0 |          no
"
    );
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_goes_two_ways_when_the_first_provider_dies_under_load() {
    const MESSAGES: usize = 300;
    // It exits in the middle, with sessions open in every stage.
    let mut stage = Stage::new(&["-M", "100"]).await;
    source(stage.gateway.addresses()[0], MESSAGES, 10, 2048).await;
    eventually("the first provider has ended", async || stage.first.has_ended()).await;
    let before = stage.first.dumped();
    stage.recover();
    stage.queue_empties().await;

    let taken_by = |dumped: &[Dumped]| -> Vec<String> { dumped.iter().flat_map(|dumped| dumped.recipients.clone()).collect() };
    let at_first = taken_by(&[before, stage.first.dumped()].into_iter().flatten().collect::<Vec<_>>());
    let at_second = taken_by(&stage.second.dumped());
    let (first, second): (BTreeSet<_>, BTreeSet<_>) = (at_first.iter().collect(), at_second.iter().collect());
    assert_eq!(first.union(&second).count(), MESSAGES, "lost");
    assert_eq!(first.intersection(&second).collect::<Vec<_>>(), Vec::<&&String>::new(), "handed to both");
    assert_eq!(at_second.len(), second.len(), "doubled at second");
    // What it had read when it exited, and not answered, is in doubt and came again: one for each
    // session at most.
    assert!(at_first.len() - first.len() <= 20, "{} doubled at first", at_first.len() - first.len());
}
