//! What several benches measure with.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use postrider_providers::contract::{Address, Body, BodyType, Envelope, Message, MessageId, Origin, Recipient, ReversePath};

/// A message to one recipient, with a body of so many octets.
pub fn message(octets: usize) -> Arc<Message> {
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(Address::parse("erp@corp.example").expect("an address")),
        recipients: vec![Recipient::from(Address::parse("desk@customers.example").expect("an address"))],
        body_type: BodyType::SevenBit,
        smtputf8: false,
        returned: None,
        envelope_id: None,
    };
    let body = Body::Inline(Bytes::from(vec![b'x'; octets]));
    Arc::new(Message { id: MessageId::generate(), received: SystemTime::now(), origin: Origin::default(), envelope, body })
}
