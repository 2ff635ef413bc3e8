//! A power cut in the middle of the last commit: what was acknowledged before it is there.

use super::*;

/// The size of the pieces in which a disk writes, or does not write.
const SECTOR: usize = 512;

/// What is on disk at one moment.
struct Snapshot {
    database: Vec<u8>,
    log: Vec<u8>,
}

impl Snapshot {
    fn take(dir: &Path) -> Self {
        let read = |name| std::fs::read(dir.join(name)).unwrap();
        Self { database: read("spool.db"), log: read("spool.db-wal") }
    }

    /// Opens a spool that finds the database and this log, and tells the bodies it holds.
    async fn bodies(&self, log: &[u8]) -> Vec<Bytes> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("spool.db"), &self.database).unwrap();
        std::fs::write(dir.path().join("spool.db-wal"), log).unwrap();
        let (spool, recovered) = open(dir.path()).await;
        assert_eq!(recovered, Recovered::default());
        // It takes mail again, too.
        spool.store(suite::message(1000, b"after"), &suite::lane(), false).await.unwrap();
        let mut bodies = Vec::new();
        for stored in suite::claim(&spool, 1000).await {
            bodies.push(stored.message.body.bytes().await.unwrap());
        }
        assert_eq!(bodies.pop().unwrap(), &b"after"[..]);
        bodies
    }
}

#[tokio::test]
async fn a_torn_last_commit_takes_nothing_else_with_it() {
    const ACKNOWLEDGED: usize = 12;
    let fixture = OnDisk::fresh().await;
    let bodies: Vec<Bytes> = (0..=ACKNOWLEDGED).map(|n| Bytes::from(vec![n as u8; 3000 + n])).collect();
    for (seconds, body) in (0..).zip(&bodies[..ACKNOWLEDGED]) {
        let message = suite::message_for(seconds, &["a@example.org"], Body::Inline(body.clone()));
        fixture.spool().store(message, &suite::lane(), false).await.unwrap();
    }
    let before = Snapshot::take(fixture.dir.path());
    let last = suite::message_for(99, &["a@example.org"], Body::Inline(bodies[ACKNOWLEDGED].clone()));
    fixture.spool().store(last, &suite::lane(), false).await.unwrap();
    let after = Snapshot::take(fixture.dir.path());
    assert_eq!(before.database, after.database, "nothing is copied into the database yet");
    assert!(after.log.len() > before.log.len() + 4 * SECTOR);

    assert_eq!(after.bodies(&before.log).await, bodies[..ACKNOWLEDGED]);
    assert_eq!(after.bodies(&after.log).await, bodies);

    // Cut anywhere, a sector that says something else, and sectors that were never written.
    let sectors = (after.log.len() - before.log.len()).div_ceil(SECTOR);
    let range = |n: usize| before.log.len() + n * SECTOR..after.log.len().min(before.log.len() + (n + 1) * SECTOR);
    let mut torn = Vec::new();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for n in 0..sectors {
        torn.push(after.log[..range(n).start + 7].to_vec());
        let mut garbled = after.log.clone();
        garbled[range(n)].iter_mut().for_each(|octet| *octet ^= 0x5a);
        torn.push(garbled);
        let mut holes = after.log.clone();
        for n in 0..sectors {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random & 1 == 0 {
                holes[range(n)].fill(0);
            }
        }
        torn.push(holes);
    }
    let mut complete = 0;
    for log in &torn {
        let found = after.bodies(log).await;
        assert_eq!(found[..ACKNOWLEDGED], bodies[..ACKNOWLEDGED]);
        assert!(found.len() == ACKNOWLEDGED || found == bodies);
        complete += usize::from(found.len() > ACKNOWLEDGED);
    }
    assert!(complete < torn.len(), "some of the cuts must have hurt");
}
