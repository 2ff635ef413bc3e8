//! What placeholders become, and what is refused before any message comes.

use serde_json::json;

use super::*;

fn rendered(template: &Value, values: &Values<'_>) -> Value {
    Template::read(template, &["key"]).unwrap().render(values)
}

#[test]
fn placeholders_become_values_and_never_text_of_json() {
    let nasty = "a\", \"bcc\": [\"x@y.example\"], \"{to}";
    let fields = Fields {
        subject: nasty.to_owned(),
        text: Some("hi {html}".to_owned()),
        from: Mailbox { name: None, address: "f@a.example".to_owned() },
        headers: vec![("X-A".into(), "1".into()), ("X-A".into(), "2".into())],
        ..Fields::default()
    };
    let values = Values { sender: "s@a.example", recipients: vec!["r@b.example", nasty], fields: Some(&fields), ..Values::default() };
    let template = json!({
        "from": "{from}", "name": "{from_name}", "rcpt": "{recipients}", "subject": "Re: {subject} {{x}}", "text": "{text}",
        "html": "{html}", "n": 1, "nested": { "list": ["{sender}", true] }, "headers": "{headers}", "attachments": "{attachments}",
    });
    let expected = json!({
        "from": "f@a.example", "rcpt": ["r@b.example", nasty], "subject": format!("Re: {nasty} {{x}}"), "text": "hi {html}",
        "n": 1, "nested": { "list": ["s@a.example", true] }, "headers": { "X-A": "1, 2" },
    });
    assert_eq!(rendered(&template, &values), expected, "what has no value is left out");
}

#[test]
fn a_list_with_one_element_is_written_for_each_member() {
    let mailbox = |name: Option<&str>, address: &str| Mailbox { name: name.map(str::to_owned), address: address.to_owned() };
    let addressed = Addressed {
        to: vec![mailbox(Some("A"), "a@x.example"), mailbox(None, "b@x.example")],
        bcc: vec![mailbox(None, "c@x.example")],
        cc: Vec::new(),
    };
    let attachment = Attachment { name: "a.txt".into(), media_type: "text/plain".into(), content: b"hi".to_vec(), content_id: None };
    let fields = Fields { attachments: vec![attachment], ..Fields::default() };
    let secrets = BTreeMap::from([("key".to_owned(), "hunter2".to_owned())]);
    let values = Values { addressed: Some(&addressed), fields: Some(&fields), secrets: Some(&secrets), ..Values::default() };
    let template = json!({
        "key": "{secrets.key}",
        "to": [{ "email": "{to.address}", "name": "{to.name}" }],
        "cc": [{ "email": "{cc.address}" }],
        "bcc": ["<{bcc.address}>"],
        "files": [{ "n": "{attachments.name}", "t": "{attachments.type}", "c": "{attachments.content}", "d": "{attachments.disposition}" }],
    });
    let expected = json!({
        "key": "hunter2",
        "to": [{ "email": "a@x.example", "name": "A" }, { "email": "b@x.example" }],
        "bcc": ["<c@x.example>"],
        "files": [{ "n": "a.txt", "t": "text/plain", "c": "aGk=", "d": "attachment" }],
    });
    assert_eq!(rendered(&template, &values), expected);
}

#[test]
fn a_template_that_cannot_work_says_why() {
    for (template, expected) in [
        (json!("x"), "expected a table"),
        (json!({ "a": "{form}" }), "{form} is no placeholder; there are {sender}, {recipients}, {raw}"),
        (json!({ "a": "{secrets.other}" }), "{secrets.key}"),
        (json!({ "a": "to {recipients}" }), "a list has no place in a text"),
        (json!({ "a": "{to.address}" }), "has its place in a list with one element"),
        (json!({ "a": [{ "b": "{to.address}", "c": "{cc.address}" }] }), "has its place in a list with one element"),
        (json!({ "a": "{" }), "a brace that is no placeholder"),
        (json!({ "a": "}" }), "a brace that is no placeholder"),
        (json!({ "a": { "$__toml_private_datetime": "2026-01-01" } }), "no dates"),
    ] {
        let error = Template::read(&template, &["key"]).unwrap_err();
        assert!(error.contains(expected), "{template}: {error}");
    }
}

#[test]
fn what_a_template_uses_is_known() {
    let template = Template::read(&json!({ "a": [{ "b": "{bcc.address}" }], "c": "x {subject}" }), &[]).unwrap();
    assert!(template.uses(Slot::Bcc) && template.uses(Slot::Subject) && template.uses_fields() && !template.uses(Slot::To));
    assert!(!Template::read(&json!({ "a": "{recipients}", "b": "{raw}" }), &[]).unwrap().uses_fields());
}
