//! Holds the code to `docs/ARCHITECTURE.md`: who may import whom, and one sentence for every file.
//!
//! The document is the source: a new import between modules, a new module and a new file each need
//! their entry there, and the complaint says which line to add. Code under `#[cfg(test)]` may reach
//! anywhere, because a test of one part builds the others around it.

#![allow(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

#[path = "architecture/document.rs"]
mod document;
#[path = "architecture/imports.rs"]
mod imports;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use document::Document;
use imports::Imports;

const DOCUMENT: &str = "docs/ARCHITECTURE.md";

/// A source file, by its path from the root with forward slashes.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its place in the module tree: `src/smtp/session.rs` is `["smtp", "session"]`.
    fn modules(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("providers/").trim_start_matches("src/").trim_end_matches(".rs");
        if inside == "lib" || inside == "main" { Vec::new() } else { inside.split('/').collect() }
    }

    /// The module that the table knows it by.
    fn owner(&self) -> &str {
        self.modules().first().copied().unwrap_or(if self.path.ends_with("main.rs") { "main" } else { "lib" })
    }
}

/// Every complaint about the tree at `root`; empty when code and document agree.
fn complaints(root: &Path) -> Vec<String> {
    let text = match fs::read_to_string(root.join(DOCUMENT)) {
        Ok(text) => text,
        Err(error) => return vec![format!("{DOCUMENT} cannot be read: {error}")],
    };
    let document = Document::parse(&text);
    let gateway = sources(root, "src");
    let providers = sources(root, "providers/src");

    let mut found = document.problems.clone();
    described_files(root, &document, gateway.iter().chain(&providers), &mut found);
    gateway_imports(&document, &gateway, &mut found);
    vendor_imports(&providers, &mut found);
    found
}

