//! What people see of the store, and what they do to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_providers::contract::{Body, Message, MessageId, Origin, Priority, RecipientIndex};

use super::{
    FAR, Fixture, address, at, claim, claim_one, ids, lane, lane_of, message, message_for, provider, settlement, three_recipients,
};
use crate::spool::action::{Action, Done, Target};
use crate::spool::filter::Filter;
use crate::spool::view::{Lane, Listed, QueueState};
use crate::spool::{RecipientState, Settlement, Spool};

fn target(id: MessageId) -> Target {
    Target { id, record: format!("{{\"id\":\"{id}\"}}"), handed_over: false }
}

/// Acts on one message at that second.
async fn act(spool: &impl Spool, id: MessageId, action: Action, seconds: u64) -> Done {
    spool.act(vec![target(id)], action, at(seconds)).await.unwrap().remove(0)
}

async fn done(spool: &impl Spool, id: MessageId, action: Action, seconds: u64) {
    assert_eq!(act(spool, id, action, seconds).await, Done::Done);
}

async fn refused(spool: &impl Spool, id: MessageId, action: Action) -> String {
    match act(spool, id, action, 50).await {
        Done::Refused(why) => why,
        other => panic!("{other:?}"),
    }
}

async fn listed(spool: &impl Spool, id: MessageId) -> Listed {
    spool.read(id).await.unwrap().unwrap().1
}

/// Stores it, asks a provider, and settles.
async fn attempted(spool: &impl Spool, stored: &Arc<Message>, states: &[RecipientState]) {
    spool.store(stored.clone(), &lane(), true).await.unwrap();
    let all: Vec<_> = (0..).take(states.len()).map(RecipientIndex).collect();
    spool.begin(stored.id, &provider("ses.eu"), &all).await.unwrap();
    let changes: Vec<_> = (0..).zip(states.iter().cloned()).collect();
    spool.settle(Settlement { due: at(600), ..settlement(stored.id, &changes) }).await.unwrap();
}

/// A store with one message in each state, in the order of [`QueueState::ALL`].
async fn one_of_each(spool: &impl Spool) -> Vec<Arc<Message>> {
    let ses = || provider("ses.eu");
    let mut all = Vec::new();
    for states in [
        vec![RecipientState::Dead, RecipientState::Pending],
        vec![RecipientState::Held(ses()), RecipientState::Relayed],
        vec![],
        vec![RecipientState::InDoubt(ses()), RecipientState::Pending],
        vec![RecipientState::Pending, RecipientState::Bounced],
    ] {
        let stored = message_for(all.len() as u64, &["a@example.org", "b@x.example"], Body::Inline(Bytes::from_static(b"body")));
        if states.is_empty() {
            spool.store(stored.clone(), &lane(), true).await.unwrap();
        } else {
            attempted(spool, &stored, &states).await;
        }
        all.push(stored);
    }
    let mut fresh = (*message_for(9, &["c@example.org"], Body::Inline(Bytes::from_static(b"fresh")))).clone();
    fresh.origin = Origin {
        application: Some("erp".into()),
        client: "10.1.2.3".parse().ok(),
        message_id: Some("m1@erp.example".into()),
        priority: Some(Priority::Bulk),
    };
    let bulk = Lane { priority: Priority::Bulk, route: "news".into(), ..lane_of("example.com") };
    let fresh = Arc::new(fresh);
    spool.store(fresh.clone(), &bulk, false).await.unwrap();
    all.push(fresh);
    all
}

