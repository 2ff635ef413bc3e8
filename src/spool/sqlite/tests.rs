//! The suite on SQLite, and what only SQLite and its files can get wrong.

mod disk;
mod torn;

use std::path::Path;

use bytes::Bytes;
use postrider_providers::contract::{Body, Origin};

use super::*;
use crate::spool::suite::{self, Fixture};
use crate::spool::{BodySink, RecipientState};

struct OnDisk {
    dir: tempfile::TempDir,
    spool: Option<SqliteSpool>,
}

impl Fixture for OnDisk {
    type Spool = SqliteSpool;

    async fn fresh() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(dir.path()).await.0;
        Self { dir, spool: Some(spool) }
    }

    fn spool(&self) -> &SqliteSpool {
        self.spool.as_ref().unwrap()
    }

    async fn another_node(&self) -> SqliteSpool {
        self.spool().another_node().await.unwrap()
    }

    async fn crash(&mut self) -> Recovered {
        self.spool = None;
        let (spool, recovered) = open(self.dir.path()).await;
        self.spool = Some(spool);
        recovered
    }

    async fn spoil(&self, id: MessageId) {
        let changed =
            outside(self.dir.path()).execute("UPDATE recipients SET address = 'nowhere' WHERE message = ?1", [id.as_bytes()]).unwrap();
        assert_eq!(changed, 1);
    }
}

suite::every_promise!(OnDisk);

async fn open(dir: &Path) -> (SqliteSpool, Recovered) {
    // The full-disk test has a reserve; the others need not write one each time.
    SqliteSpool::open(Settings { reserve: 0, ..Settings::new(dir) }).await.unwrap()
}

/// A connection as an operator would open it.
fn outside(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("spool.db")).unwrap()
}

