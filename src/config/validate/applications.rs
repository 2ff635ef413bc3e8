//! `[app.NAME]`: names, hashes, networks that are an application's own, senders.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use postrider_providers::contract::Address;
use postrider_providers::settings::Size;

use super::Checker;
use super::access::{LARGEST_MESSAGE, RELAYS, SMALLEST_LIMIT};
use crate::config::document::{Step, setting};
use crate::config::file;
use crate::config::password::{PasswordHash, PasswordHashError};
use crate::config::password_file::check_name;
use crate::config::problem::Problem;
use crate::config::settings::{Application, Listener, ListenerTls, SenderPattern};

/// More hashes than a rotation needs; each makes a failed login slower.
const MAX_PASSWORDS: usize = 8;

impl Checker<'_, '_> {
    pub(super) fn applications(&mut self, written: &[(String, file::Application)], access: &file::Access) -> Vec<Arc<Application>> {
        let mut all = Vec::new();
        let mut networks: BTreeMap<IpNet, Vec<Step>> = BTreeMap::new();
        for (name, application) in written {
            let checked = self.application(name, application);
            let is_nowhere = application.password.is_none() && checked.networks.is_empty() && application.networks.0.is_empty();
            if is_nowhere && access.password_file.is_none() {
                let header = self.document.key(&setting!["app", name.as_str()]);
                self.push(
                    Problem::warning(format!("nothing can be recognised as `{name}`"))
                        .at(header, "needs `password`, `networks`, or both")
                        .help("make a hash with `postrider password`, or list its machines in networks = [\"10.1.2.0/24\"]"),
                );
            }
            if checked.networks.len() == application.networks.0.len() {
                self.own_networks(name, &checked.networks, &mut networks);
            }
            all.push(Arc::new(checked));
        }
        all
    }

    /// Doubts passwords that nobody is ever asked for.
    pub(super) fn logins(&mut self, written: &[(String, file::Application)], access: &file::Access, listeners: &[Listener]) {
        if listeners.iter().any(|listener| listener.tls != ListenerTls::Off || listener.auth_without_tls) {
            return;
        }
        let of_applications = written.iter().filter(|(_, application)| application.password.is_some());
        let mut places = of_applications.map(|(name, _)| self.value(&setting!["app", name.as_str(), "password"]));
        let in_file = || access.password_file.as_ref().map(|_| self.value(&setting!["access", "password_file"]));
        if let Some(span) = places.next().or_else(in_file) {
            self.push(Problem::warning("nobody can log in: no listener offers AUTH").at(span, "never asked for").help(
                "give a listener a certificate and tls = \"starttls\"; or auth_without_tls = true, if only your own network reaches it",
            ));
        }
    }

    /// Two applications on the same network could not be told apart.
    fn own_networks(&mut self, name: &str, own: &[IpNet], taken: &mut BTreeMap<IpNet, Vec<Step>>) {
        for (index, network) in own.iter().enumerate() {
            let mut path = setting!["app", name, "networks"].to_vec();
            // A list has its entries at places of their own, a single text has not.
            let entry: Vec<Step> = path.iter().cloned().chain([Step::from(index)]).collect();
            if self.value(&entry) != self.value(&path) {
                path = entry;
            }
            match taken.get(network) {
                Some(first) if first[1] != path[1] => {
                    let (span, also) = (self.value(&path), self.value(first));
                    self.push(
                        Problem::error(format!("two applications have the network {network}"))
                            .at(span, "who connects from there could be either")
                            .also(also, "already an application's")
                            .help("give each its own networks; of two that overlap, the smaller one counts"),
                    );
                }
                _ => {
                    taken.insert(*network, path);
                }
            }
        }
    }

