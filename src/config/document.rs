//! The parsed TOML document: finding the place of a setting, and reading tables with all their errors.
//!
//! serde stops at the first thing that it does not like. [`read`] takes that out of a copy of the
//! table and tries again, so that one run reports everything.

use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

use super::explain::{Place, explain};
use super::problem::Problem;

/// One step from a table or an array to what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// A key of a table.
    Key(String),
    /// A position in an array.
    Index(usize),
}

impl From<&str> for Step {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<usize> for Step {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

/// Builds the path of a setting, as in `setting!["listener", 0, "bind"]`.
macro_rules! setting {
    ($($step:expr),* $(,)?) => {
        [$($crate::config::document::Step::from($step)),*]
    };
}
pub(super) use setting;

/// The whole document.
pub(super) struct Document<'i> {
    /// The root table.
    pub(super) root: DeTable<'i>,
}

impl Document<'_> {
    /// Where the value at `path` is; of a path that leads nowhere, where it ends.
    pub(super) fn value(&self, path: &[Step]) -> Range<usize> {
        self.find(path, false)
    }

    /// Where the key of the entry at `path` is.
    pub(super) fn key(&self, path: &[Step]) -> Range<usize> {
        self.find(path, true)
    }

    /// The keys in the table at `path`, whatever they are.
    pub(super) fn keys(&self, path: &[Step]) -> Vec<&str> {
        let [Step::Key(first), rest @ ..] = path else { return Vec::new() };
        let value = rest.iter().try_fold(self.root.get(first.as_str()), |value, step| {
            let value = value?.get_ref();
            Some(match step {
                Step::Key(key) => value.as_table()?.get(key.as_str()),
                Step::Index(index) => value.as_array()?.get(*index),
            })
        });
        let table = value.flatten().and_then(|value| value.get_ref().as_table());
        table.map(|table| table.iter().map(|(key, _)| key.get_ref().as_ref()).collect()).unwrap_or_default()
    }

    fn find(&self, path: &[Step], want_key: bool) -> Range<usize> {
        let mut span = 0..0;
        let mut table = Some(&self.root);
        let mut array = None;
        for step in path {
            let (key, value) = match step {
                Step::Key(key) => match table.and_then(|table| table.get_key_value(key.as_str())) {
                    Some((key, value)) => (Some(key.span()), value),
                    None => return span,
                },
                Step::Index(index) => match array.and_then(|array: &toml::de::DeArray<'_>| array.get(*index)) {
                    Some(value) => (None, value),
                    None => return span,
                },
            };
            table = value.get_ref().as_table();
            array = value.get_ref().as_array();
            span = key.filter(|_| want_key).unwrap_or_else(|| value.span());
        }
        span
    }
}

/// How a table is called in messages, and the steps from it to the one at fault.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableName<'a> {
    /// The dotted name, as in `route`.
    pub(super) base: &'a str,
    /// Whether it is written `[[base]]`.
    pub(super) is_array: bool,
}

impl TableName<'_> {
    /// The header of the table that `path` leads to from here, as it is written in the file.
    pub(super) fn header(self, path: &[Step]) -> String {
        let mut dotted = self.base.to_owned();
        for step in path {
            if let Step::Key(key) = step {
                let _ = if dotted.is_empty() { write!(dotted, "{key}") } else { write!(dotted, ".{key}") };
            }
        }
        if dotted.is_empty() {
            "the top level of the file".to_owned()
        } else if self.is_array && path.is_empty() {
            format!("`[[{dotted}]]`")
        } else {
            format!("`[{dotted}]`")
        }
    }
}

/// What reading tables leaves behind: problems, and keys whose values must not be shown.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// Everything found so far.
    pub(super) problems: Vec<Problem>,
    /// Keys that nobody knows: each may be a misspelt secret.
    pub(super) suspects: Vec<Range<usize>>,
}

impl Findings {
    /// Adds a problem.
    pub(super) fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }
}

/// Deserialises `value`; `None` if what is left after leaving out everything wrong is not enough.
pub(super) fn read<T: DeserializeOwned>(value: &Spanned<DeValue<'_>>, name: TableName<'_>, findings: &mut Findings) -> Option<T> {
    let mut rest = value.clone();
    let mut left_out: Vec<String> = Vec::new();
    loop {
        let error = match T::deserialize(ValueDeserializer::from(rest.clone())) {
            Ok(read) => return Some(read),
            Err(error) => error,
        };
        let span = error.span().unwrap_or_else(|| value.span());
        let found = rest.get_ref().as_table().and_then(|table| locate(table, &span));
        let path = found.clone().unwrap_or_default();
        let explained = explain(error.message(), &Place { span, path: &path, name }, &mut findings.suspects);
        // What is missing because it was left out, or because it is there under a wrong name, is
        // no news.
        let is_consequence = explained.missing.as_ref().is_some_and(|key| left_out.contains(key));
        if !is_consequence {
            findings.push(explained.problem);
        }
        left_out.extend(explained.meant);
        // Without progress there is no end, and no value either.
        match found.as_deref().and_then(|path| remove(&mut rest, path)) {
            Some(key) => left_out.push(key),
            None => return None,
        }
    }
}

/// The table that `value` is, for changing it.
pub(super) fn table_mut<'v, 'i>(value: &'v mut Spanned<DeValue<'i>>) -> Option<&'v mut DeTable<'i>> {
    match value.get_mut() {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

/// The path to the entry whose key or value is at `span`.
fn locate(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<Step>> {
    table.iter().find_map(|(key, value)| {
        let here = || Step::from(key.get_ref().as_ref());
        if key.span() == *span {
            return Some(vec![here()]);
        }
        let deeper = locate_in(value, span)?;
        Some(std::iter::once(here()).chain(deeper).collect())
    })
}

fn locate_in(value: &Spanned<DeValue<'_>>, span: &Range<usize>) -> Option<Vec<Step>> {
    let own = value.span();
    // The span of a table with a header is its header, so what is in it is searched whatever its
    // own span is. The deepest match is the one that is meant.
    let deeper = match value.get_ref() {
        DeValue::Table(table) => locate(table, span),
        DeValue::Array(array) => array.iter().enumerate().find_map(|(index, value)| {
            let deeper = locate_in(value, span)?;
            Some(std::iter::once(Step::Index(index)).chain(deeper).collect())
        }),
        _ => None,
    };
    deeper.or_else(|| (own.start <= span.start && span.end <= own.end).then(Vec::new))
}

/// Removes the entry at `path`, or the array that it is in; gives its key.
fn remove(value: &mut Spanned<DeValue<'_>>, path: &[Step]) -> Option<String> {
    let [Step::Key(key), rest @ ..] = path else { return None };
    let table = table_mut(value)?;
    if let Some(Step::Key(_)) = rest.first() {
        return remove(table.get_mut(key.as_str())?, rest);
    }
    table.remove(key.as_str()).map(|_| key.clone())
}