/// The `.rs` files below `folder`, sorted.
fn sources(root: &Path, folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(root.join(&folder)) else { continue };
        for entry in entries {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if path.ends_with(".rs") {
                let text = fs::read_to_string(entry.path()).unwrap();
                found.push(Source { path, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// One sentence for each file, and no sentence about a file that is not there.
fn described_files<'a>(root: &Path, document: &Document, files: impl Iterator<Item = &'a Source>, found: &mut Vec<String>) {
    for Source { path, .. } in files {
        match document.described.get(path) {
            None => found.push(format!("{DOCUMENT} does not describe {path}; add the line: - `{path}`: what it is for.")),
            Some(0) => found.push(format!("{DOCUMENT} names {path} without a sentence; write what it is for behind the colon")),
            Some(_) => {}
        }
    }
    for path in document.mentioned.iter().filter(|path| !root.join(path).is_file()) {
        found.push(format!("{DOCUMENT} names `{path}`, and there is no such file; correct the name or remove the line"));
    }
}

/// The gateway's modules import what the table allows, and the table knows them all.
fn gateway_imports(document: &Document, files: &[Source], found: &mut Vec<String>) {
    let modules: BTreeSet<&str> = files.iter().map(Source::owner).collect();
    for module in modules.iter().filter(|module| !document.may_import.contains_key(**module)) {
        found.push(format!("{DOCUMENT} has no row for the module `{module}`; add to the table: | `{module}` | nothing |"));
    }
    for module in document.may_import.keys().filter(|module| !modules.contains(module.as_str())) {
        found.push(format!("{DOCUMENT} has a row for `{module}`, and there is no src/{module}.rs; remove the row"));
    }

    let parsed: Vec<Imports> = files.iter().map(|file| Imports::parse(&file.text, &file.modules())).collect();
    let test_files = test_files(files, &parsed);
    let mut edges: BTreeMap<(&str, &str), (&str, usize)> = BTreeMap::new();
    for (file, imports) in files.iter().zip(&parsed).filter(|(file, _)| !is_test(file, &test_files)) {
        let from = file.owner();
        for (to, line) in imports.of_crate.iter().chain(imports.of_package.iter().filter(|_| from == "main")) {
            // What is no module is an item of the crate's root, which depends on nothing.
            if to != from && modules.contains(to.as_str()) {
                edges.entry((from, to)).or_insert((&file.path, *line));
            }
        }
        if from != "dispatch"
            && let Some(line) = imports.of_tower
        {
            found.push(format!("{}:{line} uses tower, which stays inside src/dispatch; give that module a function instead", file.path));
        }
    }
    for ((from, to), (path, line)) in edges {
        if document.may_import.get(from).is_some_and(|allowed| !allowed.contains(to)) {
            found.push(format!(
                "{path}:{line} imports crate::{to}, which the table in {DOCUMENT} does not allow `{from}`; \
                 turn the dependency round, or add `{to}` to the row of `{from}` and say why"
            ));
        }
    }
}

/// A provider never imports another provider; nor does what they share import any of them.
fn vendor_imports(files: &[Source], found: &mut Vec<String>) {
    let Some(library) = files.iter().find(|file| file.path.ends_with("/lib.rs")) else { return };
    let vendors = imports::registered(&library.text);
    if vendors.is_empty() {
        found.push(format!("{} registers no provider: expected `registry::registry! {{ smarthost, … }}`", library.path));
    }
    let parsed: Vec<Imports> = files.iter().map(|file| Imports::parse(&file.text, &file.modules())).collect();
    let test_files = test_files(files, &parsed);
    for (file, imports) in files.iter().zip(&parsed).filter(|(file, _)| file.owner() != "lib" && !is_test(file, &test_files)) {
        for (to, line) in &imports.of_crate {
            if to != file.owner() && vendors.contains(to) {
                found.push(format!(
                    "{}:{line} imports the provider `{to}`; a provider stands alone, so move what both need to a module of its own",
                    file.path
                ));
            }
        }
    }
}

/// The paths, without `.rs`, of modules declared under `#[cfg(test)]`.
fn test_files(files: &[Source], parsed: &[Imports]) -> BTreeSet<String> {
    let declared = files.iter().zip(parsed).flat_map(|(file, imports)| {
        let folder = file.path.trim_end_matches(".rs").trim_end_matches("/lib").trim_end_matches("/main").to_owned();
        imports.test_modules.iter().map(move |module| format!("{folder}/{module}"))
    });
    declared.collect()
}

fn is_test(file: &Source, test_files: &BTreeSet<String>) -> bool {
    let stem = file.path.trim_end_matches(".rs");
    test_files.iter().any(|test| stem == test || stem.strip_prefix(test.as_str()).is_some_and(|rest| rest.starts_with('/')))
}

#[test]
fn the_code_agrees_with_the_document() {
    let found = complaints(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(found.is_empty(), "{} disagreements:\n  {}\n", found.len(), found.join("\n  "));
}

/// A tree that agrees with its document, and what it takes to make it disagree.
struct Tree(tempfile::TempDir);

impl Tree {
    fn agreeing() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        tree.write("src/lib.rs", "pub mod queue;\npub mod smtp;\npub mod spool;\n");
        tree.write("src/main.rs", "use postrider::smtp;\nfn main() {}\n");
        tree.write("src/smtp.rs", "//! Talks about crate::spool without using it.\nmod session;\nuse crate::queue::Queue;\n");
        tree.write("src/smtp/session.rs", "use super::Thing;\nfn f() -> &'static str { \"crate::spool::Spool\" }\n");
        tree.write("src/queue.rs", "use crate::{VERSION, spool::{Spool, sqlite}};\n");
        tree.write("src/spool.rs", "");
        tree.write("providers/src/lib.rs", "registry::registry! {\n    capture,\n    #[cfg(feature = \"ses\")]\n    ses,\n}\n");
        tree.write("providers/src/capture.rs", "use crate::contract::Attempt;\n");
        tree.write("providers/src/ses.rs", "");
        tree.write("providers/src/contract.rs", "");
        tree.write(
            DOCUMENT,
            "# Map\n\n| module | may import |\n|---|---|\n| `main` | `smtp` |\n| `lib` | nothing |\n| `smtp` | `queue` |\n\
             | `queue` | `spool` |\n| `spool` | nothing |\n\n\
             - `src/lib.rs`: the map.\n- `src/main.rs`: starts.\n- `src/smtp.rs`: the door.\n- `src/smtp/session.rs`: one client.\n\
             - `src/queue.rs`: waits.\n- `src/spool.rs`: keeps.\n- `providers/src/lib.rs`: the registry.\n\
             - `providers/src/capture.rs`: files.\n- `providers/src/ses.rs`: SES.\n- `providers/src/contract.rs`: nouns.\n",
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
        let found = complaints(self.0.path());
        assert_eq!(found.len(), 1, "{found:#?}");
        for word in words {
            assert!(found[0].contains(word), "{:?} does not say {word:?}", found[0]);
        }
    }
}

#[test]
fn an_agreeing_tree_has_no_complaint() {
    assert_eq!(complaints(Tree::agreeing().0.path()), Vec::<String>::new());
}

#[test]
fn an_import_outside_the_table_is_found_however_it_is_written() {
    for import in [
        "use crate::smtp::Session;",
        "use crate::{\n    queue::{self, Queue},\n    smtp,\n};",
        "pub(crate) use crate::smtp as door;",
        "fn f() { crate::smtp::serve() }",
        "use super::super::smtp::Session;",
        "mod inner { use super::super::super::smtp; }",
        "const C: char = '\"'; /* \" */ use crate::smtp::Session;",
        "const S: &str = r#\"a \" b\"#; use crate::smtp::Session;",
        "fn f<'a>(x: &'a str) { crate::smtp::serve(x) }",
        "#[cfg(not(test))]\nuse crate::smtp::Session;",
        "#[cfg(test)]\nmod tests { use crate::smtp; }\nuse crate::smtp::Session;",
    ] {
        let tree = Tree::agreeing();
        tree.write("src/queue/window.rs", import);
        tree.replace(DOCUMENT, "- `src/spool.rs`", "- `src/queue/window.rs`: the window.\n- `src/spool.rs`");
        tree.complains(&["src/queue/window.rs:", "imports crate::smtp", "allow `queue`", "add `smtp` to the row of `queue`"]);
    }
}

#[test]
fn what_only_looks_like_an_import_is_none() {
    for text in [
        "// use crate::smtp::Session;",
        "/* outer /* use crate::smtp; */ use crate::smtp; */",
        "const S: &str = \"\\\" crate::smtp::x\";",
        "#[cfg(test)]\nmod tests { use crate::smtp::Session; }",
        "#[cfg(test)]\nuse crate::smtp::Session;",
        "pub(crate) mod smtp {}\nuse self::smtp::x;",
        "mod inner { mod smtp {} use super::smtp; }",
        "fn f() { other_crate::smtp::serve() }",
    ] {
        let tree = Tree::agreeing();
        tree.replace("src/spool.rs", "", text);
        assert_eq!(complaints(tree.0.path()), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_test_in_a_file_of_its_own_may_reach_anywhere() {
    let tree = Tree::agreeing();
    tree.write("src/spool.rs", "#[cfg(test)]\n#[path = \"\"]\nmod tests;\n");
    tree.write("src/spool/tests.rs", "use crate::smtp::Session;\n");
    tree.replace(DOCUMENT, "- `src/spool.rs`", "- `src/spool/tests.rs`: its tests.\n- `src/spool.rs`");
    assert_eq!(complaints(tree.0.path()), Vec::<String>::new());
    tree.replace("src/spool.rs", "#[cfg(test)]", "");
    tree.complains(&["src/spool/tests.rs:1 imports crate::smtp"]);
}

#[test]
fn the_program_imports_the_library_by_its_name() {
    let tree = Tree::agreeing();
    tree.write("src/main.rs", "use postrider::{smtp, queue};\n");
    tree.complains(&["src/main.rs:1 imports crate::queue", "`main`"]);
}

#[test]
fn modules_and_rows_must_match() {
    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "| `lib` | nothing |\n", "");
    tree.complains(&["no row for the module `lib`", "| `lib` | nothing |"]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "| `lib` | nothing |", "| `lib` | nothing |\n| `admin` | nothing |");
    tree.complains(&["row for `admin`", "no src/admin.rs"]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "| `lib` | nothing |", "| `lib` | `admin` |");
    tree.complains(&["`lib` may import `admin`", "no row of its own"]);
}

#[test]
fn files_and_their_sentences_must_match() {
    let tree = Tree::agreeing();
    tree.write("src/smtp/reply.rs", "");
    tree.complains(&["add the line: - `src/smtp/reply.rs`: "]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "`src/smtp/session.rs`: one client.", "`src/smtp/session.rs`:");
    tree.complains(&["src/smtp/session.rs without a sentence"]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "one client.", "one client; see `src/smtp/data.rs`.");
    tree.complains(&["names `src/smtp/data.rs`", "no such file"]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "- `src/spool.rs`: keeps.", "- `src/spool.rs`: keeps.\n- `src/spool.rs`: keeps again.");
    tree.complains(&["src/spool.rs twice"]);
}

#[test]
fn a_table_with_a_circle_or_without_rows_is_refused() {
    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "| `spool` | nothing |", "| `spool` | `smtp` |");
    tree.complains(&["circle", "smtp → queue → spool → smtp"]);

    let tree = Tree::agreeing();
    tree.replace(DOCUMENT, "| module | may import |", "| who | whom |");
    assert!(complaints(tree.0.path())[0].contains("has no table headed `| module | may import |`"));
}

#[test]
fn a_provider_that_imports_another_is_found() {
    let tree = Tree::agreeing();
    tree.write("providers/src/ses.rs", "use crate::capture::Config;\n");
    tree.complains(&["providers/src/ses.rs:1 imports the provider `capture`"]);

    let tree = Tree::agreeing();
    tree.write("providers/src/contract.rs", "\nuse super::ses::Config;\n");
    tree.complains(&["providers/src/contract.rs:2 imports the provider `ses`"]);
}

#[test]
fn tower_stays_inside_dispatch() {
    let tree = Tree::agreeing();
    tree.write("src/queue.rs", "use tower::Service;\n");
    tree.complains(&["src/queue.rs:1 uses tower"]);
}
