//! What is read, what is refused and in which words, and that what is written can be read again.

use proptest::prelude::*;

use super::*;

fn refusal(text: &str) -> String {
    text.parse::<Filter>().unwrap_err().to_string()
}

#[test]
fn every_key_is_read_from_its_own_example() {
    for key in KEYS {
        let filter: Filter = key.example.parse().unwrap();
        assert_eq!(filter.terms.len(), 1, "{}", key.example);
        assert_eq!(filter.terms[0].key(), key.name);
        assert_eq!(filter.to_string(), key.example);
    }
}

#[test]
fn every_key_is_explained_to_people_in_the_same_words() {
    let page = include_str!("../../../docs/operations.md");
    for Key { name, example, help } in KEYS {
        assert!(page.contains(&format!("| `{example}` | {help} |")), "{name}");
    }
}

#[test]
fn terms_are_read_in_order_whatever_stands_between_them() {
    let filter: Filter = "  state=Deferred,held\tTo=*@example.com\n older=1h30m reason=\"a \\\"b\\\" \\\\ c\" from=<> ".parse().unwrap();
    let expected = [
        Term::State(vec![QueueState::Deferred, QueueState::Held]),
        Term::To(Pattern::new("*@example.com")),
        Term::Older(Duration::from_secs(5400)),
        Term::Reason(Pattern::new("a \"b\" \\ c")),
        Term::From(Pattern::new("")),
    ];
    assert_eq!(filter.terms, expected);
    assert_eq!("".parse(), Ok(Filter::default()));
}

#[test]
fn a_refusal_says_what_was_seen_and_what_may_have_been_meant() {
    for (text, said) in [
        ("stat=deferred", "`stat=deferred`: `stat` is no key; did you mean `state`? the keys are state, to, from"),
        ("deferred", "`deferred`: expected a key, a sign and a value, as in `state=deferred`; the keys are"),
        ("older", "`older`: expected a key, a sign and a value, as in `older=1h`"),
        ("state=defered", "`state=defered`: `defered` is no state (did you mean `deferred`?); expected dead, held"),
        ("older=soon", "`older=soon`: expected a duration such as"),
        ("to>=x", "`to>=x`: `to` is compared with `=` alone, as in `to=*@example.com`"),
        ("attempts>=many", "`attempts>=many`: expected a number, as in `attempts>=3`"),
        ("reason=\"no end", "the closing quotation mark is missing"),
        ("reason=\"a\"b", "expected a space behind the quotation mark"),
        ("id=12", "`12` is no id of a message; expected 32 hexadecimal digits"),
        ("priority=urgent", "`urgent` is no priority"),
        ("to=a state=", "`state=`: `` is no state"),
    ] {
        let words = refusal(text);
        assert!(words.contains(said), "{text}: {words}");
    }
}

#[test]
fn only_the_star_is_special_and_the_case_does_not_matter() {
    for (pattern, text, expected) in [
        ("*@example.com", "A@EXAMPLE.com", true),
        ("*@example.com", "a@example.com.evil", false),
        ("a*b*c", "aXbXbc", true),
        ("a*b*c", "aXbXbcd", false),
        ("*", "", true),
        ("", "x", false),
        ("", "", true),
        ("a?[b]%_", "a?[b]%_", true),
        ("a?[b]%_", "axb%_", false),
        ("**x**", "x", true),
        ("*5.7.1*", "550 5.7.1 no", true),
    ] {
        assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
    }
}

proptest! {
    #[test]
    fn a_filter_that_was_written_is_read_as_the_same(filter in filters()) {
        let written = filter.to_string();
        prop_assert_eq!(written.parse::<Filter>().map_err(|error| error.to_string()), Ok(filter), "{}", written);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,60}") {
        let _ = text.parse::<Filter>();
    }

    #[test]
    fn sql_means_the_same_by_a_pattern(pattern in "[aAb*%_\\\\.]{0,7}", text in "[aAbB%_\\\\.]{0,8}") {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        let pattern = Pattern::new(pattern);
        let found: bool = db.query_row("SELECT ?1 LIKE ?2 ESCAPE '\\'", (&text, pattern.to_like()), |row| row.get(0)).unwrap();
        prop_assert_eq!(found, pattern.matches(&text), "{:?} {}", pattern, text);
    }
}

fn filters() -> impl Strategy<Value = Filter> {
    let pattern = "[a-z*@ \"\\\\.<=,]{1,12}";
    let text = |make: fn(Pattern) -> Term| pattern.prop_map(move |text| make(Pattern::new(text)));
    let seconds = || (0u64..10_000_000).prop_map(Duration::from_secs);
    let states = proptest::sample::subsequence(QueueState::ALL.to_vec(), 1..=6);
    let term = prop_oneof![
        states.prop_map(Term::State),
        proptest::sample::subsequence(Priority::ALL.to_vec(), 1..=3).prop_map(Term::Priority),
        proptest::collection::vec(any::<[u8; 16]>().prop_map(MessageId::from_bytes), 1..3).prop_map(Term::Id),
        seconds().prop_map(Term::Older),
        seconds().prop_map(Term::Younger),
        (0u32..100).prop_map(|number| Term::Attempts(Comparison::AtMost, number)),
        "[a-z@.*]{0,9}".prop_map(|text| Term::From(Pattern::new(text))),
        text(Term::To),
        text(Term::Provider),
        text(Term::Route),
        text(Term::Domain),
        text(Term::App),
        text(Term::Client),
        text(Term::Reason),
    ];
    proptest::collection::vec(term, 0..5).prop_map(|terms| Filter { terms })
}
