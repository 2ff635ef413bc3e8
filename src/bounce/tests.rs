//! Who is told what, and in which form.

use postrider_providers::contract::{self, Address, Notify, OriginalRecipient};

use super::*;

const RELAY: Relay<'_> = Relay { hostname: "relay.example", sender: None };

const CONTENT: &[u8] = b"Subject: Hello\r\nMessage-ID: <1@x>\r\n\r\nsecret text\r\n";

fn message(from: &str, to: &[&str]) -> Message {
    let reverse_path = if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(from.parse().unwrap()) };
    let recipients = to.iter().map(|text| Recipient::from(text.parse::<Address>().unwrap())).collect();
    Message {
        id: MessageId::generate(),
        received: SystemTime::UNIX_EPOCH,
        origin: Origin::default(),
        envelope: Envelope::new(reverse_path, recipients),
        body: Body::Inline(Bytes::from_static(CONTENT)),
    }
}

fn said(code: u16, text: &str) -> Diagnostic {
    Diagnostic { remote: Some("mx.example".into()), ..Diagnostic::reply("RCPT", code, text) }
}

fn refused(recipient: &Recipient) -> Notice<'_> {
    Notice { recipient, event: Event::Failed { diagnostic: said(550, "5.1.1 no such\r\nuser"), expired: false } }
}

fn relayed(recipient: &Recipient, dsn: bool) -> Notice<'_> {
    let receipt = Receipt { reply: "250 2.1.5 Ok: queued as 1".into(), remote: Some("mx.example".into()), dsn, ..Receipt::default() };
    Notice { recipient, event: Event::Relayed(receipt) }
}

/// The notification, and all of its text.
async fn composed(message: &Message, notices: &[Notice<'_>]) -> (Draft, String) {
    let draft = compose(message, notices, RELAY, SystemTime::UNIX_EPOCH, Extent::AsAsked).await.unwrap();
    let mut pieces = draft.pieces().await.unwrap();
    let mut text = Vec::new();
    while let Some(piece) = pieces.next().await.unwrap() {
        text.extend_from_slice(&piece);
    }
    let text = String::from_utf8(text).unwrap();
    assert!(!text.replace("\r\n", "").contains(['\r', '\n']), "{text}");
    (draft, text)
}

fn contains(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "{expected:?} in\n{text}");
    }
}

#[tokio::test]
async fn a_notification_names_each_recipient_with_status_and_words_and_returns_the_header_only() {
    let message = message("app@erp.example", &["a@x.example", "b@x.example", "c@x.example"]);
    let [a, b, c] = message.envelope.recipients.as_slice() else { panic!() };
    let api = Diagnostic { code: Some(400), ..Diagnostic::during("SendEmail", "MessageRejected: no") };
    let notices = [
        refused(a),
        Notice { recipient: b, event: Event::Failed { diagnostic: Diagnostic::during("connect", "connection refused"), expired: true } },
        Notice { recipient: c, event: Event::Failed { diagnostic: api, expired: false } },
    ];
    let (draft, text) = composed(&message, &notices).await;
    assert_eq!((&draft.envelope.reverse_path, draft.envelope.body_type), (&ReversePath::Null, BodyType::SevenBit));
    assert_eq!((draft.envelope.recipients[0].address.as_str(), draft.envelope.recipients.len()), ("app@erp.example", 1));
    assert_eq!((draft.envelope.returned, draft.envelope.smtputf8), (None, false), "RFC 3461 section 6.1: no RET on a notification");
    contains(
        &text,
        &[
            "Subject: Undelivered mail returned to sender\r\n",
            "Content-Type: multipart/report; report-type=delivery-status;\r\n",
            "Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; relay.example\r\nArrival-Date: ",
            "\r\n\r\nFinal-Recipient: rfc822; a@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.example\r\n\
             Diagnostic-Code: smtp; 550 5.1.1 no such  user\r\nLast-Attempt-Date: ",
            "\r\n\r\nFinal-Recipient: rfc822; b@x.example\r\nAction: failed\r\nStatus: 4.4.7\r\n\
             Diagnostic-Code: x-postrider; connect: connection refused\r\n",
            "Status: 5.0.0\r\nDiagnostic-Code: x-http; 400 MessageRejected: no\r\n",
            "Content-Type: text/rfc822-headers\r\n\r\nSubject: Hello\r\nMessage-ID: <1@x>\r\n\r\n--",
        ],
    );
    assert!(!text.contains("secret text") && !text.contains("Original-"), "{text}");
}

