//! What every implementation of [`Spool`] has to pass: one behaviour, one test.
//!
//! An implementation writes a [`Fixture`] and calls [`every_promise!`] with it. Times are whole
//! milliseconds, the precision that a store has to keep.

mod fidelity;
mod lanes;
mod notes;
mod operate;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use postrider_providers::contract::{
    Address, Body, BodyType, Envelope, Message, MessageId, Origin, Priority, ProviderName, Recipient, RecipientIndex, ReversePath,
};

pub(crate) use self::fidelity::*;
pub(crate) use self::lanes::*;
pub(crate) use self::notes::*;
pub(crate) use self::operate::*;
use super::action::{Action, Done, Target};
use super::view::Lane;
use super::{Change, Doubt, RecipientState, Recovered, Settlement, Spool, SpoolCounts, SpoolError, Stored, Want};

/// A store under test.
#[allow(async_fn_in_trait, reason = "the tests run each fixture on the thread that made it")]
pub(crate) trait Fixture: Sized {
    /// The implementation.
    type Spool: Spool;

    /// An empty store.
    async fn fresh() -> Self;

    /// The first node's handle.
    fn spool(&self) -> &Self::Spool;

    /// A second node on the same store.
    async fn another_node(&self) -> Self::Spool;

    /// Ends every node without a farewell (or after `close`), and opens the store again.
    async fn crash(&mut self) -> Recovered;

    /// Makes the record of `id` unreadable.
    async fn spoil(&self, id: MessageId);
}

/// One `#[tokio::test]` for each behaviour, for the fixture named.
macro_rules! every_promise {
    ($fixture:ty) => {
        $crate::spool::suite::every_promise! { $fixture:
            a_message_comes_back_exactly_as_it_was_stored
            what_was_asked_about_notifications_and_who_asked_comes_back
            a_body_of_any_size_comes_back
            a_message_is_leased_to_one_node_at_a_time
            a_message_stored_with_a_lease_is_claimed_by_nobody
            a_released_message_is_due_when_it_was_said_to_be
            the_longest_due_is_claimed_first_and_no_more_than_asked_for
            a_claim_stops_before_the_bodies_exceed_its_octets
            a_handover_that_was_started_is_in_doubt_after_a_crash
            a_lease_that_started_nothing_is_claimed_again_after_a_crash
            a_handover_that_was_started_is_in_doubt_when_it_is_released
            who_was_in_a_handover_together_is_known_afterwards
            a_settlement_changes_the_recipients_it_names
            what_a_settlement_does_not_name_stands_as_before_the_handover
            a_message_whose_recipients_are_finished_is_gone
            a_notification_is_stored_with_its_settlement
            a_message_takes_the_place_of_a_note_or_the_note_stays
            each_recipient_keeps_its_own_time_until_a_person_decides
            a_settlement_without_the_lease_changes_nothing
            a_settlement_of_a_recipient_that_is_not_there_is_refused
            an_id_is_stored_once
            a_message_without_recipients_is_refused
            what_waits_for_a_person_is_not_claimed
            leases_that_lapse_go_to_another_node
            leases_that_are_renewed_stay
            the_next_due_time_is_that_of_the_earliest_waiting
            each_lane_gives_its_own_and_tells_when_it_is_due_next
            a_message_moves_to_the_lane_that_its_end_of_lease_names
            the_lanes_in_which_mail_waits_are_told_the_first_due_first
            lanes_are_known_after_a_crash_and_forgotten_when_they_are_empty
            the_octets_of_a_claim_count_over_all_lanes
            every_filter_finds_what_it_means
            a_summary_counts_every_message_once
            a_message_is_read_without_a_lease
            what_is_retried_is_due_at_once
            what_is_held_waits_until_it_is_released_and_is_no_older_then
            a_held_doubt_is_released_to_the_same_provider
            a_dead_letter_that_is_released_begins_anew
            only_what_is_still_nothing_but_a_dead_letter_is_discarded
            what_is_removed_is_gone
            a_rerouted_message_waits_in_the_lane_of_its_route
            a_recipient_is_readdressed_unless_a_provider_may_have_it
            an_action_ends_the_lease_that_is_handed_over_and_no_other
            what_was_done_is_in_the_journal_and_nothing_else
            the_journal_is_as_long_as_what_has_not_been_forgotten
            one_message_can_be_leased_though_it_is_held
            what_was_used_of_a_quota_survives_a_crash
            a_record_that_cannot_be_read_is_set_aside_and_blocks_nobody
            a_healthy_store_checks_out
            a_closed_store_gives_its_leases_back_and_refuses
        }
    };
    ($fixture:ty: $($behaviour:ident)+) => {
        $(
            #[tokio::test]
            async fn $behaviour() {
                $crate::spool::suite::$behaviour(<$fixture as $crate::spool::suite::Fixture>::fresh().await).await;
            }
        )+
    };
}
pub(crate) use every_promise;

