//! Who may hold how much of the window, and whose turn it is.
use bytes::Bytes;
use postrider_providers::contract::{Address, BodyType, Envelope, Message, Origin, Recipient, ReversePath};

use super::backlog::MOST_LANES;
use super::*;

fn window(messages: usize, octets: u64) -> Window {
    Window::new(messages, octets, Clock::following_tokio(SystemTime::UNIX_EPOCH))
}

fn lane(domain: &str) -> Lane {
    Lane { domain: domain.into(), ..Lane::default() }
}

fn entry(window: &Window, octets: usize) -> Entry {
    entry_of(window, lane("a.example"), octets)
}

fn entry_of(window: &Window, lane: Lane, octets: usize) -> Entry {
    let message = Message {
        id: MessageId::generate(),
        received: SystemTime::UNIX_EPOCH,
        origin: Origin::default(),
        envelope: Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient::from("a@x.example".parse::<Address>().unwrap())],
            body_type: BodyType::SevenBit,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        },
        body: Body::Inline(Bytes::from(vec![b'x'; octets])),
    };
    let room = Room::take(&window.usage, &message.body);
    Entry::new(Stored::fresh(Arc::new(message)), lane, room)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Parks as many as there is room for.
fn fill(window: &Window, reason: &str, octets: usize) -> usize {
    let now = Instant::now();
    (0..10_000)
        .take_while(|_| window.park(entry(window, octets), WaitReason::new(reason), now + seconds(60), now + seconds(600)).is_ok())
        .count()
}

fn park(window: &Window, entry: Entry, reason: &str) {
    let now = Instant::now();
    window.park(entry, WaitReason::new(reason), now + seconds(1), now + seconds(600)).unwrap();
}

/// The domains of so many messages, as they come.
async fn domains(window: &Window, count: usize) -> String {
    let mut domains = String::new();
    for _ in 0..count {
        domains.push_str(&window.pop().await.lane.domain);
    }
    domains
}

#[tokio::test(start_paused = true)]
async fn the_oldest_of_a_lane_goes_first_whenever_it_was_parked() {
    let window = window(100, 1 << 20);
    let entries: Vec<_> = (0..3).map(|_| entry(&window, 1)).collect();
    let ids: Vec<_> = entries.iter().map(|entry| entry.stored.message.id).collect();
    for entry in entries.into_iter().rev() {
        park(&window, entry, "r");
    }
    window.wake_due(Instant::now() + seconds(1));
    let order = [window.pop().await, window.pop().await, window.pop().await].map(|entry| entry.stored.message.id);
    assert_eq!(order[..], ids);
}

#[tokio::test(start_paused = true)]
async fn lanes_take_turns_when_they_are_ready_and_when_they_are_let_go() {
    let window = window(1000, 1 << 20);
    for domain in ["a"; 40].into_iter().chain(["b", "c"]) {
        let entry = entry_of(&window, lane(domain), 1);
        window.put_back(entry);
    }
    assert_eq!(domains(&window, 42).await, format!("abc{}", "a".repeat(39)));
    for domain in ["a"; 40].into_iter().chain(["b", "c"]) {
        park(&window, entry_of(&window, lane(domain), 1), "r");
    }
    window.wake(&WaitReason::new("r"), 5);
    assert_eq!(domains(&window, 5).await, "abcaa");
}

#[tokio::test(start_paused = true)]
async fn whoever_is_refused_again_and_again_is_not_overtaken() {
    let window = window(10_000, 1 << 20);
    for domain in ["a"; 300].into_iter().chain(["b"; 3]) {
        park(&window, entry_of(&window, lane(domain), 1), "r");
    }
    // One of a batch finds something each time.
    let mut served = String::new();
    for _ in 0..6 {
        window.wake(&WaitReason::new("r"), BATCH);
        for position in 0..BATCH {
            let entry = window.pop().await;
            match position {
                0 => {
                    served.push_str(&entry.lane.domain);
                    window.finish(entry);
                }
                _ => park(&window, entry, "r"),
            }
        }
    }
    assert_eq!(served, "ababab");
}

#[tokio::test(start_paused = true)]
async fn what_is_let_go_comes_before_what_is_fresh_but_not_all_of_it() {
    let window = window(1000, 1 << 20);
    for _ in 0..4 {
        park(&window, entry_of(&window, lane("w"), 1), "r");
        window.put_back(entry_of(&window, lane("f"), 1));
    }
    window.wake(&WaitReason::new("r"), 4);
    assert_eq!(domains(&window, 8).await, "wwwfwfff");
}