#[tokio::test]
async fn a_message_with_the_null_reverse_path_causes_no_notification() {
    let message = message("", &["a@x.example"]);
    let mut asking = message.envelope.recipients[0].clone();
    asking.notify = Notify::parse("SUCCESS,FAILURE");
    for notice in [refused(&asking), relayed(&asking, false)] {
        assert!(notice.is_wanted());
        assert!(compose(&message, &[notice], RELAY, SystemTime::UNIX_EPOCH, Extent::AsAsked).await.is_none());
    }
}

#[test]
fn the_sender_hears_of_what_notify_says_and_of_success_only_where_nobody_else_reports_it() {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.6
    //= type=test
    //# If no NOTIFY parameter was supplied for the recipient, a
    //# "failed" DSN MUST be issued.
    for (notify, failure, success) in [
        (None, true, false),
        (Some("NEVER"), false, false),
        (Some("SUCCESS"), false, true),
        (Some("DELAY"), false, false),
        (Some("FAILURE"), true, false),
        (Some("SUCCESS,FAILURE,DELAY"), true, true),
    ] {
        let mut recipient = Recipient::from("a@x.example".parse::<Address>().unwrap());
        recipient.notify = notify.map(|text| Notify::parse(text).unwrap());
        assert_eq!(refused(&recipient).is_wanted(), failure, "{notify:?}");
        assert_eq!(relayed(&recipient, false).is_wanted(), success, "{notify:?}");
        assert!(!relayed(&recipient, true).is_wanted(), "the next hop reports it");
    }
}

#[tokio::test]
async fn failure_and_success_stand_in_one_notification_with_what_the_sender_called_them() {
    let mut message = message("app@erp.example", &["a@x.example", "b@x.example"]);
    message.envelope.envelope_id = Some("QQ 314159".into());
    message.envelope.returned = Some(contract::Returned::Full);
    message.envelope.recipients[1].original = Some(OriginalRecipient::parse("rfc822;Bob+2BTag@Y.example").unwrap());
    let [a, b] = message.envelope.recipients.as_slice() else { panic!() };
    let (_, text) = composed(&message, &[refused(a), relayed(b, false)]).await;
    contains(
        &text,
        &[
            "Subject: Undelivered mail returned to sender\r\n",
            "\r\n\r\nOriginal-Envelope-Id: QQ 314159\r\nReporting-MTA: dns; relay.example\r\n",
            "\r\n\r\nFinal-Recipient: rfc822; a@x.example\r\nAction: failed\r\n",
            "\r\n\r\nOriginal-Recipient: rfc822; Bob+Tag@Y.example\r\nFinal-Recipient: rfc822; b@x.example\r\nAction: relayed\r\n\
             Status: 2.1.5\r\nRemote-MTA: dns; mx.example\r\nDiagnostic-Code: smtp; 250 2.1.5 Ok: queued as 1\r\n",
            "Content-Type: message/rfc822\r\n\r\nSubject: Hello\r\nMessage-ID: <1@x>\r\n\r\nsecret text\r\n\r\n--",
        ],
    );

    let (_, text) = composed(&message, &[relayed(b, false)]).await;
    assert!(text.contains("Subject: Mail handed over") && !text.contains("could not be delivered"), "{text}");
    assert!(!text.contains("secret text"), "without a failure, RET=FULL returns the header: {text}");
}

