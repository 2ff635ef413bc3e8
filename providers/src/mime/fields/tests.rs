//! Messages and their fields.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::conformance::{address, attempt};
use crate::contract::{Message, Outcome, Receipt, Recipient, Report};

fn read(message: &str) -> Fields {
    Fields::read(message.replace('\n', "\r\n").as_bytes(), Some(&address("bounce@app.example"))).unwrap()
}

/// An attempt at a message with this header, for all of these recipients.
fn to(recipients: &[&str], message: &str) -> Attempt {
    let mut attempt = attempt(message.replace('\n', "\r\n").as_bytes(), Duration::from_secs(60));
    let mut envelope = attempt.message.envelope.clone();
    envelope.recipients = recipients.iter().map(|one| Recipient::from(address(one))).collect();
    let message = Message { envelope, ..(*attempt.message).clone() };
    attempt.recipients = (0..u32::try_from(recipients.len()).unwrap()).map(RecipientIndex).collect();
    attempt.message = Arc::new(message);
    attempt
}

fn mailbox(name: &str, address: &str) -> Mailbox {
    Mailbox { name: Some(name.to_owned()).filter(|name| !name.is_empty()), address: address.to_owned() }
}

fn listed(fields: &Fields) -> Vec<(&str, &str, Option<&str>)> {
    fields.attachments.iter().map(|one| (one.name.as_str(), one.media_type.as_str(), one.content_id.as_deref())).collect()
}

#[test]
fn a_plain_message_keeps_its_people_subject_text_and_headers() {
    let fields = read(
        "Received: from x by y; Tue, 24 Nov 2026 11:00:00 +0000\nReturn-Path: <x@y>\nFrom: =?utf-8?q?J=C3=B6rg_M?= <joerg@app.example>\n\
         To: \"Doe, Jane\" <jane@a.example>, team: one@b.example, two@b.example;\nReply-To: help@app.example, <Second@app.example>\n\
         Subject: =?iso-8859-1?q?Gr=FC=DFe?=\n =?utf-8?b?IGF1cyBLw7Zsbg==?=\nMIME-Version: 1.0\nBcc: hidden@c.example\nResent-Bcc: hidden@d.example\n\
         X-Tag: one\nReferences: <1@x>\n <2@x>\nX-Tag: two\nList-Unsubscribe: <https://x.example/u>,\n <mailto:u@x.example>\n\
         ARC-Seal: i=1\nContent-Language: de\nX-Name: =?utf-8?q?=C3=BC?=\nContent-Type: text/plain; charset=iso-8859-1\n\
         Content-Transfer-Encoding: quoted-printable\n\nSch=F6n=\n weiter  \n100 = ganz\n",
    );
    assert_eq!(fields.from.address, "joerg@app.example");
    assert_eq!(fields.from.name.as_deref(), Some("Jörg M"));
    assert_eq!(fields.to, [mailbox("Doe, Jane", "jane@a.example"), mailbox("", "one@b.example"), mailbox("", "two@b.example")]);
    assert_eq!(fields.reply_to, [mailbox("", "help@app.example"), mailbox("", "Second@app.example")]);
    assert_eq!(fields.subject, "Grüße aus Köln");
    assert_eq!(fields.text.as_deref(), Some("Schön weiter\n100 = ganz\n"));
    assert_eq!(fields.html, None);
    let headers: Vec<(&str, &str)> = fields.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        headers,
        [
            ("X-Tag", "one"),
            ("References", "<1@x> <2@x>"),
            ("X-Tag", "two"),
            ("List-Unsubscribe", "<https://x.example/u>, <mailto:u@x.example>"),
            ("X-Name", "=?utf-8?q?=C3=BC?="),
        ]
    );
    assert_eq!(fields.lost, Vec::<String>::new());
    let (unique, lost) = fields.unique_headers();
    assert_eq!((unique["X-Tag"].as_str(), unique.len()), (Some("one"), 4));
    assert_eq!(lost, ["X-Tag: it is there more than once, and the first is kept"]);
}

