//! What the protocol offers and what it puts up with: BDAT, odd commands, XCLIENT; and that it makes no
//! difference how the network cuts a dialogue.

use proptest::prelude::*;

use super::*;
use crate::smtp::census::Oddity;

/// The beginning of a transaction with one recipient.
const BEGIN: &str = "MAIL FROM:<a@b.example>\r\nRCPT TO:<c@d.example>\r\n";

/// A command and its chunk.
fn chunk(content: &str, last: &str) -> String {
    format!("BDAT {}{last}\r\n{content}", content.len())
}

/// What came after the Received field.
async fn content(gate: &Gate) -> String {
    let (_, body) = gate.message().await;
    let text = String::from_utf8(body.to_vec()).unwrap();
    let mut lines = text.split_inclusive("\r\n").skip_while(|line| line.starts_with("Received:") || line.starts_with('\t'));
    lines.by_ref().collect()
}

/// Replies with their codes, enhanced codes and texts, the greeting and EHLO left out.
fn after_ehlo(replies: &[String]) -> &[String] {
    let ehlo = replies.iter().position(|line| line.starts_with("250 ")).unwrap();
    &replies[ehlo + 1..]
}

//= https://www.rfc-editor.org/rfc/rfc3030#section-2
//= type=test
//# A 250 response MUST be sent to each successful BDAT data block within
//# a mail transaction.
#[tokio::test]
async fn chunks_make_one_message_and_nothing_in_them_is_a_command_or_an_end() {
    let gate = gate();
    let (header, body) = ("Subject: x\r\n\r\n", "..dot\r\n.\r\nMAIL FROM:<x@y>\r\n");
    let chunks = [chunk(header, ""), chunk("", " "), chunk(body, " last").replacen("BDAT", "bdat", 1)].concat();
    let replies = gate.say(format!("EHLO x\r\n{BEGIN}{chunks}NOOP\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "250", "250", "250", "221"]);
    assert!(after_ehlo(&replies)[2].starts_with("250 2.0.0 14 octets"), "{replies:?}");
    assert_eq!(content(&gate).await, [header, body].concat());
}

#[tokio::test]
async fn the_last_chunk_may_be_empty_and_so_may_the_message() {
    let gate = gate();
    let replies = gate.say(format!("EHLO x\r\n{BEGIN}BDAT 4\r\nab\r\nBDAT 0 LAST\r\n{BEGIN}BDAT 0 LAST\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "250", "250", "250", "250", "221"]);
    assert_eq!(gate.front_end.queue.in_window(), 2);
}

//= https://www.rfc-editor.org/rfc/rfc3030#section-2
//= type=test
//# If the receiver-
//# SMTP has declared support for command pipelining [PIPE], the receiver
//# SMTP MUST be prepared to accept and discard additional BDAT chunks
//# already in the pipeline after the failed BDAT.
#[tokio::test]
async fn a_chunk_that_is_refused_is_read_to_its_end_and_ends_the_transaction() {
    let gate = gate_with(|setup| setup.access.max_message_size = 100, When::default());
    let big = "x".repeat(98) + "\r\n";
    let replies = gate
        .say(format!(
            "EHLO x\r\nBDAT 6\r\nQUIT\r\nMAIL FROM:<a@b>\r\nBDAT 6 LAST\r\nQUIT\r\n\
             {BEGIN}BDAT 100\r\n{big}BDAT 2\r\n\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<c@d>\r\n{BEGIN}BDAT 100 LAST\r\n{big}QUIT\r\n"
        ))
        .await;
    assert_eq!(codes(&replies), ["220", "250", "503", "250", "503", "250", "250", "250", "552", "503", "503", "250", "250", "250", "221"]);
    assert_eq!(gate.front_end.queue.in_window(), 1);
}

#[tokio::test]
async fn bdat_and_data_do_not_mix_and_rset_begins_anew() {
    let gate = gate();
    let replies = gate
        .say(format!(
            "EHLO x\r\n{BEGIN}BDAT 3\r\nabcDATA\r\nMAIL FROM:<x@y>\r\nRCPT TO:<e@f>\r\nRSET\r\nBDAT 3 LAST\r\nabc{BEGIN}DATA\r\nhi\r\n.\r\nBDAT 0 LAST\r\nQUIT\r\n"
        ))
        .await;
    assert_eq!(
        codes(&replies),
        ["220", "250", "250", "250", "250", "503", "503", "503", "250", "503", "250", "250", "354", "250", "503", "221"]
    );
    assert_eq!(content(&gate).await, "hi\r\n");
}

#[tokio::test]
async fn a_chunk_of_unknown_length_closes_the_session_so_that_its_content_is_not_read_as_commands() {
    for line in [
        "BDAT",
        "BDAT\t20",
        "bdat 20\tLAST",
        "BDAT 20 \u{85}",
        "BDAT 20\n",
        "BDAT 20\r",
        "BDAT x",
        "BDAT -1",
        "BDAT 1 2",
        "BDAT +5 LAST",
        "BDAT 5 FIRST",
        "BDAT 99999999999999999999",
    ] {
        let gate = gate();
        let replies = gate.say(format!("EHLO x\r\n{BEGIN}{line}\r\nMAIL FROM:<x@y>\r\n")).await;
        assert_eq!(codes(&replies), ["220", "250", "250", "250", "501"], "{line}");
    }
}

#[tokio::test]
async fn chunks_are_mended_or_refused_as_data_is() {
    let chunks = [chunk("\r\na\nb\r", ""), chunk("\nc\n\r", ""), chunk(".", " LAST")].concat();
    let dialogue = format!("EHLO x\r\n{BEGIN}{chunks}NOOP\r\nQUIT\r\n");
    let mending = gate();
    assert_eq!(codes(&mending.say(&dialogue).await), ["220", "250", "250", "250", "250", "250", "250", "250", "221"]);
    assert_eq!(content(&mending).await, "\r\na\r\nb\r\nc\r\n\r\n.");
    let refusing = gate_with(|setup| setup.access.bare_newline = BareNewline::Reject, When::default());
    let replies = refusing.say(&dialogue).await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "550", "503", "503", "250", "221"]);
}

#[tokio::test]
async fn a_drain_lets_a_message_in_chunks_finish() {
    let gate = gate();
    let mut client = gate.connect_from("127.0.0.1");
    client.write_all(format!("EHLO x\r\n{BEGIN}BDAT 4\r\nab\r\n").as_bytes()).await.unwrap();
    let mut output = Vec::new();
    while !output.ends_with(b"octets received\r\n") {
        client.read_buf(&mut output).await.unwrap();
    }
    gate.shutdown.cancel();
    client.write_all(b"BDAT 4 LAST\r\ncd\r\nNOOP\r\n").await.unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).await.unwrap();
    assert_eq!(codes(&rest.lines().map(str::to_owned).collect::<Vec<_>>()), ["250", "421"]);
}

#[tokio::test]
async fn odd_commands_are_understood_and_counted_once_each() {
    let gate = gate();
    let replies = gate
        .say(
            "helo\r\nmail from: a@b.example size=10\r\nRCPT TO: <c@d.example>  \r\nRCPT TO:e@f.example\r\nDATA \r\na\nb\r\n.\r\nQUIT\t\r\n",
        )
        .await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "354", "250", "221"]);
    let (envelope, body) = gate.message().await;
    assert_eq!(envelope.reverse_path.as_str(), "a@b.example");
    assert!(body.starts_with(b"Received: from [127.0.0.1] ([127.0.0.1])"));
    let list: Vec<_> = gate.front_end.census.list().into_iter().map(|habit| (habit.oddity, habit.count)).collect();
    assert_eq!(list, [(Oddity::SpaceAfterColon, 2), (Oddity::NoAngleBrackets, 2), (Oddity::HelloWithoutName, 1), (Oddity::BareNewline, 1)]);
}