#[tokio::test]
async fn a_large_message_is_returned_whole_up_to_a_limit_and_beyond_it_by_its_header_saying_so() {
    let directory = tempfile::tempdir().unwrap();
    let mut message = message("app@erp.example", &["a@x.example"]);
    message.envelope.returned = Some(contract::Returned::Full);
    let returned_as = async |size: usize, extent: Extent| {
        let mut content = CONTENT.to_vec();
        content.extend(b"line\r\n".iter().cycle().take(size - CONTENT.len()));
        let path = directory.path().join("body");
        std::fs::write(&path, &content).unwrap();
        let message = Message { body: Body::File { path, len: size as u64 }, ..message.clone() };
        let notices = [refused(&message.envelope.recipients[0])];
        let draft = compose(&message, &notices, RELAY, SystemTime::UNIX_EPOCH, extent).await.unwrap();
        let mut pieces = draft.pieces().await.unwrap();
        let mut all = Vec::new();
        while let Some(piece) = pieces.next().await.unwrap() {
            assert!(piece.len() <= 64 * 1024, "it is not taken into memory");
            all.extend_from_slice(&piece);
        }
        let whole = all.windows(content.len()).any(|window| window == content);
        (whole, draft.small_body().is_some(), String::from_utf8(all).unwrap())
    };
    let (whole, small, text) = returned_as(1024 * 1024, Extent::AsAsked).await;
    assert!(whole && !small && !text.contains("Only its header"));
    for (size, extent, why) in [
        (1024 * 1024 + 1, Extent::AsAsked, "because the message is larger than 1 MiB"),
        (1000, Extent::HeaderOnly, "because there was no room for more"),
    ] {
        let (whole, small, text) = returned_as(size, extent).await;
        assert!(!whole && small && text.contains(why) && text.contains("Subject: Hello\r\n") && !text.contains("secret text"), "{text}");
    }
    std::fs::remove_file(directory.path().join("body")).unwrap();
    let gone = Message { body: Body::File { path: directory.path().join("body"), len: 9 }, ..message.clone() };
    let (_, text) = composed(&gone, &[refused(&gone.envelope.recipients[0])]).await;
    assert!(text.contains("because the message can no longer be read"), "{text}");
}

#[tokio::test]
async fn what_follows_a_header_is_not_returned_though_no_empty_line_parts_them() {
    for (content, header) in [
        (&b"Subject: x\r\n\tfolded\r\n\r\nbody\r\n"[..], "Subject: x\r\n\tfolded\r\n"),
        (b"Subject: x\r\nthis is text already\r\nmore: text\r\n", "Subject: x\r\n"),
        (b"Subject : x\r\nX-\xfcber: y\r\n", "Subject : x\r\n"),
        (b"no header at all\r\n", ""),
        (b"\r\nbody\r\n", ""),
        (b"", ""),
    ] {
        let message = Message { body: Body::Inline(Bytes::from_static(content)), ..message("a@b.example", &["a@x.example"]) };
        let (_, text) = composed(&message, &[refused(&message.envelope.recipients[0])]).await;
        let returned = text.split("Content-Type: text/rfc822-headers\r\n\r\n").nth(1).unwrap();
        assert_eq!(returned.rsplit_once("\r\n--=_").unwrap().0, header);
    }
    let endless = format!("Subject: x\r\nX-Long: {}\r\n\r\n", "x".repeat(70_000));
    let message = Message { body: Body::Inline(endless.into()), ..message("a@b.example", &["a@x.example"]) };
    let (_, text) = composed(&message, &[refused(&message.envelope.recipients[0])]).await;
    assert!(text.contains("Subject: x\r\n\r\n--=_"), "a field that was cut off is left out");
}

#[tokio::test]
async fn octets_of_a_header_are_returned_as_they_came_and_declared_as_they_were() {
    for body_type in [BodyType::SevenBit, BodyType::EightBitMime] {
        let mut message = message("a@b.example", &["a@x.example"]);
        message.body = Body::Inline(Bytes::from_static(b"Subject: \xfcber\r\n\r\nx\r\n"));
        message.envelope.body_type = body_type;
        let notices = [refused(&message.envelope.recipients[0])];
        let draft = compose(&message, &notices, RELAY, SystemTime::UNIX_EPOCH, Extent::AsAsked).await.unwrap();
        assert_eq!(draft.envelope.body_type, body_type);
        let body = draft.small_body().unwrap().bytes().await.unwrap();
        let expected = b"text/rfc822-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: \xfcber\r\n\r\n--";
        assert!(body.windows(expected.len()).any(|window| window == expected), "{}", body.escape_ascii());
    }
}

