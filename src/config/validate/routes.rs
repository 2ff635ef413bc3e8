//! `[[route]]`: names, providers that exist, conditions that can hold.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use postrider_providers::contract::ProviderName;

use super::Checker;
use super::access::parse_network;
use crate::config::document::setting;
use crate::config::domain::DomainPattern;
use crate::config::explain::{all_of, nearest};
use crate::config::file;
use crate::config::problem::Problem;
use crate::config::reader::{Provider, first_use, provider_path};
use crate::config::settings::{Route, When};

impl Checker<'_, '_> {
    pub(super) fn routes(&mut self, routes: &[Option<file::Route>], providers: &[Provider]) -> Vec<Route> {
        let known: Vec<String> = providers.iter().map(|provider| format!("{}.{}", provider.kind, provider.key)).collect();
        if routes.is_empty() {
            return self.default_route(&known);
        }
        let mut checked = Vec::new();
        let mut catch_all: Option<(usize, String)> = None;
        for (index, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            if let Some((all, all_name)) = &catch_all {
                let (span, also) = (self.value(&setting!["route", index, "name"]), self.value(&setting!["route", *all, "name"]));
                self.push(
                    Problem::warning(format!("no mail can take the route `{}`", route.name))
                        .at(span, "never reached")
                        .also(also, "takes all mail, because it has no `when`")
                        .help(format!("the first match wins: move `{all_name}` to the end")),
                );
            }
            let when = self.when(index, route);
            if when.as_ref().is_some_and(When::is_always) && catch_all.is_none() {
                catch_all = Some((index, route.name.clone()));
            }
            self.candidates(index, route, &known);
            self.signatures(index, route);
            let rewrite = route.rewrite.as_ref().and_then(|written| self.rewrite(&setting!["route", index, "rewrite"], written));
            checked.push(Route {
                name: route.name.as_str().into(),
                when: when.unwrap_or_default(),
                providers: route.providers.iter().map(|name| ProviderName::from(name.as_str())).collect(),
                spill: route.spill,
                in_doubt: route.in_doubt,
                per_sending_domain: route.limits.per_sending_domain,
                raw_only: route.raw_only,
                break_signatures: route.break_signatures,
                rewrite,
                priority: route.priority,
                retry: route.retry.as_ref().map(|retry| self.retry(&setting!["route", index, "retry"], retry)),
                expire_after: route.expire_after.map(|after| after.0),
                reserve: route.limits.reserve,
            });
        }
        self.reserves(&checked);
        self.route_names(routes);
        self.unused(routes, providers, &known);
        checked
    }

    /// What routes reserve of one provider's quotas is no more than all of it.
    fn reserves(&mut self, routes: &[Route]) {
        let mut sums: Vec<(&ProviderName, u64)> = Vec::new();
        for (index, route) in routes.iter().enumerate() {
            let Some(reserve) = route.reserve.map(|share| share.of(100)) else { continue };
            for provider in &route.providers {
                let position = sums.iter().position(|(name, _)| *name == provider).unwrap_or_else(|| {
                    sums.push((provider, 0));
                    sums.len() - 1
                });
                sums[position].1 += reserve;
                if sums[position].1 > 100 {
                    let span = self.value(&setting!["route", index, "limits", "reserve"]);
                    self.push(
                        Problem::error(format!("more than all of `{provider}` is reserved"))
                            .at(span, format!("with this it is {}%", sums[position].1))
                            .help("what the routes of one provider reserve of its quotas is 100% at most"),
                    );
                    return;
                }
            }
        }
    }

    /// Without routes, one provider takes everything; with several, somebody must say which.
    fn default_route(&mut self, known: &[String]) -> Vec<Route> {
        match known {
            // Reported where providers are checked.
            [] => Vec::new(),
            [only] => vec![Route { name: "default".into(), providers: vec![ProviderName::from(only.as_str())], ..Route::default() }],
            several => {
                let list: Vec<String> = several.iter().map(|name| format!("\"{name}\"")).collect();
                self.push(
                    Problem::error(format!("there are {} providers and no route that says which takes the mail", several.len())).help(
                        format!(
                            "add a route, with the providers in order of preference:\n[[route]]\nname = \"default\"\nproviders = [{}]",
                            list.join(", ")
                        ),
                    ),
                );
                Vec::new()
            }
        }
    }

