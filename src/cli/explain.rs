//! `postrider explain`: what the door would say to a message, by which rule, and the way it would take.

mod live;
mod report;

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use postrider_providers::contract::{Address, Connected, ContentForm, Envelope, Origin, Recipient, ReversePath};
use postrider_providers::mime::signature::Signature;
use postrider_providers::registry::Context;
use postrider_providers::settings::Size;

use super::api::Reach;
use super::send::reverse_path;
use super::{Exit, fail, print};
use crate::access::{Access, Client, Standing, Submission};
use crate::config::{Config, Listener, ListenerTls, PasswordFile, ProviderConfig, Rewrite, Route};
use crate::route::{Known, Needs, Router, obstacle};
use crate::smtp::carriage::{admit, begin, keep};
use crate::smtp::reply::{self, Reply};
use report::{Candidate, Explanation, Fate, Limit, Octets, Way};

/// A message that somebody would hand in, or one that is or was in the queue.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    reach: Reach,
    /// The id of a message that is or was in the queue: the running gateway says what would become of it now,
    /// or what became of it.
    #[arg(conflicts_with_all = ["from", "to", "client", "app", "listener", "tls", "size", "signed", "live"])]
    id: Option<String>,
    /// Ask the running gateway about the message: how circuits and limits stand, and when it would go. It is
    /// not asked about the door.
    #[arg(long, conflicts_with_all = ["listener", "tls"])]
    live: bool,
    /// The envelope sender; `<>` is the null reverse-path.
    #[arg(long, short, value_name = "ADDRESS", value_parser = reverse_path, required_unless_present = "id")]
    from: Option<ReversePath>,
    /// A recipient; may be given several times.
    #[arg(long, short, value_name = "ADDRESS", required_unless_present = "id")]
    to: Vec<Address>,
    /// Where the client is.
    #[arg(long, value_name = "IP", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    client: IpAddr,
    /// The application that has logged in.
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// The listener, by the address that it binds [default: the first of the config].
    #[arg(long, value_name = "ADDRESS:PORT")]
    listener: Option<SocketAddr>,
    /// The connection is encrypted.
    #[arg(long)]
    tls: bool,
    /// The size of the message, as in 30MiB.
    #[arg(long, value_name = "SIZE", value_parser = size)]
    size: Option<u64>,
    /// What the message is signed with: smime, pgp or dkim.
    #[arg(long, value_name = "HOW", value_parser = signature)]
    signed: Option<Signature>,
}

fn size(text: &str) -> Result<u64, String> {
    text.parse().map(|Size(octets)| octets).map_err(|expected| format!("expected {expected}"))
}

fn signature(text: &str) -> Result<Signature, String> {
    match text {
        "smime" => Ok(Signature::Smime),
        "pgp" => Ok(Signature::PgpMime),
        "dkim" => Ok(Signature::Dkim),
        _ => Err("expected smime, pgp or dkim".to_owned()),
    }
}

pub(super) async fn run(options: &Options) -> Exit {
    match (&options.id, &options.from) {
        (Some(id), _) => live::of_id(&options.reach, id).await,
        (None, Some(from)) if options.live => live::imagined(options, from).await,
        (None, Some(_)) if options.reach.names_gateway() => {
            fail(Exit::Usage, "--server and --token-file say which gateway to ask; add --live, or the id of a message, to ask it")
        }
        (None, Some(from)) => by_config(options, from),
        (None, None) => fail(Exit::Usage, "expected the id of a message, or --from and --to"),
    }
}

