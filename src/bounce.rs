//! Composes the notification that a message could not be delivered (RFC 3464), with the null
//! reverse-path, so that it can never cause another one.

use std::fmt::Write as _;
use std::time::SystemTime;

use bytes::Bytes;
use postrider_providers::contract::{
    Address, Body, BodyType, Diagnostic, EnhancedStatus, Envelope, Message, MessageId, Origin, Recipient, ReversePath,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// How much of the original header is returned.
const MAX_RETURNED_HEADER: usize = 64 * 1024;

/// A recipient who will not get the message.
#[derive(Debug)]
pub struct Failed<'a> {
    /// Who.
    pub recipient: &'a Recipient,
    /// What was said last.
    pub diagnostic: Diagnostic,
    /// Whether time ran out, rather than somebody refusing for good.
    pub expired: bool,
}

/// The notification for these recipients; `None` when the message itself came with the null
/// reverse-path (RFC 5321 section 4.5.5).
pub async fn compose(message: &Message, failed: &[Failed<'_>], hostname: &str, now: SystemTime) -> Option<Message> {
    let ReversePath::Mailbox(sender) = &message.envelope.reverse_path else {
        return None;
    };
    let id = MessageId::generate();
    let header = original_header(&message.body).await;
    let text = render(message, sender, failed, hostname, id, now, &header);
    let smtputf8 = !sender.is_ascii();
    let body_type = if text.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
    Some(Message {
        id,
        received: now,
        origin: Origin::default(),
        envelope: Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::from(sender.clone())],
            body_type,
            smtputf8,
            returned: None,
            envelope_id: None,
        },
        body: Body::Inline(Bytes::from(text)),
    })
}

fn render(
    message: &Message,
    sender: &Address,
    failed: &[Failed<'_>],
    hostname: &str,
    id: MessageId,
    now: SystemTime,
    header: &str,
) -> String {
    let date = |time: SystemTime| OffsetDateTime::from(time).format(&Rfc2822).unwrap_or_default();
    let boundary = format!("=_postrider_{id}");
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        // Writing to a String cannot fail.
        let _ = text.write_fmt(line);
        text.push_str("\r\n");
    };
    line(format_args!("From: Mail Delivery System <postmaster@{hostname}>"));
    line(format_args!("To: <{sender}>"));
    line(format_args!("Subject: Undelivered mail returned to sender"));
    line(format_args!("Date: {}", date(now)));
    line(format_args!("Message-ID: <{id}@{hostname}>"));
    line(format_args!("Auto-Submitted: auto-replied"));
    line(format_args!("MIME-Version: 1.0"));
    line(format_args!("Content-Type: multipart/report; report-type=delivery-status;"));
    line(format_args!("\tboundary=\"{boundary}\""));
    line(format_args!("\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"));
    line(format_args!("This is the mail relay at {hostname}.\r\n"));
    line(format_args!("Your message could not be delivered to:\r\n"));
    for failed in failed {
        let why = if failed.expired { "gave up after trying for too long; the last answer was" } else { "refused" };
        line(format_args!("  <{}>\r\n    {why}: {}", failed.recipient.address, one_line(&failed.diagnostic.to_string())));
    }
    line(format_args!("\r\nIts id at this relay is {}.", message.id));
    line(format_args!("\r\n--{boundary}\r\nContent-Type: message/delivery-status\r\n"));
    line(format_args!("Reporting-MTA: dns; {hostname}"));
    line(format_args!("Arrival-Date: {}", date(message.received)));
    for failed in failed {
        line(format_args!("\r\nFinal-Recipient: rfc822; {}", failed.recipient.address));
        line(format_args!("Action: failed"));
        line(format_args!("Status: {}", status(failed)));
        if let Some(code) = failed.diagnostic.code {
            line(format_args!("Diagnostic-Code: smtp; {code} {}", one_line(&failed.diagnostic.text)));
        }
        line(format_args!("Last-Attempt-Date: {}", date(now)));
    }
    line(format_args!("\r\n--{boundary}\r\nContent-Type: text/rfc822-headers\r\n"));
    line(format_args!("{}", header.trim_end()));
    line(format_args!("\r\n--{boundary}--"));
    text
}

