//! Dovecot: its submission service in front of another host, and its logins for Postfix.

#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::support::{free_port, program};

/// Who may log in.
pub enum Logins<'a> {
    /// Whoever has a token that is known at this URL.
    Tokens { introspection: &'a str },
    /// One user with this password.
    Password { user: &'a str, password: &'a str },
}

/// A running instance; stops when dropped.
pub struct Dovecot {
    child: Child,
    /// Of the submission service, with STARTTLS.
    pub port: u16,
    /// Of the service that tells Postfix who may log in.
    pub auth_port: u16,
    log: PathBuf,
}

impl Dovecot {
    /// Starts one that hands what it gets to `relay_port`. `directory` has `certificate.pem` and `key.pem`.
    pub fn start(directory: &Path, logins: &Logins<'_>, relay_port: u16) -> Self {
        let (port, auth_port) = (free_port(), free_port());
        // Its own users must find their way in.
        for folder in directory.ancestors().take_while(|folder| *folder != std::env::temp_dir()) {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let home = directory.join("home");
        fs::create_dir_all(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        let log = directory.join("dovecot.log");
        let (shown, log_shown) = (directory.display(), log.display());
        let mut config = format!(
            "protocols = submission\nbase_dir = {shown}/run\nlog_path = {log_shown}\nlisten = 127.0.0.1\nhostname = dovecot.example\n\
             ssl = required\nssl_cert = <{shown}/certificate.pem\nssl_key = <{shown}/key.pem\nauth_debug = yes\n\
             mail_location = maildir:{shown}/home/mail\nuserdb {{\n  driver = static\n  args = uid=nobody gid=nogroup home={shown}/home\n}}\n\
             submission_relay_host = 127.0.0.1\nsubmission_relay_port = {relay_port}\n\
             service submission-login {{\n  inet_listener submission {{\n    port = {port}\n  }}\n}}\n\
             service auth {{\n  inet_listener {{\n    port = {auth_port}\n  }}\n}}\n"
        );
        match logins {
            Logins::Tokens { introspection } => {
                let oauth = format!(
                    "introspection_mode = auth\nintrospection_url = {introspection}\nforce_introspection = yes\n\
                     username_attribute = email\nactive_attribute = active\nactive_value = true\n"
                );
                fs::write(directory.join("oauth.conf"), oauth).unwrap();
                write!(
                    config,
                    "auth_mechanisms = xoauth2 oauthbearer\npassdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  \
                     args = {shown}/oauth.conf\n}}\n"
                )
                .unwrap();
            }
            Logins::Password { user, password } => {
                fs::write(directory.join("users"), format!("{user}:{{PLAIN}}{password}\n")).unwrap();
                fs::set_permissions(directory.join("users"), fs::Permissions::from_mode(0o644)).unwrap();
                write!(
                    config,
                    "auth_mechanisms = plain login\npassdb {{\n  driver = passwd-file\n  args = scheme=PLAIN {shown}/users\n}}\n"
                )
                .unwrap();
            }
        }
        let path = directory.join("dovecot.conf");
        fs::write(&path, config).unwrap();
        let child = Command::new(program("dovecot"))
            .args(["-F", "-c"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(directory.join("dovecot.err")).unwrap())
            .spawn()
            .unwrap();
        let mut dovecot = Self { child, port, auth_port, log };
        for _ in 0..6000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return dovecot;
            }
            assert!(dovecot.child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(directory.join("dovecot.err")).unwrap());
            #[expect(clippy::disallowed_methods, reason = "waits for another process, which says nothing when it is ready")]
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("Dovecot does not listen: {}", dovecot.said());
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // So that it ends its own processes, too.
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// Writes `certificate.pem`, which is its own authority, and `key.pem`.
pub fn certify(directory: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs::write(directory.join("certificate.pem"), made.cert.pem()).unwrap();
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}
