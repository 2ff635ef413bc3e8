//! The walk through the parts of a message: which are its texts, and what becomes of the others.

use std::collections::HashSet;

use super::head::{Head, Kind, one_line, split};
use super::{Attachment, Calendar, Fields, names, octets};
use crate::contract::{Diagnostic, Failure};

/// More parts than mail has, and more than any API takes attachments.
const MOST_PARTS: usize = 1000;

/// Deeper than mail goes.
const DEEPEST: usize = 40;

/// Fills the texts and attachments of `fields` from the body of a message with this header.
///
/// # Errors
/// `Unsuitable` when it has too many parts, or they stand in each other too deep.
pub fn walk(fields: &mut Fields, head: &Head, body: &[u8]) -> Result<(), Failure> {
    let mut walk = Walk { fields, parts: 0, texts: None, shown: Vec::new() };
    walk.part(head, body, Place { is_root: true, ..Place::default() })?;
    walk.end();
    Ok(())
}

struct Walk<'a> {
    fields: &'a mut Fields,
    parts: usize,
    /// Where the texts are: those of one multipart/alternative say the same, and others do not.
    texts: Option<Texts>,
    /// For each attachment, whether it stands in a multipart/related.
    shown: Vec<bool>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Texts {
    /// In the multipart/alternative with this number.
    Alternatives(usize),
    /// One part, which has no other form.
    Alone,
}

/// Where a part stands.
#[derive(Clone, Copy, Default)]
struct Place {
    depth: usize,
    is_root: bool,
    /// The number of the outermost multipart/alternative around it.
    alternative: Option<usize>,
    /// Whether it belongs to the first part of a multipart/related, and is not that part.
    is_related: bool,
    /// Whether it is a message where nothing is said, as in a multipart/digest.
    is_digest: bool,
}