/// `seconds` after the moment at which every test starts.
pub(crate) fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

const FAR: u64 = 1_000_000;
const PLENTY: u64 = u64::MAX;

pub(crate) fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// A message with one recipient, accepted at `at(seconds)`.
pub(crate) fn message(seconds: u64, body: &'static [u8]) -> Arc<Message> {
    message_for(seconds, &["rcpt@example.org"], Body::Inline(Bytes::from_static(body)))
}

pub(crate) fn message_for(seconds: u64, recipients: &[&str], body: Body) -> Arc<Message> {
    Arc::new(Message {
        id: MessageId::generate(),
        received: at(seconds),
        origin: Origin::default(),
        envelope: Envelope {
            reverse_path: ReversePath::Mailbox(address("app@example.com")),
            recipients: recipients.iter().map(|text| Recipient::from(address(text))).collect(),
            body_type: BodyType::SevenBit,
            smtputf8: false,
            returned: None,
            envelope_id: None,
        },
        body,
    })
}

fn three_recipients() -> Arc<Message> {
    message_for(0, &["a@example.org", "b@example.org", "c@example.org"], Body::Inline(Bytes::from_static(b"three")))
}

pub(crate) fn provider(name: &str) -> ProviderName {
    ProviderName::from(name)
}

pub(crate) fn change(index: u32, state: RecipientState, words: &str) -> Change {
    Change { recipient: RecipientIndex(index), state, words: words.into(), not_before: None }
}

pub(crate) fn settlement(id: MessageId, changes: &[(u32, RecipientState)]) -> Settlement {
    Settlement {
        id,
        lane: lane(),
        changes: changes.iter().map(|(index, state)| change(*index, state.clone(), "250 2.0.0 ok")).collect(),
        attempts: 1,
        due: at(60),
        notifications: Vec::new(),
        warned: false,
        journal: Vec::new(),
    }
}

/// The lane in which the messages of most tests wait.
pub(crate) fn lane() -> Lane {
    lane_of("example.com")
}

fn lane_of(domain: &str) -> Lane {
    Lane { priority: Priority::Normal, route: "all".into(), domain: domain.into() }
}

/// Up to `limit` of what is due by then in the lane of most tests.
pub(crate) async fn claim_most(spool: &impl Spool, now: SystemTime, limit: usize, octets: u64) -> Result<Vec<Stored>, SpoolError> {
    let claimed = spool.claim(now, &[Want { lane: lane(), limit }], octets).await?;
    Ok(claimed.into_iter().flat_map(|claimed| claimed.messages).collect())
}

pub(crate) async fn claim(spool: &impl Spool, seconds: u64) -> Vec<Stored> {
    claim_most(spool, at(seconds), 100, PLENTY).await.unwrap()
}

/// When the first message of all is due.
pub(crate) async fn next_due(spool: &impl Spool) -> Option<SystemTime> {
    spool.lanes(1).await.unwrap().first().map(|waiting| waiting.due)
}