/// RFC 3464 section 2.3.4: a failed recipient has a status of class 5, or 4.4.7 when time ran out.
fn status(failed: &Failed<'_>) -> EnhancedStatus {
    if failed.expired {
        return EnhancedStatus(4, 4, 7);
    }
    failed.diagnostic.status.filter(|status| status.0 == 5).unwrap_or(EnhancedStatus(5, 0, 0))
}

/// The header of the message that is returned; empty when it can no longer be read.
async fn original_header(body: &Body) -> String {
    let Ok(mut reader) = body.open().await else { return String::new() };
    let mut start = Vec::new();
    while start.len() < MAX_RETURNED_HEADER && !start.windows(4).any(|window| window == b"\r\n\r\n") {
        match reader.chunk().await {
            Ok(Some(chunk)) => start.extend_from_slice(&chunk[..chunk.len().min(MAX_RETURNED_HEADER)]),
            Ok(None) | Err(_) => break,
        }
    }
    let end = start.windows(4).position(|window| window == b"\r\n\r\n").map_or(start.len(), |end| end + 2);
    String::from_utf8_lossy(&start[..end.min(MAX_RETURNED_HEADER)]).into_owned()
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: ReversePath) -> Message {
        let recipients = ["a@x.example", "b@x.example"].map(|text| Recipient::from(text.parse::<Address>().unwrap())).to_vec();
        Message {
            id: MessageId::generate(),
            received: SystemTime::UNIX_EPOCH,
            origin: Origin::default(),
            envelope: Envelope {
                reverse_path: from,
                recipients,
                body_type: BodyType::SevenBit,
                smtputf8: false,
                returned: None,
                envelope_id: None,
            },
            body: Body::Inline(Bytes::from_static(b"Subject: Hello\r\nMessage-ID: <1@x>\r\n\r\nsecret text\r\n")),
        }
    }

    #[tokio::test]
    async fn the_notification_names_each_recipient_with_status_and_words_and_returns_the_header_only() {
        let message = message(ReversePath::Mailbox("app@erp.example".parse().unwrap()));
        let failed = [
            Failed {
                recipient: &message.envelope.recipients[0],
                diagnostic: Diagnostic::reply("RCPT", 550, "5.1.1 no such\r\nuser"),
                expired: false,
            },
            Failed {
                recipient: &message.envelope.recipients[1],
                diagnostic: Diagnostic::during("connect", "connection refused"),
                expired: true,
            },
        ];
        let notification = compose(&message, &failed, "relay.example", SystemTime::UNIX_EPOCH).await.unwrap();
        assert_eq!(notification.envelope.reverse_path, ReversePath::Null);
        assert_eq!(notification.envelope.recipients[0].address.as_str(), "app@erp.example");
        let text = String::from_utf8(notification.body.bytes().await.unwrap().to_vec()).unwrap();
        for expected in [
            "Content-Type: multipart/report; report-type=delivery-status;",
            "Final-Recipient: rfc822; a@x.example\r\nAction: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such  user\r\n",
            "Final-Recipient: rfc822; b@x.example\r\nAction: failed\r\nStatus: 4.4.7\r\n",
            "Subject: Hello\r\nMessage-ID: <1@x>\r\n",
        ] {
            assert!(text.contains(expected), "{expected:?} in\n{text}");
        }
        assert!(!text.contains("secret text"));
        assert!(!text.replace("\r\n", "").contains(['\r', '\n']));
    }

    #[tokio::test]
    async fn a_message_with_the_null_reverse_path_causes_no_notification() {
        let message = message(ReversePath::Null);
        let failed = [Failed { recipient: &message.envelope.recipients[0], diagnostic: Diagnostic::local("no"), expired: false }];
        assert!(compose(&message, &failed, "relay.example", SystemTime::UNIX_EPOCH).await.is_none());
    }
}