#[test]
fn texts_pictures_and_files_each_get_their_place() {
    let fields = read(
        "From: a@app.example\nContent-Type: multipart/mixed; boundary=\"m\"\n\npreamble\n--m\nContent-Type: multipart/related; boundary=r\n\n\
         --r\nContent-Type: multipart/alternative; boundary=a\n\n--a\nContent-Type: text/plain\n\nplain\n--a\n\
         Content-Type: text/html; charset=utf-8\n\n<img src=\"cid:pic%401\"> <img src='CID:late@x'>\n--a--\n\n\
         --r\nContent-Type: image/png\nContent-ID: <pic@1>\nContent-Transfer-Encoding: base64\n\niVBO\nRw==\n\
         --r\nContent-Type: image/gif; name=unused.gif\nContent-ID: <unused@x>\n\nGIF\n--r--\n\
         --m\nContent-Type: image/jpeg\nContent-ID: <late@x>\n\nJPG\n\
         --m\nContent-Type: application/pdf\nContent-ID: <other@x>\nContent-Disposition: attachment;\n filename*0*=utf-8''Rechn%C3%BCng;\n filename*1=\"-1.pdf\"\n\nPDF\n\
         --m\nContent-Type: text/plain; name=\"../log.txt\"; charset=latin1\n\nl\u{f6}g\r\n\
         --m\nContent-Type: message/rfc822\n\nSubject: inner\n\nbody\n\
         --m\nContent-Type: text/plain\n\nfooter\n--m--\nepilogue\n",
    );
    assert_eq!(fields.text.as_deref(), Some("plain"));
    assert_eq!(fields.html.as_deref(), Some("<img src=\"cid:pic%401\"> <img src='CID:late@x'>"));
    assert_eq!(
        listed(&fields),
        [
            ("attachment-1.png", "image/png", Some("pic@1")),
            ("unused.gif", "image/gif", Some("unused@x")),
            ("attachment-3.jpg", "image/jpeg", Some("late@x")),
            ("Rechnüng-1.pdf", "application/pdf", None),
            (".._log.txt", "text/plain", None),
            ("attachment-6.eml", "message/rfc822", None),
            ("attachment-7.txt", "text/plain", None),
        ]
    );
    assert_eq!(fields.attachments[0].content, b"\x89PNG");
    assert_eq!(fields.attachments[5].content, b"Subject: inner\r\n\r\nbody");
    assert_eq!(
        fields.lost,
        [".._log.txt: its charset, latin1", "attachment-7.txt: a further text (text/plain), handed over as an attachment"]
    );
}

#[test]
fn texts_that_do_not_say_the_same_never_hide_each_other() {
    let fields = read(
        "From: a@app.example\nContent-Type: multipart/mixed; boundary=m\n\n--m\n\nsee below\n--m\nContent-Type: text/html\n\n<p>other\n--m--\n",
    );
    assert_eq!((fields.text.as_deref(), &fields.html), (Some("see below"), &None));
    assert_eq!(listed(&fields), [("attachment-1.html", "text/html", None)]);
    assert_eq!(fields.lost, ["attachment-1.html: a further text (text/html), handed over as an attachment"]);
}

#[test]
fn an_invitation_is_an_attachment_until_a_provider_takes_it() {
    let mut fields = read(
        "From: a@app.example\nMessage-ID: <1@x>\nDate: Tue, 24 Nov 2026 11:00:00 +0000\nSender: b@app.example\n\
         Content-Type: multipart/alternative; boundary=m\n\n--m\n\nplain\n\
         --m\nContent-Type: text/calendar; method=REQUEST; charset=utf-8\n\nBEGIN:VCALENDAR\n--m--\n",
    );
    assert_eq!(listed(&fields), [("invite.ics", "text/calendar", None)]);
    assert_eq!(fields.lost, [Fields::LOST_SENDER, Fields::LOST_MESSAGE_ID, Fields::LOST_DATE, Fields::LOST_CALENDAR]);
    let calendar = fields.take_calendar().unwrap();
    assert_eq!((calendar.text.as_str(), calendar.method.as_deref()), ("BEGIN:VCALENDAR", Some("REQUEST")));
    assert_eq!(fields.take_message_id().as_deref(), Some("<1@x>"));
    assert_eq!(fields.take_date().as_deref(), Some("Tue, 24 Nov 2026 11:00:00 +0000"));
    assert_eq!(fields.take_sender(), Some(mailbox("", "b@app.example")));
    assert_eq!((fields.lost, fields.attachments), (vec![], vec![]));
}