impl Walk<'_> {
    fn part(&mut self, head: &Head, body: &[u8], place: Place) -> Result<(), Failure> {
        self.parts += 1;
        if self.parts > MOST_PARTS {
            return Err(unsuitable(format!("the message has more than {MOST_PARTS} parts")));
        }
        if place.depth > DEEPEST {
            return Err(unsuitable(format!("the parts of the message stand in each other more than {DEEPEST} deep")));
        }
        let mut kind = match head.first("content-type") {
            Some(field) => field.kind(),
            None if place.is_digest => Kind { main: "message".into(), sub: "rfc822".into(), ..Kind::default() },
            None => text_plain(),
        };
        if kind.main == "multipart" {
            let boundary = kind.parameter("boundary").unwrap_or_default().to_owned();
            let inner = if boundary.is_empty() { Vec::new() } else { parts(body, boundary.as_bytes(), MOST_PARTS + 1) };
            if !inner.is_empty() {
                return self.multipart(&kind, inner, place);
            }
            self.lost(format!("multipart/{}: it has no parts, and was read as text", kind.sub));
            kind = text_plain();
        }
        self.leaf(head, &kind, body, place);
        Ok(())
    }

    fn multipart(&mut self, kind: &Kind, inner: Vec<&[u8]>, place: Place) -> Result<(), Failure> {
        match kind.sub.as_str() {
            "report" => self.lost("the structure of the report (multipart/report)"),
            "signed" => self.lost("the signature (multipart/signed): it cannot be verified any more"),
            "encrypted" => self.lost("the structure of the encrypted message (multipart/encrypted)"),
            _ => {}
        }
        let inner: Vec<(Head, &[u8])> = inner
            .into_iter()
            .map(|entity| {
                let (head, body) = split(entity);
                (Head::of_part(head), body)
            })
            .collect();
        let alternative = if kind.sub == "alternative" { Some(self.parts) } else { None };
        let place = Place {
            depth: place.depth + 1,
            is_root: false,
            alternative: place.alternative.or(alternative),
            is_digest: kind.sub == "digest",
            ..place
        };
        let root = (kind.sub == "related").then(|| root(kind, &inner));
        for (index, (head, body)) in inner.iter().enumerate() {
            let is_related = place.is_related || root.is_some_and(|root| root != index);
            self.part(head, body, Place { is_related, ..place })?;
        }
        Ok(())
    }

    fn leaf(&mut self, head: &Head, kind: &Kind, body: &[u8], place: Place) {
        let disposition = head.first("content-disposition").map(|field| field.kind()).unwrap_or_default();
        let given = disposition.parameter("filename").or(kind.parameter("name")).and_then(names::safe);
        let encoding = head.first("content-transfer-encoding").map(|field| field.text()).unwrap_or_default();
        let (content, problem) = octets::transfer(&encoding, body);
        let what = given.clone().unwrap_or_else(|| kind.media_type());
        if let Some(problem) = problem {
            self.lost(format!("{what}: {problem}"));
        }
        let is_attached = disposition.main == "attachment"
            || place.is_related
            // A text with the name of a file is one, unless it is the message, or one of its forms.
            || (given.is_some() && !place.is_root && place.alternative.is_none());
        let is_text = kind.is("text", "plain") || kind.is("text", "html");
        if is_text && !is_attached && self.take_text(kind, &content, place) {
            return;
        }
        let media_type = kind.media_type();
        let is_invitation = media_type == "text/calendar" && place.alternative.is_some() && disposition.main != "attachment";
        let name = match given {
            Some(name) => name,
            None if is_invitation => "invite.ics".to_owned(),
            None => names::invented(&media_type, self.fields.attachments.len() + 1),
        };
        if is_invitation && self.fields.calendar.is_none() {
            let (text, _) = octets::text(&content, kind.parameter("charset"));
            let method = kind.parameter("method").map(one_line);
            self.fields.calendar = Some(Calendar { text, method, attachment: self.fields.attachments.len() });
            self.lost(Fields::LOST_CALENDAR);
        } else if place.alternative.is_some() && !place.is_related && disposition.main != "attachment" {
            self.lost(format!("{name}: another form of the text ({media_type}), handed over as an attachment"));
        } else if is_text && !is_attached {
            self.lost(format!("{name}: a further text ({media_type}), handed over as an attachment"));
        } else if place.is_root && disposition.main != "attachment" {
            self.lost(format!("{name}: the whole message is {media_type}, handed over as an attachment"));
        } else if let Some(charset) = kind.parameter("charset").filter(|charset| kind.main == "text" && !is_unicode(charset)) {
            self.lost(format!("{name}: its charset, {}", one_line(charset)));
        }
        let id = head.first("content-id").map(|field| field.text().trim_matches(['<', '>', ' ']).to_owned());
        let content_id = id.filter(|id| !id.is_empty());
        self.shown.push(place.is_related);
        self.fields.attachments.push(Attachment { name, media_type, content_id, content });
    }

    /// Takes a text for the message's, if there is none yet, or if this is another form of it.
    fn take_text(&mut self, kind: &Kind, content: &[u8], place: Place) -> bool {
        let here = place.alternative.map_or(Texts::Alone, Texts::Alternatives);
        let is_html = kind.sub == "html";
        let taken = if is_html { self.fields.html.is_some() } else { self.fields.text.is_some() };
        let belongs = match self.texts {
            None => true,
            Some(texts) => texts == here && here != Texts::Alone,
        };
        if taken || !belongs {
            return false;
        }
        self.texts = Some(here);
        let (text, problem) = octets::text(content, kind.parameter("charset"));
        if let Some(problem) = problem {
            self.lost(format!("{}: {problem}", kind.media_type()));
        }
        if kind.parameter("format").is_some_and(|format| format.eq_ignore_ascii_case("flowed")) {
            self.lost("that lines of the text may be joined (format=flowed)");
        }
        *(if is_html { &mut self.fields.html } else { &mut self.fields.text }) = Some(text);
        true
    }

    /// Leaves a Content-ID only where the HTML can show the part.
    fn end(self) {
        let known: HashSet<&str> = self.fields.attachments.iter().filter_map(|one| one.content_id.as_deref()).collect();
        let shown = self.fields.html.as_deref().map(|html| referenced(html, &known));
        for (attachment, is_related) in self.fields.attachments.iter_mut().zip(self.shown) {
            let Some(id) = &attachment.content_id else { continue };
            if !shown.as_ref().is_some_and(|shown| is_related || shown.contains(id)) {
                attachment.content_id = None;
            }
        }
    }

    fn lost(&mut self, what: impl Into<String>) {
        self.fields.lost.push(what.into());
    }
}

