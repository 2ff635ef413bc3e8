//! What is said of a message beforehand, and that it happens so, at that very time.

use super::limits::of_applications;
use super::*;
use crate::config::CircuitSettings;
use crate::dispatch::control::Command;
use crate::dispatch::explain::{Cannot, Cause, Conclusion, Explanation, Imagined, Part, Verdict};
use crate::spool::action::Action;

/// A conclusion as a test writes it: verdict, the second since the start, who is asked, why, how many others.
type Said = (Verdict, Option<u64>, &'static str, &'static str, usize);

impl Bench {
    /// Takes a message in, and gives its id.
    async fn takes(&self, message: Arc<Message>) -> MessageId {
        self.queue.submit(Arc::clone(&message)).await.unwrap();
        sleep(Duration::from_millis(10)).await;
        message.id
    }

    async fn takes_one(&self) -> MessageId {
        self.takes(self.message("x@y.example", &["r@z.example"])).await
    }

    /// What is said of a message. Asked three times, and nothing that can be seen is different for that.
    async fn explained(&self, id: MessageId) -> Explanation {
        let seen = || (self.dispatcher.limits(), self.dispatcher.providers(), self.queue.waiting_for(id));
        let before = seen();
        let explanations = [self.dispatcher.explain(id).await, self.dispatcher.explain(id).await, self.dispatcher.explain(id).await];
        assert_eq!(before, seen(), "explaining has changed something");
        let [.., Ok(Some((found, explanation)))] = explanations else { panic!("{explanations:?}") };
        assert_eq!(found.listed.id, id);
        explanation
    }

    /// The one part that there is.
    async fn part(&self, id: MessageId) -> Part {
        let mut parts = self.explained(id).await.parts;
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts.remove(0)
    }

    async fn imagined(&self, from: &str, size: u64) -> Part {
        let envelope = self.message(from, &["r@z.example"]).envelope.clone();
        let imagined = Imagined { envelope, application: None, client: None, size, signature: None };
        let mut parts = self.dispatcher.explain_imagined(imagined).await.parts;
        assert_eq!(parts.len(), 1, "{parts:?}");
        parts.remove(0)
    }

    async fn decided(&self, command: Command) {
        self.dispatcher.control(command, "alice").await.unwrap();
    }

    /// When the clock of this bench shows so many seconds since the start.
    fn second(at: SystemTime) -> u64 {
        // What falls between two milliseconds is the pace of a rate.
        (at.duration_since(SystemTime::UNIX_EPOCH).unwrap() + Duration::from_millis(1)).as_secs() - 1_000_000
    }

    fn is_said(&self, part: &Part, (verdict, at, provider, reason, others): Said) {
        let Conclusion { verdict: said, at: told, provider: who, reason: why, others: how_many } = &part.conclusion;
        let who = who.as_ref().map(ToString::to_string).unwrap_or_default();
        let told = told.map(Self::second);
        assert_eq!((*said, told, who.as_str(), why.as_str(), *how_many), (verdict, at, provider, reason, others), "{part:#?}");
    }
}

fn unavailable() -> Answer {
    fails(Failure::Unavailable(words()))
}

fn causes(part: &Part, candidate: usize) -> Vec<Cause> {
    part.way.as_ref().unwrap().candidates[candidate].waits.iter().map(|wait| wait.cause).collect()
}

