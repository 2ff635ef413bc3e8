//! What narrower APIs cannot take of a message's fields, and what stands for it instead.
//!
//! Nothing is dropped in silence: whatever gives way is put into [`Fields::lost`], in words.

use std::borrow::Cow;

use serde_json::Value;

use super::fields::{Fields, Mailbox, encoded_words};
use crate::contract::{Diagnostic, Failure};

/// An HTML body with nothing in it, for APIs that want one.
const EMPTY_HTML: &str = "<p></p>";

/// Puts an empty paragraph where there is no text at all, for APIs that refuse nothing and a space.
pub fn require_text(fields: &mut Fields) {
    if fields.is_empty() {
        fields.html = Some(EMPTY_HTML.to_owned());
        fields.lost.push("the empty body: the service wants a text, and an empty paragraph stands for it".to_owned());
    }
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

/// Leaves one Reply-To, for APIs with room for one.
pub fn one_reply_to(fields: &mut Fields) {
    let further = fields.reply_to.split_off(fields.reply_to.len().min(1));
    fields.lost.extend(further.iter().map(|one| format!("Reply-To: {} beside the first", one.address)));
}

/// Notes pictures of the HTML that an API takes as attachments only.
pub fn no_pictures(fields: &mut Fields) {
    let inline = fields.attachments.iter().filter(|one| one.content_id.is_some());
    fields.lost.extend(inline.map(|one| format!("the place of {} in the HTML: it is an attachment", one.name)));
}

/// Puts the recipients of a call into a request's body, in place of those of the call before: a body may be
/// large, and there is one for all calls.
pub fn address(body: &mut Value, lists: [(&str, &[Mailbox]); 3], mailbox: impl Fn(&Mailbox) -> Value) {
    for (name, list) in lists {
        match list.is_empty() {
            true => drop(body.as_object_mut().and_then(|body| body.remove(name))),
            false => body[name] = list.iter().map(&mailbox).collect(),
        }
    }
}

/// A header field's text in ASCII: as it is, or as encoded words (RFC 2047 section 2).
#[must_use]
pub fn ascii(text: &str) -> Cow<'_, str> {
    if text.is_ascii() { Cow::Borrowed(text) } else { encoded_words(text).into() }
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

    #[test]
    fn what_gives_way_is_told() {
        let mailbox = |address: &str| Mailbox { name: None, address: address.to_owned() };
        let mut fields = Fields { reply_to: vec![mailbox("a@x"), mailbox("b@x")], ..Fields::default() };
        one_reply_to(&mut fields);
        require_text(&mut fields);
        assert_eq!((fields.reply_to.len(), fields.html.as_deref(), fields.lost.len()), (1, Some(EMPTY_HTML), 2));
        one_reply_to(&mut fields);
        require_text(&mut fields);
        assert_eq!(fields.lost.len(), 2);
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
    fn each_call_has_its_own_recipients_in_the_one_body() {
        let [a, b] = ["a@x", "b@x"].map(|address| Mailbox { name: None, address: address.to_owned() });
        let mut body = serde_json::json!({ "subject": "s" });
        address(&mut body, [("to", &[a]), ("cc", &[]), ("bcc", std::slice::from_ref(&b))], |one| one.address.as_str().into());
        assert_eq!(body, serde_json::json!({ "subject": "s", "to": ["a@x"], "bcc": ["b@x"] }));
        address(&mut body, [("to", &[b]), ("cc", &[]), ("bcc", &[])], |one| one.address.as_str().into());
        assert_eq!(body, serde_json::json!({ "subject": "s", "to": ["b@x"] }));
    }

    #[test]
    fn names_outside_ascii_become_encoded_words_of_whole_characters() {
        assert_eq!(ascii("Grüße"), "=?utf-8?b?R3LDvMOfZQ==?=");
        assert_eq!(ascii("plain"), "plain");
        let long = "ü".repeat(60);
        assert!(ascii(&long).split(' ').all(|word| word.len() <= 75 && word.starts_with("=?utf-8?b?")));
    }
}