pub(crate) async fn every_filter_finds_what_it_means(fixture: impl Fixture) {
    let spool = fixture.spool();
    let all = one_of_each(spool).await;
    let everything = spool.list(&Filter::default(), at(100), None, 100).await.unwrap();
    assert_eq!(everything.iter().map(|listed| listed.id).collect::<Vec<_>>(), all.iter().map(|one| one.id).collect::<Vec<_>>());
    assert_eq!(everything.iter().map(|listed| listed.state).collect::<Vec<_>>(), QueueState::ALL);
    let two = format!("id={},{}", all[4].id, all[0].id);
    for (text, expected) in [
        ("", &[0, 1, 2, 3, 4, 5][..]),
        ("state=dead", &[0]),
        ("state=held", &[1]),
        ("state=active", &[2]),
        ("state=in_doubt", &[3]),
        ("state=deferred", &[4]),
        ("state=queued", &[5]),
        ("state=deferred,queued,active", &[2, 4, 5]),
        ("state=held,dead to=a@*", &[0, 1]),
        ("state=queued state=dead", &[]),
        ("state=deferred,queued to=C@EXAMPLE.ORG", &[5]),
        ("to=*@x.example", &[0, 1, 2, 3, 4]),
        ("to=%@x.example", &[]),
        ("to=a@example.org to=b@x.example", &[]),
        ("from=app@example.com", &[0, 1, 2, 3, 4, 5]),
        ("from=<>", &[]),
        ("domain=example.com older=95s", &[0, 1, 2, 3, 4, 5]),
        ("older=96s", &[0, 1, 2, 3, 4]),
        ("younger=96s", &[5]),
        ("provider=ses.*", &[0, 1, 3, 4]),
        ("provider=ses.eu to=b@x.example state=held", &[1]),
        ("route=news", &[5]),
        ("route=all", &[0, 1, 2, 3, 4]),
        ("app=erp", &[5]),
        ("client=10.1.*", &[5]),
        ("message_id=<m1@erp.example>", &[5]),
        ("priority=bulk", &[5]),
        ("priority=normal,high state=queued", &[]),
        ("attempts>=1", &[0, 1, 3, 4]),
        ("attempts<1", &[2, 5]),
        ("reason=*2.0.0*", &[0, 1, 3, 4]),
        (&two, &[0, 4]),
    ] {
        let filter: Filter = text.parse().unwrap();
        let now = if text.contains("95s") { at(104) } else { at(100) };
        let expected: Vec<_> = expected.iter().map(|position| all[*position].id).collect();
        let found = spool.list(&filter, now, None, 100).await.unwrap();
        assert_eq!(found.iter().map(|listed| listed.id).collect::<Vec<_>>(), expected, "{text}");
        assert_eq!(spool.ids(&filter, now, None, 100).await.unwrap(), expected, "{text}");
        assert_eq!(spool.count(&filter, now).await.unwrap(), expected.len() as u64, "{text}");
        // Both say the same about what is meant.
        let meant: Vec<_> = everything.iter().filter(|listed| filter.matches(listed, now)).map(|listed| listed.id).collect();
        assert_eq!(meant, expected, "{text}");
        // Piece by piece it is the same.
        let (mut pieces, mut after) = (Vec::new(), None);
        while let Some(last) = spool.ids(&filter, now, after, 2).await.unwrap().last() {
            pieces.extend(spool.ids(&filter, now, after, 2).await.unwrap());
            after = Some(*last);
        }
        assert_eq!(pieces, expected, "{text}");
    }
}

pub(crate) async fn a_summary_counts_every_message_once(mut fixture: impl Fixture) {
    one_of_each(fixture.spool()).await;
    for active in [1, 0] {
        let summary = fixture.spool().summary().await.unwrap();
        let counts = QueueState::ALL.map(|state| summary.count(state));
        assert_eq!(counts, [1, 1, active, 1, 1, 2 - active]);
        let news = summary.lanes.iter().find(|part| &*part.lane.route == "news").unwrap();
        assert_eq!((news.messages, news.octets, news.oldest, news.next_due), (1, 5, at(9), Some(at(9))));
        assert!(summary.lanes.is_sorted_by_key(|part| (part.lane.clone(), part.state)));
        assert_eq!(summary.oldest_age(at(102)), Some(Duration::from_secs(100)), "neither dead nor held");
        fixture.crash().await;
    }
}

