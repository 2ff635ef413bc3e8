//! Who may relay: one table of listener, address, TLS, credential and sender, and what is said at MAIL
//! and at RCPT.

use super::*;
use crate::access::Recognised;
use crate::config::{self, Application, PasswordHash};

/// `hunter2`
const HASH: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

fn application(name: &str, networks: &[&str], senders: &[&str]) -> Application {
    Application {
        networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
        senders: senders.iter().map(|sender| sender.parse().unwrap()).collect(),
        ..Application::named(name.into())
    }
}

fn with_password(application: Application) -> Application {
    Application { passwords: vec![PasswordHash::parse(HASH).unwrap()], ..application }
}

fn access(applications: Vec<Application>) -> Access {
    let trusted = ["127.0.0.0/8", "::1/128", "10.1.0.0/16", "10.1.2.200/32", "10.3.0.0/24", "2001:db8:1::/48"];
    let trusted_networks = trusted.iter().map(|network| network.parse().unwrap()).collect();
    Access::new(config::Access { trusted_networks, ..config::Access::default() }, applications.into_iter().map(Arc::new).collect())
}

fn everybody() -> Access {
    access(vec![
        with_password(application("erp", &["10.1.2.0/24"], &["@erp.example", "noreply@corp.example"])),
        with_password(application("shop", &[], &["@*.shop.example", "<>"])),
        application("printers", &["10.2.0.0/16", "10.3.0.0/24", "2001:db8:6::/64"], &[]),
        application("lab", &["10.2.7.0/24"], &["@lab.example"]),
        with_password(Application { disabled: true, ..application("old", &["10.1.9.0/24"], &[]) }),
    ])
}

fn listener(kind: &str) -> Listener {
    let plain = Listener::plain("192.0.2.25:25".parse().unwrap());
    let with = |tls| Listener { tls, ..plain.clone() };
    match kind {
        "off" => plain,
        "clear" => Listener { auth_without_tls: true, ..plain },
        "starttls" => with(ListenerTls::StartTls),
        "required" => with(ListenerTls::Required),
        "implicit" => with(ListenerTls::Implicit),
        _ => panic!("{kind}"),
    }
}

/// Who it is, where it may; else the rule.
fn verdict(access: &Access, submission: &Submission<'_>) -> String {
    let standing = submission.standing;
    let name = standing.application.as_ref().map_or("", |application| &application.name);
    match access.decide(submission) {
        Ok(()) => match standing.recognised {
            Some(Recognised::Credential) => format!("{name} by AUTH"),
            Some(Recognised::ApplicationNetwork(network)) => format!("{name} in {network}"),
            Some(Recognised::TrustedNetwork(network)) => format!("in {network}"),
            None => "ok".to_owned(),
        },
        Err(Refusal::TlsRequired) => "needs TLS".to_owned(),
        Err(Refusal::ApplicationDisabled(name)) => format!("{name} disabled"),
        Err(Refusal::AuthenticationRequired) => "needs AUTH".to_owned(),
        Err(Refusal::SenderNotAllowed { application, .. }) => format!("{application} not as"),
        Err(Refusal::RelayDenied) => "denied".to_owned(),
    }
}

/// Asks as a session does: at MAIL, and if that is fine, at RCPT. `+` says that the connection is
/// encrypted.
fn asked(access: &Access, kind: &str, address: &str, login: &str, from: &str) -> String {
    let listener = listener(kind.trim_end_matches('+'));
    let mut client = Client::at(address.parse().unwrap());
    client.encrypted = kind.ends_with('+');
    client.login = (!login.is_empty()).then(|| login.into());
    let standing = access.recognise(&listener, &client);
    let from = if from == "<>" { ReversePath::Null } else { ReversePath::Mailbox(from.parse().unwrap()) };
    let to = "someone@elsewhere.example".parse().unwrap();
    let mail = Submission { listener: &listener, client: &client, standing: &standing, from: &from, to: None };
    let rcpt = Submission { to: Some(&to), ..mail };
    let at_mail = verdict(access, &mail);
    match access.decide(&mail) {
        Ok(()) if verdict(access, &rcpt) == at_mail => at_mail,
        Ok(()) => format!("{at_mail}, then {}", verdict(access, &rcpt)),
        Err(refusal) => {
            assert_eq!(access.decide(&rcpt), Err(refusal), "RCPT must not be better than MAIL");
            at_mail
        }
    }
}