#[test]
fn what_cannot_be_said_in_fields_is_told() {
    let report = read(
        "From: a@app.example, b@app.example\nDKIM-Signature: v=1\nSubject: x\nSubject: y\nno field\nReply-To: nobody\n\
         Content-Type: multipart/report; boundary=m\n\n--m\n\nfailed\n--m\nContent-Type: message/delivery-status\n\nAction: failed\n--m--\n",
    );
    assert_eq!((report.text.as_deref(), report.subject.as_str()), (Some("failed"), "x"));
    assert_eq!(listed(&report), [("attachment-1.txt", "message/delivery-status", None)]);
    assert_eq!(
        report.lost,
        [
            "Reply-To: \"nobody\" is no address",
            "From: b@app.example beside the first",
            "Subject: it is there more than once, and the first counts",
            "DKIM-Signature: the message that was signed does not go on",
            "lines of the header that are no fields: 1",
            "the structure of the report (multipart/report)",
        ]
    );
    let odd = read("From: <>\nContent-Type: text/plain; charset=klingon; format=flowed\nContent-Transfer-Encoding: base64\n\nYWJj=Zm9v\n");
    assert_eq!((odd.from.address.as_str(), odd.text.as_deref()), ("bounce@app.example", Some("abc")));
    assert_eq!(odd.lost.len(), 4, "{:?}", odd.lost);
    let broken = read("From: a@b.example\nContent-Type: multipart/mixed; boundary=none\n\nhello\n");
    assert_eq!(broken.text.as_deref(), Some("hello\n"));
    assert_eq!(broken.lost, ["multipart/mixed: it has no parts, and was read as text"]);
    let replaced = Fields::read(b"From: a@b.example\r\nX-A: \xff\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xff\0", None).unwrap();
    assert_eq!((replaced.text.as_deref(), replaced.headers[0].1.as_str()), (Some("\u{fffd}"), "\u{fffd}"));
    assert_eq!(replaced.lost.len(), 2, "{:?}", replaced.lost);
}

#[test]
fn signed_and_encrypted_messages_say_what_they_lose() {
    let signed = read(
        "From: a@app.example\nContent-Type: multipart/signed; boundary=m; protocol=x\n\n--m\n\ntext\n\
         --m\nContent-Type: application/pgp-signature\n\nsig\n--m--\n",
    );
    assert_eq!((signed.text.as_deref(), listed(&signed)), (Some("text"), vec![("attachment-1.asc", "application/pgp-signature", None)]));
    assert_eq!(signed.lost, ["the signature (multipart/signed): it cannot be verified any more"]);
    let sealed = read("From: a@app.example\nContent-Type: application/pkcs7-mime; name=smime.p7m\n\nx");
    assert_eq!(sealed.lost, ["smime.p7m: the whole message is application/pkcs7-mime, handed over as an attachment"]);
    assert_eq!((sealed.is_empty(), listed(&sealed)), (true, vec![("smime.p7m", "application/pkcs7-mime", None)]));
}

#[test]
fn messages_without_a_sender_or_a_header_or_an_end_are_unsuitable() {
    let unsuitable = |message: &str| matches!(Fields::read(message.as_bytes(), None), Err(Failure::Unsuitable(_)));
    assert!(unsuitable("no header\r\n\r\ntext"));
    assert!(unsuitable("Subject: x\r\n\r\ntext"));
    let many: String = std::iter::repeat_n("--m\r\n\r\nx\r\n", 1001).collect();
    assert!(unsuitable(&format!("From: a@b.example\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n{many}--m--\r\n")));
    let deep: String = (0..50).map(|depth| format!("Content-Type: multipart/mixed; boundary=m{depth}\r\n\r\n--m{depth}\r\n")).collect();
    assert!(unsuitable(&format!("From: a@b.example\r\n{deep}\r\nx")));
    // A message in a message in a message costs nothing: it is one attachment.
    let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(100_000);
    let fields = Fields::read(format!("From: a@b.example\r\n{nested}").as_bytes(), None).unwrap();
    assert_eq!((fields.attachments.len(), fields.text), (1, None));
}

