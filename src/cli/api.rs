//! The client of the admin API: finds the gateway, asks it, and says what to do when that fails.

use std::path::{Path, PathBuf};
use std::time::Duration;

use postrider_providers::registry::Context;
use postrider_providers::settings::Secret;
use reqwest::{Method, Response, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Exit, fail};
use crate::admin;
use crate::admin::wire::ProblemBody;
use crate::config::{Config, ConfigErrors, DEFAULT_PATH, Secrets};

/// How long the gateway may take for an answer: longer than it gives itself.
const PATIENCE: Duration = Duration::from_secs(40);

/// The longest answer that is read, exports aside.
const MOST_ANSWER: usize = 64 << 20;

/// How to reach the gateway, and how to print.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Reach {
    /// The config file, whose [admin] says where the gateway is.
    #[arg(long, short, global = true, value_name = "FILE", env = "POSTRIDER_CONFIG", default_value = DEFAULT_PATH)]
    pub(super) config: PathBuf,
    /// Where the gateway's admin API is, instead of what the config says: http://HOST:PORT.
    #[arg(long, global = true, value_name = "URL")]
    server: Option<String>,
    /// A file with the token, instead of what the config says.
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print JSON for machines.
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// How often to look again.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Watch {
    /// Look again every few seconds, until interrupted [default: 2].
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "2", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) watch: Option<u64>,
}

/// A gateway that can be asked.
pub(super) struct Gateway {
    http: reqwest::Client,
    base: Url,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The gateway cannot be reached.
    Unreachable(String),
    /// It cannot even be tried; with the exit code.
    Setup(Exit, String),
    /// The config is wrong.
    Config(ConfigErrors),
    /// The gateway says why not.
    Refused(ProblemBody),
}

impl Reach {
    /// Whether a person has named the gateway, so that nothing else will do.
    pub(super) fn names_server(&self) -> bool {
        self.server.is_some()
    }

    /// Whether a person has said how a gateway is reached.
    pub(super) fn names_gateway(&self) -> bool {
        self.server.is_some() || self.token_file.is_some()
    }
}

impl Trouble {
    /// Says it to a person.
    pub(super) fn report(&self) -> Exit {
        match self {
            Self::Unreachable(why) => fail(
                Exit::Unavailable,
                &format!(
                    "{why}\nis it running? `systemctl status postrider` says so, and `postrider serve` starts it; `--server URL` asks another one"
                ),
            ),
            Self::Setup(exit, why) => fail(*exit, why),
            Self::Config(errors) => super::check::report(errors),
            Self::Refused(ProblemBody { status, detail, help, .. }) => {
                let help = help.as_ref().map(|help| format!("\n{help}")).unwrap_or_default();
                let exit = match StatusCode::from_u16(*status).unwrap_or_default() {
                    StatusCode::BAD_REQUEST => Exit::Usage,
                    StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::Permission,
                    StatusCode::CONFLICT => Exit::TempFail,
                    status if status.is_client_error() => Exit::Data,
                    _ => Exit::Unavailable,
                };
                fail(exit, &super::table::clean(&format!("{detail}{help}")))
            }
        }
    }
}

impl Gateway {
    /// The gateway that the arguments or the config mean. It has not been asked anything yet.
    pub(super) fn find(reach: &Reach) -> Result<Self, Trouble> {
        let (base, configured) = match &reach.server {
            Some(server) => (server.clone(), None),
            None => configured(&reach.config)?,
        };
        let base = Url::parse(&base).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or_else(|| Trouble::Setup(Exit::Usage, "--server must be as in http://127.0.0.1:8025".to_owned()))?;
        let file = reach.token_file.clone().map(Secret::File);
        let token = file.or(configured).map(|secret| secret.read()).transpose();
        let token =
            token.map_err(|error| Trouble::Setup(Exit::Permission, format!("the token of the admin API cannot be had: {error}")))?;
        let unusable = |error: String| Trouble::Setup(Exit::Unavailable, format!("the HTTP client cannot be set up: {error}"));
        let context = Context::new("localhost").map_err(|error| unusable(error.to_string()))?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*context.tls).clone())
            .user_agent(concat!("postrider/", env!("CARGO_PKG_VERSION")))
            // A proxy for the web has no business with the token, and does not reach loopback.
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { http, base, token: token.map(|token| token.trim().to_owned()) })
    }

    /// Asks for what is at `path`, a list of its parts.
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &[(&str, String)]) -> Result<T, Trouble> {
        read(self.send::<()>(Method::GET, path, query, None).await?).await
    }

    /// Has something done.
    pub(super) async fn post<T: DeserializeOwned>(&self, path: &[&str], body: &impl Serialize) -> Result<T, Trouble> {
        read(self.send(Method::POST, path, &[], Some(body)).await?).await
    }

    /// Asks for an answer that is no JSON.
    pub(super) async fn fetch(&self, path: &[&str]) -> Result<Response, Trouble> {
        self.send::<()>(Method::GET, path, &[], None).await
    }

    async fn send<B: Serialize>(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&B>,
    ) -> Result<Response, Trouble> {
        let mut url = self.base.clone();
        // A URL with a host has a path.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        for (name, value) in query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut request = self.http.request(method, url).header(admin::BY, user());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let problem = response.bytes().await.ok().and_then(|octets| serde_json::from_slice::<ProblemBody>(&octets).ok());
        Err(match problem {
            Some(problem) => Trouble::Refused(problem),
            None => Trouble::Unreachable(format!("what answers at {} is no Postrider: it says {status}", self.base)),
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Trouble {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Trouble::Unreachable(format!("the gateway at {} does not answer: {cause}", self.base))
    }
}

/// Where the gateway of this config is, and its token. Secrets of providers are not read: an operator need not
/// be able to.
fn configured(path: &Path) -> Result<(String, Option<Secret>), Trouble> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Trouble::Setup(Exit::Config, format!("{}: {error}; name another with --config, or the gateway with --server", path.display()))
    })?;
    let (config, _) = Config::parse(&text, path, Secrets::Skip).map_err(Trouble::Config)?;
    let Some(admin) = config.admin else {
        let help = "add to it:\n\n[admin]\nbind = \"127.0.0.1:8025\"\n\nand restart the gateway; or name one with --server";
        return Err(Trouble::Setup(Exit::Config, format!("{} has no [admin], so the gateway cannot be asked; {help}", path.display())));
    };
    if admin.bind.port() == 0 {
        return Err(Trouble::Setup(
            Exit::Config,
            "admin.bind leaves the port to the system; name it with --server http://HOST:PORT".to_owned(),
        ));
    }
    let mut address = admin.bind;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    Ok((format!("http://{address}"), admin.token))
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, Trouble> {
    let strange = |why: String| Trouble::Unreachable(format!("the gateway's answer cannot be understood: {why}"));
    let mut response = response;
    let mut octets = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| strange(error.to_string()))? {
        if octets.len() + chunk.len() > MOST_ANSWER {
            return Err(strange("it is too long".to_owned()));
        }
        octets.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&octets).map_err(|error| strange(error.to_string()))
}

/// Who acts: whoever has logged in, also behind sudo.
fn user() -> String {
    let named = ["SUDO_USER", "USER", "LOGNAME"].iter().filter_map(|name| std::env::var(name).ok());
    let usable = |name: &String| !name.is_empty() && name.len() <= 60 && name.chars().all(|c| c.is_ascii_graphic());
    named.into_iter().find(usable).unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()))
}
