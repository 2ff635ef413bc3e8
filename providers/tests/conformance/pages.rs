//! What the pages in `docs/providers/` say about capabilities and answers is made from the code and from
//! the error tables that the suite has just proved. `UPDATE_EXPECTED=1` writes it anew.

use std::collections::BTreeMap;
use std::path::PathBuf;

use postrider_providers::Providers;
use postrider_providers::conformance::api::{ApiSubject, answered, diagnostic};
use postrider_providers::conformance::http_api::Answer;
use postrider_providers::contract::{Capabilities, ContentForm, CountedSize, EnvelopeForm, SizeLimit};

/// One answer of a service, and what is made of it.
pub struct Told {
    /// Status and words.
    pub answer: String,
    /// The verdict's name.
    pub verdict: String,
    /// What the administrator must do; empty if nothing.
    pub advice: String,
}

impl From<(String, &str, &str)> for Told {
    fn from((answer, verdict, advice): (String, &str, &str)) -> Self {
        Self { answer, verdict: verdict.to_owned(), advice: advice.to_owned() }
    }
}

/// What a provider makes of each row of its error table.
pub async fn told<S: ApiSubject + Clone>(subject: &S) -> Vec<Told> {
    let mut told = Vec::new();
    for row in subject.rows() {
        let delivery = answered(subject, row.answer.clone()).await;
        let Answer::Reply { status, body, .. } = row.answer else { panic!("{}: no answer in an error table", subject.kind()) };
        let diagnostic = diagnostic(&delivery);
        told.push(Told {
            // What counts as taken has no diagnostic.
            answer: format!("{status} {}", diagnostic.map_or_else(|| words(&body), |diagnostic| diagnostic.text.clone())),
            verdict: row.verdict.name().to_owned(),
            advice: diagnostic.and_then(|diagnostic| diagnostic.advice).unwrap_or_default().to_owned(),
        });
    }
    told
}

/// The texts in the members of a JSON object.
fn words(body: &str) -> String {
    let members: BTreeMap<String, serde_json::Value> = serde_json::from_str(body).unwrap_or_default();
    members.values().filter_map(serde_json::Value::as_str).collect::<Vec<_>>().join(": ")
}

/// Holds `docs/providers/<kind>.md` to what was told.
pub fn check_answers(kind: &str, told: &[Told]) {
    let mut table = "| answer | verdict | what to do |\n|---|---|---|\n".to_owned();
    let mut last = String::new();
    for Told { answer, verdict, advice } in told {
        let row = format!("| {} | `{verdict}` | {} |\n", cell(&short(answer)), cell(advice));
        // With and without a header that says how long to wait.
        if row != last {
            table.push_str(&row);
        }
        last = row;
    }
    check_section(&format!("{kind}.md"), "answers", &table);
}

/// Holds the table in `docs/providers/README.md` to what the code says of every kind.
pub fn check_capabilities() {
    let mut table =
        "| kind | content | recipients from | reverse-path | largest message | recipients in a call | 8-bit | SMTPUTF8 | null sender | \
                     doubles avoided | sender must be known |\n|---|---|---|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for (kind, capabilities) in Providers::capabilities() {
        table.push_str(&line(kind, &capabilities));
    }
    check_section("README.md", "capabilities", &table);
}

fn line(kind: &str, capabilities: &Capabilities) -> String {
    let yes = |yes: bool| if yes { "yes" } else { "no" };
    let content = match capabilities.content {
        ContentForm::Raw => "raw",
        ContentForm::RawMostly => "raw, some fields replaced",
        ContentForm::Fields => "fields",
    };
    let envelope = match capabilities.envelope {
        EnvelopeForm::Own => "envelope",
        EnvelopeForm::Header => "header",
    };
    let cells = [
        format!("[`{kind}`]({kind}.md)"),
        content.to_owned(),
        envelope.to_owned(),
        if capabilities.reverse_path { "as it is" } else { "its own" }.to_owned(),
        capabilities.max_size.map_or("as it says".to_owned(), size),
        capabilities.max_recipients.map_or("any".to_owned(), |most| most.to_string()),
        yes(capabilities.eight_bit).to_owned(),
        yes(capabilities.smtputf8).to_owned(),
        yes(capabilities.null_sender).to_owned(),
        capabilities.idempotency.map_or("no".to_owned(), |window| format!("for {}", postrider_providers::settings::Span(window))),
        yes(capabilities.sender_identity).to_owned(),
    ];
    format!("| {} |\n", cells.join(" | "))
}

fn size(limit: SizeLimit) -> String {
    let counted = match limit.counted {
        CountedSize::Message => "",
        CountedSize::Base64 => " after base64",
    };
    format!("{:.1} MB{counted}", limit.octets as f64 / 1e6)
}

/// The beginning of an answer, by which it is known.
fn short(answer: &str) -> String {
    if answer.chars().count() > 220 { answer.chars().take(217).chain("...".chars()).collect() } else { answer.to_owned() }
}

/// A table's cell: one line, without what Markdown would take for its own.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    line.replace('|', "\\|").replace('<', "&lt;").replace('>', "&gt;")
}

/// Compares what stands between `<!-- name -->` and `<!-- /name -->` of a page, or writes it.
fn check_section(page: &str, name: &str, wanted: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/providers").join(page);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("docs/providers/{page}: {error}; each kind has its page"));
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?)));
    let Some((before, (found, after))) = parts else { panic!("docs/providers/{page} lacks the lines {begin:?} and {end:?}") };
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&path, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
    } else {
        assert!(found == wanted, "docs/providers/{page} is not what the code says; UPDATE_EXPECTED=1 writes it anew:\n{wanted}");
    }
}