pub(crate) async fn a_message_is_read_without_a_lease(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    attempted(spool, &stored, &[RecipientState::Pending, RecipientState::Relayed, RecipientState::Held(provider("smarthost.b"))]).await;
    let (read, listed) = spool.read(stored.id).await.unwrap().unwrap();
    assert_eq!(read.message.body.bytes().await.unwrap(), "three");
    assert_eq!((listed.state, listed.attempts, listed.due, listed.size), (QueueState::Held, 1, Some(at(600)), 5));
    assert_eq!(listed.recipients.iter().map(|recipient| recipient.state.clone()).collect::<Vec<_>>(), read.recipients);
    assert!(listed.recipients.iter().all(|recipient| recipient.last_provider == Some(provider("ses.eu"))));
    assert_eq!(listed.recipients[0].diagnostic.as_deref(), Some("250 2.0.0 ok"));
    assert_eq!(ids(&claim(spool, 600).await), [stored.id]);
    assert_eq!(spool.read(stored.id).await.unwrap().unwrap().1.due, None, "it is leased");
    assert!(spool.read(MessageId::generate()).await.unwrap().is_none());
}

pub(crate) async fn what_is_retried_is_due_at_once(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = message(0, b"x");
    attempted(spool, &stored, &[RecipientState::Pending]).await;
    assert!(claim(spool, 100).await.is_empty());
    done(spool, stored.id, Action::Retry, 100).await;
    assert_eq!(claim_one(spool, 100).await.attempts, 1);
    assert_eq!(act(spool, stored.id, Action::Retry, 100).await, Done::Busy, "it is leased");
    assert_eq!(act(spool, MessageId::generate(), Action::Retry, 100).await, Done::Gone);
}

pub(crate) async fn what_is_held_waits_until_it_is_released_and_is_no_older_then(mut fixture: impl Fixture) {
    let stored = message(0, b"x");
    attempted(fixture.spool(), &stored, &[RecipientState::Pending]).await;
    done(fixture.spool(), stored.id, Action::Hold, 100).await;
    fixture.crash().await;
    let spool = fixture.spool();
    assert!(claim(spool, FAR).await.is_empty());
    let held = listed(spool, stored.id).await;
    assert_eq!((held.state, held.due, held.held_at), (QueueState::Held, None, Some(at(100))));
    assert!(refused(spool, stored.id, Action::Retry).await.contains("release"));
    assert!(refused(spool, stored.id, Action::Hold).await.contains("already"));
    done(spool, stored.id, Action::Release, 350).await;
    assert!(refused(spool, stored.id, Action::Release).await.contains("nothing holds it"));
    let claimed = claim_one(spool, 350).await;
    assert_eq!((claimed.handling.idle, claimed.attempts), (Duration::from_secs(250), 1));
}

pub(crate) async fn a_held_doubt_is_released_to_the_same_provider(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    let ses = || provider("ses.eu");
    attempted(spool, &stored, &[RecipientState::Held(ses()), RecipientState::Held(ses()), RecipientState::Relayed]).await;
    let before = spool.read(stored.id).await.unwrap().unwrap().0.handovers;
    assert!(refused(spool, stored.id, Action::Retry).await.contains("waits for a person"));
    done(spool, stored.id, Action::Release, 700).await;
    let claimed = claim_one(spool, 700).await;
    let doubt = || RecipientState::InDoubt(ses());
    assert_eq!(claimed.recipients, [doubt(), doubt(), RecipientState::Relayed]);
    assert_eq!((&claimed.handovers, claimed.attempts), (&before, 1));
    assert!(claimed.handovers[0].is_some() && claimed.handovers[0] == claimed.handovers[1]);
}