#[tokio::test(start_paused = true)]
async fn a_message_can_be_taken_out_wherever_it_is() {
    let window = window(1000, 1 << 20);
    let (fresh, woken, parked) = (entry(&window, 1), entry(&window, 1), entry(&window, 1));
    let ids = [&fresh, &woken, &parked].map(|entry| entry.stored.message.id);
    park(&window, woken, "r");
    window.wake(&WaitReason::new("r"), 1);
    window.put_back(fresh);
    park(&window, parked, "s");
    let reasons = ids.map(|id| window.waits_for(id).map(|reason| reason.to_string()));
    assert_eq!(reasons, [None, None, Some("s".to_owned())]);
    for id in ids {
        let taken = window.take(id).unwrap();
        assert_eq!(taken.stored.message.id, id);
        assert!(window.take(id).is_none(), "it is out");
        window.finish(taken);
    }
    assert_eq!(window.len(), 0);
    assert!(window.state.lock().backlog.get(&lane("a.example")).is_none(), "nothing is known of a lane without mail");
    assert!(futures_util::poll!(std::pin::pin!(window.pop())).is_pending());
    assert_eq!(window.wake_due(Instant::now() + seconds(9)), None);
}

#[tokio::test(start_paused = true)]
async fn fresh_mail_stands_behind_that_of_its_lane_in_the_store_and_no_other() {
    let window = window(1000, 1 << 20);
    let body = Body::Inline(Bytes::from_static(b"x"));
    let (a, b) = (lane("a"), lane("b"));
    let now = window.clock.now();
    window.note(&a, now + seconds(60));
    assert!(window.reserve(&a, &body).is_some(), "what is due later is nobody to stand behind");
    window.note(&a, now);
    assert!(window.reserve(&a, &body).is_none());
    assert!(window.reserve(&b, &body).is_some());
    let Fetch::Claim(wants, _) = window.fetch() else { panic!("something is due") };
    assert_eq!(wants.iter().map(|want| &want.lane).collect::<Vec<_>>(), [&a]);
    assert!(window.reserve(&a, &body).is_none(), "also while it is being fetched");
    // Something is stored meanwhile, of which the claim cannot tell.
    window.note(&a, now);
    window.admit(&a, Vec::new(), Some(now + seconds(60)));
    let Fetch::Claim(wants, _) = window.fetch() else { panic!("what was noted is not forgotten") };
    window.admit(&wants[0].lane, Vec::new(), None);
    assert!(window.reserve(&a, &body).is_some());
    assert!(matches!(window.fetch(), Fetch::Wait(None)));
}

