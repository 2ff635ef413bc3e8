//! Values as they are written in the config file: durations, sizes, rates, secrets.
//!
//! Each deserialises from the text that people write (`"30s"`, `"25MiB"`, `"30/min"`) and says what
//! was expected when it cannot.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A duration such as `"500ms"`, `"30s"`, `"5m"`, `"1h30m"`, `"2d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a duration such as \"500ms\", \"30s\", \"5m\", \"1h30m\" or \"2d\"";
        let mut total = Duration::ZERO;
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(EXPECTED);
        }
        while !rest.is_empty() {
            let (number, tail) = split_number(rest).ok_or(EXPECTED)?;
            let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(unit_len);
            let millis = match unit {
                "ms" => 1,
                "s" | "sec" => 1000,
                "m" | "min" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                "w" => 7 * 86_400_000,
                _ => return Err(EXPECTED),
            };
            let part = number.checked_mul(millis).ok_or(EXPECTED)?;
            total = total.checked_add(Duration::from_millis(part)).ok_or(EXPECTED)?;
            rest = tail.trim_start();
        }
        // A century: far beyond any use, and far from overflowing a clock.
        if total > Duration::from_secs(100 * 366 * 86_400) { Err(EXPECTED) } else { Ok(Self(total)) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = self.0.as_millis();
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

/// A size in octets such as `"25MiB"`, `"256KiB"`, `"40MB"` or `1024`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a size such as \"25MiB\", \"256KiB\" or \"40MB\"";
        let (number, unit) = split_number(text.trim()).ok_or(EXPECTED)?;
        let factor: u64 = match unit.trim() {
            "" | "B" => 1,
            "KB" | "kB" => 1000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            _ => return Err(EXPECTED),
        };
        number.checked_mul(factor).map(Self).ok_or(EXPECTED)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= size && self.0.is_multiple_of(size) {
                return write!(f, "{}{unit}", self.0 / size);
            }
        }
        write!(f, "{}B", self.0)
    }
}

/// What a rate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Messages, however many recipients each has.
    Messages,
    /// Recipients, as most providers' quotas do.
    Recipients,
}

/// A rate such as `"30/min"`, `"14/s"`, `"10000 recipients/day"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many pass in one period; at least 1.
    pub count: u32,
    /// Of what.
    pub counted: Counted,
    /// The period.
    pub period: Duration,
}

impl FromStr for Rate {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "a rate such as \"30/min\", \"14/s\" or \"10000 recipients/day\", of at least 1";
        let (amount, period) = text.split_once('/').ok_or(EXPECTED)?;
        let (number, unit) = split_number(amount.trim()).ok_or(EXPECTED)?;
        let count = u32::try_from(number).ok().filter(|&count| count > 0).ok_or(EXPECTED)?;
        let counted = match unit.trim() {
            "" | "message" | "messages" => Counted::Messages,
            "recipient" | "recipients" => Counted::Recipients,
            _ => return Err(EXPECTED),
        };
        let seconds = match period.trim() {
            "s" | "sec" | "second" => 1,
            "m" | "min" | "minute" => 60,
            "h" | "hour" => 3600,
            "d" | "day" => 86_400,
            _ => return Err(EXPECTED),
        };
        Ok(Self { count, counted, period: Duration::from_secs(seconds) })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = match self.counted {
            Counted::Messages => "",
            Counted::Recipients => " recipients",
        };
        let period = match self.period.as_secs() {
            1 => "s",
            60 => "min",
            3600 => "hour",
            _ => "day",
        };
        write!(f, "{}{counted}/{period}", self.count)
    }
}

/// Splits the leading decimal digits off; `None` without any, or past 64 bits.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// Deserialises a `FromStr` value from a TOML string, or from a bare number where that has a meaning.
struct TextVisitor<T>(PhantomData<T>, &'static str);

impl<T: FromStr<Err = &'static str>> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(|expected| E::invalid_value(de::Unexpected::Str(text), &expected))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        number.to_string().parse().map_err(|expected| E::invalid_value(de::Unexpected::Signed(number), &expected))
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData, "a duration such as \"30s\", \"5m\" or \"2d\""))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData, "a size such as \"25MiB\" or \"256KiB\""))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor(PhantomData, "a rate such as \"30/min\" or \"10000 recipients/day\""))
    }
}

