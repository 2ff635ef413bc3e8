//! Holds the code to the RFCs: every requirement is cited, pointed at, or deviated from with a reason,
//! and every citation quotes a requirement.
//!
//! `docs/compliance/rfcN.toml` has the requirements. `UPDATE_EXPECTED=1 cargo test --test compliance`
//! draws `docs/compliance.md` anew.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

#[path = "compliance/citations.rs"]
mod citations;
#[path = "compliance/page.rs"]
mod page;
#[path = "compliance/requirements.rs"]
mod requirements;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use citations::{Citation, Kind};
use requirements::{Document, FOLDER, Requirement};

/// Who holds one requirement.
#[derive(Debug)]
pub(crate) struct Held {
    /// `path#name`, code before tests.
    pub(crate) by: Vec<String>,
}

/// What the data and the sources at `root` say, and every complaint about them.
fn examine(root: &Path) -> (Vec<Document>, Vec<Vec<Held>>, Vec<String>) {
    let mut found = Vec::new();
    let documents = Document::all(root, &mut found);
    for document in &documents {
        document.check(root, &mut found);
    }
    let citations = citations::all(root, &mut found);
    let mut cited: Vec<Vec<Vec<&Citation>>> = documents.iter().map(|document| vec![Vec::new(); document.requirements.len()]).collect();
    for citation in &citations {
        let Some(which) = documents.iter().position(|document| document.rfc == citation.rfc) else {
            let (place, rfc) = (citation.place(), citation.rfc);
            found.push(format!("{place} cites RFC {rfc}, of which nothing is known; add {FOLDER}/rfc{rfc}.toml with the sentence"));
            continue;
        };
        for requirement in quoted(&documents[which], citation, &mut found) {
            cited[which][requirement].push(citation);
        }
    }
    let held = documents.iter().zip(&cited).map(|(document, cited)| settle(document, cited, &mut found)).collect();
    (documents, held, found)
}

/// The requirements that a citation quotes: it is part of one, or it has one or several in it.
fn quoted(document: &Document, citation: &Citation, found: &mut Vec<String>) -> Vec<usize> {
    let (place, section) = (citation.place(), &citation.section);
    let here = || document.requirements.iter().enumerate().filter(|(_, one)| one.section == *section);
    if let Some((which, _)) = here().find(|(_, one)| one.quote == citation.quote) {
        return vec![which];
    }
    if citation.quote.split(' ').count() < 4 {
        found.push(format!("{place} quotes only \"{}\"; quote enough to know the sentence by", citation.quote));
        return Vec::new();
    }
    let part_of = |text: &str| here().filter(|(_, one)| one.quote.contains(text)).map(|(which, _)| which).collect::<Vec<_>>();
    let whole = part_of(&citation.quote);
    if !whole.is_empty() {
        return whole;
    }
    let mut which = Vec::new();
    let mut rest = vec![citation.quote.as_str()];
    for (number, one) in here().filter(|(_, one)| citation.quote.contains(&one.quote)) {
        which.push(number);
        rest = rest.into_iter().flat_map(|piece| piece.split(one.quote.as_str())).collect();
    }
    for piece in rest.into_iter().map(str::trim).filter(|piece| piece.contains(char::is_alphanumeric)) {
        let holders = part_of(piece);
        if holders.is_empty() {
            found.push(unknown(document, citation, piece));
        }
        which.extend(holders);
    }
    which
}

/// The complaint about a quote, with where it is instead if it is anywhere.
fn unknown(document: &Document, citation: &Citation, piece: &str) -> String {
    let (place, rfc, section) = (citation.place(), document.rfc, &citation.section);
    let elsewhere = document.requirements.iter().find(|one| one.quote.contains(piece) || piece.contains(&one.quote));
    match elsewhere {
        Some(one) => {
            format!("{place} cites section {section} of RFC {rfc}, and \"{piece}\" is in section {}; correct the target", one.section)
        }
        None => format!(
            "{place} quotes what {} does not have in section {section}: \"{piece}\"; \
             correct it word by word, or add the sentence there (level = \"info\" if it has no MUST or SHOULD)",
            document.path()
        ),
    }
}

/// Who holds each requirement of a document; nobody, or somebody in spite of the data, is a complaint.
fn settle(document: &Document, cited: &[Vec<&Citation>], found: &mut Vec<String>) -> Vec<Held> {
    let mut held = Vec::new();
    for (one, citations) in document.requirements.iter().zip(cited) {
        let mut complain = |what: String| found.push(format!("{}: {}: {what}", document.path(), one.name()));
        let mut by: BTreeSet<String> = one.held_by.iter().cloned().collect();
        for citation in citations {
            let excepted = citation.kind == Kind::Exception;
            match (&one.deviation, &one.not_applicable) {
                (Some(_), _) if excepted => {}
                (Some(_), _) => complain(format!("is a deviation, and {} holds it; remove the reason", citation.place())),
                (_, Some(_)) => complain(format!("does not concern us, and {} cites it; remove one of both", citation.place())),
                _ if excepted => complain(format!("{} is an exception to it; give the reason as deviation = \"…\"", citation.place())),
                _ => _ = by.insert(format!("{}#{}", citation.path, citation.item)),
            }
        }
        if by.is_empty() && one.is_held() {
            complain("nobody holds it; cite it where it is done or tested, or add held_by, deviation or not_applicable".to_owned());
        }
        held.push(Held { by: page::in_order(by) });
    }
    held
}