/// Claims, and expects exactly one.
async fn claim_one(spool: &impl Spool, seconds: u64) -> Stored {
    let mut claimed = claim(spool, seconds).await;
    assert_eq!(claimed.len(), 1, "one message is due");
    claimed.remove(0)
}

fn ids(claimed: &[Stored]) -> Vec<MessageId> {
    claimed.iter().map(|stored| stored.message.id).collect()
}

fn lost(result: Result<(), SpoolError>, id: MessageId) {
    assert!(matches!(result, Err(SpoolError::LeaseLost(lost)) if lost == id), "the lease is lost, not {result:?}");
}

pub(crate) async fn a_message_is_leased_to_one_node_at_a_time(fixture: impl Fixture) {
    let (first, second) = (fixture.spool(), fixture.another_node().await);
    first.renew(at(0), at(FAR)).await.unwrap();
    second.renew(at(0), at(FAR)).await.unwrap();
    for seconds in 0..40 {
        first.store(message(seconds, b"x"), &lane(), false).await.unwrap();
    }
    let (one, two, three, four) = tokio::join!(
        claim_most(first, at(100), 10, PLENTY),
        claim_most(&second, at(100), 10, PLENTY),
        claim_most(first, at(100), 10, PLENTY),
        claim_most(&second, at(100), 15, PLENTY),
    );
    let mut all: Vec<_> = [one, two, three, four].into_iter().flat_map(|claimed| ids(&claimed.unwrap())).collect();
    assert_eq!(all.len(), 40);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 40, "no message twice");
    assert!(claim(first, 100).await.is_empty());
    let counts = first.counts().await.unwrap();
    assert_eq!(counts, SpoolCounts { messages: 40, waiting: 0, held: 0, dead: 0 });
}

pub(crate) async fn a_message_stored_with_a_lease_is_claimed_by_nobody(mut fixture: impl Fixture) {
    let leased = message(0, b"leased");
    fixture.spool().store(leased.clone(), &lane(), true).await.unwrap();
    assert!(claim(fixture.spool(), FAR).await.is_empty());
    assert_eq!(next_due(fixture.spool()).await, None);
    assert_eq!(fixture.spool().counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 0, held: 0, dead: 0 });
    fixture.spool().begin(leased.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    fixture.spool().settle(settlement(leased.id, &[(0, RecipientState::Relayed)])).await.unwrap();
    assert_eq!(fixture.spool().counts().await.unwrap(), SpoolCounts::default());
    let other = message(0, b"other");
    fixture.spool().store(other.clone(), &lane(), true).await.unwrap();
    assert_eq!(fixture.crash().await.released, 1);
    assert_eq!(claim_one(fixture.spool(), 0).await.message.id, other.id);
}

