//! What becomes of headers, those that nobody should write included.

use super::*;

fn rewrite() -> Rewrite {
    Rewrite {
        from: Some("news@relay.example".parse().unwrap()),
        envelope: None,
        except: vec!["@kept.example".parse().unwrap(), "boss@corp.example".parse().unwrap()],
    }
}

/// The header with `news@relay.example` in From; `None` if it stays.
fn with(header: &str, sender: Option<&str>) -> Option<String> {
    let rewrite = rewrite();
    let sender = sender.map(|sender| sender.parse().unwrap());
    let changed = changed(header.as_bytes(), sender.as_ref(), rewrite.from.as_ref().unwrap(), &rewrite)?;
    Some(String::from_utf8(changed.header).unwrap())
}

#[test]
fn from_gets_the_address_keeps_the_name_and_replies_go_where_they_went() {
    for (header, expected) in [
        ("From: Ann <a@b.example>\r\n", "From: Ann <news@relay.example>\r\nReply-To: Ann <a@b.example>\r\n"),
        ("FROM:a@b.example\r\n", "From: <news@relay.example>\r\nReply-To: a@b.example\r\n"),
        ("From: a@b.example (Ann)\r\n", "From: <news@relay.example> (Ann)\r\nReply-To: a@b.example (Ann)\r\n"),
        (
            "X: 1\r\nFrom: \"B, Ann\"\r\n <a@b.example>\r\nY: 2\r\n",
            "X: 1\r\nFrom: \"B, Ann\" <news@relay.example>\r\nReply-To: \"B, Ann\"\r\n <a@b.example>\r\nY: 2\r\n",
        ),
        (
            "From: =?utf-8?q?J=C3=BCrg?=\r\n =?utf-8?q?_Gr=C3=BCn?= <a@b.example>\r\n",
            "From: =?utf-8?q?J=C3=BCrg?=\r\n =?utf-8?q?_Gr=C3=BCn?= <news@relay.example>\r\n\
             Reply-To: =?utf-8?q?J=C3=BCrg?=\r\n =?utf-8?q?_Gr=C3=BCn?= <a@b.example>\r\n",
        ),
        // There is one, or there is only its name.
        ("From: a@b.example\r\nReply-To: c@d.example\r\n", "From: <news@relay.example>\r\nReply-To: c@d.example\r\n"),
        ("Reply-To: \r\nFrom: a@b.example\r\n", "From: <news@relay.example>\r\nReply-To: a@b.example\r\n"),
        // Sender would name somebody whom the provider does not know.
        ("Sender: s@b.example\r\nFrom: a@b.example\r\n", "From: <news@relay.example>\r\nReply-To: a@b.example\r\n"),
        // Several.
        ("From: Ann <a@b.example>, c@d.example\r\n", "From: Ann <news@relay.example>\r\nReply-To: Ann <a@b.example>, c@d.example\r\n"),
        (
            "From: a@b.example\r\nX: 1\r\nFrom: Cat <c@d.example>\r\n",
            "From: <news@relay.example>\r\nReply-To: a@b.example,\r\n  Cat <c@d.example>\r\nX: 1\r\n",
        ),
        ("From: Team: Ann <a@b.example>;\r\n", "From: Ann <news@relay.example>\r\nReply-To: Team: Ann <a@b.example>;\r\n"),
        // Nobody, or nonsense.
        ("From: undisclosed:;\r\nX: 1\r\n", "From: <news@relay.example>\r\nX: 1\r\n"),
        ("From:\r\nX: 1\r\n", "From: <news@relay.example>\r\nX: 1\r\n"),
        ("X: 1\r\n", "X: 1\r\nFrom: <news@relay.example>\r\n"),
        ("X: 1", "X: 1\r\nFrom: <news@relay.example>\r\n"),
        ("", "From: <news@relay.example>\r\n"),
        ("From: nobody at all\r\n", "From: <news@relay.example>\r\nReply-To: nobody at all\r\n"),
    ] {
        assert_eq!(with(header, Some("x@y.example")).as_deref(), Some(expected), "{header:?}");
    }
}

#[test]
fn senders_that_are_excepted_or_have_the_address_already_stay_as_they_are() {
    for (header, sender, stays) in [
        ("From: Ann <a@kept.example>\r\n", None, true),
        ("From: boss@corp.example\r\n", None, true),
        ("From: a@kept.example, boss@corp.example\r\n", None, true),
        ("From: a@kept.example, other@corp.example\r\n", None, false),
        ("From: a@kept.example\r\nFrom: a@kept.example\r\n", None, false),
        ("From: news@relay.example\r\nSender: a@b.example\r\n", None, true),
        ("X: 1\r\n", Some("a@kept.example"), true),
        ("X: 1\r\n", Some("a@b.example"), false),
        // The two are judged by themselves.
        ("From: a@b.example\r\n", Some("a@kept.example"), false),
    ] {
        assert_eq!(with(header, sender).is_none(), stays, "{header:?} {sender:?}");
    }
}