#[tokio::test]
async fn the_recipients_told_are_those_of_the_envelope() {
    let message = "From: a@app.example\nTo: One <ONE@a.example>, list@x.example\nCc: two@a.example\n\ntext\n";
    let some = to(&["one@a.example", "two@a.example", "three@a.example", "Three@a.example"], message);
    let fields = Fields::of(&some).await.unwrap();
    let calls = fields.addressed(&some);
    let expected = Addressed {
        to: vec![mailbox("One", "one@a.example")],
        cc: vec![mailbox("", "two@a.example")],
        bcc: vec![mailbox("", "three@a.example")],
    };
    let other = Addressed { to: vec![mailbox("", "Three@a.example")], ..Addressed::default() };
    assert_eq!(calls, [([0, 1, 2].map(RecipientIndex).to_vec(), expected), (vec![RecipientIndex(3)], other)]);
    assert_eq!(fields.lost, ["To and Cc: list@x.example, who are shown and get no copy by this call"]);
    assert!(fields.only_ascii(&some).is_ok());

    let hidden = to(&["x@a.example", "y\u{e4}@a.example"], message);
    let fields = Fields::of(&hidden).await.unwrap();
    assert_eq!(fields.addressed(&hidden).len(), 2);
    assert!(fields.lost[1].contains("alone"), "{:?}", fields.lost);
    assert!(matches!(fields.only_ascii(&hidden), Err(Failure::Unsuitable(_))));
}

#[test]
fn what_was_lost_stands_in_the_receipts() {
    let fields = Fields { lost: vec!["Date".to_owned()], ..Fields::default() };
    let outcomes = vec![
        (RecipientIndex(0), Outcome::Relayed(Receipt::default())),
        (RecipientIndex(1), Outcome::InDoubt(Diagnostic::local("silence"))),
    ];
    let Report { outcomes, .. } = fields.told(Ok(Report::new(outcomes))).unwrap();
    assert_eq!(outcomes[0].1, Outcome::Relayed(Receipt { lost: vec!["Date".to_owned()], ..Receipt::default() }));
    assert_eq!(outcomes[1].1, Outcome::InDoubt(Diagnostic::local("silence")));
}

#[test]
fn headers_that_a_service_does_not_take_are_lost_by_name() {
    let mut fields = read("From: a@b.example\nX-Good: 1\nX-Bad: 2\n\n");
    fields.keep_headers(|name| name != "x-bad", "reserved");
    assert_eq!(fields.headers, [("X-Good".to_owned(), "1".to_owned())]);
    assert_eq!(fields.lost, ["X-Bad: reserved"]);
    assert_eq!(mailbox("a \"b\\", "c@d.example").to_string(), "\"a \\\"b\\\\\" <c@d.example>");
}

