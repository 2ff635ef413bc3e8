//! `postrider demo`: the gateway at work on loopback, with sandbox providers and no account anywhere.
//!
//! A few hundred messages go in as applications would send them. In the middle the first provider
//! goes down, and comes back. What happens is shown as it happens, and counted at the end by what the
//! providers received.

mod screen;
mod tally;
mod traffic;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use postrider_providers::contract::MessageId;
use tokio::time::{Instant, sleep};

use crate::config::{Config, Secrets};
use crate::gateway::Gateway;
use crate::sandbox::{SandboxSes, SandboxSmarthost, SesSettings, SmarthostMode, SmarthostSettings};
use screen::{Row, Screen};
use tally::Tally;
use traffic::Traffic;

/// How often the screen is drawn.
const FRAME: Duration = Duration::from_millis(100);

/// How long the last messages may take after everything was accepted.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How many messages the applications send.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(30..=100_000))]
    messages: u32,
    /// How many of them in a second.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=5000))]
    rate: u32,
    /// Keep the demo's directory with its config, spool and captured mail.
    #[arg(long)]
    keep: bool,
}

/// Runs the demo and says whether it went well: a lost or doubled message is a failure.
pub async fn run(options: &Options) -> bool {
    let directory = std::env::temp_dir().join(format!("postrider-demo-{}", MessageId::generate()));
    let shown = show(options, &directory).await;
    if options.keep {
        Screen::plain(&format!("Everything is kept in {}", directory.display()));
    } else {
        // Nothing of value is in there; the system cleans its temporary directory anyway.
        let _ = std::fs::remove_dir_all(&directory);
    }
    match shown {
        Ok(tally) => tally.is_perfect(),
        Err(error) => {
            Screen::plain(&format!("The demo cannot run: {error}"));
            false
        }
    }
}

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Everything that runs during the demo.
struct Stage {
    gateway: Gateway<crate::spool::sqlite::SqliteSpool>,
    office: SandboxSmarthost,
    ses: SandboxSes,
    captured: PathBuf,
    screen: Screen,
    /// Circuit states as last shown.
    circuits: Vec<(String, &'static str)>,
}

async fn show(options: &Options, directory: &Path) -> Result<Tally, Error> {
    std::fs::create_dir_all(directory)?;
    let captured = directory.join("captured");
    let latency = Duration::from_millis(8);
    let office = SandboxSmarthost::start(SmarthostSettings { latency, ..SmarthostSettings::default() }).await?;
    let ses = SandboxSes::start(SesSettings { latency, ..SesSettings::default() }).await?;
    let text = config_text(directory, &captured, &office, &ses);
    let path = directory.join("postrider.toml");
    std::fs::write(&path, &text)?;
    let (config, _) = Config::parse(&text, &path, Secrets::Read)?;
    let gateway = Gateway::start(&config).await?;
    let address = *gateway.addresses().first().ok_or("the gateway has no listener")?;

    Screen::plain("Postrider takes mail by SMTP, makes it durable, and hands it to the first provider that can take it.\n");
    Screen::plain(&format!(
        "  applications ──SMTP──> postrider on {address} ──> smarthost.office, a sandbox SMTP server on {}",
        office.address()
    ));
    Screen::plain(&format!("                                      else ──> ses.backup, a sandbox Amazon SES on {}", ses.address()));
    Screen::plain("        mail for staging.example to a folder ──> capture.staging\n");

    let traffic = Arc::new(Traffic::new(address, options.messages));
    let sending = tokio::spawn(Arc::clone(&traffic).run(options.rate));
    let mut stage = Stage { gateway, office, ses, captured, screen: Screen::new(), circuits: Vec::new() };
    let third = options.messages as usize / 3;

    stage.until(&traffic, |traffic| traffic.accepted() >= third).await;
    stage.office.set_mode(SmarthostMode::Down).await;
    stage.screen.event("smarthost.office goes DOWN: it refuses every connection");
    stage.until(&traffic, |traffic| traffic.accepted() >= 2 * third).await;
    stage.office.set_mode(SmarthostMode::Up).await;
    stage.screen.event("smarthost.office is UP again; the next probe will find out");
    stage.until(&traffic, Traffic::is_done).await;
    sending.await?;
    stage.screen.event("the applications have sent everything");

    let started = Instant::now();
    while stage.gateway.counts().await?.messages > 0 && started.elapsed() < PATIENCE {
        stage.draw(&traffic);
        sleep(FRAME).await;
    }
    stage.draw(&traffic);
    let left = stage.gateway.counts().await?.messages;
    let Stage { gateway, office, ses, captured, mut screen, .. } = stage;
    screen.finish();
    gateway.drain().await;

    let tally = Tally::new(&traffic.message_ids(), &office, &ses, &captured)?;
    Screen::plain(&tally.summary(left));
    Ok(tally)
}

impl Stage {
    /// Draws what happens until something is the case.
    async fn until(&mut self, traffic: &Traffic, condition: impl Fn(&Traffic) -> bool) {
        while !condition(traffic) {
            self.draw(traffic);
            sleep(FRAME).await;
        }
        self.draw(traffic);
    }

    fn draw(&mut self, traffic: &Traffic) {
        let counts = [
            ("smarthost.office", self.office.recorder().count()),
            ("ses.backup", self.ses.recorder().count()),
            ("capture.staging", tally::captured_files(&self.captured).len()),
        ];
        let mut rows = Vec::new();
        for (name, circuit) in self.gateway.circuits() {
            let state = circuit.state().name();
            let known = self.circuits.iter_mut().find(|(known, _)| known == name.as_str());
            match known {
                Some((_, last)) if *last != state => {
                    self.screen.event(&format!("circuit of {name}: {last} -> {state}"));
                    *last = state;
                }
                Some(_) => {}
                None => self.circuits.push((name.to_string(), state)),
            }
            let count = counts.iter().find(|(known, _)| *known == name.as_str()).map_or(0, |(_, count)| *count);
            rows.push(Row { name: name.to_string(), count, circuit: state });
        }
        self.screen.draw(traffic.accepted(), traffic.total(), &rows);
    }
}

/// The config is a file as any other; with `--keep` it can be read and run again.
fn config_text(directory: &Path, captured: &Path, office: &SandboxSmarthost, ses: &SandboxSes) -> String {
    // A JSON string is a TOML string.
    let quoted = |path: &Path| serde_json::Value::from(path.display().to_string()).to_string();
    format!(
        r#"# Made by `postrider demo`.
[server]
hostname = "relay.demo.example"
data_dir = {data_dir}

[[listener]]
bind = "127.0.0.1:0"

[provider.smarthost.office]
host = "127.0.0.1"
port = {office_port}
tls = "off"

[provider.ses.backup]
region = "eu-west-1"
endpoint = "http://{ses}"
access_key_id = "demo"
secret_access_key = "demo"
limits = {{ rate = "200/s" }}

[provider.capture.staging]
directory = {captured}

[[route]]
name = "staging"
when = {{ recipient_domain = ["staging.example"] }}
providers = ["capture.staging"]

[[route]]
name = "default"
providers = ["smarthost.office", "ses.backup"]

[queue]
retry = ["1s", "2s", "5s"]

[failover]
trip_after = 3
probe_after = "1s"
probe_max = "2s"
"#,
        data_dir = quoted(&directory.join("data")),
        captured = quoted(captured),
        office_port = office.address().port(),
        ses = ses.address(),
    )
}