fn names(part: &Part) -> Vec<String> {
    part.way.as_ref().unwrap().candidates.iter().map(|candidate| candidate.name.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_limited_message_goes_when_it_was_said_and_explaining_takes_nothing_of_the_limit() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let limits = LimitSettings { rate: Some("1/min".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a, &b], Setup { limits, ..Setup::default() }).await;
    bench.is_said(&bench.imagined("x@y.example", 0).await, (Verdict::Now, None, "test.a", "", 0));
    bench.takes_one().await;
    let second = bench.takes_one().await;
    let said = (Verdict::Waits, Some(60), "test.a", "rate of test.a", 0);
    let part = bench.part(second).await;
    bench.is_said(&part, said);
    assert_eq!((causes(&part, 0), causes(&part, 1)), (vec![Cause::Limit], vec![]));
    assert_eq!(part.way.as_ref().unwrap().candidates[0].limits[0].setting, "provider.test.a.limits.rate");
    // One that came now would stand behind it.
    bench.is_said(&bench.imagined("x@y.example", 0).await, (Verdict::Waits, Some(60), "test.a", "rate of test.a", 1));
    bench.pass(58).await;
    bench.is_said(&bench.part(second).await, said);
    bench.pass(10).await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0, 60], vec![]));
    assert!(bench.dispatcher.explain(second).await.unwrap().is_none(), "it has left the queue");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_spills_would_go_to_the_next_one_and_does() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let limits = LimitSettings { rate: Some("1/min".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a, &b], Setup { limits, route: |route| route.spill = true, ..Setup::default() }).await;
    bench.takes_one().await;
    bench.is_said(&bench.imagined("x@y.example", 0).await, (Verdict::Now, None, "test.b", "", 0));
    bench.takes_one().await;
    assert_eq!((a.seconds(), b.seconds()), (vec![0], vec![0]));
}

#[tokio::test(start_paused = true)]
async fn what_an_open_circuit_keeps_goes_when_the_probe_is_due_and_explaining_is_no_probe() {
    let a = Scripted::new(vec![unavailable()]);
    let circuit = CircuitSettings { trip_after: 1, probe_after: Duration::from_secs(100), ..CircuitSettings::default() };
    let failover = Failover { usual: circuit, ..Failover::default() };
    let bench = Bench::start(&[&a], Setup { failover, ..Setup::default() }).await;
    let first = bench.takes_one().await;
    // The schedule lets it try at 60, and the circuit does not.
    let part = bench.part(first).await;
    bench.is_said(&part, (Verdict::Waits, Some(100), "test.a", "circuit of test.a", 0));
    let second = bench.takes_one().await;
    bench.is_said(&bench.part(second).await, (Verdict::Waits, Some(100), "test.a", "circuit of test.a", 0));
    bench.pass(70).await;
    bench.is_said(&bench.part(first).await, (Verdict::Waits, Some(100), "test.a", "circuit of test.a", 1));
    bench.pass(50).await;
    assert_eq!((a.seconds()[..2].to_vec(), bench.left().await), (vec![0, 100], 0));
    // Half-open, with nobody there to probe.
    *a.script.lock() = [unavailable()].into();
    let bench = bench.restarted(&[&a], Setup { failover: Failover { usual: circuit, ..Failover::default() }, ..Setup::default() }).await;
    bench.takes_one().await;
    let (_, open) = &bench.circuits[0];
    while matches!(open.state(), CircuitState::Open { .. } | CircuitState::HalfOpen { probing: true }) {
        sleep(Duration::from_millis(700)).await;
    }
    for _ in 0..3 {
        bench.is_said(&bench.imagined("x@y.example", 0).await, (Verdict::Now, None, "test.a", "", 0));
    }
    let asked = a.seconds().len();
    bench.takes_one().await;
    assert_eq!(a.seconds().len(), asked + 1, "nothing of it was used up");
}

