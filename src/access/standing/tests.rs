//! What is tolerated, which limits hold, and how a standing is told.

use super::*;
use crate::config::{self, ToleranceSettings};

fn access(application: Application) -> Access {
    let settings = config::Access { trusted_networks: vec!["10.0.0.0/8".parse().unwrap()], ..config::Access::default() };
    Access::new(settings, vec![Arc::new(application)])
}

fn recognised(access: &Access, here: ToleranceSettings, address: &str, login: Option<&str>) -> Standing {
    let listener = Listener { tolerance: here, ..Listener::plain("127.0.0.1:25".parse().unwrap()) };
    access.recognise(&listener, &Client { login: login.map(Arc::from), ..Client::at(address.parse().unwrap()) })
}

const TOLERANT: Tolerance = Tolerance {
    bare_newline: BareNewline::Normalize,
    long_lines: LongLines::Fold,
    commands: OddCommands::Accept,
    missing_fields: MissingFields::Add,
};

const STRICT: Tolerance = Tolerance {
    bare_newline: BareNewline::Reject,
    long_lines: LongLines::Reject,
    commands: OddCommands::Reject,
    missing_fields: MissingFields::Keep,
};

#[test]
fn old_clients_are_put_up_with_on_ones_own_networks_only() {
    let access = access(Application { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Application::named("erp".into()) });
    let tolerance = |address, login| recognised(&access, ToleranceSettings::default(), address, login).tolerance;
    assert_eq!(tolerance("10.1.1.1", None), TOLERANT);
    assert_eq!(tolerance("192.0.2.1", None), TOLERANT);
    assert_eq!(tolerance("10.1.1.1", Some("erp")), TOLERANT, "logged in from inside");
    assert_eq!(tolerance("192.0.2.1", Some("scanner")), TOLERANT, "logged in from inside");
    assert_eq!(tolerance("198.51.100.1", Some("erp")), Tolerance { missing_fields: MissingFields::Add, ..STRICT });
    assert_eq!(tolerance("198.51.100.1", None), STRICT);
}

#[test]
fn the_word_of_the_application_counts_before_the_listeners_and_that_before_the_side() {
    let own = ToleranceSettings { long_lines: Some(LongLines::Keep), ..ToleranceSettings::default() };
    let access = access(Application { tolerance: own, ..Application::named("erp".into()) });
    let here =
        ToleranceSettings { long_lines: Some(LongLines::Fold), bare_newline: Some(BareNewline::Normalize), ..ToleranceSettings::default() };
    let outside = recognised(&access, here, "198.51.100.1", Some("erp")).tolerance;
    assert_eq!(
        (outside.long_lines, outside.bare_newline, outside.commands),
        (LongLines::Keep, BareNewline::Normalize, OddCommands::Reject)
    );
    let stranger = recognised(&access, here, "198.51.100.1", None).tolerance;
    assert_eq!((stranger.long_lines, stranger.bare_newline), (LongLines::Fold, BareNewline::Normalize));
    let strict = ToleranceSettings { bare_newline: Some(BareNewline::Reject), ..ToleranceSettings::default() };
    assert_eq!(recognised(&access, strict, "10.1.1.1", None).tolerance.bare_newline, BareNewline::Reject);
}

#[test]
fn limits_of_an_application_stand_in_place_of_everybodys() {
    let own = Application { max_message_size: Some(100), max_recipients: Some(2000), ..Application::named("erp".into()) };
    let access = access(own);
    let limits = |login| {
        let standing = recognised(&access, ToleranceSettings::default(), "10.1.1.1", login);
        (standing.max_message_size, standing.max_recipients)
    };
    assert_eq!(limits(Some("erp")), (100, 2000));
    assert_eq!(limits(Some("scanner")), (35 << 20, 1000));
    assert_eq!(limits(None), (35 << 20, 1000));
}

#[test]
fn a_standing_is_told_with_the_setting_that_decided() {
    let access = access(Application { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Application::named("erp".into()) });
    let told = |address, login| recognised(&access, ToleranceSettings::default(), address, login).to_string();
    assert_eq!(told("192.0.2.1", None), "application erp, by its address in the network 192.0.2.0/24 (app.erp.networks)");
    assert_eq!(told("192.0.2.1", Some("erp")), "application erp, by its credential (AUTH)");
    assert_eq!(told("10.1.1.1", None), "a trusted host, by its address, in the network 10.0.0.0/8 (access.trusted_networks)");
    assert_eq!(told("198.51.100.1", None), "a stranger");
}
