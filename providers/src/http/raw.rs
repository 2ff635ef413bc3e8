//! The message as it is, for APIs that take it whole.

use bytes::Bytes;

use crate::contract::{Attempt, Diagnostic, Failure};

/// The message.
///
/// # Errors
/// `Unavailable` when the spool's file cannot be read.
pub async fn octets(attempt: &Attempt) -> Result<Bytes, Failure> {
    let read = attempt.message.body.bytes().await;
    read.map_err(|error| Failure::Unavailable(Diagnostic::local(format!("the message cannot be read from the spool: {error}"))))
}

/// The message, for APIs that take it as a text of JSON: such a text is Unicode, and cannot hold octets
/// that are no UTF-8. To encode them anew would change what was accepted, so that is not done.
///
/// # Errors
/// `Unsuitable` when it is no UTF-8, else as [`octets`].
pub async fn text(attempt: &Attempt) -> Result<String, Failure> {
    let octets = octets(attempt).await?;
    match String::from_utf8(octets.into()) {
        Ok(text) => Ok(text),
        Err(error) => Err(Failure::Unsuitable(Diagnostic::local(format!(
            "the message has 8-bit text that is not UTF-8, at octet {}: this service takes messages in ASCII or UTF-8 only",
            error.utf8_error().valid_up_to()
        )))),
    }
}

/// Refuses addresses that an API without SMTPUTF8 cannot be told.
///
/// # Errors
/// `Unsuitable`, with the address.
pub fn ascii_addresses(attempt: &Attempt) -> Result<(), Failure> {
    let envelope = &attempt.message.envelope;
    let mut addresses = attempt.recipients().map(|(_, recipient)| &recipient.address).chain(envelope.reverse_path.address());
    match addresses.find(|address| !address.is_ascii()) {
        Some(address) => {
            Err(Failure::Unsuitable(Diagnostic::local(format!("this service takes no addresses outside ASCII, such as {address}"))))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Body, Envelope, Message, MessageId, Origin, RecipientIndex, ReversePath};

    fn attempt(content: &'static [u8], recipient: &str) -> Attempt {
        let message = Message {
            id: MessageId::generate(),
            received: std::time::SystemTime::now(),
            origin: Origin::default(),
            envelope: Envelope::new(ReversePath::Null, vec![recipient.parse::<crate::contract::Address>().unwrap().into()]),
            body: Body::Inline(Bytes::from_static(content)),
        };
        let deadline = tokio::time::Instant::now();
        Attempt { message: std::sync::Arc::new(message), recipients: [RecipientIndex(0)].into(), number: 1, deadline }
    }

    #[tokio::test]
    async fn a_message_that_is_no_utf_8_does_not_become_a_text() {
        assert_eq!(text(&attempt("A: b\r\n\r\nü\r\n".as_bytes(), "a@b.example")).await.unwrap(), "A: b\r\n\r\nü\r\n");
        let Err(Failure::Unsuitable(diagnostic)) = text(&attempt(b"A: b\r\n\r\n\xfc", "a@b.example")).await else { panic!("taken") };
        assert!(diagnostic.text.contains("at octet 8:"), "{diagnostic}");
    }

    #[test]
    fn an_address_outside_ascii_is_named() {
        assert_eq!(ascii_addresses(&attempt(b"", "a@b.example")), Ok(()));
        let Err(Failure::Unsuitable(diagnostic)) = ascii_addresses(&attempt(b"", "ü@b.example")) else { panic!("taken") };
        assert!(diagnostic.text.contains("ü@b.example"), "{diagnostic}");
    }
}
