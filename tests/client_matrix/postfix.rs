//! Postfix as a client: an instance of its own, which takes mail from here and relays all of it to
//! Postrider, by `relayhost`, with SASL and TLS as the cell wants.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::{free_port, program};
use super::{Feature, PASSWORD, Task, Tls, USER, clients};

/// A running instance; stops when dropped.
struct Postfix<'a> {
    config: &'a Path,
}

impl Drop for Postfix<'_> {
    fn drop(&mut self) {
        let _ = clients::run(Command::new(program("postfix")).arg("-c").arg(self.config).arg("stop"), b"");
    }
}

pub fn run(task: &Task) -> Result<String, String> {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(root, "Postfix can only be started by root; run this test as root, or in a container");
    let config = task.directory.join("postfix");
    let door = free_port();
    set_up(&config, task, door);
    clients::run(Command::new(program("postfix")).arg("-c").arg(&config).arg("start"), b"")?;
    let _running = Postfix { config: &config };
    for _ in 0..500 {
        if TcpStream::connect((Ipv4Addr::LOCALHOST, door)).is_ok() {
            break;
        }
        #[expect(clippy::disallowed_methods, reason = "waits for another process, which says nothing when it is ready")]
        std::thread::sleep(Duration::from_millis(10));
    }
    let submitted = serde_json::json!({
        "port": door, "tls": "off", "ca": task.ca, "mechanism": null, "from": task.from, "to": task.to, "file": task.file,
        "eight_bit": matches!(task.feature, Feature::EightBit | Feature::SmtpUtf8), "smtputf8": task.feature == Feature::SmtpUtf8,
    });
    clients::run(Command::new(program("python3")).args(["-c", include_str!("submit.py"), &submitted.to_string()]), b"")?;
    // Postfix has it now, and is a client from here on. Its log says how that went.
    let log = config.join("log");
    for _ in 0..3000 {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if ["status=deferred", "status=bounced", "fatal:"].iter().any(|trouble| said.contains(trouble)) {
            return Err(said);
        }
        if said.contains("status=sent") {
            return Ok(said);
        }
        #[expect(clippy::disallowed_methods, reason = "waits for another process, whose only sign is its log")]
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(fs::read_to_string(&log).unwrap_or_default())
}

fn set_up(config: &Path, task: &Task, door: u16) {
    // Everything on the way must let the `postfix` user through.
    for folder in config.ancestors().skip(1).take_while(|folder| *folder != std::env::temp_dir()) {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (queue, data) = (config.join("queue"), config.join("data"));
    fs::create_dir_all(&queue).unwrap();
    fs::create_dir_all(&data).unwrap();
    assert!(Command::new("chown").arg("postfix").arg(&data).status().unwrap().success());
    let mut main = format!(
        "compatibility_level = 3.6\nqueue_directory = {}\ndata_directory = {}\nmaillog_file = {}\nmaillog_file_prefixes = /\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmyhostname = postfix.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
         smtpd_relay_restrictions = permit_mynetworks, reject\nalias_maps =\nlocal_recipient_maps =\nmessage_size_limit = 0\n\
         mailbox_size_limit = 0\nrelayhost = [127.0.0.1]:{}\nsmtputf8_enable = yes\nsmtp_tls_CAfile = {}\nmaximal_backoff_time = 300s\n",
        queue.display(),
        data.display(),
        config.join("log").display(),
        task.port,
        task.ca.display(),
    );
    main += match task.feature.tls() {
        Tls::Off => "smtp_tls_security_level = none\n",
        Tls::Started => "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = hostname, localhost\n",
        Tls::Implicit => "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = hostname, localhost\nsmtp_tls_wrappermode = yes\n",
    };
    if let Some(mechanism) = task.feature.mechanism() {
        main += &format!(
            "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{} = {USER}:{PASSWORD} }} }}\n\
             smtp_sasl_security_options = noanonymous\nsmtp_sasl_tls_security_options = noanonymous\n\
             smtp_sasl_mechanism_filter = {}\n",
            task.port,
            mechanism.to_lowercase(),
        );
    }
    fs::write(config.join("main.cf"), main).unwrap();
    let service = |name: &str, kind: &str, private: &str, wakeup: &str, limit: &str, command: &str| {
        format!("{name} {kind} {private} - n {wakeup} {limit} {command}\n")
    };
    let master = service(&format!("127.0.0.1:{door}"), "inet", "n", "-", "-", "smtpd")
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
        + &service("proxymap", "unix", "-", "-", "-", "proxymap")
        + &service("scache", "unix", "-", "-", "1", "scache")
        + &service("postlog", "unix-dgram", "n", "-", "1", "postlogd");
    fs::write(config.join("master.cf"), master).unwrap();
}
