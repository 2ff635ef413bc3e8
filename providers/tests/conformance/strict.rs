//! Reading JSON as a service does that refuses what it does not know.

use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::Value;

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

/// Refuses an address that is there twice.
pub fn distinct(addresses: &[String]) {
    let mut seen = BTreeSet::new();
    for address in addresses {
        assert!(seen.insert(address.to_lowercase()), "{address} is there twice");
    }
}
