//! The real program, started as its users start it, and stopped when the test ends.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// `postrider serve`.
pub struct Postrider {
    child: Child,
    address: SocketAddr,
}

impl Postrider {
    /// Writes the config, starts the program, and waits until it says that it is ready.
    pub fn start(directory: &Path, config: &str) -> Self {
        Self::try_start(directory, config).unwrap_or_else(|log| panic!("postrider did not start:\n{log}"))
    }

    /// As [`Postrider::start`]; gives what it printed when it ended instead.
    pub fn try_start(directory: &Path, config: &str) -> Result<Self, String> {
        Self::try_start_with(directory, config, |_| ())
    }

    /// As [`Postrider::try_start`], with the command changed before its arguments are added.
    pub fn try_start_with(directory: &Path, config: &str, change: impl FnOnce(&mut Command)) -> Result<Self, String> {
        let path = directory.join("postrider.toml");
        std::fs::write(&path, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        change(&mut command);
        let mut child = command
            .args(["serve", "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (ready, is_ready) = mpsc::channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        let copy = std::fs::File::options().create(true).append(true).open(directory.join("postrider.log")).unwrap();
        // Reads until the program ends, so that it never waits for a reader.
        std::thread::spawn(move || {
            use std::io::Write as _;
            let mut copy = std::io::BufWriter::new(copy);
            let (mut address, mut start) = (None, String::new());
            for line in log.lines().map_while(Result::ok) {
                let _ = writeln!(copy, "{line}");
                if let Some(found) = line.split("address=").nth(1).filter(|_| line.contains("listening")) {
                    address = found.split_whitespace().next().and_then(|found| found.parse().ok());
                }
                start.push_str(&line);
                start.push('\n');
                if let Some(address) = address.filter(|_| line.contains("ready")) {
                    let _ = ready.send(Ok(address));
                    start.clear();
                }
                let _ = copy.flush();
            }
            let _ = ready.send(Err(start));
        });
        match is_ready.recv_timeout(Duration::from_secs(60)) {
            Ok(Ok(address)) => Ok(Self { child, address }),
            Ok(Err(log)) => {
                let status = child.wait().unwrap();
                Err(format!("{log}{status}"))
            }
            Err(_) => {
                let _ = child.kill();
                Err("it was not ready within a minute".to_owned())
            }
        }
    }

    /// Where it takes mail.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most memory that it has held so far, in octets (`VmHWM`).
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        peak.unwrap() * 1024
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// `kill -TERM`.
    pub fn ask_to_stop(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// `kill -HUP`.
    pub fn hang_up(&self) {
        let status = Command::new("kill").args(["-HUP", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// `kill -TERM`, and waits for its end.
    pub fn terminate(self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }
}

impl Drop for Postrider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