    fn application(&mut self, name: &str, written: &file::Application) -> Application {
        let key = |key: &str| setting!["app", name, key];
        if let Err(what) = check_name(name) {
            let span = self.document.key(&setting!["app", name]);
            self.push(
                Problem::error(format!("the name of an application {what}"))
                    .at(span, "expected what the application says in AUTH")
                    .help("a name such as `erp`, or in quotes \"scanner@corp.example\""),
            );
        }
        let networks = self.networks(&key("networks"), RELAYS, &written.networks.0);
        if let Some(size) = written.max_message_size
            && !(SMALLEST_LIMIT..=LARGEST_MESSAGE).contains(&size.0)
        {
            let span = self.value(&key("max_message_size"));
            self.push(
                Problem::error(format!("`max_message_size` cannot be {size}"))
                    .at(span, format!("expected between \"{}\" and \"{}\"", Size(SMALLEST_LIMIT), Size(LARGEST_MESSAGE)))
                    .help("remove the line for that of `[access]`"),
            );
        }
        for (limit, number, what) in [
            ("max_recipients", written.max_recipients, "no mail could be accepted"),
            ("max_connections", written.max_connections, "it could not connect; write disabled = true to refuse it"),
        ] {
            self.at_least_one(&key(limit), limit, number.unwrap_or(1), what);
        }
        Application {
            name: name.into(),
            passwords: self.passwords(name, written),
            networks,
            senders: self.senders(name, written),
            rate: written.rate,
            may_set_priority: written.may_set_priority,
            owner: self.owner(name, written),
            max_message_size: written.max_message_size.map(|size| size.0),
            max_recipients: written.max_recipients,
            max_connections: written.max_connections,
            disabled: written.disabled,
            tolerance: written.tolerance,
        }
    }

    fn passwords(&mut self, name: &str, written: &file::Application) -> Vec<PasswordHash> {
        let Some(texts) = &written.password else { return Vec::new() };
        let span = self.value(&setting!["app", name, "password"]);
        if texts.0.is_empty() || texts.0.len() > MAX_PASSWORDS {
            self.push(
                Problem::error(format!("`password` cannot be a list of {}", texts.0.len()))
                    .at(span.clone(), "expected one hash, or two while the password is being changed")
                    .help("remove the line if the application is recognised by its network alone"),
            );
        }
        let mut hashes = Vec::new();
        for text in &texts.0 {
            let problem = match PasswordHash::parse(text) {
                Ok(hash) => {
                    hashes.push(hash);
                    continue;
                }
                Err(PasswordHashError::PlainText) => Problem::error("`password` of an application must be a hash, not the password itself")
                    .note("a config file is read by more people than may know the password")
                    .help("run `postrider password` and paste what it prints; the application keeps using the password"),
                Err(error) => Problem::error(format!("`password` cannot be used: {error}"))
                    .help("run `postrider password` and paste what it prints, in quotes and on one line"),
            };
            self.push(problem.at(span.clone(), "expected \"$argon2id$…\", or \"$2y$…\" from htpasswd"));
        }
        hashes
    }

    fn senders(&mut self, name: &str, written: &file::Application) -> Vec<SenderPattern> {
        let Some(texts) = &written.senders else { return Vec::new() };
        let path = setting!["app", name, "senders"];
        if texts.0.is_empty() {
            let span = self.value(&path);
            self.push(
                Problem::error("`senders` cannot be empty")
                    .at(span, "expected at least one, as in [\"@erp.corp.example\"]")
                    .help("remove the line if it may use any sender; write disabled = true if it may send nothing"),
            );
        }
        let mut senders = Vec::new();
        for (index, text) in texts.0.iter().enumerate() {
            match text.parse::<SenderPattern>() {
                Ok(sender) => senders.push(sender),
                Err(error) => {
                    let span = self.value(&setting!["app", name, "senders", index]);
                    self.push(
                        Problem::error(format!("\"{text}\" is no sender"))
                            .at(span, "expected \"a@b.example\", \"@b.example\", \"@*.b.example\" or \"<>\"")
                            .help(error.to_string()),
                    );
                }
            }
        }
        senders
    }

    fn owner(&mut self, name: &str, written: &file::Application) -> Option<Address> {
        let text = written.owner.as_deref()?;
        match Address::parse(text) {
            Ok(owner) => Some(owner),
            Err(error) => {
                let span = self.value(&setting!["app", name, "owner"]);
                self.push(
                    Problem::error(format!("`owner` cannot be \"{text}\": {error}"))
                        .at(span, "expected the mail address of who answers for it")
                        .help("write owner = \"erp-team@corp.example\""),
                );
                None
            }
        }
    }
}
