//! Which route is taken by what is known, and how much its candidates have room for.

use std::sync::atomic::{AtomicU64, Ordering};

use postrider_providers::contract::{Attempt, Delivery, Failure, Outcome, Probed, Provider, Receipt, Recipient, Report, SizeLimit};

use super::*;
use crate::config::When;

fn route(name: &str, when: When) -> Route {
    let providers = vec![name.into()];
    Route { name: name.into(), when, providers, ..Route::default() }
}

fn when(sender: &[&str], recipient: &[&str], null_sender: Option<bool>, applications: &[&str], clients: &[&str]) -> When {
    When {
        sender_domains: sender.iter().map(|text| text.parse().unwrap()).collect(),
        recipient_domains: recipient.iter().map(|text| text.parse().unwrap()).collect(),
        null_sender,
        applications: applications.iter().map(|&name| name.into()).collect(),
        clients: clients.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

fn origin(application: &str, client: &str) -> Origin {
    Origin { application: Some(application.into()).filter(|_| !application.is_empty()), client: client.parse().ok(), ..Origin::default() }
}

fn path(text: &str) -> ReversePath {
    if text.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(text.parse().unwrap()) }
}

/// Routes `erp`, `crm-abroad`, `lab`, `news`, `bounces` and one for the rest.
fn router() -> Router {
    Router::new(vec![
        route("erp", when(&[], &[], None, &["erp", "billing"], &[])),
        route("crm-abroad", when(&[], &["*.abroad.example"], None, &["crm"], &[])),
        route("lab", when(&[], &[], None, &[], &["10.1.0.0/16", "2001:db8::/32"])),
        route("news", when(&["news.example"], &[], None, &[], &[])),
        route("bounces", when(&[], &[], Some(true), &[], &[])),
        route("rest", When::default()),
        route("never", when(&[], &[], None, &["erp"], &[])),
    ])
}

#[test]
fn the_first_route_whose_conditions_all_hold_is_taken() {
    let router = router();
    for (application, client, from, to, expected) in [
        ("erp", "10.2.0.1", "a@x.example", "b@y.example", "erp"),
        ("billing", "10.1.0.1", "a@x.example", "b@y.example", "erp"),
        ("ERP", "10.2.0.1", "a@x.example", "b@y.example", "rest"),
        ("crm", "10.2.0.1", "a@x.example", "b@y.abroad.example", "crm-abroad"),
        ("crm", "10.2.0.1", "a@x.example", "b@y.example", "rest"),
        ("", "10.1.255.255", "a@x.example", "b@y.example", "lab"),
        ("", "::ffff:10.1.2.3", "a@x.example", "b@y.example", "lab"),
        ("", "2001:db8::1", "a@x.example", "b@y.example", "lab"),
        ("", "10.2.0.1", "a@NEWS.example", "b@y.example", "news"),
        ("", "10.2.0.1", "", "b@y.example", "bounces"),
        ("erp", "10.2.0.1", "", "b@y.example", "erp"),
        // A notification of our own has neither an application nor a client.
        ("", "", "", "b@y.example", "bounces"),
        ("", "", "a@x.example", "b@y.example", "rest"),
    ] {
        let found = router.route(&path(from), &to.parse().unwrap(), &origin(application, client)).unwrap();
        assert_eq!(&*found.name, expected, "{application:?} {client:?} {from:?} {to:?}");
    }
}

#[test]
fn what_is_not_known_yet_leaves_routes_open_and_what_is_known_closes_them() {
    let router = router();
    let names = |known: &Known<'_>| router.reachable(known).map(|route| route.name.to_string()).collect::<Vec<_>>().join(" ");
    let (stranger, erp, crm, lab) = (origin("", "10.2.0.1"), origin("erp", "10.2.0.1"), origin("crm", "10.2.0.1"), origin("", "10.1.0.1"));
    let (news, null) = (path("a@news.example"), path(""));
    let after_ehlo = |origin, may_log_in| Known { origin, may_log_in, from: None, to: None };
    for (known, expected) in [
        (after_ehlo(&stranger, false), "news bounces rest"),
        (after_ehlo(&stranger, true), "erp crm-abroad news bounces rest"),
        (after_ehlo(&erp, false), "erp"),
        // Recognised by its network, it may still log in as another one.
        (after_ehlo(&erp, true), "erp crm-abroad news bounces rest"),
        (after_ehlo(&crm, false), "crm-abroad news bounces rest"),
        (after_ehlo(&lab, false), "lab"),
        (Known { from: Some(&news), ..after_ehlo(&stranger, false) }, "news"),
        (Known { from: Some(&null), ..after_ehlo(&crm, false) }, "crm-abroad bounces"),
    ] {
        assert_eq!(names(&known), expected, "{known:?}");
    }
}

#[test]
fn a_route_that_is_passed_over_names_the_condition() {
    let (from, to, origin) = (path("a@x.example"), "b@y.example".parse().unwrap(), origin("crm", "10.2.0.1"));
    let known = Known::all(&origin, &from, &to);
    let unmet: Vec<_> =
        router().routes().iter().map(|route| Condition::first_unmet(&route.when, &known).map(|unmet| unmet.to_string())).collect();
    let unmet: Vec<_> = unmet.iter().map(|unmet| unmet.as_deref().unwrap_or("matches")).collect();
    assert_eq!(
        unmet,
        ["when.app", "when.recipient_domain", "when.client", "when.sender_domain", "when.null_sender", "matches", "when.app"]
    );
}

/// A provider that learns how large a message may be.
struct Learning(Arc<AtomicU64>);

impl Provider for Learning {
    fn capabilities(&self) -> Capabilities {
        Capabilities { max_size: Some(SizeLimit::message(self.0.load(Ordering::SeqCst))), smtputf8: false, ..Capabilities::EVERYTHING }
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(Receipt::default())))
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        Ok(Probed::default())
    }
}

#[test]
fn room_is_that_of_the_narrowest_recipient_and_follows_what_a_provider_learns() {
    let (small, large) = (Arc::new(AtomicU64::new(1000)), Arc::new(AtomicU64::new(5000)));
    let connected = |name: &str, size: &Arc<AtomicU64>| Connected {
        name: name.into(),
        default_concurrency: 1,
        provider: Arc::new(Learning(Arc::clone(size))),
    };
    let near = route("near", when(&[], &["near.example"], None, &[], &[]));
    let router =
        Router::new(vec![near, route("far", When::default())]).with_providers(&[connected("near", &small), connected("far", &large)]);
    let envelope = |to: &[&str]| {
        let recipients = to.iter().map(|to| Recipient::from(to.parse::<Address>().unwrap())).collect();
        Envelope::new(path("a@x.example"), recipients)
    };
    let room = |to: &[&str]| {
        router.room(&envelope(to), &Origin::default()).map(|room| (room.octets, room.route.to_string(), room.recipient.to_string()))
    };
    let expected = |octets, route: &str, recipient: &str| Some((octets, route.to_owned(), recipient.to_owned()));
    assert_eq!(room(&["b@y.example"]), expected(5000, "far", "b@y.example"));
    assert_eq!(room(&["b@y.example", "c@near.example", "d@near.example"]), expected(1000, "near", "c@near.example"));
    small.store(9000, Ordering::SeqCst);
    assert_eq!(room(&["b@y.example", "c@near.example"]), expected(5000, "far", "b@y.example"));
    assert_eq!(room(&[]), None);
    // Nobody on these routes carries SMTPUTF8, which RCPT has refused; there is no size to tell.
    assert_eq!(router.room(&Envelope { smtputf8: true, ..envelope(&["b@y.example"]) }, &Origin::default()), None);
}