impl Requirement {
    /// Whether it is one that somebody must hold.
    pub(crate) fn is_held(&self) -> bool {
        self.deviation.is_none() && self.not_applicable.is_none()
    }
}

#[test]
fn every_requirement_is_held_or_deviated_from_with_a_reason() {
    let (_, _, found) = examine(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(found.is_empty(), "{} disagreements:\n  {}\n", found.len(), found.join("\n  "));
}

#[test]
fn the_page_is_the_one_that_the_data_and_the_sources_make() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (documents, held, _) = examine(root);
    let page = page::draw(&documents, &held);
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        fs::write(root.join(page::PATH), &page).unwrap();
    }
    let written = fs::read_to_string(root.join(page::PATH)).unwrap_or_default();
    let differs = page.lines().zip(written.lines()).position(|(new, old)| new != old);
    assert!(
        page == written,
        "{} is not what the data and the sources make, from line {} on; UPDATE_EXPECTED=1 cargo test --test compliance draws it anew",
        page::PATH,
        differs.unwrap_or_else(|| page.lines().count().min(written.lines().count())) + 1
    );
}

/// A small tree that agrees with itself.
struct Tree(tempfile::TempDir);

impl Tree {
    fn agreeing() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("src/smtp.rs", &cite("5321#section-4.1", "", &["The server MUST", "answer."]));
        tree.write("tests/door.rs", "#[test]\nfn it_closes() {}\n");
        tree.write(
            "docs/compliance/rfc5321.toml",
            "rfc = 5321\ntitle = \"SMTP\"\nabout = \"The protocol.\"\n\
             [[requirement]]\nsection = \"4.1\"\nlevel = \"MUST\"\nquote = \"The server MUST answer.\"\n\
             [[requirement]]\nsection = \"4.1\"\nlevel = \"SHOULD\"\nquote = \"It SHOULD close.\"\nheld_by = [\"tests/door.rs#it_closes\"]\n\
             [[requirement]]\nsection = \"C\"\nlevel = \"MUST NOT\"\nquote = \"A server MUST NOT guess at shortcuts.\"\ndeviation = \"It is fun.\"\n",
        );
        tree
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.path().join(path)).unwrap();
        assert!(text.contains(from), "{path} does not contain {from:?}");
        self.write(path, &text.replace(from, to));
    }

    /// Expects exactly one complaint, with all of `words` in it.
    #[track_caller]
    fn complains(&self, words: &[&str]) {
        let (_, _, found) = examine(self.0.path());
        assert_eq!(found.len(), 1, "{found:#?}");
        for word in words {
            assert!(found[0].contains(word), "{:?} does not say {word:?}", found[0]);
        }
    }
}

/// A function with a citation above it.
fn cite(target: &str, kind: &str, quote: &[&str]) -> String {
    let quote: String = quote.iter().map(|line| format!("    //# {line}\n")).collect();
    format!(
        "impl Door {{\n    //= https://www.rfc-editor.org/rfc/rfc{target}\n{kind}{quote}    pub(crate) async fn answer(&self) {{}}\n}}\n"
    )
}

const DATA: &str = "docs/compliance/rfc5321.toml";

#[test]
fn an_agreeing_tree_has_no_complaint_and_names_who_holds_what() {
    let tree = Tree::agreeing();
    let (documents, held, found) = examine(tree.0.path());
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(held[0][0].by, ["src/smtp.rs#answer"]);
    let page = page::draw(&documents, &held);
    assert!(page.contains("The server MUST answer. | [`answer`](../src/smtp.rs) |"), "{page}");
    assert!(
        page.contains("| [C](https://www.rfc-editor.org/rfc/rfc5321#appendix-C) | A server MUST NOT guess at shortcuts. | It is fun. |")
    );
}

#[test]
fn a_citation_may_be_part_of_a_sentence_or_several_sentences() {
    let tree = Tree::agreeing();
    for quote in [
        &["The server MUST answer."][..],
        &["The server MUST answer.  It SHOULD", "close."],
        &["The server MUST answer. It SHOULD"],
        &["server MUST answer. It SHOULD close."],
    ] {
        tree.write("src/smtp.rs", &cite("5321#section-4.1", "", quote));
        let (_, held, found) = examine(tree.0.path());
        assert_eq!(found, Vec::<String>::new(), "{quote:?}");
        assert_eq!(held[0][0].by, ["src/smtp.rs#answer"], "{quote:?}");
    }
}