/// The names in a directory of the spool.
fn names(dir: &Path, below: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(below)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A message with a body of `size` octets, written through the spool as a session does.
async fn large(spool: &SqliteSpool, seconds: u64, size: usize) -> Result<Arc<Message>, SpoolError> {
    let id = MessageId::generate();
    let mut sink = spool.body(id);
    for piece in vec![b'x'; size].chunks(100_000) {
        sink.write(Bytes::copy_from_slice(piece)).await?;
    }
    let body = sink.finish().await?;
    let message = Arc::unwrap_or_clone(suite::message_for(seconds, &["a@example.org"], body));
    Ok(Arc::new(Message { id, ..message }))
}

#[tokio::test]
async fn a_body_is_a_file_only_beyond_the_limit_and_as_long_as_its_message() {
    let fixture = OnDisk::fresh().await;
    let (spool, dir) = (fixture.spool(), fixture.dir.path());
    let small = large(spool, 0, 256 * 1024).await.unwrap();
    let big = large(spool, 0, 256 * 1024 + 1).await.unwrap();
    assert!(matches!(small.body, Body::Inline(_)));
    assert!(matches!(&big.body, Body::File { len, .. } if *len == 256 * 1024 + 1));
    spool.store(big.clone(), &suite::lane(), true).await.unwrap();
    assert_eq!(names(dir, "bodies"), [format!("{}.eml", big.id)]);
    assert_eq!(names(dir, "incoming"), Vec::<String>::new());
    spool.settle(suite::settlement(big.id, &[(0, RecipientState::Pending)])).await.unwrap();
    assert_eq!(suite::claim(spool, 60).await.len(), 1);
    assert_eq!(names(dir, "bodies").len(), 1);
    spool.settle(suite::settlement(big.id, &[(0, RecipientState::Relayed)])).await.unwrap();
    // The file is removed in the thread that reads, before it turns to this question.
    assert_eq!(spool.counts().await.unwrap(), SpoolCounts::default());
    assert_eq!(names(dir, "bodies"), Vec::<String>::new());
}

#[tokio::test]
async fn a_doubt_is_in_the_journal_with_the_restart_that_finds_it_whatever_happens_next() {
    let dir = tempfile::tempdir().unwrap();
    let doubted = Doubted(Arc::new(|doubt| format!("{} {} {}", doubt.id, doubt.provider, doubt.recipients.len())));
    let open = async || {
        let settings = Settings { reserve: 0, doubted: Some(doubted.clone()), ..Settings::new(dir.path()) };
        SqliteSpool::open(settings).await.unwrap()
    };
    let (cut_off, drained) = (suite::message(0, b"x"), suite::message(0, b"x"));
    let begin = async |spool: &SqliteSpool, message: &Arc<Message>| {
        spool.store(Arc::clone(message), &suite::lane(), true).await.unwrap();
        spool.begin(message.id, &"ses.eu".into(), &[RecipientIndex(0)]).await.unwrap();
    };
    let (spool, _) = open().await;
    begin(&spool, &cut_off).await;
    // Killed; started, and killed again before anybody could write down what was found.
    drop(spool);
    let (spool, recovered) = open().await;
    assert_eq!((recovered.in_doubt, recovered.is_noted), (1, true));
    drop(spool);
    let (spool, recovered) = open().await;
    assert_eq!(recovered.in_doubt, 0);
    let expected = |message: &Arc<Message>| format!("{} ses.eu 1", message.id);
    let records = async |spool: &SqliteSpool| spool.journal(0, 10).await.unwrap().into_iter().map(|(_, record)| record).collect::<Vec<_>>();
    assert_eq!(records(&spool).await, [expected(&cut_off)]);
    // An attempt that is cut off as the store closes.
    begin(&spool, &drained).await;
    spool.close(Duration::from_secs(5)).await.unwrap();
    drop(spool);
    let (spool, _) = open().await;
    assert_eq!(records(&spool).await, [expected(&cut_off), expected(&drained)]);
}

#[tokio::test]
async fn a_body_that_is_not_finished_leaves_nothing() {
    let fixture = OnDisk::fresh().await;
    let dir = fixture.dir.path();
    let mut sink = fixture.spool().body(MessageId::generate());
    sink.write(Bytes::from(vec![0; 300_000])).await.unwrap();
    assert_eq!(names(dir, "incoming").len(), 1, "it is written while it arrives");
    drop(sink);
    assert_eq!(names(dir, "incoming"), Vec::<String>::new());
    assert_eq!(names(dir, "bodies"), Vec::<String>::new());
}

#[tokio::test]
async fn bodies_go_to_files_early_when_together_they_take_too_much_memory() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let settings = Settings { reserve: 0, memory_max: 80_000, ..Settings::new(dir) };
    let (spool, _) = SqliteSpool::open(settings).await.unwrap();
    let arrive = async |size: usize| {
        let mut sink = spool.body(MessageId::generate());
        for _ in 0..size / 1000 {
            sink.write(Bytes::from_static(&[b'x'; 1000])).await.unwrap();
        }
        sink
    };
    // What is there first stays in memory; the second finds no room; a small one needs none.
    let first = arrive(60_000).await;
    assert!(names(dir, "incoming").is_empty());
    let second = arrive(60_000).await;
    assert_eq!(names(dir, "incoming").len(), 1);
    let small = arrive(8_000).await;
    assert_eq!(names(dir, "incoming").len(), 1);

    let first = first.finish().await.unwrap();
    assert!(matches!(&first, Body::Inline(bytes) if bytes.len() == 60_000));
    assert!(matches!(second.finish().await.unwrap(), Body::File { len: 60_000, .. }));
    assert!(matches!(small.finish().await.unwrap(), Body::Inline(bytes) if bytes.len() == 8_000));
    // The first counts for as long as somebody has it.
    assert!(matches!(arrive(60_000).await.finish().await.unwrap(), Body::File { .. }));
    drop(first);
    assert!(matches!(arrive(60_000).await.finish().await.unwrap(), Body::Inline(_)));
}

#[tokio::test]
async fn a_body_from_elsewhere_is_refused() {
    let fixture = OnDisk::fresh().await;
    let path = fixture.dir.path().join("elsewhere.eml");
    std::fs::write(&path, "x").unwrap();
    let foreign = suite::message_for(0, &["a@example.org"], Body::File { path: path.clone(), len: 1 });
    let refused = fixture.spool().store(foreign, &suite::lane(), false).await.unwrap_err().to_string();
    assert!(refused.contains("Spool::body"), "{refused}");
    assert!(path.exists());
}

