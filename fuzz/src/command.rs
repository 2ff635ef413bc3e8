//! Command lines: parsing is total, refuses in order, and knows its own text again.

use bytes::BytesMut;
use postrider::config::OddCommands;
use postrider::smtp::command::{Command, CommandError, ForwardPath};
use postrider_providers::contract::{BodyType, xtext};

use super::reply;

/// Checks one line.
///
/// # Panics
/// When it is neither a command nor refused with one well-formed reply of an error code; when putting
/// up with oddities changes anything about a line that has none; when what was parsed, written down
/// again, is parsed as something else.
pub fn check(line: &[u8]) {
    let strict = Command::parse(line, OddCommands::Reject);
    let tolerant = Command::parse(line, OddCommands::Accept);
    for refusal in [&strict, &tolerant].into_iter().filter_map(|parsed| parsed.as_ref().err()) {
        let CommandError(refusal) = refusal;
        let mut wire = BytesMut::new();
        refusal.write_to(&mut wire);
        assert_eq!(reply::split(&wire).len(), 1, "a command gets exactly one reply");
        assert!(refusal.is_error(), "a refusal with a code that is no error: {refusal}");
    }
    if let Ok(strict) = &strict {
        assert_eq!(strict.oddities, [], "what is odd was taken without being put up with");
        assert_eq!(tolerant.as_ref().ok(), Some(strict), "tolerance changes a line that is as it should be");
    }
    let Ok(tolerant) = tolerant else { return };
    assert!(strict.is_ok() || !tolerant.oddities.is_empty(), "something was put up with, and not noted");
    let Some(text) = canonical(&tolerant.command) else { return };
    let again = Command::parse(text.as_bytes(), OddCommands::Reject).unwrap_or_else(|error| panic!("{text:?} is refused: {error}"));
    assert_eq!(again.command, tolerant.command, "{text:?} is parsed as something else");
}

/// A command as a strict client writes it, where all of it can be written so.
fn canonical(command: &Command) -> Option<String> {
    Some(match command {
        Command::Helo(name) if !name.is_empty() => format!("HELO {name}"),
        Command::Ehlo(name) if !name.is_empty() => format!("EHLO {name}"),
        Command::Mail(mail) => {
            let path = mail.reverse_path.address().map_or("", |address| address.as_str());
            let mut text = format!("MAIL FROM:<{path}>");
            if let Some(size) = mail.size {
                text += &format!(" SIZE={size}");
            }
            match mail.body_type {
                BodyType::SevenBit => {}
                BodyType::EightBitMime => text += " BODY=8BITMIME",
            }
            if mail.smtputf8 {
                text += " SMTPUTF8";
            }
            if let Some(returned) = mail.returned {
                text += &format!(" RET={}", returned.as_str());
            }
            if let Some(id) = &mail.envelope_id {
                text += &format!(" ENVID={}", xtext::encode(id));
            }
            text
        }
        Command::Rcpt(rcpt) => {
            let path = match &rcpt.path {
                ForwardPath::Mailbox(address) => address.as_str(),
                ForwardPath::Postmaster => "Postmaster",
            };
            let mut text = format!("RCPT TO:<{path}>");
            if let Some(notify) = rcpt.notify {
                text += &format!(" NOTIFY={notify}");
            }
            if let Some(original) = &rcpt.original {
                text += &format!(" ORCPT={}", original.to_parameter(true));
            }
            text
        }
        Command::Data => "DATA".to_owned(),
        Command::Rset => "RSET".to_owned(),
        Command::Quit => "QUIT".to_owned(),
        _ => return None,
    })
}