/// What the config alone says.
fn by_config(options: &Options, from: &ReversePath) -> Exit {
    let config = match Config::load(&options.reach.config) {
        Ok((config, _)) => config,
        Err(errors) => return super::check::report(&errors),
    };
    let (listener, client) = match parties(options, &config) {
        Ok(parties) => parties,
        Err(wrong) => return fail(Exit::Usage, &wrong),
    };
    let context = match Context::new(&config.server.hostname) {
        Ok(context) => context,
        Err(error) => return fail(Exit::Unavailable, &format!("TLS cannot be set up: {error}")),
    };
    let connected = match config.connect(&context) {
        Ok(connected) => connected,
        Err(errors) => return super::check::report(&errors),
    };
    let explanation = explain(&config, &connected, (listener, client), from, options);
    if options.reach.json {
        print(&explanation.json().to_string());
    } else {
        let mut text = explanation.to_string();
        text.truncate(text.trim_end().len());
        print(&text);
    }
    if explanation.recipients.iter().all(Fate::is_accepted) { Exit::Ok } else { Exit::Unavailable }
}

/// The two ends of the connection.
fn parties<'c>(options: &Options, config: &'c Config) -> Result<(&'c Listener, Client), String> {
    let listener = match options.listener {
        None => config.listeners.first(),
        Some(wanted) => config.listeners.iter().find(|listener| listener.bind == wanted),
    };
    let Some(listener) = listener else {
        let binds: Vec<String> = config.listeners.iter().map(|listener| listener.bind.to_string()).collect();
        let wanted = options.listener.map(|wanted| wanted.to_string()).unwrap_or_default();
        return Err(format!("--listener {wanted}: this config has no such listener, only {}", binds.join(", ")));
    };
    if options.tls && listener.tls == ListenerTls::Off {
        return Err(format!("--tls: the listener {} has no TLS (tls = \"off\")", listener.bind));
    }
    if let Some(name) = &options.app {
        let is_known = config.applications.iter().any(|application| *application.name == **name);
        if !is_known && !is_in_password_file(name, config)? {
            let names: Vec<&str> = config.applications.iter().map(|application| &*application.name).collect();
            let known = if names.is_empty() { "has none".to_owned() } else { format!("has {}", names.join(", ")) };
            let nor = if config.access.password_file.is_some() { ", and its password file has no such name" } else { "" };
            return Err(format!("--app {name}: this config {known}{nor}"));
        }
        if listener.tls == ListenerTls::Off && !listener.auth_without_tls {
            return Err(format!(
                "--app {name}: nobody can log in at the listener {} (auth_without_tls = false, tls = \"off\")",
                listener.bind
            ));
        }
    }
    // Who has logged in where that takes TLS, has TLS.
    let login_took_tls = options.app.is_some() && !listener.auth_without_tls;
    let encrypted = options.tls || listener.tls == ListenerTls::Implicit || login_took_tls;
    let login = options.app.as_deref().map(Into::into);
    Ok((listener, Client { encrypted, login, ..Client::at(options.client) }))
}

/// Names of the password file are applications, too, whose names are in that file alone.
fn is_in_password_file(name: &str, config: &Config) -> Result<bool, String> {
    let Some(path) = &config.access.password_file else { return Ok(false) };
    let unusable = |error: String| format!("--app {name}: the password file {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    let file = PasswordFile::parse(&text).map_err(|errors| unusable(errors.first().map(ToString::to_string).unwrap_or_default()))?;
    Ok(file.hashes.contains_key(name))
}

/// Goes through what a session goes through.
fn explain<'c>(
    config: &'c Config,
    connected: &[Connected],
    (listener, client): (&'c Listener, Client),
    from: &ReversePath,
    options: &Options,
) -> Explanation<'c> {
    let access = Access::new(config.access.clone(), config.applications.clone());
    let router = Router::new(config.routes.clone()).with_providers(connected);
    let standing = access.recognise(listener, &client);
    let origin = Origin {
        application: standing.application.as_ref().map(|application| application.name.clone()),
        client: Some(client.address),
        ..Origin::default()
    };
    let foreign = !from.as_str().is_ascii() || options.to.iter().any(|to| !to.is_ascii());
    let recipients = options.to.iter().cloned().map(Recipient::from).collect();
    let envelope = Envelope { smtputf8: foreign, ..Envelope::new(from.clone(), recipients) };
    let door = Door { access: &access, router: &router, listener, client: &client, standing: &standing, origin: &origin };
    let recipients = options.to.iter().map(|to| {
        let way = router.route(&envelope.reverse_path, to, &origin).map(|route| way(config, &router, route, &envelope, &origin, options));
        let (reply, why) = match door.refusal(&envelope, options, to) {
            None => (reply::RECIPIENT_OK, None),
            Some((reply, why)) => (reply, Some(why)),
        };
        let known = Known::all(&origin, &envelope.reverse_path, to);
        let passed_over = router.passed_over(&known);
        let passed_over = passed_over.map(|(route, unmet)| (route.name.to_string(), unmet, unmet.written(&route.when))).collect();
        let limits = way.as_ref().map(|way| limits(config, way.route, &standing, from)).unwrap_or_default();
        Fate { to: to.clone(), reply: reply.to_string(), why, passed_over, way, limits }
    });
    let recipients = recipients.collect();
    Explanation {
        listener,
        from: from.clone(),
        size: options.size,
        signature: options.signed,
        smtputf8: foreign,
        recipients,
        client,
        standing,
    }
}

