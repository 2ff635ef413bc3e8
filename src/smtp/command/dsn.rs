//! The parameters of MAIL and RCPT about notifications (RFC 3461 section 4). Pure.

use std::sync::Arc;

use postrider_providers::contract::{Notify, OriginalRecipient, Returned, xtext};

use super::{CommandError, syntax};
use crate::smtp::reply::Reply;

/// The longest value of ENVID, in characters.
const MAX_ENVELOPE_ID: usize = 100;

/// The longest value of ORCPT, in characters.
const MAX_ORIGINAL: usize = 500;

/// `RET=`.
pub(super) fn returned(value: Option<&str>) -> Result<Returned, CommandError> {
    value.and_then(Returned::parse).ok_or_else(|| syntax("Expected RET=FULL or RET=HDRS"))
}

/// `ENVID=`.
pub(super) fn envelope_id(value: Option<&str>) -> Result<Arc<str>, CommandError> {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-4.4
    //# The ENVID esmtp-keyword MUST have an associated esmtp-value.
    let value = value.filter(|value| !value.is_empty()).ok_or_else(|| syntax("Expected ENVID=identifier"))?;
    //= https://www.rfc-editor.org/rfc/rfc3461#section-4.4
    //# The
    //# ENVID parameter MAY be up to 100 characters in length.
    if value.chars().count() > MAX_ENVELOPE_ID {
        return Err(syntax("ENVID is longer than 100 characters"));
    }
    //= https://www.rfc-editor.org/rfc/rfc3461#section-5.1
    //# However, if the associated esmtp-value is not valid (i.e.,
    //# contains illegal characters), or if there is more than one ENVID
    //# or RET parameter in a particular MAIL command, the server MUST
    //# issue the reply-code 501 with an appropriate message (e.g.,
    //# "syntax error in parameter").
    xtext::decode(value).map(Arc::from).map_err(|error| malformed("ENVID", &error))
}

/// `NOTIFY=`.
pub(super) fn notify(value: Option<&str>) -> Result<Notify, CommandError> {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-4.1
    //# Multiple notify-list-elements, separated by commas, MAY appear in
    //# a NOTIFY parameter; however, the NEVER keyword MUST appear by
    //# itself.
    value.and_then(Notify::parse).ok_or_else(|| syntax("Expected NOTIFY=NEVER, or a list of SUCCESS, FAILURE and DELAY with commas"))
}

/// `ORCPT=`.
pub(super) fn original(value: Option<&str>) -> Result<OriginalRecipient, CommandError> {
    let value = value.ok_or_else(|| syntax("Expected ORCPT=type;address"))?;
    //= https://www.rfc-editor.org/rfc/rfc3461#section-4.2
    //# The entire ORCPT parameter MAY
    //# be up to 500 characters in length.
    if value.chars().count() > MAX_ORIGINAL {
        return Err(syntax("ORCPT is longer than 500 characters"));
    }
    OriginalRecipient::parse(value).map_err(|error| malformed("ORCPT", &error))
}

/// Sets what may be given once.
pub(super) fn once<T>(place: &mut Option<T>, value: T) -> Result<(), CommandError> {
    //= https://www.rfc-editor.org/rfc/rfc3461#section-4.5
    //# If more than one of either of these parameters appears
    //# in a RCPT command, the ESMTP server SHOULD respond with "501 syntax
    //# error in parameters or arguments".
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(syntax("A parameter was given twice")),
    }
}

fn malformed(keyword: &str, error: &dyn std::error::Error) -> CommandError {
    CommandError(Reply::with_text(501, (5, 5, 4), format!("{keyword} is not valid: {error}")))
}

#[cfg(test)]
mod tests {
    use crate::config::OddCommands;
    use crate::smtp::command::{Command, CommandError, MailCommand, RcptCommand};

    fn parse(line: &str) -> Result<Command, CommandError> {
        Command::parse(line.as_bytes(), OddCommands::Reject).map(|parsed| parsed.command)
    }