/// What `message` to bücher@x.example gives when it is refused, with RET=HDRS and with RET=FULL.
async fn global(from: &str) -> [(Draft, String); 2] {
    let mut message = message(from, &["b\u{fc}cher@x.example"]);
    message.envelope.smtputf8 = true;
    message.envelope.body_type = BodyType::EightBitMime;
    message.envelope.recipients[0].original = Some(OriginalRecipient::parse("utf-8;b\\x{FC}cher@y.example").unwrap());
    message.body = Body::Inline("Subject: \u{fc}ber\r\n\r\nf\u{fc}r\r\n".into());
    let diagnostic = said(550, "5.1.1 b\u{fc}cher unbekannt");
    let notice =
        || [Notice { recipient: &message.envelope.recipients[0], event: Event::Failed { diagnostic: diagnostic.clone(), expired: false } }];
    let header = composed(&message, &notice()).await;
    let full = Message { envelope: Envelope { returned: Some(contract::Returned::Full), ..message.envelope.clone() }, ..message.clone() };
    [header, composed(&full, &notice()).await]
}

#[tokio::test]
async fn a_sender_outside_ascii_gets_the_global_forms() {
    let [(draft, header), (_, full)] = global("j\u{f6}rg@b.example").await;
    assert_eq!((draft.envelope.smtputf8, draft.envelope.body_type), (true, BodyType::EightBitMime));
    contains(
        &header,
        &[
            "To: <j\u{f6}rg@b.example>\r\n",
            "Content-Type: message/global-delivery-status\r\nContent-Transfer-Encoding: 8bit\r\n\r\nReporting-MTA",
            "Original-Recipient: utf-8; b\u{fc}cher@y.example\r\nFinal-Recipient: utf-8; b\u{fc}cher@x.example\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 b\u{fc}cher unbekannt\r\n",
            "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: \u{fc}ber\r\n",
        ],
    );
    contains(&full, &["Content-Type: message/global\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: \u{fc}ber\r\n\r\nf\u{fc}r\r\n"]);
}

#[tokio::test]
async fn a_sender_in_ascii_gets_what_goes_without_smtputf8() {
    let [(draft, header), (_, full)] = global("a@b.example").await;
    assert!(!draft.envelope.smtputf8);
    let base64 = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    contains(
        &header,
        &[
            "Content-Type: message/delivery-status\r\n\r\nReporting-MTA",
            "Original-Recipient: utf-8; b\\x{FC}cher@y.example\r\nFinal-Recipient: utf-8; b\\x{FC}cher@x.example\r\n",
            "Diagnostic-Code: smtp; 550 5.1.1 b?cher unbekannt\r\n",
            &format!(
                "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: base64\r\n\r\n{}\r\n",
                base64("Subject: \u{fc}ber\r\n")
            ),
        ],
    );
    let whole = base64("Subject: \u{fc}ber\r\n\r\nf\u{fc}r\r\n");
    contains(&full, &[&format!("Content-Type: message/global\r\nContent-Transfer-Encoding: base64\r\n\r\n{whole}\r\n\r\n--")]);
}

#[test]
fn base64_comes_out_in_the_same_lines_however_its_input_is_cut() {
    let input: Vec<u8> = (0..1000u32).map(|n| (n % 251) as u8).collect();
    let encoded = |size: usize| {
        let mut base64 = Base64Lines::default();
        let mut text: Vec<u8> = input.chunks(size).flat_map(|chunk| base64.encode(chunk)).collect();
        text.extend_from_slice(&base64.finish());
        String::from_utf8(text).unwrap()
    };
    let whole = encoded(1000);
    assert!(whole.lines().rev().skip(1).all(|line| line.len() == 76) && whole.ends_with("\r\n"));
    for size in [1, 56, 57, 58, 300] {
        assert_eq!(encoded(size), whole);
    }
}