#[tokio::test]
async fn what_is_made_to_take_long_takes_no_longer() {
    const LARGE: usize = 256 << 10;
    let fill = |piece: &str| piece.repeat(LARGE / piece.len());
    let begun = tokio::time::Instant::now();
    for message in [
        format!("From: a@b.example\nTo: {}\n\n", fill("x@y.example,")),
        format!("From: a@b.example\nReply-To: {}\n\n", fill("x,")),
        format!("From: a@b.example\nTo: {}\n\n", fill("(")),
        format!("From: a@b.example\nSubject: {}\n\n", fill("=?utf-8?q?a?=")),
        format!("From: a@b.example\n{}\n", fill("X-A: b\n")),
        format!("From: a@b.example\n{}\n", fill("no field\n")),
        format!("From: a@b.example\nContent-Type: text/plain; {}\n\n", fill("a*0=b;")),
        format!("From: a@b.example\nContent-Type: text/html\n\n{}", fill("cid:")),
        format!(
            "From: a@b.example\nContent-Type: multipart/related; boundary=m\n\n--m\nContent-Type: text/html\n\n{}\n--m\nContent-ID: <x>\n\ny\n--m--\n",
            fill("cid:")
        ),
        format!("From: a@b.example\nContent-Transfer-Encoding: quoted-printable\n\n{}", fill("=")),
        format!("From: a@b.example\nContent-Type: multipart/mixed; boundary=m\n\n{}", fill("--m\n")),
    ] {
        let addresses: Vec<String> = (0..1000).map(|nth| format!("r{nth}@a.example")).collect();
        let attempt = to(&addresses.iter().map(String::as_str).collect::<Vec<_>>(), &message);
        if let Ok(fields) = Fields::of(&attempt).await {
            assert!(fields.lost.len() <= 51, "{}", fields.lost.len());
            assert_eq!(fields.addressed(&attempt).len(), 1000);
        }
    }
    // Debug builds on a machine with other work; what is quadratic would take hours.
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn the_header_of_a_part_takes_no_more_than_what_is_used_of_it() {
    let hostile = "a:\n".repeat(10_000) + &"Content-Type: text/html\n".repeat(10_000) + "content-id: <x\n y>\nX: skipped\n folded\n";
    let head = Head::of_part(hostile.as_bytes());
    let texts: Vec<_> = head.fields.iter().map(|field| (field.name.as_str(), field.text())).collect();
    assert_eq!(texts, [("Content-Type", "text/html".to_owned()), ("content-id", "<x y>".to_owned())]);
}

/// A part, with parts in it.
fn mime() -> impl Strategy<Value = String> {
    let leaf = (
        "(text/plain|text/html|image/png|text/calendar|message/rfc822|x)",
        "(|attachment|inline; filename=\"[a-z/é]{0,5}\")",
        "[ -~é\r\n]{0,60}",
    )
        .prop_map(|(kind, disposition, body)| {
            format!("Content-Type: {kind}\r\nContent-Disposition: {disposition}\r\nContent-ID: <i>\r\n\r\n{body}")
        });
    leaf.prop_recursive(4, 24, 4, |inner| {
        ("(mixed|related|alternative|digest|report|x)", "[a-z]{1,3}", proptest::collection::vec(inner, 0..4)).prop_map(
            |(kind, boundary, inner)| {
                let parts: String = inner.iter().map(|part| format!("--{boundary}\r\n{part}\r\n")).collect();
                format!("Content-Type: multipart/{kind}; boundary={boundary}\r\n\r\n{parts}--{boundary}--\r\n")
            },
        )
    })
}

fn holds(message: &[u8]) {
    let Ok(fields) = Fields::read(message, Some(&address("bounce@app.example"))) else { return };
    let one_line = |text: &str| assert!(!text.contains(char::is_control), "{text:?}");
    for (name, value) in &fields.headers {
        one_line(name);
        one_line(value);
        assert!(!name.eq_ignore_ascii_case("bcc"));
    }
    let people = std::iter::once(&fields.from).chain(&fields.to).chain(&fields.cc).chain(&fields.reply_to);
    for one in people {
        one_line(&one.to_string());
        assert!(one.is_valid());
    }
    for one in &fields.attachments {
        one_line(&one.name);
        one_line(&one.media_type);
        one_line(one.content_id.as_deref().unwrap_or_default());
        assert!(!one.name.is_empty() && !one.name.contains(['/', '\\']) && one.media_type.contains('/'));
    }
    one_line(&fields.subject);
    for text in [&fields.text, &fields.html].into_iter().flatten() {
        assert!(!text.contains(['\r', '\0']));
    }
}

proptest! {
    #[test]
    fn no_octets_break_the_reading(octets in proptest::collection::vec(any::<u8>(), 0..400)) {
        holds(&octets);
        holds(&[b"From: a@b.example\r\n", &octets[..]].concat());
        holds(&[b"Content-Type: ", &octets[..]].concat());
        holds(&[b"To: ", &octets[..]].concat());
    }

    #[test]
    fn every_structure_is_read(message in mime(), header in "(From|To|Subject|X-A|Content-Disposition): [ -~é\r\n\t]{0,60}") {
        holds(format!("{header}\r\n{message}").as_bytes());
    }
}
