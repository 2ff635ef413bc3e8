//! Reads `docs/ARCHITECTURE.md`: the dependency table, and the files that it describes.

use std::collections::{BTreeMap, BTreeSet};

/// What the document says.
#[derive(Debug, Default)]
pub(crate) struct Document {
    /// The table `| module | may import |`.
    pub(crate) may_import: BTreeMap<String, BTreeSet<String>>,
    /// Files with a line of their own, and how long their sentence is.
    pub(crate) described: BTreeMap<String, usize>,
    /// Every source file named anywhere.
    pub(crate) mentioned: BTreeSet<String>,
    /// Where the document contradicts itself.
    pub(crate) problems: Vec<String>,
}

impl Document {
    pub(crate) fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut in_table = false;
        for line in text.lines().map(str::trim) {
            if let Some(cells) = row(line) {
                match cells.as_slice() {
                    ["module", "may import", ..] => in_table = true,
                    [module, imports, ..] if in_table && !module.starts_with("--") => document.add_row(module, imports),
                    _ => {}
                }
            } else {
                in_table = false;
            }
            document.mentioned.extend(code_spans(line).filter(|span| is_source(span)).map(str::to_owned));
            if let Some((path, sentence)) = description(line)
                && document.described.insert(path.to_owned(), sentence.len()).is_some()
            {
                document.problems.push(format!("docs/ARCHITECTURE.md describes {path} twice; keep one line"));
            }
        }
        document.check_table();
        document
    }

    fn add_row(&mut self, module: &str, imports: &str) {
        let allowed = code_spans(imports).map(str::to_owned).collect();
        let module = module.trim_matches('`').to_owned();
        if self.may_import.insert(module.clone(), allowed).is_some() {
            self.problems.push(format!("docs/ARCHITECTURE.md has two rows for `{module}`; make them one"));
        }
    }

    fn check_table(&mut self) {
        if self.may_import.is_empty() {
            self.problems.push("docs/ARCHITECTURE.md has no table headed `| module | may import |`".to_owned());
        }
        for (module, allowed) in &self.may_import {
            for unknown in allowed.iter().filter(|name| !self.may_import.contains_key(*name)) {
                self.problems.push(format!("docs/ARCHITECTURE.md: `{module}` may import `{unknown}`, which has no row of its own"));
            }
        }
        if let Some(circle) = self.circle() {
            self.problems.push(format!("docs/ARCHITECTURE.md: the table allows a circle: {}", circle.join(" → ")));
        }
    }

    /// A way through the table that comes back to where it began, told from its first name on.
    fn circle(&self) -> Option<Vec<&str>> {
        fn walk<'a>(
            table: &'a BTreeMap<String, BTreeSet<String>>,
            way: &mut Vec<&'a str>,
            done: &mut BTreeSet<&'a str>,
        ) -> Option<Vec<&'a str>> {
            let here = *way.last()?;
            for next in table.get(here).into_iter().flatten() {
                if let Some(start) = way.iter().position(|name| name == next) {
                    return Some(way[start..].iter().copied().chain([next.as_str()]).collect());
                }
                if !done.contains(next.as_str()) {
                    way.push(next);
                    if let Some(circle) = walk(table, way, done) {
                        return Some(circle);
                    }
                }
            }
            done.insert(here);
            way.pop();
            None
        }

        let mut done = BTreeSet::new();
        self.may_import
            .keys()
            .find_map(|start| if done.contains(start.as_str()) { None } else { walk(&self.may_import, &mut vec![start], &mut done) })
    }
}

/// The cells of a table row.
fn row(line: &str) -> Option<Vec<&str>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// "- `path`: sentence" of a source file.
fn description(line: &str) -> Option<(&str, &str)> {
    let (path, rest) = line.strip_prefix("- `")?.split_once('`')?;
    is_source(path).then(|| (path, rest.trim_start_matches(':').trim()))
}

/// What stands between backticks.
fn code_spans(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_source(span: &str) -> bool {
    (span.starts_with("src/") || span.starts_with("providers/src/")) && span.ends_with(".rs") && !span.contains(['*', '<', '{'])
}
