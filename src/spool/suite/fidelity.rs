//! What was stored comes back: every field of the envelope, and every octet of the body.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_providers::contract::{
    Body, BodyType, Envelope, Message, MessageId, Notify, Origin, OriginalRecipient, Priority, Recipient, Returned, ReversePath,
};

use super::{FAR, Fixture, address, at, claim, lane, message, message_for};
use crate::spool::{BodySink, RecipientState, Spool};

pub(crate) async fn a_message_comes_back_exactly_as_it_was_stored(mut fixture: impl Fixture) {
    let many: Vec<Recipient> = (0..1000).map(|n| Recipient::from(address(&format!("user{n}@Example.ORG")))).collect();
    let odd = ["\"a b\"@x", "\"a@b\"@x", "a@[IPv6:::1]", "bücher@bücher.example", "Same@example.org", "Same@example.org"];
    let odd: Vec<Recipient> = odd.iter().map(|text| Recipient::from(address(text))).collect();
    let envelopes = [
        Envelope {
            reverse_path: ReversePath::Null,
            recipients: many,
            body_type: BodyType::EightBitMime,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        },
        Envelope {
            reverse_path: ReversePath::Mailbox(address("\"Jörg @\"@Exämple.com")),
            recipients: odd,
            body_type: BodyType::SevenBit,
            smtputf8: true,
            returned: None,
            envelope_id: None,
        },
    ];
    let body = Bytes::from_static(b"Subject: \xff\x00\r\n\r\n.\r\nno newline at the end");
    for envelope in envelopes {
        let body = Body::Inline(body.clone());
        let message = Arc::new(Message {
            id: MessageId::generate(),
            received: at(0) + Duration::from_millis(7),
            origin: Origin::default(),
            envelope,
            body,
        });
        fixture.spool().store(message, &lane(), false).await.unwrap();
    }
    let before = claim(fixture.spool(), 1).await;
    fixture.crash().await;
    let after = claim(fixture.spool(), 1).await;
    assert_eq!(before.len(), 2);
    assert_eq!(after.len(), 2);
    for (first, second) in before.iter().zip(&after) {
        assert_eq!(first.message.id, second.message.id);
        assert_eq!(first.message.envelope, second.message.envelope);
    }
    let reverse_paths: Vec<_> = after.iter().map(|stored| stored.message.envelope.reverse_path.as_str().to_owned()).collect();
    assert_eq!(reverse_paths, ["", "\"Jörg @\"@Exämple.com"]);
    assert_eq!(after[0].message.envelope.reverse_path, ReversePath::Null);
    assert_eq!(after[0].message.envelope.body_type, BodyType::EightBitMime);
    assert_eq!(after[0].message.envelope.recipients[999].address.as_str(), "user999@Example.ORG");
    assert_eq!(after[0].recipients, vec![RecipientState::Pending; 1000]);
    assert!(after[1].message.envelope.smtputf8);
    assert_eq!(after[1].message.envelope.recipients[3].address.as_str(), "bücher@bücher.example");
    for stored in &after {
        assert_eq!(stored.message.received, at(0) + Duration::from_millis(7));
        assert_eq!(stored.message.body.bytes().await.unwrap(), body);
        assert_eq!(stored.attempts, 0);
    }
}

pub(crate) async fn what_was_asked_about_notifications_and_who_asked_comes_back(mut fixture: impl Fixture) {
    let everything = Notify { success: true, failure: true, delay: true };
    let recipient = |notify, original: Option<&str>| Recipient {
        address: address("rcpt@example.org"),
        notify,
        original: original.map(|text| OriginalRecipient::parse(text).unwrap()),
    };
    let recipients = [
        recipient(None, None),
        recipient(Some(Notify::NEVER), Some("rfc822;Rcpt+2BTag@Example.ORG")),
        recipient(Some(Notify { success: true, ..Notify::NEVER }), Some("utf-8;b\\x{FC}cher@example.org")),
        recipient(Some(everything), Some("X400;/C+3DDE/S+3Da+20b")),
    ];
    let said = [
        (Some(Returned::Full), Some("QQ 314+159=\"x\""), Some("erp"), Some("2001:db8::1")),
        (Some(Returned::Headers), None, None, Some("192.0.2.1")),
        (None, Some("x"), Some("Drucker 3. Stock, Küche"), None),
    ];
    let messages: Vec<Message> = said
        .into_iter()
        .map(|(returned, envelope_id, application, client)| {
            let mut message = Arc::unwrap_or_clone(message(0, b"x"));
            message.envelope.recipients = recipients.to_vec();
            message.envelope.returned = returned;
            message.envelope.envelope_id = envelope_id.map(Arc::from);
            message.origin = Origin {
                application: application.map(Arc::from),
                client: client.map(|text| text.parse().unwrap()),
                message_id: envelope_id.map(|_| "b\u{fc}cher.7@erp.example".into()),
                priority: application.map(|_| Priority::High),
            };
            message
        })
        .collect();
    for message in &messages {
        fixture.spool().store(Arc::new(message.clone()), &lane(), true).await.unwrap();
    }
    fixture.crash().await;
    let claimed = claim(fixture.spool(), 1).await;
    assert_eq!(claimed.len(), messages.len());
    for (stored, message) in claimed.iter().zip(&messages) {
        assert_eq!(stored.message.envelope, message.envelope);
        assert_eq!(stored.message.origin, message.origin);
    }
}

pub(crate) async fn a_body_of_any_size_comes_back(mut fixture: impl Fixture) {
    // Around the size above which a store with files keeps bodies in them, and well beyond.
    let sizes = [0, 1, 4096, 256 * 1024 - 1, 256 * 1024, 256 * 1024 + 1, 1_500_000];
    for (seconds, size) in sizes.into_iter().enumerate() {
        let id = MessageId::generate();
        let content = Bytes::from((0..size).map(|n| (n % 251) as u8).collect::<Vec<_>>());
        let mut sink = fixture.spool().body(id);
        for piece in content.chunks(70_001) {
            sink.write(content.slice_ref(piece)).await.unwrap();
        }
        let body = sink.finish().await.unwrap();
        assert_eq!(body.len(), size as u64);
        let mut message = Arc::unwrap_or_clone(message_for(seconds as u64, &["a@example.org"], body));
        message.id = id;
        fixture.spool().store(Arc::new(message), &lane(), false).await.unwrap();
    }
    fixture.crash().await;
    let claimed = claim(fixture.spool(), FAR).await;
    assert_eq!(claimed.len(), sizes.len());
    for (stored, size) in claimed.iter().zip(sizes) {
        let body = stored.message.body.bytes().await.unwrap();
        assert_eq!(body.len(), size);
        assert!(body.iter().enumerate().all(|(n, octet)| *octet == (n % 251) as u8), "the octets of {size}");
    }
}
