//! How each client is told what to do.

use std::io::Write as _;
use std::process::{Command, Stdio};

use super::support::program;
use super::{Feature, PASSWORD, Task, Tls, USER, postfix};

/// A row of the table.
pub struct Client {
    /// A word that can stand in a domain name.
    pub name: &'static str,
    /// Its name in the table.
    pub title: &'static str,
    /// Whether it speaks TLS whatever the column is.
    pub encrypts_always: bool,
    /// Why it cannot do this; `None` if it can.
    pub cannot: fn(Feature) -> Option<&'static str>,
    /// Does it; gives what it printed, as an error if it failed.
    pub run: fn(&Task) -> Result<String, String>,
}

pub fn all() -> Vec<Client> {
    vec![
        Client { name: "smtplib", title: "Python smtplib", encrypts_always: false, cannot: waits_for_replies, run: smtplib },
        Client {
            name: "swaks",
            title: "swaks",
            encrypts_always: false,
            cannot: |feature| match feature {
                Feature::SmtpUtf8 => Some("It has no parameter for MAIL, so it cannot say SMTPUTF8."),
                _ => None,
            },
            run: swaks,
        },
        Client { name: "curl", title: "curl", encrypts_always: false, cannot: waits_for_replies, run: curl },
        Client {
            name: "msmtp",
            title: "msmtp",
            encrypts_always: false,
            cannot: |feature| match feature {
                Feature::SmtpUtf8 => Some("This version does not know SMTPUTF8 and takes no address outside ASCII."),
                _ => None,
            },
            run: msmtp,
        },
        Client { name: "nodemailer", title: "nodemailer", encrypts_always: false, cannot: waits_for_replies, run: nodemailer },
        Client { name: "postfix", title: "Postfix", encrypts_always: false, cannot: |_| None, run: postfix::run },
        Client {
            name: "openssl",
            title: "openssl s_client",
            encrypts_always: true,
            cannot: |feature| match feature {
                Feature::Plain => Some("It speaks TLS only; the other columns are under TLS."),
                _ => None,
            },
            run: openssl,
        },
    ]
}

fn waits_for_replies(feature: Feature) -> Option<&'static str> {
    (feature == Feature::Pipelining).then_some("It waits for each reply before it sends the next command.")
}

/// Runs a program; success is exit code 0.
pub fn run(command: &mut Command, input: &[u8]) -> Result<String, String> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // What a client has not read when it ends is no failure by itself.
    let writing = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let output = child.wait_with_output().unwrap();
    let _ = writing.join();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(format!("{}\n{said}", output.status)) }
}

/// What the scripts for smtplib and nodemailer read.
fn json(task: &Task) -> String {
    serde_json::json!({
        "port": task.port,
        "tls": match task.feature.tls() { Tls::Off => "off", Tls::Started => "starttls", Tls::Implicit => "implicit" },
        "ca": task.ca,
        "mechanism": task.feature.mechanism(),
        "user": USER,
        "password": PASSWORD,
        "from": task.from,
        "to": task.to,
        "file": task.file,
        "eight_bit": matches!(task.feature, Feature::EightBit | Feature::SmtpUtf8),
        "smtputf8": task.feature == Feature::SmtpUtf8,
    })
    .to_string()
}

fn smtplib(task: &Task) -> Result<String, String> {
    run(Command::new(program("python3")).args(["-c", include_str!("submit.py"), &json(task)]), b"")
}

fn nodemailer(task: &Task) -> Result<String, String> {
    run(Command::new(program("node-with-peers")).args(["-e", include_str!("submit.js"), &json(task)]), b"")
}