/// What a session knows when it decides.
struct Door<'a> {
    access: &'a Access,
    router: &'a Router,
    listener: &'a Listener,
    client: &'a Client,
    standing: &'a Standing,
    origin: &'a Origin,
}

impl Door<'_> {
    /// The first refusal, in the order of a session, with its reason.
    fn refusal(&self, envelope: &Envelope, options: &Options, to: &Address) -> Option<(Reply, String)> {
        let size = options.size;
        let at_mail = || self.decide(envelope, None).and_then(|()| self.may_have_size(size)).and_then(|()| self.begin(envelope, size));
        at_mail()
            .and_then(|()| self.decide(envelope, Some(to)))
            .and_then(|()| self.admit(envelope, size, to))
            .and_then(|()| self.keep(envelope, options, to))
            .err()
    }

    fn decide(&self, envelope: &Envelope, to: Option<&Address>) -> Result<(), (Reply, String)> {
        let Self { listener, client, standing, .. } = *self;
        let submission = Submission { listener, client, standing, from: &envelope.reverse_path, to };
        self.access.decide(&submission).map_err(|refusal| (reply::refusal(&refusal, &submission), refusal.to_string()))
    }

    fn may_have_size(&self, size: Option<u64>) -> Result<(), (Reply, String)> {
        let max = self.standing.max_message_size;
        if size.is_none_or(|size| size <= max) {
            return Ok(());
        }
        let whose = match &self.standing.application {
            Some(application) if application.max_message_size == Some(max) => format!("app.{}", application.name),
            _ => "access".to_owned(),
        };
        Err((reply::TOO_LARGE, format!("the message is larger than {} ({whose}.max_message_size)", Octets(max))))
    }

    fn begin(&self, envelope: &Envelope, size: Option<u64>) -> Result<(), (Reply, String)> {
        if self.standing.recognised.is_none() {
            return Ok(());
        }
        let known = Known { origin: self.origin, may_log_in: false, from: Some(&envelope.reverse_path), to: None };
        let needs = Needs { size: size.unwrap_or(0), smtputf8: envelope.smtputf8, ..Needs::default() };
        begin(self.router, &known, &needs)
            .map_err(|reply| (reply, "no route for this sender has a provider that can carry the message".to_owned()))
    }

    fn admit(&self, envelope: &Envelope, size: Option<u64>, to: &Address) -> Result<(), (Reply, String)> {
        admit(self.router, self.origin, envelope, size, to).map_err(|reply| {
            let is_routed = self.router.route(&envelope.reverse_path, to, self.origin).is_some();
            let why = if is_routed { "no provider of its route can carry the message" } else { "no route matches" };
            (reply, why.to_owned())
        })
    }

    /// At the end of data, when the header has told that the message is signed.
    fn keep(&self, envelope: &Envelope, options: &Options, to: &Address) -> Result<(), (Reply, String)> {
        let Some(signature) = options.signed else { return Ok(()) };
        let alone = Envelope { recipients: vec![to.clone().into()], ..envelope.clone() };
        keep(self.router, self.origin, &alone, options.size.unwrap_or(0), signature)
            .map_err(|reply| (reply, "no provider of its route would keep the signature".to_owned()))
    }
}

