//! Records that are found again, and what crashes, damage and full disks leave of them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use tokio::task::JoinHandle;

use super::event::{About, millis};
use super::query::MOST;
use super::*;
use crate::spool::memory::MemorySpool;

/// A message whose id and addresses come of a number.
fn id(number: u128) -> MessageId {
    MessageId::from_bytes(number.to_be_bytes())
}

fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

fn about(number: u128) -> About {
    About {
        received: millis(start()) + u64::try_from(number).unwrap(),
        sender: format!("s{}@Corp.example", number % 2),
        recipients: vec![format!("r{number}@Example.NET"), "all@example.net".to_owned()],
        message_id: Some(format!("{number}@corp.example").into()),
        size: 1000,
        application: Some(if number.is_multiple_of(2) { "erp" } else { "shop" }.into()),
        client: Some("192.0.2.1".to_owned()),
    }
}

fn record(number: u128, about: Option<About>, events: Vec<Event>, ended: bool) -> String {
    let at = millis(start()) + u64::try_from(number).unwrap();
    Record { at, message: id(number).to_string(), about, events, ended }.to_json()
}

fn attempt(provider: &str, verdict: &str) -> Event {
    let (provider, route, verdict) = (provider.to_owned(), "default".to_owned(), verdict.to_owned());
    Event::Attempt { number: 1, provider, route, recipients: vec![0, 1], verdict, words: "words".to_owned(), elapsed_ms: 12 }
}

/// Relayed at once to both recipients.
fn relayed(number: u128) -> String {
    let (provider, remote_id) = ("ses.eu".to_owned(), Some(format!("remote-{number}")));
    let relayed = Event::Relayed { recipients: vec![0, 1], provider, remote_id, words: "250 Ok".to_owned() };
    record(number, Some(about(number)), vec![attempt("ses.eu", "relayed"), relayed], true)
}

/// The first recipient bounced, the second waits.
fn in_parts(number: u128) -> String {
    let bounced = Event::Bounced { recipients: vec![0], words: "550 no".to_owned() };
    let deferred = Event::Deferred { recipients: vec![1], words: "450 later".to_owned(), due: 7 };
    record(number, Some(about(number)), vec![attempt("smarthost.a", "deferred"), bounced, deferred], false)
}

fn settings(keep: u64) -> config::History {
    config::History { keep: Some(Duration::from_secs(keep)).filter(|keep| !keep.is_zero()), ..config::History::default() }
}

/// A history at work over a spool.
struct Running {
    history: History,
    hint: Arc<Notify>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(history: History, spool: &MemorySpool) -> Self {
        let (hint, stop) = (Arc::<Notify>::default(), CancellationToken::new());
        let (run, spool, hints, stopped) = (history.clone(), spool.clone(), Arc::clone(&hint), stop.clone());
        let task = tokio::spawn(async move { run.run(spool, hints, stopped).await });
        Self { history, hint, stop, task }
    }

    fn at(dir: &Path, spool: &MemorySpool) -> Self {
        Self::start(History::at(dir, settings(10_000_000_000), Clock::system()), spool)
    }

