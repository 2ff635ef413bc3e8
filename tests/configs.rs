//! Config files and what is said about them: the samples load, and each broken file gets its exact message.
//!
//! `UPDATE_EXPECTED=1 cargo test --test configs` writes the messages anew; read each before it is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test may end the test")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use postrider::config::{Config, Secrets, summary, summary_json};
use postrider_providers::Providers;
use postrider_providers::registry::Context;

/// Certificates for the files that name some, made anew; the tests run in their folder, so that
/// messages do not depend on where that is.
static CERTIFICATES: LazyLock<()> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("configs");
    std::fs::create_dir_all(&folder).unwrap();
    let make = || rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    std::fs::write(folder.join("cert.pem"), one.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), one.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("other-key.pem"), other.signing_key.serialize_pem()).unwrap();
    for (name, from, to) in [("expired", 2019, 2020), ("future", 2998, 2999)] {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["relay.example".to_owned(), "*.corp.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 3, 1);
        params.not_after = rcgen::date_time_ymd(to, 3, 1);
        std::fs::write(folder.join(format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(folder.join(format!("{name}-key.pem")), key.serialize_pem()).unwrap();
    }
    let lines = "# names\nscanner:$apr1$hunter2$hunter2\nkiosk:{SHA}hunter2\nold:hunter2hunter\nnobody\n";
    std::fs::write(folder.join("passwords"), lines).unwrap();
    std::env::set_current_dir(folder).unwrap();
});

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files of `folder` with this extension, by name.
fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

/// Compares what is said about each file of `folder` with the `.expected` beside it.
fn compare(folder: &str, at_least: usize, say: impl Fn(&str, &Path) -> String) {
    LazyLock::force(&CERTIFICATES);
    let files = files(folder, "toml");
    assert!(files.len() >= at_least, "only {} files in {folder}", files.len());
    let mut differences = String::new();
    for file in files {
        let name = Path::new(file.file_name().unwrap());
        let said = say(&std::fs::read_to_string(&file).unwrap(), name) + "\n";
        assert!(!said.contains("hunter2") && !said.contains("12345"), "{} shows a secret:\n{said}", name.display());
        let expected_path = file.with_extension("expected");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            std::fs::write(&expected_path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&expected_path).unwrap_or_default();
        if said != expected {
            writeln!(differences, "=== {} says\n{said}\n--- but was to say\n{expected}", name.display()).unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

// Some messages list the kinds of provider that the build has.
#[cfg(feature = "ses")]
#[test]
fn each_broken_file_gets_its_message() {
    compare("tests/configs/bad", 50, |text, name| match Config::parse(text, name, Secrets::Read) {
        Ok(_) => panic!("{} was taken for good", name.display()),
        Err(errors) => errors.to_string(),
    });
}

#[test]
fn each_doubtful_file_gets_its_warnings() {
    compare("tests/configs/doubtful", 3, |text, name| match Config::parse(text, name, Secrets::Read) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n"),
        Err(errors) => panic!("{} was refused:\n{errors}", name.display()),
    });
}

#[test]
fn each_provider_that_cannot_work_is_drawn_at_its_setting() {
    let context = Context::new("relay.example").unwrap();
    compare("tests/configs/unusable", 3, |text, name| {
        let (config, _) =
            Config::parse(text, name, Secrets::Read).unwrap_or_else(|errors| panic!("{} was refused:\n{errors}", name.display()));
        config.connect(&context).expect_err("a provider that cannot work").to_string()
    });
}

#[test]
fn every_expected_text_belongs_to_a_file() {
    for folder in ["tests/configs/bad", "tests/configs/doubtful", "tests/configs/unusable"] {
        for expected in files(folder, "expected") {
            assert!(expected.with_extension("toml").exists(), "{} is left over", expected.display());
        }
    }
}

#[test]
fn a_certificate_with_its_own_key_is_fine() {
    LazyLock::force(&CERTIFICATES);
    let text = "[server]\nhostname = \"relay.example\"\n[[listener]]\nbind = \"127.0.0.1:0\"\ntls = \"starttls\"\ncertificate = \"cert.pem\"\n\
                private_key = \"key.pem\"\n\n[provider.smarthost.x]\nhost = \"smtp.example.net\"\n";
    let (config, warnings) = Config::parse(text, Path::new("x.toml"), Secrets::Read).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(warnings.is_empty(), "{}", warnings[0]);
    assert_eq!(config.listeners[0].certificates[0].private_key, Path::new("key.pem"));
}

#[test]
fn every_sample_loads_without_a_warning() {
    let samples = files("config", "toml");
    let names: Vec<&str> = samples.iter().map(|path| path.file_stem().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["applications", "failover", "minimal", "per-domain", "postrider"]);
    for sample in &samples {
        let text = std::fs::read_to_string(sample).unwrap();
        if cfg!(not(feature = "ses")) && text.contains("\n[provider.ses.") {
            continue;
        }
        let (config, warnings) = Config::parse(&text, sample, Secrets::Skip).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(warnings.is_empty(), "{}", warnings[0]);
        assert!(!config.routes.is_empty() && !config.listeners.is_empty());
    }
}

/// The samples of single kinds, by kind.
fn kinds() -> Vec<(String, PathBuf)> {
    let samples = files("config/providers", "toml").into_iter();
    samples.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect()
}

#[test]
fn the_sample_of_each_kind_loads_and_has_a_provider_of_it() {
    for (kind, path) in kinds() {
        if kind == "ses" && cfg!(not(feature = "ses")) {
            continue;
        }
        assert!(Providers::KINDS.contains(&&*kind), "{kind} is no kind");
        let text = std::fs::read_to_string(&path).unwrap();
        let (config, warnings) = Config::parse(&text, &path, Secrets::Skip).unwrap_or_else(|errors| panic!("{errors}"));
        assert!(warnings.is_empty(), "{}", warnings[0]);
        assert!(config.providers.iter().any(|provider| provider.name.as_str().starts_with(&format!("{kind}."))), "{kind}");
        assert!(!config.routes.is_empty() && !config.listeners.is_empty(), "{kind}");
    }
}

#[test]
fn every_kind_has_a_sample() {
    let samples = kinds();
    let missing: Vec<&&str> = Providers::KINDS.iter().filter(|kind| !samples.iter().any(|(sample, _)| sample == **kind)).collect();
    assert!(missing.is_empty(), "config/providers/ has no sample of {missing:?}");
}

#[test]
fn the_full_sample_writes_down_the_defaults() {
    let defaults = "[provider.smarthost.office]\nhost = \"smtp.example.net\"\n";
    let (defaults, _) = Config::parse(defaults, Path::new("defaults.toml"), Secrets::Skip).unwrap();
    let sample = std::fs::read_to_string(repository("config/postrider.toml")).unwrap();
    let (full, _) = Config::parse(&sample, Path::new("postrider.toml"), Secrets::Skip).unwrap();
    assert_eq!(full.listeners, defaults.listeners);
    assert_eq!(full.access, defaults.access);
    assert_eq!(full.server.data_dir, defaults.server.data_dir);
    assert_eq!(full.queue, defaults.queue);
    assert_eq!(full.failover, defaults.failover);
    assert_eq!(full.log, defaults.log);
    let options = |text: &str| {
        let lines = text.lines().map(|line| line.trim_start_matches(['#', ' ']));
        lines.filter_map(|line| line.split_once(" = ")).map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
    };
    let written = options(&sample);
    for option in [
        "hostname",
        "certificate",
        "more_certificates",
        "bare_newline",
        "ca_file",
        "idle_timeout",
        "max_messages_per_connection",
        "secret_access_key",
        "directory",
        "when",
        "raw_only",
        "break_signatures",
        "rewrite",
        "per_sending_domain",
        "inline_max",
        "password_file",
        "password",
        "networks",
        "senders",
        "owner",
        "disabled",
        "long_lines",
    ] {
        assert!(written.iter().any(|key| key == option), "{option} is not in config/postrider.toml");
    }
}

#[cfg(not(feature = "ses"))]
#[test]
fn a_kind_that_was_left_out_of_the_build_is_named() {
    let text = std::fs::read_to_string(repository("config/failover.toml")).unwrap();
    let error = Config::parse(&text, Path::new("failover.toml"), Secrets::Skip).unwrap_err();
    assert!(error.to_string().contains("this build lacks the `ses` feature"), "{error}");
    assert_eq!(error.count(), 1, "{error}");
}

#[test]
fn a_summary_says_what_would_run_and_no_secret() {
    let text = std::fs::read_to_string(repository("tests/configs/summary.toml")).unwrap();
    let (config, _) = Config::parse(&text, Path::new("summary.toml"), Secrets::Skip).unwrap_or_else(|errors| panic!("{errors}"));
    let said = format!("{}\n{:#}\n", summary(&config), summary_json(&config));
    assert!(!said.contains("hunter2"));
    let expected_path = repository("tests/configs/summary.expected");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&expected_path, &said).unwrap();
    }
    assert_eq!(said, std::fs::read_to_string(expected_path).unwrap_or_default());
}

#[test]
fn a_missing_file_says_where_it_was_looked_for_and_how_to_name_another() {
    let error = Config::load(Path::new("/no/such/postrider.toml")).unwrap_err().to_string();
    assert!(error.contains("/no/such/postrider.toml"), "{error}");
    assert!(error.contains("--config FILE") && error.contains("POSTRIDER_CONFIG"), "{error}");
}

#[test]
fn a_file_that_is_no_text_says_at_which_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postrider.toml");
    std::fs::write(&path, b"[server]\nhostname = \"r\xe9lais\"\n").unwrap();
    let error = Config::load(&path).unwrap_err().to_string();
    assert!(error.contains("not UTF-8: line 2"), "{error}");
}