pub(crate) async fn a_released_message_is_due_when_it_was_said_to_be(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = message(0, b"x");
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    spool.begin(stored.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    spool.settle(Settlement { attempts: 3, ..settlement(stored.id, &[(0, RecipientState::Pending)]) }).await.unwrap();
    assert_eq!(claim_one(spool, 60).await.attempts, 3);
    spool.release(stored.id, &lane(), at(500)).await.unwrap();
    lost(spool.release(stored.id, &lane(), at(500)).await, stored.id);
    assert!(claim(spool, 499).await.is_empty());
    fixture.crash().await;
    assert!(claim(fixture.spool(), 499).await.is_empty());
    let again = claim_one(fixture.spool(), 500).await;
    assert_eq!((again.attempts, again.recipients), (3, vec![RecipientState::Pending]));
}

pub(crate) async fn the_longest_due_is_claimed_first_and_no_more_than_asked_for(fixture: impl Fixture) {
    let spool = fixture.spool();
    let mut stored = Vec::new();
    for seconds in [30, 10, 20, 40] {
        let message = message(seconds, b"x");
        spool.store(message.clone(), &lane(), false).await.unwrap();
        stored.push(message.id);
    }
    let first = claim_most(spool, at(35), 2, PLENTY).await.unwrap();
    assert_eq!(ids(&first), [stored[1], stored[2]]);
    assert!(claim_most(spool, at(35), 0, PLENTY).await.unwrap().is_empty());
    assert_eq!(ids(&claim(spool, 35).await), [stored[0]]);
    assert!(claim(spool, 35).await.is_empty());
    spool.release(stored[2], &lane(), at(41)).await.unwrap();
    assert_eq!(ids(&claim(spool, 41).await), [stored[3], stored[2]]);
}

pub(crate) async fn a_claim_stops_before_the_bodies_exceed_its_octets(fixture: impl Fixture) {
    let spool = fixture.spool();
    for seconds in 0..4 {
        spool.store(message(seconds, b"0123456789"), &lane(), false).await.unwrap();
    }
    assert_eq!(claim_most(spool, at(9), 100, 5).await.unwrap().len(), 1, "the first one always fits");
    assert_eq!(claim_most(spool, at(9), 100, 20).await.unwrap().len(), 2);
    assert_eq!(claim_most(spool, at(9), 100, 0).await.unwrap().len(), 1);
}

pub(crate) async fn a_handover_that_was_started_is_in_doubt_after_a_crash(mut fixture: impl Fixture) {
    let stored = three_recipients();
    fixture.spool().store(stored.clone(), &lane(), true).await.unwrap();
    fixture.spool().begin(stored.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    fixture.spool().begin(stored.id, &provider("smarthost.b"), &[RecipientIndex(2)]).await.unwrap();
    let doubt = |name, position| Doubt { id: stored.id, provider: provider(name), recipients: vec![RecipientIndex(position)] };
    let doubts = vec![doubt("ses.eu", 0), doubt("smarthost.b", 2)];
    assert_eq!(fixture.crash().await, Recovered { released: 1, in_doubt: 2, doubts, ..Recovered::default() });
    let pinned = [RecipientState::InDoubt(provider("ses.eu")), RecipientState::Pending, RecipientState::InDoubt(provider("smarthost.b"))];
    assert_eq!(claim_one(fixture.spool(), 1).await.recipients, pinned);
    // A second crash, before anybody was asked again, forgets nothing.
    assert_eq!(fixture.crash().await, Recovered { released: 1, ..Recovered::default() });
    assert_eq!(claim_one(fixture.spool(), 1).await.recipients, pinned);
}

pub(crate) async fn a_lease_that_started_nothing_is_claimed_again_after_a_crash(mut fixture: impl Fixture) {
    fixture.spool().store(message(0, b"a"), &lane(), false).await.unwrap();
    fixture.spool().store(message(1, b"b"), &lane(), true).await.unwrap();
    claim_one(fixture.spool(), 0).await;
    assert_eq!(fixture.crash().await, Recovered { released: 2, ..Recovered::default() });
    let claimed = claim(fixture.spool(), 1).await;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|stored| stored.recipients == [RecipientState::Pending]));
}