    /// Waits until the journal is in the history: all of it, if that is so many messages.
    async fn holds(&self, messages: u64) {
        let holds = async {
            while self.history.size().await.map(|size| size.messages) != Ok(messages) {
                self.hint.notify_one();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let held = tokio::time::timeout(Duration::from_secs(30), holds).await;
        assert!(held.is_ok(), "{:?} instead of {messages}", self.history.size().await);
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn found(history: &History, query: Query) -> Vec<MessageId> {
    history.search(&query).await.unwrap().iter().map(|past| past.id).collect()
}

#[tokio::test]
async fn messages_are_found_by_what_is_known_of_them_the_newest_first() {
    let spool = MemorySpool::new();
    for number in 0..4 {
        spool.note(relayed(number)).await.unwrap();
    }
    spool.note(in_parts(4)).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let running = Running::at(dir.path(), &spool);
    running.holds(5).await;
    let history = &running.history;
    let text = |text: &str| Some(text.to_owned());
    let all = Query::default();
    for (query, expected) in [
        (all.clone(), vec![4, 3, 2, 1, 0]),
        (Query { id: Some(id(2)), ..all.clone() }, vec![2]),
        (Query { message_id: text("<3@corp.example>"), ..all.clone() }, vec![3]),
        (Query { remote_id: text("remote-1"), ..all.clone() }, vec![1]),
        (Query { sender: text("s1@CORP.example"), ..all.clone() }, vec![3, 1]),
        (Query { sender: text("S1@corp.example"), ..all.clone() }, vec![]),
        (Query { sender: text("*@corp.EXAMPLE"), limit: 2, ..all.clone() }, vec![4, 3]),
        (Query { recipient: text("r2@example.net"), ..all.clone() }, vec![2]),
        (Query { recipient: text("R2@*"), ..all.clone() }, vec![2]),
        (Query { recipient: text("*2@example*"), ..all.clone() }, vec![2]),
        (Query { recipient: text("*@example.org"), ..all.clone() }, vec![]),
        (Query { provider: text("smarthost.a"), ..all.clone() }, vec![4]),
        (Query { route: text("default"), application: text("shop"), ..all.clone() }, vec![3, 1]),
        (Query { client: text("192.0.2.1"), since: Some(start() + Duration::from_millis(2)), ..all.clone() }, vec![4, 3, 2]),
        (Query { until: Some(start() + Duration::from_millis(2)), ..all.clone() }, vec![1, 0]),
        (Query { state: Some(PastState::Relayed), ..all.clone() }, vec![3, 2, 1, 0]),
        (Query { state: Some(PastState::Bounced), ..all.clone() }, vec![4]),
        (Query { state: Some(PastState::Queued), recipient: text("all@example.net"), ..all.clone() }, vec![4]),
        // Not both of one recipient.
        (Query { state: Some(PastState::Queued), recipient: text("r4@example.net"), ..all.clone() }, vec![]),
    ] {
        let expected: Vec<MessageId> = expected.into_iter().map(id).collect();
        assert_eq!(found(history, query.clone()).await, expected, "{query:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn pages_of_an_address_follow_each_other_without_a_gap_or_a_repetition() {
    let spool = MemorySpool::new();
    for number in 0..25 {
        // Several of the same moment.
        let about = About { received: millis(start()) + u64::try_from(number).unwrap() / 4, ..about(number) };
        spool.note(record(number, Some(about), Vec::new(), true)).await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let running = Running::at(dir.path(), &spool);
    running.holds(25).await;
    let of_recipient = Query { recipient: Some("all@example.net".to_owned()), limit: 4, ..Query::default() };
    for mut query in [of_recipient, Query { limit: 4, ..Query::default() }] {
        let mut all = Vec::new();
        loop {
            let page = running.history.search(&query).await.unwrap();
            let Some(last) = page.last() else { break };
            query.before = Some(last.place());
            all.extend(page.into_iter().map(|past| past.id));
        }
        assert_eq!(all, (0..25).rev().map(id).collect::<Vec<_>>());
    }
    running.stop().await;
}

#[tokio::test]
async fn a_trace_has_the_message_and_all_that_happened_in_order() {
    let spool = MemorySpool::new();
    spool.note(in_parts(4)).await.unwrap();
    let action = Event::Action { action: "remove".to_owned(), words: "spam".to_owned(), by: "ann".to_owned() };
    spool.note(record(4, Some(about(4)), vec![action.clone()], true)).await.unwrap();
    let tripped = Event::Action { action: "trip".to_owned(), words: "ses.eu".to_owned(), by: "bob".to_owned() };
    spool.note(Record { at: 9, message: String::new(), about: None, events: vec![tripped.clone()], ended: false }.to_json()).await.unwrap();
    let running = Running::start(History::in_memory(settings(10_000_000_000), Clock::system()), &spool);
    running.holds(1).await;
    let trace = running.history.trace(id(4)).await.unwrap().unwrap();
    assert_eq!(trace.events.len(), 4);
    assert_eq!(trace.events.last().map(|moment| &moment.event), Some(&action));
    let states: Vec<_> = trace.past.recipients.iter().map(|recipient| (recipient.state, recipient.words.as_str())).collect();
    assert_eq!(states, [(PastState::Bounced, "550 no"), (PastState::Removed, "450 later")]);
    assert_eq!((trace.past.state, trace.past.ended), (PastState::Bounced, Some(millis(start()) + 4)));
    assert_eq!(running.history.trace(id(5)).await.unwrap(), None);
    assert_eq!(running.history.actions(MOST).await.unwrap(), [Moment { at: 9, event: tripped }]);
    running.stop().await;
}

#[tokio::test]
async fn what_was_in_doubt_after_a_crash_is_known_before_the_message_is() {
    let spool = MemorySpool::new();
    let doubt = Event::InDoubt { recipients: vec![1], provider: "ses.eu".to_owned(), words: "cut off".to_owned(), held: false };
    spool.note(record(3, None, vec![doubt], false)).await.unwrap();
    let running = Running::start(History::in_memory(settings(10_000_000_000), Clock::system()), &spool);
    running.holds(1).await;
    assert_eq!(running.history.trace(id(3)).await.unwrap().unwrap().past.state, PastState::InDoubt);
    spool.note(relayed(3)).await.unwrap();
    spool.note(relayed(4)).await.unwrap();
    running.holds(2).await;
    let past = running.history.trace(id(3)).await.unwrap().unwrap().past;
    assert_eq!(
        (past.state, past.about),
        (PastState::Relayed, About { recipients: past_addresses(3), sender: "s1@corp.example".into(), ..about(3) })
    );
    running.stop().await;
}

fn past_addresses(number: u128) -> Vec<String> {
    vec![format!("r{number}@example.net"), "all@example.net".to_owned()]
}

/// Events of the message in the file, which nobody has open.
fn events(dir: &Path) -> i64 {
    let db = Connection::open(dir.join("history.db")).unwrap();
    db.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_crash_between_the_two_commits_neither_loses_nor_doubles_a_record() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), MemorySpool::new());
    let history = History::at(dir.path(), settings(10_000_000_000), Clock::system());
    for number in 0..3 {
        spool.note(relayed(number)).await.unwrap();
    }
    // As far as the first commit: it is in the history, and the journal still has it.
    let name = "\"a-spool\"";
    spool.remember("history/spool", Some(name.to_owned())).await.unwrap();
    let batch = spool.journal(0, 2).await.unwrap();
    let database = history.open().await.unwrap();
    assert_eq!(database.write(move |db| records::take_over(db, name, &batch)).await.unwrap(), 2);
    drop(database);
    history.close().await;
    assert_eq!(events(dir.path()), 2);
    assert_eq!(spool.journal(0, 100).await.unwrap().len(), 3);

    let (spool, _) = spool.crash();
    let running = Running::at(dir.path(), &spool);
    running.holds(3).await;
    running.stop().await;
    assert_eq!(events(dir.path()), 3, "each once");
    assert!(spool.journal(0, 100).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_new_spool_whose_numbers_begin_again_is_not_taken_for_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    for number in [1, 2] {
        let spool = MemorySpool::new();
        spool.note(relayed(number)).await.unwrap();
        let running = Running::at(dir.path(), &spool);
        running.holds(u64::try_from(number).unwrap()).await;
        running.stop().await;
    }
}

#[tokio::test]
async fn a_history_that_is_damaged_or_of_a_newer_version_is_moved_aside_and_a_new_one_begun() {
    let newer = |path: &Path| {
        let db = Connection::open(path).unwrap();
        db.pragma_update(None, "application_id", 0x4869_7374).unwrap();
        db.pragma_update(None, "user_version", 2).unwrap();
    };
    let damaged = |path: &Path| std::fs::write(path, b"no database at all, and longer than a header of one would be".repeat(99)).unwrap();
    let spoilers: [&dyn Fn(&Path); 2] = [&newer, &damaged];
    for spoil in spoilers {
        let (dir, spool) = (tempfile::tempdir().unwrap(), MemorySpool::new());
        let path = dir.path().join("history.db");
        spoil(&path);
        let before = std::fs::metadata(&path).unwrap().len();
        spool.note(relayed(1)).await.unwrap();
        let running = Running::at(dir.path(), &spool);
        running.holds(1).await;
        running.stop().await;
        assert_eq!(std::fs::metadata(dir.path().join("history.db.aside")).unwrap().len(), before);
    }
}

#[tokio::test]
async fn when_it_cannot_be_written_the_journal_grows_to_a_bound_and_the_oldest_goes() {
    let (dir, spool) = (tempfile::tempdir().unwrap(), MemorySpool::new());
    // A directory in its place cannot be opened, whoever asks.
    let path = dir.path().join("history.db");
    std::fs::create_dir(&path).unwrap();
    for number in 0..35 {
        spool.note(relayed(number)).await.unwrap();
    }
    let history = History::new(Location::File(path.clone()), settings(10_000_000_000), Clock::system(), 10);
    let running = Running::start(history, &spool);
    let bounded = async {
        while spool.journal(0, 100).await.unwrap().len() > 10 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), bounded).await.is_ok());
    let left = spool.journal(0, 100).await.unwrap();
    assert_eq!(left.last().map(|(number, _)| *number), Some(35), "the newest stay");
    // Once it can be written again, what is left is moved.
    std::fs::remove_dir(&path).unwrap();
    running.holds(left.len() as u64).await;
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_is_forgotten_some_time_after_its_end_and_not_before() {
    let spool = MemorySpool::new();
    let clock = Clock::following_tokio(start());
    let running = Running::start(History::in_memory(settings(3600), clock), &spool);
    for number in 0..500 {
        spool.note(if number == 7 { in_parts(number) } else { relayed(number) }).await.unwrap();
    }
    running.hint.notify_one();
    tokio::time::sleep(Duration::from_secs(3500)).await;
    assert_eq!(running.history.size().await.unwrap().messages, 500);
    tokio::time::sleep(Duration::from_secs(200)).await;
    // It waits still, for all that is known.
    assert_eq!(found(&running.history, Query::default()).await, [id(7)]);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn beyond_its_size_the_oldest_goes() {
    let spool = MemorySpool::new();
    let limits = config::History { max_size: 300_000, ..settings(10_000_000_000) };
    let running = Running::start(History::in_memory(limits, Clock::system()), &spool);
    for number in 0..3000 {
        spool.note(relayed(number)).await.unwrap();
    }
    running.hint.notify_one();
    tokio::time::sleep(Duration::from_secs(600)).await;
    let size = running.history.size().await.unwrap();
    assert!(size.octets <= 300_000, "{size:?}");
    assert!(size.messages > 50, "{size:?}");
    assert_eq!(found(&running.history, Query { limit: 1, ..Query::default() }).await, [id(2999)]);
    assert!(found(&running.history, Query { id: Some(id(0)), ..Query::default() }).await.is_empty());
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_history_the_journal_is_emptied_and_searches_say_so() {
    let spool = MemorySpool::new();
    let running = Running::start(History::in_memory(settings(0), Clock::system()), &spool);
    spool.note(relayed(1)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(spool.journal(0, 1).await.unwrap().is_empty());
    assert_eq!(running.history.search(&Query::default()).await, Err(HistoryError::Off));
    // It may be wanted later.
    running.history.configure(settings(10_000_000_000));
    spool.note(relayed(2)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(found(&running.history, Query::default()).await, [id(2)]);
    running.stop().await;
}
