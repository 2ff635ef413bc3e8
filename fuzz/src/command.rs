//! Command lines: parsing is total, refuses in order, and knows its own text again.

use bytes::BytesMut;
use postrider::smtp::command::{Command, CommandError, ForwardPath};
use postrider_providers::contract::{BodyType, xtext};

use super::reply;

/// Checks one line.
///
/// # Panics
/// When it is neither a command nor refused with one well-formed reply of an error code, or when what
/// was parsed, written down again, is parsed as something else.
pub fn check(line: &[u8]) {
    match Command::parse(line) {
        Err(CommandError(refusal)) => {
            let mut wire = BytesMut::new();
            refusal.write_to(&mut wire);
            assert_eq!(reply::split(&wire).len(), 1, "a command gets exactly one reply");
            assert!(refusal.is_error(), "a refusal with a code that is no error: {refusal}");
        }
        Ok(command) => {
            let Some(text) = canonical(&command) else { return };
            let again = Command::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?} is refused: {error}"));
            assert_eq!(canonical(&again).as_deref(), Some(&*text), "{text:?} is parsed as something else");
            assert_eq!(again, command, "{text:?} loses something");
        }
    }
}

/// A command as a strict client writes it, where all of it can be written so.
fn canonical(command: &Command) -> Option<String> {
    Some(match command {
        Command::Helo(name) => format!("HELO {name}"),
        Command::Ehlo(name) => format!("EHLO {name}"),
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
