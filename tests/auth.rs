//! Clients that nobody here wrote log in to the running program, and `postrider password` makes what
//! they are verified against.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::process::{Command, Output};

use postrider::sandbox::{SandboxSmarthost, SmarthostSettings};
use support::process::Postrider;
use support::{eventually, program, run, server, smarthost};

/// `hunter2`, as `htpasswd -B` would write it.
const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm";

/// Nobody is trusted by address, and AUTH is offered in clear text on loopback.
struct Relay {
    directory: tempfile::TempDir,
    host: SandboxSmarthost,
    postrider: Postrider,
}

impl Relay {
    async fn start(access: &str, applications: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("passwords"), format!("# imported\nscanner:{BCRYPT}\n")).unwrap();
        let host = SandboxSmarthost::start(SmarthostSettings { keep_bodies: true, ..SmarthostSettings::default() }).await.unwrap();
        let file = directory.path().join("passwords");
        let config = server(&directory.path().join("data"))
            + "auth_without_tls = true\n[access]\ntrusted_networks = []\n"
            + &access.replace("PASSWORDS", &format!("{file:?}"))
            + applications
            + &smarthost("only", host.address().port());
        let path = directory.path().to_owned();
        let postrider = tokio::task::spawn_blocking(move || Postrider::start(&path, &config)).await.unwrap();
        Self { directory, host, postrider }
    }

    fn port(&self) -> String {
        self.postrider.address().port().to_string()
    }

    /// The sender and the content of each message that arrived, once there are `count`.
    async fn arrived(&self, count: usize) -> Vec<(String, String)> {
        self.host.recorder().reached(count).await;
        let received = self.host.recorder().received();
        received
            .into_iter()
            .map(|message| (message.reverse_path.clone(), String::from_utf8_lossy(message.body.as_ref().unwrap()).into_owned()))
            .collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("postrider.log")).unwrap()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Runs a script of smtplib's on an open session `s`; gives what it prints.
async fn smtplib(port: &str, script: &str) -> String {
    let head = "import smtplib, sys\ns = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30)\ns.ehlo()\n";
    let mut command = Command::new(program("python3"));
    command.args(["-", port]);
    let output = run(command, &format!("{head}{script}\ns.quit()\n")).await;
    assert!(output.status.success(), "{}", said(&output));
    said(&output).trim().to_owned()
}

async fn swaks(port: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program("swaks"));
    command.args(["--server", "127.0.0.1", "--port", port, "--to", "b@example.net"]).args(arguments);
    run(command, "").await
}

/// `postrider password` with this on its standard input.
async fn password(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.arg("password").args(arguments);
    run(command, input).await
}

async fn hash_of(text: &str) -> String {
    let output = password(&[], text).await;
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn smtplib_logs_in_by_every_way_that_it_knows() {
    let hash = hash_of("correct horse battery").await;
    let relay = Relay::start("", &format!("[app.erp]\npassword = \"{hash}\"\nsenders = [\"@erp.example\"]\n")).await;
    let script = "
for mechanism in ('plain', 'login'):
    for initial in (True, False):
        s = smtplib.SMTP('127.0.0.1', int(sys.argv[1]), timeout=30)
        s.ehlo()
        s.user, s.password = 'erp', 'correct horse battery'
        print(s.auth(mechanism.upper(), getattr(s, 'auth_' + mechanism), initial_response_ok=initial)[0])
        s.sendmail('a@erp.example', ['b@example.net'], 'Subject: x\\r\\n\\r\\nhi\\r\\n')
";
    assert_eq!(smtplib(&relay.port(), script).await, "235\n235\n235\n235");
    for (from, content) in relay.arrived(4).await {
        assert_eq!(from, "a@erp.example");
        assert!(content.contains(" with ESMTPA id "), "{content}");
    }
    let script = "
print(s.esmtp_features['auth'].strip())
try:
    s.sendmail('a@erp.example', ['b@example.net'], 'hi')
except smtplib.SMTPSenderRefused as error:
    print(error.smtp_code)
try:
    s.login('erp', 'a wrong horse')
except smtplib.SMTPAuthenticationError as error:
    print(error.smtp_code, error.smtp_error.decode())
s.login('erp', 'correct horse battery')
try:
    s.sendmail('a@other.example', ['b@example.net'], 'hi')
except smtplib.SMTPSenderRefused as error:
    print(error.smtp_code)
";
    // login() tries every mechanism that both sides know.
    let expected = "PLAIN LOGIN\n530\n535 5.7.8 Authentication credentials invalid\n553";
    assert_eq!(smtplib(&relay.port(), script).await, expected);

    let log = relay.log();
    assert!(log.contains("login refused") && log.contains("wrong password") && log.contains("erp"), "{log}");
    for secret in ["horse", "Y29ycmVjdCBob3JzZS", "YSB3cm9uZyBob3JzZQ", "AGVycA"] {
        assert!(!log.contains(secret), "the log shows {secret}:\n{log}");
    }
}

#[tokio::test]
async fn swaks_logs_in_with_either_password_while_it_is_changed() {
    let (old, new) = (hash_of("the old password").await, hash_of("the new password").await);
    let relay = Relay::start("", &format!("[app.erp]\npassword = [\"{old}\", \"{new}\"]\n")).await;
    for (mechanism, password) in [("PLAIN", "the old password"), ("LOGIN", "the new password")] {
        let login = ["--from", "a@corp.example", "--auth", mechanism, "--auth-user", "erp", "--auth-password", password];
        let output = swaks(&relay.port(), &login).await;
        assert!(output.status.success(), "{}", said(&output));
    }
    assert_eq!(relay.arrived(2).await.len(), 2);
    let login = ["--from", "a@corp.example", "--auth", "PLAIN", "--auth-user", "erp", "--auth-password", "the very old one"];
    let output = swaks(&relay.port(), &login).await;
    assert_eq!(output.status.code(), Some(28), "{}", said(&output));
}

#[tokio::test]
async fn names_of_a_password_file_log_in_and_a_change_of_it_counts() {
    let relay = Relay::start("password_file = PASSWORDS\n", "[app.scanner]\nsenders = [\"scan@corp.example\"]\n").await;
    let login = |name: &'static str| {
        let port = relay.port();
        async move {
            let login = ["--from", "scan@corp.example", "--auth", "LOGIN", "--auth-user", name, "--auth-password", "hunter2"];
            swaks(&port, &login).await.status.success()
        }
    };
    assert!(login("scanner").await && !login("kiosk").await);
    let script = "
s.login('scanner', 'hunter2')
print(s.mail('other@corp.example')[0])
";
    assert_eq!(smtplib(&relay.port(), script).await, "553", "the rules of the table hold for the name in the file");
    std::fs::write(relay.directory.path().join("passwords"), format!("scanner:{BCRYPT}\nkiosk:{BCRYPT}\n")).unwrap();
    eventually("the new name logs in", async || login("kiosk").await).await;
}

