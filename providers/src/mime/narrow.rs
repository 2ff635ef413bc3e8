//! What narrower APIs cannot take of a message's fields, and what stands for it instead.
//!
//! Nothing is dropped in silence: whatever gives way is put into `lost`, in words.

use std::borrow::Cow;
use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::fields::{Fields, Mailbox};
use crate::contract::{Diagnostic, Failure};

/// An HTML body with nothing in it, for APIs that want one.
pub const EMPTY_HTML: &str = "<p></p>";

/// The subject, for APIs that want one.
pub fn subject<'a>(fields: &'a Fields, lost: &mut Vec<String>) -> Cow<'a, str> {
    if fields.subject.trim().is_empty() {
        lost.push("the empty Subject, for which \"(no subject)\" stands".to_owned());
        return "(no subject)".into();
    }
    Cow::Borrowed(&fields.subject)
}

/// HTML that shows a plain text as it is: its lines, its indentation, and no markup of its own.
#[must_use]
pub fn html_of(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 64);
    html.push_str("<pre style=\"white-space: pre-wrap; font-family: inherit\">");
    for c in text.chars() {
        match c {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '\r' => {}
            _ => html.push(c),
        }
    }
    html.push_str("</pre>");
    html
}

/// Refuses a message in which an API would take something for a placeholder of its template language,
/// and put something else there.
///
/// # Errors
/// `Unsuitable`, with the mark and where it is.
pub fn refuse_placeholders(fields: &Fields, marks: &[&str], service: &str) -> Result<(), Failure> {
    let texts = [("the subject", Some(&fields.subject)), ("the text", fields.text.as_ref()), ("the HTML", fields.html.as_ref())];
    for (place, text) in texts {
        let Some(mark) = text.and_then(|text| marks.iter().find(|mark| text.contains(**mark))) else { continue };
        return Err(Failure::Unsuitable(Diagnostic::local(format!(
            "{place} contains {mark}, which {service} takes for a placeholder and would replace"
        ))));
    }
    Ok(())
}

/// The one Reply-To that APIs with room for one get.
pub fn one_reply_to<'a>(fields: &'a Fields, lost: &mut Vec<String>) -> Option<&'a Mailbox> {
    if fields.reply_to.len() > 1 {
        lost.push(format!("{} of {} addresses in Reply-To", fields.reply_to.len() - 1, fields.reply_to.len()));
    }
    fields.reply_to.first()
}

/// Notes pictures of the HTML that an API takes as attachments only.
pub fn note_inline(fields: &Fields, lost: &mut Vec<String>) {
    let inline = fields.attachments.iter().filter(|one| one.content_id.is_some());
    lost.extend(inline.map(|one| format!("the place of {} in the HTML: it is an attachment", one.name)));
}

/// The header fields for an API with room for each name once: the first of each, without those that
/// `refused` names and those with line breaks in them.
pub fn headers(fields: &Fields, refused: impl Fn(&str) -> bool, lost: &mut Vec<String>) -> Vec<(String, String)> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for (name, value) in &fields.headers {
        let fits = !name.is_empty() && !value.is_empty() && !refused(name) && !value.contains(['\r', '\n', '\0']);
        if fits && seen.insert(name.to_ascii_lowercase()) {
            kept.push((name.clone(), value.clone()));
        } else {
            lost.push(format!("the header field {name}"));
        }
    }
    kept
}

/// A header field's text in ASCII: as it is, or as encoded words (RFC 2047 section 2).
#[must_use]
pub fn ascii(text: &str) -> Cow<'_, str> {
    // 75 characters at most for each word, of which 12 are its frame.
    const LONGEST: usize = 45;
    if text.is_ascii() {
        return Cow::Borrowed(text);
    }
    let mut words: Vec<String> = Vec::new();
    let mut piece = String::new();
    for c in text.chars() {
        if piece.len() + c.len_utf8() > LONGEST {
            words.push(std::mem::take(&mut piece));
        }
        piece.push(c);
    }
    words.push(piece);
    let words: Vec<String> = words.iter().map(|word| format!("=?utf-8?B?{}?=", STANDARD.encode(word))).collect();
    words.join(" ").into()
}

/// Mailboxes as they stand in a header field.
#[must_use]
pub fn in_header(mailboxes: &[Mailbox]) -> String {
    let one = |mailbox: &Mailbox| match name(mailbox) {
        None => mailbox.address.clone(),
        Some(name) if name.is_ascii() => {
            format!("\"{}\" <{}>", name.replace('\\', "\\\\").replace('"', "\\\""), mailbox.address)
        }
        Some(name) => format!("{} <{}>", ascii(&name), mailbox.address),
    };
    mailboxes.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A mailbox's name, if there is one to show: APIs refuse an empty one.
#[must_use]
pub fn name(mailbox: &Mailbox) -> Option<String> {
    let name: String = mailbox.name.as_deref()?.chars().filter(|c| !c.is_control()).collect();
    let name = name.trim();
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(headers: &[(&str, &str)]) -> Fields {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Fields { headers, subject: " ".to_owned(), ..Fields::default() }
    }

    #[test]
    fn what_gives_way_is_told() {
        let mut lost = Vec::new();
        let fields = fields(&[("X-A", "1"), ("x-a", "2"), ("X-B", "a\r\nBcc: x"), ("X-Own", "1"), ("X-C", "")]);
        assert_eq!(headers(&fields, |name| name == "X-Own", &mut lost), [("X-A".to_owned(), "1".to_owned())]);
        assert_eq!(lost, ["x-a", "X-B", "X-Own", "X-C"].map(|name| format!("the header field {name}")));
        assert_eq!(subject(&fields, &mut lost), "(no subject)");
        assert_eq!(lost.len(), 5);
    }

    #[test]
    fn a_text_is_shown_by_html_and_not_read_as_markup() {
        let html = html_of("a <b> & c\r\n  d");
        assert!(html.contains("a &lt;b&gt; &amp; c\n  d"), "{html}");
    }

    #[test]
    fn a_placeholder_makes_a_message_unsuitable() {
        let with = |text: &str| Fields { text: Some(text.to_owned()), ..Fields::default() };
        let marks = ["{{", "{$"];
        assert!(refuse_placeholders(&with("a { {b} $"), &marks, "it").is_ok());
        assert!(matches!(refuse_placeholders(&with("a {$b}"), &marks, "it"), Err(Failure::Unsuitable(_))));
    }

    #[test]
    fn names_outside_ascii_become_encoded_words_of_whole_characters() {
        assert_eq!(ascii("Grüße"), "=?utf-8?B?R3LDvMOfZQ==?=");
        assert_eq!(ascii("plain"), "plain");
        let long = "ü".repeat(60);
        assert!(ascii(&long).split(' ').all(|word| word.len() <= 75 && word.starts_with("=?utf-8?B?")));
        let mailbox = |name: &str| Mailbox { name: Some(name.to_owned()), address: "a@b.example".to_owned() };
        assert_eq!(in_header(&[mailbox("A \"B\""), mailbox("\u{7}")]), "\"A \\\"B\\\"\" <a@b.example>, a@b.example");
    }
}
