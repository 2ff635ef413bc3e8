//! What goes on to a host that offers DSN (RFC 3461 section 5.2.1): the sender's requests, unchanged.

use std::fmt::Write as _;

use super::client::Extensions;
use crate::contract::{Attempt, Envelope, OriginalRecipient, Recipient, xtext};

/// The longest value of ORCPT, in characters (RFC 3461 section 4.2).
const MAX_ORIGINAL: usize = 500;

/// RET and ENVID, behind MAIL.
pub(super) fn add_to_mail(line: &mut String, extensions: &Extensions, envelope: &Envelope) {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.2
    //# ENVID, NOTIFY, RET, or ORCPT parameters MUST NOT be issued when
    //# relaying the message.
    if !extensions.dsn {
        return;
    }
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.1
    //# Any RET parameter included in the MAIL command when a message was
    //# received, MUST also appear on the MAIL command with which the
    //# message is relayed, with the same associated esmtp-value.
    if let Some(returned) = envelope.returned {
        // Writing to a String cannot fail.
        let _ = write!(line, " RET={}", returned.as_str());
    }
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.1
    //# Any ENVID parameter included in the MAIL command when a message
    //# was received, MUST also appear on the MAIL command with which the
    //# message is relayed, with the same associated esmtp-value.
    if let Some(id) = &envelope.envelope_id {
        let _ = write!(line, " ENVID={}", xtext::encode(id));
    }
}

/// RCPT with NOTIFY and ORCPT. `utf8`: MAIL said SMTPUTF8.
pub(super) fn rcpt_command(extensions: &Extensions, recipient: &Recipient, utf8: bool) -> String {
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if !extensions.dsn {
        return line;
    }
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.1
    //# If the NOTIFY parameter was not supplied
    //# for a recipient when the message was received, the NOTIFY
    //# parameter MUST NOT be supplied for that recipient when the
    //# message is relayed.
    if let Some(notify) = recipient.notify {
        // Writing to a String cannot fail.
        let _ = write!(line, " NOTIFY={notify}");
    }
    let original = match (&recipient.original, recipient.notify) {
        (Some(original), _) => original.to_parameter(utf8),
        //= https://www.rfc-editor.org/rfc/rfc3461#section-5.2.1
        //# If an ORCPT parameter is
        //# added by the relaying MTA, it MUST contain the recipient address
        //# from the RCPT command used when the message was received by that
        //# MTA.
        (None, Some(_)) => OriginalRecipient::from(&recipient.address).to_parameter(utf8),
        (None, None) => return line,
    };
    // What does not fit could get the recipient refused, and is only a help to the sender.
    if original.len() <= MAX_ORIGINAL {
        let _ = write!(line, " ORCPT={original}");
    }
    line
}

/// Whether MAIL says SMTPUTF8: the client did, or an address needs it (RFC 6531 section 3.4).
pub(super) fn is_utf8(attempt: &Attempt) -> bool {
    let envelope = &attempt.message.envelope;
    let mut addresses = envelope.reverse_path.address().into_iter().chain(attempt.recipients().map(|(_, recipient)| &recipient.address));
    envelope.smtputf8 || addresses.any(|address| !address.is_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{Notify, Returned, ReversePath};

    fn offering_dsn() -> Extensions {
        Extensions { dsn: true, ..Extensions::default() }
    }

    fn recipient(address: &str, notify: Option<&str>, original: Option<&str>) -> Recipient {
        Recipient {
            address: address.parse().unwrap(),
            notify: notify.map(|text| Notify::parse(text).unwrap()),
            original: original.map(|text| OriginalRecipient::parse(text).unwrap()),
        }
    }

    #[test]
    fn what_the_sender_asked_goes_on_unchanged_and_nothing_is_asked_in_its_place() {
        for (notify, original, expected) in [
            (None, None, ""),
            (Some("NEVER"), None, " NOTIFY=NEVER ORCPT=rfc822;a+2Bb@x"),
            (Some("success,failure"), Some("rfc822;Old@y"), " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Old@y"),
            (None, Some("X400;/C+3DDE"), " ORCPT=X400;/C+3DDE"),
            (None, Some("utf-8;b\\x{FC}@y"), " ORCPT=utf-8;b\\x{FC}@y"),
        ] {
            let recipient = recipient("a+b@x", notify, original);
            assert_eq!(rcpt_command(&offering_dsn(), &recipient, false), format!("RCPT TO:<a+b@x>{expected}"));
            assert_eq!(rcpt_command(&Extensions::default(), &recipient, false), "RCPT TO:<a+b@x>");
        }
        let mut envelope = Envelope::new(ReversePath::Null, Vec::new());
        let mail = |envelope: &Envelope, extensions: &Extensions| {
            let mut line = String::new();
            add_to_mail(&mut line, extensions, envelope);
            line
        };
        assert_eq!(mail(&envelope, &offering_dsn()), "");
        envelope.returned = Some(Returned::Full);
        envelope.envelope_id = Some("QQ 3=1".into());
        assert_eq!(mail(&envelope, &offering_dsn()), " RET=FULL ENVID=QQ+203+3D1");
        assert_eq!(mail(&envelope, &Extensions::default()), "");
    }

    #[test]
    fn an_address_outside_ascii_has_its_own_type_and_form() {
        //= https://www.rfc-editor.org/rfc/rfc6533#section-3
        //= type=test
        //# When sending data to a SMTPUTF8-capable server, native UTF-8
        //# characters SHOULD be used instead of the EmbeddedUnicodeChar syntax
        //# described below.
        let added = recipient("b\u{fc}cher@x", Some("NEVER"), None);
        assert_eq!(rcpt_command(&offering_dsn(), &added, true), "RCPT TO:<b\u{fc}cher@x> NOTIFY=NEVER ORCPT=utf-8;b\u{fc}cher@x");
        let given = recipient("a@x", None, Some("utf-8;b\u{fc}cher@x"));
        assert_eq!(rcpt_command(&offering_dsn(), &given, false), "RCPT TO:<a@x> ORCPT=utf-8;b\\x{FC}cher@x");
    }

    #[test]
    fn an_orcpt_that_is_too_long_is_not_sent() {
        let long = format!("rfc822;{}", "x".repeat(493));
        assert!(rcpt_command(&offering_dsn(), &recipient("a@x", None, Some(&long)), false).ends_with(&long));
        let utf8 = format!("utf-8;{}", "\u{fc}".repeat(200));
        assert_eq!(rcpt_command(&offering_dsn(), &recipient("a@x", None, Some(&utf8)), false), "RCPT TO:<a@x>");
    }
}
