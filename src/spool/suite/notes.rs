//! What is kept beside the messages: notes, the journal, the use of quotas.

use std::time::Duration;

use bytes::Bytes;
use postrider_providers::contract::Body;

use super::{Fixture, claim_one, lane, message, message_for};
use crate::spool::{QuotaUse, Spool};

/// What is on record of `ses.eu`, by slot.
async fn used(spool: &impl Spool) -> Vec<QuotaUse> {
    let mut uses = spool.quota_use("ses.eu").await.unwrap();
    uses.sort_by_key(|of| of.slot);
    uses
}

pub(crate) async fn a_message_takes_the_place_of_a_note_or_the_note_stays(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let gathered = ("digest/a".to_owned(), "1".to_owned());
    spool.remember("digest/a", Some("1".to_owned())).await.unwrap();
    spool.remember("digest/b", Some("2".to_owned())).await.unwrap();
    let nobody = message_for(0, &[], Body::Inline(Bytes::from_static(b"x")));
    spool.store_instead("digest/a", nobody, &lane(), false, Some("1".to_owned())).await.unwrap_err();
    assert_eq!(spool.recall("digest/a").await.unwrap(), [gathered]);
    assert!(spool.journal(0, 10).await.unwrap().is_empty());

    let digest = message(0, b"x");
    spool.store_instead("digest/a", digest.clone(), &lane(), true, Some("1".to_owned())).await.unwrap();
    fixture.crash().await;
    let spool = fixture.spool();
    assert_eq!(spool.recall("digest/").await.unwrap(), [("digest/b".to_owned(), "2".to_owned())]);
    assert_eq!(spool.journal(0, 10).await.unwrap().len(), 1);
    assert_eq!(claim_one(spool, 0).await.message.id, digest.id);
}

pub(crate) async fn the_journal_is_as_long_as_what_has_not_been_forgotten(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    assert_eq!(spool.journal_length().await.unwrap(), 0);
    for number in 0..5 {
        spool.note(number.to_string()).await.unwrap();
    }
    assert_eq!(spool.journal_length().await.unwrap(), 5);
    let (third, _) = spool.journal(0, 10).await.unwrap().remove(2);
    spool.forget_journal(third).await.unwrap();
    assert_eq!(spool.journal_length().await.unwrap(), 2, "at once, although it rides along with the next commit");
    spool.note("5".to_owned()).await.unwrap();
    assert_eq!(spool.journal_length().await.unwrap(), 3);
    let (last, _) = spool.journal(0, 10).await.unwrap().pop().unwrap();
    spool.forget_journal(last).await.unwrap();
    assert_eq!(spool.journal_length().await.unwrap(), 0);
    fixture.crash().await;
    // What was to be forgotten may be there again; more is not.
    assert!(fixture.spool().journal_length().await.unwrap() <= 3);
}

pub(crate) async fn what_was_used_of_a_quota_survives_a_crash(mut fixture: impl Fixture) {
    let spool = fixture.spool();
    let of = |share: &str, slot, used| QuotaUse { share: share.into(), slot, used };
    assert_eq!(spool.quota_use("ses.eu").await.unwrap(), []);
    spool.use_quota("ses.eu", of("", 100, 3), 90);
    spool.use_quota("ses.us", of("", 7, 1), 0);
    spool.use_quota("ses.eu", of("", 100, 5), 90);
    spool.use_quota("ses.eu", of("alerts", 101, 2), 90);
    assert_eq!(used(fixture.spool()).await, [of("", 100, 5), of("alerts", 101, 2)]);
    // It rides along with a commit; nothing says that it survives without one.
    fixture.spool().store(message(0, b"x"), &lane(), false).await.unwrap();
    fixture.crash().await;
    assert_eq!(used(fixture.spool()).await, [of("", 100, 5), of("alerts", 101, 2)]);
    assert_eq!(fixture.spool().quota_use("ses.us").await.unwrap(), [of("", 7, 1)]);
    fixture.spool().use_quota("ses.eu", of("", 220, 1), 101);
    fixture.spool().close(Duration::from_secs(60)).await.unwrap();
    fixture.crash().await;
    assert_eq!(
        used(fixture.spool()).await,
        [of("alerts", 101, 2), of("", 220, 1)],
        "closing is a commit, too, and what is over is forgotten"
    );
}
