//! A disk that is full, or that may not be written. Needs the right to mount a file system.

use std::process::Command;

use super::*;

/// A small file system in memory.
struct Tmpfs {
    dir: tempfile::TempDir,
}

impl Tmpfs {
    /// `None`, and the reason printed, where mounting is not permitted.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output() {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.dir.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} is still mounted", self.dir.path().display());
    }
}

/// Stores some messages at the same time. Notes those that were acknowledged; an error is the last one.
async fn store_some(spool: &SqliteSpool, size: usize, acknowledged: &mut Vec<MessageId>) -> Result<(), SpoolError> {
    let body = Bytes::from(vec![b'x'; size]);
    let messages = [(); 4].map(|()| suite::message_for(1, &["a@example.org"], Body::Inline(body.clone())));
    let lane = suite::lane();
    let stores = messages.iter().map(|message| spool.store(message.clone(), &lane, false));
    let mut result = Ok(());
    for (message, stored) in messages.iter().zip(futures_util::future::join_all(stores).await) {
        match stored {
            Ok(()) => acknowledged.push(message.id),
            Err(error) => result = Err(error),
        }
    }
    result
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_is_used_again_when_it_has_space() {
    let Some(disk) = Tmpfs::mount("size=64m") else { return };
    let dir = disk.dir.path();
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![0; 8 * 1024 * 1024]).unwrap();
    let settings = Settings { reserve: 24 * 1024 * 1024, ..Settings::new(dir) };
    let (spool, _) = SqliteSpool::open(settings.clone()).await.unwrap();
    let leased = [(); 3].map(|()| suite::message(0, b"accepted while there was space"));
    for message in &leased {
        spool.store(message.clone(), &suite::lane(), true).await.unwrap();
    }
    let mut acknowledged = Vec::new();
    let full = loop {
        if let Err(error) = store_some(&spool, 250_000, &mut acknowledged).await {
            break error;
        }
        assert!(acknowledged.len() < 1000, "the disk is never full");
    };
    assert!(matches!(full, SpoolError::Full(_)), "{full}");
    assert!(acknowledged.len() > 20);

    // What empties the queue is written nevertheless; nothing that fills it is.
    let relayed = |message: &Message| suite::settlement(message.id, &[(0, RecipientState::Relayed)]);
    spool.begin(leased[0].id, &suite::provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    spool.settle(relayed(&leased[0])).await.unwrap();
    fill(&dir.join("more ballast"), 1024 * 1024);
    let body = large(&spool, 0, 64 * 1024 * 1024).await;
    assert!(matches!(body, Err(SpoolError::Full(_))), "{body:?}");
    assert_eq!((names(dir, "incoming"), names(dir, "bodies")), (vec![], vec![]));
    let body = large(&spool, 0, 300_000).await.unwrap();
    assert!(matches!(spool.store(body.clone(), &suite::lane(), false).await, Err(SpoolError::Full(_))));
    assert_eq!(names(dir, "bodies"), Vec::<String>::new(), "what was refused takes no space");
    for refused in [spool.check().await, store_some(&spool, 1, &mut acknowledged).await] {
        assert!(matches!(refused, Err(SpoolError::Full(_))), "{refused:?}");
    }
    assert_eq!(suite::next_due(&spool).await, Some(suite::at(1)), "it is read as ever");

    // A restart finds the disk as full as it was, and goes on.
    drop(spool);
    let (spool, recovered) = SqliteSpool::open(settings.clone()).await.unwrap();
    assert_eq!(recovered, Recovered { released: 2, ..Recovered::default() });
    assert!(matches!(spool.check().await, Err(SpoolError::Full(_))));
    assert_eq!(suite::claim(&spool, 0).await.len(), 2);
    spool.settle(relayed(&leased[1])).await.unwrap();

    // To the last octet: the log is emptied into the database, and its own space is used again.
    fill(&dir.join("filler"), 0);
    spool.settle(relayed(&leased[2])).await.unwrap();
    std::fs::remove_file(dir.join("filler")).unwrap();
    std::fs::remove_file(dir.join("more ballast")).unwrap();
    std::fs::remove_file(&ballast).unwrap();
    // Space is looked for once a second.
    let has_space = async {
        while spool.check().await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), has_space).await.unwrap();
    let refused = spool.store(body, &suite::lane(), false).await.unwrap_err().to_string();
    assert!(refused.contains("has to arrive again"), "{refused}");
    store_some(&spool, 250_000, &mut acknowledged).await.unwrap();
    drop(spool);

    let (spool, recovered) = SqliteSpool::open(settings).await.unwrap();
    assert_eq!(recovered, Recovered::default());
    let mut found: Vec<_> = Vec::new();
    loop {
        let claimed = suite::claim(&spool, 1).await;
        if claimed.is_empty() {
            break;
        }
        found.extend(claimed.iter().map(|stored| stored.message.id));
    }
    found.sort();
    acknowledged.sort();
    assert_eq!(found, acknowledged, "all that was acknowledged, and nothing that was refused");
}

/// Writes until nothing more fits, and gives `spare` octets back.
fn fill(path: &Path, spare: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    while file.write(&[0; 4096]).is_ok_and(|written| written > 0) {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(spare)).unwrap();
}

#[tokio::test]
async fn a_read_only_disk_is_refused_with_its_path() {
    let Some(disk) = Tmpfs::mount("size=1m,ro") else { return };
    let refused = SqliteSpool::open(Settings::new(disk.dir.path())).await.err().unwrap();
    assert!(matches!(refused, SpoolError::Unavailable(_)), "{refused}");
    assert!(refused.to_string().contains(&disk.dir.path().display().to_string()), "{refused}");
}
