//! Handovers in doubt: who is asked again, for whom, and when nobody is.

use super::*;
use crate::spool::view::Lane;
use crate::spool::{RecipientState, Settlement};

#[tokio::test(start_paused = true)]
async fn doubt_that_a_crash_left_is_held_where_the_route_holds_and_asked_again_where_it_does_not() {
    for (route, held, asked) in [((|_| {}) as fn(&mut Route), 0, 1), (|route: &mut Route| route.in_doubt = InDoubt::Hold, 1, 0)] {
        let a = Scripted::new(vec![]);
        let bench = Bench::start(&[&a], Setup { route, ..Setup::default() }).await;
        // What a process leaves that was killed while it asked the provider.
        let node = bench.spool.another_node();
        let message = bench.message("x@y.example", &["r@z.example"]);
        let now = bench.queue.clock().now();
        node.renew(now, now + Duration::from_secs(1)).await.unwrap();
        node.store(Arc::clone(&message), &Lane::default(), true).await.unwrap();
        node.begin(message.id, &"test.a".into(), &[RecipientIndex(0)]).await.unwrap();
        bench.pass(200).await;
        assert_eq!((bench.queue.counts().await.unwrap().held, a.seconds().len()), (held, asked));
    }
}

#[tokio::test(start_paused = true)]
async fn doubt_from_before_handovers_had_numbers_is_held_and_keeps_nobody_else_back() {
    for in_doubt in [0, 1] {
        let a = recognising(vec![]);
        let bench = Bench::start(&[&a], Setup { route: |route| route.in_doubt = InDoubt::Hold, ..Setup::default() }).await;
        let message = bench.message("x@y.example", &["r0@z.example", "r1@z.example"]);
        let node = bench.spool.another_node();
        let now = bench.queue.clock().now();
        node.renew(now, now + Duration::from_secs(1)).await.unwrap();
        node.store(Arc::clone(&message), &Lane::default(), true).await.unwrap();
        // As a schema has it that did not tell handovers apart.
        let changes = vec![crate::spool::suite::change(in_doubt, RecipientState::InDoubt("test.a".into()), "")];
        node.settle(Settlement {
            lane: Lane::default(),
            id: message.id,
            changes,
            attempts: 1,
            due: now,
            notifications: Vec::new(),
            warned: false,
            journal: Vec::new(),
        })
        .await
        .unwrap();
        bench.pass(200).await;
        let told: Vec<Vec<String>> = a.asked.lock().iter().map(|(_, _, to)| to.clone()).collect();
        assert_eq!(told, [[format!("r{}@z.example", 1 - in_doubt)]], "the one who was not asked for yet, alone");
        assert_eq!(bench.queue.counts().await.unwrap().held, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn in_doubt_goes_to_the_same_provider_again_and_never_to_another() {
    let (a, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words())), fails(Failure::Unavailable(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(400).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60, 360], vec![]), "not even when the first cannot be reached then");
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn in_doubt_is_held_where_the_route_says_so() {
    let (a, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words()))]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup { route: |route| route.in_doubt = InDoubt::Hold, ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(5000).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0], vec![]));
    assert_eq!(bench.queue.counts().await.unwrap().held, 1);
}

#[tokio::test(start_paused = true)]
async fn a_panic_or_a_missing_verdict_is_in_doubt_and_not_the_end() {
    let panics: Answer = Box::new(|_| panic!("a defect in a provider"));
    let silent: Answer = Box::new(|_| Ok(Report::new(vec![])));
    let (a, b) = (Scripted::new(vec![panics, silent]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(400).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60, 360], vec![]));
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_one_provider_takes_no_answer_of_another_with_it() {
    let some: Answer = Box::new(|attempt| {
        let busy = Outcome::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy"));
        Ok(Report::new(attempt.recipients.iter().copied().zip([relayed(), busy]).collect()))
    });
    let panics: Answer = Box::new(|_| panic!("a defect in a provider"));
    let (a, b) = (Scripted::new(vec![some]), Scripted::new(vec![panics]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.submit("x@y.example", &["taken@z.example", "busy@z.example"]).await;
    bench.pass(400).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0], vec![0, 60]), "the first took one, and is not asked for it again");
    assert_eq!(bench.left().await, 0);
}

/// A service that delivers each call once, by its key, whatever it answers.
#[derive(Clone, Default)]
struct Remembering {
    keys: Arc<Mutex<std::collections::HashSet<[u8; 32]>>>,
    copies: Arc<Mutex<std::collections::BTreeMap<u32, usize>>>,
}

fn key(attempt: &Attempt) -> [u8; 32] {
    attempt.idempotency_key(&"test.a".into(), &attempt.recipients)
}

impl Remembering {
    /// Takes a call, unless it has it already.
    fn take(&self, attempt: &Attempt) {
        let is_notification = attempt.message.envelope.reverse_path == ReversePath::Null;
        if !is_notification && self.keys.lock().insert(key(attempt)) {
            for RecipientIndex(index) in attempt.recipients.iter() {
                *self.copies.lock().entry(*index).or_default() += 1;
            }
        }
    }

    /// It takes the call, and nobody hears about it.
    fn loses_its_answer(&self) -> Answer {
        let service = self.clone();
        Box::new(move |attempt| {
            service.take(attempt);
            Ok(Report::uniform(&attempt.recipients, &Outcome::InDoubt(words())))
        })
    }

