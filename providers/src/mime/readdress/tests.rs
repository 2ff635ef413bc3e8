//! Who is told by a header that was written anew, as another parser reads it.

use std::collections::BTreeSet;

use mail_parser::MessageParser;
use proptest::prelude::*;

use super::*;

fn text(message: &str, recipients: &[&str]) -> String {
    String::from_utf8(readdressed(message.as_bytes(), recipients, Some("sender@app.example"))).unwrap()
}

/// Everyone whom To, Cc and Bcc tell, by a parser that is not ours.
fn told(message: &[u8]) -> BTreeSet<String> {
    let Some(message) = MessageParser::default().parse(message) else { return BTreeSet::new() };
    let lists = message.headers().iter().filter(|header| ["to", "cc", "bcc"].contains(&header.name().to_ascii_lowercase().as_str()));
    let addresses = lists.filter_map(|header| header.value().as_address()).flat_map(|list| list.iter());
    addresses.filter_map(|one| Some(one.address()?.to_lowercase())).collect()
}

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(|address| address.to_lowercase()).collect()
}

#[test]
fn a_message_whose_header_tells_all_recipients_stays_as_it_is() {
    for header in [
        "From: a@b\r\nTo: x@y\r\n",
        "From: a@b\r\nTO : =?utf-8?q?X=2C?= <X@Y>,\r\n\t\"y, \\\" <z@z>\" (co(m)ment) <Y@y>\r\nCc: x@y,,\r\nX-Odd:\tb \r\n",
        "From: a@b\r\nTo: Team: x@y, Y <y@y>;, undisclosed-recipients:;\r\n",
        "from: a@b\r\nto: x@y (the first), \"quoted\\\" local\"@y\r\n",
    ] {
        let message = format!("{header}\r\nTo: nobody@else\r\n\r\n.\r\n");
        let recipients: Vec<&str> =
            ["x@y", "y@y", "\"quoted\\\" local\"@y"].into_iter().filter(|one| header.to_lowercase().contains(one)).collect();
        assert_eq!(text(&message, &recipients), message);
    }
}

