//! From the document to the raw tables: walks what is there, and names what this version cannot do.

use std::collections::BTreeMap;

use postrider_providers::Providers;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Findings, TableName, read, setting, table_mut};
use super::explain::{all_of, nearest, one_of};
use super::file;
use super::problem::Problem;

/// The sections that this version has.
const SECTIONS: &[&str] =
    &["server", "listener", "access", "app", "provider", "route", "limits", "queue", "failover", "bounce", "history", "admin", "log"];

/// What services are called elsewhere, and the kinds that reach them.
const OTHER_NAMES: &[(&str, &[&str])] = &[
    ("acs", &["azure"]),
    ("amazon", &["ses"]),
    ("aws", &["ses"]),
    ("azure_communication_services", &["azure"]),
    ("connector", &["office365_connector"]),
    ("email", &["smarthost"]),
    ("exchange", &["office365"]),
    ("exchange_online", &["office365"]),
    ("file", &["capture"]),
    ("google", &["workspace", "gmail"]),
    ("google_workspace", &["workspace"]),
    ("gsuite", &["workspace"]),
    ("m365", &["office365", "graph"]),
    ("mandrill", &["smarthost"]),
    ("microsoft", &["office365", "graph"]),
    ("microsoft365", &["office365", "graph"]),
    ("ms365", &["office365", "graph"]),
    ("msgraph", &["graph"]),
    ("o365", &["office365"]),
    ("office", &["office365"]),
    ("outlook", &["office365"]),
    ("postfix", &["smarthost"]),
    ("rest", &["http"]),
    ("sendinblue", &["brevo"]),
    ("smtp", &["smarthost"]),
    ("tem", &["scaleway"]),
    ("twilio", &["sendgrid"]),
    ("webhook", &["http"]),
];

/// The settings of `[queue]` that come later.
const LATER_QUEUE: &[&str] = &["url"];

/// The conditions of a route that come later.
const LATER_WHEN: &[&str] = &["header"];

/// The whole file as it is written. `None` stands for a table that could not be read.
#[derive(Default)]
pub(super) struct File {
    pub(super) server: file::Server,
    /// `None` if the file has no listener.
    pub(super) listeners: Option<Vec<Option<file::Listener>>>,
    pub(super) access: file::Access,
    /// By name, in the order of the file.
    pub(super) applications: Vec<(String, file::Application)>,
    pub(super) providers: Vec<Provider>,
    pub(super) routes: Vec<Option<file::Route>>,
    pub(super) limits: file::Limits,
    pub(super) queue: file::Queue,
    pub(super) failover: file::Failover,
    pub(super) bounce: file::Bounce,
    pub(super) history: file::History,
    pub(super) admin: Option<file::Admin>,
    pub(super) log: file::Log,
}

/// One `[provider.<kind>.<key>]`.
pub(super) struct Provider {
    pub(super) kind: String,
    pub(super) key: String,
    /// A table of providers with this one in it; `None` if it could not be read.
    pub(super) settings: Option<Providers>,
}

/// Reads every section of `document`.
pub(super) fn read_file(document: &Document<'_>, findings: &mut Findings) -> File {
    let mut file = File::default();
    for (key, value) in &document.root {
        let name: &str = key.get_ref();
        match name {
            "server" => file.server = section(name, value, findings),
            "access" => file.access = section(name, value, findings),
            "limits" => file.limits = section(name, &without_nested_domains(value, findings), findings),
            "queue" => file.queue = section(name, &without_later_keys(name, LATER_QUEUE, value, findings), findings),
            "failover" => file.failover = section(name, value, findings),
            "bounce" => file.bounce = section(name, value, findings),
            "history" => file.history = section(name, value, findings),
            "admin" if value.get_ref().is_table() => file.admin = read(value, TableName { base: name, is_array: false }, findings),
            "admin" => findings.push(not_a_table(name, "[admin]", value)),
            "log" => file.log = section(name, value, findings),
            "listener" => file.listeners = Some(array(name, value, findings)),
            "route" => file.routes = routes(value, findings),
            "app" => file.applications = applications(value, findings),
            "provider" => file.providers = providers(value, findings),
            unknown => {
                let problem = unknown_section(unknown, value.get_ref().is_table()).at(key.span(), "not a section of this file");
                findings.suspects.push(key.span());
                findings.push(problem);
            }
        }
    }
    file
}

