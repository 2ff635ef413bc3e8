//! A full disk and a spool that cannot be written: the client keeps its message, nothing that was
//! acknowledged is lost, and service resumes.

#![allow(clippy::unwrap_used, reason = "what does not work here fails the test")]
#![allow(clippy::print_stdout, reason = "says what could not be tested on this machine")]

mod support;

use std::path::Path;
use std::process::Command;

use support::client::{Client, message};
use support::process::Postrider;
use support::sink::Sink;
use support::{eventually, server, smarthost};

/// A small file system of its own. Only root can make one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(directory.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            Some(Self(directory))
        } else {
            println!("not tested: a small file system needs root, to be mounted");
            None
        }
    }

    fn remount(&self, option: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the program under test may still have it open when an assertion has failed.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn config(data_dir: &Path, port: u16) -> String {
    server(data_dir) + &smarthost("sink", port) + "[queue]\nretry = [\"1s\"]\n[failover]\nprobe_after = \"200ms\"\nprobe_max = \"500ms\"\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_for_now_loses_nothing_and_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount(80) else { return };
    let directory = tempfile::tempdir().unwrap();
    let sink_directory = directory.path().join("sink");
    // A free port where nobody listens yet: everything stays in the queue.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let postrider = Postrider::start(directory.path(), &config(disk.0.path(), port));

    let (mut accepted, mut refused) = (Vec::new(), None);
    let padding = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\r\n".repeat(3000);
    let mut client = Client::connect(postrider.address()).await.unwrap();
    for number in 0..2000 {
        let recipient = format!("r{number}@example.net");
        let content = [message(&number.to_string()), padding.clone()].concat();
        let reply = client.send("<app@corp.example>", &[&recipient], &content).await.unwrap();
        if reply.starts_with("250") {
            accepted.push(recipient);
        } else {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("80 MiB hold no 2,000 messages of 200 KiB");
    assert!(refused.starts_with("452 4.3.1") || refused.starts_with("451 4.3.0"), "{refused}");
    assert!(!accepted.is_empty());

    // The provider comes up: the queue drains although the disk is full, and there is room again.
    let sink = Sink::start_at(&sink_directory, port, &[]);
    eventually("every acknowledged message has arrived", async || {
        let copies = sink.copies();
        accepted.iter().all(|recipient| copies.contains_key(recipient))
    })
    .await;
    eventually("mail is taken again", async || {
        let Ok(mut client) = Client::connect(postrider.address()).await else { return false };
        client.send("<app@corp.example>", &["after@example.net"], &message("after")).await.is_ok_and(|reply| reply.starts_with("250"))
    })
    .await;
    eventually("it arrives", async || sink.copies().contains_key("after@example.net")).await;
    let copies = sink.copies();
    assert!(accepted.iter().all(|recipient| copies[recipient] == 1), "nothing is doubled");
    assert!(postrider.terminate().success());
}

/// Makes the files of a spool immutable, or writable again: what a failing disk does when its file
/// system turns read-only under a running program. Not every file system can.
fn immutable(data_dir: &Path, yes: bool) -> bool {
    let files = ["spool.db", "spool.db-wal"].map(|name| data_dir.join(name));
    Command::new("chattr").arg(if yes { "+i" } else { "-i" }).args(files).output().is_ok_and(|output| output.status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_that_becomes_read_only_refuses_for_now_and_serves_again_after_it_is_mended() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let sink = Sink::start(&directory.path().join("sink"), &[]);
    let postrider = Postrider::start(directory.path(), &config(&data_dir, sink.port()));
    let send = async |name: &str| {
        let mut client = Client::connect(postrider.address()).await.unwrap();
        client.send("<app@corp.example>", &[&format!("{name}@example.net")], &message(name)).await.unwrap()
    };
    assert!(send("before").await.starts_with("250"));
    eventually("it arrives", async || sink.copies().contains_key("before@example.net")).await;

    if !immutable(&data_dir, true) {
        println!("not tested: this file system, or this user, cannot make a file immutable");
        return;
    }
    let reply = send("during").await;
    assert!(immutable(&data_dir, false));
    assert!(reply.starts_with("451 4.3.0"), "{reply}");
    eventually("mail is taken again", async || send("after").await.starts_with("250")).await;
    eventually("it arrives", async || sink.copies().contains_key("after@example.net")).await;
    assert!(!sink.copies().contains_key("during@example.net"), "what was refused is the client's");
    assert!(postrider.terminate().success());
}

#[test]
fn a_data_directory_that_cannot_be_written_is_said_at_the_start() {
    let Some(disk) = SmallDisk::mount(10) else { return };
    disk.remount("ro");
    let directory = tempfile::tempdir().unwrap();
    let refused = Postrider::try_start(directory.path(), &config(&disk.0.path().join("data"), 1)).err().expect("it cannot start");
    assert!(refused.contains("Read-only file system") && refused.contains("69"), "{refused}");
}
