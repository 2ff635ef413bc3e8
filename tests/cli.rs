//! The program as people and service managers meet it: what it prints, the exit code of each outcome,
//! and what becomes of the mail when it is told to stop.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]

mod support;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use support::client::{message, send};
use support::process::Postrider;
use support::sink::Sink;
use support::{eventually, free_port, server, smarthost};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

fn postrider(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_postrider"))
        .args(arguments)
        .env("OFFICE_PASSWORD", "hush")
        .env("BULK_PASSWORD", "hush")
        .env_remove("POSTRIDER_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// The samples, with secrets where this machine can have them. They name every kind of provider.
#[cfg(feature = "ses")]
fn samples(directory: &Path) -> Vec<std::path::PathBuf> {
    let secrets = directory.join("secrets");
    std::fs::create_dir(&secrets).unwrap();
    for name in ["ses", "office"] {
        std::fs::write(secrets.join(name), "hush\n").unwrap();
    }
    let made = rcgen::generate_simple_self_signed(["relay.corp.example".to_owned()]).unwrap();
    std::fs::write(secrets.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(secrets.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let samples = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap();
    let copy = |sample: std::io::Result<std::fs::DirEntry>| {
        let sample = sample.unwrap();
        let text = std::fs::read_to_string(sample.path()).unwrap();
        let text =
            ["/run/secrets/", "/etc/postrider/"].iter().fold(text, |text, from| text.replace(from, &format!("{}/", secrets.display())));
        let copy = directory.join(sample.file_name());
        std::fs::write(&copy, text).unwrap();
        copy
    };
    samples.filter(|sample| sample.as_ref().unwrap().path().is_file()).map(copy).collect()
}

#[test]
#[cfg(feature = "ses")]
fn check_says_of_every_sample_what_it_would_run() {
    let directory = tempfile::tempdir().unwrap();
    let samples = samples(directory.path());
    assert!(samples.len() >= 5, "{samples:?}");
    for sample in samples {
        let path = sample.to_str().unwrap();
        let (code, out, err) = said(&postrider(&["check", "--config", path]));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{path}");
        assert!(out.starts_with(&format!("{path} is good. It would run:\n\nhostname ")), "{out}");
        assert!(out.contains("\nproviders\n") && !out.contains("hush"), "{out}");
        let (code, out, _) = said(&postrider(&["check", "--json", "--config", path]));
        let printed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(code, Some(0));
        assert!(printed["providers"].as_array().is_some_and(|providers| !providers.is_empty()), "{printed}");
    }
}

#[test]
fn check_draws_every_error_of_a_broken_file_and_so_does_serve() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("broken.toml");
    let broken = "[provider.smarthost.office]\nhost = \"mail.corp.example\"\n[log]\nlevle = \"info\"\n[queue]\nretry = [\"1 fortnight\"]\n\n\
                  [[route]]\nname = \"default\"\nproviders = [\"smarthost.ofice\"]\n";
    std::fs::write(&path, broken).unwrap();
    for command in ["check", "serve"] {
        let (code, out, err) = said(&postrider(&[command, "--config", path.to_str().unwrap()]));
        assert_eq!((code, out.as_str()), (Some(78), ""));
        assert_eq!(
            err.replace(path.to_str().unwrap(), "broken.toml"),
            "\
error: unknown key `levle` in `[log]`
 --> broken.toml:4:1
  |
4 | levle = \"info\"
  | ^^^^^ not a setting of this table
  |
  = note: its settings are `format` and `level`
  = help: did you mean `level`?

error: `retry` cannot be the text \"1 fortnight\"
 --> broken.toml:6:10
  |
6 | retry = [\"1 fortnight\"]
  |          ^^^^^^^^^^^^^ expected a duration such as \"500ms\", \"30s\", \"5m\", \"1h30m\" or \"2d\"

error: there is no provider `smarthost.ofice`
  --> broken.toml:10:14
   |
10 | providers = [\"smarthost.ofice\"]
   |              ^^^^^^^^^^^^^^^^^ not in this file
   |
   = note: the providers of this file are `smarthost.office`
   = help: did you mean `smarthost.office`?

postrider: 3 errors in the config; nothing was started
"
        );
    }
}

#[test]
fn a_wrong_command_line_is_told_from_a_question() {
    for (arguments, code, expected) in [
        (&[][..], 64, "Usage: postrider <COMMAND>"),
        (&["fly"], 64, "unrecognized subcommand 'fly'"),
        (&["serve", "--port", "25"], 64, "unexpected argument '--port'"),
        (&["demo", "--messages", "3"], 64, "3 is not in 30..=100000"),
    ] {
        let (seen, out, err) = said(&postrider(arguments));
        assert_eq!((seen, out.as_str()), (Some(code), ""), "{arguments:?}");
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    for (arguments, expected) in [
        (&["--help"][..], "Usage: postrider <COMMAND>"),
        (&["serve", "--help"], "/etc/postrider/postrider.toml"),
        (&["--version"], concat!("postrider ", env!("CARGO_PKG_VERSION"))),
    ] {
        let (seen, out, err) = said(&postrider(arguments));
        assert_eq!((seen, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains(expected), "{arguments:?}: {out}");
    }
}

#[test]
fn check_without_a_file_says_how_to_name_one() {
    let (code, _, err) = said(&postrider(&["check", "--config", "/nonexistent/postrider.toml"]));
    assert_eq!(code, Some(78));
    assert!(err.contains("cannot read the config file /nonexistent/postrider.toml") && err.contains("--config FILE"), "{err}");
}

/// What `serve` printed instead of starting.
fn not_started(directory: &Path, config: &str) -> String {
    std::fs::create_dir_all(directory).unwrap();
    match Postrider::try_start(directory, config) {
        Ok(_) => panic!("it started:\n{config}"),
        Err(log) => log,
    }
}

#[test]
fn serve_says_that_its_address_is_taken_and_how_to_find_by_whom() {
    let directory = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = (server(&directory.path().join("data")) + &smarthost("x", 25)).replace("127.0.0.1:0", &address.to_string());
    let log = not_started(directory.path(), &config);
    assert!(log.contains(&format!("cannot listen on {address}: Address already in use")), "{log}");
    assert!(log.contains("another program has it, which `ss -ltnp` names") && log.ends_with("exit status: 69"), "{log}");
}

#[test]
fn a_second_relay_on_the_same_data_dir_does_not_start_and_disturbs_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let config = server(&directory.path().join("data")) + &smarthost("x", 25);
    let first = Postrider::start(directory.path(), &config);
    let log = not_started(&directory.path().join("second"), &config);
    let expected = format!("{} is in use by another process; stop it, or give each relay", directory.path().join("data").display());
    assert!(log.contains(&expected) && log.ends_with("exit status: 69"), "{log}");
    assert_eq!(first.terminate().code(), Some(0));
    // The folder is free again.
    Postrider::start(directory.path(), &config);
}

#[tokio::test]
async fn after_sigterm_queued_mail_stays_for_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let port = free_port();
    let config = server(&directory.path().join("data")) + &smarthost("only", port) + "[queue]\nretry = [\"1s\"]\n";
    let postrider = Postrider::start(directory.path(), &config);
    let ids: Vec<String> = (0..10).map(|number| number.to_string()).collect();
    for id in &ids {
        send(postrider.address(), "a@corp.example", &[&format!("{id}@example.net")], &message(id)).await;
    }
    assert_eq!(postrider.terminate().code(), Some(0));

    let sink = Sink::start_at(&directory.path().join("sink"), port, &[]);
    let postrider = Postrider::start(directory.path(), &config);
    eventually("what was queued arrives", async || sink.copies().len() == ids.len()).await;
    assert_eq!(postrider.terminate().code(), Some(0));
    assert!(sink.copies().values().all(|copies| *copies == 1), "{:?}", sink.copies());
}

/// A smart host that takes its time over the final dot: it says when it has seen one, and answers when
/// it is told to. Gives the recipient of each message that it took.
async fn hesitant(listener: TcpListener, seen: mpsc::Sender<()>, answer: Arc<Notify>, taken: mpsc::Sender<String>) {
    while let Ok((connection, _)) = listener.accept().await {
        let mut connection = BufReader::new(connection);
        connection.write_all(b"220 hesitant.example\r\n").await.unwrap();
        let (mut line, mut recipient, mut in_content) = (String::new(), String::new(), false);
        while connection.read_line(&mut line).await.is_ok_and(|length| length > 0) {
            let reply: &[u8] = match line.trim_end() {
                "." => {
                    seen.send(()).await.unwrap();
                    answer.notified().await;
                    taken.send(std::mem::take(&mut recipient)).await.unwrap();
                    in_content = false;
                    b"250 taken\r\n"
                }
                _ if in_content => b"",
                "DATA" => {
                    in_content = true;
                    b"354 go ahead\r\n"
                }
                command => {
                    if let Some(address) = command.strip_prefix("RCPT TO:") {
                        recipient = address.to_owned();
                    }
                    b"250 ok\r\n"
                }
            };
            connection.write_all(reply).await.unwrap();
            line.clear();
        }
    }
}

#[tokio::test]
async fn sigterm_closes_the_door_and_waits_for_the_answer_of_the_provider() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = server(&directory.path().join("data")) + &smarthost("only", listener.local_addr().unwrap().port());
    let ((seen, mut is_seen), (taken, mut is_taken)) = (mpsc::channel(1), mpsc::channel(1));
    let answer = Arc::new(Notify::new());
    tokio::spawn(hesitant(listener, seen, Arc::clone(&answer), taken));

    let postrider = Postrider::start(directory.path(), &config);
    let address = postrider.address();
    send(address, "a@corp.example", &["b@example.net"], &message("x")).await;
    is_seen.recv().await.unwrap();
    postrider.ask_to_stop();
    eventually("the door is closed", async || TcpStream::connect(address).await.is_err()).await;
    assert!(is_taken.is_empty());
    answer.notify_one();
    assert_eq!(is_taken.recv().await.unwrap(), "<b@example.net>");
    let ended = tokio::task::spawn_blocking(|| postrider.wait()).await.unwrap();
    assert_eq!(ended.code(), Some(0));

    // Had it been cut off, it would be in doubt now, and go a second time.
    let postrider = Postrider::start(directory.path(), &config);
    send(postrider.address(), "a@corp.example", &["c@example.net"], &message("y")).await;
    is_seen.recv().await.unwrap();
    answer.notify_one();
    assert_eq!(is_taken.recv().await.unwrap(), "<c@example.net>");
}

#[test]
#[cfg(feature = "ses")]
fn the_demo_ends_by_itself_with_nothing_lost_and_nothing_doubled() {
    let (code, out, err) = said(&postrider(&["demo", "--messages", "30", "--rate", "200"]));
    assert_eq!(code, Some(0), "{out}{err}");
    let counts = |name: &str| out.lines().filter_map(|line| line.strip_prefix(name)?.trim().parse().ok()).collect::<Vec<u32>>();
    assert_eq!((counts("accepted"), counts("lost"), counts("doubled")), (vec![30], vec![0], vec![0]), "{out}");
}
