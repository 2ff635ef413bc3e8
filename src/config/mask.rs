//! Hides secrets in the text of a config file before any of it is drawn.
//!
//! It reads the raw text, not the parsed document, because a file that does not even parse is drawn
//! too, and a line with a forgotten quote may hold a password.

use std::ops::Range;

/// What stands in place of a secret. Its length says nothing about the secret's.
const STARS: &str = "***";

/// Words that make a key's value a secret.
const SECRET_WORDS: &[&str] =
    &["password", "passwd", "passphrase", "pwd", "secret", "token", "api_key", "apikey", "access_key", "credential", "bearer"];

/// Tables of which each value may be a secret, whatever its key is called.
const SECRET_TABLES: &[&str] = &["headers", "query", "secrets"];

/// Keys whose misspellings are taken for secrets.
const SECRET_KEYS: &[&str] = &["password", "secret", "token", "bearer", "api_key", "client_secret", "secret_access_key", "session_token"];

/// A text in which secrets are replaced by stars, and the way from old to new positions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Masked {
    text: String,
    /// What was replaced, as ranges of the original text, in order.
    edits: Vec<Range<usize>>,
}

impl Masked {
    /// Masks the values of all secrets in `text`, and of the keys at `suspects`.
    pub(super) fn new(text: &str, suspects: &[Range<usize>]) -> Self {
        let edits = Scanner { text, at: 0, suspects, is_secret_table: false, edits: Vec::new() }.run();
        let mut masked = String::with_capacity(text.len());
        let mut copied = 0;
        for edit in &edits {
            masked.push_str(&text[copied..edit.start]);
            masked.push_str(STARS);
            copied = edit.end;
        }
        masked.push_str(&text[copied..]);
        Self { text: masked, edits }
    }

    /// The text to show.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a range of the original text is in [`Masked::text`].
    pub(super) fn range(&self, range: &Range<usize>) -> Range<usize> {
        self.position(range.start, false)..self.position(range.end, true)
    }

    fn position(&self, offset: usize, is_end: bool) -> usize {
        let (mut kept, mut added) = (offset, 0);
        for edit in &self.edits {
            if edit.end <= offset {
                kept -= edit.len();
                added += STARS.len();
            } else if edit.start < offset {
                kept -= offset - edit.start;
                added += if is_end { STARS.len() } else { 0 };
            }
        }
        kept + added
    }
}

/// Whether the value of `key` is a secret, or `key` looks like a misspelling of one that is.
pub(super) fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    if key == "url" || key == "pass" || SECRET_TABLES.contains(&key.as_str()) {
        // A database URL carries its password.
        return true;
    }
    if key == "password_file" {
        return false;
    }
    SECRET_WORDS.iter().any(|word| key.contains(word))
        || SECRET_KEYS.iter().any(|known| strsim::normalized_damerau_levenshtein(known, &key) >= 0.7)
}

/// Walks over keys and values without a grammar: enough to know strings from comments.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    suspects: &'a [Range<usize>],
    /// Whether the table that began last has secrets only.
    is_secret_table: bool,
    edits: Vec<Range<usize>>,
}

