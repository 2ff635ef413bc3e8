//! The pages: every relative link leads somewhere, and the settings on a provider's page are those that the code knows.

#![allow(clippy::unwrap_used, reason = "a helper of a test may end the test")]

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use postrider::config::{Config, Secrets};
use postrider_providers::Providers;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files below `folder`, without what is built or hidden.
fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&&*name) {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The lines of a page that are prose, not code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// The targets of `[…](…)`, without those on other hosts.
fn links(text: &str) -> Vec<&str> {
    let targets = prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains(':') && !target.contains(' ')).collect()
}

/// The anchor that a web page makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

/// `path` without `.` and `..`.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normal.pop()),
            Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

#[test]
fn every_relative_link_leads_to_a_file_and_to_a_heading_in_it() {
    let mut files = Vec::new();
    pages(repository(), &mut files);
    let (mut count, mut dead) = (0, Vec::new());
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        for link in links(&text) {
            count += 1;
            let (path, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { file.clone() } else { normal(&file.with_file_name(path)) };
            let is_page = target.extension().is_some_and(|extension| extension == "md");
            let leads = target.exists()
                && (heading.is_empty() || !is_page || anchors(&std::fs::read_to_string(&target).unwrap()).contains(heading));
            if !leads {
                dead.push(format!("{}: {link}", file.strip_prefix(repository()).unwrap().display()));
            }
        }
    }
    assert!(count > 100, "only {count} links were found in {} pages", files.len());
    assert!(dead.is_empty(), "these links lead nowhere:\n{}", dead.join("\n"));
}

/// The settings that the code knows for a kind: it lists them where a key is unknown.
fn known(kind: &str) -> BTreeSet<String> {
    let text = format!("[provider.{kind}.main]\nno_such_key = 1\n");
    let error = Config::parse(&text, Path::new("x.toml"), Secrets::Skip).unwrap_err().to_string();
    let list = error.split_once("its settings are ").unwrap_or_else(|| panic!("no list in\n{error}")).1;
    quoted(list.lines().next().unwrap())
}

/// What stands in backticks, up to the first dot: of `timeouts.answer`, `timeouts`.
fn quoted(text: &str) -> BTreeSet<String> {
    let names = text.split('`').skip(1).step_by(2);
    names.map(|name| name.split('.').next().unwrap_or(name).to_owned()).collect()
}

/// The first column of the tables in `## Settings` whose head says `setting`.
fn documented(page: &str) -> BTreeSet<String> {
    let section = page.split_once("\n## Settings\n").unwrap_or_else(|| panic!("no settings in\n{page}")).1;
    let section = section.split("\n## ").next().unwrap_or(section);
    let tables = section.split("\n\n").filter(|block| block.trim_start().starts_with("| setting |"));
    tables.flat_map(|table| table.trim_start().lines().skip(2)).filter_map(|row| row.split('|').nth(1)).flat_map(quoted).collect()
}

#[test]
fn the_settings_on_the_page_of_each_kind_are_those_of_the_code() {
    for kind in Providers::KINDS {
        if *kind == "ses" && cfg!(not(feature = "ses")) {
            continue;
        }
        let page = std::fs::read_to_string(repository().join(format!("docs/providers/{kind}.md"))).unwrap();
        assert_eq!(documented(&page), known(kind), "left: docs/providers/{kind}.md, right: the code");
    }
}

#[test]
fn the_sample_of_each_kind_names_every_setting_at_least_in_a_comment() {
    for kind in Providers::KINDS {
        if *kind == "ses" && cfg!(not(feature = "ses")) {
            continue;
        }
        let sample = std::fs::read_to_string(repository().join(format!("config/providers/{kind}.toml"))).unwrap();
        let lines: Vec<&str> = sample.lines().map(|line| line.trim_start_matches(['#', ' '])).collect();
        let has = |setting: &String| {
            let table = format!("[provider.{kind}.");
            lines.iter().any(|line| {
                line.strip_prefix(setting.as_str()).is_some_and(|rest| rest.trim_start().starts_with('='))
                    || (line.trim_start_matches('[').starts_with(&table[1..]) && line.contains(&format!(".{setting}]")))
            })
        };
        let missing: Vec<String> = known(kind).into_iter().filter(|setting| !has(setting)).collect();
        assert!(missing.is_empty(), "config/providers/{kind}.toml does not name {missing:?}");
    }
}

#[test]
fn what_the_tests_of_pages_look_for_is_found() {
    let text = "# A `b` c\n[x](y.md#z), [w](https://x.example/) and [v](#a-b-c)\n```\n[no](link)\n```\n";
    assert_eq!(links(text), ["y.md#z", "#a-b-c"]);
    assert_eq!(anchors(text), BTreeSet::from(["a-b-c".to_owned()]));
    assert_eq!(normal(Path::new("/a/b/../c.md")), Path::new("/a/c.md"));
    let page =
        "\n## Settings\n\n| setting | default |\n|---|---|\n| `a`, `b.c` | `d` |\n\n| verdict |\n|---|\n| `e` |\n\n## Limits\n| `f` |\n";
    assert_eq!(documented(page), BTreeSet::from(["a".to_owned(), "b".to_owned()]));
}
