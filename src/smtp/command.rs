//! Bytes of one line to a command. Pure and total: every input gives a command or a reply.

mod path;

use std::fmt;
use std::sync::Arc;

use postrider_providers::contract::{Address, BodyType, Notify, OriginalRecipient, Returned, ReversePath, xtext};

use self::path::mailbox;
use super::bdat::Chunk;
use super::census::Oddity;
use super::reply::{self, Reply};
use super::xclient::XClient;
use crate::config::OddCommands;

mod dsn;

/// One command line (RFC 5321 section 4.1.1), parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `HELO name`; the name may be empty where that is put up with.
    Helo(String),
    /// `EHLO name`; the name may be empty where that is put up with.
    Ehlo(String),
    /// `MAIL FROM:<path> parameters`.
    Mail(MailCommand),
    /// `RCPT TO:<path> parameters`.
    Rcpt(RcptCommand),
    /// `DATA`.
    Data,
    /// `BDAT octets [LAST]` (RFC 3030).
    Bdat(Chunk),
    /// `XCLIENT attributes`.
    XClient(XClient),
    /// `RSET`.
    Rset,
    /// `NOOP`, whatever follows it.
    Noop,
    /// `VRFY text`.
    Vrfy,
    /// `HELP`, whatever follows it.
    Help,
    /// `QUIT`.
    Quit,
    /// `STARTTLS` (RFC 3207).
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954 section 4).
    Auth {
        /// In upper case.
        mechanism: String,
        /// The initial response, if there is one.
        initial: Option<InitialResponse>,
    },
}

/// What the client answers before it was asked, in base64 as it came. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct InitialResponse(pub String);

impl fmt::Debug for InitialResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InitialResponse(***)")
    }
}

/// MAIL with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailCommand {
    /// The reverse-path.
    pub reverse_path: ReversePath,
    /// `SIZE=` (RFC 1870), in octets.
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152).
    pub body_type: BodyType,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 section 4.3).
    pub returned: Option<Returned>,
    /// `ENVID=` (RFC 3461 section 4.4), decoded.
    pub envelope_id: Option<Arc<str>>,
}

/// RCPT with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RcptCommand {
    /// The forward-path.
    pub path: ForwardPath,
    /// `NOTIFY=` (RFC 3461 section 4.1).
    pub notify: Option<Notify>,
    /// `ORCPT=` (RFC 3461 section 4.2).
    pub original: Option<OriginalRecipient>,
}

/// Whom RCPT names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ForwardPath {
    /// A mailbox with a domain.
    Mailbox(Address),
    /// `<Postmaster>` without a domain (RFC 5321 section 4.1.1.3): the postmaster of this host.
    Postmaster,
}

/// A command, and what is odd about how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// What it means.
    pub command: Command,
    /// What was put up with.
    pub oddities: Vec<Oddity>,
}

/// The line is no command that this server carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(pub Reply);

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is odd about a line, and whether that is put up with.
struct Notes {
    odd: OddCommands,
    oddities: Vec<Oddity>,
}

impl Notes {
    /// Notes an oddity, or refuses the line because of it: what was seen, and what was expected.
    fn meet(&mut self, oddity: Oddity) -> Result<(), CommandError> {
        match self.odd {
            OddCommands::Accept => {
                self.oddities.push(oddity);
                Ok(())
            }
            OddCommands::Reject => Err(syntax(match oddity {
                Oddity::SpaceAfterColon => "There is a space behind the colon; expected MAIL FROM:<address> or RCPT TO:<address>",
                Oddity::NoAngleBrackets => "The address has no angle brackets; expected <address>",
                _ => "HELO and EHLO need your host name",
            })),
        }
    }
}

impl Command {
    /// Parses a line without its CRLF. What can mean one thing only, but is not written as it should
    /// be, is taken or refused as `odd` says.
    ///
    /// # Errors
    /// The reply that the client gets: 500 for what is no command, 501 for wrong arguments, 502 for
    /// commands that are not offered, 555 for unknown parameters (RFC 5321 section 4.2.4).
    pub fn parse(line: &[u8], odd: OddCommands) -> Result<Parsed, CommandError> {
        let mut notes = Notes { odd, oddities: Vec::new() };
        let command = Self::read(line, &mut notes).map_err(|error| match announces_chunk(line) {
            true => CommandError(reply::BAD_CHUNK),
            false => error,
        })?;
        Ok(Parsed { command, oddities: notes.oddities })
    }