    /// It takes the call, but not for the first recipient, who may come again. What it has already, it
    /// does not take apart.
    fn puts_the_first_off(&self) -> Answer {
        let service = self.clone();
        Box::new(move |attempt| {
            if service.keys.lock().contains(&key(attempt)) {
                return Ok(Report::uniform(&attempt.recipients, &relayed()));
            }
            let rest = Attempt { recipients: attempt.recipients[1..].into(), ..attempt.clone() };
            if !rest.recipients.is_empty() {
                service.take(&rest);
            }
            let outcomes = attempt.recipients.iter().enumerate();
            let outcome = |(position, &index)| (index, if position == 0 { Outcome::Deferred(words()) } else { relayed() });
            Ok(Report::new(outcomes.map(outcome).collect()))
        })
    }

    fn answers(&self) -> Answer {
        let service = self.clone();
        Box::new(move |attempt| {
            service.take(attempt);
            Ok(Report::uniform(&attempt.recipients, &relayed()))
        })
    }
}

/// A provider that recognises for an hour what it has, and takes two recipients in a call.
fn recognising(answers: Vec<Answer>) -> Scripted {
    let capabilities = Capabilities { idempotency: Some(Duration::from_secs(3600)), max_recipients: Some(2), ..Capabilities::EVERYTHING };
    Scripted { capabilities, ..Scripted::new(answers) }
}

#[tokio::test(start_paused = true)]
async fn a_route_that_holds_asks_a_provider_again_that_recognises_what_it_has() {
    let service = Remembering::default();
    let a = recognising(vec![service.loses_its_answer(), service.answers()]);
    let bench = Bench::start(&[&a], Setup { route: |route| route.in_doubt = InDoubt::Hold, ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(100).await;
    assert_eq!((a.seconds(), bench.left().await), (vec![0, 60], 0));
    assert_eq!(service.copies.lock().values().copied().collect::<Vec<_>>(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_route_that_holds_does_so_when_the_provider_would_not_recognise_it_any_more() {
    let mut a = recognising((0..9).map(|_| gives(Outcome::InDoubt(words()))).collect());
    a.capabilities.idempotency = Some(Duration::from_secs(500));
    let bench = Bench::start(&[&a], Setup { route: |route| route.in_doubt = InDoubt::Hold, ..Setup::default() }).await;
    bench.submit("x@y.example", &["r@z.example"]).await;
    bench.pass(900).await;
    assert_eq!(a.seconds(), [0, 60, 360], "after 440 seconds it would be taken for another one");
    assert_eq!(bench.queue.counts().await.unwrap().held, 1);
}

#[tokio::test(start_paused = true)]
async fn calls_in_doubt_are_repeated_with_the_recipients_that_they_had() {
    let service = Remembering::default();
    // Of three calls, the first and the last are in doubt, and so they stay once.
    let script = vec![
        service.loses_its_answer(),
        service.puts_the_first_off(),
        service.loses_its_answer(),
        service.loses_its_answer(),
        service.loses_its_answer(),
        service.loses_its_answer(),
    ];
    let more = (0..9).map(|_| service.answers());
    let a = recognising(script.into_iter().chain(more).collect());
    let bench = Bench::start(&[&a], Setup::default()).await;
    let five = ["r0@z.example", "r1@z.example", "r2@z.example", "r3@z.example", "r4@z.example"];
    bench.submit("x@y.example", &five).await;
    bench.pass(900).await;
    let asked = a.asked.lock().clone();
    let calls: Vec<(u64, String)> = asked.iter().map(|(at, _, to)| (*at, to.iter().map(|to| &to[1..2]).collect())).collect();
    let call = |at: u64, to: &str| (at, to.to_owned());
    assert_eq!(calls[..3], [call(0, "01"), call(0, "23"), call(0, "4")]);
    let mut second = calls[3..6].to_vec();
    second.sort();
    assert_eq!(second, [call(60, "01"), call(60, "2"), call(60, "4")], "what was put off stands by itself");
    assert_eq!(*service.copies.lock(), (0..5).map(|index| (index, 1)).collect(), "{calls:?}");
    assert_eq!(bench.left().await, 0);
}

#[tokio::test(start_paused = true)]
async fn whatever_is_in_doubt_in_which_order_nobody_gets_two_copies_of_a_provider_that_recognises() {
    for seed in 0..60_u64 {
        let service = Remembering::default();
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut dice = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 5
        };
        let answer = |dice: u64| match dice {
            0 | 1 => service.loses_its_answer(),
            2 => gives(Outcome::InDoubt(words())),
            3 => fails(Failure::SenderRefused(words())),
            _ => service.puts_the_first_off(),
        };
        let script: Vec<Answer> = (0..10).map(|_| answer(dice())).chain((0..40).map(|_| service.answers())).collect();
        let a = recognising(script);
        // Some go by a limit in pieces as well.
        let sender_limits =
            if seed % 2 == 0 { SenderLimits::default() } else { limits::of_applications(&[("erp", "180 recipients/hour")]) };
        let setup = Setup { route: |route| route.in_doubt = InDoubt::Hold, sender_limits, ..Setup::default() };
        let bench = Bench::start(&[&a], setup).await;
        let to: Vec<String> = (0..7).map(|index| format!("r{index}@z.example")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        bench.submit_of("erp", &to).await;
        bench.pass(3500).await;
        let copies = service.copies.lock().clone();
        assert!(copies.values().all(|copies| *copies == 1), "seed {seed}: {copies:?}, {:?}", a.asked.lock());
        assert_eq!(bench.queue.counts().await.unwrap().held, 0, "seed {seed}: {:?}", a.asked.lock());
    }
}
