//! What each line means, and that no line at all makes the parser panic.

use proptest::prelude::*;

use super::*;

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Strictly, as everything in this file unless it says otherwise.
fn parse(line: &[u8]) -> Result<Command, CommandError> {
    Command::parse(line, OddCommands::Reject).map(|parsed| parsed.command)
}

fn mail_from(line: &str) -> MailCommand {
    match parse(line.as_bytes()) {
        Ok(Command::Mail(mail)) => mail,
        other => panic!("{line}: {other:?}"),
    }
}

/// Whom RCPT names, if it is a command and names a mailbox.
fn mailbox(line: &str) -> Option<Address> {
    match parse(line.as_bytes()) {
        Ok(Command::Rcpt(RcptCommand { path: ForwardPath::Mailbox(address), .. })) => Some(address),
        _ => None,
    }
}

fn code(line: &[u8]) -> u16 {
    match parse(line) {
        Ok(command) => panic!("{:?} parsed as {command:?}", String::from_utf8_lossy(line)),
        Err(error) => error.0.code(),
    }
}

#[test]
fn verbs_are_read_in_any_case() {
    assert_eq!(parse(b"ehlo relay.example"), Ok(Command::Ehlo("relay.example".into())));
    assert_eq!(parse(b"HeLo [127.0.0.1]"), Ok(Command::Helo("[127.0.0.1]".into())));
    assert_eq!(parse(b"data"), Ok(Command::Data));
    assert_eq!(parse(b"QUIT "), Ok(Command::Quit));
    assert_eq!(parse(b"noop whatever it is"), Ok(Command::Noop));
    assert_eq!(parse(b"vrfy jones"), Ok(Command::Vrfy));
}

#[test]
fn a_path_is_kept_as_it_was_sent() {
    for path in ["a@b.example", "\"a b\"@x", "\"a>b\"@x", "\"a\\\"b\"@x", "A.B+c@EXAMPLE.com", "a@[IPv6:::1]"] {
        let Some(found) = mailbox(&format!("RCPT TO:<{path}>")) else { panic!() };
        assert_eq!(found.as_str(), path);
    }
}

#[test]
fn the_null_reverse_path_is_a_case_of_its_own() {
    assert_eq!(mail_from("MAIL FROM:<>").reverse_path, ReversePath::Null);
    assert_eq!(code(b"RCPT TO:<>"), 501);
    let plain = RcptCommand { path: ForwardPath::Postmaster, notify: None, original: None };
    assert_eq!(parse(b"RCPT TO:<postMaster>"), Ok(Command::Rcpt(plain)));
}

#[test]
fn a_source_route_is_ignored() {
    assert_eq!(mail_from("MAIL FROM:<@a.example,@b.example:c@d>").reverse_path, ReversePath::Mailbox(address("c@d")));
    assert_eq!(code(b"MAIL FROM:<@a,b:c@d>"), 501);
}

#[test]
fn parameters_of_mail_are_read() {
    let mail = mail_from("MAIL FROM:<bücher@d> SIZE=1000 BODY=8bitmime SMTPUTF8");
    assert_eq!((mail.size, mail.body_type, mail.smtputf8), (Some(1000), BodyType::EightBitMime, true));
    assert_eq!(mail_from("MAIL FROM:<a@b> SIZE=99999999999999999999").size, Some(u64::MAX));
}

#[test]
fn wrong_lines_get_the_reply_that_rfc_5321_gives_them() {
    for (line, expected) in [
        (&b""[..], 500),
        (b"FOO", 500),
        (b"\xff\xfe", 501),
        (b"NOOP\n", 500),
        (b"MAIL FROM:<a@b>\rRCPT", 500),
        (b"EHLO", 501),
        (b"EHLO a b", 501),
        (b"DATA now", 501),
        (b"RSET x", 501),
        (b"MAIL", 501),
        (b"MAIL FROM:a@b", 501),
        (b"MAIL FROM:<a@b", 501),
        (b"MAIL FROM:<a@b>x", 501),
        (b"MAIL FROM:<a>", 553),
        (b"MAIL FROM:<a@b> SIZE=", 501),
        (b"MAIL FROM:<a@b> SIZE=-1", 501),
        (b"MAIL FROM:<a@b> SIZE=999999999999999999999", 501),
        (b"MAIL FROM:<a@b> SIZE=1 SIZE=2", 501),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 501),
        (b"MAIL FROM:<a@b> FOO=1", 555),
        ("MAIL FROM:<\u{fc}@b>".as_bytes(), 550),
        (b"RCPT TO:<a@b> FOO=NEVER", 555),
        (b"RCPT TO:<\"x> FOO=NEVER\"@y.org> FOO=NEVER", 555),
        (b"RCPT TO:<a@b\x00c>", 501),
        (b"STARTTLS now", 501),
        (b"BDAT 99999999999999999999999 LAST", 501),
        (b"EXPN list", 502),
        (b"MAIL FROM:<a@b> REQUIRETLS", 555),
        (b"MAIL FROM:<a@b> AUTH=a=b", 501),
    ] {
        assert_eq!(code(line), expected, "{:?}", String::from_utf8_lossy(line));
    }
}