    fn read(line: &[u8], notes: &mut Notes) -> Result<Self, CommandError> {
        let Ok(text) = std::str::from_utf8(line) else {
            return Err(syntax("The command is not UTF-8"));
        };
        //= https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1
        //# In the interest of improved interoperability, SMTP
        //# receivers SHOULD tolerate trailing white space before the terminating
        //# <CRLF>.
        let text = text.trim_end_matches([' ', '\t']);
        if text.chars().any(char::is_control) {
            return Err(CommandError(if text.contains(['\r', '\n']) {
                reply::LINE_ENDING
            } else {
                syntax("The command has a control character").0
            }));
        }
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        let argument = rest.trim_matches(' ');
        let no_argument = |command| if argument.is_empty() { Ok(command) } else { Err(syntax("The command takes no argument")) };
        //= https://www.rfc-editor.org/rfc/rfc5321#section-2.4
        //# Verbs and argument values (e.g., "TO:" or "to:" in the RCPT command
        //# and extension name keywords) are not case sensitive
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => client_name(argument, notes).map(Self::Helo),
            "EHLO" => client_name(argument, notes).map(Self::Ehlo),
            "MAIL" => mail(argument, notes).map(Self::Mail),
            "RCPT" => rcpt(argument, notes).map(Self::Rcpt),
            "DATA" => no_argument(Self::Data),
            "BDAT" => Chunk::parse(argument).map(Self::Bdat),
            "RSET" => no_argument(Self::Rset),
            "QUIT" => no_argument(Self::Quit),
            //= https://www.rfc-editor.org/rfc/rfc5321#section-4.1.1.9
            //# If a parameter string is specified, servers SHOULD ignore it.
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if argument.is_empty() => Err(syntax("VRFY needs a name")),
            "VRFY" => Ok(Self::Vrfy),
            "STARTTLS" => no_argument(Self::StartTls),
            "AUTH" => auth(argument),
            "XCLIENT" => XClient::parse(argument).map(Self::XClient),
            "EXPN" => Err(CommandError(reply::NO_LISTS)),
            "ETRN" | "TURN" | "ATRN" => Err(CommandError(reply::NOTHING_TO_FETCH)),
            "SEND" | "SOML" | "SAML" => Err(CommandError(reply::NO_TERMINALS)),
            _ => Err(CommandError(reply::UNKNOWN_COMMAND)),
        }
    }
}

/// Whether a chunk follows the line, as far as its sender is concerned. Whatever is wrong with the line,
/// the chunk must not be read as commands.
pub(super) fn announces_chunk(line: &[u8]) -> bool {
    line.get(..4).is_some_and(|verb| verb.eq_ignore_ascii_case(b"BDAT")) && !line.get(4).is_some_and(u8::is_ascii_alphanumeric)
}

fn syntax(text: &'static str) -> CommandError {
    CommandError(Reply::new(501, (5, 5, 4), text))
}

fn auth(argument: &str) -> Result<Command, CommandError> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or_else(|| syntax("AUTH needs a mechanism"))?;
    let initial = words.next().map(|word| InitialResponse(word.to_owned()));
    if words.next().is_some() {
        return Err(syntax("Expected AUTH mechanism [initial-response]"));
    }
    Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial })
}

/// The name of HELO and EHLO. What it says is never believed, so any one word is good enough
/// (RFC 5321 section 4.1.4 forbids refusing mail because of it).
fn client_name(argument: &str, notes: &mut Notes) -> Result<String, CommandError> {
    if argument.is_empty() {
        notes.meet(Oddity::HelloWithoutName)?;
    }
    if argument.len() > 255 || argument.contains(' ') {
        return Err(syntax("The host name must be one word of at most 255 characters"));
    }
    Ok(argument.to_owned())
}

