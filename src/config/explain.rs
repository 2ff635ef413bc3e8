//! Turns serde's words into ours: what was seen, what was expected, and what to do.

use std::ops::Range;

use super::document::{Step, TableName};
use super::mask::is_secret;
use super::problem::Problem;

/// Where an error is.
pub(super) struct Place<'a> {
    /// Its place in the text.
    pub(super) span: Range<usize>,
    /// The steps from the table that was read to the entry at fault; empty for the table itself.
    pub(super) path: &'a [Step],
    /// The table that was read.
    pub(super) name: TableName<'a>,
}

/// An explained error.
pub(super) struct Explained {
    /// What to show.
    pub(super) problem: Problem,
    /// The key that is missing, if that is the problem.
    pub(super) missing: Option<String>,
    /// The key that was probably meant, if an unknown one is the problem.
    pub(super) meant: Option<String>,
}

/// Explains serde's `message`; adds keys that nobody knows to `suspects`.
pub(super) fn explain(message: &str, place: &Place<'_>, suspects: &mut Vec<Range<usize>>) -> Explained {
    let key = place.path.iter().rev().find_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    let whole = |problem| Explained { problem, missing: None, meant: None };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let known = &backticked(rest)[1..];
        let unknown = backticked(rest)[0];
        return unknown_key(unknown, known, place, suspects);
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let (seen, known) = (backticked(rest)[0], &backticked(rest)[1..]);
        let key = key.unwrap_or("this setting");
        let problem = Problem::error(format!("`{key}` cannot be \"{seen}\""))
            .at(place.span.clone(), format!("expected {}", one_of(known.iter().map(|name| format!("\"{name}\"")))));
        return whole(match nearest(seen, known.iter().copied()) {
            Some(near) => problem.help(format!("did you mean \"{near}\"?")),
            None => problem,
        });
    }
    if let Some(rest) = message.strip_prefix("missing field ") {
        let missing = backticked(rest)[0];
        let header = place.name.header(place.path);
        let problem = Problem::error(format!("{header} has no `{missing}`"))
            .at(place.span.clone(), format!("this table needs `{missing}`"))
            .help(example_of(missing).map_or_else(|| format!("add `{missing} = …` to it"), |example| format!("add `{example}` to it")));
        return Explained { problem, missing: Some(missing.to_owned()), meant: None };
    }
    let key = key.unwrap_or("this table");
    if let Some(rest) = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
        && let Some((seen, expected)) = rest.rsplit_once(", expected ")
    {
        let words = if hides(place.path) { seen_without_value(seen) } else { seen_in_words(seen) };
        let expected = expected_in_words(expected);
        let problem = Problem::error(format!("`{key}` cannot be {words}")).at(place.span.clone(), format!("expected {expected}"));
        let how = if hides(place.path) { None } else { how_to_write(key, seen, &expected) };
        return whole(match how {
            Some(help) => problem.help(help),
            None => problem,
        });
    }
    if hides(place.path) {
        let label = "expected a text, { env = \"NAME\" } or { file = \"/path\" }";
        return whole(Problem::error(format!("`{key}` cannot be used: {message}")).at(place.span.clone(), label).help("keep one of them"));
    }
    whole(Problem::error(format!("`{key}` cannot be used: {message}")).at(place.span.clone(), "at this setting"))
}

/// Explains what the TOML parser found in `text`.
pub(super) fn syntax(errors: &[toml::de::Error], text: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut last_line = None;
    let mut repeated_table = None;
    let mut errors: Vec<_> = errors.iter().map(|error| (error.span().unwrap_or(text.len()..text.len()), error)).collect();
    errors.sort_by_key(|(span, _)| span.start);
    for (span, error) in errors {
        let line_start = text[..span.start].rfind('\n').map_or(0, |at| at + 1);
        let (what, expected) = error.message().split_once(", expected ").unwrap_or((error.message(), ""));
        let is_repeated = what == "duplicate key";
        // What follows on the same line, or in a table that stands twice, is a consequence.
        let is_consequence = last_line == Some(line_start)
            || is_repeated && repeated_table.is_some_and(|header: usize| !text[header..line_start].contains("\n["));
        last_line = Some(line_start);
        if is_consequence {
            continue;
        }
        if is_repeated && text[line_start..].trim_start().starts_with('[') {
            repeated_table = Some(line_start + 1);
        }
        problems.push(syntax_problem(what, expected, span));
    }
    problems
}

fn syntax_problem(what: &str, expected: &str, span: Range<usize>) -> Problem {
    let general = "text stands in \"quotes\", lists in [brackets], and each setting on a line of its own";
    let (what, label, help) = match what {
        "duplicate key" => ("this stands here twice".to_owned(), "it is further up as well".to_owned(), "remove one of the two"),
        "string values must be quoted" => ("this is not TOML: text needs quotes".to_owned(), "expected \"…\"".to_owned(), general),
        "key with no value" => (format!("this is not TOML: {what}"), format!("expected {expected}"), "write it as key = value"),
        "invalid basic string" => ("this is not TOML: the text has no end".to_owned(), format!("expected {expected}"), general),
        _ if expected.is_empty() => (format!("this is not TOML: {what}"), "here".to_owned(), general),
        _ => (format!("this is not TOML: {what}"), format!("expected {expected}"), general),
    };
    Problem::error(what).at(span, label).help(help)
}

