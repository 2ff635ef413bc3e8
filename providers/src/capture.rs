//! Captures mail in a directory: for staging, and for trying things out.
//!
//! Each message becomes `<id>.eml`, exactly as it would have been sent, and each handover of it
//! `<id>.json` beside it, with the envelope. A further handover of the same message, to other
//! recipients, becomes `<id>.2.json` and so on: nothing is ever overwritten.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::fs;
use tokio::io::AsyncWriteExt as _;

use crate::contract::{
    Attempt, BodyReader, Capabilities, Connected, Delivery, Diagnostic, Failure, Outcome, Probed, Provider, ProviderName, Receipt, Report,
};
use crate::registry::{Context, Settings, SettingsError};
use crate::settings::{LimitSettings, Rewrite};

/// `[provider.capture.<name>]`
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the files go. Created with the first message.
    pub directory: PathBuf,
    /// What the administrator allows.
    #[serde(default)]
    pub limits: LimitSettings,
    /// In whose name mail is handed over.
    pub rewrite: Option<Rewrite>,
}

/// The provider.
struct Capture {
    directory: PathBuf,
}

/// `<id>.json`
#[derive(serde::Serialize)]
struct Record<'a> {
    id: String,
    reverse_path: &'a str,
    recipients: Vec<&'a str>,
    /// Seconds since 1970, to the millisecond.
    received: f64,
    attempt: u32,
    smtputf8: bool,
    eight_bit_mime: bool,
}

impl Settings for Config {
    fn connect(&self, name: ProviderName, _: &Context) -> Result<Connected, SettingsError> {
        if self.directory.as_os_str().is_empty() {
            return Err(SettingsError::new("directory", "an empty path; expected a directory that may be written to"));
        }
        if self.directory.exists() && !self.directory.is_dir() {
            return Err(SettingsError::new("directory", format!("{} is no directory", self.directory.display())));
        }
        Ok(Connected { name, default_concurrency: 20, provider: Arc::new(Capture { directory: self.directory.clone() }) })
    }

    fn limits(&self) -> &LimitSettings {
        &self.limits
    }

    fn rewrite(&self) -> Option<&Rewrite> {
        self.rewrite.as_ref()
    }

    fn kind_capabilities() -> Capabilities {
        Capabilities::EVERYTHING
    }

    fn destination(&self) -> String {
        format!("file://{}", self.directory.display())
    }
}

impl Capture {
    async fn write(&self, attempt: &Attempt, body: BodyReader) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.directory).await?;
        let id = attempt.message.id;
        // A name of its own for each handover, so that two at the same time stay apart.
        let scratch = self.directory.join(format!(".{id}.{}.tmp", uuid::Uuid::now_v7().simple()));
        let path = self.directory.join(format!("{id}.eml"));
        let written = self.write_files(attempt, body, &scratch, &path).await;
        if written.is_err() {
            // Nothing half written stays. That this fails, too, changes nothing about the verdict.
            let _ = fs::remove_file(&scratch).await;
        }
        written.map(|()| path)
    }

    async fn write_files(&self, attempt: &Attempt, mut body: BodyReader, scratch: &Path, path: &Path) -> io::Result<()> {
        let mut file = fs::File::create(scratch).await?;
        while let Some(piece) = body.chunk().await? {
            file.write_all(&piece).await?;
        }
        file.flush().await?;
        drop(file);
        // The same bytes whenever the message comes, so it does not matter which handover wrote them.
        fs::rename(scratch, path).await?;

        let record = serde_json::to_vec_pretty(&Record::of(attempt)).map_err(io::Error::other)?;
        fs::write(scratch, record).await?;
        for nth in 1_u32.. {
            let name = if nth == 1 { format!("{}.json", attempt.message.id) } else { format!("{}.{nth}.json", attempt.message.id) };
            // A link, because a rename would overwrite the record of another handover.
            match fs::hard_link(scratch, self.directory.join(name)).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => {
                    linked?;
                    break;
                }
            }
        }
        fs::remove_file(scratch).await
    }

    fn unavailable(&self, error: &io::Error) -> Failure {
        Failure::Unavailable(Diagnostic::during("capture", format!("cannot write to {}: {error}", self.directory.display())))
    }
}

impl<'a> Record<'a> {
    fn of(attempt: &'a Attempt) -> Self {
        let message = &attempt.message;
        let received = message.received.duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: message.id.to_string(),
            reverse_path: message.envelope.reverse_path.as_str(),
            recipients: attempt.recipients().map(|(_, recipient)| recipient.address.as_str()).collect(),
            received: received.as_secs() as f64 + f64::from(received.subsec_millis()) / 1000.0,
            attempt: attempt.number,
            smtputf8: message.envelope.smtputf8,
            eight_bit_mime: message.envelope.body_type == crate::contract::BodyType::EightBitMime,
        }
    }
}

impl Provider for Capture {
    fn capabilities(&self) -> Capabilities {
        Capabilities::EVERYTHING
    }

    async fn deliver(&self, attempt: Attempt) -> Delivery {
        let body = match attempt.message.body.open().await {
            Ok(body) => body,
            Err(error) => {
                let diagnostic = Diagnostic::local(format!("the message cannot be read from the spool: {error}"));
                return Ok(Report::uniform(&attempt.recipients, &Outcome::Deferred(diagnostic)));
            }
        };
        match tokio::time::timeout_at(attempt.deadline, self.write(&attempt, body)).await {
            Ok(Ok(path)) => {
                let receipt = Receipt { reply: format!("written to {}", path.display()), ..Receipt::default() };
                Ok(Report::uniform(&attempt.recipients, &Outcome::Relayed(receipt)))
            }
            Ok(Err(error)) => Err(self.unavailable(&error)),
            // The files may appear while nobody looks any more.
            Err(_) => {
                let text = format!("{} took too long", self.directory.display());
                Ok(Report::uniform(&attempt.recipients, &Outcome::InDoubt(Diagnostic::during("capture", text))))
            }
        }
    }

    async fn probe(&self) -> Result<Probed, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let path = self.directory.join(format!(".probe.{now}.tmp"));
        let tried = async {
            fs::create_dir_all(&self.directory).await?;
            fs::write(&path, b"x").await?;
            fs::remove_file(&path).await
        };
        tried.await.map(|()| Probed::default()).map_err(|error| self.unavailable(&error))
    }
}