#[tokio::test]
async fn what_is_not_offered_is_refused_with_its_reason() {
    let gate = gate();
    let replies = gate
        .say("EHLO x\r\nEXPN staff\r\nETRN b.example\r\nTURN\r\nSOML FROM:<a@b>\r\nVRFY postmaster\r\nMAIL FROM:<a@b> REQUIRETLS\r\nMAIL FROM:<a@b> BODY=BINARYMIME\r\nMAIL FROM:<a@b> AUTH=x\r\nMAIL FROM:<a@b> AUTH=e+3Dmc2@b.example\r\nRSET\r\nMAIL FROM:<a@b> AUTH=<>\r\nHELP MAIL\r\nNOOP x\r\nXCLIENT ADDR=1.2.3.4\r\nQUIT\r\n")
        .await;
    assert_eq!(
        codes(&replies),
        ["220", "250", "502", "502", "502", "502", "252", "555", "501", "501", "250", "250", "250", "214", "250", "550", "221"]
    );
    assert!(after_ehlo(&replies)[5].starts_with("555 5.7.30 REQUIRETLS is not offered"), "{replies:?}");
    assert!(replies.iter().all(|line| !line.contains("XCLIENT NAME")));
}

#[tokio::test]
async fn smtputf8_goes_through_with_a_name_outside_ascii() {
    let gate = gate();
    let replies = gate
        .say("EHLO b\u{fc}ro.example\r\nMAIL FROM:<j\u{f6}rg@b\u{fc}ro.example> BODY=8BITMIME SMTPUTF8\r\nRCPT TO:<\u{7528}@\u{4f8b}.example>\r\nDATA\r\nSubject: \u{fc}\r\n\r\n.\r\nQUIT\r\n")
        .await;
    assert_eq!(codes(&replies), ["220", "250", "250", "250", "354", "250", "221"]);
    let (envelope, body) = gate.message().await;
    assert!(envelope.smtputf8 && envelope.recipients[0].address.as_str() == "\u{7528}@\u{4f8b}.example");
    let body = String::from_utf8(body.to_vec()).unwrap();
    assert!(body.starts_with("Received: from b\u{fc}ro.example (") && body.contains("with UTF8SMTP id"), "{body}");
}