    fn candidates(&mut self, index: usize, route: &file::Route, known: &[String]) {
        if route.providers.is_empty() {
            let span = self.value(&setting!["route", index, "providers"]);
            self.push(
                Problem::error(format!("the route `{}` has no provider", route.name))
                    .at(span, "expected at least one")
                    .help(format!("the providers of this file are {}", all_of(known))),
            );
        }
        for (position, name) in route.providers.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
            let span = self.value(&setting!["route", index, "providers", position]);
            let problem = Problem::error(format!("there is no provider `{name}`")).at(span, "not in this file");
            let note = format!("the providers of this file are {}", all_of(known));
            let problem = if known.is_empty() { problem } else { problem.note(note) };
            // The name without its kind is the likeliest slip.
            let by_key = known.iter().find(|known| known.split_once('.').is_some_and(|(_, key)| key == name)).map(String::as_str);
            self.push(match by_key.or_else(|| nearest(name, known.iter().map(String::as_str))) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem
                    .help(format!("correct the name, or add a table `[provider.{}]`", if name.contains('.') { name } else { "KIND.NAME" })),
            });
        }
        for (again, first) in first_use(route.providers.iter().map(String::as_str).enumerate()) {
            let (span, also) =
                (self.value(&setting!["route", index, "providers", again]), self.value(&setting!["route", index, "providers", first]));
            self.push(
                Problem::error(format!("the route `{}` names `{}` twice", route.name, route.providers[again]))
                    .at(span, "the same provider again")
                    .also(also, "first named here")
                    .help("remove one: a provider that just failed is not asked again at once"),
            );
        }
    }

    /// Where routes say that they are `raw_only`; what that needs is known when providers are connected.
    pub(super) fn raw_only(&self, routes: &[Option<file::Route>]) -> Vec<(Arc<str>, Range<usize>)> {
        let stated = routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.as_ref().filter(|route| route.raw_only)?)));
        stated.map(|(index, route)| (route.name.as_str().into(), self.value(&setting!["route", index, "raw_only"]))).collect()
    }

    fn signatures(&mut self, index: usize, route: &file::Route) {
        if route.raw_only && route.break_signatures {
            let (span, also) =
                (self.value(&setting!["route", index, "break_signatures"]), self.value(&setting!["route", index, "raw_only"]));
            self.push(
                Problem::error(format!("the route `{}` keeps signatures and lets them be broken", route.name))
                    .at(span, "lets providers have signed mail that break the signature")
                    .also(also, "passes those providers over")
                    .help("remove one of the two"),
            );
        }
    }

    fn route_names(&mut self, routes: &[Option<file::Route>]) {
        let names = routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.as_ref()?.name.as_str())));
        for (index, name) in names.clone().filter(|(_, name)| name.trim().is_empty()) {
            let span = self.value(&setting!["route", index, "name"]);
            self.push(
                Problem::error(format!("a route cannot be named \"{name}\""))
                    .at(span, "expected a name for logs")
                    .help("write name = \"default\""),
            );
        }
        for (again, first) in first_use(names) {
            let (span, also) = (self.value(&setting!["route", again, "name"]), self.value(&setting!["route", first, "name"]));
            let name = routes[again].as_ref().map_or("", |route| route.name.as_str());
            self.push(
                Problem::error(format!("two routes are named `{name}`"))
                    .at(span, "the same name again")
                    .also(also, "first used here")
                    .help("give one of them another name: logs and limits go by it"),
            );
        }
    }

    fn unused(&mut self, routes: &[Option<file::Route>], providers: &[Provider], known: &[String]) {
        // A route that is in error may have been meant to name it.
        let is_sound = |route: &file::Route| !route.providers.is_empty() && route.providers.iter().all(|name| known.contains(name));
        if !routes.iter().all(|route| route.as_ref().is_some_and(is_sound)) {
            return;
        }
        for (provider, name) in providers.iter().zip(known) {
            if !routes.iter().flatten().any(|route| route.providers.contains(name)) {
                let span = self.document.key(&provider_path(provider));
                self.push(
                    Problem::warning(format!("no route uses the provider `{name}`"))
                        .at(span, "never gets mail")
                        .help("name it in `providers` of a route, or remove it"),
                );
            }
        }
    }

    /// The conditions; `None` if one of them is not understood.
    fn when(&mut self, index: usize, route: &file::Route) -> Option<When> {
        let sender_domains = self.patterns(index, "sender_domain", route.when.sender_domain.as_ref());
        let recipient_domains = self.patterns(index, "recipient_domain", route.when.recipient_domain.as_ref());
        let (applications, clients) = (self.applications_of(index, &route.when), self.clients_of(index, &route.when));
        if route.when.null_sender == Some(true) && route.when.sender_domain.is_some() {
            let (span, also) = (
                self.value(&setting!["route", index, "when", "null_sender"]),
                self.value(&setting!["route", index, "when", "sender_domain"]),
            );
            self.push(
                Problem::error(format!("no mail can match the route `{}`", route.name))
                    .at(span, "a null sender has no domain")
                    .also(also, "but this asks for one")
                    .help("all conditions of a route must hold; make two routes of it, or remove one of the two"),
            );
        }
        Some(When {
            sender_domains: sender_domains?,
            recipient_domains: recipient_domains?,
            null_sender: route.when.null_sender,
            applications: applications?,
            clients: clients?,
        })
    }

    /// `when.app`: applications of this file.
    fn applications_of(&mut self, index: usize, when: &file::When) -> Option<Vec<Arc<str>>> {
        let names = self.at_least_one_text(index, "app", when.app.as_ref(), ("application", "application, and mail of none"))?;
        let tables = self.document.root.get("app").and_then(|section| section.get_ref().as_table());
        let known: Vec<String> = tables.into_iter().flatten().map(|(key, _)| key.get_ref().to_string()).collect();
        for (position, name) in names.iter().enumerate().filter(|(_, name)| !known.contains(name)) {
            let span = self.one_of_list(index, "app", position);
            let problem = Problem::error(format!("there is no application `{name}`")).at(span, "not in this file");
            let note = format!("the applications of this file are {}", all_of(&known));
            let problem = if known.is_empty() { problem } else { problem.note(note) };
            self.push(match nearest(name, known.iter().map(String::as_str)) {
                Some(near) => problem.help(format!("did you mean `{near}`?")),
                None => problem.help(format!("correct the name, or add a table `[app.{name}]`")),
            });
        }
        names.iter().all(|name| known.contains(name)).then(|| names.iter().map(|name| name.as_str().into()).collect())
    }

    /// `when.client`: networks or addresses.
    fn clients_of(&mut self, index: usize, when: &file::When) -> Option<Vec<IpNet>> {
        let texts = self.at_least_one_text(index, "client", when.client.as_ref(), ("network", "client"))?;
        let mut networks = Vec::new();
        for (position, text) in texts.iter().enumerate() {
            match parse_network(text) {
                Ok(network) => networks.push(network),
                Err(problem) => {
                    let span = self.one_of_list(index, "client", position);
                    self.push(problem.at(span, "expected a network such as \"10.1.0.0/16\", or an address"));
                }
            }
        }
        (networks.len() == texts.len()).then_some(networks)
    }

    /// Where an entry of a condition is: a condition with one entry may be written without brackets.
    fn one_of_list(&self, index: usize, key: &str, position: usize) -> Range<usize> {
        self.value(&setting!["route", index, "when", key, position])
    }

    /// The texts of a condition; none if it is absent, and `None` if it is an empty list, which would
    /// match nothing.
    fn at_least_one_text<'w>(
        &mut self,
        index: usize,
        key: &str,
        written: Option<&'w file::Texts>,
        (one, every): (&str, &str),
    ) -> Option<&'w [String]> {
        let Some(file::Texts(written)) = written else { return Some(&[]) };
        if written.is_empty() {
            let list = self.value(&setting!["route", index, "when", key]);
            self.push(
                Problem::error(format!("`{key}` cannot be empty"))
                    .at(list, format!("expected at least one {one}"))
                    .help(format!("no {one}, no mail: remove it to match every {every}")),
            );
            return None;
        }
        Some(written)
    }

    fn patterns(&mut self, index: usize, key: &str, written: Option<&file::Texts>) -> Option<Vec<DomainPattern>> {
        let written = self.at_least_one_text(index, key, written, ("domain", "domain"))?;
        let mut patterns = Vec::new();
        for (position, text) in written.iter().enumerate() {
            match DomainPattern::from_str(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => {
                    let span = self.one_of_list(index, key, position);
                    self.push(
                        Problem::error(format!("\"{text}\" is no domain"))
                            .at(span, "expected \"x.example\" or \"*.x.example\"")
                            .help(error.to_string()),
                    );
                }
            }
        }
        (patterns.len() == written.len()).then_some(patterns)
    }
}