/// Where a secret comes from: the text itself, `{ env = "NAME" }`, or `{ file = "/path" }`.
///
/// Its `Debug` never shows the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// Written in the config itself.
    Literal(String),
    /// In an environment variable.
    Env(String),
    /// In a file, without its final line end.
    File(PathBuf),
}

/// Tells whether secrets are what they were, without keeping them: only one of the same process can be
/// compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Witness(u64);

thread_local! {
    /// What has been read of secrets on this thread, while somebody wants to know.
    static READ: std::cell::RefCell<Option<std::hash::DefaultHasher>> = const { std::cell::RefCell::new(None) };
}

impl Witness {
    /// Does `work`, and says what secrets it has read.
    pub fn of<T>(work: impl FnOnce() -> T) -> (T, Self) {
        static KEYS: std::sync::LazyLock<std::hash::RandomState> = std::sync::LazyLock::new(std::hash::RandomState::new);
        let outer = READ.replace(Some(std::hash::BuildHasher::build_hasher(&*KEYS)));
        let result = work();
        let read = READ.replace(outer).map(|hasher| std::hash::Hasher::finish(&hasher));
        (result, Self(read.unwrap_or_default()))
    }

    /// Counts what is in a file among the secrets that were read.
    pub fn note_file(path: &std::path::Path) {
        if let Ok(octets) = std::fs::read(path) {
            Self::note(&octets);
        }
    }

    fn note(secret: &[u8]) {
        READ.with_borrow_mut(|read| {
            if let Some(read) = read {
                std::hash::Hash::hash(secret, read);
            }
        });
    }
}

impl Secret {
    /// Reads the secret's text.
    ///
    /// # Errors
    /// Says which variable or file is missing, empty or unreadable; never what was in it.
    pub fn read(&self) -> Result<String, String> {
        let read = self.look_up();
        if let Ok(text) = &read {
            Witness::note(text.as_bytes());
        }
        read
    }

    fn look_up(&self) -> Result<String, String> {
        match self {
            Self::Literal(text) => Ok(text.clone()),
            Self::Env(name) => match std::env::var(name) {
                Ok(text) if text.is_empty() => Err(format!("the environment variable {name} is empty")),
                Ok(text) => Ok(text),
                Err(std::env::VarError::NotPresent) => Err(format!("the environment variable {name} is not set")),
                Err(std::env::VarError::NotUnicode(_)) => Err(format!("the environment variable {name} is not UTF-8")),
            },
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
                let text = text.trim_end_matches(['\r', '\n']);
                if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(text.to_owned()) }
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str("Secret(***)"),
            Self::Env(name) => write!(f, "Secret(env {name})"),
            Self::File(path) => write!(f, "Secret(file {})", path.display()),
        }
    }
}

/// What is said of a secret that stands in the config itself.
pub const WRITTEN_OUT: &str = "in the config";

