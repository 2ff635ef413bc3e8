//! Holds answers to the schemas of the OpenAPI document, strictly: what the document does not mention must not
//! be there, and a keyword that this check does not know is a complaint.

use serde_json::Value;

/// Everything in which `value` differs from `schema`, with the place.
pub fn complaints(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "answer", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let Some(keywords) = schema.as_object() else {
        found.push(format!("{at}: the schema is no object: {schema}"));
        return;
    };
    for (keyword, wanted) in keywords {
        match keyword.as_str() {
            "$ref" => match wanted.as_str().and_then(|path| document.pointer(path.trim_start_matches('#'))) {
                Some(schema) => check(document, schema, value, at, found),
                None => found.push(format!("{at}: {wanted} leads nowhere")),
            },
            "type" => {
                let types: Vec<&str> = wanted
                    .as_array()
                    .map_or_else(|| wanted.as_str().into_iter().collect(), |all| all.iter().filter_map(Value::as_str).collect());
                if !types.iter().any(|name| is_of_type(value, name)) {
                    found.push(format!("{at}: expected {wanted}, seen {value}"));
                }
            }
            "oneOf" | "anyOf" => {
                let fits = |schema: &&Value| complaints(document, schema, value).is_empty();
                if !wanted.as_array().is_some_and(|all| all.iter().any(|schema| fits(&schema))) {
                    found.push(format!("{at}: fits none of {wanted}: {value}"));
                }
            }
            "properties" => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    match wanted.get(name) {
                        Some(schema) => check(document, schema, inner, &format!("{at}.{name}"), found),
                        None => found.push(format!("{at}.{name} is not in the document")),
                    }
                }
            }
            "required" => {
                let names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                found.extend(
                    names.filter(|name| value.is_object() && value.get(name).is_none()).map(|name| format!("{at}.{name} is missing")),
                );
            }
            "items" => {
                for (index, inner) in value.as_array().into_iter().flatten().enumerate() {
                    check(document, wanted, inner, &format!("{at}[{index}]"), found);
                }
            }
            "additionalProperties" if wanted.is_object() => {
                for (name, inner) in value.as_object().into_iter().flatten() {
                    check(document, wanted, inner, &format!("{at}.{name}"), found);
                }
            }
            "enum" => {
                if !wanted.as_array().is_some_and(|all| all.contains(value)) {
                    found.push(format!("{at}: {value} is none of {wanted}"));
                }
            }
            "minimum" => {
                if value.as_f64().is_some_and(|number| number < wanted.as_f64().unwrap_or_default()) {
                    found.push(format!("{at}: {value} is less than {wanted}"));
                }
            }
            "format" if wanted == "date-time" => {
                let text = value.as_str().unwrap_or_default();
                if !value.is_null() && (text.len() < 20 || text.as_bytes()[10] != b'T' || !text.ends_with('Z')) {
                    found.push(format!("{at}: {value} is no time"));
                }
            }
            "additionalProperties" | "propertyNames" | "description" | "format" | "deprecated" | "example" => {}
            other => found.push(format!("{at}: the check does not know the keyword {other}")),
        }
    }
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}