#[test]
fn an_odd_line_that_can_mean_one_thing_only_is_taken_or_refused_with_what_was_expected() {
    let both = |line: &str| {
        let taken = Command::parse(line.as_bytes(), OddCommands::Accept).unwrap();
        (taken.command, taken.oddities, parse(line.as_bytes()).unwrap_err().0.to_string())
    };
    let mail = |line: &str| parse(line.as_bytes()).unwrap();
    for (odd, plain, oddities, words) in [
        ("MAIL FROM: <a@b>", "MAIL FROM:<a@b>", &[Oddity::SpaceAfterColon][..], "space behind the colon"),
        ("MAIL FROM:   <>", "MAIL FROM:<>", &[Oddity::SpaceAfterColon], "space behind the colon"),
        ("MAIL FROM:a@b", "MAIL FROM:<a@b>", &[Oddity::NoAngleBrackets], "no angle brackets"),
        ("MAIL FROM: a@b SIZE=5", "MAIL FROM:<a@b> SIZE=5", &[Oddity::SpaceAfterColon, Oddity::NoAngleBrackets], "space"),
        ("MAIL FROM:\"a b\"@c SIZE=5", "MAIL FROM:<\"a b\"@c> SIZE=5", &[Oddity::NoAngleBrackets], "no angle brackets"),
        ("RCPT TO: <a@b>", "RCPT TO:<a@b>", &[Oddity::SpaceAfterColon], "space"),
        ("RCPT TO:postmaster", "RCPT TO:<postmaster>", &[Oddity::NoAngleBrackets], "no angle brackets"),
    ] {
        let (command, met, refusal) = both(odd);
        assert_eq!((command, &met[..]), (mail(plain), oddities), "{odd}");
        assert!(refusal.starts_with("501 5.5.4") && refusal.contains(words), "{odd}: {refusal}");
    }
    assert_eq!(both("EHLO").0, Command::Ehlo(String::new()));
}

#[test]
fn an_odd_line_that_could_mean_more_is_refused_all_the_same() {
    for (line, expected) in [
        ("MAIL FROM:", 501),
        ("MAIL FROM: SIZE=5", 501),
        ("MAIL FROM:Jones <a@b>", 501),
        ("MAIL FROM:a@b <c@d>", 501),
        ("MAIL FROM:a@b>", 501),
        ("MAIL FROM:<a@b", 501),
        ("MAIL FROM:a@b c@d", 555),
        ("MAIL FROM:@x:a@b", 501),
        ("RCPT TO:a@b,c@d", 501),
        ("RCPT TO:Jones", 501),
        ("RCPT TO: ", 501),
    ] {
        let refused = Command::parse(line.as_bytes(), OddCommands::Accept).unwrap_err();
        assert_eq!(refused.0.code(), expected, "{line}: {refused}");
    }
}

#[test]
fn address_literals_are_addresses_of_internet_hosts() {
    for path in ["a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[ipv6:::ffff:192.0.2.1]"] {
        assert!(parse(format!("RCPT TO:<{path}>").as_bytes()).is_ok(), "{path}");
    }
    for path in ["a@[192.0.2]", "a@[256.0.0.1]", "a@[2001:db8::1]", "a@[IPv6:192.0.2.1]", "a@[host]", "a@[tag:x]", "a@[192.0.2.1].example"]
    {
        assert_eq!(code(format!("RCPT TO:<{path}>").as_bytes()), 501, "{path}");
    }
}

proptest! {
    #[test]
    fn tolerance_changes_nothing_about_lines_that_are_as_they_should_be(path in "[a-z\"@. <>:,]{0,12}", space in " ?", rest in "( SIZE=[0-9]{1,3})?") {
        let line = format!("MAIL FROM:{space}{path}{rest}");
        if let Ok(strict) = Command::parse(line.as_bytes(), OddCommands::Reject) {
            prop_assert_eq!(Command::parse(line.as_bytes(), OddCommands::Accept), Ok(strict));
        }
    }

    #[test]
    fn no_line_makes_the_parser_panic(line in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&line);
    }

    #[test]
    fn no_path_makes_the_parser_panic_or_change_it(path in "[ -~]{0,80}") {
        if let Some(address) = mailbox(&format!("RCPT TO:<{path}>")) {
            prop_assert!(path.ends_with(address.as_str()));
            // What is printed back into <> must be read as the same path again.
            prop_assert_eq!(mailbox(&format!("RCPT TO:<{address}>")), Some(address));
        }
    }
}
