//! Mail waits in lanes: each is claimed from, and tells its next time, by itself.

use postrider_providers::contract::Priority;

use super::{FAR, Fixture, PLENTY, at, claim, ids, lane, lane_of, message, next_due, settlement};
use crate::spool::view::Lane;
use crate::spool::{Claimed, RecipientState, Settlement, Spool, WaitingLane, Want};

fn want(lane: &Lane, limit: usize) -> Want {
    Want { lane: lane.clone(), limit }
}

/// Claims up to `limit` from each.
async fn claim_from(spool: &impl Spool, seconds: u64, lanes: &[&Lane], limit: usize) -> Vec<Claimed> {
    let wants: Vec<_> = lanes.iter().map(|lane| want(lane, limit)).collect();
    let claimed = spool.claim(at(seconds), &wants, PLENTY).await.unwrap();
    assert!(claimed.iter().map(|claimed| &claimed.lane).eq(lanes.iter().copied()), "told in the order of asking");
    claimed
}

/// The lanes in which mail waits, each with the second at which it is due.
async fn waiting(spool: &impl Spool) -> Vec<(Lane, u64)> {
    let seconds = |waiting: WaitingLane| (waiting.lane, waiting.due.duration_since(at(0)).unwrap().as_secs());
    spool.lanes(100).await.unwrap().into_iter().map(seconds).collect()
}

pub(crate) async fn each_lane_gives_its_own_and_tells_when_it_is_due_next(fixture: impl Fixture) {
    let spool = fixture.spool();
    let urgent = Lane { priority: Priority::High, ..lane() };
    let elsewhere = Lane { route: "other".into(), ..lane() };
    let (other, never) = (lane_of("example.net"), lane_of("never.example"));
    let mut stored = Vec::new();
    for (seconds, lane) in [(1, &lane()), (2, &lane()), (9, &lane()), (3, &urgent), (4, &elsewhere), (5, &other)] {
        let message = message(seconds, b"x");
        spool.store(message.clone(), lane, false).await.unwrap();
        stored.push(message.id);
    }
    let claimed = claim_from(spool, 4, &[&other, &urgent, &lane(), &never], 1).await;
    let found: Vec<_> = claimed.iter().map(|claimed| ids(&claimed.messages)).collect();
    assert_eq!(found, [vec![], vec![stored[3]], vec![stored[0]], vec![]]);
    let next: Vec<_> = claimed.iter().map(|claimed| claimed.next_due).collect();
    assert_eq!(next, [Some(at(5)), None, Some(at(2)), None]);
    let rest = claim_from(spool, 9, &[&lane(), &elsewhere], 10).await;
    assert_eq!(ids(&rest[0].messages), [stored[1], stored[2]]);
    assert_eq!(ids(&rest[1].messages), [stored[4]]);
    assert_eq!(waiting(spool).await, [(other, 5)]);
}

pub(crate) async fn a_message_moves_to_the_lane_that_its_end_of_lease_names(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let (one, two, three) = (message(0, b"one"), message(0, b"two"), message(0, b"three"));
    for message in [&one, &two, &three] {
        spool.store(message.clone(), &lane(), true).await.unwrap();
    }
    let other = lane_of("example.net");
    spool.release(one.id, &other, at(1)).await.unwrap();
    spool.settle(Settlement { lane: other.clone(), ..settlement(two.id, &[(0, RecipientState::Pending)]) }).await.unwrap();
    let news = message(2, b"a notification");
    let notified = Lane { domain: "".into(), ..lane() };
    let bounced = settlement(three.id, &[(0, RecipientState::Bounced)]);
    spool.settle(Settlement { notifications: vec![(news.clone(), notified.clone())], ..bounced }).await.unwrap();
    fixture.crash().await;
    let spool = fixture.spool();
    assert!(claim(spool, FAR).await.is_empty());
    let claimed = claim_from(spool, 60, &[&other, &notified], 10).await;
    assert_eq!(ids(&claimed[0].messages), [one.id, two.id]);
    assert_eq!(ids(&claimed[1].messages), [news.id]);
}

pub(crate) async fn the_lanes_in_which_mail_waits_are_told_the_first_due_first(fixture: impl Fixture) {
    let spool = fixture.spool();
    assert_eq!(waiting(spool).await, []);
    let (a, b, c) = (lane_of("a.example"), lane_of("b.example"), Lane::default());
    for (seconds, lane, lease) in [(30, &a, false), (20, &b, false), (10, &a, false), (40, &c, false), (5, &lane(), true)] {
        spool.store(message(seconds, b"x"), lane, lease).await.unwrap();
    }
    assert_eq!(waiting(spool).await, [(a.clone(), 10), (b.clone(), 20), (c.clone(), 40)]);
    assert_eq!(spool.lanes(2).await.unwrap().len(), 2);
    assert_eq!(next_due(spool).await, Some(at(10)));
    claim_from(spool, 20, &[&a, &b], 10).await;
    assert_eq!(waiting(spool).await, [(a, 30), (c, 40)]);
}

pub(crate) async fn lanes_are_known_after_a_crash_and_forgotten_when_they_are_empty(mut fixture: impl Fixture) {
    let (kept, gone) = (lane_of("kept.example"), lane_of("gone.example"));
    let (stays, goes, held) = (message(1, b"stays"), message(0, b"goes"), message(0, b"held"));
    fixture.spool().store(stays.clone(), &kept, false).await.unwrap();
    fixture.spool().store(goes.clone(), &gone, true).await.unwrap();
    fixture.spool().settle(Settlement { lane: gone.clone(), ..settlement(goes.id, &[(0, RecipientState::Relayed)]) }).await.unwrap();
    let waits = lane_of("held.example");
    fixture.spool().store(held.clone(), &waits, true).await.unwrap();
    let state = RecipientState::Held("ses.eu".into());
    fixture.spool().settle(Settlement { lane: waits, ..settlement(held.id, &[(0, state)]) }).await.unwrap();
    fixture.crash().await;
    assert_eq!(waiting(fixture.spool()).await, [(kept.clone(), 1)]);
    // A lane that was forgotten is as good as new.
    let again = message(2, b"again");
    fixture.spool().store(again.clone(), &gone, false).await.unwrap();
    fixture.crash().await;
    let claimed = claim_from(fixture.spool(), 2, &[&gone, &kept], 10).await;
    assert_eq!((ids(&claimed[0].messages), ids(&claimed[1].messages)), (vec![again.id], vec![stays.id]));
}

pub(crate) async fn the_octets_of_a_claim_count_over_all_lanes(fixture: impl Fixture) {
    let spool = fixture.spool();
    let (a, b) = (lane_of("a.example"), lane_of("b.example"));
    for lane in [&a, &a, &b, &b] {
        spool.store(message(0, b"0123456789"), lane, false).await.unwrap();
    }
    let count = async |octets| {
        let claimed = spool.claim(at(1), &[want(&a, 9), want(&b, 9)], octets).await.unwrap();
        claimed.iter().map(|claimed| (claimed.messages.len(), claimed.next_due.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(count(30).await, [(2, false), (1, true)], "what is left is told of");
    assert_eq!(count(0).await, [(0, false), (1, false)], "the first one always fits, wherever it is");
}
