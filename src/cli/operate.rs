//! `postrider reload` and `postrider drain`: the gateway as a whole.

use serde_json::json;

use super::api::{Gateway, Reach, Trouble};
use super::table::clean;
use super::{Exit, print};
use crate::admin::wire::system::{Draining, ReloadDone};

/// How to reach the gateway.
#[derive(Debug, clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn reload(Options { reach }: &Options) -> Exit {
    let done = async {
        let done: ReloadDone = Gateway::find(reach)?.post(&["reload"], &json!({})).await?;
        print(&match &done.changes[..] {
            _ if reach.json => json!(done).to_string(),
            [] => "nothing has changed".to_owned(),
            changes => clean(&changes.join("\n")),
        });
        Ok(Exit::Ok)
    };
    done.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}

pub(super) async fn drain(Options { reach }: &Options) -> Exit {
    let done = async {
        let done: Draining = Gateway::find(reach)?.post(&["drain"], &json!({})).await?;
        print(&if reach.json { json!(done).to_string() } else { "it takes no new mail, finishes what is at hand, and ends".to_owned() });
        Ok(Exit::Ok)
    };
    done.await.unwrap_or_else(|trouble: Trouble| trouble.report())
}