#[test]
fn others_are_taken_out_and_the_hidden_are_in_one_bcc() {
    for (before, recipients, after) in [
        // The attempt is for some of the recipients only.
        (
            "From: a@b\r\nTo: X <x@y>, Z <z@y>\r\nSubject: s\r\nCc: q@y\r\n\r\n",
            &["x@y", "h@y"][..],
            "Bcc: <h@y>\r\nFrom: a@b\r\nTo: X <x@y>\r\nSubject: s\r\n\r\n",
        ),
        // Bcc that came in is gone, folded or not, and whoever is there but no recipient gets nothing.
        ("From: a@b\r\nBcc: z@y,\r\n x@y\r\nbCC : q@y\r\nResent-Bcc: r@y\r\nTo: x@y\r\n\r\nt", &["x@y"], "From: a@b\r\nTo: x@y\r\n\r\nt"),
        ("From: a@b\r\n\r\n", &["x@y", "z@y", "x@y"], "Bcc: <x@y>,\r\n <z@y>\r\nFrom: a@b\r\n\r\n"),
        // Recipients that differ in case only may be several.
        ("From: a@b\r\nTo: X@y, x@Y\r\n\r\n", &["x@y", "X@y"], "Bcc: <x@y>\r\nFrom: a@b\r\nTo: X@y\r\n\r\n"),
        // What is a k for Unicode is another mailbox.
        ("From: a@b\r\nTo: \u{212a}im@y\r\n\r\n", &["kim@y"], "Bcc: <kim@y>\r\nFrom: a@b\r\n\r\n"),
        // Of two fields with one name one may be overlooked.
        (
            "From: a@b\r\nTo: x@y\r\nCc: q@y\r\nto : z@y\r\n\r\n",
            &["x@y", "z@y", "q@y"],
            "Bcc: <x@y>,\r\n <z@y>\r\nFrom: a@b\r\nTo: x@y\r\nCc: q@y\r\nto : z@y\r\n\r\n",
        ),
        ("From: a@b\r\nTo: n@y\r\nTo: x@y\r\n\r\n", &["x@y"], "From: a@b\r\nTo: x@y\r\n\r\n"),
        // Groups.
        ("From: a@b\r\nTo: T: x@y, z@y;, U: q@y;, V:;\r\n\r\n", &["x@y"], "From: a@b\r\nTo: T: x@y;,\r\n V: ;\r\n\r\n"),
        // From.
        ("To: x@y\r\n\r\n", &["x@y"], "From: <sender@app.example>\r\nTo: x@y\r\n\r\n"),
        // What could be read in two ways is not left to chance.
        ("From: a@b\r\nTo: x@y z@y\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n\r\n"),
        ("From: a@b\r\nTo: z@y <x@y>, x@y <z@y>\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n\r\n"),
        ("From: a@b\r\nTo: \"open <x@y>\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n\r\n"),
        ("From: a@b\r\nTo: <@r.example:x@y>, x(c)@y, <x@y> <z@y>, <x@y\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n\r\n"),
        ("From: a@b\r\nTo: [[<]:;\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n\r\n"),
        // Resent fields tell nobody, and show nobody who is no recipient.
        ("From: a@b\r\nResent-To: x@y, z@y\r\nTo: q@y\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\nResent-To: x@y\r\n\r\n"),
        // Behind a line that is no field a service may see a header or a body.
        ("From: a@b\r\nno field\r\nTo: x@y, z@y\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\nno field\r\nTo: x@y\r\n\r\n"),
        ("From: a@b\r\nX: a\r\n \r\n b\r\nTo: x@y\r\n\r\n", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\nX: a\r\n \r\n b\r\nTo: x@y\r\n\r\n"),
        // Without header, without body, without anything.
        ("\r\nTo: z@y\r\n", &["x@y"], "From: <sender@app.example>\r\nBcc: <x@y>\r\n\r\nTo: z@y\r\n"),
        ("From: a@b\r\nTo: z@y", &["x@y"], "Bcc: <x@y>\r\nFrom: a@b\r\n"),
        ("", &["x@y"], "From: <sender@app.example>\r\nBcc: <x@y>\r\n"),
    ] {
        assert_eq!(text(before, recipients), after, "{before:?}");
    }
}

/// An entry of a list as somebody may write it, about one of a few addresses.
fn entry() -> impl Strategy<Value = String> {
    let address = (prop_oneof!["[a-c]", "[A-C]"], prop_oneof![Just("x.example"), Just("Y.example")])
        .prop_map(|(local, domain)| format!("{local}@{domain}"));
    let named = (
        address.clone(),
        prop_oneof![
            Just(""),
            Just("Plain Name "),
            Just("\"Quoted, \\\"Name\" "),
            Just("=?utf-8?q?N=C3=A4me?= "),
            Just("A. Name (c, <d@e.example>)\r\n ")
        ],
    )
        .prop_map(|(address, name)| format!("{name}<{address}>"));
    prop_oneof![address, named]
}

fn list() -> impl Strategy<Value = String> {
    let group = prop::collection::vec(entry(), 0..3).prop_map(|members| format!("Group: {};", members.join(", ")));
    let many = prop::collection::vec(prop_oneof![4 => entry(), 1 => group], 1..5);
    (many, prop_oneof![Just(", "), Just(",\r\n\t"), Just(" ,")]).prop_map(|(entries, comma)| entries.join(comma))
}

fn field() -> impl Strategy<Value = String> {
    let name = prop_oneof![Just("To"), Just("CC"), Just("bcc"), Just("To"), Just("Cc")];
    prop_oneof![
        3 => (name, list()).prop_map(|(name, list)| format!("{name}: {list}\r\n")),
        1 => "X-[A-Z]{1,3}: [ -~]{0,20}(\r\n [!-~]{1,20})?\r\n",
        1 => Just("Subject: To: d@x.example\r\n".to_owned()),
    ]
}

fn recipients() -> impl Strategy<Value = Vec<String>> {
    prop::collection::btree_set("[a-d]@(x|y)\\.example", 1..6).prop_map(|set| set.into_iter().collect())
}

fn others(message: &[u8]) -> Vec<Vec<u8>> {
    split(message).0.into_iter().filter(|field| matches!(Name::of(field), Name::Other | Name::None)).map(<[u8]>::to_vec).collect()
}

proptest! {
    #[test]
    fn exactly_the_recipients_are_told_and_nothing_else_changes(
        fields in prop::collection::vec(field(), 0..6), recipients in recipients(), body in "[ -~\r\n]{0,60}",
    ) {
        let message = format!("From: s@app.example\r\n{}\r\n{body}", fields.concat());
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let new = readdressed(message.as_bytes(), &recipients, None);
        prop_assert_eq!(told(&new), set(&recipients), "{}", String::from_utf8_lossy(&new));
        prop_assert_eq!(others(&new), others(message.as_bytes()));
        let (_, before) = split(message.as_bytes());
        let (fields, after) = split(&new);
        prop_assert_eq!(&new[after..], &message.as_bytes()[before..]);
        prop_assert!(fields.iter().filter(|field| matches!(Name::of(field), Name::HiddenCopy)).count() <= 1);
        prop_assert_eq!(readdressed(&new, &recipients, None).len(), new.len(), "a second time changes nothing");
    }

    #[test]
    fn whatever_stands_in_to_nobody_else_is_told_and_nobody_is_left_out(
        list in "[a-c@<>\"(),:;\\\\. \\[\\]x-y]{0,40}", recipients in recipients(),
    ) {
        let message = format!("From: s@app.example\r\nTo: {list}\r\n\r\nbody");
        let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let new = readdressed(message.as_bytes(), &recipients, None);
        prop_assert_eq!(told(&new), set(&recipients), "{}", String::from_utf8_lossy(&new));
    }

    #[test]
    fn no_octets_make_it_panic_or_lose_the_body(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let new = readdressed(&message, &["a@x.example"], None);
        let (_, body) = split(&message);
        prop_assert!(new.ends_with(&message[body..]));
    }
}
