//! The suite on SQLite, and what only SQLite and its files can get wrong.

use super::super::suite::{self, Fixture};
use super::*;

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

async fn open(dir: &std::path::Path) -> (SqliteSpool, Recovered) {
    SqliteSpool::open(Settings::new(dir)).await.unwrap()
}

/// A connection as an operator would open it.
fn outside(dir: &std::path::Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("spool.db")).unwrap()
}