#[test]
fn a_quote_that_is_not_in_the_data_is_found() {
    let tree = Tree::agreeing();
    tree.write("src/queue.rs", &cite("5321#section-4.1", "", &["The server MUST answer twice."]));
    tree.complains(&["src/queue.rs:2 quotes", "rfc5321.toml", "section 4.1", "\"The server MUST answer twice.\""]);
    tree.write("src/queue.rs", &cite("5321#section-4.1", "", &["The server MUST answer. It SHOULD open."]));
    tree.complains(&["src/queue.rs:2 quotes", "\"It SHOULD open.\""]);
    tree.write("src/queue.rs", &cite("5321#section-4.2", "", &["The server MUST answer."]));
    tree.complains(&["src/queue.rs:2 cites section 4.2", "is in section 4.1"]);
    tree.write("src/queue.rs", &cite("1870#section-4", "", &["The server MUST answer."]));
    tree.complains(&["src/queue.rs:2 cites RFC 1870", "add docs/compliance/rfc1870.toml"]);
    tree.write("src/queue.rs", &cite("5321#section-4.1", "", &["The server MUST"]));
    tree.complains(&["quotes only \"The server MUST\""]);
}

#[test]
fn a_citation_that_is_not_written_as_one_is_found() {
    let tree = Tree::agreeing();
    for (text, words) in [
        ("//= https://tools.ietf.org/html/rfc5321#section-4.1\n//# The server MUST answer.\n", "is no target"),
        ("//= https://www.rfc-editor.org/rfc/rfc5321\n//# The server MUST answer.\n", "is no target"),
        ("//= https://www.rfc-editor.org/rfc/rfc5321#section-4.1\nfn f() {}\n", "without a quote"),
        ("//# The server MUST answer.\n", "without a target"),
        ("//= https://www.rfc-editor.org/rfc/rfc5321#section-4.1\n//= type=todo\n//# The server MUST answer.\n", "unknown type"),
    ] {
        tree.write("src/queue.rs", text);
        tree.complains(&["src/queue.rs:1: ", words]);
    }
}

#[test]
fn a_requirement_that_nobody_holds_is_found() {
    let tree = Tree::agreeing();
    tree.write("src/smtp.rs", "");
    tree.complains(&[DATA, "section 4.1, \"The server MUST answer.\"", "nobody holds it"]);
}

#[test]
fn a_pointer_that_leads_nowhere_is_found() {
    let tree = Tree::agreeing();
    tree.write("tests/door.rs", "// it_closes, fn, it_closes\nfn it_closes_late() {}\n");
    tree.complains(&["tests/door.rs#it_closes", "declares no function, type or constant called it_closes"]);
    tree.replace(DATA, "tests/door.rs#it_closes", "tests/gate.rs#it_closes");
    tree.complains(&["there is no file tests/gate.rs"]);
    tree.replace(DATA, "tests/gate.rs#it_closes", "it_closes");
    tree.complains(&["expected path#name"]);
}

#[test]
fn a_deviation_is_not_held_unless_the_citation_says_that_it_is_an_exception() {
    let tree = Tree::agreeing();
    let quote = &["A server MUST NOT guess at shortcuts."];
    tree.write("src/queue.rs", &cite("5321#appendix-C", "    //= type=test\n", quote));
    tree.complains(&["is a deviation, and src/queue.rs:2 holds it"]);
    tree.write("src/queue.rs", &cite("5321#appendix-C", "    //= type=exception\n", quote));
    assert_eq!(examine(tree.0.path()).2, Vec::<String>::new());
    tree.replace(DATA, "deviation", "not_applicable");
    tree.complains(&["does not concern us, and src/queue.rs:2 cites it"]);
    tree.replace(DATA, "not_applicable = \"It is fun.\"\n", "");
    assert!(examine(tree.0.path()).2[0].contains("src/queue.rs:2 is an exception to it"));
}

#[test]
fn data_that_contradicts_itself_is_found() {
    for (from, to, words) in [
        ("MUST answer.", "MUST  answer.", "double spaces"),
        ("level = \"SHOULD\"", "level = \"MUST\"", "the quote does not say so"),
        ("level = \"SHOULD\"", "level = \"WILL\"", "unknown variant"),
        ("It is fun.\"", "It is fun.\"\nnot_applicable = \"It is not.\"", "two of held_by, deviation and not_applicable"),
        ("It is fun.", "fun", "ends with a period"),
        ("rfc = 5321", "rfc = 5322", "it must be called docs/compliance/rfc5322.toml"),
        ("It is fun.\"", "It is fun.\"\nwhy = \"\"", "unknown field `why`"),
    ] {
        let tree = Tree::agreeing();
        tree.replace(DATA, from, to);
        let (_, _, found) = examine(tree.0.path());
        assert!(found.iter().any(|complaint| complaint.contains(words)), "{to}: {found:#?}");
    }
}

#[test]
fn words_that_the_layout_broke_are_made_whole() {
    assert_eq!(requirements::normal(" case-\n insensitive  and pre- or post-fixed - so "), "case-insensitive and pre- or post-fixed - so");
}
