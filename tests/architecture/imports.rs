//! Reads which modules a source file reaches, from its tokens: comments, strings and test code do
//! not count, and a path counts wherever it stands, not only behind `use`.

use std::collections::BTreeSet;

/// What one file reaches.
#[derive(Debug, Default)]
pub(crate) struct Imports {
    /// First segments of paths from the crate's root, with their lines.
    pub(crate) of_crate: Vec<(String, usize)>,
    /// First segments of paths below `postrider::`, as the program writes them.
    pub(crate) of_package: Vec<(String, usize)>,
    /// Where it first uses the `tower` crate.
    pub(crate) of_tower: Option<usize>,
    /// Modules that it declares for tests only.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Colons,
    Mark(char),
}

impl Imports {
    /// Reads a file whose place in the module tree is `modules`.
    pub(crate) fn parse(text: &str, modules: &[&str]) -> Self {
        let tokens = tokens(text);
        let mut imports = Self::default();
        // The depth of braces at which each inline module began.
        let mut inline: Vec<usize> = Vec::new();
        let mut depth = 0;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at].0 {
                Token::Mark('#') if is_cfg_test(&tokens[at..]) => {
                    at = imports.skip_test_item(&tokens, at + CFG_TEST.len());
                    continue;
                }
                Token::Mark('{') => depth += 1,
                Token::Mark('}') => {
                    depth -= 1;
                    inline.pop_if(|began| *began == depth);
                }
                Token::Word(word) if word == "mod" && word_at(&tokens, at + 1).is_some() && mark_at(&tokens, at + 2, '{') => {
                    inline.push(depth);
                }
                Token::Word(word) if colons_at(&tokens, at + 1) && !(at > 0 && colons_at(&tokens, at - 1)) => {
                    imports.add_path(word, &tokens, at, modules.len() + inline.len());
                }
                _ => {}
            }
            at += 1;
        }
        imports
    }

    /// A path that begins at `at`, in a module `depth` levels below the root.
    fn add_path(&mut self, first: &str, tokens: &[(Token, usize)], at: usize, depth: usize) {
        match first {
            "crate" => self.of_crate.extend(segments(tokens, at + 2)),
            "postrider" => self.of_package.extend(segments(tokens, at + 2)),
            "tower" if self.of_tower.is_none() => self.of_tower = Some(tokens[at].1),
            "super" => {
                let ups = (at..).step_by(2).take_while(|&at| word_at(tokens, at) == Some("super") && colons_at(tokens, at + 1)).count();
                if ups == depth {
                    self.of_crate.extend(segments(tokens, at + 2 * ups));
                }
            }
            _ => {}
        }
    }

    /// Goes past the item behind `#[cfg(test)]`: to its semicolon, or the end of its braces.
    fn skip_test_item(&mut self, tokens: &[(Token, usize)], mut at: usize) -> usize {
        let mut depth = 0;
        while at < tokens.len() {
            match &tokens[at].0 {
                Token::Word(word) if word == "mod" && depth == 0 && mark_at(tokens, at + 2, ';') => {
                    self.test_modules.extend(word_at(tokens, at + 1).map(str::to_owned));
                }
                Token::Mark(';') if depth == 0 => return at + 1,
                Token::Mark('{' | '(' | '[') => depth += 1,
                Token::Mark(close @ ('}' | ')' | ']')) => {
                    depth -= 1;
                    if depth == 0 && *close == '}' {
                        return at + 1;
                    }
                }
                _ => {}
            }
            at += 1;
        }
        at
    }
}

/// The modules in `registry::registry! { … }`.
pub(crate) fn registered(library: &str) -> BTreeSet<String> {
    let tokens = tokens(library);
    let starts = |at: usize| word_at(&tokens, at) == Some("registry") && mark_at(&tokens, at + 1, '!') && mark_at(&tokens, at + 2, '{');
    let Some(start) = (0..tokens.len()).find(|&at| starts(at)) else { return BTreeSet::new() };
    let mut kinds = BTreeSet::new();
    let mut brackets = 0;
    for (index, (token, _)) in tokens.iter().enumerate().skip(start + 3) {
        match token {
            // `module as kind`: the module is meant.
            Token::Word(word) if word == "as" || word_at(&tokens, index - 1) == Some("as") => {}
            Token::Mark('[') => brackets += 1,
            Token::Mark(']') => brackets -= 1,
            Token::Mark('}') => break,
            Token::Word(kind) if brackets == 0 => drop(kinds.insert(kind.clone())),
            _ => {}
        }
    }
    kinds
}

/// The first segments of what follows: one word, or each of a group.
fn segments(tokens: &[(Token, usize)], at: usize) -> Vec<(String, usize)> {
    if let Some(word) = word_at(tokens, at) {
        return vec![(word.to_owned(), tokens[at].1)];
    }
    let mut found = Vec::new();
    let mut depth = 0;
    for (index, (token, line)) in tokens.iter().enumerate().skip(at) {
        match token {
            Token::Mark('{') => depth += 1,
            Token::Mark('}') => depth -= 1,
            Token::Word(word) if depth == 1 && matches!(tokens[index - 1].0, Token::Mark('{' | ',')) => found.push((word.clone(), *line)),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    found
}

const CFG_TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];

fn is_cfg_test(tokens: &[(Token, usize)]) -> bool {
    tokens.len() >= CFG_TEST.len()
        && tokens.iter().zip(CFG_TEST).all(|((token, _), wanted)| match token {
            Token::Word(word) => word == wanted,
            Token::Mark(mark) => wanted.chars().eq([*mark]),
            Token::Colons => false,
        })
}

fn word_at(tokens: &[(Token, usize)], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((Token::Word(word), _)) => Some(word),
        _ => None,
    }
}

fn colons_at(tokens: &[(Token, usize)], at: usize) -> bool {
    matches!(tokens.get(at), Some((Token::Colons, _)))
}

fn mark_at(tokens: &[(Token, usize)], at: usize, wanted: char) -> bool {
    matches!(tokens.get(at), Some((Token::Mark(mark), _)) if *mark == wanted)
}

/// The tokens of `text` with their lines, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<(Token, usize)> {
    let mut found = Vec::new();
    let mut line = 1;
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if next == '"' {
            quoted(rest, '"')
        } else if next == '\'' {
            // A character has its closing quote right behind it; a lifetime has none.
            let mut chars = rest[1..].chars();
            let character = matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')));
            if character { quoted(rest, '\'') } else { 1 + word(&rest[1..]) }
        } else if next.is_alphabetic() || next == '_' {
            let length = word(rest);
            found.push((Token::Word(rest[..length].to_owned()), line));
            length
        } else if next.is_ascii_digit() {
            word(rest)
        } else if rest.starts_with("::") {
            found.push((Token::Colons, line));
            2
        } else {
            if !next.is_whitespace() {
                found.push((Token::Mark(next), line));
            }
            next.len_utf8()
        };
        line += rest[..length].matches('\n').count();
        rest = &rest[length..];
    }
    found
}

fn word(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of a literal that ends at `quote`, past what is escaped.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` and so on, if that is what begins here.
fn raw_string(text: &str) -> Option<usize> {
    let start = text.strip_prefix("br").or_else(|| text.strip_prefix("cr")).or_else(|| text.strip_prefix('r'))?;
    let hashes = start.len() - start.trim_start_matches('#').len();
    let inside = start[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let opened = text.len() - inside.len();
    Some(inside.find(&end).map_or(text.len(), |at| opened + at + end.len()))
}
