//! Draws `docs/compliance.md` from the data and from what holds each requirement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Held;
use super::requirements::{Document, Requirement};

/// Where the page is, from the root of the repository.
pub(crate) const PATH: &str = "docs/compliance.md";

const HEAD: &str = "\
# What the RFCs ask, and who holds it

Every sentence with MUST, MUST NOT, SHOULD or SHOULD NOT (REQUIRED, RECOMMENDED, SHALL) in the RFCs that a receiving relay has to
follow, quoted word by word, with the code or the test that holds it. Where Postrider does something else, the reason stands
first. What concerns others, such as mail programs or mailing lists, is at the end of each part, so that nothing is left out.

`tests/compliance.rs` draws this page from `docs/compliance/*.toml` and from the citations in the sources, and fails when a
requirement has nobody who holds it, when a pointer leads nowhere, or when a quote is not in the RFC's data. How to cite is in
[CONTRIBUTING.md](../CONTRIBUTING.md).
";

/// The whole page. `held` has, for each document, who holds each of its requirements.
pub(crate) fn draw(documents: &[Document], held: &[Vec<Held>]) -> String {
    let mut page = format!("{HEAD}\n| RFC | | held | deviations | does not concern us |\n|---|---|---|---|---|\n");
    for document in documents {
        let count = |state: fn(&Requirement) -> bool| document.requirements.iter().filter(|one| state(one)).count();
        let (deviations, others) = (count(|one| one.deviation.is_some()), count(|one| one.not_applicable.is_some()));
        let rest = document.requirements.len() - deviations - others;
        let (rfc, title) = (document.rfc, &document.title);
        put(&mut page, format_args!("| [{rfc}](#rfc-{rfc}) | {title} | {rest} | {deviations} | {others} |"));
    }
    for (document, held) in documents.iter().zip(held) {
        put(&mut page, format_args!("\n## RFC {}\n\n{}. {}", document.rfc, document.title, escape(&document.about)));
        deviations(&mut page, document);
        holders(&mut page, document, held);
        others(&mut page, document);
    }
    page
}

fn deviations(page: &mut String, document: &Document) {
    let mut rows = document.requirements.iter().filter_map(|one| one.deviation.as_ref().map(|why| (one, why))).peekable();
    if rows.peek().is_none() {
        return;
    }
    put(page, format_args!("\n### Deviations from RFC {}\n\n| | requirement | why not |\n|---|---|---|", document.rfc));
    for (one, why) in rows {
        put(page, format_args!("| {} | {} | {} |", section(document, one), escape(&one.quote), escape(why)));
    }
}

fn holders(page: &mut String, document: &Document, held: &[Held]) {
    let mut rows = document.requirements.iter().zip(held).filter(|(one, _)| one.is_held()).peekable();
    if rows.peek().is_none() {
        return;
    }
    put(page, format_args!("\n### Held of RFC {}\n\n| | level | requirement | held by |\n|---|---|---|---|", document.rfc));
    for (one, held) in rows {
        let links: Vec<String> = held.by.iter().map(|pointer| link(pointer)).collect();
        let level = one.level.as_str();
        put(page, format_args!("| {} | {level} | {} | {} |", section(document, one), escape(&one.quote), links.join(", ")));
    }
}

/// What does not concern a relay, by reason.
fn others(page: &mut String, document: &Document) {
    let mut by_reason: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for one in &document.requirements {
        if let Some(why) = &one.not_applicable {
            by_reason.entry(why).or_default().push(one);
        }
    }
    if by_reason.is_empty() {
        return;
    }
    put(page, format_args!("\n### Not for Postrider of RFC {}", document.rfc));
    for (why, ones) in by_reason {
        put(page, format_args!("\n{}\n", escape(why)));
        for one in ones {
            put(page, format_args!("- {} {}", section(document, one), escape(&one.quote)));
        }
    }
}

fn section(document: &Document, one: &Requirement) -> String {
    let kind = if one.section.starts_with(|c: char| c.is_ascii_digit()) { "section" } else { "appendix" };
    format!("[{0}](https://www.rfc-editor.org/rfc/rfc{1}#{kind}-{0})", one.section, document.rfc)
}

/// `path#name` as a link to the file.
fn link(pointer: &str) -> String {
    let (path, name) = pointer.split_once('#').unwrap_or((pointer, pointer));
    format!("[`{name}`](../{path})")
}

/// Text as Markdown shows it as it is, in a table as well.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '*' | '_' | '|' | '[' | ']' | '\\' => escaped.extend(['\\', c]),
            _ => escaped.push(c),
        }
    }
    escaped
}

fn put(page: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{line}");
}

/// The pointers of one requirement, each once, in the order of their files.
pub(crate) fn in_order(pointers: BTreeSet<String>) -> Vec<String> {
    let (tests, code): (Vec<_>, Vec<_>) = pointers.into_iter().partition(|pointer| pointer.contains("test"));
    code.into_iter().chain(tests).collect()
}