#[test]
fn a_long_name_is_folded_and_a_broken_dkim_signature_is_noticed() {
    let name = "n".repeat(70);
    let header = format!("DKIM-Signature: v=1\r\nFrom: {name} <a@b.example>\r\n");
    let rewrite = rewrite();
    let changed = changed(header.as_bytes(), None, rewrite.from.as_ref().unwrap(), &rewrite).unwrap();
    assert!(changed.breaks_dkim && changed.domains == ["b.example"]);
    let text = String::from_utf8(changed.header).unwrap();
    assert!(text.starts_with(&format!("DKIM-Signature: v=1\r\nFrom: {name}\r\n <news@relay.example>\r\n")), "{text}");
}

fn message(body: Body) -> Arc<Message> {
    let reverse_path = ReversePath::Mailbox("x@y.example".parse().unwrap());
    Arc::new(Message {
        id: postrider_providers::contract::MessageId::generate(),
        received: std::time::SystemTime::UNIX_EPOCH,
        origin: postrider_providers::contract::Origin::default(),
        envelope: postrider_providers::contract::Envelope::new(reverse_path, vec![]),
        body,
    })
}

async fn applied(body: Body) -> Result<Arc<Message>, Failure> {
    apply(&message(body), Some(&rewrite())).await.map(|in_name| in_name.message)
}

#[tokio::test]
async fn only_the_header_of_a_large_file_is_read_and_all_behind_it_stays() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("body");
    for filler in [0, 30_000, 65_500, 65_536, 200_000] {
        let fields = format!("X-Long: {}\r\n", "x".repeat(70)).repeat(filler / 80);
        let rest = format!("\r\nFrom: text\r\n{}", "é\r\n".repeat(100_000));
        let old = format!("Received: x\r\n{fields}From: a@b.example\r\n{rest}");
        std::fs::write(&path, &old).unwrap();
        let new = applied(Body::File { path: path.clone(), len: old.len() as u64 }).await.unwrap();
        let Body::Spliced { head, skip, .. } = &new.body else { panic!("{:?}", new.body) };
        assert!(head.len() < filler + 200 && *skip == (old.len() - rest.len()) as u64);
        let expected = format!("Received: x\r\n{fields}From: <news@relay.example>\r\nReply-To: a@b.example\r\n{rest}");
        assert_eq!(new.body.len(), expected.len() as u64);
        assert!(new.body.bytes().await.unwrap() == expected, "{filler}");
        assert!(!new.body.is_ascii().await.unwrap());
    }
}

#[tokio::test]
async fn a_header_without_end_is_unsuitable_and_a_text_without_one_gets_from() {
    let endless = format!("X-Long: {}\r\n", "x".repeat(70)).repeat(10_000);
    assert!(matches!(applied(Body::Inline(endless.into())).await, Err(Failure::Unsuitable(_))));
    let new = applied(Body::Inline("just text\r\n".into())).await.unwrap();
    assert_eq!(new.body.bytes().await.unwrap(), "From: <news@relay.example>\r\n\r\njust text\r\n");
    let same = applied(Body::Inline("From: a@kept.example\r\n\r\n".into())).await.unwrap();
    assert!(matches!(same.body, Body::Inline(_)), "nothing changes");
}

proptest::proptest! {
    #[test]
    fn whatever_the_header_is_there_is_one_from_afterwards_and_the_other_fields_stay(
        fields in proptest::collection::vec("(From|Sender|Reply-To|X-Kept|Subject): ?[ a@b.c<>\"(),:;\\\\é]{0,20}(\r\n [a-z<>@]{0,9})?\r\n", 0..6),
    ) {
        let header = fields.concat();
        if let Some(new) = with(&header, None) {
            let after: Vec<Field<'_>> = Fields::of(new.as_bytes()).collect();
            proptest::prop_assert_eq!(Fields::of(new.as_bytes()).map(|field| field.raw.len()).sum::<usize>(), new.len());
            let authors: Vec<&Field<'_>> = after.iter().filter(|field| field.is("From")).collect();
            proptest::prop_assert_eq!(authors.len(), 1);
            let kept = |header: &str| fields_of(header).filter(|field| !["from", "sender", "reply-to"].contains(&field.0.as_str())).collect::<Vec<_>>();
            proptest::prop_assert_eq!(kept(&header), kept(&new));
            let found = mailboxes(authors[0].value);
            proptest::prop_assert_eq!(found.last().and_then(Mailbox::parsed).map(|address| address.to_string()), Some("news@relay.example".to_owned()), "{:?}", new);
        }
    }
}

fn fields_of(header: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let all: Vec<_> =
        Fields::of(header.as_bytes()).map(|field| (String::from_utf8_lossy(field.name).to_lowercase(), field.raw.to_vec())).collect();
    all.into_iter()
}
