//! Reads `docs/compliance/rfcN.toml`: what each RFC asks, and what was decided about it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Where the data is, from the root of the repository.
pub(crate) const FOLDER: &str = "docs/compliance";

/// One RFC.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    pub(crate) rfc: u32,
    pub(crate) title: String,
    /// What it is to Postrider.
    pub(crate) about: String,
    #[serde(rename = "requirement")]
    pub(crate) requirements: Vec<Requirement>,
}

/// One sentence of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Requirement {
    /// `4.1.4`, or the letter of an appendix.
    pub(crate) section: String,
    pub(crate) level: Level,
    /// The sentence, word by word; its line breaks are single spaces.
    pub(crate) quote: String,
    /// `path#name`: what holds it without citing it.
    #[serde(default)]
    pub(crate) held_by: Vec<String>,
    /// Why it is not done.
    pub(crate) deviation: Option<String>,
    /// Why it does not concern Postrider.
    pub(crate) not_applicable: Option<String>,
}

/// How much the RFC wants it (RFC 2119).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Level {
    #[serde(rename = "MUST")]
    Must,
    #[serde(rename = "MUST NOT")]
    MustNot,
    #[serde(rename = "SHOULD")]
    Should,
    #[serde(rename = "SHOULD NOT")]
    ShouldNot,
    /// A sentence without such a word that decides something all the same.
    #[serde(rename = "info")]
    Info,
}

impl Level {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Must => "MUST",
            Self::MustNot => "MUST NOT",
            Self::Should => "SHOULD",
            Self::ShouldNot => "SHOULD NOT",
            Self::Info => "info",
        }
    }

    /// Whether `quote` has a word of this level, in capitals or, as older RFCs have it, in small letters.
    fn is_said_in(self, quote: &str) -> bool {
        let quote = quote.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| quote.contains(word));
        match self {
            Self::Must => says(&["must", "required", "shall"]),
            Self::MustNot => says(&["must not", "shall not", "may not"]),
            Self::Should => says(&["should", "recommended"]),
            Self::ShouldNot => says(&["should not", "not recommended"]),
            Self::Info => true,
        }
    }
}

impl Document {
    /// The file that it was read from.
    pub(crate) fn path(&self) -> String {
        format!("{FOLDER}/rfc{}.toml", self.rfc)
    }

    /// All of them, by number; what cannot be read is a complaint.
    pub(crate) fn all(root: &Path, found: &mut Vec<String>) -> Vec<Self> {
        let mut documents = Vec::new();
        let Ok(entries) = fs::read_dir(root.join(FOLDER)) else {
            found.push(format!("{FOLDER} cannot be read"));
            return documents;
        };
        let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        for name in names {
            let path = format!("{FOLDER}/{name}");
            let text = match fs::read_to_string(root.join(&path)) {
                Ok(text) => text,
                Err(error) => {
                    found.push(format!("{path} cannot be read: {error}"));
                    continue;
                }
            };
            match toml::from_str::<Self>(&text) {
                Ok(document) if document.path() == path => documents.push(document),
                Ok(document) => found.push(format!("{path} says rfc = {}; it must be called {}", document.rfc, document.path())),
                Err(error) => found.push(format!("{path}: {error}")),
            }
        }
        documents.sort_by_key(|document| document.rfc);
        documents
    }

    /// What is wrong with the data itself.
    pub(crate) fn check(&self, root: &Path, found: &mut Vec<String>) {
        let mut known = BTreeSet::new();
        for requirement in &self.requirements {
            let mut complain = |what: &str| found.push(format!("{}: {}: {what}", self.path(), requirement.name()));
            if normal(&requirement.quote) != requirement.quote {
                complain("the quote has line breaks, double spaces or a broken word; write it on one line");
            }
            if !known.insert((&requirement.section, &requirement.quote)) {
                complain("is there twice; keep one");
            }
            if !requirement.level.is_said_in(&requirement.quote) {
                complain(&format!("level = \"{}\", and the quote does not say so", requirement.level.as_str()));
            }
            let reasons = [&requirement.deviation, &requirement.not_applicable];
            if reasons.iter().filter(|reason| reason.is_some()).count() + usize::from(!requirement.held_by.is_empty()) > 1 {
                complain("has two of held_by, deviation and not_applicable; keep the one that is true");
            }
            for reason in reasons.into_iter().flatten() {
                if !reason.ends_with('.') {
                    complain("a reason is a sentence, and ends with a period");
                }
            }
            for pointer in &requirement.held_by {
                if let Err(problem) = follow(root, pointer) {
                    complain(&format!("held_by = \"{pointer}\": {problem}"));
                }
            }
        }
    }
}

impl Requirement {
    /// How complaints name it.
    pub(crate) fn name(&self) -> String {
        let start: String = self.quote.chars().take(60).collect();
        format!("section {}, \"{start}{}\"", self.section, if start.len() < self.quote.len() { "…" } else { "" })
    }
}

/// Whether the file of a pointer declares what it names.
fn follow(root: &Path, pointer: &str) -> Result<(), String> {
    let Some((path, name)) = pointer.split_once('#') else {
        return Err("expected path#name, as in src/smtp/decoder.rs#decode".to_owned());
    };
    let text = fs::read_to_string(root.join(path)).map_err(|_| format!("there is no file {path}"))?;
    let declared = text.lines().filter_map(declaration).any(|declared| declared == name);
    if declared { Ok(()) } else { Err(format!("{path} declares no function, type or constant called {name}")) }
}

/// The name that a line of Rust declares.
pub(crate) fn declaration(line: &str) -> Option<&str> {
    const QUALIFIERS: [&str; 4] = ["pub", "async", "unsafe", "extern"];
    const KEYWORDS: [&str; 7] = ["fn", "struct", "enum", "trait", "const", "static", "type"];
    let mut words = line.split_whitespace().skip_while(|word| QUALIFIERS.contains(word) || word.starts_with("pub("));
    let mut keyword = words.next()?;
    if keyword == "const" && line.contains(" fn ") {
        keyword = words.next()?;
    }
    if !KEYWORDS.contains(&keyword) {
        return None;
    }
    let name = words.next()?;
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (end > 0).then(|| &name[..end])
}

/// A quote without what only the layout of a page puts in: line breaks, and words broken at a hyphen.
pub(crate) fn normal(text: &str) -> String {
    let mut words = text.split_whitespace().peekable();
    let mut normal = String::new();
    while let Some(word) = words.next() {
        normal.push_str(word);
        let is_broken = word.strip_suffix('-').is_some_and(|start| start.ends_with(char::is_alphanumeric))
            && words.peek().is_some_and(|next| next.starts_with(char::is_alphabetic) && !matches!(*next, "and" | "or"));
        if words.peek().is_some() && !is_broken {
            normal.push(' ');
        }
    }
    normal
}
