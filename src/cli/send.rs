//! `postrider send`: submits one message, as an application would, and reports the reply.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use postrider_providers::contract::{
    Address, Attempt, Body, BodyType, Envelope, Message, MessageId, Origin, Outcome, ProviderName, Recipient, RecipientIndex, ReversePath,
};
use postrider_providers::registry::{Context, Settings as _};
use postrider_providers::smarthost;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use tokio::time::Instant;

use super::{Exit, fail, print};
use crate::config::{Config, ConfigErrors, ListenerTls};

/// What to send, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Submit to the first listener of this config file, unless --server is given.
    #[arg(long, short, value_name = "FILE", env = "POSTRIDER_CONFIG")]
    config: Option<PathBuf>,
    /// The server, as HOST or HOST:PORT [default: 127.0.0.1:2525, or what --config says].
    #[arg(long, short, value_name = "HOST[:PORT]")]
    server: Option<String>,
    /// The envelope sender; `<>` is the null reverse-path.
    #[arg(long, short, value_name = "ADDRESS", value_parser = reverse_path)]
    from: ReversePath,
    /// A recipient; may be given several times.
    #[arg(long, short, value_name = "ADDRESS", required = true)]
    to: Vec<Address>,
    /// The Subject field.
    #[arg(long, default_value = "Test message from postrider send")]
    subject: String,
    /// The text of the message.
    #[arg(long, default_value = "This message was submitted by postrider send.")]
    body: String,
    /// Send this file (`-`: standard input) as it is, header included, instead of --subject and --body.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["subject", "body"])]
    message: Option<String>,
    /// Print the replies as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn reverse_path(text: &str) -> Result<ReversePath, String> {
    match text {
        "" | "<>" => Ok(ReversePath::Null),
        address => {
            address.parse().map(ReversePath::Mailbox).map_err(|error: postrider_providers::contract::AddressError| error.to_string())
        }
    }
}

pub(super) async fn run(options: &Options) -> Exit {
    let server = match (&options.server, &options.config) {
        (Some(server), _) => server.clone(),
        (None, Some(path)) => match listener(path) {
            Ok(address) => address.to_string(),
            Err(errors) => return super::check::report(&errors),
        },
        (None, None) => "127.0.0.1:2525".to_owned(),
    };
    let (host, port) = match split_server(&server) {
        Ok(server) => server,
        Err(message) => return fail(Exit::Usage, &message),
    };
    let body = match content(options) {
        Ok(body) => body,
        Err(message) => return fail(Exit::Data, &message),
    };
    let message = Arc::new(message(options, body));
    let recipients: Arc<[RecipientIndex]> = (0u32..).take(options.to.len()).map(RecipientIndex).collect();
    let hostname = gethostname::gethostname().to_string_lossy().into_owned();
    // The way out to a smart host is the SMTP client that the gateway has.
    let connected = Context::new(&hostname).map_err(|error| error.to_string()).and_then(|context| {
        // A listener may want STARTTLS; whom its certificate is for, a test message does not depend on.
        let settings = serde_json::json!({ "host": host, "port": port, "tls": "opportunistic" });
        let settings: smarthost::Config = serde_json::from_value(settings).map_err(|error| error.to_string())?;
        settings.connect(ProviderName::new("smarthost", "send"), &context).map_err(|error| error.to_string())
    });
    let provider = match connected {
        Ok(connected) => connected.provider,
        Err(error) => return fail(Exit::Unavailable, &error),
    };
    let deadline = Instant::now() + Duration::from_secs(15 * 60);
    match provider.deliver(Attempt { message, recipients, number: 1, deadline }).await {
        Ok(report) => {
            let mut exit = Exit::Ok;
            for (index, outcome) in &report.outcomes {
                let to = &options.to[index.0 as usize];
                let (words, code) = match outcome {
                    Outcome::Relayed(receipt) => (receipt.reply.clone(), Exit::Ok),
                    Outcome::Deferred(diagnostic) => (diagnostic.to_string(), Exit::TempFail),
                    Outcome::InDoubt(diagnostic) => (diagnostic.to_string(), Exit::TempFail),
                    Outcome::Bounced(diagnostic) => (diagnostic.to_string(), Exit::Unavailable),
                };
                if exit != Exit::Unavailable && code != Exit::Ok {
                    exit = code;
                }
                let outcome = if code == Exit::Ok { "accepted" } else { outcome.name() };
                print(&if options.json {
                    serde_json::json!({ "to": to.as_str(), "outcome": outcome, "reply": words }).to_string()
                } else {
                    format!("{outcome} <{to}>: {words}")
                });
            }
            exit
        }
        Err(failure) => {
            let exit = match failure.name() {
                "rejected" | "unsuitable" => Exit::Data,
                "throttled" | "unavailable" => Exit::TempFail,
                _ => Exit::Unavailable,
            };
            if options.json {
                print(&serde_json::json!({ "outcome": failure.name(), "reply": failure.diagnostic().to_string() }).to_string());
            }
            fail(exit, &format!("{server} did not take the message ({}): {}", failure.name(), failure.diagnostic()))
        }
    }
}

