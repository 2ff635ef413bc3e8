//! Who is told, and what nobody can be told.

use std::time::Duration;

use postrider_providers::contract::{Body, Notify, Origin, ProviderName, Receipt, Returned, ReversePath};

use super::*;
use crate::config::{Bounce, Notified};
use crate::spool::SpoolError;
use crate::spool::memory::MemorySpool;
use crate::spool::suite::{at, message_for};

/// Three recipients who asked `notify`, and RET=FULL.
fn stored(notify: Option<&str>) -> Stored {
    let body = Body::Inline("Subject: x\r\n\r\nall of it\r\n".into());
    let mut message = Arc::unwrap_or_clone(message_for(0, &["a@example.org", "b@example.org", "c@example.org"], body));
    message.envelope.returned = Some(Returned::Full);
    for recipient in &mut message.envelope.recipients {
        recipient.notify = notify.map(|text| Notify::parse(text).unwrap());
    }
    Stored::fresh(Arc::new(message))
}

fn relayed(dsn: bool) -> Disposition {
    Disposition::Relayed(ProviderName::from("smarthost.x"), Receipt { reply: "250 Ok".into(), dsn, ..Receipt::default() })
}

fn bounced() -> Disposition {
    Disposition::Bounced(Diagnostic::reply("RCPT", 550, "5.1.1 no"))
}

/// What these dispositions come to at `now`.
async fn conclusion(
    spool: &MemorySpool,
    settings: &Settings,
    now: SystemTime,
    stored: &Stored,
    dispositions: [Disposition; 3],
) -> (Settlement, Vec<history::Event>) {
    let dispositions: Vec<_> = (0..).map(RecipientIndex).zip(dispositions).collect();
    let desk = Desk { spool, settings, digests: &Digests::default(), now };
    conclude(&desk, stored, &BTreeMap::new(), dispositions, true).await
}

/// The settlement, and the text of its notification.
async fn concluded(spool: &MemorySpool, stored: &Stored, dispositions: [Disposition; 3]) -> (Settlement, String) {
    let (settlement, _) = conclusion(spool, &Settings::default(), at(1), stored, dispositions).await;
    let text = match settlement.notifications.first() {
        Some((notification, _)) => String::from_utf8(notification.body.bytes().await.unwrap().to_vec()).unwrap(),
        None => String::new(),
    };
    (settlement, text)
}

fn actions(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("Action: ")).collect()
}

#[tokio::test]
async fn one_settlement_makes_one_notification_about_those_whose_fate_was_asked_for() {
    let spool = MemorySpool::new();
    for (notify, expected) in [
        (None, vec!["failed"]),
        (Some("NEVER"), vec![]),
        (Some("SUCCESS"), vec!["relayed"]),
        (Some("FAILURE"), vec!["failed"]),
        (Some("DELAY"), vec![]),
        (Some("SUCCESS,FAILURE"), vec!["relayed", "failed"]),
    ] {
        let (settlement, text) = concluded(&spool, &stored(notify), [relayed(false), relayed(true), bounced()]).await;
        assert_eq!(actions(&text), expected, "{notify:?}");
        assert_eq!(!settlement.notifications.is_empty(), !expected.is_empty());
        let states: Vec<_> = settlement.changes.iter().map(|change| change.state.clone()).collect();
        assert_eq!(states, [RecipientState::Relayed, RecipientState::Relayed, RecipientState::Bounced], "whoever is told");
    }
}

#[tokio::test]
async fn mail_that_waits_longer_is_not_reported_before_its_end() {
    let spool = MemorySpool::new();
    let busy = || Disposition::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy"));
    let (settlement, _) = concluded(&spool, &stored(Some("SUCCESS,FAILURE,DELAY")), [busy(), busy(), busy()]).await;
    assert!(settlement.notifications.is_empty());
    assert!(settlement.changes.iter().all(|change| change.state == RecipientState::Pending));
}

#[tokio::test]
async fn a_notification_that_finds_no_room_for_the_message_returns_its_header() {
    let spool = MemorySpool::new();
    let (_, text) = concluded(&spool, &stored(None), [bounced(), bounced(), bounced()]).await;
    assert!(text.contains("all of it") && text.contains("message/rfc822\r\n"), "{text}");
    spool.set_fault(Some(SpoolError::Full("as asked".into())));
    let (_, text) = concluded(&spool, &stored(None), [bounced(), bounced(), bounced()]).await;
    assert!(!text.contains("all of it") && text.contains("because there was no room for more"), "{text}");
    assert_eq!(actions(&text).len(), 3);
}