#[tokio::test]
async fn a_message_whose_body_file_is_gone_or_cut_is_set_aside_alone() {
    let fixture = OnDisk::fresh().await;
    let spool = fixture.spool();
    let (gone, cut) = (large(spool, 0, 300_000).await.unwrap(), large(spool, 1, 300_000).await.unwrap());
    let (good, small) = (large(spool, 2, 300_000).await.unwrap(), suite::message(3, b"small"));
    for message in [&gone, &cut, &good, &small] {
        spool.store(message.clone(), &suite::lane(), false).await.unwrap();
    }
    let file = |message: &Message| fixture.dir.path().join("bodies").join(format!("{}.eml", message.id));
    std::fs::remove_file(file(&gone)).unwrap();
    std::fs::write(file(&cut), "short").unwrap();
    let db = outside(fixture.dir.path());
    db.execute("UPDATE bodies SET data = x'00' WHERE id = ?1", [small.id.as_bytes()]).unwrap();
    let claimed = suite::claim(spool, 9).await;
    assert_eq!(claimed.iter().map(|stored| stored.message.id).collect::<Vec<_>>(), [good.id]);
    assert_eq!(spool.renew(suite::at(9), suite::at(99)).await.unwrap().set_aside.len(), 3);
    // An operator sees why, repairs it, and puts it back.
    let reasons: Vec<String> = {
        let mut reasons = db.prepare("SELECT reason FROM set_aside ORDER BY id").unwrap();
        reasons.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert!(reasons[0].contains("No such file"), "{reasons:?}");
    assert!(reasons[1].contains("5 octets, 300000 were stored"), "{reasons:?}");
    assert_eq!(reasons[2], "its body has 1 octets, 5 were stored");
    std::fs::write(file(&cut), vec![0; 300_000]).unwrap();
    db.execute("UPDATE messages SET owner = NULL WHERE id = ?1", [cut.id.as_bytes()]).unwrap();
    assert_eq!(suite::claim(spool, 9).await[0].message.id, cut.id);
}

#[tokio::test]
async fn body_files_that_no_message_names_are_moved_away_at_the_start() {
    let mut fixture = OnDisk::fresh().await;
    let kept = large(fixture.spool(), 0, 300_000).await.unwrap();
    fixture.spool().store(kept.clone(), &suite::lane(), false).await.unwrap();
    // Finished, and the process ended before it was stored.
    let orphan = large(fixture.spool(), 0, 300_000).await.unwrap();
    let dir = fixture.dir.path().to_owned();
    std::fs::write(dir.join("bodies/notes.txt"), "x").unwrap();
    std::fs::write(dir.join("incoming/half.tmp"), "x").unwrap();
    let recovered = fixture.crash().await;
    assert_eq!(recovered.set_aside.len(), 2, "{recovered:?}");
    assert_eq!(names(&dir, "bodies"), [format!("{}.eml", kept.id)]);
    assert_eq!(names(&dir, "incoming"), Vec::<String>::new());
    let mut away = names(&dir, "set_aside");
    away.sort();
    assert_eq!(away, [format!("{}.eml", orphan.id), "notes.txt".into()]);
    assert_eq!(suite::claim(fixture.spool(), 0).await.len(), 1);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    let mut fixture = OnDisk::fresh().await;
    let refused = SqliteSpool::open(Settings::new(fixture.dir.path())).await.err().unwrap().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    fixture.crash().await;
}

#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_lease_behind() {
    let fixture = OnDisk::fresh().await;
    let spool = fixture.spool();
    spool.store(suite::message(0, b"x"), &suite::lane(), false).await.unwrap();
    {
        let claim = suite::claim_most(spool, suite::at(0), 10, u64::MAX);
        let mut claim = std::pin::pin!(claim);
        // Polled once, so that the write is on its way, and dropped.
        assert!(futures_util::poll!(claim.as_mut()).is_pending());
    }
    assert_eq!(suite::claim(spool, 0).await.len(), 1);
    let stored = suite::message(0, b"y");
    {
        let lane = suite::lane();
        let mut store = std::pin::pin!(spool.store(stored.clone(), &lane, true));
        assert!(futures_util::poll!(store.as_mut()).is_pending());
    }
    assert_eq!(suite::claim(spool, 0).await[0].message.id, stored.id);
}

#[tokio::test]
async fn one_write_that_fails_does_not_fail_those_in_its_transaction() {
    let fixture = OnDisk::fresh().await;
    outside(fixture.dir.path())
        .execute_batch("CREATE TRIGGER no AFTER INSERT ON recipients WHEN NEW.address = 'no@x' BEGIN SELECT raise(ABORT, 'no'); END")
        .unwrap();
    let spool = fixture.spool();
    let addresses = ["a@x", "no@x", "b@x", "c@x", "no@x", "d@x"];
    let stores = addresses.map(|address| {
        let message = suite::message_for(0, &[address], Body::Inline(Bytes::from_static(b"x")));
        async move { spool.store(message, &suite::lane(), false).await }
    });
    let stored: Vec<bool> = futures_util::future::join_all(stores).await.iter().map(Result::is_ok).collect();
    assert_eq!(stored, [true, false, true, true, false, true]);
    let claimed = suite::claim(spool, 0).await;
    let addresses: Vec<_> = claimed.iter().map(|stored| stored.message.envelope.recipients[0].address.as_str()).collect();
    assert_eq!(addresses, ["a@x", "b@x", "c@x", "d@x"]);
}

