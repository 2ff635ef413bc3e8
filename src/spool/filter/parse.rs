//! From text to filter, with errors that say what was seen, what was expected, and what may have been meant.

use std::str::FromStr;

use postrider_providers::contract::{MessageId, Priority};
use postrider_providers::settings::Span;

use super::{Comparison, Filter, KEYS, Pattern, Term};
use crate::spool::view::QueueState;

/// The most octets of a filter, which bounds what it costs to read and to apply.
const LONGEST: usize = 16 * 1024;

/// Why a text is no filter: what was seen, and what is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FilterError(String);

/// One term as it stands in the text.
struct Written<'t> {
    key: &'t str,
    comparison: Comparison,
    value: String,
    /// All of it.
    text: &'t str,
}

impl FromStr for Filter {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        if text.len() > LONGEST {
            return Err(FilterError(format!("a filter of {} octets; {LONGEST} are the most", text.len())));
        }
        let (mut terms, mut rest) = (Vec::new(), text.trim_start());
        while !rest.is_empty() {
            let (written, behind) = next(rest)?;
            terms.push(term(&written)?);
            rest = behind.trim_start();
        }
        Ok(Self { terms })
    }
}

/// Takes the first term off `text`, which does not begin with white space.
fn next(text: &str) -> Result<(Written<'_>, &str), FilterError> {
    let key_end = text.find(|letter: char| "=<>".contains(letter) || letter.is_whitespace()).unwrap_or(text.len());
    let (key, rest) = text.split_at(key_end);
    let signs = [
        ("=", Comparison::Equal),
        (">=", Comparison::AtLeast),
        ("<=", Comparison::AtMost),
        (">", Comparison::More),
        ("<", Comparison::Less),
    ];
    let Some((sign, comparison)) = signs.into_iter().find(|(sign, _)| rest.starts_with(sign)) else {
        let expected = KEYS.iter().find(|known| known.name == key).map_or("state=deferred", |known| known.example);
        return Err(FilterError(format!("`{key}`: expected a key, a sign and a value, as in `{expected}`; {}", known_keys(key))));
    };
    let rest = &rest[sign.len()..];
    let (value, behind) = match rest.strip_prefix('"') {
        Some(quoted) => unquote(quoted).ok_or_else(|| FilterError(format!("`{text}`: the closing quotation mark is missing")))?,
        None => {
            let (value, behind) = rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len()));
            (value.to_owned(), behind)
        }
    };
    let written = &text[..text.len() - behind.len()];
    if !(behind.is_empty() || behind.starts_with(char::is_whitespace)) {
        return Err(FilterError(format!("`{written}`: expected a space behind the quotation mark; inside of it, write \\\"")));
    }
    Ok((Written { key, comparison, value, text: written }, behind))
}

/// What stands before the closing quotation mark, and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((position, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, &text[position + 1..])),
            '\\' => value.push(letters.next()?.1),
            _ => value.push(letter),
        }
    }
    None
}

/// The value as it has to be written.
pub(super) fn quoted(value: &str) -> String {
    let is_plain = !value.is_empty() && !value.starts_with('"') && !value.contains(char::is_whitespace);
    if is_plain { value.to_owned() } else { format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")) }
}

fn term(written: &Written<'_>) -> Result<Term, FilterError> {
    let Written { key, comparison, value, text } = written;
    let Some(known) = KEYS.iter().find(|known| known.name.eq_ignore_ascii_case(key)) else {
        return Err(FilterError(format!("`{text}`: `{key}` is no key; {}", known_keys(key))));
    };
    if *comparison != Comparison::Equal && known.name != "attempts" {
        return Err(FilterError(format!("`{text}`: `{}` is compared with `=` alone, as in `{}`", known.name, known.example)));
    }
    let pattern = || Pattern::new(value.as_str());
    let without_brackets = || value.strip_prefix('<').and_then(|value| value.strip_suffix('>')).unwrap_or(value);
    Ok(match known.name {
        "state" => {
            let states: Vec<_> = QueueState::ALL.iter().map(|state| state.as_str()).collect();
            Term::State(list(written, "state", &states, |text| QueueState::ALL.into_iter().find(|state| state.as_str() == text))?)
        }
        "priority" => {
            let priorities: Vec<_> = Priority::ALL.iter().map(|priority| priority.as_str()).collect();
            Term::Priority(list(written, "priority", &priorities, Priority::parse)?)
        }
        "id" => Term::Id(list(written, "id of a message", &["32 hexadecimal digits"], |text| text.parse::<MessageId>().ok())?),
        "older" => Term::Older(age(written)?),
        "younger" => Term::Younger(age(written)?),
        "attempts" => {
            let number = value.parse().map_err(|_| FilterError(format!("`{text}`: expected a number, as in `{}`", known.example)))?;
            Term::Attempts(*comparison, number)
        }
        "to" => Term::To(pattern()),
        "from" => Term::From(Pattern::new(without_brackets())),
        "provider" => Term::Provider(pattern()),
        "route" => Term::Route(pattern()),
        "domain" => Term::Domain(pattern()),
        "app" => Term::App(pattern()),
        "client" => Term::Client(pattern()),
        "message_id" => Term::MessageId(Pattern::new(without_brackets())),
        _ => Term::Reason(pattern()),
    })
}

fn age(written: &Written<'_>) -> Result<std::time::Duration, FilterError> {
    let Span(age) = written.value.parse().map_err(|expected| FilterError(format!("`{}`: expected {expected}", written.text)))?;
    Ok(age)
}

/// One or more values, with commas between them.
fn list<T>(written: &Written<'_>, what: &str, known: &[&str], read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, FilterError> {
    let read = |value: &str| {
        read(&value.to_ascii_lowercase()).ok_or_else(|| {
            let meant = nearest(value, known).map(|near| format!(" (did you mean `{near}`?)")).unwrap_or_default();
            let text = written.text;
            FilterError(format!("`{text}`: `{value}` is no {what}{meant}; expected {}, or several with commas", known.join(", ")))
        })
    };
    written.value.split(',').map(read).collect()
}

fn known_keys(key: &str) -> String {
    let names: Vec<_> = KEYS.iter().map(|known| known.name).collect();
    let meant = nearest(key, &names).filter(|near| *near != key).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
    format!("{meant}the keys are {}", names.join(", "))
}

/// The known word that is most like `word`, if any is.
fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(&word.to_ascii_lowercase(), known);
    let best = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(best) >= 0.5).then_some(best)
}