/// The full sample with a password in it, and how an administrator's slip changes it.
fn damaged(cuts: &[(usize, usize)], inserts: &[(usize, String)]) -> String {
    let sample = std::fs::read_to_string(repository("config/postrider.toml")).unwrap();
    let text = sample.replace("# password = { env = \"OFFICE_PASSWORD\" }", "password = \"hunter2\"");
    let mut characters: Vec<char> = text.chars().collect();
    for &(at, length) in cuts {
        let at = at % characters.len();
        let end = (at + length).min(characters.len());
        // The password itself and its key stay, so that whatever shows it is found.
        let cut: String = characters[at.saturating_sub(16)..(end + 16).min(characters.len())].iter().collect();
        if !cut.contains("hunter2") && !cut.contains("password") {
            characters.drain(at..end);
        }
    }
    for (at, text) in inserts {
        let at = at % (characters.len() + 1);
        characters.splice(at..at, text.chars());
    }
    characters.into_iter().collect()
}

proptest::proptest! {
    #[test]
    fn no_damage_to_a_file_causes_a_panic_or_shows_its_secret(
        cuts in proptest::collection::vec((0usize..8000, 1usize..40), 0..4),
        inserts in proptest::collection::vec((0usize..8000, "[\\[\\]{}=\"'#,.\n a-z0-9é-]{1,6}"), 0..4),
    ) {
        let text = damaged(&cuts, &inserts);
        let key_is_whole = text.contains("\npassword = \"hunter2\"");
        let said = match Config::parse(&text, Path::new("damaged.toml"), Secrets::Skip) {
            Ok((config, warnings)) => format!("{}{warnings:?}{:?}", summary(&config), config.providers),
            Err(errors) => errors.to_string(),
        };
        proptest::prop_assert!(!key_is_whole || !said.contains("hunter2"), "{text}\n{said}");
    }

    #[test]
    fn no_text_causes_a_panic(text in "\\PC{0,200}|[\\[\\]{}=\"'#,.\n a-z0-9é-]{0,200}") {
        if let Err(errors) = Config::parse(&text, Path::new("any.toml"), Secrets::Skip) {
            proptest::prop_assert!(errors.count() > 0 && !errors.render(true).is_empty());
        }
    }
}

#[test]
fn accounts_of_one_service_are_told_apart_by_keys_that_stand_in_the_file() {
    let with = |keys: [&str; 2]| {
        let [one, two] = keys.map(|key| format!("api_key = \"{key}\"\n"));
        format!(
            "[provider.sendgrid.one]\n{one}[provider.sendgrid.two]\n{two}[[route]]\nname = \"all\"\nproviders = [\"sendgrid.one\", \"sendgrid.two\"]\n"
        )
    };
    assert!(Config::parse(&with(["SG.a", "SG.b"]), Path::new("test.toml"), Secrets::Skip).is_ok());
    let Err(errors) = Config::parse(&with(["SG.a", "SG.a"]), Path::new("test.toml"), Secrets::Skip) else { panic!("one account twice") };
    assert!(errors.to_string().contains("are the same provider") && !errors.to_string().contains("SG.a"), "{errors}");
}