fn unknown_key(unknown: &str, known: &[&str], place: &Place<'_>, suspects: &mut Vec<Range<usize>>) -> Explained {
    let table = match place.path {
        [before @ .., Step::Key(last)] if last == unknown => place.name.header(before),
        // A value that reads its own table, such as a secret, gives its own place.
        [.., Step::Key(last)] => format!("`{last}`"),
        path => place.name.header(path),
    };
    let near = nearest(unknown, known.iter().copied());
    if (place.name.base == "provider" || place.name.base.starts_with("app.")) && near.is_none_or(is_secret) {
        suspects.push(place.span.clone());
    }
    let problem = Problem::error(format!("unknown key `{unknown}` in {table}")).at(place.span.clone(), "not a setting of this table");
    let problem = if known.is_empty() { problem } else { problem.note(format!("its settings are {}", all_of(known))) };
    let problem = match near {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("remove it, or correct its name"),
    };
    Explained { problem, missing: None, meant: near.map(str::to_owned) }
}

/// The known word that `word` is most likely meant to be.
pub(crate) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = word.to_lowercase();
    let closeness = |known: &str| {
        let known = known.to_lowercase();
        // A word that begins another is near it however much is missing (`tls` in `tls_mode`).
        let begins = word.len() >= 3 && known.len() >= 3 && (known.starts_with(&word) || word.starts_with(&known));
        strsim::normalized_damerau_levenshtein(&word, &known) + if begins { 0.3 } else { 0.0 }
    };
    known
        .map(|known| (closeness(known), known))
        .filter(|(closeness, _)| *closeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}

/// "`a`, `b` and `c`".
pub(super) fn all_of<T: AsRef<str>>(names: &[T]) -> String {
    join(names.iter().map(|name| format!("`{}`", name.as_ref())), "and")
}

/// "a, b or c".
pub(super) fn one_of(names: impl Iterator<Item = String>) -> String {
    join(names, "or")
}

fn join(names: impl Iterator<Item = String>, last_word: &str) -> String {
    let mut names: Vec<String> = names.collect();
    match names.pop() {
        None => String::new(),
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} {last_word} {last}", names.join(", ")),
    }
}

/// What stands between backticks in one of serde's messages; the name in question comes first.
fn backticked(message: &str) -> Vec<&str> {
    let words: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    if words.is_empty() { vec![""] } else { words }
}

/// serde's name of what was found, in an administrator's words.
fn seen_in_words(seen: &str) -> String {
    for (theirs, ours) in [("string ", "the text "), ("integer ", "the number "), ("floating point ", "the number "), ("boolean ", "")] {
        if let Some(value) = seen.strip_prefix(theirs) {
            return format!("{ours}{}", value.trim_matches('`'));
        }
    }
    seen_without_value(seen)
}

/// The same without the value, for secrets.
fn seen_without_value(seen: &str) -> String {
    let kind = match seen.split(' ').next().unwrap_or(seen) {
        "string" => "a text",
        "integer" | "floating" => "a number",
        "boolean" => "true or false",
        "map" => "a table",
        "sequence" => "a list",
        _ => "of this kind",
    };
    kind.to_owned()
}

/// serde's name of what was expected, in an administrator's words.
fn expected_in_words(expected: &str) -> String {
    let words = match expected {
        "a string" | "path string" | "a borrowed string" => "a text in quotes",
        "a boolean" => "true or false",
        "u16" => "a number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number, 0 or more",
        "a nonzero u32" | "a nonzero usize" | "a nonzero u16" => "a whole number, 1 or more",
        "a sequence" => "a list in [brackets]",
        "a map" => "a table",
        _ if expected.starts_with("struct ") => "a table",
        _ => expected,
    };
    words.to_owned()
}

/// Whether a value that stands here may be a secret, or part of one.
fn hides(path: &[Step]) -> bool {
    path.iter().any(|step| matches!(step, Step::Key(key) if is_secret(key)))
}

/// How to write a value that only has the wrong form.
fn how_to_write(key: &str, seen: &str, expected: &str) -> Option<String> {
    let text = seen.strip_prefix("string \"").and_then(|seen| seen.strip_suffix('"'));
    match (text, expected) {
        (Some(text), _) if expected.contains("number") && text.parse::<i64>().is_ok() => Some(format!("without quotes: {key} = {text}")),
        (Some("yes" | "on" | "true" | "1"), "true or false") => Some(format!("write {key} = true")),
        (Some("no" | "off" | "false" | "0"), "true or false") => Some(format!("write {key} = false")),
        (Some(text), "a list in [brackets]") => Some(format!("write {key} = [\"{text}\"]")),
        (None, _) if expected.contains(" such as \"") && seen.starts_with("integer") => {
            Some("write it in quotes, with its unit".to_owned())
        }
        _ => None,
    }
}

/// How a setting that is missing may look.
fn example_of(key: &str) -> Option<&'static str> {
    Some(match key {
        "bind" => "bind = \"0.0.0.0:25\"",
        "name" => "name = \"default\"",
        "providers" => "providers = [\"smarthost.office\"]",
        "host" => "host = \"smtp.example.net\"",
        "region" => "region = \"eu-west-1\"",
        "directory" => "directory = \"/var/lib/postrider/captured\"",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_one_that_may_have_been_meant() {
        let known = ["host", "port", "tls", "username", "password"];
        for (word, near) in
            [("hots", Some("host")), ("hostname", Some("host")), ("Password", Some("password")), ("user", Some("username")), ("zzz", None)]
        {
            assert_eq!(nearest(word, known.into_iter()), near, "{word}");
        }
    }
}
