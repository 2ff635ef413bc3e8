//! What a provider cannot carry, how it is told a message, and in whose name.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_message_with_more_recipients_than_one_call_takes_is_split() {
    let mut a = Scripted::new(vec![]);
    a.capabilities.max_recipients = Some(2);
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit("x@y.example", &["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example", "r4@z.example"]).await;
    bench.pass(1).await;
    let parts: Vec<usize> = a.asked.lock().iter().map(|(_, _, recipients)| recipients.len()).collect();
    assert_eq!((parts, bench.left().await), (vec![2, 2, 1], 0));
}

/// A provider that takes fields.
fn of_fields() -> Scripted {
    Scripted { capabilities: Capabilities { null_sender: true, ..Capabilities::FIELDS }, ..Scripted::new(vec![]) }
}

const SIGNED: &str = "Received: x\r\nContent-Type: multipart/signed;\r\n protocol=\"application/pkcs7-signature\"\r\n\r\ntext\r\n";

#[tokio::test(start_paused = true)]
async fn signed_mail_is_not_offered_to_a_provider_that_takes_fields_unless_the_route_says_so() {
    let route: [fn(&mut Route); 3] = [|_| {}, |route| route.break_signatures = true, |route| route.raw_only = true];
    for (route, content, asked) in [
        (route[0], SIGNED, (0, 1)),
        (route[0], "DKIM-Signature: v=1\r\n\r\n", (0, 1)),
        (route[0], "Subject: x\r\n\r\n", (1, 0)),
        (route[1], SIGNED, (1, 0)),
        (route[2], "Subject: x\r\n\r\n", (0, 1)),
    ] {
        let (a, b) = (of_fields(), Scripted::new(vec![]));
        let bench = Bench::start(&[&a, &b], Setup { route, ..Setup::default() }).await;
        bench.submit_content(content).await;
        bench.pass(1).await;
        assert_eq!((a.seconds().len(), b.seconds().len()), asked, "{content:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_every_provider_would_break_bounces_with_the_reason() {
    let a = of_fields();
    let bench = Bench::start(&[&a], Setup::default()).await;
    bench.submit_content(SIGNED).await;
    bench.pass(1).await;
    let attempts = a.attempts.lock();
    assert_eq!(attempts.len(), 1, "the notification alone");
    let notification = String::from_utf8(attempts[0].message.body.bytes().now_or_never().unwrap().unwrap().to_vec()).unwrap();
    assert!(notification.contains("Status: 5.6.2") && notification.contains("signed with S/MIME"), "{notification}");
}

#[tokio::test(start_paused = true)]
async fn content_that_is_eight_bit_indeed_passes_a_provider_over_that_does_not_carry_it() {
    use BodyType::{EightBitMime, SevenBit};
    for (body_type, content, asked) in
        [(EightBitMime, "gr\u{fc}n", (0, 1)), (EightBitMime, "green", (1, 0)), (SevenBit, "gr\u{fc}n", (1, 0))]
    {
        let (mut a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
        a.capabilities.eight_bit = false;
        let bench = Bench::start(&[&a, &b], Setup::default()).await;
        let mut message = Arc::unwrap_or_clone(bench.message("x@y.example", &["r@z.example"]));
        message.envelope.body_type = body_type;
        message.body = Body::Inline(format!("Subject: x\r\n\r\n{content}\r\n").into());
        bench.queue.submit(Arc::new(message)).await.unwrap();
        bench.pass(1).await;
        assert_eq!((a.seconds().len(), b.seconds().len()), asked, "{body_type:?} {content}");
    }
}

/// From becomes `news@relay.example`, the envelope sender `bounces@relay.example`.
fn rewrite() -> Option<Rewrite> {
    let [from, envelope] = ["news@relay.example", "bounces@relay.example"].map(|address| Some(address.parse().unwrap()));
    Some(Rewrite { from, envelope, except: vec!["@kept.example".parse().unwrap()] })
}

#[tokio::test(start_paused = true)]
async fn mail_goes_out_in_the_name_that_its_provider_wants_and_bounces_to_whoever_sent_it() {
    let (a, b) = (Scripted::new(vec![fails(Failure::Unavailable(words()))]), Scripted::new(vec![fails(Failure::Rejected(words()))]));
    let bench = Bench::start(&[&a, &b], Setup { rewrite: rewrite(), ..Setup::default() }).await;
    let content = "From: Ann <ann@y.example>\r\nSubject: x\r\n\r\nFrom: text\r\n";
    bench.submit_content(content).await;
    bench.pass(1).await;
    let (one, other) = (a.attempts.lock()[0].clone(), b.attempts.lock()[0].clone());
    assert_eq!(one.message.envelope.reverse_path.as_str(), "bounces@relay.example");
    assert_eq!(
        one.message.body.bytes().await.unwrap(),
        "From: Ann <news@relay.example>\r\nReply-To: Ann <ann@y.example>\r\nSubject: x\r\n\r\nFrom: text\r\n"
    );
    assert_eq!(other.message.envelope.reverse_path.as_str(), "x@y.example", "the other provider has no such setting");
    assert_eq!(other.message.body.bytes().await.unwrap(), content);
    let notification = a.attempts.lock()[1].clone();
    assert_eq!(notification.message.envelope.recipients[0].address.as_str(), "x@y.example");
    assert_eq!(notification.message.envelope.reverse_path, ReversePath::Null, "null stays null");
}

#[tokio::test(start_paused = true)]
async fn the_routes_name_counts_where_the_provider_has_none() {
    let (a, b) = (Scripted::new(vec![fails(Failure::Unavailable(words()))]), Scripted::new(vec![]));
    let route = |route: &mut Route| {
        let from = Some("route@relay.example".parse().unwrap());
        route.rewrite = Some(Arc::new(Rewrite { from, envelope: None, except: vec![] }));
    };
    let bench = Bench::start(&[&a, &b], Setup { rewrite: rewrite(), route, ..Setup::default() }).await;
    bench.submit_content("From: ann@y.example\r\n\r\n").await;
    bench.pass(1).await;
    let from = |provider: &Scripted| provider.attempts.lock()[0].message.body.bytes().now_or_never().unwrap().unwrap();
    assert!(from(&a).starts_with(b"From: <news@relay.example>\r\n"), "{:?}", from(&a));
    assert!(from(&b).starts_with(b"From: <route@relay.example>\r\n"), "{:?}", from(&b));
}
