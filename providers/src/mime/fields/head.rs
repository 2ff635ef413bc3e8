//! A header as a list of fields, read without judging: no header is too odd to be read.

use mail_parser::parsers::MessageStream;
use mail_parser::{Address, HeaderValue};

use super::Mailbox;

/// The longest name of a field, and of a media type: far beyond any that is in use.
const LONGEST_NAME: usize = 127;

/// The fields of a part's header that are read.
const OF_PART: [&str; 4] = ["content-type", "content-disposition", "content-transfer-encoding", "content-id"];

/// The header of a message or part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    /// Its fields, in order.
    pub fields: Vec<Field>,
    /// How many of its lines belong to no field.
    pub odd_lines: usize,
}

/// A header field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Its name as written.
    pub name: String,
    /// What stands after the colon, unfolded.
    raw: Vec<u8>,
}

/// A media type or disposition with its parameters, decoded (RFC 2045, RFC 2231).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kind {
    /// The first word, in lower case: `text` of `text/plain`, or `attachment`.
    pub main: String,
    /// The second word, in lower case; empty if there is none.
    pub sub: String,
    /// The parameters.
    pub parameters: Vec<(String, String)>,
}

/// Splits a message or part into its header and its body, at the first empty line.
pub fn split(entity: &[u8]) -> (&[u8], &[u8]) {
    let mut at = 0;
    for line in entity.split_inclusive(|&byte| byte == b'\n') {
        if matches!(line, b"\n" | b"\r\n") {
            return (&entity[..at], &entity[at + line.len()..]);
        }
        at += line.len();
    }
    (entity, &[])
}

impl Head {
    /// Reads the header of a message.
    pub fn read(head: &[u8]) -> Self {
        Self::keeping(head, |_, _| true)
    }

    /// Reads the header of a part: what is used of it, once each. Nobody has looked at how large it is, and
    /// in a message that is made of nothing else each field would take many times its octets.
    pub fn of_part(head: &[u8]) -> Self {
        Self::keeping(head, |read, name| {
            OF_PART.iter().any(|known| known.as_bytes().eq_ignore_ascii_case(name))
                && !read.fields.iter().any(|field| field.name.as_bytes().eq_ignore_ascii_case(name))
        })
    }

    /// Reads a header, of which those fields stay for which `wants` says so.
    fn keeping(head: &[u8], wants: impl Fn(&Self, &[u8]) -> bool) -> Self {
        let mut read = Self::default();
        // Whether a folded line goes on a field, and whether that one stays.
        let (mut in_field, mut is_kept) = (false, false);
        for line in head.split_inclusive(|&byte| byte == b'\n') {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if matches!(line.first(), Some(b' ' | b'\t')) && in_field {
                read.fields.last_mut().filter(|_| is_kept).into_iter().for_each(|field| field.raw.extend_from_slice(line));
                continue;
            }
            let Some((name, value)) = field(line) else {
                read.odd_lines += 1;
                continue;
            };
            (in_field, is_kept) = (true, wants(&read, name));
            if is_kept {
                read.fields.push(Field { name: String::from_utf8_lossy(name).into_owned(), raw: value.to_vec() });
            }
        }
        read
    }

    /// The first field of this name.
    pub fn first(&self, name: &str) -> Option<&Field> {
        self.all(name).next()
    }

    /// All fields of this name.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name))
    }
}

/// The name of a field, and what stands behind the colon.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|&byte| byte == b':')?;
    let name = line[..colon].trim_ascii_end();
    // Printable ASCII without the colon (RFC 5322 section 3.6.8).
    let is_name = (1..=LONGEST_NAME).contains(&name.len()) && name.iter().all(u8::is_ascii_graphic);
    is_name.then(|| (name, &line[colon + 1..]))
}

impl Field {
    /// The value as written, without anything that could end a line.
    pub fn text(&self) -> String {
        one_line(&String::from_utf8_lossy(&self.raw))
    }

    /// Whether the value has octets that mean nothing as UTF-8.
    pub fn is_damaged(&self) -> bool {
        std::str::from_utf8(&self.raw).is_err()
    }

    /// The value with its encoded words decoded (RFC 2047).
    pub fn decoded(&self) -> String {
        match MessageStream::new(&self.line()).parse_unstructured() {
            HeaderValue::Text(text) => one_line(&text),
            _ => String::new(),
        }
    }

    /// The mailboxes in it, of groups as well. What has no address is there with an empty one.
    pub fn mailboxes(&self) -> Vec<Mailbox> {
        let line = self.line();
        let HeaderValue::Address(list) = MessageStream::new(&line).parse_address() else { return Vec::new() };
        let read = |one: &mail_parser::Addr<'_>| {
            let name = one.name().map(one_line).filter(|name| !name.is_empty());
            Mailbox { name, address: one.address().map(one_line).unwrap_or_default() }
        };
        match &list {
            Address::List(list) => list.iter().map(read).collect(),
            Address::Group(groups) => groups.iter().flat_map(|group| &group.addresses).map(read).collect(),
        }
    }

    /// The value as a media type or disposition.
    pub fn kind(&self) -> Kind {
        let line = self.line();
        let HeaderValue::ContentType(kind) = MessageStream::new(&line).parse_content_type() else { return Kind::default() };
        let parameters = kind.attributes.iter().flatten().map(|one| (one.name.to_lowercase(), one.value.clone().into_owned()));
        Kind {
            main: one_line(&kind.c_type).to_lowercase(),
            sub: kind.c_subtype.as_deref().map(one_line).unwrap_or_default().to_lowercase(),
            parameters: parameters.collect(),
        }
    }

    /// The value with the octets that the reading functions take for its end.
    fn line(&self) -> Vec<u8> {
        [&self.raw[..], b"\r\n"].concat()
    }
}

impl Kind {
    /// A parameter's value.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is this media type.
    pub fn is(&self, main: &str, sub: &str) -> bool {
        self.main == main && self.sub == sub
    }

    /// As in `text/plain`.
    pub fn media_type(&self) -> String {
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte));
        match is_word(&self.main) && is_word(&self.sub) {
            true => format!("{}/{}", self.main, self.sub),
            false => "application/octet-stream".to_owned(),
        }
    }
}

/// `text` without control characters: none of it can end a line or a field.
pub fn one_line(text: &str) -> String {
    let clean: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim().to_owned()
}
