//! A connection that keeps the server's reply to MAIL back until the client has sent RCPT. A client
//! that waits for each reply before the next command waits here for ever: who gets through pipelines.

use std::net::Ipv4Addr;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Withholding {
    port: u16,
    task: JoinHandle<()>,
}

impl Withholding {
    /// Begins to accept on a port of its own, in front of `server`.
    pub async fn start(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server));
            }
        });
        Self { port, task }
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Withholding {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(client: TcpStream, server: u16) {
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.unwrap();
    let ((mut from_client, mut to_client), (from_server, mut to_server)) = (client.into_split(), server.into_split());
    let (said, mut watching) = watch::channel((0usize, 0usize));
    let upwards = async move {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 4096]);
        while let Ok(count @ 1..) = from_client.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
            let times = |verb: &[u8]| all.windows(verb.len()).filter(|window| window.eq_ignore_ascii_case(verb)).count();
            said.send_replace((times(b"MAIL FROM:"), times(b"RCPT TO:")));
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let downwards = async move {
        let mut lines = BufReader::new(from_server);
        let mut line = Vec::new();
        while let Ok(1..) = lines.read_until(b'\n', &mut line).await {
            // The first reply after MAIL waits for RCPT.
            let ended = watching.wait_for(|&(mail, rcpt)| mail == 0 || rcpt > 0).await.is_err();
            if to_client.write_all(&line).await.is_err() || ended {
                break;
            }
            line.clear();
        }
    };
    tokio::join!(upwards, downwards);
}