#[test]
fn who_may_relay() {
    let access = everybody();
    let anyone = "x@anywhere.example";
    let rows = [
        // A trusted network, or not, in clear text where nobody can log in.
        ("off", "127.0.0.1", "", anyone, "in 127.0.0.0/8"),
        ("off", "127.9.9.9", "", "<>", "in 127.0.0.0/8"),
        ("off", "::1", "", anyone, "in ::1/128"),
        ("off", "::2", "", anyone, "ok, then denied"),
        ("off", "10.1.0.1", "", anyone, "in 10.1.0.0/16"),
        ("off", "::ffff:10.1.0.1", "", anyone, "in 10.1.0.0/16"),
        ("off", "::10.1.0.1", "", anyone, "ok, then denied"),
        ("off", "10.0.255.255", "", anyone, "ok, then denied"),
        ("off", "192.0.2.1", "", anyone, "ok, then denied"),
        ("off", "192.0.2.1", "", "<>", "ok, then denied"),
        ("off", "::ffff:192.0.2.1", "", anyone, "ok, then denied"),
        ("off", "2001:db8:1:ffff::1", "", anyone, "in 2001:db8:1::/48"),
        ("off", "2001:db8:2::1", "", anyone, "ok, then denied"),
        // Networks of applications: the smallest counts, and of two of the same size the application's.
        ("off", "10.1.2.3", "", "a@erp.example", "erp in 10.1.2.0/24"),
        ("off", "::ffff:10.1.2.3", "", "a@erp.example", "erp in 10.1.2.0/24"),
        ("off", "10.1.2.3", "", "noreply@corp.example", "erp in 10.1.2.0/24"),
        ("off", "10.1.2.3", "", "other@corp.example", "erp not as"),
        ("off", "10.1.2.3", "", "a@sub.erp.example", "erp not as"),
        ("off", "10.1.2.3", "", "<>", "erp not as"),
        ("off", "10.1.2.200", "", anyone, "in 10.1.2.200/32"),
        ("off", "10.2.0.1", "", anyone, "printers in 10.2.0.0/16"),
        ("off", "10.2.7.1", "", "a@lab.example", "lab in 10.2.7.0/24"),
        ("off", "10.2.7.1", "", anyone, "lab not as"),
        ("off", "10.3.0.1", "", anyone, "printers in 10.3.0.0/24"),
        ("off", "2001:db8:6::9", "", "<>", "printers in 2001:db8:6::/64"),
        ("off", "2001:db8:6:1::9", "", anyone, "ok, then denied"),
        // A disabled application is itself, although its network is part of a trusted one.
        ("off", "10.1.9.1", "", anyone, "old disabled"),
        ("clear", "10.1.9.1", "", "<>", "old disabled"),
        ("clear", "192.0.2.1", "old", anyone, "old disabled"),
        // Where AUTH can be had, a stranger hears so at MAIL.
        ("clear", "192.0.2.1", "", anyone, "needs AUTH"),
        ("clear", "192.0.2.1", "", "<>", "needs AUTH"),
        ("clear", "10.1.0.1", "", anyone, "in 10.1.0.0/16"),
        ("clear", "192.0.2.1", "erp", "a@erp.example", "erp by AUTH"),
        ("clear", "192.0.2.1", "erp", anyone, "erp not as"),
        ("clear", "192.0.2.1", "shop", "a@eu.shop.example", "shop by AUTH"),
        ("clear", "192.0.2.1", "shop", "<>", "shop by AUTH"),
        ("clear", "192.0.2.1", "shop", "a@shop.example", "shop not as"),
        // A credential counts more than an address, in both directions.
        ("clear", "10.1.2.3", "shop", "a@eu.shop.example", "shop by AUTH"),
        ("clear", "10.1.2.3", "shop", "a@erp.example", "shop not as"),
        ("clear", "127.0.0.1", "erp", anyone, "erp not as"),
        ("clear", "10.1.9.1", "erp", "a@erp.example", "erp by AUTH"),
        // A name of the password file, without a table: any sender.
        ("clear", "192.0.2.1", "scanner", anyone, "scanner by AUTH"),
        ("clear", "192.0.2.1", "scanner", "<>", "scanner by AUTH"),
        // STARTTLS: AUTH could be had after it.
        ("starttls", "192.0.2.1", "", anyone, "needs AUTH"),
        ("starttls+", "192.0.2.1", "", anyone, "needs AUTH"),
        ("starttls+", "192.0.2.1", "erp", "a@erp.example", "erp by AUTH"),
        ("starttls", "10.1.0.1", "", anyone, "in 10.1.0.0/16"),
        ("starttls+", "10.2.7.1", "", anyone, "lab not as"),
        // Required: nobody without TLS, whoever it is.
        ("required", "127.0.0.1", "", anyone, "needs TLS"),
        ("required", "10.1.2.3", "", "a@erp.example", "needs TLS"),
        ("required", "10.1.9.1", "", anyone, "needs TLS"),
        ("required", "192.0.2.1", "", anyone, "needs TLS"),
        ("required+", "127.0.0.1", "", anyone, "in 127.0.0.0/8"),
        ("required+", "192.0.2.1", "", anyone, "needs AUTH"),
        ("required+", "192.0.2.1", "erp", "noreply@corp.example", "erp by AUTH"),
        ("required+", "10.1.9.1", "", anyone, "old disabled"),
        // Implicit TLS.
        ("implicit+", "192.0.2.1", "", "<>", "needs AUTH"),
        ("implicit+", "192.0.2.1", "shop", "a@b.shop.example", "shop by AUTH"),
        ("implicit+", "::1", "", anyone, "in ::1/128"),
    ];
    assert!(rows.len() >= 40);
    let mut wrong = Vec::new();
    for (kind, address, login, from, expected) in rows {
        let said = asked(&access, kind, address, login, from);
        if said != expected {
            wrong.push(format!("{kind} {address} {login:?} {from}: {said}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn where_no_credential_exists_nobody_is_asked_for_one() {
    let access = access(vec![application("printers", &["10.2.0.0/16"], &[])]);
    for kind in ["off", "clear", "starttls", "starttls+", "implicit+", "required+"] {
        assert_eq!(asked(&access, kind, "192.0.2.1", "", "a@b.example"), "ok, then denied", "{kind}");
    }
    let nobody = Access::new(config::Access { trusted_networks: Vec::new(), ..config::Access::default() }, Vec::new());
    assert_eq!(asked(&nobody, "off", "127.0.0.1", "", "a@b.example"), "ok, then denied");
}

#[test]
fn auth_is_offered_where_a_password_cannot_be_read_on_the_way_or_where_the_config_says_so() {
    //= https://www.rfc-editor.org/rfc/rfc4954#section-9
    //= type=test
    //# If an implementation supports SASL mechanisms that are vulnerable to passive eavesdropping attacks
    //# (such as [PLAIN]), then the implementation MUST support at least one configuration where these
    //# SASL mechanisms are not advertised or used without the presence of an external security layer such
    //# as [TLS].
    let offered = |access: &Access, kind: &str| {
        let mut client = Client::at("192.0.2.1".parse().unwrap());
        client.encrypted = kind.ends_with('+');
        access.offers_auth(&listener(kind.trim_end_matches('+')), &client)
    };
    let everybody = everybody();
    for (kind, expected) in [
        ("off", false),
        ("clear", true),
        ("starttls", false),
        ("starttls+", true),
        ("required", false),
        ("required+", true),
        ("implicit+", true),
    ] {
        assert_eq!(offered(&everybody, kind), expected, "{kind}");
        assert!(!offered(&access(Vec::new()), kind), "{kind}");
    }
}

#[test]
fn a_refusal_names_the_setting_that_decides() {
    let allowed = vec!["@erp.example".parse().unwrap(), "<>".parse().unwrap()];
    for (refusal, expected) in [
        (Refusal::RelayDenied, "access.trusted_networks"),
        (Refusal::AuthenticationRequired, "access.trusted_networks"),
        (Refusal::TlsRequired, "tls = \"required\""),
        (Refusal::ApplicationDisabled("erp".into()), "app.erp.disabled"),
        (Refusal::SenderNotAllowed { application: "erp".into(), allowed }, "only @erp.example, <> (app.erp.senders)"),
    ] {
        assert!(refusal.to_string().contains(expected), "{refusal}");
    }
}