    fn mail(line: &str) -> MailCommand {
        match parse(line) {
            Ok(Command::Mail(mail)) => mail,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn rcpt(line: &str) -> RcptCommand {
        match parse(line) {
            Ok(Command::Rcpt(rcpt)) => rcpt,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refusal(line: &str) -> String {
        parse(line).expect_err(line).to_string()
    }

    #[test]
    fn the_example_of_rfc_3461_is_understood() {
        let mail = mail("MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159");
        assert_eq!((mail.returned.unwrap().as_str(), mail.envelope_id.as_deref()), ("HDRS", Some("QQ314159")));
        for (parameters, notify, original) in [
            ("NOTIFY=SUCCESS ORCPT=rfc822;Bob@Example.COM", Some("SUCCESS"), Some("rfc822;Bob@Example.COM")),
            ("NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;Dana@Ivory.EDU", Some("SUCCESS,FAILURE"), Some("rfc822;Dana@Ivory.EDU")),
            ("notify=never", Some("NEVER"), None),
            ("orcpt=utf-8;b\u{fc}cher@x", None, Some("utf-8;b\u{fc}cher@x")),
            ("", None, None),
        ] {
            let rcpt = rcpt(&format!("RCPT TO:<a@b.example> {parameters}"));
            assert_eq!(rcpt.notify.map(|notify| notify.to_string()).as_deref(), notify, "{parameters}");
            assert_eq!(rcpt.original.map(|original| original.to_parameter(true)).as_deref(), original, "{parameters}");
        }
    }

    #[test]
    fn values_as_long_as_rfc_3461_allows_are_taken_and_longer_ones_are_not() {
        //= https://www.rfc-editor.org/rfc/rfc3461#section-5.4
        //= type=test
        //# A conforming MTA MUST accept ESMTP parameters of at least the
        //# following sizes:
        let envelope_id = |length| format!("MAIL FROM:<a@b> ENVID={}", "x".repeat(length));
        assert_eq!(mail(&envelope_id(100)).envelope_id.unwrap().len(), 100);
        assert!(refusal(&envelope_id(101)).contains("100 characters"));
        let original = |length: usize| format!("RCPT TO:<a@b> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;{}", "x".repeat(length - 7));
        assert_eq!(rcpt(&original(500)).original.unwrap().address.len(), 493);
        assert!(refusal(&original(501)).contains("500 characters"));
    }

    #[test]
    fn what_is_wrong_is_refused_with_501_and_the_reason() {
        for (line, reason) in [
            ("MAIL FROM:<a@b> RET", "RET=FULL or RET=HDRS"),
            ("MAIL FROM:<a@b> RET=ALL", "RET=FULL or RET=HDRS"),
            ("MAIL FROM:<a@b> RET=FULL RET=FULL", "twice"),
            ("MAIL FROM:<a@b> ENVID", "ENVID=identifier"),
            ("MAIL FROM:<a@b> ENVID=", "ENVID=identifier"),
            ("MAIL FROM:<a@b> ENVID=a=b", "+XX"),
            ("MAIL FROM:<a@b> ENVID=a+0d+0ab", "two hexadecimal digits"),
            ("MAIL FROM:<a@b> ENVID=a+0D+0ASubject:+20x", "not printable"),
            ("MAIL FROM:<a@b> ENVID=a ENVID=a", "twice"),
            ("RCPT TO:<a@b> NOTIFY", "NOTIFY=NEVER"),
            ("RCPT TO:<a@b> NOTIFY=", "NOTIFY=NEVER"),
            ("RCPT TO:<a@b> NOTIFY=NEVER,SUCCESS", "NOTIFY=NEVER"),
            ("RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=NEVER", "twice"),
            ("RCPT TO:<a@b> ORCPT", "type;address"),
            ("RCPT TO:<a@b> ORCPT=a@b", "address type"),
            ("RCPT TO:<a@b> ORCPT=rfc822;", "empty"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+0Ab", "not printable"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a@b ORCPT=rfc822;a@b", "twice"),
        ] {
            let refusal = refusal(line);
            assert!(refusal.starts_with("501") && refusal.contains(reason), "{line}: {refusal}");
        }
        assert!(refusal("RCPT TO:<a@b> FOO=1").starts_with("555"));
        assert!(refusal("MAIL FROM:<a@b> NOTIFY=NEVER").starts_with("555"));
    }
}