fn unsuitable(text: String) -> Failure {
    Failure::Unsuitable(Diagnostic::local(text))
}

fn text_plain() -> Kind {
    Kind { main: "text".into(), sub: "plain".into(), ..Kind::default() }
}

fn is_unicode(charset: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| charset.eq_ignore_ascii_case(known))
}

/// Which part of a multipart/related the others belong to (RFC 2387 section 3.2).
fn root(kind: &Kind, inner: &[(Head, &[u8])]) -> usize {
    let bare = |id: &str| id.trim_matches(['<', '>', ' ']).to_owned();
    let start = kind.parameter("start").map(bare);
    let is_start = |(head, _): &(Head, &[u8])| head.first("content-id").map(|field| bare(&field.text())) == start;
    start.as_ref().and_then(|_| inner.iter().position(is_start)).unwrap_or(0)
}

/// The parts between the lines of a boundary (RFC 2046 section 5.1.1), at most `most`. What stands before
/// the first and after the last line is for people whose software knows no MIME.
fn parts<'x>(body: &'x [u8], boundary: &[u8], most: usize) -> Vec<&'x [u8]> {
    let mut parts = Vec::new();
    let (mut begun, mut at) = (None, 0);
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        let (start, next) = (at, at + line.len());
        at = next;
        let Some(rest) = line.strip_prefix(b"--").and_then(|line| line.strip_prefix(boundary)) else { continue };
        let rest = rest.trim_ascii_end();
        if !matches!(rest, b"" | b"--") {
            continue;
        }
        if let Some(begun) = begun.replace(next) {
            // The line end before a boundary belongs to it.
            let part = &body[begun..start.max(begun)];
            let part = part.strip_suffix(b"\n").unwrap_or(part);
            parts.push(part.strip_suffix(b"\r").unwrap_or(part));
        }
        if rest == b"--" || parts.len() >= most {
            return parts;
        }
    }
    // The last line is missing, as when a message was cut.
    parts.extend(begun.map(|begun| &body[begun..]));
    parts
}

/// Those of the `known` Content-IDs that an HTML text shows.
fn referenced(html: &str, known: &HashSet<&str>) -> HashSet<String> {
    /// Looking further for the end of each would take too long in a text that is made for it.
    const LONGEST: usize = 500;
    // A colon in an ID is written as %3A (RFC 2392), and where it is not, the part is found in its multipart/related.
    let ends = |c: char| c.is_whitespace() || c.is_control() || "\"'<>)(&;,:".contains(c);
    let octets = html.as_bytes();
    let mut shown = HashSet::new();
    if known.is_empty() {
        return shown;
    }
    for at in memchr::memchr_iter(b':', octets) {
        if at < 3 || !octets[at - 3..at].eq_ignore_ascii_case(b"cid") {
            continue;
        }
        let rest = &html[at + 1..];
        let Some((end, _)) = rest.char_indices().take(LONGEST).find(|(_, c)| ends(*c)) else { continue };
        let id = &rest[..end];
        if known.contains(id) {
            shown.insert(id.to_owned());
        } else {
            shown.extend(Some(percent_decoded(id)).filter(|id| known.contains(id.as_str())));
        }
    }
    shown
}

fn percent_decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let pair = tail.get(..2).filter(|_| first == b'%').and_then(|pair| std::str::from_utf8(pair).ok());
        match pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()) {
            Some(octet) => {
                octets.push(octet);
                rest = &tail[2..];
            }
            None => {
                octets.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&octets).into_owned()
}
