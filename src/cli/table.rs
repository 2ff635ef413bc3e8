//! What people are shown: tables that fit the terminal, times as distances, nothing that steers a terminal.

use std::io::IsTerminal as _;
use std::time::{Duration, SystemTime};

use comfy_table::{ContentArrangement, Table};

use super::print;
use crate::admin::wire::Moment;

/// A table with these headings.
pub(super) fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(headings.to_vec()).set_content_arrangement(ContentArrangement::Dynamic);
    // What a program reads is not folded.
    match width() {
        Some(width) => table.set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
    table
}

/// A row of texts that may come from anywhere.
pub(super) fn row(table: &mut Table, cells: impl IntoIterator<Item = String>) {
    table.add_row(cells.into_iter().map(|cell| clean(&cell)).collect::<Vec<_>>());
}

/// The table without blanks at line ends.
pub(super) fn drawn(table: &Table) -> String {
    table.to_string().lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns >= 40)
}

/// The text without characters that a terminal obeys: it may be a provider's, or a stranger's.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// `3 min ago`, `in 40 s`.
pub(super) fn when(moment: Moment, now: SystemTime) -> String {
    match now.duration_since(moment.0) {
        Ok(past) if past < Duration::from_secs(1) => "now".to_owned(),
        Ok(past) => format!("{} ago", span(past)),
        Err(future) => format!("in {}", span(future.duration())),
    }
}

/// `when`, or a dash.
pub(super) fn when_if(moment: Option<Moment>, now: SystemTime) -> String {
    moment.map_or_else(|| "-".to_owned(), |moment| when(moment, now))
}

/// A duration in its largest unit that is not too coarse.
pub(super) fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} d", seconds / 86400),
    }
}

/// Shows something once, or again and again on a cleared screen.
pub(super) async fn watch<E>(every: Option<u64>, mut show: impl AsyncFnMut() -> Result<String, E>) -> Result<(), E> {
    loop {
        let shown = show().await?;
        let Some(every) = every else {
            print(shown.trim_end());
            return Ok(());
        };
        let clear = if std::io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        print(&format!("{clear}{}", shown.trim_end()));
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(every)) => {}
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_distances() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (offset, expected) in [(0, "now"), (40, "40 s ago"), (180, "3 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")] {
            assert_eq!(when(Moment(now - Duration::from_secs(offset)), now), expected);
        }
        assert_eq!(when(Moment(now + Duration::from_secs(90)), now), "in 90 s");
    }

    #[test]
    fn nothing_reaches_the_terminal_that_steers_it() {
        assert_eq!(clean("550 \x1b[2Jno\r"), "550 \u{fffd}[2Jno\u{fffd}");
    }
}
