//! Finds citations in the sources: `//= url#section-N`, perhaps `//= type=…`, and the quote in `//# …`.

use std::fs;
use std::path::Path;

use super::requirements::{declaration, normal};

/// Where citations may stand, from the root of the repository.
const FOLDERS: [&str; 5] = ["src", "tests", "providers/src", "providers/tests", "fuzz/src"];

/// The tool's own files: citations in them are examples.
const TOOL: &str = "tests/compliance";

/// What every target begins with.
const EDITOR: &str = "https://www.rfc-editor.org/rfc/rfc";

/// One citation.
#[derive(Debug)]
pub(crate) struct Citation {
    pub(crate) path: String,
    /// Of its `//=`.
    pub(crate) line: usize,
    pub(crate) rfc: u32,
    pub(crate) section: String,
    pub(crate) kind: Kind,
    pub(crate) quote: String,
    /// What it stands at, or in.
    pub(crate) item: String,
}

/// What a citation says about the code below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It does this.
    Implementation,
    /// It shows that this is done: `type=test`.
    Test,
    /// It does something else, for the reason in the data: `type=exception`.
    Exception,
}

impl Citation {
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.path, self.line)
    }
}

/// Every citation below `root`; what is not written as one is a complaint.
pub(crate) fn all(root: &Path, found: &mut Vec<String>) -> Vec<Citation> {
    let mut citations = Vec::new();
    for path in sources(root) {
        match fs::read_to_string(root.join(&path)) {
            Ok(text) => parse(&path, &text, &mut citations, found),
            Err(error) => found.push(format!("{path} cannot be read: {error}")),
        }
    }
    citations
}

/// The `.rs` files that may have citations, sorted.
fn sources(root: &Path) -> Vec<String> {
    let mut sources = Vec::new();
    let mut folders: Vec<String> = FOLDERS.map(str::to_owned).to_vec();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries.flatten() {
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if path.starts_with(TOOL) {
                continue;
            }
            if entry.path().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                sources.push(path);
            }
        }
    }
    sources.sort();
    sources
}

/// The citations of one file.
pub(crate) fn parse(path: &str, text: &str, citations: &mut Vec<Citation>, found: &mut Vec<String>) {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut at = 0;
    while at < lines.len() {
        let line = at + 1;
        let mut complain = |what: String| found.push(format!("{path}:{line}: {what}"));
        let Some(target) = lines[at].strip_prefix("//=") else {
            if lines[at].starts_with("//#") {
                complain(format!("a quote without a target; put `//= {EDITOR}N#section-X` above it"));
                at += lines[at..].iter().take_while(|line| line.starts_with("//#")).count();
            } else {
                at += 1;
            }
            continue;
        };
        at += 1;
        let mut kind = Some(Kind::Implementation);
        while let Some(setting) = lines.get(at).and_then(|line| line.strip_prefix("//=")).filter(|setting| setting.contains("type=")) {
            kind = match setting.trim() {
                "type=test" => Some(Kind::Test),
                "type=exception" => Some(Kind::Exception),
                _ => None,
            };
            at += 1;
        }
        let quote: Vec<&str> = lines[at..].iter().map_while(|line| line.strip_prefix("//#")).collect();
        at += quote.len();
        let quote = normal(&quote.join(" "));
        match (place(target.trim()), kind) {
            (None, _) => complain(format!("`//={target}` is no target; expected `//= {EDITOR}N#section-X` or `#appendix-X`")),
            (_, None) => complain("an unknown type; expected `//= type=test`, `//= type=exception` or none".to_owned()),
            _ if quote.is_empty() => complain("a target without a quote; put the sentence below it, as `//# …`".to_owned()),
            (Some((rfc, section)), Some(kind)) => {
                let item = item(&lines, at).unwrap_or("the file").to_owned();
                citations.push(Citation { path: path.to_owned(), line, rfc, section, kind, quote, item });
            }
        }
    }
}

/// `https://www.rfc-editor.org/rfc/rfc5321#section-4.1.4` as 5321 and `4.1.4`.
fn place(target: &str) -> Option<(u32, String)> {
    let (rfc, anchor) = target.strip_prefix(EDITOR)?.split_once('#')?;
    let section = anchor.strip_prefix("section-").or_else(|| anchor.strip_prefix("appendix-"))?;
    (!section.is_empty()).then_some(())?;
    Some((rfc.parse().ok()?, section.to_owned()))
}

/// What the line after a citation declares, or else the function that it stands in.
fn item<'a>(lines: &[&'a str], after: usize) -> Option<&'a str> {
    let next = lines[after..].iter().find(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with('#'));
    next.and_then(|line| declaration(line)).or_else(|| lines[..after].iter().rev().find_map(|line| declaration(line)))
}