#[tokio::test]
async fn the_schema_is_the_one_that_was_released() {
    let fixture = OnDisk::fresh().await;
    let db = outside(fixture.dir.path());
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
    let mut columns = db
        .prepare(
            "SELECT t.name || '(' || group_concat(c.name, ' ') || ')' FROM sqlite_schema t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite%' GROUP BY t.name ORDER BY t.name",
        )
        .unwrap();
    let columns: Vec<String> = columns.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    let released = [
        "bodies(id data)",
        "journal(seq record)",
        "lanes(id priority route domain)",
        "messages(id received reverse_path body_type smtputf8 size body_file attempts due owner returned envelope_id application client \
         lane message_id priority idle held_at warned rerouted doubts holds deaths)",
        "nodes(id alive_until)",
        "notes(key value)",
        "probe(at)",
        "quota_use(quota share slot used)",
        "recipients(message position address state provider asked diagnostic notify original_type original handover last_provider not_before)",
        "set_aside(id at reason)",
    ];
    assert_eq!((version, columns), (4, released.map(String::from).to_vec()), "a released step is never edited: add the next one");
}

#[tokio::test]
async fn a_spool_of_the_first_schema_is_taken_over_with_the_mail_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let (waiting, held) = (MessageId::generate(), MessageId::generate());
    {
        let db = outside(dir.path());
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch(include_str!("schema/0001.sql")).unwrap();
        db.pragma_update(None, "application_id", 0x506f_7374).unwrap();
        db.pragma_update(None, "user_version", 1).unwrap();
        for (id, due) in [(waiting, Some(1_800_000_000_000_i64)), (held, None)] {
            db.execute(
                "INSERT INTO messages VALUES (?1, 1800000000000, 'a@b.example', '8bitmime', 0, 4, NULL, 2, ?2, NULL)",
                (id.as_bytes(), due),
            )
            .unwrap();
            db.execute("INSERT INTO bodies VALUES (?1, x'61620d0a')", [id.as_bytes()]).unwrap();
        }
        let recipient = "INSERT INTO recipients VALUES (?1, ?2, ?3, ?4, ?5, NULL, NULL)";
        db.execute(recipient, (waiting.as_bytes(), 0, "c@d.example", "relayed", None::<&str>)).unwrap();
        db.execute(recipient, (waiting.as_bytes(), 1, "e@d.example", "in_doubt", Some("ses.eu"))).unwrap();
        db.execute(recipient, (held.as_bytes(), 0, "f@d.example", "held", Some("ses.eu"))).unwrap();
    }
    let (spool, recovered) = open(dir.path()).await;
    assert_eq!(recovered, Recovered::default());
    let counts = spool.counts().await.unwrap();
    assert_eq!((counts.messages, counts.waiting, counts.held), (2, 1, 1));

    // Nobody wrote down where it waits.
    let wants = [Want { lane: Lane::default(), limit: 10 }];
    let stored = spool.claim(suite::at(1), &wants, u64::MAX).await.unwrap().remove(0).messages.remove(0);
    assert_eq!((stored.message.id, stored.attempts), (waiting, 2));
    assert_eq!(stored.recipients, [RecipientState::Relayed, RecipientState::InDoubt(suite::provider("ses.eu"))]);
    assert_eq!(stored.handovers, [None, None], "nobody wrote down who was in it together");
    assert_eq!(stored.message.body.bytes().await.unwrap(), "ab\r\n");
    assert_eq!(stored.message.origin, Origin::default());
    let envelope = &stored.message.envelope;
    assert_eq!((envelope.returned, &envelope.envelope_id), (None, &None));
    assert!(envelope.recipients.iter().all(|recipient| recipient.notify.is_none() && recipient.original.is_none()));
    spool.settle(suite::settlement(waiting, &[(1, RecipientState::Relayed)])).await.unwrap();
    assert_eq!(spool.counts().await.unwrap().messages, 1);
}