/// Where the gateway of this config takes mail, as seen from this host.
fn listener(path: &Path) -> Result<SocketAddr, ConfigErrors> {
    let (config, _) = Config::load(path)?;
    let no_handshake_first = config.listeners.iter().find(|listener| listener.tls != ListenerTls::Implicit);
    let mut address = no_handshake_first.unwrap_or(&config.listeners[0]).bind;
    match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(any) if any.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => {}
    }
    Ok(address)
}

fn split_server(server: &str) -> Result<(String, u16), String> {
    let wrong = || format!("--server {server}: expected HOST or HOST:PORT, as in 127.0.0.1:2525 or [::1]:2525");
    let (host, port) = match server.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
        _ => (server, 25),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() { Err(wrong()) } else { Ok((host.to_owned(), port)) }
}

/// The message's octets, with CRLF line ends.
fn content(options: &Options) -> Result<Bytes, String> {
    let text = match options.message.as_deref() {
        None => return Ok(compose(options).into()),
        Some("-") => {
            let mut text = Vec::new();
            std::io::stdin().read_to_end(&mut text).map(|_| text).map_err(|error| format!("cannot read standard input: {error}"))?
        }
        Some(path) => std::fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?,
    };
    let mut wire = Vec::with_capacity(text.len() + 2);
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        wire.extend_from_slice(bare.strip_suffix(b"\r").unwrap_or(bare));
        wire.extend_from_slice(b"\r\n");
    }
    Ok(wire.into())
}

fn compose(options: &Options) -> String {
    let to: Vec<String> = options.to.iter().map(|address| format!("<{address}>")).collect();
    let one_line: String = options.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let date = OffsetDateTime::now_utc().format(&Rfc2822).unwrap_or_default();
    let from = match &options.from {
        ReversePath::Null => "postmaster@localhost",
        ReversePath::Mailbox(address) => address.as_str(),
    };
    format!(
        "From: <{from}>\r\nTo: {}\r\nSubject: {one_line}\r\nDate: {date}\r\nMessage-ID: <{}@postrider-send>\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}\r\n",
        to.join(",\r\n "),
        MessageId::generate(),
        options.body.replace("\r\n", "\n").replace('\n', "\r\n")
    )
}

fn message(options: &Options, body: Bytes) -> Message {
    let recipients: Vec<Recipient> = options.to.iter().map(|address| Recipient::from(address.clone())).collect();
    let ascii = options.from.as_str().is_ascii() && recipients.iter().all(|recipient| recipient.address.is_ascii());
    let body_type = if body.is_ascii() { BodyType::SevenBit } else { BodyType::EightBitMime };
    Message {
        id: MessageId::generate(),
        received: SystemTime::now(),
        origin: Origin::default(),
        envelope: Envelope {
            reverse_path: options.from.clone(),
            recipients,
            body_type,
            smtputf8: !ascii,
            returned: None,
            envelope_id: None,
        },
        body: Body::Inline(body),
    }
}