fn mail(argument: &str, notes: &mut Notes) -> Result<MailCommand, CommandError> {
    let rest = strip_keyword(argument, "FROM:").ok_or_else(|| syntax("Expected MAIL FROM:<address>"))?;
    let (path, parameters) = path::split(rest, "Expected MAIL FROM:<address>", notes)?;
    let reverse_path = if path.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(mailbox(path, (5, 1, 7))?) };
    let mut mail =
        MailCommand { reverse_path, size: None, body_type: BodyType::SevenBit, smtputf8: false, returned: None, envelope_id: None };
    let mut seen = Vec::new();
    for parameter in parameters {
        let (keyword, value) = parameter.split_once('=').map_or((parameter, None), |(keyword, value)| (keyword, Some(value)));
        let keyword = keyword.to_ascii_uppercase();
        match (keyword.as_str(), value) {
            ("SIZE", Some(value)) => mail.size = Some(size(value)?),
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("7BIT") => mail.body_type = BodyType::SevenBit,
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("8BITMIME") => mail.body_type = BodyType::EightBitMime,
            ("BODY", Some(value)) if value.eq_ignore_ascii_case("BINARYMIME") => return Err(CommandError(reply::NO_BINARY)),
            ("BODY", _) => return Err(syntax("Expected BODY=7BIT or BODY=8BITMIME")),
            ("SMTPUTF8", None) => mail.smtputf8 = true,
            ("RET", value) => mail.returned = Some(dsn::returned(value)?),
            ("ENVID", value) => mail.envelope_id = Some(dsn::envelope_id(value)?),
            ("AUTH", Some(value)) => submitter(value)?,
            ("REQUIRETLS", _) => return Err(CommandError(reply::NO_REQUIRETLS)),
            ("SIZE" | "SMTPUTF8", _) => return Err(syntax("Expected SIZE=octets, or SMTPUTF8 without a value")),
            _ => return Err(unknown_parameter(&keyword)),
        }
        if seen.contains(&keyword) {
            return Err(syntax("A parameter was given twice"));
        }
        seen.push(keyword);
    }
    if !mail.smtputf8 && mail.reverse_path.address().is_some_and(|address| !address.is_ascii()) {
        return Err(CommandError(reply::SENDER_NEEDS_SMTPUTF8));
    }
    Ok(mail)
}

fn rcpt(argument: &str, notes: &mut Notes) -> Result<RcptCommand, CommandError> {
    let rest = strip_keyword(argument, "TO:").ok_or_else(|| syntax("Expected RCPT TO:<address>"))?;
    let (path, parameters) = path::split(rest, "Expected RCPT TO:<address>", notes)?;
    let (mut notify, mut original) = (None, None);
    for parameter in parameters {
        let (keyword, value) = parameter.split_once('=').map_or((parameter, None), |(keyword, value)| (keyword, Some(value)));
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => dsn::once(&mut notify, dsn::notify(value)?)?,
            "ORCPT" => dsn::once(&mut original, dsn::original(value)?)?,
            keyword => return Err(unknown_parameter(keyword)),
        }
    }
    if path.is_empty() {
        return Err(CommandError(Reply::new(501, (5, 1, 3), "A recipient cannot be empty")));
    }
    let path =
        if path.eq_ignore_ascii_case("postmaster") { ForwardPath::Postmaster } else { ForwardPath::Mailbox(mailbox(path, (5, 1, 3))?) };
    Ok(RcptCommand { path, notify, original })
}

/// RFC 1870 section 4: up to 20 digits. What overflows is too large, not small.
fn size(value: &str) -> Result<u64, CommandError> {
    if value.is_empty() || value.len() > 20 || !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(syntax("Expected SIZE= and up to 20 digits"));
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn unknown_parameter(keyword: &str) -> CommandError {
    CommandError(Reply::with_text(555, (5, 5, 4), format!("The parameter {keyword} is not offered")))
}

//= https://www.rfc-editor.org/rfc/rfc4954#section-5
//# Note that an implementation which is hard-coded to treat all clients
//# as being insufficiently trusted is compliant with this specification.
/// AUTH= of MAIL: who had submitted the message, as another server says. It must have the right form
/// and is then not believed.
fn submitter(value: &str) -> Result<(), CommandError> {
    match xtext::decode_octets(value) {
        Ok(decoded) if decoded == "<>" || Address::parse(&decoded).is_ok() => Ok(()),
        _ => Err(syntax("Expected AUTH=<> or AUTH= and an address in xtext")),
    }
}

fn strip_keyword<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let head = text.get(..keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then(|| &text[keyword.len()..])
}

#[cfg(test)]
mod tests;