#[tokio::test]
async fn what_is_written_about_notifications_is_read_with_suspicion() {
    for damage in [
        "messages SET returned = 'ALL' WHERE id",
        "messages SET envelope_id = 'a' || char(13) || char(10) || 'b' WHERE id",
        "messages SET client = 'nowhere' WHERE id",
        "recipients SET notify = 'ALWAYS' WHERE message",
        "recipients SET original = 'a' || char(10) || 'b', original_type = 'rfc822' WHERE message",
        "recipients SET original_type = 'rfc822' WHERE message",
        "recipients SET original = 'a@b' WHERE message",
    ] {
        let fixture = OnDisk::fresh().await;
        let message = suite::message(0, b"x");
        fixture.spool().store(message.clone(), &suite::lane(), false).await.unwrap();
        assert_eq!(outside(fixture.dir.path()).execute(&format!("UPDATE {damage} = ?1"), [message.id.as_bytes()]).unwrap(), 1);
        assert_eq!(suite::claim(fixture.spool(), 9).await.len(), 0, "{damage}");
        assert_eq!(fixture.spool().renew(suite::at(9), suite::at(99)).await.unwrap().set_aside.len(), 1, "{damage}");
    }
}

#[tokio::test]
async fn a_newer_or_foreign_database_is_refused_and_left_alone() {
    let mut fixture = OnDisk::fresh().await;
    fixture.spool = None;
    let dir = fixture.dir.path();
    outside(dir).pragma_update(None, "user_version", 99).unwrap();
    let refused = SqliteSpool::open(Settings::new(dir)).await.err().unwrap().to_string();
    assert!(refused.contains("schema version 99") && refused.contains("newer"), "{refused}");
    outside(dir).pragma_update(None, "application_id", 7).unwrap();
    let refused = SqliteSpool::open(Settings::new(dir)).await.err().unwrap().to_string();
    assert!(refused.contains("another program"), "{refused}");
    std::fs::write(dir.join("spool.db"), "this is not a database, and long enough to tell".repeat(30)).unwrap();
    let refused = SqliteSpool::open(Settings::new(dir)).await.err().unwrap().to_string();
    assert!(refused.contains("spool.db"), "{refused}");
    assert!(std::fs::read_to_string(dir.join("spool.db")).unwrap().starts_with("this is not"));
}

#[tokio::test]
async fn no_query_walks_through_all_messages() {
    let fixture = OnDisk::fresh().await;
    let db = outside(fixture.dir.path());
    let sources = [
        include_str!("ops.rs"),
        include_str!("record.rs"),
        include_str!("recover.rs"),
        include_str!("lanes.rs"),
        include_str!("quotas.rs"),
        include_str!("../sqlite.rs"),
    ];
    let mut seen = 0;
    for literal in sources.iter().flat_map(|source| source.split('"').skip(1).step_by(1)) {
        let sql = literal.replace("\\\n", " ");
        if !["SELECT ", "UPDATE ", "DELETE ", "WITH "].iter().any(|verb| sql.starts_with(verb)) {
            continue;
        }
        seen += 1;
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let parameters = vec![rusqlite::types::Null; plan.parameter_count()];
        let steps = plan.query_map(rusqlite::params_from_iter(parameters), |row| row.get::<_, String>(3)).unwrap();
        for step in steps.map(Result::unwrap) {
            // These are as short as the nodes, the lanes, the leases and the file system allow; counting may take its time.
            let bounded = ["SCAN nodes", "SCAN lanes", "SCAN in_use", "SCAN probe", "SCAN CONSTANT ROW", "messages_leased"];
            let bounded = bounded.iter().any(|part| step.contains(part));
            let sorts_lanes = step.contains("TEMP B-TREE FOR ORDER BY") && sql.contains("FROM in_use");
            let walks = step.starts_with("SCAN") || step.contains("TEMP B-TREE");
            let counting = sql.contains("count(*)");
            assert!(!walks || bounded || sorts_lanes || counting, "{sql}\n{step}");
        }
    }
    assert!(seen > 20, "only {seen} statements were found");
}

#[tokio::test]
async fn a_clear_look_from_outside_is_possible_while_it_runs() {
    let fixture = OnDisk::fresh().await;
    let stored = suite::message(0, b"x");
    fixture.spool().store(stored.clone(), &suite::lane(), true).await.unwrap();
    fixture.spool().begin(stored.id, &suite::provider("ses.eu"), &[RecipientIndex(0)]).await.unwrap();
    let row: (String, String, String, String) = outside(fixture.dir.path())
        .query_row(
            "SELECT lower(hex(id)), datetime(received / 1000, 'unixepoch'), state, asked FROM messages, recipients WHERE message = id",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
        )
        .unwrap();
    assert_eq!(row, (stored.id.to_string(), "2027-01-15 08:00:00".into(), "pending".into(), "ses.eu".into()));
}