#[tokio::test]
async fn a_listener_that_does_not_ask_for_xclient_believes_nobody() {
    // A balancer that is trusted elsewhere passes a stranger on.
    let trust = |setup: &mut Setup| setup.access.trusted_proxies = vec!["10.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    let gate = gate_with(trust, When::default());
    let replies = gate.say_from("10.0.0.1", format!("EHLO x\r\nXCLIENT ADDR=127.0.0.1\r\n{BEGIN}QUIT\r\n")).await;
    assert!(!replies.iter().any(|reply| reply.contains("XCLIENT NAME")), "{replies:?}");
    assert_eq!(codes(&replies), ["220", "250", "550", "250", "554", "221"]);
}

#[tokio::test]
async fn a_trusted_proxy_says_who_its_client_is_and_nobody_else_does() {
    let trust = |setup: &mut Setup| {
        setup.listener.xclient = true;
        setup.access.trusted_proxies = vec!["10.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    };
    let gate = gate_with(trust, When::default());
    let message = format!("EHLO client.example\r\n{BEGIN}DATA\r\nhi\r\n.\r\n");
    // The proxy itself may not relay, a client of it on a trusted network may.
    let replies = gate.say_from("10.0.0.1", format!("EHLO proxy\r\nXCLIENT ADDR=127.0.0.9 NAME=x\r\n{message}QUIT\r\n")).await;
    assert!(replies.contains(&format!("250 {}", crate::smtp::xclient::OFFER)), "{replies:?}");
    assert_eq!(codes(&replies), ["220", "250", "220", "250", "250", "250", "354", "250", "221"]);
    assert!(gate.message().await.1.starts_with(b"Received: from client.example ([127.0.0.9])"));
    // A stranger stays one, and so does a client that the proxy does not know.
    for told in ["ADDR=192.0.2.1", "ADDR=[UNAVAILABLE]", "ADDR=IPV6:2001:db8::1"] {
        let replies = gate.say_from("10.0.0.1", format!("XCLIENT {told}\r\nMAIL FROM:<a@b>\r\nEHLO x\r\n{BEGIN}QUIT\r\n")).await;
        assert_eq!(codes(&replies), ["220", "220", "503", "250", "250", "554", "221"], "{told}");
    }
    let replies = gate.say_from("10.0.0.1", format!("EHLO x\r\nXCLIENT LOGIN=nobody\r\n{BEGIN}XCLIENT ADDR=127.0.0.1\r\nQUIT\r\n")).await;
    assert_eq!(codes(&replies), ["220", "250", "501", "250", "554", "503", "221"]);
    // The client that was named is no proxy, but the connection is still the proxy's.
    let replies = gate.say_from("10.0.0.2", "XCLIENT ADDR=127.0.0.1\r\nEHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nQUIT\r\n").await;
    assert_eq!(codes(&replies), ["220", "550", "250", "250", "554", "221"]);
}

#[tokio::test]
async fn sessions_behind_a_proxy_count_as_those_of_its_client() {
    let change = |setup: &mut Setup| {
        setup.listener.xclient = true;
        setup.access.trusted_proxies = vec!["10.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
        setup.settings.max_connections_per_client = 1;
    };
    let gate = gate_with(change, When::default());
    let sessions = Arc::new(crate::smtp::Sessions::default());
    let mut open = Vec::new();
    for (told, reply) in [("192.0.2.1", "220 "), ("192.0.2.2", "220 "), ("192.0.2.1", "421 4.7.0 Too many connections from your address")] {
        let (mut ours, theirs) = duplex(64 * 1024);
        let client = Client::at("10.0.0.1".parse().unwrap());
        let mut place = sessions.enter(10).unwrap();
        place.is_of_client(client.address, 1).expect("the sessions before are not the proxy's any more");
        let (door, front_end) = (Arc::clone(&gate.door), Arc::clone(&gate.front_end));
        tokio::spawn(converse_at(place, theirs, client, door, front_end, gate.shutdown.clone()));
        ours.write_all(format!("XCLIENT ADDR={told}\r\n").as_bytes()).await.unwrap();
        let mut said = Vec::new();
        while said.iter().filter(|octet| **octet == b'\n').count() < 2 {
            assert!(ours.read_buf(&mut said).await.unwrap() > 0);
        }
        let said = String::from_utf8(said).unwrap();
        assert!(said.lines().nth(1).unwrap().starts_with(reply), "{told}: {said}");
        open.push(ours);
    }
}

#[tokio::test]
async fn the_client_of_a_proxy_that_passes_everything_on_cannot_say_that_it_is_somebody_else() {
    let trust = |setup: &mut Setup| {
        setup.listener.xclient = true;
        setup.access.trusted_proxies = vec!["10.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    };
    let gate = gate_with(trust, When::default());
    // Two XCLIENTs are the proxy's, because one line may not be enough. Behind EHLO the client speaks.
    let proxy = "EHLO proxy\r\nXCLIENT ADDR=192.0.2.1\r\nXCLIENT NAME=x\r\n";
    for hello in ["EHLO", "HELO"] {
        let client = format!("{hello} client\r\n{BEGIN}RSET\r\nXCLIENT ADDR=127.0.0.1\r\nEHLO client\r\n{BEGIN}QUIT\r\n");
        let replies = gate.say_from("10.0.0.1", format!("{proxy}{client}")).await;
        let expected = ["220", "250", "220", "220", "250", "250", "554", "250", "503", "250", "250", "554", "221"];
        assert_eq!(codes(&replies), expected);
        assert_eq!(replies.iter().filter(|line| line.contains("XCLIENT NAME")).count(), 1, "only the proxy is offered it");
    }
}

impl Gate {
    /// Replies and messages of a dialogue of which the server never sees more than `size` octets at once.
    async fn say_by(&self, input: &[u8], size: usize) -> (String, Vec<(Envelope, String)>) {
        let (ours, theirs) = duplex(size);
        let client = Client::at("127.0.0.1".parse().unwrap());
        tokio::spawn(converse(theirs, client, Arc::clone(&self.door), Arc::clone(&self.front_end), self.shutdown.clone()));
        let (mut read, mut write) = tokio::io::split(ours);
        let input = input.to_vec();
        let writing = tokio::spawn(async move {
            let _ = write.write_all(&input).await;
            let _ = write.shutdown().await;
        });
        let mut output = String::new();
        read.read_to_string(&mut output).await.unwrap();
        writing.await.unwrap();
        // The ids are those of this run.
        let replies = output.lines().map(|line| line.split("queued as").next().unwrap()).collect::<Vec<_>>().join("\n");
        let (mut messages, mut leases) = (Vec::new(), Vec::new());
        for _ in 0..self.front_end.queue.in_window() {
            let lease = self.front_end.queue.lease().await;
            let message = Arc::clone(lease.message());
            let body = String::from_utf8_lossy(&message.body.bytes().await.unwrap()).into_owned();
            let own = body.match_indices("\r\n").map(|(at, _)| at + 2).find(|at| !body[*at..].starts_with('\t')).unwrap();
            messages.push((message.envelope.clone(), body[own..].to_owned()));
            leases.push(lease);
        }
        (replies, messages)
    }
}

/// Pieces of dialogues, in any order: whole transactions, fragments, nonsense.
fn dialogue() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop_oneof!["\r\n", "\n", "\r", Just(".".to_owned()), "a", "X: y\r\n", Just("\r\n.\r".to_owned()), "b{0,1200} "];
    let text = proptest::collection::vec(odd, 0..8).prop_map(|parts| parts.concat()).boxed();
    let piece = prop_oneof![
        4 => Just(BEGIN.to_owned()),
        4 => text.clone().prop_map(|text| format!("DATA\r\n{text}\r\n.\r\n")),
        3 => text.clone().prop_map(|text| chunk(&text, "")),
        3 => text.clone().prop_map(|text| chunk(&text, " LAST")),
        1 => text,
        1 => "(RSET|NOOP x|VRFY a|HELO|MAIL FROM: a@b|RCPT TO:<c@d>|DATA|BDAT 5|BDAT x|QUIT)(\r\n|\n|\r)",
    ];
    proptest::collection::vec(piece, 0..8).prop_map(|pieces| format!("EHLO x\r\n{}", pieces.concat()).into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn the_same_octets_get_the_same_replies_and_messages_however_they_are_cut(input in dialogue(), size in 1usize..40, reject in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (whole, cut) = runtime.block_on(async {
            let policy = if reject { BareNewline::Reject } else { BareNewline::Normalize };
            let small = |setup: &mut Setup| {
                setup.access.bare_newline = policy;
                setup.access.max_message_size = 1000;
            };
            let (one, other) = (gate_with(small, When::default()), gate_with(small, When::default()));
            (one.say_by(&input, 1 << 20).await, other.say_by(&input, size).await)
        });
        let has_bare = |body: &str| body.replace("\r\n", "").contains(['\r', '\n']);
        prop_assert!(!whole.1.iter().any(|(_, body)| has_bare(body)), "no CR or LF stands alone in what was taken");
        prop_assert_eq!(whole, cut);
    }
}