pub(crate) async fn a_dead_letter_that_is_released_begins_anew(fixture: impl Fixture) {
    let spool = fixture.spool();
    let (alone, among) = (message(0, b"x"), three_recipients());
    attempted(spool, &alone, &[RecipientState::Dead]).await;
    attempted(spool, &among, &[RecipientState::Dead, RecipientState::InDoubt(provider("ses.eu")), RecipientState::Relayed]).await;
    assert_eq!(claim_one(spool, 600).await.message.id, among.id, "the other waits for a person");
    spool.release(among.id, &lane(), at(600)).await.unwrap();
    for id in [alone.id, among.id] {
        done(spool, id, Action::Release, 1000).await;
    }
    let claimed = claim(spool, 1000).await;
    let of = |id| claimed.iter().find(|stored| stored.message.id == id).unwrap();
    assert_eq!((of(alone.id).attempts, of(alone.id).handling.idle), (0, Duration::from_secs(1000)));
    assert_eq!(of(alone.id).recipients, [RecipientState::Pending]);
    assert_eq!(of(among.id).attempts, 1, "the numbers of handovers must not come again");
}

pub(crate) async fn only_what_is_still_nothing_but_a_dead_letter_is_discarded(fixture: impl Fixture) {
    let spool = fixture.spool();
    let held = || RecipientState::Held("smarthost.a".into());
    let mixed = message_for(0, &["a@example.org", "b@x.example"], Body::Inline(Bytes::from_static(b"x")));
    let (dead, released, waiting, kept) = (message(0, b"x"), message(0, b"x"), message(0, b"x"), message(0, b"x"));
    for stored in [&dead, &released, &kept] {
        attempted(spool, stored, &[RecipientState::Dead]).await;
    }
    attempted(spool, &mixed, &[RecipientState::Dead, held()]).await;
    attempted(spool, &waiting, &[RecipientState::Pending]).await;
    // Released by a person after it was found.
    done(spool, released.id, Action::Release, 5).await;
    for other in [&released, &mixed, &waiting] {
        refused(spool, other.id, Action::Discard).await;
        assert!(spool.read(other.id).await.unwrap().is_some());
    }
    done(spool, dead.id, Action::Discard, 5).await;
    assert!(spool.read(dead.id).await.unwrap().is_none());
    assert!(spool.read(kept.id).await.unwrap().is_some());
}

pub(crate) async fn what_is_removed_is_gone(fixture: impl Fixture) {
    let spool = fixture.spool();
    let (stored, held) = (message(0, b"x"), message(0, b"y"));
    attempted(spool, &stored, &[RecipientState::Pending]).await;
    attempted(spool, &held, &[RecipientState::Dead]).await;
    let targets = [stored.id, MessageId::generate(), held.id].map(target).to_vec();
    assert_eq!(spool.act(targets, Action::Remove, at(1)).await.unwrap(), [Done::Done, Done::Gone, Done::Done]);
    assert_eq!(spool.counts().await.unwrap().messages, 0);
    assert_eq!(spool.read(stored.id).await.unwrap().map(|_| ()), None);
    assert!(claim(spool, FAR).await.is_empty());
}

pub(crate) async fn a_rerouted_message_waits_in_the_lane_of_its_route(mut fixture: impl Fixture) {
    let stored = message(0, b"x");
    attempted(fixture.spool(), &stored, &[RecipientState::Pending]).await;
    done(fixture.spool(), stored.id, Action::Reroute("other".into()), 100).await;
    fixture.crash().await;
    let spool = fixture.spool();
    assert!(claim(spool, FAR).await.is_empty());
    let waiting = spool.lanes(10).await.unwrap();
    assert_eq!((waiting.len(), &*waiting[0].lane.route, waiting[0].due), (1, "other", at(100)));
    assert_eq!(spool.count(&"route=other".parse().unwrap(), at(100)).await.unwrap(), 1);
    assert_eq!(spool.read(stored.id).await.unwrap().unwrap().0.handling.rerouted.as_deref(), Some("other"));
}