/// Where the secret comes from, for people: `API key from SENDGRID_API_KEY`.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(_) => f.write_str(WRITTEN_OUT),
            Self::Env(name) => write!(f, "from {name}"),
            Self::File(path) => write!(f, "from {}", path.display()),
        }
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SecretVisitor;

        impl<'de> Visitor<'de> for SecretVisitor {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, { env = \"NAME\" } or { file = \"/path\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Secret, E> {
                Ok(Secret::Literal(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secret, A::Error> {
                let Some(key) = map.next_key::<String>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                let secret = match key.as_str() {
                    "env" => Secret::Env(map.next_value()?),
                    "file" => Secret::File(map.next_value()?),
                    other => return Err(de::Error::unknown_field(other, &["env", "file"])),
                };
                match map.next_key::<String>()? {
                    None => Ok(secret),
                    Some(extra) => Err(de::Error::custom(format!("`{extra}` beside `{key}`: a secret has one source"))),
                }
            }
        }

        deserializer.deserialize_any(SecretVisitor)
    }
}

/// Budgets per hour or day, all of which hold: one rate, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Quotas(Vec<Rate>);

impl From<Option<Rate>> for Quotas {
    fn from(quota: Option<Rate>) -> Self {
        Self(quota.into_iter().collect())
    }
}

impl From<Vec<Rate>> for Quotas {
    fn from(quotas: Vec<Rate>) -> Self {
        Self(quotas)
    }
}

impl Quotas {
    /// As they are told to people, without brackets; `None` without any.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl std::ops::Deref for Quotas {
    type Target = [Rate];

    fn deref(&self) -> &[Rate] {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Quotas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct QuotasVisitor;

        impl<'de> Visitor<'de> for QuotasVisitor {
            type Value = Quotas;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rate such as \"10000 recipients/day\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quotas, E> {
                text.parse().map(|rate| Quotas(vec![rate])).map_err(|expected| E::invalid_value(de::Unexpected::Str(text), &expected))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Quotas, A::Error> {
                let mut quotas = Vec::new();
                while let Some(quota) = list.next_element()? {
                    quotas.push(quota);
                }
                Ok(Quotas(quotas))
            }
        }

        deserializer.deserialize_any(QuotasVisitor)
    }
}

/// `[provider.<kind>.<name>.limits]`: what the administrator or the provider allows.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Handovers per period, evenly spread.
    pub rate: Option<Rate>,
    /// How many of the rate go at once after a pause; by default a tenth of a second's worth.
    pub burst: Option<u32>,
    /// Budgets per hour or day, each of which may be used up at once.
    pub quota: Quotas,
    /// The rate of each sending domain at this provider.
    pub per_sending_domain: Option<Rate>,
    /// Handovers at the same time.
    pub concurrency: Option<u32>,
}

impl LimitSettings {
    /// These, and `defaults` for what they leave open.
    #[must_use]
    pub fn or(&self, defaults: &Self) -> Self {
        Self {
            rate: self.rate.or(defaults.rate),
            burst: self.burst.or(defaults.burst),
            quota: if self.quota.is_empty() { defaults.quota.clone() } else { self.quota.clone() },
            per_sending_domain: self.per_sending_domain.or(defaults.per_sending_domain),
            concurrency: self.concurrency.or(defaults.concurrency),
        }
    }
}

/// `[provider.<kind>.<name>.rewrite]` and `[route.rewrite]`: in whose name mail is handed over, where
/// a provider takes it from verified senders only.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// The address that From gets; the display name is kept. The old From goes to Reply-To, unless there
    /// is one.
    pub from: Option<String>,
    /// The envelope sender. The null reverse-path stays null.
    pub envelope: Option<String>,
    /// Senders that stay as they are: addresses, and whole domains as in `"@corp.example"`.
    #[serde(default)]
    pub except: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read_and_printed_back() {
        for (text, millis) in [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h30m", 5_400_000), ("2d", 172_800_000)] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_millis(), span.to_string().as_str()), (millis, text));
        }
        for (text, octets) in [("25MiB", 25 << 20), ("256KiB", 256 << 10), ("40MB", 40_000_000), ("1024", 1024)] {
            assert_eq!(text.parse::<Size>().unwrap().0, octets);
        }
        for text in ["30/min", "14/s", "10000 recipients/day", "100/hour"] {
            assert_eq!(text.parse::<Rate>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_unit_is_refused() {
        for text in ["", "5", "5x", "s", "-5s", "99999999999999999999s", "9999999w", "5s x"] {
            assert!(text.parse::<Span>().is_err(), "{text:?}");
        }
        for text in ["", "MiB", "5 mib", "99999999999999999999", "18446744073709551615GiB"] {
            assert!(text.parse::<Size>().is_err(), "{text:?}");
        }
        for text in ["", "30", "30/", "/min", "0/s", "30/fortnight", "30 mails/min", "99999999999/s"] {
            assert!(text.parse::<Rate>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_secret_is_never_shown() {
        assert_eq!(format!("{:?}", Secret::Literal("hunter2".into())), "Secret(***)");
    }
}