/// Everybody is told: the sender, the owner of the application "erp", the operator.
fn everybody() -> Settings {
    let bounce = Bounce {
        notify: vec![Notified::Sender, Notified::Owner, Notified::Operator],
        operator: Some("ops@corp.example".parse().unwrap()),
        sender: Some("notifications@corp.example".parse().unwrap()),
        ..Bounce::default()
    };
    let owners = [("erp".into(), "owner@corp.example".parse().unwrap())].into();
    Settings { bounce, owners, hostname: "relay.example".into(), ..Settings::default() }
}

/// A message of the application "erp" from `sender`, whose three recipients asked `notify`.
fn of_erp(sender: &str, notify: Option<&str>) -> Stored {
    let mut message = Arc::unwrap_or_clone(stored(notify).message);
    message.origin = Origin { application: Some("erp".into()), client: Some([10, 0, 0, 1].into()), ..Origin::default() };
    message.envelope.reverse_path = if sender.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(sender.parse().unwrap()) };
    Stored::fresh(Arc::new(message))
}

/// Who is told when all three bounce, and whether they are dead letters.
async fn told(settings: &Settings, stored: &Stored) -> (Vec<String>, bool) {
    let spool = MemorySpool::new();
    let (settlement, events) = conclusion(&spool, settings, at(1), stored, [bounced(), bounced(), bounced()]).await;
    let told = events.into_iter().map(|event| match event {
        history::Event::Notified { who, to, .. } => format!("{who} {to}"),
        other => panic!("{other:?}"),
    });
    let told: Vec<String> = told.collect();
    let sent = settlement.notifications.iter().map(|(notification, _)| notification.envelope.recipients[0].address.to_string());
    assert_eq!(sent.collect::<Vec<_>>(), told.iter().map(|told| told.split_once(' ').unwrap().1).collect::<Vec<_>>());
    assert!(settlement.notifications.iter().all(|(notification, _)| bounce_guard(notification)), "all are known as notifications");
    let dead = settlement.changes.iter().filter(|change| change.state == RecipientState::Dead).count();
    assert!([0, 3].contains(&dead), "{:?}", settlement.changes);
    (told, dead == 3)
}

fn bounce_guard(notification: &Message) -> bool {
    crate::bounce::guard::is_own(notification)
}

const SENDER: &str = "sender a@corp.example";
const OWNER: &str = "owner owner@corp.example";
const OPERATOR: &str = "operator ops@corp.example";

#[tokio::test]
async fn sender_owner_and_operator_are_told_each_at_an_address_of_its_own_and_none_twice() {
    let settings = everybody();
    let only = |notify: &[Notified]| {
        let mut settings = everybody();
        settings.bounce.notify = notify.to_vec();
        settings
    };
    for (settings, sender, notify, expected, dead) in [
        (&settings, "a@corp.example", None, vec![SENDER, OWNER, OPERATOR], false),
        // What the sender asked binds what the sender gets.
        (&settings, "a@corp.example", Some("NEVER"), vec![OWNER, OPERATOR], false),
        (&settings, "", None, vec![OWNER, OPERATOR], false),
        // The same address hears once, and not what it asked not to hear.
        (&settings, "owner@CORP.example", None, vec!["sender owner@CORP.example", OPERATOR], false),
        (&settings, "owner@corp.example", Some("NEVER"), vec![OPERATOR], false),
        (&only(&[Notified::Owner]), "owner@corp.example", None, vec![OWNER], false),
        (&only(&[Notified::Owner]), "owner@corp.example", Some("NEVER"), vec![], false),
        (&only(&[Notified::Sender]), "", None, vec![], true),
        (&only(&[Notified::Sender]), "a@corp.example", Some("NEVER"), vec![], false),
        (&only(&[]), "a@corp.example", None, vec![], false),
        (&only(&[]), "", None, vec![], false),
        // Where notifications come from, nobody is told.
        (&settings, "notifications@corp.example", None, vec![], true),
        (&settings, "MAILER-DAEMON@relay.example", None, vec![], true),
    ] {
        let (to, is_dead) = told(settings, &of_erp(sender, notify)).await;
        assert_eq!((to.iter().map(String::as_str).collect::<Vec<_>>(), is_dead), (expected, dead), "{sender} {notify:?}");
    }
}