pub(crate) async fn a_handover_that_was_started_is_in_doubt_when_it_is_released(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = message(0, b"x");
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    spool.begin(stored.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    spool.release(stored.id, &lane(), at(1)).await.unwrap();
    assert_eq!(claim_one(spool, 1).await.recipients, [RecipientState::InDoubt(provider("ses.eu"))]);
}

pub(crate) async fn who_was_in_a_handover_together_is_known_afterwards(mut fixture: impl Fixture) {
    let stored = three_recipients();
    fixture.spool().store(stored.clone(), &lane(), false).await.unwrap();
    let ses = provider("ses.eu");
    let claimed = claim_one(fixture.spool(), 0).await;
    assert_eq!(claimed.handovers, [None; 3]);
    fixture.spool().begin(stored.id, &ses, &[RecipientIndex(2), RecipientIndex(0)]).await.unwrap();
    fixture.spool().begin(stored.id, &ses, &[RecipientIndex(1)]).await.unwrap();
    fixture.crash().await;
    let together = claim_one(fixture.spool(), 1).await.handovers;
    assert!(together[0].is_some() && together[0] == together[2] && together[1].is_some() && together[1] != together[0], "{together:?}");
    // Later ones are others, although the same recipient is their first.
    let doubt = RecipientState::InDoubt(ses.clone());
    let changes = [(0, RecipientState::Pending), (1, doubt.clone()), (2, doubt)];
    fixture.spool().settle(Settlement { attempts: 1, ..settlement(stored.id, &changes) }).await.unwrap();
    claim_one(fixture.spool(), 60).await;
    fixture.spool().begin(stored.id, &ses, &[RecipientIndex(0)]).await.unwrap();
    fixture.crash().await;
    let apart = claim_one(fixture.spool(), 60).await.handovers;
    assert!(apart[0] != together[0] && apart[1..] == together[1..], "{together:?} {apart:?}");
}

pub(crate) async fn a_settlement_changes_the_recipients_it_names(mut fixture: impl Fixture) {
    let stored = three_recipients();
    let states = [RecipientState::Relayed, RecipientState::InDoubt(provider("ses.eu")), RecipientState::Held(provider("smarthost.b"))];
    let changes: Vec<_> = (0..).zip(states.clone()).collect();
    fixture.spool().store(stored.clone(), &lane(), true).await.unwrap();
    fixture.spool().settle(Settlement { attempts: 4, ..settlement(stored.id, &changes) }).await.unwrap();
    assert_eq!(fixture.crash().await, Recovered::default(), "a settlement ends the lease");
    assert!(claim(fixture.spool(), 59).await.is_empty());
    let claimed = claim_one(fixture.spool(), 60).await;
    assert_eq!((claimed.recipients.as_slice(), claimed.attempts), (states.as_slice(), 4));
}

pub(crate) async fn each_recipient_keeps_its_own_time_until_a_person_decides(mut fixture: impl Fixture) {
    let stored = three_recipients();
    fixture.spool().store(stored.clone(), &lane(), true).await.unwrap();
    let mut settled = settlement(stored.id, &[(0, RecipientState::Pending), (1, RecipientState::Pending), (2, RecipientState::Relayed)]);
    settled.changes[0].not_before = Some(at(1800));
    fixture.spool().settle(settled).await.unwrap();
    fixture.crash().await;
    let claimed = claim_one(fixture.spool(), 60).await;
    assert_eq!(claimed.not_before, [Some(at(1800)), None, None]);
    assert_eq!([0, 1, 2].map(|index| claimed.is_due(RecipientIndex(index), at(60))), [false, true, false]);
    assert!(claimed.is_due(RecipientIndex(0), at(1800)));
    assert_eq!((claimed.next_due(at(60)), claimed.next_due(at(1800))), (Some(at(1800)), None));
    fixture.spool().release(stored.id, &lane(), at(1800)).await.unwrap();
    let target = Target { id: stored.id, handed_over: false, record: String::new() };
    assert_eq!(fixture.spool().act(vec![target], Action::Retry, at(70)).await.unwrap(), [Done::Done]);
    assert_eq!(claim_one(fixture.spool(), 70).await.not_before, [None; 3]);
}

pub(crate) async fn what_a_settlement_does_not_name_stands_as_before_the_handover(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    let doubt = RecipientState::InDoubt(provider("ses.eu"));
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    spool.settle(settlement(stored.id, &[(0, doubt.clone())])).await.unwrap();
    claim_one(spool, 60).await;
    spool.begin(stored.id, &provider("ses.eu"), &[RecipientIndex(0), RecipientIndex(1)]).await.unwrap();
    spool.settle(settlement(stored.id, &[(2, RecipientState::Relayed)])).await.unwrap();
    assert_eq!(fixture.crash().await.in_doubt, 0);
    let claimed = claim_one(fixture.spool(), 60).await;
    assert_eq!(claimed.recipients, [doubt, RecipientState::Pending, RecipientState::Relayed]);
}

pub(crate) async fn a_message_whose_recipients_are_finished_is_gone(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    let two = [(0, RecipientState::Relayed), (2, RecipientState::Bounced)];
    spool.settle(settlement(stored.id, &two)).await.unwrap();
    assert_eq!(spool.counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 1, held: 0, dead: 0 });
    claim_one(spool, 60).await;
    spool.settle(settlement(stored.id, &[(1, RecipientState::Expired)])).await.unwrap();
    assert_eq!(spool.counts().await.unwrap(), SpoolCounts::default());
    assert_eq!(next_due(spool).await, None);
    lost(spool.settle(settlement(stored.id, &[])).await, stored.id);
    assert_eq!(fixture.crash().await, Recovered::default());
    assert!(claim(fixture.spool(), FAR).await.is_empty());
}