fn swaks(task: &Task) -> Result<String, String> {
    let mut command = Command::new(program("swaks"));
    // swaks ends what it sends with a line end of its own.
    let content = std::fs::read(&task.file).unwrap();
    std::fs::write(&task.file, content.strip_suffix(b"\r\n").unwrap()).unwrap();
    command.args(["--server", "127.0.0.1", "--port", &task.port.to_string(), "--ehlo", "swaks.example"]);
    command.args(["--from", task.from, "--to", &task.to, "--hide-all", "--data", &format!("@{}", task.file.display())]);
    match task.feature.tls() {
        Tls::Off => {}
        Tls::Started => drop(command.arg("--tls")),
        Tls::Implicit => drop(command.arg("--tls-on-connect")),
    }
    if let Some(mechanism) = task.feature.mechanism() {
        command.args(["--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD]);
    }
    if task.feature == Feature::Pipelining {
        command.arg("--pipeline");
    }
    run(&mut command, b"")
}

fn curl(task: &Task) -> Result<String, String> {
    let scheme = if task.feature.tls() == Tls::Implicit { "smtps" } else { "smtp" };
    let mut command = Command::new(program("curl"));
    // Without a locale that knows them, it refuses addresses outside ASCII.
    command.env("LC_ALL", "C.UTF-8").args(["-sS", &format!("{scheme}://127.0.0.1:{}/curl.example", task.port)]);
    command.args(["--mail-from", task.from, "--mail-rcpt", &task.to]).arg("--cacert").arg(&task.ca).arg("-T").arg(&task.file);
    if task.feature.tls() == Tls::Started {
        command.arg("--ssl-reqd");
    }
    if let Some(mechanism) = task.feature.mechanism() {
        command.args(["--user", &format!("{USER}:{PASSWORD}"), "--login-options", &format!("AUTH={mechanism}")]);
    }
    run(&mut command, b"")
}

fn msmtp(task: &Task) -> Result<String, String> {
    let mut command = Command::new(program("msmtp"));
    command.args(["--host=127.0.0.1", "--domain=msmtp.example", &format!("--port={}", task.port), &format!("--from={}", task.from)]);
    command.arg(format!("--tls-trust-file={}", task.ca.display()));
    command.args(match task.feature.tls() {
        Tls::Off => &["--tls=off"][..],
        Tls::Started => &["--tls=on", "--tls-starttls=on"],
        Tls::Implicit => &["--tls=on", "--tls-starttls=off"],
    });
    match task.feature.mechanism() {
        Some(mechanism) => drop(command.args([
            &format!("--auth={}", mechanism.to_lowercase()),
            &format!("--user={USER}"),
            &format!("--passwordeval=echo '{PASSWORD}'"),
        ])),
        None => drop(command.arg("--auth=off")),
    }
    // It makes CRLF itself.
    let content = String::from_utf8(std::fs::read(&task.file).unwrap()).unwrap().replace("\r\n", "\n");
    run(command.arg("--").arg(&task.to), content.as_bytes())
}

/// Everything at once on standard input: as pipelining as it gets (RFC 2920 would have the client
/// wait after DATA; the server must cope).
fn openssl(task: &Task) -> Result<String, String> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    let mut command = Command::new(program("openssl"));
    command.args(["s_client", "-quiet", "-verify_return_error", "-connect", &format!("127.0.0.1:{}", task.port)]);
    command.arg("-CAfile").arg(&task.ca);
    if task.feature.tls() != Tls::Implicit {
        command.args(["-starttls", "smtp", "-name", "openssl.example"]);
    }
    let mut input = b"EHLO openssl.example\r\n".to_vec();
    match task.feature.mechanism() {
        Some("PLAIN") => input.extend(format!("AUTH PLAIN {}\r\n", STANDARD.encode(format!("\0{USER}\0{PASSWORD}"))).into_bytes()),
        Some(_) => input.extend(format!("AUTH LOGIN\r\n{}\r\n{}\r\n", STANDARD.encode(USER), STANDARD.encode(PASSWORD)).into_bytes()),
        None => {}
    }
    let parameters = match task.feature {
        Feature::EightBit => " BODY=8BITMIME",
        Feature::SmtpUtf8 => " BODY=8BITMIME SMTPUTF8",
        _ => "",
    };
    input.extend(format!("MAIL FROM:<{}>{parameters}\r\nRCPT TO:<{}>\r\nDATA\r\n", task.from, task.to).into_bytes());
    for line in std::fs::read(&task.file).unwrap().split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            input.push(b'.');
        }
        input.extend_from_slice(line);
    }
    input.extend_from_slice(b".\r\nQUIT\r\n");
    run(&mut command, &input)
}
