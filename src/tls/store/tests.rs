//! Files that change, as certificates are renewed.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A folder with one certificate and its key.
struct Files {
    folder: TempDir,
    files: CertificateFiles,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |file: &str| folder.path().join(file);
        let files = CertificateFiles { certificate: path("cert.pem"), private_key: path("key.pem") };
        let made = Self { files, folder };
        made.replace(name);
        made
    }

    /// Puts another certificate in place, as renewal programs do: beside it, and then renamed.
    fn replace(&self, name: &str) {
        let (certificate, key) = make(name);
        self.rename(&self.files.certificate, &certificate);
        self.rename(&self.files.private_key, &key);
    }

    fn rename(&self, to: &PathBuf, content: &str) {
        let beside = self.folder.path().join("new");
        fs::write(&beside, content).unwrap();
        fs::rename(beside, to).unwrap();
    }
}

/// A certificate that expires in March 2027, and its key; PEM.
fn make(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2026, 3, 1);
    params.not_after = rcgen::date_time_ymd(2027, 3, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn at(year: i32, month: u8, day: u8) -> SystemTime {
    rcgen::date_time_ymd(year, month, day).into()
}

fn store(files: &CertificateFiles) -> CertificateStore {
    let store = CertificateStore::new(Clock::system());
    store.listener(std::slice::from_ref(files)).unwrap();
    store
}

impl CertificateStore {
    fn names(&self) -> Vec<String> {
        self.slots.lock().iter().map(|slot| slot.current().named()).collect()
    }

    /// What was found, and whether it was said that it is no good.
    fn found(&self, asked: bool) -> (Looked, bool) {
        (self.look(asked), self.slots.lock()[0].watched.lock().bad.is_some_and(|(_, said)| said))
    }
}

const UNCHANGED: Looked = Looked { taken: 0, unchanged: 1, bad: 0 };
const TAKEN: Looked = Looked { taken: 1, unchanged: 0, bad: 0 };
const BAD: Looked = Looked { taken: 0, unchanged: 0, bad: 1 };

#[test]
fn a_certificate_that_was_replaced_is_taken_once() {
    let files = Files::new("old.example");
    let store = store(&files.files);
    assert_eq!(store.look(false), UNCHANGED);
    files.replace("new.example");
    assert_eq!((store.look(false), store.names()), (TAKEN, vec!["new.example".to_owned()]));
    assert_eq!(store.look(false), UNCHANGED);
    assert_eq!(store.look(true), UNCHANGED);
}

#[test]
fn a_bad_one_is_said_once_and_the_old_one_stays() {
    let files = Files::new("old.example");
    let store = store(&files.files);
    files.rename(&files.files.certificate, "-----BEGIN CERTIFICATE-----\nnonsense\n");
    assert_eq!(store.found(false), (BAD, false), "somebody may be writing the other file just now");
    assert_eq!(store.found(false), (BAD, true));
    // From here on the file is not even read: it says nothing again.
    assert_eq!(store.found(false), (BAD, true));
    assert_eq!(store.names(), ["old.example"]);
    files.replace("new.example");
    assert_eq!(store.found(false), (TAKEN, false));
    assert_eq!(store.names(), ["new.example"]);
}

#[test]
fn who_asks_is_told_at_once() {
    let files = Files::new("old.example");
    let store = store(&files.files);
    fs::remove_file(&files.files.private_key).unwrap();
    assert_eq!(store.found(true), (BAD, true));
    assert_eq!(store.names(), ["old.example"]);
}

#[test]
fn a_certificate_whose_key_comes_later_is_taken_when_it_has_come() {
    let files = Files::new("old.example");
    let store = store(&files.files);
    let (certificate, key) = make("new.example");
    files.rename(&files.files.certificate, &certificate);
    assert_eq!(store.found(false), (BAD, false));
    files.rename(&files.files.private_key, &key);
    assert_eq!(store.found(false), (TAKEN, false));
    assert_eq!(store.names(), ["new.example"]);
}

#[test]
fn a_link_that_leads_to_another_folder_is_a_change() {
    // As Kubernetes mounts secrets: the files are links through a link that is replaced.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for version in ["one", "two"] {
        fs::create_dir(path(version)).unwrap();
        let (certificate, key) = make(&format!("{version}.example"));
        fs::write(path(version).join("tls.crt"), certificate).unwrap();
        fs::write(path(version).join("tls.key"), key).unwrap();
    }
    let point = |version: &str| {
        std::os::unix::fs::symlink(version, path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
    };
    point("one");
    for file in ["tls.crt", "tls.key"] {
        std::os::unix::fs::symlink(format!("..data/{file}"), path(file)).unwrap();
    }
    let store = store(&CertificateFiles { certificate: path("tls.crt"), private_key: path("tls.key") });
    assert_eq!(store.names(), ["one.example"]);
    point("two");
    assert_eq!((store.look(false), store.names()), (TAKEN, vec!["two.example".to_owned()]));
}

#[test]
fn a_certificate_of_two_listeners_is_read_once() {
    let files = Files::new("one.example");
    let store = CertificateStore::new(Clock::system());
    for _ in 0..2 {
        store.listener(std::slice::from_ref(&files.files)).unwrap();
    }
    assert_eq!(store.look(false), UNCHANGED);
    let missing = CertificateFiles { certificate: "/no/such/cert.pem".into(), ..files.files.clone() };
    let error = store.listener(&[missing]).unwrap_err().to_string();
    assert_eq!(error, "/no/such/cert.pem: the certificate /no/such/cert.pem cannot be read: No such file or directory (os error 2)");
}

#[tokio::test(start_paused = true)]
async fn expiry_is_told_once_a_day_from_three_weeks_before() {
    let files = Files::new("one.example");
    let store = CertificateStore::new(Clock::following_tokio(at(2027, 2, 1)));
    store.listener(std::slice::from_ref(&files.files)).unwrap();
    let told = || store.slots.lock()[0].watched.lock().told.unwrap();
    let mut days = Vec::new();
    let mut last = told();
    // Until two days after its end, on March 1st.
    while store.clock.now() < at(2027, 3, 2) + DAY / 2 {
        tokio::time::advance(Duration::from_secs(600)).await;
        store.look(false);
        if told() != last {
            last = told();
            days.push(time::OffsetDateTime::from(last).date().to_string());
        }
    }
    assert_eq!(days.len(), 23, "{days:?}");
    assert_eq!((days[0].as_str(), days[22].as_str()), ("2027-02-08", "2027-03-02"));
}

#[tokio::test(start_paused = true)]
async fn the_watch_takes_a_new_certificate_by_itself() {
    let files = Files::new("old.example");
    let store = Arc::new(store(&files.files));
    let stop = CancellationToken::new();
    let watching = tokio::spawn(Arc::clone(&store).watch(stop.clone(), |_| {}));
    files.replace("new.example");
    tokio::time::sleep(PERIOD + Duration::from_secs(1)).await;
    while store.names() != ["new.example"] {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.cancel();
    watching.await.unwrap();
}