#[tokio::test]
async fn a_disabled_application_gets_nowhere() {
    let applications = format!(
        "[app.erp]\npassword = \"{BCRYPT}\"\ndisabled = true\n[app.printers]\nnetworks = [\"127.0.0.1\"]\ndisabled = true\n[app.shop]\npassword = \"{BCRYPT}\"\n"
    );
    let relay = Relay::start("", &applications).await;
    let script = "
print(*s.mail('a@corp.example'))
try:
    s.login('erp', 'hunter2')
except smtplib.SMTPAuthenticationError as error:
    print(error.smtp_code)
print(s.login('shop', 'hunter2')[0])
print(s.mail('a@corp.example')[0])
";
    let expected = "550 b'5.7.1 Application printers is disabled'\n535\n235\n250";
    assert_eq!(smtplib(&relay.port(), script).await, expected);
}

#[tokio::test]
async fn an_address_that_fails_too_often_is_left_alone_for_a_time() {
    let relay = Relay::start("auth_failures = 2\nauth_block = \"3s\"\n", &format!("[app.erp]\npassword = \"{BCRYPT}\"\n")).await;
    let script = "
s.user = 'erp'
for s.password in ('wrong', 'wrong again', 'hunter2'):
    try:
        print(s.auth('PLAIN', s.auth_plain)[0])
    except smtplib.SMTPAuthenticationError as error:
        print(error.smtp_code)
";
    assert_eq!(smtplib(&relay.port(), script).await, "535\n535\n454");
    assert!(relay.log().contains("no more logins from this address for a time"), "{}", relay.log());
    let script = "s.user, s.password = 'erp', 'hunter2'\nprint(s.docmd('AUTH', 'PLAIN ' + 'AGVycABodW50ZXIy')[0])";
    eventually("it may try again", async || smtplib(&relay.port(), script).await == "235").await;
}

#[tokio::test]
async fn postrider_password_makes_a_hash_that_fits_its_password_alone() {
    let made = password(&[], "correct horse battery\n").await;
    let hash = String::from_utf8(made.stdout.clone()).unwrap().trim().to_owned();
    assert!(hash.starts_with("$argon2id$v=19$") && made.stderr.is_empty(), "{}", said(&made));
    assert_ne!(hash, hash_of("correct horse battery").await, "each has a salt of its own");
    for (hash, text, code) in [
        (hash.as_str(), "correct horse battery", 0),
        (&hash, "correct horse battery\r\n", 0),
        (&hash, "correct horse", 65),
        (BCRYPT, "hunter2\n", 0),
        ("argon2id", "hunter2", 64),
        ("$apr1$x$y", "hunter2", 64),
    ] {
        let output = password(&["--verify", hash], text).await;
        assert_eq!(output.status.code(), Some(code), "{hash} {text}: {}", said(&output));
        assert!(output.stdout.is_empty());
    }
    let short = password(&[], "hunter2").await;
    assert!(short.status.success() && said(&short).contains("fewer than 12 characters"), "{}", said(&short));
    for bad in ["", "\n", "two\nlines", &"x".repeat(300)] {
        assert_eq!(password(&[], bad).await.status.code(), Some(65), "{bad:?}");
    }
}
