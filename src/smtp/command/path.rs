//! The path of MAIL and RCPT, and what follows it.

use postrider_providers::contract::{Address, AddressError};

use super::{CommandError, Notes, syntax};
use crate::smtp::census::Oddity;
use crate::smtp::reply::Reply;

/// Splits what follows `FROM:` or `TO:` into path and parameters. The path is without its brackets
/// and its source route; it is empty for `<>` alone.
///
/// # Errors
/// When it can mean nothing, or more than one thing: 501.
pub(super) fn split<'a>(
    text: &'a str,
    expected: &'static str,
    notes: &mut Notes,
) -> Result<(&'a str, impl Iterator<Item = &'a str>), CommandError> {
    let path = text.trim_start_matches(' ');
    if path.is_empty() {
        return Err(syntax(expected));
    }
    if path.len() < text.len() {
        notes.meet(Oddity::SpaceAfterColon)?;
    }
    let (path, rest) = match path.strip_prefix('<') {
        Some(inner) => {
            let end = end_of(inner, '>').ok_or_else(|| syntax(expected))?;
            (without_route(&inner[..end])?, &inner[end + 1..])
        }
        None => {
            // What has an angle bracket anywhere is meant to be more than a mailbox, as in `Jones <a@b>`.
            let end = end_of(path, ' ').unwrap_or(path.len());
            let (mailbox, rest) = path.split_at(end);
            let is_mailbox = mailbox.eq_ignore_ascii_case("postmaster") || Address::parse(mailbox).is_ok();
            if !is_mailbox || rest.contains(['<', '>']) {
                return Err(syntax(expected));
            }
            notes.meet(Oddity::NoAngleBrackets)?;
            (mailbox, rest)
        }
    };
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(syntax(expected));
    }
    Ok((path, rest.split(' ').filter(|parameter| !parameter.is_empty())))
}

//= https://www.rfc-editor.org/rfc/rfc5321#section-3.6.1
//# When route information is encountered,
//# SMTP servers MAY ignore the route information and simply send to the
//# final destination specified as the last element in the route and
//# SHOULD do so.
/// The mailbox of a path: source routes are dropped.
fn without_route(path: &str) -> Result<&str, CommandError> {
    match path.split_once(':') {
        Some((route, mailbox)) if path.starts_with('@') => {
            let is_hop = |hop: &str| hop.trim_matches(' ').strip_prefix('@').is_some_and(|host| !host.is_empty() && !host.contains('@'));
            if route.split(',').all(is_hop) { Ok(mailbox) } else { Err(syntax("The source route is not valid")) }
        }
        _ => Ok(path),
    }
}

/// The mailbox that a path is; `status` says whose it is.
pub(super) fn mailbox(path: &str, status: (u8, u16, u16)) -> Result<Address, CommandError> {
    Address::parse(path).map_err(|error| {
        let text = match error {
            AddressError::NoDomain => "The address has no domain; expected <local-part@domain>",
            AddressError::LocalPart => "The part before the @ is not valid",
            AddressError::Domain => "The domain is not valid",
        };
        CommandError(Reply::new(if status.1 == 1 && status.2 == 7 { 553 } else { 501 }, status, text))
    })
}

/// The position of the character that is not inside a quoted local part.
fn end_of(text: &str, end: char) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (position, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if c == end && !quoted => return Some(position),
            _ => {}
        }
    }
    None
}