#[tokio::test(start_paused = true)]
async fn a_lane_may_hold_its_share_and_is_fetched_from_when_half_of_that_is_gone() {
    let window = window(1000, 1 << 20);
    let body = Body::Inline(Bytes::from_static(b"x"));
    let (a, b) = (lane("a"), lane("b"));
    let mut taken = 0;
    while let Some(room) = window.reserve(&a, &body) {
        let Entry { stored, .. } = entry(&window, 1);
        window.push(room, a.clone(), stored);
        taken += 1;
        assert!(taken < 1000);
    }
    assert_eq!(taken, 250);
    assert!(window.reserve(&b, &body).is_some());
    window.note(&a, window.clock.now());
    assert!(matches!(window.fetch(), Fetch::Wait(None)));
    for _ in 0..124 {
        window.finish(window.pop().await);
    }
    assert!(matches!(window.fetch(), Fetch::Wait(None)));
    window.finish(window.pop().await);
    let Fetch::Claim(wants, _) = window.fetch() else { panic!("half is gone") };
    assert_eq!(wants, [Want { lane: a, limit: 125 }]);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_found_no_room_to_wait_in_is_left_in_the_store_until_there_may_be_some() {
    let window = window(1000, 1 << 20);
    let here = fill(&window, "down", 1);
    let late = lane("late");
    let refused = |window: &Window| {
        let parked = window.park(entry_of(window, late.clone(), 1), WaitReason::new("down"), Instant::now(), Instant::now() + seconds(600));
        let (entry, away) = *parked.unwrap_err();
        window.note(&late, window.clock.now());
        window.finish(entry);
        away
    };
    let away = refused(&window);
    assert!(matches!(window.fetch(), Fetch::Wait(Some(due)) if due == window.clock.now() + away));
    assert!(window.reserve(&late, &Body::Inline(Bytes::new())).is_none(), "fresh mail of it has no better luck");
    tokio::time::advance(away).await;
    assert!(matches!(window.fetch(), Fetch::Claim(..)));
    window.admit(&late, Vec::new(), Some(window.clock.now()));
    // When nothing waits for that any more, nobody has to wait for a time.
    refused(&window);
    assert!(matches!(window.fetch(), Fetch::Wait(Some(_))));
    window.wake(&WaitReason::new("down"), here);
    assert!(matches!(window.fetch(), Fetch::Claim(..)));
}

#[tokio::test(start_paused = true)]
async fn what_finds_a_small_window_full_of_others_is_not_offered_again_without_pause() {
    let window = window(4, 1 << 20);
    let (now, far) = (Instant::now(), seconds(3600));
    park(&window, entry_of(&window, lane("first"), 1), "r");
    let away = |wait: Duration| {
        let (entry, away) = *window.park(entry_of(&window, lane("late"), 1), WaitReason::new("s"), now + wait, now + far).unwrap_err();
        window.finish(entry);
        away
    };
    assert_eq!([away(Duration::ZERO), away(seconds(7)), away(far)], [Duration::from_millis(200), seconds(7), seconds(30)]);
}

#[tokio::test(start_paused = true)]
async fn there_may_be_more_lanes_than_are_remembered() {
    let window = window(1000, 1 << 20);
    let now = window.clock.now();
    for number in 0..MOST_LANES + 10 {
        window.note(&lane(&format!("{number}.example")), now + seconds(60));
    }
    assert!(window.state.lock().backlog.get(&lane(&format!("{}.example", MOST_LANES + 5))).is_none());
    // Whoever is due takes the place of somebody who is not yet.
    let due = lane("due.example");
    window.note(&due, now);
    let Fetch::Claim(wants, _) = window.fetch() else { panic!("something is due") };
    assert_eq!(wants.iter().map(|want| &want.lane).collect::<Vec<_>>(), [&due]);
    window.admit(&due, Vec::new(), None);
    assert!(matches!(window.fetch(), Fetch::Wait(Some(_))));
    tokio::time::advance(seconds(60)).await;
    assert!(window.reserve(&lane("forgotten.example"), &Body::Inline(Bytes::new())).is_none(), "there may be mail of it in the store");
    let mut claims = 0;
    while let Fetch::Claim(wants, _) = window.fetch() {
        claims += wants.len();
        wants.iter().for_each(|want| window.admit(&want.lane, Vec::new(), None));
    }
    assert_eq!(claims, MOST_LANES - 1);
    assert!(matches!(window.fetch(), Fetch::LookUp), "the others are looked up after that");
    window.looked_up(&[WaitingLane { lane: lane("forgotten.example"), due: now }], 9);
    assert!(matches!(window.fetch(), Fetch::Claim(wants, _) if wants.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_life_ends_is_let_go_whatever_it_waits_for() {
    let (window, now) = (window(1000, 1 << 20), Instant::now());
    for _ in 0..100 {
        window.park(entry(&window, 1), WaitReason::new("r"), now + seconds(900), now + seconds(60)).unwrap();
    }
    assert_eq!(window.wake_due(now), Some(now + seconds(60)), "it looks again when the first one ends");
    assert_eq!(window.wake_due(now + seconds(60)), None);
    assert_eq!(window.state.lock().woken.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn however_many_reasons_there_are_the_window_is_not_filled_by_what_waits() {
    for octets in [1, 200] {
        let window = window(1000, 100_000);
        let held: Vec<usize> = (0..20).map(|reason| fill(&window, &format!("reason {reason}"), octets)).collect();
        assert!(held[0] >= if octets == 1 { 200 } else { 100 }, "one alone may have much: {held:?}");
        assert!(held[..5].iter().all(|held| *held > 0), "{held:?}");
        window.note(&lane("other"), window.clock.now());
        assert!(matches!(window.fetch(), Fetch::Claim(..)), "there is room to fetch what waits for nothing: {held:?}");
        // What is let go makes room again.
        window.wake(&WaitReason::new("reason 0"), usize::MAX);
        window.state.lock().woken.clear();
        assert!(fill(&window, "another", octets) > 0);
    }
}