pub(crate) async fn a_notification_is_stored_with_its_settlement(mut fixture: impl Fixture) {
    let stored = message(0, b"x");
    let notification = message(5, b"could not be delivered");
    fixture.spool().store(stored.clone(), &lane(), true).await.unwrap();
    let bounced = settlement(stored.id, &[(0, RecipientState::Bounced)]);
    fixture.spool().settle(Settlement { notifications: vec![(notification.clone(), lane())], ..bounced }).await.unwrap();
    assert_eq!(next_due(fixture.spool()).await, Some(at(5)));
    assert_eq!(fixture.crash().await, Recovered::default());
    let claimed = claim_one(fixture.spool(), 5).await;
    assert_eq!(claimed.message.id, notification.id);
    assert_eq!(claimed.message.body.bytes().await.unwrap(), &b"could not be delivered"[..]);
}

pub(crate) async fn a_settlement_without_the_lease_changes_nothing(fixture: impl Fixture) {
    let (first, second) = (fixture.spool(), fixture.another_node().await);
    first.renew(at(0), at(FAR)).await.unwrap();
    second.renew(at(0), at(FAR)).await.unwrap();
    let stored = message(0, b"x");
    first.store(stored.clone(), &lane(), true).await.unwrap();
    let bounced = settlement(stored.id, &[(0, RecipientState::Bounced)]);
    lost(second.settle(Settlement { notifications: vec![(message(5, b"wrong"), lane())], ..bounced }).await, stored.id);
    assert_eq!(first.counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 0, held: 0, dead: 0 });
    first.settle(settlement(stored.id, &[(0, RecipientState::Pending)])).await.unwrap();
    assert_eq!(claim_one(&second, 60).await.recipients, [RecipientState::Pending]);
}

pub(crate) async fn a_settlement_of_a_recipient_that_is_not_there_is_refused(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = message(0, b"x");
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    let stray = [(0, RecipientState::Relayed), (7, RecipientState::Relayed)];
    let refused = spool.settle(settlement(stored.id, &stray)).await.unwrap_err().to_string();
    assert!(refused.contains("recipient 7"), "{refused}");
    assert_eq!(spool.counts().await.unwrap().messages, 1);
    spool.settle(settlement(stored.id, &stray[..1])).await.unwrap();
}

pub(crate) async fn an_id_is_stored_once(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = message(0, b"first");
    spool.store(stored.clone(), &lane(), false).await.unwrap();
    let twin = Message { body: Body::Inline(Bytes::from_static(b"second")), ..Message::clone(&stored) };
    let refused = spool.store(Arc::new(twin), &lane(), true).await.unwrap_err().to_string();
    assert!(refused.contains(&stored.id.to_string()), "{refused}");
    assert_eq!(claim_one(spool, 0).await.message.body.bytes().await.unwrap(), &b"first"[..]);
}

