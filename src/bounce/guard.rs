//! What keeps notifications from causing notifications.

use postrider_providers::contract::{Address, Message, ReversePath};
use postrider_providers::mime::block::Fields;

/// How much of a header is looked through for Auto-Submitted.
const MAX_HEADER: usize = 64 * 1024;

/// Whether this gateway has made the message itself: only its notifications come from no client.
#[must_use]
pub fn is_own(message: &Message) -> bool {
    message.envelope.reverse_path == ReversePath::Null && message.origin.client.is_none() && message.origin.application.is_none()
}

/// Whether mail from this sender comes from a relay, and is answered by nobody: the null reverse-path, the
/// one that stands in for it, and the daemon of this host.
#[must_use]
pub fn is_daemon(reverse_path: &ReversePath, stand_in: Option<&Address>, hostname: &str) -> bool {
    let Some(sender) = reverse_path.address() else { return true };
    stand_in.is_some_and(|stand_in| is_same(sender, stand_in))
        || (sender.local_part().eq_ignore_ascii_case("mailer-daemon") && sender.domain().eq_ignore_ascii_case(hostname))
}

/// Whether a program wrote the message to answer another one, as its header says. Mail that a program
/// merely generates is somebody's mail, unless it has the null reverse-path, too.
pub async fn is_automatic_answer(message: &Message) -> bool {
    // What cannot be read any more is nothing that this relay has to answer for.
    let Ok(start) = message.body.start(MAX_HEADER).await else { return false };
    let says = Fields::of(&start).find(|field| field.is("Auto-Submitted")).map(|field| field.unfolded().to_ascii_lowercase());
    let is_null = message.envelope.reverse_path == ReversePath::Null;
    says.is_some_and(|says| says.starts_with("auto-replied") || (is_null && !says.starts_with("no")))
}

/// Whether two addresses have the same mailbox: domains are the same in any case of letters.
#[must_use]
pub fn is_same(one: &Address, other: &Address) -> bool {
    one.local_part() == other.local_part() && one.domain().eq_ignore_ascii_case(other.domain())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use postrider_providers::contract::{Body, Envelope, MessageId, Origin, Recipient};

    use super::*;

    fn message(from: &str, content: &'static str) -> Message {
        let reverse_path = if from.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(from.parse().unwrap()) };
        Message {
            id: MessageId::generate(),
            received: SystemTime::UNIX_EPOCH,
            origin: Origin { client: Some([10, 0, 0, 1].into()), ..Origin::default() },
            envelope: Envelope::new(reverse_path, vec![Recipient::from("a@x.example".parse::<Address>().unwrap())]),
            body: Body::Inline(content.into()),
        }
    }

    #[test]
    fn a_relay_is_known_by_its_sender() {
        let stand_in = "bounces@corp.example".parse().unwrap();
        for (sender, expected) in [
            ("", true),
            ("bounces@Corp.example", true),
            ("Bounces@corp.example", false),
            ("MAILER-DAEMON@relay.example", true),
            ("mailer-daemon@other.example", false),
            ("postmaster@relay.example", false),
        ] {
            let message = message(sender, "");
            assert_eq!(is_daemon(&message.envelope.reverse_path, Some(&stand_in), "relay.example"), expected, "{sender}");
        }
    }

    #[tokio::test]
    async fn an_answer_by_a_program_is_known_by_its_header() {
        for (sender, content, expected) in [
            ("a@b.example", "Subject: x\r\nAuto-Submitted: auto-generated\r\n\r\n", false),
            ("a@b.example", "Auto-submitted: Auto-Replied (vacation)\r\n\r\n", true),
            ("", "Auto-Submitted: auto-generated\r\n\r\n", true),
            ("", "Auto-Submitted:\r\n no\r\n\r\n", false),
            ("", "Subject: x\r\n\r\nAuto-Submitted: auto-replied\r\n", false),
        ] {
            assert_eq!(is_automatic_answer(&message(sender, content)).await, expected, "{content:?}");
        }
    }

    #[test]
    fn own_mail_comes_from_nobody() {
        let mut message = message("", "");
        assert!(!is_own(&message), "a client's null reverse-path");
        message.origin.client = None;
        assert!(is_own(&message));
        message.envelope.reverse_path = ReversePath::Mailbox("a@b.example".parse().unwrap());
        assert!(!is_own(&message));
    }
}