/// The route with what its candidates make of the message.
fn way<'c>(config: &'c Config, router: &Router, route: &Route, envelope: &Envelope, origin: &Origin, options: &Options) -> Way<'c> {
    let needs = Needs { size: options.size.unwrap_or(0), signature: options.signed, ..Needs::of(envelope) }.on(route);
    let goes_along = |to: &&Address| router.route(&envelope.reverse_path, to, origin).is_some_and(|other| other.name == route.name);
    let recipients = options.to.iter().filter(goes_along).count();
    let candidates = route.providers.iter().filter_map(|name| {
        let provider = config.providers.iter().find(|provider| provider.name == *name)?;
        let capabilities = router.capabilities(name)?;
        let calls = recipients.div_ceil(capabilities.max_recipients.unwrap_or(usize::MAX).max(1));
        let rewrite = rewrite(provider, route, &envelope.reverse_path);
        let obstacle = obstacle(&capabilities, &needs);
        let breaks = options.signed.filter(|_| obstacle.is_none() && capabilities.content == ContentForm::Fields);
        Some(Candidate { provider, capabilities, obstacle, breaks, calls, rewrite })
    });
    let candidates = candidates.collect();
    #[expect(clippy::expect_used, reason = "the router was made of these routes, whose names are unique")]
    let route = config.routes.iter().find(|known| known.name == route.name).expect("a route of the config");
    Way { route, candidates }
}

/// What is changed of mail of this sender. From is taken to be the same, because no message is here to look at.
fn rewrite(provider: &ProviderConfig, route: &Route, from: &ReversePath) -> Option<(Rewrite, String)> {
    let of_provider = provider.rewrite.as_ref().map(|rewrite| (rewrite, format!("provider.{}.rewrite", provider.name)));
    let (rewrite, setting) = of_provider.or_else(|| Some((route.rewrite.as_ref()?, "route.rewrite".to_owned())))?;
    let changes = |target: &&Address| from.address().is_some_and(|from| !rewrite.keeps(from, target));
    let envelope = rewrite.envelope.as_ref().filter(changes).cloned();
    let header = rewrite.from.as_ref().filter(|target| from.address().is_none() || changes(target)).cloned();
    (header.is_some() || envelope.is_some()).then(|| (Rewrite { from: header, envelope, except: Vec::new() }, setting))
}

/// The limits on whoever sends this.
fn limits(config: &Config, route: &Route, standing: &Standing, from: &ReversePath) -> Vec<Limit> {
    let mut limits = Vec::new();
    if let Some(application) = &standing.application
        && let Some(rate) = application.rate
    {
        limits.push(Limit { setting: format!("app.{}.rate", application.name), of: application.name.to_string(), rate });
    }
    let Some(domain) = from.domain() else { return limits };
    if let Some(rate) = route.per_sending_domain {
        limits.push(Limit { setting: "route.limits.per_sending_domain".to_owned(), of: domain.to_owned(), rate });
    }
    if let Some(rate) = config.sending_domain_limits.get(domain) {
        let mut setting = "limits.sending_domain".to_owned();
        // Writing to a String does not fail.
        let _ = match config.sending_domain_limits.domains.contains_key(domain) {
            true => write!(setting, ".\"{domain}\""),
            false => write!(setting, ".default"),
        };
        limits.push(Limit { setting, of: domain.to_owned(), rate });
    }
    limits
}
