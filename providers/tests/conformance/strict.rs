//! Reading JSON as a service does that refuses what it does not know.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use postrider_providers::conformance::http_api::Request;
use serde_json::Value;

/// A part of a form.
pub struct FormPart {
    /// Its name.
    pub name: String,
    /// Its file name, if it is a file.
    pub file: Option<String>,
    /// Its octets.
    pub value: Vec<u8>,
}

/// `base` with what `more` says.
pub fn settings(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

/// Refuses members that are not `known`.
pub fn members(object: &Value, known: &[&str]) {
    for key in object.as_object().unwrap().keys() {
        assert!(known.contains(&key.as_str()), "the service knows no member `{key}` in {object}");
    }
}

/// The addresses in a list of objects, under `key`; none where the list is absent.
pub fn addresses(list: &Value, key: &str) -> Vec<String> {
    self::list(list).iter().map(|one| text(&one[key])).collect()
}

/// A list; empty where it is absent.
pub fn list(value: &Value) -> Vec<Value> {
    if value.is_null() { Vec::new() } else { value.as_array().unwrap().clone() }
}

/// A text.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

/// Octets in base64.
pub fn base64(value: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text(value)).unwrap()
}

/// Names and texts of an object; none where it is absent.
pub fn map(value: &Value) -> Vec<(String, String)> {
    if value.is_null() {
        return Vec::new();
    }
    value.as_object().unwrap().iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// The address of a mailbox such as `Name <a@b.example>`.
pub fn address(mailbox: &str) -> String {
    let address = mailbox.split_once('<').map_or(mailbox, |(_, rest)| rest.strip_suffix('>').unwrap());
    assert!(address.contains('@') && !address.contains([' ', '<', '>', ',']), "no address: {mailbox}");
    address.to_owned()
}

/// Refuses an address that is there twice.
pub fn distinct(addresses: &[String]) {
    let mut seen = BTreeSet::new();
    for address in addresses {
        assert!(seen.insert(address.to_lowercase()), "{address} is there twice");
    }
}

/// The parts of `multipart/form-data` (RFC 7578).
pub fn form(request: &Request) -> Vec<FormPart> {
    let boundary = request.header("content-type").unwrap().strip_prefix("multipart/form-data; boundary=").unwrap();
    let delimiter = format!("\r\n--{boundary}");
    let body = [b"\r\n", request.body.as_slice()].concat();
    let ends: Vec<usize> = memchr::memmem::find_iter(&body, delimiter.as_bytes()).collect();
    assert_eq!(&body[ends.last().unwrap() + delimiter.len()..], b"--\r\n", "the form has its end");
    let part = |pair: &[usize]| {
        let part = body[pair[0] + delimiter.len()..pair[1]].strip_prefix(b"\r\n").unwrap();
        let at = memchr::memmem::find(part, b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&part[..at]).unwrap();
        let disposition = head.lines().next().unwrap().strip_prefix("Content-Disposition: form-data; ").unwrap();
        let parameter = |name: &str| {
            let value = disposition.split("; ").find_map(|one| one.strip_prefix(name))?;
            Some(value.strip_prefix("=\"").unwrap().strip_suffix('"').unwrap().to_owned())
        };
        FormPart { name: parameter("name").unwrap(), file: parameter("filename"), value: part[at + 4..].to_vec() }
    };
    ends.windows(2).map(part).collect()
}

/// The fields of a form, by name.
pub fn url_form(body: &[u8]) -> BTreeMap<String, String> {
    let url = reqwest::Url::parse(&format!("http://x/?{}", std::str::from_utf8(body).unwrap())).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// Everyone whom To, Cc and Bcc of a message tell, as a service does that has no envelope; each once.
pub fn told_by_header(message: &[u8]) -> Vec<String> {
    let message = mail_parser::MessageParser::default().parse(message).unwrap();
    let lists = [message.to(), message.cc(), message.bcc()].into_iter().flatten().flat_map(|list| list.iter());
    let recipients: Vec<String> = lists.map(|one| one.address().unwrap().to_owned()).collect();
    distinct(&recipients);
    recipients
}