#[tokio::test(start_paused = true)]
async fn a_deferred_message_is_tried_again_when_it_was_said_and_each_recipient_in_its_own_time() {
    let busy: Answer = Box::new(|attempt| {
        let outcome = |index: &RecipientIndex| (*index, if index.0 == 0 { Outcome::Deferred(words()) } else { relayed() });
        Ok(Report::new(attempt.recipients.iter().map(outcome).collect()))
    });
    let a = Scripted::new(vec![busy, unavailable()]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    let id = bench.takes(bench.message("x@y.example", &["r0@z.example", "r1@z.example"])).await;
    for (asked, at, attempts) in [(1, 60, 1), (2, 360, 2)] {
        assert_eq!(a.seconds().len(), asked);
        let explanation = bench.explained(id).await;
        assert_eq!((explanation.attempts, explanation.parts.len()), (attempts, 2));
        bench.is_said(&explanation.parts[0], (Verdict::Retry, Some(at), "test.a", "", 0));
        bench.is_said(&explanation.parts[1], (Verdict::Ended, None, "", "relayed", 0));
        assert_eq!(Bench::second(explanation.parts[0].way.as_ref().unwrap().expires), 1000);
        bench.pass(60).await;
    }
    bench.pass(300).await;
    assert_eq!((a.seconds(), bench.left().await), (vec![0, 60, 360], 0));
}

#[tokio::test(start_paused = true)]
async fn a_pinned_route_has_one_candidate_and_a_paused_one_none_until_it_is_resumed() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    bench.decided(Command::Pin { route: "all".into(), provider: "test.b".into() }).await;
    let part = bench.imagined("x@y.example", 0).await;
    bench.is_said(&part, (Verdict::Now, None, "test.b", "", 0));
    assert_eq!((names(&part), &*part.way.unwrap().pinned.unwrap().by.who), (vec!["test.b".to_owned()], "alice"));
    bench.takes_one().await;
    bench.decided(Command::Unpin("all".into())).await;
    for (subject, words) in [
        (Subject::Route("all".into()), "route all, which alice has paused"),
        (Subject::Domain("y.example".into()), "sending domain y.example, which alice has paused"),
    ] {
        bench.decided(Command::Pause(subject.clone())).await;
        let id = bench.takes_one().await;
        bench.is_said(&bench.part(id).await, (Verdict::Waits, None, "", words, 0));
        bench.decided(Command::Resume(subject)).await;
        bench.pass(0).await;
    }
    // Both providers stopped, one of them by a trip.
    bench.decided(Command::Pause(Subject::Provider("test.a".into()))).await;
    bench.is_said(&bench.imagined("x@y.example", 0).await, (Verdict::Now, None, "test.b", "", 0));
    bench.decided(Command::Trip("test.b".into())).await;
    let part = bench.imagined("x@y.example", 0).await;
    bench.is_said(&part, (Verdict::Waits, None, "", "provider test.a, which alice has paused", 0));
    assert_eq!((causes(&part, 0), causes(&part, 1)), (vec![Cause::Stopped], vec![Cause::Stopped]));
    assert_eq!((a.seconds().len(), b.seconds().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_cannot_carry_it_is_passed_over_with_the_reason_and_where_nobody_can_it_bounces() {
    let (mut a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    a.capabilities.max_size = Some(SizeLimit::message(100));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    let part = bench.imagined("x@y.example", 101).await;
    bench.is_said(&part, (Verdict::Now, None, "test.b", "", 0));
    let Some(Cannot::Carry(why)) = &part.way.as_ref().unwrap().candidates[0].cannot else { panic!("{part:#?}") };
    assert_eq!(why.text, "the message has 101 octets, this provider takes 100");
    bench.is_said(&bench.imagined("x@y.example", 100).await, (Verdict::Now, None, "test.a", "", 0));
    bench.decided(Command::Pin { route: "all".into(), provider: "test.a".into() }).await;
    let part = bench.imagined("x@y.example", 101).await;
    assert_eq!(part.conclusion.verdict, Verdict::Bounces);
    assert!(part.conclusion.reason.contains("the message has 101 octets"), "{part:?}");
    // The same of a real one, which is held so that it can be asked about.
    bench.decided(Command::Pause(Subject::Route("all".into()))).await;
    let mut message = Arc::unwrap_or_clone(bench.message("x@y.example", &["r@z.example"]));
    message.body = Body::Inline("x".repeat(101).into());
    let id = bench.takes(Arc::new(message)).await;
    let part = bench.part(id).await;
    assert_eq!(part.way.unwrap().candidates[0].cannot.as_ref().map(Cannot::name), Some("cannot_carry"));
    assert_eq!((part.conclusion.verdict, a.seconds().len()), (Verdict::Waits, 0));
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_was_refused_is_tried_again_when_it_was_said_or_expires_when_it_was_said() {
    for (expire_after, said, asked) in [
        (20_000, (Verdict::Waits, Some(3600), "test.a", "test.a, which refuses the sender y.example", 0), vec![0, 3600, 3600]),
        (2_000, (Verdict::Expires, Some(2_000), "", "test.a, which refuses the sender y.example", 0), vec![0]),
    ] {
        let a = Scripted::new(vec![fails(Failure::SenderRefused(words()))]);
        let route = match expire_after {
            2_000 => |route: &mut Route| route.expire_after = Some(Duration::from_secs(2_000)),
            _ => |route: &mut Route| route.expire_after = Some(Duration::from_secs(20_000)),
        };
        let bench = Bench::start(&[&a], Setup { route, ..Setup::default() }).await;
        bench.takes_one().await;
        let id = bench.takes_one().await;
        bench.is_said(&bench.part(id).await, said);
        bench.is_said(&bench.imagined("x@w.example", 0).await, (Verdict::Now, None, "test.a", "", 0));
        bench.pass(1_998).await;
        assert!(bench.dispatcher.explain(id).await.unwrap().is_some());
        bench.pass(3_000).await;
        assert!(bench.dispatcher.explain(id).await.unwrap().is_none());
        let asked_for = a.asked.lock().iter().filter(|(_, from, _)| from == "x@y.example").map(|(at, ..)| *at).collect::<Vec<_>>();
        assert_eq!(asked_for, asked);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_doubt_goes_to_its_provider_alone_or_waits_for_a_person() {
    for (route, said, asked) in [
        ((|_| {}) as fn(&mut Route), (Verdict::Retry, Some(60), "test.a", "", 0), vec![0, 60]),
        (
            |route: &mut Route| route.in_doubt = InDoubt::Hold,
            (Verdict::InDoubt, None, "test.a", "the handover is in doubt, and its route holds", 0),
            vec![0],
        ),
    ] {
        let (a, b) = (Scripted::new(vec![gives(Outcome::InDoubt(words()))]), Scripted::new(vec![]));
        let bench = Bench::start(&[&a, &b], Setup { route, ..Setup::default() }).await;
        let id = bench.takes_one().await;
        let part = bench.part(id).await;
        bench.is_said(&part, said);
        if let Some(way) = &part.way {
            assert_eq!((way.in_doubt.as_ref().unwrap().as_str(), names(&part)), ("test.a", vec!["test.a".to_owned()]));
        }
        bench.pass(100).await;
        assert_eq!((a.seconds(), b.seconds()), (asked, vec![]));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_person_holds_or_reroutes_is_said_with_the_way_that_it_would_take() {
    let (a, b) = (Scripted::new(vec![unavailable()]), Scripted::new(vec![unavailable()]));
    let bench = Bench::start(&[&a, &b], Setup::default()).await;
    let id = bench.takes_one().await;
    bench.pass(4).await;
    bench.queue.act(id, Action::Hold, "alice").await.unwrap();
    let part = bench.part(id).await;
    bench.is_said(&part, (Verdict::Held, Some(4), "", "", 0));
    let way = part.way.as_ref().unwrap();
    assert_eq!((&*way.route.name, way.rerouted, names(&part)), ("all", false, vec!["test.a".to_owned(), "test.b".to_owned()]));
    assert_eq!(way.passed_over.iter().map(|(name, _, asks)| (&**name, asks.as_str())).collect::<Vec<_>>(), [("other", "other.example")]);
    bench.queue.act(id, Action::Reroute("other".into()), "alice").await.unwrap();
    let part = bench.part(id).await;
    let way = part.way.as_ref().unwrap();
    assert_eq!((&*way.route.name, way.rerouted, way.passed_over.len(), names(&part)), ("other", true, 0, vec!["test.b".to_owned()]));
    bench.queue.act(id, Action::Release, "alice").await.unwrap();
    bench.pass(1).await;
    assert_eq!((b.seconds(), bench.left().await), (vec![0, 4], 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_being_handed_over_is_said_to_be_and_what_finds_no_hand_waits_for_one() {
    let mut a = Scripted::new(vec![]);
    a.takes = Duration::from_secs(10);
    let limits = LimitSettings { concurrency: Some(1), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
    let first = bench.takes_one().await;
    let second = bench.takes_one().await;
    bench.is_said(&bench.part(first).await, (Verdict::UnderWay, None, "", "", 0));
    bench.is_said(&bench.part(second).await, (Verdict::Waits, None, "", "concurrency of test.a", 0));
    bench.pass(10).await;
    bench.is_said(&bench.part(second).await, (Verdict::UnderWay, None, "", "", 0));
}

#[tokio::test(start_paused = true)]
async fn a_limit_on_the_sender_is_said_with_how_many_recipients_go_at_once() {
    let a = Scripted::new(vec![]);
    let bench = Bench::start(&[&a], Setup { sender_limits: of_applications(&[("erp", "60 recipients/min")]), ..Setup::default() }).await;
    let to: Vec<String> = (0..70).map(|index| format!("r{index}@z.example")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    bench.takes(bench.message_of(Some("erp"), "x@y.example", &to[..50])).await;
    let id = bench.takes(bench.message_of(Some("erp"), "x@y.example", &to)).await;
    let part = bench.part(id).await;
    bench.is_said(&part, (Verdict::Waits, Some(50), "test.a", "rate of application erp", 0));
    let way = part.way.unwrap();
    assert_eq!((way.piece.unwrap().recipients, way.limits[0].setting.as_str(), way.limits[0].left), (50, "app.*.rate", 0));
    bench.pass(60).await;
    let asked: Vec<_> = a.asked.lock().iter().map(|(at, _, to)| (*at, to.len())).collect();
    assert_eq!(asked, [(0, 50), (50, 50)]);
}

#[tokio::test(start_paused = true)]
async fn the_first_route_that_matches_is_said_and_where_none_does_the_door_refuses() {
    let (a, b) = (Scripted::new(vec![]), Scripted::new(vec![]));
    let only = |route: &mut Route| route.when.null_sender = Some(false);
    let bench = Bench::start(&[&a, &b], Setup { route: only, ..Setup::default() }).await;
    let part = bench.imagined("x@other.example", 0).await;
    assert_eq!((&*part.way.as_ref().unwrap().route.name, names(&part)), ("other", vec!["test.b".to_owned()]));
    let part = bench.imagined("", 0).await;
    bench.is_said(&part, (Verdict::Refused, None, "", "no route matches", 0));
    assert!(part.way.is_none());
}

#[tokio::test(start_paused = true)]
async fn of_many_that_wait_for_the_same_the_time_is_said_to_be_the_earliest_also_of_those_in_the_store() {
    let a = Scripted::new(vec![]);
    let limits = LimitSettings { rate: Some("1/min".parse().unwrap()), ..LimitSettings::default() };
    let bench = Bench::start(&[&a], Setup { limits, ..Setup::default() }).await;
    let mut last = bench.takes_one().await;
    // More than is held in memory.
    for _ in 0..500 {
        last = bench.takes_one().await;
    }
    bench.pass(30).await;
    assert!(bench.queue.waiting_for(last).is_none(), "it is in the store");
    let Conclusion { verdict, at, others, .. } = bench.part(last).await.conclusion;
    assert_eq!((verdict, at.map(Bench::second)), (Verdict::Waits, Some(60)));
    assert!((20..400).contains(&others), "{others}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_waits_for_a_person() {
    let a = Scripted::new(vec![gives(Outcome::Bounced(words()))]);
    let bench = Bench::start(&[&a], Setup::default()).await;
    let id = bench.takes(bench.message("", &["r@z.example"])).await;
    let part = bench.part(id).await;
    bench.is_said(&part, (Verdict::Dead, None, "", "", 0));
    assert!(part.way.is_none());
}