#[tokio::test]
async fn a_notification_that_bounces_is_a_dead_letter_and_causes_no_other_one() {
    let mut own = of_erp("", None);
    let message = Arc::make_mut(&mut own.message);
    message.origin = Origin::default();
    assert_eq!(told(&everybody(), &own).await, (vec![], true));
    let mut answer = of_erp("", None);
    Arc::make_mut(&mut answer.message).body = Body::Inline("Auto-Submitted: auto-replied\r\n\r\n".into());
    assert_eq!(told(&everybody(), &answer).await, (vec![], true));
}

#[tokio::test]
async fn nobody_is_told_at_the_address_that_cannot_be_reached() {
    let mut stored = of_erp("a@corp.example", None);
    let settings = everybody();
    let addresses = ["owner@corp.example", "notifications@corp.example", "ops@corp.example"];
    for (recipient, address) in Arc::make_mut(&mut stored.message).envelope.recipients.iter_mut().zip(addresses) {
        recipient.address = address.parse().unwrap();
    }
    let (settlement, events) = conclusion(&MemorySpool::new(), &settings, at(1), &stored, [bounced(), bounced(), bounced()]).await;
    let states: Vec<_> = settlement.changes.iter().map(|change| change.state.clone()).collect();
    assert_eq!(states, [RecipientState::Bounced, RecipientState::Dead, RecipientState::Bounced]);
    assert_eq!(events.len(), 3);
    for (notification, _) in &settlement.notifications {
        let text = String::from_utf8(notification.body.bytes().await.unwrap().to_vec()).unwrap();
        let about = |address: &str| text.contains(&format!("Final-Recipient: rfc822; {address}"));
        let to = notification.envelope.recipients[0].address.as_str();
        assert_eq!(addresses.map(about), [to != addresses[0], false, to != addresses[2]], "{text}");
        assert!(text.contains("From: Mail Delivery System <notifications@corp.example>"), "{text}");
    }
}

#[tokio::test]
async fn a_success_is_reported_as_asked_whoever_is_told_of_failures() {
    let mut settings = everybody();
    settings.bounce.notify = vec![];
    let stored = of_erp("a@corp.example", Some("SUCCESS"));
    let (settlement, _) =
        conclusion(&MemorySpool::new(), &settings, at(1), &stored, [relayed(false), relayed(false), relayed(false)]).await;
    assert_eq!(settlement.notifications.len(), 1);
}

#[tokio::test]
async fn a_sender_hears_once_that_mail_waits_if_that_is_wanted() {
    let settings = Settings { delay_warning_after: Some(Duration::from_secs(3600)), ..everybody() };
    let busy = || Disposition::Deferred(Diagnostic::reply("RCPT", 450, "4.2.1 busy"));
    let waits = || Disposition::Waiting(at(9000), Diagnostic::local("waits for the limit of ses.eu"));
    let spool = MemorySpool::new();
    for (sender, notify, after, told) in [
        ("a@corp.example", None, 3600, true),
        ("a@corp.example", None, 3599, false),
        ("a@corp.example", Some("DELAY"), 3600, true),
        ("a@corp.example", Some("FAILURE"), 3600, false),
        ("a@corp.example", Some("NEVER"), 3600, false),
        ("", None, 3600, false),
    ] {
        let mut stored = of_erp(sender, notify);
        let received = stored.message.received;
        let now = received + Duration::from_secs(after);
        for disposition in [busy as fn() -> Disposition, waits] {
            let dispositions = [disposition(), disposition(), relayed(true)];
            let (settlement, events) = conclusion(&spool, &settings, now, &stored, dispositions).await;
            assert_eq!((settlement.notifications.len(), settlement.warned), (usize::from(told), told), "{sender} {notify:?} {after}");
            let Some((notification, _)) = settlement.notifications.first() else { continue };
            assert!(matches!(&events[..], [history::Event::Notified { what, .. }] if what == "delay"));
            let text = String::from_utf8(notification.body.bytes().await.unwrap().to_vec()).unwrap();
            assert_eq!(actions(&text), ["delayed", "delayed"], "who has it is not late: {text}");
            assert_eq!(text.matches("Will-Retry-Until: ").count(), 2, "{text}");
            assert!(text.contains("Status: 4.") && !text.contains("all of it"), "{text}");
        }
        stored.handling.idle = Duration::from_secs(1);
        assert!(warns_at(&settings, &stored).is_none_or(|at| at > now), "held time does not count");
        stored.handling = crate::spool::Handling { warned: true, ..Default::default() };
        let (settlement, _) = conclusion(&spool, &settings, now, &stored, [busy(), busy(), busy()]).await;
        assert!(settlement.notifications.is_empty() && settlement.warned, "it was told before");
    }
}