fn unknown_section(unknown: &str, is_table: bool) -> Problem {
    if !is_table {
        let help = "put it below the `[section]` that it belongs to, or remove it";
        return Problem::error(format!("`{unknown}` stands outside of every section")).help(help);
    }
    let problem = Problem::error(format!("unknown section `{unknown}`")).note(format!("the sections are {}", all_of(SECTIONS)));
    match nearest(unknown, SECTIONS.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("remove it, or correct its name"),
    }
}

fn section<T: DeserializeOwned + Default>(name: &str, value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> T {
    if !value.get_ref().is_table() {
        findings.push(not_a_table(name, &format!("[{name}]"), value));
        return T::default();
    }
    read(value, TableName { base: name, is_array: false }, findings).unwrap_or_default()
}

fn not_a_table(name: &str, header: &str, value: &Spanned<DeValue<'_>>) -> Problem {
    Problem::error(format!("`{name}` cannot be {}", kind_of(value.get_ref())))
        .at(value.span(), "expected a table")
        .help(format!("write a line `{header}`, and the settings below it"))
}

/// What a value is, in words.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The tables of `[[name]]`.
fn array<T: DeserializeOwned>(name: &str, value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Vec<Option<T>> {
    let Some(tables) = value.get_ref().as_array() else {
        findings.push(
            Problem::error(format!("`{name}` cannot be {}", kind_of(value.get_ref())))
                .at(value.span(), "there may be several, each with a header in double brackets")
                .help(format!("write `[[{name}]]`")),
        );
        return vec![None];
    };
    tables.iter().map(|table| read(table, TableName { base: name, is_array: true }, findings)).collect()
}

fn routes(value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Vec<Option<file::Route>> {
    let mut value = value.clone();
    if let DeValue::Array(routes) = value.get_mut() {
        for route in routes.iter_mut() {
            if let Some(when) = table_mut(route).and_then(|route| route.get_mut("when")) {
                *when = without_later_keys("route.when", LATER_WHEN, when, findings);
            }
        }
    }
    array("route", &value, findings)
}

/// A copy of the table without what this version does not know yet; each is reported.
fn without_later_keys<'i>(table: &str, later: &[&str], value: &Spanned<DeValue<'i>>, findings: &mut Findings) -> Spanned<DeValue<'i>> {
    let mut value = value.clone();
    for later in later {
        if let Some((key, _)) = table_mut(&mut value).and_then(|entries| entries.remove_entry(*later)) {
            findings.push(
                Problem::error(format!("`{later}` of `[{table}]` is not supported by this version yet"))
                    .at(key.span(), "a setting of a later version")
                    .help("remove it"),
            );
        }
    }
    value
}

/// Domains have dots, and TOML takes an unquoted dot for a table: a trap that deserves its own words.
fn without_nested_domains<'i>(value: &Spanned<DeValue<'i>>, findings: &mut Findings) -> Spanned<DeValue<'i>> {
    let mut value = value.clone();
    let domains = table_mut(&mut value).and_then(|limits| limits.get_mut("sending_domain"));
    if let Some(domains) = domains.and_then(table_mut) {
        let nested: Vec<String> =
            domains.iter().filter(|(_, rate)| rate.get_ref().is_table()).map(|(key, _)| key.get_ref().to_string()).collect();
        for key in nested {
            if let Some((key, _)) = domains.remove_entry(key.as_str()) {
                findings.push(
                    Problem::error("a domain with dots needs quotes")
                        .at(key.span(), "TOML takes what follows the dot for a table of its own")
                        .help("write it as \"erp.corp.example\" = \"600/min\""),
                );
            }
        }
    }
    value
}