pub(crate) async fn a_message_without_recipients_is_refused(fixture: impl Fixture) {
    let nobody = message_for(0, &[], Body::Inline(Bytes::new()));
    let refused = fixture.spool().store(nobody, &lane(), false).await.unwrap_err().to_string();
    assert!(refused.contains("no recipient"), "{refused}");
    assert_eq!(fixture.spool().counts().await.unwrap(), SpoolCounts::default());
}

pub(crate) async fn what_waits_for_a_person_is_not_claimed(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    let held = RecipientState::Held(provider("ses.eu"));
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    let changes = [(0, held.clone()), (1, RecipientState::Relayed), (2, RecipientState::Pending)];
    spool.settle(settlement(stored.id, &changes)).await.unwrap();
    assert_eq!(spool.counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 1, held: 0, dead: 0 });
    assert_eq!(claim_one(spool, 60).await.recipients[0], held);
    // A handover is recorded for the open recipient alone, whoever else is named.
    spool.begin(stored.id, &provider("smarthost.b"), &[RecipientIndex(0), RecipientIndex(2)]).await.unwrap();
    spool.settle(settlement(stored.id, &[(2, RecipientState::Relayed)])).await.unwrap();
    assert_eq!(next_due(spool).await, None);
    assert_eq!(fixture.crash().await, Recovered::default());
    assert!(claim(fixture.spool(), FAR).await.is_empty());
    assert_eq!(fixture.spool().counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 0, held: 1, dead: 0 });
}

