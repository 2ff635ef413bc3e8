//! Postfix as a smart host: relays for those who log in under STARTTLS, and hands all of it to one host.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::support::{free_port, program};

/// A running instance; stops when dropped.
pub struct Postfix {
    config: PathBuf,
    /// With STARTTLS.
    pub port: u16,
}

impl Postfix {
    /// Starts one that asks Dovecot on `auth_port` about logins and relays to `relay_port`. `directory` has
    /// `certificate.pem` and `key.pem`, and lets every user through.
    pub fn start(directory: &Path, auth_port: u16, relay_port: u16) -> Self {
        let port = free_port();
        let config = directory.join("postfix");
        let (queue, data) = (config.join("queue"), config.join("data"));
        fs::create_dir_all(&queue).unwrap();
        fs::create_dir_all(&data).unwrap();
        assert!(Command::new("chown").arg("postfix").arg(&data).status().unwrap().success(), "only root can start Postfix");
        let (shown, queue, data) = (directory.display(), queue.display(), data.display());
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {queue}\ndata_directory = {data}\nmaillog_file = {shown}/postfix/log\n\
             maillog_file_prefixes = /\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = postfix.example\nmydestination =\n\
             mynetworks =\nalias_maps =\nlocal_recipient_maps =\nrelayhost = [127.0.0.1]:{relay_port}\nsmtp_tls_security_level = none\n\
             smtpd_tls_security_level = may\nsmtpd_tls_auth_only = yes\nsmtpd_tls_cert_file = {shown}/certificate.pem\n\
             smtpd_tls_key_file = {shown}/key.pem\nsmtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\n\
             smtpd_sasl_path = inet:127.0.0.1:{auth_port}\nsmtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination\n"
        );
        fs::write(config.join("main.cf"), main).unwrap();
        let service = |name: &str, kind: &str, private: &str, wakeup: &str, limit: &str, command: &str| {
            format!("{name} {kind} {private} - n {wakeup} {limit} {command}\n")
        };
        let master = service(&format!("127.0.0.1:{port}"), "inet", "n", "-", "-", "smtpd")
            + &service("pickup", "unix", "n", "60", "1", "pickup")
            + &service("cleanup", "unix", "n", "-", "0", "cleanup")
            + &service("qmgr", "unix", "n", "300", "1", "qmgr")
            + &service("tlsmgr", "unix", "-", "1000?", "1", "tlsmgr")
            + &service("rewrite", "unix", "-", "-", "-", "trivial-rewrite")
            + &service("bounce", "unix", "-", "-", "0", "bounce")
            + &service("defer", "unix", "-", "-", "0", "bounce")
            + &service("trace", "unix", "-", "-", "0", "bounce")
            + &service("smtp", "unix", "-", "-", "-", "smtp")
            + &service("relay", "unix", "-", "-", "-", "smtp")
            + &service("error", "unix", "-", "-", "-", "error")
            + &service("retry", "unix", "-", "-", "-", "error")
            + &service("anvil", "unix", "-", "-", "1", "anvil")
            + &service("proxymap", "unix", "-", "-", "-", "proxymap")
            + &service("scache", "unix", "-", "-", "1", "scache")
            + &service("postlog", "unix-dgram", "n", "-", "1", "postlogd");
        fs::write(config.join("master.cf"), master).unwrap();
        let postfix = Self { config, port };
        let started = postfix.ask("start");
        for _ in 0..6000 {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                return postfix;
            }
            #[expect(clippy::disallowed_methods, reason = "waits for another process, which says nothing when it is ready")]
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("Postfix does not listen: {started}\n{}", postfix.said());
    }

    /// What it has logged.
    pub fn said(&self) -> String {
        fs::read_to_string(self.config.join("log")).unwrap_or_default()
    }

    fn ask(&self, what: &str) -> String {
        let output = Command::new(program("postfix")).arg("-c").arg(&self.config).arg(what).output().unwrap();
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.ask("stop");
    }
}
