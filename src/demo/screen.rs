//! What the demo shows: on a terminal a small picture that is drawn over and over with the events
//! above it, elsewhere plain lines.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::time::Instant;

/// Without a terminal, how often progress is a line.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The width of a bar, in characters.
const BAR: usize = 32;

/// One provider's line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) count: usize,
    pub(super) circuit: &'static str,
}

/// The terminal, or what stands for it.
#[derive(Debug)]
pub(super) struct Screen {
    interactive: bool,
    start: Instant,
    /// Lines of the picture on the terminal now.
    drawn: usize,
    last_line: Option<Instant>,
    last_rows: Vec<Row>,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { interactive: std::io::stdout().is_terminal(), start: Instant::now(), drawn: 0, last_line: None, last_rows: Vec::new() }
    }

    /// Prints a line, with nothing else going on. A closed output is nobody's problem here.
    pub(super) fn plain(text: &str) {
        let _ = writeln!(std::io::stdout(), "{text}");
    }

    /// Something happened: it stays on the terminal, above the picture.
    pub(super) fn event(&mut self, text: &str) {
        let line = format!("{:>6.1}s  {text}", self.start.elapsed().as_secs_f32());
        let erase = self.erase();
        Self::write(&format!("{erase}{line}\n"));
    }

    /// Draws how things are now.
    pub(super) fn draw(&mut self, accepted: usize, total: usize, rows: &[Row]) {
        if self.interactive {
            let mut picture = format!("  accepted          {} {accepted:>5}/{total}\n", bar(accepted, total));
            for row in rows {
                let before = self.last_rows.iter().find(|last| last.name == row.name).map_or(0, |last| last.count);
                let taking = if row.count > before { "<- taking mail" } else { "" };
                // Writing to a String cannot fail.
                let _ =
                    writeln!(picture, "  {:<17} {} {:>5}  circuit {:<9} {taking}", row.name, bar(row.count, total), row.count, row.circuit);
            }
            let erase = self.erase();
            self.drawn = picture.lines().count();
            self.last_rows = rows.to_vec();
            Self::write(&format!("{erase}{picture}"));
        } else if self.last_line.is_none_or(|last| last.elapsed() >= LINE_EVERY) {
            self.last_line = Some(Instant::now());
            let mut line = format!("accepted {accepted}/{total}");
            for row in rows {
                let _ = write!(line, ", {} {} ({})", row.name, row.count, row.circuit);
            }
            self.event(&line);
        }
    }

    /// Leaves the last picture where it is.
    pub(super) fn finish(&mut self) {
        self.drawn = 0;
    }

    /// Takes the picture off the terminal.
    fn erase(&mut self) -> String {
        match std::mem::take(&mut self.drawn) {
            0 => String::new(),
            lines => format!("\x1b[{lines}A\x1b[J"),
        }
    }

    fn write(text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

fn bar(part: usize, whole: usize) -> String {
    let full = (part * BAR / whole.max(1)).min(BAR);
    format!("{}{}", "#".repeat(full), ".".repeat(BAR - full))
}