pub(crate) async fn leases_that_lapse_go_to_another_node(fixture: impl Fixture) {
    let (first, second) = (fixture.spool(), fixture.another_node().await);
    first.renew(at(0), at(30)).await.unwrap();
    second.renew(at(0), at(30)).await.unwrap();
    let (begun, untouched) = (message(0, b"begun"), message(1, b"untouched"));
    first.store(begun.clone(), &lane(), true).await.unwrap();
    first.store(untouched.clone(), &lane(), true).await.unwrap();
    first.begin(begun.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    assert_eq!(second.renew(at(30), at(60)).await.unwrap(), Recovered::default(), "until is inclusive");
    let doubts = vec![Doubt { id: begun.id, provider: provider("ses.eu"), recipients: vec![RecipientIndex(0)] }];
    assert_eq!(second.renew(at(31), at(60)).await.unwrap(), Recovered { released: 2, in_doubt: 1, doubts, ..Recovered::default() });
    let claimed = claim(&second, 31).await;
    assert_eq!(ids(&claimed), [begun.id, untouched.id]);
    assert_eq!(claimed[0].recipients, [RecipientState::InDoubt(provider("ses.eu"))]);
    lost(first.begin(untouched.id, &provider("ses.eu"), &[RecipientIndex(0)]).await, untouched.id);
    lost(first.settle(settlement(begun.id, &[(0, RecipientState::Relayed)])).await, begun.id);
    lost(first.release(untouched.id, &lane(), at(0)).await, untouched.id);
    // The first node comes back, and takes part again.
    assert_eq!(first.renew(at(40), at(70)).await.unwrap(), Recovered::default());
    second.release(untouched.id, &lane(), at(40)).await.unwrap();
    assert_eq!(ids(&claim(first, 40).await), [untouched.id]);
    second.settle(settlement(begun.id, &[(0, RecipientState::Relayed)])).await.unwrap();
}

pub(crate) async fn leases_that_are_renewed_stay(fixture: impl Fixture) {
    let (first, second) = (fixture.spool(), fixture.another_node().await);
    let stored = message(0, b"x");
    first.renew(at(0), at(30)).await.unwrap();
    first.store(stored.clone(), &lane(), true).await.unwrap();
    first.renew(at(20), at(50)).await.unwrap();
    assert_eq!(second.renew(at(40), at(70)).await.unwrap(), Recovered::default());
    // A node that is late, and was not missed by anybody, keeps what it has.
    assert_eq!(first.renew(at(60), at(90)).await.unwrap(), Recovered::default());
    first.settle(settlement(stored.id, &[(0, RecipientState::Relayed)])).await.unwrap();
}

pub(crate) async fn the_next_due_time_is_that_of_the_earliest_waiting(fixture: impl Fixture) {
    let spool = fixture.spool();
    assert_eq!(next_due(spool).await, None);
    spool.store(message(20, b"x"), &lane(), false).await.unwrap();
    spool.store(message(10, b"x"), &lane(), false).await.unwrap();
    spool.store(message(5, b"leased"), &lane(), true).await.unwrap();
    assert_eq!(next_due(spool).await, Some(at(10)));
    let claimed = claim_one(spool, 10).await;
    assert_eq!(next_due(spool).await, Some(at(20)));
    let late = at(30) + Duration::from_nanos(1);
    spool.release(claimed.message.id, &lane(), late).await.unwrap();
    claim_one(spool, 20).await;
    // Whatever precision is kept: never early, and due when the time that is told comes.
    let next = next_due(spool).await.unwrap();
    assert!(next >= late && next <= late + Duration::from_millis(1));
    assert!(claim(spool, 30).await.is_empty());
    assert_eq!(claim_most(spool, next, 1, PLENTY).await.unwrap().len(), 1);
}

pub(crate) async fn a_record_that_cannot_be_read_is_set_aside_and_blocks_nobody(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let (bad, good) = (message(0, b"bad"), message(1, b"good"));
    spool.store(bad.clone(), &lane(), false).await.unwrap();
    spool.store(good.clone(), &lane(), false).await.unwrap();
    fixture.spoil(bad.id).await;
    assert_eq!(claim_one(spool, 1).await.message.id, good.id);
    let told = spool.renew(at(2), at(3)).await.unwrap();
    assert_eq!(told.set_aside.len(), 1);
    assert!(told.set_aside[0].contains(&bad.id.to_string()), "{told:?}");
    assert_eq!(spool.renew(at(2), at(3)).await.unwrap().set_aside, Vec::<String>::new(), "it is told once");
    assert_eq!(spool.counts().await.unwrap(), SpoolCounts { messages: 1, waiting: 0, held: 0, dead: 0 });
    assert_eq!(fixture.crash().await, Recovered { released: 1, ..Recovered::default() });
    assert_eq!(claim_one(fixture.spool(), 1).await.message.id, good.id);
}

pub(crate) async fn a_healthy_store_checks_out(fixture: impl Fixture) {
    fixture.spool().check().await.unwrap();
    assert_eq!(fixture.spool().counts().await.unwrap(), SpoolCounts::default());
}

pub(crate) async fn a_closed_store_gives_its_leases_back_and_refuses(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let (begun, untouched) = (message(0, b"begun"), message(1, b"untouched"));
    spool.store(begun.clone(), &lane(), true).await.unwrap();
    spool.store(untouched.clone(), &lane(), true).await.unwrap();
    spool.begin(begun.id, &provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    spool.close(Duration::from_secs(60)).await.unwrap();
    assert!(matches!(spool.store(message(2, b"late"), &lane(), false).await, Err(SpoolError::Closed)));
    assert!(matches!(claim_most(spool, at(9), 1, PLENTY).await, Err(SpoolError::Closed)));
    assert!(matches!(spool.counts().await, Err(SpoolError::Closed)));
    assert!(matches!(spool.check().await, Err(SpoolError::Closed)));
    assert!(matches!(spool.close(Duration::ZERO).await, Err(SpoolError::Closed)));
    assert_eq!(fixture.crash().await, Recovered::default(), "nothing was left leased");
    let claimed = claim(fixture.spool(), 1).await;
    assert_eq!(ids(&claimed), [begun.id, untouched.id]);
    assert_eq!(claimed[0].recipients, [RecipientState::InDoubt(provider("ses.eu"))]);
    assert_eq!(claimed[1].recipients, [RecipientState::Pending]);
}