impl Scanner<'_> {
    fn run(mut self) -> Vec<Range<usize>> {
        let mut key_from = 0;
        self.begin_table();
        self.without_equals();
        while let Some(byte) = self.byte(self.at) {
            match byte {
                // A commented-out setting is hidden as well, so comments are scanned like the rest.
                b'\n' | b'{' | b',' | b'#' => {
                    self.at += 1;
                    key_from = self.at;
                    self.begin_table();
                    self.without_equals();
                }
                b'=' => {
                    let is_secret = self.is_secret_key(key_from..self.at);
                    self.at += 1;
                    self.skip_blanks();
                    let value = self.value(is_secret);
                    let pasted_key = self.text[value.clone()].contains("PRIVATE KEY");
                    let hidden = if pasted_key { Some(value.clone()) } else { self.hidden_part(value.clone()) };
                    if is_secret || pasted_key {
                        if let Some(hidden) = hidden.filter(|hidden| !hidden.is_empty()) {
                            self.edits.push(hidden);
                        }
                        self.at = value.end;
                    } else if matches!(self.byte(value.start), Some(b'"' | b'\'')) {
                        self.at = value.end;
                    }
                    key_from = self.at;
                }
                _ => self.at += 1,
            }
        }
        self.edits
    }

    /// Looks whether a table begins here, as in `[provider.http.main.headers]`.
    fn begin_table(&mut self) {
        let is_line = self.at == 0 || self.byte(self.at - 1) == Some(b'\n');
        let line = self.text[self.at..].split('\n').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[').filter(|_| is_line) {
            let path = header.trim_start_matches('[').split(']').next().unwrap_or_default();
            self.is_secret_table = path.split('.').any(|key| SECRET_TABLES.contains(&key.trim().trim_matches(['"', '\''])));
        }
    }

    /// Hides the rest of a line such as `password: "hunter2"`, whose `=` is missing.
    fn without_equals(&mut self) {
        let start = self.at;
        let line = self.text[start..].split('\n').next().unwrap_or_default();
        let is_key = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
        let blanks = line.len() - line.trim_start().len();
        let word_end = line[blanks..].find(|c| !is_key(c)).map_or(line.len(), |end| blanks + end);
        let rest = line[word_end..].trim();
        if word_end == blanks
            || rest.is_empty()
            || rest.starts_with(['=', ',', ']', '}', '#'])
            || !self.is_secret_key(start..start + word_end)
        {
            return;
        }
        let from = start + line.len() - line[word_end..].trim_start().len();
        let to = start + line.trim_end().len();
        self.edits.push(from..to);
        self.at = to;
    }

    fn byte(&self, at: usize) -> Option<u8> {
        self.text.as_bytes().get(at).copied()
    }

    fn skip_blanks(&mut self) {
        while matches!(self.byte(self.at), Some(b' ' | b'\t')) {
            self.at += 1;
        }
    }

    fn is_secret_key(&self, written: Range<usize>) -> bool {
        let key = self.text[written.clone()].trim();
        let mut parts = key.split('.').map(|part| part.trim().trim_matches(['"', '\'']));
        let last = parts.next_back().unwrap_or(key);
        let is_in_table = self.is_secret_table || parts.any(|part| SECRET_TABLES.contains(&part));
        is_in_table || is_secret(last) || self.suspects.iter().any(|suspect| written.start <= suspect.start && suspect.end <= written.end)
    }

    /// The value that starts here. What is not closed ends with its line, so that the lines after it
    /// are still looked at; but a secret that may go on over lines is hidden to the end.
    fn value(&self, is_secret: bool) -> Range<usize> {
        let start = self.at;
        let rest = &self.text[start..];
        let line_end = start + rest.find('\n').unwrap_or(rest.len());
        let closed_by = |close: &str, from: usize| rest.get(from..)?.find(close).map(|at| start + from + at + close.len());
        let end = match self.byte(start) {
            Some(b'"') if rest.starts_with("\"\"\"") => closed_by("\"\"\"", 3),
            Some(b'\'') if rest.starts_with("'''") => closed_by("'''", 3),
            Some(b'"') => closing_quote(rest).map(|at| start + at),
            Some(b'\'') => closed_by("'", 1).filter(|&end| end <= line_end),
            Some(b'{') => closing_brace(rest).map(|at| start + at),
            Some(b'[') => closed_by("]", 1),
            _ => None,
        };
        let goes_on = ["\"\"\"", "'''", "["].iter().any(|open| rest.starts_with(open));
        if end.is_none() && is_secret && goes_on {
            return start..self.text.len();
        }
        start..end.unwrap_or(start + self.text[start..line_end].trim_end().len())
    }

    /// What of a secret's value is hidden: nothing when it only says where the secret is.
    fn hidden_part(&self, value: Range<usize>) -> Option<Range<usize>> {
        let text = &self.text[value.clone()];
        if let Some(inner) = text.strip_prefix('{') {
            let source = inner.trim_start();
            let after = source.strip_prefix("env").or_else(|| source.strip_prefix("file"));
            let only_a_source = after.is_some_and(|rest| rest.trim_start().starts_with('=')) && !inner.contains(',');
            return (!only_a_source).then(|| value.start + 1..value.end - usize::from(text.ends_with('}')));
        }
        for quote in ["\"\"\"", "'''", "\"", "'"] {
            if text.starts_with(quote) {
                let from = value.start + quote.len();
                let closed = text.len() >= 2 * quote.len() && text.ends_with(quote);
                return Some(from..if closed { value.end - quote.len() } else { value.end });
            }
        }
        Some(value)
    }
}