pub(crate) async fn a_recipient_is_readdressed_unless_a_provider_may_have_it(fixture: impl Fixture) {
    let spool = fixture.spool();
    let stored = three_recipients();
    attempted(spool, &stored, &[RecipientState::Pending, RecipientState::InDoubt(provider("ses.eu")), RecipientState::Relayed]).await;
    let to = |from: &str, to: &str| Action::Readdress { from: address(from), to: address(to) };
    for (from, new, why) in [
        ("b@example.org", "new@example.org", "may have it"),
        ("c@example.org", "new@example.org", "is no recipient"),
        ("x@example.org", "new@example.org", "is no recipient"),
        ("a@example.org", "C@example.org", "already"),
        ("a@example.org", "ü@example.org", "SMTPUTF8"),
    ] {
        let words = refused(spool, stored.id, to(from, new)).await;
        assert!(words.contains(why), "{from}: {words}");
    }
    done(spool, stored.id, to("A@example.org", "new@example.net"), 100).await;
    let claimed = claim_one(spool, 100).await;
    let recipients = &claimed.message.envelope.recipients;
    assert_eq!(
        recipients.iter().map(|one| one.address.as_str()).collect::<Vec<_>>(),
        ["new@example.net", "b@example.org", "c@example.org"]
    );
    assert_eq!(&*recipients[0].original.as_ref().unwrap().address, "A@example.org");
    assert_eq!((&recipients[1].original, claimed.handovers[0]), (&None, None));
}

pub(crate) async fn an_action_ends_the_lease_that_is_handed_over_and_no_other(fixture: impl Fixture) {
    let (spool, other) = (fixture.spool(), fixture.another_node().await);
    let (mine, theirs) = (message(0, b"mine"), message(0, b"theirs"));
    spool.store(mine.clone(), &lane(), true).await.unwrap();
    other.store(theirs.clone(), &lane(), true).await.unwrap();
    let targets = || [mine.id, theirs.id].map(|id| Target { handed_over: true, ..target(id) }).to_vec();
    assert!(matches!(&spool.act(targets(), Action::Release, at(5)).await.unwrap()[..], [Done::Refused(_), Done::Busy]));
    assert!(claim(spool, FAR).await.is_empty(), "what was refused is leased as before");
    assert_eq!(spool.act(targets(), Action::Retry, at(5)).await.unwrap(), [Done::Done, Done::Busy]);
    assert_eq!(claim_one(spool, 5).await.message.id, mine.id);
}

pub(crate) async fn what_was_done_is_in_the_journal_and_nothing_else(mut fixture: impl Fixture) {
    let stored = message(0, b"x");
    attempted(fixture.spool(), &stored, &[RecipientState::Pending]).await;
    done(fixture.spool(), stored.id, Action::Hold, 1).await;
    refused(fixture.spool(), stored.id, Action::Hold).await;
    act(fixture.spool(), MessageId::generate(), Action::Remove, 1).await;
    fixture.crash().await;
    let journal = fixture.spool().journal(0, 10).await.unwrap();
    assert_eq!(journal.into_iter().map(|(_, record)| record).collect::<Vec<_>>(), [target(stored.id).record]);
}

pub(crate) async fn one_message_can_be_leased_though_it_is_held(mut fixture: impl Fixture) {
    let stored = message(0, b"x");
    attempted(fixture.spool(), &stored, &[RecipientState::Pending]).await;
    done(fixture.spool(), stored.id, Action::Hold, 1).await;
    let taken = fixture.spool().take(stored.id).await.unwrap().unwrap();
    assert_eq!(taken.message.id, stored.id);
    assert_eq!(fixture.spool().take(stored.id).await.unwrap().unwrap_err(), Done::Busy);
    assert_eq!(fixture.spool().take(MessageId::generate()).await.unwrap().unwrap_err(), Done::Gone);
    fixture.crash().await;
    assert!(claim(fixture.spool(), FAR).await.is_empty(), "it is held as before");
    fixture.spool().take(stored.id).await.unwrap().unwrap();
    fixture.spool().settle(settlement(stored.id, &[(0, RecipientState::Bounced)])).await.unwrap();
    assert_eq!(fixture.spool().counts().await.unwrap().messages, 0);
}
