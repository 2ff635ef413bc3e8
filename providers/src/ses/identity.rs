//! Whose identity is not verified: SES lists those that failed, and not what each of them is.

use mail_parser::MessageParser;

use crate::contract::Attempt;

/// Who is at fault when identities are not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Only recipients: the account is in the sandbox.
    Recipients,
    /// The envelope's sender, or nobody that is known.
    Sender,
    /// The header's From, which is another than the envelope's sender.
    From,
    /// The sender, and recipients, too.
    Both,
}

/// Who is at fault, by what SES says.
pub(super) fn fault(said: &str, attempt: &Attempt, content: &[u8]) -> Fault {
    let listed = unverified(said);
    let sender = attempt.message.envelope.reverse_path.as_str();
    let from = header_from(content);
    let told = addresses(attempt);
    let is_sender = |identity: &str| covers(identity, sender);
    let is_from = |identity: &str| from.as_deref().is_some_and(|from| covers(identity, from));
    let is_recipient = |identity: &str| told.iter().any(|address| covers(identity, address));
    let any = |what: &dyn Fn(&str) -> bool| listed.iter().any(|identity| what(identity));
    // Someone may write to themselves: then it is the sender that has to be verified first.
    let only_recipient = |identity: &str| is_recipient(identity) && !is_sender(identity) && !is_from(identity);
    if !listed.is_empty() && listed.iter().all(|identity| only_recipient(identity)) {
        Fault::Recipients
    } else if any(&only_recipient) {
        Fault::Both
    } else if any(&is_from) && !any(&is_sender) {
        Fault::From
    } else {
        Fault::Sender
    }
}

/// The recipients whose identities are listed.
pub(super) fn recipients(said: &str, attempt: &Attempt) -> Vec<String> {
    let listed = unverified(said);
    let is_listed = |address: &&str| listed.iter().any(|identity| covers(identity, address));
    addresses(attempt).into_iter().filter(is_listed).map(str::to_owned).collect()
}

fn addresses(attempt: &Attempt) -> Vec<&str> {
    attempt.recipients().map(|(_, recipient)| recipient.address.as_str()).collect()
}

impl Fault {
    /// What there is to say beside SES's own words.
    pub(super) fn words(self) -> Option<&'static str> {
        match self {
            Self::Recipients => Some("the account is in the SES sandbox, and this recipient is not verified there"),
            Self::Sender => None,
            Self::From => Some("this is the address of the header's From, not the envelope's sender"),
            Self::Both => Some("recipients are among them, so the account is in the SES sandbox, too"),
        }
    }
}

/// The identities listed in "The following identities failed the check in region X: a@b, c@d".
/// <https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html>
fn unverified(said: &str) -> Vec<&str> {
    let Some((_, listed)) = said.split_once("identities failed the check in region ") else { return Vec::new() };
    let Some((_, listed)) = listed.split_once(':') else { return Vec::new() };
    listed.split(',').map(|identity| bare(identity.trim().trim_end_matches('.'))).filter(|identity| !identity.is_empty()).collect()
}

/// The identity alone, from `Name <a@b>` and `arn:aws:ses:eu-west-1:1:identity/a@b`.
fn bare(identity: &str) -> &str {
    if let (Some(at), Some(inner)) = (identity.rfind('<'), identity.strip_suffix('>')) {
        return &inner[at + 1..];
    }
    match identity.strip_prefix("arn:").and_then(|arn| arn.split_once(":identity/")) {
        Some((_, name)) => name,
        None => identity,
    }
}

/// Whether this identity, an address or a domain, is the one of `address`.
fn covers(identity: &str, address: &str) -> bool {
    let domain = address.rsplit_once('@').map_or("", |(_, domain)| domain);
    identity.eq_ignore_ascii_case(address) || (!domain.is_empty() && identity.eq_ignore_ascii_case(domain))
}

fn header_from(content: &[u8]) -> Option<String> {
    let message = MessageParser::new().parse_headers(content)?;
    Some(message.from()?.first()?.address()?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::conformance::attempt;

    fn said(listed: &str) -> String {
        format!("Email address is not verified. The following identities failed the check in region EU-WEST-1: {listed}")
    }

    #[test]
    fn identities_are_read_from_the_message() {
        let all = said("a@b, C <c@d.example>, arn:aws:ses:eu-west-1:1:identity/e.example.");
        assert_eq!(unverified(&all), ["a@b", "c@d.example", "e.example"]);
        assert_eq!(unverified("Email address is not verified."), Vec::<&str>::new());
        assert_eq!(unverified("identities failed the check in region X"), Vec::<&str>::new());
    }

    // The attempt is from sender@app.example to first@a.example, refused@b.example and Third+Tag@C.example.
    #[tokio::test]
    async fn senders_authors_and_recipients_are_told_apart() {
        let content = b"From: Somebody <author@other.example>\r\n\r\nx\r\n";
        let attempt = attempt(content, Duration::from_secs(1));
        for (listed, expected) in [
            ("sender@app.example", Fault::Sender),
            ("SENDER@app.example", Fault::Sender),
            ("arn:aws:ses:eu-west-1:1:identity/app.example", Fault::Sender),
            ("someone@else.example", Fault::Sender),
            ("", Fault::Sender),
            ("author@other.example", Fault::From),
            ("Somebody <author@other.example>", Fault::From),
            ("author@other.example, sender@app.example", Fault::Sender),
            ("first@a.example", Fault::Recipients),
            ("third+tag@c.example, refused@b.example", Fault::Recipients),
            ("c.example", Fault::Recipients),
            ("sender@app.example, first@a.example", Fault::Both),
            // A recipient that this attempt is not about.
            ("done@a.example", Fault::Sender),
        ] {
            assert_eq!(fault(&said(listed), &attempt, content), expected, "{listed}");
        }
        let to_self = b"From: first@a.example\r\n\r\nx\r\n";
        assert_eq!(fault(&said("first@a.example"), &attempt, to_self), Fault::From);
        // A domain stands for all of its addresses.
        assert_eq!(recipients(&said("c.example, refused@b.example"), &attempt), ["refused@b.example", "Third+Tag@C.example"]);
    }
}