/// The tables of `[app.NAME]`. One that could not be read is left out.
fn applications(value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Vec<(String, file::Application)> {
    let Some(named) = value.get_ref().as_table() else {
        findings.push(not_a_table("app", "[app.NAME]", value));
        return Vec::new();
    };
    let mut all = Vec::new();
    for (key, table) in named {
        let name: &str = key.get_ref();
        if !table.get_ref().is_table() {
            findings.push(
                Problem::error(format!("`{name}` stands in `[app]`, which has no name"))
                    .at(key.span(), "expected the name of an application")
                    .help("give the application a name of your choice: `[app.erp]`; it is also what it says in AUTH"),
            );
            // A password may stand under any key here.
            findings.suspects.extend(named.iter().filter(|(_, value)| !value.get_ref().is_table()).map(|(key, _)| key.span()));
            break;
        }
        let base = format!("app.{name}");
        if let Some(application) = read(table, TableName { base: &base, is_array: false }, findings) {
            all.push((name.to_owned(), application));
        }
    }
    all
}

fn providers(value: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Vec<Provider> {
    let mut all = Vec::new();
    let Some(kinds) = value.get_ref().as_table() else {
        findings.push(not_a_table("provider", "[provider.smarthost.office]", value));
        return all;
    };
    for (kind_key, named) in kinds {
        let kind: &str = kind_key.get_ref();
        let is_known = Providers::KINDS.contains(&kind);
        if !is_known {
            findings.push(unknown_kind(kind).at(kind_key.span(), "this kind of provider is not in this build"));
        }
        let Some(named) = named.get_ref().as_table() else {
            findings.push(not_a_table(&format!("provider.{kind}"), &format!("[provider.{kind}.NAME]"), named));
            continue;
        };
        for (key, table) in named {
            let name: &str = key.get_ref();
            if is_known && !table.get_ref().is_table() {
                findings.push(
                    Problem::error(format!("`{name}` stands in `[provider.{kind}]`, which has no name"))
                        .at(key.span(), "expected the name of a provider")
                        .help(format!(
                            "give the provider a name of your choice: `[provider.{kind}.main]`; routes then call it `{kind}.main`"
                        )),
                );
                // One is enough: all other keys of the table have the same fault.
                break;
            }
            let settings = if is_known { one_provider(kind, name, table, findings) } else { None };
            all.push(Provider { kind: kind.to_owned(), key: name.to_owned(), settings });
        }
    }
    all
}

fn unknown_kind(kind: &str) -> Problem {
    let note = format!("this build has {}", all_of(Providers::KINDS));
    if kind == "ses" {
        return Problem::error("this build lacks the `ses` feature")
            .note(note)
            .help("install a build with it, or reach SES by SMTP with `[provider.smarthost.NAME]`");
    }
    let problem = Problem::error(format!("unknown kind of provider `{kind}`")).note(note);
    let spelling = kind.to_ascii_lowercase().replace('-', "_");
    let elsewhere = OTHER_NAMES.iter().filter(|(name, _)| *name == spelling).flat_map(|(_, kinds)| *kinds);
    let reached: Vec<&str> = elsewhere.copied().filter(|kind| Providers::KINDS.contains(kind)).collect();
    if !reached.is_empty() {
        return problem.help(format!("did you mean {}?", one_of(reached.iter().map(|kind| format!("`{kind}`")))));
    }
    match nearest(&spelling, Providers::KINDS.iter().copied()) {
        Some(near) => problem.help(format!("did you mean `{near}`?")),
        None => problem.help("write `[provider.KIND.NAME]` with one of these kinds, and a name of your choice"),
    }
}

/// Reads one provider's table. `Providers` wants all of them at once, so this one is wrapped in
/// tables that have nothing else.
fn one_provider(kind: &str, key: &str, table: &Spanned<DeValue<'_>>, findings: &mut Findings) -> Option<Providers> {
    let span = table.span();
    let wrap = |key: &str, value| {
        let mut outer = DeTable::new();
        // No key of the file is at this place, so nothing is mistaken for the wrapping.
        outer.insert(Spanned::new(0..0, key.to_owned().into()), value);
        Spanned::new(span.clone(), DeValue::Table(outer))
    };
    let wrapped = wrap(kind, wrap(key, table.clone()));
    let providers: Providers = read(&wrapped, TableName { base: "provider", is_array: false }, findings)?;
    // A table that misses something is left out on the way; then there is nothing to build.
    (!providers.iter().is_empty()).then_some(providers)
}

/// Names by position, for duplicates.
pub(super) fn first_use<'n>(names: impl Iterator<Item = (usize, &'n str)>) -> Vec<(usize, usize)> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut again = Vec::new();
    for (index, name) in names {
        match seen.get(name) {
            Some(&first) => again.push((index, first)),
            None => {
                seen.insert(name, index);
            }
        }
    }
    again
}

/// The path of a provider's table.
pub(super) fn provider_path(provider: &Provider) -> [super::document::Step; 3] {
    setting!["provider", provider.kind.as_str(), provider.key.as_str()]
}