/// The end of the basic string that `text` starts with, if it is closed on its line.
fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'\n' => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// The end of the inline table that `text` starts with, whatever stands in it.
fn closing_brace(text: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = text.as_bytes().get(at) {
        match byte {
            b'"' => at += closing_quote(&text[at..])? - 1,
            b'\'' => at += text[at + 1..].find('\'')? + 1,
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(text: &str) -> String {
        Masked::new(text, &[]).text().to_owned()
    }

    #[test]
    fn every_way_to_write_a_secret_is_hidden() {
        for (text, expected) in [
            ("password = \"hunter2\"", "password = \"***\""),
            ("password=\"hun\\\"ter2\" # note", "password=\"***\" # note"),
            ("office.password = 'hunter2'", "office.password = '***'"),
            ("\"api_key\" = \"hunter2\"", "\"api_key\" = \"***\""),
            ("a = { host = \"h\", password = \"hunter2\", port = 1 }", "a = { host = \"h\", password = \"***\", port = 1 }"),
            ("password = \"\"\"\nhunter2\n\"\"\"\nx = 1", "password = \"\"\"***\"\"\"\nx = 1"),
            ("password: \"hunter2\"", "password***"),
            ("a = 1\npassword \"hunter2\"\nb = 2", "a = 1\npassword ***\nb = 2"),
            ("password = \"\"\"\nhunter2\nx = 1\n", "password = \"\"\"***"),
            ("password = hunter2", "password = ***"),
            ("password = \"hunter2\nhost = \"h\"", "password = \"***\nhost = \"h\""),
            ("password = [\n  \"hunter2\",\n]", "password = ***"),
            ("password = { value = \"hunter2\" }", "password = {***}"),
            ("pasword = \"hunter2\"", "pasword = \"***\""),
            ("# password = \"hunter2\"", "# password = \"***\""),
            ("secret_access_key = 12345", "secret_access_key = ***"),
            ("private_key = \"-----BEGIN PRIVATE KEY-----\"", "private_key = ***"),
            ("url = \"postgres://u:hunter2@h/db\"", "url = \"***\""),
            ("bearer = \"hunter2\"", "bearer = \"***\""),
            ("bearr = \"hunter2\"", "bearr = \"***\""),
            ("headers = { A = { env = \"X\" }, \"B}\" = \"hunter2\" }\nx = 1", "headers = {***}\nx = 1"),
            ("headers = { A = \"hunter2\"\nx = 1", "headers = {***\nx = 1"),
            ("http.main.query.k = \"hunter2\"", "http.main.query.k = \"***\""),
            (
                "[provider.http.x.headers] # y\nA = \"hunter2\"\n[b]\nc = \"d\"",
                "[provider.http.x.headers] # y\nA = \"***\"\n[b]\nc = \"d\"",
            ),
            ("[a.secrets]\nk = { fle = \"hunter2\" }", "[a.secrets]\nk = {***}"),
        ] {
            assert_eq!(masked(text), expected);
        }
    }

    #[test]
    fn what_is_no_secret_stays() {
        for text in [
            "host = \"smtp.example.net\"",
            "password = { env = \"OFFICE_PASSWORD\" }",
            "password = { file = \"/run/secrets/x\" }",
            "private_key = \"/etc/postrider/key.pem\"",
            "username = \"relay\" # don't change",
            "password_file = \"/etc/postrider/passwords\"",
            "text = \"password = no\"",
        ] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn positions_follow_the_text() {
        let text = "password = \"hunter2\"\nhots = \"h\"\n";
        let masked = Masked::new(text, &[]);
        let at = text.find("hots").unwrap();
        assert_eq!(&masked.text()[masked.range(&(at..at + 4))], "hots");
        let secret = text.find("\"hunter2\"").unwrap();
        assert_eq!(&masked.text()[masked.range(&(secret..secret + 9))], "\"***\"");
        let inside = text.find("nter").unwrap();
        assert_eq!(&masked.text()[masked.range(&(inside..inside + 2))], "***");
    }

    #[test]
    fn a_suspect_key_is_hidden_whatever_its_name() {
        let text = "hemlig = \"hunter2\"";
        assert_eq!(Masked::new(text, std::slice::from_ref(&(0..6))).text(), "hemlig = \"***\"");
    }
}
